//! The command that registers devices: gives ordinals, keeps tags, place, dates and declared maintenance.
//!
//! Never here: checks of names and tags (done before the command is proposed). Invariant: an ordinal is given once and
//! belongs to its device for ever, as does the type; a command is applied to all its devices or to none.

use std::collections::BTreeMap;

use prost::Message as _;
use tidemark_proto::peer::{PutDevice, PutDevices, StoredDevice, applied};
use tidemark_proto::v1::{Device, Failure, RegisterDevicesResponse};

use super::apply::{Chunk, Outcome, code, failure};
use super::{keys, registry};
use crate::store::{Family, StoreError, View};

/// Devices of one command, on their way: nothing of it counts before the last of them passed.
#[derive(Default)]
struct Staged {
    /// Known devices keep theirs.
    keep_maintenance: bool,
    devices: BTreeMap<String, StoredDevice>,
    created: u32,
    changed: u32,
    unchanged: u32,
}

impl Chunk<'_> {
    /// Registers new devices, updates known ones.
    pub(super) fn put_devices(&mut self, stamp_ns: i64, put: PutDevices) -> Result<Outcome, StoreError> {
        let view = self.db.view();
        let mut staged = Staged {
            keep_maintenance: put.keep_maintenance,
            ..Staged::default()
        };
        for (index, put) in put.devices.into_iter().enumerate() {
            if let Err(failure) = self.stage(&view, &mut staged, stamp_ns, index, put)? {
                return Ok(Err(failure));
            }
        }
        for (id, stored) in staged.devices {
            self.put(&id, &stored);
            self.devices.insert(id, stored);
        }
        self.state.next_ordinal += staged.created;
        let Staged {
            created,
            changed,
            unchanged,
            ..
        } = staged;
        Ok(Ok(applied::Result::Devices(RegisterDevicesResponse {
            created,
            changed,
            unchanged,
        })))
    }

    fn stage(
        &self,
        view: &View<'_>,
        staged: &mut Staged,
        stamp_ns: i64,
        index: usize,
        put: PutDevice,
    ) -> Result<Result<(), Failure>, StoreError> {
        let type_number = put.type_number;
        let Some(mut device) = put.device.filter(|device| !device.id.is_empty()) else {
            let message = format!("devices[{index}] has no id");
            let bad = failure(code::INVALID_ARGUMENT, "BAD_DEVICE", message);
            return Ok(Err(Failure {
                field: format!("devices[{index}].id"),
                ..bad
            }));
        };
        let id = device.id.clone();
        let known = match staged.devices.get(&id).or_else(|| self.devices.get(&id)) {
            Some(stored) => Some(stored.clone()),
            None => registry::by_id(view, &id)?,
        };
        let stored = match known {
            None => {
                let Some(ordinal) = self
                    .state
                    .next_ordinal
                    .checked_add(staged.created)
                    .filter(|next| *next < u32::MAX)
                else {
                    let message = "the shard has given out its last ordinal".to_owned();
                    return Ok(Err(failure(code::RESOURCE_EXHAUSTED, "SHARD_FULL", message)));
                };
                staged.created += 1;
                device.registered_at_ns = stamp_ns;
                StoredDevice {
                    device: Some(device),
                    type_number,
                    ordinal,
                }
            }
            Some(stored) if stored.type_number != type_number => return Ok(Err(type_fixed(index, &device, &stored))),
            Some(stored) => {
                device.registered_at_ns = stored.device.as_ref().map_or(stamp_ns, |known| known.registered_at_ns);
                if staged.keep_maintenance {
                    device.maintenance = stored
                        .device
                        .as_ref()
                        .map_or_else(Vec::new, |known| known.maintenance.clone());
                }
                let device = Some(device);
                if stored.device == device {
                    staged.unchanged += 1;
                    return Ok(Ok(()));
                }
                staged.changed += 1;
                StoredDevice {
                    device,
                    type_number,
                    ordinal: stored.ordinal,
                }
            }
        };
        staged.devices.insert(id, stored);
        Ok(Ok(()))
    }

    fn put(&mut self, id: &str, stored: &StoredDevice) {
        let StoredDevice {
            type_number, ordinal, ..
        } = *stored;
        self.batch.put(
            Family::Devices,
            &keys::device_id(id),
            &keys::latest(type_number, ordinal),
        );
        self.batch
            .put(Family::Devices, &keys::device_ordinal(ordinal), &stored.encode_to_vec());
        self.batch
            .put(Family::Devices, &keys::device_of_type(type_number, ordinal), &[]);
    }
}

fn type_fixed(index: usize, device: &Device, stored: &StoredDevice) -> Failure {
    let known = stored
        .device
        .as_ref()
        .map_or("another type", |known| known.device_type.as_str());
    let message = format!(
        "device {} is of type {known} and cannot become {}",
        device.id, device.device_type
    );
    Failure {
        field: format!("devices[{index}].device_type"),
        hint: "register it under another id".to_owned(),
        ..failure(code::FAILED_PRECONDITION, "DEVICE_TYPE_FIXED", message)
    }
}
