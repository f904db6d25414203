//! Rollups of buckets (see `series::rollup`): made by an entry of the log, gone with whatever changes their bucket.
//!
//! ```text
//! RollUp          bucket -> rollup, one for each length of windows
//! write, remove   the rollups of a bucket that changes go in the same batch
//! RemoveBuckets   buckets that are old go where their rollups are there, and are sealed
//! SealBuckets     they go whatever is there, and are sealed, since some rollups of them are left
//! ```
//! A rollup is state as points are: every replica makes it from the same bucket after the same entry, so it is in digests,
//! checkpoints and backups. A write or a removal in a bucket deletes its rollups in the same batch; so one that is there is
//! what making it again would give. Where the raw bucket went because of its age its rollups stay, and nothing is written
//! there any more: a part of the points would look like all of them.
//!
//! Keys: see `keys`. Never here: when they are made and used, which points count (the entry says). Invariant: see above; the last bucket of each
//! length that ever had a rollup is kept in memory, so that a write behind it costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tidemark_proto::peer::{RemoveRecords, Removed, RollUp, RolledProperty, RolledSequence};
use tidemark_proto::v1::Failure;
use tidemark_series::rollup::{self, Follows, Format, Rolled, Rollup};
use tidemark_series::window::Edge;
use tidemark_series::{Accepted, Checks, Choice, PropertyNumber, Stated, Suspects, bucket};

use super::Shard;
use super::apply::{Chunk, code, failure};
use super::extents::{Extents, Widening, include};
use super::keys::{self, Level};
use super::read::{Devices, Rows};
use crate::store::{Family, ReplicaStore, StoreError, View};

/// Buckets whose rollups a write took away that are remembered, to be made again.
const STALE_MAX: usize = 4_096;

const NS_PER_S: i64 = 1_000_000_000;

/// What `apply` knows of rollups.
#[derive(Default)]
pub(super) struct RollupState {
    /// Start of the last bucket that has one, or had.
    last: BTreeMap<Level, i64>,
    sealed: Arc<Seals>,
}

/// By type, the time before which raw points are gone for their age. Raised before the batch that removes them is written, so that a
/// reader that misses points finds it here afterwards.
#[derive(Default)]
pub(super) struct Seals(RwLock<BTreeMap<u32, i64>>);

impl Seals {
    fn of(&self, type_number: u32) -> Option<i64> {
        let seals = self.0.read().unwrap_or_else(PoisonError::into_inner);
        seals.get(&type_number).copied()
    }

    fn set(&self, type_number: u32, before_ns: i64) {
        let mut seals = self.0.write().unwrap_or_else(PoisonError::into_inner);
        seals.insert(type_number, before_ns);
    }
}

impl RollupState {
    pub(super) fn load(store: &ReplicaStore) -> Result<Self, StoreError> {
        let view = store.db().view();
        let mut state = Self::default();
        for (level, (_, last_ns)) in levels(&view, None)? {
            state.note(level, last_ns);
        }
        let mut scan = view.scan_prefix(Family::Meta, keys::SEALS)?;
        while let Some((key, value)) = scan.next()? {
            let (type_number, before_ns) = keys::decode_seal(key, value)?;
            state.sealed.set(type_number, before_ns);
        }
        Ok(state)
    }

    pub(super) fn note(&mut self, level: Level, bucket_ns: i64) {
        let last = self.last.entry(level).or_insert(bucket_ns);
        *last = (*last).max(bucket_ns);
    }

    /// Takes over from a backup before which time raw points of a type are gone.
    pub(super) fn seal(&self, type_number: u32, before_ns: i64) {
        self.sealed.set(type_number, before_ns);
    }

    /// What readers look at beside it.
    pub(super) fn seals(&self) -> Arc<Seals> {
        self.sealed.clone()
    }
}

/// A type and a length, with the first and the last bucket that has a rollup.
type Extent = (Level, (i64, i64));

/// Types and lengths of the rollups that there are, all or those of one type.
pub(super) fn levels(view: &View<'_>, of: Option<u32>) -> Result<Vec<Extent>, StoreError> {
    let mut found = Vec::new();
    let prefix = match of {
        None => keys::ROLLUPS.to_vec(),
        Some(type_number) => keys::rollups((type_number, 0))[..6].to_vec(),
    };
    let mut scan = view.scan_prefix(Family::Meta, &prefix)?;
    while let Some((key, _)) = scan.next()? {
        let (level, first_ns, _) = keys::decode_rollup(key)?;
        let mut of_level = view.scan_prefix(Family::Meta, &keys::rollups(level))?;
        let last = of_level.last()?.map(|(key, _)| keys::decode_rollup(key)).transpose()?;
        found.push((level, (first_ns, last.map_or(first_ns, |(_, last_ns, _)| last_ns))));
        match level.1.checked_add(1) {
            Some(next) => scan.seek(&keys::rollups((level.0, next))),
            None => break,
        }
    }
    Ok(found)
}

