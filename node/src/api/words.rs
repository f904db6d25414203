//! What the gRPC library refuses by itself, before a request reaches us, in the words of this store: too large, not
//! readable. Never: our own failures, which say what they are already.

use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use crate::wire::status::{library_refusal, to_status};

/// A service whose every refusal has a code, a reason and details of ours.
#[derive(Clone, Debug)]
pub struct InOurWords<S>(pub S);

impl<S: NamedService> NamedService for InOurWords<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for InOurWords<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let answering = self.0.call(request);
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
