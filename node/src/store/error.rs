//! What can go wrong below the shard. Few kinds, each telling the caller what to do.
//!
//! Never here: errors a client caused (those are answers, see `shard`).
//! Invariant: bad bytes on disk are always [`StoreError::Corruption`], whoever noticed them.

use std::path::{Path, PathBuf};

use tidemark_series::Corrupt;

/// What the system says of a disk that has no room.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Why a read or write of a replica's database failed. After any of these from a write, the replica stops.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Bytes on disk are not what was written: discard this replica and fetch it anew.
    #[error("corruption: {0}")]
    Corruption(String),
    /// The disk or file system refused: call a person.
    #[error("i/o: {0}")]
    Io(String),
    /// What is in memory stays there: the disk has no room for it. Nothing was tried, the replica goes on.
    #[error("no room on the disk to flush {0} bytes")]
    NoRoom(u64),
    /// Another process, or this one, has the directory open.
    #[error("{} is in use by another process", .path.display())]
    Locked {
        /// Directory of the database.
        path: PathBuf,
    },
    /// The directory was written by a newer release.
    #[error("{} has format version {found}, this binary reads up to {known}: run the newer release", .path.display())]
    NewerFormat {
        /// Directory of the database.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version this binary reads.
        known: u32,
    },
    /// A log entry this binary does not understand. Never skipped: the replicas would differ.
    #[error("unknown command in the log: {0}")]
    UnknownCommand(String),
    /// An earlier write failed; the replica must be reopened.
    #[error("replica stopped after a failed write")]
    Stopped,
    /// Anything else the engine reports.
    #[error("storage engine: {0}")]
    Engine(String),
}

impl StoreError {
    /// True when bytes on disk are damaged.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corruption(_))
    }

    /// True when the disk itself failed: what is on it is unknown until a restart. A full disk is none (it gets room again,
    /// and writes stop before), nor is a folder that is gone, as that of a replica that left.
    #[must_use]
    pub fn is_disk_failure(&self) -> bool {
        let passes = |text: &str| Self::tells_of_full_disk(text) || text.contains("No such file or directory");
        matches!(self, Self::Io(text) if !passes(text))
    }

    /// True when the disk has no room: it passes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::NoRoom(_) => true,
            Self::Io(text) => Self::tells_of_full_disk(text),
            _ => false,
        }
    }

    /// Whether what is said of a failure names a disk that has no room.
    #[must_use]
    pub fn tells_of_full_disk(text: &str) -> bool {
        FULL.iter().any(|known| text.contains(known))
    }

    /// The same as `from`, with the lock of `path` told apart.
    pub(super) fn opening(path: &Path, error: rocksdb::Error) -> Self {
        let text: &str = error.as_ref();
        if error.kind() == rocksdb::ErrorKind::IOError && (text.contains("/LOCK") || text.contains("lock hold")) {
            return Self::Locked {
                path: path.to_path_buf(),
            };
        }
        error.into()
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => Self::Corruption(error.into_string()),
            rocksdb::ErrorKind::IOError => Self::Io(error.into_string()),
            _ => Self::Engine(error.into_string()),
        }
    }
}

impl From<Corrupt> for StoreError {
    fn from(error: Corrupt) -> Self {
        Self::Corruption(error.to_string())
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_folder_that_is_gone_are_no_failing_disk() {
        for (error, failed) in [
            (
                StoreError::Io("IO error: While fsync: 000012.sst: Input/output error".into()),
                true,
            ),
            (
                StoreError::Io("IO error: While appending to file: 7.sst: Read-only file system".into()),
                true,
            ),
            (
                StoreError::Io("IO error: No space left on device: While appending to file: 7.sst".into()),
                false,
            ),
            (
                StoreError::Io("IO error: While appending to file: 7.sst: Disk quota exceeded".into()),
                false,
            ),
            (
                StoreError::Io("IO error: No such file or directory: While open a file: 7.sst".into()),
                false,
            ),
            (
                StoreError::Corruption("Corruption: block checksum mismatch".into()),
                false,
            ),
            (StoreError::Engine("Shutdown in progress".into()), false),
        ] {
            assert_eq!(error.is_disk_failure(), failed, "{error}");
            let full = ["No space left", "quota"]
                .iter()
                .any(|of| error.to_string().contains(of));
            assert_eq!(error.is_full(), full, "{error}");
        }
    }
}
