//! The Raft lane to one node: one long-lived stream that all groups share, answers paired with calls by number.
//!
//! Invariant: a call ends by its deadline; a broken stream fails the calls on it at once and is opened again for the
//! next one. Bytes waiting to be sent are bounded. Nothing but an idle heartbeat ever waits for company, and that only
//! for the moment in which all groups of this node send theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tidemark_proto::peer::{RaftRequest, RaftRequests, RaftResponse, raft_request};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::PeerClient;
use super::gather::Gather;

const QUEUE: usize = 512;
const WAITING_KIB_MAX: u32 = 64 << 10;
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
/// Requests of one message; a large one goes alone, so that the other side works on it beside the others.
const TOGETHER_MAX: usize = 256;
const TOGETHER_BYTES_MAX: usize = 16 << 10;

/// Why a call had no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The node cannot be reached now.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer by the deadline.
    #[error("no answer in {0:?}")]
    Timeout(Duration),
}

struct Call {
    request: RaftRequest,
    bytes: usize,
    answer: oneshot::Sender<RaftResponse>,
}

impl Call {
    fn is_idle(&self) -> bool {
        is_idle(&self.request)
    }
}

/// A heartbeat: an append of nothing.
pub fn is_idle(request: &RaftRequest) -> bool {
    matches!(&request.message, Some(raft_request::Message::Append(append)) if append.entries.is_empty())
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<RaftResponse>>>>;

/// Sends Raft messages to one node.
pub struct RaftLink {
    calls: mpsc::Sender<Call>,
    waiting_kib: Arc<Semaphore>,
}

impl RaftLink {
    /// Starts the task that keeps the stream.
    pub fn start(client: PeerClient, gather: Arc<Gather>) -> RaftLink {
        let (calls, inbox) = mpsc::channel(QUEUE);
        let inbox = Inbox {
            calls: inbox,
            gather,
            next: None,
        };
        tokio::spawn(run(client, inbox));
        RaftLink {
            calls,
            waiting_kib: Arc::new(Semaphore::new(WAITING_KIB_MAX as usize)),
        }
    }

    /// One message and its answer.
    pub async fn call(&self, request: RaftRequest, timeout: Duration) -> Result<RaftResponse, LinkError> {
        let bytes = request.encoded_len();
        let kib = (bytes as u32 >> 10).clamp(1, WAITING_KIB_MAX);
        let exchange = async {
            let closed = || LinkError::Unreachable("link closed".into());
            let _room = self.waiting_kib.acquire_many(kib).await.map_err(|_| closed())?;
            let (answer, answered) = oneshot::channel();
            let call = Call { request, bytes, answer };
            self.calls.send(call).await.map_err(|_| closed())?;
            answered.await.map_err(|_| LinkError::Unreachable("stream lost".into()))
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or(Err(LinkError::Timeout(timeout)))
    }
}

/// Calls that wait to be sent.
struct Inbox {
    calls: mpsc::Receiver<Call>,
    gather: Arc<Gather>,
    /// Taken out and did not fit.
    next: Option<Call>,
}

impl Inbox {
    /// The calls that go into the next message; `None` once nobody can call any more.
    async fn together(&mut self) -> Option<Vec<Call>> {
        let first = match self.next.take() {
            Some(call) => call,
            None => self.calls.recv().await?,
        };
        let (mut bytes, mut idle) = (first.bytes, first.is_idle());
        let mut calls = vec![first];
        while calls.len() < TOGETHER_MAX && bytes < TOGETHER_BYTES_MAX {
            let next = match self.calls.try_recv() {
                Ok(call) => Some(call),
                Err(_) if idle => match self.gather.left() {
                    Some(left) => tokio::time::timeout(left, self.calls.recv()).await.ok().flatten(),
                    None => None,
                },
                Err(_) => None,
            };
            let Some(call) = next else { break };
            if bytes + call.bytes > TOGETHER_BYTES_MAX {
                self.next = Some(call);
                break;
            }
            bytes += call.bytes;
            idle &= call.is_idle();
            calls.push(call);
        }
        calls.retain(|call| !call.answer.is_closed());
        Some(calls)
    }
}

async fn run(client: PeerClient, mut inbox: Inbox) {
    while let Some(first) = inbox.together().await {
        if first.is_empty() {
            continue;
        }
        if let Err(reason) = one_stream(client.clone(), first, &mut inbox).await {
            tracing::debug!(%reason, "raft stream lost");
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }
}

/// Numbers calls and remembers who waits for them; the message to send.
fn place(calls: Vec<Call>, waiting: &Waiting, next: &mut u64) -> RaftRequests {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.retain(|_, answer| !answer.is_closed());
    let mut requests: Vec<RaftRequest> = Vec::with_capacity(calls.len());
    for call in calls {
        *next += 1;
        waiting.insert(*next, call.answer);
        let mut request = RaftRequest {
            call: *next,
            ..call.request
        };
        if requests.first().is_some_and(|first| first.envelope == request.envelope) {
            request.envelope = None;
        }
        requests.push(request);
    }
    RaftRequests { requests }
}

/// Serves calls over one stream until it breaks. Dropping the waiting map fails every call on it.
async fn one_stream(mut client: PeerClient, first: Vec<Call>, inbox: &mut Inbox) -> Result<(), String> {
    let (requests, outgoing) = mpsc::channel::<RaftRequests>(QUEUE);
    let waiting: Waiting = Arc::default();
    let mut next = 0u64;
    let message = place(first, &waiting, &mut next);
    requests.send(message).await.map_err(|e| e.to_string())?;
    let opening = client.raft(ReceiverStream::new(outgoing));
    let opened = tokio::time::timeout(OPEN_TIMEOUT, opening)
        .await
        .map_err(|_| "opening timed out".to_string())?;
    let mut answers = opened.map_err(|e| e.message().to_string())?.into_inner();
    let answered = waiting.clone();
    let mut reader = tokio::spawn(async move {
        while let Ok(Some(message)) = answers.message().await {
            for response in message.responses {
                let call = answered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&response.call);
                if let Some(answer) = call {
                    answer.send(response).ok();
                }
            }
        }
    });
    let broken = |why: &str| {
        waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Err(why.to_string())
    };
    loop {
        tokio::select! {
            _ = &mut reader => return broken("closed by the other side"),
            calls = inbox.together() => match calls {
                None => return Ok(()),
                Some(calls) if calls.is_empty() => {}
                Some(calls) => {
                    let message = place(calls, &waiting, &mut next);
                    if requests.send(message).await.is_err() {
                        return broken("request side closed");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use bytes::Bytes;
    use tidemark_proto::peer::{AppendEntriesRequest, Entry, Envelope, entry};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn call(group: u32, entry_bytes: Option<usize>) -> (Call, oneshot::Receiver<RaftResponse>) {
        let entries = entry_bytes.map(|bytes| Entry {
            log_id: None,
            payload: Some(entry::Payload::Command(Bytes::from(vec![0; bytes]))),
        });
        let append = AppendEntriesRequest {
            entries: entries.into_iter().collect(),
            ..AppendEntriesRequest::default()
        };
        let request = RaftRequest {
            envelope: Some(Envelope::default()),
            group,
            message: Some(raft_request::Message::Append(append)),
            ..RaftRequest::default()
        };
        let (answer, answered) = oneshot::channel();
        let bytes = request.encoded_len();
        (Call { request, bytes, answer }, answered)
    }

    /// Groups of the messages that some calls make, one after the other.
    async fn messages(calls: &[(u32, Option<usize>)], gather: Arc<Gather>, count: usize) -> Vec<Vec<u32>> {
        let (out, inbox) = mpsc::channel(QUEUE);
        let mut inbox = Inbox {
            calls: inbox,
            gather,
            next: None,
        };
        let mut waiting = Vec::new();
        for (group, bytes) in calls {
            let (call, answered) = call(*group, *bytes);
            waiting.push(answered);
            out.send(call).await.ok().unwrap();
        }
        let mut found = Vec::new();
        for _ in 0..count {
            let calls = inbox.together().await.unwrap();
            found.push(calls.iter().map(|call| call.request.group).collect());
        }
        found
    }

    #[tokio::test]
    async fn what_is_ready_goes_together() {
        let calm = Arc::new(Gather::default());
        let calls = [(1, None), (2, Some(10)), (3, None)];
        assert_eq!(messages(&calls, calm.clone(), 1).await, [[1, 2, 3]]);
        let large = TOGETHER_BYTES_MAX;
        let calls = [(1, None), (2, Some(large)), (3, Some(large)), (4, None)];
        assert_eq!(messages(&calls, calm, 4).await, [[1], [2], [3], [4]]);
    }

    #[tokio::test]
    async fn only_heartbeats_wait_for_each_other() {
        let gather = Arc::new(Gather::default());
        assert_eq!(gather.left(), None);
        gather.begin(LONG);
        assert!(gather.left().is_some());
        // Were the entry to wait, this would not end.
        let calls = [(1, None), (2, None), (3, Some(1))];
        assert_eq!(messages(&calls, gather.clone(), 1).await, [[1, 2, 3]]);
        gather.begin(Duration::ZERO);
        assert_eq!(gather.left(), None);
        assert_eq!(messages(&calls[..2], gather, 1).await, [[1, 2]]);
    }

    #[test]
    fn an_envelope_travels_once() {
        let waiting = Waiting::default();
        let (calls, _answered): (Vec<_>, Vec<_>) = (1..=3).map(|group| call(group, None)).unzip();
        let mut calls = calls;
        calls[2].request.envelope.as_mut().unwrap().to_node = 9;
        let mut next = 7;
        let requests = place(calls, &waiting, &mut next).requests;
        let numbers: Vec<_> = requests.iter().map(|request| request.call).collect();
        let told: Vec<_> = requests.iter().map(|request| request.envelope.is_some()).collect();
        assert_eq!((numbers, told, next), (vec![8, 9, 10], vec![true, false, true], 10));
        assert_eq!(waiting.lock().unwrap().len(), 3);
    }
}
