//! Calls at one node and no other, once, with no help from the client library: what a node itself answers.
//! Never here: cases. Invariant: errors are those of the client library, so that both read alike.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use tidemark_client::{Error, v1};
use tidemark_proto::v1::cluster_service_client::ClusterServiceClient;
use tidemark_proto::v1::ingest_service_client::IngestServiceClient;
use tidemark_proto::v1::query_service_client::QueryServiceClient;
use tidemark_proto::v1::registry_service_client::RegistryServiceClient;
use tokio_stream::StreamExt as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Direct {
    pub(crate) channel: Channel,
}

type Opened<M> = Result<Response<Streaming<M>>, Status>;

/// Every message of a streamed answer; the last one must hold the summary, and only that one.
async fn all<M>(opened: Opened<M>, summary: impl Fn(&M) -> Option<v1::AnswerSummary>) -> Answered<M> {
    let mut stream = opened?.into_inner();
    let (mut messages, mut last) = (Vec::new(), None);
    while let Some(message) = stream.next().await {
        let message = message?;
        assert!(last.is_none(), "a message after the summary");
        last = summary(&message);
        messages.push(message);
    }
    Ok((messages, last.expect("an answer ends with its summary")))
}

/// Messages and summary.
pub(crate) type Answered<M> = Result<(Vec<M>, v1::AnswerSummary), Error>;

impl Direct {
    pub(crate) fn new(address: &str) -> Direct {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Direct {
            channel: endpoint.timeout(CALL_TIMEOUT).connect_lazy(),
        }
    }

    pub(crate) fn ingest(&self) -> IngestServiceClient<Channel> {
        IngestServiceClient::new(self.channel.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn query(&self) -> QueryServiceClient<Channel> {
        QueryServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn registry(&self) -> RegistryServiceClient<Channel> {
        RegistryServiceClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn init(&self, request: v1::InitRequest) -> Result<v1::InitResponse, Error> {
        Ok(self.cluster().init(request).await?.into_inner())
    }

    pub(crate) async fn join(&self, request: v1::JoinRequest) -> Result<v1::JoinResponse, Error> {
        Ok(self.cluster().join(request).await?.into_inner())
    }

    pub(crate) async fn status(&self) -> Result<v1::StatusResponse, Error> {
        Ok(self.cluster().status(v1::StatusRequest {}).await?.into_inner())
    }

    pub(crate) async fn shard_map(&self) -> Result<v1::GetShardMapResponse, Error> {
        let mut cluster = self.cluster();
        Ok(cluster.get_shard_map(v1::GetShardMapRequest {}).await?.into_inner())
    }

    pub(crate) async fn apply(&self, types: Vec<v1::DeviceType>) -> Result<v1::ApplyDeviceTypesResponse, Error> {
        let request = v1::ApplyDeviceTypesRequest { device_types: types };
        Ok(self.registry().apply_device_types(request).await?.into_inner())
    }

    pub(crate) async fn types(&self, ids: &[&str]) -> Result<Vec<v1::DeviceType>, Error> {
        let request = v1::ListDeviceTypesRequest {
            ids: ids.iter().map(ToString::to_string).collect(),
        };
        Ok(self
            .registry()
            .list_device_types(request)
            .await?
            .into_inner()
            .device_types)
    }

    pub(crate) async fn register(&self, devices: Vec<v1::Device>) -> Result<v1::RegisterDevicesResponse, Error> {
        let request = v1::RegisterDevicesRequest {
            devices,
            ..Default::default()
        };
        Ok(self.registry().register_devices(request).await?.into_inner())
    }

    pub(crate) async fn devices(&self, request: v1::ListDevicesRequest) -> Answered<v1::ListDevicesResponse> {
        all(self.registry().list_devices(request).await, |m| m.summary.clone()).await
    }

    pub(crate) async fn write(&self, request: v1::WriteRequest) -> Result<v1::WriteResponse, Error> {
        Ok(self.ingest().write(request).await?.into_inner())
    }

    /// Sends bytes as they are to a unary method.
    pub(crate) async fn raw(&self, path: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static(path);
        Ok(client.unary(Request::new(bytes), path, Plain).await?.into_inner())
    }

    pub(crate) async fn range(&self, request: v1::QueryRangeRequest) -> Answered<v1::QueryRangeResponse> {
        all(self.query().query_range(request).await, |m| m.summary.clone()).await
    }

    pub(crate) async fn aggregate(&self, request: v1::QueryAggregateRequest) -> Answered<v1::QueryAggregateResponse> {
        all(self.query().query_aggregate(request).await, |m| m.summary.clone()).await
    }

    /// For an application.
    pub(crate) async fn aggregate_for(
        &self,
        request: v1::QueryAggregateRequest,
        application: &str,
    ) -> Answered<v1::QueryAggregateResponse> {
        let mut request = Request::new(request);
        let metadata = request.metadata_mut();
        metadata.insert("tidemark-application", application.parse().unwrap());
        all(self.query().query_aggregate(request).await, |m| m.summary.clone()).await
    }

    /// By a client that stops waiting soon.
    pub(crate) async fn aggregate_within(
        &self,
        request: v1::QueryAggregateRequest,
        timeout: Duration,
    ) -> Answered<v1::QueryAggregateResponse> {
        let mut request = Request::new(request);
        request.set_timeout(timeout);
        all(self.query().query_aggregate(request).await, |m| m.summary.clone()).await
    }

    /// By a client that stops waiting soon.
    pub(crate) async fn range_within(
        &self,
        request: v1::QueryRangeRequest,
        timeout: Duration,
    ) -> Answered<v1::QueryRangeResponse> {
        let mut request = Request::new(request);
        request.set_timeout(timeout);
        all(self.query().query_range(request).await, |m| m.summary.clone()).await
    }

    pub(crate) async fn quality(&self, request: v1::GetQualityRequest) -> Answered<v1::GetQualityResponse> {
        all(self.query().get_quality(request).await, |m| m.summary.clone()).await
    }

    pub(crate) async fn intervals(&self, request: v1::QueryIntervalsRequest) -> Answered<v1::QueryIntervalsResponse> {
        all(self.query().query_intervals(request).await, |m| m.summary.clone()).await
    }

    pub(crate) async fn latest(&self, request: v1::GetLatestRequest) -> Answered<v1::GetLatestResponse> {
        all(self.query().get_latest(request).await, |m| m.summary.clone()).await
    }
}

/// Bytes as they are.
#[derive(Copy, Clone, Debug)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }

    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Ok(Some(bytes.to_vec()))
    }
}
