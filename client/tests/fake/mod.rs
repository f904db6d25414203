//! A server that follows a script (see `host` for where it runs). Tests only; never a store.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::result_large_err,
    reason = "tests"
)]

mod host;

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt as _, stream};
use tidemark_client::{BatchBuilder, Client, ClientOptions, Code, v1};
use tidemark_proto::v1::{
    cluster_service_server::{ClusterService, ClusterServiceServer},
    ingest_service_server::{IngestService, IngestServiceServer},
    query_service_server::{QueryService, QueryServiceServer},
    registry_service_server::{RegistryService, RegistryServiceServer},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use host::Hosted;

/// What the fake does with the next write.
pub(crate) enum Step {
    Store,
    /// Fails a unary write, or ends the stream.
    Status(Status),
    /// Fails one batch of a stream.
    Failure(v1::Failure),
    /// Ends the stream without a word.
    End,
    /// Never answers.
    Silence,
}

#[derive(Default)]
pub(crate) struct State {
    pub map: Mutex<v1::GetShardMapResponse>,
    pub steps: Mutex<VecDeque<Step>>,
    /// Every write that came, unary or streamed, with its deadline header.
    pub writes: Mutex<Vec<v1::WriteRequest>>,
    pub deadlines: Mutex<Vec<String>>,
    pub streams: Mutex<usize>,
    /// A stream that brings this sequence is refused as a whole.
    pub poison: Mutex<Option<u64>>,
    /// One answer per range query; the last is kept for good.
    pub ranges: Mutex<VecDeque<Vec<Result<v1::QueryRangeResponse, Status>>>>,
    pub range_calls: Mutex<usize>,
    pub status_calls: Mutex<usize>,
    /// It belongs to no cluster: its status is empty, and it knows no map.
    pub outside: Mutex<bool>,
    pub registered: Mutex<Vec<usize>>,
    pub register_failure: Mutex<Option<(usize, Status)>>,
    /// Calls of an operator that change something, by name; the next of them fail with these.
    pub operations: Mutex<Vec<String>>,
    pub operation_failures: Mutex<VecDeque<Status>>,
}

impl State {
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.steps.lock().unwrap().extend(steps);
    }

    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.writes.lock().unwrap().iter().map(|write| write.sequence).collect()
    }

    /// Notes a call of an operator, or fails it as the script says.
    fn operation<R: Default>(&self, name: &str) -> Result<Response<R>, Status> {
        self.operations.lock().unwrap().push(name.to_owned());
        match self.operation_failures.lock().unwrap().pop_front() {
            Some(status) => Err(status),
            None => Ok(Response::new(R::default())),
        }
    }

    fn step(&self, write: v1::WriteRequest) -> Step {
        self.writes.lock().unwrap().push(write);
        self.steps.lock().unwrap().pop_front().unwrap_or(Step::Store)
    }
}

pub(crate) struct Fake {
    pub address: String,
    pub state: Arc<State>,
    server: Hosted,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::default());
        let service = Service(Arc::clone(&state));
        let services = tonic::transport::Server::builder()
            .add_service(ClusterServiceServer::new(service.clone()))
            .add_service(IngestServiceServer::new(service.clone()))
            .add_service(QueryServiceServer::new(service.clone()))
            .add_service(RegistryServiceServer::new(service));
        let server = Hosted::start(services);
        let address = server.address.clone();
        Self { address, state, server }
    }

    /// Stops answering at once, connections and all.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect([self.address.clone()]).await.unwrap()
    }
}

/// An address that nobody listens on.
pub(crate) fn dead_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

pub(crate) fn options(endpoints: &[&str], timeout_ms: u64) -> ClientOptions {
    let endpoints = endpoints.iter().map(|address| (*address).to_owned()).collect();
    ClientOptions {
        endpoints,
        timeout: Duration::from_millis(timeout_ms),
        ..ClientOptions::default()
    }
}

/// A failure as a node of ours gives it.
pub(crate) fn tidemark_error(code: Code, reason: &str, metadata: &[(&str, &str)], retry: Option<Duration>) -> Status {
    let metadata: HashMap<_, _> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut details = ErrorDetails::with_error_info(reason, "tidemark", metadata);
    if retry.is_some() {
        details.set_retry_info(retry);
    }
    Status::with_error_details(code, reason.to_lowercase(), details)
}

pub(crate) const CLUSTER: &str = "9f86d081884c7d659a2feaa0c55ad015";

