//! The command that brings records of a backup back, as they were kept.
//!
//! Never here: files, and the order in which records come (see `contents`). Invariant: a shard takes pieces of one
//! backup, each once and in order, and only if it had no device before; until the last piece nobody registers one. After
//! it everything in memory is as if the shard had been opened from disk.

use prost::Message as _;
use tidemark_proto::peer::{AlertState, RestoreRecords, Restored, RestoredRecord, StoredDevice, applied};
use tidemark_proto::v1::Failure;

use super::apply::{Chunk, Outcome, code, failure};
use super::keys::{self, Producer, Slot};
use crate::store::{Family, ReplicaStore, StoreError};

/// The backup that a shard takes or took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Restore {
    backup_id: String,
    next_piece: u64,
    done: bool,
}

impl Restore {
    pub(super) fn load(store: &ReplicaStore) -> Result<Option<Self>, StoreError> {
        let bytes = store.db().get(Family::Meta, keys::RESTORE)?;
        bytes.map(|bytes| Self::decode(&bytes)).transpose()
    }

    fn encode(&self) -> Vec<u8> {
        let number = self.next_piece.to_be_bytes();
        [&number[..], &[u8::from(self.done)], self.backup_id.as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let wrong = || StoreError::Corruption("state of a restore does not parse".into());
        let (number, rest) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
        let (done, backup_id) = rest.split_first().ok_or_else(wrong)?;
        Ok(Self {
            backup_id: String::from_utf8(backup_id.to_vec()).map_err(|_| wrong())?,
            next_piece: u64::from_be_bytes(*number),
            done: *done != 0,
        })
    }

    fn answer(&self) -> applied::Result {
        applied::Result::Restored(Restored {
            next_piece: self.next_piece,
            done: self.done,
        })
    }
}

impl Chunk<'_> {
    /// Takes a piece of a backup.
    pub(super) fn restore(&mut self, restore: &RestoreRecords) -> Result<Outcome, StoreError> {
        let known = match self.restore_so_far(&restore.backup_id) {
            Ok(known) => known,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut now = known.clone().unwrap_or_else(|| Restore {
            backup_id: restore.backup_id.clone(),
            next_piece: 0,
            done: false,
        });
        if restore.check_only || now.done || restore.piece < now.next_piece {
            return Ok(Ok(now.answer()));
        }
        if restore.piece > now.next_piece {
            let message = format!("piece {} came, {} is next", restore.piece, now.next_piece);
            return Ok(Err(failure(code::INTERNAL, "INTERNAL", message)));
        }
        let mut records = Vec::with_capacity(restore.records.len());
        for (at, record) in restore.records.iter().enumerate() {
            match Checked::new(record) {
                Ok(checked) => records.push((checked, record)),
                Err(error) => {
                    let message = format!("record {at} of piece {}: {error}", restore.piece);
                    return Ok(Err(failure(code::FAILED_PRECONDITION, "INVALID_BACKUP", message)));
                }
            }
        }
        for (checked, record) in records {
            self.take(checked, record);
        }
        self.changes.all = true;
        now.next_piece += 1;
        now.done = restore.last;
        self.batch.put(Family::Meta, keys::RESTORE, &now.encode());
        let answer = now.answer();
        self.state.restore = Some(now);
        Ok(Ok(answer))
    }

    fn restore_so_far(&self, backup_id: &str) -> Result<Option<Restore>, Failure> {
        let refuse = |message: String, hint: &str| {
            Err(Failure {
                hint: hint.to_owned(),
                ..failure(code::FAILED_PRECONDITION, "CLUSTER_NOT_EMPTY", message)
            })
        };
        match &self.state.restore {
            Some(known) if known.backup_id != backup_id => {
                let (other, is) = (&known.backup_id, if known.done { "holds" } else { "takes" });
                refuse(
                    format!("the shard {is} backup {other}, not {backup_id}"),
                    "restore that one, or restore into new nodes with empty data folders",
                )
            }
            None if self.state.next_ordinal > 0 => refuse(
                format!("the shard has {} devices", self.state.next_ordinal),
                "restore into new nodes with empty data folders",
            ),
            known => Ok(known.clone()),
        }
    }

    /// The refusal of everything else while a backup is on its way in.
    pub(super) fn restoring(&self) -> Option<Failure> {
        let restore = self.state.restore.as_ref().filter(|restore| !restore.done)?;
        let message = format!("backup {} is being restored into the shard", restore.backup_id);
        Some(Failure {
            hint: "wait for `tidemark backup restore` to end; cut off, it goes on when run again".to_owned(),
            ..failure(code::FAILED_PRECONDITION, "RESTORE_RUNNING", message)
        })
    }

    fn take(&mut self, checked: Checked, record: &RestoredRecord) {
        self.batch.put(checked.family(), &record.key, &record.value);
        match checked {
            Checked::Block { type_number, bucket_ns } => self.widen(type_number, bucket_ns),
            Checked::Device(stored) => {
                let id = stored
                    .device
                    .as_ref()
                    .map_or("", |device| device.id.as_str())
                    .to_owned();
                self.devices.insert(id, *stored);
            }
            Checked::NextOrdinal(next) => self.state.next_ordinal = next,
            Checked::AlertCommands(count) => self.state.alert_commands = count,
            Checked::Producer(name, producer) => self.state.producers.restore(name, producer),
            Checked::Slot(slot) => {
                self.slots.insert(record.key.to_vec(), Some(slot));
            }
            Checked::Rollup(level, bucket_ns) => {
                self.widen(level.0, bucket_ns);
                self.state.rollups.note(level, bucket_ns);
            }
            Checked::Seal(type_number, before_ns) => self.state.rollups.seal(type_number, before_ns),
            Checked::Latest | Checked::DeviceKey | Checked::Alert => {}
        }
    }
}

/// What a record is, found out before anything of its piece is taken.
enum Checked {
    Block { type_number: u32, bucket_ns: i64 },
    Latest,
    Device(Box<StoredDevice>),
    DeviceKey,
    NextOrdinal(u32),
    AlertCommands(u64),
    Alert,
    Producer(String, Producer),
    Slot(Slot),
    Rollup(keys::Level, i64),
    Seal(u32, i64),
}

impl Checked {
    fn new(record: &RestoredRecord) -> Result<Self, StoreError> {
        let family = Family::ALL.get(record.family as usize);
        let key = record.key.as_ref();
        Ok(match family {
            Some(Family::Blocks) => {
                let (type_number, bucket_ns, _) = keys::decode_block(key)?;
                Self::Block { type_number, bucket_ns }
            }
            Some(Family::Latest) => {
                keys::decode_latest(key)?;
                Self::Latest
            }
            Some(Family::Devices) if key.starts_with(keys::ORDINALS) => {
                let stored = StoredDevice::decode(record.value.clone())
                    .map_err(|error| StoreError::Corruption(format!("device: {error}")))?;
                Self::Device(Box::new(stored))
            }
            Some(Family::Devices) => Self::DeviceKey,
            Some(Family::Meta) if key == keys::NEXT_ORDINAL => Self::NextOrdinal(keys::decode_u32(&record.value)?),
            Some(Family::Meta) if key == keys::ALERT_COMMANDS => Self::AlertCommands(keys::decode_u64(&record.value)?),
            Some(Family::Meta) if key.starts_with(keys::ALERTS) => {
                keys::decode_alert(key)?;
                AlertState::decode(record.value.clone())
                    .map_err(|error| StoreError::Corruption(format!("state of an alert: {error}")))?;
                Self::Alert
            }
            Some(Family::Meta) if key.starts_with(keys::SLOTS) => Self::Slot(Slot::decode(&record.value)?),
            Some(Family::Meta) if key.starts_with(keys::ROLLUPS) => {
                let (level, bucket_ns, _) = keys::decode_rollup(key)?;
                Self::Rollup(level, bucket_ns)
            }
            Some(Family::Meta) if key.starts_with(keys::SEALS) => {
                let (type_number, before_ns) = keys::decode_seal(key, &record.value)?;
                Self::Seal(type_number, before_ns)
            }
            Some(Family::Meta) if key.starts_with(keys::PRODUCERS) => {
                let name = String::from_utf8(key.get(keys::PRODUCERS.len()..).unwrap_or_default().to_vec())
                    .map_err(|_| StoreError::Corruption("name of a producer is not text".into()))?;
                Self::Producer(name, Producer::decode(&record.value)?)
            }
            _ => {
                let message = format!("no record of a shard: family {}, key {key:?}", record.family);
                return Err(StoreError::Corruption(message));
            }
        })
    }

    fn family(&self) -> Family {
        match self {
            Self::Block { .. } => Family::Blocks,
            Self::Latest => Family::Latest,
            Self::Device(_) | Self::DeviceKey => Family::Devices,
            Self::NextOrdinal(_) | Self::AlertCommands(_) | Self::Alert | Self::Producer(..) | Self::Slot(_) => {
                Family::Meta
            }
            Self::Rollup(..) | Self::Seal(..) => Family::Meta,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_state_of_a_restore_comes_back() {
        let restore = Restore {
            backup_id: "20260101T000000Z-1".into(),
            next_piece: 258,
            done: true,
        };
        let bytes = restore.encode();
        assert_eq!(bytes[..9], [0, 0, 0, 0, 0, 0, 1, 2, 1]);
        assert_eq!(Restore::decode(&bytes).unwrap(), restore);
        assert!(Restore::decode(&bytes[..8]).unwrap_err().is_corruption());
    }
}
