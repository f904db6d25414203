//! The folder that backups lie in. Never: clusters.
//!
//! ```text
//! DIR/files/<digest>-<bytes>-<name>    files of all backups, each once
//! DIR/backups/<id>/manifest.json       what a backup is made of; written last: without it there is no backup
//! DIR/LOCK                             one program changes the folder at a time
//! ```
//! Invariant: a file or manifest has its name only once it is whole, checked and on disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tidemark_client::ErrorKind;
use xxhash_rust::xxh3::Xxh3;

use super::manifest::{FileCopy, Manifest};
use crate::failure::{Exit, Failure, Outcome, Refusal};

const READ_BYTES: usize = 1 << 20;

/// A folder of backups.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    _lock: Option<File>,
}

/// A backup of a folder, or why it is none.
pub(super) type Found = (String, Result<Manifest, String>);

impl Folder {
    /// Opens a folder for reading.
    pub(super) fn open(dir: &Path) -> Outcome<Folder> {
        match dir.join("backups").is_dir() {
            true => Ok(Folder {
                dir: dir.to_path_buf(),
                _lock: None,
            }),
            false => Err(Failure::new(
                Exit::NotFound,
                format!("no backups in {}", dir.display()),
                "the folder has no `backups` in it",
                "tidemark backup create DIR",
            )),
        }
    }

