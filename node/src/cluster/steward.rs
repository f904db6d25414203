//! What the leader of the catalog does all the time: carries jobs out, keeps the catalog group as it should be, spreads
//! leaderships. And what every node does: finds out that it was removed, joins where it was told to. Never: how a move
//! is done (see `mover`).
//!
//! Invariant: only the node that leads the catalog acts, and everything it does may be done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::peer::GroupView;
use tidemark_proto::peer::manage_group_request::Step;
use tidemark_proto::v1::JoinRequest;

use super::Cluster;
use super::mover::Rest;
use super::plan::as_planned;
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::clock::{Instant, monotonic};
use crate::error::{Reason, Result};
use crate::placement::{self, NodeInfo};
use crate::raft::host::members;
use crate::raft::manage::Managed;

/// The job is looked at this often, and at once after each step.
const STEP_EVERY: Duration = Duration::from_millis(200);
/// Leaderships are looked at this often; a difference that was there twice is evened out.
const SPREAD_EVERY: Duration = Duration::from_secs(5);
/// Longest time for a change of the catalog group.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(5);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);
/// A node that was removed stays in the catalog group for so long, without a vote, to hear of it there.
const FAREWELL: Duration = Duration::from_millis(1_500);
/// A node that does not hear from the catalog asks around this often whether it still belongs.
const ASK_EVERY: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(3);
const JOIN_EVERY: Duration = Duration::from_secs(1);

impl Cluster {
    /// Runs for ever; acts while this node leads the catalog.
    pub async fn steward(self: Arc<Self>) {
        let mut changes = self.host().watch_catalog();
        let mut spread_at = monotonic() + SPREAD_EVERY;
        let mut wished: Vec<(u32, u64)> = Vec::new();
        let mut farewells = BTreeMap::new();
        let mut rest = Rest::default();
        loop {
            tokio::time::timeout(STEP_EVERY, changes.changed()).await.ok();
            let catalog = changes.borrow_and_update().clone();
            // One that no majority agrees with may have been replaced long ago.
            let leads = self.router.leading_here(CATALOG_GROUP).is_some();
            if !leads || !catalog.is_initialised() {
                self.set_live_job(None);
                farewells.clear();
                continue;
            }
            if let Err(error) = self.keep_catalog_group(&catalog, &mut farewells).await {
                tracing::debug!(%error, "the catalog group is not yet as it should be");
            }
            match self.step_job(&catalog, &mut rest).await {
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the job does not go on"),
            }
            let job = catalog.running_job().is_some();
            if job || monotonic() >= spread_at {
                spread_at = monotonic() + SPREAD_EVERY;
                wished = self.spread_leaders(&catalog, wished, job).await;
            }
        }
    }

    /// Nodes that should vote in the catalog group.
    pub(super) fn catalog_voters(&self, catalog: &Catalog) -> Vec<u64> {
        let replica = self.host().replica(CATALOG_GROUP);
        let heard = replica.map(|replica| replica.nodes_heard()).unwrap_or_default();
        let nodes = catalog.state().nodes.iter().map(|node| NodeInfo {
            alive: heard.contains(&node.id),
            ..super::plan::node_info(node)
        });
        placement::catalog_voters(&nodes.collect::<Vec<_>>(), &self.voting_nodes())
    }

    /// What has to happen before a node that leaves votes in the catalog no more, in words; `None` where it does not vote.
    pub(super) fn vote_kept_by(&self, catalog: &Catalog, node: u64) -> Option<String> {
        let (wanted, voting) = (self.catalog_voters(catalog), self.voting_nodes());
        if !wanted.contains(&node) && !voting.contains(&node) {
            return None;
        }
        let heard = self.host().replica(CATALOG_GROUP)?.nodes_heard();
        let waits = |id: &&u64| !voting.contains(*id) && !heard.contains(*id);
        let heir = wanted.iter().find(waits);
        let answers = heir.map(|heir| format!(": node {heir} is to have it and does not answer"));
        Some(format!(
            "node {node} hands its vote in the catalog over{}",
            answers.unwrap_or_default()
        ))
    }

