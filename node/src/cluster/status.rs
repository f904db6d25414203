//! The whole cluster at a glance: every node's own view, put together. Never: decisions.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemark_proto::peer::{NodeViewRequest, NodeViewResponse, ReplicaView, Shard};
use tidemark_proto::v1::{
    GetShardMapResponse, Node, NodeStatus, ReplicaState as State, ReplicaStatus, ShardLeader, ShardStatus,
    StatusResponse,
};
use tonic::Request;

use super::facts::{Asking, facts};
use super::jobs::add_progress;
use super::plan::as_planned;
use super::{Cluster, next};
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::clock::now_ns;
use crate::error::{Error, Reason, Result};
use crate::wire::status::from_status;

const VIEW_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A clock that is further off than this is wrong; what is measured is off by half of [`VIEW_TIMEOUT`] at most.
const CLOCK_OFF_MS: i64 = 5_000;

/// Views by node; `None` where the node did not answer.
type Views = BTreeMap<u64, Option<NodeViewResponse>>;

impl Cluster {
    /// Nodes, shards and what is wrong with them.
    pub async fn status(&self) -> Result<StatusResponse> {
        let version = env!("CARGO_PKG_VERSION").to_string();
        let Ok(catalog) = self.host().catalog() else {
            let cluster_id = self
                .host()
                .identity()
                .map(|identity| identity.cluster_id.clone())
                .unwrap_or_default();
            let problems = vec!["this node belongs to no cluster yet, or has not heard of its catalog".to_string()];
            return Ok(StatusResponse {
                cluster_id,
                version,
                problems,
                ..StatusResponse::default()
            });
        };
        let identity = self.host().identity()?;
        let views = self.views(&catalog).await;
        let shards: Vec<_> = catalog
            .state()
            .shards
            .iter()
            .map(|shard| shard_status(shard, &views))
            .collect();
        let nodes: Vec<_> = catalog
            .state()
            .nodes
            .iter()
            .map(|node| node_status(node, &views))
            .collect();
        if let Some(offset_ms) = furthest_clock(&nodes) {
            self.host().metrics().clocks_seen(offset_ms);
        }
        let problems = problems(&nodes, &shards, &catalog);
        let mut status = StatusResponse {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
            version,
            replication_factor: catalog.state().replication_factor,
            device_types: catalog.types().count() as u64,
            healthy: problems.is_empty(),
            nodes,
            shards,
            problems,
            job: catalog.running_job().cloned(),
            next_steps: Vec::new(),
        };
        if let Some(job) = &mut status.job {
            let mut live = views.into_values().flatten().filter_map(|view| view.live_job);
            add_progress(job, live.find(|live| live.id == job.id));
        }
        status.next_steps = next::steps(&next::Seen {
            nodes: &status.nodes,
            shards: &status.shards,
            job: status.job.as_ref(),
            planned: &as_planned(&catalog, &status),
        });
        Ok(status)
    }

    async fn views(&self, catalog: &Catalog) -> Views {
        let asked = catalog
            .state()
            .nodes
            .iter()
            .map(|node| async move { (node.id, self.view_of(node).await) });
        futures_util::future::join_all(asked).await.into_iter().collect()
    }

    /// A node as it sees itself; `None` where it does not answer.
    pub(super) async fn view_of(&self, node: &Node) -> Option<NodeViewResponse> {
        if self.host().identity().ok()?.node_id == node.id {
            return Some(self.own_view(0));
        }
        self.ask_view(node.id, &node.peer_address).await.ok()
    }

    pub(super) async fn ask_view(&self, node: u64, address: &str) -> Result<NodeViewResponse> {
        self.ask_view_with(node, address, 0).await
    }

    /// Asks a node for its view, with the digests that it took for this id.
    pub(super) async fn ask_view_with(&self, node: u64, address: &str, digest_id: u64) -> Result<NodeViewResponse> {
        if self.host().identity()?.node_id == node {
            return Ok(self.own_view(digest_id));
        }
        let peer = self.host().peers().at(address)?;
        let mut request = Request::new(NodeViewRequest {
            envelope: Some(self.host().envelope(node)?),
            digest_id,
        });
        request.set_timeout(VIEW_TIMEOUT);
        let asking = Asking::begin();
        let asked = tokio::time::timeout(VIEW_TIMEOUT, async { peer.client().node_view(request).await }).await;
        let asked = asked.map_err(|_| Error::new(Reason::Unreachable, format!("node {node} does not answer")))?;
        Ok(asking.ended(asked.map_err(|status| from_status(&status))?.into_inner()))
    }

    /// This node as it sees itself.
    pub fn own_view(&self, digest_id: u64) -> NodeViewResponse {
        let replicas = self.host().replicas();
        let disk_bytes = replicas
            .iter()
            .map(|replica| replica.state().disk_bytes().unwrap_or(0))
            .sum();
        NodeViewResponse {
            replicas: self.host().views(),
            disk_bytes,
            facts: Some(facts(&self.host().metrics().facts())),
            now_ns: now_ns(),
            digests: replicas
                .iter()
                .filter_map(|replica| replica.taken_digest(digest_id))
                .collect(),
            live_job: self.live_job(),
        }
    }

    /// Slots and leaders, for clients that go straight to the leader.
    pub fn shard_map(&self) -> Result<GetShardMapResponse> {
        let catalog = self.host().catalog()?;
        let leader = |shard: &Shard| {
            let node = self.router.known_leader(shard.id);
            ShardLeader {
                shard: shard.id,
                leader: node.and_then(|id| catalog.node(id)).cloned(),
            }
        };
        Ok(GetShardMapResponse {
            version: catalog.state().placement_version,
            cluster_id: catalog.state().cluster_id.clone(),
            slots: catalog.state().slots.clone(),
            leaders: catalog.data_shards().map(leader).collect(),
        })
    }
}

