//! One entry of the log as events: the only place that says which commands a subscriber hears of.
//!
//! Points of report kind test are told to nobody, nor what is done with them.
//!
//! Never here: reading the log, or whether the entry stored anything. Invariant: an entry is cut into the same parts by every
//! node, so that a cursor within it means the same everywhere.

use std::collections::BTreeSet;

use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{
    AlertChanges, FollowEvent, RemoveRecords, ShardCommand, Upkeep, WriteFragments, shard_command,
};
use tidemark_proto::v1::{Batch, Deleted, values};
use tidemark_series::{Block, PropertyNumber, Records, bucket};

use super::ended::Ended;
use super::follower::{Follower, Here, ROWS_PER_EVENT, SILENT_PER_EVENT, chosen, corrupt, known_type};
use crate::catalog::types::TypeDef;
use crate::error::{Error, Reason, Result};
use crate::shard::is_test_lane;
use crate::wire::answer::BatchWriter;

/// An entry that is applied, and did store something.
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) command: ShardCommand,
}

/// What an entry tells at once, and the part at which it goes on.
#[derive(Default)]
struct Told {
    event: FollowEvent,
    next: Option<u32>,
    /// Silences in it that its records end.
    ended: Vec<Ended>,
}

impl Follower {
    /// The next event of an entry; `None` once all of it was told. On a failure nothing has changed, and it may be tried again.
    pub(super) fn event(&mut self, here: &Here<'_>, entry: &Entry) -> Result<Option<FollowEvent>> {
        while self.index < entry.index {
            let told = self.told(here, &entry.command)?;
            match told.next {
                Some(parts) => self.parts = parts,
                None => self.entry_read(here, entry)?,
            }
            self.note_ended(&told.ended, entry.command.stamp_ns);
            let event = told.event;
            let nothing = event.batch.is_none() && event.alerts.is_empty() && event.deleted.is_empty();
            if !nothing || !event.silent.is_empty() {
                return Ok(Some(FollowEvent {
                    upto: Some(self.upto()),
                    stamp_ns: entry.command.stamp_ns,
                    ..event
                }));
            }
        }
        Ok(None)
    }

    /// Passes over an entry that tells nothing.
    pub(super) fn pass_over(&mut self, index: u64) {
        (self.index, self.parts) = (index, 0);
        self.known.read_upto(index);
    }

    /// What a command means to a subscriber.
    fn told(&mut self, here: &Here<'_>, command: &ShardCommand) -> Result<Told> {
        if let Some(write) = write_of(command) {
            return match self.asked.records || self.asked.silence {
                true => self.written(here, write, command.stamp_ns),
                false => Ok(Told::default()),
            };
        }
        match &command.command {
            Some(shard_command::Command::Upkeep(upkeep)) if self.asked.records => match removed_by(upkeep) {
                Some(removed) => self.removed(here, upkeep.type_number, removed),
                // What is too old goes for everybody alike.
                None => Ok(Told::default()),
            },
            Some(shard_command::Command::Alerts(changes)) if self.asked.alerts => self.alert_steps(here, changes),
            // All others change nothing that a subscriber hears of; those of a later version are not known here.
            _ => Ok(Told::default()),
        }
    }

    /// Takes notice of what an entry changed, once it was told.
    fn entry_read(&mut self, here: &Here<'_>, entry: &Entry) -> Result<()> {
        if let Some(write) = write_of(&entry.command) {
            return self.write_read(here, write, entry.index);
        }
        match &entry.command.command {
            Some(shard_command::Command::PutDevices(put)) => {
                self.devices_changed(here, put)?;
                self.pass_over(entry.index);
            }
            Some(shard_command::Command::Upkeep(upkeep)) => {
                if let Some(removed) = removed_by(upkeep) {
                    self.forget(here, upkeep.type_number, removed)?;
                }
                self.pass_over(entry.index);
            }
            _ => self.pass_over(entry.index),
        }
        Ok(())
    }

    fn write_read(&mut self, here: &Here<'_>, write: &WriteFragments, index: u64) -> Result<()> {
        let mut devices = Vec::new();
        for fragment in &write.fragments {
            if self.choice.device(here.shard, fragment.ordinal)?.is_none() {
                continue;
            }
            for block in bucket::blocks(&fragment.block) {
                self.known.note(fragment.ordinal, block.map_err(corrupt)?.last_ns());
            }
            devices.push(fragment.ordinal);
        }
        self.pass_over(index);
        for ordinal in devices {
            self.watch(here.catalog, ordinal, write.type_number);
        }
        Ok(())
    }

    /// Steps of alerts of the devices that are chosen.
    fn alert_steps(&mut self, here: &Here<'_>, changes: &AlertChanges) -> Result<Told> {
        let mut chosen = BTreeSet::new();
        for change in &changes.changes {
            let device = self.choice.device(here.shard, change.ordinal)?;
            chosen.extend(device.map(|device| device.id().to_owned()));
        }
        let steps = changes.steps.iter().filter(|step| chosen.contains(&step.device));
        let event = FollowEvent {
            alerts: steps.cloned().collect(),
            ..FollowEvent::default()
        };
        Ok(Told {
            event,
            ..Told::default()
        })
    }

