//! Retention: the leader of a shard has the buckets of each type removed that end before the type keeps points.
//!
//! ```text
//! |--- bucket ---|--- bucket ---|--- bucket ---|        now - retention = x: the bucket that holds x and all later ones
//!                      x                                stay, so a point is gone at most one bucket span after its time
//! ```
//!
//! Never here: removing anything (an entry of the shard's log does). Invariant: the clock is read by the leader alone, and
//! what it decides is in the entry; newest values stay, so that a device that fell silent keeps its last word.

use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::peer::RemoveBuckets;
use tidemark_proto::peer::upkeep::What;

use super::Deletes;
use crate::catalog::CATALOG_GROUP;
use crate::clock::{monotonic, now_ns};
use crate::error::Result;
use crate::raft::machine::blocking;
use crate::raft::replica::Replica;
use crate::raft::state::store_error;
use crate::shard::bucket_start;

/// The first look comes sooner: a node that is restarted often should look as well.
const FIRST_AFTER: Duration = Duration::from_secs(30);

impl Deletes {
    /// Runs for ever: removes what is expired of the shards that this node leads, and gives back the space that removals
    /// left in its replicas.
    pub async fn keep_retention(self: Arc<Self>, every: Duration) {
        tokio::time::sleep(every.min(FIRST_AFTER)).await;
        loop {
            for replica in self.router.host().replicas() {
                let group = replica.group();
                if group == CATALOG_GROUP {
                    continue;
                }
                if replica.is_leader()
                    && let Err(error) = self.remove_expired(&replica, now_ns()).await
                {
                    tracing::warn!(group, %error, "expired buckets stay for now");
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
        for def in catalog.types() {
            let Some(kept_ns) = def.retention_ns() else { continue };
            let (number, group) = (def.number(), replica.group());
            let before_ns = bucket_start(now_ns.saturating_sub(kept_ns), def.bucket_span_ns);
            let state = replica.state().clone();
            let any =
                move || state.with_shard(|shard| shard.has_buckets_before(number, before_ns).map_err(store_error));
            if !blocking(any).await? {
                continue;
            }
            let deadline = monotonic() + self.limits.request_timeout();
            let removed = self
                .propose(
                    group,
                    number,
                    What::RemoveBuckets(RemoveBuckets { before_ns }),
                    deadline,
                )
                .await?;
            self.router.host().metrics().buckets_expired.add(removed.buckets);
            tracing::info!(
                group,
                device_type = def.id(),
                buckets = removed.buckets,
                before_ns,
                "expired"
            );
        }
        Ok(())
    }
}