/// A map of `shards` shards, one slot each; shard i is led by `leaders[i]`, or by nobody.
pub(crate) fn map(leaders: &[Option<&str>]) -> v1::GetShardMapResponse {
    let leader = |(shard, address): (usize, &Option<&str>)| v1::ShardLeader {
        shard: shard as u32 + 1,
        leader: address.map(|address| v1::Node {
            id: shard as u64 + 1,
            client_address: address.to_owned(),
            ..v1::Node::default()
        }),
    };
    v1::GetShardMapResponse {
        cluster_id: CLUSTER.to_owned(),
        version: 1,
        slots: (1..=leaders.len() as u32).collect(),
        leaders: leaders.iter().enumerate().map(leader).collect(),
    }
}

/// A device of this slot of a map of `slots` slots.
pub(crate) fn device_in(slot: u64, slots: u64) -> String {
    let hash = |id: &String| xxhash_rust::xxh3::xxh3_64(id.as_bytes());
    (0..)
        .map(|n| format!("d{n}"))
        .find(|id| hash(id) % slots == slot)
        .unwrap()
}

pub(crate) fn batch(device: &str) -> v1::Batch {
    let mut batch = BatchBuilder::new("tank");
    batch.row(device, 1_760_000_000_000_000_000).set("level", 1.25);
    batch.build().unwrap()
}

pub(crate) fn write(device: &str, producer: &str, sequence: u64) -> v1::WriteRequest {
    v1::WriteRequest {
        batch: Some(batch(device)),
        producer: producer.to_owned(),
        sequence,
    }
}

/// Waits until it holds; the only waiting in these tests.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Clone)]
struct Service(Arc<State>);

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ClusterService for Service {
    async fn init(&self, _: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        Err(Status::unimplemented("init"))
    }
    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("join"))
    }
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        *self.0.status_calls.lock().unwrap() += 1;
        if *self.0.outside.lock().unwrap() {
            return Ok(Response::new(v1::StatusResponse::default()));
        }
        Ok(Response::new(v1::StatusResponse {
            healthy: true,
            cluster_id: CLUSTER.to_owned(),
            ..Default::default()
        }))
    }
    async fn add_node(&self, _: Request<v1::AddNodeRequest>) -> Result<Response<v1::AddNodeResponse>, Status> {
        self.0.operation("add_node")
    }
    async fn set_node_state(
        &self,
        _: Request<v1::SetNodeStateRequest>,
    ) -> Result<Response<v1::SetNodeStateResponse>, Status> {
        self.0.operation("set_node_state")
    }
    async fn plan_job(&self, _: Request<v1::PlanJobRequest>) -> Result<Response<v1::PlanJobResponse>, Status> {
        self.0.operation("plan_job")
    }
    async fn start_job(&self, _: Request<v1::StartJobRequest>) -> Result<Response<v1::StartJobResponse>, Status> {
        self.0.operation("start_job")
    }
    async fn list_jobs(&self, _: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        self.0.operation("list_jobs")
    }
    async fn cancel_job(&self, _: Request<v1::CancelJobRequest>) -> Result<Response<v1::CancelJobResponse>, Status> {
        self.0.operation("cancel_job")
    }
    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.0.operation("transfer_leader")
    }
    async fn check_shard(&self, _: Request<v1::CheckShardRequest>) -> Result<Response<v1::CheckShardResponse>, Status> {
        self.0.operation("check_shard")
    }
    async fn compact_shard(
        &self,
        _: Request<v1::CompactShardRequest>,
    ) -> Result<Response<v1::CompactShardResponse>, Status> {
        self.0.operation("compact_shard")
    }
    async fn get_shard_map(
        &self,
        _: Request<v1::GetShardMapRequest>,
    ) -> Result<Response<v1::GetShardMapResponse>, Status> {
        if *self.0.outside.lock().unwrap() {
            return Err(tidemark_error(Code::FailedPrecondition, "NOT_INITIALISED", &[], None));
        }
        Ok(Response::new(self.0.map.lock().unwrap().clone()))
    }
}

