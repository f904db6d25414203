//! Calls at one node and no other, once: what that node itself answers. The client library would ask the others, which is
//! what hides a partition from applications. Never here: judging an answer. Invariant: every call carries a deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_client::v1::ingest_service_client::IngestServiceClient;
use tidemark_client::v1::query_service_client::QueryServiceClient;
use tidemark_client::v1::{self, consistency::Level};
use tidemark_client::{Code, Error, Value, latest_rows, rows};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Past the deadline by this much, a call that has no answer yet is given up.
const GRACE: Duration = Duration::from_secs(1);

/// One node.
#[derive(Debug, Clone)]
pub(crate) struct Direct {
    pub(crate) address: String,
    channel: Channel,
    deadline: Duration,
}

/// What a node says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its newest value; 0 where it has none.
    pub(crate) value: i64,
    /// How far behind the answer may be, milliseconds; negative where the node does not know.
    pub(crate) lag_ms: i64,
}

impl Direct {
    /// A node whose answers are awaited for so long.
    pub(crate) fn new(address: &str, deadline: Duration) -> Result<Direct> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).with_context(|| address.to_owned())?;
        Ok(Direct {
            address: address.to_owned(),
            channel: endpoint.connect_timeout(Duration::from_secs(2)).connect_lazy(),
            deadline,
        })
    }

    /// Stores a batch.
    pub(crate) async fn write(&self, batch: v1::Batch) -> Result<(), Error> {
        let request = v1::WriteRequest {
            batch: Some(batch),
            ..Default::default()
        };
        let mut client = IngestServiceClient::new(self.channel.clone());
        self.within(client.write(self.request(request))).await.map(|_| ())
    }

    /// The newest value of a device.
    pub(crate) async fn latest(&self, device: &str, level: Level) -> Result<Seen, Error> {
        let request = v1::GetLatestRequest {
            selector: Some(only(device)),
            consistency: Some(v1::Consistency { level: Some(level) }),
            ..Default::default()
        };
        let mut client = QueryServiceClient::new(self.channel.clone());
        let answer = async {
            let mut messages = client.get_latest(self.request(request)).await?.into_inner();
            let (mut value, mut summary) = (0, None);
            while let Some(message) = messages.message().await? {
                for newest in latest_rows(&message).filter_map(|row| row.newest) {
                    if let Value::I64(found) = newest.value {
                        value = found;
                    }
                }
                summary = message.summary.or(summary);
            }
            let summary = summary.ok_or_else(|| Status::internal("an answer without its summary"))?;
            Ok(Seen {
                value,
                lag_ms: summary.lag_ms,
            })
        };
        self.within(answer).await
    }

    /// How often each value of a device is stored.
    pub(crate) async fn values(&self, device: &str, from_ns: i64, to_ns: i64) -> Result<BTreeMap<i64, u32>, Error> {
        let request = v1::QueryRangeRequest {
            selector: Some(only(device)),
            from_ns,
            to_ns,
            consistency: Some(v1::Consistency {
                level: Some(Level::Linearizable(v1::Linearizable {})),
            }),
            ..Default::default()
        };
        let mut client = QueryServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = async {
            let mut messages = client.query_range(self.request(request)).await?.into_inner();
            let mut counts = BTreeMap::new();
            while let Some(message) = messages.message().await? {
                for row in message.batch.iter().flat_map(rows) {
                    for (_, value) in row.values {
                        if let Value::I64(value) = value {
                            *counts.entry(value).or_default() += 1;
                        }
                    }
                }
            }
            Ok(counts)
        };
        self.within(answer).await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Error> {
        match tokio::time::timeout(self.deadline + GRACE, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "no answer, not even that time ran out").into()),
        }
    }
}

fn only(device: &str) -> v1::Selector {
    v1::Selector {
        device_ids: vec![device.to_owned()],
        ..Default::default()
    }
}
