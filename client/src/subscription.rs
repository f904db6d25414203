//! A subscription that goes on by itself where it broke off. Never here: what messages mean.
//! Invariant: a new stream is asked for with the cursor of the last message that was given out, so none is lost or given out twice.

use std::{fmt, sync::Arc, time::Duration};

use tidemark_proto::v1::{self, subscribe_service_client::SubscribeServiceClient};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Streaming};

use crate::{
    call::{Call, Core, Pace, Repeat, To},
    client::Client,
    error::{Error, ErrorKind, Failed},
};

/// A server says something every 5 s; one that is silent for so long is given up.
const SILENT_MAX: Duration = Duration::from_secs(20);
/// A stream that broke sooner than this is not asked for again at once.
const SHORT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);

/// What happens, as it happens: call [`next`](Self::next) for ever. Dropping it ends the subscription.
pub struct Subscription {
    core: Arc<Core>,
    request: v1::SubscribeRequest,
    stream: Option<Streaming<v1::SubscribeResponse>>,
    first: Option<v1::SubscribeResponse>,
    opened_at: Instant,
    resumed: u64,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("request", &self.request)
            .field("resumed", &self.resumed)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Subscribes to records, alert steps and silence; returns once the first message is here. Without `newest_first` that is a
    /// heartbeat: whatever is written from then on is sent.
    ///
    /// # Errors
    /// What the server refuses, `CURSOR_EXPIRED` and `INVALID_CURSOR` among it; no first message in time.
    pub async fn subscribe(&self, request: v1::SubscribeRequest) -> Result<Subscription, Error> {
        let mut subscription = Subscription {
            core: Arc::clone(&self.core),
            request,
            stream: None,
            first: None,
            opened_at: Instant::now(),
            resumed: 0,
        };
        subscription.open().await?;
        Ok(subscription)
    }
}

impl Subscription {
    /// The next message, heartbeats too: their cursor is the newest. A stream that breaks is asked for again at any node, within
    /// the client's `timeout`, and goes on behind the last message. Safe to drop while waiting.
    ///
    /// # Errors
    /// What a repetition cannot help, `CURSOR_EXPIRED` among it; or no node gave a stream in time: then this may be called again.
    pub async fn next(&mut self) -> Result<v1::SubscribeResponse, Error> {
        loop {
            if let Some(message) = self.first.take() {
                return Ok(self.given_out(message));
            }
            let Some(stream) = &mut self.stream else {
                if self.opened_at.elapsed() < SHORT {
                    sleep(PAUSE).await;
                }
                self.open().await?;
                self.resumed += 1;
                continue;
            };
            let error = match timeout(SILENT_MAX, stream.message()).await {
                Ok(Ok(Some(message))) => return Ok(self.given_out(message)),
                Ok(Ok(None)) => Error::local(Code::Unavailable, "INCOMPLETE", "the stream ended"),
                Ok(Err(status)) => Failed::from(status).error,
                Err(_) => Error::local(Code::Unavailable, "INCOMPLETE", "the stream fell silent"),
            };
            self.stream = None;
            tracing::debug!(%error, "a subscription broke off");
            if error.kind != ErrorKind::Retry {
                return Err(error);
            }
        }
    }

    /// Goes on behind the last message that was given out; at first where the subscription began. Empty while newest records come.
    pub fn cursor(&self) -> &[u8] {
        &self.request.cursor
    }

    /// How often it went on with a new stream.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    fn given_out(&mut self, message: v1::SubscribeResponse) -> v1::SubscribeResponse {
        if !message.cursor.is_empty() {
            self.request.cursor = message.cursor.clone();
        }
        message
    }

    /// Asks for a stream from the last cursor on, and waits for its first message: a failure before it is tried elsewhere.
    async fn open(&mut self) -> Result<(), Error> {
        let call = Call {
            to: To::Any,
            repeat: Repeat::Safe,
            pace: Pace::Half,
        };
        let max = self.core.options.max_answer_bytes;
        let request = &self.request;
        let ask = |channel, _| {
            let request = request.clone();
            async move {
                let mut service = SubscribeServiceClient::new(channel).max_decoding_message_size(max);
                let mut stream = service.subscribe(request).await?.into_inner();
                let first = stream.message().await?;
                Ok((first, stream))
            }
        };
        // On the heap, or every caller's future is as large as all tries together.
        let (first, stream) = Box::pin(self.core.run(call, ask)).await?;
        if let Some(first) = first.as_ref().filter(|first| first.heartbeat) {
            // It tells of nothing that could be lost.
            self.request.cursor = first.cursor.clone();
        }
        (self.first, self.stream) = (first, Some(stream));
        self.opened_at = Instant::now();
        Ok(())
    }
}
