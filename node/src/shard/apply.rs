//! Applies a chunk of log entries: all their changes and the new applied state in one batch.
//!
//! Never here: a clock, randomness, hash-map order. Invariant: the outcome of an entry depends on the entries before it
//! and on nothing else; so later entries of a chunk must see earlier ones, which are in no database yet: see [`Chunk`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message as _;
use tidemark_proto::peer::{Applied, Done, ShardCommand, StoredDevice, applied, shard_command};
use tidemark_proto::v1::Failure;

use super::emptied::KeyRange;
use super::extents::{Extents, Widening, include};
use super::versions::Changes;
use super::{Shard, State, keys, select};
use crate::store::{AppliedState, Batch, Db, Family, StoreError};

/// One entry of the log.
#[derive(Clone, Debug, Default)]
pub struct ApplyEntry {
    /// Encoded `ShardCommand`; `None` for blank entries and memberships.
    pub command: Option<Bytes>,
}

impl Shard {
    /// Applies entries in log order, with `applied_state` as the state after the last of them; answers one by one. All of
    /// it becomes visible at once. A command that is refused is an answer and changes nothing.
    ///
    /// # Errors
    /// Any error stops the shard for good (it must be reopened): a command of unknown kind, or storage.
    pub fn apply(&self, entries: &[ApplyEntry], applied_state: AppliedState) -> Result<Vec<Applied>, StoreError> {
        self.apply_at(None, entries, applied_state)
    }

    /// The same, given the log index of the first entry: entries that store nothing are remembered by theirs.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_at(
        &self,
        first: Option<u64>,
        entries: &[ApplyEntry],
        applied_state: AppliedState,
    ) -> Result<Vec<Applied>, StoreError> {
        let mut state = self.state.lock().map_err(|_| StoreError::Stopped)?;
        if state.stopped {
            return Err(StoreError::Stopped);
        }
        let result = self.apply_chunk(&mut state, first, entries, applied_state);
        state.stopped = result.is_err();
        result
    }

    fn apply_chunk(
        &self,
        state: &mut State,
        first: Option<u64>,
        entries: &[ApplyEntry],
        applied_state: AppliedState,
    ) -> Result<Vec<Applied>, StoreError> {
        let watching = self.notes.is_watching();
        let mut chunk = Chunk::new(self.store.db(), &self.extents, state, watching)?;
        let mut answers = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let answer = chunk.entry(entry)?;
            if let Some(first) = first {
                chunk.note_void(first + at as u64, &answer);
            }
            answers.push(answer);
        }
        let Written {
            batch,
            widening,
            changes,
            ordinals_end,
            emptied,
            noted,
            changed,
        } = chunk.finish();
        self.extents.widen(&widening);
        self.ordinals_end.fetch_max(ordinals_end, Ordering::SeqCst);
        let version = self.versions.note(&changes);
        self.store.commit(batch, applied_state)?;
        self.versions.publish(version);
        self.notes.note(noted);
        self.devices.store(state.next_ordinal, Ordering::Release);
        self.emptied.note(emptied);
        self.stale.note(&changed);
        Ok(answers)
    }
}

/// A chunk being built: the batch, and over the database what earlier entries of the chunk changed.
pub(super) struct Chunk<'a> {
    pub(super) db: &'a Db,
    pub(super) extents: &'a Extents,
    pub(super) batch: Batch<'a>,
    pub(super) state: &'a mut State,
    first_ordinal: u32,
    /// Devices put by this chunk, by id.
    pub(super) devices: BTreeMap<String, StoredDevice>,
    /// Remembered writes of this chunk by key; `None` where it forgot one.
    pub(super) slots: BTreeMap<Vec<u8>, Option<keys::Slot>>,
    widening: Widening,
    /// What of it may be kept in memory.
    pub(super) changes: Changes,
    /// An entry came before.
    begun: bool,
    /// Ranges of block keys that it removes.
    pub(super) emptied: Vec<KeyRange>,
    /// Devices (type, ordinal, earliest time) that got points, where anybody wants to know.
    pub(super) noted: Option<Vec<(u32, u32, i64)>>,
    /// Types and starts of buckets whose points it changes.
    pub(super) changed: BTreeSet<(u32, i64)>,
}

