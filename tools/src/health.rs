//! How a shard and a node look in a status: counted and listed by state. Never: whether the cluster is healthy (the server says).
//!
//! Invariant: a pure function of one status; the worst that is true of a shard is its state.

use std::collections::BTreeSet;

use tidemark_client::v1::{MovePhase, ReplicaState, ShardStatus, StatusResponse};

/// State of a shard, worst first.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ShardState {
    /// Nobody leads it: it takes no writes.
    NoLeader,
    /// Fewer replicas answer than the cluster keeps of each shard.
    UnderReplicated,
    /// A job moves one of its replicas.
    Moving,
    /// As it should be.
    Ok,
}

impl ShardState {
    /// For scripts and people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ShardState::NoLeader => "no_leader",
            ShardState::UnderReplicated => "under_replicated",
            ShardState::Moving => "moving",
            ShardState::Ok => "ok",
        }
    }
}

/// True where a replica has a vote and could use it.
pub(crate) fn votes(state: ReplicaState) -> bool {
    matches!(
        state,
        ReplicaState::Leader | ReplicaState::Follower | ReplicaState::Candidate
    )
}

/// Replicas that should vote, and those of them that can.
pub(crate) fn voters(shard: &ShardStatus) -> (usize, usize) {
    let learners = |state| state == ReplicaState::Learner;
    let all = shard.replicas.iter().filter(|one| !learners(one.state())).count();
    let able = shard.replicas.iter().filter(|one| votes(one.state())).count();
    (all, able)
}

/// What a status says about its shards.
pub(crate) struct Health {
    factor: usize,
    moving: BTreeSet<u32>,
}

impl Health {
    /// Reads what concerns all shards.
    pub(crate) fn of(status: &StatusResponse) -> Health {
        let moves = status.job.iter().flat_map(|job| &job.moves);
        let under_way = |phase| matches!(phase, MovePhase::Copying | MovePhase::Switching | MovePhase::Cleaning);
        Health {
            factor: usize::try_from(status.replication_factor).unwrap_or(usize::MAX),
            moving: moves
                .filter(|one| under_way(one.phase()))
                .map(|one| one.shard)
                .collect(),
        }
    }

    /// The state of one shard.
    pub(crate) fn shard(&self, shard: &ShardStatus) -> ShardState {
        let (all, able) = voters(shard);
        // Beyond its voters, every node follows the catalog for good.
        let learns = shard.shard > 0 && shard.replicas.iter().any(|one| one.state() == ReplicaState::Learner);
        if shard.leader_node == 0 {
            ShardState::NoLeader
        } else if able < all || able < self.factor {
            ShardState::UnderReplicated
        } else if learns || self.moving.contains(&shard.shard) {
            ShardState::Moving
        } else {
            ShardState::Ok
        }
    }
}

/// The largest lag of any replica on a node; nothing where none is known.
pub(crate) fn node_lag_ms(status: &StatusResponse, node: u64) -> Option<i64> {
    let replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
    replicas
        .filter(|one| one.node_id == node && one.lag_ms >= 0 && one.state() != ReplicaState::Unreachable)
        .map(|one| one.lag_ms)
        .max()
}

#[cfg(test)]
mod tests {
    use tidemark_client::v1::{Job, Move, ReplicaStatus};

    use super::*;

    fn shard(leader_node: u64, states: &[ReplicaState]) -> ShardStatus {
        let replicas = states.iter().map(|state| ReplicaStatus {
            state: *state as i32,
            ..ReplicaStatus::default()
        });
        ShardStatus {
            shard: 3,
            leader_node,
            replicas: replicas.collect(),
            ..ShardStatus::default()
        }
    }

    #[test]
    fn the_worst_that_is_true() {
        use ReplicaState::{Damaged, Follower, Leader, Learner, Unreachable};
        let still = Health::of(&StatusResponse {
            replication_factor: 3,
            ..StatusResponse::default()
        });
        let busy = Health {
            moving: BTreeSet::from([3]),
            ..Health::of(&StatusResponse::default())
        };
        for (health, shard, expected) in [
            (&still, shard(1, &[Leader, Follower, Follower]), ShardState::Ok),
            (&still, shard(1, &[Leader, Follower]), ShardState::UnderReplicated),
            (
                &still,
                shard(1, &[Leader, Follower, Unreachable]),
                ShardState::UnderReplicated,
            ),
            (
                &still,
                shard(1, &[Leader, Follower, Follower, Damaged]),
                ShardState::UnderReplicated,
            ),
            (
                &still,
                shard(1, &[Leader, Follower, Follower, Learner]),
                ShardState::Moving,
            ),
            (
                &still,
                shard(0, &[Follower, Unreachable, Unreachable]),
                ShardState::NoLeader,
            ),
            (&busy, shard(1, &[Leader, Follower, Follower]), ShardState::Moving),
        ] {
            assert_eq!(health.shard(&shard), expected, "{shard:?}");
        }
    }

    #[test]
    fn a_node_that_follows_the_catalog_is_no_move() {
        let catalog = ShardStatus {
            shard: 0,
            ..shard(1, &[ReplicaState::Leader, ReplicaState::Learner])
        };
        assert_eq!(Health::of(&StatusResponse::default()).shard(&catalog), ShardState::Ok);
    }

    #[test]
    fn a_pending_move_moves_nothing_yet() {
        let step = |phase: MovePhase| StatusResponse {
            job: Some(Job {
                moves: vec![Move {
                    shard: 3,
                    phase: phase as i32,
                    ..Move::default()
                }],
                ..Job::default()
            }),
            ..StatusResponse::default()
        };
        let state = |phase| Health::of(&step(phase)).shard(&shard(1, &[ReplicaState::Leader]));
        assert_eq!(state(MovePhase::Pending), ShardState::Ok);
        assert_eq!(state(MovePhase::Switching), ShardState::Moving);
        assert_eq!(state(MovePhase::Done), ShardState::Ok);
    }
}
