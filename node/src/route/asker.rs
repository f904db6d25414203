//! On whose behalf a shard is read: until when, for which application, and how much was decoded for the question so far.
//!
//! Never here: what is asked. Invariant: all parts of a question count into one meter, on whichever nodes they are worked on, so
//! that parts that work at once keep one budget between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::applications::Application;
use crate::clock::Instant;
use crate::error::{Error, Reason, Result};
use crate::metrics::Gauge;

/// Another node tells of the values that it decodes whenever it has decoded this part of the budget more.
const PROGRESS_SHARE: u64 = 64;
/// But not more often than this,
const PROGRESS_MIN: u64 = 1 << 16;
/// and not more seldom: who leaves an answer has what was not told of it for nothing.
const PROGRESS_MAX: u64 = 1 << 20;

/// Whoever asks.
#[derive(Clone, Debug)]
pub struct Asker {
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
    /// Whom it counts for.
    pub application: Arc<Application>,
    /// Of a question that this node was asked: what all its parts decode.
    pub meter: Option<Arc<Meter>>,
    /// Of one that another node was asked: it hears each time so many more values were decoded. 0: it does not.
    pub progress_every: u64,
    /// Series of single devices may come finished.
    pub takes_finished: bool,
    /// Bytes that this node holds of the question.
    pub holds: Arc<Gauge>,
}

impl Asker {
    /// Nobody who counts what is decoded.
    pub fn uncounted(application: Arc<Application>, deadline: Instant) -> Asker {
        Asker {
            deadline,
            application,
            meter: None,
            progress_every: 0,
            takes_finished: true,
            holds: Arc::default(),
        }
    }

    /// Notes that a part of the question holds so many bytes where it was so many before; `all` has those of all questions.
    ///
    /// # Errors
    /// `QUERY_TOO_LARGE` where the question alone holds more than its application may, else `APPLICATION_LIMIT` or `OVERLOADED` where
    /// all of the application, or of the node, hold too much. They count as held all the same.
    pub fn hold(&self, all: &Gauge, before: usize, now: usize) -> Result<()> {
        change(&self.holds, before, now);
        self.application.hold(all, before, now, self.holds.get())
    }
}

/// Has a gauge of bytes follow a part of them, so that it never shows more than there are.
pub(super) fn change(gauge: &Gauge, before: usize, now: usize) {
    match now.checked_sub(before) {
        Some(more) => gauge.add(more as u64),
        None => gauge.sub((before - now) as u64),
    }
}

/// Values that are decoded for a question, wherever.
#[derive(Debug)]
pub struct Meter {
    points: AtomicU64,
    points_max: u64,
    application: Arc<Application>,
}

impl Meter {
    /// Nothing yet, of at most so many.
    pub fn new(points_max: u64, application: Arc<Application>) -> Meter {
        Meter {
            points: AtomicU64::new(0),
            points_max,
            application,
        }
    }

    /// Counts some more.
    ///
    /// # Errors
    /// `TOO_MANY_POINTS` once there were more than there may be.
    pub fn spend(&self, points: u64) -> Result<()> {
        self.application.points.add(points);
        let before = self.points.fetch_add(points, Ordering::Relaxed);
        match before.saturating_add(points) > self.points_max {
            true => Err(too_many_points(self.points_max)),
            false => Ok(()),
        }
    }

    /// After how many values another node is to tell of them.
    pub fn progress_every(&self) -> u64 {
        (self.points_max / PROGRESS_SHARE).clamp(PROGRESS_MIN, PROGRESS_MAX)
    }
}

/// The answer to a question that decodes more than it may.
pub fn too_many_points(most: u64) -> Error {
    Error::new(
        Reason::TooManyPoints,
        format!("the query decodes more than {most} values"),
    )
    .field("points_max")
    .hint("ask for fewer devices, fewer properties or a shorter range, or take a part of the answer (partial_ok)")
}
