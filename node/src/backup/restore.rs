//! The way of uploaded files into a shard: opened for reading, cut into pieces, each piece an entry of the shard's log.
//! Never: how a replica takes a piece (`shard`, `catalog`).
//!
//! Invariant: nothing is proposed before the files were found to be of this shard and of a known format. Pieces go one
//! after the other, so that any of them may be offered again; the same files are always cut the same way.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidemark_proto::peer::{
    CatalogCommand, RestoreRecords, RestoreTypes, Restored, RestoredRecord, ShardCommand, applied, catalog_command,
    shard_command,
};
use tidemark_proto::v1::{BeginRestoreRequest, BeginRestoreResponse, RestoreShardRequest, RestoreShardResponse};
use tokio::sync::mpsc;

use super::staged::{Staged, check_backup_id};
use super::{Backups, PIECES_AHEAD};
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::clock::{monotonic, now_ns};
use crate::error::{Error, Reason, Result};
use crate::raft::machine::blocking;
use crate::raft::state::store_error;
use crate::route::Retry;
use crate::shard::contents;
use crate::store::{ReplicaStore, Resources, StoreError};

/// Bytes of records in one entry of the log; a single larger record goes alone.
const RECORDS_BYTES: usize = 1 << 20;
/// Versions of alert profiles that are not given out behind those of a backup: its shards were copied after its catalog, and may have
/// states of profiles that were changed meanwhile.
const ALERT_VERSIONS_LEFT_OUT: u32 = 1 << 20;
/// Longest wait until an entry is applied, elections included.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

impl Backups {
    /// Whether a shard can take this backup; unless it is only asked, from then on it takes nothing else.
    pub async fn begin_restore(&self, request: BeginRestoreRequest) -> Result<BeginRestoreResponse> {
        check_backup_id(&request.backup_id)?;
        let uploaded = self.staged(request.shard, &request.backup_id);
        let uploaded = uploaded.map_or(Vec::new(), |staged| staged.files());
        if request.shard == CATALOG_GROUP {
            let catalog = self.router.newest_catalog(PROPOSE_TIMEOUT).await?;
            let begun = catalog.types().next().is_some();
            return Ok(BeginRestoreResponse {
                done: false,
                begun,
                uploaded,
            });
        }
        self.router.host().catalog()?.known_shard(request.shard)?;
        let first = RestoreRecords {
            backup_id: request.backup_id,
            check_only: request.check_only,
            ..RestoreRecords::default()
        };
        let restored = self.propose_piece(request.shard, first).await?;
        Ok(BeginRestoreResponse {
            done: restored.done,
            begun: restored.next_piece > 0,
            uploaded,
        })
    }

    /// Restores a shard from its uploaded files; tells how far it is as it goes. It stops when nobody listens.
    pub fn restore(
        self: &Arc<Self>,
        request: RestoreShardRequest,
    ) -> Result<mpsc::Receiver<Result<RestoreShardResponse>>> {
        check_backup_id(&request.backup_id)?;
        let staged = self.staged(request.shard, &request.backup_id).ok_or_else(|| {
            let message = format!("no file of backup {} was uploaded to this node", request.backup_id);
            Error::new(Reason::UnknownBackup, message).hint("upload the files again")
        })?;
        staged.is_whole(&request.files)?;
        let (out, progress) = mpsc::channel(PIECES_AHEAD);
        let backups = self.clone();
        tokio::spawn(async move {
            let restored = match request.shard {
                CATALOG_GROUP => backups.restore_catalog(&staged).await,
                shard => backups.restore_shard(shard, &request.backup_id, &staged, &out).await,
            };
            let last = restored.inspect(|_| backups.unstage(request.shard, &request.backup_id));
            out.send(last).await.ok();
        });
        Ok(progress)
    }

    async fn restore_catalog(&self, staged: &Arc<Staged>) -> Result<RestoreShardResponse> {
        let (staged, resources) = (staged.clone(), self.resources.clone());
        let records = blocking(move || {
            let store = open(&staged.folder.path, &resources)?;
            store.group_states(b"").map_err(unreadable)
        })
        .await?;
        if records.is_empty() {
            return Err(Error::new(Reason::InvalidBackup, "the files hold no catalog"));
        }
        let catalog = Catalog::load(records).map_err(|error| Error::new(Reason::InvalidBackup, error.message()))?;
        let device_types: Vec<_> = catalog.types().map(|def| def.stored.clone()).collect();
        let records = device_types.len() as u64;
        let command = CatalogCommand {
            stamp_ns: now_ns(),
            command: Some(catalog_command::Command::RestoreTypes(RestoreTypes {
                device_types,
                alert_profiles: catalog.alert_profiles().cloned().collect(),
                alert_version: catalog.alerts_version().0.saturating_add(ALERT_VERSIONS_LEFT_OUT),
            })),
        };
        let bytes = command.encode_to_vec();
        let answer = RestoreShardResponse {
            records,
            bytes: bytes.len() as u64,
            done: true,
        };
        self.propose(CATALOG_GROUP, bytes.into()).await?;
        self.router.catch_up_catalog(PROPOSE_TIMEOUT).await;
        Ok(answer)
    }

