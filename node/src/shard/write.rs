//! The commands that store points: one merge per fragment, as encoded at the edge.
//!
//! Points of report kind test lie apart, under a number of their own ([`keys::test_lane`]): nothing else that a shard keeps or notes of
//! points (rollups, seals, alerts, newest values in memory) is touched by them.
//!
//! Never here: decoding of columns. Invariant: a fragment that would make a later merge fail on every replica (it does
//! not parse, or no device has its ordinal) is refused here, on every replica alike.

use std::collections::BTreeSet;

use tidemark_proto::peer::{Fragment, WriteFragments, WriteWithTests, applied};
use tidemark_proto::v1::WriteResponse;
use tidemark_series::bucket;

use super::apply::{Chunk, Outcome, code, failure};
use super::keys::{self, Slot};
use super::producers::Seen;
use crate::store::{Family, StoreError};

/// Points of report kind test of a write.
#[derive(Copy, Clone, Default)]
struct Tests<'w> {
    fragments: &'w [Fragment],
    latest: &'w [Fragment],
}

impl Chunk<'_> {
    /// Stores the fragments, unless the producer sent them before.
    pub(super) fn write(&mut self, stamp_ns: i64, write: &WriteFragments) -> Result<Outcome, StoreError> {
        self.write_both(stamp_ns, write, Tests::default())
    }

    /// The same with points of report kind test among them.
    pub(super) fn write_with_tests(&mut self, stamp_ns: i64, both: &WriteWithTests) -> Result<Outcome, StoreError> {
        let tests = Tests {
            fragments: &both.tests,
            latest: &both.latest_tests,
        };
        match &both.write {
            Some(write) => self.write_both(stamp_ns, write, tests),
            None => Ok(Err(failure(code::INTERNAL, "BAD_FRAGMENT", "of no type".to_owned()))),
        }
    }

    fn write_both(&mut self, stamp_ns: i64, write: &WriteFragments, tests: Tests<'_>) -> Result<Outcome, StoreError> {
        // Records of the backup take the place of what is there.
        if let Some(refused) = self.restoring() {
            return Ok(Err(refused));
        }
        match self.seen(write)? {
            Seen::New => {}
            Seen::Stored(slot) => return Ok(Ok(answer(slot.rows, slot.points, true))),
            Seen::Refused(failure) => return Ok(Err(failure)),
        }
        let checked = self.check(("fragments", &write.fragments), ("latest", &write.latest));
        if let Err(message) =
            checked.and_then(|()| self.check(("tests", tests.fragments), ("latest_tests", tests.latest)))
        {
            return Ok(Err(failure(code::INTERNAL, "BAD_FRAGMENT", message)));
        }
        let sealed = |fragment: &Fragment| self.sealed(write.type_number, fragment.bucket_ns);
        if let Some(refused) = write.fragments.iter().find_map(sealed) {
            return Ok(Err(refused));
        }
        for fragment in &write.fragments {
            self.unroll(write.type_number, fragment.bucket_ns, fragment.ordinal);
            self.note(write.type_number, fragment);
        }
        self.merge(write.type_number, &write.fragments, &write.latest);
        self.merge(keys::test_lane(write.type_number), tests.fragments, tests.latest);
        if !write.producer.is_empty() {
            let slot = Slot {
                sequence: write.sequence,
                digest: write.digest,
                rows: write.rows,
                points: write.points,
                stamp_ns,
            };
            self.remember(&write.producer, slot)?;
        }
        Ok(Ok(answer(write.rows, write.points, false)))
    }

    /// Merges fragments into their buckets, and into newest values what is newest of each device: of `latest`, or the fragment itself.
    fn merge(&mut self, number: u32, fragments: &[Fragment], latest: &[Fragment]) {
        for fragment in fragments {
            let key = keys::block(number, fragment.bucket_ns, fragment.ordinal);
            self.batch.merge(Family::Blocks, &key, &fragment.block);
            self.widen(number, fragment.bucket_ns);
        }
        let with_latest: BTreeSet<u32> = latest.iter().map(|latest| latest.ordinal).collect();
        let is_newest = |fragment: &&Fragment| !with_latest.contains(&fragment.ordinal);
        for fragment in latest.iter().chain(fragments.iter().filter(is_newest)) {
            let key = keys::latest(number, fragment.ordinal);
            self.batch.merge(Family::Latest, &key, &fragment.block);
            if !keys::is_test_lane(number) {
                self.changes.newest.push(fragment.ordinal);
            }
        }
    }

    /// Notes the earliest time of a fragment that was checked, where anybody wants to know.
    fn note(&mut self, type_number: u32, fragment: &Fragment) {
        let Some(noted) = &mut self.noted else { return };
        if let Some(Ok(first)) = bucket::blocks(&fragment.block).next() {
            noted.push((type_number, fragment.ordinal, first.first_ns()));
        }
    }

    /// Checks fragments and what is newest of them, each under the name of its list.
    fn check(&self, fragments: (&str, &[Fragment]), latest: (&str, &[Fragment])) -> Result<(), String> {
        for (index, fragment) in fragments.1.iter().enumerate() {
            self.check_fragment(fragment, Some(fragment.bucket_ns))
                .map_err(|what| format!("{}[{index}] {what}", fragments.0))?;
        }
        for (index, fragment) in latest.1.iter().enumerate() {
            self.check_fragment(fragment, None)
                .map_err(|what| format!("{}[{index}] {what}", latest.0))?;
        }
        Ok(())
    }

    /// `bucket_ns` where the fragment goes into a bucket: only there must its blocks ascend in time.
    fn check_fragment(&self, fragment: &Fragment, bucket_ns: Option<i64>) -> Result<(), String> {
        if fragment.ordinal >= self.state.next_ordinal {
            return Err(format!("names ordinal {}, which no device has", fragment.ordinal));
        }
        if fragment.block.is_empty() {
            return Err("is empty".to_owned());
        }
        let mut last_ns = None;
        for block in bucket::blocks(&fragment.block) {
            let block = block.map_err(|corrupt| format!("does not parse: {corrupt}"))?;
            let Some(bucket_ns) = bucket_ns else { continue };
            if block.first_ns() < bucket_ns || last_ns.is_some_and(|last_ns| block.first_ns() <= last_ns) {
                return Err("has a block before its bucket or its predecessor".to_owned());
            }
            if block.may_repeat_times() {
                return Err("repeats a time".to_owned());
            }
            last_ns = Some(block.last_ns());
        }
        Ok(())
    }
}

fn answer(rows: u64, points: u64, duplicate: bool) -> applied::Result {
    applied::Result::Write(WriteResponse {
        rows,
        points,
        duplicate,
    })
}
