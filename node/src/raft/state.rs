//! The applied state of one replica on disk: which folder is current, and how a checkpoint takes its place.
//!
//! ```text
//! <data>/groups/<group>-<replica>/CURRENT        name of the folder that holds the state
//!                                 state-<n>/     a RocksDB
//!                                 incoming/      files of a checkpoint on its way here; kept, so that it goes on
//!                                 received/      all of them under their names; deleted at start
//!                                 outgoing-<n>/  a checkpoint on its way to another replica; deleted at start
//! ```
//!
//! Invariant: CURRENT is replaced atomically and only by a checkpoint that was verified and opened; at any crash the
//! old or the new state is there, whole.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use bytes::Bytes;
use prost::Message as _;
use tidemark_proto::peer::{self, Applied, CatalogCommand, SnapshotFile, applied};
use tokio::sync::watch;

use super::backlog::Backlog;
use super::codec;
use super::digests::{self, ContentDigests};
use super::holds::Holds;
use super::receiver::Receiver;
use super::snapshot::{Digests, list_files};
use super::transfers::Transfers;
use super::types::{LogId, SnapshotMeta, StoredMembership};
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::error::{Error, Reason, Result};
use crate::identity::replace_file;
use crate::shard::{ApplyEntry, DeviceFilter, Opening, Shard};
use crate::store::{AppliedState, ReplicaStore, Resources, StoreError};
use crate::wire::status::to_failure;

const INCOMING: &str = "incoming";
const RECEIVED: &str = "received";

/// What a group keeps.
pub enum Kept {
    /// Devices and points.
    Shard(Shard),
    /// The catalog.
    Catalog {
        /// Its records.
        store: ReplicaStore,
        /// Its state in memory.
        catalog: Mutex<Catalog>,
    },
}

/// Applied state of one replica; shared by the state machine, the readers and the flusher.
pub struct ReplicaState {
    group: u32,
    dir: PathBuf,
    resources: Arc<Resources>,
    kept: RwLock<Arc<Kept>>,
    /// Held while applying and while a checkpoint is taken, so that a checkpoint is at an exact index.
    gate: Mutex<()>,
    backlog: Mutex<Backlog>,
    /// The last entry that is in `kept`: never ahead of it.
    last_applied: Mutex<Option<LogId>>,
    /// Its index, for those that wait for it to grow.
    applied_index: watch::Sender<u64>,
    /// Parts of the log that readers of it have yet to read.
    holds: Arc<Holds>,
    content_digests: ContentDigests,
    /// Checkpoints on their way to others.
    transfers: Arc<Transfers>,
    /// Digests of table files of the current state.
    digests: Mutex<Digests>,
    /// Numbers the folders of checkpoints that leave.
    outgoing: AtomicU64,
    /// States that a checkpoint took the place of: removed when the last reader is gone.
    retired: Mutex<Vec<(PathBuf, Weak<Kept>)>>,
    /// Told of every new catalog; only used by the catalog group.
    catalog_changed: watch::Sender<Arc<Catalog>>,
}

/// A store failure as an answer.
pub fn store_error(error: StoreError) -> Error {
    match error {
        error if error.is_corruption() => Error::new(Reason::Corruption, error.to_string()),
        error if error.is_full() => Error::new(Reason::DiskLow, error.to_string()).hint("make room on the disk"),
        error => Error::internal(error),
    }
}

impl ReplicaState {
    /// Opens the current state, or an empty one where there is none.
    pub fn open(
        group: u32,
        dir: &Path,
        resources: Arc<Resources>,
        catalog_changed: watch::Sender<Arc<Catalog>>,
    ) -> Result<Arc<ReplicaState>> {
        fs::create_dir_all(dir).map_err(Error::internal)?;
        let current = current_state(dir).map_err(Error::internal)?;
        remove_others(dir, &current).map_err(Error::internal)?;
        let kept = Arc::new(open_kept(group, &dir.join(&current), &resources)?);
        if let Kept::Catalog { catalog, .. } = kept.as_ref() {
            catalog_changed.send_replace(Arc::new(lock(catalog).clone()));
        }
        let (last_applied, _) = decode_applied(&kept.store().applied().map_err(store_error)?)?;
        let state = ReplicaState {
            group,
            dir: dir.to_path_buf(),
            resources,
            kept: RwLock::new(kept),
            gate: Mutex::new(()),
            backlog: Mutex::default(),
            applied_index: watch::Sender::new(last_applied.as_ref().map_or(0, |id| id.index)),
            holds: Arc::new(Holds::new(last_applied.is_some())),
            last_applied: Mutex::new(last_applied),
            content_digests: ContentDigests::default(),
            transfers: Arc::default(),
            digests: Mutex::default(),
            outgoing: AtomicU64::new(0),
            retired: Mutex::default(),
            catalog_changed,
        };
        Ok(Arc::new(state))
    }

