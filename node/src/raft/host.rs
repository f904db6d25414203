//! The replicas of this node: found, started, flushed, stopped. Never: which ones run here (see `places`), what they keep.
//!
//! Invariant: a group runs at most once here, and only under the replica id that the catalog gave to this node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use tidemark_proto::peer::{self, Envelope, RaftRequest, RaftResponse, ReplicaView, raft_response};
use tidemark_proto::v1::{ReplicaState as State, ReplicaStatus};
use tokio::sync::watch;

use super::gone::Gone;
use super::log_store::{LogOwner, LogStatus, NodeLog};
use super::machine::blocking;
use super::network::PROTOCOL;
use super::places::Damaged;
use super::replica::Replica;
use super::types::Member;
use crate::catalog::{CATALOG_GROUP, Catalog, jobs};
use crate::config::Tuning;
use crate::error::{Error, Reason, Result};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::store::Resources;
use crate::wire::status::to_failure;

/// Longest wait for others to lead when this node stops; they elect somebody by themselves soon after.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Few at a time: each pause stays short, and nothing is gained by a crowd.
const HAND_OVER_AT_ONCE: usize = 8;

/// All replicas of one node.
pub struct Host {
    pub(super) data_dir: PathBuf,
    pub(super) log: NodeLog,
    pub(super) resources: Arc<Resources>,
    pub(super) peers: Arc<Peers>,
    identity: OnceLock<Identity>,
    pub(super) replicas: RwLock<BTreeMap<u32, Arc<Replica>>>,
    pub(super) damaged: Mutex<BTreeMap<u32, Damaged>>,
    pub(super) catalog: watch::Sender<Arc<Catalog>>,
    pub(super) opening: tokio::sync::Mutex<()>,
    pub(super) gone: Mutex<Gone>,
    pub(super) leaving: Mutex<BTreeSet<(u32, u64)>>,
    /// Why this node must stop, once it has been told that it was removed.
    removed: watch::Sender<Option<String>>,
    /// Why this node must end, to be started anew.
    ends: watch::Sender<Option<String>>,
    tuning: Tuning,
    pub(super) metrics: Arc<Metrics>,
}

