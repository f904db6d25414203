//! The state machine as openraft sees it: entries in, answers out, snapshots by checkpoint. Never: what commands mean.
//!
//! Invariant: the entries of a chunk and the applied id land in one atomic write, and answers are sent after it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, RaftSnapshotBuilder};

use super::digests;
use super::state::ReplicaState;
use super::types::{LogId, Outcome, SnapshotMeta, StoredMembership, TypeConfig};
use crate::error::{Error, Reason};
use crate::shard::{self, ApplyEntry};

const CHUNK_BYTES: usize = 4 << 20;
const CHUNK_ENTRIES: usize = 1024;
/// A smaller chunk goes into the memtable by the thread that has it: that takes less than to wake another one.
const INLINE_BYTES_MAX: usize = 8 << 10;

/// A snapshot on its way: the live state to take a checkpoint of, or a checkpoint that was received.
pub enum SnapshotData {
    /// Sender's side: the checkpoint is taken when the transfer begins.
    Live(Arc<ReplicaState>),
    /// Receiver's side: a folder with verified files.
    Received(PathBuf),
}

/// Snapshot as openraft passes it around.
pub type RaftSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Adapter of one replica.
pub struct Machine {
    state: Arc<ReplicaState>,
}

impl Machine {
    /// Over an opened state.
    pub fn new(state: Arc<ReplicaState>) -> Machine {
        Machine { state }
    }
}

type Responder = openraft::storage::ApplyResponder<TypeConfig>;

/// Entries that go into one write.
#[derive(Default)]
struct Chunk {
    entries: Vec<ApplyEntry>,
    responders: Vec<Option<Responder>>,
    bytes: usize,
    last: Option<LogId>,
    membership: Option<StoredMembership>,
    /// The last entry asks for a digest: nothing may be applied with it that comes after it.
    digest: bool,
    /// It looks at the state before it, and may take a while.
    looks: bool,
}

impl Chunk {
    fn push(&mut self, (entry, responder): EntryResponder<TypeConfig>) {
        let command = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(command) => {
                self.bytes += command.0.len();
                Some(command.0)
            }
            EntryPayload::Membership(membership) => {
                self.membership = Some(StoredMembership::new(Some(entry.log_id), membership));
                None
            }
        };
        self.digest = digests::asked(command.as_ref()).is_some();
        self.entries.push(ApplyEntry { command });
        self.responders.push(responder);
        self.last = Some(entry.log_id);
    }

    fn is_full(&self) -> bool {
        self.digest || self.bytes >= CHUNK_BYTES || self.entries.len() >= CHUNK_ENTRIES
    }
}

impl Machine {
    async fn write(&mut self, chunk: Chunk) -> Result<(), io::Error> {
        let Some(last) = chunk.last else { return Ok(()) };
        let small = chunk.bytes <= INLINE_BYTES_MAX && !chunk.digest && !chunk.looks && chunk.membership.is_none();
        let small = small && !self.state.is_held();
        let (state, entries, membership) = (self.state.clone(), chunk.entries, chunk.membership);
        let apply = move || state.apply(&entries, &last, membership.as_ref());
        let answers = match small {
            true => apply(),
            false => blocking(apply).await,
        };
        let answers = answers.map_err(to_io)?;
        for (responder, answer) in chunk.responders.into_iter().zip(answers) {
            if let Some(responder) = responder {
                responder.send(Outcome(answer));
            }
        }
        Ok(())
    }
}

/// Whether an entry looks at the state before it, which must all be written then.
fn begins_chunk(entry: &openraft::type_config::alias::EntryOf<TypeConfig>) -> bool {
    match &entry.payload {
        EntryPayload::Normal(command) => shard::begins_chunk(&command.0),
        EntryPayload::Blank | EntryPayload::Membership(_) => false,
    }
}

/// Runs storage work off the async threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

fn to_io(error: Error) -> io::Error {
    io::Error::other(error)
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.state.applied().map_err(to_io)
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut chunk = Chunk::default();
        while let Some(item) = entries.next().await {
            let item = item?;
            if begins_chunk(&item.0) {
                self.write(std::mem::take(&mut chunk)).await?;
                chunk.looks = true;
            }
            chunk.push(item);
            if chunk.is_full() {
                self.write(std::mem::take(&mut chunk)).await?;
            }
        }
        self.write(chunk).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.state.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let (state, meta) = (self.state.clone(), meta.clone());
        blocking(move || match snapshot {
            SnapshotData::Received(dir) => state.install(&meta, &dir),
            SnapshotData::Live(source) => {
                let taken = source.outgoing()?;
                state.install(&meta, taken.folder.path())
            }
        })
        .await
        .map_err(to_io)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        let (last_log_id, last_membership) = self.state.persisted().map_err(to_io)?;
        if last_log_id.is_none() {
            return Ok(None);
        }
        let meta = SnapshotMeta {
            last_log_id,
            last_membership,
        };
        Ok(Some(Snapshot {
            meta,
            snapshot: SnapshotData::Live(self.state.clone()),
        }))
    }
}

/// "Builds" a snapshot by flushing: from then on the state on disk is the snapshot, and the log below it can go.
pub struct Builder {
    state: Arc<ReplicaState>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        let state = self.state.clone();
        let (last_log_id, last_membership) = blocking(move || {
            // What was flushed before is a snapshot too. An error here would end the replica.
            match state.flush() {
                Err(error) if error.reason() == Reason::DiskLow => tracing::warn!(%error, "flushed later"),
                flushed => flushed?,
            }
            state.persisted()
        })
        .await
        .map_err(to_io)?;
        let meta = SnapshotMeta {
            last_log_id,
            last_membership,
        };
        Ok(Snapshot {
            meta,
            snapshot: SnapshotData::Live(self.state.clone()),
        })
    }
}
