//! Alert profiles and alerts. Never here: when a level begins or ends (the server says).
//! Invariant: what would do something twice when it is sent twice is sent again only where nothing was stored.

use tidemark_proto::v1::{self, alert_service_client::AlertServiceClient};

use crate::{
    answer::Answer,
    call::{Call, Pace, Repeat, To, with_deadline},
    client::{ANY, Client},
    error::Error,
};

impl Client {
    /// Creates alert profiles or replaces them, all or none.
    ///
    /// # Errors
    /// What the server refuses, naming the field; no answer in time.
    pub async fn apply_alert_profiles(
        &self,
        profiles: Vec<v1::AlertProfile>,
    ) -> Result<v1::ApplyAlertProfilesResponse, Error> {
        let call = Call {
            pace: Pace::Half,
            ..ANY
        };
        let request = v1::ApplyAlertProfilesRequest { profiles };
        self.unary(call, request, |channel, request| async move {
            AlertServiceClient::new(channel).apply_alert_profiles(request).await
        })
        .await
    }

    /// Alert profiles by id, all where no id is given, ordered by id.
    ///
    /// # Errors
    /// An unknown id; no answer in time.
    pub async fn list_alert_profiles(&self, ids: Vec<String>) -> Result<Vec<v1::AlertProfile>, Error> {
        let request = v1::ListAlertProfilesRequest { ids };
        let answer = self.unary(ANY, request, |channel, request| async move {
            AlertServiceClient::new(channel).list_alert_profiles(request).await
        });
        Ok(answer.await?.profiles)
    }

    /// Removes alert profiles, all or none; says how many.
    ///
    /// # Errors
    /// An unknown id; no answer in time, then the outcome is unknown.
    pub async fn remove_alert_profiles(&self, ids: Vec<String>) -> Result<u32, Error> {
        let call = Call {
            to: To::Any,
            repeat: Repeat::OnlyIfNothingStored { one_shard: true },
            pace: Pace::Half,
        };
        let request = v1::RemoveAlertProfilesRequest { ids };
        let answer = self.unary(call, request, |channel, request| async move {
            AlertServiceClient::new(channel).remove_alert_profiles(request).await
        });
        Ok(answer.await?.removed)
    }

    /// Alerts of devices, the most serious first.
    ///
    /// # Errors
    /// What the server refuses; no first message in time.
    pub async fn list_alerts(&self, request: v1::ListAlertsRequest) -> Result<Answer<v1::ListAlertsResponse>, Error> {
        let max = self.max_answer_bytes();
        let selector = request.selector.clone();
        let open = |channel, wait| {
            let request = with_deadline(request.clone(), wait);
            async move {
                AlertServiceClient::new(channel)
                    .max_decoding_message_size(max)
                    .list_alerts(request)
                    .await
            }
        };
        Box::pin(self.answer(selector.as_ref(), open)).await
    }

    /// Acknowledges alerts, or closes those that are over; done before, it changes nothing.
    ///
    /// # Errors
    /// An unknown alert, one that is in force and cannot be closed; no answer in time.
    pub async fn answer_alerts(&self, request: v1::AnswerAlertsRequest) -> Result<v1::AnswerAlertsResponse, Error> {
        self.unary(ANY, request, |channel, request| async move {
            AlertServiceClient::new(channel).answer_alerts(request).await
        })
        .await
    }
}
