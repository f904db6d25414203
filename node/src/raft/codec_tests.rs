//! Every Raft value survives the way to the wire and back; a missing field is an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fmt::Debug;

use bytes::Bytes;

use super::*;

fn log_id(term: u64, replica: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term, node_id: replica },
        index,
    }
}

fn member(node_id: u64) -> Member {
    Member {
        node_id,
        peer_address: format!("host-{node_id}:7000"),
    }
}

fn joint() -> Membership {
    let members = BTreeMap::from([(11, member(1)), (12, member(2)), (13, member(3)), (14, member(4))]);
    Membership::new(vec![BTreeSet::from([11, 12]), BTreeSet::from([12, 13])], members).unwrap()
}

#[track_caller]
fn check<T: Debug + PartialEq, W: prost::Message + Default>(
    value: T,
    to: impl Fn(&T) -> W,
    from: impl Fn(W) -> Result<T>,
) {
    let bytes = to(&value).encode_to_vec();
    assert_eq!(from(W::decode(bytes.as_slice()).unwrap()).unwrap(), value);
}

#[test]
fn ids_votes_and_memberships_round_trip() {
    check(log_id(0, 0, 0), log_id_to_wire, log_id_from_wire);
    check(log_id(u64::MAX, 7, u64::MAX), log_id_to_wire, log_id_from_wire);
    check(Vote::new(3, 9), vote_to_wire, vote_from_wire);
    check(Vote::new_committed(0, 0), vote_to_wire, vote_from_wire);
    check(Membership::default(), membership_to_wire, membership_from_wire);
    check(joint(), membership_to_wire, membership_from_wire);
    check(
        StoredMembership::default(),
        stored_membership_to_wire,
        stored_membership_from_wire,
    );
    check(
        StoredMembership::new(Some(log_id(1, 2, 3)), joint()),
        stored_membership_to_wire,
        stored_membership_from_wire,
    );
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(4, 5, 6)),
        last_membership: StoredMembership::new(Some(log_id(1, 2, 3)), joint()),
    };
    check(meta, snapshot_meta_to_wire, snapshot_meta_from_wire);
}

#[test]
fn entries_round_trip() {
    for payload in [
        EntryPayload::Blank,
        EntryPayload::Normal(Command(Bytes::new())),
        EntryPayload::Normal(Command(Bytes::from_static(b"levels"))),
        EntryPayload::Membership(joint()),
    ] {
        let entry = Entry {
            log_id: log_id(2, 11, 40),
            payload,
        };
        check(entry.clone(), entry_to_wire, entry_from_wire);
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        assert_eq!(decode_entry(Bytes::from(bytes)).unwrap(), entry);
    }
}

#[test]
fn a_command_is_shared_not_copied() {
    let command = Bytes::from(vec![7_u8; 4096]);
    let entry = Entry {
        log_id: log_id(1, 1, 1),
        payload: EntryPayload::Normal(Command(command.clone())),
    };
    let wire = entry_to_wire(&entry);
    let back = entry_from_wire(wire).unwrap();
    let EntryPayload::Normal(Command(shared)) = back.payload else {
        panic!("not a command")
    };
    assert_eq!(shared.as_ptr(), command.as_ptr());

    let mut stored = Vec::new();
    encode_entry(&entry, &mut stored);
    let stored = Bytes::from(stored);
    let range = stored.as_ptr_range();
    let EntryPayload::Normal(Command(slice)) = decode_entry(stored.clone()).unwrap().payload else {
        panic!("not a command")
    };
    assert!(range.contains(&slice.as_ptr()));
}

#[test]
fn requests_and_answers_round_trip() {
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(3, 11),
        prev_log_id: Some(log_id(2, 12, 8)),
        entries: vec![Entry {
            log_id: log_id(3, 11, 9),
            payload: EntryPayload::Blank,
        }],
        leader_commit: None,
    };
    let back = append_request_from_wire(append_request_to_wire(&request)).unwrap();
    assert_eq!(format!("{back:?}"), format!("{request:?}"));

    for answer in [
        AppendEntriesResponse::Success,
        AppendEntriesResponse::PartialSuccess(None),
        AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2, 3))),
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(Vote::new(8, 12)),
    ] {
        check(answer, append_response_to_wire, append_response_from_wire);
    }
    for pre_vote in [false, true] {
        for leadership_transfer in [false, true] {
            let mut request = VoteRequest::new(Vote::new(4, 13), Some(log_id(3, 11, 9)));
            request.leadership_transfer = leadership_transfer;
            let back = vote_request_from_wire(vote_request_to_wire(&request, pre_vote)).unwrap();
            assert_eq!(back, (request, pre_vote));
        }
    }
    check(
        VoteResponse::new(Vote::new(4, 13), None, true),
        vote_response_to_wire,
        vote_response_from_wire,
    );
    check(
        TransferLeaderRequest::new(Vote::new_committed(3, 11), 12, Some(log_id(3, 11, 9))),
        transfer_to_wire,
        transfer_from_wire,
    );
}

#[test]
fn a_missing_field_is_an_error() {
    assert_eq!(
        log_id_from_wire(peer::LogId::default()),
        Err(CodecError::Missing("log id leader"))
    );
    assert_eq!(
        vote_from_wire(peer::Vote::default()),
        Err(CodecError::Missing("vote leader"))
    );
    assert_eq!(
        stored_membership_from_wire(peer::StoredMembership::default()),
        Err(CodecError::Missing("stored membership"))
    );
    assert_eq!(
        snapshot_meta_from_wire(peer::SnapshotMeta::default()),
        Err(CodecError::Missing("snapshot membership"))
    );
    assert_eq!(
        entry_from_wire(peer::Entry::default()),
        Err(CodecError::Missing("entry log id"))
    );
    let blank = Entry {
        log_id: log_id(1, 1, 1),
        payload: EntryPayload::Blank,
    };
    let bare = peer::Entry {
        payload: None,
        ..entry_to_wire(&blank)
    };
    assert_eq!(entry_from_wire(bare), Err(CodecError::Missing("entry payload")));
    assert!(append_request_from_wire(peer::AppendEntriesRequest::default()).is_err());
    assert!(append_response_from_wire(peer::AppendEntriesResponse::default()).is_err());
    assert!(vote_request_from_wire(peer::VoteRequest::default()).is_err());
    assert!(vote_response_from_wire(peer::VoteResponse::default()).is_err());
    assert!(transfer_from_wire(peer::TransferLeaderRequest::default()).is_err());
}

#[test]
fn a_contradictory_membership_is_an_error() {
    let mut stranger = membership_to_wire(&joint());
    stranger.configs[0].replicas.push(99);
    let mut twice = membership_to_wire(&joint());
    twice.members.push(twice.members[0].clone());
    let mut nobody = membership_to_wire(&joint());
    nobody.configs[0].replicas.clear();
    for wire in [stranger, twice, nobody] {
        assert!(matches!(membership_from_wire(wire), Err(CodecError::Membership(_))));
    }
}
