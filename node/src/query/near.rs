//! Small questions about a few devices that this node leads, answered on the thread that asks: to wake another one, and be
//! woken by it, costs more than the answer.
//!
//! Never here: what is read. Invariant: nothing here waits for the disk or takes long; what is not in memory, or much, or
//! refused, goes the long way as if nothing had been tried.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, Consistency, ConsistencyLevel, Selector, consistency};

use crate::route::{Router, ShardJob};
use crate::store::from_memory;

/// Devices that such a question names at most.
const DEVICES_MAX: usize = 4;
/// Encoded values that it may look at.
const VALUE_BYTES_MAX: usize = 32 << 10;
/// Rows that it may send.
const ROWS_MAX: usize = 16_384;
/// A leader that takes longer to be sure of itself is not one to wait for here.
const LEADS_WITHIN: Duration = Duration::from_millis(100);

/// All parts of a shard's answer, the last one its summary; `None`: ask the long way.
pub(super) async fn answer(
    router: &Router,
    shard: u32,
    query: &Query,
    consistency: &Consistency,
    job: &ShardJob,
) -> Option<Vec<Part>> {
    let any = matches!(consistency.level, Some(consistency::Level::Any(_)));
    if any || !names_few(query) {
        return None;
    }
    let replica = router.host().replica(shard);
    let replica = replica.filter(|replica| replica.votes() && replica.is_leader())?;
    replica.linearize(LEADS_WITHIN).await.ok()?.ok()?;
    let (parts, rows) = (RefCell::new(Vec::new()), Cell::new(0));
    let keep = |part: Part| {
        if let Part::Batch(batch) = &part {
            rows.set(rows.get() + batch.observed_at_ns.len());
        }
        parts.borrow_mut().push(part);
        rows.get() <= ROWS_MAX
    };
    let summary = from_memory(VALUE_BYTES_MAX, || job(&replica, query, &keep)).ok()?;
    if rows.get() > ROWS_MAX {
        return None;
    }
    let mut parts = parts.into_inner();
    parts.push(Part::Summary(AnswerSummary {
        consistency: ConsistencyLevel::Linearizable as i32,
        lag_ms: 0,
        ..summary
    }));
    Some(parts)
}

fn names_few(query: &Query) -> bool {
    let few = |selector: &Option<Selector>| {
        let named = selector.as_ref().map_or(0, |selector| selector.device_ids.len());
        (1..=DEVICES_MAX).contains(&named)
    };
    match query {
        Query::Range(request) => few(&request.selector),
        Query::Aggregate(request) => few(&request.selector),
        Query::Latest(request) => few(&request.selector),
        Query::Resolve(_) | Query::Devices(_) => false,
    }
}
