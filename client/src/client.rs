//! [`Client`]: every call of the contract as one method (those of operators: `operate`). Never here: retries and routing (`call`), streams of writes (`writer`).
//! Invariant: each method says where its request goes, how long a try may take and whether it may be repeated.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidemark_proto::v1::{
    self, cluster_service_client::ClusterServiceClient, ingest_service_client::IngestServiceClient,
    query_service_client::QueryServiceClient, registry_service_client::RegistryServiceClient,
};
use tokio::time::Instant;
use tonic::{Code, Response, Status, Streaming};

use crate::{
    answer::{Answer, Piece},
    call::{Call, Core, Pace, Repeat, To, get_map, not_initialised, with_deadline},
    cluster_tag::Lane,
    error::Error,
    options::{ClientOptions, WriterOptions},
    writer::Writer,
};

/// Devices in one request of [`Client::register_devices`], and requests at once.
const REGISTER_CHUNK: usize = 1000;
const REGISTER_AT_ONCE: usize = 4;

type Queries = QueryServiceClient<Lane>;

pub(crate) const ANY: Call<'_> = Call {
    to: To::Any,
    repeat: Repeat::Safe,
    pace: Pace::Quick,
};

/// A cluster, seen from outside. Cheap to clone; clones share connections and the shard map.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
}

