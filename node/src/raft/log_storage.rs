//! What openraft writes through: the log of one group. Never here: disk access.
//!
//! Invariant: a record enters memory and the queue in the same order, under one lock and with nothing awaited in
//! between, so a caller that goes away leaves both or neither changed.

use std::io;
use std::sync::{Arc, MutexGuard};

use openraft::OptionalSend;
use openraft::storage::RaftLogStorage;
use tokio::sync::oneshot;

use super::log_cache::{Group, State, entry_bytes};
use super::log_reader::GroupReader;
use super::log_store::{Node, SMALL_RECORD_BYTES, closed};
use super::log_writer::Record;
use super::types::{Entry, IoFlushed, LogId, LogState, TypeConfig, Vote};

/// The log of one group, for writing. Dropping it loses nothing: what was queued is written.
pub struct GroupLog {
    node: Arc<Node>,
    group: Arc<Group>,
}

impl GroupLog {
    pub(crate) fn new(node: Arc<Node>, group: Arc<Group>) -> Self {
        Self { node, group }
    }

    /// Number of the group.
    pub fn group(&self) -> u32 {
        self.group.id
    }

    /// What memory knows of it.
    pub(super) fn memory(&self) -> Arc<Group> {
        Arc::clone(&self.group)
    }

    /// Purged and last id, what `get_log_state` tells, without a future.
    pub fn log_state(&self) -> LogState {
        self.group.lock().log_state()
    }

    /// A reader of this log.
    pub fn reader(&self) -> GroupReader {
        GroupReader {
            node: Arc::clone(&self.node),
            group: Arc::clone(&self.group),
        }
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.group.lock();
        if state.gone { Err(closed()) } else { Ok(state) }
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = GroupReader;

    async fn get_log_state(&mut self) -> io::Result<LogState> {
        Ok(self.lock()?.log_state())
    }

    async fn get_log_reader(&mut self) -> GroupReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let room = self.node.reserve(SMALL_RECORD_BYTES).await?;
        let (done, saved) = oneshot::channel();
        {
            let _state = self.lock()?;
            self.node.push(
                Record::Vote {
                    group: Arc::clone(&self.group),
                    vote: *vote,
                    done,
                },
                room,
            )?;
        }
        saved.await.map_err(|_| closed())?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let room = self.node.reserve(SMALL_RECORD_BYTES).await?;
        let mut state = self.lock()?;
        state.committed = committed;
        self.node.push(
            Record::Committed {
                group: Arc::clone(&self.group),
                committed,
            },
            room,
        )
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.lock()?.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let room = self.node.reserve(entries.iter().map(entry_bytes).sum()).await?;
        let mut state = self.lock()?;
        let append = state.append(&entries)?;
        let group = Arc::clone(&self.group);
        self.node.push(
            Record::Entries {
                group,
                entries,
                append,
                flushed: callback,
            },
            room,
        )
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let room = self.node.reserve(SMALL_RECORD_BYTES).await?;
        let mut state = self.lock()?;
        let last = state.truncate(last_log_id);
        self.node.push(
            Record::Truncate {
                group: Arc::clone(&self.group),
                last,
            },
            room,
        )
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let room = self.node.reserve(SMALL_RECORD_BYTES).await?;
        let mut state = self.lock()?;
        let Some(from) = state.purge(log_id) else { return Ok(()) };
        let (group, last) = (Arc::clone(&self.group), state.last);
        self.node.push(
            Record::Purge {
                group,
                from,
                upto: log_id,
                last,
            },
            room,
        )
    }
}
