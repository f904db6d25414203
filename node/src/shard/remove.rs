//! The command that removes points: records of devices over a time, or all old buckets of a type.
//!
//! ```text
//! records   a bucket inside the range goes whole; one at its edge is read, cut and put back; then the newest values of
//!           the device are looked for again where they were of the range: from there back in time, until all are found
//! buckets   one removal of a range of keys; newest values stay, so that a device that fell silent keeps its last word
//! ```
//!
//! Rollups whose points are gone are cut with the records (see `alone`), where a command asks for that; before it could, every window beside
//! the range went too.
//!
//! Points of report kind test are removed as those of a type of their own ([`keys::test_lane`]), by commands of their own: nothing is
//! derived from them.
//!
//! Never here: which devices a selector means, when points are too old. Invariant: a removal looks at the database, so it is
//! the first entry of its chunk ([`begins_chunk`]): what came before it is all there.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tidemark_proto::peer::{RemoveRecords, Removed, Upkeep, applied, upkeep::What};
use tidemark_series::rollup::Format;
use tidemark_series::{Block, PropertyNumber, Records, bucket, latest};

use super::alone::{Edges, Removing};
use super::apply::{Chunk, Outcome, code, failure};
use super::read::{Devices, Rows};
use super::{Shard, keys};
use crate::store::{Family, StoreError, View};

/// Field of `ShardCommand` that carries an upkeep.
const UPKEEP: u32 = 7;

/// Whether an encoded command must be the first of its chunk. Looks at field numbers only.
#[must_use]
pub fn begins_chunk(command: &[u8]) -> bool {
    let mut rest = command;
    while rest.has_remaining() {
        let Ok((field, wire_type)) = decode_key(&mut rest) else {
            return false;
        };
        if field == UPKEEP {
            return true;
        }
        if skip_field(wire_type, field, &mut rest, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}

/// What a device has within a range of time.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Records.
    pub records: u64,
    /// Buckets that hold them, and rollups that hold the windows.
    pub buckets: u64,
    /// Windows of rollups whose points are gone.
    pub windows: u64,
    /// Some of its newest values are of the range.
    pub beside: bool,
    /// Its type has rollups, whether or not any of them hold something of the range.
    pub rolled: bool,
}

impl Shard {
    /// What each device has with `from_ns <= observed_at < to_ns`, in the order of `ordinals`, given the edges of windows.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn count_records(
        &self,
        type_number: u32,
        ordinals: &[u32],
        bucket_span_ns: i64,
        (from_ns, to_ns): (i64, i64),
        edges: &Edges,
    ) -> Result<Vec<Counted>, StoreError> {
        let view = self.store.db().view();
        let removing = Removing {
            devices: (type_number, ordinals, bucket_span_ns),
            range: (from_ns, to_ns),
            edges,
        };
        let may_meet = removing.may_meet(&view)?;
        let devices = Devices::new(&view, Rows::blocks(type_number), bucket_span_ns, ordinals);
        let nothing = Counted {
            rolled: may_meet,
            ..Counted::default()
        };
        let (mut counted, mut there) = (vec![nothing; ordinals.len()], HashSet::new());
        let flow = devices.scan(
            (from_ns, to_ns),
            self.extents.of(type_number),
            &mut |at, bucket_ns, value| {
                there.extend(may_meet.then_some((at, bucket_ns)));
                match Inside::of(value, from_ns, to_ns) {
                    Ok(None) => {}
                    Ok(Some(inside)) => {
                        counted[at].records += inside.rows;
                        counted[at].buckets += 1;
                    }
                    Err(error) => return ControlFlow::Break(error),
                }
                ControlFlow::Continue(())
            },
        )?;
        if let ControlFlow::Break(error) = flow {
            return Err(error);
        }
        let keys: Vec<_> = ordinals
            .iter()
            .map(|ordinal| keys::latest(type_number, *ordinal))
            .collect();
        let newest = view.multi_get(Family::Latest, &keys, keys.is_sorted())?;
        for (counted, value) in counted.iter_mut().zip(newest) {
            let Some(value) = value else { continue };
            counted.beside = !newest_inside(&value, from_ns, to_ns)?.is_empty();
        }
        if may_meet {
            removing.each(&view, &self.extents, &there, |loses| {
                counted[loses.at].windows += loses.cut.windows;
                counted[loses.at].buckets += 1;
            })?;
        }
        Ok(counted)
    }

    /// Start of the first bucket of a type, if it is before a time.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn first_bucket_before(&self, type_number: u32, before_ns: i64) -> Result<Option<i64>, StoreError> {
        let view = self.store.db().view();
        let (lower, upper) = old_buckets(type_number, before_ns);
        let mut scan = view.scan(Family::Blocks, &lower, Some(upper.to_vec()))?;
        let first = scan.next()?.map(|(key, _)| keys::decode_block(key));
        Ok(first.transpose()?.map(|(_, bucket_ns, _)| bucket_ns))
    }
}

