//! A closed loop through the client's writer: at most so many batches without an acknowledgement, each timed. Nothing here
//! decides what is written. Invariant: every batch that was sent comes out once, with its label and how long it took.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tidemark_client::{Ack, Client, Error, Writer, WriterOptions, v1};

/// What became of one batch.
#[derive(Debug)]
pub(crate) struct Done<T> {
    pub(crate) label: T,
    pub(crate) took: Duration,
    pub(crate) result: Result<v1::WriteResponse, Error>,
}

/// A writer whose batches carry labels.
#[derive(Debug)]
pub(crate) struct Pipe<T> {
    writer: Writer,
    sent: HashMap<u64, (Instant, T)>,
    in_flight: usize,
}

impl<T> Pipe<T> {
    /// A new producer with at most `in_flight` unacknowledged batches.
    pub(crate) fn new(client: &Client, in_flight: usize, give_up_after: Duration) -> Self {
        let in_flight = in_flight.clamp(1, 128);
        let options = WriterOptions {
            max_in_flight: in_flight,
            give_up_after,
            ..WriterOptions::default()
        };
        Self {
            writer: client.writer(options),
            sent: HashMap::new(),
            in_flight,
        }
    }

    /// Sends a batch; when there is no room, waits for an acknowledgement first and gives it.
    pub(crate) async fn send(&mut self, batch: v1::Batch, label: T) -> Result<Option<Done<T>>> {
        let done = if self.sent.len() >= self.in_flight {
            self.next().await?
        } else {
            None
        };
        let began = Instant::now();
        let sequence = self
            .writer
            .send(batch)
            .await
            .map_err(|error| anyhow::anyhow!("the writer ended: {error}"))?;
        self.sent.insert(sequence, (began, label));
        Ok(done)
    }

    /// The next acknowledgement; none when nothing is in flight. Safe to drop while waiting.
    pub(crate) async fn next(&mut self) -> Result<Option<Done<T>>> {
        let Some(ack) = self.writer.next_ack().await else {
            anyhow::ensure!(
                self.sent.is_empty(),
                "the writer ended with {} batches in flight",
                self.sent.len()
            );
            return Ok(None);
        };
        self.done(ack).map(Some)
    }

    /// The next acknowledgement if there is one already.
    pub(crate) fn try_next(&mut self) -> Result<Option<Done<T>>> {
        self.writer.try_next_ack().map(|ack| self.done(ack)).transpose()
    }

    fn done(&mut self, ack: Ack) -> Result<Done<T>> {
        let (began, label) = self
            .sent
            .remove(&ack.sequence)
            .context("an acknowledgement of a batch that was not sent")?;
        Ok(Done {
            label,
            took: began.elapsed(),
            result: ack.result,
        })
    }
}
