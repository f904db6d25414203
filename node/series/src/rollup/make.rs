//! Rollups, from the points of a bucket.
//!
//! Never here: which buckets. Invariant: the same bucket and the same properties give the same bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use super::runs::{self, Followed};
use super::{Follows, cells};
use crate::block::Points;
use crate::bucket;
use crate::by_window::ByWindow;
use crate::checks::Choice;
use crate::corrupt::Corrupt;
use crate::needs::Needs;
use crate::number::Number;
use crate::partial::Partial;
use crate::record::{Column, PropertyNumber, Records, ValueRef, ValueType};
use crate::window::{Edge, Windows};
use cells::{DROPPED, EMPTY, Filling};

/// Which version of the bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The first one: of points one by one, without texts, and where each is chosen by itself.
    PointsOnly,
    /// The second one: nothing of slots, and whole numbers of which neighbours decide whether they count as the nearest doubles.
    WithSequences,
    /// All there is. With the length of slots, nanoseconds; 0: nothing is promised, and nothing is kept of them.
    WithSlots(i64),
}

impl Format {
    /// What the version says, and what follows it and the rule, given the bytes from there on.
    pub(super) fn read(version: u8, rest: &[u8]) -> Option<(Format, &[u8])> {
        match version {
            1 => Some((Format::PointsOnly, rest)),
            2 => Some((Format::WithSequences, rest)),
            3 => {
                let (interval, rest) = rest.split_first_chunk::<8>()?;
                Some((Format::WithSlots(i64::from_le_bytes(*interval)), rest))
            }
            _ => None,
        }
    }

    /// How long slots are, where they are kept.
    pub(super) fn interval_ns(self) -> Option<i64> {
        match self {
            Format::WithSlots(interval_ns) if interval_ns > 0 => Some(interval_ns),
            _ => None,
        }
    }

    /// How many columns a property may have.
    fn parts(self) -> u32 {
        match self {
            Format::PointsOnly => 16,
            Format::WithSequences | Format::WithSlots(_) => 4_096,
        }
    }

    /// The property of a column.
    pub(super) fn property(self, column: PropertyNumber) -> PropertyNumber {
        PropertyNumber(column.0 / self.parts())
    }

    /// Numbers of the columns of a property; `None` where it has too great a number.
    pub(super) fn columns(self, property: PropertyNumber) -> Option<Range<u32>> {
        let parts = self.parts();
        Some(property.0.checked_mul(parts)?..property.0.checked_add(1)?.checked_mul(parts)?)
    }

    /// All of a rollup.
    pub(super) fn put(self, rule: u64, windows: &[u8], loose: &[u8]) -> Vec<u8> {
        let mut out = vec![match self {
            Format::PointsOnly => 1,
            Format::WithSequences => 2,
            Format::WithSlots(_) => 3,
        }];
        out.extend(rule.to_le_bytes());
        if let Format::WithSlots(interval_ns) = self {
            out.extend(interval_ns.to_le_bytes());
        }
        if self != Format::PointsOnly {
            // A bucket is far below 4 GiB, and so is what is kept of it.
            out.extend((windows.len() as u32).to_le_bytes());
        }
        out.extend(windows);
        out.extend(loose);
        out
    }

    fn takes(self, rolled: &Rolled<'_>, value_type: ValueType) -> bool {
        match self {
            Format::PointsOnly => value_type != ValueType::Text,
            _ => self.columns(rolled.property).is_some(),
        }
    }
}

/// A property to roll up: which end belongs to its windows, which of its points count, and how they go on.
#[derive(Clone, Debug)]
pub struct Rolled<'c> {
    /// Its number.
    pub property: PropertyNumber,
    /// See `Windows`.
    pub edge: Edge,
    /// What counts. Of those that take the order of points to tell, spikes alone are told.
    pub choice: Choice<'c>,
    /// How points go on; `None`: nothing is kept of them as a sequence.
    pub follows: Option<Follows>,
}

