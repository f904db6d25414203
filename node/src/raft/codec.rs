//! Between openraft's types and the stored and sent ones of `tidemark.peer.v1`. Never here: I/O.
//!
//! Invariant: a missing field is an error, never a default, and command bytes are shared, never copied.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use prost::Message as _;
use tidemark_proto::peer::{self, append_entries_response, entry};

use super::types::{
    AppendEntriesRequest, AppendEntriesResponse, Command, Entry, LeaderId, LogId, Member, Membership, Payload,
    SnapshotMeta, StoredMembership, TransferLeaderRequest, Vote, VoteRequest, VoteResponse,
};

/// Why bytes or messages could not become Raft values. Retrying does not help: the sender or the disk is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A field that every message of this kind has is not there.
    #[error("raft message without {0}")]
    Missing(&'static str),
    /// Voters and members contradict each other.
    #[error("raft membership is not valid: {0}")]
    Membership(String),
    /// The bytes are not a message.
    #[error("raft bytes are not a message: {0}")]
    Bytes(String),
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

type Result<T> = std::result::Result<T, CodecError>;

fn need<T>(field: Option<T>, name: &'static str) -> Result<T> {
    field.ok_or(CodecError::Missing(name))
}

/// Encodes a leader id.
pub fn leader_id_to_wire(id: &LeaderId) -> peer::LeaderId {
    peer::LeaderId {
        term: id.term,
        replica: id.node_id,
    }
}

/// Decodes a leader id.
pub fn leader_id_from_wire(id: peer::LeaderId) -> LeaderId {
    LeaderId {
        term: id.term,
        node_id: id.replica,
    }
}

/// Encodes a log id.
pub fn log_id_to_wire(id: &LogId) -> peer::LogId {
    peer::LogId {
        leader: Some(leader_id_to_wire(&id.leader_id)),
        index: id.index,
    }
}

/// Decodes a log id.
///
/// # Errors
/// The leader is missing.
pub fn log_id_from_wire(id: peer::LogId) -> Result<LogId> {
    Ok(LogId {
        leader_id: leader_id_from_wire(need(id.leader, "log id leader")?),
        index: id.index,
    })
}

fn optional_log_id(id: Option<peer::LogId>) -> Result<Option<LogId>> {
    id.map(log_id_from_wire).transpose()
}

/// Encodes a vote.
pub fn vote_to_wire(vote: &Vote) -> peer::Vote {
    peer::Vote {
        leader: Some(leader_id_to_wire(&vote.leader_id)),
        committed: vote.committed,
    }
}

/// Decodes a vote.
///
/// # Errors
/// The leader is missing.
pub fn vote_from_wire(vote: peer::Vote) -> Result<Vote> {
    Ok(Vote {
        leader_id: leader_id_from_wire(need(vote.leader, "vote leader")?),
        committed: vote.committed,
    })
}

/// Encodes a membership.
pub fn membership_to_wire(membership: &Membership) -> peer::Membership {
    peer::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| peer::VoterSet {
                replicas: voters.iter().copied().collect(),
            })
            .collect(),
        members: membership
            .nodes()
            .map(|(replica, member)| peer::MemberNode {
                replica: *replica,
                node_id: member.node_id,
                peer_address: member.peer_address.clone(),
            })
            .collect(),
    }
}

/// Decodes a membership. One without voters and members is the one of a group that was never initialized.
///
/// # Errors
/// A voter is no member, a set of voters is empty, or a replica appears twice.
pub fn membership_from_wire(membership: peer::Membership) -> Result<Membership> {
    let mut members = BTreeMap::new();
    for node in membership.members {
        let member = Member {
            node_id: node.node_id,
            peer_address: node.peer_address,
        };
        if members.insert(node.replica, member).is_some() {
            return Err(CodecError::Membership(format!(
                "replica {} appears twice",
                node.replica
            )));
        }
    }
    if membership.configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    let configs: Vec<BTreeSet<u64>> = membership
        .configs
        .into_iter()
        .map(|voters| voters.replicas.into_iter().collect())
        .collect();
    Membership::new(configs, members).map_err(|error| CodecError::Membership(error.to_string()))
}

