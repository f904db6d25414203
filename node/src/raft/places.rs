//! Which replicas run on this node: those that the catalog places here, opened and dropped as it changes. Never: how the files of one
//! that left go (see `gone`).
//!
//! Invariant: what could not be done for a reason that may pass is tried again until it is done, also where the catalog stays as it
//! is; a replica whose log or state lost something stays closed, and no replica that left is opened.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tidemark_proto::peer::ReplicaView;
use tidemark_proto::v1::{ReplicaState as State, ReplicaStatus};

use super::host::{Host, members};
use super::lag::Lag;
use super::machine::blocking;
use super::network::Network;
use super::replica::Replica;
use super::state::ReplicaState;
use super::types::Member;
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::error::{Error, Reason, Result};

/// A group that its first replica did not initialise by then is initialised by any other.
const INITIALISE_AFTER: Duration = Duration::from_secs(5);
/// Rest before what failed is tried again: this long, then twice as long each time, up to the longest.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);

/// A replica that does not run, though it is placed here.
pub(super) struct Damaged {
    /// As others see it.
    pub(super) view: ReplicaView,
    /// Nothing of it is lost as far as is known: it is opened again.
    passes: bool,
}

impl Host {
    /// Opens the replicas that the catalog places here and drops those that it no longer does, now and after every
    /// change.
    pub(super) async fn follow_catalog(self: Arc<Self>) {
        let mut changes = self.watch_catalog();
        let mut rest = AGAIN_AFTER;
        loop {
            let catalog = changes.borrow_and_update().clone();
            if let Ok(identity) = self.identity()
                && catalog.state().removed_nodes.contains(&identity.node_id)
            {
                self.leave_for_good();
                return;
            }
            self.limit_copies(&catalog);
            let followed = async {
                let _opening = self.opening.lock().await;
                self.drop_unplaced(&catalog).await?;
                self.open_placed(&catalog).await
            };
            let is_done = match followed.await {
                Ok(()) => !self.damaged().values().any(|damaged| damaged.passes),
                Err(error) => {
                    tracing::error!(%error, "this node could not follow a change of placement, it tries again");
                    false
                }
            };
            let changed = if is_done {
                rest = AGAIN_AFTER;
                changes.changed().await
            } else {
                let changed = tokio::time::timeout(rest, changes.changed()).await;
                rest = (2 * rest).min(AGAIN_AFTER_MAX);
                changed.unwrap_or(Ok(()))
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn open_placed(self: &Arc<Self>, catalog: &Catalog) -> Result<()> {
        let node = self.identity()?.node_id;
        for shard in catalog.data_shards() {
            let Some(place) = shard.replicas.iter().position(|replica| replica.node_id == node) else {
                continue;
            };
            let placed = shard.replicas[place];
            let runs = self.replica(shard.id).is_some();
            if runs || self.stays_closed(shard.id) || self.gone().contains(shard.id, placed.id) {
                continue;
            }
            self.open(shard.id, placed.id).await?;
            // One that joins is taken in by the leader and never begins a group of its own.
            if let Some(replica) = self.replica(shard.id).filter(|_| !placed.joining) {
                let members = members(catalog, shard);
                let after = if place == 0 { Duration::ZERO } else { INITIALISE_AFTER };
                tokio::spawn(initialise(replica, members, after));
            }
        }
        Ok(())
    }

    fn stays_closed(&self, group: u32) -> bool {
        self.damaged().get(&group).is_some_and(|damaged| !damaged.passes)
    }

    /// Opens one replica, unless it runs. One that fails its checks is remembered as damaged and does not run.
    pub(super) async fn open(self: &Arc<Self>, group: u32, replica: u64) -> Result<()> {
        if self.replica(group).is_some() || self.stays_closed(group) {
            return Ok(());
        }
        match self.open_replica(group, replica).await {
            Ok(opened) => {
                self.damaged().remove(&group);
                self.replicas
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(group, Arc::new(opened));
                Ok(())
            }
            Err(error) if group == CATALOG_GROUP => Err(error),
            Err(error) => {
                let passes = error.reason() != Reason::Corruption;
                tracing::error!(group, replica, passes, %error, "replica is damaged and does not run");
                let status = ReplicaStatus {
                    replica_id: replica,
                    node_id: self.identity()?.node_id,
                    state: State::Damaged as i32,
                    problem: error.to_string(),
                    ..ReplicaStatus::default()
                };
                let view = ReplicaView {
                    group,
                    status: Some(status),
                    ..ReplicaView::default()
                };
                self.damaged().insert(group, Damaged { view, passes });
                Ok(())
            }
        }
    }

    async fn open_replica(&self, group: u32, replica: u64) -> Result<Replica> {
        let log = self
            .log
            .group(group)
            .map_err(|e| Error::new(Reason::Corruption, e.to_string()))?;
        let dir = self.data_dir.join("groups").join(format!("{group}-{replica}"));
        let (resources, catalog) = (self.resources.clone(), self.catalog.clone());
        let state = blocking(move || ReplicaState::open(group, &dir, resources, catalog)).await?;
        let purged = log.memory().lock().purged;
        check_reaches(purged.map(|id| id.index), state.last_applied().map(|id| id.index))?;
        let envelope = self.envelope(0)?;
        let lag = Arc::new(Lag::new(replica, log.memory(), state.clone()));
        let network = Network {
            peers: self.peers.clone(),
            envelope,
            group,
            from_replica: replica,
            metrics: self.metrics.clone(),
            lag,
            ebbing: Arc::default(),
            left: Arc::default(),
        };
        Replica::start(log, state, network).await
    }

    pub(super) fn damaged(&self) -> MutexGuard<'_, BTreeMap<u32, Damaged>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that the log goes on from the state: what was purged must be in it, or entries would be passed over in silence.
fn check_reaches(purged: Option<u64>, applied: Option<u64>) -> Result<()> {
    if purged <= applied {
        return Ok(());
    }
    let (purged, applied) = (purged.unwrap_or(0), applied.unwrap_or(0));
    let message = format!("the log begins behind entry {purged}, and the state ends with entry {applied}");
    Err(Error::new(Reason::Corruption, message))
}

async fn initialise(replica: Arc<Replica>, members: BTreeMap<u64, Member>, after: Duration) {
    tokio::time::sleep(after).await;
    if let Err(error) = replica.initialize(members).await {
        tracing::warn!(group = replica.group(), %error, "group not initialised");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_state_that_ends_before_its_log_begins_is_damaged() {
        for (purged, applied, reaches) in [
            (None, None, true),
            (None, Some(7), true),
            (Some(7), Some(7), true),
            (Some(7), Some(9), true),
            (Some(7), Some(6), false),
            (Some(0), None, false),
        ] {
            let checked = check_reaches(purged, applied);
            assert_eq!(checked.is_ok(), reaches, "{purged:?} {applied:?}");
        }
        let error = check_reaches(Some(7), Some(6)).unwrap_err();
        assert_eq!(error.reason(), Reason::Corruption, "not tried again");
    }
}
