//! What one node says to another is for one node of one cluster, in one version of the protocol; all else is refused. Never
//! here: what clients say (see `registry`).

use tidemark_client::v1;
use tidemark_proto::peer::peer_service_client::PeerServiceClient;
use tidemark_proto::peer::{
    Envelope, LeaderId, ProposeRequest, RaftRequest, RaftRequests, RaftResponse, ReadShardRequest, ShardResolve, Vote,
    VoteRequest, raft_request, read_shard_request,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::common::TestCluster;
use crate::common::direct::Direct;
use crate::common::operator::PEER_PROTOCOL;

const SHARD: u32 = 1;

fn refused(what: &str, status: &Status) {
    assert_eq!(status.code(), Code::FailedPrecondition, "{what}: {status}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "WRONG_CLUSTER", "{what}");
}

/// Asks for a vote in a term that would depose every leader.
async fn ask_vote(peer: &mut PeerServiceClient<Channel>, envelope: Envelope, replica: u64) -> RaftResponse {
    let vote = Vote {
        leader: Some(LeaderId {
            term: 1_000,
            replica: 99,
        }),
        committed: false,
    };
    let request = RaftRequest {
        envelope: Some(envelope),
        call: 7,
        group: SHARD,
        from_replica: 99,
        to_replica: replica,
        message: Some(raft_request::Message::Vote(VoteRequest {
            vote: Some(vote),
            ..VoteRequest::default()
        })),
    };
    let requests = RaftRequests {
        requests: vec![request],
    };
    let mut answers = peer.raft(tokio_stream::once(requests)).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap().responses.remove(0)
}

fn leader(status: &v1::StatusResponse) -> (u64, u64, u64) {
    let shard = status.shards.iter().find(|shard| shard.shard == SHARD).unwrap();
    let replica = &shard.replicas[0];
    (shard.term, replica.replica_id, replica.last_log_index)
}

#[tokio::test]
async fn envelopes_of_another_cluster_node_or_version_are_refused_before_anything_is_touched() {
    let cluster = TestCluster::start(1).await;
    let before = cluster.healthy(0).await;
    let (_, replica, _) = leader(&before);
    let good = Envelope {
        cluster_id: before.cluster_id.clone(),
        protocol: PEER_PROTOCOL,
        from_node: 2,
        to_node: 1,
    };
    let foreign = Envelope {
        cluster_id: "0".repeat(32),
        ..good.clone()
    };
    let astray = Envelope {
        to_node: 2,
        ..good.clone()
    };
    let newer = Envelope {
        protocol: PEER_PROTOCOL + 1,
        ..good.clone()
    };
    let mut peer = PeerServiceClient::new(Direct::new(&cluster.peer_address(0)).channel);
    for (envelope, says) in [
        (foreign, "this node belongs to cluster"),
        (astray, "this is node 1, not 2"),
        (newer, "this node speaks protocol 2, not 3"),
    ] {
        let propose = ProposeRequest {
            envelope: Some(envelope.clone()),
            group: SHARD,
            ..ProposeRequest::default()
        };
        refused(says, &peer.propose(propose).await.unwrap_err());
        let read = ReadShardRequest {
            envelope: Some(envelope.clone()),
            group: SHARD,
            query: Some(read_shard_request::Query::Resolve(ShardResolve::default())),
            ..ReadShardRequest::default()
        };
        refused(says, &peer.read_shard(read).await.unwrap_err());
        let answer = ask_vote(&mut peer, envelope, replica).await;
        let failure = answer.refused.unwrap();
        assert_eq!(
            (failure.code, failure.reason.as_str()),
            (Code::FailedPrecondition as i32, "WRONG_CLUSTER")
        );
        assert!(answer.call == 7 && failure.message.contains(says), "{failure:?}");
    }
    assert_eq!(leader(&cluster.healthy(0).await), leader(&before));
    assert_eq!(cluster.metric(0, "tidemark_peer_messages_refused_total").await, 9);
    // The same with a good envelope is heard.
    assert_eq!(ask_vote(&mut peer, good, replica).await.refused, None);
}
