//! Backups as this node sees them: checkpoints that are read, files that come back, and their way into the shards.
//!
//! | file | holds |
//! | --- | --- |
//! | `taken` | checkpoints of shards, kept while they are read |
//! | `staged` | uploaded files, kept until their shard is restored |
//! | `restore` | the records of uploaded files, proposed piece by piece |
//! | `files` | names, sizes and digests of files |
//!
//! ```text
//! DATA/backups/<name>/               a checkpoint; hard links to the files of the replica
//! DATA/restores/<shard>-<backup>/    uploaded files
//! ```
//!
//! Never here: where a backup is kept, which shards belong to it. Invariant: restored records reach a shard through its
//! log and no other way; both folders are emptied when the node starts, and what nobody uses for long is deleted.

mod files;
mod restore;
mod staged;
mod taken;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::route::Router;
use crate::store::Resources;
use files::Digests;
use staged::Staged;
use taken::Taken;

/// A checkpoint or an upload that nobody used for this long is deleted.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Checkpoints and uploads at a time, each: more than the shards of a cluster.
const FOLDERS_MAX: usize = 256;
/// Bytes of a file in one message.
const PIECE_BYTES: usize = 512 << 10;
const PIECES_AHEAD: usize = 4;

/// The backups of one node.
pub struct Backups {
    router: Arc<Router>,
    resources: Arc<Resources>,
    taken_dir: PathBuf,
    staged_dir: PathBuf,
    taken: Mutex<BTreeMap<String, Arc<Taken>>>,
    staged: Mutex<BTreeMap<(u32, String), Arc<Staged>>>,
    digests: Digests,
}

impl Backups {
    /// Over the replicas of this node. Deletes what an earlier process left.
    pub fn open(router: Arc<Router>, data_dir: &Path, resources: Arc<Resources>) -> Result<Arc<Backups>> {
        let backups = Arc::new(Backups {
            router,
            resources,
            taken_dir: data_dir.join("backups"),
            staged_dir: data_dir.join("restores"),
            taken: Mutex::default(),
            staged: Mutex::default(),
            digests: Digests::default(),
        });
        for dir in [&backups.taken_dir, &backups.staged_dir] {
            match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::internal(error)),
                _ => {}
            }
        }
        let kept = Arc::downgrade(&backups);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_EVERY);
            loop {
                ticks.tick().await;
                let Some(backups) = kept.upgrade() else { return };
                backups.forget_idle();
            }
        });
        Ok(backups)
    }

    fn forget_idle(&self) {
        let now = monotonic();
        lock(&self.taken).retain(|name, taken| {
            let keep = taken.folder.idle(now) < IDLE_MAX;
            if !keep {
                tracing::info!(name, "checkpoint of a backup was not read for long and is deleted");
            }
            keep
        });
        lock(&self.staged).retain(|_, staged| staged.folder.idle(now) < IDLE_MAX);
    }
}

/// A folder that is deleted when nobody holds it any more.
struct Folder {
    path: PathBuf,
    used: Mutex<Instant>,
}

impl Folder {
    fn new(path: PathBuf) -> Folder {
        Folder {
            path,
            used: Mutex::new(monotonic()),
        }
    }

    fn touch(&self) {
        *lock(&self.used) = monotonic();
    }

    fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*lock(&self.used))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "folder could not be deleted");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn room(used: usize, what: &str) -> Result<()> {
    match used < FOLDERS_MAX {
        true => Ok(()),
        false => Err(Error::new(
            Reason::Overloaded,
            format!("this node keeps {used} {what} already, the limit is {FOLDERS_MAX}"),
        )),
    }
}
