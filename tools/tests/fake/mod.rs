//! A server that plays a cluster from a script; it runs as that of the client's tests. Tests only; never a store.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::result_large_err,
    reason = "tests"
)]

#[path = "../../../client/tests/fake/host.rs"]
mod host;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tidemark_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use tidemark_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tidemark_proto::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use tidemark_proto::v1::{self, JobState, MovePhase, NodeState, ReplicaState, job_spec::Goal};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use host::Hosted;

pub(crate) const CLUSTER: &str = "9f86d081884c7d659a2feaa0c55ad015";

#[derive(Default)]
pub(crate) struct State {
    /// One answer per call; the last stays.
    pub status: Mutex<VecDeque<v1::StatusResponse>>,
    pub plan: Mutex<v1::PlanJobResponse>,
    /// One state of the job per look; the last stays.
    pub looks: Mutex<VecDeque<v1::Job>>,
    pub checks: Mutex<HashMap<u32, v1::CheckShardResponse>>,
    pub compactions: Mutex<HashMap<u32, v1::CompactShardResponse>>,
    pub started: Mutex<Vec<v1::StartJobRequest>>,
    /// Requests to delete, and what each is answered.
    pub deletes: Mutex<Vec<v1::DeletePointsRequest>>,
    pub removal: Mutex<v1::DeletePointsResponse>,
    /// Types that are there.
    pub types: Mutex<Vec<v1::DeviceType>>,
    /// Devices that are there, and requests to register some.
    pub devices: Mutex<Vec<v1::Device>>,
    pub registered: Mutex<Vec<v1::RegisterDevicesRequest>>,
    pub calls: Mutex<Vec<String>>,
    /// The next call of this name fails so.
    pub refuse: Mutex<Option<(&'static str, Status)>>,
}

impl State {
    fn call(&self, name: &'static str, what: String) -> Result<(), Status> {
        self.calls.lock().unwrap().push(format!("{name} {what}"));
        match self.refuse.lock().unwrap().take_if(|(wanted, _)| *wanted == name) {
            Some((_, status)) => Err(status),
            None => Ok(()),
        }
    }
}

fn next<T: Clone + Default>(queue: &Mutex<VecDeque<T>>) -> T {
    let mut queue = queue.lock().unwrap();
    match queue.len() {
        0 | 1 => queue.front().cloned().unwrap_or_default(),
        _ => queue.pop_front().unwrap(),
    }
}

pub(crate) struct Fake {
    pub address: String,
    pub state: Arc<State>,
    /// Ends with this value.
    server: Hosted,
}

impl Fake {
    /// A healthy cluster of three nodes.
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::default());
        state.status.lock().unwrap().push_back(status());
        let service = Service(Arc::clone(&state));
        let points = Points(Arc::clone(&state));
        let types = Types(Arc::clone(&state));
        let services = tonic::transport::Server::builder()
            .add_service(ClusterServiceServer::new(service))
            .add_service(IngestServiceServer::new(points))
            .add_service(RegistryServiceServer::new(types));
        let server = Hosted::start(services);
        let address = server.address.clone();
        Self { address, state, server }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.calls.lock().unwrap().clone()
    }

    /// Changes the status from here on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut v1::StatusResponse)) {
        change(self.state.status.lock().unwrap().back_mut().unwrap());
    }
}

pub(crate) fn refusal(code: Code, reason: &str, message: &str, hint: &str) -> Status {
    let metadata = HashMap::from([("hint".to_owned(), hint.to_owned())]);
    Status::with_error_details(
        code,
        message,
        ErrorDetails::with_error_info(reason, "tidemark", metadata),
    )
}

pub(crate) fn node(id: u64) -> v1::NodeStatus {
    v1::NodeStatus {
        node: Some(v1::Node {
            id,
            client_address: format!("10.0.0.{id}:7777"),
            peer_address: format!("10.0.0.{id}:7778"),
            zone: format!("z{id}"),
            state: NodeState::Active as i32,
        }),
        reachable: true,
        replicas: 3,
        leaders: 1,
        disk_bytes: 3 << 30,
        facts: Some(v1::NodeFacts {
            version: "0.1.0".into(),
            disk_total_bytes: 100 << 30,
            disk_free_bytes: 60 << 30,
            disk_reserve_bytes: 5 << 30,
            memory_bytes: 512 << 20,
            open_files: 300,
            open_files_max: 1 << 20,
            // Long ago, so that the days it is up have one width.
            started_at_ns: 1_700_000_000_000_000_000,
            ..v1::NodeFacts::default()
        }),
    }
}

