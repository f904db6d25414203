//! Bytes that the coordinator of a question holds until its end: counted for the application that asks, and for the node.
//!
//! Never here: how many one question may hold (see `series`). Invariant: they are given back when the question ends, however it
//! ends.

use std::sync::Arc;

use crate::error::Result;
use crate::metrics::Metrics;
use crate::route::Application;

/// What a question holds.
pub(super) struct Held {
    metrics: Arc<Metrics>,
    application: Arc<Application>,
    bytes: usize,
}

impl Held {
    /// Nothing yet.
    pub(super) fn new(metrics: Arc<Metrics>, application: Arc<Application>) -> Held {
        Held {
            metrics,
            application,
            bytes: 0,
        }
    }

    /// Notes that it is so much now.
    ///
    /// # Errors
    /// `APPLICATION_LIMIT` or `OVERLOADED` where all questions of the application, or of the node, hold too much.
    pub(super) fn is_now(&mut self, bytes: usize) -> Result<()> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.application.hold(&self.metrics.query_bytes_held, before, bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // To hold less is never refused.
        self.is_now(0).ok();
    }
}
