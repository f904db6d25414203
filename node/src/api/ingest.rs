//! `IngestService`.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tidemark_proto::v1::ingest_service_server::IngestService;
use tidemark_proto::v1::write_stream_response::Result as Outcome;
use tidemark_proto::v1::{
    DeletePointsRequest, DeletePointsResponse, WriteRequest, WriteResponse, WriteStreamRequest, WriteStreamResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::arriving::Taken;
use super::words::in_our_words;
use super::{Answered, Stopped, Streamed, answered, stopped};
use crate::delete::Deletes;
use crate::wire::status::to_failure;
use crate::write::Writes;

/// Batches of one stream that are worked on at the same time.
const STREAM_IN_FLIGHT: usize = 8;

/// Points on their way in.
pub struct IngestApi {
    /// Takes them.
    pub writes: Arc<Writes>,
    /// Removes them.
    pub deletes: Arc<Deletes>,
    /// Ends the streams: what is read by then is answered, the writer sends the rest elsewhere.
    pub stopped: Stopped,
}

#[tonic::async_trait]
impl IngestService for IngestApi {
    type WriteStreamStream = Streamed<WriteStreamResponse>;

    async fn write(&self, request: Request<WriteRequest>) -> Answered<WriteResponse> {
        let room = request.extensions().get().and_then(Taken::hand_over);
        let room = room.unwrap_or_else(|| self.writes.room());
        answered(self.writes.write(request.into_inner(), room).await)
    }

    async fn delete_points(&self, request: Request<DeletePointsRequest>) -> Answered<DeletePointsResponse> {
        answered(self.deletes.delete(request.into_inner()).await)
    }

    async fn write_stream(
        &self,
        request: Request<Streaming<WriteStreamRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        let writes = self.writes.clone();
        let one = move |message: Result<WriteStreamRequest, Status>| {
            let writes = writes.clone();
            async move {
                let message = message.map_err(in_our_words)?;
                let result = match writes.write(message.write.unwrap_or_default(), writes.room()).await {
                    Ok(stored) => Outcome::Stored(stored),
                    Err(error) => Outcome::Failure(to_failure(&error)),
                };
                Ok(WriteStreamResponse {
                    token: message.token,
                    result: Some(result),
                })
            }
        };
        let messages = request.into_inner().take_until(stopped(self.stopped.clone()));
        Ok(Response::new(Box::pin(
            messages.map(one).buffer_unordered(STREAM_IN_FLIGHT),
        )))
    }
}
