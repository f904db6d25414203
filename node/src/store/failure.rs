//! What is done when a disk does not keep what it was given. Never here: who notices it, and what else a caller is told.
//!
//! Invariant: after a failed write or sync nobody knows what is on disk, and the page cache no longer tells. Only a restart
//! does, so nothing is tried again.

use std::sync::Arc;

/// Called with the reason when something can't be written. Returns in tests only.
pub type FailureHook = Arc<dyn Fn(&str) + Send + Sync>;

/// The hook of a running node: says what failed and ends the process at once.
pub(crate) fn end_process(what: &'static str) -> FailureHook {
    Arc::new(move |reason| {
        tracing::error!(reason, "{what} can't be written, the process ends");
        std::process::abort();
    })
}
