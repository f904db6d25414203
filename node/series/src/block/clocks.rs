//! Rows that several clocks gave: properties of a device that report on their own have times of their own, and which
//! rows have a value follows from these times.
//!
//! ```text
//! times      = 0x40 | number of clocks (varint, 2..=16) | clocks
//! clock      = ticks (varint) | int stream with its length: first tick less the block's first time, then differences
//!              between ticks, in units
//! presence form 6 = clock u8                        every row of the clock has a value
//! presence form 7 = clock u8 | form u8 | presence among the rows of the clock, see `codec::presence`
//! ```
//!
//! Never here: times of one clock (an int stream, see `block`). Invariants: the rows are exactly the ticks of all clocks;
//! a clock's ticks strictly ascend.

use crate::bitmap::Bitmap;
use crate::codec::divide::Divisor;
use crate::codec::wire::{Reader, put_part_with, put_varint};
use crate::codec::{ints, presence};
use crate::corrupt::Corrupt;

/// First byte of times told by clocks: no method of an int stream.
pub(super) const CLOCKS: u8 = 0x40;
const WHOLE: u8 = 6;
const PART: u8 = 7;
const CLOCKS_MAX: usize = 16;
/// In blocks of fewer rows there is nothing to gain.
const ROWS_MIN: usize = 12;

/// The rows of each clock.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    rows: Vec<Bitmap>,
}

/// Which clock each of some presences follows, and the rows of the clocks.
#[derive(Debug)]
pub(super) struct Grouping {
    clock_of: Vec<usize>,
    rows: Vec<Bitmap>,
}

/// Sorts presences that cover all rows by clocks: those that often fall together share one. `None` where one clock
/// tells them all.
pub(super) fn group(presences: &[&Bitmap], rows: usize) -> Option<Grouping> {
    if rows < ROWS_MIN || !(2..=64).contains(&presences.len()) {
        return None;
    }
    let mut clocks: Vec<(Vec<usize>, Bitmap)> = Vec::new();
    for (index, map) in presences.iter().enumerate() {
        // Joins every clock it falls together with, and these become one.
        let joins = |(members, _): &(Vec<usize>, Bitmap)| {
            members.iter().any(|&member| {
                let least = map.count_ones().min(presences[member].count_ones());
                map.count_common(presences[member]) * 4 > least
            })
        };
        let (mut joined, apart): (Vec<_>, Vec<_>) = clocks.into_iter().partition(joins);
        clocks = apart;
        joined.push((vec![index], (*map).clone()));
        let one = joined.into_iter().reduce(|(mut members, mut map), (more, other)| {
            members.extend(more);
            map.add(&other);
            (members, map)
        });
        clocks.extend(one);
    }
    let mut all = Bitmap::new(rows);
    clocks.iter().for_each(|(_, map)| all.add(map));
    if !(2..=CLOCKS_MAX).contains(&clocks.len()) || all.count_ones() < rows {
        return None;
    }
    let mut clock_of = vec![0; presences.len()];
    for (clock, (members, _)) in clocks.iter().enumerate() {
        members.iter().for_each(|&member| clock_of[member] = clock);
    }
    Some(Grouping {
        clock_of,
        rows: clocks.into_iter().map(|(_, map)| map).collect(),
    })
}

impl Grouping {
    /// Appends the section of the times.
    pub(super) fn put_times(&self, times: &[i64], unit: Divisor, out: &mut Vec<u8>) {
        out.push(CLOCKS);
        put_varint(out, self.rows.len() as u64);
        let mut steps: Vec<i64> = Vec::with_capacity(times.len());
        for rows in &self.rows {
            let mut before = times[0];
            steps.clear();
            steps.extend(rows.iter_ones().map(|row| {
                let step = times[row].wrapping_sub(before) as u64;
                before = times[row];
                unit.quotient(step).unwrap_or_default() as i64
            }));
            put_varint(out, steps.len() as u64);
            put_part_with(out, |out| ints::put_below(&steps, usize::MAX, out));
        }
    }

    /// Appends the presence of number `index` and gives its form.
    pub(super) fn put_presence(&self, index: usize, map: &Bitmap, out: &mut Vec<u8>) -> u8 {
        let clock = self.clock_of[index];
        let rows = &self.rows[clock];
        let ticks = rows.count_ones();
        out.push(clock as u8);
        if map.count_ones() == ticks {
            return WHOLE;
        }
        let at = out.len();
        out.push(0);
        let form = presence::put(&rows.among(map), usize::MAX, out);
        out[at] = form.unwrap_or_default();
        PART
    }
}