impl Host {
    /// A host without replicas yet.
    pub fn new(
        data_dir: PathBuf,
        log: NodeLog,
        resources: Arc<Resources>,
        peers: Arc<Peers>,
        tuning: Tuning,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Host>> {
        let gone = Gone::load(&data_dir).map_err(Error::internal)?;
        Ok(Arc::new(Host {
            data_dir,
            log,
            resources,
            peers,
            identity: OnceLock::new(),
            replicas: RwLock::default(),
            damaged: Mutex::default(),
            catalog: watch::Sender::new(Arc::default()),
            opening: tokio::sync::Mutex::new(()),
            gone: Mutex::new(gone),
            leaving: Mutex::default(),
            removed: watch::Sender::new(None),
            ends: watch::Sender::new(None),
            tuning,
            metrics,
        }))
    }

    /// What this node counts, and its disk.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What the Raft log has done and holds.
    pub fn log_status(&self) -> LogStatus {
        self.log.status()
    }

    /// Who this node is, once it belongs to a cluster.
    pub fn identity(&self) -> Result<&Identity> {
        self.identity.get().ok_or_else(|| {
            Error::new(Reason::NotInitialised, "this node belongs to no cluster yet").hint("tidemark cluster init")
        })
    }

    /// The catalog as this node knows it; an error until the cluster is initialised.
    pub fn catalog(&self) -> Result<Arc<Catalog>> {
        self.identity()?;
        let catalog = self.catalog.borrow().clone();
        match catalog.is_initialised() {
            true => Ok(catalog),
            false => Err(Error::new(Reason::NoLeader, "the catalog is not known here yet")),
        }
    }

    /// The catalog as it is now, initialised or not.
    pub fn catalog_now(&self) -> Arc<Catalog> {
        self.catalog.borrow().clone()
    }

    /// Told of every change of the catalog.
    pub fn watch_catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    /// Lanes to the other nodes.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Envelope of a message to a node.
    pub fn envelope(&self, to_node: u64) -> Result<Envelope> {
        let identity = self.identity()?;
        let (cluster_id, from_node) = (identity.cluster_id.clone(), identity.node_id);
        Ok(Envelope {
            cluster_id,
            protocol: PROTOCOL,
            from_node,
            to_node,
        })
    }

    /// Refuses messages that are not for this node of this cluster, and counts them.
    pub fn check_envelope(&self, envelope: Option<&Envelope>) -> Result<()> {
        let checked = self.judge_envelope(envelope);
        if checked.is_err() {
            self.metrics.peer_messages_refused.add(1);
        }
        checked
    }

    fn judge_envelope(&self, envelope: Option<&Envelope>) -> Result<()> {
        let identity = self.identity()?;
        let envelope = envelope.ok_or_else(|| Error::new(Reason::MissingField, "no envelope").field("envelope"))?;
        let wrong = |message: String| Err(Error::new(Reason::WrongCluster, message).field("envelope"));
        if envelope.cluster_id != identity.cluster_id {
            return wrong(format!("this node belongs to cluster {}", identity.cluster_id));
        }
        if envelope.to_node != identity.node_id {
            return wrong(format!("this is node {}, not {}", identity.node_id, envelope.to_node));
        }
        if self
            .catalog
            .borrow()
            .state()
            .removed_nodes
            .contains(&envelope.from_node)
        {
            let message = format!("node {} was removed from the cluster for good", envelope.from_node);
            return Err(Error::new(Reason::NodeRemoved, message));
        }
        if envelope.protocol != PROTOCOL {
            return wrong(format!(
                "this node speaks protocol {PROTOCOL}, not {}",
                envelope.protocol
            ));
        }
        Ok(())
    }

    /// The replica of a group on this node.
    pub fn replica(&self, group: u32) -> Option<Arc<Replica>> {
        self.replicas
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&group)
            .cloned()
    }

    /// The replica of a group here, where it is this one.
    pub fn replica_with_id(&self, group: u32, id: u64) -> Result<Arc<Replica>> {
        let here = self.replica(group).filter(|replica| replica.id() == id);
        let missing = || format!("replica {id} of group {group} is not here");
        here.ok_or_else(|| Error::new(Reason::WrongCluster, missing()))
    }

    /// All running replicas by group.
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Answers a Raft message.
    pub async fn answer(&self, request: RaftRequest) -> RaftResponse {
        let call = request.call;
        let disk_low = self.metrics.disk().is_low();
        let checked = self.check_envelope(request.envelope.as_ref());
        let replica = checked.and_then(|()| self.check_append(&request)).and_then(|()| {
            let group = request.group;
            self.replica(group)
                .ok_or_else(|| Error::new(Reason::WrongCluster, format!("group {group} is not here")))
        });
        match replica {
            Ok(replica) => RaftResponse {
                disk_low,
                ..replica.answer(request).await
            },
            Err(e) => RaftResponse {
                call,
                disk_low,
                message: Some(raft_response::Message::Error(e.to_string())),
                refused: Some(to_failure(&e)),
            },
        }
    }

    /// Starts the catalog group of a node that has an identity; from then on the catalog says what else runs here.
    pub async fn start(self: &Arc<Self>, identity: Identity) -> Result<()> {
        self.begin(identity, false).await
    }

    /// Gives the node an identity, on disk first, and starts it; nothing new where it has this one.
    pub async fn adopt(self: &Arc<Self>, identity: Identity) -> Result<()> {
        self.begin(identity, true).await
    }

