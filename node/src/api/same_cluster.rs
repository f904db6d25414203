//! Refuses calls that were meant for another cluster. Clients that know their cluster say so with every call.

use std::sync::Arc;

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};

use super::around::Layer;
use crate::error::{Error, Reason};
use crate::raft::host::Host;
use crate::wire::status::to_status;

/// Header that names the cluster a call is meant for.
const HEADER: &str = "tidemark-cluster";

/// Has a service answer for its own cluster only.
#[derive(Clone)]
pub struct SameCluster {
    /// Knows which cluster this is.
    pub host: Arc<Host>,
}

impl SameCluster {
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

impl Layer for SameCluster {
    fn call<S>(&self, inner: &mut S, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, S::Error>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>>,
        S::Future: Send + 'static,
    {
        match self.refusal(request.headers()) {
            Some(error) => Box::pin(async move { Ok(to_status(&error).into_http()) }),
            None => Box::pin(inner.call(request)),
        }
    }
}
