//! Which rows have a value.
//!
//! ```text
//! form 1 bits    = one bit per row, lowest bit of the first byte first
//! form 2 runs    = number of runs (varint) | lengths less one of runs of absent, present, absent ..., an int stream;
//!                  the first run is of absent rows where its bit is 0, in form 3 it is of present rows
//! form 4 ones    = rows that have a value, as an int stream of gaps (row less the row before, less one)
//! form 5 zeros   = rows that have none, likewise
//! ```
//!
//! Never here: values. Invariant: a decoded presence has exactly the number of set rows its header promised.

use super::best::Best;
use super::ints;
use super::wire::{Reader, put_varint};
use crate::bitmap::Bitmap;
use crate::corrupt::Corrupt;

const BITS: u8 = 1;
const RUNS_ABSENT: u8 = 2;
const RUNS_PRESENT: u8 = 3;
const ONES: u8 = 4;
const ZEROS: u8 = 5;

/// Appends the smallest form and gives its number, where it takes fewer than `most` bytes.
pub(crate) fn put(map: &Bitmap, most: usize, out: &mut Vec<u8>) -> Option<u8> {
    let mut best = Best::new(out, most);
    let mut form = BITS;
    best.offer(|out, most| {
        let fits = map.len().div_ceil(8) < most;
        if fits {
            out.extend(map.to_bytes_lsb());
        }
        fits
    });
    // Nothing that names rows takes fewer bytes.
    if best.most() <= ints::STREAM_MIN {
        return best.found().then_some(form);
    }
    let mut runs: Vec<i64> = Vec::new();
    let mut row = 0;
    while row < map.len() {
        let end = map.run_end(row);
        runs.push((end - row) as i64 - 1);
        row = end;
    }
    let shorter = best.offer(|out, most| {
        let start = out.len();
        put_varint(out, runs.len() as u64);
        ints::put_below(&runs, most.saturating_sub(out.len() - start), out)
    });
    if shorter {
        form = if map.get(0) { RUNS_PRESENT } else { RUNS_ABSENT };
    }
    let (named, gaps) = if map.count_ones() * 2 <= map.len() {
        (ONES, gaps(map.iter_ones()))
    } else {
        (ZEROS, gaps((0..map.len()).filter(|&row| !map.get(row))))
    };
    if best.offer(|out, most| ints::put_below(&gaps, most, out)) {
        form = named;
    }
    best.found().then_some(form)
}

fn gaps(rows: impl Iterator<Item = usize>) -> Vec<i64> {
    let mut next = 0;
    rows.map(|row| {
        let gap = row as i64 - next;
        next = row as i64 + 1;
        gap
    })
    .collect()
}

/// Decodes the presence of `rows` rows of which `set` have a value.
pub(crate) fn decode(form: u8, bytes: &[u8], rows: usize, set: usize) -> Result<Bitmap, Corrupt> {
    let mut reader = Reader::new(bytes, "presence");
    let map = match form {
        BITS => {
            let map = Bitmap::from_bytes_lsb(reader.rest(), rows);
            if bytes.len() != rows.div_ceil(8) {
                return Err(reader.corrupt());
            }
            map
        }
        RUNS_ABSENT | RUNS_PRESENT => {
            let count = reader.count(rows)?;
            from_runs(&ints::decode(reader.rest(), count)?, form == RUNS_PRESENT, rows)?
        }
        ONES => from_gaps(&ints::decode(bytes, set)?, rows, false)?,
        ZEROS => from_gaps(&ints::decode(bytes, rows.saturating_sub(set))?, rows, true)?,
        _ => return Err(Corrupt::new("presence form", 0)),
    };
    if map.count_ones() == set {
        Ok(map)
    } else {
        Err(reader.corrupt())
    }
}

fn from_runs(runs: &[i64], mut present: bool, rows: usize) -> Result<Bitmap, Corrupt> {
    let mut map = Bitmap::new(rows);
    let mut row = 0;
    for &run in runs {
        let run = usize::try_from(run).ok().filter(|&r| r < rows - row);
        let end = row + run.ok_or(Corrupt::new("presence runs", 0))? + 1;
        if present {
            map.set_range(row, end);
        }
        present = !present;
        row = end;
    }
    if row == rows {
        Ok(map)
    } else {
        Err(Corrupt::new("presence runs", 0))
    }
}

fn from_gaps(gaps: &[i64], rows: usize, inverted: bool) -> Result<Bitmap, Corrupt> {
    let mut map = if inverted { Bitmap::all(rows) } else { Bitmap::new(rows) };
    let mut next = 0;
    for &gap in gaps {
        let gap = usize::try_from(gap).ok().filter(|&g| g < rows - next);
        let row = next + gap.ok_or(Corrupt::new("presence gaps", 0))?;
        map.set(row, !inverted);
        next = row + 1;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[track_caller]
    fn check(rows: usize, present: impl Fn(usize) -> bool, form: u8, most: usize) {
        let mut map = Bitmap::new(rows);
        (0..rows).for_each(|row| map.set(row, present(row)));
        let mut bytes = Vec::new();
        let got = put(&map, usize::MAX, &mut bytes).unwrap();
        assert_eq!(put(&map, bytes.len(), &mut Vec::new()), None);
        assert_eq!(decode(got, &bytes, rows, map.count_ones()).unwrap(), map);
        assert_eq!(got, form, "{} bytes", bytes.len());
        assert!(bytes.len() <= most, "{} bytes", bytes.len());
    }

    #[test]
    fn presence_picks_the_smallest_form() {
        check(5, |r| r % 2 == 0, BITS, 1);
        check(4000, |r| r % 500 < 7 + 7 * (r / 500) * (r / 500), RUNS_PRESENT, 40);
        check(4000, |r| (1777..3000).contains(&r), RUNS_ABSENT, 16);
        check(4000, |r| r % 10 == 9, ONES, 4);
        check(4000, |r| r % 100 != 99, ZEROS, 4);
    }
}
