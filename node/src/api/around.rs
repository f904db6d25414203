//! A service with something done around each of its calls. Never here: what that is (see `observed`, `same_cluster`,
//! `in_time`, `arriving`, `words`). Invariant: the service keeps its name and its readiness.

use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

/// What is done around every call.
pub trait Layer {
    /// Has the service answer, or answers in its place.
    fn call<S>(&self, inner: &mut S, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, S::Error>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>>,
        S::Future: Send + 'static;
}

/// A service and what is done around it.
#[derive(Clone, Debug)]
pub struct Around<L, S> {
    /// What is done.
    pub layer: L,
    /// The service.
    pub inner: S,
}

impl<L, S: NamedService> NamedService for Around<L, S> {
    const NAME: &'static str = S::NAME;
}

impl<L, S> Service<http::Request<Body>> for Around<L, S>
where
    L: Layer,
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.layer.call(&mut self.inner, request)
    }
}
