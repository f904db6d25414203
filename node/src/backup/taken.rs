//! Checkpoints of shards for whoever copies them. Never: how the copies are kept.
//!
//! Invariant: a checkpoint is at an exact log index and holds everything that was acknowledged before it was asked for;
//! nothing in it changes until it is ended.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::v1::{BackupFile, BackupPiece, BeginBackupRequest, BeginBackupResponse, ReadBackupFileRequest};
use tokio::sync::mpsc;

use super::{Backups, Folder, PIECE_BYTES, PIECES_AHEAD, lock, room};
use crate::clock::monotonic;
use crate::error::{Error, Reason, Result};
use crate::raft::machine::blocking;
use crate::raft::replica::Replica;
use crate::store::FORMAT_VERSION;

/// Longest wait for this replica to be in step.
const IN_STEP_WITHIN: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(40);

/// One checkpoint.
pub(super) struct Taken {
    pub(super) folder: Folder,
    files: Vec<BackupFile>,
}

impl Backups {
    /// Takes a checkpoint of a shard.
    pub async fn begin(self: &Arc<Self>, request: BeginBackupRequest) -> Result<BeginBackupResponse> {
        let host = self.router.host();
        let identity = host.identity()?.clone();
        let shard = request.shard;
        let replica = host.replica(shard);
        let replica = replica.ok_or_else(|| self.not_leader(shard, "has no replica of"))?;
        self.in_step(&replica, request.follower_too).await?;
        room(lock(&self.taken).len(), "checkpoints")?;
        let name = format!("{shard}-{:016x}", rand::random::<u64>());
        let (backups, path) = (self.clone(), self.taken_dir.join(&name));
        let (taken, meta) = blocking(move || {
            fs::create_dir_all(&backups.taken_dir).map_err(Error::internal)?;
            let folder = Folder::new(path);
            // Outside of the checkpoint, which holds applying up until it has flushed what is left.
            replica.state().flush()?;
            let meta = replica.state().checkpoint(&folder.path)?;
            let files = backups.digests.list(&folder.path)?;
            folder.touch();
            Ok((Taken { folder, files }, meta))
        })
        .await?;
        let files = taken.files.clone();
        lock(&self.taken).insert(name.clone(), Arc::new(taken));
        let (applied_index, applied_term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
        tracing::info!(shard, applied_index, files = files.len(), "checkpoint for a backup");
        Ok(BeginBackupResponse {
            backup: name,
            cluster_id: identity.cluster_id,
            node_id: identity.node_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format: FORMAT_VERSION,
            applied_index,
            applied_term,
            files,
        })
    }

    /// Returns once the replica has everything that was acknowledged before the call.
    async fn in_step(&self, replica: &Replica, follower_too: bool) -> Result<()> {
        let began = monotonic();
        loop {
            if replica.is_leader() && replica.linearize(IN_STEP_WITHIN).await?.is_ok() {
                return Ok(());
            }
            if !follower_too {
                return Err(self.not_leader(replica.group(), "does not lead"));
            }
            if replica.lag().is_some_and(|lag| lag < began.elapsed()) {
                return Ok(());
            }
            if began.elapsed() > IN_STEP_WITHIN {
                let message = format!("the replica of shard {} is not in step", replica.group());
                return Err(Error::new(Reason::TooStale, message));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn not_leader(&self, shard: u32, what: &str) -> Error {
        let host = self.router.host();
        if let Ok(catalog) = host.catalog()
            && let Err(unknown) = catalog.known_shard(shard)
        {
            return unknown;
        }
        let leader = host.replica(shard).and_then(|replica| replica.leader_node());
        let address = leader.and_then(|node| Some(host.catalog().ok()?.node(node)?.client_address.clone()));
        let error = Error::new(Reason::NotLeader, format!("this node {what} shard {shard}"));
        match (leader, address) {
            (Some(node), Some(address)) => error.hint(format!("ask node {node} at {address}")),
            _ => error.hint("ask its leader (tidemark cluster status)"),
        }
    }

    fn taken(&self, name: &str) -> Result<Arc<Taken>> {
        let taken = lock(&self.taken).get(name).cloned();
        let taken = taken.ok_or_else(|| {
            Error::new(
                Reason::UnknownBackup,
                format!("no checkpoint {name:?} on this node: ended, or not read for long"),
            )
        })?;
        taken.folder.touch();
        Ok(taken)
    }

    /// Streams a file of a checkpoint.
    pub fn read(&self, request: &ReadBackupFileRequest) -> Result<mpsc::Receiver<Result<BackupPiece>>> {
        let taken = self.taken(&request.backup)?;
        let file = taken.files.iter().find(|file| file.name == request.file);
        let file = file.ok_or_else(|| {
            let message = format!("checkpoint {:?} has no file {:?}", request.backup, request.file);
            Error::new(Reason::UnknownBackup, message)
        })?;
        let (name, offset) = (file.name.clone(), request.offset);
        let (out, pieces) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send(&taken, &name, offset, &out) {
                out.blocking_send(Err(error)).ok();
            }
        });
        Ok(pieces)
    }

    /// Lets a checkpoint go; one that is gone already is no failure.
    pub async fn end(&self, name: &str) -> Result<()> {
        let taken = lock(&self.taken).remove(name);
        blocking(move || {
            drop(taken);
            Ok(())
        })
        .await
    }
}

/// Ends early, and quietly, when nobody reads any more.
fn send(taken: &Taken, name: &str, mut offset: u64, out: &mpsc::Sender<Result<BackupPiece>>) -> Result<()> {
    let mut file = File::open(taken.folder.path.join(name)).map_err(Error::internal)?;
    file.seek(SeekFrom::Start(offset)).map_err(Error::internal)?;
    loop {
        let mut data = Vec::with_capacity(PIECE_BYTES);
        let part = (&mut file).take(PIECE_BYTES as u64);
        let length = { part }.read_to_end(&mut data).map_err(Error::internal)? as u64;
        if length == 0 {
            return Ok(());
        }
        let crc = crc32c::crc32c(&data);
        let piece = BackupPiece {
            offset,
            data: data.into(),
            crc,
        };
        if out.blocking_send(Ok(piece)).is_err() {
            return Ok(());
        }
        offset += length;
        taken.folder.touch();
    }
}