/// Encodes a stored membership.
pub fn stored_membership_to_wire(stored: &StoredMembership) -> peer::StoredMembership {
    peer::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

/// Decodes a stored membership; its log id may be absent (nothing stored yet).
///
/// # Errors
/// The membership is missing or not valid.
pub fn stored_membership_from_wire(stored: peer::StoredMembership) -> Result<StoredMembership> {
    let membership = membership_from_wire(need(stored.membership, "stored membership")?)?;
    Ok(StoredMembership::new(optional_log_id(stored.log_id)?, membership))
}

/// Encodes what a snapshot covers.
pub fn snapshot_meta_to_wire(meta: &SnapshotMeta) -> peer::SnapshotMeta {
    peer::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_wire),
        last_membership: Some(stored_membership_to_wire(&meta.last_membership)),
    }
}

/// Decodes what a snapshot covers.
///
/// # Errors
/// The membership is missing or not valid.
pub fn snapshot_meta_from_wire(meta: peer::SnapshotMeta) -> Result<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: optional_log_id(meta.last_log_id)?,
        last_membership: stored_membership_from_wire(need(meta.last_membership, "snapshot membership")?)?,
    })
}

/// Converts an entry; the command shares its bytes with the original.
pub fn entry_to_wire(source: &Entry) -> peer::Entry {
    let payload = match &source.payload {
        EntryPayload::Blank => entry::Payload::Blank(peer::Blank {}),
        EntryPayload::Normal(command) => entry::Payload::Command(command.0.clone()),
        EntryPayload::Membership(membership) => entry::Payload::Membership(membership_to_wire(membership)),
    };
    peer::Entry {
        log_id: Some(log_id_to_wire(&source.log_id)),
        payload: Some(payload),
    }
}

/// Converts an entry back; the command shares its bytes with the original.
///
/// # Errors
/// Log id or payload are missing, or the membership is not valid.
pub fn entry_from_wire(source: peer::Entry) -> Result<Entry> {
    let log_id = log_id_from_wire(need(source.log_id, "entry log id")?)?;
    let payload: Payload = match need(source.payload, "entry payload")? {
        entry::Payload::Blank(peer::Blank {}) => EntryPayload::Blank,
        entry::Payload::Command(bytes) => EntryPayload::Normal(Command(bytes)),
        entry::Payload::Membership(membership) => EntryPayload::Membership(membership_from_wire(membership)?),
    };
    Ok(Entry { log_id, payload })
}

/// Appends the stored form of an entry to `out`: the only copy of the command on its way into the log.
pub fn encode_entry(source: &Entry, out: &mut Vec<u8>) {
    let wire = entry_to_wire(source);
    out.reserve(wire.encoded_len());
    // A `Vec` grows: encoding into it can't fail.
    let _infallible = wire.encode(out);
}

/// Reads the stored form of an entry; the command is a slice of `bytes`.
///
/// # Errors
/// The bytes are not an entry, or fields are missing.
pub fn decode_entry(bytes: bytes::Bytes) -> Result<Entry> {
    entry_from_wire(peer::Entry::decode(bytes).map_err(|error| CodecError::Bytes(error.to_string()))?)
}

/// Stored form of a log id.
pub fn encode_log_id(id: &LogId) -> Vec<u8> {
    log_id_to_wire(id).encode_to_vec()
}

/// Reads the stored form of a log id.
///
/// # Errors
/// The bytes are not a log id.
pub fn decode_log_id(bytes: &[u8]) -> Result<LogId> {
    log_id_from_wire(peer::LogId::decode(bytes).map_err(|error| CodecError::Bytes(error.to_string()))?)
}

/// Stored form of a vote.
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    vote_to_wire(vote).encode_to_vec()
}

/// Reads the stored form of a vote.
///
/// # Errors
/// The bytes are not a vote.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote> {
    vote_from_wire(peer::Vote::decode(bytes).map_err(|error| CodecError::Bytes(error.to_string()))?)
}

/// Encodes a replication request; what the receiver may know of its lag is put in by `network`.
pub fn append_request_to_wire(request: &AppendEntriesRequest) -> peer::AppendEntriesRequest {
    peer::AppendEntriesRequest {
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
        as_of: None,
        replayed: false,
        ebbing: false,
    }
}

