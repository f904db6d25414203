//! From a goal to a plan: the catalog and what nodes say of themselves as the planner wants it, and its answer as a job.
//! Never: the planning itself (see `placement`).

use std::collections::BTreeMap;

use tidemark_proto::v1::{Job, JobSpec, Move, MovePhase, Node, NodeState, StatusResponse, job_spec::Goal};

use super::Cluster;
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::error::{Error, Reason, Result};
use crate::placement::{self, NodeInfo, PlannedMove, Refusal, ShardInfo};

/// A job as it would start, and why somebody should think twice.
pub(super) struct Planned {
    pub(super) job: Job,
    pub(super) warnings: Vec<String>,
    /// Placement that it was planned against.
    pub(super) version: u64,
}

impl Cluster {
    /// What it takes to reach a goal, from the cluster as it is now.
    pub(super) async fn plan(&self, spec: JobSpec) -> Result<Planned> {
        self.router.catch_up_catalog(super::CALL_TIMEOUT).await;
        let catalog = self.host().catalog()?;
        let status = self.status().await?;
        let cluster = as_planned(&catalog, &status);
        let goal = spec
            .goal
            .as_ref()
            .ok_or_else(|| Error::new(Reason::MissingField, "a job needs a goal").field("spec.goal"))?;
        for node in named(goal) {
            catalog.known_node(node)?;
        }
        let moves = moves_to(goal, &cluster).map_err(refused)?;
        let leaders = match goal {
            Goal::Rebalance(_) if moves.is_empty() => placement::plan_leaders(&cluster).len(),
            _ => 0,
        };
        let job = Job {
            message: uneven(leaders),
            spec: Some(spec),
            moves: moves.iter().map(as_move).collect(),
            ..Job::default()
        };
        let warnings = warnings(&catalog, &cluster, &job);
        Ok(Planned {
            job,
            warnings,
            version: catalog.state().placement_version,
        })
    }
}

/// What a rebalance does where no replica has to move.
fn uneven(leaders: usize) -> String {
    match leaders {
        0 => String::new(),
        1 => "1 leadership goes to a node that leads fewer shards".to_string(),
        many => format!("{many} leaderships go to nodes that lead fewer shards"),
    }
}

/// Nodes that a goal names.
fn named(goal: &Goal) -> Vec<u64> {
    match goal {
        Goal::MoveShard(shard) => vec![shard.from_node, shard.to_node],
        Goal::DrainNode(drain) => vec![drain.node_id],
        Goal::RemoveNode(remove) => vec![remove.node_id],
        Goal::ReplaceNode(replace) => vec![replace.old_node, replace.new_node],
        Goal::Rebalance(_) => Vec::new(),
    }
}

fn moves_to(goal: &Goal, cluster: &placement::Cluster) -> std::result::Result<Vec<PlannedMove>, Refusal> {
    match goal {
        Goal::MoveShard(shard) => placement::plan_move(cluster, shard.shard, shard.from_node, shard.to_node),
        Goal::DrainNode(drain) => placement::plan_empty(cluster, drain.node_id),
        Goal::RemoveNode(remove) => placement::plan_empty(cluster, remove.node_id),
        Goal::ReplaceNode(replace) => placement::plan_replace(cluster, replace.old_node, replace.new_node),
        Goal::Rebalance(rebalance) => Ok(placement::plan_balance(cluster, rebalance.max_moves as usize)),
    }
}

fn as_move(planned: &PlannedMove) -> Move {
    Move {
        shard: planned.shard,
        from_node: planned.from.unwrap_or(0),
        to_node: planned.to.unwrap_or(0),
        phase: MovePhase::Pending as i32,
        ..Move::default()
    }
}

/// A refusal of the planner with what the caller may do about it.
fn refused(refusal: Refusal) -> Error {
    let add = "tidemark node add ADDR, then again";
    let (reason, hint) = match &refusal {
        Refusal::FactorUnmet { .. } | Refusal::LastNode(_) => (Reason::FactorUnmet, add.to_string()),
        Refusal::NoRoom { .. } => (
            Reason::NoRoom,
            "tidemark node list shows what is free where".to_string(),
        ),
        Refusal::UnknownNode(_) => (Reason::UnknownNode, "tidemark node list".to_string()),
        Refusal::UnknownShard(_) => (Reason::UnknownShard, "tidemark shard list".to_string()),
        Refusal::InvalidMove(_) => (Reason::InvalidMove, "tidemark shard list".to_string()),
        Refusal::NotAccepting(node) => (
            Reason::NodeCordoned,
            format!("tidemark node uncordon {node}, then again"),
        ),
        Refusal::NotAlive(node) => (Reason::NodeDown, format!("tidemark node show {node}")),
        Refusal::QuorumLost { .. } => {
            let bring_back = "bring a replica of each back, or restore a backup into a new cluster";
            (Reason::QuorumLost, bring_back.to_string())
        }
    };
    Error::new(reason, refusal.to_string()).hint(hint)
}

