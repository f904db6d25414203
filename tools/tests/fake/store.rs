//! A store in memory for the tests of `ingest` and `query`: it checks devices as a node does and binds cursors to their
//! questions. Tests only; never a cluster (that is `mod.rs` beside this).
#![allow(dead_code, reason = "the server is killed in other tests")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::result_large_err,
    reason = "tests"
)]

#[path = "../../../client/tests/fake/host.rs"]
mod host;

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt as _, stream};
use tidemark_client::rows;
use tidemark_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use tidemark_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tidemark_proto::v1::query_service_server::{QueryService, QueryServiceServer};
use tidemark_proto::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use tidemark_proto::v1::{self, write_stream_response::Result as Outcome};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use host::Hosted;

const CLUSTER: &str = "9f86d081884c7d659a2feaa0c55ad015";

#[derive(Default)]
pub(crate) struct State {
    /// Devices and their types.
    pub devices: Mutex<BTreeMap<String, String>>,
    /// Values by `device@ns property`.
    pub values: Mutex<BTreeMap<String, String>>,
    /// Batches and rests that came.
    pub writes: Mutex<usize>,
    /// Requests to register.
    pub registrations: Mutex<usize>,
    /// So many more writes are taken; those after them fail.
    pub stop_after: Mutex<Option<usize>>,
    /// How they fail; without it as one of a producer that is out of step.
    pub broken: Mutex<Option<Status>>,
}

pub(crate) struct Store {
    pub address: String,
    pub state: Arc<State>,
    /// Ends with this value.
    _server: Hosted,
}

impl Store {
    /// With the types `tank` and `pump`, and these devices.
    pub(crate) fn start(devices: &[(&str, &str)]) -> Self {
        let state = Arc::new(State::default());
        let known = devices.iter().map(|(id, of)| ((*id).to_owned(), (*of).to_owned()));
        state.devices.lock().unwrap().extend(known);
        let service = Service(Arc::clone(&state));
        let services = tonic::transport::Server::builder()
            .add_service(ClusterServiceServer::new(service.clone()))
            .add_service(IngestServiceServer::new(service.clone()))
            .add_service(QueryServiceServer::new(service.clone()))
            .add_service(RegistryServiceServer::new(service));
        let server = Hosted::start(services);
        Self {
            address: server.address.clone(),
            state,
            _server: server,
        }
    }
}

/// The two types: what a tank measures is in the tests, a pump has one property as well.
fn types() -> Vec<v1::DeviceType> {
    let property = |id: &str, value_type: v1::ValueType| v1::Property {
        id: id.into(),
        value_type: value_type as i32,
        ..v1::Property::default()
    };
    let made = |id: &str| v1::DeviceType {
        id: id.into(),
        properties: vec![
            property("level", v1::ValueType::F64),
            property("note", v1::ValueType::Text),
        ],
        ..v1::DeviceType::default()
    };
    vec![made("pump"), made("tank")]
}

fn refused(code: Code, reason: &str, message: String, field: &str, rows: Vec<FieldViolation>) -> Status {
    let metadata = HashMap::from([("field".to_owned(), field.to_owned())]);
    let mut details = ErrorDetails::with_error_info(reason, "tidemark", metadata);
    if !rows.is_empty() {
        details.set_bad_request(rows);
    }
    Status::with_error_details(code, message, details)
}

fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

#[derive(Clone)]
struct Service(Arc<State>);

impl Service {
    /// The failure of writes that are not to be taken.
    fn stopped(&self) -> Option<Status> {
        let mut left = self.0.stop_after.lock().unwrap();
        match left.as_mut()? {
            0 => {
                let too_old = || {
                    refused(
                        Code::FailedPrecondition,
                        "SEQUENCE_TOO_OLD",
                        "too old".into(),
                        "",
                        Vec::new(),
                    )
                };
                Some(self.0.broken.lock().unwrap().clone().unwrap_or_else(too_old))
            }
            left => {
                *left -= 1;
                None
            }
        }
    }

