//! The receiving end of a checkpoint: files gather in a pool by content, over as many transfers as it takes. Never: how
//! the finished state takes its place (see `state`).
//!
//! ```text
//! incoming/<digest>-<bytes>        a file that came whole and was checked
//! incoming/<digest>-<bytes>.part   the beginning of one
//! received/<name>                  links to all files of the checkpoint, once every one of them is there
//! ```
//!
//! Invariant: nothing gets its final name in the pool before every piece and the whole file checked out and are on
//! disk; the pool holds files of the newest announced checkpoint only.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use tidemark_proto::peer::{SnapshotFile, SnapshotPiece};
use xxhash_rust::xxh3::Xxh3;

use super::snapshot::{digest_file, hash_file};
use crate::error::{Error, Reason, Result};

const FILES_MAX: usize = 100_000;

/// Writes pieces into the pool as they come.
pub(super) struct Receiver {
    pool: PathBuf,
    files: Vec<SnapshotFile>,
    /// Bytes that are there, per file.
    have: Vec<u64>,
    open: Option<Open>,
}

struct Open {
    number: usize,
    file: File,
    hash: Xxh3,
}

fn bad(message: String) -> Error {
    Error::new(Reason::Corruption, format!("snapshot: {message}"))
}

fn key(file: &SnapshotFile) -> String {
    format!("{:016x}-{}", file.digest, file.bytes)
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes a name in a folder durable.
fn sync_folder(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::internal)
}

impl Receiver {
    /// For the announced files: finds out what came before, in earlier transfers or in the current state. Blocking.
    pub(super) fn resume(pool: PathBuf, current: &Path, files: Vec<SnapshotFile>) -> Result<Receiver> {
        if files.len() > FILES_MAX {
            return Err(bad(format!("{} files", files.len())));
        }
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != "..";
        if let Some(file) = files.iter().find(|file| !plain(&file.name)) {
            return Err(bad(format!("file name {:?}", file.name)));
        }
        fs::create_dir_all(&pool).map_err(Error::internal)?;
        forget_unlisted(&pool, &files).map_err(Error::internal)?;
        let have = files
            .iter()
            .map(|file| found(&pool, current, file))
            .collect::<std::io::Result<Vec<u64>>>()
            .map_err(Error::internal)?;
        Ok(Receiver {
            pool,
            files,
            have,
            open: None,
        })
    }

    /// Bytes of each file that need not be sent.
    pub(super) fn have(&self) -> Vec<u64> {
        self.have.clone()
    }

    fn part(&self, number: usize) -> PathBuf {
        self.pool.join(format!("{}.part", key(&self.files[number])))
    }

    /// Takes one piece. Pieces come in order, from where the files at hand end. Blocking.
    pub(super) fn take(&mut self, piece: SnapshotPiece) -> Result<()> {
        let number = piece.file as usize;
        let (Some(listed), Some(have)) = (self.files.get(number), self.have.get(number).copied()) else {
            return Err(bad(format!("a piece of file {number}")));
        };
        let bytes = piece.data.len() as u64;
        if piece.offset != have || bytes == 0 || bytes > listed.bytes - have {
            return Err(bad(format!("piece {}+{} out of order", piece.file, piece.offset)));
        }
        if crc32c::crc32c(&piece.data) != piece.crc {
            return Err(bad(format!("piece {}+{} fails its check", piece.file, piece.offset)));
        }
        let mut open = match self.open.take() {
            Some(open) if open.number == number => open,
            _ => self.open_part(number).map_err(Error::internal)?,
        };
        open.file.write_all(&piece.data).map_err(Error::internal)?;
        open.hash.update(&piece.data);
        self.have[number] += bytes;
        if self.have[number] == self.files[number].bytes {
            return self.close(&open);
        }
        self.open = Some(open);
        Ok(())
    }

    fn open_part(&self, number: usize) -> std::io::Result<Open> {
        let path = self.part(number);
        let mut hash = Xxh3::new();
        if self.have[number] > 0 {
            hash_file(&path, &mut hash)?;
        }
        let file = File::options().create(true).append(true).open(&path)?;
        Ok(Open { number, file, hash })
    }

    /// Checks a file as a whole and gives it its final name. One that fails is sent anew the next time.
    fn close(&mut self, open: &Open) -> Result<()> {
        let (part, listed) = (self.part(open.number), &self.files[open.number]);
        if open.hash.digest() != listed.digest {
            remove_if_there(&part).map_err(Error::internal)?;
            return Err(bad(format!("file {:?} fails its check", listed.name)));
        }
        open.file.sync_all().map_err(Error::internal)?;
        fs::rename(&part, self.pool.join(key(listed))).map_err(Error::internal)
    }

    /// Links every file into a folder that does not exist yet, and leaves it on disk.
    pub(super) fn finish(self, to: &Path) -> Result<()> {
        let missing = |(file, have): &(&SnapshotFile, &u64)| **have != file.bytes;
        let missing = self.files.iter().zip(&self.have).filter(missing).count();
        if missing > 0 {
            return Err(bad(format!("{missing} of {} files did not come", self.files.len())));
        }
        sync_folder(&self.pool)?;
        fs::create_dir(to).map_err(Error::internal)?;
        let mut linked = BTreeSet::new();
        for file in &self.files {
            let (from, to) = (self.pool.join(key(file)), to.join(&file.name));
            let placed = match file.bytes {
                0 => File::create_new(&to).and_then(|file| file.sync_all()),
                // Two names never share one file: the database may append to one of them.
                _ if linked.insert(key(file)) => fs::hard_link(&from, &to),
                _ => fs::copy(&from, &to).and_then(|_| File::open(&to)?.sync_all()),
            };
            placed.map_err(Error::internal)?;
        }
        sync_folder(to)
    }
}

/// What is there of one file.
fn found(pool: &Path, current: &Path, file: &SnapshotFile) -> std::io::Result<u64> {
    if file.bytes == 0 {
        return Ok(0);
    }
    let (whole, part) = (pool.join(key(file)), pool.join(format!("{}.part", key(file))));
    let is_it = |path: &Path| Ok::<bool, std::io::Error>(digest_file(path)? == (file.bytes, file.digest));
    // Checked and synced before it was given this name.
    if fs::metadata(&whole).is_ok_and(|whole| whole.len() == file.bytes) {
        return Ok(file.bytes);
    }
    remove_if_there(&whole)?;
    // Table files are never changed: one of the same name and size may be the same, from an earlier checkpoint.
    let ours = current.join(&file.name);
    let alike = file.name.ends_with(".sst") && fs::metadata(&ours).is_ok_and(|ours| ours.len() == file.bytes);
    if alike && fs::hard_link(&ours, &whole).is_ok() {
        if is_it(&whole)? {
            remove_if_there(&part)?;
            return Ok(file.bytes);
        }
        fs::remove_file(&whole)?;
    }
    match fs::metadata(&part) {
        Ok(there) if there.len() < file.bytes => Ok(there.len()),
        Ok(_) if is_it(&part)? => {
            File::open(&part)?.sync_all()?;
            fs::rename(&part, &whole)?;
            Ok(file.bytes)
        }
        Ok(_) => fs::remove_file(&part).map(|()| 0),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// Removes what belongs to an older checkpoint only.
fn forget_unlisted(pool: &Path, files: &[SnapshotFile]) -> std::io::Result<()> {
    let listed: BTreeSet<String> = files.iter().map(key).collect();
    for entry in fs::read_dir(pool)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !listed.contains(name.trim_end_matches(".part")) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
