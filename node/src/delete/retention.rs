//! Retention: the leader of a shard has the buckets of each type removed that end before the type keeps points.
//!
//! ```text
//! |--- bucket ---|--- bucket ---|--- bucket ---|        now - retention = x: the bucket that holds x and all later ones
//!                      x                                stay, so a point is gone at most one bucket span after its time
//! ```
//!
//! Points of report kind test go at the same age. They have no rollups, so they wait for none. Nor do points that are older than
//! rollups are kept: of them none are made. Where points go that are waited for by no rollups, and some are left (their length is none of
//! the type's any more), their time is sealed as if they had been waited for.
//!
//! Never here: removing anything (an entry of the shard's log does). Invariant: the clock is read by the leader alone, and
//! what it decides is in the entry; it decides nothing where most nodes have another time (see `clocks`), nor by a catalog that may be old. Newest values
//! stay, so that a device that fell silent keeps its last word.

use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{RemoveBuckets, RemoveRollups};

use super::Deletes;
use super::clocks::confirmed_now_ns;
use super::rollups::{first_rolled_ns, oldest_rollup_ns};
use crate::catalog::types::{ROLLUPS_S, TypeDef};
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::clock::monotonic;
use crate::error::Result;
use crate::query::rolled;
use crate::raft::machine::blocking;
use crate::raft::replica::Replica;
use crate::raft::state::store_error;
use crate::shard::{bucket_start, test_lane};

/// The first look comes sooner: a node that is restarted often should look as well.
const FIRST_AFTER: Duration = Duration::from_secs(30);
/// A catalog that is older is not believed.
const CATALOG_LAG_MAX: Duration = Duration::from_secs(5);
const CATALOG_WAIT: Duration = Duration::from_secs(2);

