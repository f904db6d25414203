//! `RegistryService`.

use std::sync::Arc;

use tidemark_proto::v1::registry_service_server::RegistryService;
use tidemark_proto::v1::{
    ApplyDeviceTypesRequest, ApplyDeviceTypesResponse, ListDeviceTypesRequest, ListDeviceTypesResponse,
    ListDevicesRequest, ListDevicesResponse, RegisterDevicesRequest, RegisterDevicesResponse,
};
use tonic::{Request, Status};

use super::caller::caller;
use super::{Answered, Streamed, answered, streamed};
use crate::query::Queries;
use crate::write::Writes;

/// Device types and devices.
pub struct RegistryApi {
    /// Changes them.
    pub writes: Arc<Writes>,
    /// Lists them.
    pub queries: Arc<Queries>,
}

#[tonic::async_trait]
impl RegistryService for RegistryApi {
    type ListDevicesStream = Streamed<ListDevicesResponse>;

    async fn apply_device_types(
        &self,
        request: Request<ApplyDeviceTypesRequest>,
    ) -> Answered<ApplyDeviceTypesResponse> {
        answered(self.writes.apply_types(request.into_inner().device_types).await)
    }

    async fn list_device_types(&self, request: Request<ListDeviceTypesRequest>) -> Answered<ListDeviceTypesResponse> {
        answered(self.writes.list_types(&request.into_inner().ids).await)
    }

    async fn register_devices(&self, request: Request<RegisterDevicesRequest>) -> Answered<RegisterDevicesResponse> {
        answered(self.writes.register(request.into_inner()).await)
    }

    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<tonic::Response<Self::ListDevicesStream>, Status> {
        let caller = caller(&request)?;
        streamed(self.queries.devices(request.into_inner(), &caller).await)
    }
}
