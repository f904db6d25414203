//! `backup create`: a checkpoint of every shard, then the files that the folder does not have. Never: reading what is in them.
//!
//! Invariant: the manifest is written when every file is there, checked and synced. All checkpoints are taken before the
//! first file is copied, so that the shards of a backup lie close together in time.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tidemark_client::{Client, v1};

use super::folder::{Folder, Incoming};
use super::held::Held;
use super::manifest::{FileCopy, Manifest, ShardCopy};
use super::progress::Progress;
use super::{AGAIN_AFTER, CreateArgs, address_of, blocking, passes};
use crate::cli::{Context, now_ns};
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::output::Cell;

/// A first checkpoint reads all of a shard to digest it.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(3_600);
/// Checkpoints that are not read for half an hour are deleted; longer copies say that they are still wanted.
const STILL_WANTED_EVERY: Duration = Duration::from_secs(300);
const CHECKPOINTS_AT_ONCE: usize = 4;
const FILES_AT_ONCE: usize = 4;
const FILE_TRIES: u32 = 5;

/// A checkpoint on a node.
struct Taken {
    address: String,
    backup: String,
    shard: ShardCopy,
}

/// Files and bytes.
#[derive(Default)]
struct Amount {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Amount {
    fn add(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Runs the verb.
pub(super) async fn run(context: &Context, args: CreateArgs) -> Outcome {
    let began = Instant::now();
    let created_at_ns = now_ns();
    let client = context.connect().await?;
    let status = client.status().await.or_fail("cannot read the status")?;
    if status.cluster_id.is_empty() {
        let why = "the node belongs to no cluster yet";
        return Err(Failure::new(
            Exit::Refused,
            "nothing to back up",
            why,
            "tidemark cluster init",
        ));
    }
    let folder = Arc::new(Folder::change(&args.dir)?);
    let earlier = folder.backups()?.into_iter().filter_map(|(_, manifest)| manifest.ok());
    let earlier = earlier.rev().find(|manifest| manifest.cluster_id == status.cluster_id);
    let held = Held::default();
    let look = async |address: String, backup: String| look_at(&client, address, backup).await;
    let before = |shard: u32| Some(earlier.as_ref()?.shards.get(shard as usize)?.node_id);
    let shards: Vec<u32> = status.shards.iter().map(|shard| shard.shard).collect();
    let checkpoints = shards.into_iter().map(|shard| {
        let (client, held) = (&client, &held);
        let before = before(shard);
        async move {
            let taken = checkpoint(client, shard, before, context.timeout).await?;
            held.add(&taken.address, &taken.backup);
            Outcome::Ok(taken)
        }
    });
    let checkpoints = stream::iter(checkpoints).buffered(CHECKPOINTS_AT_ONCE).collect();
    // The first checkpoints are wanted for as long as the last ones take, and all of them while files are copied.
    let taken: Vec<Outcome<Taken>> = held.while_wanted(STILL_WANTED_EVERY, &look, checkpoints).await;
    let (taken, failed): (Vec<_>, Vec<_>) = taken.into_iter().partition(Result::is_ok);
    let taken: Vec<Taken> = taken.into_iter().flatten().collect();
    let (copied, reused) = (Amount::default(), Amount::default());
    let copying = async {
        if let Some(Err(failure)) = failed.into_iter().next() {
            return Err(failure);
        }
        let copying = copy_all(&client, &folder, &taken, &args, &copied, &reused);
        tokio::select! {
            result = held.while_wanted(STILL_WANTED_EVERY, &look, copying) => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(
                Exit::Interrupted,
                "the backup is not finished",
                "interrupted",
                "the same command again: files that were copied are not copied twice",
            )),
        }
    };
    let result = copying.await;
    for one in &taken {
        if let Err(error) = client.end_backup(&one.address, &one.backup).await {
            context.say(&format!(
                "checkpoint {} is not ended, its node will: {error}",
                one.backup
            ));
        }
    }
    result?;
    let shards = taken.into_iter().map(|taken| taken.shard).collect();
    let manifest = Manifest::new(new_id(created_at_ns), status.cluster_id, created_at_ns, shards);
    let shown = args.dir.display().to_string();
    folder
        .commit(&manifest)
        .map_err(|error| Failure::file("write the manifest in", &shown, &error))?;
    print(context, &manifest, &copied, &reused, began.elapsed())
}

/// `20260131T235959Z-3fa2`: sorts by time, and two of one second differ.
fn new_id(ns: i64) -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish() as u16;
    let at = Timestamp::from_nanosecond(ns.into()).unwrap_or_default();
    format!("{}-{random:04x}", at.strftime("%Y%m%dT%H%M%SZ"))
}

/// Takes a checkpoint where the last backup of the folder took it, because there the files are that it has already; else,
/// and if that node is not in step, at the leader.
async fn checkpoint(client: &Client, shard: u32, before: Option<u64>, timeout: Duration) -> Outcome<Taken> {
    let ends_at = Instant::now() + timeout;
    let mut before = before;
    loop {
        let what = format!("cannot take a checkpoint of shard {shard}");
        let status = client.status().await.or_fail(&what)?;
        let here = status.shards.iter().find(|status| status.shard == shard);
        let keeps = |node| here.is_some_and(|here| here.replicas.iter().any(|replica| replica.node_id == node));
        let follower = before.take().filter(|node| keeps(*node));
        let node = follower.or(here.map(|here| here.leader_node)).unwrap_or(0);
        let request = v1::BeginBackupRequest {
            shard,
            follower_too: follower.is_some(),
        };
        let taken = match address_of(&status, node) {
            Some(address) => {
                let wait = CHECKPOINT_WAIT.max(timeout);
                let taken = client.begin_backup(&address, request, wait).await;
                taken.map(|taken| Taken {
                    address,
                    shard: ShardCopy::new(shard, &taken),
                    backup: taken.backup,
                })
            }
            None if Instant::now() < ends_at => {
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
            None => {
                let next = "tidemark cluster status --check, then the same command again";
                return Err(Failure::new(Exit::Unavailable, what, "the shard has no leader", next));
            }
        };
        match taken {
            Err(error) if (passes(&error) || follower.is_some()) && Instant::now() < ends_at => {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            settled => return settled.or_fail(&what),
        }
    }
}

/// Reads a little of a checkpoint. What this does not reach, the copy itself will notice.
async fn look_at(client: &Client, address: String, backup: String) {
    let request = v1::ReadBackupFileRequest {
        backup,
        file: "CURRENT".to_owned(),
        offset: 0,
    };
    drop(client.read_backup_file(&address, request).await);
}

async fn copy_all(
    client: &Client,
    folder: &Arc<Folder>,
    taken: &[Taken],
    args: &CreateArgs,
    copied: &Amount,
    reused: &Amount,
) -> Outcome {
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for one in taken {
        for file in one.shard.files.iter().filter(|file| seen.insert((*file).clone())) {
            match has(folder, file, args.check).await {
                true => reused.add(file.bytes),
                false => wanted.push((one, file)),
            }
        }
    }
    let progress = Progress::new(wanted.iter().map(|(_, file)| file.bytes).sum(), args.limit_rate);
    progress.message(format!("{} files", wanted.len()));
    let copies = wanted.into_iter().map(|(one, file)| {
        let progress = &progress;
        async move {
            copy(client, folder, one, file, progress).await?;
            copied.add(file.bytes);
            Outcome::Ok(())
        }
    });
    let result = stream::iter(copies)
        .buffer_unordered(FILES_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await;
    progress.clear();
    result.map(drop)
}

/// True where the folder has a file already; asked to check, only if it is whole.
async fn has(folder: &Arc<Folder>, file: &FileCopy, check: bool) -> bool {
    if !folder.has(file) || !check {
        return folder.has(file);
    }
    let (folder, file) = (folder.clone(), file.clone());
    let read = blocking(move || folder.check(&file, |_| {}).map_err(io::Error::other));
    read.await.is_ok()
}

/// How a stream of pieces ended.
enum Ended {
    Whole(Incoming),
    Broken(Incoming, tidemark_client::Error),
}

/// Copies one file; a stream that breaks is taken up where it broke.
async fn copy(client: &Client, folder: &Folder, from: &Taken, file: &FileCopy, progress: &Progress) -> Outcome {
    let name = format!("{} of shard {}", file.name, from.shard.shard);
    let cannot = |error: std::io::Error| Failure::file("copy", &name, &error);
    let mut incoming = folder.write(file).map_err(cannot)?;
    let mut tries = 0;
    loop {
        let before = incoming.written();
        let (kept, error) = match receive(client, from, file, incoming, progress).await.map_err(cannot)? {
            Ended::Whole(incoming) => return blocking(move || incoming.finish()).await.map_err(cannot),
            Ended::Broken(incoming, error) => (incoming, error),
        };
        tries = if kept.written() > before { 1 } else { tries + 1 };
        incoming = kept;
        if error.kind != tidemark_client::ErrorKind::Retry || tries > FILE_TRIES {
            let failed = Err(error).or_fail(&format!("cannot copy {name}"));
            return failed.map_err(|failure| {
                failure.next("the same command again: files that were copied are not copied twice")
            });
        }
        tokio::time::sleep(AGAIN_AFTER * 2_u32.pow(tries)).await;
    }
}

/// Takes pieces until the file is whole or the stream breaks.
async fn receive(
    client: &Client,
    from: &Taken,
    file: &FileCopy,
    mut incoming: Incoming,
    progress: &Progress,
) -> io::Result<Ended> {
    let request = v1::ReadBackupFileRequest {
        backup: from.backup.clone(),
        file: file.name.clone(),
        offset: incoming.written(),
    };
    let mut pieces = match client.read_backup_file(&from.address, request).await {
        Ok(pieces) => pieces,
        Err(error) => return Ok(Ended::Broken(incoming, error)),
    };
    loop {
        let piece = match pieces.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(Ended::Whole(incoming)),
            Err(error) => return Ok(Ended::Broken(incoming, error)),
        };
        if piece.offset != incoming.written() || crc32c::crc32c(&piece.data) != piece.crc {
            let message = format!("the piece at {} fails its check", piece.offset);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let bytes = piece.data.len() as u64;
        incoming = blocking(move || incoming.take(&piece.data).map(|()| incoming)).await?;
        progress.add(bytes);
        progress.brake(bytes).await;
    }
}

fn print(context: &Context, manifest: &Manifest, copied: &Amount, reused: &Amount, took: Duration) -> Outcome {
    let number = |number: &AtomicU64| Cell::Uint(number.load(Ordering::Relaxed));
    let mut printer = context.printer("backup_create");
    printer.head("id", Cell::text(&manifest.id))?;
    printer.head("cluster_id", Cell::text(&manifest.cluster_id))?;
    printer.head("bytes", Cell::Uint(manifest.bytes()))?;
    printer.head("files_copied", number(&copied.files))?;
    printer.head("bytes_copied", number(&copied.bytes))?;
    printer.head("files_reused", number(&reused.files))?;
    printer.head("bytes_reused", number(&reused.bytes))?;
    printer.head("seconds", Cell::Float((took.as_secs_f64() * 1e3).round() / 1e3))?;
    printer.section("shards", &["shard", "node", "applied_index", "files", "bytes"])?;
    for shard in &manifest.shards {
        printer.row(vec![
            Cell::Uint(shard.shard.into()),
            Cell::Uint(shard.node_id),
            Cell::Uint(shard.applied_index),
            Cell::Uint(shard.files.len() as u64),
            Cell::Uint(shard.bytes()),
        ])?;
    }
    printer.finish(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time() {
        let id = new_id(1_760_000_000_000_000_000);
        assert!(id.starts_with("20251009T085320Z-") && id.len() == 21, "{id}");
    }
}
