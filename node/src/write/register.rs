//! Devices and device types: from request to answer.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{
    ApplyTypes, CatalogCommand, PutDevice, PutDevices, Resolved, ShardCommand, ShardResolve, applied, catalog_command,
    shard_command,
};
use tidemark_proto::v1::{
    ApplyDeviceTypesResponse, Consistency, DeviceType, ListDeviceTypesResponse, RegisterDevicesRequest,
    RegisterDevicesResponse,
};

use super::ingest::{Known, Writes};
use crate::catalog::{CATALOG_GROUP, types};
use crate::clock::{Instant, monotonic, now_ns};
use crate::error::{Error, Reason, Result};
use crate::raft::machine::blocking;
use crate::raft::state::store_error;
use crate::route::{Retry, time_left};
use crate::wire::registry::check_device;

impl Writes {
    /// Creates or evolves device types, all or none.
    pub async fn apply_types(&self, device_types: Vec<DeviceType>) -> Result<ApplyDeviceTypesResponse> {
        let deadline = monotonic() + self.limits.request_timeout();
        self.router.host().catalog()?;
        let mut ids = BTreeSet::new();
        for (at, device_type) in device_types.iter().enumerate() {
            types::check(device_type, at, &self.limits)?;
            if !ids.insert(device_type.id.as_str()) {
                return Err(Error::new(
                    Reason::InvalidType,
                    format!("type {:?} is listed twice", device_type.id),
                )
                .field(format!("device_types[{at}].id")));
            }
        }
        if device_types.is_empty() {
            return Ok(ApplyDeviceTypesResponse::default());
        }
        let apply = catalog_command::Command::ApplyTypes(ApplyTypes { device_types });
        let command = CatalogCommand {
            stamp_ns: now_ns(),
            command: Some(apply),
        };
        let command = command.encode_to_vec().into();
        match self
            .router
            .propose(CATALOG_GROUP, command, Retry::Safe, deadline)
            .await?
        {
            applied::Result::Types(types) => Ok(types),
            other => Err(Error::internal(format!("answer {other:?} to device types"))),
        }
    }

    /// Device types by id; all where none is named.
    pub async fn list_types(&self, ids: &[String]) -> Result<ListDeviceTypesResponse> {
        let deadline = monotonic() + self.limits.request_timeout();
        let catalog = self.router.newest_catalog(time_left(deadline)?).await?;
        let device_types = match ids.is_empty() {
            true => catalog.types().map(|def| def.stored.clone()).collect(),
            false => ids
                .iter()
                .map(|id| Ok(catalog.device_type(id)?.stored.clone()))
                .collect::<Result<_>>()?,
        };
        Ok(ListDeviceTypesResponse { device_types })
    }

    /// Registers or updates devices.
    pub async fn register(&self, request: RegisterDevicesRequest) -> Result<RegisterDevicesResponse> {
        let deadline = monotonic() + self.limits.request_timeout();
        let RegisterDevicesRequest {
            devices,
            keep_maintenance,
        } = request;
        if devices.len() > self.limits.register_devices_max {
            let (is, most) = (devices.len(), self.limits.register_devices_max);
            return Err(Error::new(
                Reason::BatchTooLarge,
                format!("{is} devices in one request, the limit is {most}"),
            )
            .field("devices")
            .hint("send smaller requests"));
        }
        let mut shards: BTreeMap<u32, (PutDevices, Vec<usize>)> = BTreeMap::new();
        for (at, mut device) in devices.into_iter().enumerate() {
            check_device(&device, at, &self.limits)?;
            device.maintenance.sort_by_key(|declared| declared.from_ns);
            let def = self.device_type(&device.device_type).await;
            let def = def.map_err(|e| e.field(format!("devices[{at}].device_type")))?;
            let shard = self.router.host().catalog()?.shard_of(&device.id);
            let (put, positions) = shards.entry(shard).or_default();
            put.keep_maintenance = keep_maintenance;
            put.devices.push(PutDevice {
                device: Some(device),
                type_number: def.number(),
            });
            positions.push(at);
        }
        for (shard, (put, _)) in &shards {
            self.check_quota(*shard, put, deadline).await?;
        }
        let stamp_ns = now_ns();
        let proposals = shards.into_iter().map(|(shard, (put, positions))| async move {
            let command = ShardCommand {
                stamp_ns,
                command: Some(shard_command::Command::PutDevices(put)),
            };
            let command = command.encode_to_vec().into();
            let result = self.router.propose(shard, command, Retry::Safe, deadline).await;
            result.map_err(|e| original_position(e, &positions))
        });
        let mut total = RegisterDevicesResponse::default();
        for result in futures_util::future::join_all(proposals).await {
            match result? {
                applied::Result::Devices(devices) => {
                    total.created += devices.created;
                    total.changed += devices.changed;
                    total.unchanged += devices.unchanged;
                }
                other => return Err(Error::internal(format!("answer {other:?} to devices"))),
            }
        }
        Ok(total)
    }