/// Whether a presence of this form needs the clocks.
pub(super) fn needs_clocks(form: u8) -> bool {
    form == WHOLE || form == PART
}

/// Times of all rows, and the rows of each clock, from what follows the first byte of the section.
pub(super) fn decode_times(
    bytes: &[u8],
    first_ns: i64,
    unit_ns: u64,
    rows: usize,
) -> Result<(Vec<i64>, Clocks), Corrupt> {
    let mut reader = Reader::new(bytes, "clocks");
    let count = reader.count(CLOCKS_MAX)?;
    let mut ticks = Vec::with_capacity(count);
    for _ in 0..count {
        let count = reader.count(rows)?;
        let mut time = first_ns;
        let mut one = ints::decode(reader.part()?, count)?;
        for (tick, step) in one.iter_mut().enumerate() {
            let next = time.wrapping_add(step.wrapping_mul(unit_ns as i64));
            if next < time || tick > 0 && next == time {
                return Err(reader.corrupt());
            }
            time = next;
            *step = next;
        }
        ticks.push(one);
    }
    reader.end()?;
    together(&ticks, rows).ok_or_else(|| reader.corrupt())
}

/// The times that some clocks tell together, and the rows of each; `None` where these are not `rows`.
fn together(clocks: &[Vec<i64>], rows: usize) -> Option<(Vec<i64>, Clocks)> {
    let mut ticking: Vec<Ticking<'_>> = clocks.iter().map(|ticks| Ticking::new(ticks, rows)).collect();
    let mut times = Vec::with_capacity(rows);
    for first in (0..rows).step_by(64) {
        for bit in 0..(rows - first).min(64) {
            let time = ticking.iter().fold(i64::MAX, |least, clock| least.min(clock.head));
            ticking.iter_mut().for_each(|clock| clock.pass(time, bit));
            times.push(time);
        }
        ticking.iter_mut().for_each(Ticking::close_word);
    }
    let mut any = Bitmap::new(rows);
    let mut each = Vec::with_capacity(clocks.len());
    for clock in ticking {
        if clock.at < clock.ticks.len() {
            return None;
        }
        let rows_of = Bitmap::from_words(clock.words, rows);
        any.add(&rows_of);
        each.push(rows_of);
    }
    (any.count_ones() == rows).then_some((times, Clocks { rows: each }))
}

/// A clock whose ticks are passed one after the other.
struct Ticking<'a> {
    ticks: &'a [i64],
    at: usize,
    /// The next tick.
    head: i64,
    word: u64,
    words: Vec<u64>,
}

impl<'a> Ticking<'a> {
    fn new(ticks: &'a [i64], rows: usize) -> Ticking<'a> {
        Ticking {
            ticks,
            at: 0,
            head: ticks.first().copied().unwrap_or(i64::MAX),
            word: 0,
            words: Vec::with_capacity(rows.div_ceil(64)),
        }
    }

    /// Notes whether it ticks at a time, none of its ticks being before that. (Without a branch it took twice as long: the
    /// processor foresees well which clock ticks next.)
    #[inline]
    fn pass(&mut self, time: i64, bit: usize) {
        if self.head == time && self.at < self.ticks.len() {
            self.word |= 1 << bit;
            self.at += 1;
            self.head = self.ticks.get(self.at).copied().unwrap_or(i64::MAX);
        }
    }

    fn close_word(&mut self) {
        self.words.push(std::mem::take(&mut self.word));
    }
}

/// Times of `rows` rows and presences from nothing but bytes.
pub(crate) fn read_clocks(bytes: &[u8], rows: usize) -> Result<(), Corrupt> {
    let (times, clocks) = decode_times(bytes, 0, 1, rows)?;
    debug_assert_eq!(times.len(), rows);
    for form in [WHOLE, PART] {
        for set in [1, rows / 2, rows] {
            let _ = clocks.decode_presence(form, bytes, set);
        }
    }
    Ok(())
}

impl Clocks {
    /// The presence of `set` rows.
    pub(super) fn decode_presence(&self, form: u8, bytes: &[u8], set: usize) -> Result<Bitmap, Corrupt> {
        let mut reader = Reader::new(bytes, "presence of a clock");
        let clock = usize::from(reader.byte()?);
        let of_clock = self.rows.get(clock).ok_or_else(|| reader.corrupt())?;
        let map = if form == WHOLE {
            reader.end()?;
            of_clock.clone()
        } else {
            let form = reader.byte()?;
            let among = presence::decode(form, reader.rest(), of_clock.count_ones(), set)?;
            of_clock.select(&among)
        };
        if map.count_ones() == set {
            Ok(map)
        } else {
            Err(reader.corrupt())
        }
    }
}
