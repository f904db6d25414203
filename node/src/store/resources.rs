//! What all databases of a process share: one block cache, one budget for memtables, one for decoded values, one pool of
//! background threads, and what is done when the disk fails.
//!
//! Never here: anything per replica. Invariant: memory of all databases together grows with these three budgets and with
//! nothing else.

use std::sync::Arc;

use rocksdb::{Cache, Env, WriteBufferManager};

use super::{FailureHook, Resident, StoreError, end_process};
use crate::limits::RESIDENT_BYTES_MAX;

/// Shared by every [`super::Db`] of the process. Cheap to clone.
#[derive(Clone)]
pub struct Resources {
    pub(super) cache: Cache,
    pub(super) env: Env,
    pub(super) memtables: WriteBufferManager,
    pub(super) background_jobs: i32,
    pub(super) resident: Arc<Resident>,
    pub(super) on_failure: FailureHook,
    pub(super) room: RoomHook,
}

/// Says whether the disk has room for so many bytes.
pub type RoomHook = Arc<dyn Fn(u64) -> bool + Send + Sync>;

impl Resources {
    /// `cache_bytes` for blocks, indexes and filters; `memtable_bytes` is a soft limit: above it a database flushes
    /// early, but no write ever waits for it. `cores` sets the number of background threads.
    ///
    /// # Errors
    /// When the engine gives no environment.
    pub fn new(cache_bytes: usize, memtable_bytes: usize, cores: usize) -> Result<Self, StoreError> {
        let background_jobs = i32::try_from(cores.clamp(2, 64)).unwrap_or(2);
        let mut env = Env::new()?;
        env.set_low_priority_background_threads(background_jobs);
        env.set_high_priority_background_threads(background_jobs);
        Ok(Self {
            cache: Cache::new_lru_cache(cache_bytes),
            env,
            memtables: WriteBufferManager::new_write_buffer_manager(memtable_bytes, false),
            background_jobs,
            resident: Arc::new(Resident::new(RESIDENT_BYTES_MAX)),
            on_failure: end_process("the state of a shard"),
            room: Arc::new(|_| true),
        })
    }

    /// The same, with a disk that is asked for room before anything is flushed: an engine whose flush fails takes no writes for a
    /// while, also when there is room again.
    #[must_use]
    pub fn with_room(self, room: RoomHook) -> Self {
        Self { room, ..self }
    }

    /// The same with another thing to do when the disk fails under a write or a flush: for tests.
    #[must_use]
    pub fn with_failure_hook(self, on_failure: FailureHook) -> Self {
        Self { on_failure, ..self }
    }

    /// The same with another budget for decoded values; with 0 none are kept.
    #[must_use]
    pub fn with_resident_bytes(self, bytes_max: usize) -> Self {
        Self {
            resident: Arc::new(Resident::new(bytes_max)),
            ..self
        }
    }

    /// Bytes in memtables of all databases.
    #[must_use]
    pub fn memtable_bytes(&self) -> usize {
        self.memtables.get_usage()
    }

    /// Bytes in the block cache.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.cache.get_usage()
    }
}
