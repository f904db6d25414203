//! What an operator should do next, from how the cluster looks. Never: doing it, or what is wrong (see `status`).

use tidemark_proto::v1::{Job, NextStep, NodeState, NodeStatus, ReplicaState, ShardStatus};

use crate::placement;

/// The cluster as the steps depend on it.
pub(super) struct Seen<'a> {
    pub(super) nodes: &'a [NodeStatus],
    pub(super) shards: &'a [ShardStatus],
    pub(super) job: Option<&'a Job>,
    pub(super) planned: &'a placement::Cluster,
}

fn step(command: impl Into<String>, reason: impl Into<String>) -> NextStep {
    NextStep {
        command: command.into(),
        reason: reason.into(),
    }
}

/// Commands, the most urgent first, each with its reason.
pub(super) fn steps(seen: &Seen<'_>) -> Vec<NextStep> {
    let mut steps = Vec::new();
    for node in seen.nodes {
        steps.extend(about_node(seen, node));
    }
    for shard in seen.shards {
        steps.extend(about_damage(shard));
    }
    if let Some(job) = seen.job {
        steps.push(step(format!("tidemark job watch {}", job.id), "a job runs"));
    } else if seen.nodes.iter().all(|node| node.reachable) {
        steps.extend(about_balance(seen));
    }
    steps
}

fn about_node(seen: &Seen<'_>, status: &NodeStatus) -> Option<NextStep> {
    let node = status.node.as_ref()?;
    let id = node.id;
    if !status.reachable {
        let here = |other: &&NodeStatus| {
            let other_node = other.node.as_ref();
            other.reachable && other_node.is_some_and(|other| other.peer_address == node.peer_address)
        };
        let successor = seen.nodes.iter().find(here).and_then(|other| other.node.as_ref());
        return Some(match successor {
            Some(new) => step(
                format!("tidemark node replace {id} {}", new.id),
                format!("node {id} lost its data folder; node {} has taken its address", new.id),
            ),
            None => step(
                format!("tidemark node replace {id} NEW"),
                format!("node {id} does not answer: start it again, or replace it if it is lost for good"),
            ),
        });
    }
    if status.facts.as_ref().is_some_and(|facts| facts.disk_low) {
        return Some(step(
            "tidemark node add ADDR && tidemark rebalance",
            format!("node {id} takes no writes: its disk is below its reserve"),
        ));
    }
    let empties = seen.job.and_then(crate::catalog::jobs::empties);
    let keeps = seen.planned.shards.iter().any(|shard| shard.replicas.contains(&id));
    if node.state() == NodeState::Cordoned && !keeps && empties != Some(id) {
        return Some(step(
            format!("tidemark node remove {id}"),
            format!("node {id} is drained: remove it, or take it back with tidemark node uncordon {id}"),
        ));
    }
    None
}

fn about_damage(shard: &ShardStatus) -> Option<NextStep> {
    let damaged = shard
        .replicas
        .iter()
        .find(|replica| replica.state() == ReplicaState::Damaged)?;
    let (id, node) = (shard.shard, damaged.node_id);
    Some(step(
        format!("tidemark shard move {id} --from {node} --to NODE"),
        format!("the replica of shard {id} on node {node} is damaged; another node takes its place"),
    ))
}

fn about_balance(seen: &Seen<'_>) -> Option<NextStep> {
    let moves = placement::plan_balance(seen.planned, 0);
    let reason = match moves.iter().filter(|planned| planned.from.is_none()).count() {
        0 => format!("{} moves spread the replicas evenly", moves.len()),
        repairs => format!("{repairs} shards have fewer replicas than they should"),
    };
    (!moves.is_empty()).then(|| step("tidemark rebalance", reason))
}
