//! One RocksDB: open, write atomically, flush, checkpoint.
//!
//! Never here: the meaning of keys; reads other than the persisted tier (see `view`).
//! Invariant: every write goes through [`Batch`], without the engine's write-ahead log.

use std::path::{Path, PathBuf};

use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DBWithThreadMode, FlushOptions, ReadTier, SingleThreaded, WriteBatch,
    WriteOptions, checkpoint::Checkpoint,
};

use super::{Family, Resident, Resources, StoreError, View, options};

pub(super) type Engine = DBWithThreadMode<SingleThreaded>;

/// One open database. Dropping it closes it and flushes nothing.
pub struct Db {
    engine: Engine,
    path: PathBuf,
    writes: WriteOptions,
    /// Kept alive as long as the engine uses them.
    resources: Resources,
}

impl Db {
    /// Opens the database in `path`, creating it (and `path`) where missing.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when it is open elsewhere; corruption and I/O as found.
    pub fn open(path: &Path, resources: &Resources) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path)?;
        let engine = Engine::open_cf_descriptors(&options::database(resources, true)?, path, descriptors(resources))
            .map_err(|error| StoreError::opening(path, error))?;
        Ok(Self::of(engine, path, resources))
    }

    /// Opens an existing database for reading only; takes no lock and changes no file.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn open_read_only(path: &Path, resources: &Resources) -> Result<Self, StoreError> {
        let options = options::database(resources, false)?;
        let engine = Engine::open_cf_descriptors_read_only(&options, path, descriptors(resources), false)?;
        Ok(Self::of(engine, path, resources))
    }

    fn of(engine: Engine, path: &Path, resources: &Resources) -> Self {
        let mut writes = WriteOptions::default();
        writes.disable_wal(true);
        Self {
            engine,
            path: path.to_path_buf(),
            writes,
            resources: resources.clone(),
        }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        let missing = || StoreError::Corruption(format!("column family {} is missing", family.name()));
        self.engine.cf_handle(family.name()).ok_or_else(missing)
    }

    fn families(&self) -> Result<[&ColumnFamily; 4], StoreError> {
        let [a, b, c, d] = Family::ALL;
        Ok([self.family(a)?, self.family(b)?, self.family(c)?, self.family(d)?])
    }

    /// Directory of the database.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Decoded values of the whole process.
    #[must_use]
    pub fn resident(&self) -> &Resident {
        &self.resources.resident
    }

    /// A consistent view of all families as of now.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::new(self)
    }

    /// An empty batch.
    ///
    /// # Errors
    /// When a column family is missing.
    pub fn batch(&self) -> Result<Batch<'_>, StoreError> {
        Ok(Batch {
            families: self.families()?,
            inner: WriteBatch::default(),
        })
    }

    /// Writes all of the batch or nothing. Visible at once; on disk after the next flush.
    ///
    /// # Errors
    /// As the engine reports, among them errors of earlier background work: the replica must stop. Where the disk failed,
    /// the process ends.
    pub fn write(&self, batch: Batch<'_>) -> Result<(), StoreError> {
        self.kept(self.engine.write_opt(batch.inner, &self.writes))
    }

    /// The outcome of a write or a flush; calls the hook where the disk failed.
    fn kept(&self, outcome: Result<(), rocksdb::Error>) -> Result<(), StoreError> {
        outcome.map_err(|error| {
            let error = StoreError::from(error);
            if error.is_disk_failure() {
                (self.resources.on_failure)(&format!("{}: {error}", self.path.display()));
            }
            error
        })
    }

    /// What the key holds, memtables included.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine.get_cf_opt(self.family(family)?, key, &options::reads())?)
    }

    /// What the key holds on disk: what a crash now would leave. Not for families with a merge operator.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn persisted(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut reads = options::reads();
        reads.set_read_tier(ReadTier::Persisted);
        Ok(self.engine.get_cf_opt(self.family(family)?, key, &reads)?)
    }

    /// Brings everything written so far to disk, all families at one point. Waits.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`], and nothing was done; else as [`Db::write`].
    pub fn flush(&self) -> Result<(), StoreError> {
        let bytes = self.memtable_bytes()?;
        if !(self.resources.room)(bytes) {
            return Err(StoreError::NoRoom(bytes));
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families = self.families()?;
        self.kept(
            self.engine
                .flush_cfs_opt(&families.each_ref().map(|family| *family), &options),
        )
    }

    /// Compacts every family to its bottom level. Slow; writes and the engine's own compactions go on beside it.
    ///
    /// # Errors
    /// Of the flush before it; the engine tells nothing of the compaction itself.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.flush()?;
        for family in self.families()? {
            self.engine
                .compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options::full_compaction());
        }
        Ok(())
    }

    /// Compacts the files of a family that may hold keys from `lower` to `upper`.
    ///
    /// # Errors
    /// Of the flush before it; the engine tells nothing of the compaction itself.
    pub fn compact_range(&self, family: Family, lower: &[u8], upper: &[u8]) -> Result<(), StoreError> {
        self.flush()?;
        let family = self.family(family)?;
        let options = options::full_compaction();
        self.engine
            .compact_range_cf_opt(family, Some(lower), Some(upper), &options);
        Ok(())
    }

    /// Makes a second database in `directory`, which must not exist, of hard links to this one's files. What is in
    /// memtables is flushed first.
    ///
    /// # Errors
    /// As the engine reports.
    pub fn create_checkpoint(&self, directory: &Path) -> Result<(), StoreError> {
        Ok(Checkpoint::new(&self.engine)?.create_checkpoint(directory)?)
    }

    /// Bytes of table files on disk.
    ///
    /// # Errors
    /// As the engine reports.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.sum("rocksdb.total-sst-files-size")
    }

    /// Bytes in memtables, flushing ones included: what a crash now would have to be replayed.
    ///
    /// # Errors
    /// As the engine reports.
    pub fn memtable_bytes(&self) -> Result<u64, StoreError> {
        self.sum("rocksdb.cur-size-all-mem-tables")
    }

    /// Bytes that compaction has still to rewrite.
    ///
    /// # Errors
    /// As the engine reports.
    pub fn pending_compaction_bytes(&self) -> Result<u64, StoreError> {
        self.sum("rocksdb.estimate-pending-compaction-bytes")
    }

    fn sum(&self, property: &str) -> Result<u64, StoreError> {
        let mut sum = 0;
        for family in self.families()? {
            sum += self.engine.property_int_value_cf(family, property)?.unwrap_or(0);
        }
        Ok(sum)
    }
}

