//! Batches: from request to acknowledgement.
//!
//! Invariant: nothing is proposed before the whole batch was found good; an acknowledgement is sent after every shard
//! of the batch has committed and applied its part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quick_cache::sync::Cache;
use tidemark_proto::v1::{Batch, WriteRequest, WriteResponse};
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::xxh3_64;

use super::encode::{Origin, Target, commands};
use super::outcome::Spread;
use super::seals::{Seal, SealOf};
use crate::catalog::types::{TypeDef, is_id};
use crate::clock::{Instant, monotonic, now_ns};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::raft::machine::blocking;
use crate::route::{Retry, Router, ShardJob};
use crate::wire::batch::{BadRows, TimeGate, check_shape, to_records};

/// Devices whose type and ordinal are remembered; neither ever changes.
const DEVICES_CACHED: usize = 262_144;
/// Seals of types that are remembered, a shard each.
const SEALS_CACHED: usize = 16_384;
const CATALOG_WAIT: Duration = Duration::from_millis(600);
/// A smaller batch is encoded by the thread that took it: that takes less than to wake another one.
const INLINE_BYTES_MAX: usize = 8 << 10;

/// Type number and ordinal of a registered device.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) type_number: u32,
    pub(super) ordinal: u32,
}

/// The write path of a node.
pub struct Writes {
    pub(super) router: Arc<Router>,
    pub(super) limits: Arc<Limits>,
    pub(super) devices: Cache<String, Known>,
    pub(super) seals: Cache<SealOf, Seal>,
    /// Answers `Resolve`, for devices whose shard is led elsewhere or not cached.
    pub(super) job: ShardJob,
    in_flight_kib: Semaphore,
}

impl Writes {
    /// A write path over a router. `job` answers shard questions from a local replica.
    pub fn new(router: Arc<Router>, limits: Arc<Limits>, job: ShardJob) -> Writes {
        let in_flight_kib = Semaphore::new(limits.write_bytes_in_flight_max >> 10);
        Writes {
            router,
            limits,
            devices: Cache::new(DEVICES_CACHED),
            seals: Cache::new(SEALS_CACHED),
            job,
            in_flight_kib,
        }
    }

    /// Bytes of batches that are worked on now.
    pub fn bytes_in_flight(&self) -> usize {
        let room = self.limits.write_bytes_in_flight_max >> 10;
        room.saturating_sub(self.in_flight_kib.available_permits()) << 10
    }

    /// Stores a batch, or nothing of it. `PARTLY_STORED` where a shard refused its part after another had stored its own.
    pub async fn write(&self, request: WriteRequest) -> Result<WriteResponse> {
        let (began, bytes) = (monotonic(), request.encoded_len());
        let metrics = self.router.host().metrics();
        let written = self.store(request, bytes).await;
        metrics.write_latency.note(began.elapsed());
        match &written {
            Ok(stored) => {
                metrics.writes.add(1);
                metrics.rows.add(stored.rows);
                metrics.points.add(stored.points);
                metrics.bytes.add(bytes as u64);
            }
            Err(error) => metrics.write_failed(error.reason()),
        }
        written
    }

    async fn store(&self, request: WriteRequest, bytes: usize) -> Result<WriteResponse> {
        let deadline = monotonic() + self.limits.request_timeout();
        let kib = (bytes >> 10).max(1) as u32;
        let _room = self.in_flight_kib.try_acquire_many(kib).map_err(|_| {
            Error::new(
                Reason::Overloaded,
                "this node has as many bytes of writes in flight as it may",
            )
        })?;
        check_producer(&request)?;
        let stamp_ns = now_ns();
        let batch = request
            .batch
            .ok_or_else(|| Error::new(Reason::MissingField, "no batch").field("batch"))?;
        let shape = check_shape(&batch, &self.limits)?;
        let def = self.device_type(&batch.device_type).await?;
        if shape.rows == 0 {
            return Ok(WriteResponse::default());
        }
        let targets = self.targets(&batch, &def, deadline).await?;
        self.check_seals(&batch, &def, &targets, (stamp_ns, deadline)).await?;
        let digest = if request.producer.is_empty() {
            0
        } else {
            xxh3_64(&batch.encode_to_vec())
        };
        let origin = Origin {
            producer: request.producer,
            sequence: request.sequence,
            digest,
            stamp_ns,
        };
        let retry = if origin.producer.is_empty() {
            Retry::Unsafe
        } else {
            Retry::Safe
        };
        let limits = self.limits.clone();
        let encode = move || {
            let records = to_records(&batch, &def, TimeGate::new(&def, stamp_ns, &limits), &limits)?;
            let commands = commands(records, &targets, def.number(), def.bucket_span_ns, &origin);
            let spread = Spread {
                device_index: batch.device_index,
                targets,
                shape,
                rows_named_max: limits.rows_named_max,
            };
            Ok((commands, spread))
        };
        let (commands, spread) = match bytes <= INLINE_BYTES_MAX {
            true => encode()?,
            false => blocking(encode).await?,
        };
        self.propose_all(commands, retry, &spread, deadline).await
    }

