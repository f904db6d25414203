//! The task behind a [`Writer`](crate::Writer): one write stream at a time, opened anew when it breaks. Never here: the
//! caller's end. Invariant: `pending` holds exactly the unacknowledged batches, by sequence; a new stream begins with all of them.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tidemark_proto::v1::{self, ingest_service_client::IngestServiceClient, write_stream_response::Result as Outcome};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::{
    call::{Backoff, Core, To},
    error::{Error, ErrorKind, Failed, Reached},
    nodes::Node,
    options::WriterOptions,
    writer::Ack,
};

/// A stream without an acknowledgement is left after `attempt_timeout`, doubled each time in a row, up to this.
const STALL_MAX: Duration = Duration::from_secs(24);

/// A batch without an acknowledgement.
#[derive(Debug)]
pub(crate) struct Pending {
    write: v1::WriteRequest,
    taken_at: Instant,
    sent: bool,
    _one: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Pending {
    pub(crate) fn new(write: v1::WriteRequest, one: OwnedSemaphorePermit, bytes: OwnedSemaphorePermit) -> Self {
        Self {
            write,
            taken_at: Instant::now(),
            sent: false,
            _one: one,
            _bytes: bytes,
        }
    }
}

/// The task's state.
#[derive(Debug)]
pub(crate) struct Session {
    core: Arc<Core>,
    options: WriterOptions,
    incoming: mpsc::Receiver<Pending>,
    closed: bool,
    acks: mpsc::Sender<Ack>,
    ended: Arc<OnceLock<Error>>,
    pending: VecDeque<Pending>,
    /// Batches up to this sequence go one at a time: a whole stream was refused for one of them.
    alone_until: u64,
    stall: Duration,
    backoff: Backoff,
}

/// How a stream ended.
enum End {
    /// Nothing was in flight.
    Idle,
    /// What is unacknowledged must be sent again.
    Broken(Failed),
}

impl Session {
    pub(crate) fn new(
        core: Arc<Core>,
        options: WriterOptions,
        incoming: mpsc::Receiver<Pending>,
        acks: mpsc::Sender<Ack>,
        ended: Arc<OnceLock<Error>>,
    ) -> Self {
        let stall = core.options.attempt_timeout;
        let (pending, backoff) = (VecDeque::new(), Backoff::default());
        Self {
            core,
            options,
            incoming,
            closed: false,
            acks,
            ended,
            pending,
            alone_until: 0,
            stall,
            backoff,
        }
    }

    /// Until the caller is done and everything is acknowledged, or the writer gives up.
    pub(crate) async fn run(mut self) {
        let mut avoid: Option<String> = None;
        loop {
            if self.pending.is_empty() {
                match self.incoming.recv().await {
                    Some(batch) => self.pending.push_back(batch),
                    None => return,
                }
            }
            let node = match self.pick(avoid.as_deref()) {
                Ok(node) => node,
                Err(error) => return self.give_up(error).await,
            };
            let End::Broken(mut failed) = self.stream(&node).await else {
                avoid = None;
                continue;
            };
            // A node that is not of the cluster judges no batch of it.
            let astray = self.core.is_astray(&failed.error, &node);
            failed.node_at_fault |= astray;
            if failed.node_at_fault {
                node.failed();
            }
            avoid = failed.another_may_know().then(|| node.address.clone());
            if !astray && self.refused_one(&failed.error) {
                continue;
            }
            let pause = self.core.pause_after(&failed, &node, &mut self.backoff);
            if self
                .overdue_at()
                .is_some_and(|overdue_at| Instant::now() + pause >= overdue_at)
            {
                return self.give_up(failed.error).await;
            }
            tracing::debug!(node = node.address, error = %failed.error, pending = self.pending.len(), "write stream broken");
            self.core.pause(pause, avoid.as_deref()).await;
        }
    }

    fn pick(&self, avoid: Option<&str>) -> Result<Arc<Node>, Error> {
        let devices = self
            .pending
            .front()
            .and_then(|first| first.write.batch.as_ref())
            .map(|batch| &batch.devices[..]);
        self.core.pick(To::Leader(devices.unwrap_or_default()), avoid)
    }

    fn overdue_at(&self) -> Option<Instant> {
        self.pending
            .front()
            .map(|first| first.taken_at + self.options.give_up_after)
    }

    /// One stream, from its first batch to its end.
    async fn stream(&mut self, node: &Node) -> End {
        let channel = match node.channel().await {
            Ok(channel) => channel,
            Err(failed) => return End::Broken(failed),
        };
        for batch in &mut self.pending {
            batch.sent = false;
        }
        let (out, requests) = mpsc::channel(self.options.max_in_flight);
        self.fill(&out);
        let mut client = IngestServiceClient::new(channel);
        let open = client.write_stream(ReceiverStream::new(requests));
        let mut answers = match timeout(self.stall, open).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return End::Broken(Failed::from(status)),
            Err(_) => return End::Broken(self.stalled(node)),
        };
        node.worked();
        self.exchange(node, &out, &mut answers).await
    }

