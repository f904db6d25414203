//! Reads that give up rather than wait for the disk, or take long: for a thread that others wait for.
//!
//! Never here: what is read. Invariant: such a read gives what any other would give, or an error; how much it may look at is
//! settled before.

use std::cell::Cell;

use rocksdb::{ReadOptions, ReadTier};

use super::StoreError;

thread_local! {
    /// Bytes of values that this thread may still look at; `None`: as many as there are, wherever they are.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs reads of this thread that fail where they would have to wait for the disk, or to look at more than so many bytes of
/// values.
pub fn from_memory<T>(bytes_max: usize, read: impl FnOnce() -> T) -> T {
    struct Before(Option<usize>);
    impl Drop for Before {
        fn drop(&mut self) {
            LEFT.set(self.0);
        }
    }
    let _before = Before(LEFT.replace(Some(bytes_max)));
    read()
}

/// True while reads of this thread must not wait.
pub(super) fn only() -> bool {
    LEFT.get().is_some()
}

/// Tells the engine.
pub(super) fn restrict(reads: &mut ReadOptions) {
    if only() {
        reads.set_read_tier(ReadTier::BlockCache);
    }
}

/// Counts a value that was looked up. An empty one is not believed: the engine takes a key of a file that is not open for one
/// that may have any value.
pub(super) fn check(value: &[u8]) -> Result<(), StoreError> {
    match only() && value.is_empty() {
        true => Err(StoreError::Engine("perhaps in a file that is not open".to_owned())),
        false => spend(value.len()),
    }
}

/// Counts a value that was found.
pub(super) fn spend(bytes: usize) -> Result<(), StoreError> {
    let Some(left) = LEFT.get() else {
        return Ok(());
    };
    LEFT.set(Some(left.saturating_sub(bytes)));
    match bytes > left {
        true => Err(StoreError::Engine("more than may be read from memory alone".to_owned())),
        false => Ok(()),
    }
}