/// What a chunk came to.
struct Written<'a> {
    batch: Batch<'a>,
    widening: Widening,
    changes: Changes,
    /// One more than the greatest ordinal in it.
    ordinals_end: u32,
    emptied: Vec<KeyRange>,
    noted: Vec<(u32, u32, i64)>,
    changed: BTreeSet<(u32, i64)>,
}

impl<'a> Chunk<'a> {
    fn new(db: &'a Db, extents: &'a Extents, state: &'a mut State, noting: bool) -> Result<Self, StoreError> {
        let first_ordinal = state.next_ordinal;
        let batch = db.batch()?;
        Ok(Self {
            db,
            extents,
            batch,
            state,
            first_ordinal,
            devices: BTreeMap::new(),
            slots: BTreeMap::new(),
            widening: Widening::new(),
            changes: Changes::default(),
            begun: false,
            emptied: Vec::new(),
            noted: noting.then(Vec::new),
            changed: BTreeSet::new(),
        })
    }

    fn entry(&mut self, entry: &ApplyEntry) -> Result<Applied, StoreError> {
        let first = !std::mem::replace(&mut self.begun, true);
        let Some(bytes) = &entry.command else {
            return Ok(Applied { result: None });
        };
        let command = ShardCommand::decode(bytes.clone())
            .map_err(|error| StoreError::UnknownCommand(format!("it does not decode: {error}")))?;
        let outcome = match command.command {
            Some(shard_command::Command::Write(write)) => self.write(command.stamp_ns, &write)?,
            Some(shard_command::Command::WriteWithTests(both)) => self.write_with_tests(command.stamp_ns, &both)?,
            Some(shard_command::Command::PutDevices(put)) => match self.restoring() {
                Some(refused) => Err(refused),
                None => self.put_devices(command.stamp_ns, put)?,
            },
            Some(shard_command::Command::TakeDigest(_)) => Ok(applied::Result::Done(Done {})),
            Some(shard_command::Command::Restore(restore)) => self.restore(&restore)?,
            Some(shard_command::Command::Upkeep(upkeep)) => self.upkeep(&upkeep, first)?,
            Some(shard_command::Command::Alerts(changes)) => self.alerts(&changes),
            None => {
                return Err(StoreError::UnknownCommand(format!(
                    "no known kind in {} bytes",
                    bytes.len()
                )));
            }
        };
        Ok(Applied {
            result: Some(outcome.unwrap_or_else(applied::Result::Failure)),
        })
    }

    pub(super) fn widen(&mut self, type_number: u32, bucket_ns: i64) {
        include(&mut self.widening, type_number, bucket_ns, bucket_ns);
    }

    fn finish(mut self) -> Written<'a> {
        if self.state.next_ordinal != self.first_ordinal {
            self.batch
                .put(Family::Meta, keys::NEXT_ORDINAL, &self.state.next_ordinal.to_be_bytes());
        }
        let ends = self.devices.values().map(|stored| stored.ordinal.saturating_add(1));
        let ordinals_end = ends.max().unwrap_or(0);
        let pages = self.devices.values().map(|stored| stored.ordinal / select::PAGE);
        self.changes.pages.extend(pages);
        Written {
            batch: self.batch,
            widening: self.widening,
            changes: self.changes,
            ordinals_end,
            emptied: self.emptied,
            noted: self.noted.unwrap_or_default(),
            changed: self.changed,
        }
    }
}

/// What a command came to: stored or refused. Refused commands changed nothing.
pub(super) type Outcome = Result<applied::Result, Failure>;

/// Canonical gRPC codes of refusals.
pub(super) mod code {
    pub(in crate::shard) const INVALID_ARGUMENT: i32 = 3;
    pub(in crate::shard) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(in crate::shard) const FAILED_PRECONDITION: i32 = 9;
    pub(in crate::shard) const OUT_OF_RANGE: i32 = 11;
    pub(in crate::shard) const INTERNAL: i32 = 13;
}

/// A refusal.
pub(super) fn failure(code: i32, reason: &str, message: String) -> Failure {
    Failure {
        code,
        reason: reason.to_owned(),
        message,
        ..Failure::default()
    }
}
