//! `SubscribeService`.

use std::sync::Arc;

use futures_util::stream;
use tidemark_proto::v1::subscribe_service_server::SubscribeService;
use tidemark_proto::v1::{SubscribeRequest, SubscribeResponse};
use tonic::{Request, Response, Status};

use super::caller::caller;
use super::{Streamed, refused};
use crate::subscribe::Subscriptions;

/// What happens, as it happens.
pub struct SubscribeApi {
    /// Serves them.
    pub subscriptions: Arc<Subscriptions>,
}

#[tonic::async_trait]
impl SubscribeService for SubscribeApi {
    type SubscribeStream = Streamed<SubscribeResponse>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let application = caller(&request)?.application;
        let begun = self.subscriptions.subscribe(request.into_inner(), &application).await;
        let messages = begun.map_err(|error| refused(&error))?;
        let messages = stream::unfold(messages, |mut messages| async move {
            let message = messages.next().await?;
            Some((message.map_err(|error| refused(&error)), messages))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}
