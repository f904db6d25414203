//! The gRPC services, thin: unpack, call the path, translate the failure. Never: decisions.

mod alert;
mod arriving;
mod around;
mod backup;
mod caller;
mod cluster;
mod http;
mod in_time;
mod ingest;
mod observed;
mod peer;
mod query;
mod registry;
mod same_cluster;
mod subscribe;
mod words;

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use tonic::{Response, Status};

pub use alert::AlertApi;
pub use around::Around;
pub use arriving::Arriving;
pub use backup::BackupApi;
pub use cluster::ClusterApi;
pub use http::HttpApi;
pub use in_time::{InTime, came};
pub use ingest::IngestApi;
pub use observed::Observed;
pub use peer::PeerApi;
pub use query::QueryApi;
pub use registry::RegistryApi;
pub use same_cluster::SameCluster;
pub use subscribe::SubscribeApi;
pub use words::InOurWords;

use crate::error::{Error, Result};
use crate::query::Answers;
use crate::wire::status::to_status;

/// A streamed answer as tonic wants it.
type Streamed<M> = Pin<Box<dyn Stream<Item = std::result::Result<M, Status>> + Send>>;

/// Told when this node stops.
pub type Stopped = tokio::sync::watch::Receiver<bool>;

/// Ends when the node stops: streams that clients and peers keep open for ever end with it.
pub async fn stopped(mut stopped: Stopped) {
    // A sender that has gone has stopped too.
    stopped.wait_for(|stop| *stop).await.ok();
}

/// What a unary call returns.
type Answered<M> = std::result::Result<Response<M>, Status>;

/// Translates the outcome of a unary call.
fn answered<M>(result: Result<M>) -> Answered<M> {
    result.map(Response::new).map_err(|error| refused(&error))
}

/// Translates the start of a streamed answer, and every failure in it.
fn streamed<M: Send + 'static>(result: Result<Answers<M>>) -> std::result::Result<Response<Streamed<M>>, Status> {
    let messages = result.map_err(|error| refused(&error))?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
    Ok(Response::new(Box::pin(
        stream.map(|item| item.map_err(|error| refused(&error))),
    )))
}

/// The status of a failure; those that are ours to mend are logged, once, here.
fn refused(error: &Error) -> Status {
    use crate::error::Code;
    if matches!(error.code(), Code::Internal | Code::DataLoss) {
        tracing::error!(%error, "request failed");
    }
    to_status(error)
}
