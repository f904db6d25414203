//! `ClusterService`.

use std::sync::Arc;

use tidemark_proto::v1::cluster_service_server::ClusterService;
use tidemark_proto::v1::{
    AddNodeRequest, AddNodeResponse, CancelJobRequest, CancelJobResponse, CheckShardRequest, CheckShardResponse,
    CompactShardRequest, CompactShardResponse, GetShardMapRequest, GetShardMapResponse, InitRequest, InitResponse,
    JoinRequest, JoinResponse, ListJobsRequest, ListJobsResponse, PlanJobRequest, PlanJobResponse, SetNodeStateRequest,
    SetNodeStateResponse, StartJobRequest, StartJobResponse, StatusRequest, StatusResponse, TransferLeaderRequest,
    TransferLeaderResponse,
};
use tonic::Request;

use super::{Answered, answered};
use crate::cluster::Cluster;

/// Nodes, shards and who leads them.
pub struct ClusterApi {
    /// Does the work.
    pub cluster: Arc<Cluster>,
}

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    async fn init(&self, request: Request<InitRequest>) -> Answered<InitResponse> {
        answered(self.cluster.init(request.into_inner()).await)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Answered<JoinResponse> {
        answered(self.cluster.join(request.into_inner()).await)
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answered<StatusResponse> {
        answered(self.cluster.status().await)
    }

    async fn get_shard_map(&self, _: Request<GetShardMapRequest>) -> Answered<GetShardMapResponse> {
        answered(self.cluster.shard_map())
    }

    async fn add_node(&self, request: Request<AddNodeRequest>) -> Answered<AddNodeResponse> {
        let added = self.cluster.add_node(&request.into_inner().peer_address, "").await;
        answered(added.map(|(cluster_id, node)| AddNodeResponse {
            cluster_id,
            node: Some(node),
        }))
    }

    async fn set_node_state(&self, request: Request<SetNodeStateRequest>) -> Answered<SetNodeStateResponse> {
        answered(self.cluster.set_node_state(request.into_inner()).await)
    }

    async fn plan_job(&self, request: Request<PlanJobRequest>) -> Answered<PlanJobResponse> {
        answered(self.cluster.plan_job(request.into_inner().spec).await)
    }

    async fn start_job(&self, request: Request<StartJobRequest>) -> Answered<StartJobResponse> {
        answered(self.cluster.start_job(request.into_inner()).await)
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Answered<ListJobsResponse> {
        answered(self.cluster.list_jobs(request.into_inner()).await)
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Answered<CancelJobResponse> {
        answered(self.cluster.cancel_job(request.into_inner().id).await)
    }

    async fn transfer_leader(&self, request: Request<TransferLeaderRequest>) -> Answered<TransferLeaderResponse> {
        answered(self.cluster.transfer_leader(request.into_inner()).await)
    }

    async fn check_shard(&self, request: Request<CheckShardRequest>) -> Answered<CheckShardResponse> {
        answered(self.cluster.check_shard(request.into_inner().shard).await)
    }

    async fn compact_shard(&self, request: Request<CompactShardRequest>) -> Answered<CompactShardResponse> {
        answered(self.cluster.compact_shard(request.into_inner().shard).await)
    }
}
