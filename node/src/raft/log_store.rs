//! The Raft log of a node: one database, one writer thread and one sync for all groups. Never here: how a record is
//! written (`log_writer`), read (`log_reader`) or offered to openraft (`log_storage`).
//!
//! Invariant: votes and entries of a group go through one queue in order; the bytes waiting in it have a cap, and
//! whoever would exceed it waits.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, oneshot};

use super::log_cache::{Group, State};
use super::log_open::{self, Opened};
pub use super::log_reader::GroupReader;
pub use super::log_storage::GroupLog;
use super::log_writer::{Counters, Done, Queued, Record, Writer};
pub use crate::store::FailureHook;
use crate::store::end_process;
use crate::store::log_db::LogDb;
pub use crate::store::log_db::LogOwner;
pub use crate::store::marker::Damaged;
use crate::store::marker::GROUPS_MAX;

/// Called before each synced write; an error counts as a failed write.
pub type SyncHook = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Limits of the log, all in bytes, and what tests inject.
#[derive(Clone)]
pub struct LogOptions {
    /// What may wait for the writer on the whole node; appends beyond it wait.
    pub queue_bytes_max: usize,
    /// What one group commit takes from the queue, give or take one append.
    pub commit_bytes_max: usize,
    /// Entries kept in memory per group beyond those that are not on disk yet.
    pub tail_bytes_max: usize,
    /// What one chunk of a stream or of a limited read holds; one entry at least.
    pub chunk_bytes: usize,
    /// Called once when a write or sync fails. After it returns (only in tests), the log is closed.
    pub on_failure: FailureHook,
    /// Injects failures of a sync; none outside tests.
    pub before_sync: Option<SyncHook>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            queue_bytes_max: 64 << 20,
            commit_bytes_max: 16 << 20,
            tail_bytes_max: 8 << 20,
            chunk_bytes: 1 << 20,
            on_failure: end_process("raft log"),
            before_sync: None,
        }
    }
}

/// What the log has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Writes of the database.
    pub group_commits: u64,
    /// Those of them that were synced.
    pub syncs: u64,
    /// Records in them: appends, votes, truncations, purges, commits.
    pub records: u64,
    /// Entries in them.
    pub entries: u64,
    /// Encoded bytes in them.
    pub bytes: u64,
    /// Time spent in synced writes, nanoseconds.
    pub sync_ns: u64,
    /// Time spent writing the marker after them, nanoseconds.
    pub marker_ns: u64,
    /// Bytes waiting for the writer now.
    pub queued_bytes: u64,
    /// Bytes of entries held in memory now.
    pub tail_bytes: u64,
}

/// The log of all groups of this node; clones share it. The last handle of any kind closes it.
#[derive(Clone)]
pub struct NodeLog {
    node: Arc<Node>,
}

pub(crate) struct Node {
    pub(crate) db: Arc<LogDb>,
    pub(crate) chunk_bytes: usize,
    queue: Sender<Queued>,
    room: Arc<Semaphore>,
    room_max: usize,
    tail_bytes_max: usize,
    groups: Mutex<BTreeMap<u32, Arc<Group>>>,
    damaged: Mutex<BTreeMap<u32, Damaged>>,
    /// Without a readable marker nobody knows which groups there were.
    all_damaged: bool,
    counters: Arc<Counters>,
    /// Entries that were announced, of all times.
    announced: Arc<AtomicU64>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl NodeLog {
    /// Rewrites the files of a group's log without what was purged.
    ///
    /// # Errors
    /// The disk fails.
    pub fn compact(&self, group: u32) -> io::Result<()> {
        Ok(self.node.db.compact(group)?)
    }

    /// Whether a log was ever made in `dir`. One that was and is not there any more must not be made anew: the node
    /// would forget its votes.
    pub fn exists(dir: &Path) -> bool {
        log_open::exists(dir)
    }

    /// Whose log this is; `None` for one that no node has taken for its own, or none since an older version.
    ///
    /// # Errors
    /// The disk fails, or a newer version noted it.
    pub fn owner(&self) -> io::Result<Option<LogOwner>> {
        Ok(self.node.db.owner()?)
    }

    /// Takes the log for a node: noted where nobody had it, before the first vote. Blocking.
    ///
    /// # Errors
    /// It is another node's, whose votes it holds; or the disk fails.
    pub fn claim(&self, owner: &LogOwner) -> io::Result<()> {
        match self.owner()? {
            None => Ok(self.node.db.set_owner(owner)?),
            Some(found) if found == *owner => Ok(()),
            Some(found) => Err(io::Error::other(format!("the raft log is of {found}, not of {owner}"))),
        }
    }

    /// Opens or creates the log in `dir` and starts its writer. Damaged groups do not fail it: see [`Self::group`].
    ///
    /// # Errors
    /// The disk fails, the database is corrupt as a whole, or another process has it open.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::open_with(dir, LogOptions::default())
    }

