//! Retention: the leader of a shard has the buckets of each type removed that end before the type keeps points.
//!
//! ```text
//! |--- bucket ---|--- bucket ---|--- bucket ---|        now - retention = x: the bucket that holds x and all later ones
//!                      x                                stay, so a point is gone at most one bucket span after its time
//! ```
//!
//! Points of report kind test go at the same age. They have no rollups, so they wait for none.
//!
//! Never here: removing anything (an entry of the shard's log does). Invariant: the clock is read by the leader alone, and
//! what it decides is in the entry; it decides nothing where most nodes have another time (see `clocks`). Newest values
//! stay, so that a device that fell silent keeps its last word.

use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{RemoveBuckets, RemoveRollups};

use super::Deletes;
use super::clocks::confirmed_now_ns;
use super::rollups::oldest_rollup_ns;
use crate::catalog::CATALOG_GROUP;
use crate::catalog::types::TypeDef;
use crate::clock::monotonic;
use crate::error::Result;
use crate::raft::machine::blocking;
use crate::raft::replica::Replica;
use crate::raft::state::store_error;
use crate::shard::{bucket_start, test_lane};

/// The first look comes sooner: a node that is restarted often should look as well.
const FIRST_AFTER: Duration = Duration::from_secs(30);

impl Deletes {
    /// Runs for ever: removes what is expired of the shards that this node leads, and gives back the space that removals
    /// left in its replicas. `ahead` makes the clock wrong, in tests.
    pub async fn keep_retention(self: Arc<Self>, every: Duration, ahead: Duration) {
        tokio::time::sleep(every.min(FIRST_AFTER)).await;
        loop {
            let confirmed = confirmed_now_ns(self.router.host(), ahead).await;
            for replica in self.router.host().replicas() {
                let group = replica.group();
                if group == CATALOG_GROUP {
                    continue;
                }
                if let Some(now_ns) = confirmed.filter(|_| replica.is_leader()) {
                    let mut removed = self.remove_expired(&replica, now_ns).await;
                    if removed.is_ok() {
                        removed = self.remove_expired_rollups(&replica, now_ns).await;
                    }
                    if let Err(error) = removed {
                        tracing::warn!(group, %error, "what is expired stays for now");
                    }
                }
                let state = replica.state().clone();
                let compacted =
                    blocking(move || state.with_shard(|shard| shard.compact_emptied().map_err(store_error))).await;
                if let Err(error) = compacted {
                    tracing::warn!(group, %error, "the space of expired buckets stays for now");
                }
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Has the expired buckets of every type removed from one shard.
    async fn remove_expired(&self, replica: &Replica, now_ns: i64) -> Result<()> {
        let catalog = self.router.host().catalog()?;
        for (def, tests) in catalog.types().flat_map(|def| [(def, false), (def, true)]) {
            let Some(kept_ns) = def.retention_ns() else { continue };
            let (number, lengths_s) = match tests {
                true => (test_lane(def.number()), Vec::new()),
                false => (def.number(), def.stored.rollups_s.clone()),
            };
            let group = replica.group();
            let before_ns = bucket_start(now_ns.saturating_sub(kept_ns), def.bucket_span_ns);
            while let Some(first_ns) = first_bucket(replica, number, before_ns).await? {
                // Where rollups have to be there each bucket is looked at: one at a time.
                let before_ns = match lengths_s.is_empty() {
                    true => before_ns,
                    false => first_ns.saturating_add(def.bucket_span_ns).min(before_ns),
                };
                let buckets = RemoveBuckets {
                    before_ns,
                    lengths_s: lengths_s.clone(),
                };
                let deadline = monotonic() + self.limits.request_timeout();
                let what = What::RemoveBuckets(buckets);
                let buckets = self.propose(group, number, what, deadline).await?.buckets;
                if buckets == 0 {
                    break;
                }
                self.router.host().metrics().buckets_expired.add(buckets);
                tracing::info!(group, device_type = def.id(), tests, buckets, before_ns, "expired");
            }
        }
        Ok(())
    }

    /// Has rollups removed that are expired. Those of lengths that a type does not have any more stay: points may be gone.
    async fn remove_expired_rollups(&self, replica: &Replica, now_ns: i64) -> Result<()> {
        let catalog = self.router.host().catalog()?;
        let lengths = |def: &Arc<TypeDef>| {
            let of = |length_s: &u32| ((def.number(), *length_s), oldest_rollup_ns(def, now_ns));
            def.stored.rollups_s.iter().map(of).collect::<Vec<_>>()
        };
        for (level, before_ns) in catalog.types().flat_map(lengths) {
            let (length_s, state) = (level.1, replica.state().clone());
            let any = move || state.with_shard(|shard| shard.has_rollups_before(level, before_ns).map_err(store_error));
            if blocking(any).await? {
                let deadline = monotonic() + self.limits.request_timeout();
                let rollups = RemoveRollups { length_s, before_ns };
                self.propose(replica.group(), level.0, What::RemoveRollups(rollups), deadline)
                    .await?;
            }
        }
        Ok(())
    }
}

/// Start of the first bucket of a type, if it is before a time.
async fn first_bucket(replica: &Replica, type_number: u32, before_ns: i64) -> Result<Option<i64>> {
    let state = replica.state().clone();
    let look = move || state.with_shard(|shard| shard.first_bucket_before(type_number, before_ns).map_err(store_error));
    blocking(look).await
}
