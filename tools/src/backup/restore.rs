//! `backup restore`: check, make or take an empty cluster, then shard by shard upload and commit; the types last.
//! Never: writing points (the server does, through the log).
//!
//! Invariant: nothing is changed before every file of the backup was read and checked, and before every shard said that
//! it can take it. Cut off, the same command goes on where it was.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tidemark_client::{Client, Error, ErrorKind, v1};
use v1::upload_backup_file_request::Part;

use super::folder::{Folder, invalid};
use super::manifest::{FileCopy, Manifest, ShardCopy};
use super::progress::Progress;
use super::{AGAIN_AFTER, RestoreArgs, address_of, blocking, passes, problems};
use crate::cli::Context;
use crate::failure::{Exit, Failure, OrFail, Outcome, Refusal};
use crate::output::Cell;

const SHARDS_AT_ONCE: usize = 3;
const PIECE_BYTES: usize = 512 << 10;
/// A shard that made no step for this long is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// One file: a limit on the rate makes it slow.
const UPLOAD_WAIT: Duration = Duration::from_secs(12 * 3_600);
const AGAIN: &str = "the same command again: it goes on where it was";

/// Runs the verb.
pub(super) async fn run(context: &Context, args: RestoreArgs) -> Outcome {
    let began = Instant::now();
    let folder = Folder::open(&args.dir)?;
    let manifest = folder.backup(args.id.as_deref())?;
    if manifest.data_shards() == 0 {
        return Err(invalid("cannot restore", "the backup has no shard but the catalog"));
    }
    let problems = problems(&folder, &manifest);
    if !problems.is_empty() {
        let what = format!("backup {} is damaged, nothing was restored", manifest.id);
        return Err(invalid(&what, problems.join("; ")));
    }
    let client = context.connect().await?;
    let status = cluster(context, &client, &args, &manifest).await?;
    let done = check_empty(&client, &status, &manifest).await?;
    let restoring = async {
        match done {
            true => Ok(Sums::default()),
            false => restore_all(context, &client, folder, &manifest, args.limit_rate).await,
        }
    };
    let sums = tokio::select! {
        sums = restoring => sums?,
        _ = tokio::signal::ctrl_c() => {
            return Err(Failure::new(Exit::Interrupted, "the restore is not finished", "interrupted", AGAIN));
        }
    };
    let mut printer = context.printer("backup_restore");
    let number = |number: &AtomicU64| Cell::Uint(number.load(Ordering::Relaxed));
    printer.head("id", Cell::text(&manifest.id))?;
    printer.head("cluster_id", Cell::text(&status.cluster_id))?;
    printer.head("shards", Cell::Uint(manifest.data_shards().into()))?;
    printer.head("already_restored", Cell::Bool(done))?;
    printer.head("bytes_uploaded", number(&sums.uploaded))?;
    printer.head("records", number(&sums.records))?;
    printer.head("bytes_restored", number(&sums.restored))?;
    let seconds = (began.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    printer.head("seconds", Cell::Float(seconds))?;
    printer.finish(&[])
}

/// What was done so far.
#[derive(Default)]
struct Sums {
    uploaded: AtomicU64,
    records: AtomicU64,
    restored: AtomicU64,
}

fn refused(reason: &str, what: &str, why: String, next: String) -> Failure {
    let refusal = Refusal {
        code: 9,
        kind: ErrorKind::Fix,
        reason: reason.to_owned(),
        message: why,
        field: String::new(),
        rows: Vec::new(),
        hint: next,
    };
    refusal.failure(what)
}

/// The cluster to restore into, healthy; made first where the nodes belong to none and `--peers` names them.
async fn cluster(
    context: &Context,
    client: &Client,
    args: &RestoreArgs,
    manifest: &Manifest,
) -> Outcome<v1::StatusResponse> {
    let what = "cannot restore";
    let shards = manifest.data_shards();
    let status = client.status().await.or_fail("cannot read the status")?;
    if status.cluster_id.is_empty() && args.peers.is_empty() {
        let next = format!(
            "tidemark backup restore {} {} --peers HOST:PORT,… (peer addresses of all nodes), or first tidemark cluster \
             init --shards {shards}",
            args.dir.display(),
            manifest.id
        );
        let why = "the node belongs to no cluster yet".to_owned();
        return Err(refused("NOT_INITIALISED", what, why, next));
    }
    if status.cluster_id.is_empty() {
        let request = v1::InitRequest {
            peers: args.peers.clone(),
            shards,
            replication_factor: args.replication,
        };
        client.init_cluster(request).await.or_fail("cannot make a cluster")?;
    }
    let ends_at = Instant::now() + context.timeout;
    loop {
        let status = client.status().await.or_fail("cannot read the status")?;
        let has = status.shards.iter().filter(|shard| shard.shard > 0).count() as u32;
        if has > 0 && has != shards {
            let why = format!("the backup has {shards} shards, the cluster {has}");
            let next = format!("start new nodes with empty data folders, then tidemark cluster init --shards {shards}");
            return Err(refused("CLUSTER_NOT_EMPTY", what, why, next));
        }
        if status.healthy {
            return Ok(status);
        }
        if Instant::now() > ends_at {
            let next = "tidemark cluster status --check, then the same command again";
            let why = status.problems.join("; ");
            return Err(Failure::new(Exit::Unhealthy, "the cluster is not healthy", why, next));
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Asks every shard whether it can take the backup. True where all of it is there already.
async fn check_empty(client: &Client, status: &v1::StatusResponse, manifest: &Manifest) -> Outcome<bool> {
    let what = "cannot restore into this cluster";
    let mut done = true;
    for shard in manifest.shards.iter().filter(|shard| shard.shard > 0) {
        let address = leader_of(status, shard.shard).unwrap_or_default();
        let request = v1::BeginRestoreRequest {
            shard: shard.shard,
            backup_id: manifest.id.clone(),
            check_only: true,
        };
        let answer = client.begin_restore(&address, request).await.or_fail(what)?;
        done &= answer.done;
    }
    if status.device_types > 0 && !done {
        let why = format!("the cluster has {} device types", status.device_types);
        let next = "restore into new nodes with empty data folders".to_owned();
        return Err(refused("CLUSTER_NOT_EMPTY", what, why, next));
    }
    Ok(done && status.device_types > 0)
}

/// Where clients reach the leader of a shard; else any node that answers.
fn leader_of(status: &v1::StatusResponse, shard: u32) -> Option<String> {
    let leader = status.shards.iter().find(|known| known.shard == shard)?.leader_node;
    let anyone = || status.nodes.iter().find(|node| node.reachable)?.node.as_ref();
    address_of(status, leader).or_else(|| anyone().map(|node| node.client_address.clone()))
}

async fn restore_all(
    context: &Context,
    client: &Client,
    folder: Folder,
    manifest: &Manifest,
    limit_rate: u64,
) -> Outcome<Sums> {
    let bytes = manifest.shards.iter().map(ShardCopy::bytes).sum();
    let run = Arc::new(Run {
        client: client.clone(),
        backup_id: manifest.id.clone(),
        give_up_after: context.timeout.max(GIVE_UP_AFTER),
        folder,
        progress: Progress::new(bytes, limit_rate),
        sums: Sums::default(),
    });
    let (catalog, shards): (Vec<_>, Vec<_>) = manifest.shards.iter().partition(|shard| shard.shard == 0);
    let each = |shard: &ShardCopy| {
        let (run, shard) = (run.clone(), shard.clone());
        async move { run.shard(&shard).await }
    };
    let restored = stream::iter(shards).map(each);
    let restored = restored.buffer_unordered(SHARDS_AT_ONCE).try_collect::<Vec<()>>().await;
    // Types come last: until then nobody can register a device or ask a question that is answered in part.
    let result = match (restored, catalog.first()) {
        (Ok(_), Some(catalog)) => run.shard(catalog).await,
        (restored, _) => restored.map(drop),
    };
    run.progress.clear();
    result?;
    Arc::try_unwrap(run)
        .map(|run| run.sums)
        .map_err(|_| Failure::new(Exit::Failed, "the restore did not end", "a task is left", AGAIN))
}

/// A restore as it goes.
struct Run {
    client: Client,
    backup_id: String,
    give_up_after: Duration,
    folder: Folder,
    progress: Progress,
    sums: Sums,
}

impl Run {
    /// Restores a shard, over as many tries and nodes as it takes.
    async fn shard(self: &Arc<Self>, shard: &ShardCopy) -> Outcome {
        let what = format!("cannot restore shard {}", shard.shard);
        let mut last_step = Instant::now();
        let mut counted = BTreeSet::new();
        loop {
            let steps = self.steps();
            let error = match self.try_shard(shard, &mut counted).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if self.steps() != steps {
                last_step = Instant::now();
            }
            if !passes(&error) || last_step.elapsed() > self.give_up_after {
                return Err(error).or_fail(&what).map_err(|failure| failure.or_next(AGAIN));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    fn steps(&self) -> (u64, u64) {
        let Sums { uploaded, restored, .. } = &self.sums;
        (uploaded.load(Ordering::Relaxed), restored.load(Ordering::Relaxed))
    }

    async fn try_shard(self: &Arc<Self>, shard: &ShardCopy, counted: &mut BTreeSet<String>) -> Result<(), Error> {
        let status = self.client.status().await?;
        let address = leader_of(&status, shard.shard).unwrap_or_default();
        let request = v1::BeginRestoreRequest {
            shard: shard.shard,
            backup_id: self.backup_id.clone(),
            check_only: false,
        };
        let begun = self.client.begin_restore(&address, request).await?;
        if begun.done {
            return Ok(());
        }
        for file in &shard.files {
            let wire = file.to_wire();
            if !begun.uploaded.contains(&wire) {
                let messages = self.clone().upload(shard.shard, file);
                self.client.upload_backup_file(&address, messages, UPLOAD_WAIT).await?;
                self.sums.uploaded.fetch_add(file.bytes, Ordering::Relaxed);
            }
            if counted.insert(file.name.clone()) {
                self.progress.add(file.bytes);
            }
        }
        let request = v1::RestoreShardRequest {
            shard: shard.shard,
            backup_id: self.backup_id.clone(),
            files: shard.files.iter().map(FileCopy::to_wire).collect(),
        };
        let mut progress = self.client.restore_shard(&address, request).await?;
        let mut before = v1::RestoreShardResponse::default();
        while let Some(now) = progress.next().await? {
            self.sums
                .records
                .fetch_add(now.records - before.records, Ordering::Relaxed);
            self.sums
                .restored
                .fetch_add(now.bytes - before.bytes, Ordering::Relaxed);
            let (records, restored) = (
                self.sums.records.load(Ordering::Relaxed),
                self.sums.restored.load(Ordering::Relaxed),
            );
            self.progress
                .message(format!("{records} records, {} MB applied", restored / 1_000_000));
            self.progress.add(0);
            if now.done {
                return Ok(());
            }
            before = now;
        }
        // The stream ended without its last message: the next try asks how far it is.
        Err(Error::from(v1::Failure {
            code: 14,
            reason: "INCOMPLETE".to_owned(),
            message: "the restore of the shard ended early".to_owned(),
            ..v1::Failure::default()
        }))
    }

    /// A file as messages, read as they are sent. A file that stops reading ends early, which the node notices.
    fn upload(
        self: Arc<Self>,
        shard: u32,
        file: &FileCopy,
    ) -> impl Stream<Item = v1::UploadBackupFileRequest> + Send + use<> {
        let header = v1::UploadHeader {
            shard,
            backup_id: self.backup_id.clone(),
            file: Some(file.to_wire()),
        };
        let path = self.folder.path(file);
        let pieces = stream::unfold((self, path, None, 0), |(run, path, opened, offset)| async move {
            let reading = {
                let path = path.clone();
                blocking(move || Ok(read(&path, opened)))
            };
            let (data, opened) = reading.await.ok().flatten()?;
            run.progress.brake(data.len() as u64).await;
            let length = data.len() as u64;
            let piece = v1::BackupPiece {
                offset,
                crc: crc32c::crc32c(&data),
                data: data.into(),
            };
            Some((Part::Piece(piece), (run, path, Some(opened), offset + length)))
        });
        let parts = stream::once(async move { Part::Header(header) }).chain(pieces);
        parts.map(|part| v1::UploadBackupFileRequest { part: Some(part) })
    }
}

/// The next bytes of a file; none at its end, and where it does not read.
fn read(path: &PathBuf, opened: Option<File>) -> Option<(Vec<u8>, File)> {
    let mut file = match opened {
        Some(file) => file,
        None => File::open(path).ok()?,
    };
    let mut data = Vec::with_capacity(PIECE_BYTES);
    let length = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut data).ok()?;
    (length > 0).then_some((data, file))
}