/// Makes extents hold the buckets of all rollups.
pub(super) fn include_all(view: &View<'_>, extents: &mut Widening) -> Result<(), StoreError> {
    for (level, (first_ns, last_ns)) in levels(view, None)? {
        include(extents, level.0, first_ns, last_ns);
    }
    Ok(())
}

/// The time before which raw points of a type are gone for their age.
pub(super) fn sealed_before(view: &View<'_>, type_number: u32) -> Result<i64, StoreError> {
    let key = keys::seal(type_number);
    match view.get(Family::Meta, &key)? {
        Some(value) => keys::decode_seal(&key, &value).map(|(_, before_ns)| before_ns),
        None => Ok(i64::MIN),
    }
}

/// Gives `visit` the rollups of devices (type, ordinals, span of buckets) that may have something of a range of time and whose
/// points are gone for their age.
fn each_sealed(
    view: &View<'_>,
    (type_number, ordinals, bucket_span_ns): (u32, &[u32], i64),
    extents: &Extents,
    (from_ns, to_ns): (i64, i64),
    mut visit: impl FnMut(Level, i64, u32, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sealed_ns = sealed_before(view, type_number)?;
    if sealed_ns == i64::MIN {
        return Ok(());
    }
    for (level, _) in levels(view, Some(type_number))? {
        let length_ns = i64::from(level.1) * NS_PER_S;
        let range = (
            from_ns.saturating_sub(length_ns),
            to_ns.saturating_add(length_ns).min(sealed_ns),
        );
        let devices = Devices::new(view, Rows::rollups(level), bucket_span_ns, ordinals);
        let flow = devices.scan(range, extents.of(type_number), &mut |at, bucket_ns, value| match visit(
            level,
            bucket_ns,
            ordinals[at],
            value,
        ) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        })?;
        if let ControlFlow::Break(error) = flow {
            return Err(error);
        }
    }
    Ok(())
}

/// Buckets to look at again.
#[derive(Default)]
pub(super) struct Stale(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    buckets: BTreeSet<(u32, i64)>,
    /// Up to which buckets of a type were looked for: what changes behind is found by looking on.
    looked: BTreeMap<u32, i64>,
    /// How often all were forgotten, because they were too many.
    forgotten: u64,
}

impl Stale {
    /// Notes buckets that changed.
    pub(super) fn note(&self, changed: &BTreeSet<(u32, i64)>) {
        if changed.is_empty() {
            return;
        }
        let mut stale = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { buckets, looked, .. } = &mut *stale;
        let is_passed = |(of, bucket_ns): &&(u32, i64)| looked.get(of).is_some_and(|before_ns| bucket_ns < before_ns);
        buckets.extend(changed.iter().filter(is_passed));
        if buckets.len() > STALE_MAX {
            buckets.clear();
            stale.forgotten += 1;
        }
    }
}

