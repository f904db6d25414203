//! What was known of a device before a record came, where the follower has not read that far back itself; and the silence that
//! the record ends, where nobody was there to tell it by the clock.
//!
//! ```text
//! log     ... | cursor | . . . . . . . | entry, stamp s | . . .
//! device    t0         |   silent from t0 + limit on    | t1
//! ```
//! Never here: silence that lasts (`silence`). Invariant: judged is by the stamp of the entry, as the clock would have judged then,
//! so a subscriber that goes on is told what it would have been told; a silence and the record that ends it are one event, so no
//! cursor lies between them. A record that is too old to end it tells nothing of it.

use std::ops::ControlFlow;

use tidemark_proto::peer::Fragment;
use tidemark_proto::v1::Silence;
use tidemark_series::bucket;

use super::choice::Device;
use super::follower::{Follower, Here, corrupt};
use crate::catalog::types::TypeDef;
use crate::error::{Error, Result};
use crate::raft::state::store_error;

/// Buckets of a device that are looked at for what was there before.
const LOOKED_AT_MAX: usize = 16;

/// A silence that a record ends.
pub(super) struct Ended {
    ordinal: u32,
    silence: Silence,
}

impl Ended {
    /// What a subscriber is told of them, the oldest first.
    pub(super) fn told(ended: &[Ended]) -> Vec<Silence> {
        let mut told: Vec<Silence> = ended.iter().map(|ended| ended.silence.clone()).collect();
        told.sort_by(|a, b| (a.since_ns, &a.device).cmp(&(b.since_ns, &b.device)));
        told
    }
}

impl Follower {
    /// The newest record of a device before an entry that brings it `value`. Of what was there before the follower began, those
    /// records count that were received before the entry was stamped: one that a later write corrected counts no more.
    pub(super) fn before(
        &mut self,
        here: &Here<'_>,
        def: &TypeDef,
        (ordinal, value): (u32, &[u8]),
        stamp_ns: i64,
    ) -> Result<Option<i64>> {
        if let Some(known) = self.known.before(ordinal) {
            return Ok(Some(known));
        }
        let receipts = bucket::decode(value, Some(&[])).map_err(corrupt)?.received_at;
        // A history brings receipts of its own: nothing is told apart by them.
        if receipts.iter().any(|received| *received != stamp_ns) {
            return Ok(None);
        }
        let to_ns = self
            .known
            .newest(ordinal)
            .map_or(i64::MAX, |newest| newest.saturating_add(1));
        let after_ns = self.silent_after(here.catalog, def.number()).unwrap_or(i64::MAX);
        let (mut looked_at, mut judged_ns) = (0, i64::MIN);
        let look = |value: &[u8]| {
            looked_at += 1;
            let records = match bucket::decode(value, Some(&[])).map_err(corrupt) {
                Err(error) => return ControlFlow::Break(Err(error)),
                Ok(records) => records,
            };
            let mut found = None;
            for (observed, received) in records.observed_at.iter().zip(&records.received_at) {
                if *received >= stamp_ns {
                    continue;
                }
                found = Some(*observed);
                if observed.saturating_add(after_ns) > *received {
                    judged_ns = judged_ns.max(*received);
                }
            }
            match found {
                Some(observed) => ControlFlow::Break(Ok(Some(observed))),
                None if looked_at >= LOOKED_AT_MAX => ControlFlow::Break(Ok(None)),
                None => ControlFlow::Continue(()),
            }
        };
        let (device, range) = ((def.number(), ordinal), (i64::MIN, to_ns));
        let scanned: ControlFlow<Result<Option<i64>>> = here
            .shard
            .scan_device_back(device, def.bucket_span_ns, range, look)
            .map_err(store_error)?;
        let found = match scanned {
            ControlFlow::Break(found) => found?,
            ControlFlow::Continue(()) => None,
        };
        if let Some(observed) = found {
            self.known.learn(ordinal, observed);
            if self.asked.silence {
                // With each of its records before that was young enough to end a silence, it was told.
                self.told_by_entry.insert(ordinal, judged_ns);
            }
        }
        Ok(found)
    }

    /// The silence of a device that its first one of some fragments met, unless it was told. `before` is its newest record before.
    pub(super) fn ended(
        &self,
        here: &Here<'_>,
        device: &Device,
        fragments: &[Fragment],
        (before, stamp_ns): (Option<i64>, i64),
    ) -> Result<Option<Ended>> {
        let Some(ordinal) = fragments.first().map(|fragment| fragment.ordinal) else {
            return Ok(None);
        };
        let after_ns = self.silent_after(here.catalog, device.type_number());
        let (Some(told_ns), Some(after_ns)) = (self.told_ns(ordinal), after_ns) else {
            return Ok(None);
        };
        let last_ns = match before {
            Some(before) => before,
            None => self.registered_at(here, ordinal)?,
        };
        let since_ns = last_ns.saturating_add(after_ns);
        if since_ns <= told_ns || since_ns > stamp_ns {
            return Ok(None);
        }
        // A record that is as old ends nothing: the next one that does tells of it, or the clock. Told here, it would be told again to who
        // goes on behind this entry, whose cursor knows of silences by the clock alone.
        if newest_of(fragments, ordinal)?.saturating_add(after_ns) <= stamp_ns {
            return Ok(None);
        }
        let def = here.catalog.type_by_number(device.type_number());
        let def = def.ok_or_else(|| Error::internal("a type is not known any more"))?;
        let silence = Silence {
            device: device.id().to_owned(),
            device_type: def.id().to_owned(),
            last_observed_at_ns: before.unwrap_or(0),
            since_ns,
            ended: true,
        };
        Ok(Some(Ended { ordinal, silence }))
    }

    /// Takes notice that silences were told with an entry of this stamp.
    pub(super) fn note_ended(&mut self, ended: &[Ended], stamp_ns: i64) {
        for ended in ended {
            self.told_by_entry.insert(ended.ordinal, stamp_ns);
        }
    }

    /// When a device was registered.
    fn registered_at(&self, here: &Here<'_>, ordinal: u32) -> Result<i64> {
        if let Some(at) = self.registered.get(&ordinal) {
            return Ok(*at);
        }
        let stored = here.shard.devices_by_ordinal(&[ordinal]).map_err(store_error)?;
        let device = stored.into_iter().flatten().find_map(|stored| stored.device);
        Ok(device.map_or(0, |device| device.registered_at_ns))
    }
}

/// The newest record of a device in those fragments that begin with its own.
fn newest_of(fragments: &[Fragment], ordinal: u32) -> Result<i64> {
    let mut newest = i64::MIN;
    for fragment in fragments.iter().take_while(|fragment| fragment.ordinal == ordinal) {
        for block in bucket::blocks(&fragment.block) {
            newest = newest.max(block.map_err(corrupt)?.last_ns());
        }
    }
    Ok(newest)
}
