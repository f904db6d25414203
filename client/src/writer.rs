//! [`Writer`]: the caller's end of a stream of writes. Never here: the stream itself (`session`).
//! Invariant: a batch has one sequence, given once; room is taken before it and given back with its acknowledgement.

use std::sync::{Arc, OnceLock};

use prost::Message as _;
use tidemark_proto::v1;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tonic::Code;

use crate::{
    call::Core,
    error::Error,
    options::WriterOptions,
    session::{Pending, Session},
};

const IN_FLIGHT_MAX: usize = 128;
/// Batches whose acknowledgement the caller has not taken, in flight or not.
const UNTAKEN_MAX: usize = 1 << 16;

/// What became of one batch.
#[derive(Debug)]
pub struct Ack {
    /// The batch's sequence, as [`Writer::send`] gave it.
    pub sequence: u64,
    /// Stored, or why not.
    pub result: Result<v1::WriteResponse, Error>,
}

/// Pipelined writes over `WriteStream`. After a broken stream, a lost leader or a retryable failure the unacknowledged
/// batches are sent again, in order, with the same sequence, by way of any node: each is stored once.
///
/// Dropping a writer abandons what is in flight; [`finish`](Self::finish) waits for it. Acknowledgements that are not
/// taken are kept, 65,536 at most, so take them now and then.
#[derive(Debug)]
pub struct Writer {
    options: WriterOptions,
    batches: Option<mpsc::Sender<Pending>>,
    acks: mpsc::Receiver<Ack>,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    ended: Arc<OnceLock<Error>>,
    next: u64,
    untaken: usize,
    task: JoinHandle<()>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Writer {
    pub(crate) fn new(core: Arc<Core>, mut options: WriterOptions) -> Self {
        options.max_in_flight = options.max_in_flight.clamp(1, IN_FLIGHT_MAX);
        options.max_in_flight_bytes = options.max_in_flight_bytes.clamp(1, u32::MAX as usize >> 1);
        options.first_sequence = options.first_sequence.max(1);
        let (batches, incoming) = mpsc::channel(options.max_in_flight);
        let (acks_in, acks) = mpsc::channel(UNTAKEN_MAX);
        let ended = Arc::new(OnceLock::new());
        let session = Session::new(core, options.clone(), incoming, acks_in, Arc::clone(&ended));
        Self {
            batches: Some(batches),
            acks,
            count: Arc::new(Semaphore::new(options.max_in_flight)),
            bytes: Arc::new(Semaphore::new(options.max_in_flight_bytes)),
            ended,
            next: options.first_sequence,
            untaken: 0,
            task: tokio::spawn(session.run()),
            options,
        }
    }

    /// Who sends.
    pub fn producer(&self) -> &str {
        &self.options.producer
    }

    /// The sequence that the next batch gets.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Batches without an acknowledgement.
    pub fn in_flight(&self) -> usize {
        self.untaken.saturating_sub(self.acks.len())
    }

    /// Takes a batch, waiting for room, and gives its sequence. Its fate comes with [`next_ack`](Self::next_ack). Dropped
    /// while waiting, the batch is not sent and its sequence goes to the next.
    ///
    /// # Errors
    /// Why the writer ended: after `give_up_after` without an acknowledgement it takes no more batches.
    /// `ACKS_NOT_TAKEN` after 65,536 batches whose acknowledgements nobody took.
    pub async fn send(&mut self, batch: v1::Batch) -> Result<u64, Error> {
        if self.untaken >= UNTAKEN_MAX {
            let message = format!("{UNTAKEN_MAX} acknowledgements wait to be taken");
            return Err(Error::local(Code::FailedPrecondition, "ACKS_NOT_TAKEN", message));
        }
        let write = v1::WriteRequest {
            batch: Some(batch),
            producer: self.options.producer.clone(),
            sequence: self.next,
        };
        let bytes = write.encoded_len().min(self.options.max_in_flight_bytes);
        let one = Arc::clone(&self.count).acquire_owned().await.map_err(|_| self.why())?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.bytes)
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| self.why())?;
        let Some(batches) = &self.batches else {
            return Err(self.why());
        };
        batches
            .send(Pending::new(write, one, room))
            .await
            .map_err(|_| self.why())?;
        let sequence = self.next;
        self.next += 1;
        self.untaken += 1;
        Ok(sequence)
    }

    /// The next acknowledgement, in the order in which batches became durable; `None` when every batch has had its own.
    pub async fn next_ack(&mut self) -> Option<Ack> {
        if self.untaken == 0 {
            return None;
        }
        let ack = self.acks.recv().await;
        self.untaken = if ack.is_some() { self.untaken - 1 } else { 0 };
        ack
    }

    /// The next acknowledgement if there is one already.
    pub fn try_next_ack(&mut self) -> Option<Ack> {
        let ack = self.acks.try_recv().ok()?;
        self.untaken = self.untaken.saturating_sub(1);
        Some(ack)
    }

    /// Waits for everything in flight and gives the acknowledgements not taken yet. Look at each `result`: a refused
    /// batch is an acknowledgement, not an error of this call.
    ///
    /// # Errors
    /// The writer's task was lost with batches in flight, as happens when the runtime shuts down.
    pub async fn finish(mut self) -> Result<Vec<Ack>, Error> {
        self.batches = None;
        let expected = self.untaken;
        let mut acks = Vec::with_capacity(expected);
        while let Some(ack) = self.next_ack().await {
            acks.push(ack);
        }
        if acks.len() < expected {
            Err(self.why())
        } else {
            Ok(acks)
        }
    }

    fn why(&self) -> Error {
        let lost = || Error::local(Code::Cancelled, "WRITER_LOST", "the writer's task has stopped");
        self.ended.get().cloned().unwrap_or_else(lost)
    }
}
