//! Names, sizes and digests of the files of a folder. Never: reading for anything but a digest.
//!
//! Invariant: a digest is of the bytes as they were read; a table file is read once for it, because it never changes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;

use tidemark_proto::v1::BackupFile;
use xxhash_rust::xxh3::Xxh3;

use super::{PIECE_BYTES, lock};
use crate::error::{Error, Result};

/// Digests remembered; all are forgotten beyond.
const REMEMBERED_MAX: usize = 100_000;

/// Inode, length and time of change: the same file, whatever link leads to it.
type FileKey = (u64, u64, i64, i64);

/// Digests of table files that were read before.
#[derive(Default)]
pub(super) struct Digests(Mutex<HashMap<FileKey, u64>>);

impl Digests {
    /// The files of a checkpoint by name. Blocking; reads what it does not know yet.
    pub(super) fn list(&self, dir: &Path) -> Result<Vec<BackupFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(Error::internal)? {
            let entry = entry.map_err(Error::internal)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What the engine writes for people, and its lock.
            if name == "LOCK" || name.starts_with("LOG") {
                continue;
            }
            let (bytes, digest) = self.of(&entry.path(), &name).map_err(Error::internal)?;
            files.push(BackupFile { name, bytes, digest });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn of(&self, path: &Path, name: &str) -> std::io::Result<(u64, u64)> {
        let known = fs::metadata(path)?;
        let key = (known.ino(), known.len(), known.mtime(), known.mtime_nsec());
        let immutable = name.ends_with(".sst");
        if immutable && let Some(digest) = lock(&self.0).get(&key) {
            return Ok((known.len(), *digest));
        }
        let (bytes, digest) = digest_file(path)?;
        if immutable {
            let mut remembered = lock(&self.0);
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(key, digest);
        }
        Ok((bytes, digest))
    }
}

fn digest_file(path: &Path) -> std::io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((bytes, hash.digest()));
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
}
