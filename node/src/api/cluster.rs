//! `ClusterService`.

use std::sync::Arc;

use tidemark_proto::v1::cluster_service_server::ClusterService;
use tidemark_proto::v1::{
    AddNodeRequest, AddNodeResponse, CancelJobRequest, CancelJobResponse, CheckShardRequest, CheckShardResponse,
    GetShardMapRequest, GetShardMapResponse, InitRequest, InitResponse, JoinRequest, JoinResponse, ListJobsRequest,
    ListJobsResponse, PlanJobRequest, PlanJobResponse, SetNodeStateRequest, SetNodeStateResponse, StartJobRequest,
    StartJobResponse, StatusRequest, StatusResponse, TransferLeaderRequest, TransferLeaderResponse,
};
use tonic::{Request, Status};

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

    async fn set_node_state(&self, _: Request<SetNodeStateRequest>) -> Answered<SetNodeStateResponse> {
        Err(Status::unimplemented("soon"))
    }

    async fn plan_job(&self, _: Request<PlanJobRequest>) -> Answered<PlanJobResponse> {
        Err(Status::unimplemented("soon"))
    }

    async fn start_job(&self, _: Request<StartJobRequest>) -> Answered<StartJobResponse> {
        Err(Status::unimplemented("soon"))
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Answered<ListJobsResponse> {
        Err(Status::unimplemented("soon"))
    }

    async fn cancel_job(&self, _: Request<CancelJobRequest>) -> Answered<CancelJobResponse> {
        Err(Status::unimplemented("soon"))
    }

    async fn transfer_leader(&self, _: Request<TransferLeaderRequest>) -> Answered<TransferLeaderResponse> {
        Err(Status::unimplemented("soon"))
    }

    async fn check_shard(&self, _: Request<CheckShardRequest>) -> Answered<CheckShardResponse> {
        Err(Status::unimplemented("soon"))
    }
}
