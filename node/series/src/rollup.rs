//! Rollups: of one bucket of a device, the unfinished aggregates of all windows of one length, as a value of its own.
//!
//! ```text
//! rollup   = version u8 = 3 | rule u64 LE: which points count | interval i64 LE: of slots, nanoseconds, 0 where nothing is promised |
//!            bytes of the windows u32 LE | windows | loose points
//! windows  = a bucket value, one row a window that has points that count, or that do not
//! row      = observed_at is the start of the window, a multiple of the length; received_at the same; report kind 0
//! property = columns of number 4096 * property + part (see `rollup/cells`), each only where there is something to say
//! loose    = a bucket value: the points of properties with a spike check of which only points of other buckets can tell whether
//!            they count, mostly none
//!
//! version 2 = 2 | rule u64 LE | bytes of the windows u32 LE | windows | loose points; nothing of slots
//! version 1 = 1 | rule u64 LE | windows, with columns of number 16 * property + part; nothing of points as a sequence, no texts
//! ```
//! A rollup is made of the points of its bucket alone. What reaches over the border of a bucket is not in it: whoever asks joins one
//! to the next by the first and the last point of each window, and tells from neighbours which loose points count. So it is with slots that
//! have points in two buckets: the first and the last point of each tell which these are (see `slots`).
//!
//! Never here: keys, when rollups are made. Invariant: what is folded from a rollup is what is folded from its bucket, for
//! windows that are made of whole windows of the length.

mod cells;
mod make;
mod runs;

pub use make::{Format, Rolled, roll_up};

use std::collections::BTreeSet;

use crate::bucket;
use crate::by_window::ByWindow;
use crate::corrupt::Corrupt;
use crate::partial::Partial;
use crate::record::{Column, PropertyNumber, Records, ValueRef, ValueType};
use crate::sequence::Run;
use crate::window::{Edge, Windows};
use cells::{COUNT, Columns, DROPPED, EMPTY};

/// What follows the version and the rule.
const HEADER_BYTES: usize = 9;

/// How the points of a property go on from one to the next, in what is kept of windows.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Follows {
    /// A counter; with the modulus at which it wraps, if it has one.
    Counter(Option<f64>),
    /// Along straight lines, over gaps of so many nanoseconds at most.
    Linear(i64),
    /// A number that holds as long.
    Held(i64),
    /// A state that holds as long.
    State(i64),
}

/// A rollup, as it is kept.
#[derive(Copy, Clone, Debug)]
pub struct Rollup<'r> {
    format: Format,
    /// Names what it was made by.
    pub rule: u64,
    /// Length of its windows.
    pub length_ns: i64,
    windows: &'r [u8],
    loose: &'r [u8],
}

/// A property to read from a rollup.
#[derive(Copy, Clone, Debug)]
pub struct Wanted {
    /// Its number.
    pub property: PropertyNumber,
    /// Type of its values.
    pub value_type: ValueType,
    /// How its points go on, where that was kept.
    pub follows: Option<Follows>,
}

/// What is kept of a window of a property.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Start of the window.
    pub start_ns: i64,
    /// Its length.
    pub length_ns: i64,
    /// Of points one by one, where any count.
    pub points: Option<Partial>,
    /// Of points as a sequence.
    pub run: Option<Run>,
    /// Points that do not count.
    pub dropped: u64,
    /// How points are spread over slots, where that was kept.
    pub empty: Option<Empty>,
}

/// Slots without a point, of a window and within its bucket.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Empty {
    /// How long a slot is. They are told from the edge that belongs to the window; what is left at the other one is as one more.
    pub interval_ns: i64,
    /// Those between the slot of the first point and that of the last one.
    pub slots: u64,
}

impl Row {
    /// When its first point was observed, of those that count.
    pub fn begins_ns(&self) -> Option<i64> {
        self.points.as_ref()?.first().map(|(first_ns, _)| first_ns)
    }
}

