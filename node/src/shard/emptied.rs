//! Ranges of keys that hold nothing any more: whoever has time compacts them, so that their space comes back soon.
//!
//! Never here: compaction. Invariant: only of this process; what it forgets at its end comes back with the engine's own
//! compactions.

use std::sync::{Mutex, PoisonError};

use super::Shard;
use crate::store::{Family, StoreError};

/// First key, and the first one behind the last.
pub(super) type KeyRange = ([u8; 16], [u8; 16]);

/// Ranges of block keys.
#[derive(Default)]
pub(super) struct Emptied(Mutex<Vec<KeyRange>>);

impl Emptied {
    /// Notes ranges that a chunk emptied; one that begins as an earlier one takes its place.
    pub(super) fn note(&self, ranges: Vec<KeyRange>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for range in ranges {
            known.retain(|(lower, _)| *lower != range.0);
            known.push(range);
        }
    }

    /// Takes ranges back that were to be compacted; of two that begin alike the one that came meanwhile stays.
    fn note_older(&self, ranges: &[KeyRange]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for range in ranges {
            if known.iter().all(|(lower, _)| *lower != range.0) {
                known.push(*range);
            }
        }
    }
}

impl Shard {
    /// Compacts what was emptied since the last time; how many ranges.
    ///
    /// # Errors
    /// Of the flush before it; what was not compacted is left for the next time.
    pub fn compact_emptied(&self) -> Result<usize, StoreError> {
        let ranges = std::mem::take(&mut *self.emptied.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (at, (lower, upper)) in ranges.iter().enumerate() {
            if let Err(error) = self.store.db().compact_range(Family::Blocks, lower, upper) {
                self.emptied.note_older(&ranges[at..]);
                return Err(error);
            }
        }
        Ok(ranges.len())
    }
}
