//! Names of the contract's states in words, the same in every verb. Never: what a state means for anybody.
//!
//! Invariant: a word is lower snake case and never changes once released; scripts compare it.

use tidemark_client::v1::{JobState, MovePhase, NodeState, ReplicaState, job_spec::Goal};

/// Of a node.
pub(crate) fn node_state(state: NodeState) -> &'static str {
    match state {
        NodeState::Unspecified | NodeState::Active => "active",
        NodeState::Cordoned => "cordoned",
    }
}

/// Of a replica.
pub(crate) fn replica_state(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Leader => "leader",
        ReplicaState::Follower => "follower",
        ReplicaState::Candidate => "candidate",
        ReplicaState::Learner => "learner",
        ReplicaState::Damaged => "damaged",
        ReplicaState::Unreachable => "unreachable",
        ReplicaState::Unspecified => "unknown",
    }
}

/// Of a job.
pub(crate) fn job_state(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "planned",
        JobState::Running => "running",
        JobState::Cancelling => "cancelling",
        JobState::Done => "done",
        JobState::Cancelled => "cancelled",
        JobState::Failed => "failed",
    }
}

/// Of a move.
pub(crate) fn move_phase(phase: MovePhase) -> &'static str {
    match phase {
        MovePhase::Unspecified | MovePhase::Pending => "pending",
        MovePhase::Copying => "copying",
        MovePhase::Switching => "switching",
        MovePhase::Cleaning => "cleaning",
        MovePhase::Done => "done",
        MovePhase::Cancelled => "cancelled",
    }
}

/// What a job is to reach: `drain node 3`.
pub(crate) fn goal(goal: Option<&Goal>) -> String {
    match goal {
        None => "unknown".to_owned(),
        Some(Goal::MoveShard(one)) => format!(
            "move shard {} from node {} to node {}",
            one.shard, one.from_node, one.to_node
        ),
        Some(Goal::DrainNode(one)) => format!("drain node {}", one.node_id),
        Some(Goal::RemoveNode(one)) => format!("remove node {}", one.node_id),
        Some(Goal::ReplaceNode(one)) => format!("replace node {} by node {}", one.old_node, one.new_node),
        Some(Goal::Rebalance(one)) if one.max_moves > 0 => format!("rebalance in at most {} moves", one.max_moves),
        Some(Goal::Rebalance(_)) => "rebalance".to_owned(),
    }
}