    /// [`Self::open`] with other limits.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(dir: &Path, options: LogOptions) -> io::Result<Self> {
        let Opened {
            db,
            marker,
            marks,
            groups,
            damaged,
        } = log_open::open(dir, options.tail_bytes_max)?;
        let db = Arc::new(db);
        let counters = Arc::new(Counters::default());
        let all_damaged = marker.is_none();
        let announced = Arc::<AtomicU64>::default();
        let (queue, receiver) = channel();
        let writer = match marker {
            None => None,
            Some(marker) => {
                let writer = Writer {
                    db: Arc::clone(&db),
                    marker,
                    marks,
                    counters: Arc::clone(&counters),
                    commit_bytes_max: options.commit_bytes_max,
                    before_sync: options.before_sync,
                    on_failure: options.on_failure,
                    announced: Arc::clone(&announced),
                    arrived: 0,
                    noted_at: None,
                };
                Some(
                    std::thread::Builder::new()
                        .name("raft-log".to_owned())
                        .spawn(move || writer.guarded(receiver))?,
                )
            }
        };
        let room_max = options
            .queue_bytes_max
            .min(u32::MAX as usize)
            .min(Semaphore::MAX_PERMITS);
        let groups = groups
            .into_iter()
            .map(|(id, state)| (id, Arc::new(Group::new(id, state))))
            .collect();
        let node = Node {
            db,
            chunk_bytes: options.chunk_bytes,
            queue,
            room: Arc::new(Semaphore::new(room_max)),
            room_max,
            tail_bytes_max: options.tail_bytes_max,
            groups: Mutex::new(groups),
            damaged: Mutex::new(damaged),
            all_damaged,
            counters,
            announced,
            writer: Mutex::new(writer),
        };
        Ok(Self { node: Arc::new(node) })
    }

    /// The log of one group, new if it was never used. Only one `GroupLog` of a group may write.
    ///
    /// # Errors
    /// The log lost something it had acknowledged: its replica may not vote, and this says so on every call until
    /// [`Self::forget`]. Or there are too many groups.
    pub fn group(&self, group: u32) -> Result<GroupLog, OpenGroupError> {
        let node = &self.node;
        if let Some(damaged) = lock(&node.damaged).get(&group) {
            return Err(damaged.clone().into());
        }
        if node.all_damaged {
            let reason = "the marker of this node can't be read".to_owned();
            return Err(Damaged { group, reason }.into());
        }
        let mut groups = lock(&node.groups);
        if !groups.contains_key(&group) && groups.len() + lock(&node.damaged).len() >= GROUPS_MAX || group == u32::MAX {
            return Err(OpenGroupError::TooMany);
        }
        let fresh = || Arc::new(Group::new(group, State::new(node.tail_bytes_max)));
        let shared = groups.entry(group).or_insert_with(fresh);
        Ok(GroupLog::new(Arc::clone(node), Arc::clone(shared)))
    }

    /// Groups with records in this log, damaged ones not among them.
    pub fn groups(&self) -> Vec<u32> {
        lock(&self.node.groups).keys().copied().collect()
    }

    /// Groups that may not be used until they are forgotten. If `marker_lost`, these are only those still seen.
    pub fn damaged(&self) -> Vec<Damaged> {
        lock(&self.node.damaged).values().cloned().collect()
    }

    /// Whether the marker could not be read: no group of this node may be used, and the node has to be made anew.
    pub fn marker_lost(&self) -> bool {
        self.node.all_damaged
    }

    /// Removes everything of a group, damaged or not; handles of it are dead from now on. Its replica id must never
    /// be used again.
    ///
    /// # Errors
    /// The log is closed.
    pub async fn forget(&self, group: u32) -> io::Result<()> {
        if let Some(shared) = lock(&self.node.groups).get(&group) {
            shared.lock().gone = true;
        }
        self.node.durable(|done| Record::Forget { group, done }).await?;
        lock(&self.node.groups).remove(&group);
        lock(&self.node.damaged).remove(&group);
        Ok(())
    }

    /// Says that entries of so many groups are about to come: they are made durable by one sync where they come at once. A hint:
    /// nothing waits for those that do not come.
    pub fn expect(&self, entries: usize) {
        if entries > 1 {
            self.node.announced.fetch_add(entries as u64, Ordering::Relaxed);
        }
    }

    /// Waits until everything queued before is on disk.
    ///
    /// # Errors
    /// The log is closed.
    pub async fn flush(&self) -> io::Result<()> {
        self.node.durable(|done| Record::Barrier { done }).await
    }

    /// Writes what is queued and stops the writer. Blocks for one group commit; later writes fail.
    pub fn close(&self) {
        self.node.stop();
    }

    /// What the log has done and holds.
    pub fn status(&self) -> LogStatus {
        let counters = &self.node.counters;
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = self.node.room_max - self.node.room.available_permits();
        LogStatus {
            group_commits: get(&counters.group_commits),
            syncs: get(&counters.syncs),
            records: get(&counters.records),
            entries: get(&counters.entries),
            bytes: get(&counters.bytes),
            sync_ns: get(&counters.sync_ns),
            marker_ns: get(&counters.marker_ns),
            queued_bytes: waiting as u64,
            tail_bytes: lock(&self.node.groups)
                .values()
                .map(|group| group.lock().tail_bytes() as u64)
                .sum(),
        }
    }
}

