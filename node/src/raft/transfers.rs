//! Checkpoints on their way from this replica: how far each is, and which log has to stay for its receiver. Never: I/O.
//!
//! Invariant: from the moment a checkpoint is asked for until its receiver follows the log behind it, nothing above its
//! index is called free; a receiver that is given up for a while is no longer waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Instant, monotonic};

/// A receiver whose transfer ended, well or not, has this long to go on.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);

#[derive(Copy, Clone, Debug)]
struct Transfer {
    number: u64,
    /// The receiver needs the log above this.
    index: u64,
    bytes_total: u64,
    bytes_done: u64,
    ended: Option<Instant>,
}

/// All transfers of one replica by receiver.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    by_receiver: Mutex<(u64, BTreeMap<u64, Transfer>)>,
}

/// A transfer that runs; ends when dropped.
#[derive(Debug)]
pub(super) struct Running {
    transfers: Arc<Transfers>,
    receiver: u64,
    number: u64,
}

impl Transfers {
    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, BTreeMap<u64, Transfer>)> {
        self.by_receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a transfer to a replica, in place of an earlier one to it.
    pub(super) fn begin(self: &Arc<Self>, receiver: u64, index: u64) -> Running {
        let mut transfers = self.lock();
        transfers.0 += 1;
        let number = transfers.0;
        let transfer = Transfer {
            number,
            index,
            bytes_total: 0,
            bytes_done: 0,
            ended: None,
        };
        transfers.1.insert(receiver, transfer);
        Running {
            transfers: self.clone(),
            receiver,
            number,
        }
    }

    /// Receiver, bytes of the checkpoint, bytes that are there; of those that run.
    pub(super) fn progress(&self) -> Vec<(u64, u64, u64)> {
        let transfers = self.lock();
        let running = transfers.1.iter().filter(|(_, transfer)| transfer.ended.is_none());
        running
            .map(|(receiver, transfer)| (*receiver, transfer.bytes_total, transfer.bytes_done))
            .collect()
    }

    /// The lowest index above which the log has to stay. `matched` knows how far a receiver follows.
    pub(super) fn fence(&self, matched: impl Fn(u64) -> u64, now: Instant) -> Option<u64> {
        let mut transfers = self.lock();
        transfers.1.retain(|receiver, transfer| match transfer.ended {
            None => true,
            Some(ended) => now.saturating_duration_since(ended) < GIVEN_UP_AFTER && matched(*receiver) < transfer.index,
        });
        transfers.1.values().map(|transfer| transfer.index).min()
    }
}

impl Running {
    fn change(&self, change: impl FnOnce(&mut Transfer)) {
        let mut transfers = self.transfers.lock();
        let mine = transfers.1.get_mut(&self.receiver);
        if let Some(transfer) = mine.filter(|transfer| transfer.number == self.number) {
            change(transfer);
        }
    }

    /// Notes how much there is, and how much the receiver has of it.
    pub(super) fn set(&self, bytes_total: u64, bytes_done: u64) {
        self.change(|transfer| (transfer.bytes_total, transfer.bytes_done) = (bytes_total, bytes_done));
    }

    /// Notes that so much more was sent.
    pub(super) fn sent(&self, bytes: u64) {
        self.change(|transfer| transfer.bytes_done += bytes);
    }

    /// Bytes that are there.
    pub(super) fn done(&self) -> u64 {
        let mut done = 0;
        self.change(|transfer| done = transfer.bytes_done);
        done
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.change(|transfer| transfer.ended = Some(monotonic()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_until_the_receiver_follows_or_is_given_up() {
        let transfers = Arc::new(Transfers::default());
        let nobody = |_| 0;
        assert_eq!(transfers.fence(nobody, monotonic()), None);
        let (seven, eight) = (transfers.begin(7, 100), transfers.begin(8, 50));
        seven.set(1_000, 200);
        seven.sent(300);
        assert_eq!(transfers.progress(), [(7, 1_000, 500), (8, 0, 0)]);
        let much_later = monotonic() + 10 * GIVEN_UP_AFTER;
        assert_eq!(
            transfers.fence(nobody, much_later),
            Some(50),
            "one that runs is waited for"
        );
        drop(eight);
        assert_eq!(transfers.progress(), [(7, 1_000, 500)]);
        assert_eq!(transfers.fence(nobody, monotonic()), Some(50));
        assert_eq!(transfers.fence(|_| 50, monotonic()), Some(100), "8 follows");
        // An earlier transfer to the same replica does not end the one that took its place.
        let again = transfers.begin(7, 120);
        drop(seven);
        assert_eq!(transfers.fence(nobody, much_later), Some(120));
        drop(again);
        assert_eq!(transfers.fence(nobody, monotonic()), Some(120));
        assert_eq!(transfers.fence(nobody, much_later), None, "given up");
    }
}