    /// In a task of its own: a caller that goes away must not leave half of it.
    async fn begin(self: &Arc<Self>, identity: Identity, save: bool) -> Result<()> {
        let host = self.clone();
        let beginning = tokio::spawn(async move {
            let _opening = host.opening.lock().await;
            if let Some(known) = host.identity.get().filter(|known| **known != identity) {
                let message = format!("this node belongs to cluster {}", known.cluster_id);
                return Err(Error::new(Reason::WrongCluster, message));
            }
            if host.replica(CATALOG_GROUP).is_some() {
                return Ok(());
            }
            if save {
                let (identity, data_dir) = (identity.clone(), host.data_dir.clone());
                let saving = blocking(move || identity.save(&data_dir).map_err(Error::internal));
                saving.await.map_err(Error::internal)?;
            }
            // Before the first vote, and after the identity: no crash leaves a log with an owner in a folder without one.
            let (log, owner) = (host.log.clone(), owner_of(&identity));
            blocking(move || log.claim(&owner).map_err(Error::internal)).await?;
            let replica = host.identity.get_or_init(|| identity).catalog_replica;
            host.open(CATALOG_GROUP, replica).await?;
            tokio::spawn(super::pulse::run(Arc::downgrade(&host)));
            tokio::spawn(host.clone().follow_catalog());
            tokio::spawn(host.clone().flush_now_and_then());
            Ok(())
        });
        beginning.await.map_err(Error::internal)?
    }

    /// Told once, when this node learns that it was removed from the cluster.
    pub fn watch_removed(&self) -> watch::Receiver<Option<String>> {
        self.removed.subscribe()
    }

    /// Told once, when this node must end to be started anew.
    pub fn watch_ends(&self) -> watch::Receiver<Option<String>> {
        self.ends.subscribe()
    }

    /// Has the node end, as it does when it is told to stop, but with a failure: whoever watches over it starts it anew.
    pub(super) fn end(&self, why: String) {
        self.ends.send_if_modified(|ends| {
            let first = ends.is_none();
            ends.get_or_insert(why);
            first
        });
    }

    /// Notes on disk that this node was removed, and has it stopped. Told again, it does nothing more.
    pub fn leave_for_good(&self) {
        let Ok(identity) = self.identity() else { return };
        self.removed.send_if_modified(|removed| {
            if removed.is_some() {
                return false;
            }
            let why = removal(identity);
            if let Err(error) = crate::identity::mark_removed(&self.data_dir, &why) {
                tracing::error!(%error, "the removal of this node could not be noted");
            }
            *removed = Some(why);
            true
        });
    }

    /// Says that so many proposals are made at once, so that one sync may serve them all.
    pub fn expect_proposals(&self, proposals: usize) {
        self.log.expect(proposals);
    }

    pub(super) fn log(&self) -> &NodeLog {
        &self.log
    }

    pub(super) fn forget_running(&self, group: u32) {
        let mut replicas = self.replicas.write().unwrap_or_else(PoisonError::into_inner);
        replicas.remove(&group);
    }

    /// Has the copies of a job leave this node as slowly, or as fast, as the job says; all others as the node does.
    pub(super) fn limit_copies(&self, catalog: &Catalog) {
        let limited = catalog.running_job().and_then(|job| Some((jobs::copy_rate(job)?, job)));
        match limited {
            Some((rate, job)) => self.peers.limit_copies(rate, &jobs::copies(job)),
            None => self.peers.limit_copies(0, &[]),
        }
    }

    /// Waits until this node knows of a replica that joins a group, and at what rate it is to be copied.
    pub async fn learn_of_copy(&self, group: u32, replica: u64) {
        let mut changes = self.watch_catalog();
        let lists = |catalog: &Arc<Catalog>| {
            let shard = catalog.shard(group);
            shard.is_some_and(|shard| shard.replicas.iter().any(|listed| listed.id == replica))
        };
        if let Ok(catalog) = changes.wait_for(lists).await {
            self.limit_copies(&catalog);
        }
    }

