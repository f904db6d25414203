//! Bytes of batches that come in or are worked on, against what a node may have of them at once.
//!
//! Never here: what a batch is. Invariant: a byte counts from when it came until its batch is answered.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Reason, Result};

/// What a node may have in flight, in KiB.
pub(super) struct Budget {
    free: Arc<Semaphore>,
    kib: usize,
}

impl Budget {
    /// So many bytes, in whole KiB.
    pub(super) fn new(bytes: usize) -> Budget {
        let kib = bytes >> 10;
        let free = Arc::new(Semaphore::new(kib));
        Budget { free, kib }
    }

    /// Bytes that are taken.
    pub(super) fn taken(&self) -> usize {
        self.kib.saturating_sub(self.free.available_permits()) << 10
    }

    /// Room that is not taken yet.
    pub(super) fn room(&self) -> Room {
        let free = self.free.clone();
        Room { free, held: None }
    }
}

/// What one batch takes of it, for as long as this lives.
pub struct Room {
    free: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Holds room for so many bytes in all. `OVERLOADED` where there is not as much.
    pub fn hold(&mut self, bytes: usize) -> Result<()> {
        let wanted = (bytes >> 10).max(1);
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted <= held {
            return Ok(());
        }
        let missing = u32::try_from(wanted - held).unwrap_or(u32::MAX);
        let more = self.free.clone().try_acquire_many_owned(missing).map_err(|_| {
            Error::new(
                Reason::Overloaded,
                "this node has as many bytes of writes in flight as it may",
            )
        })?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn room_grows_with_a_batch_up_to_the_budget_and_comes_back() {
        let budget = Budget::new(8 << 10);
        let (mut first, mut second) = (budget.room(), budget.room());
        assert_eq!(budget.taken(), 0);
        first.hold(1).unwrap();
        first.hold(6 << 10).unwrap();
        first.hold(5 << 10).unwrap();
        assert_eq!(budget.taken(), 6 << 10);
        second.hold(2 << 10).unwrap();
        assert_eq!(second.hold(3 << 10).unwrap_err().reason(), Reason::Overloaded);
        drop(first);
        second.hold(3 << 10).unwrap();
        assert_eq!(budget.taken(), 3 << 10);
    }
}
