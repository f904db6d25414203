//! Readers of a replica's log other than Raft: how far each has read, so that what it lacks is not let go under it. Never: I/O.
//!
//! Invariant: what a reader has not read counts while it reads and for a moment after, when it may come back; that there was one
//! at all counts for longer. How many bytes stay for it is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Instant, monotonic};

/// A reader that has gone has this long to come back.
const LINGER: Duration = Duration::from_secs(60);
/// A log that somebody has read is worth keeping for so long: it may be read again.
const WANTED: Duration = Duration::from_secs(24 * 3_600);
/// Those that have gone and may come back.
const GONE_MAX: usize = 4_096;

#[derive(Copy, Clone, Debug)]
struct Reader {
    /// Read up to here.
    index: u64,
    ended: Option<Instant>,
}

/// All readers of one log.
#[derive(Debug)]
pub(super) struct Holds {
    readers: Mutex<(u64, BTreeMap<u64, Reader>)>,
    /// Until when somebody may come and read what is there now.
    wanted_until: Mutex<Instant>,
}

/// One reader; lingers for a while when dropped.
#[derive(Debug)]
pub struct Hold {
    holds: Arc<Holds>,
    number: u64,
}

impl Holds {
    /// None yet. Where the log had entries when the process started, readers of the process before may come back.
    pub(super) fn new(had_entries: bool) -> Holds {
        let linger = if had_entries { LINGER } else { Duration::ZERO };
        Holds {
            readers: Mutex::default(),
            wanted_until: Mutex::new(monotonic() + linger),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Reader>)> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, until: Instant) {
        let mut wanted_until = self.wanted_until.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted_until = until.max(*wanted_until);
    }

    /// Whether somebody reads, or may come and read: a while after the last reader, and a moment after the start.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        let reads = self.lock().1.values().any(|reader| reader.ended.is_none());
        reads || now < *self.wanted_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader begins behind an index.
    pub(super) fn begin(self: &Arc<Self>, index: u64) -> Hold {
        self.want(monotonic() + WANTED);
        let mut readers = self.lock();
        readers.0 += 1;
        let number = readers.0;
        readers.1.insert(number, Reader { index, ended: None });
        Hold {
            holds: self.clone(),
            number,
        }
    }

    /// Indexes that readers have read up to; of those that have gone, only as long as they may come back.
    pub(super) fn read_upto(&self, now: Instant) -> Vec<u64> {
        let mut readers = self.lock();
        let waits = |ended: Instant| now.saturating_duration_since(ended) < LINGER;
        readers.1.retain(|_, reader| reader.ended.is_none_or(waits));
        readers.1.values().map(|reader| reader.index).collect()
    }
}

impl Hold {
    /// It has read up to here.
    pub fn read_upto(&self, index: u64) {
        if let Some(reader) = self.holds.lock().1.get_mut(&self.number) {
            reader.index = index;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.want(monotonic() + WANTED);
        let mut readers = self.holds.lock();
        if let Some(reader) = readers.1.get_mut(&self.number) {
            reader.ended = Some(monotonic());
        }
        let gone = readers.1.values().filter(|reader| reader.ended.is_some()).count();
        if gone > GONE_MAX {
            let oldest = readers.1.iter().find(|(_, reader)| reader.ended.is_some());
            let oldest = oldest.map(|(number, _)| *number);
            oldest.map(|number| readers.1.remove(&number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_waited_for_and_then_forgotten() {
        let holds = Arc::new(Holds::new(true));
        let (slow, fast) = (holds.begin(3), holds.begin(3));
        fast.read_upto(9);
        assert_eq!(holds.read_upto(monotonic()), [3, 9]);
        drop(slow);
        assert_eq!(holds.read_upto(monotonic()), [3, 9], "it may come back");
        assert_eq!(holds.read_upto(monotonic() + LINGER * 2), [9]);
        assert_eq!(holds.read_upto(monotonic()), [9]);
    }

    #[test]
    fn a_log_is_wanted_for_a_while_after_it_was_read() {
        assert!(!Holds::new(false).is_wanted(monotonic()), "nobody can have read it");
        let holds = Arc::new(Holds::new(true));
        let after = |rest: Duration| holds.is_wanted(monotonic() + rest);
        assert!(after(Duration::ZERO), "by readers of the process before");
        assert!(!after(LINGER));
        let reader = holds.begin(3);
        assert!(after(WANTED * 2), "it reads");
        drop(reader);
        assert!(after(WANTED / 2) && !after(WANTED * 2));
    }
}
