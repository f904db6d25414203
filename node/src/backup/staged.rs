//! Files of backups on their way back: uploaded, checked, kept until their shard is restored. Never: what is in them.
//!
//! Invariant: a file has its name only once every piece and the whole of it checked out and lie on disk; what would take
//! the disk below its reserve is refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt as _};
use tidemark_proto::v1::{BackupFile, BackupPiece, UploadHeader};
use xxhash_rust::xxh3::Xxh3;

use super::{Backups, Folder, lock, room};
use crate::catalog::types::is_id;
use crate::error::{Error, Reason, Result};
use crate::raft::machine::blocking;

const NAME_BYTES_MAX: usize = 64;
const FILES_MAX: usize = 100_000;

/// Uploaded files of one shard of one backup.
pub(super) struct Staged {
    pub(super) folder: Folder,
    files: Mutex<BTreeMap<String, BackupFile>>,
}

fn bad(message: String) -> Error {
    Error::new(Reason::InvalidBackup, message)
}

/// The id of a backup becomes the name of a folder.
pub(super) fn check_backup_id(backup_id: &str) -> Result<()> {
    match is_id(backup_id, NAME_BYTES_MAX) && !backup_id.contains("..") && !backup_id.contains(':') {
        true => Ok(()),
        false => Err(Error::new(Reason::InvalidId, format!("{backup_id:?} is no id of a backup")).field("backup_id")),
    }
}

impl Staged {
    /// The files that are here.
    pub(super) fn files(&self) -> Vec<BackupFile> {
        lock(&self.files).values().cloned().collect()
    }

    /// Refuses unless exactly these files are here.
    pub(super) fn is_whole(&self, files: &[BackupFile]) -> Result<()> {
        let here = lock(&self.files);
        for file in files {
            if here.get(&file.name) != Some(file) {
                return Err(bad(format!("file {:?} was not uploaded to this node", file.name)));
            }
        }
        match here.len() == files.len() {
            true => Ok(()),
            false => Err(bad(format!("{} files uploaded, {} named", here.len(), files.len()))),
        }
    }
}

impl Backups {
    /// The folder of a shard's uploads, made where there is none.
    fn staging(&self, shard: u32, backup_id: &str) -> Result<Arc<Staged>> {
        check_backup_id(backup_id)?;
        let mut all = lock(&self.staged);
        if let Some(staged) = all.get(&(shard, backup_id.to_owned())) {
            staged.folder.touch();
            return Ok(staged.clone());
        }
        room(all.len(), "uploads")?;
        let path = self.staged_dir.join(format!("{shard}-{backup_id}"));
        fs::create_dir_all(&path).map_err(Error::internal)?;
        let staged = Arc::new(Staged {
            folder: Folder::new(path),
            files: Mutex::default(),
        });
        all.insert((shard, backup_id.to_owned()), staged.clone());
        Ok(staged)
    }

    /// The uploads of a shard, if there are any.
    pub(super) fn staged(&self, shard: u32, backup_id: &str) -> Option<Arc<Staged>> {
        lock(&self.staged).get(&(shard, backup_id.to_owned())).cloned()
    }

    /// Lets the uploads of a shard go.
    pub(super) fn unstage(&self, shard: u32, backup_id: &str) {
        lock(&self.staged).remove(&(shard, backup_id.to_owned()));
    }

    /// Takes one file.
    pub async fn upload(
        &self,
        header: UploadHeader,
        mut pieces: impl Stream<Item = Result<BackupPiece>> + Send + Unpin,
    ) -> Result<()> {
        self.router.host().identity()?;
        let file = header.file.ok_or_else(|| bad("an upload without a file".into()))?;
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '\\', '\0']) && !name.starts_with('.');
        if !plain(&file.name) {
            return Err(bad(format!("file name {:?}", file.name)));
        }
        let metrics = self.router.host().metrics().clone();
        metrics.disk().check_room_to_spare(file.bytes)?;
        let staged = self.staging(header.shard, &header.backup_id)?;
        if lock(&staged.files).len() >= FILES_MAX {
            return Err(bad(format!("more than {FILES_MAX} files")));
        }
        let partly = staged.folder.path.join(format!(".{:016x}", rand::random::<u64>()));
        let mut incoming = {
            let file = file.clone();
            blocking(move || Incoming::new(partly, file)).await?
        };
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            // Others fill the disk too.
            metrics.disk().check_room_to_spare(incoming.left())?;
            incoming = blocking(move || incoming.take(&piece).map(|()| incoming)).await?;
            staged.folder.touch();
        }
        let path = staged.folder.path.join(&file.name);
        blocking(move || incoming.finish(path)).await?;
        lock(&staged.files).insert(file.name.clone(), file);
        Ok(())
    }
}

/// A file as it comes.
struct Incoming {
    partly: PathBuf,
    listed: BackupFile,
    file: File,
    hash: Xxh3,
    written: u64,
}

impl Incoming {
    fn new(partly: PathBuf, listed: BackupFile) -> Result<Incoming> {
        let file = File::create_new(&partly).map_err(Error::internal)?;
        Ok(Incoming {
            partly,
            listed,
            file,
            hash: Xxh3::new(),
            written: 0,
        })
    }

    fn take(&mut self, piece: &BackupPiece) -> Result<()> {
        let name = &self.listed.name;
        if piece.offset != self.written || self.written + piece.data.len() as u64 > self.listed.bytes {
            return Err(bad(format!("file {name:?}: piece {} out of order", piece.offset)));
        }
        if crc32c::crc32c(&piece.data) != piece.crc {
            return Err(bad(format!("file {name:?}: piece {} fails its check", piece.offset)));
        }
        self.file.write_all(&piece.data).map_err(Error::internal)?;
        self.hash.update(&piece.data);
        self.written += piece.data.len() as u64;
        Ok(())
    }

    /// Bytes that have not come yet.
    fn left(&self) -> u64 {
        self.listed.bytes - self.written
    }

    fn finish(self, path: PathBuf) -> Result<()> {
        if self.written != self.listed.bytes || self.hash.digest() != self.listed.digest {
            return Err(bad(format!("file {:?} fails its check", self.listed.name)));
        }
        self.file.sync_all().map_err(Error::internal)?;
        fs::rename(&self.partly, path).map_err(Error::internal)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        fs::remove_file(&self.partly).ok();
    }
}