    /// The catalog group as its leader knows it; `None` where this node does not lead it.
    fn catalog_view(&self) -> Option<GroupView> {
        self.host().replica(CATALOG_GROUP)?.group_view()
    }

    fn voting_nodes(&self) -> Vec<u64> {
        let Some(membership) = self.catalog_view().and_then(|view| view.membership) else {
            return Vec::new();
        };
        let voters: BTreeSet<u64> = membership.configs.iter().flat_map(|set| set.replicas.clone()).collect();
        let votes = membership
            .members
            .iter()
            .filter(|member| voters.contains(&member.replica));
        votes.map(|member| member.node_id).collect()
    }

    /// Every node has a replica of the catalog, some of them vote, and those that have left are out: at once from those
    /// that vote, and a moment later altogether. `farewells`: since when they are seen here after they left.
    async fn keep_catalog_group(&self, catalog: &Catalog, farewells: &mut BTreeMap<u64, Instant>) -> Result<()> {
        let (Some(replica), Some(shard)) = (self.host().replica(CATALOG_GROUP), catalog.shard(CATALOG_GROUP)) else {
            return Ok(());
        };
        let voting = self.catalog_voters(catalog);
        let all = members(catalog, shard);
        for (id, member) in &all {
            if replica.add_learner(*id, member.clone()).await? != Managed::Done {
                return Ok(());
            }
        }
        let votes = |node: u64| voting.contains(&node);
        let voters: BTreeSet<u64> = all
            .iter()
            .filter(|(_, m)| votes(m.node_id))
            .map(|(id, _)| *id)
            .collect();
        let mut learners: BTreeSet<u64> = all.keys().copied().filter(|id| !voters.contains(id)).collect();
        let Some(view) = self.catalog_view() else {
            return Ok(());
        };
        let known = view.membership.iter().flat_map(|membership| &membership.members);
        let left = known.map(|member| member.replica).filter(|id| !all.contains_key(id));
        learners.extend(left.filter(|id| farewells.entry(*id).or_insert_with(monotonic).elapsed() < FAREWELL));
        if !voters.is_empty() && in_step(&view, &voters) {
            replica.set_members(&voters, &learners, CATALOG_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Evens out who leads. What is wished only once may be an election that has just been.
    async fn spread_leaders(&self, catalog: &Catalog, wished: Vec<(u32, u64)>, now: bool) -> Vec<(u32, u64)> {
        let Ok(status) = self.status().await else {
            return Vec::new();
        };
        let cluster = as_planned(catalog, &status);
        let wishes = placement::plan_leaders(&cluster);
        let deadline = monotonic() + TRANSFER_TIMEOUT;
        for (shard, node) in &wishes {
            // A node that must lead nothing is waited for by a job; anything else waits for a second look.
            let must = now && self.leader_must_go(&cluster, *shard);
            if !must && (now || !wished.contains(&(*shard, *node))) {
                continue;
            }
            if let Err(error) = self.transfer(catalog, *shard, *node, deadline).await {
                tracing::debug!(%error, shard, node, "leadership not handed over");
            }
        }
        wishes
    }

    /// Evens out who leads, without a second look; what came of it, in words, and nothing where all was even.
    pub(super) async fn even_leaders(&self, catalog: &Catalog) -> String {
        let Ok(status) = self.status().await else {
            return String::new();
        };
        let wishes = placement::plan_leaders(&as_planned(catalog, &status));
        let mut handed = 0;
        for (shard, node) in &wishes {
            let deadline = monotonic() + TRANSFER_TIMEOUT;
            match self.transfer(catalog, *shard, *node, deadline).await {
                Ok(_) => handed += 1,
                Err(error) => tracing::warn!(%error, shard, node, "leadership not handed over"),
            }
        }
        match (wishes.len(), handed) {
            (0, _) => String::new(),
            (all, handed) if handed == all => format!("leaderships handed over: {handed}"),
            (all, handed) => {
                format!("leaderships handed over: {handed} of {all}, the others follow as soon as they can")
            }
        }
    }

    fn leader_must_go(&self, cluster: &placement::Cluster, shard: u32) -> bool {
        let leader = cluster
            .shards
            .iter()
            .find(|known| known.id == shard)
            .and_then(|known| known.leader);
        let accepts = |id| cluster.nodes.iter().any(|node| node.id == id && node.accepts);
        leader.is_some_and(|leader| !accepts(leader))
    }

    /// Has the replica on a node lead; how long nobody did.
    pub(super) async fn transfer(
        &self,
        catalog: &Catalog,
        shard: u32,
        node: u64,
        deadline: Instant,
    ) -> Result<Duration> {
        let replicas = catalog
            .shard(shard)
            .map(|shard| shard.replicas.as_slice())
            .unwrap_or_default();
        let Some(replica) = replicas
            .iter()
            .find(|replica| replica.node_id == node && !replica.joining)
        else {
            let message = format!("node {node} has no replica of shard {shard} that could lead");
            return Err(crate::error::Error::new(Reason::InvalidMove, message).hint("tidemark shard show"));
        };
        Ok(self.manage(shard, Step::TransferTo(replica.id), deadline).await?.pause)
    }

    /// Finds out whether this node was removed while it did not hear of it. Runs until it was.
    pub async fn watch_belonging(self: Arc<Self>) {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            let (Ok(_), Some(replica)) = (self.host().identity(), self.host().replica(CATALOG_GROUP)) else {
                continue;
            };
            if replica.is_leader() || replica.lag().is_some_and(|lag| lag < SILENCE) {
                continue;
            }
            for address in self.others() {
                if self.is_removed_there(&address).await {
                    self.host().leave_for_good();
                    return;
                }
            }
        }
    }

    /// Nodes that this one has ever heard of, with their peer addresses.
    fn others(&self) -> Vec<(u64, String)> {
        let Ok(identity) = self.host().identity() else {
            return Vec::new();
        };
        let catalog = self.host().catalog_now();
        let known = catalog
            .state()
            .nodes
            .iter()
            .map(|node| (node.id, node.peer_address.clone()));
        let first = identity
            .catalog
            .iter()
            .map(|member| (member.node_id, member.peer_address.clone()));
        let all: std::collections::BTreeMap<u64, String> = first.chain(known).collect();
        all.into_iter().filter(|(id, _)| *id != identity.node_id).collect()
    }

    async fn is_removed_there(&self, (node, address): &(u64, String)) -> bool {
        let asked = self.ask_view(*node, address).await;
        asked.is_err_and(|error| error.reason() == Reason::NodeRemoved)
    }

    /// Joins the cluster of one of these peers, as soon as one of them takes this node in. An error is final.
    pub async fn join_one_of(&self, peers: &[String]) -> Result<()> {
        loop {
            for peer in peers.iter().filter(|peer| *peer != self.config.peer_address()) {
                if self.host().identity().is_ok() {
                    return Ok(());
                }
                let request = JoinRequest {
                    peer: peer.clone(),
                    cluster_id: String::new(),
                };
                match self.join(request).await {
                    Ok(joined) => {
                        let node = joined.node.map_or(0, |node| node.id);
                        tracing::info!(cluster = joined.cluster_id, node, "joined");
                        return Ok(());
                    }
                    Err(e) if matches!(e.reason(), Reason::WrongCluster | Reason::InvalidValue) => return Err(e),
                    Err(error) => tracing::info!(peer, %error, "not joined yet"),
                }
            }
            tokio::time::sleep(JOIN_EVERY).await;
        }
    }
}

/// True where none of these replicas of the group lags: a voter that does would hold every commit up.
fn in_step(view: &GroupView, voters: &BTreeSet<u64>) -> bool {
    let votes = view.membership.iter().flat_map(|membership| &membership.configs);
    let known: BTreeSet<u64> = votes.flat_map(|set| set.replicas.clone()).collect();
    let lags = |id: &u64| {
        let progress = view.progress.iter().find(|progress| progress.replica == *id);
        progress.is_some_and(|progress| progress.matched_index + 16 < view.last_index)
    };
    voters.iter().all(|id| known.contains(id) || !lags(id))
}
