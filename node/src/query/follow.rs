//! Points of devices followed one after the other, for what a window holds of their sequence.
//!
//! Never here: what is gathered (see `functions`), what windows answer. Invariant: what a window gathers does not depend on
//! where the range of the question begins or ends: the last point before it and the first one behind it are looked at too.

use std::ops::ControlFlow;

use tidemark_proto::v1::QueryAggregateRequest;
use tidemark_series::checks::{Judge, Judged};
use tidemark_series::{Choice, Feed, Gathered, Needs, Points, ValueRef, Values, Windows, bucket};

use super::aggregate::choice;
use super::functions::{Asked, gathered};
use super::series::{Series, check_budget};
use super::shard_side::{Answering, Chosen, corrupt};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::clock::now_ns;
use crate::error::Result;

/// Each look further back for the last point goes so many times as far.
const FURTHER: i64 = 8;

/// Follows the points of devices of one type.
pub(super) struct Follower<'a> {
    answering: &'a Answering<'a>,
    def: &'a TypeDef,
    asked: Vec<Followed<'a>>,
    from_ns: i64,
    to_ns: i64,
    /// How far outside of the range the next points matter.
    reach_ns: (i64, i64),
}

/// A property, its windows, what is gathered of its sequence, and which of its points count.
struct Followed<'a> {
    property: &'a PropertyDef,
    windows: Windows,
    gathered: Gathered,
    choice: Choice<'a>,
}

/// A point of any type but text.
type Before = Option<(i64, ValueRef<'static>)>;

/// The points of a property on their way to its series.
struct Way<'f> {
    followed: &'f Followed<'f>,
    feed: Feed<'f>,
    /// Where neighbours decide what counts.
    judge: Option<Judge<'f>>,
    judged: Points,
    left_out: u64,
}

