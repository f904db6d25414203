//! Small questions about a few devices of a shard that is here, answered on the thread that asks: to wake another one, and be
//! woken by it, costs more than the answer.
//!
//! Never here: what is read. Invariant: nothing here waits for the disk or takes long; what is not in memory, or much, or
//! refused, goes the long way as if nothing had been tried.

use std::cell::{Cell, RefCell};

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;

use crate::error::{Error, Reason, Result};
use crate::route::{Asker, Hearing, Ready, ShardJob};
use crate::store::from_memory;

/// Encoded values that it may look at: a month of one device. What reads more was begun for nothing.
const VALUE_BYTES_MAX: usize = 128 << 10;
/// Points that it may decode, as few bytes may hold many of them; the block in which they run out to its end.
const POINTS_MAX: u64 = 65_536;
/// Rows that it may send.
const ROWS_MAX: usize = 16_384;

/// All parts of a shard's answer, the last one its summary; `None`: ask the long way.
pub(super) fn answer(ready: &Ready, query: &Query, job: &ShardJob, asker: &Asker) -> Option<Vec<Part>> {
    let kept = Kept {
        parts: RefCell::default(),
        rows: Cell::default(),
        points: Cell::default(),
        asker,
    };
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
struct Kept<'a> {
    parts: RefCell<Vec<Part>>,
    rows: Cell<usize>,
    points: Cell<u64>,
    asker: &'a Asker,
}

impl Hearing for Kept<'_> {
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

    fn asker(&self) -> &Asker {
        self.asker
    }

    /// Counted for the question once the answer is one.
    fn spend(&self, points: u64) -> Result<()> {
        self.points.set(self.points.get().saturating_add(points));
        match self.points.get() > POINTS_MAX {
            true => Err(Error::new(Reason::Unreachable, "more than is decoded on this thread")),
            false => Ok(()),
        }
    }
}
