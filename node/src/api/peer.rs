//! `PeerService`: what other nodes ask of this one.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tidemark_proto::peer::install_snapshot_request::Part;
use tidemark_proto::peer::peer_service_server::PeerService;
use tidemark_proto::peer::{
    AddNodeRequest, AddNodeResponse, AdoptRequest, AdoptResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    ManageGroupRequest, ManageGroupResponse, NodeViewRequest, NodeViewResponse, ProposeRequest, ProposeResponse,
    RaftRequest, RaftResponse, ReadShardRequest, ReadShardResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Answered, Stopped, Streamed, answered, refused, stopped};
use crate::cluster::Cluster;
use crate::error::{Error, Reason};
use crate::route::{Router, ShardJob};

/// Raft messages of one stream that are worked on at the same time.
const RAFT_IN_FLIGHT: usize = 1_024;

/// What other nodes ask.
pub struct PeerApi {
    /// Proposals and reads.
    pub router: Arc<Router>,
    /// Identity and membership.
    pub cluster: Arc<Cluster>,
    /// Answers shard questions.
    pub job: ShardJob,
    /// Ends the Raft lanes.
    pub stopped: Stopped,
}

#[tonic::async_trait]
impl PeerService for PeerApi {
    type RaftStream = Streamed<RaftResponse>;
    type ReadShardStream = Streamed<ReadShardResponse>;

    async fn raft(&self, request: Request<Streaming<RaftRequest>>) -> Result<Response<Self::RaftStream>, Status> {
        let host = self.router.host().clone();
        let one = move |message: Result<RaftRequest, Status>| {
            let host = host.clone();
            // A task of its own: groups must not wait for each other.
            tokio::spawn(async move { Ok(host.answer(message?).await) })
        };
        let messages = request.into_inner().take_until(stopped(self.stopped.clone()));
        let answers = messages.map(one).buffer_unordered(RAFT_IN_FLIGHT);
        let flat = answers.map(|joined| joined.unwrap_or_else(|e| Err(Status::internal(e.to_string()))));
        Ok(Response::new(Box::pin(flat)))
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
        Ok(Response::new(Box::pin(
            tokio_stream::wrappers::ReceiverStream::new(parts).map(Ok),
        )))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Answered<InstallSnapshotResponse> {
        let mut messages = request.into_inner();
        let Some(InstallSnapshotRequest {
            part: Some(Part::Header(header)),
        }) = messages.message().await?
        else {
            return answered(Err(Error::new(
                Reason::MissingField,
                "a snapshot begins with its header",
            )));
        };
        let host = self.router.host();
        let (group, to) = (header.group, header.to_replica);
        let checked = host.check_envelope(header.envelope.as_ref()).and_then(|()| {
            let here = host.replica(group).filter(|replica| replica.id() == to);
            here.ok_or_else(|| {
                Error::new(
                    Reason::WrongCluster,
                    format!("replica {to} of group {group} is not here"),
                )
            })
        });
        let bytes = header.files.iter().map(|file| file.bytes).sum();
        let room = || host.metrics().disk().check_room_for(bytes);
        let replica = checked
            .and_then(|replica| room().map(|()| replica))
            .map_err(|error| refused(&error))?;
        let pieces = messages.map(|message| match message {
            Ok(InstallSnapshotRequest {
                part: Some(Part::Piece(piece)),
            }) => Ok(piece),
            Ok(_) => Err(Error::new(Reason::MissingField, "a second header")),
            Err(status) => Err(Error::new(Reason::Unreachable, status.message())),
        });
        let vote = replica.receive_snapshot(header, pieces).await;
        answered(vote.map(|vote| InstallSnapshotResponse { vote: Some(vote) }))
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
}
