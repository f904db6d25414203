//! How many records the devices of a selector have within a range, and how many windows of rollups whose points are gone: what a delete
//! would remove, device by device.
//!
//! Records of report kind test are counted beside the others, under their own number. Never here: removing them. Invariant: a device
//! without any is left out, so that a delete costs what there is to delete.

use std::ops::ControlFlow;

use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{RecordCounts, ShardCount};
use tidemark_proto::v1::AnswerSummary;

use super::rollups::edges;
use super::shard_side::{Answering, Chosen, Wanted};
use crate::error::Result;
use crate::raft::state::store_error;
use crate::shard::{Edges, test_lane};

/// Answers from one shard.
pub(super) fn answer(answering: &Answering<'_>, request: &ShardCount) -> Result<AnswerSummary> {
    let selector = request.selector.clone().unwrap_or_default();
    let mut summary = AnswerSummary::default();
    let _ = answering.each_run(&selector, Wanted::Nothing, |run| {
        let Some(first) = run.first() else {
            return Ok(ControlFlow::Continue(()));
        };
        summary.devices += run.len() as u64;
        let mut ordinals: Vec<u32> = run.iter().map(Chosen::ordinal).collect();
        ordinals.sort_unstable();
        let (number, span_ns) = (first.def.number(), first.def.bucket_span_ns);
        let range = (request.from_ns, request.to_ns);
        let edges = Edges::new(edges(&first.def));
        for number in [number, test_lane(number)] {
            let counted = answering
                .shard
                .count_records(number, &ordinals, span_ns, range, &edges)
                .map_err(store_error)?;
            let mut counts = RecordCounts {
                type_number: number,
                ..RecordCounts::default()
            };
            for (ordinal, counted) in ordinals.iter().zip(counted) {
                if counted.records > 0 || counted.windows > 0 || counted.beside {
                    counts.ordinals.push(*ordinal);
                    counts.records.push(counted.records);
                    counts.buckets.push(counted.buckets);
                    counts.windows.push(counted.windows);
                    counts.rolled |= counted.rolled;
                }
            }
            if !counts.ordinals.is_empty() && answering.send(Part::Counts(counts)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(summary)
}