    /// Opens a folder to change it, making it where it does not exist.
    pub(super) fn change(dir: &Path) -> Outcome<Folder> {
        let shown = dir.display().to_string();
        let cannot = |error: io::Error| Failure::file("write into", &shown, &error);
        for part in ["files", "backups"] {
            fs::create_dir_all(dir.join(part)).map_err(cannot)?;
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("LOCK"))
            .map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder {
                dir: dir.to_path_buf(),
                _lock: Some(lock),
            }),
            Err(fs::TryLockError::WouldBlock) => Err(Failure::new(
                Exit::Refused,
                format!("cannot write into {shown}"),
                "another backup command works there",
                "the same command when that one has ended",
            )),
            Err(fs::TryLockError::Error(error)) => Err(cannot(error)),
        }
    }

    /// Where a file lies.
    pub(super) fn path(&self, file: &FileCopy) -> PathBuf {
        self.dir.join("files").join(file.stored_name())
    }

    /// Where a file is written before it has its name.
    fn partly(&self, file: &FileCopy) -> PathBuf {
        self.dir.join("files").join(format!(".{}.new", file.stored_name()))
    }

    /// True where a file is there with its size; what is in it, `check` tells.
    pub(super) fn has(&self, file: &FileCopy) -> bool {
        fs::metadata(self.path(file)).is_ok_and(|known| known.is_file() && known.len() == file.bytes)
    }

    /// Reads a file whole and says what is wrong with it.
    pub(super) fn check(&self, file: &FileCopy, mut read: impl FnMut(u64)) -> Result<(), String> {
        let name = file.stored_name();
        let mut opened = match File::open(self.path(file)) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(format!("file {name} is missing")),
            Err(error) => return Err(format!("file {name}: {error}")),
        };
        let (mut hash, mut bytes) = (Xxh3::new(), 0);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let n = opened
                .read(&mut buffer)
                .map_err(|error| format!("file {name}: {error}"))?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            bytes += n as u64;
            read(n as u64);
        }
        if bytes != file.bytes {
            return Err(format!("file {name} has {bytes} bytes"));
        }
        match hash.digest() == file.digest() {
            true => Ok(()),
            false => Err(format!("file {name} fails its check")),
        }
    }

    /// Begins to write a file.
    pub(super) fn write(&self, file: &FileCopy) -> io::Result<Incoming> {
        let partly = self.partly(file);
        Ok(Incoming {
            file: File::create(&partly)?,
            partly,
            path: self.path(file),
            listed: file.clone(),
            hash: Xxh3::new(),
            written: 0,
        })
    }

    /// Makes a backup of files that are all there.
    pub(super) fn commit(&self, manifest: &Manifest) -> io::Result<()> {
        sync_dir(&self.dir.join("files"))?;
        let backups = self.dir.join("backups");
        let dir = backups.join(&manifest.id);
        fs::create_dir_all(&dir)?;
        let partly = dir.join(".manifest.json.new");
        let mut file = File::create(&partly)?;
        file.write_all(manifest.to_text()?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partly, dir.join("manifest.json"))?;
        sync_dir(&dir)?;
        sync_dir(&backups)
    }

    /// Every backup, oldest first; those that do not read come last.
    pub(super) fn backups(&self) -> Outcome<Vec<Found>> {
        let shown = self.dir.display().to_string();
        let cannot = |error: io::Error| Failure::file("read", &shown, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(self.dir.join("backups")).map_err(cannot)? {
            let id = entry.map_err(cannot)?.file_name().to_string_lossy().into_owned();
            match self.manifest(&id) {
                Ok(Some(manifest)) => found.push((id, Ok(manifest))),
                Ok(None) => {}
                Err(why) => found.push((id, Err(why))),
            }
        }
        found.sort_by_key(|(id, manifest)| {
            let at = manifest.as_ref().map_or(i64::MAX, |manifest| manifest.created_at_ns);
            (at, id.clone())
        });
        Ok(found)
    }

    /// None where there is no such backup.
    fn manifest(&self, id: &str) -> Result<Option<Manifest>, String> {
        let path = self.dir.join("backups").join(id).join("manifest.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("the manifest cannot be read: {error}")),
        };
        let text = String::from_utf8(bytes).map_err(|_| "the manifest is torn: it is no text".to_owned())?;
        let manifest = Manifest::parse(&text)?;
        match manifest.id == id {
            true => Ok(Some(manifest)),
            false => Err(format!("the manifest is of backup {}", manifest.id)),
        }
    }

    /// One backup; the newest where none is named.
    pub(super) fn backup(&self, id: Option<&str>) -> Outcome<Manifest> {
        let shown = self.dir.display();
        let missing =
            |what: String, why: &str| Failure::new(Exit::NotFound, what, why, format!("tidemark backup list {shown}"));
        let found = match id {
            Some(id) if id.contains('/') => None,
            Some(id) => self.manifest(id).transpose().map(|manifest| (id.to_owned(), manifest)),
            None => self.backups()?.pop(),
        };
        match found {
            Some((_, Ok(manifest))) => Ok(manifest),
            Some((id, Err(why))) => Err(invalid(&format!("backup {id} in {shown} is no good"), why)),
            None => Err(missing(
                match id {
                    Some(id) => format!("no backup {id} in {shown}"),
                    None => format!("no backup in {shown}"),
                },
                "no manifest: it was never made, or never finished",
            )),
        }
    }

    /// Deletes a backup: from then on its files are nobody's.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        let dir = self.dir.join("backups").join(id);
        fs::remove_file(dir.join("manifest.json"))?;
        fs::remove_dir_all(dir)
    }

    /// Deletes files that no backup has; gives their bytes.
    pub(super) fn sweep(&self, used: &BTreeSet<String>) -> io::Result<(u64, u64)> {
        let (mut files, mut bytes) = (0, 0);
        for entry in fs::read_dir(self.dir.join("files"))? {
            let entry = entry?;
            if used.contains(entry.file_name().to_string_lossy().as_ref()) {
                continue;
            }
            bytes += entry.metadata()?.len();
            files += 1;
            fs::remove_file(entry.path())?;
        }
        Ok((files, bytes))
    }
}

