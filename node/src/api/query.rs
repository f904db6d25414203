//! `QueryService`.

use std::sync::Arc;

use tidemark_proto::encoded::query_service_server::QueryService;
use tidemark_proto::encoded::{GetLatestResponse, QueryRangeResponse};
use tidemark_proto::v1::{
    GetHealthRequest, GetHealthResponse, GetLatestRequest, GetQualityRequest, GetQualityResponse,
    QueryAggregateRequest, QueryAggregateResponse, QueryIntervalsRequest, QueryIntervalsResponse, QueryJoinRequest,
    QueryJoinResponse, QueryRangeRequest,
};
use tonic::{Request, Response, Status};

use super::caller::caller;
use super::{Streamed, streamed};
use crate::query::Queries;

/// Questions about points.
pub struct QueryApi {
    /// Answers them.
    pub queries: Arc<Queries>,
}

#[tonic::async_trait]
impl QueryService for QueryApi {
    type QueryRangeStream = Streamed<QueryRangeResponse>;
    type QueryAggregateStream = Streamed<QueryAggregateResponse>;
    type GetLatestStream = Streamed<GetLatestResponse>;
    type QueryIntervalsStream = Streamed<QueryIntervalsResponse>;
    type GetQualityStream = Streamed<GetQualityResponse>;
    type GetHealthStream = Streamed<GetHealthResponse>;
    type QueryJoinStream = Streamed<QueryJoinResponse>;

    async fn query_range(
        &self,
        request: Request<QueryRangeRequest>,
    ) -> Result<Response<Self::QueryRangeStream>, Status> {
        let caller = caller(&request)?;
        streamed(self.queries.range(request.into_inner(), &caller).await)
    }

    async fn query_aggregate(
        &self,
        request: Request<QueryAggregateRequest>,
    ) -> Result<Response<Self::QueryAggregateStream>, Status> {
        let caller = caller(&request)?;
        streamed(self.queries.aggregate(request.into_inner(), &caller).await)
    }

    async fn get_latest(&self, request: Request<GetLatestRequest>) -> Result<Response<Self::GetLatestStream>, Status> {
        let caller = caller(&request)?;
        streamed(self.queries.latest(request.into_inner(), &caller).await)
    }

    async fn query_intervals(
        &self,
        request: Request<QueryIntervalsRequest>,
    ) -> Result<Response<Self::QueryIntervalsStream>, Status> {
        let caller = caller(&request)?;
        streamed(self.queries.intervals(request.into_inner(), &caller).await)
    }

    async fn get_quality(
        &self,
        request: Request<GetQualityRequest>,
    ) -> Result<Response<Self::GetQualityStream>, Status> {
        let caller = caller(&request)?;
        streamed(self.queries.quality(request.into_inner(), &caller).await)
    }

    async fn get_health(&self, request: Request<GetHealthRequest>) -> Result<Response<Self::GetHealthStream>, Status> {
        let caller = caller(&request)?;
        streamed(self.queries.health(request.into_inner(), &caller).await)
    }

    async fn query_join(&self, request: Request<QueryJoinRequest>) -> Result<Response<Self::QueryJoinStream>, Status> {
        let caller = caller(&request)?;
        streamed(self.queries.join(request.into_inner(), &caller).await)
    }
}