    /// Type and ordinal of devices by id: from memory, else from a replica here, else from the leader of the shard.
    pub(super) async fn resolve(&self, ids: &[String], deadline: Instant) -> Result<Vec<Option<Known>>> {
        let mut found: Vec<Option<Known>> = ids.iter().map(|id| self.devices.get(id)).collect();
        let catalog = self.router.host().catalog()?;
        let mut missing: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, id) in ids.iter().enumerate().filter(|(at, _)| found[*at].is_none()) {
            if types::is_id(id, self.limits.id_bytes_max) {
                missing.entry(catalog.shard_of(id)).or_default().push(at);
            }
        }
        for (shard, mut at) in missing {
            self.resolve_here(shard, ids, &at, &mut found).await?;
            at.retain(|&at| found[at].is_none());
            if !at.is_empty() {
                self.resolve_at_leader(shard, ids, &at, &mut found, deadline).await?;
            }
        }
        Ok(found)
    }

    async fn resolve_here(&self, shard: u32, ids: &[String], at: &[usize], found: &mut [Option<Known>]) -> Result<()> {
        let Some(replica) = self.router.host().replica(shard) else {
            return Ok(());
        };
        let asked: Vec<String> = at.iter().map(|&at| ids[at].clone()).collect();
        let known = blocking(move || {
            let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
            replica
                .state()
                .with_shard(|shard| shard.resolve(&asked).map_err(store_error))
        })
        .await?;
        for (&at, known) in at.iter().zip(known) {
            found[at] = known.map(|(type_number, ordinal)| self.remember(&ids[at], Known { type_number, ordinal }));
        }
        Ok(())
    }

    async fn resolve_at_leader(
        &self,
        shard: u32,
        ids: &[String],
        at: &[usize],
        found: &mut [Option<Known>],
        deadline: Instant,
    ) -> Result<()> {
        let resolve = ShardResolve {
            ids: at.iter().map(|&at| ids[at].clone()).collect(),
            seal_of_type: 0,
        };
        let resolved = self.ask(shard, resolve, deadline).await?;
        let pairs = resolved.type_numbers.into_iter().zip(resolved.ordinals);
        for (&at, (type_number, ordinal)) in at.iter().zip(pairs).filter(|(_, (number, _))| *number != 0) {
            found[at] = Some(self.remember(&ids[at], Known { type_number, ordinal }));
        }
        Ok(())
    }

    /// Asks a shard what a write has to know of it.
    pub(super) async fn ask(&self, shard: u32, resolve: ShardResolve, deadline: Instant) -> Result<Resolved> {
        let (query, asker) = (Query::Resolve(resolve), self.router.own_asker(deadline));
        let mut answer = self
            .router
            .read(shard, query, &Consistency::default(), &self.job, &asker)
            .await?;
        let mut found = Resolved::default();
        while let Some(together) = answer.recv().await {
            for part in together? {
                if let Part::Resolved(resolved) = part {
                    found = resolved;
                }
            }
        }
        Ok(found)
    }

    fn remember(&self, id: &str, known: Known) -> Known {
        self.devices.insert(id.to_string(), known);
        known
    }
}

/// A shard names devices by position in its part of the request; callers know the whole request.
fn original_position(error: Error, positions: &[usize]) -> Error {
    let path = error.field_path().to_string();
    let inner = path.strip_prefix("devices[").and_then(|rest| rest.split_once(']'));
    let Some((number, rest)) = inner else { return error };
    match number.parse::<usize>().ok().and_then(|at| positions.get(at)) {
        Some(at) => error.field(format!("devices[{at}]{rest}")),
        None => error,
    }
}
