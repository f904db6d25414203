//! Reads of buckets, as rollups where they are there and will do.
//!
//! Never here: what a rollup holds, whether a question can be answered by rollups at all. Invariant: rollups and points are read
//! at one moment, and each bucket of a device is given once, as one or the other.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use tidemark_series::rollup::Rollup;

use super::Shard;
use super::bucket_grid::Grid;
use super::read::{Devices, Rows};
use super::rollups::sealed_before;
use crate::store::StoreError;

const NS_PER_S: i64 = 1_000_000_000;

/// Buckets of a device whose rollups are held at a time: they are read before its points, and go between them. So many are looked for
/// by seeking, so that empty ones cost nothing.
const FOLLOWED_AT_ONCE: usize = 1_025;

/// Which rollups will do.
#[derive(Copy, Clone, Debug)]
pub struct Rolling {
    /// Length of their windows, seconds.
    pub length_s: u32,
    /// What they were made by.
    pub rule: u64,
    /// Only whole windows between these are wanted.
    pub from_ns: i64,
    /// See `from_ns`.
    pub to_ns: i64,
    /// Only where points are gone for their age.
    pub sealed_only: bool,
}

/// A bucket of a device.
#[derive(Copy, Clone, Debug)]
pub enum Stored<'a> {
    /// Its points: a bucket value.
    Points(&'a [u8]),
    /// Its windows.
    Rollup(Rollup<'a>),
}

impl Rolling {
    /// Length of their windows, nanoseconds.
    #[must_use]
    pub fn length_ns(&self) -> i64 {
        i64::from(self.length_s) * NS_PER_S
    }

    /// Whether a rollup stands for its bucket: there is nothing else, or it gives the same.
    fn takes(&self, rollup: &Rollup<'_>, (bucket_ns, bucket_span_ns): (i64, i64), sealed_ns: i64) -> bool {
        let same = || rollup.rule == self.rule && self.holds(bucket_ns, bucket_span_ns);
        bucket_ns < sealed_ns || !self.sealed_only && same()
    }

    /// The end of the time in which rollups are looked for.
    fn until(&self, to_ns: i64, sealed_ns: i64) -> i64 {
        match self.sealed_only {
            true => to_ns.min(sealed_ns),
            false => to_ns,
        }
    }

    /// Whether no window of a bucket is only in part between the ends.
    fn holds(&self, bucket_ns: i64, bucket_span_ns: i64) -> bool {
        let length_ns = self.length_ns();
        let whole = |end_ns: i64| end_ns % length_ns == 0 || end_ns == i64::MIN || end_ns == i64::MAX;
        // A window that ends where the bucket begins may have the first point of it.
        let first_ns = bucket_ns.saturating_sub(length_ns);
        let last_ns = bucket_ns.saturating_add(bucket_span_ns).saturating_add(length_ns);
        let after = whole(self.from_ns) || first_ns.saturating_sub(length_ns) >= self.from_ns;
        after && (whole(self.to_ns) || last_ns <= self.to_ns)
    }
}

impl Shard {
    /// [`Shard::scan_devices`] with rollups in the place of points where `rolling` says that they will do, and where points are
    /// gone for their age. Points come after rollups, those of one device oldest first.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn scan_rolled<B>(
        &self,
        (type_number, ordinals): (u32, &[u32]),
        bucket_span_ns: i64,
        (from_ns, to_ns): (i64, i64),
        rolling: &Rolling,
        mut visit: impl FnMut(usize, Stored<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let view = self.store.db().view();
        let extent = self.extents.of(type_number);
        let sealed_ns = sealed_before(&view, type_number)?;
        // Windows that touch the range may be of a bucket before it or behind it.
        let length_ns = rolling.length_ns();
        let until = rolling.until(to_ns.saturating_add(length_ns), sealed_ns);
        let around = (from_ns.saturating_sub(length_ns), until);
        let mut taken = HashSet::new();
        let rows = Rows::rollups((type_number, rolling.length_s));
        let devices = Devices::new(&view, rows, bucket_span_ns, ordinals);
        let flow = devices.scan(around, extent, &mut |at, bucket_ns, value| {
            let rollup = match Rollup::open(value) {
                Ok(opened) => opened,
                Err(corrupt) => return ControlFlow::Break(Err(corrupt.into())),
            };
            if !rolling.takes(&rollup, (bucket_ns, bucket_span_ns), sealed_ns) {
                return ControlFlow::Continue(());
            }
            taken.insert((at, bucket_ns));
            visit(at, Stored::Rollup(rollup)).map_break(Ok)
        })?;
        match flow {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(Ok(with)) => return Ok(ControlFlow::Break(with)),
            ControlFlow::Break(Err(error)) => return Err(error),
        }
        let devices = Devices::new(&view, Rows::blocks(type_number), bucket_span_ns, ordinals).without(&taken);
        devices.scan((from_ns, to_ns), extent, &mut |at, _, value| {
            visit(at, Stored::Points(value))
        })
    }

    /// The same for one device, all of it oldest first.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn follow_rolled<B>(
        &self,
        (type_number, ordinal): (u32, u32),
        bucket_span_ns: i64,
        (from_ns, to_ns): (i64, i64),
        rolling: &Rolling,
        mut visit: impl FnMut(Stored<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let view = self.store.db().view();
        let extent = self.extents.of(type_number);
        let grid = Grid::new(bucket_span_ns);
        let Some((first, last)) = grid.touched(from_ns, to_ns, extent) else {
            return Ok(ControlFlow::Continue(()));
        };
        let sealed_ns = sealed_before(&view, type_number)?;
        let ordinals = [ordinal];
        let rolled_rows = Rows::rollups((type_number, rolling.length_s));
        for from in (first..=last).step_by(FOLLOWED_AT_ONCE) {
            let until = from.saturating_add(FOLLOWED_AT_ONCE as i64 - 1).min(last);
            let range = (grid.start(from), grid.start(until).saturating_add(1));
            let (mut rollups, mut taken) = (BTreeMap::new(), HashSet::new());
            let rolled = Devices::new(&view, rolled_rows, bucket_span_ns, &ordinals);
            let rolled_range = (range.0, rolling.until(range.1, sealed_ns));
            let kept = rolled.scan(
                rolled_range,
                extent,
                &mut |_, bucket_ns, value| match Rollup::open(value) {
                    Ok(rollup) => {
                        if rolling.takes(&rollup, (bucket_ns, bucket_span_ns), sealed_ns) {
                            rollups.insert(bucket_ns, value.to_vec());
                            taken.insert((0, bucket_ns));
                        }
                        ControlFlow::Continue(())
                    }
                    Err(corrupt) => ControlFlow::Break(corrupt),
                },
            )?;
            if let ControlFlow::Break(corrupt) = kept {
                return Err(corrupt.into());
            }
            let mut rollups_before = |bucket_ns: i64, visit: &mut dyn FnMut(Stored<'_>) -> ControlFlow<B>| {
                while let Some(entry) = rollups.first_entry().filter(|entry| *entry.key() < bucket_ns) {
                    // It was opened before.
                    if let Ok(rollup) = Rollup::open(&entry.remove()) {
                        visit(Stored::Rollup(rollup))?;
                    }
                }
                ControlFlow::Continue(())
            };
            let blocks = Devices::new(&view, Rows::blocks(type_number), bucket_span_ns, &ordinals).without(&taken);
            let mut flow = blocks.scan(range, extent, &mut |_, bucket_ns, value| {
                rollups_before(bucket_ns, &mut visit)?;
                visit(Stored::Points(value))
            })?;
            if flow.is_continue() {
                flow = rollups_before(i64::MAX, &mut visit);
            }
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
