//! What a node says of its process and machine, in the words of the contract, and how far its clock is from the one
//! of the node that asks. Never: decisions.

use tidemark_proto::peer::NodeViewResponse;
use tidemark_proto::v1::NodeFacts;

use crate::clock::{Instant, NS_PER_MS, monotonic, now_ns};
use crate::metrics::Facts;

/// The facts of this node. Its clock is its own: no offset.
pub(super) fn facts(facts: &Facts) -> NodeFacts {
    NodeFacts {
        version: env!("CARGO_PKG_VERSION").to_string(),
        started_at_ns: facts.started_at_ns,
        clock_offset_ms: 0,
        disk_total_bytes: facts.disk.total,
        disk_free_bytes: facts.disk.free,
        disk_reserve_bytes: facts.disk.reserve,
        disk_low: facts.disk.low,
        memory_bytes: facts.process.memory_bytes,
        open_files: facts.process.open_files,
        open_files_max: facts.process.open_files_max,
        points_written: facts.points_written,
        writes: facts.writes,
        queries: facts.queries,
        failures: facts.failures,
        cpu_ms: facts.process.cpu_ms,
        tls: false,
    }
}

/// A question for another node's view, on its way.
pub(super) struct Asking {
    sent_at_ns: i64,
    began: Instant,
}

impl Asking {
    /// Right before it is sent.
    pub(super) fn begin() -> Asking {
        Asking {
            sent_at_ns: now_ns(),
            began: monotonic(),
        }
    }

    /// Right after it is answered: the view, with the offset of its clock at half of the round trip.
    pub(super) fn ended(&self, mut view: NodeViewResponse) -> NodeViewResponse {
        let half_ns = self.began.elapsed().as_nanos() as i64 / 2;
        if let Some(facts) = &mut view.facts {
            let offset_ns = view.now_ns.saturating_sub(self.sent_at_ns.saturating_add(half_ns));
            facts.clock_offset_ms = offset_ns / NS_PER_MS;
        }
        view
    }
}
