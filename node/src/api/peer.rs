//! `PeerService`: what other nodes ask of this one.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tidemark_proto::peer::install_snapshot_request::Part;
use tidemark_proto::peer::peer_service_server::PeerService;
use tidemark_proto::peer::{
    AddNodeRequest, AddNodeResponse, AdoptRequest, AdoptResponse, CompactReplicaRequest, CompactReplicaResponse,
    FollowShardRequest, FollowShardResponse, InstallSnapshotRequest, InstallSnapshotResponse, ManageGroupRequest,
    ManageGroupResponse, NodeViewRequest, NodeViewResponse, ProposeRequest, ProposeResponse, RaftRequests,
    RaftResponses, ReadShardRequest, ReadShardResponse, SnapshotOffsets,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answered, Stopped, Streamed, answered, refused, stopped};
use crate::cluster::Cluster;
use crate::error::{Error, Reason};
use crate::raft::lane;
use crate::route::{Router, ShardJob};
use crate::subscribe::Follows;

/// What other nodes ask.
pub struct PeerApi {
    /// Proposals and reads.
    pub router: Arc<Router>,
    /// Identity and membership.
    pub cluster: Arc<Cluster>,
    /// Answers shard questions.
    pub job: ShardJob,
    /// Follows shards for subscriptions.
    pub follows: Arc<Follows>,
    /// Ends the Raft lanes.
    pub stopped: Stopped,
}

#[tonic::async_trait]
impl PeerService for PeerApi {
    type RaftStream = Streamed<RaftResponses>;
    type ReadShardStream = Streamed<ReadShardResponse>;
    type FollowShardStream = Streamed<FollowShardResponse>;
    type InstallSnapshotStream = Streamed<InstallSnapshotResponse>;

    async fn raft(&self, request: Request<Streaming<RaftRequests>>) -> Result<Response<Self::RaftStream>, Status> {
        let until_lost = tokio_stream::StreamExt::map_while(request.into_inner(), Result::ok);
        let messages = until_lost.take_until(stopped(self.stopped.clone()));
        let answers = lane::serve(self.router.host().clone(), Box::pin(messages));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers).map(Ok))))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Answered<ProposeResponse> {
        answered(self.router.serve_propose(request.into_inner()).await)
    }

    async fn read_shard(&self, request: Request<ReadShardRequest>) -> Result<Response<Self::ReadShardStream>, Status> {
        let parts = self
            .router
            .serve_read(request.into_inner(), &self.job)
            .await
            .map_err(|error| refused(&error))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(parts).map(Ok))))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        let mut messages = request.into_inner();
        let Some(InstallSnapshotRequest {
            part: Some(Part::Header(header)),
        }) = messages.message().await?
        else {
            return Err(refused(&Error::new(
                Reason::MissingField,
                "a snapshot begins with its header",
            )));
        };
        let host = self.router.host();
        let (group, to) = (header.group, header.to_replica);
        let checked = host.check_envelope(header.envelope.as_ref());
        let here = checked.and_then(|()| host.replica_with_id(group, to));
        let replica = here.map_err(|error| refused(&error))?;
        let bytes: u64 = header.files.iter().map(|file| file.bytes).sum();
        let metrics = host.metrics().clone();
        let counted = metrics.clone();
        let pieces = messages.map(move |message| match message {
            Ok(InstallSnapshotRequest {
                part: Some(Part::Piece(piece)),
            }) => {
                counted.snapshot_bytes_received.add(piece.data.len() as u64);
                Ok(piece)
            }
            Ok(_) => Err(Error::new(Reason::MissingField, "a second header")),
            Err(status) => Err(Error::new(Reason::Unreachable, status.message())),
        });
        let (out, answers) = mpsc::channel(2);
        // A task of its own: what has begun to be installed is installed, whoever still listens.
        tokio::spawn(async move {
            let have = async |have: SnapshotOffsets| {
                let kept = have.bytes.iter().sum();
                metrics.snapshot_bytes_kept.add(kept);
                // What came before has its room already.
                metrics.disk().check_room_for(bytes.saturating_sub(kept))?;
                let answer = InstallSnapshotResponse {
                    vote: None,
                    have: Some(have),
                };
                out.send(Ok(answer)).await.ok();
                Ok(())
            };
            let received = replica.receive_snapshot(header, pieces, have).await;
            let answer = received.map(|vote| InstallSnapshotResponse {
                vote: Some(vote),
                have: None,
            });
            out.send(answer.map_err(|error| refused(&error))).await.ok();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn adopt(&self, request: Request<AdoptRequest>) -> Answered<AdoptResponse> {
        answered(self.cluster.adopt(request.into_inner()).await)
    }

    async fn add_node(&self, request: Request<AddNodeRequest>) -> Answered<AddNodeResponse> {
        let AddNodeRequest {
            cluster_id,
            peer_address,
        } = request.into_inner();
        let added = self.cluster.add_node(&peer_address, &cluster_id).await;
        answered(added.map(|(cluster_id, node)| AddNodeResponse {
            cluster_id,
            node: Some(node),
        }))
    }

    async fn node_view(&self, request: Request<NodeViewRequest>) -> Answered<NodeViewResponse> {
        let request = request.into_inner();
        let checked = self.router.host().check_envelope(request.envelope.as_ref());
        answered(checked.map(|()| self.cluster.own_view(request.digest_id)))
    }

    async fn manage_group(&self, request: Request<ManageGroupRequest>) -> Answered<ManageGroupResponse> {
        answered(self.cluster.serve_manage(request.into_inner()).await)
    }

    async fn compact_replica(&self, request: Request<CompactReplicaRequest>) -> Answered<CompactReplicaResponse> {
        answered(self.cluster.serve_compact(request.into_inner()).await)
    }

    async fn follow_shard(
        &self,
        request: Request<FollowShardRequest>,
    ) -> Result<Response<Self::FollowShardStream>, Status> {
        let events = self.follows.serve(request.into_inner());
        let events = events.map_err(|error| refused(&error))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(events).map(Ok))))
    }
}
