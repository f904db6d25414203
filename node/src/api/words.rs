//! What the gRPC library refuses by itself, before a request reaches us, in the words of this store: too large, not
//! readable. Never: our own failures, which say what they are already.

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};

use super::around::Layer;
use crate::wire::status::{library_refusal, to_status};

/// Gives every refusal of a service a code, a reason and details of ours.
#[derive(Clone, Debug)]
pub struct InOurWords;

impl Layer for InOurWords {
    fn call<S>(&self, inner: &mut S, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, S::Error>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>>,
        S::Future: Send + 'static,
    {
        let answering = inner.call(request);
        Box::pin(async move {
            let response = answering.await?;
            // Only a response that is nothing but a status has one in its head.
            let refused = Status::from_header_map(response.headers());
            Ok(match refused.as_ref().and_then(library_refusal) {
                Some(error) => to_status(&error).into_http(),
                None => response,
            })
        })
    }
}

/// The same for a message in the middle of a stream.
pub(super) fn in_our_words(status: Status) -> Status {
    library_refusal(&status).map_or(status, |error| to_status(&error))
}
