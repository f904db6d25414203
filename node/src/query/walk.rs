//! The points of a device that count, in the order of their times, with the last one before a range and the first one behind it.
//!
//! Never here: what is made of them. Invariant: which points count does not depend on where the range begins or ends.

use std::ops::ControlFlow;

use tidemark_proto::v1::Quality;
use tidemark_series::checks::{Judge, Judged};
use tidemark_series::{Accepted, Choice, Points, ValueRef, ValueType, Values, bucket};

use super::shard_side::{Answering, Chosen, corrupt};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;

/// Points that are looked back over at most until one does not depend on those before it.
const SETTLING_MAX: usize = 4096;
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
    /// End of the range, and whether a point that counts came by that lies there or behind it.
    to_ns: i64,
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
        let mut ways: Vec<Way<'_>> = self.walked.iter().map(|walked| Way::new(walked, self.to_ns)).collect();
        for ((at, way), before) in ways.iter_mut().enumerate().zip(self.before(chosen)?) {
            if let Some(before) = before {
                way.take(&before, at, &mut each)?;
            }
        }
        let ahead = self.to_ns.saturating_add(self.ahead_ns);
        let is_spiky = |walked: &Walked<'_>| walked.choice.checks.spike.is_some();
        // The next point tells whether the last one is a spike, whenever it comes.
        let until = if self.walked.iter().any(is_spiky) {
            i64::MAX
        } else {
            ahead
        };
        let one = std::slice::from_ref(chosen);
        let _ = self.answering.scan(self.def, one, self.from_ns, until, |_, value| {
            let mut far = false;
            for block in bucket::blocks(value) {
                let block = block.map_err(corrupt)?;
                if block.last_ns() < self.from_ns {
                    continue;
                }
                let mut folding = block.folding();
                for (at, way) in ways.iter_mut().enumerate() {
                    let points = folding.points(way.walked.property.number, &way.walked.choice);
                    if let Some(points) = points.map_err(corrupt)? {
                        way.take(&from(points, self.from_ns), at, &mut each)?;
                    }
                }
                self.answering.tally.block(folding.decoded())?;
                far |= block.first_ns() >= ahead;
            }
            // Of what lies behind, the first point of each property is enough.
            let done = |way: &Way<'_>| way.is_behind || (far && !is_spiky(way.walked));
            Ok(match ways.iter().all(done) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        for (at, way) in ways.into_iter().enumerate() {
            way.end(at, &mut each)?;
        }
        Ok(())
    }

    /// The last point of each property before the range, as far back as it matters, and where points before it decide about it, these.
    fn before(&self, chosen: &Chosen) -> Result<Vec<Option<Points>>> {
        let mut found: Vec<Option<Points>> = self.walked.iter().map(|_| None).collect();
        let Some(begins) = self.answering.shard.data_begins(self.def.number()) else {
            return Ok(found);
        };
        let lowest = self.from_ns.saturating_sub(self.back_ns).max(begins);
        for (begin, end) in spans_back(self.def, lowest, self.from_ns) {
            let settling = |at: usize| self.walked[at].choice.needs_settling();
            if (0..found.len()).all(|at| found[at].is_some() || settling(at)) {
                break;
            }
            self.last_between(chosen, begin, end, &mut found)?;
        }
        for (walked, found) in self.walked.iter().zip(&mut found) {
            if walked.choice.needs_settling() {
                *found = self.settling(chosen, walked, lowest, begins)?;
            }
        }
        Ok(found)
    }

    /// Points before the range from one on that is judged alike whatever came before it, or from the first one that there is.
    fn settling(&self, chosen: &Chosen, walked: &Walked<'_>, lowest: i64, begins: i64) -> Result<Option<Points>> {
        let mut points: Vec<(i64, f64)> = Vec::new();
        for span in spans_back(self.def, begins, self.from_ns) {
            let mut earlier = self.numbers(chosen, walked, span)?;
            earlier.append(&mut points);
            points = earlier;
            if let Some(first) = walked.choice.settled(span.0, &points) {
                points.drain(..first);
                break;
            }
            let expired = walked.choice.checks.spike.is_none() && points.is_empty() && span.0 <= lowest;
            if expired || points.len() > SETTLING_MAX {
                break;
            }
        }
        let values = points.iter().map(|(_, value)| *value);
        Ok((!points.is_empty()).then(|| Points {
            values: match walked.property.value_type {
                ValueType::I64 => Values::I64(values.map(|value| value as i64).collect()),
                _ => Values::F64(values.collect()),
            },
            times: points.iter().map(|(t_ns, _)| *t_ns).collect(),
            dropped: Vec::new(),
        }))
    }

    /// The numbers of a property within a span that count by themselves.
    fn numbers(&self, chosen: &Chosen, walked: &Walked<'_>, (from_ns, to_ns): (i64, i64)) -> Result<Vec<(i64, f64)>> {
        let mut numbers = Vec::new();
        let one = std::slice::from_ref(chosen);
        let _ = self.answering.scan(self.def, one, from_ns, to_ns, |_, value| {
            for block in bucket::blocks(value) {
                let block = block.map_err(corrupt)?;
                if block.last_ns() < from_ns || block.first_ns() >= to_ns {
                    continue;
                }
                let mut folding = block.folding();
                let points = folding
                    .points(walked.property.number, &walked.choice)
                    .map_err(corrupt)?;
                for (place, t_ns) in points.iter().flat_map(|points| points.times.iter().enumerate()) {
                    let number = points.as_ref().and_then(|points| points.values.get(place)?.number());
                    numbers.extend(
                        number
                            .filter(|_| (from_ns..to_ns).contains(t_ns))
                            .map(|number| (*t_ns, number)),
                    );
                }
                self.answering.tally.block(folding.decoded())?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(numbers)
    }

    /// The last point of each property that has none yet, within a range.
    fn last_between(&self, chosen: &Chosen, from_ns: i64, to_ns: i64, found: &mut [Option<Points>]) -> Result<()> {
        let missing =
            |(found, walked): (&Option<Points>, &Walked<'_>)| found.is_none() && !walked.choice.needs_settling();
        let missing: Vec<bool> = found.iter().zip(&self.walked).map(missing).collect();
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
    fn new(walked: &'w Walked<'w>, to_ns: i64) -> Way<'w> {
        let judge = || walked.choice.judge();
        Way {
            walked,
            judge: walked.choice.needs_order().then(judge),
            judged: Points::empty(walked.property.value_type),
            to_ns,
            is_behind: false,
        }
    }

    /// Points that count by themselves.
    fn take(&mut self, points: &Points, at: usize, each: &mut impl FnMut(usize, &Points) -> Result<()>) -> Result<()> {
        let Some(judge) = &mut self.judge else {
            self.is_behind |= points.times.last().is_some_and(|last| *last >= self.to_ns);
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
        self.is_behind |= judged.times.last().is_some_and(|last| *last >= self.to_ns);
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
