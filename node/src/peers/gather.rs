//! The moment in which the heartbeats of all groups leave this node: they go together then. Never: who sends them.
//!
//! Invariant: outside of that moment nothing waits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Instant, monotonic};

/// Until when heartbeats wait for each other.
#[derive(Debug, Default)]
pub struct Gather {
    until: Mutex<Option<Instant>>,
}

impl Gather {
    /// Heartbeats wait for each other from now on, for so long.
    pub fn begin(&self, length: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(monotonic() + length);
    }

    /// How long that still is; `None` when it is over.
    pub fn left(&self) -> Option<Duration> {
        let until = (*self.until.lock().unwrap_or_else(PoisonError::into_inner))?;
        let left = until.saturating_duration_since(monotonic());
        (!left.is_zero()).then_some(left)
    }
}
