//! The RocksDB instance that holds the Raft logs of all groups of a node. Never here: what an entry means, or when
//! to sync (the caller decides). Everything is synchronous.
//!
//! Invariant: what a synced [`LogDb::write`] returned is found again after any crash, or opening and reading fail.
//! The write-ahead log is therefore recovered in the mode that forgives a torn tail only: RocksDB's default mode
//! drops, without a word, every record behind a flipped bit. What a torn tail may hide is caught by the marker
//! (see `marker`).
//!
//! ```text
//! key    group u32 BE | kind u8 | index u64 BE            13 bytes; index is 0 for every kind but entry
//! kind   1 vote   2 committed   3 purged   4 entry        entries last: the last entry is one backward seek
//! value  bytes of the caller (an encoded `tidemark.peer.v1` message)
//!
//! key    ff ff ff ff | 00 | 0                             the format record; value: version u8 = 1
//! key    ff ff ff ff | 01 | 0                             the owner, if one was noted (logs of older versions have none)
//! value  version u8 = 1 | node u64 BE | cluster id, UTF-8
//! ```

use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, IteratorMode, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::options::full_compaction;

const FORMAT_VERSION: u8 = 1;
const FORMAT_GROUP: u32 = u32::MAX;
const OWNER: u8 = 1;
const OWNER_VERSION: u8 = 1;
const KEY_BYTES: usize = 13;
const WRITE_BUFFER_BYTES: usize = 16 << 20;
const WRITE_BUFFERS: i32 = 4;
const BLOCK_CACHE_BYTES: usize = 16 << 20;
const BLOCK_BYTES: usize = 32 << 10;
const READAHEAD_BYTES: usize = 1 << 20;

/// A small record of a group; the number is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Last vote given.
    Vote = 1,
    /// Last commit known.
    Committed = 2,
    /// Last entry purged.
    Purged = 3,
}

const ENTRY: u8 = 4;

/// The node whose votes a log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOwner {
    /// Its cluster.
    pub cluster_id: String,
    /// Its number there.
    pub node_id: u64,
}

impl LogOwner {
    fn encode(&self) -> Vec<u8> {
        [
            &[OWNER_VERSION][..],
            &self.node_id.to_be_bytes(),
            self.cluster_id.as_bytes(),
        ]
        .concat()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (node_id, cluster_id) = value.strip_prefix(&[OWNER_VERSION])?.split_first_chunk::<8>()?;
        Some(Self {
            cluster_id: String::from_utf8(cluster_id.to_vec()).ok()?,
            node_id: u64::from_be_bytes(*node_id),
        })
    }
}

impl std::fmt::Display for LogOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of cluster {}", self.node_id, self.cluster_id)
    }
}

/// Why the log could not be read or written. None of these heals by itself.
#[derive(Debug, thiserror::Error)]
pub enum LogDbError {
    /// RocksDB refused: an I/O error, or corruption that it found.
    #[error("raft log database: {0}")]
    Engine(#[from] rocksdb::Error),
    /// The database was written by another format, or holds keys that are not ours.
    #[error("raft log database: {0}")]
    Format(String),
}

impl From<LogDbError> for std::io::Error {
    fn from(error: LogDbError) -> Self {
        Self::other(error)
    }
}

type Result<T> = std::result::Result<T, LogDbError>;

fn key(group: u32, kind: u8, index: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..4].copy_from_slice(&group.to_be_bytes());
    key[4] = kind;
    key[5..].copy_from_slice(&index.to_be_bytes());
    key
}

fn entry_index(key: &[u8]) -> Result<u64> {
    match key.get(5..).and_then(|index| index.try_into().ok()) {
        Some(index) if key.len() == KEY_BYTES && key[4] == ENTRY => Ok(u64::from_be_bytes(index)),
        _ => Err(LogDbError::Format(format!("not an entry key: {key:02x?}"))),
    }
}

/// Changes that become visible and durable together.
#[derive(Default)]
pub struct LogBatch(WriteBatch);

impl LogBatch {
    /// Stores an entry.
    pub fn put_entry(&mut self, group: u32, index: u64, value: &[u8]) {
        self.0.put(key(group, ENTRY, index), value);
    }

    /// Stores a small record.
    pub fn put_meta(&mut self, group: u32, kind: Kind, value: &[u8]) {
        self.0.put(key(group, kind as u8, 0), value);
    }

