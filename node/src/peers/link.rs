//! The Raft lane to one node: one long-lived stream that all groups share, answers paired with calls by number.
//!
//! Invariant: a call ends by its deadline; a broken stream fails the calls on it at once and is opened again for the
//! next one. Bytes waiting to be sent are bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tidemark_proto::peer::{RaftRequest, RaftResponse};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::PeerClient;

const QUEUE: usize = 512;
const WAITING_KIB_MAX: u32 = 64 << 10;
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

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
    answer: oneshot::Sender<RaftResponse>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<RaftResponse>>>>;

/// Sends Raft messages to one node.
pub struct RaftLink {
    calls: mpsc::Sender<Call>,
    waiting_kib: Arc<Semaphore>,
}

impl RaftLink {
    /// Starts the task that keeps the stream.
    pub fn start(client: PeerClient) -> RaftLink {
        let (calls, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(run(client, inbox));
        RaftLink { calls, waiting_kib: Arc::new(Semaphore::new(WAITING_KIB_MAX as usize)) }
    }

    /// One message and its answer.
    pub async fn call(&self, request: RaftRequest, timeout: Duration) -> Result<RaftResponse, LinkError> {
        let kib = (request.encoded_len() as u32 >> 10).clamp(1, WAITING_KIB_MAX);
        let exchange = async {
            let closed = || LinkError::Unreachable("link closed".into());
            let _room = self.waiting_kib.acquire_many(kib).await.map_err(|_| closed())?;
            let (answer, answered) = oneshot::channel();
            self.calls.send(Call { request, answer }).await.map_err(|_| closed())?;
            answered.await.map_err(|_| LinkError::Unreachable("stream lost".into()))
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(LinkError::Timeout(timeout)))
    }
}

async fn run(client: PeerClient, mut inbox: mpsc::Receiver<Call>) {
    while let Some(first) = inbox.recv().await {
        if first.answer.is_closed() {
            continue;
        }
        if let Err(reason) = one_stream(client.clone(), first, &mut inbox).await {
            tracing::debug!(%reason, "raft stream lost");
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }
}

/// Serves calls over one stream until it breaks. Dropping the waiting map fails every call on it.
async fn one_stream(mut client: PeerClient, first: Call, inbox: &mut mpsc::Receiver<Call>) -> Result<(), String> {
    let (requests, outgoing) = mpsc::channel::<RaftRequest>(QUEUE);
    let waiting: Waiting = Arc::default();
    let mut next = 0u64;
    let mut place = |call: Call| {
        next += 1;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, answer| !answer.is_closed());
        waiting.insert(next, call.answer);
        RaftRequest { call: next, ..call.request }
    };
    let request = place(first);
    requests.send(request).await.map_err(|e| e.to_string())?;
    let opening = client.raft(ReceiverStream::new(outgoing));
    let opened = tokio::time::timeout(OPEN_TIMEOUT, opening).await.map_err(|_| "opening timed out".to_string())?;
    let mut answers = opened.map_err(|e| e.message().to_string())?.into_inner();
    let answered = waiting.clone();
    let mut reader = tokio::spawn(async move {
        while let Ok(Some(response)) = answers.message().await {
            let call = answered.lock().unwrap_or_else(PoisonError::into_inner).remove(&response.call);
            if let Some(answer) = call {
                answer.send(response).ok();
            }
        }
    });
    loop {
        tokio::select! {
            _ = &mut reader => {
                waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return Err("closed by the other side".into());
            }
            call = inbox.recv() => match call {
                None => return Ok(()),
                Some(call) => {
                    let request = place(call);
                    if requests.send(request).await.is_err() {
                        waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                        return Err("request side closed".into());
                    }
                }
            }
        }
    }
}
