//! Bytes that the coordinator of a question holds until its end: counted for the application that asks, and for the node.
//!
//! Never here: how many one question may hold (see `series`). Invariant: they are given back when the question ends, however it
//! ends.

use std::sync::Arc;

use crate::error::Result;
use crate::metrics::Metrics;
use crate::route::Asker;

/// What a question holds.
pub(super) struct Held {
    metrics: Arc<Metrics>,
    asker: Asker,
    bytes: usize,
}

impl Held {
    /// Nothing yet.
    pub(super) fn new(metrics: Arc<Metrics>, asker: Asker) -> Held {
        Held {
            metrics,
            asker,
            bytes: 0,
        }
    }

    /// How much it is now.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes that it is so much now.
    ///
    /// # Errors
    /// `QUERY_TOO_LARGE` where it alone holds more than its application may, `APPLICATION_LIMIT` or `OVERLOADED` where all questions of the application, or of the node, hold too much.
    pub(super) fn is_now(&mut self, bytes: usize) -> Result<()> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.asker.hold(&self.metrics.query_bytes_held, before, bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // To hold less is never refused.
        self.is_now(0).ok();
    }
}