    /// What is kept now. A snapshot installed later does not change what was handed out.
    pub fn kept(&self) -> Arc<Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs `f` on the shard; an error for the catalog group.
    pub fn with_shard<T>(&self, f: impl FnOnce(&Shard) -> Result<T>) -> Result<T> {
        match self.kept().as_ref() {
            Kept::Shard(shard) => f(shard),
            Kept::Catalog { .. } => Err(Error::internal("the catalog group keeps no points")),
        }
    }

    /// Last applied entry and membership, as known in memory.
    pub fn applied(&self) -> Result<(Option<LogId>, StoredMembership)> {
        decode_applied(&self.kept().store().applied().map_err(store_error)?)
    }

    /// Last applied entry, without a look into the store. Whoever was answered had his entry counted here before.
    pub fn last_applied(&self) -> Option<LogId> {
        *lock(&self.last_applied)
    }

    /// The index of the last applied entry, and every change of it.
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied_index.subscribe()
    }

    /// Parts of the log that readers of it have yet to read.
    pub(super) fn holds(&self) -> &Arc<Holds> {
        &self.holds
    }

    /// Visits the devices of a shard that a filter lets through as they are now; the index that they are of. See
    /// [`Shard::open_reading`].
    pub fn open_reading<B>(
        &self,
        filter: &DeviceFilter,
        visit: impl FnMut(Opening<'_>) -> ControlFlow<B>,
    ) -> Result<Option<(u64, ControlFlow<B>)>> {
        self.with_shard(|shard| {
            let opened = shard.open_reading(filter, visit).map_err(store_error)?;
            let Some((applied, flow)) = opened else { return Ok(None) };
            let (log_id, _) = decode_applied(&applied)?;
            Ok(Some((log_id.map_or(0, |id| id.index), flow)))
        })
    }

    /// The same as of the last flush: what a restart would find.
    pub fn persisted(&self) -> Result<(Option<LogId>, StoredMembership)> {
        decode_applied(&self.kept().store().persisted_applied().map_err(store_error)?)
    }

    /// Writes memtables to disk.
    pub fn flush(&self) -> Result<()> {
        self.kept().store().flush().map_err(store_error)
    }

    /// Rewrites all files as small as they get; their bytes before, once everything was flushed, and after.
    pub fn compact(&self) -> Result<(u64, u64)> {
        let kept = self.kept();
        let db = kept.store().db();
        db.flush().map_err(store_error)?;
        let before = db.disk_bytes().map_err(store_error)?;
        db.compact().map_err(store_error)?;
        Ok((before, db.disk_bytes().map_err(store_error)?))
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> Result<u64> {
        self.kept().store().db().disk_bytes().map_err(store_error)
    }

    /// Whether applying would have to wait for a flush or a checkpoint.
    pub fn is_held(&self) -> bool {
        self.gate.try_lock().is_err()
    }

    /// Applies a run of entries in one atomic write; one encoded answer per entry. `membership` is the last one that
    /// the run sets, if it sets any.
    pub fn apply(
        &self,
        entries: &[ApplyEntry],
        last: &LogId,
        membership: Option<&StoredMembership>,
    ) -> Result<Vec<Bytes>> {
        let _gate = lock(&self.gate);
        let bytes = entries
            .iter()
            .filter_map(|entry| entry.command.as_ref())
            .map(|command| command.len() as u64)
            .sum();
        lock(&self.backlog).add(last.index, bytes);
        let applied = AppliedState {
            log_id: Some(codec::encode_log_id(last)),
            membership: membership.map(|m| codec::stored_membership_to_wire(m).encode_to_vec()),
        };
        let answers = match self.kept().as_ref() {
            Kept::Shard(shard) => {
                let first = (last.index + 1).checked_sub(entries.len() as u64);
                let answers = shard.apply_at(first, entries, applied).map_err(store_error)?;
                // A chunk ends where a digest is asked for, so that every replica takes it at the same entry.
                let asked = entries.last().and_then(|entry| digests::asked(entry.command.as_ref()));
                if let Some(asked) = asked {
                    self.content_digests.take(asked, last.index, self.kept());
                }
                answers
                    .iter()
                    .map(|answer| Bytes::from(answer.encode_to_vec()))
                    .collect()
            }
            Kept::Catalog { store, catalog } => self.apply_catalog(store, &mut lock(catalog), entries, applied)?,
        };
        *lock(&self.last_applied) = Some(*last);
        self.applied_index.send_replace(last.index);
        Ok(answers)
    }

    fn apply_catalog(
        &self,
        store: &ReplicaStore,
        catalog: &mut Catalog,
        entries: &[ApplyEntry],
        applied: AppliedState,
    ) -> Result<Vec<Bytes>> {
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(command) = &entry.command else {
                answers.push(Bytes::new());
                continue;
            };
            let command = CatalogCommand::decode(command.clone()).map_err(Error::internal)?;
            let result = match catalog.apply(command)? {
                Ok((result, changed)) => {
                    records.extend(changed);
                    result
                }
                Err(refused) => applied::Result::Failure(to_failure(&refused)),
            };
            answers.push(Applied { result: Some(result) }.encode_to_vec().into());
        }
        let mut batch = store.batch().map_err(store_error)?;
        for (key, value) in &records {
            ReplicaStore::put_group_state(&mut batch, key, Some(value));
        }
        store.commit(batch, applied).map_err(store_error)?;
        if !records.is_empty() {
            self.catalog_changed.send_replace(Arc::new(catalog.clone()));
        }
        Ok(answers)
    }

    /// Notes where the log ends that is applied anew after a start.
    pub(super) fn replayed_upto(&self, index: u64) {
        self.content_digests.replayed_upto(index);
    }

    /// The digest that was taken under an id, once it is there.
    pub fn taken_digest(&self, id: u64) -> Option<peer::TakenDigest> {
        self.content_digests.taken(id)
    }

    /// Entries up to this index are gone from the log.
    pub fn log_purged(&self, upto: u64) {
        lock(&self.backlog).forget(upto);
    }

    /// The newest log index that may go, as far as bytes decide: `kept` bytes stay below `flushed`.
    pub fn purgeable(&self, flushed: u64, kept: u64) -> Option<u64> {
        lock(&self.backlog).purgeable(flushed, kept)
    }

    /// Flushes and links the state into `to`, at exactly the index that is returned.
    pub fn checkpoint(&self, to: &Path) -> Result<SnapshotMeta> {
        // Nothing is applied while the gate is held: most of what is to be flushed is flushed before.
        self.flush()?;
        let _gate = lock(&self.gate);
        let applied = self
            .kept()
            .store()
            .checkpoint(to, &self.resources)
            .map_err(store_error)?;
        let (last_log_id, last_membership) = decode_applied(&applied)?;
        Ok(SnapshotMeta {
            last_log_id,
            last_membership,
        })
    }

    /// Takes a checkpoint for another replica into a folder of its own, and lists its files.
    pub(super) fn outgoing(&self) -> Result<Outgoing> {
        let number = self.outgoing.fetch_add(1, Ordering::Relaxed);
        let outgoing = self.dir.join(format!("outgoing-{number}"));
        let guard = Folder(outgoing.clone());
        let meta = self.checkpoint(&outgoing)?;
        // Read by one transfer at a time: the second finds the digests that the first one made.
        let files = list_files(&outgoing, &mut lock(&self.digests))?;
        Ok(Outgoing {
            meta,
            files,
            folder: guard,
        })
    }

    /// Checkpoints on their way to others.
    pub(super) fn transfers(&self) -> &Arc<Transfers> {
        &self.transfers
    }

    /// Bytes of log between two indexes, as far as this process applied them.
    pub fn log_bytes(&self, from: u64, to: u64) -> u64 {
        lock(&self.backlog).bytes_between(from, to)
    }

    /// Bytes of commands that this process applied.
    pub fn applied_bytes(&self) -> u64 {
        lock(&self.backlog).total()
    }

    /// Goes on with a checkpoint for this replica where an earlier transfer stopped.
    pub(super) fn incoming(&self, files: Vec<SnapshotFile>) -> Result<Receiver> {
        let kept = self.kept();
        Receiver::resume(self.dir.join(INCOMING), kept.store().db().path(), files)
    }

    /// Puts what came together and checks that it is what was announced.
    pub(super) fn received(&self, receiver: Receiver, meta: &SnapshotMeta) -> Result<Folder> {
        let dir = self.dir.join(RECEIVED);
        remove_folder(&dir).map_err(Error::internal)?;
        let received = Folder(dir);
        receiver.finish(&received.0)?;
        self.verify(meta, &received.0)?;
        Ok(received)
    }

    /// Whether there are files that came for a checkpoint.
    pub fn has_incoming(&self) -> bool {
        self.dir.join(INCOMING).exists()
    }

    /// Lets go of files that came for a checkpoint: it is installed, or another way was found.
    pub fn forget_incoming(&self) -> Result<()> {
        remove_folder(&self.dir.join(INCOMING)).map_err(Error::internal)
    }

    fn verify(&self, meta: &SnapshotMeta, dir: &Path) -> Result<()> {
        let verified = ReplicaStore::verify_open(dir, &self.resources).map_err(store_error)?;
        let (found, _) = decode_applied(&verified)?;
        if found == meta.last_log_id {
            return Ok(());
        }
        let message = format!("snapshot holds {found:?}, announced was {:?}", meta.last_log_id);
        Err(Error::new(Reason::Corruption, message))
    }

    /// Whether there are states that were replaced.
    pub fn has_retired(&self) -> bool {
        !lock(&self.retired).is_empty()
    }

    /// Removes states that were replaced and that nobody reads any more. Blocking.
    pub fn sweep(&self) {
        lock(&self.retired).retain(|(dir, kept)| kept.strong_count() > 0 || remove_folder(dir).is_err());
    }

    /// Makes a received checkpoint the current state. Opens and checks it first; on any error the old one stays.
    pub fn install(&self, meta: &SnapshotMeta, received: &Path) -> Result<()> {
        let _gate = lock(&self.gate);
        self.verify(meta, received)?;
        let next = next_state(&self.dir).map_err(Error::internal)?;
        fs::rename(received, self.dir.join(&next)).map_err(Error::internal)?;
        replace_file(&self.dir.join("CURRENT"), next.as_bytes()).map_err(Error::internal)?;
        let kept = Arc::new(open_kept(self.group, &self.dir.join(&next), &self.resources)?);
        if let Kept::Catalog { catalog, .. } = kept.as_ref() {
            self.catalog_changed.send_replace(Arc::new(lock(catalog).clone()));
        }
        let before = std::mem::replace(&mut *self.kept.write().unwrap_or_else(PoisonError::into_inner), kept);
        lock(&self.retired).push((before.store().db().path().to_path_buf(), Arc::downgrade(&before)));
        lock(&self.digests).clear();
        *lock(&self.last_applied) = meta.last_log_id;
        let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
        self.applied_index.send_replace(index);
        drop(before);
        self.sweep();
        Ok(())
    }
}

