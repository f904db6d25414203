//! The merge operators: RocksDB calls the codec here while it reads, flushes and compacts.
//!
//! Never here: an encoding. Invariant: an operand that does not parse makes the merge fail (the read or flush then reports
//! corruption and the replica stops); it is never dropped, and no panic crosses into the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rocksdb::MergeOperands;
use tidemark_series::{Corrupt, bucket, latest};

/// Folds fragments over the bucket below them.
pub(super) fn bucket_full(key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    guarded("bucket", key, || bucket::merge(existing, operands.iter()))
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
