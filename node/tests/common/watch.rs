//! A subscriber that remembers what it was sent.
//! Never here: cases. Invariant: nothing is waited for without an end.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemark_client::{Client, Error, Subscription, Value, rows, v1};

use super::direct::Direct;
use super::fleet::METER;

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One row that came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Got {
    pub(crate) device: String,
    pub(crate) t: i64,
    pub(crate) values: Vec<(String, Value)>,
    pub(crate) late: bool,
    pub(crate) newest: bool,
}

/// Everything of a subscription so far.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) rows: Vec<Got>,
    pub(crate) silent: Vec<v1::Silence>,
    pub(crate) deleted: Vec<v1::Deleted>,
    pub(crate) alerts: Vec<v1::AlertStep>,
    pub(crate) behind_ms: i64,
    pub(crate) cursor: Vec<u8>,
    /// Each cursor, with how many silences had been told by then.
    pub(crate) places: Vec<(Vec<u8>, usize)>,
    pub(crate) heartbeats: usize,
}

impl Seen {
    pub(crate) fn add(&mut self, message: &v1::SubscribeResponse) {
        if let Some(batch) = &message.batch {
            let late = message.late.iter().copied().chain(std::iter::repeat(false));
            for (row, late) in rows(batch).zip(late) {
                self.rows.push(Got {
                    device: row.device.to_owned(),
                    t: row.observed_at_ns,
                    values: row.values.into_iter().map(|(p, value)| (p.to_owned(), value)).collect(),
                    late,
                    newest: message.newest,
                });
            }
        }
        self.silent.extend(message.silent.iter().cloned());
        self.deleted.extend(message.deleted.iter().cloned());
        self.alerts.extend(message.alerts.iter().cloned());
        self.heartbeats += usize::from(message.heartbeat);
        self.behind_ms = message.behind_ms;
        if !message.cursor.is_empty() {
            self.cursor = message.cursor.to_vec();
            self.places.push((self.cursor.clone(), self.silent.len()));
        }
    }

    /// Device and time of every row, in order.
    pub(crate) fn times(&self) -> Vec<(&str, i64)> {
        self.rows.iter().map(|row| (row.device.as_str(), row.t)).collect()
    }

    /// Times by device, in the order in which they came.
    pub(crate) fn by_device(&self) -> BTreeMap<&str, Vec<i64>> {
        let mut found: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for row in &self.rows {
            found.entry(&row.device).or_default().push(row.t);
        }
        found
    }
}

/// What asks for records of the meters.
pub(crate) fn meters() -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        selector: super::fleet::of_type(METER),
        ..v1::SubscribeRequest::default()
    }
}

/// A subscription of the client library and what it has seen.
pub(crate) struct Watch {
    pub(crate) subscription: Subscription,
    pub(crate) seen: Seen,
}

impl Watch {
    pub(crate) async fn begin(client: &Client, request: v1::SubscribeRequest) -> Watch {
        Watch {
            subscription: client.subscribe(request).await.unwrap(),
            seen: Seen::default(),
        }
    }

    /// Reads until what was seen is enough.
    pub(crate) async fn until(&mut self, what: &str, mut enough: impl FnMut(&Seen) -> bool) {
        let reading = async {
            while !enough(&self.seen) {
                let message = self.subscription.next().await.unwrap();
                self.seen.add(&message);
            }
        };
        if tokio::time::timeout(PATIENCE, reading).await.is_err() {
            let rows = &self.seen.rows;
            panic!(
                "{what}: not within {PATIENCE:?}; {} rows, the last {:?}",
                rows.len(),
                rows.last()
            );
        }
    }

    pub(crate) async fn rows(&mut self, count: usize) {
        self.until("rows come", |seen| seen.rows.len() >= count).await;
    }

    /// Reads until two more heartbeats came: nothing that was acknowledged before is on its way.
    pub(crate) async fn rest(&mut self) {
        let before = self.seen.heartbeats;
        self.until("heartbeats come", |seen| seen.heartbeats >= before + 2)
            .await;
    }
}

/// A subscription at one node, without help; the first message is a heartbeat, or what refused it.
pub(crate) async fn at_node(
    node: &Direct,
    request: v1::SubscribeRequest,
) -> Result<(tonic::Streaming<v1::SubscribeResponse>, v1::SubscribeResponse), Error> {
    let mut service = v1::subscribe_service_client::SubscribeServiceClient::new(node.channel.clone());
    let mut stream = service.subscribe(request).await?.into_inner();
    let first = stream.message().await?.expect("a stream has a first message");
    Ok((stream, first))
}

/// How a node ends a subscription that it does not go on with, which it may greet before it has looked.
pub(crate) async fn ended_by(node: &Direct, request: v1::SubscribeRequest) -> Result<(), Error> {
    let (mut stream, _) = at_node(node, request).await?;
    while stream.message().await?.is_some() {}
    Ok(())
}
