//! `ClusterService`.

use std::sync::Arc;

use tidemark_proto::v1::cluster_service_server::ClusterService;
use tidemark_proto::v1::{
    GetShardMapRequest, GetShardMapResponse, InitRequest, InitResponse, JoinRequest, JoinResponse, StatusRequest,
    StatusResponse,
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
}