/// The cluster as the planner sees it. A replica that joins counts: it is a voter soon.
pub(super) fn as_planned(catalog: &Catalog, status: &StatusResponse) -> placement::Cluster {
    let seen: BTreeMap<u64, _> = status
        .nodes
        .iter()
        .filter_map(|seen| Some((seen.node.as_ref()?.id, seen)))
        .collect();
    let shards: BTreeMap<u32, _> = status.shards.iter().map(|shard| (shard.shard, shard)).collect();
    let nodes = catalog.state().nodes.iter().map(|node| {
        let facts = seen.get(&node.id).and_then(|seen| seen.facts.as_ref());
        NodeInfo {
            alive: seen.get(&node.id).is_some_and(|seen| seen.reachable),
            disk_free_bytes: facts.map_or(0, |facts| facts.disk_free_bytes),
            ..node_info(node)
        }
    });
    let placed = catalog.data_shards().map(|shard| {
        let seen = shards.get(&shard.id);
        ShardInfo {
            id: shard.id,
            replicas: shard.replicas.iter().map(|replica| replica.node_id).collect(),
            bytes: seen.map_or(0, |seen| seen.disk_bytes / (seen.replicas.len().max(1) as u64)),
            leader: seen.map(|seen| seen.leader_node).filter(|node| *node != 0),
        }
    });
    placement::Cluster {
        factor: catalog.state().replication_factor as usize,
        nodes: nodes.collect(),
        shards: placed.collect(),
    }
}

/// What the catalog alone knows of a node.
pub(super) fn node_info(node: &Node) -> NodeInfo {
    NodeInfo {
        id: node.id,
        zone: node.zone.clone(),
        accepts: node.state() != NodeState::Cordoned,
        alive: true,
        disk_free_bytes: 0,
    }
}

fn warnings(catalog: &Catalog, cluster: &placement::Cluster, job: &Job) -> Vec<String> {
    let mut warnings = Vec::new();
    let alive = |id: u64| cluster.nodes.iter().any(|node| node.id == id && node.alive);
    if let Some(node) = crate::catalog::jobs::leaves(job) {
        let address = catalog
            .node(node)
            .map(|node| node.peer_address.clone())
            .unwrap_or_default();
        let lost = if alive(node) {
            ""
        } else {
            "; it does not answer: what only it had is lost"
        };
        warnings.push(format!(
            "node {node} at {address} leaves for good, its data folder cannot come back{lost}"
        ));
    }
    if cluster.factor == 1 && !job.moves.is_empty() {
        let depends = "each shard has one replica: while it moves, it depends on two nodes";
        warnings.push(format!("{depends}, and the loss of either is its loss"));
    }
    let voters = catalog.shard(CATALOG_GROUP).map_or(0, |shard| shard.replicas.len());
    if voters == 2 && crate::catalog::jobs::leaves(job).is_some() {
        warnings.push("one node remains: the loss of that node is the loss of everything".to_string());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let bytes = 1;
        for (refusal, reason, next) in [
            (Refusal::LastNode(1), Reason::FactorUnmet, "tidemark node add"),
            (
                Refusal::NoRoom { shard: 1, bytes },
                Reason::NoRoom,
                "tidemark node list",
            ),
            (Refusal::NotAlive(3), Reason::NodeDown, "tidemark node show 3"),
            (
                Refusal::NotAccepting(3),
                Reason::NodeCordoned,
                "tidemark node uncordon 3",
            ),
            (Refusal::UnknownNode(9), Reason::UnknownNode, "tidemark node list"),
            (Refusal::UnknownShard(9), Reason::UnknownShard, "tidemark shard list"),
        ] {
            let error = refused(refusal.clone());
            assert_eq!(error.reason(), reason, "{refusal}");
            assert!(error.hint_text().starts_with(next), "{refusal}: {}", error.hint_text());
        }
    }
}
