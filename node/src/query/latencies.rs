//! How long points may take from observation to receipt, by what their type promises and why they were reported.
//!
//! Never here: which points are judged by it. Invariant: what no type promises is no point late for.

use tidemark_proto::v1::ReportKind;

use crate::catalog::types::TypeDef;

/// How long from observation to receipt is promised, by why a point was reported.
#[derive(Copy, Clone)]
pub(super) struct Latencies {
    routine: Option<i64>,
    event: Option<i64>,
}

impl Latencies {
    /// What a type promises.
    pub(super) fn of_type(def: &TypeDef) -> Latencies {
        Latencies {
            routine: def.latency_ns(),
            event: def.event_latency_ns().or(def.latency_ns()),
        }
    }

    /// Of points of a report kind, nanoseconds. A point that was held back was due when it was observed: the shorter promise.
    pub(super) fn of(&self, kind: u8) -> Option<i64> {
        match kind {
            kind if kind == ReportKind::Event as u8 => self.event,
            kind if kind == ReportKind::Backfill as u8 => match (self.routine, self.event) {
                (Some(routine), Some(event)) => Some(routine.min(event)),
                (routine, event) => routine.or(event),
            },
            _ => self.routine,
        }
    }
}
