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
use super::rollups::{levels, sealed_before};
use crate::store::{StoreError, View};

const NS_PER_S: i64 = 1_000_000_000;

/// Buckets of a device whose rollups are held at a time: they are read before its points, and go between them. So many are looked for
/// by seeking, so that empty ones cost nothing.
const FOLLOWED_AT_ONCE: usize = 1_025;

/// Which rollups will do.
#[derive(Copy, Clone, Debug)]
pub struct Rolling {
    /// Length of the windows of those that stand for points that are there, seconds; `None`: none do.
    pub length_s: Option<u32>,
    /// Lengths that will do where points are gone for their age, ascending.
    pub gone_s: &'static [u32],
    /// What they were made by.
    pub rule: u64,
    /// Only whole windows between these are wanted.
    pub from_ns: i64,
    /// See `from_ns`.
    pub to_ns: i64,
}

/// A bucket of a device.
#[derive(Copy, Clone, Debug)]
pub enum Stored<'a> {
    /// Its points: a bucket value.
    Points(&'a [u8]),
    /// Its windows.
    Rollup {
        /// These.
        rollup: Rollup<'a>,
        /// Its points are gone for their age.
        is_alone: bool,
    },
}

/// Rollups of one length that are looked for.
struct Turn {
    length_s: u32,
    /// First and last bucket that may have one.
    extent: Option<(i64, i64)>,
    /// Also where points are there.
    everywhere: bool,
}

impl Turn {
    fn length_ns(&self) -> i64 {
        i64::from(self.length_s) * NS_PER_S
    }

    /// The end of the time in which they are looked for.
    fn until(&self, to_ns: i64, sealed_ns: i64) -> i64 {
        match self.everywhere {
            true => to_ns,
            false => to_ns.min(sealed_ns),
        }
    }
}

impl Rolling {
    /// The lengths to look for between two times, longest first: where points are gone, a shorter one stands for what has no longer one.
    fn turns(
        &self,
        view: &View<'_>,
        (type_number, extent): (u32, Option<(i64, i64)>),
        from_ns: i64,
        sealed_ns: i64,
    ) -> Result<Vec<Turn>, StoreError> {
        let today = self.length_s;
        let turn = |length_s: u32, extent: Option<(i64, i64)>| Turn {
            length_s,
            extent,
            everywhere: today == Some(length_s),
        };
        if sealed_ns <= from_ns {
            return Ok(today.map(|length_s| turn(length_s, extent)).into_iter().collect());
        }
        let of_type = levels(view, Some(type_number))?.into_iter().rev();
        let known = of_type.filter(|((_, length_s), _)| self.gone_s.contains(length_s) || today == Some(*length_s));
        Ok(known
            .map(|((_, length_s), extent)| turn(length_s, Some(extent)))
            .collect())
    }

    /// Whether a rollup stands for its bucket: there is nothing else, or it gives the same.
    fn takes(&self, rollup: &Rollup<'_>, (bucket_ns, bucket_span_ns): (i64, i64), sealed_ns: i64) -> bool {
        let same = || rollup.rule == self.rule && self.holds(rollup.length_ns, (bucket_ns, bucket_span_ns));
        bucket_ns < sealed_ns || same()
    }

    /// Whether no window of a bucket is only in part between the ends.
    fn holds(&self, length_ns: i64, (bucket_ns, bucket_span_ns): (i64, i64)) -> bool {
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
    /// gone for their age. Points come after rollups, long ones before shorter ones; of each kind those of one device oldest first.
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
        let mut taken = HashSet::new();
        for turn in rolling.turns(&view, (type_number, extent), from_ns, sealed_ns)? {
            // Windows that touch the range may be of a bucket before it or behind it.
            let length_ns = turn.length_ns();
            let until = turn.until(to_ns.saturating_add(length_ns), sealed_ns);
            let around = (from_ns.saturating_sub(length_ns), until);
            let mut now_taken = HashSet::new();
            let rows = Rows::rollups((type_number, turn.length_s));
            let devices = Devices::new(&view, rows, bucket_span_ns, ordinals).without(&taken);
            let flow = devices.scan(around, turn.extent, &mut |at, bucket_ns, value| {
                let rollup = match Rollup::open(value, length_ns) {
                    Ok(opened) => opened,
                    Err(corrupt) => return ControlFlow::Break(Err(corrupt.into())),
                };
                if !rolling.takes(&rollup, (bucket_ns, bucket_span_ns), sealed_ns) {
                    return ControlFlow::Continue(());
                }
                now_taken.insert((at, bucket_ns));
                let is_alone = bucket_ns < sealed_ns;
                visit(at, Stored::Rollup { rollup, is_alone }).map_break(Ok)
            })?;
            match flow {
                ControlFlow::Continue(()) => taken.extend(now_taken),
                ControlFlow::Break(Ok(with)) => return Ok(ControlFlow::Break(with)),
                ControlFlow::Break(Err(error)) => return Err(error),
            }
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
        let turns = rolling.turns(&view, (type_number, extent), from_ns, sealed_ns)?;
        let ordinals = [ordinal];
        for from in (first..=last).step_by(FOLLOWED_AT_ONCE) {
            let until = from.saturating_add(FOLLOWED_AT_ONCE as i64 - 1).min(last);
            let range = (grid.start(from), grid.start(until).saturating_add(1));
            let (mut rollups, mut taken) = (BTreeMap::new(), HashSet::new());
            for turn in &turns {
                let rows = Rows::rollups((type_number, turn.length_s));
                let devices = Devices::new(&view, rows, bucket_span_ns, &ordinals).without(&taken);
                let mut kept = Vec::new();
                let around = (range.0, turn.until(range.1, sealed_ns));
                let flow = devices.scan(around, turn.extent, &mut |_, bucket_ns, value| match Rollup::open(
                    value,
                    turn.length_ns(),
                ) {
                    Ok(rollup) if rolling.takes(&rollup, (bucket_ns, bucket_span_ns), sealed_ns) => {
                        kept.push((bucket_ns, (turn.length_ns(), value.to_vec())));
                        ControlFlow::Continue(())
                    }
                    Ok(_) => ControlFlow::Continue(()),
                    Err(corrupt) => ControlFlow::Break(corrupt),
                })?;
                if let ControlFlow::Break(corrupt) = flow {
                    return Err(corrupt.into());
                }
                taken.extend(kept.iter().map(|(bucket_ns, _)| (0, *bucket_ns)));
                rollups.extend(kept);
            }
            let mut rollups_before = |bucket_ns: i64, visit: &mut dyn FnMut(Stored<'_>) -> ControlFlow<B>| {
                while let Some(entry) = rollups.first_entry().filter(|entry| *entry.key() < bucket_ns) {
                    let is_alone = *entry.key() < sealed_ns;
                    let (length_ns, value) = entry.remove();
                    // It was opened before.
                    if let Ok(rollup) = Rollup::open(&value, length_ns) {
                        visit(Stored::Rollup { rollup, is_alone })?;
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