impl<'a> Follower<'a> {
    /// For properties of a checked request.
    pub(super) fn new(
        answering: &'a Answering<'a>,
        request: &QueryAggregateRequest,
        functions: &[Asked],
        def: &'a TypeDef,
        asked: &[(&'a PropertyDef, Windows)],
    ) -> Follower<'a> {
        let now_ns = now_ns();
        let followed = asked.iter().map(|(property, windows)| Followed {
            property,
            windows: *windows,
            gathered: gathered(functions, request, def, property, now_ns).unwrap_or_default(),
            choice: choice(request, property),
        });
        let asked: Vec<Followed<'a>> = followed.collect();
        let ranges = asked.iter().map(|followed| followed.windows.scan_range());
        let (from_ns, to_ns) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0, 0));
        let reach = |gathered: &Gathered| match gathered.looks_around() {
            true => gathered.max_gap_ns,
            false => 0,
        };
        let around = asked
            .iter()
            .map(|followed| reach(&followed.gathered))
            .max()
            .unwrap_or(0);
        let steps = asked.iter().any(|followed| followed.gathered.steps);
        Follower {
            answering,
            def,
            asked,
            from_ns,
            to_ns,
            reach_ns: (if steps { i64::MAX } else { around }, around),
        }
    }

    /// Adds the points of a device to its series, one per property; returns how many were left out for their quality.
    pub(super) fn follow(&self, chosen: &Chosen, series: &mut [Series]) -> Result<u64> {
        let before = self.before(chosen)?;
        let mut ways: Vec<Way<'_>> = self.asked.iter().map(Way::new).collect();
        for ((way, before), series) in ways.iter_mut().zip(before).zip(series.iter_mut()) {
            if let Some((t_ns, value)) = before {
                way.point(t_ns, value, series);
            }
        }
        let bytes_max = self.answering.limits.partials_bytes_max;
        let until = self.to_ns.saturating_add(self.reach_ns.1);
        let one = std::slice::from_ref(chosen);
        let _ = self.answering.scan(self.def, one, self.from_ns, until, |_, value| {
            let mut behind = true;
            for block in bucket::blocks(value) {
                let block = block.map_err(corrupt)?;
                if block.last_ns() < self.from_ns {
                    continue;
                }
                let mut folding = block.folding();
                for (way, series) in ways.iter_mut().zip(series.iter_mut()) {
                    let points = folding.points(way.followed.property.number, &way.followed.choice);
                    if let Some(points) = points.map_err(corrupt)? {
                        way.points(&points, self.from_ns, series);
                    }
                }
                behind &= block.first_ns() >= self.to_ns;
            }
            check_budget(series.iter().map(Series::bytes).sum(), bytes_max)?;
            // Of what lies behind, the first point is enough.
            Ok(match behind {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        Ok(ways.into_iter().zip(series).map(|(way, series)| way.end(series)).sum())
    }

    /// The last point of each property before the range, as far back as it matters.
    fn before(&self, chosen: &Chosen) -> Result<Vec<Before>> {
        let mut found: Vec<Before> = vec![None; self.asked.len()];
        let Some(begins) = self.answering.shard.data_begins(self.def.number()) else {
            return Ok(found);
        };
        let lowest = self.from_ns.saturating_sub(self.reach_ns.0).max(begins);
        let (mut end, mut length) = (self.from_ns, self.def.bucket_span_ns);
        while end > lowest && found.iter().any(Option::is_none) {
            let begin = end.saturating_sub(length).max(lowest);
            self.last_between(chosen, begin, end, &mut found)?;
            (end, length) = (begin, length.saturating_mul(FURTHER));
        }
        Ok(found)
    }

    /// The last point of each property that has none yet, within a range.
    fn last_between(&self, chosen: &Chosen, from_ns: i64, to_ns: i64, found: &mut [Before]) -> Result<()> {
        let missing: Vec<bool> = found.iter().map(Option::is_none).collect();
        let one = std::slice::from_ref(chosen);
        let _ = self.answering.scan(self.def, one, from_ns, to_ns, |_, value| {
            for block in bucket::blocks(value) {
                let block = block.map_err(corrupt)?;
                if block.last_ns() < from_ns || block.first_ns() >= to_ns {
                    continue;
                }
                let mut folding = block.folding();
                for (at, followed) in self.asked.iter().enumerate().filter(|(at, _)| missing[*at]) {
                    let points = folding.points(followed.property.number, &followed.choice);
                    let points = points.map_err(corrupt)?;
                    let last = points.as_ref().and_then(|points| last_before(points, to_ns));
                    found[at] = last.or(found[at]);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }
}

impl<'f> Way<'f> {
    fn new(followed: &'f Followed<'f>) -> Way<'f> {
        let judge = || Judge::new(followed.choice.checks, |_| false);
        Way {
            followed,
            feed: Feed::new(&followed.gathered, &followed.windows),
            judge: followed.choice.needs_order().then(judge),
            judged: Points::empty(followed.property.value_type),
            left_out: 0,
        }
    }

    /// Points of a block, those from `from_ns` on.
    fn points(&mut self, points: &Points, from_ns: i64, series: &mut Series) {
        let windows = &self.followed.windows;
        self.left_out += points.dropped_within(windows);
        if self.judge.is_none() {
            points.fold(windows, Needs::All, &mut series.points);
        }
        let from = points.times.partition_point(|t| *t < from_ns);
        for (at, t_ns) in points.times.iter().enumerate().skip(from) {
            if let Some(value) = points.values.get(at) {
                self.point(*t_ns, value, series);
            }
        }
        self.pass_on(series);
    }

    /// The next point, which counts by itself.
    fn point(&mut self, t_ns: i64, value: ValueRef<'_>, series: &mut Series) {
        let number = match value {
            ValueRef::F64(value) => value,
            ValueRef::I64(value) => value as f64,
            _ => return self.feed.point(t_ns, value, &mut series.sequences),
        };
        match &mut self.judge {
            None => self.feed.point(t_ns, value, &mut series.sequences),
            Some(judge) => {
                let (judged, left_out, followed) = (&mut self.judged, &mut self.left_out, self.followed);
                judge.point(t_ns, number, 0, |point| *left_out += sort(followed, point, judged));
            }
        }
    }

    /// Hands on what was judged.
    fn pass_on(&mut self, series: &mut Series) {
        if self.judged.times.is_empty() {
            return;
        }
        let judged = std::mem::replace(&mut self.judged, Points::empty(self.followed.property.value_type));
        judged.fold(&self.followed.windows, Needs::All, &mut series.points);
        for (at, t_ns) in judged.times.iter().enumerate() {
            if let Some(value) = judged.values.get(at) {
                self.feed.point(*t_ns, value, &mut series.sequences);
            }
        }
    }

    /// There are no more points; returns how many were left out.
    fn end(mut self, series: &mut Series) -> u64 {
        if let Some(judge) = &mut self.judge {
            let (judged, left_out, followed) = (&mut self.judged, &mut self.left_out, self.followed);
            judge.end(|point| *left_out += sort(followed, point, judged));
        }
        self.pass_on(series);
        self.feed.end(&mut series.sequences);
        self.left_out
    }
}

/// Keeps a judged point, or counts it where it is left out and would have been in a window.
fn sort(followed: &Followed<'_>, point: Judged, kept: &mut Points) -> u64 {
    if point.finding.is_some_and(|finding| followed.choice.leaves_out(finding)) {
        return u64::from(followed.windows.index_of(point.t_ns).is_some());
    }
    kept.times.push(point.t_ns);
    match &mut kept.values {
        Values::F64(values) => values.push(point.value),
        Values::I64(values) => values.push(point.value as i64),
        Values::Bool(_) | Values::Enum(_) | Values::Text(_) => {}
    }
    0
}

fn last_before(points: &Points, to_ns: i64) -> Before {
    let at = points.times.partition_point(|t| *t < to_ns).checked_sub(1)?;
    let value = match &points.values {
        Values::F64(values) => ValueRef::F64(*values.get(at)?),
        Values::I64(values) => ValueRef::I64(*values.get(at)?),
        Values::Bool(values) => ValueRef::Bool(*values.get(at)?),
        Values::Enum(values) => ValueRef::Enum(*values.get(at)?),
        Values::Text(_) => return None,
    };
    Some((points.times[at], value))
}