impl Chunk<'_> {
    /// Removes points. `first`: nothing of this chunk came before.
    pub(super) fn upkeep(&mut self, upkeep: &Upkeep, first: bool) -> Result<Outcome, StoreError> {
        if !first {
            return Err(StoreError::UnknownCommand(
                "a removal that does not begin its chunk".into(),
            ));
        }
        if let Some(refused) = self.restoring() {
            return Ok(Err(refused));
        }
        let removed = match &upkeep.what {
            Some(What::RemoveRecords(records) | What::RemoveRecordsAndWindows(records)) => {
                if let Err(message) = self.check_removal(records) {
                    return Ok(Err(failure(code::INTERNAL, "INTERNAL", message)));
                }
                let by_window = matches!(&upkeep.what, Some(What::RemoveRecordsAndWindows(_)));
                self.remove_records(upkeep.type_number, records, by_window)?
            }
            Some(What::RemoveBuckets(buckets)) => {
                let before_ns = match buckets.lengths_s.is_empty() {
                    true => buckets.before_ns,
                    false => self.seal(upkeep.type_number, buckets.before_ns, &buckets.lengths_s)?,
                };
                self.remove_buckets(upkeep.type_number, before_ns)?
            }
            Some(What::SealBuckets(buckets)) => {
                let before_ns = self.seal(upkeep.type_number, buckets.before_ns, &[])?;
                self.remove_buckets(upkeep.type_number, before_ns)?
            }
            Some(What::RollUp(roll_up)) => self.roll_up(upkeep.type_number, roll_up, Format::PointsOnly)?,
            Some(What::RollUpSequences(roll_up)) => self.roll_up(upkeep.type_number, roll_up, Format::WithSequences)?,
            Some(What::RollUpSlots(roll_up)) => {
                let format = Format::WithSlots(roll_up.interval_ns);
                self.roll_up(upkeep.type_number, roll_up, format)?
            }
            Some(What::RemoveRollups(rollups)) => {
                self.remove_rollups((upkeep.type_number, rollups.length_s), rollups.before_ns);
                Removed::default()
            }
            None => return Err(StoreError::UnknownCommand("a removal of no known kind".into())),
        };
        Ok(Ok(applied::Result::Removed(removed)))
    }

    fn check_removal(&self, records: &RemoveRecords) -> Result<(), String> {
        match records.ordinals.last() {
            _ if !records.ordinals.is_sorted_by(|a, b| a < b) => Err("ordinals do not ascend".to_owned()),
            Some(last) if *last >= self.state.next_ordinal => Err(format!("no device has ordinal {last}")),
            _ => Ok(()),
        }
    }

    fn remove_records(
        &mut self,
        type_number: u32,
        records: &RemoveRecords,
        by_window: bool,
    ) -> Result<Removed, StoreError> {
        let view = self.db.view();
        let (from_ns, to_ns, span_ns) = (records.from_ns, records.to_ns, records.bucket_span_ns);
        let mut removed = Removed::default();
        let mut of_devices = BTreeSet::new();
        let devices = Devices::new(&view, Rows::blocks(type_number), span_ns, &records.ordinals);
        let (mut changed, mut there) = (Vec::new(), HashSet::new());
        let batch = &mut self.batch;
        let extent = self.extents.of(type_number);
        let flow = devices.scan((from_ns, to_ns), extent, &mut |at, bucket_ns, value| {
            there.extend(by_window.then_some((at, bucket_ns)));
            let cut = Inside::of(value, from_ns, to_ns).and_then(|inside| match inside {
                Some(inside) if !inside.whole => Ok(Some((inside, without(value, from_ns, to_ns)?))),
                inside => Ok(inside.map(|inside| (inside, Vec::new()))),
            });
            let (inside, rest) = match cut {
                Ok(Some(cut)) => cut,
                Ok(None) => return ControlFlow::Continue(()),
                Err(error) => return ControlFlow::Break(error),
            };
            let ordinal = records.ordinals[at];
            changed.push((bucket_ns, ordinal));
            let key = keys::block(type_number, bucket_ns, ordinal);
            match rest.is_empty() {
                true => batch.delete(Family::Blocks, &key),
                false => batch.put(Family::Blocks, &key, &rest),
            }
            of_devices.insert(ordinal);
            removed.records += inside.rows;
            removed.buckets += 1;
            ControlFlow::Continue(())
        })?;
        if let ControlFlow::Break(error) = flow {
            return Err(error);
        }
        let derived = !keys::is_test_lane(type_number);
        for (bucket_ns, ordinal) in changed.into_iter().filter(|_| derived) {
            self.unroll(type_number, bucket_ns, ordinal);
        }
        if by_window {
            let (devices, windows) = self.cut_alone(&view, type_number, records, &there)?;
            of_devices.extend(devices);
            removed.windows = windows;
        } else {
            of_devices.extend(self.cut_rollups(&view, type_number, records)?);
        }
        for ordinal in &records.ordinals {
            if self.renew_newest(&view, (type_number, *ordinal), records)? {
                of_devices.insert(*ordinal);
            }
        }
        if let Some(noted) = self.noted.as_mut().filter(|_| derived) {
            noted.extend(of_devices.iter().map(|ordinal| (type_number, *ordinal, from_ns)));
        }
        removed.devices = of_devices.len() as u64;
        Ok(removed)
    }

    /// Makes the newest values of a device those of what remains; false where none of them is of the range.
    fn renew_newest(
        &mut self,
        view: &View<'_>,
        (type_number, ordinal): (u32, u32),
        records: &RemoveRecords,
    ) -> Result<bool, StoreError> {
        let (from_ns, to_ns) = (records.from_ns, records.to_ns);
        let key = keys::latest(type_number, ordinal);
        let Some(value) = view.get(Family::Latest, &key)? else {
            return Ok(false);
        };
        let mut missing = newest_inside(&value, from_ns, to_ns)?;
        if missing.is_empty() {
            return Ok(false);
        }
        let mut remaining = Vec::new();
        for block in bucket::blocks(&value) {
            let kept = block?.decode(None)?;
            let inside = kept.rows_between(from_ns, to_ns);
            remaining.push(bucket::encode(&kept.slice_rows(0, inside.start)));
            remaining.push(bucket::encode(&kept.slice_rows(inside.end, kept.len())));
        }
        let one = [ordinal];
        let device = Devices::new(view, Rows::blocks(type_number), records.bucket_span_ns, &one);
        let looked = device.newest_first(from_ns, self.extents.of(type_number), &mut |value| match newest_before(
            value,
            from_ns,
            &mut missing,
            &mut remaining,
        ) {
            Ok(()) if missing.is_empty() => ControlFlow::Break(None),
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Some(error)),
        })?;
        if let ControlFlow::Break(Some(error)) = looked {
            return Err(error);
        }
        let newest = latest::merge_latest(None, remaining.iter().map(Vec::as_slice))?;
        match newest.is_empty() {
            true => self.batch.delete(Family::Latest, &key),
            false => self.batch.put(Family::Latest, &key, &newest),
        }
        if !keys::is_test_lane(type_number) {
            self.changes.newest.push(ordinal);
        }
        Ok(true)
    }

    fn remove_buckets(&mut self, type_number: u32, before_ns: i64) -> Result<Removed, StoreError> {
        let view = self.db.view();
        let (lower, upper) = old_buckets(type_number, before_ns);
        let mut scan = view.scan(Family::Blocks, &lower, Some(upper.to_vec()))?;
        let mut removed = Removed::default();
        while let Some((key, _)) = scan.next()? {
            let (_, bucket_ns, _) = keys::decode_block(key)?;
            removed.buckets += 1;
            match bucket_ns.checked_add(1) {
                Some(next) => scan.seek(&keys::block(type_number, next, 0)),
                None => break,
            }
        }
        if removed.buckets > 0 {
            self.batch.delete_range(Family::Blocks, &lower, &upper);
            self.emptied.push((lower, upper));
        }
        Ok(removed)
    }
}

