//! Readers of a replica's log other than Raft: how far each has read, so that what it lacks is not let go under it. Never: I/O.
//!
//! Invariant: what a reader has not read counts while it reads and for a moment after, when it may come back; how many bytes
//! stay for it is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Instant, monotonic};

/// A reader that has gone has this long to come back.
const LINGER: Duration = Duration::from_secs(60);
/// Those that have gone and may come back.
const GONE_MAX: usize = 4_096;

#[derive(Copy, Clone, Debug)]
struct Reader {
    /// Read up to here.
    index: u64,
    ended: Option<Instant>,
}

/// All readers of one log.
#[derive(Debug, Default)]
pub(super) struct Holds {
    readers: Mutex<(u64, BTreeMap<u64, Reader>)>,
}

/// One reader; lingers for a while when dropped.
#[derive(Debug)]
pub struct Hold {
    holds: Arc<Holds>,
    number: u64,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Reader>)> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader begins behind an index.
    pub(super) fn begin(self: &Arc<Self>, index: u64) -> Hold {
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
        let holds = Arc::new(Holds::default());
        let (slow, fast) = (holds.begin(3), holds.begin(3));
        fast.read_upto(9);
        assert_eq!(holds.read_upto(monotonic()), [3, 9]);
        drop(slow);
        assert_eq!(holds.read_upto(monotonic()), [3, 9], "it may come back");
        assert_eq!(holds.read_upto(monotonic() + LINGER * 2), [9]);
        assert_eq!(holds.read_upto(monotonic()), [9]);
    }
}
