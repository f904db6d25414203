//! Who this node is: cluster, node and catalog replica, on disk before the first message. Never: addresses of others
//! beyond the catalog group's first members.
//!
//! Invariant: written once; a node that has an identity never takes another one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "identity.toml";
const FOLDER_FILE: &str = "folder-id";
const REMOVED_FILE: &str = "REMOVED";

/// Identity of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Version of this file.
    pub format: u32,
    /// The cluster.
    pub cluster_id: String,
    /// The node within it.
    pub node_id: u64,
    /// This node's replica of the catalog group.
    pub catalog_replica: u64,
    /// First members of the catalog group.
    pub catalog: Vec<CatalogMember>,
}

/// A member of the catalog group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogMember {
    /// Replica id.
    pub replica: u64,
    /// Node id.
    pub node_id: u64,
    /// host:port for its peers.
    pub peer_address: String,
}

/// What every version of the file has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Identity {
    /// Current version of the file.
    pub const FORMAT: u32 = 1;

    /// The identity kept in a data folder, if any.
    pub fn load(data_dir: &Path) -> io::Result<Option<Identity>> {
        let text = match fs::read_to_string(data_dir.join(FILE)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let unreadable = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
        let parse_error = |e: toml::de::Error| unreadable(format!("{FILE}: {}", e.message()));
        // The format first: a newer one may have fields that are unknown here.
        let Format { format } = toml::from_str(&text).map_err(parse_error)?;
        if format > Identity::FORMAT {
            let known = Identity::FORMAT;
            return Err(unreadable(format!(
                "{FILE} has format {format}, this version knows {known}"
            )));
        }
        toml::from_str(&text).map(Some).map_err(parse_error)
    }

    /// Writes the identity so that it is there after any crash, whole or not at all.
    pub fn save(&self, data_dir: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        replace_file(&data_dir.join(FILE), text.as_bytes())
    }
}

/// Names a data folder, at random and once: a folder that was wiped has another name, whoever's address it is found at.
pub fn folder_id(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(FOLDER_FILE);
    match fs::read_to_string(&path) {
        Ok(id) => Ok(id.trim().to_string()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let id = format!("{:032x}", rand::random::<u128>());
            replace_file(&path, id.as_bytes())?;
            Ok(id)
        }
        Err(e) => Err(e),
    }
}

/// Notes that this folder's node was removed from its cluster: it never starts again.
pub fn mark_removed(data_dir: &Path, why: &str) -> io::Result<()> {
    replace_file(&data_dir.join(REMOVED_FILE), why.as_bytes())
}

/// Why this folder's node must not start, where it was removed.
pub fn removed(data_dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(data_dir.join(REMOVED_FILE)) {
        Ok(why) => Ok(Some(why)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes a small file so that a crash leaves the old or the new one: temporary file, fsync, rename, fsync of the
/// folder.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Holds a data folder for one process. The operating system lets go of it when the process ends.
#[derive(Debug)]
pub struct DataLock(#[allow(dead_code, reason = "held for its lock")] File);

impl DataLock {
    /// Takes the folder, making it where it does not exist.
    pub fn take(data_dir: &Path) -> io::Result<DataLock> {
        fs::create_dir_all(data_dir)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(data_dir.join("LOCK"))?;
        match file.try_lock() {
            Ok(()) => Ok(DataLock(file)),
            Err(fs::TryLockError::WouldBlock) => {
                let message = format!("another process uses {}", data_dir.display());
                Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
            }
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_identity_comes_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), None);
        let member = CatalogMember {
            replica: 1,
            node_id: 1,
            peer_address: "a:1".into(),
        };
        let identity = Identity {
            format: Identity::FORMAT,
            cluster_id: "c".into(),
            node_id: 3,
            catalog_replica: 9,
            catalog: vec![member],
        };
        identity.save(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), Some(identity.clone()));
        Identity { format: 99, ..identity }.save(dir.path()).unwrap();
        assert!(
            Identity::load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("format 99")
        );
    }

    #[test]
    fn one_process_per_folder() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataLock::take(dir.path()).unwrap();
        assert_eq!(
            DataLock::take(dir.path()).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        drop(held);
        DataLock::take(dir.path()).unwrap();
    }
}
