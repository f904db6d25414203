//! Every limit and every wait of the client, with its default. Never here: behaviour.
//! Invariant: no wait without a bound; each has a field here.

use std::time::Duration;

/// How a [`Client`](crate::Client) finds its nodes and how long it waits.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Where to start: `host:port` or `http://host:port`. Other nodes are learnt from the shard map.
    pub endpoints: Vec<String>,
    /// For which application it asks: `[A-Za-z0-9._:-]{1,64}`. A node keeps the budgets of questions by application; those
    /// without a name share one account. Told, not proved: it keeps honest applications apart.
    pub application: Option<String>,
    /// Longest time for one operation, retries included; for a streamed answer, until its first message and between
    /// two messages.
    pub timeout: Duration,
    /// Longest time for one try of a write or a small call. A query is given half of what is left of `timeout`, if that is longer.
    pub attempt_timeout: Duration,
    /// Longest time to establish one connection.
    pub connect_timeout: Duration,
    /// Longest life of a streamed answer, from the call to its summary.
    pub answer_timeout: Duration,
    /// An idle or busy connection is probed this often.
    pub keepalive_interval: Duration,
    /// A probe that stays unanswered this long closes the connection.
    pub keepalive_timeout: Duration,
    /// Largest answer message taken, bytes.
    pub max_answer_bytes: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:7777".to_owned()],
            application: None,
            timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(3600),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            max_answer_bytes: 64 << 20,
        }
    }
}

/// How a [`Writer`](crate::Writer) numbers, limits and gives up.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Who sends: `[A-Za-z0-9._:-]{1,64}`. One writer at a time per producer. Default: random.
    pub producer: String,
    /// Sequence of the first batch, from 1. Raise it to go on where an earlier writer of the producer stopped.
    pub first_sequence: u64,
    /// Most batches without an acknowledgement, 1 to 128 (a shard remembers the last 256 of a producer).
    pub max_in_flight: usize,
    /// Most bytes without an acknowledgement; a larger batch goes alone.
    pub max_in_flight_bytes: usize,
    /// A batch without an acknowledgement for this long ends the writer.
    pub give_up_after: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            producer: format!("{:032x}", rand::random::<u128>()),
            first_sequence: 1,
            max_in_flight: 8,
            max_in_flight_bytes: 32 << 20,
            give_up_after: Duration::from_secs(60),
        }
    }
}