    async fn restore_shard(
        &self,
        shard: u32,
        backup_id: &str,
        staged: &Arc<Staged>,
        out: &mpsc::Sender<Result<RestoreShardResponse>>,
    ) -> Result<RestoreShardResponse> {
        let (send, mut pieces) = mpsc::channel(PIECES_AHEAD);
        let store = {
            let (staged, resources, catalog) = (staged.clone(), self.resources.clone(), self.router.host().catalog()?);
            blocking(move || {
                let store = open(&staged.folder.path, &resources)?;
                belongs(&store, shard, &catalog)?;
                Ok(store)
            })
            .await?
        };
        let first = RestoreRecords {
            backup_id: backup_id.to_owned(),
            ..RestoreRecords::default()
        };
        let mut known = self.propose_piece(shard, first).await?;
        let cutting = tokio::task::spawn_blocking(move || cut(&store, &send));
        let mut progress = RestoreShardResponse::default();
        let mut number = 0;
        while let Some(piece) = pieces.recv().await.filter(|_| !known.done) {
            number += 1;
            progress.records += piece.records.len() as u64;
            progress.bytes += piece.bytes;
            if number >= known.next_piece {
                let restore = RestoreRecords {
                    backup_id: backup_id.to_owned(),
                    piece: number,
                    last: piece.last,
                    records: piece.records,
                    check_only: false,
                };
                known = self.propose_piece(shard, restore).await?;
            }
            staged.folder.touch();
            if !known.done && out.send(Ok(progress)).await.is_err() {
                return Err(Error::new(Reason::Stopping, "nobody waits for the restore any more"));
            }
        }
        drop(pieces);
        cutting.await.map_err(Error::internal)??;
        match known.done {
            true => Ok(RestoreShardResponse { done: true, ..progress }),
            false => Err(Error::internal("the pieces of a restore ended before the last one")),
        }
    }

    async fn propose_piece(&self, shard: u32, restore: RestoreRecords) -> Result<Restored> {
        let command = ShardCommand {
            stamp_ns: now_ns(),
            command: Some(shard_command::Command::Restore(restore)),
        };
        match self.propose(shard, command.encode_to_vec().into()).await? {
            applied::Result::Restored(restored) => Ok(restored),
            other => Err(Error::internal(format!("answer {other:?} to a restore"))),
        }
    }

    /// Offers an entry until it is applied or refused.
    async fn propose(&self, group: u32, command: Bytes) -> Result<applied::Result> {
        let deadline = monotonic() + PROPOSE_TIMEOUT;
        loop {
            let proposed = self.router.propose(group, command.clone(), Retry::Safe, deadline).await;
            match proposed {
                Err(error) if error.retry_after() > 0 && monotonic() + AGAIN_AFTER < deadline => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                settled => return settled,
            }
        }
    }
}

/// Files that do not read are a matter of the backup, not of this node.
fn unreadable(error: StoreError) -> Error {
    match error {
        StoreError::Corruption(_) | StoreError::NewerFormat { .. } => {
            Error::new(Reason::InvalidBackup, error.to_string())
        }
        other => store_error(other),
    }
}

fn open(dir: &Path, resources: &Resources) -> Result<ReplicaStore> {
    ReplicaStore::open_read_only(dir, resources).map_err(unreadable)
}

/// Refuses files of the catalog, and of a shard with other devices.
fn belongs(store: &ReplicaStore, shard: u32, catalog: &Catalog) -> Result<()> {
    let bad = |message: String| Err(Error::new(Reason::InvalidBackup, message));
    if !store.group_states(b"").map_err(unreadable)?.is_empty() {
        return bad(format!("the files hold a catalog, not shard {shard}"));
    }
    let stranger = contents::each_device_id(store, |id| match catalog.shard_of(id) {
        found if found == shard => ControlFlow::Continue(()),
        found => ControlFlow::Break(format!("device {id} belongs to shard {found}, not {shard}")),
    });
    match stranger.map_err(unreadable)? {
        ControlFlow::Break(message) => bad(message),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Records of one entry.
#[derive(Default)]
struct Piece {
    records: Vec<RestoredRecord>,
    bytes: u64,
    last: bool,
}

/// Sends every record in pieces; the last one is marked, and sent even if it is empty. Ends early when nobody takes them.
fn cut(store: &ReplicaStore, out: &mpsc::Sender<Piece>) -> Result<()> {
    let mut piece = Piece::default();
    let taken = contents::each_record(store, |family, key, value| {
        let length = key.len() + value.len();
        if !piece.records.is_empty() && piece.bytes as usize + length > RECORDS_BYTES {
            let full = std::mem::take(&mut piece);
            if out.blocking_send(full).is_err() {
                return ControlFlow::Break(());
            }
        }
        piece.bytes += length as u64;
        piece.records.push(RestoredRecord {
            family,
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
        });
        ControlFlow::Continue(())
    });
    if taken.map_err(unreadable)?.is_continue() {
        piece.last = true;
        out.blocking_send(piece).ok();
    }
    Ok(())
}