#[tonic::async_trait]
impl IngestService for Service {
    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let deadline = request
            .metadata()
            .get("grpc-timeout")
            .map(|value| value.to_str().unwrap().to_owned());
        self.0.deadlines.lock().unwrap().extend(deadline);
        match self.0.step(request.into_inner()) {
            Step::Store => Ok(Response::new(v1::WriteResponse {
                rows: 1,
                points: 1,
                duplicate: false,
            })),
            Step::Status(status) => Err(status),
            Step::Silence => std::future::pending().await,
            Step::Failure(_) | Step::End => panic!("only on streams"),
        }
    }

    async fn delete_points(
        &self,
        _: Request<v1::DeletePointsRequest>,
    ) -> Result<Response<v1::DeletePointsResponse>, Status> {
        self.0.operation("delete_points")
    }

    type WriteStreamStream = Answer<v1::WriteStreamResponse>;

    async fn write_stream(
        &self,
        request: Request<Streaming<v1::WriteStreamRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        *self.0.streams.lock().unwrap() += 1;
        let mut requests = request.into_inner();
        let state = Arc::clone(&self.0);
        let (answers, stream) = mpsc::channel(256);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let token = request.token;
                if *state.poison.lock().unwrap() == Some(token) {
                    let _ = answers.try_send(Err(Status::out_of_range("message too large")));
                    return;
                }
                let respond = |result| {
                    answers.try_send(Ok(v1::WriteStreamResponse {
                        token,
                        result: Some(result),
                    }))
                };
                let sent = match state.step(request.write.unwrap()) {
                    Step::Store => {
                        let stored = v1::WriteResponse {
                            rows: 1,
                            points: 1,
                            duplicate: false,
                        };
                        respond(v1::write_stream_response::Result::Stored(stored))
                    }
                    Step::Failure(failure) => respond(v1::write_stream_response::Result::Failure(failure)),
                    Step::Status(status) => {
                        let _ = answers.try_send(Err(status));
                        return;
                    }
                    Step::End => return,
                    Step::Silence => Ok(()),
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }
}

#[tonic::async_trait]
impl QueryService for Service {
    type QueryRangeStream = Answer<v1::QueryRangeResponse>;
    async fn query_range(&self, _: Request<v1::QueryRangeRequest>) -> Result<Response<Self::QueryRangeStream>, Status> {
        *self.0.range_calls.lock().unwrap() += 1;
        let mut ranges = self.0.ranges.lock().unwrap();
        Ok(Response::new(
            stream::iter(ranges.pop_front().unwrap_or_default()).boxed(),
        ))
    }

    type QueryAggregateStream = Answer<v1::QueryAggregateResponse>;
    async fn query_aggregate(
        &self,
        _: Request<v1::QueryAggregateRequest>,
    ) -> Result<Response<Self::QueryAggregateStream>, Status> {
        Err(Status::unimplemented("aggregate"))
    }

    type QueryIntervalsStream = Answer<v1::QueryIntervalsResponse>;
    async fn query_intervals(
        &self,
        _: Request<v1::QueryIntervalsRequest>,
    ) -> Result<Response<Self::QueryIntervalsStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
    type QueryJoinStream = Answer<v1::QueryJoinResponse>;
    async fn query_join(&self, _: Request<v1::QueryJoinRequest>) -> Result<Response<Self::QueryJoinStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
    type GetQualityStream = Answer<v1::GetQualityResponse>;
    async fn get_quality(&self, _: Request<v1::GetQualityRequest>) -> Result<Response<Self::GetQualityStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
    type GetHealthStream = Answer<v1::GetHealthResponse>;
    async fn get_health(&self, _: Request<v1::GetHealthRequest>) -> Result<Response<Self::GetHealthStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
    type GetLatestStream = Answer<v1::GetLatestResponse>;
    async fn get_latest(&self, _: Request<v1::GetLatestRequest>) -> Result<Response<Self::GetLatestStream>, Status> {
        Err(Status::unimplemented("latest"))
    }
}

#[tonic::async_trait]
impl RegistryService for Service {
    async fn apply_device_types(
        &self,
        _: Request<v1::ApplyDeviceTypesRequest>,
    ) -> Result<Response<v1::ApplyDeviceTypesResponse>, Status> {
        Err(Status::unimplemented("apply"))
    }
    async fn list_device_types(
        &self,
        _: Request<v1::ListDeviceTypesRequest>,
    ) -> Result<Response<v1::ListDeviceTypesResponse>, Status> {
        Ok(Response::new(v1::ListDeviceTypesResponse::default()))
    }
    async fn register_devices(
        &self,
        request: Request<v1::RegisterDevicesRequest>,
    ) -> Result<Response<v1::RegisterDevicesResponse>, Status> {
        let devices = request.into_inner().devices;
        let failure = self
            .0
            .register_failure
            .lock()
            .unwrap()
            .take_if(|(size, _)| *size == devices.len());
        if let Some((_, status)) = failure {
            return Err(status);
        }
        self.0.registered.lock().unwrap().push(devices.len());
        Ok(Response::new(v1::RegisterDevicesResponse {
            created: devices.len() as u32,
            changed: 0,
            unchanged: 0,
        }))
    }

    type ListDevicesStream = Answer<v1::ListDevicesResponse>;
    async fn list_devices(
        &self,
        _: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<Self::ListDevicesStream>, Status> {
        Err(Status::unimplemented("list"))
    }
}