pub(crate) fn replica(node_id: u64, state: ReplicaState) -> v1::ReplicaStatus {
    v1::ReplicaStatus {
        replica_id: node_id + 10,
        node_id,
        state: state as i32,
        last_log_index: 118,
        applied_index: 118,
        lag_ms: 4,
        ..v1::ReplicaStatus::default()
    }
}

pub(crate) fn status() -> v1::StatusResponse {
    let shard = |id: u32| v1::ShardStatus {
        shard: id,
        leader_node: u64::from(id) + 1,
        term: 2,
        replicas: (1..=3)
            .map(|node| match node == u64::from(id) + 1 {
                true => replica(node, ReplicaState::Leader),
                false => replica(node, ReplicaState::Follower),
            })
            .collect(),
        devices: u64::from(id) * 50,
        disk_bytes: 1 << 30,
    };
    v1::StatusResponse {
        cluster_id: CLUSTER.into(),
        node_id: 1,
        version: "0.1.0".into(),
        replication_factor: 3,
        nodes: (1..=3).map(node).collect(),
        shards: (0..=2).map(shard).collect(),
        device_types: 30,
        healthy: true,
        ..v1::StatusResponse::default()
    }
}

/// A drain of node 3 in two moves that are in these phases.
pub(crate) fn drain(state: JobState, phases: [MovePhase; 2]) -> v1::Job {
    let moves = phases.iter().zip([1, 2]).map(|(phase, shard)| v1::Move {
        shard,
        from_node: 3,
        to_node: 4,
        from_replica: 13,
        to_replica: 20 + u64::from(shard),
        phase: *phase as i32,
        bytes_total: if *phase == MovePhase::Copying { 64 << 20 } else { 0 },
        bytes_done: if *phase == MovePhase::Copying { 16 << 20 } else { 0 },
        waits_for: String::new(),
    });
    v1::Job {
        id: 7,
        spec: Some(v1::JobSpec {
            goal: Some(Goal::DrainNode(v1::DrainNode { node_id: 3 })),
        }),
        state: state as i32,
        moves: moves.collect(),
        started_at_ns: 1_760_000_000_000_000_000,
        ended_at_ns: if state == JobState::Done {
            1_760_000_200_000_000_000
        } else {
            0
        },
        ..v1::Job::default()
    }
}

struct Service(Arc<State>);

#[tonic::async_trait]
impl ClusterService for Service {
    async fn init(&self, _: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        Err(Status::unimplemented("init"))
    }
    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("join"))
    }
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(next(&self.0.status)))
    }
    async fn add_node(&self, request: Request<v1::AddNodeRequest>) -> Result<Response<v1::AddNodeResponse>, Status> {
        self.0.call("add_node", request.into_inner().peer_address)?;
        Ok(Response::new(v1::AddNodeResponse {
            cluster_id: CLUSTER.into(),
            node: node(4).node,
        }))
    }
    async fn set_node_state(
        &self,
        request: Request<v1::SetNodeStateRequest>,
    ) -> Result<Response<v1::SetNodeStateResponse>, Status> {
        let request = request.into_inner();
        self.0
            .call("set_node_state", format!("{} {:?}", request.node_id, request.state()))?;
        let mut place = node(request.node_id).node.unwrap();
        place.state = request.state;
        Ok(Response::new(v1::SetNodeStateResponse { node: Some(place) }))
    }
    async fn plan_job(&self, request: Request<v1::PlanJobRequest>) -> Result<Response<v1::PlanJobResponse>, Status> {
        let goal = request.into_inner().spec.unwrap().goal.unwrap();
        self.0.call("plan_job", format!("{goal:?}"))?;
        Ok(Response::new(self.0.plan.lock().unwrap().clone()))
    }
    async fn start_job(&self, request: Request<v1::StartJobRequest>) -> Result<Response<v1::StartJobResponse>, Status> {
        self.0.call("start_job", String::new())?;
        self.0.started.lock().unwrap().push(request.into_inner());
        let job = Some(next(&self.0.looks));
        Ok(Response::new(v1::StartJobResponse { job }))
    }
    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        let id = request.into_inner().id;
        let job = next(&self.0.looks);
        let jobs = if id == 0 || job.id == id { vec![job] } else { Vec::new() };
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }
    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        self.0.call("cancel_job", request.into_inner().id.to_string())?;
        let job = Some(next(&self.0.looks));
        Ok(Response::new(v1::CancelJobResponse { job }))
    }
    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.0
            .call("transfer_leader", format!("{} {}", request.shard, request.to_node))?;
        Ok(Response::new(v1::TransferLeaderResponse {
            leader_node: request.to_node,
            pause_ms: 12,
        }))
    }
    async fn check_shard(
        &self,
        request: Request<v1::CheckShardRequest>,
    ) -> Result<Response<v1::CheckShardResponse>, Status> {
        let shard = request.into_inner().shard;
        let answer = self.0.checks.lock().unwrap().get(&shard).cloned();
        let unknown = || refusal(Code::NotFound, "UNKNOWN_SHARD", &format!("no shard {shard}"), "");
        answer.map(Response::new).ok_or_else(unknown)
    }
    async fn compact_shard(
        &self,
        request: Request<v1::CompactShardRequest>,
    ) -> Result<Response<v1::CompactShardResponse>, Status> {
        let shard = request.into_inner().shard;
        let answer = self.0.compactions.lock().unwrap().get(&shard).cloned();
        let unknown = || refusal(Code::NotFound, "UNKNOWN_SHARD", &format!("no shard {shard}"), "");
        answer.map(Response::new).ok_or_else(unknown)
    }
    async fn get_shard_map(
        &self,
        _: Request<v1::GetShardMapRequest>,
    ) -> Result<Response<v1::GetShardMapResponse>, Status> {
        Ok(Response::new(v1::GetShardMapResponse {
            version: 1,
            cluster_id: CLUSTER.into(),
            ..v1::GetShardMapResponse::default()
        }))
    }
}

