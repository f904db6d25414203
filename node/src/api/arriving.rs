//! A request on its way in, where it is one message: whole, alone, in time, and counted while it comes.
//!
//! ```text
//! request body:  compressed? (u8) | length (u32) | so many bytes | nothing more
//! ```
//!
//! Never here: what is in it; streams, which may rest. Invariant: of what is not yet there no byte is counted, so that who
//! announces much and sends nothing takes no room from others.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Service, http};

use super::around::Layer;
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::metrics::Metrics;
use crate::wire::status::to_status;
use crate::write::{Room, Writes};

/// Methods whose requests are streams.
const STREAMS: [&str; 2] = [
    "/tidemark.v1.IngestService/WriteStream",
    "/tidemark.v1.BackupService/UploadBackupFile",
];
/// The method whose requests count as bytes of writes in flight.
const WRITE: &str = "/tidemark.v1.IngestService/Write";
/// Bytes before a message.
const HEAD_BYTES: usize = 5;

/// Has requests of one message arrive as they should.
#[derive(Clone)]
pub struct Arriving {
    /// Has room for batches, or not.
    pub writes: Arc<Writes>,
    /// Where batches are counted that there was no room for.
    pub metrics: Arc<Metrics>,
    /// Longest that a request may take to arrive.
    pub timeout: Duration,
}

impl Layer for Arriving {
    fn call<S>(&self, inner: &mut S, mut request: http::Request<Body>) -> BoxFuture<http::Response<Body>, S::Error>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>>,
        S::Future: Send + 'static,
    {
        let path = request.uri().path();
        if STREAMS.contains(&path) {
            return Box::pin(inner.call(request));
        }
        let taken = (path == WRITE).then(|| Taken(Arc::new(Mutex::new(Some(self.writes.room())))));
        if let Some(taken) = &taken {
            request.extensions_mut().insert(taken.clone());
        }
        let metrics = self.metrics.clone();
        let until = monotonic() + self.timeout;
        Box::pin(inner.call(request.map(|body| {
            Body::new(One {
                body,
                until,
                over: None,
                head: [0; HEAD_BYTES],
                arrived: 0,
                taken,
                metrics,
            })
        })))
    }
}

/// The room that a request took while it came, for whoever works on it.
#[derive(Clone)]
pub(super) struct Taken(Arc<Mutex<Option<Room>>>);

impl Taken {
    /// Hands it over; `None` where that was done before.
    pub(super) fn hand_over(&self) -> Option<Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn grow(&self, bytes: usize) -> Result<()> {
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        room.as_mut().map_or(Ok(()), |room| room.hold(bytes))
    }
}

/// The body of a request that is one message.
struct One {
    body: Body,
    until: Instant,
    /// Set once it is waited for: most requests are there at once.
    over: Option<Pin<Box<Sleep>>>,
    head: [u8; HEAD_BYTES],
    arrived: usize,
    taken: Option<Taken>,
    metrics: Arc<Metrics>,
}

impl One {
    /// Looks at the next bytes: whether they belong to the one message, and whether there is room for them.
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        if self.arrived < HEAD_BYTES {
            let more = bytes.len().min(HEAD_BYTES - self.arrived);
            self.head[self.arrived..self.arrived + more].copy_from_slice(&bytes[..more]);
        }
        self.arrived += bytes.len();
        let [_, length @ ..] = self.head;
        // Of a message that is too large, or is none, the library says so: it sees the head next.
        if self.arrived > HEAD_BYTES && self.arrived - HEAD_BYTES > u32::from_be_bytes(length) as usize {
            return Err(Error::new(
                Reason::MalformedMessage,
                "bytes behind the one message that the method takes",
            ));
        }
        let Some(taken) = &self.taken else { return Ok(()) };
        taken
            .grow(self.arrived)
            .inspect_err(|error| self.metrics.write_failed(error.reason()))
    }

    /// Fails where the request has not arrived in time.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let until = self.until;
        let over = self.over.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
        over.as_mut()
            .poll(context)
            .map(|()| Error::new(Reason::DeadlineExceeded, "the request did not arrive whole in time"))
    }
}

impl HttpBody for One {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let taken = frame.data_ref().map_or(Ok(()), |bytes| this.take(bytes));
                Poll::Ready(Some(taken.map(|()| frame).map_err(|error| to_status(&error))))
            }
            Poll::Pending => this.wait(context).map(|late| Some(Err(to_status(&late)))),
            ended => ended,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
