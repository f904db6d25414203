//! The points of a device that count, in the order of their times, with the last one before a range and the first one behind it.
//!
//! Never here: what is made of them. Invariant: which points count does not depend on where the range begins or ends.

use std::ops::ControlFlow;

use tidemark_proto::v1::Quality;
use tidemark_series::checks::{Judge, Judged};
use tidemark_series::{Accepted, Choice, Points, ValueRef, Values, bucket};

use super::shard_side::{Answering, Chosen, corrupt};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;

/// Each look further back for the last point goes so many times as far.
const FURTHER: i64 = 8;

/// Spans of time to look for something in, from a time back to the lowest one, each longer than the one before.
pub(super) fn spans_back(def: &TypeDef, lowest_ns: i64, from_ns: i64) -> impl Iterator<Item = (i64, i64)> {
    let (mut end, mut length) = (from_ns, def.bucket_span_ns);
    std::iter::from_fn(move || {
        let begin = end.saturating_sub(length).max(lowest_ns);
        let span = (begin, end);
        (end, length) = (begin, length.saturating_mul(FURTHER));
        (span.0 < span.1).then_some(span)
    })
}

/// The same, from a time on to the highest one.
pub(super) fn spans_ahead(def: &TypeDef, from_ns: i64, highest_ns: i64) -> impl Iterator<Item = (i64, i64)> {
    let (mut begin, mut length) = (from_ns, def.bucket_span_ns);
    std::iter::from_fn(move || {
        let end = begin.saturating_add(length).min(highest_ns);
        let span = (begin, end);
        (begin, length) = (end, length.saturating_mul(FURTHER));
        (span.0 < span.1).then_some(span)
    })
}

/// Which values of a property count: none that failed a check or stand for a missing one.
pub(super) fn choice(property: &PropertyDef, drop_suspect: bool) -> Choice<'_> {
    let left_out = |quality: Quality| 1_u64 << quality as u64;
    let suspect = if drop_suspect { left_out(Quality::Suspect) } else { 0 };
    Choice {
        accepted: Accepted(!(left_out(Quality::Fail) | left_out(Quality::Missing) | suspect)),
        checks: &property.checks,
        drop_suspect,
    }
}

/// A property, and which of its points count.
pub(super) struct Walked<'a> {
    pub(super) property: &'a PropertyDef,
    pub(super) choice: Choice<'a>,
}

/// A walk over points of devices of one type.
pub(super) struct Walk<'a> {
    pub(super) answering: &'a Answering<'a>,
    pub(super) def: &'a TypeDef,
    pub(super) walked: Vec<Walked<'a>>,
    pub(super) from_ns: i64,
    pub(super) to_ns: i64,
    /// How far before the range the last point matters, and behind it the next one.
    pub(super) back_ns: i64,
    pub(super) ahead_ns: i64,
}

/// The points of a property on their way.
struct Way<'w> {
    walked: &'w Walked<'w>,
    /// Where neighbours decide what counts.
    judge: Option<Judge<'w>>,
    judged: Points,
    /// A point at or behind the end of the range came by.
    is_behind: bool,
}