struct Points(Arc<State>);

#[tonic::async_trait]
impl IngestService for Points {
    async fn write(&self, _: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        Err(Status::unimplemented("write"))
    }
    type WriteStreamStream = tokio_stream::Empty<Result<v1::WriteStreamResponse, Status>>;
    async fn write_stream(
        &self,
        _: Request<tonic::Streaming<v1::WriteStreamRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        Err(Status::unimplemented("write_stream"))
    }
    async fn delete_points(
        &self,
        request: Request<v1::DeletePointsRequest>,
    ) -> Result<Response<v1::DeletePointsResponse>, Status> {
        let request = request.into_inner();
        self.0.call("delete_points", format!("dry run {}", request.dry_run))?;
        self.0.deletes.lock().unwrap().push(request);
        Ok(Response::new(*self.0.removal.lock().unwrap()))
    }
}

struct Types(Arc<State>);

#[tonic::async_trait]
impl RegistryService for Types {
    async fn apply_device_types(
        &self,
        request: Request<v1::ApplyDeviceTypesRequest>,
    ) -> Result<Response<v1::ApplyDeviceTypesResponse>, Status> {
        let device_types = request.into_inner().device_types;
        self.0.types.lock().unwrap().clone_from(&device_types);
        Ok(Response::new(v1::ApplyDeviceTypesResponse {
            changed: device_types.len() as u32,
            device_types,
            ..v1::ApplyDeviceTypesResponse::default()
        }))
    }
    async fn list_device_types(
        &self,
        _: Request<v1::ListDeviceTypesRequest>,
    ) -> Result<Response<v1::ListDeviceTypesResponse>, Status> {
        let device_types = self.0.types.lock().unwrap().clone();
        Ok(Response::new(v1::ListDeviceTypesResponse { device_types }))
    }
    async fn register_devices(
        &self,
        request: Request<v1::RegisterDevicesRequest>,
    ) -> Result<Response<v1::RegisterDevicesResponse>, Status> {
        let request = request.into_inner();
        let mut devices = self.0.devices.lock().unwrap();
        for device in &request.devices {
            devices.retain(|known| known.id != device.id);
            devices.push(device.clone());
        }
        let changed = request.devices.len() as u32;
        self.0.registered.lock().unwrap().push(request);
        Ok(Response::new(v1::RegisterDevicesResponse {
            changed,
            ..v1::RegisterDevicesResponse::default()
        }))
    }
    type ListDevicesStream = tokio_stream::Once<Result<v1::ListDevicesResponse, Status>>;
    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<Self::ListDevicesStream>, Status> {
        let ids = request.into_inner().selector.unwrap_or_default().device_ids;
        let mut devices = self.0.devices.lock().unwrap().clone();
        devices.retain(|device| ids.is_empty() || ids.contains(&device.id));
        let message = v1::ListDevicesResponse {
            summary: Some(v1::AnswerSummary {
                devices: devices.len() as u64,
                ..v1::AnswerSummary::default()
            }),
            devices,
        };
        Ok(Response::new(tokio_stream::once(Ok(message))))
    }
}
