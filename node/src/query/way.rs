//! The points of a property on their way: those that count by themselves come in, those that count go out, with windows of rollups
//! between them.
//!
//! Never here: where they are read. Invariant: points go out in the order of their times, each once, and which of them does not
//! depend on whether they came as points or in a rollup.

use tidemark_series::checks::{Judge, Judged};
use tidemark_series::rollup::{Rollup, Row, Wanted};
use tidemark_series::{Choice, Number, Points, Suspects, ValueRef, ValueType, Values};

use super::shard_side::corrupt;
use crate::catalog::types::PropertyDef;
use crate::error::Result;

/// A property, and which of its points count.
pub(super) struct Walked<'a> {
    pub(super) property: &'a PropertyDef,
    pub(super) choice: Choice<'a>,
}

/// What goes out.
pub(super) enum Piece<'p> {
    /// Points that count, and when those were observed that do not.
    Points(&'p Points),
    /// Points of which something is found, where the choice tells: before the points among which they are.
    Told(&'p [Judged]),
    /// A window of a rollup, with at least something in it.
    Row(&'p Row),
}

/// Takes what goes out, with the place of its property.
pub(super) type Each<'e> = dyn FnMut(usize, Piece<'_>) -> Result<()> + 'e;

/// The points of a property on their way.
pub(super) struct Way<'w> {
    at: usize,
    pub(super) walked: &'w Walked<'w>,
    /// Where neighbours decide what counts.
    judge: Option<Judge<'w>>,
    judged: Sorted,
    to_ns: i64,
    /// A point behind the range went out.
    pub(super) is_past: bool,
}

/// Points that were judged.
struct Sorted {
    points: Points,
    told: Vec<Judged>,
}

impl<'w> Way<'w> {
    /// Of the property at this place, over a range that ends at a time.
    pub(super) fn new(at: usize, walked: &'w Walked<'w>, to_ns: i64) -> Way<'w> {
        let judge = || walked.choice.judge();
        Way {
            at,
            walked,
            judge: walked.choice.needs_order().then(judge),
            judged: Sorted {
                points: Points::empty(walked.property.value_type),
                told: Vec::new(),
            },
            to_ns,
            is_past: false,
        }
    }

    /// Points that count by themselves.
    pub(super) fn take(&mut self, points: &Points, each: &mut Each<'_>) -> Result<()> {
        let numbers = matches!(points.values, Values::F64(_) | Values::I64(_));
        // What is no number has no neighbours.
        let Some(judge) = self.judge.as_mut().filter(|_| numbers) else {
            self.is_past |= points.times.last().is_some_and(|last| *last >= self.to_ns);
            return each(self.at, Piece::Points(points));
        };
        self.judged.points.dropped.extend_from_slice(&points.dropped);
        for (t_ns, number, stated) in points.stated_numbers() {
            let (judged, walked) = (&mut self.judged, self.walked);
            judge.point(t_ns, number, stated, |point| sort(walked, point, judged));
        }
        self.hand_on(each)
    }

    /// A bucket as a rollup: its windows that begin from a time on, as their points tell.
    pub(super) fn take_rollup(
        &mut self,
        rollup: &Rollup<'_>,
        wanted: &Wanted,
        from_ns: i64,
        each: &mut Each<'_>,
    ) -> Result<()> {
        let rows = rollup.rows(wanted).map_err(corrupt)?;
        let rows = rows
            .iter()
            .filter(|row| row.begins_ns().is_none_or(|first_ns| first_ns >= from_ns));
        let loose: Vec<(i64, Number)> = loose(rollup, wanted)?
            .into_iter()
            .filter(|(t_ns, _)| *t_ns >= from_ns)
            .collect();
        if self.judge.is_none() && loose.is_empty() {
            for row in rows {
                self.hand_on_row(row, each)?;
            }
            return Ok(());
        }
        let settled = || rows.clone().filter_map(|row| row.points.as_ref());
        let first = settled().next().and_then(|points| number(points.first()));
        let last = settled().next_back().and_then(|points| number(points.last()));
        let Some((first, last)) = first.zip(last) else {
            for row in rows {
                self.hand_on_row(row, each)?;
            }
            return self.take(&points_of(wanted.value_type, &loose), each);
        };
        // Between them all is told already.
        let (head, tail) = loose.split_at(loose.partition_point(|(t_ns, _)| *t_ns < first.0));
        self.take(&points_of(wanted.value_type, head), each)?;
        if let Some(judge) = &mut self.judge {
            let (judged, walked) = (&mut self.judged, self.walked);
            let value = |(t_ns, number): (i64, Number)| (t_ns, number.value());
            judge.pass(value(first), value(last), |point| sort(walked, point, judged));
        }
        self.hand_on(each)?;
        for row in rows {
            self.hand_on_row(row, each)?;
        }
        self.take(&points_of(wanted.value_type, tail), each)
    }

    fn hand_on_row(&mut self, row: &Row, each: &mut Each<'_>) -> Result<()> {
        let last = row.points.as_ref().and_then(|points| points.last());
        self.is_past |= last.is_some_and(|(last_ns, _)| last_ns >= self.to_ns);
        each(self.at, Piece::Row(row))
    }

    fn hand_on(&mut self, each: &mut Each<'_>) -> Result<()> {
        if !self.judged.told.is_empty() {
            each(self.at, Piece::Told(&self.judged.told))?;
            self.judged.told.clear();
        }
        let empty = Points::empty(self.walked.property.value_type);
        let mut judged = std::mem::replace(&mut self.judged.points, empty);
        judged.dropped.sort_unstable();
        self.is_past |= judged.times.last().is_some_and(|last| *last >= self.to_ns);
        match judged.times.is_empty() && judged.dropped.is_empty() {
            true => Ok(()),
            false => each(self.at, Piece::Points(&judged)),
        }
    }

    /// There are no more points.
    pub(super) fn end(mut self, each: &mut Each<'_>) -> Result<()> {
        if let Some(judge) = &mut self.judge {
            let (judged, walked) = (&mut self.judged, self.walked);
            judge.end(|point| sort(walked, point, judged));
        }
        self.hand_on(each)
    }
}

/// Points of a rollup that nobody knows of yet whether they count.
pub(super) fn loose(rollup: &Rollup<'_>, wanted: &Wanted) -> Result<Vec<(i64, Number)>> {
    let records = rollup.loose(wanted.property).map_err(corrupt)?;
    let Some(column) = records.column(wanted.property) else {
        return Ok(Vec::new());
    };
    let numbers = column
        .cells()
        .filter_map(|(row, value, _)| Some((records.observed_at[row], Number::of(value)?)));
    Ok(numbers.collect())
}

/// A point that is a number.
pub(super) fn number(point: Option<(i64, ValueRef<'_>)>) -> Option<(i64, Number)> {
    point.and_then(|(t_ns, value)| Some((t_ns, Number::of(value)?)))
}

/// Numbers as points, of which the source says nothing.
pub(super) fn points_of(value_type: ValueType, numbers: &[(i64, Number)]) -> Points {
    let mut points = Points::empty(value_type);
    numbers.iter().for_each(|(t_ns, number)| points.push(*t_ns, *number));
    points
}

/// Keeps a judged point, or notes that it is left out.
fn sort(walked: &Walked<'_>, point: Judged, sorted: &mut Sorted) {
    if walked.choice.suspect == Suspects::Told && point.finding.is_some() {
        sorted.told.push(point);
    }
    match walked.choice.leaves_out(&point) {
        true => sorted.points.dropped.push(point.t_ns),
        false => sorted.points.push(point.t_ns, point.number),
    }
}