    /// Rewrites the files of a replica as small as they get, and lets go of the log that may go; bytes of the files before
    /// and after.
    pub async fn compact(&self, replica: &Replica) -> Result<(u64, u64)> {
        let state = replica.state().clone();
        let bytes = blocking(move || state.compact()).await?;
        replica.cut_log(&self.tuning).await?;
        let (log, group) = (self.log.clone(), replica.group());
        // What goes is in the queue of the log's writer still.
        log.flush().await.map_err(Error::internal)?;
        blocking(move || log.compact(group).map_err(Error::internal)).await?;
        Ok(bytes)
    }

    async fn flush_now_and_then(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.tuning.flush_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in 0u32.. {
            ticks.tick().await;
            for replica in self.replicas().iter().filter(|replica| replica.ended().is_none()) {
                let all = (round + 1) % self.tuning.flush_all_every == 0;
                if let Err(error) = replica.flush_and_purge(&self.tuning, all).await {
                    tracing::warn!(group = replica.group(), %error, "flush failed");
                }
            }
        }
    }

    /// Groups whose replica here failed its checks and does not run.
    pub fn damaged_groups(&self) -> Vec<u32> {
        self.damaged().keys().copied().collect()
    }

    /// Every replica of this node as it sees itself.
    pub fn views(&self) -> Vec<ReplicaView> {
        let node_id = self.identity().map_or(0, |identity| identity.node_id);
        let running = self.replicas().into_iter().map(|replica| replica.view(node_id));
        let leaving: Vec<_> = self
            .leaving()
            .iter()
            .map(|(group, id)| leaving(*group, *id, node_id))
            .collect();
        let damaged: Vec<_> = self.damaged().values().map(|damaged| damaged.view.clone()).collect();
        running.chain(damaged).chain(leaving).collect()
    }

    /// Hands leaderships over, and waits a moment until others have them.
    pub async fn hand_over(&self) {
        let leaving = futures_util::stream::iter(self.replicas());
        let handing = leaving.for_each_concurrent(HAND_OVER_AT_ONCE, |replica| async move {
            if let Err(error) = replica.hand_over(HAND_OVER_TIMEOUT).await {
                tracing::warn!(group = replica.group(), %error, "leadership not handed over");
            }
        });
        if tokio::time::timeout(2 * HAND_OVER_TIMEOUT, handing).await.is_err() {
            tracing::warn!("not every leadership was handed over in time");
        }
    }

    /// Stops every replica and flushes.
    pub async fn shutdown(&self) {
        let replicas = self.replicas();
        let stops = replicas.iter().map(|replica| replica.shutdown());
        futures_util::future::join_all(stops).await;
    }
}

/// The node of an identity as its log names it.
pub fn owner_of(identity: &Identity) -> LogOwner {
    LogOwner {
        cluster_id: identity.cluster_id.clone(),
        node_id: identity.node_id,
    }
}

/// Members of a group as its replicas know them.
pub fn members(catalog: &Catalog, shard: &peer::Shard) -> BTreeMap<u64, Member> {
    let member = |replica: &peer::Replica| {
        let peer_address = catalog
            .node(replica.node_id)
            .map(|node| node.peer_address.clone())
            .unwrap_or_default();
        (
            replica.id,
            Member {
                node_id: replica.node_id,
                peer_address,
            },
        )
    };
    shard.replicas.iter().map(member).collect()
}

/// A replica that has stopped for good and whose files go.
fn leaving(group: u32, replica_id: u64, node_id: u64) -> ReplicaView {
    ReplicaView {
        group,
        status: Some(ReplicaStatus {
            replica_id,
            node_id,
            state: State::Learner as i32,
            problem: "it has left, its files go".to_string(),
            ..ReplicaStatus::default()
        }),
        ..ReplicaView::default()
    }
}

/// What a removed node says when it stops.
fn removal(identity: &Identity) -> String {
    format!(
        "node {} was removed from cluster {} for good",
        identity.node_id, identity.cluster_id
    )
}