fn replica_view(views: &Views, node: u64, group: u32) -> Option<&ReplicaView> {
    views
        .get(&node)?
        .as_ref()?
        .replicas
        .iter()
        .find(|view| view.group == group)
}

fn shard_status(shard: &Shard, views: &Views) -> ShardStatus {
    let mut status = ShardStatus {
        shard: shard.id,
        ..ShardStatus::default()
    };
    for replica in &shard.replicas {
        let missing = ReplicaStatus {
            replica_id: replica.id,
            node_id: replica.node_id,
            state: State::Unreachable as i32,
            ..ReplicaStatus::default()
        };
        let Some(view) = replica_view(views, replica.node_id, shard.id) else {
            status.replicas.push(missing);
            continue;
        };
        let seen = view.status.clone().unwrap_or(missing);
        // An old leader that has not heard of the new term is not the leader.
        if seen.state == State::Leader as i32 && view.term >= status.term {
            status.leader_node = replica.node_id;
        }
        status.term = status.term.max(view.term);
        status.devices = status.devices.max(view.devices);
        status.disk_bytes += view.disk_bytes;
        status.replicas.push(seen);
    }
    status
}

fn node_status(node: &Node, views: &Views) -> NodeStatus {
    let view = views.get(&node.id).and_then(Option::as_ref);
    let states = || {
        view.into_iter()
            .flat_map(|view| &view.replicas)
            .filter_map(|replica| replica.status.as_ref())
    };
    NodeStatus {
        node: Some(node.clone()),
        reachable: view.is_some(),
        replicas: states().count() as u32,
        leaders: states().filter(|status| status.state == State::Leader as i32).count() as u32,
        disk_bytes: view.map_or(0, |view| view.disk_bytes),
        facts: view.and_then(|view| view.facts.clone()),
    }
}

/// Offset of the clock that is furthest from this node's.
fn furthest_clock(nodes: &[NodeStatus]) -> Option<i64> {
    let offsets = nodes
        .iter()
        .filter_map(|node| Some(node.facts.as_ref()?.clock_offset_ms));
    offsets.max_by_key(|offset_ms| offset_ms.unsigned_abs())
}

/// What is wrong with the clock of a node, as seen by the one that answers. Which of the two is wrong, nobody knows.
fn wrong_clock(node: &NodeStatus) -> Option<String> {
    let offset_ms = node.facts.as_ref()?.clock_offset_ms;
    let id = node.node.as_ref()?.id;
    (offset_ms.unsigned_abs() > CLOCK_OFF_MS.unsigned_abs()).then(|| {
        let way = if offset_ms > 0 { "ahead of" } else { "behind" };
        let seconds = offset_ms.unsigned_abs() / 1_000;
        format!("the clock of node {id} is {seconds} s {way} the one of the node that answers: set the clocks by NTP")
    })
}

fn problems(nodes: &[NodeStatus], shards: &[ShardStatus], catalog: &Catalog) -> Vec<String> {
    let mut problems = Vec::new();
    for node in nodes.iter().filter(|node| !node.reachable) {
        let known = node.node.clone().unwrap_or_default();
        problems.push(format!("node {} at {} does not answer", known.id, known.peer_address));
    }
    problems.extend(nodes.iter().filter_map(wrong_clock));
    for shard in shards {
        if shard.leader_node == 0 {
            problems.push(format!("shard {} has no leader", shard.shard));
        }
        let voters = catalog.shard(shard.shard).into_iter().flat_map(|shard| &shard.replicas);
        let (have, factor) = (
            voters.filter(|replica| !replica.joining).count(),
            catalog.state().replication_factor,
        );
        if shard.shard != CATALOG_GROUP && have < factor as usize {
            problems.push(format!("shard {} has {have} of {factor} replicas", shard.shard));
        }
        for replica in &shard.replicas {
            let leads = replica.state == State::Leader as i32;
            if replica.state == State::Damaged as i32 || leads && !replica.problem.is_empty() {
                let (id, node) = (replica.replica_id, replica.node_id);
                problems.push(format!(
                    "shard {}: replica {id} on node {node} is damaged: {}",
                    shard.shard, replica.problem
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use tidemark_proto::v1::NodeFacts;

    use super::*;

    #[test]
    fn a_clock_that_is_off_by_more_than_some_seconds_is_a_problem() {
        let node = |id: u64, clock_offset_ms: i64| NodeStatus {
            node: Some(Node { id, ..Node::default() }),
            reachable: true,
            facts: Some(NodeFacts {
                clock_offset_ms,
                ..NodeFacts::default()
            }),
            ..NodeStatus::default()
        };
        let catalog = Catalog::default();
        let mut nodes = vec![node(1, 0), node(2, 5_000), node(3, -4_999)];
        assert_eq!(problems(&nodes, &[], &catalog), [""; 0]);
        assert_eq!(furthest_clock(&nodes), Some(5_000));
        nodes.extend([node(4, 3_600_000), node(5, -5_001)]);
        assert_eq!(
            problems(&nodes, &[], &catalog),
            [
                "the clock of node 4 is 3600 s ahead of the one of the node that answers: set the clocks by NTP",
                "the clock of node 5 is 5 s behind the one of the node that answers: set the clocks by NTP",
            ]
        );
        assert_eq!(furthest_clock(&nodes), Some(3_600_000));
    }
}
