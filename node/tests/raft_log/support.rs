//! Entries, handles and disk tricks that the tests of the log share.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use tidemark_node::raft::log_store::{GroupLog, LogOptions, NodeLog};
use tidemark_node::raft::types::{Command, Entry, LeaderId, LogId, TypeConfig, Vote};
use tokio::sync::oneshot;

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term, node_id: 1 },
        index,
    }
}

pub fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let seed = term
        .wrapping_mul(31)
        .wrapping_add(index)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let body: Vec<u8> = (0..bytes)
        .map(|at| (seed.rotate_left(at as u32 % 61) >> 7) as u8 ^ at as u8)
        .collect();
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Command(Bytes::from(body))),
    }
}

/// Small limits, so that little data already crosses them.
pub fn small() -> LogOptions {
    LogOptions {
        tail_bytes_max: 2_000,
        chunk_bytes: 700,
        queue_bytes_max: 20_000,
        ..LogOptions::default()
    }
}

/// Hands entries over; what is returned tells when they are on disk.
pub async fn append(log: &mut GroupLog, entries: Vec<Entry>) -> oneshot::Receiver<io::Result<()>> {
    let (sender, receiver) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await.unwrap();
    receiver
}

pub async fn append_durably(log: &mut GroupLog, entries: Vec<Entry>) {
    append(log, entries).await.await.unwrap().unwrap();
}

pub async fn all_entries(log: &GroupLog) -> Vec<Entry> {
    log.reader().try_get_log_entries(..).await.unwrap()
}

pub async fn vote(log: &mut GroupLog, term: u64) {
    log.save_vote(&Vote::new_committed(term, 1)).await.unwrap();
}

/// Opens the log, does something with it, and closes it.
pub async fn with_log<T>(dir: &Path, work: impl AsyncFnOnce(&NodeLog) -> T) -> T {
    let log = NodeLog::open_with(dir, small()).unwrap();
    work(&log).await
}

pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_dir(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

/// The write-ahead log files of the database, oldest first.
pub fn wal_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    files
}

pub fn marker_file(dir: &Path) -> PathBuf {
    dir.join("log.marker")
}

/// Inverts one byte of a file.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0xff;
    fs::write(path, bytes).unwrap();
}