/// Why a group can't be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenGroupError {
    /// It may not be used.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The node has as many groups as a marker holds.
    #[error("raft log has no room for another group")]
    TooMany,
}

impl From<OpenGroupError> for io::Error {
    fn from(error: OpenGroupError) -> Self {
        Self::other(error)
    }
}

impl Node {
    /// Waits for room in the queue. What is returned goes into [`Self::push`].
    pub(crate) async fn reserve(&self, bytes: usize) -> io::Result<Room> {
        // One append may be larger than the whole queue: it then has it for itself.
        let permits = bytes.clamp(1, self.room_max);
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(permits as u32)
            .await
            .map_err(|_| closed())?;
        Ok(Room { bytes, permit })
    }

    /// Queues a record; never waits.
    pub(crate) fn push(&self, record: Record, room: Room) -> io::Result<()> {
        let queued = Queued {
            record,
            bytes: room.bytes,
            room: Some(room.permit),
        };
        self.queue.send(queued).map_err(|_| closed())
    }

    /// Queues a small record and waits until it is on disk.
    pub(crate) async fn durable(&self, record: impl FnOnce(Done) -> Record) -> io::Result<()> {
        let room = self.reserve(SMALL_RECORD_BYTES).await?;
        let (done, wait) = oneshot::channel();
        self.push(record(done), room)?;
        wait.await.map_err(|_| closed())?
    }

    fn stop(&self) {
        // A writer that has gone needs no telling.
        let _gone = self.queue.send(Queued {
            record: Record::Stop,
            bytes: 0,
            room: None,
        });
        if let Some(writer) = lock(&self.writer).take() {
            let _panicked = writer.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Room taken in the queue.
pub(crate) struct Room {
    bytes: usize,
    permit: tokio::sync::OwnedSemaphorePermit,
}

/// What a vote, a cut or a commit takes in the queue, roughly.
pub(crate) const SMALL_RECORD_BYTES: usize = 128;

/// The error of a log that was closed.
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "raft log is closed")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