fn descriptors(resources: &Resources) -> Vec<ColumnFamilyDescriptor> {
    let describe = |family: Family| ColumnFamilyDescriptor::new(family.name(), family.options(resources));
    Family::ALL.into_iter().map(describe).collect()
}

/// Changes that become visible, and durable, together.
pub struct Batch<'a> {
    families: [&'a ColumnFamily; 4],
    inner: WriteBatch,
}

impl Batch<'_> {
    /// Sets the value of a key.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.inner.put_cf(self.families[family.index()], key, value);
    }

    /// Folds an operand over the value of a key.
    pub fn merge(&mut self, family: Family, key: &[u8], operand: &[u8]) {
        self.inner.merge_cf(self.families[family.index()], key, operand);
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.inner.delete_cf(self.families[family.index()], key);
    }

    /// Removes all keys from `lower` (included) to `upper` (excluded).
    pub fn delete_range(&mut self, family: Family, lower: &[u8], upper: &[u8]) {
        self.inner.delete_range_cf(self.families[family.index()], lower, upper);
    }

    /// Encoded size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner.size_in_bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn without_room_nothing_is_flushed_and_writes_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let has_room = Arc::new(AtomicBool::new(false));
        let room = Arc::clone(&has_room);
        let resources = Resources::new(8 << 20, 8 << 20, 2).unwrap();
        let resources = resources.with_room(Arc::new(move |bytes| bytes == 0 || room.load(Ordering::Relaxed)));
        let db = Db::open(dir.path(), &resources).unwrap();
        let put = |value: &[u8]| {
            let mut batch = db.batch().unwrap();
            batch.put(Family::Meta, b"key", value);
            db.write(batch).unwrap();
        };
        put(b"one");
        let refused = db.flush().unwrap_err();
        assert!(
            matches!(refused, StoreError::NoRoom(bytes) if bytes > 0) && refused.is_full(),
            "{refused}"
        );
        put(b"two");
        assert_eq!(db.persisted(Family::Meta, b"key").unwrap(), None);
        has_room.store(true, Ordering::Relaxed);
        db.flush().unwrap();
        assert_eq!(db.persisted(Family::Meta, b"key").unwrap().unwrap(), b"two");
    }

    #[test]
    fn a_flush_that_the_disk_fails_calls_the_hook_and_a_folder_that_is_gone_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&reasons);
        let resources = Resources::new(8 << 20, 8 << 20, 2).unwrap();
        let resources =
            resources.with_failure_hook(Arc::new(move |reason| heard.lock().unwrap().push(reason.to_owned())));
        let flushed_after = |name: &str, harm: &dyn Fn(&Path)| {
            let path = dir.path().join(name);
            let db = Db::open(&path, &resources).unwrap();
            let mut batch = db.batch().unwrap();
            batch.put(Family::Meta, b"key", b"value");
            db.write(batch).unwrap();
            std::fs::rename(&path, dir.path().join(format!("{name}-aside"))).unwrap();
            harm(&path);
            db.flush()
        };
        flushed_after("gone", &|_| {}).unwrap_err();
        assert_eq!(*reasons.lock().unwrap(), [""; 0]);
        // A folder that has become a file: as good as a disk that fails.
        flushed_after("failing", &|path| std::fs::write(path, "").unwrap()).unwrap_err();
        let reasons = reasons.lock().unwrap();
        assert!(
            reasons.len() == 1 && reasons[0].contains("failing") && reasons[0].contains("i/o"),
            "{reasons:?}"
        );
    }
}