impl<'a> Walk<'a> {
    /// A walk that looks around as far as choices need it.
    pub(super) fn new(
        answering: &'a Answering<'a>,
        def: &'a TypeDef,
        walked: Vec<Walked<'a>>,
        (from_ns, to_ns): (i64, i64),
        (back_ns, ahead_ns): (i64, i64),
    ) -> Walk<'a> {
        let in_order = walked.iter().filter(|walked| walked.choice.needs_order());
        let around = in_order.map(|walked| walked.choice.checks.reach_ns).max().unwrap_or(0);
        let earlier = walked.iter().map(|walked| walked.choice.looks_back_ns()).max();
        Walk {
            answering,
            def,
            walked,
            from_ns: from_ns.saturating_sub(earlier.unwrap_or(0)),
            to_ns,
            back_ns: back_ns.max(around),
            ahead_ns: ahead_ns.max(around),
        }
    }

    /// Gives `each` the points of a device as they come, with the place of their property.
    pub(super) fn over(&self, chosen: &Chosen, mut each: impl FnMut(usize, &Points) -> Result<()>) -> Result<()> {
        let mut ways: Vec<Way<'_>> = self.walked.iter().map(Way::new).collect();
        for ((at, way), before) in ways.iter_mut().enumerate().zip(self.before(chosen)?) {
            if let Some(before) = before {
                way.take(&before, at, &mut each)?;
            }
        }
        let until = self.to_ns.saturating_add(self.ahead_ns);
        let one = std::slice::from_ref(chosen);
        let _ = self.answering.scan(self.def, one, self.from_ns, until, |_, value| {
            for block in bucket::blocks(value) {
                let block = block.map_err(corrupt)?;
                if block.last_ns() < self.from_ns {
                    continue;
                }
                let mut folding = block.folding();
                for (at, way) in ways.iter_mut().enumerate() {
                    let points = folding.points(way.walked.property.number, &way.walked.choice);
                    if let Some(points) = points.map_err(corrupt)? {
                        way.is_behind |= points.times.last().is_some_and(|last| *last >= self.to_ns);
                        way.take(&from(points, self.from_ns), at, &mut each)?;
                    }
                }
                self.answering.tally.block(folding.decoded())?;
            }
            // Of what lies behind, the first point of each property is enough.
            Ok(match ways.iter().all(|way| way.is_behind) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        for (at, way) in ways.into_iter().enumerate() {
            way.end(at, &mut each)?;
        }
        Ok(())
    }

    /// The last point of each property before the range, as far back as it matters.
    fn before(&self, chosen: &Chosen) -> Result<Vec<Option<Points>>> {
        let mut found: Vec<Option<Points>> = self.walked.iter().map(|_| None).collect();
        let Some(begins) = self.answering.shard.data_begins(self.def.number()) else {
            return Ok(found);
        };
        let lowest = self.from_ns.saturating_sub(self.back_ns).max(begins);
        for (begin, end) in spans_back(self.def, lowest, self.from_ns) {
            if found.iter().all(Option::is_some) {
                break;
            }
            self.last_between(chosen, begin, end, &mut found)?;
        }
        Ok(found)
    }

    /// The last point of each property that has none yet, within a range.
    fn last_between(&self, chosen: &Chosen, from_ns: i64, to_ns: i64, found: &mut [Option<Points>]) -> Result<()> {
        let missing: Vec<bool> = found.iter().map(Option::is_none).collect();
        let one = std::slice::from_ref(chosen);
        let _ = self.answering.scan(self.def, one, from_ns, to_ns, |_, value| {
            for block in bucket::blocks(value) {
                let block = block.map_err(corrupt)?;
                if block.last_ns() < from_ns || block.first_ns() >= to_ns {
                    continue;
                }
                let mut folding = block.folding();
                for (at, walked) in self.walked.iter().enumerate().filter(|(at, _)| missing[*at]) {
                    let points = folding.points(walked.property.number, &walked.choice);
                    if let Some(last) = points
                        .map_err(corrupt)?
                        .and_then(|points| last(&points, from_ns, to_ns))
                    {
                        found[at] = Some(last);
                    }
                }
                self.answering.tally.block(folding.decoded())?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }
}

impl<'w> Way<'w> {
    fn new(walked: &'w Walked<'w>) -> Way<'w> {
        let judge = || walked.choice.judge();
        Way {
            walked,
            judge: walked.choice.needs_order().then(judge),
            judged: Points::empty(walked.property.value_type),
            is_behind: false,
        }
    }

    /// Points that count by themselves.
    fn take(&mut self, points: &Points, at: usize, each: &mut impl FnMut(usize, &Points) -> Result<()>) -> Result<()> {
        let Some(judge) = &mut self.judge else {
            return each(at, points);
        };
        self.judged.dropped.extend_from_slice(&points.dropped);
        for (place, t_ns) in points.times.iter().enumerate() {
            // What is no number has no neighbours.
            let Some(value) = points.values.get(place).and_then(ValueRef::number) else {
                continue;
            };
            let (judged, walked) = (&mut self.judged, self.walked);
            judge.point(*t_ns, value, 0, |point| sort(walked, point, judged));
        }
        self.hand_on(at, each)
    }

    fn hand_on(&mut self, at: usize, each: &mut impl FnMut(usize, &Points) -> Result<()>) -> Result<()> {
        let empty = Points::empty(self.walked.property.value_type);
        let mut judged = std::mem::replace(&mut self.judged, empty);
        judged.dropped.sort_unstable();
        match judged.times.is_empty() && judged.dropped.is_empty() {
            true => Ok(()),
            false => each(at, &judged),
        }
    }

    fn end(mut self, at: usize, each: &mut impl FnMut(usize, &Points) -> Result<()>) -> Result<()> {
        if let Some(judge) = &mut self.judge {
            let (judged, walked) = (&mut self.judged, self.walked);
            judge.end(|point| sort(walked, point, judged));
        }
        self.hand_on(at, each)
    }
}

/// Keeps a judged point, or notes that it is left out.
fn sort(walked: &Walked<'_>, point: Judged, kept: &mut Points) {
    if point.finding.is_some_and(|finding| walked.choice.leaves_out(finding)) {
        kept.dropped.push(point.t_ns);
        return;
    }
    kept.times.push(point.t_ns);
    match &mut kept.values {
        Values::F64(values) => values.push(point.value),
        Values::I64(values) => values.push(point.value as i64),
        Values::Bool(_) | Values::Enum(_) | Values::Text(_) => {}
    }
}

/// Points from a time on.
fn from(points: Points, from_ns: i64) -> Points {
    let first = points.times.partition_point(|t| *t < from_ns);
    match first {
        0 => points,
        first => Points {
            dropped: points.dropped.clone(),
            ..points.part(first..points.times.len())
        },
    }
}

/// The last of some points within a range.
fn last(points: &Points, from_ns: i64, to_ns: i64) -> Option<Points> {
    let at = points.times.partition_point(|t| *t < to_ns).checked_sub(1)?;
    (points.times[at] >= from_ns).then(|| points.part(at..at + 1))
}
