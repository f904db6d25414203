//! Digests of a shard's content that were asked for through its log: each replica takes its own right after the same
//! entry. Never: comparing them (the one who asked does).
//!
//! Invariant: the content is pinned before anything after the entry is applied; reading it is done beside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use bytes::Bytes;
use prost::Message as _;
use tidemark_proto::peer::{ShardCommand, TakenDigest, shard_command::Command};

use super::state::Kept;
use crate::clock::{NS_PER_S, now_ns};

/// Digests remembered; older ones were asked for long ago.
const KEPT: usize = 8;
/// A command with a digest request is smaller than this, so that large ones are not decoded to look for it.
const COMMAND_BYTES_MAX: usize = 64;
/// Nobody waits any more for a request older than this, where it is applied anew after a restart.
const STALE_NS: i64 = 300 * NS_PER_S;

/// The id under which a command asks for a digest, if it does.
pub(super) fn asked(command: Option<&Bytes>) -> Option<(u64, i64)> {
    let bytes = command.filter(|bytes| bytes.len() <= COMMAND_BYTES_MAX)?;
    let command = ShardCommand::decode(bytes.clone()).ok()?;
    match command.command? {
        Command::TakeDigest(take) => Some((take.id, command.stamp_ns)),
        _ => None,
    }
}

/// The entry after which a digest was taken, and the digest, or why there is none.
type Taken = (u64, Result<u64, String>);

/// What one replica took, by the id under which it was asked for.
#[derive(Clone, Default)]
pub(super) struct ContentDigests {
    taken: Arc<Mutex<BTreeMap<u64, Taken>>>,
    /// The log went so far when the process started.
    replayed_upto: Arc<AtomicU64>,
}

impl ContentDigests {
    /// Notes where the log ends that is applied anew after a start.
    pub(super) fn replayed_upto(&self, index: u64) {
        self.replayed_upto.store(index, Ordering::Relaxed);
    }

    /// Nobody waits for it. Only for what was in the log at the start a clock is asked, which may not be the one of who asked.
    fn is_stale(&self, stamp_ns: i64, index: u64) -> bool {
        index <= self.replayed_upto.load(Ordering::Relaxed) && now_ns().saturating_sub(stamp_ns) > STALE_NS
    }

    /// Takes one of the content as it is now, just applied up to `index`; returns once the content is pinned.
    pub(super) fn take(&self, (id, stamp_ns): (u64, i64), index: u64, kept: Arc<Kept>) {
        if self.is_stale(stamp_ns, index) {
            return;
        }
        let (pinned, is_pinned) = mpsc::channel::<()>();
        let digests = self.clone();
        let work = move || {
            let Kept::Shard(shard) = kept.as_ref() else { return };
            let digest = shard.digest_when(|| drop(pinned)).map_err(|error| error.to_string());
            digests.put(id, index, digest);
        };
        match std::thread::Builder::new().name("digest".into()).spawn(work) {
            // The sender is dropped once the view is there.
            Ok(_) => drop(is_pinned.recv()),
            Err(error) => self.put(id, index, Err(error.to_string())),
        }
    }

    fn put(&self, id: u64, index: u64, digest: Result<u64, String>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= KEPT {
            let oldest = taken.iter().min_by_key(|(_, (index, _))| *index).map(|(id, _)| *id);
            oldest.and_then(|id| taken.remove(&id));
        }
        taken.insert(id, (index, digest));
    }

    /// What was taken under an id, once it is there.
    pub(super) fn taken(&self, id: u64) -> Option<TakenDigest> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, digest) = taken.get(&id)?;
        Some(TakenDigest {
            index: *index,
            digest: digest.clone().unwrap_or_default(),
            problem: digest.clone().err().unwrap_or_default(),
            ..TakenDigest::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_applied_anew_may_be_stale() {
        let digests = ContentDigests::default();
        digests.replayed_upto(7);
        // Asked by one whose clock is an hour behind, or an hour ago.
        let long_ago = now_ns() - 3_600 * NS_PER_S;
        assert!(digests.is_stale(long_ago, 7));
        assert!(!digests.is_stale(long_ago, 8));
        assert!(!digests.is_stale(now_ns(), 7));
    }
}
