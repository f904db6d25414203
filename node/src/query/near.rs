//! Small questions about a few devices of a shard that is here, answered on the thread that asks: to wake another one, and be
//! woken by it, costs more than the answer.
//!
//! Never here: what is read. Invariant: nothing here waits for the disk or takes long; what is not in memory, or much, or
//! refused, goes the long way as if nothing had been tried.

use std::cell::{Cell, RefCell};

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::Selector;

use crate::route::{Hearing, Ready, ShardJob};
use crate::store::from_memory;

/// Devices that such a question names at most.
const DEVICES_MAX: usize = 4;
/// Encoded values that it may look at.
const VALUE_BYTES_MAX: usize = 32 << 10;
/// Rows that it may send.
const ROWS_MAX: usize = 16_384;

/// All parts of a shard's answer, the last one its summary; `None`: ask the long way.
pub(super) fn answer(ready: &Ready, query: &Query, job: &ShardJob) -> Option<Vec<Part>> {
    let kept = Kept::default();
    let mut summary = from_memory(VALUE_BYTES_MAX, || job(ready.replica(), query, &kept)).ok()?;
    if !kept.is_there() {
        return None;
    }
    for work in summary.explain.iter_mut().flat_map(|explain| &mut explain.shards) {
        work.from_memory = true;
    }
    let mut parts = kept.parts.into_inner();
    parts.push(Part::Summary(ready.summary(summary)));
    Some(parts)
}

/// Parts that are kept here, while they are few.
#[derive(Default)]
struct Kept {
    parts: RefCell<Vec<Part>>,
    rows: Cell<usize>,
}

impl Hearing for Kept {
    fn take(&self, part: Part) -> bool {
        if let Part::Batch(batch) = &part {
            self.rows.set(self.rows.get() + batch.observed_at_ns.len());
        }
        self.parts.borrow_mut().push(part);
        self.is_there()
    }

    fn is_there(&self) -> bool {
        self.rows.get() <= ROWS_MAX
    }
}

/// Whether a question is of this kind.
pub(super) fn names_few(query: &Query) -> bool {
    let few = |selector: &Option<Selector>| {
        let named = selector.as_ref().map_or(0, |selector| selector.device_ids.len());
        (1..=DEVICES_MAX).contains(&named)
    };
    match query {
        Query::Range(request) => few(&request.selector),
        Query::Aggregate(request) => few(&request.selector),
        Query::Latest(request) => few(&request.selector),
        Query::Intervals(request) => few(&request.selector),
        Query::Resolve(_) | Query::Devices(_) | Query::Quality(_) | Query::Health(_) => false,
        Query::Count(_) | Query::Alerts(_) | Query::Join(_) => false,
    }
}
