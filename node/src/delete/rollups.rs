//! Rollups: the leader of a shard has them made of buckets that are quiet, and again after late points.
//!
//! ```text
//! buckets that ended a while ago, oldest first, from a cursor ┐
//! buckets behind it that were written or removed from late    ┴-> those that miss one -> small commands -> the shard's log
//! ```
//! Never here: what a rollup holds, what it is used for. Invariant: a command is small, so that writes wait for none of them
//! long; what a node forgets when it stops or stops to lead is found again by whoever leads next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{RollUp, RolledBucket};

use super::Deletes;
use crate::catalog::CATALOG_GROUP;
use crate::catalog::types::{ROLLUPS_S, TypeDef};
use crate::clock::{NS_PER_S, monotonic, now_ns};
use crate::error::Result;
use crate::query::rolled;
use crate::raft::machine::blocking;
use crate::raft::replica::Replica;
use crate::raft::state::store_error;
use crate::shard::{Level, Missing, bucket_start};

/// Buckets of devices that are looked for at a time.
const LOOK_FOR: usize = 512;
/// Buckets of devices in a command: some milliseconds to apply.
const COMMAND_BUCKETS_MAX: usize = 16;
/// Rest between commands: so much at least is left to writes.
const REST: Duration = Duration::from_millis(10);

/// How far the looking has come.
struct Cursor {
    /// Names the rule, and the state of the shard in memory: with another one all is looked at anew.
    of: (u64, u64),
    next_ns: i64,
}

type Cursors = BTreeMap<(u32, Level), Cursor>;

/// What is made.
struct Making<'a> {
    level: Level,
    /// Of no length and no buckets.
    rolled: &'a RollUp,
}

impl Deletes {
    /// Runs for ever: makes rollups in the shards that this node leads, of buckets that ended `quiet` ago.
    pub async fn keep_rollups(self: Arc<Self>, every: Duration, quiet: Duration) {
        let quiet_ns = i64::try_from(quiet.as_nanos()).unwrap_or(i64::MAX);
        let mut cursors = Cursors::new();
        loop {
            tokio::time::sleep(every).await;
            for replica in self.router.host().replicas() {
                let group = replica.group();
                if group == CATALOG_GROUP || !replica.is_leader() {
                    continue;
                }
                let quiet_before_ns = now_ns().saturating_sub(quiet_ns);
                if let Err(error) = self.roll_up(&replica, quiet_before_ns, &mut cursors).await {
                    tracing::warn!(group, %error, "some rollups are not made yet");
                    cursors.retain(|(of, _), _| *of != group);
                }
            }
        }
    }

    async fn roll_up(&self, replica: &Replica, quiet_before_ns: i64, cursors: &mut Cursors) -> Result<()> {
        let catalog = self.router.host().catalog()?;
        for def in catalog.types().filter(|def| !def.stored.rollups_s.is_empty()) {
            let rolled = rolled(def);
            let rule = rolled.rule;
            let (state, number) = (replica.state().clone(), def.number());
            let before_ns = bucket_start(quiet_before_ns, def.bucket_span_ns);
            let take = move || state.with_shard(|shard| Ok(shard.take_stale(number, before_ns)));
            let (stale, epoch) = blocking(take).await?;
            for length_s in &def.stored.rollups_s {
                let making = Making {
                    level: (number, *length_s),
                    rolled: &rolled,
                };
                let cursor = cursors.entry((replica.group(), making.level)).or_insert(Cursor {
                    of: (rule, epoch),
                    next_ns: i64::MIN,
                });
                if cursor.of != (rule, epoch) {
                    (cursor.of, cursor.next_ns) = ((rule, epoch), i64::MIN);
                }
                let from_ns = cursor.next_ns.max(first_rolled_ns(def, now_ns()));
                self.make(replica, &making, (from_ns, before_ns)).await?;
                cursor.next_ns = before_ns.max(cursor.next_ns);
                let oldest_ns = first_rolled_ns(def, now_ns());
                for bucket_ns in stale.range(oldest_ns..from_ns.max(oldest_ns)) {
                    self.make(replica, &making, (*bucket_ns, bucket_ns.saturating_add(1)))
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Makes what is missing of buckets that start within a range.
    async fn make(&self, replica: &Replica, making: &Making<'_>, (from_ns, before_ns): (i64, i64)) -> Result<()> {
        let mut next_ns = Some(from_ns);
        while let Some(from_ns) = next_ns.filter(|from_ns| *from_ns < before_ns) {
            let (state, level, rule) = (replica.state().clone(), making.level, making.rolled.rule);
            let look = move || {
                state.with_shard(|shard| {
                    shard
                        .rollups_missing(level, rule, (from_ns, before_ns), LOOK_FOR)
                        .map_err(store_error)
                })
            };
            let missing = blocking(look).await?;
            next_ns = missing.next_ns;
            for buckets in portions(missing) {
                let roll_up = RollUp {
                    length_s: level.1,
                    buckets,
                    ..making.rolled.clone()
                };
                let deadline = monotonic() + self.limits.request_timeout();
                let made = self
                    .propose(replica.group(), level.0, What::RollUpSlots(roll_up), deadline)
                    .await?;
                self.router.host().metrics().rollups_made.add(made.buckets);
                tokio::time::sleep(REST).await;
            }
        }
        Ok(())
    }
}

/// Buckets that start before this never have rollups of a type: those are kept no longer, or time has no begin for their windows.
pub(super) fn first_rolled_ns(def: &TypeDef, now_ns: i64) -> i64 {
    let longest_ns = i64::from(ROLLUPS_S[ROLLUPS_S.len() - 1]) * NS_PER_S;
    let behind_ns = i64::MIN.saturating_add(longest_ns).saturating_add(def.bucket_span_ns);
    oldest_rollup_ns(def, now_ns).max(bucket_start(behind_ns, def.bucket_span_ns))
}

/// Buckets that start before this keep no rollups of a type.
pub(super) fn oldest_rollup_ns(def: &TypeDef, now_ns: i64) -> i64 {
    match def.rollup_retention_ns() {
        Some(kept_ns) => bucket_start(now_ns.saturating_sub(kept_ns), def.bucket_span_ns),
        None => i64::MIN,
    }
}

/// As much as one command takes at a time.
fn portions(missing: Missing) -> Vec<Vec<RolledBucket>> {
    let mut portions: Vec<Vec<RolledBucket>> = Vec::new();
    let mut room = 0;
    for (bucket_ns, ordinals) in missing.buckets {
        let mut rest = &ordinals[..];
        while !rest.is_empty() {
            if room == 0 {
                portions.push(Vec::new());
                room = COMMAND_BUCKETS_MAX;
            }
            let (some, others) = rest.split_at(room.min(rest.len()));
            (rest, room) = (others, room - some.len());
            if let Some(last) = portions.last_mut() {
                last.push(RolledBucket {
                    bucket_ns,
                    ordinals: some.to_vec(),
                });
            }
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_small() {
        let missing = Missing {
            buckets: vec![(0, (0..20).collect()), (10, vec![3, 4]), (20, (0..11).collect())],
            next_ns: None,
        };
        let of = |portion: &Vec<RolledBucket>| {
            let bucket = |of: &RolledBucket| (of.bucket_ns, of.ordinals.len());
            portion.iter().map(bucket).collect::<Vec<_>>()
        };
        let found: Vec<_> = portions(missing).iter().map(of).collect();
        assert_eq!(found, [vec![(0, 16)], vec![(0, 4), (10, 2), (20, 10)], vec![(20, 1)]]);
        assert!(portions(Missing::default()).is_empty());
    }
}
