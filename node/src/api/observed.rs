//! Notes every request of a client when its answer has ended: the method, how it ended, how long it took. Never: what
//! was asked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Service, http};
use tonic::{Code, Status};

use super::around::Layer;
use crate::clock::{Instant, monotonic};
use crate::metrics::Metrics;
use crate::wire::status::end_of;

/// Any method that is none of the contract: a label must not take what a caller makes up.
const OTHER: &str = "other";

/// Notes the requests of a service.
#[derive(Clone)]
pub struct Observed {
    /// Where they are noted.
    pub metrics: Arc<Metrics>,
}

impl Layer for Observed {
    fn call<S>(&self, inner: &mut S, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, S::Error>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>>,
        S::Future: Send + 'static,
    {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let mut note = Note {
            metrics: self.metrics.clone(),
            method: method.to_string(),
            began: monotonic(),
            noted: false,
        };
        let answering = inner.call(request);
        Box::pin(async move {
            let response = answering.await?;
            // A response that is nothing but a status has one in its head.
            if let Some(status) = Status::from_header_map(response.headers()) {
                note.end(&status);
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(Noted { body, note })))
        })
    }
}

/// A request on its way; one that is dropped before its end was given up by its caller.
struct Note {
    metrics: Arc<Metrics>,
    method: String,
    began: Instant,
    noted: bool,
}

impl Note {
    fn end(&mut self, status: &Status) {
        if !self.noted {
            self.noted = true;
            let unknown = status.code() == Code::Unimplemented;
            let method = if unknown { OTHER } else { &self.method };
            self.metrics.request(method, end_of(status), self.began.elapsed());
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.end(&Status::cancelled(""));
    }
}

/// An answer that is read to its trailers, or not.
struct Noted {
    body: Body,
    note: Note,
}

impl HttpBody for Noted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.note.end(&status);
                }
            }
            Poll::Ready(Some(Err(status))) => self.note.end(status),
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