/// A checkpoint for another replica.
pub(super) struct Outgoing {
    /// What it covers.
    pub(super) meta: SnapshotMeta,
    /// What it consists of.
    pub(super) files: Vec<SnapshotFile>,
    /// Where it lies.
    pub(super) folder: Folder,
}

/// A folder that is removed when dropped, unless it was moved away.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "folder stays behind");
        }
    }
}

impl Kept {
    /// The store under it.
    pub fn store(&self) -> &ReplicaStore {
        match self {
            Kept::Shard(shard) => shard.store(),
            Kept::Catalog { store, .. } => store,
        }
    }
}

fn open_kept(group: u32, dir: &Path, resources: &Resources) -> Result<Kept> {
    let store = ReplicaStore::open(dir, resources).map_err(store_error)?;
    if group != CATALOG_GROUP {
        return Ok(Kept::Shard(Shard::open(store).map_err(store_error)?));
    }
    let catalog = Catalog::load(store.group_states(b"").map_err(store_error)?)?;
    Ok(Kept::Catalog {
        store,
        catalog: Mutex::new(catalog),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decode_applied(applied: &AppliedState) -> Result<(Option<LogId>, StoredMembership)> {
    let corrupt = |e: String| Error::new(Reason::Corruption, format!("applied state: {e}"));
    let log_id = applied
        .log_id
        .as_deref()
        .map(codec::decode_log_id)
        .transpose()
        .map_err(|e| corrupt(e.to_string()))?;
    let membership = match &applied.membership {
        None => StoredMembership::default(),
        Some(bytes) => {
            let wire = peer::StoredMembership::decode(bytes.as_slice()).map_err(|e| corrupt(e.to_string()))?;
            codec::stored_membership_from_wire(wire).map_err(|e| corrupt(e.to_string()))?
        }
    };
    Ok((log_id, membership))
}

fn current_state(dir: &Path) -> std::io::Result<String> {
    match fs::read_to_string(dir.join("CURRENT")) {
        Ok(name) => Ok(name.trim().to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let first = "state-1".to_string();
            replace_file(&dir.join("CURRENT"), first.as_bytes())?;
            Ok(first)
        }
        Err(e) => Err(e),
    }
}

fn next_state(dir: &Path) -> std::io::Result<String> {
    let mut last = 0;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_prefix("state-"))
            .and_then(|n| n.parse::<u64>().ok());
        last = last.max(number.unwrap_or(0));
    }
    Ok(format!("state-{}", last + 1))
}

fn remove_folder(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn remove_others(dir: &Path, current: &str) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = ["state-", "outgoing-", "incoming-"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        let ours = ours || name == RECEIVED;
        if ours && name != current {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
