//! Deleting points. Never here: asking whether that is meant (the server wants it said, tools ask).

use tidemark_proto::v1::{self, ingest_service_client::IngestServiceClient};

use crate::{
    call::{Call, Pace},
    client::{ANY, Client},
    error::Error,
};

/// Safe to repeat: what is gone stays gone. A large one takes long.
const LONG: Call<'_> = Call { pace: Pace::All, ..ANY };

impl Client {
    /// Removes the records of devices over a range of observation times; they are gone from every answer when this
    /// returns. All of `timeout` in one try.
    ///
    /// # Errors
    /// What the server refuses; no answer in time, then some of it may be gone, and the same call again goes on.
    pub async fn delete_points(&self, request: v1::DeletePointsRequest) -> Result<v1::DeletePointsResponse, Error> {
        self.unary(LONG, request, |channel, request| async move {
            IngestServiceClient::new(channel).delete_points(request).await
        })
        .await
    }
}
