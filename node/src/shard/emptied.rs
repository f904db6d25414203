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
}

impl Shard {
    /// Compacts what was emptied since the last time; how many ranges.
    ///
    /// # Errors
    /// Of the flush before it.
    pub fn compact_emptied(&self) -> Result<usize, StoreError> {
        let ranges = std::mem::take(&mut *self.emptied.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (lower, upper) in &ranges {
            self.store.db().compact_range(Family::Blocks, lower, upper)?;
        }
        Ok(ranges.len())
    }
}