    async fn propose_all(
        &self,
        commands: BTreeMap<u32, Bytes>,
        retry: Retry,
        spread: &Spread,
        deadline: Instant,
    ) -> Result<WriteResponse> {
        let here = commands
            .keys()
            .filter(|shard| self.router.leading_here(**shard).is_some());
        self.router.host().expect_proposals(here.count());
        let proposals = commands
            .into_iter()
            .map(|(shard, command)| async move { (shard, self.router.propose(shard, command, retry, deadline).await) });
        spread.outcome(futures_util::future::join_all(proposals).await)
    }

    /// The type with this id. One that is not known here may have been applied elsewhere a moment ago.
    pub(super) async fn device_type(&self, id: &str) -> Result<Arc<TypeDef>> {
        if let Ok(def) = self.router.host().catalog()?.device_type(id) {
            return Ok(def.clone());
        }
        self.router.catch_up_catalog(CATALOG_WAIT).await;
        let catalog = self.router.host().catalog()?;
        catalog
            .device_type(id)
            .cloned()
            .map_err(|e| e.field("batch.device_type"))
    }

    /// Shard and ordinal of every device of the batch; refuses the batch where one is not registered or of another type.
    async fn targets(&self, batch: &Batch, def: &TypeDef, deadline: Instant) -> Result<Vec<Target>> {
        let catalog = self.router.host().catalog()?;
        let known = self.resolve(&batch.devices, deadline).await?;
        let mut bad_devices = BTreeMap::new();
        let mut targets = Vec::with_capacity(known.len());
        for (at, (id, known)) in batch.devices.iter().zip(&known).enumerate() {
            match known {
                Some(known) if known.type_number == def.number() => {
                    targets.push(Target {
                        shard: catalog.shard_of(id),
                        ordinal: known.ordinal,
                    });
                }
                other => {
                    bad_devices.insert(at, *other);
                    targets.push(Target { shard: 0, ordinal: 0 });
                }
            }
        }
        let mut bad = BadRows::new(self.limits.rows_named_max);
        for row in 0..batch.observed_at_ns.len() {
            let device = batch.device_index.get(row).map_or(0, |&index| index as usize);
            let id = &batch.devices[device];
            match bad_devices.get(&device) {
                None => {}
                Some(_) if !is_id(id, self.limits.id_bytes_max) => {
                    let message = || "the device id is not of the form [A-Za-z0-9._:-]{1,64}".to_string();
                    bad.push(row, Reason::InvalidId, "device", message);
                }
                Some(None) => bad.push(row, Reason::UnknownDevice, "device", || format!("no device {id:?}")),
                Some(Some(_)) => {
                    let message = || format!("device {id:?} is not of type {}", def.id());
                    bad.push(row, Reason::WrongDeviceType, "device", message);
                }
            }
        }
        bad.into_result()?;
        Ok(targets)
    }
}

fn check_producer(request: &WriteRequest) -> Result<()> {
    match (request.producer.as_str(), request.sequence) {
        ("", 0) => Ok(()),
        ("", _) => Err(Error::new(Reason::MissingField, "a sequence without a producer").field("producer")),
        (_, 0) => {
            Err(Error::new(Reason::MissingField, "a producer without a sequence, which starts at 1").field("sequence"))
        }
        (producer, _) if !is_id(producer, 64) => Err(Error::new(
            Reason::InvalidId,
            "the producer is not of the form [A-Za-z0-9._:-]{1,64}",
        )
        .field("producer")),
        _ => Ok(()),
    }
}