    /// Removes a small record.
    pub fn delete_meta(&mut self, group: u32, kind: Kind) {
        self.0.delete(key(group, kind as u8, 0));
    }

    /// Removes the entries from `from` on.
    pub fn truncate(&mut self, group: u32, from: u64) {
        self.0.delete_range(key(group, ENTRY, from), key(group, ENTRY + 1, 0));
    }

    /// Removes the entries `from..=through`.
    pub fn purge(&mut self, group: u32, from: u64, through: u64) {
        let end = match through.checked_add(1) {
            Some(next) => key(group, ENTRY, next),
            None => key(group, ENTRY + 1, 0),
        };
        let start = key(group, ENTRY, from);
        if start < end {
            self.0.delete_range(start, end);
        }
    }

    /// Removes everything of a group.
    pub fn forget(&mut self, group: u32) {
        self.0.delete_range(key(group, 0, 0), key(group, u8::MAX, u64::MAX));
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Encoded size so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.size_in_bytes()
    }
}

/// The database.
pub struct LogDb {
    db: DB,
}

impl LogDb {
    /// Opens or creates the database in `dir`.
    ///
    /// # Errors
    /// The database is corrupt, locked by another process, of another format, or the disk fails.
    pub fn open(dir: &Path) -> Result<Self> {
        let db = DB::open(&options(), dir)?;
        let log = Self { db };
        let format = key(FORMAT_GROUP, 0, 0);
        match log.db.get_opt(format, &read_options())?.as_deref() {
            Some([FORMAT_VERSION]) => {}
            Some(other) => return Err(LogDbError::Format(format!("unknown format {other:02x?}"))),
            None if log.first_key()?.is_none() => {
                let mut batch = WriteBatch::default();
                batch.put(format, [FORMAT_VERSION]);
                log.write(LogBatch(batch), true)?;
            }
            None => return Err(LogDbError::Format("no format record, but other records".to_owned())),
        }
        Ok(log)
    }

    /// Whose log this is, where that was noted.
    ///
    /// # Errors
    /// The disk fails, the block is corrupt, or a newer version noted it.
    pub fn owner(&self) -> Result<Option<LogOwner>> {
        let Some(value) = self.db.get_opt(key(FORMAT_GROUP, OWNER, 0), &read_options())? else {
            return Ok(None);
        };
        let unknown = || LogDbError::Format(format!("unknown owner record {value:02x?}"));
        LogOwner::decode(&value).map(Some).ok_or_else(unknown)
    }

