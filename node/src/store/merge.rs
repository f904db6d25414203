//! The merge operators: RocksDB calls the codec here while it reads, flushes and compacts.
//!
//! Never here: an encoding. Invariant: an operand that does not parse makes the merge fail (the read or flush then reports
//! corruption and the replica stops); it is never dropped, and no panic crosses into the engine.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rocksdb::MergeOperands;
use tidemark_series::{Block, Corrupt, bucket, latest};

thread_local! {
    /// Set while this thread reads: what a merge gives then is looked at once and thrown away.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a read of the engine. Flushes and compactions run in threads of the engine, where this is never set.
pub(super) fn reading<T>(read: impl FnOnce() -> T) -> T {
    READING.set(true);
    let result = read();
    READING.set(false);
    result
}

/// Folds fragments over the bucket below them. A read gets them side by side where that is lawful: to encode anew is what
/// a merge costs, and is worth it only for what is kept.
pub(super) fn bucket_full(key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    guarded("bucket", key, || {
        if READING.get()
            && let Some(value) = side_by_side(existing, operands)?
        {
            return Ok(value);
        }
        bucket::merge(existing, operands.iter())
    })
}

/// All blocks by time, if none overlaps another.
fn side_by_side(existing: Option<&[u8]>, operands: &MergeOperands) -> Result<Option<Vec<u8>>, Corrupt> {
    let mut blocks = Vec::new();
    for value in existing.into_iter().chain(operands.iter()) {
        for block in bucket::blocks(value) {
            blocks.push(block?);
        }
    }
    blocks.sort_by_key(Block::first_ns);
    let apart = blocks
        .iter()
        .zip(blocks.iter().skip(1))
        .all(|(before, after)| before.last_ns() < after.first_ns());
    if !apart || blocks.iter().any(Block::may_repeat_times) {
        return Ok(None);
    }
    let mut value = Vec::with_capacity(blocks.iter().map(Block::byte_len).sum());
    blocks.iter().for_each(|block| value.extend_from_slice(block.bytes()));
    Ok(Some(value))
}

/// Folds fragments into one where the bucket below them is not at hand.
pub(super) fn bucket_partial(key: &[u8], _: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    guarded("bucket", key, || bucket::merge(None, operands.iter()))
}

/// Folds newer records over the newest known ones.
pub(super) fn latest_full(key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    guarded("latest", key, || latest::merge_latest(existing, operands.iter()))
}

/// Folds newer records into one where the value below them is not at hand. Lawful because any grouping of operands gives
/// the same value: when a replica flushes is its own affair.
pub(super) fn latest_partial(key: &[u8], _: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    guarded("latest", key, || latest::merge_latest(None, operands.iter()))
}

fn guarded(what: &str, key: &[u8], merge: impl FnOnce() -> Result<Vec<u8>, Corrupt>) -> Option<Vec<u8>> {
    match catch_unwind(AssertUnwindSafe(merge)) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(corrupt)) => {
            tracing::error!(what, ?key, error = %corrupt, "merge failed");
            None
        }
        Err(_) => {
            tracing::error!(what, ?key, "merge panicked");
            None
        }
    }
}
