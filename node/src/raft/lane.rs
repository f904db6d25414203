//! The answering end of the Raft lane: messages of many groups come together and are answered as they get ready. Never:
//! what a message means (see `replica`).
//!
//! Invariant: groups do not wait for each other, but for a moment with the answers to heartbeats that came together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tidemark_proto::peer::{RaftRequest, RaftRequests, RaftResponse, RaftResponses, raft_request};
use tokio::sync::{Semaphore, mpsc};

use super::host::Host;
use crate::peers::is_idle;

/// Messages of one lane that are worked on at the same time.
const IN_FLIGHT: usize = 1_024;
const ANSWERS_AHEAD: usize = 64;
const GATHER: Duration = Duration::from_millis(4);

/// Answers what comes until it ends.
pub fn serve(
    host: Arc<Host>,
    messages: impl Stream<Item = RaftRequests> + Send + Unpin + 'static,
) -> mpsc::Receiver<RaftResponses> {
    let (out, answers) = mpsc::channel(ANSWERS_AHEAD);
    tokio::spawn(take(host, messages, out));
    answers
}

async fn take(
    host: Arc<Host>,
    mut messages: impl Stream<Item = RaftRequests> + Unpin,
    out: mpsc::Sender<RaftResponses>,
) {
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(message) = messages.next().await {
        let Ok(room) = room.clone().acquire_owned().await else {
            return;
        };
        let (host, out) = (host.clone(), out.clone());
        // A task of its own: a message must not wait for the one before it.
        tokio::spawn(async move {
            answer(&host, message.requests, &out).await;
            drop(room);
        });
    }
}

async fn answer(host: &Host, mut requests: Vec<RaftRequest>, out: &mpsc::Sender<RaftResponses>) {
    let envelope = requests.first().and_then(|first| first.envelope.clone());
    for request in requests.iter_mut().filter(|request| request.envelope.is_none()) {
        request.envelope = envelope.clone();
    }
    let idle = requests.iter().all(is_idle);
    let appends = requests.iter().filter(|request| brings_entries(request));
    host.log().expect(appends.count());
    let mut answers: FuturesUnordered<_> = requests.into_iter().map(|request| host.answer(request)).collect();
    let mut ready: Vec<RaftResponse> = Vec::new();
    if idle {
        let all = async {
            while let Some(response) = answers.next().await {
                ready.push(response);
            }
        };
        tokio::time::timeout(GATHER, all).await.ok();
    }
    loop {
        while let Some(Some(response)) = answers.next().now_or_never() {
            ready.push(response);
        }
        let responses = std::mem::take(&mut ready);
        if !responses.is_empty() && out.send(RaftResponses { responses }).await.is_err() {
            return;
        }
        match answers.next().await {
            Some(response) => ready.push(response),
            None => return,
        }
    }
}

fn brings_entries(request: &RaftRequest) -> bool {
    matches!(&request.message, Some(raft_request::Message::Append(append)) if !append.entries.is_empty())
}