/// Decodes a replication request.
///
/// # Errors
/// The vote is missing or an entry is not valid.
pub fn append_request_from_wire(request: peer::AppendEntriesRequest) -> Result<AppendEntriesRequest> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(need(request.vote, "append vote")?)?,
        prev_log_id: optional_log_id(request.prev_log_id)?,
        entries: request
            .entries
            .into_iter()
            .map(entry_from_wire)
            .collect::<Result<_>>()?,
        leader_commit: optional_log_id(request.leader_commit)?,
    })
}

/// Encodes a replication answer; when it is sent is put in by `replica`.
pub fn append_response_to_wire(response: &AppendEntriesResponse) -> peer::AppendEntriesResponse {
    use append_entries_response::Result as Wire;
    let result = match response {
        AppendEntriesResponse::Success => Wire::Success(peer::Blank {}),
        AppendEntriesResponse::PartialSuccess(matching) => Wire::PartialSuccess(peer::PartialSuccess {
            matching: matching.as_ref().map(log_id_to_wire),
        }),
        AppendEntriesResponse::Conflict => Wire::Conflict(peer::Blank {}),
        AppendEntriesResponse::HigherVote(vote) => Wire::HigherVote(vote_to_wire(vote)),
    };
    peer::AppendEntriesResponse {
        result: Some(result),
        sent: None,
    }
}

/// Decodes a replication answer.
///
/// # Errors
/// The result is missing or not valid.
pub fn append_response_from_wire(response: peer::AppendEntriesResponse) -> Result<AppendEntriesResponse> {
    use append_entries_response::Result as Wire;
    Ok(match need(response.result, "append result")? {
        Wire::Success(peer::Blank {}) => AppendEntriesResponse::Success,
        Wire::PartialSuccess(partial) => AppendEntriesResponse::PartialSuccess(optional_log_id(partial.matching)?),
        Wire::Conflict(peer::Blank {}) => AppendEntriesResponse::Conflict,
        Wire::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from_wire(vote)?),
    })
}

/// Encodes a request for a vote; `pre_vote` says that nothing is to be promised yet.
pub fn vote_request_to_wire(request: &VoteRequest, pre_vote: bool) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        pre_vote,
        leadership_transfer: request.leadership_transfer,
    }
}

/// Decodes a request for a vote, and whether it is a pre-vote.
///
/// # Errors
/// The vote is missing or not valid.
pub fn vote_request_from_wire(request: peer::VoteRequest) -> Result<(VoteRequest, bool)> {
    let decoded = VoteRequest {
        vote: vote_from_wire(need(request.vote, "vote request vote")?)?,
        last_log_id: optional_log_id(request.last_log_id)?,
        leadership_transfer: request.leadership_transfer,
    };
    Ok((decoded, request.pre_vote))
}

/// Encodes an answer to a request for a vote.
pub fn vote_response_to_wire(response: &VoteResponse) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_wire),
        left: false,
    }
}

/// Decodes an answer to a request for a vote.
///
/// # Errors
/// The vote is missing or not valid.
pub fn vote_response_from_wire(response: peer::VoteResponse) -> Result<VoteResponse> {
    Ok(VoteResponse {
        vote: vote_from_wire(need(response.vote, "vote response vote")?)?,
        vote_granted: response.granted,
        last_log_id: optional_log_id(response.last_log_id)?,
    })
}

/// Encodes a request to take over.
pub fn transfer_to_wire(request: &TransferLeaderRequest) -> peer::TransferLeaderRequest {
    peer::TransferLeaderRequest {
        from_leader: Some(vote_to_wire(request.from_leader())),
        to_replica: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_wire),
    }
}

/// Decodes a request to take over.
///
/// # Errors
/// The leader's vote is missing or not valid.
pub fn transfer_from_wire(request: peer::TransferLeaderRequest) -> Result<TransferLeaderRequest> {
    let from = vote_from_wire(need(request.from_leader, "transfer vote")?)?;
    Ok(TransferLeaderRequest::new(
        from,
        request.to_replica,
        optional_log_id(request.last_log_id)?,
    ))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