    /// Refuses rows of devices that are not there, the first hundred by name; stores all rows otherwise.
    fn store(&self, batch: &v1::Batch) -> Result<v1::WriteResponse, v1::Failure> {
        *self.0.writes.lock().unwrap() += 1;
        let devices = self.0.devices.lock().unwrap();
        let why = |device: &str| match devices.get(device) {
            _ if !is_id(device) => Some((
                Code::InvalidArgument,
                "INVALID_ID",
                "the device id has other characters",
            )),
            None => Some((Code::NotFound, "UNKNOWN_DEVICE", "no such device")),
            Some(of) if *of != batch.device_type => Some((
                Code::FailedPrecondition,
                "WRONG_DEVICE_TYPE",
                "the device is of another type",
            )),
            Some(_) => None,
        };
        let bad = rows(batch).enumerate().filter_map(|(row, content)| {
            why(content.device).map(|(code, reason, message)| {
                let row = v1::RowFailure {
                    row: row as u32,
                    reason: reason.into(),
                    message: format!("{message}: {}", content.device),
                    field: "device".into(),
                };
                (code, row)
            })
        });
        let bad: Vec<_> = bad.take(100).collect();
        if let Some((code, first)) = bad.first() {
            return Err(v1::Failure {
                code: *code as i32,
                reason: first.reason.clone(),
                message: format!("bad rows, the first is row {}: {}", first.row, first.message),
                field: format!("batch.rows[{}].device", first.row),
                rows: bad.iter().map(|(_, row)| row.clone()).collect(),
                ..v1::Failure::default()
            });
        }
        let mut stored = v1::WriteResponse::default();
        for row in rows(batch) {
            stored.rows += 1;
            for (property, value) in row.values {
                stored.points += 1;
                let key = format!("{}@{} {property}", row.device, row.observed_at_ns);
                self.0.values.lock().unwrap().insert(key, value.to_string());
            }
        }
        Ok(stored)
    }
}

