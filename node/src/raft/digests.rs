//! Digests of a shard's content that were asked for through its log: each replica takes its own right after the same
//! entry. Never: comparing them (the one who asked does).
//!
//! Invariant: the content is pinned before anything after the entry is applied; reading it is done beside.

use std::collections::BTreeMap;
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
/// A request older than this is applied again after a restart: nobody waits for it.
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
pub(super) struct ContentDigests(Arc<Mutex<BTreeMap<u64, Taken>>>);

impl ContentDigests {
    /// Takes one of the content as it is now, just applied up to `index`; returns once the content is pinned.
    pub(super) fn take(&self, (id, stamp_ns): (u64, i64), index: u64, kept: Arc<Kept>) {
        if now_ns().saturating_sub(stamp_ns) > STALE_NS {
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
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= KEPT {
            let oldest = taken.iter().min_by_key(|(_, (index, _))| *index).map(|(id, _)| *id);
            oldest.and_then(|id| taken.remove(&id));
        }
        taken.insert(id, (index, digest));
    }

    /// What was taken under an id, once it is there.
    pub(super) fn taken(&self, id: u64) -> Option<TakenDigest> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, digest) = taken.get(&id)?;
        Some(TakenDigest {
            index: *index,
            digest: digest.clone().unwrap_or_default(),
            problem: digest.clone().err().unwrap_or_default(),
            ..TakenDigest::default()
        })
    }
}