/// The rollup of a bucket value. `None` where it has windows at the ends of time.
///
/// # Errors
/// The bucket is damaged.
pub fn roll_up(
    value: &[u8],
    format: Format,
    (rule, length_ns): (u64, i64),
    properties: &[Rolled<'_>],
) -> Result<Option<Vec<u8>>, Corrupt> {
    let mut made = Made::new(format, length_ns);
    let mut gathered: Vec<Option<Points>> = properties.iter().map(|_| None).collect();
    for block in bucket::blocks(value) {
        let block = block?;
        let mut folding = block.folding();
        for (rolled, gathered) in properties.iter().zip(&mut gathered) {
            if !block
                .value_type(rolled.property)
                .is_some_and(|of| format.takes(rolled, of))
            {
                continue;
            }
            let Some(points) = folding.points(rolled.property, &rolled.choice)? else {
                continue;
            };
            match gathered {
                // As it always was: sums depend on it in digits that are kept.
                _ if format == Format::PointsOnly => made.add(rolled, &points),
                None => *gathered = Some(points),
                Some(before) => {
                    before.times.extend(points.times);
                    before.values.append(points.values);
                    before.dropped.extend(points.dropped);
                }
            }
        }
    }
    let with_points = properties.iter().zip(gathered);
    for (rolled, points) in with_points.filter_map(|(rolled, points)| Some((rolled, points?))) {
        let points = match rolled.choice.needs_order() {
            true => made.settle(rolled, points),
            false => points,
        };
        made.add(rolled, &points);
        made.follow(rolled, &points);
    }
    Ok(made.finish(rule))
}

/// Windows and loose points, while they are made.
struct Made {
    format: Format,
    length_ns: i64,
    rows: BTreeMap<i64, BTreeMap<PropertyNumber, Kept>>,
    loose: Vec<Records>,
}

/// What is kept of a window of a property.
#[derive(Default)]
struct Kept {
    partial: Option<Partial>,
    followed: Option<Followed>,
    dropped: i64,
    /// Slots without a point.
    empty: u64,
}

impl Made {
    fn new(format: Format, length_ns: i64) -> Made {
        Made {
            format,
            length_ns,
            rows: BTreeMap::new(),
            loose: Vec::new(),
        }
    }

    fn add(&mut self, rolled: &Rolled<'_>, points: &Points) {
        let windows = all_of_time(self.length_ns, rolled.edge);
        let mut partials = ByWindow::default();
        points.fold(&windows, Needs::All, &mut partials);
        for (window, partial) in partials.into_sorted() {
            let kept = self.kept(window, rolled.property);
            match &mut kept.partial {
                Some(before) => before.merge(&partial),
                None => kept.partial = Some(partial),
            }
        }
        for window in points.dropped.iter().filter_map(|t_ns| windows.index_of(*t_ns)) {
            self.kept(window, rolled.property).dropped += 1;
        }
    }

    /// Keeps of each window how its points go on, and how they are spread.
    fn follow(&mut self, rolled: &Rolled<'_>, points: &Points) {
        let windows = all_of_time(self.length_ns, rolled.edge);
        let window = |t_ns: &i64| windows.index_of(*t_ns);
        let mut from = 0;
        for times in points.times.chunk_by(|a, b| window(a) == window(b)) {
            if let Some(window) = times.first().and_then(window) {
                let interval_ns = self.format.interval_ns();
                let empty = interval_ns.map_or(0, |interval_ns| empty_slots(times, &windows, window, interval_ns));
                let kept = self.kept(window, rolled.property);
                kept.empty = empty;
                let followed = |follows| runs::follow(times, &points.values, from, follows);
                kept.followed = rolled.follows.and_then(followed);
            }
            from += times.len();
        }
    }

    fn kept(&mut self, window: i64, property: PropertyNumber) -> &mut Kept {
        self.rows.entry(window).or_default().entry(property).or_default()
    }

    /// Points of which can be told whether they count; the others become loose.
    fn settle(&mut self, rolled: &Rolled<'_>, points: Points) -> Points {
        let judged: Vec<(i64, f64)> = points
            .stated_numbers()
            .map(|(t_ns, number, _)| (t_ns, number.value()))
            .collect();
        let value_type = points.values.value_type();
        let mut settled = Points::empty(value_type);
        let mut loose = Points::empty(value_type);
        let told = rolled.choice.checks.settled(&judged);
        for ((t_ns, number, _), told) in points.stated_numbers().zip(told) {
            let kept = match self.format {
                Format::WithSlots(_) => number,
                // As it was in that version.
                Format::PointsOnly | Format::WithSequences => Number::Double(number.value()),
            };
            match told {
                Some(false) => settled.dropped.push(t_ns),
                Some(true) => settled.push(t_ns, kept),
                None => loose.push(t_ns, kept),
            }
        }
        settled.dropped.extend(points.dropped);
        settled.dropped.sort_unstable();
        if !loose.times.is_empty() {
            let column = Column {
                property: rolled.property,
                presence: None,
                values: loose.values,
                quality: None,
            };
            self.loose.push(Records {
                received_at: loose.times.clone(),
                report_kind: vec![0; loose.times.len()],
                observed_at: loose.times,
                repeats: Vec::new(),
                columns: vec![column],
            });
        }
        settled
    }

    fn finish(self, rule: u64) -> Option<Vec<u8>> {
        let format = self.format;
        let starts = self.rows.keys().map(|window| window.checked_mul(self.length_ns));
        let starts: Vec<i64> = starts.collect::<Option<_>>()?;
        let short = format != Format::PointsOnly;
        let mut filling = Filling::new(starts.len());
        for ((row, start_ns), properties) in starts.iter().enumerate().zip(self.rows.values()) {
            for (property, kept) in properties {
                let first = format.columns(*property).map_or(0, |columns| columns.start);
                let mut cell = |part: u32, value: ValueRef<'_>| filling.put(row, first + part, value);
                if kept.dropped > 0 {
                    cell(DROPPED, ValueRef::I64(kept.dropped));
                }
                if let Some(partial) = &kept.partial {
                    cells::put(partial, *start_ns, short, &mut cell);
                    if kept.empty > 0 {
                        cell(EMPTY, ValueRef::I64(kept.empty as i64));
                    }
                    if let Some(followed) = &kept.followed {
                        followed.put(partial, *start_ns, &mut cell);
                    }
                }
            }
        }
        let windows = Records {
            received_at: starts.clone(),
            report_kind: vec![0; starts.len()],
            observed_at: starts,
            repeats: Vec::new(),
            columns: filling.finish(),
        };
        let loose = Records::merge_all(self.loose);
        Some(format.put(rule, &bucket::encode(&windows), &bucket::encode(&loose)))
    }
}

/// Slots of a window that lie between two of its points and have none; times ascend.
fn empty_slots(times: &[i64], windows: &Windows, window: i64, interval_ns: i64) -> u64 {
    let (start_ns, end_ns) = windows.bounds(window);
    let slot = |t_ns: i64| match windows.edge {
        Edge::StartClosed => t_ns.abs_diff(start_ns) / interval_ns.unsigned_abs(),
        Edge::EndClosed => end_ns.abs_diff(t_ns) / interval_ns.unsigned_abs(),
    };
    let between = |pair: &[i64]| slot(pair[0]).abs_diff(slot(pair[1])).saturating_sub(1);
    times.windows(2).map(between).sum()
}

fn all_of_time(length_ns: i64, edge: Edge) -> Windows {
    Windows {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        step_ns: Some(length_ns),
        origin_ns: 0,
        borders: None,
        edge,
    }
}
