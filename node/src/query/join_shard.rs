//! A right side of a join in one shard: the points that left records can be joined to.
//!
//! Never here: left records, which devices belong to which. Invariant: of each property come, in order, the last point that counts
//! before the range, all in it, and the first one behind it, as far as the direction and the tolerance ask for them.

use std::ops::{ControlFlow, Range};

use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{JoinPoints, JoinSeries, ShardJoin};
use tidemark_proto::v1::{AnswerSummary, JoinDirection, JoinSide};
use tidemark_series::{AsOf, Choice, Points, Toward};

use super::functions::max_gap_ns;
use super::join_values::bytes_of;
use super::plan::{check_range, passes_over_types};
use super::shard_side::{Answering, Chosen, Wanted};
use super::walk::{Walk, Walked, choice, spans_ahead, spans_back};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;
use crate::wire::answer::to_values;

/// A part is sent once it takes so much.
const BYTES_PER_PART: usize = 256 << 10;

/// What of a type belongs to a time.
pub(super) fn asof(side: &JoinSide, def: &TypeDef) -> AsOf {
    AsOf {
        toward: match side.direction() {
            JoinDirection::Unspecified | JoinDirection::Backward => Toward::Backward,
            JoinDirection::Forward => Toward::Forward,
            JoinDirection::Nearest => Toward::Nearest,
        },
        strictly: side.strictly,
        reach_ns: (!side.however_far).then(|| max_gap_ns(side.tolerance_ms, def)),
    }
}

/// Answers from one shard.
pub(super) fn answer(answering: &Answering<'_>, request: &ShardJoin) -> Result<AnswerSummary> {
    check_range(request.from_ns, request.to_ns)?;
    let side = request.side.clone().unwrap_or_default();
    let selector = side.selector.clone().unwrap_or_default();
    let pass_over = passes_over_types(&selector);
    let mut summary = AnswerSummary::default();
    let mut part = Collected::default();
    let flow = answering.each_run(&selector, Wanted::Nothing, |devices| {
        let Some(def) = devices.first().map(|first| first.def.clone()) else {
            return Ok(ControlFlow::Continue(()));
        };
        let properties = match def.choose(&side.properties) {
            Ok(properties) => properties,
            Err(_) if pass_over => return Ok(ControlFlow::Continue(())),
            Err(e) => return Err(e),
        };
        let reading = Reading {
            answering,
            request,
            def: &def,
            properties,
            asof: asof(&side, &def),
        };
        for chosen in devices {
            summary.devices += 1;
            summary.points_dropped += reading.device(chosen, &mut part)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if flow.is_continue() && !part.points.series.is_empty() {
        let _ = answering.send(Part::Join(part.points));
    }
    Ok(summary)
}

/// Points on their way.
#[derive(Default)]
struct Collected {
    points: JoinPoints,
    bytes: usize,
}

struct Reading<'a> {
    answering: &'a Answering<'a>,
    request: &'a ShardJoin,
    def: &'a TypeDef,
    properties: Vec<&'a PropertyDef>,
    asof: AsOf,
}

impl<'a> Reading<'a> {
    /// Adds the points of a device; returns how many in the range were left out for their quality.
    fn device(&self, chosen: &Chosen, part: &mut Collected) -> Result<u64> {
        let (from, to) = (self.request.from_ns, self.request.to_ns);
        let mut dropped = 0;
        if from >= to {
            return Ok(dropped);
        }
        if self.asof.looks_back() {
            self.before(chosen, part)?;
        }
        self.walk(0..self.properties.len(), (from, to))
            .over(chosen, |at, points| {
                dropped += points.dropped.iter().filter(|t| (from..to).contains(t)).count() as u64;
                self.push(chosen, at, points.part(places(points, (from, to))), part);
                Ok(())
            })?;
        if self.asof.looks_ahead() {
            self.behind(chosen, part)?;
        }
        Ok(dropped)
    }

    /// The last point of each property before the range that counts.
    fn before(&self, chosen: &Chosen, part: &mut Collected) -> Result<()> {
        let from = self.request.from_ns;
        let Some(begins) = self.answering.shard.data_begins(self.def.number()) else {
            return Ok(());
        };
        let reach = self.asof.reach_ns.map_or(i64::MIN, |reach| from.saturating_sub(reach));
        let spans = spans_back(self.def, reach.max(begins), from);
        self.first_found(chosen, spans, part, |found, within| {
            *found = Some(within.part(within.times.len() - 1..within.times.len()));
        })
    }

    /// The first point of each property behind the range that counts.
    fn behind(&self, chosen: &Chosen, part: &mut Collected) -> Result<()> {
        let to = self.request.to_ns;
        let ends = self
            .answering
            .shard
            .data_ends(self.def.number(), self.def.bucket_span_ns);
        let Some(ends) = ends else {
            return Ok(());
        };
        let reach = self.asof.reach_ns.map_or(i64::MAX, |reach| to.saturating_add(reach));
        let spans = spans_ahead(self.def, to, reach.min(ends));
        self.first_found(chosen, spans, part, |found, within| {
            found.get_or_insert_with(|| within.part(0..1));
        })
    }

    /// Looks through spans until there is a point of each property; `keep` is given some that there are in a span, in order.
    fn first_found(
        &self,
        chosen: &Chosen,
        spans: impl Iterator<Item = (i64, i64)>,
        part: &mut Collected,
        keep: impl Fn(&mut Option<Points>, &Points),
    ) -> Result<()> {
        let mut found: Vec<Option<Points>> = self.properties.iter().map(|_| None).collect();
        for span in spans {
            let missing: Vec<usize> = (0..found.len()).filter(|at| found[*at].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            self.walk(missing.iter().copied(), span).over(chosen, |at, points| {
                let within = points.part(places(points, span));
                if !within.times.is_empty() {
                    keep(&mut found[missing[at]], &within);
                }
                Ok(())
            })?;
        }
        for (at, points) in found.into_iter().enumerate() {
            self.push(
                chosen,
                at,
                points.unwrap_or_else(|| Points::empty(self.properties[at].value_type)),
                part,
            );
        }
        Ok(())
    }

    /// A walk over some of the properties.
    fn walk(&self, which: impl IntoIterator<Item = usize>, range: (i64, i64)) -> Walk<'a> {
        let walked = |at: usize| Walked {
            property: self.properties[at],
            choice: match self.request.any_quality {
                true => Choice::ALL,
                false => choice(self.properties[at], self.request.drop_suspect),
            },
        };
        let walked = which.into_iter().map(walked).collect();
        Walk::new(self.answering, self.def, walked, range, (0, 0))
    }

    fn push(&self, chosen: &Chosen, at: usize, points: Points, part: &mut Collected) {
        if points.times.is_empty() {
            return;
        }
        let property = self.properties[at];
        let values = to_values(points.values, property);
        part.bytes += bytes_of(&values) + size_of_val::<[i64]>(&points.times) + chosen.id().len();
        part.points.series.push(JoinSeries {
            device: chosen.id().to_owned(),
            type_number: self.def.number(),
            property: property.number.0,
            observed_at_ns: points.times,
            values: Some(values),
        });
        if part.bytes >= BYTES_PER_PART {
            // Whoever does not listen any more is noticed by the next read.
            let _ = self.answering.send(Part::Join(std::mem::take(part).points));
        }
    }
}

/// Places of the points within a range.
fn places(points: &Points, (from_ns, to_ns): (i64, i64)) -> Range<usize> {
    let first = points.times.partition_point(|t| *t < from_ns);
    let end = points.times.partition_point(|t| *t < to_ns);
    first..end.max(first)
}