/// The refusal of a backup that cannot be relied on.
pub(super) fn invalid(what: &str, why: impl Into<String>) -> Failure {
    let refusal = Refusal {
        code: 9,
        kind: ErrorKind::Fix,
        reason: "INVALID_BACKUP".to_owned(),
        message: why.into(),
        field: String::new(),
        rows: Vec::new(),
        hint: "tidemark backup verify DIR, then name a backup that is whole".to_owned(),
    };
    refusal.failure(what)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A file as it comes.
pub(super) struct Incoming {
    partly: PathBuf,
    path: PathBuf,
    listed: FileCopy,
    file: File,
    hash: Xxh3,
    written: u64,
}

impl Incoming {
    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Gives the file its name, once it is whole and on disk.
    pub(super) fn finish(self) -> io::Result<()> {
        if self.written != self.listed.bytes || self.hash.digest() != self.listed.digest() {
            let message = format!("{} came with other bytes than announced", self.listed.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.file.sync_all()?;
        fs::rename(&self.partly, &self.path)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        fs::remove_file(&self.partly).ok();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::manifest::ShardCopy;
    use super::*;
    use tidemark_client::v1;
    use xxhash_rust::xxh3::xxh3_64;

    fn listed(bytes: &[u8]) -> v1::BackupFile {
        v1::BackupFile {
            name: "000001.sst".into(),
            bytes: bytes.len() as u64,
            digest: xxh3_64(bytes),
        }
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::change(dir.path()).unwrap();
        let file = FileCopy::from(&listed(b"abc"));
        let write = |bytes: &[u8]| {
            let mut incoming = folder.write(&file).unwrap();
            incoming.take(bytes).unwrap();
            incoming.finish()
        };
        assert!(write(b"abd").is_err());
        assert!(!folder.has(&file) && fs::read_dir(dir.path().join("files")).unwrap().next().is_none());
        write(b"abc").unwrap();
        assert!(folder.has(&file));
        assert_eq!(folder.check(&file, |_| {}), Ok(()));
        let check = |bytes: &[u8], expected: &str| {
            fs::write(folder.path(&file), bytes).unwrap();
            assert!(folder.check(&file, |_| {}).unwrap_err().contains(expected));
        };
        check(b"abd", "fails its check");
        check(b"ab", "has 2 bytes");
        fs::remove_file(folder.path(&file)).unwrap();
        assert!(folder.check(&file, |_| {}).unwrap_err().contains("is missing"));
    }

    #[test]
    fn without_a_manifest_there_is_no_backup() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::change(dir.path()).unwrap();
        assert_eq!(Folder::change(dir.path()).unwrap_err().exit(), Exit::Refused);
        fs::create_dir(dir.path().join("backups/torn")).unwrap();
        assert!(folder.backups().unwrap().is_empty());
        assert_eq!(folder.backup(None).unwrap_err().exit(), Exit::NotFound);
        assert_eq!(folder.backup(Some("torn")).unwrap_err().exit(), Exit::NotFound);
        let taken = v1::BeginBackupResponse {
            files: vec![listed(b"abc")],
            ..v1::BeginBackupResponse::default()
        };
        let manifest = |id: &str, at| Manifest::new(id.into(), "c".into(), at, vec![ShardCopy::new(0, &taken)]);
        folder.commit(&manifest("old", 1)).unwrap();
        folder.commit(&manifest("new", 2)).unwrap();
        assert_eq!(folder.backup(None).unwrap().id, "new");
        assert_eq!(folder.backup(Some("old")).unwrap().id, "old");
        fs::write(dir.path().join("backups/new/manifest.json"), "{").unwrap();
        let failure = folder.backup(Some("new")).unwrap_err();
        assert_eq!((failure.exit(), failure.reason()), (Exit::Refused, "INVALID_BACKUP"));
    }

    #[test]
    fn what_no_backup_has_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::change(dir.path()).unwrap();
        fs::write(dir.path().join("files/a"), "12").unwrap();
        fs::write(dir.path().join("files/b"), "345").unwrap();
        assert_eq!(folder.sweep(&BTreeSet::from(["a".to_owned()])).unwrap(), (1, 3));
        assert!(dir.path().join("files/a").exists() && !dir.path().join("files/b").exists());
    }
}
