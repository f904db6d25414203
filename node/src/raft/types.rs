//! The types openraft is configured with, and short names for them. Never here: I/O or conversions (see `codec`).
//!
//! Invariant: one type configuration for every group of a node; commands and outcomes are opaque bytes to consensus.

use std::fmt;

use bytes::Bytes;
use openraft::type_config::alias;

openraft::declare_raft_types!(
    /// How Tidemark uses openraft. A Raft node id is a *replica id*: given out by the catalog, never used twice.
    pub TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>,
);

/// Where a replica lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Id of the node that hosts the replica; 0 is no node.
    pub node_id: u64,
    /// `host:port` of that node for its peers.
    pub peer_address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} at {}", self.node_id, self.peer_address)
    }
}

/// An encoded `ShardCommand` or `CatalogCommand`; cloning shares the bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

/// An encoded `Applied`; empty for blank and membership entries.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Outcome(pub Bytes);

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outcome({} bytes)", self.0.len())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outcome of {} bytes", self.0.len())
    }
}

/// Term and replica of a leader.
pub type LeaderId = alias::LeaderIdOf<TypeConfig>;
/// Leader and index of an entry.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// A vote given or a leadership won.
pub type Vote = alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = alias::EntryOf<TypeConfig>;
/// What a log entry carries.
pub type Payload = alias::PayloadOf<TypeConfig>;
/// Voters and learners of a group.
pub type Membership = openraft::Membership<u64, Member>;
/// A membership and the entry that set it.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// Purged and last id of a log.
pub type LogState = openraft::storage::LogState<TypeConfig>;
/// Told when an append is on disk.
pub type IoFlushed = openraft::storage::IOFlushed<TypeConfig>;
/// Replication request.
pub type AppendEntriesRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
/// Replication answer.
pub type AppendEntriesResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
/// Request for a vote.
pub type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
/// Answer to a request for a vote.
pub type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
/// Tells a replica to stand for election at once.
pub type TransferLeaderRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