/// From the first key of a type to the first one that does not start before a time.
fn old_buckets(type_number: u32, before_ns: i64) -> ([u8; 16], [u8; 16]) {
    (
        keys::block(type_number, i64::MIN, 0),
        keys::block(type_number, before_ns, 0),
    )
}

/// Rows of a bucket value within a range of time.
struct Inside {
    rows: u64,
    /// There are no others.
    whole: bool,
}

impl Inside {
    /// `None` where there are none.
    fn of(value: &[u8], from_ns: i64, to_ns: i64) -> Result<Option<Self>, StoreError> {
        let mut found: Option<Self> = None;
        for block in bucket::blocks(value) {
            let block = block?;
            let whole = block.first_ns() >= from_ns && block.last_ns() < to_ns;
            let rows = match whole {
                true => block.rows(),
                false => block
                    .times()?
                    .iter()
                    .filter(|time| (from_ns..to_ns).contains(time))
                    .count(),
            };
            let found = found.get_or_insert(Self { rows: 0, whole: true });
            found.rows += rows as u64;
            found.whole &= whole;
        }
        Ok(found.filter(|inside| inside.rows > 0))
    }
}

/// A bucket value without the rows of a range.
fn without(value: &[u8], from_ns: i64, to_ns: i64) -> Result<Vec<u8>, StoreError> {
    let records = bucket::decode(value, None)?;
    let inside = records.rows_between(from_ns, to_ns);
    let parts = vec![
        records.slice_rows(0, inside.start),
        records.slice_rows(inside.end, records.len()),
    ];
    Ok(bucket::encode(&Records::merge_all(parts)))
}

