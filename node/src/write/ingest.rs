//! Batches: from request to acknowledgement.
//!
//! Invariant: nothing is proposed before the whole batch was found good, and what is proposed goes on to its end, whether its
//! client still waits or not; an acknowledgement is sent after every shard of the batch has committed and applied its part.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quick_cache::sync::Cache;
use tidemark_proto::v1::{Batch, WriteRequest, WriteResponse};
use xxhash_rust::xxh3::xxh3_64;

use super::encode::{Origin, Target, commands};
use super::outcome::Spread;
use super::room::{Budget, Room};
use super::seals::{Seal, SealOf};
use crate::catalog::Catalog;
use crate::catalog::types::{TypeDef, is_id};
use crate::clock::{Instant, monotonic, now_ns};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::raft::machine::blocking;
use crate::route::{Retry, Router, ShardJob, outcome_unknown};
use crate::wire::batch::{BadRows, TimeGate, check_shape, to_records};

/// Devices whose type and ordinal are remembered; neither ever changes.
const DEVICES_CACHED: usize = 262_144;
/// Seals of types that are remembered, a shard each.
const SEALS_CACHED: usize = 16_384;
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
    in_flight: Budget,
}

/// A batch that was found good, a command for each of its shards.
struct Checked {
    commands: BTreeMap<u32, Bytes>,
    retry: Retry,
    spread: Spread,
    deadline: Instant,
}

impl Writes {
    /// A write path over a router. `job` answers shard questions from a local replica.
    pub fn new(router: Arc<Router>, limits: Arc<Limits>, job: ShardJob) -> Writes {
        let in_flight = Budget::new(limits.write_bytes_in_flight_max);
        Writes {
            router,
            limits,
            devices: Cache::new(DEVICES_CACHED),
            seals: Cache::new(SEALS_CACHED),
            job,
            in_flight,
        }
    }

    /// Bytes of batches that are worked on now.
    pub fn bytes_in_flight(&self) -> usize {
        self.in_flight.taken()
    }

    /// Room for a batch: none yet. It is taken as the batch comes.
    pub fn room(&self) -> Room {
        self.in_flight.room()
    }

    /// Stores a batch, or nothing of it. `PARTLY_STORED` where a shard refused its part after another had stored its own.
    pub async fn write(&self, request: WriteRequest, mut room: Room) -> Result<WriteResponse> {
        let (began, bytes) = (monotonic(), request.encoded_len());
        let checked = match room.hold(bytes) {
            Ok(()) => self.check(request, bytes).await,
            Err(error) => Err(error),
        };
        let (router, metrics) = (self.router.clone(), self.router.host().metrics().clone());
        match checked {
            Ok(Some(checked)) => {
                // A task of its own: a client that leaves now must not leave a batch of which one shard has its part and
                // another has not.
                let writing = tokio::spawn(async move {
                    let written = checked.propose(&router).await;
                    count(&metrics, &written, (began, bytes));
                    drop(room);
                    written
                });
                let ended = writing.await;
                ended.unwrap_or_else(|_| Err(outcome_unknown("the write ended early".into())))
            }
            unwritten => {
                let answer = unwritten.map(|_| WriteResponse::default());
                count(&metrics, &answer, (began, bytes));
                answer
            }
        }
    }

    /// Checks and encodes a batch; `None` where it has no rows.
    async fn check(&self, request: WriteRequest, bytes: usize) -> Result<Option<Checked>> {
        let deadline = monotonic() + self.limits.request_timeout();
        check_producer(&request)?;
        let stamp_ns = now_ns();
        let batch = request
            .batch
            .ok_or_else(|| Error::new(Reason::MissingField, "no batch").field("batch"))?;
        let shape = check_shape(&batch, &self.limits)?;
        let def = self.device_type(&batch.device_type).await?;
        if shape.rows == 0 {
            return Ok(None);
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
        Ok(Some(Checked {
            commands,
            retry,
            spread,
            deadline,
        }))
    }

    /// The type with this id. One that is not known here may have been applied elsewhere a moment ago.
    pub(super) async fn device_type(&self, id: &str) -> Result<Arc<TypeDef>> {
        let find = |catalog: &Catalog| {
            let found = catalog.device_type(id).cloned();
            found.map_err(|e| e.field("batch.device_type"))
        };
        self.router.in_catalog(find).await.map(|(_, def)| def)
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

impl Checked {
    /// Has every shard store its part.
    async fn propose(self, router: &Router) -> Result<WriteResponse> {
        let (retry, deadline) = (self.retry, self.deadline);
        let here = self
            .commands
            .keys()
            .filter(|shard| router.leading_here(**shard).is_some());
        router.host().expect_proposals(here.count());
        let proposals = self
            .commands
            .into_iter()
            .map(|(shard, command)| async move { (shard, router.propose(shard, command, retry, deadline).await) });
        self.spread.outcome(futures_util::future::join_all(proposals).await)
    }
}

/// Counts a batch that began then and has so many bytes.
fn count(metrics: &Metrics, written: &Result<WriteResponse>, (began, bytes): (Instant, usize)) {
    metrics.write_latency.note(began.elapsed());
    match written {
        Ok(stored) => {
            metrics.writes.add(1);
            metrics.rows.add(stored.rows);
            metrics.points.add(stored.points);
            metrics.bytes.add(bytes as u64);
        }
        Err(error) => metrics.write_failed(error.reason()),
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
