//! Where replicas and leaderships should be: plans as pure functions of what the cluster looks like.
//!
//! Never here: I/O, clocks, randomness, protobuf. Invariant: a plan never puts two replicas of a shard on one node, never
//! takes a shard below its factor at any step when the factor can be met (a move adds before it removes), never chooses a
//! node that is not alive or does not accept, and is the same for the same input. A move is one replica of one shard, so
//! any prefix of a plan can be carried out and leaves the cluster sound.

mod balance;
mod initial;
mod jobs;
mod layout;
mod leaders;
mod spread;
mod voters;

#[cfg(test)]
mod examples_tests;
#[cfg(test)]
mod leaders_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod random_tests;

pub use balance::plan_balance;
pub use initial::initial;
pub use jobs::{plan_empty, plan_move, plan_replace};
pub use leaders::plan_leaders;
pub use voters::catalog_voters;

/// Percentage of a node's room that no plan may take: room is what is free and what its replicas take already.
pub const DISK_RESERVE_PERCENT: u64 = 10;

/// Nodes whose bytes differ by less than this are even: less data than this is not worth a move.
pub const BYTES_WORTH_MOVING: u64 = 64 << 20;

/// A node as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Id in the catalog.
    pub id: u64,
    /// Replicas of a shard are spread over zones; nodes without a label form a zone of their own.
    pub zone: String,
    /// May be given replicas and leaderships: active, neither cordoned nor leaving.
    pub accepts: bool,
    /// Answers at the moment.
    pub alive: bool,
    /// Free bytes of its data folder; 0 where not known.
    pub disk_free_bytes: u64,
}

/// A data shard as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// Id in the catalog.
    pub id: u32,
    /// Nodes of its voters.
    pub replicas: Vec<u64>,
    /// Bytes that one replica takes.
    pub bytes: u64,
    /// Node that leads it, if one does.
    pub leader: Option<u64>,
}

/// Everything a plan depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Replicas that each shard should have.
    pub factor: usize,
    /// In any order.
    pub nodes: Vec<NodeInfo>,
    /// In any order.
    pub shards: Vec<ShardInfo>,
}

/// One replica of one shard on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlannedMove {
    /// The shard.
    pub shard: u32,
    /// Node whose replica leaves once the new one votes; `None`: none leaves, the shard had too few.
    pub from: Option<u64>,
    /// Node that gets a replica; `None`: none does, the shard had too many.
    pub to: Option<u64>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too few nodes for the factor.
    #[error(
        "shard {shard} would have {have} of its {factor} replicas: no other node that is active and answers is free \
         for it; add a node first"
    )]
    FactorUnmet {
        /// First shard that would suffer.
        shard: u32,
        /// Replicas it would have left.
        have: usize,
        /// Replicas it should have.
        factor: usize,
    },
    /// Nodes enough, but their disks are too full.
    #[error(
        "shard {shard} needs {bytes} bytes, which would leave no node that may take it with {DISK_RESERVE_PERCENT} % of \
         its room free; free disk space or add a node"
    )]
    NoRoom {
        /// First shard that finds no place.
        shard: u32,
        /// Size of one replica.
        bytes: u64,
    },
    /// Nothing could hold the data.
    #[error("node {0} is the last that could hold data; add another node first")]
    LastNode(u64),
    /// Not in the catalog.
    #[error("node {0} is not in the cluster; list the nodes to see which are")]
    UnknownNode(u64),
    /// Not in the catalog.
    #[error("shard {0} does not exist; list the shards to see which do")]
    UnknownShard(u32),
    /// May not be given replicas.
    #[error("node {0} is cordoned or leaving and is given no replicas; choose another or make it active")]
    NotAccepting(u64),
    /// Cannot be given replicas.
    #[error("node {0} does not answer and cannot take replicas; start it or choose another")]
    NotAlive(u64),
    /// The request contradicts where replicas are.
    #[error("{0}")]
    InvalidMove(String),
    /// Membership cannot change without a majority.
    #[error(
        "shards {shards:?} have no majority of replicas that answer, so that nothing can be moved away or copied; \
         start the nodes that are down, or restore from a backup"
    )]
    QuorumLost {
        /// The shards, ascending.
        shards: Vec<u32>,
    },
}