/// Properties whose newest value is of a range.
fn newest_inside(value: &[u8], from_ns: i64, to_ns: i64) -> Result<Vec<PropertyNumber>, StoreError> {
    let newest = latest::newest_values(value)?;
    let inside = newest.iter().filter(|one| (from_ns..to_ns).contains(&one.observed_at));
    Ok(inside.map(|one| one.property).collect())
}

/// Takes the newest values before a time, of the properties that miss one, from a bucket.
fn newest_before(
    value: &[u8],
    before_ns: i64,
    missing: &mut Vec<PropertyNumber>,
    found: &mut Vec<Vec<u8>>,
) -> Result<(), StoreError> {
    let blocks: Vec<Block<'_>> = bucket::blocks(value).collect::<Result<_, _>>()?;
    for block in blocks.iter().rev().filter(|block| block.first_ns() < before_ns) {
        let wanted: Vec<_> = block.properties().filter(|one| missing.contains(one)).collect();
        if wanted.is_empty() {
            continue;
        }
        let newest = block.decode(Some(&wanted))?.slice_time(i64::MIN, before_ns).newest();
        missing.retain(|one| newest.column(*one).is_none());
        found.push(bucket::encode(&newest));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tidemark_proto::peer::{ShardCommand, TakeDigest, WriteFragments, shard_command::Command};

    use super::*;

    #[test]
    fn a_removal_is_told_by_its_field_alone() {
        let check = |stamp_ns, command, expected| {
            let command = ShardCommand {
                stamp_ns,
                command: Some(command),
            };
            assert_eq!(begins_chunk(&command.encode_to_vec()), expected, "{command:?}");
        };
        check(0, Command::Upkeep(Upkeep::default()), true);
        check(7, Command::Upkeep(Upkeep::default()), true);
        check(7, Command::TakeDigest(TakeDigest { id: 7 }), false);
        check(7, Command::Write(WriteFragments::default()), false);
        assert!(!begins_chunk(&[]) && !begins_chunk(&[0xff; 3]));
    }
}
