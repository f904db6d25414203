//! A streamed answer, message by message. Never here: retries (an answer is retried only before its first message).
//! Invariant: an answer counts as whole only when its summary came; one that ends without is an error.

use std::{fmt, time::Duration};

use tidemark_proto::v1;
use tokio::time::Instant;
use tonic::{Code, Streaming};

use crate::error::Error;

/// A streamed answer: call [`next`](Self::next) until it gives `None`, then [`summary`](Self::summary); or
/// [`collect`](Self::collect) the whole of it.
pub struct Answer<M> {
    first: Option<M>,
    stream: Streaming<M>,
    summary: Option<v1::AnswerSummary>,
    wait: Duration,
    ends_at: Instant,
    done: bool,
}

impl<M> fmt::Debug for Answer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("summary", &self.summary)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

/// A message of a streamed answer.
pub(crate) trait Piece {
    /// Takes the summary out of a closing message.
    fn take_summary(&mut self) -> Option<v1::AnswerSummary>;
    /// True where nothing is left to show the caller.
    fn is_empty(&self) -> bool;
}

/// Messages that close with a summary, each with what is empty of it.
macro_rules! pieces {
    ($($message:ty => |$it:ident| $empty:expr;)*) => {$(
        impl Piece for $message {
            fn take_summary(&mut self) -> Option<v1::AnswerSummary> {
                self.summary.take()
            }
            fn is_empty(&self) -> bool {
                let $it = self;
                $empty
            }
        }
    )*};
}

pieces! {
    v1::QueryRangeResponse => |m| m.batch.is_none();
    v1::QueryAggregateResponse => |m| m.series.is_empty();
    v1::QueryIntervalsResponse => |m| m.devices.is_empty();
    v1::GetQualityResponse => |m| m.reports.is_empty();
    v1::ListAlertsResponse => |m| m.alerts.is_empty();
    v1::GetHealthResponse => |m| m.reports.is_empty();
    v1::QueryJoinResponse => |m| m.joined.is_empty();
    v1::GetLatestResponse => |m| m.devices.is_empty() && m.tables.is_empty() && m.evaluated_at_ns == 0;
    v1::ListDevicesResponse => |m| m.devices.is_empty();
}

#[allow(private_bounds, reason = "sealed: only the messages of the contract")]
impl<M: Piece> Answer<M> {
    pub(crate) fn new(first: Option<M>, stream: Streaming<M>, wait: Duration, ends_at: Instant) -> Self {
        Self {
            first,
            stream,
            summary: None,
            wait,
            ends_at,
            done: false,
        }
    }

    /// The next message, in the order the server sent them; `None` after the last. Safe to drop while waiting.
    ///
    /// # Errors
    /// Whatever ended the answer early; `INCOMPLETE` where it ended without a summary. No message follows an error.
    pub async fn next(&mut self) -> Option<Result<M, Error>> {
        while !self.done {
            let message = match self.first.take() {
                Some(message) => Ok(Some(message)),
                None => self.receive().await,
            };
            match message {
                Ok(Some(mut message)) => {
                    self.summary = message.take_summary().or(self.summary.take());
                    if !message.is_empty() {
                        return Some(Ok(message));
                    }
                }
                Ok(None) => {
                    self.done = true;
                    return if self.summary.is_some() {
                        None
                    } else {
                        Some(Err(incomplete()))
                    };
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// What the server said about the whole answer: consistency given, devices matched, rows sent, cut short or not.
    /// None before the end.
    pub fn summary(&self) -> Option<&v1::AnswerSummary> {
        self.summary.as_ref()
    }

    /// Every message, and the summary. Holds the whole answer in memory.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn collect(mut self) -> Result<(Vec<M>, v1::AnswerSummary), Error> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            messages.push(message?);
        }
        self.summary.map(|summary| (messages, summary)).ok_or_else(incomplete)
    }

    async fn receive(&mut self) -> Result<Option<M>, Error> {
        let until = self.ends_at.min(Instant::now() + self.wait);
        match tokio::time::timeout_at(until, self.stream.message()).await {
            Ok(message) => message.map_err(Error::from),
            Err(_) => Err(Error::local(
                Code::DeadlineExceeded,
                "ANSWER_TIMEOUT",
                "the answer stopped coming",
            )),
        }
    }
}

fn incomplete() -> Error {
    Error::local(Code::Unavailable, "INCOMPLETE", "the answer ended without its summary")
}