fn status_of(failure: v1::Failure) -> Status {
    let rows = failure.rows.iter().map(|row| FieldViolation {
        field: format!("batch.rows[{}].{}", row.row, row.field),
        description: row.message.clone(),
        reason: row.reason.clone(),
        ..FieldViolation::new("", "")
    });
    let rows = rows.collect();
    refused(
        Code::from_i32(failure.code),
        &failure.reason,
        failure.message,
        &failure.field,
        rows,
    )
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl IngestService for Service {
    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        if let Some(status) = self.stopped() {
            return Err(status);
        }
        let batch = request.into_inner().batch.unwrap();
        self.store(&batch).map(Response::new).map_err(status_of)
    }

    type WriteStreamStream = Answer<v1::WriteStreamResponse>;
    async fn write_stream(
        &self,
        request: Request<Streaming<v1::WriteStreamRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        let service = self.clone();
        let answers = request.into_inner().map(move |request| {
            let request = request?;
            if let Some(status) = service.stopped() {
                return Err(status);
            }
            let result = match service.store(&request.write.unwrap().batch.unwrap()) {
                Ok(stored) => Outcome::Stored(stored),
                Err(failure) => Outcome::Failure(failure),
            };
            Ok(v1::WriteStreamResponse {
                token: request.token,
                result: Some(result),
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn delete_points(
        &self,
        _: Request<v1::DeletePointsRequest>,
    ) -> Result<Response<v1::DeletePointsResponse>, Status> {
        Err(Status::unimplemented("delete_points"))
    }
}

#[tonic::async_trait]
impl RegistryService for Service {
    async fn apply_device_types(
        &self,
        _: Request<v1::ApplyDeviceTypesRequest>,
    ) -> Result<Response<v1::ApplyDeviceTypesResponse>, Status> {
        Err(Status::unimplemented("apply_device_types"))
    }

    async fn list_device_types(
        &self,
        request: Request<v1::ListDeviceTypesRequest>,
    ) -> Result<Response<v1::ListDeviceTypesResponse>, Status> {
        let ids = request.into_inner().ids;
        let wanted = |made: &v1::DeviceType| ids.is_empty() || ids.contains(&made.id);
        let device_types = types().into_iter().filter(wanted).collect();
        Ok(Response::new(v1::ListDeviceTypesResponse { device_types }))
    }

    async fn register_devices(
        &self,
        request: Request<v1::RegisterDevicesRequest>,
    ) -> Result<Response<v1::RegisterDevicesResponse>, Status> {
        *self.0.registrations.lock().unwrap() += 1;
        let mut devices = self.0.devices.lock().unwrap();
        let mut done = v1::RegisterDevicesResponse::default();
        for (at, device) in request.into_inner().devices.into_iter().enumerate() {
            let fail = |code, reason, field: &str| {
                let message = format!("{reason} of {}", device.id);
                Err(refused(
                    code,
                    reason,
                    message,
                    &format!("devices[{at}].{field}"),
                    Vec::new(),
                ))
            };
            if !is_id(&device.id) {
                return fail(Code::InvalidArgument, "INVALID_ID", "id");
            }
            match devices.get(&device.id) {
                Some(of) if *of != device.device_type => {
                    return fail(Code::FailedPrecondition, "DEVICE_TYPE_FIXED", "device_type");
                }
                Some(_) => done.unchanged += 1,
                None => {
                    devices.insert(device.id, device.device_type);
                    done.created += 1;
                }
            }
        }
        Ok(Response::new(done))
    }

    type ListDevicesStream = Answer<v1::ListDevicesResponse>;
    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<Self::ListDevicesStream>, Status> {
        let of = request.into_inner().selector.map(|selector| selector.device_type);
        let devices = self.0.devices.lock().unwrap();
        let wanted = devices.iter().filter(|(_, is)| of.as_ref().is_none_or(|of| of == *is));
        let devices = wanted.map(|(id, device_type)| v1::Device {
            id: id.clone(),
            device_type: device_type.clone(),
            ..v1::Device::default()
        });
        let answer = v1::ListDevicesResponse {
            devices: devices.collect(),
            summary: Some(v1::AnswerSummary::default()),
        };
        Ok(Response::new(stream::iter([Ok(answer)]).boxed()))
    }
}

#[tonic::async_trait]
impl QueryService for Service {
    type QueryRangeStream = Answer<v1::QueryRangeResponse>;
    /// Records without values, one per device, in pages; a cursor is the question with the number of records before it.
    async fn query_range(
        &self,
        request: Request<v1::QueryRangeRequest>,
    ) -> Result<Response<Self::QueryRangeStream>, Status> {
        let request = request.into_inner();
        let question = format!("{} {} {}|", request.from_ns, request.to_ns, request.known_at_ns);
        let cursor = String::from_utf8(request.cursor.to_vec()).unwrap();
        let before: usize = match cursor.strip_prefix(&question) {
            _ if cursor.is_empty() => 0,
            Some(number) => number.parse().unwrap(),
            None => {
                let message = "the cursor is not valid: it belongs to another question".to_owned();
                return Err(refused(
                    Code::InvalidArgument,
                    "INVALID_CURSOR",
                    message,
                    "cursor",
                    Vec::new(),
                ));
            }
        };
        let devices: Vec<_> = self.0.devices.lock().unwrap().keys().cloned().collect();
        let page: Vec<_> = devices
            .iter()
            .skip(before)
            .take(request.limit.max(1) as usize)
            .cloned()
            .collect();
        let end = before + page.len();
        let rows = page.len();
        let batch = v1::Batch {
            device_type: "tank".into(),
            device_index: (0..rows as u32).collect(),
            observed_at_ns: vec![request.from_ns; rows],
            devices: page,
            ..v1::Batch::default()
        };
        let next = match end < devices.len() {
            true => format!("{question}{end}").into_bytes(),
            false => Vec::new(),
        };
        let summary = v1::AnswerSummary {
            rows: rows as u64,
            next_cursor: next.into(),
            known_at_ns: request.known_at_ns,
            ..v1::AnswerSummary::default()
        };
        let answer = v1::QueryRangeResponse {
            batch: Some(batch),
            summary: Some(summary),
        };
        Ok(Response::new(stream::iter([Ok(answer)]).boxed()))
    }

    type QueryAggregateStream = Answer<v1::QueryAggregateResponse>;
    async fn query_aggregate(
        &self,
        _: Request<v1::QueryAggregateRequest>,
    ) -> Result<Response<Self::QueryAggregateStream>, Status> {
        Err(Status::unimplemented("query_aggregate"))
    }
    type QueryIntervalsStream = Answer<v1::QueryIntervalsResponse>;
    async fn query_intervals(
        &self,
        _: Request<v1::QueryIntervalsRequest>,
    ) -> Result<Response<Self::QueryIntervalsStream>, Status> {
        Err(Status::unimplemented("query_intervals"))
    }
    type QueryJoinStream = Answer<v1::QueryJoinResponse>;
    async fn query_join(&self, _: Request<v1::QueryJoinRequest>) -> Result<Response<Self::QueryJoinStream>, Status> {
        Err(Status::unimplemented("query_join"))
    }
    type GetQualityStream = Answer<v1::GetQualityResponse>;
    async fn get_quality(&self, _: Request<v1::GetQualityRequest>) -> Result<Response<Self::GetQualityStream>, Status> {
        Err(Status::unimplemented("get_quality"))
    }
    type GetHealthStream = Answer<v1::GetHealthResponse>;
    async fn get_health(&self, _: Request<v1::GetHealthRequest>) -> Result<Response<Self::GetHealthStream>, Status> {
        Err(Status::unimplemented("get_health"))
    }
    type GetLatestStream = Answer<v1::GetLatestResponse>;
    async fn get_latest(&self, _: Request<v1::GetLatestRequest>) -> Result<Response<Self::GetLatestStream>, Status> {
        Err(Status::unimplemented("get_latest"))
    }
}

#[tonic::async_trait]
impl ClusterService for Service {
    async fn init(&self, _: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        Err(Status::unimplemented("init"))
    }
    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("join"))
    }
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(v1::StatusResponse {
            cluster_id: CLUSTER.into(),
            healthy: true,
            ..v1::StatusResponse::default()
        }))
    }
    async fn add_node(&self, _: Request<v1::AddNodeRequest>) -> Result<Response<v1::AddNodeResponse>, Status> {
        Err(Status::unimplemented("add_node"))
    }
    async fn set_node_state(
        &self,
        _: Request<v1::SetNodeStateRequest>,
    ) -> Result<Response<v1::SetNodeStateResponse>, Status> {
        Err(Status::unimplemented("set_node_state"))
    }
    async fn plan_job(&self, _: Request<v1::PlanJobRequest>) -> Result<Response<v1::PlanJobResponse>, Status> {
        Err(Status::unimplemented("plan_job"))
    }
    async fn start_job(&self, _: Request<v1::StartJobRequest>) -> Result<Response<v1::StartJobResponse>, Status> {
        Err(Status::unimplemented("start_job"))
    }
    async fn list_jobs(&self, _: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        Err(Status::unimplemented("list_jobs"))
    }
    async fn cancel_job(&self, _: Request<v1::CancelJobRequest>) -> Result<Response<v1::CancelJobResponse>, Status> {
        Err(Status::unimplemented("cancel_job"))
    }
    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("transfer_leader"))
    }
    async fn check_shard(&self, _: Request<v1::CheckShardRequest>) -> Result<Response<v1::CheckShardResponse>, Status> {
        Err(Status::unimplemented("check_shard"))
    }
    async fn compact_shard(
        &self,
        _: Request<v1::CompactShardRequest>,
    ) -> Result<Response<v1::CompactShardResponse>, Status> {
        Err(Status::unimplemented("compact_shard"))
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
