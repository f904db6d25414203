//! Refuses calls that were meant for another cluster. Clients that know their cluster say so with every call.

use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use crate::error::{Error, Reason};
use crate::raft::host::Host;
use crate::wire::status::to_status;

/// Header that names the cluster a call is meant for.
const HEADER: &str = "tidemark-cluster";

/// A service that answers for its own cluster only.
#[derive(Clone)]
pub struct SameCluster<S> {
    /// Knows which cluster this is.
    pub host: Arc<Host>,
    /// The service.
    pub inner: S,
}

impl<S: NamedService> NamedService for SameCluster<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> SameCluster<S> {
    fn refusal(&self, headers: &http::HeaderMap) -> Option<Error> {
        let meant = headers.get(HEADER)?;
        let here = self.host.identity().ok()?;
        if meant.as_bytes() == here.cluster_id.as_bytes() {
            return None;
        }
        let message = format!(
            "this node belongs to cluster {}, not to the one that is meant",
            here.cluster_id
        );
        Some(Error::new(Reason::WrongCluster, message).hint("check the endpoints and what the nodes advertise"))
    }
}

impl<S, B> Service<http::Request<B>> for SameCluster<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match self.refusal(request.headers()) {
            Some(error) => Box::pin(async move { Ok(to_status(&error).into_http()) }),
            None => Box::pin(self.inner.call(request)),
        }
    }
}