    /// Notes whose log this is, on disk.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn set_owner(&self, owner: &LogOwner) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.put(key(FORMAT_GROUP, OWNER, 0), owner.encode());
        self.write(LogBatch(batch), true)
    }

    /// Writes all changes or none. With `sync`, they are on disk when this returns; without, a power failure may
    /// take them, though never them alone: later writes go too.
    ///
    /// # Errors
    /// The disk fails or is full. What is on disk is unknown then: the process must not go on.
    pub fn write(&self, batch: LogBatch, sync: bool) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        Ok(self.db.write_opt(batch.0, &options)?)
    }

    /// Brings earlier writes without `sync` to the disk.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn sync(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }

    /// Rewrites the files of a group without what was removed; the write-ahead log is new after it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn compact(&self, group: u32) -> Result<()> {
        self.db.flush()?;
        let (first, last) = (key(group, 0, 0), key(group, u8::MAX, u64::MAX));
        self.db.compact_range_opt(Some(first), Some(last), &full_compaction());
        Ok(())
    }

    /// A small record.
    ///
    /// # Errors
    /// The disk fails or the block is corrupt.
    pub fn meta(&self, group: u32, kind: Kind) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get_opt(key(group, kind as u8, 0), &read_options())?)
    }

    /// One entry.
    ///
    /// # Errors
    /// The disk fails or the block is corrupt.
    pub fn entry(&self, group: u32, index: u64) -> Result<Option<Bytes>> {
        Ok(self
            .db
            .get_opt(key(group, ENTRY, index), &read_options())?
            .map(Bytes::from))
    }

    /// Entries from `from` up to and without `to`, in order, until `cap_bytes` is reached: at least one if there is
    /// one. What is missing at `from` or in between is not noticed here.
    ///
    /// # Errors
    /// The disk fails or a block is corrupt.
    pub fn read(&self, group: u32, from: u64, to: u64, cap_bytes: usize) -> Result<Vec<(u64, Bytes)>> {
        let (lower, upper) = (key(group, ENTRY, from), key(group, ENTRY, to));
        let mut found = Vec::new();
        if lower >= upper {
            return Ok(found);
        }
        let mut options = read_options();
        options.set_iterate_lower_bound(lower);
        options.set_iterate_upper_bound(upper);
        options.set_readahead_size(READAHEAD_BYTES);
        options.fill_cache(false);
        let mut bytes = 0;
        for item in self.db.iterator_opt(IteratorMode::Start, options) {
            // An iterator that ends on a failure yields it as its last item: the status is checked.
            let (key, value) = item?;
            if !found.is_empty() && bytes + value.len() > cap_bytes {
                break;
            }
            bytes += value.len();
            found.push((entry_index(&key)?, Bytes::from(value)));
        }
        Ok(found)
    }

    /// Index of the first entry of a group.
    ///
    /// # Errors
    /// The disk fails or a block is corrupt.
    pub fn first_index(&self, group: u32) -> Result<Option<u64>> {
        let first = self.seek(IteratorMode::Start, key(group, ENTRY, 0), key(group, ENTRY + 1, 0))?;
        first.map(|(key, _)| entry_index(&key)).transpose()
    }

    /// The last entry of a group.
    ///
    /// # Errors
    /// The disk fails or a block is corrupt.
    pub fn last(&self, group: u32) -> Result<Option<(u64, Bytes)>> {
        let last = self.seek(IteratorMode::End, key(group, ENTRY, 0), key(group, ENTRY + 1, 0))?;
        last.map(|(key, value)| Ok((entry_index(&key)?, Bytes::from(value))))
            .transpose()
    }

    /// All groups that have any record, in order.
    ///
    /// # Errors
    /// The disk fails, a block is corrupt, or a key is not ours.
    pub fn groups(&self) -> Result<Vec<u32>> {
        let mut groups = Vec::new();
        let mut next = 0;
        while next < FORMAT_GROUP {
            let range = (key(next, 0, 0), key(FORMAT_GROUP, 0, 0));
            let Some((found, _)) = self.seek(IteratorMode::Start, range.0, range.1)? else {
                break;
            };
            let group = found
                .get(..4)
                .and_then(|group| group.try_into().ok())
                .map(u32::from_be_bytes);
            let group = group.ok_or_else(|| LogDbError::Format(format!("not a log key: {found:02x?}")))?;
            groups.push(group);
            next = group + 1;
        }
        Ok(groups)
    }

    fn first_key(&self) -> Result<Option<Box<[u8]>>> {
        let mut iterator = self.db.iterator_opt(IteratorMode::Start, read_options());
        Ok(iterator.next().transpose()?.map(|(key, _)| key))
    }

    /// First record at one end of `lower..upper`.
    fn seek(&self, mode: IteratorMode, lower: [u8; KEY_BYTES], upper: [u8; KEY_BYTES]) -> Result<Option<KeyValue>> {
        let mut options = read_options();
        options.set_iterate_lower_bound(lower);
        options.set_iterate_upper_bound(upper);
        Ok(self.db.iterator_opt(mode, options).next().transpose()?)
    }
}

type KeyValue = (Box<[u8]>, Box<[u8]>);

fn read_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // Recycling is only sound with the recovery mode that drops records silently.
    options.set_recycle_log_file_num(0);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    // Most entries are purged before their memtable is flushed twice; waiting for two makes smaller files.
    options.set_min_write_buffer_number_to_merge(2);
    options.set_compression_type(DBCompressionType::None);
    options.set_level_zero_file_num_compaction_trigger(8);
    options.set_level_zero_slowdown_writes_trigger(64);
    options.set_level_zero_stop_writes_trigger(128);
    options.set_target_file_size_base(WRITE_BUFFER_BYTES as u64);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    options.set_block_based_table_factory(&blocks);
    options
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_owner_is_written_as_drawn() {
        let owner = LogOwner {
            cluster_id: "c1".to_owned(),
            node_id: 0x0102,
        };
        let bytes = owner.encode();
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 1, 2, b'c', b'1']);
        assert_eq!(LogOwner::decode(&bytes), Some(owner));
        for bad in [
            &[][..],
            &[1, 2, 3],
            &[2, 0, 0, 0, 0, 0, 0, 1, 2],
            &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0xff],
        ] {
            assert_eq!(LogOwner::decode(bad), None, "{bad:02x?}");
        }
    }
}