    async fn exchange(
        &mut self,
        node: &Node,
        out: &mpsc::Sender<v1::WriteStreamRequest>,
        answers: &mut Streaming<v1::WriteStreamResponse>,
    ) -> End {
        let mut refused: Option<Error> = None;
        let mut progress_at = Instant::now();
        loop {
            if refused.is_none() {
                self.fill(out);
            }
            let waiting = self.pending.iter().any(|batch| batch.sent);
            if !waiting && let Some(error) = refused {
                return End::Broken(Failed {
                    error,
                    reached: Reached::Refused,
                    node_at_fault: false,
                });
            }
            if self.closed && self.pending.is_empty() {
                return End::Idle;
            }
            let overdue_at = self.overdue_at().unwrap_or(progress_at + self.stall);
            let stalled_at = overdue_at.min(progress_at + self.stall);
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        progress_at = Instant::now();
                        refused = self.take(answer, node).or(refused);
                    }
                    Ok(None) if self.pending.is_empty() => return End::Idle,
                    Ok(None) => return End::Broken(ended_early()),
                    Err(status) => {
                        let failed = Failed::from(status);
                        if !self.pending.is_empty() {
                            return End::Broken(failed);
                        }
                        if failed.node_at_fault {
                            node.failed();
                        }
                        return End::Idle;
                    }
                },
                batch = self.incoming.recv(), if !self.closed => match batch {
                    Some(batch) => {
                        if !waiting {
                            progress_at = Instant::now();
                        }
                        self.pending.push_back(batch);
                    }
                    None => self.closed = true,
                },
                () = sleep_until(stalled_at), if waiting => return End::Broken(self.stalled(node)),
            }
        }
    }

    /// Sends what is not sent yet, in order, as far as the window allows.
    fn fill(&mut self, out: &mpsc::Sender<v1::WriteStreamRequest>) {
        let sent = self.pending.iter().filter(|batch| batch.sent).count();
        let alone = self
            .pending
            .front()
            .is_some_and(|first| first.write.sequence <= self.alone_until);
        let window = if alone { 1 } else { self.options.max_in_flight };
        let room = window.saturating_sub(sent);
        for batch in self.pending.iter_mut().filter(|batch| !batch.sent).take(room) {
            let request = v1::WriteStreamRequest {
                token: batch.write.sequence,
                write: Some(batch.write.clone()),
            };
            if out.try_send(request).is_err() {
                return;
            }
            batch.sent = true;
        }
    }

    /// One answer. A failure that a repetition may cure, or another node, leaves the batch pending and is given back.
    fn take(&mut self, answer: v1::WriteStreamResponse, node: &Node) -> Option<Error> {
        let position = self
            .pending
            .iter()
            .position(|batch| batch.write.sequence == answer.token && batch.sent)?;
        let result = match answer.result {
            Some(Outcome::Stored(stored)) => Ok(stored),
            Some(Outcome::Failure(failure)) => Err(Error::from(failure)),
            None => Err(Error::local(
                Code::Internal,
                "EMPTY_ANSWER",
                "the server answered a batch with nothing",
            )),
        };
        if let Err(error) = &result
            && (error.kind == ErrorKind::Retry || self.core.is_astray(error, node))
        {
            self.pending[position].sent = false;
            return Some(error.clone());
        }
        self.acknowledge(position, result);
        None
    }

    fn acknowledge(&mut self, position: usize, result: Result<v1::WriteResponse, Error>) {
        self.stall = self.core.options.attempt_timeout;
        self.backoff = Backoff::default();
        if let Some(batch) = self.pending.remove(position) {
            // There is room for every batch taken; nobody to tell means that the writer was dropped.
            let _ = self.acks.try_send(Ack {
                sequence: batch.write.sequence,
                result,
            });
        }
    }

    /// A stream refused for good was refused for one of its batches: send them one at a time until that one is found.
    /// True when there is something new to try at once.
    fn refused_one(&mut self, error: &Error) -> bool {
        if error.kind != ErrorKind::Fix {
            return false;
        }
        let sent: Vec<_> = (0..self.pending.len())
            .filter(|position| self.pending[*position].sent)
            .collect();
        match sent[..] {
            [] => return false,
            [one] => self.acknowledge(one, Err(error.clone())),
            [.., last] => self.alone_until = self.pending[last].write.sequence,
        }
        true
    }

    fn stalled(&mut self, node: &Node) -> Failed {
        let waited = self.stall;
        self.stall = (self.stall * 2).min(STALL_MAX.max(self.core.options.attempt_timeout));
        Failed::timed_out(&node.address, waited, Reached::Perhaps)
    }

    /// Everything unacknowledged fails with this error, and the writer takes no more.
    async fn give_up(mut self, mut error: Error) {
        error
            .hint
            .get_or_insert_with(|| "the outcome is unknown; send the same batches with the same sequences".into());
        let _ = self.ended.set(error.clone());
        self.incoming.close();
        while let Some(batch) = self.incoming.recv().await {
            self.pending.push_back(batch);
        }
        for batch in self.pending.drain(..) {
            let _ = self.acks.try_send(Ack {
                sequence: batch.write.sequence,
                result: Err(error.clone()),
            });
        }
    }
}

fn ended_early() -> Failed {
    let error = Error::local(Code::Unavailable, "STREAM_ENDED", "the server ended the write stream");
    Failed {
        error,
        reached: Reached::Perhaps,
        node_at_fault: true,
    }
}
