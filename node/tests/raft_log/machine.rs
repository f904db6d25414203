//! The real state machine for openraft's suite: a data shard on RocksDB, kept open or reopened after every change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::Stream;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder as _};
use tidemark_node::raft::machine::{Builder, Machine, RaftSnapshot, SnapshotData};
use tidemark_node::raft::state::ReplicaState;
use tidemark_node::raft::types::{LogId, SnapshotMeta, StoredMembership, TypeConfig};
use tidemark_node::store::Resources;
use tokio::sync::watch;

const GROUP: u32 = 5;

/// A shard's state machine in a folder.
pub(crate) fn open_machine(dir: &Path) -> io::Result<Machine> {
    let resources = Resources::new(8 << 20, 32 << 20, 2).map_err(io::Error::other)?;
    let catalog = watch::Sender::new(Arc::default());
    let state = ReplicaState::open(GROUP, dir, Arc::new(resources), catalog).map_err(io::Error::other)?;
    Ok(Machine::new(state))
}

/// Closes the database and opens it again after every call that changes something.
pub(crate) struct ReopenedMachine {
    dir: PathBuf,
    machine: Option<Machine>,
}

impl ReopenedMachine {
    pub(crate) fn open(dir: PathBuf) -> io::Result<ReopenedMachine> {
        let machine = Some(open_machine(&dir)?);
        Ok(ReopenedMachine { dir, machine })
    }

    fn inner(&mut self) -> &mut Machine {
        self.machine.as_mut().unwrap()
    }

    async fn reopen(&mut self) -> io::Result<()> {
        // To build a snapshot is to flush, as a replica does before it stops.
        self.inner().get_snapshot_builder().await.build_snapshot().await?;
        self.machine = None;
        self.machine = Some(open_machine(&self.dir)?);
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for ReopenedMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.inner().applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        self.inner().apply(entries).await?;
        self.reopen().await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.inner().get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        self.inner().install_snapshot(meta, snapshot).await?;
        self.reopen().await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        self.inner().get_current_snapshot().await
    }
}