impl Client {
    /// Connects with default options.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    pub async fn connect<I, S>(endpoints: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self::connect_with(ClientOptions {
            endpoints,
            ..ClientOptions::default()
        })
        .await
    }

    /// Asks all endpoints for the shard map; the first that knows it will do, else any that answers: a node that belongs
    /// to no cluster yet is an answer too.
    ///
    /// # Errors
    /// `BAD_ENDPOINT` for an address that is none; `CONNECTION_FAILED` where no endpoint answers, naming what each did.
    pub async fn connect_with(options: ClientOptions) -> Result<Self, Error> {
        let core = Arc::new(Core::new(options)?);
        let budget = core.options.attempt_timeout;
        let tries = core.nodes.configured().into_iter().map(|node| {
            let core = &core;
            async move { core.ask_map(&node, budget).await }
        });
        let mut tries = tries.collect::<stream::FuturesUnordered<_>>();
        let (mut causes, mut refused) = (BTreeSet::new(), false);
        while let Some(answer) = tries.next().await {
            match answer {
                Err(failed) if failed.node_at_fault => {
                    causes.insert(failed.error.message);
                }
                // Somebody is there, but another may know the cluster.
                Err(_) => refused = true,
                Ok(_) => {
                    drop(tries);
                    core.map_is_new().await;
                    return Ok(Self { core });
                }
            }
        }
        drop(tries);
        if refused {
            return Ok(Self { core });
        }
        let causes = causes.into_iter().collect::<Vec<_>>().join("; ");
        Err(Error::local(Code::Unavailable, "CONNECTION_FAILED", causes))
    }

    /// Makes a cluster; asked of the first endpoint, all of `timeout` in one try.
    ///
    /// # Errors
    /// What the server refuses, or no answer.
    pub async fn init_cluster(&self, request: v1::InitRequest) -> Result<v1::InitResponse, Error> {
        let call = Call {
            to: To::First,
            repeat: Repeat::OnlyIfNothingStored { one_shard: false },
            pace: Pace::All,
        };
        self.unary(call, request, |channel, request| async move {
            ClusterServiceClient::new(channel).init(request).await
        })
        .await
    }

    /// Adds the node at the first endpoint to a cluster, all of `timeout` in one try.
    ///
    /// # Errors
    /// What the server refuses, or no answer.
    pub async fn join(&self, request: v1::JoinRequest) -> Result<v1::JoinResponse, Error> {
        let call = Call {
            to: To::First,
            repeat: Repeat::OnlyIfNothingStored { one_shard: false },
            pace: Pace::All,
        };
        self.unary(call, request, |channel, request| async move {
            ClusterServiceClient::new(channel).join(request).await
        })
        .await
    }

    /// Nodes, shards and their health, as one live node sees them: one of the cluster, where any endpoint knows it.
    ///
    /// # Errors
    /// No node answers in time.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        self.unary(ANY, v1::StatusRequest {}, |channel, request| async move {
            let answer = ClusterServiceClient::new(channel).status(request).await?;
            // A node outside of the cluster answers for itself, with nothing in it.
            match answer.get_ref().cluster_id.is_empty() && !self.core.map().is_empty() {
                true => Err(not_initialised()),
                false => Ok(answer),
            }
        })
        .await
    }

    /// Which shard holds which slots, and who leads it.
    ///
    /// # Errors
    /// No node answers in time, or the cluster is not made yet.
    pub async fn shard_map(&self) -> Result<v1::GetShardMapResponse, Error> {
        self.core.run(ANY, get_map).await
    }

    /// Creates or evolves device types, all or none.
    ///
    /// # Errors
    /// What the server refuses, naming the field; no answer in time.
    pub async fn apply_device_types(
        &self,
        device_types: Vec<v1::DeviceType>,
    ) -> Result<v1::ApplyDeviceTypesResponse, Error> {
        let call = Call {
            pace: Pace::Half,
            ..ANY
        };
        let request = v1::ApplyDeviceTypesRequest { device_types };
        let answer = self.unary(call, request, |channel, request| async move {
            RegistryServiceClient::new(channel).apply_device_types(request).await
        });
        answer.await
    }

    /// Device types by id, all where no id is given, ordered by id.
    ///
    /// # Errors
    /// An unknown id; no answer in time.
    pub async fn list_device_types(&self, ids: Vec<String>) -> Result<Vec<v1::DeviceType>, Error> {
        let max = self.core.options.max_answer_bytes;
        let request = v1::ListDeviceTypesRequest { ids };
        let answer = self.unary(ANY, request, move |channel, request| async move {
            RegistryServiceClient::new(channel)
                .max_decoding_message_size(max)
                .list_device_types(request)
                .await
        });
        Ok(answer.await?.device_types)
    }

    /// Registers devices, or updates known ones, in requests of at most 1,000; the answers are summed. What an earlier
    /// request registered stays when a later one fails, and registering again changes nothing. Known devices are replaced whole, declared
    /// maintenance included: [`Client::register`] can keep that.
    ///
    /// # Errors
    /// What the server refuses, with positions in `devices` as given here; no answer in time.
    pub async fn register_devices(&self, devices: Vec<v1::Device>) -> Result<v1::RegisterDevicesResponse, Error> {
        let request = v1::RegisterDevicesRequest {
            devices,
            keep_maintenance: false,
        };
        self.register(request).await
    }

    /// The same as the request says.
    ///
    /// # Errors
    /// As of [`Client::register_devices`].
    pub async fn register(&self, request: v1::RegisterDevicesRequest) -> Result<v1::RegisterDevicesResponse, Error> {
        let keep_maintenance = request.keep_maintenance;
        let mut rest = request.devices;
        let mut chunks = Vec::new();
        while rest.len() > REGISTER_CHUNK {
            let tail = rest.split_off(REGISTER_CHUNK);
            chunks.push(std::mem::replace(&mut rest, tail));
        }
        chunks.push(rest);
        let calls = chunks.into_iter().enumerate().map(|(chunk, devices)| async move {
            let call = Call {
                pace: Pace::Half,
                ..ANY
            };
            let request = v1::RegisterDevicesRequest {
                devices,
                keep_maintenance,
            };
            let answer = self.unary(call, request, |channel, request| async move {
                RegistryServiceClient::new(channel).register_devices(request).await
            });
            answer
                .await
                .map_err(|error| error.shifted("devices", chunk * REGISTER_CHUNK))
        });
        let sum = |mut sum: v1::RegisterDevicesResponse, one: v1::RegisterDevicesResponse| async move {
            sum.created += one.created;
            sum.changed += one.changed;
            sum.unchanged += one.unchanged;
            Ok(sum)
        };
        stream::iter(calls)
            .buffer_unordered(REGISTER_AT_ONCE)
            .try_fold(v1::RegisterDevicesResponse::default(), sum)
            .await
    }

    /// The devices that a selector matches.
    ///
    /// # Errors
    /// What the server refuses; no answer in time.
    pub async fn list_devices(
        &self,
        request: v1::ListDevicesRequest,
    ) -> Result<Answer<v1::ListDevicesResponse>, Error> {
        let max = self.core.options.max_answer_bytes;
        let selector = request.selector.clone();
        let open = |channel, wait| {
            let request = with_deadline(request.clone(), wait);
            async move {
                RegistryServiceClient::new(channel)
                    .max_decoding_message_size(max)
                    .list_devices(request)
                    .await
            }
        };
        self.answer(selector.as_ref(), open).await
    }

    /// Stores a batch. With producer and sequence it is repeated until it is stored, and stored once; without them it is
    /// repeated only when the failure proves that nothing was stored.
    ///
    /// # Errors
    /// What the server refuses, naming every bad row; no answer in time, then the outcome is unknown.
    pub async fn write(&self, request: v1::WriteRequest) -> Result<v1::WriteResponse, Error> {
        let numbered = !request.producer.is_empty() && request.sequence > 0;
        let devices = request.batch.as_ref().map_or(Vec::new(), |batch| batch.devices.clone());
        let one_shard = self.core.map().in_one_shard(&devices);
        let repeat = if numbered {
            Repeat::Safe
        } else {
            Repeat::OnlyIfNothingStored { one_shard }
        };
        let call = Call {
            to: To::Leader(&devices),
            repeat,
            pace: Pace::Quick,
        };
        self.unary(call, request, |channel, request| async move {
            IngestServiceClient::new(channel).write(request).await
        })
        .await
    }

    /// Raw records, grouped by device, ordered by time within a device.
    ///
    /// # Errors
    /// What the server refuses; no first message in time.
    pub async fn query_range(&self, request: v1::QueryRangeRequest) -> Result<Answer<v1::QueryRangeResponse>, Error> {
        let selector = request.selector.clone();
        let call = |mut queries: Queries, request| async move { queries.query_range(request).await };
        self.question(selector.as_ref(), request, call).await
    }

    /// Aggregates over windows.
    ///
    /// # Errors
    /// What the server refuses; no first message in time.
    pub async fn query_aggregate(
        &self,
        request: v1::QueryAggregateRequest,
    ) -> Result<Answer<v1::QueryAggregateResponse>, Error> {
        let selector = request.selector.clone();
        let call = |mut queries: Queries, request| async move { queries.query_aggregate(request).await };
        self.question(selector.as_ref(), request, call).await
    }

    /// The newest value of each property of each device.
    ///
    /// # Errors
    /// What the server refuses; no first message in time.
    pub async fn get_latest(&self, request: v1::GetLatestRequest) -> Result<Answer<v1::GetLatestResponse>, Error> {
        let selector = request.selector.clone();
        let call = |mut queries: Queries, request| async move { queries.get_latest(request).await };
        self.question(selector.as_ref(), request, call).await
    }

    /// When a property was at or beyond a threshold, or in a state.
    ///
    /// # Errors
    /// What the server refuses; no first message in time.
    pub async fn query_intervals(
        &self,
        request: v1::QueryIntervalsRequest,
    ) -> Result<Answer<v1::QueryIntervalsResponse>, Error> {
        let selector = request.selector.clone();
        let call = |mut queries: Queries, request| async move { queries.query_intervals(request).await };
        self.question(selector.as_ref(), request, call).await
    }

    /// How well devices kept the promises of their types.
    ///
    /// # Errors
    /// What the server refuses; no first message in time.
    pub async fn get_quality(&self, request: v1::GetQualityRequest) -> Result<Answer<v1::GetQualityResponse>, Error> {
        let selector = request.selector.clone();
        let call = |mut queries: Queries, request| async move { queries.get_quality(request).await };
        self.question(selector.as_ref(), request, call).await
    }

    /// How devices are, beside how well they kept the promises of their types.
    ///
    /// # Errors
    /// What the server refuses; no first message in time.
    pub async fn get_health(&self, request: v1::GetHealthRequest) -> Result<Answer<v1::GetHealthResponse>, Error> {
        let selector = request.selector.clone();
        let call = |mut queries: Queries, request| async move { queries.get_health(request).await };
        self.question(selector.as_ref(), request, call).await
    }

    /// Each record of some devices with the values of others as of its time.
    ///
    /// # Errors
    /// What the server refuses; no first message in time.
    pub async fn query_join(&self, request: v1::QueryJoinRequest) -> Result<Answer<v1::QueryJoinResponse>, Error> {
        let selector = request.selector.clone();
        let call = |mut queries: Queries, request| async move { queries.query_join(request).await };
        self.question(selector.as_ref(), request, call).await
    }

    /// Pipelined writes: several batches in flight, each stored once. Runs a task; call within a tokio runtime.
    pub fn writer(&self, options: WriterOptions) -> Writer {
        Writer::new(Arc::clone(&self.core), options)
    }

    /// Largest answer taken.
    pub(crate) fn max_answer_bytes(&self) -> usize {
        self.core.options.max_answer_bytes
    }

    /// One question, one answer.
    pub(crate) async fn unary<Q, R, F, Fut>(&self, call: Call<'_>, message: Q, ask: F) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Lane, tonic::Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let ask = |channel, budget| {
            let answer = ask(channel, with_deadline(message.clone(), budget));
            async move { Ok(answer.await?.into_inner()) }
        };
        self.core.run(call, ask).await
    }

    /// Puts a question to the query service.
    async fn question<Q, M, F, Fut>(
        &self,
        selector: Option<&v1::Selector>,
        request: Q,
        call: F,
    ) -> Result<Answer<M>, Error>
    where
        Q: Clone,
        M: Piece,
        F: Fn(Queries, tonic::Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<Streaming<M>>, Status>>,
    {
        let max = self.core.options.max_answer_bytes;
        let open = |channel, wait| {
            let queries = QueryServiceClient::new(channel).max_decoding_message_size(max);
            call(queries, with_deadline(request.clone(), wait))
        };
        // On the heap, or every caller's future is as large as all tries together.
        Box::pin(self.answer(selector, open)).await
    }

    /// Opens a streamed answer and waits for its first message, so that a failure before it can be retried elsewhere.
    pub(crate) async fn answer<M, F, Fut>(&self, selector: Option<&v1::Selector>, open: F) -> Result<Answer<M>, Error>
    where
        M: Piece,
        F: Fn(Lane, Duration) -> Fut,
        Fut: Future<Output = Result<Response<Streaming<M>>, Status>>,
    {
        let devices = selector.map_or(&[][..], |selector| &selector.device_ids);
        let call = Call {
            to: To::Leader(devices),
            repeat: Repeat::Safe,
            pace: Pace::Half,
        };
        let life = self.core.options.answer_timeout;
        let ends_at = Instant::now() + life;
        let ask = |channel, _| {
            let stream = open(channel, life);
            async move {
                let mut stream = stream.await?.into_inner();
                let first = stream.message().await?;
                Ok((first, stream))
            }
        };
        let (first, stream) = self.core.run(call, ask).await?;
        Ok(Answer::new(first, stream, self.core.options.timeout, ends_at))
    }
}
