//! How long a client waits for its answer (`grpc-timeout`): refused where that cannot be read, and `DEADLINE_EXCEEDED` once it
//! is over. Never: how long a node may take by itself.
//!
//! The gRPC library has a clock of its own for that header, which answers `CANCELLED`. Invariant: ours begins no later (`came`),
//! and is looked at before the library looks at its own.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Request, Status};

use super::around::Layer;
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::wire::status::to_status;

const HEADER: &str = "grpc-timeout";

/// When a request came.
#[derive(Copy, Clone, Debug)]
struct Came(Instant);

/// Until when a client waits for its answer.
#[derive(Copy, Clone, Debug)]
pub(super) struct Until(pub(super) Instant);

/// Notes of a request when it came. To be called before anything else sees it.
pub fn came(mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
    request.extensions_mut().insert(Came(monotonic()));
    Ok(request)
}

/// Has a service answer for as long as its client waits.
#[derive(Copy, Clone, Debug)]
pub struct InTime;

impl Layer for InTime {
    fn call<S>(&self, inner: &mut S, mut request: http::Request<Body>) -> BoxFuture<http::Response<Body>, S::Error>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>>,
        S::Future: Send + 'static,
    {
        let until = match until(&request) {
            Ok(Some(until)) => until,
            Ok(None) => return Box::pin(inner.call(request)),
            Err(error) => return Box::pin(async move { Ok(to_status(&error).into_http()) }),
        };
        // What is too late already is not begun.
        if monotonic() >= until {
            return Box::pin(async { Ok(late()) });
        }
        request.extensions_mut().insert(Until(until));
        let answering = inner.call(request);
        Box::pin(async move {
            let mut answering = pin!(answering);
            let mut over = pin!(tokio::time::sleep_until(until.into()));
            poll_fn(|context| match answering.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(answer),
                // The clock is asked as well: the library's timer may be the one that woke this task.
                Poll::Pending if over.as_mut().poll(context).is_ready() || monotonic() >= until => {
                    Poll::Ready(Ok(late()))
                }
                Poll::Pending => Poll::Pending,
            })
            .await
        })
    }
}

fn late() -> http::Response<Body> {
    let late = Error::new(Reason::DeadlineExceeded, "the client's time ran out");
    to_status(&late.field(HEADER)).into_http()
}

/// When the client stops waiting; `None` where it does not say.
fn until(request: &http::Request<Body>) -> Result<Option<Instant>> {
    let Some(given) = request.headers().get(HEADER) else {
        return Ok(None);
    };
    let Some(timeout) = given.to_str().ok().and_then(parse) else {
        let message = format!("{:?} is no time to wait", String::from_utf8_lossy(given.as_bytes()));
        return Err(Error::new(Reason::InvalidValue, message)
            .field(HEADER)
            .hint("give at most eight digits and a unit of H, M, S, m, u or n"));
    };
    let came = request.extensions().get::<Came>();
    Ok(came.map_or_else(monotonic, |came| came.0).checked_add(timeout))
}

/// At most eight digits and a unit.
fn parse(timeout: &str) -> Option<Duration> {
    let (digits, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse(text).map(|d| d.as_millis() as u64), expected);
        check("2H", Some(7_200_000));
        check("3M", Some(180_000));
        check("99999999S", Some(99_999_999_000));
        check("100m", Some(100));
        check("5000u", Some(5));
        check("7000000n", Some(7));
        for text in ["", "S", "100", "999999999S", "-1S", "+1S", "1x", "1\u{e9}"] {
            check(text, None);
        }
    }
}
