//! openraft's own suite, on an open log and on one that is closed and opened again after every call.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use openraft::storage::{LeaderBoundedStreamResult, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use openraft::{OptionalSend, StorageError};
use tempfile::TempDir;
use tidemark_node::raft::log_store::{GroupLog, NodeLog};
use tidemark_node::raft::types::{Entry, IoFlushed, LeaderId, LogId, LogState, TypeConfig, Vote};
use tokio::sync::Mutex;

use crate::machine::{ReopenedMachine, open_machine};
use crate::support::{append_durably, small};

const GROUP: u32 = 5;

fn storage_error(error: &io::Error) -> StorageError<TypeConfig> {
    StorageError::read(TypeConfig::err_from_error(error))
}

/// Builds a log and, with `machine`, a state machine in a folder of its own.
struct Builder<L, M> {
    log: L,
    machine: M,
}

impl<LS, SM, L, M, F> StoreBuilder<TypeConfig, LS, SM, TempDir> for Builder<L, M>
where
    LS: RaftLogStorage<TypeConfig>,
    SM: RaftStateMachine<TypeConfig>,
    L: Fn(&Path) -> io::Result<LS> + Send + Sync,
    M: Fn(PathBuf) -> F + Send + Sync,
    F: Future<Output = io::Result<SM>> + Send,
{
    async fn build(&self) -> Result<(TempDir, LS, SM), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().map_err(|error| storage_error(&error))?;
        let log = (self.log)(dir.path()).map_err(|error| storage_error(&error))?;
        let machine = (self.machine)(dir.path().join("machine"))
            .await
            .map_err(|error| storage_error(&error))?;
        Ok((dir, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite() {
    let log = |dir: &Path| Ok(NodeLog::open(dir)?.group(GROUP)?);
    let machine = |dir: PathBuf| async move { open_machine(&dir) };
    Suite::test_all(Builder { log, machine }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite_with_little_memory() {
    let log = |dir: &Path| Ok(NodeLog::open_with(dir, small())?.group(GROUP)?);
    let machine = |dir: PathBuf| async move { open_machine(&dir) };
    Suite::test_all(Builder { log, machine }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite_reopened_after_every_call() {
    let log = |dir: &Path| {
        let mut open = Open {
            dir: dir.to_owned(),
            handles: None,
        };
        open.reopen()?;
        Ok(Reopened(Arc::new(Mutex::new(open))))
    };
    let machine = |dir: PathBuf| async move { ReopenedMachine::open(dir) };
    Suite::test_all(Builder { log, machine }).await.unwrap();
}

struct Open {
    dir: PathBuf,
    handles: Option<(NodeLog, GroupLog)>,
}

impl Open {
    fn reopen(&mut self) -> io::Result<()> {
        self.handles = None;
        let node = NodeLog::open_with(&self.dir, small())?;
        let log = node.group(GROUP)?;
        self.handles = Some((node, log));
        Ok(())
    }

    fn log(&mut self) -> &mut GroupLog {
        &mut self.handles.as_mut().unwrap().1
    }
}

/// Log and reader in one: every call that changes something ends with closing and opening.
#[derive(Clone)]
struct Reopened(Arc<Mutex<Open>>);

impl RaftLogStorage<TypeConfig> for Reopened {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState> {
        self.0.lock().await.log().get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let mut open = self.0.lock().await;
        open.log().save_vote(vote).await?;
        open.reopen()
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut open = self.0.lock().await;
        open.log().save_committed(committed).await?;
        open.reopen()
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.0.lock().await.log().read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut open = self.0.lock().await;
        append_durably(open.log(), entries).await;
        open.reopen()?;
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let mut open = self.0.lock().await;
        open.log().truncate_after(last_log_id).await?;
        open.reopen()
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let mut open = self.0.lock().await;
        open.log().purge(log_id).await?;
        open.reopen()
    }
}

impl RaftLogReader<TypeConfig> for Reopened {
    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<TypeConfig>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut reader = self.0.lock().await.log().reader();
        let items: Vec<_> = reader.leader_bounded_stream(leader, range).await.collect().await;
        stream::iter(items)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut reader = self.0.lock().await.log().reader();
        let items: Vec<_> = reader.entries_stream(range).await.collect().await;
        stream::iter(items)
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut reader = self.0.lock().await.log().reader();
        reader.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let mut reader = self.0.lock().await.log().reader();
        reader.read_vote().await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut reader = self.0.lock().await.log().reader();
        reader.limited_get_log_entries(start, end).await
    }
}