impl Deletes {
    /// Runs for ever: removes what is expired of the shards that this node leads, and gives back the space that removals
    /// left in its replicas. `ahead` makes the clock wrong, in tests.
    pub async fn keep_retention(self: Arc<Self>, every: Duration, ahead: Duration) {
        tokio::time::sleep(every.min(FIRST_AFTER)).await;
        loop {
            let confirmed = confirmed_now_ns(self.router.host(), ahead).await;
            let confirmed = match confirmed {
                Some(now_ns) => self.current_catalog().await.map(|catalog| (now_ns, catalog)),
                None => None,
            };
            for replica in self.router.host().replicas() {
                let group = replica.group();
                if group == CATALOG_GROUP {
                    continue;
                }
                if let Some((now_ns, catalog)) = confirmed.as_ref().filter(|_| replica.is_leader()) {
                    let mut removed = self.remove_expired(&replica, catalog, *now_ns).await;
                    if removed.is_ok() {
                        removed = self.remove_expired_rollups(&replica, catalog, *now_ns).await;
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

    /// The catalog, where it is that of a moment ago: a retention that was raised meanwhile must not be missed.
    async fn current_catalog(&self) -> Option<Arc<Catalog>> {
        let host = self.router.host();
        let replica = host.replica(CATALOG_GROUP);
        let is_current = match replica.filter(|replica| replica.ended().is_none()) {
            None => false,
            Some(leader) if leader.is_leader() => matches!(leader.linearize(CATALOG_WAIT).await, Ok(Ok(()))),
            Some(replica) => replica.lag().is_some_and(|lag| lag <= CATALOG_LAG_MAX),
        };
        if !is_current {
            tracing::warn!("the catalog here may not be the newest, what is expired stays for now");
            return None;
        }
        host.catalog().ok()
    }

    /// Has the expired buckets of every type removed from one shard.
    async fn remove_expired(&self, replica: &Replica, catalog: &Catalog, now_ns: i64) -> Result<()> {
        for (def, tests) in catalog.types().flat_map(|def| [(def, false), (def, true)]) {
            let Some(kept_ns) = def.retention_ns() else { continue };
            let (number, lengths_s) = match tests {
                true => (test_lane(def.number()), Vec::new()),
                false => (def.number(), def.stored.rollups_s.clone()),
            };
            let group = replica.group();
            let before_ns = bucket_start(now_ns.saturating_sub(kept_ns), def.bucket_span_ns);
            let rolled_ns = first_rolled_ns(def, now_ns);
            let rule = rolled(def).rule;
            while let Some(first_ns) = first_bucket(replica, number, before_ns).await? {
                let next = next_to_go((first_ns, before_ns), def.bucket_span_ns, &lengths_s, rolled_ns);
                let before_ns = next.before_ns;
                // Those that are there may be of an earlier rule, by which other points counted.
                if !next.lengths_s.is_empty() && !are_rolled(replica, (number, rule), first_ns, &next).await? {
                    tracing::info!(
                        group,
                        device_type = def.id(),
                        first_ns,
                        "expired points wait for new rollups"
                    );
                    break;
                }
                let deadline = monotonic() + self.limits.request_timeout();
                let what = match next.lengths_s.is_empty() && has_rollups(replica, number, before_ns).await? {
                    true => What::SealBuckets(next),
                    false => What::RemoveBuckets(next),
                };
                let buckets = self.propose(group, number, what, deadline).await?.buckets;
                if buckets == 0 {
                    tracing::info!(
                        group,
                        device_type = def.id(),
                        first_ns,
                        "expired points wait for their rollups"
                    );
                    break;
                }
                self.router.host().metrics().buckets_expired.add(buckets);
                tracing::info!(group, device_type = def.id(), tests, buckets, before_ns, "expired");
            }
        }
        Ok(())
    }

    /// Has rollups removed that are expired, also those of lengths that a type has no more: where points are gone they answer as long.
    async fn remove_expired_rollups(&self, replica: &Replica, catalog: &Catalog, now_ns: i64) -> Result<()> {
        let lengths = |def: &Arc<TypeDef>| {
            let before_ns = oldest_rollup_ns(def, now_ns);
            ROLLUPS_S.map(|length_s| ((def.number(), length_s), before_ns))
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

/// Which of the buckets that are expired, the first of them given, go next. Where rollups of some lengths have to be there each bucket is
/// looked at: one at a time. Before `rolled_ns` there never are any, and nothing is waited for.
fn next_to_go((first_ns, before_ns): (i64, i64), span_ns: i64, lengths_s: &[u32], rolled_ns: i64) -> RemoveBuckets {
    let (before_ns, lengths_s) = match lengths_s {
        [] => (before_ns, Vec::new()),
        _ if first_ns < rolled_ns => (before_ns.min(rolled_ns), Vec::new()),
        _ => (first_ns.saturating_add(span_ns).min(before_ns), lengths_s.to_vec()),
    };
    RemoveBuckets { before_ns, lengths_s }
}

/// Whether all devices have the rollups that are waited for, by a rule, of the buckets that go next.
async fn are_rolled(
    replica: &Replica,
    (type_number, rule): (u32, u64),
    first_ns: i64,
    next: &RemoveBuckets,
) -> Result<bool> {
    let (state, next) = (replica.state().clone(), next.clone());
    let look = move || {
        state.with_shard(|shard| {
            for length_s in &next.lengths_s {
                let (level, range) = ((type_number, *length_s), (first_ns, next.before_ns));
                let missing = shard.rollups_missing(level, rule, range, 1).map_err(store_error)?;
                if !missing.buckets.is_empty() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    };
    blocking(look).await
}

/// Whether buckets of a type that go before a time leave rollups behind.
async fn has_rollups(replica: &Replica, type_number: u32, before_ns: i64) -> Result<bool> {
    let state = replica.state().clone();
    let look = move || state.with_shard(|shard| shard.has_rollups_to_seal(type_number, before_ns).map_err(store_error));
    blocking(look).await
}

/// Start of the first bucket of a type, if it is before a time.
async fn first_bucket(replica: &Replica, type_number: u32, before_ns: i64) -> Result<Option<i64>> {
    let state = replica.state().clone();
    let look = move || state.with_shard(|shard| shard.first_bucket_before(type_number, before_ns).map_err(store_error));
    blocking(look).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_gets_rollups_is_waited_for_by_none() {
        let check = |expired: (i64, i64), lengths_s: &[u32], rolled_ns: i64, expected: (i64, &[u32])| {
            let next = next_to_go(expired, 10, lengths_s, rolled_ns);
            assert_eq!((next.before_ns, &next.lengths_s[..]), expected, "{expired:?}");
        };
        check((0, 70), &[], 20, (70, &[]));
        check((0, 70), &[300], 20, (20, &[]));
        check((20, 70), &[300], 20, (30, &[300]));
        check((60, 70), &[300], 20, (70, &[300]));
        check((20, 70), &[300], 90, (70, &[]));
        check((i64::MIN, 70), &[300], i64::MIN + 15, (i64::MIN + 15, &[]));
    }
}
