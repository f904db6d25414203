//! The points of a device that count, in the order of their times, with the last one before a range and the first one behind it.
//!
//! Never here: what is made of them. Invariant: which points count does not depend on where the range begins or ends.

use std::ops::ControlFlow;

use tidemark_proto::v1::Quality;
use tidemark_series::rollup::Wanted;
use tidemark_series::{Accepted, Choice, Points, Suspects, bucket};

use super::rollups::wanted;
use super::shard_side::{Answering, Chosen, corrupt};
pub(super) use super::way::Walked;
use super::way::{Each, Piece, Way};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::{Error, Result};
use crate::shard::{Rolling, Stored};

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
    Choice {
        accepted: Accepted(!(left_out(Quality::Fail) | left_out(Quality::Missing))),
        doubted: is_doubted,
        checks: &property.checks,
        suspect: Suspects::left_out(drop_suspect),
    }
}

/// What a source calls suspect.
pub(super) fn is_doubted(stated: u8) -> bool {
    stated == Quality::Suspect as u8
}

/// Which values count, suspect ones too, which are told.
pub(super) fn telling(property: &PropertyDef) -> Choice<'_> {
    Choice {
        suspect: Suspects::Told,
        ..choice(property, false)
    }
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
    /// Which rollups will do, if any.
    rolling: Option<Rolling>,
    /// By property.
    pub(super) wanted: Vec<Wanted>,
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
        let reach = |walked: &Walked<'_>| walked.choice.checks.reach_ns.max(walked.choice.checks.neighbours_ns);
        let around = in_order.map(reach).max().unwrap_or(0);
        let earlier = walked.iter().map(|walked| walked.choice.looks_back_ns()).max();
        Walk {
            answering,
            def,
            wanted: walked.iter().map(|walked| wanted(def, walked.property)).collect(),
            walked,
            from_ns: from_ns.saturating_sub(earlier.unwrap_or(0)),
            to_ns,
            back_ns: back_ns.max(around),
            // The next point that counts is told from another one behind it.
            ahead_ns: ahead_ns.saturating_add(around),
            rolling: None,
        }
    }

    /// The same, with rollups where they will do.
    pub(super) fn with_rollups(self, rolling: Option<Rolling>) -> Walk<'a> {
        Walk { rolling, ..self }
    }

    /// Gives `each` the points of a device as they come, with the place of their property.
    pub(super) fn over(&self, chosen: &Chosen, mut each: impl FnMut(usize, &Points) -> Result<()>) -> Result<()> {
        self.pieces(chosen, &mut |at, piece| match piece {
            Piece::Points(points) => each(at, points),
            Piece::Told(_) => Ok(()),
            Piece::Row(_) => Err(Error::internal("a rollup where points are walked over")),
        })
    }

    /// The same, with windows of rollups in the place of their points.
    pub(super) fn pieces(&self, chosen: &Chosen, each: &mut Each<'_>) -> Result<()> {
        let walked = self.walked.iter().enumerate();
        let mut ways: Vec<Way<'_>> = walked.map(|(at, walked)| Way::new(at, walked, self.to_ns)).collect();
        for (way, before) in ways.iter_mut().zip(self.before(chosen)?) {
            if let Some(before) = before {
                way.take(&before, each)?;
            }
        }
        let until = self.to_ns.saturating_add(self.ahead_ns);
        let _ = self.scan(chosen, (self.from_ns, until), |stored| {
            match stored {
                Stored::Points(value) => self.take(value, until, &mut ways, each)?,
                Stored::Rollup { rollup, .. } => {
                    for (way, wanted) in ways.iter_mut().zip(&self.wanted) {
                        way.take_rollup(&rollup, wanted, self.from_ns, each)?;
                    }
                }
            }
            // Of what lies behind, the first point is enough.
            Ok(match ways.iter().all(|way| way.is_past) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        for way in ways {
            way.end(each)?;
        }
        Ok(())
    }

    fn take(&self, value: &[u8], until_ns: i64, ways: &mut [Way<'_>], each: &mut Each<'_>) -> Result<()> {
        for block in bucket::blocks(value) {
            let block = block.map_err(corrupt)?;
            if block.last_ns() < self.from_ns {
                continue;
            }
            if block.first_ns() >= until_ns || ways.iter().all(|way| way.is_past) {
                break;
            }
            let mut folding = block.folding();
            for way in ways.iter_mut() {
                let points = folding.points(way.walked.property.number, &way.walked.choice);
                if let Some(points) = points.map_err(corrupt)? {
                    way.take(&from(points, self.from_ns), each)?;
                }
            }
            self.answering.tally.block(folding.decoded())?;
        }
        Ok(())
    }

    /// Buckets of a device that may have something of a range, oldest first.
    pub(super) fn scan(
        &self,
        chosen: &Chosen,
        range: (i64, i64),
        visit: impl FnMut(Stored<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let rolling = self.rolling.as_ref();
        self.answering.follow_rolled(self.def, chosen, range, rolling, visit)
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
