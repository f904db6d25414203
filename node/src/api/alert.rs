//! `AlertService`.

use std::sync::Arc;

use tidemark_proto::v1::alert_service_server::AlertService;
use tidemark_proto::v1::{
    AnswerAlertsRequest, AnswerAlertsResponse, ApplyAlertProfilesRequest, ApplyAlertProfilesResponse,
    ListAlertProfilesRequest, ListAlertProfilesResponse, ListAlertsRequest, ListAlertsResponse,
    RemoveAlertProfilesRequest, RemoveAlertProfilesResponse,
};
use tonic::{Request, Response, Status};

use super::caller::caller;
use super::{Answered, Streamed, answered, streamed};
use crate::alert::Alerts;
use crate::query::Queries;

/// Alert profiles and alerts.
pub struct AlertApi {
    /// Changes them.
    pub alerts: Arc<Alerts>,
    /// Lists them.
    pub queries: Arc<Queries>,
}

#[tonic::async_trait]
impl AlertService for AlertApi {
    type ListAlertsStream = Streamed<ListAlertsResponse>;

    async fn apply_alert_profiles(
        &self,
        request: Request<ApplyAlertProfilesRequest>,
    ) -> Answered<ApplyAlertProfilesResponse> {
        answered(self.alerts.apply_profiles(request.into_inner()).await)
    }

    async fn list_alert_profiles(
        &self,
        request: Request<ListAlertProfilesRequest>,
    ) -> Answered<ListAlertProfilesResponse> {
        answered(self.alerts.list_profiles(&request.into_inner().ids).await)
    }

    async fn remove_alert_profiles(
        &self,
        request: Request<RemoveAlertProfilesRequest>,
    ) -> Answered<RemoveAlertProfilesResponse> {
        let removed = self.alerts.remove_profiles(request.into_inner().ids).await;
        answered(removed.map(|removed| RemoveAlertProfilesResponse { removed }))
    }

    async fn list_alerts(
        &self,
        request: Request<ListAlertsRequest>,
    ) -> Result<Response<Self::ListAlertsStream>, Status> {
        let caller = caller(&request)?;
        streamed(self.queries.alerts(request.into_inner(), &caller).await)
    }

    async fn answer_alerts(&self, request: Request<AnswerAlertsRequest>) -> Answered<AnswerAlertsResponse> {
        answered(self.alerts.answer(request.into_inner()).await)
    }
}