impl Chunk<'_> {
    /// The refusal of a fragment whose bucket is there as rollups alone.
    pub(super) fn sealed(&self, type_number: u32, bucket_ns: i64) -> Option<Failure> {
        let before_ns = self.state.rollups.sealed.of(type_number)?;
        (bucket_ns < before_ns).then(|| {
            failure(
                code::OUT_OF_RANGE,
                "TIME_TOO_OLD",
                format!("raw points before {before_ns} are gone, their rollups stay as they are"),
            )
        })
    }

    /// Takes the rollups of a bucket away, which is about to change.
    pub(super) fn unroll(&mut self, type_number: u32, bucket_ns: i64, ordinal: u32) {
        let levels = self
            .state
            .rollups
            .last
            .range((type_number, 0)..=(type_number, u32::MAX));
        for (level, last) in levels {
            if bucket_ns <= *last {
                let key = keys::rollup(*level, bucket_ns, ordinal);
                self.batch.delete(Family::Meta, &key);
            }
        }
        self.changed.insert((type_number, bucket_ns));
    }

    /// Makes rollups of buckets, those that are there.
    pub(super) fn roll_up(
        &mut self,
        type_number: u32,
        roll_up: &RollUp,
        format: Format,
    ) -> Result<Removed, StoreError> {
        let view = self.db.view();
        let level = (type_number, roll_up.length_s);
        let length_ns = i64::from(roll_up.length_s) * NS_PER_S;
        let checks: Vec<Checks> = roll_up.properties.iter().map(checks).collect();
        let rolled: Vec<Rolled<'_>> = roll_up.properties.iter().zip(&checks).map(rolled).collect();
        let mut made = Removed::default();
        for of in &roll_up.buckets {
            for ordinal in &of.ordinals {
                let key = keys::block(type_number, of.bucket_ns, *ordinal);
                let Some(value) = view.get(Family::Blocks, &key)? else {
                    continue;
                };
                // As one: where its blocks are cut differs between replicas, and sums of doubles with it.
                let value = bucket::encode(&bucket::decode(&value, None)?);
                let key = keys::rollup(level, of.bucket_ns, *ordinal);
                let Some(rollup) = rollup::roll_up(&value, format, (roll_up.rule, length_ns), &rolled)? else {
                    continue;
                };
                self.batch.put(Family::Meta, &key, &rollup);
                self.state.rollups.note(level, of.bucket_ns);
                made.buckets += 1;
            }
        }
        Ok(made)
    }

    /// Cuts the rollups of some devices whose raw points are gone for their age, by a command that names no edges; which devices had any
    /// to cut.
    pub(super) fn cut_rollups(
        &mut self,
        view: &View<'_>,
        type_number: u32,
        records: &RemoveRecords,
    ) -> Result<BTreeSet<u32>, StoreError> {
        let mut cut = BTreeSet::new();
        let batch = &mut self.batch;
        let range = (records.from_ns, records.to_ns);
        let devices = (type_number, &records.ordinals[..], records.bucket_span_ns);
        each_sealed(
            view,
            devices,
            self.extents,
            range,
            |level, bucket_ns, ordinal, rollup| {
                let length_ns = i64::from(level.1) * NS_PER_S;
                let rest = rollup::without(rollup, length_ns, range.0, range.1)?;
                let key = keys::rollup(level, bucket_ns, ordinal);
                match rest {
                    Some(rest) if rest == rollup => return Ok(()),
                    Some(rest) => batch.put(Family::Meta, &key, &rest),
                    None => batch.delete(Family::Meta, &key),
                }
                cut.insert(ordinal);
                Ok(())
            },
        )?;
        Ok(cut)
    }

    /// Where buckets go for their age: the first one that has to stay because a device misses a rollup of it. From then on
    /// nothing is written before it.
    pub(super) fn seal(&mut self, type_number: u32, before_ns: i64, lengths_s: &[u32]) -> Result<i64, StoreError> {
        let view = self.db.view();
        let lower = keys::block(type_number, i64::MIN, 0);
        let upper = keys::block(type_number, before_ns, 0);
        let mut before_ns = before_ns;
        let mut scan = view.scan(Family::Blocks, &lower, Some(upper.to_vec()))?;
        'buckets: while let Some((key, _)) = scan.next()?.filter(|_| !lengths_s.is_empty()) {
            let (_, bucket_ns, ordinal) = keys::decode_block(key)?;
            for length_s in lengths_s {
                let key = keys::rollup((type_number, *length_s), bucket_ns, ordinal);
                if view.get(Family::Meta, &key)?.is_none() {
                    before_ns = bucket_ns;
                    break 'buckets;
                }
            }
        }
        let seals = &self.state.rollups.sealed;
        if seals.of(type_number).is_none_or(|sealed_ns| before_ns > sealed_ns) {
            seals.set(type_number, before_ns);
            self.batch
                .put(Family::Meta, &keys::seal(type_number), &before_ns.to_be_bytes());
        }
        Ok(before_ns)
    }

    /// Removes the rollups of a length of buckets that start before a time.
    pub(super) fn remove_rollups(&mut self, level: Level, before_ns: i64) {
        let lower = keys::rollup(level, i64::MIN, 0);
        let upper = keys::rollup(level, before_ns, 0);
        self.batch.delete_range(Family::Meta, &lower, &upper);
    }
}

fn checks(property: &RolledProperty) -> Checks {
    Checks {
        min: property.min,
        max: property.max,
        spike: property.spike,
        neighbours_ns: property.neighbours_ns,
        ..Checks::default()
    }
}

