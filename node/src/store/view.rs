//! Reads at one point in time.
//!
//! Never here: writes, the meaning of keys. Invariant: a scan ends with `None` only after the engine said that it really
//! reached the end; an unread error cannot look like a short answer.

use std::ops::Deref;

use rocksdb::{DBPinnableSlice, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};

use super::merge::reading;
use super::{Db, Family, StoreError, db::Engine, from_memory, options};

/// All families as they were when the view was taken. Short-lived: it keeps old versions from being merged away.
pub struct View<'a> {
    db: &'a Db,
    snapshot: SnapshotWithThreadMode<'a, Engine>,
}

/// A value, pinned in the block cache or owned.
pub struct Value<'a>(DBPinnableSlice<'a>);

impl Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> View<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self {
            db,
            snapshot: db.engine().snapshot(),
        }
    }

    fn reads(&self) -> ReadOptions {
        let mut reads = options::reads();
        reads.set_snapshot(&self.snapshot);
        from_memory::restrict(&mut reads);
        reads
    }

    /// What the key holds.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Value<'a>>, StoreError> {
        let (family, reads) = (self.db.family(family)?, self.reads());
        let value = reading(|| self.db.engine().get_pinned_cf_opt(family, key, &reads))?;
        value.iter().try_for_each(|value| from_memory::check(value))?;
        Ok(value.map(Value))
    }

    /// What each key holds, in the order of `keys`. `sorted` tells that they ascend.
    ///
    /// # Errors
    /// The first that any key gave.
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        family: Family,
        keys: &[K],
        sorted: bool,
    ) -> Result<Vec<Option<Value<'a>>>, StoreError> {
        if from_memory::only() {
            return keys.iter().map(|key| self.get(family, key.as_ref())).collect();
        }
        let (family, reads) = (self.db.family(family)?, self.reads());
        let values = reading(|| self.db.engine().batched_multi_get_cf_opt(family, keys, sorted, &reads));
        values.into_iter().map(|value| Ok(value?.map(Value))).collect()
    }

    /// Keys from `lower` (included) to `upper` (excluded; `None`: to the end).
    ///
    /// # Errors
    /// When the family is missing.
    pub fn scan(&self, family: Family, lower: &[u8], upper: Option<Vec<u8>>) -> Result<Scan<'_>, StoreError> {
        let mut reads = self.reads();
        reads.set_iterate_lower_bound(lower);
        if let Some(upper) = upper {
            reads.set_iterate_upper_bound(upper);
        }
        let mut raw = self.db.engine().raw_iterator_cf_opt(self.db.family(family)?, reads);
        reading(|| raw.seek_to_first());
        Ok(Scan { raw, fresh: true })
    }

    /// All keys that begin with `prefix`.
    ///
    /// # Errors
    /// When the family is missing.
    pub fn scan_prefix(&self, family: Family, prefix: &[u8]) -> Result<Scan<'_>, StoreError> {
        self.scan(family, prefix, successor(prefix))
    }
}

/// A key and its value, lent by a scan.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A walk over keys in ascending order. It lends each pair until the next step.
pub struct Scan<'a> {
    raw: DBRawIteratorWithThreadMode<'a, Engine>,
    /// The current position was not handed out yet.
    fresh: bool,
}

impl Scan<'_> {
    /// The next key and value; `None` at the end.
    ///
    /// # Errors
    /// Corruption and I/O as found; the scan is over then.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its items")]
    pub fn next(&mut self) -> Result<Option<Pair<'_>>, StoreError> {
        if self.fresh {
            self.fresh = false;
        } else {
            reading(|| self.raw.next());
        }
        self.here()
    }

    /// Moves so that the following [`Scan::next`] gives the first key at or after `key`.
    pub fn seek(&mut self, key: &[u8]) {
        reading(|| self.raw.seek(key));
        self.fresh = true;
    }

    /// The last key at or before `key`, with its value.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn at_or_before(&mut self, key: &[u8]) -> Result<Option<Pair<'_>>, StoreError> {
        reading(|| self.raw.seek_for_prev(key));
        self.fresh = false;
        self.here()
    }

    /// The last key and value of the range.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn last(&mut self) -> Result<Option<Pair<'_>>, StoreError> {
        reading(|| self.raw.seek_to_last());
        self.fresh = false;
        self.here()
    }

    fn here(&mut self) -> Result<Option<Pair<'_>>, StoreError> {
        if !self.raw.valid() {
            self.raw.status()?;
            return Ok(None);
        }
        let item = self.raw.item();
        item.iter().try_for_each(|(_, value)| from_memory::spend(value.len()))?;
        Ok(item)
    }
}

/// The smallest key above all that begin with `prefix`; `None` when there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix.get(..=kept)?.to_vec();
    *next.last_mut()? += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn successor_of_prefixes() {
        let check = |prefix: &[u8], expected: Option<&[u8]>| assert_eq!(successor(prefix).as_deref(), expected);
        check(b"a", Some(b"b"));
        check(&[1, 255], Some(&[2]));
        check(&[0, 0], Some(&[0, 1]));
        check(&[255, 255], None);
        check(b"", None);
    }
}
