//! Where rows may not go any more: times whose raw points are gone for their age, as each shard of a batch says.
//!
//! ```text
//! rows older than anything that could be sealed? -> the seal of each of their shards, asked lately -> bad rows by number
//! ```
//! Never here: sealing (an entry of a shard's log does it, and applying refuses what comes later all the same). Invariant: live
//! rows ask nobody; a seal only ever rises, so one that was asked a moment ago refuses nothing that a shard would take.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidemark_proto::peer::ShardResolve;
use tidemark_proto::v1::Batch;

use super::encode::Target;
use super::ingest::Writes;
use crate::catalog::types::TypeDef;
use crate::clock::{Instant, monotonic};
use crate::error::{Reason, Result};
use crate::shard::bucket_start;
use crate::wire::batch::{BadRows, is_test};

/// Newer rows are in no sealed bucket: points are kept for a day at least. The hour is for clocks that differ.
const YOUNG_NS: i64 = 23 * 3_600 * 1_000_000_000;
/// A seal is asked for again after so long.
const KNOWN_FOR: Duration = Duration::from_secs(2);

/// What a seal belongs to: shard, type, and days that the type keeps points; with another number of days it is asked anew.
pub(super) type SealOf = (u32, u32, i64);

/// Raw points before a time are gone, as a shard said once.
#[derive(Copy, Clone, Debug)]
pub(super) struct Seal {
    before_ns: i64,
    asked: Instant,
}

impl Writes {
    /// Refuses a batch that has rows where a shard takes none any more, by their numbers. `targets` are by position in the
    /// batch's list of devices.
    pub(super) async fn check_seals(
        &self,
        batch: &Batch,
        def: &TypeDef,
        targets: &[Target],
        (stamp_ns, deadline): (i64, Instant),
    ) -> Result<()> {
        let young_ns = stamp_ns.saturating_sub(YOUNG_NS);
        let shard = |row: usize| {
            let device = batch.device_index.get(row).map_or(0, |&index| index as usize);
            targets.get(device).map_or(0, |target| target.shard)
        };
        // Test points are in no rollup, so nothing is sealed for them.
        let is_old = |(row, t): &(usize, &i64)| **t < young_ns && !is_test(batch, *row);
        let old = || batch.observed_at_ns.iter().enumerate().filter(is_old);
        let shards: BTreeSet<u32> = old().map(|(row, _)| shard(row)).collect();
        if shards.is_empty() {
            return Ok(());
        }
        let asked = shards.iter().map(|shard| self.sealed_before(*shard, def, deadline));
        let seals = futures_util::future::try_join_all(asked).await?;
        let seals: BTreeMap<u32, i64> = shards.into_iter().zip(seals).collect();
        let mut bad = BadRows::new(self.limits.rows_named_max);
        for (row, t) in old() {
            let before_ns = seals.get(&shard(row)).copied().unwrap_or(i64::MIN);
            if bucket_start(*t, def.bucket_span_ns) < before_ns {
                bad.push(row, Reason::TimeTooOld, "observed_at_ns", || {
                    format!("raw points before {before_ns} are gone, their rollups stay as they are")
                });
            }
        }
        bad.into_result()
    }

    async fn sealed_before(&self, shard: u32, def: &TypeDef, deadline: Instant) -> Result<i64> {
        let of = (shard, def.number(), def.stored.retention_days);
        if let Some(seal) = self.seals.get(&of).filter(|seal| seal.asked.elapsed() < KNOWN_FOR) {
            return Ok(seal.before_ns);
        }
        let asked = monotonic();
        let resolve = ShardResolve {
            ids: Vec::new(),
            seal_of_type: def.number(),
        };
        let resolved = self.ask(shard, resolve, deadline).await?;
        // A node of before says nothing: its shard refuses by itself.
        let before_ns = resolved.sealed_before_ns.unwrap_or(i64::MIN);
        self.seals.insert(of, Seal { before_ns, asked });
        Ok(before_ns)
    }
}
