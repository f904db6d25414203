//! Reads of points, as encoded values.
//!
//! Never here: decoding, windows, budgets (a visitor breaks when it has enough). Invariant: every read sees one point in
//! time; a device over a range gives its buckets in ascending time.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::bucket_grid::Grid;
use super::{Shard, keys};
use crate::store::{Family, StoreError, View};

/// Up to so many buckets are asked for by key (silent ones cost a look at a filter); beyond, by seeking.
const BUCKETS_BY_KEY_MAX: i64 = 1024;

/// Devices that lie so close together are read in one walk over all between them: a step costs a fraction of a key.
const WALK_DEVICES_MIN: usize = 16;
const WALK_SHARE_MIN: usize = 4;

/// Back over so many buckets by key, a filter a bucket, before seeking from one to the next that any device has.
const BACK_BY_KEY_MAX: i64 = 65_536;

/// Keys asked for at a time: bounds what is pinned, and what is read in vain when the visitor breaks.
const CHUNK: usize = 64;

impl Shard {
    /// Gives `visit` the bucket values of a device that may hold records with `from_ns <= observed_at < to_ns`, oldest
    /// first, until it breaks. Values at the edges hold records outside the range too.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn scan_device<B>(
        &self,
        type_number: u32,
        ordinal: u32,
        bucket_span_ns: i64,
        from_ns: i64,
        to_ns: i64,
        mut visit: impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        self.scan_devices(type_number, &[ordinal], bucket_span_ns, from_ns, to_ns, |_, value| {
            visit(value)
        })
    }

    /// The same for several devices of a type: `visit` is told which of `ordinals` a value is of. The values of one device
    /// come oldest first; those of others come between them.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn scan_devices<B>(
        &self,
        type_number: u32,
        ordinals: &[u32],
        bucket_span_ns: i64,
        from_ns: i64,
        to_ns: i64,
        mut visit: impl FnMut(usize, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let view = self.store.db().view();
        let devices = Devices::new(&view, Rows::blocks(type_number), bucket_span_ns, ordinals);
        devices.scan((from_ns, to_ns), self.extents.of(type_number), &mut |at, _, value| {
            visit(at, value)
        })
    }

    /// The same for one device, newest first.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn scan_device_back<B>(
        &self,
        (type_number, ordinal): (u32, u32),
        bucket_span_ns: i64,
        (from_ns, to_ns): (i64, i64),
        mut visit: impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let view = self.store.db().view();
        let grid = Grid::new(bucket_span_ns);
        let Some(range) = grid.touched(from_ns, to_ns, self.extents.of(type_number)) else {
            return Ok(ControlFlow::Continue(()));
        };
        let ordinals = [ordinal];
        let devices = Devices::new(&view, Rows::blocks(type_number), bucket_span_ns, &ordinals);
        devices.back(ordinal, range, &mut visit)
    }

    /// Gives `visit` ordinal, bucket start and value of every bucket of a type that may hold records with
    /// `from_ns <= observed_at < to_ns`, by bucket, then ordinal, until it breaks.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn scan_type<B>(
        &self,
        type_number: u32,
        bucket_span_ns: i64,
        from_ns: i64,
        to_ns: i64,
        mut visit: impl FnMut(u32, i64, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let view = self.store.db().view();
        let grid = Grid::new(bucket_span_ns);
        let Some((first, last)) = grid.touched(from_ns, to_ns, self.extents.of(type_number)) else {
            return Ok(ControlFlow::Continue(()));
        };
        let lower = keys::block(type_number, grid.start(first), 0);
        let upper = Rows::blocks(type_number).after(grid.start(last), u32::MAX);
        let mut scan = view.scan(Family::Blocks, &lower, Some(upper))?;
        while let Some((key, value)) = scan.next()? {
            let (_, bucket_ns, ordinal) = keys::decode_block(key)?;
            if let ControlFlow::Break(with) = visit(ordinal, bucket_ns, value) {
                return Ok(ControlFlow::Break(with));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// No device of a type has points before this time; `None` where it has none at all.
    pub fn data_begins(&self, type_number: u32) -> Option<i64> {
        self.extents.of(type_number).map(|(first, _)| first)
    }

    /// No device of a type, whose buckets are so long, has points at or behind this time; `None` where it has none at all.
    pub fn data_ends(&self, type_number: u32, bucket_span_ns: i64) -> Option<i64> {
        let extent = self.extents.of(type_number);
        extent.map(|(_, last)| last.saturating_add(bucket_span_ns))
    }

    /// Newest values of devices of a type, in the order of `ordinals`; `None` where there are none.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn latest(&self, type_number: u32, ordinals: &[u32]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let keys: Vec<_> = ordinals
            .iter()
            .map(|ordinal| keys::latest(type_number, *ordinal))
            .collect();
        let view = self.store.db().view();
        let values = view.multi_get(Family::Latest, &keys, false)?;
        Ok(values
            .into_iter()
            .map(|value| value.map(|bytes| bytes.to_vec()))
            .collect())
    }

    /// Gives `visit` the newest values of every device of a type that has any, by ordinal, until it breaks.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn latest_of_type<B>(
        &self,
        type_number: u32,
        mut visit: impl FnMut(u32, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let view = self.store.db().view();
        let mut scan = view.scan_prefix(Family::Latest, &type_number.to_be_bytes())?;
        while let Some((key, value)) = scan.next()? {
            let (_, ordinal) = keys::decode_latest(key)?;
            if let ControlFlow::Break(with) = visit(ordinal, value) {
                return Ok(ControlFlow::Break(with));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Rows that are kept by bucket, then device: blocks or rollups of a type.
#[derive(Copy, Clone)]
pub(super) struct Rows {
    family: Family,
    /// What their keys begin with, and how long that is.
    prefix: ([u8; 10], usize),
}

/// Key of a row.
pub(super) struct RowKey([u8; 22], usize);

impl AsRef<[u8]> for RowKey {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

impl Rows {
    pub(super) fn blocks(type_number: u32) -> Self {
        let mut prefix = [0; 10];
        prefix[..4].copy_from_slice(&type_number.to_be_bytes());
        Self {
            family: Family::Blocks,
            prefix: (prefix, 4),
        }
    }

    pub(super) fn rollups(level: keys::Level) -> Self {
        Self {
            family: Family::Meta,
            prefix: (keys::rollups(level), 10),
        }
    }

    pub(super) fn key(&self, bucket_ns: i64, ordinal: u32) -> RowKey {
        let (prefix, length) = (&self.prefix.0, self.prefix.1);
        let mut key = [0; 22];
        key[..length].copy_from_slice(&prefix[..length]);
        key[length..length + 12].copy_from_slice(&keys::block(0, bucket_ns, ordinal)[4..]);
        RowKey(key, length + 12)
    }

    /// First key above every device of a bucket.
    fn after(&self, bucket_ns: i64, ordinal: u32) -> Vec<u8> {
        let mut key = self.key(bucket_ns, ordinal).as_ref().to_vec();
        key.push(0);
        key
    }

    /// Bucket start and ordinal of a key.
    fn decode(&self, key: &[u8]) -> Result<(i64, u32), StoreError> {
        match self.family {
            Family::Blocks => keys::decode_block(key).map(|(_, bucket_ns, ordinal)| (bucket_ns, ordinal)),
            _ => keys::decode_rollup(key).map(|(_, bucket_ns, ordinal)| (bucket_ns, ordinal)),
        }
    }
}

/// Rows of devices, at a moment.
pub(super) struct Devices<'a> {
    view: &'a View<'a>,
    rows: Rows,
    grid: Grid,
    ordinals: &'a [u32],
    /// Places among the ordinals and buckets that are passed over.
    without: Option<&'a HashSet<(usize, i64)>>,
}

impl<'a> Devices<'a> {
    pub(super) fn new(view: &'a View<'a>, rows: Rows, bucket_span_ns: i64, ordinals: &'a [u32]) -> Self {
        Self {
            view,
            rows,
            grid: Grid::new(bucket_span_ns),
            ordinals,
            without: None,
        }
    }

    pub(super) fn without(self, without: &'a HashSet<(usize, i64)>) -> Self {
        let without = Some(without).filter(|without| !without.is_empty());
        Self { without, ..self }
    }

    /// Gives `visit` place, bucket start and value of the rows of buckets that a range of time touches, given the extent of the
    /// type: see [`Shard::scan_devices`].
    pub(super) fn scan<B>(
        &self,
        (from_ns, to_ns): (i64, i64),
        extent: Option<(i64, i64)>,
        visit: &mut impl FnMut(usize, i64, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let Some(range) = self.grid.touched(from_ns, to_ns, extent) else {
            return Ok(ControlFlow::Continue(()));
        };
        if range.1.saturating_sub(range.0) >= BUCKETS_BY_KEY_MAX {
            return self.by_seek(range, visit);
        }
        match self.close_together() {
            Some(ends) => self.by_walk(range, ends, visit),
            None => self.by_key(range, visit),
        }
    }

    /// Whether a row is wanted.
    fn wants(&self, at: usize, bucket_ns: i64) -> bool {
        self.without.is_none_or(|without| !without.contains(&(at, bucket_ns)))
    }

    /// First and last ordinal, where the devices ascend and are many of those between them.
    fn close_together(&self) -> Option<(u32, u32)> {
        let ends = (*self.ordinals.first()?, *self.ordinals.last()?);
        let ascend = self.ordinals.is_sorted_by(|a, b| a < b);
        let between = ends.1.saturating_sub(ends.0) as usize;
        let many = self.ordinals.len() >= WALK_DEVICES_MIN && between / WALK_SHARE_MIN < self.ordinals.len();
        (ascend && many).then_some(ends)
    }

    /// Bucket by bucket, over all devices of the type from the first to the last of ours.
    fn by_walk<B>(
        &self,
        (first, last): (i64, i64),
        ends: (u32, u32),
        visit: &mut impl FnMut(usize, i64, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        for index in first..=last {
            let bucket_ns = self.grid.start(index);
            let mut ours = self.ordinals.iter().enumerate();
            if self.without.is_some() {
                let wanted = (0..self.ordinals.len()).filter(|at| self.wants(*at, bucket_ns));
                let wanted: Vec<(usize, i64)> = wanted.map(|at| (at, bucket_ns)).collect();
                // A walk is for many.
                if wanted.len() < self.ordinals.len() / WALK_SHARE_MIN {
                    if let ControlFlow::Break(with) = self.get(wanted.into_iter(), visit)? {
                        return Ok(ControlFlow::Break(with));
                    }
                    continue;
                }
            }
            let lower = self.rows.key(bucket_ns, ends.0);
            let upper = self.rows.after(bucket_ns, ends.1);
            let mut scan = self.view.scan(self.rows.family, lower.as_ref(), Some(upper))?;
            let mut ours = ours.by_ref().peekable();
            while let Some((key, value)) = scan.next()? {
                let (_, found) = self.rows.decode(key)?;
                while ours.next_if(|(_, ordinal)| **ordinal < found).is_some() {}
                if let Some((at, _)) = ours.next_if(|(_, ordinal)| **ordinal == found)
                    && self.wants(at, bucket_ns)
                    && let ControlFlow::Break(with) = visit(at, bucket_ns, value)
                {
                    return Ok(ControlFlow::Break(with));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Bucket by bucket, as keys lie.
    fn by_key<B>(
        &self,
        (first, last): (i64, i64),
        visit: &mut impl FnMut(usize, i64, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let places = 0..self.ordinals.len();
        let of = |index: i64| places.clone().map(move |at| (at, self.grid.start(index)));
        let all = (first..=last).flat_map(of);
        self.get(all.filter(|(at, bucket_ns)| self.wants(*at, *bucket_ns)), visit)
    }

    /// Rows at places among the ordinals and buckets, as they come.
    fn get<B>(
        &self,
        mut all: impl Iterator<Item = (usize, i64)>,
        visit: &mut impl FnMut(usize, i64, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let mut places: Vec<(usize, i64)> = Vec::with_capacity(CHUNK);
        let mut keys: Vec<RowKey> = Vec::with_capacity(CHUNK);
        loop {
            places.clear();
            keys.clear();
            for (at, bucket_ns) in all.by_ref().take(CHUNK) {
                places.push((at, bucket_ns));
                keys.push(self.rows.key(bucket_ns, self.ordinals[at]));
            }
            if keys.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let sorted = keys.is_sorted_by(|a: &RowKey, b| a.as_ref() <= b.as_ref());
            let values = self.view.multi_get(self.rows.family, &keys, sorted)?;
            for ((at, bucket_ns), value) in places.iter().zip(values) {
                if let Some(value) = value
                    && let ControlFlow::Break(with) = visit(*at, *bucket_ns, &value)
                {
                    return Ok(ControlFlow::Break(with));
                }
            }
        }
    }

    fn by_seek<B>(
        &self,
        range: (i64, i64),
        visit: &mut impl FnMut(usize, i64, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        for at in 0..self.ordinals.len() {
            if let ControlFlow::Break(with) = self.seek_one(at, range, visit)? {
                return Ok(ControlFlow::Break(with));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Gives `visit` the rows of the only device whose buckets begin before a time, newest first, given the extent of the type. First few
    /// at a time, then more: mostly the last one is enough, and where there is none at all, all are looked for.
    pub(super) fn newest_first<B>(
        &self,
        before_ns: i64,
        extent: Option<(i64, i64)>,
        visit: &mut impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let touched = self.grid.touched(i64::MIN, before_ns, extent);
        let (Some((first, last)), [ours]) = (touched, self.ordinals) else {
            return Ok(ControlFlow::Continue(()));
        };
        let by_key = first.max(last.saturating_sub(BACK_BY_KEY_MAX - 1));
        let (mut behind, mut some) = (last.saturating_add(1), 1);
        while behind > by_key {
            let from = by_key.max(behind.saturating_sub(some));
            let places = (from..behind).rev().map(|index| (0, self.grid.start(index)));
            if let ControlFlow::Break(with) = self.get(places, &mut |_, _, value| visit(value))? {
                return Ok(ControlFlow::Break(with));
            }
            (behind, some) = (from, (2 * some).min(CHUNK as i64));
        }
        match by_key > first {
            true => self.back(*ours, (first, by_key - 1), visit),
            false => Ok(ControlFlow::Continue(())),
        }
    }

    /// From bucket to bucket that any device of the type has, newest first: a seek or two each.
    fn back<B>(
        &self,
        ours: u32,
        (first, last): (i64, i64),
        visit: &mut impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let lower = self.rows.key(self.grid.start(first), 0);
        let upper = self.rows.after(self.grid.start(last), u32::MAX);
        let mut scan = self.view.scan(self.rows.family, lower.as_ref(), Some(upper))?;
        let mut target = self.rows.key(self.grid.start(last), ours);
        while let Some((key, value)) = scan.at_or_before(target.as_ref())? {
            let (bucket_ns, ordinal) = self.rows.decode(key)?;
            if ordinal == ours
                && let ControlFlow::Break(with) = visit(value)
            {
                return Ok(ControlFlow::Break(with));
            }
            let index = self.grid.index(bucket_ns);
            // Behind ours: ours may lie before it in the same bucket.
            let next = if ordinal > ours { index } else { index.saturating_sub(1) };
            if next < first {
                break;
            }
            target = self.rows.key(self.grid.start(next), ours);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// From bucket to bucket that any device of the type has: one seek each.
    fn seek_one<B>(
        &self,
        at: usize,
        (first, last): (i64, i64),
        visit: &mut impl FnMut(usize, i64, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let ours = self.ordinals[at];
        let key = |index: i64| self.rows.key(self.grid.start(index), ours);
        let upper = self.rows.after(self.grid.start(last), u32::MAX);
        let mut scan = self.view.scan(self.rows.family, key(first).as_ref(), Some(upper))?;
        while let Some((found, value)) = scan.next()? {
            let (bucket_ns, ordinal) = self.rows.decode(found)?;
            if ordinal == ours
                && self.wants(at, bucket_ns)
                && let ControlFlow::Break(with) = visit(at, bucket_ns, value)
            {
                return Ok(ControlFlow::Break(with));
            }
            if ordinal < ours {
                // Ours may follow in the same bucket.
                scan.seek(self.rows.key(bucket_ns, ours).as_ref());
                continue;
            }
            let mut next = self.grid.index(bucket_ns).saturating_add(1);
            while next <= last && !self.wants(at, self.grid.start(next)) {
                next += 1;
            }
            if next > last {
                break;
            }
            scan.seek(key(next).as_ref());
        }
        Ok(ControlFlow::Continue(()))
    }
}