impl<'r> Rollup<'r> {
    /// Reads what comes before the windows, given how long they are.
    ///
    /// # Errors
    /// It is damaged, or of a version that is not known.
    pub fn open(rollup: &'r [u8], length_ns: i64) -> Result<Rollup<'r>, Corrupt> {
        let damaged = || Corrupt::new("rollup", 0);
        let ([version, rule @ ..], rest) = rollup.split_first_chunk::<HEADER_BYTES>().ok_or_else(damaged)?;
        let (format, rest) = Format::read(*version, rest).ok_or_else(damaged)?;
        let (windows, loose) = match format {
            Format::PointsOnly => (rest, &[][..]),
            Format::WithSequences | Format::WithSlots(_) => {
                let (bytes, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
                rest.split_at_checked(u32::from_le_bytes(*bytes) as usize)
                    .ok_or_else(damaged)?
            }
        };
        Ok(Rollup {
            format,
            rule: u64::from_le_bytes(*rule),
            length_ns,
            windows,
            loose,
        })
    }

    /// The windows of a property, ascending.
    ///
    /// # Errors
    /// The rollup is damaged.
    pub fn rows(&self, wanted: &Wanted) -> Result<Vec<Row>, Corrupt> {
        let columns = self.format.columns(wanted.property).unwrap_or_default();
        let mut numbers = Vec::new();
        for block in bucket::blocks(self.windows) {
            let block = block?;
            numbers.extend(block.properties().filter(|number| columns.contains(&number.0)));
        }
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        numbers.sort_unstable_by_key(|number| number.0);
        numbers.dedup();
        let records = bucket::decode(self.windows, Some(&numbers))?;
        let mut cells = Columns::new(&records, &numbers, columns.start);
        let mut rows = Vec::with_capacity(records.len());
        for (at, start_ns) in records.observed_at.iter().enumerate() {
            let Some(found) = cells.next(at) else { continue };
            let mut row = Row {
                start_ns: *start_ns,
                length_ns: self.length_ns,
                dropped: found.integer(DROPPED).unwrap_or(0).unsigned_abs(),
                ..Row::default()
            };
            if found.integer(COUNT).is_some() {
                let damaged = || Corrupt::new("rollup", 0);
                let partial = found.partial(wanted.value_type, *start_ns).ok_or_else(damaged)?;
                row.empty = self.format.interval_ns().map(|interval_ns| Empty {
                    interval_ns,
                    slots: found.integer(EMPTY).unwrap_or(0).unsigned_abs(),
                });
                if let Some(follows) = wanted.follows.filter(|_| self.format != Format::PointsOnly) {
                    row.run = runs::read(&found, &partial, follows, *start_ns);
                }
                row.points = Some(partial);
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// The points of a property that only points of other buckets can tell of, ascending.
    ///
    /// # Errors
    /// The rollup is damaged.
    pub fn loose(&self, property: PropertyNumber) -> Result<Records, Corrupt> {
        match self.loose.is_empty() {
            true => Ok(Records::default()),
            false => bucket::decode(self.loose, Some(&[property])).map(Records::without_empty_rows),
        }
    }

    /// Gives `visit` the loose points of a property, each with the start of the window that it is in.
    fn each_loose(
        &self,
        property: PropertyNumber,
        edge: Edge,
        mut visit: impl FnMut(i64, i64, ValueRef<'_>),
    ) -> Result<(), Corrupt> {
        let records = self.loose(property)?;
        let cells = records.column(property).into_iter().flat_map(Column::cells);
        for (row, value, _) in cells {
            let t_ns = records.observed_at[row];
            visit(start_of(t_ns, self.length_ns, edge), t_ns, value);
        }
        Ok(())
    }
}

/// Start of the window that a time is in.
fn start_of(t_ns: i64, length_ns: i64, edge: Edge) -> i64 {
    let within = match edge {
        Edge::StartClosed => t_ns,
        Edge::EndClosed => t_ns.saturating_sub(1),
    };
    within.div_euclid(length_ns.max(1)).saturating_mul(length_ns)
}

/// The window that holds all of a window that begins here and is so long, where that lies within the range.
pub fn window_of(windows: &Windows, start_ns: i64, length_ns: i64) -> Option<i64> {
    let end_ns = start_ns.saturating_add(length_ns);
    let inside = start_ns >= windows.from_ns && end_ns <= windows.to_ns;
    let within = match windows.edge {
        Edge::StartClosed => start_ns,
        Edge::EndClosed => end_ns,
    };
    windows.index_of(within).filter(|_| inside)
}

/// Adds the windows of a property that lie whole within the range of `windows`; returns how many points in them do not count. Of
/// a property whose neighbours are asked no more, loose points count as all others.
///
/// # Errors
/// The rollup is damaged.
pub fn fold(
    rollup: &Rollup<'_>,
    (property, value_type): (PropertyNumber, ValueType),
    windows: &Windows,
    partials: &mut ByWindow,
) -> Result<u64, Corrupt> {
    let wanted = Wanted {
        property,
        value_type,
        follows: None,
    };
    let mut dropped = 0;
    for row in rollup.rows(&wanted)? {
        let Some(window) = window_of(windows, row.start_ns, row.length_ns) else {
            continue;
        };
        dropped = row.dropped.saturating_add(dropped);
        if let Some(points) = &row.points {
            partials.at(window, value_type).merge(points);
        }
    }
    rollup.each_loose(property, windows.edge, |start_ns, t_ns, value| {
        if let Some(window) = window_of(windows, start_ns, rollup.length_ns) {
            partials.at(window, value_type).fold(t_ns, value);
        }
    })?;
    Ok(dropped)
}

/// A rollup without the windows that touch `[from_ns, to_ns)`, given its length, whichever ends belong to windows; `None` where
/// nothing is left. For commands that do not say which: see [`Rollup::cut`].
///
/// # Errors
/// The rollup is damaged.
pub fn without(rollup: &[u8], length_ns: i64, from_ns: i64, to_ns: i64) -> Result<Option<Vec<u8>>, Corrupt> {
    let opened = Rollup::open(rollup, length_ns)?;
    // A window may hold either of its ends: which one is known to whoever reads it.
    let touched = |start_ns: i64| start_ns.saturating_add(length_ns) >= from_ns && start_ns < to_ns;
    let start = |t_ns: i64| t_ns.div_euclid(length_ns.max(1)).saturating_mul(length_ns);
    let windows = bucket::decode(opened.windows, None)?;
    let rest = keep(&windows, |start_ns| !touched(start_ns));
    let loose = bucket::decode(opened.loose, None)?;
    let rest_loose = keep(&loose, |t_ns| {
        !touched(start(t_ns)) && !touched(start(t_ns.saturating_sub(1)))
    });
    if rest.len() == windows.len() && rest_loose.len() == loose.len() {
        return Ok(Some(rollup.to_vec()));
    }
    if rest.is_empty() && rest_loose.is_empty() {
        return Ok(None);
    }
    Ok(Some(opened.format.put(
        opened.rule,
        &bucket::encode(&rest),
        &bucket::encode(&rest_loose),
    )))
}

/// What is left of a rollup once something is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// `None` where nothing is left.
    pub rest: Option<Vec<u8>>,
    /// How many windows had something that was taken.
    pub windows: u64,
}

impl Rollup<'_> {
    /// How many windows it has.
    ///
    /// # Errors
    /// The rollup is damaged.
    pub fn windows(&self) -> Result<u64, Corrupt> {
        let rows = bucket::blocks(self.windows).map(|block| Ok(block?.rows() as u64));
        rows.sum()
    }

    /// The rollup without the windows, property by property, that hold some time of `[from_ns, to_ns)`, given which edge the windows of a
    /// property have (`None`: either may be); `None` where there are no such windows. Loose points go with the windows that they are in.
    ///
    /// # Errors
    /// The rollup is damaged.
    pub fn cut(
        &self,
        (from_ns, to_ns): (i64, i64),
        edge: impl Fn(PropertyNumber) -> Option<Edge>,
    ) -> Result<Option<Cut>, Corrupt> {
        if from_ns >= to_ns {
            return Ok(None);
        }
        let length_ns = self.length_ns.max(1);
        let holds = |start_ns: i64, edge: Edge| {
            let end_ns = start_ns.saturating_add(length_ns);
            match edge {
                Edge::StartClosed => from_ns < end_ns && start_ns < to_ns,
                Edge::EndClosed => from_ns <= end_ns && start_ns < to_ns.saturating_sub(1),
            }
        };
        let either = |of: Option<Edge>, holds: &dyn Fn(Edge) -> bool| match of {
            Some(edge) => holds(edge),
            None => holds(Edge::StartClosed) || holds(Edge::EndClosed),
        };
        let start = |t_ns: i64, edge: Edge| start_of(t_ns, length_ns, edge);
        let mut gone = BTreeSet::new();
        let windows = bucket::decode(self.windows, None)?;
        let starts = windows.observed_at.clone();
        let rest = windows.keep_values(|column, row, _, _| {
            let start_ns = starts[row];
            let goes = either(edge(self.format.property(column)), &|edge| holds(start_ns, edge));
            if goes {
                gone.insert(start_ns);
            }
            !goes
        });
        let loose = bucket::decode(self.loose, None)?;
        let times = loose.observed_at.clone();
        let rest_loose = loose.keep_values(|property, row, _, _| {
            let t_ns = times[row];
            let goes = either(edge(property), &|edge| holds(start(t_ns, edge), edge));
            if goes {
                gone.insert(start(t_ns, edge(property).unwrap_or(Edge::StartClosed)));
            }
            !goes
        });
        if gone.is_empty() {
            return Ok(None);
        }
        let (rest, rest_loose) = (rest.without_empty_rows(), rest_loose.without_empty_rows());
        let is_left = !rest.is_empty() || !rest_loose.is_empty();
        let rest = is_left.then(|| {
            let windows = bucket::encode(&rest);
            self.format.put(self.rule, &windows, &bucket::encode(&rest_loose))
        });
        Ok(Some(Cut {
            rest,
            windows: gone.len() as u64,
        }))
    }
}

/// Some rows, by their times; those that are not kept lie together.
fn keep(records: &Records, keeps: impl Fn(i64) -> bool) -> Records {
    let times = &records.observed_at;
    let before = times.iter().take_while(|t_ns| keeps(**t_ns)).count();
    let behind = times.len() - times.iter().rev().take_while(|t_ns| keeps(**t_ns)).count();
    match before >= behind {
        true => records.clone(),
        false => Records::merge_all(vec![
            records.slice_rows(0, before),
            records.slice_rows(behind, records.len()),
        ]),
    }
}

#[cfg(test)]
#[path = "rollup/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "rollup/cut_tests.rs"]
mod cut_tests;

#[cfg(test)]
#[path = "rollup/slots_tests.rs"]
mod slots_tests;

#[cfg(test)]
#[path = "rollup/exact_tests.rs"]
mod exact_tests;