fn rolled<'c>((property, checks): (&RolledProperty, &'c Checks)) -> Rolled<'c> {
    Rolled {
        property: PropertyNumber(property.number),
        edge: match property.end_closed {
            true => Edge::EndClosed,
            false => Edge::StartClosed,
        },
        choice: Choice {
            accepted: Accepted(property.accepted),
            doubted: Stated::NOTHING.suspects,
            checks,
            suspect: Suspects::Count,
        },
        follows: match property.sequence() {
            RolledSequence::Unspecified => None,
            RolledSequence::Counter => Some(Follows::Counter(property.wrap)),
            RolledSequence::Linear => Some(Follows::Linear(property.max_gap_ns)),
            RolledSequence::Held => Some(Follows::Held(property.max_gap_ns)),
            RolledSequence::State => Some(Follows::State(property.max_gap_ns)),
        },
    }
}

/// Buckets of a type without rollups, to be made.
#[derive(Debug, Default)]
pub struct Missing {
    /// Bucket start and ordinals.
    pub buckets: Vec<(i64, Vec<u32>)>,
    /// Where to go on; `None`: that was all.
    pub next_ns: Option<i64>,
}

impl Shard {
    /// The time before which raw points of a type are gone for their age and only rollups are left; asked for after reading, it says
    /// so of all that was missed.
    #[must_use]
    pub fn sealed_before(&self, type_number: u32) -> Option<i64> {
        self.seals.of(type_number)
    }

    /// Buckets that start from a time on and before another whose devices miss a rollup of a length by a rule: about `most`
    /// devices of buckets, no more than `looked_at` buckets are looked at.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn rollups_missing(
        &self,
        level: Level,
        rule: u64,
        (from_ns, before_ns): (i64, i64),
        most: usize,
    ) -> Result<Missing, StoreError> {
        let view = self.store.db().view();
        let mut missing = Missing::default();
        let mut scan = view.scan(
            Family::Blocks,
            &keys::block(level.0, from_ns, 0),
            Some(keys::block(level.0, before_ns, 0).to_vec()),
        )?;
        let mut found = 0;
        while let Some((key, _)) = scan.next()? {
            let (_, bucket_ns, ordinal) = keys::decode_block(key)?;
            if found >= most && missing.buckets.last().is_none_or(|(last, _)| *last != bucket_ns) {
                missing.next_ns = Some(bucket_ns);
                break;
            }
            let rollup = view.get(Family::Meta, &keys::rollup(level, bucket_ns, ordinal))?;
            let is_made =
                |rollup: &[u8]| Rollup::open(rollup, i64::from(level.1) * NS_PER_S).is_ok_and(|made| made.rule == rule);
            if rollup.is_some_and(|rollup| is_made(&rollup)) {
                continue;
            }
            found += 1;
            match missing.buckets.last_mut() {
                Some((last, ordinals)) if *last == bucket_ns => ordinals.push(ordinal),
                _ => missing.buckets.push((bucket_ns, vec![ordinal])),
            }
        }
        Ok(missing)
    }

    /// Buckets of a type that changed since the last time, of those that were looked for by then; now all before a time will be. With
    /// them what changes when some were forgotten, in this shard's memory or with it.
    pub fn take_stale(&self, type_number: u32, before_ns: i64) -> (BTreeSet<i64>, u64) {
        let mut stale = self.stale.0.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = stale.looked.entry(type_number).or_insert(before_ns);
        *looked = before_ns.max(*looked);
        let of_type = (type_number, i64::MIN)..=(type_number, i64::MAX);
        let ours = stale.buckets.range(of_type).map(|(_, bucket_ns)| *bucket_ns).collect();
        stale.buckets.retain(|(of, _)| *of != type_number);
        (ours, self.owner << 32 | stale.forgotten & u64::from(u32::MAX))
    }

    /// Whether there is a rollup of any length of a bucket that starts before a time and is not sealed.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn has_rollups_to_seal(&self, type_number: u32, before_ns: i64) -> Result<bool, StoreError> {
        let view = self.store.db().view();
        let sealed_ns = sealed_before(&view, type_number)?;
        if sealed_ns >= before_ns {
            return Ok(false);
        }
        for (level, _) in levels(&view, Some(type_number))? {
            let upper = keys::rollup(level, before_ns, 0).to_vec();
            let mut scan = view.scan(Family::Meta, &keys::rollup(level, sealed_ns, 0), Some(upper))?;
            if scan.next()?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is a rollup of a bucket that starts before a time.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn has_rollups_before(&self, level: Level, before_ns: i64) -> Result<bool, StoreError> {
        let view = self.store.db().view();
        let upper = keys::rollup(level, before_ns, 0).to_vec();
        let mut scan = view.scan(Family::Meta, &keys::rollups(level), Some(upper))?;
        Ok(scan.next()?.is_some())
    }
}
