//! The command that stores points: one merge per fragment, as encoded at the edge.
//!
//! Never here: decoding of columns. Invariant: a fragment that would make a later merge fail on every replica (it does
//! not parse, or no device has its ordinal) is refused here, on every replica alike.

use std::collections::BTreeSet;

use tidemark_proto::peer::{Fragment, WriteFragments, applied};
use tidemark_proto::v1::WriteResponse;
use tidemark_series::bucket;

use super::apply::{Chunk, Outcome, code, failure};
use super::keys::{self, Slot};
use super::producers::Seen;
use crate::store::{Family, StoreError};

impl Chunk<'_> {
    /// Stores the fragments, unless the producer sent them before.
    pub(super) fn write(&mut self, stamp_ns: i64, write: &WriteFragments) -> Result<Outcome, StoreError> {
        match self.seen(write)? {
            Seen::New => {}
            Seen::Stored(slot) => return Ok(Ok(answer(slot.rows, slot.points, true))),
            Seen::Refused(failure) => return Ok(Err(failure)),
        }
        if let Err(message) = self.check(write) {
            return Ok(Err(failure(code::INTERNAL, "BAD_FRAGMENT", message)));
        }
        let sealed = |fragment: &Fragment| self.sealed(write.type_number, fragment.bucket_ns);
        if let Some(refused) = write.fragments.iter().find_map(sealed) {
            return Ok(Err(refused));
        }
        for fragment in &write.fragments {
            self.unroll(write.type_number, fragment.bucket_ns, fragment.ordinal);
            let key = keys::block(write.type_number, fragment.bucket_ns, fragment.ordinal);
            self.batch.merge(Family::Blocks, &key, &fragment.block);
            self.widen(write.type_number, fragment.bucket_ns);
            self.note(write.type_number, fragment);
        }
        let with_latest: BTreeSet<u32> = write.latest.iter().map(|latest| latest.ordinal).collect();
        let themselves = write
            .fragments
            .iter()
            .filter(|fragment| !with_latest.contains(&fragment.ordinal));
        for fragment in write.latest.iter().chain(themselves) {
            let key = keys::latest(write.type_number, fragment.ordinal);
            self.batch.merge(Family::Latest, &key, &fragment.block);
            self.changes.newest.push(fragment.ordinal);
        }
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

    /// Notes the earliest time of a fragment that was checked, where anybody wants to know.
    fn note(&mut self, type_number: u32, fragment: &Fragment) {
        let Some(noted) = &mut self.noted else { return };
        if let Some(Ok(first)) = bucket::blocks(&fragment.block).next() {
            noted.push((type_number, fragment.ordinal, first.first_ns()));
        }
    }

    fn check(&self, write: &WriteFragments) -> Result<(), String> {
        for (index, fragment) in write.fragments.iter().enumerate() {
            self.check_fragment(fragment, Some(fragment.bucket_ns))
                .map_err(|what| format!("fragments[{index}] {what}"))?;
        }
        for (index, fragment) in write.latest.iter().enumerate() {
            self.check_fragment(fragment, None)
                .map_err(|what| format!("latest[{index}] {what}"))?;
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