    /// Records that are gone.
    fn removed(&mut self, here: &Here<'_>, type_number: u32, removed: &RemoveRecords) -> Result<Told> {
        let def = known_type(here.catalog, type_number)?;
        let mut devices = Vec::new();
        for ordinal in &removed.ordinals {
            let device = self.choice.device(here.shard, *ordinal)?;
            devices.extend(device.map(|device| device.id().to_owned()));
        }
        if devices.is_empty() {
            return Ok(Told::default());
        }
        let deleted = Deleted {
            devices,
            device_type: def.id().to_owned(),
            from_ns: removed.from_ns,
            to_ns: removed.to_ns,
        };
        let event = FollowEvent {
            deleted: vec![deleted],
            ..FollowEvent::default()
        };
        Ok(Told {
            event,
            ..Told::default()
        })
    }

    /// Records of a write, from the part on at which it stopped, and the silences that they end.
    fn written(&mut self, here: &Here<'_>, write: &WriteFragments, stamp_ns: i64) -> Result<Told> {
        let def = known_type(here.catalog, write.type_number)?;
        let wanted = chosen(&self.asked, def).filter(|_| self.asked.records);
        let (properties, numbers) = wanted.clone().unwrap_or_default();
        let mut batch = BatchWriter::new(def, &properties);
        let (mut late, mut ended, mut next) = (Vec::new(), Vec::new(), None);
        for (at, fragment) in write.fragments.iter().enumerate().skip(self.parts as usize) {
            if late.len() >= ROWS_PER_EVENT || ended.len() >= SILENT_PER_EVENT {
                next = Some(at as u32);
                break;
            }
            let Some(device) = self.choice.device(here.shard, fragment.ordinal)? else {
                continue;
            };
            let before = self.before(here, def, (fragment.ordinal, &fragment.block), stamp_ns)?;
            // The fragments of a device lie together.
            let is_first = at == 0 || write.fragments[at - 1].ordinal != fragment.ordinal;
            if is_first {
                let rest = &write.fragments[at..];
                ended.extend(self.ended(here, &device, rest, (before, stamp_ns))?);
            }
            if wanted.is_none() {
                continue;
            }
            for block in bucket::blocks(&fragment.block) {
                let records = rows_of(block.map_err(corrupt)?, def, numbers.as_deref())?;
                let is_late = |observed: &i64| before.is_some_and(|before| *observed <= before);
                late.extend(records.observed_at.iter().map(is_late));
                let rows = 0..records.len();
                batch.push(device.id(), records, rows);
            }
        }
        let mut event = FollowEvent {
            silent: Ended::told(&ended),
            ..FollowEvent::default()
        };
        if !late.is_empty() {
            let batch = batch.finish();
            check_labels(&batch, def)?;
            (event.batch, event.late) = (Some(batch), late);
        }
        Ok(Told { event, next, ended })
    }
}

/// What of a command is written, but for points of report kind test.
fn write_of(command: &ShardCommand) -> Option<&WriteFragments> {
    match &command.command {
        Some(shard_command::Command::Write(write)) => Some(write),
        Some(shard_command::Command::WriteWithTests(both)) => both.write.as_ref(),
        _ => None,
    }
}

/// Records that an upkeep removes, but for those of report kind test.
fn removed_by(upkeep: &Upkeep) -> Option<&RemoveRecords> {
    match &upkeep.what {
        _ if is_test_lane(upkeep.type_number) => None,
        Some(What::RemoveRecords(removed) | What::RemoveRecordsAndWindows(removed)) => Some(removed),
        _ => None,
    }
}

/// Records of a block, with the properties that are wanted.
fn rows_of(block: Block<'_>, def: &TypeDef, numbers: Option<&[PropertyNumber]>) -> Result<Records> {
    if block
        .properties()
        .any(|number| def.property_by_number(number).is_none())
    {
        return Err(newer(def));
    }
    let records = block.decode(numbers).map_err(corrupt)?;
    Ok(match numbers {
        Some(_) => records.without_empty_rows(),
        None => records,
    })
}

/// A write was encoded with a later form of its type than this node knows.
fn newer(def: &TypeDef) -> Error {
    let message = format!("a later form of type {} is not known here yet", def.id());
    Error::new(Reason::TooStale, message)
}

fn check_labels(batch: &Batch, def: &TypeDef) -> Result<()> {
    let kinds = batch
        .columns
        .iter()
        .filter_map(|column| column.values.as_ref()?.kind.as_ref());
    let beyond = |kind: &values::Kind| match kind {
        values::Kind::Enum(found) => found.indexes.iter().any(|at| *at as usize >= found.labels.len()),
        _ => false,
    };
    match kinds.into_iter().any(beyond) {
        true => Err(newer(def)),
        false => Ok(()),
    }
}
