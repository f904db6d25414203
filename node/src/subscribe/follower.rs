//! One shard of a subscription on its way through the log: what it knows of devices, how far it is, and how it begins.
//!
//! Never here: reading the log, tasks. Invariant: events come in the order of the log, and `upto` of each says exactly what was
//! told by then.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use tidemark_proto::peer::{FollowEvent, FollowedUpTo, PutDevices, RemoveRecords, StoredDevice};
use tidemark_proto::v1::{Selector, Silence};
use tidemark_series::{PropertyNumber, bucket};

use super::asked::Asked;
use super::choice::Choice;
use super::known::Known;
use super::silence::Silences;
use crate::catalog::Catalog;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::{Error, Reason, Result};
use crate::query::device_filter;
use crate::raft::state::{ReplicaState, store_error};
use crate::shard::{Opening, Shard};
use crate::wire::answer::BatchWriter;

/// Rows of an event, roughly.
pub(super) const ROWS_PER_EVENT: usize = 4_096;
/// Devices of an event of silence, roughly.
pub(super) const SILENT_PER_EVENT: usize = 2_000;
/// Devices whose dates are read together.
const DEVICES_AT_ONCE: usize = 256;

/// What entries are read with.
pub(super) struct Here<'a> {
    pub(super) shard: &'a Shard,
    pub(super) catalog: &'a Catalog,
}

/// See the module.
pub(super) struct Follower {
    pub(super) asked: Asked,
    pub(super) choice: Choice,
    pub(super) known: Known,
    pub(super) group: u32,
    /// Everything up to this entry was told, and so many parts of the next one.
    pub(super) index: u64,
    pub(super) parts: u32,
    silences: Option<Silences>,
    /// When devices without a record were registered.
    pub(super) registered: HashMap<u32, i64>,
    /// Silences of devices up to then were told with an entry, although not all silences up to then were.
    pub(super) told_by_entry: HashMap<u32, i64>,
    /// Newest records of devices that came to match, as the state had them by then: it may be ahead of the log as read.
    stated: HashMap<u32, i64>,
}

impl Follower {
    /// How far it is.
    pub(super) fn upto(&self) -> FollowedUpTo {
        FollowedUpTo {
            group: self.group,
            index: self.index,
            parts: self.parts,
            silence_ns: self.silences.as_ref().map_or(0, Silences::told_ns),
        }
    }

    /// Up to when silence of a device was told; `None` where it is not wanted.
    pub(super) fn told_ns(&self, ordinal: u32) -> Option<i64> {
        let by_entry = self.told_by_entry.get(&ordinal).copied().unwrap_or(i64::MIN);
        Some(self.silences.as_ref()?.told_ns().max(by_entry))
    }

    /// Whether it has yet to read what led to the state that it began with.
    pub(super) fn is_catching_up(&self) -> bool {
        self.known.is_behind()
    }

    /// When to look for silence next.
    pub(super) fn next_silence_ns(&self) -> Option<i64> {
        self.silences.as_ref()?.next_ns()
    }

    /// Begins behind `after`, or with what is applied now; what there is at first goes to `send`, which breaks when nobody
    /// listens. Blocking.
    pub(super) fn begin(
        state: &ReplicaState,
        catalog: &Catalog,
        group: u32,
        asked: &Asked,
        (selector, after): (&Selector, Option<FollowedUpTo>),
        (now_ns, send): (i64, &dyn Fn(FollowEvent) -> bool),
    ) -> Result<Follower> {
        let told_ns = after.map_or(now_ns, |after| after.silence_ns);
        let mut follower = Follower {
            asked: asked.clone(),
            choice: Choice::new(device_filter(catalog, selector)?),
            known: Known::default(),
            group,
            index: 0,
            parts: 0,
            silences: asked.silence.then(|| Silences::new(told_ns)),
            registered: HashMap::new(),
            told_by_entry: HashMap::new(),
            stated: HashMap::new(),
        };
        let first = after.is_none() && asked.newest_first;
        let mut reading = Reading {
            catalog,
            asked,
            writers: (first && asked.records).then(BTreeMap::new),
            send,
            newest: HashMap::new(),
            types: HashMap::new(),
            silent: asked.silence,
        };
        let opened = state.open_reading(follower.choice.filter(), |opening| match reading.take(&opening) {
            Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
            Ok(ControlFlow::Break(())) => ControlFlow::Break(None),
            Err(error) => ControlFlow::Break(Some(error)),
        })?;
        let unknown = || Error::new(Reason::UnknownDevice, "a device is not registered").field("selector.device_ids");
        let (index, flow) = opened.ok_or_else(unknown)?;
        match flow {
            ControlFlow::Break(Some(error)) => return Err(error),
            ControlFlow::Break(None) => return Err(gone()),
            ControlFlow::Continue(()) => reading.flush()?,
        }
        let Reading { newest, types, .. } = reading;
        follower.known.begin(index, newest);
        (follower.index, follower.parts) = after.map_or((index, 0), |after| (after.index, after.parts));
        follower.known.read_upto(follower.index);
        if asked.silence {
            state.with_shard(|shard| follower.watch_all(&Here { shard, catalog }, &types))?;
            if first {
                follower.silent_already(state, catalog, &types, (now_ns, send))?;
            }
        }
        Ok(follower)
    }

    /// Watches every device of the beginning.
    fn watch_all(&mut self, here: &Here<'_>, types: &HashMap<u32, u32>) -> Result<()> {
        let never: Vec<u32> = types
            .keys()
            .copied()
            .filter(|ordinal| self.known.newest(*ordinal).is_none())
            .collect();
        for ordinals in never.chunks(DEVICES_AT_ONCE) {
            let stored = here.shard.devices_by_ordinal(ordinals).map_err(store_error)?;
            for device in stored.into_iter().flatten() {
                let at = device.device.map_or(0, |device| device.registered_at_ns);
                self.registered.insert(device.ordinal, at);
            }
        }
        for (ordinal, type_number) in types {
            self.watch(here.catalog, *ordinal, *type_number);
        }
        Ok(())
    }

    /// Tells those that are silent at the beginning.
    fn silent_already(
        &mut self,
        state: &ReplicaState,
        catalog: &Catalog,
        types: &HashMap<u32, u32>,
        (now_ns, send): (i64, &dyn Fn(FollowEvent) -> bool),
    ) -> Result<()> {
        let due = |(ordinal, type_number): (&u32, &u32)| {
            let (_, due_ns) = self.due(catalog, *ordinal, *type_number)?;
            (due_ns <= now_ns).then_some(*ordinal)
        };
        let silent: Vec<u32> = types.iter().filter_map(due).collect();
        let told = state.with_shard(|shard| self.tell(&Here { shard, catalog }, silent, now_ns))?;
        for silent in told.chunks(SILENT_PER_EVENT) {
            let event = FollowEvent {
                silent: silent.to_vec(),
                newest: true,
                ..FollowEvent::default()
            };
            if !send(event) {
                return Err(gone());
            }
        }
        Ok(())
    }

    /// Silence that a device of a type is allowed, nanoseconds.
    pub(super) fn silent_after(&self, catalog: &Catalog, type_number: u32) -> Option<i64> {
        match self.asked.silent_after_ns {
            Some(after) => Some(after),
            None => catalog.type_by_number(type_number)?.stale_after_ns(),
        }
    }

    /// When a device's newest record was observed (0: there is none), and when it becomes silent, unless it never does or that was
    /// told with an entry.
    fn due(&self, catalog: &Catalog, ordinal: u32, type_number: u32) -> Option<(i64, i64)> {
        let after = self.silent_after(catalog, type_number)?;
        let newest = self.known.newest(ordinal).max(self.stated.get(&ordinal).copied());
        let since = newest.or_else(|| self.registered.get(&ordinal).copied())?;
        let due_ns = since.saturating_add(after);
        let is_told = self
            .told_by_entry
            .get(&ordinal)
            .is_some_and(|told_ns| due_ns <= *told_ns);
        (!is_told).then_some((newest.unwrap_or(0), due_ns))
    }

    /// Watches a device of which something is known.
    pub(super) fn watch(&mut self, catalog: &Catalog, ordinal: u32, type_number: u32) {
        let due = self.due(catalog, ordinal, type_number);
        if let Some((silences, (_, due_ns))) = self.silences.as_mut().zip(due) {
            silences.watch(ordinal, due_ns);
        }
    }

    /// The device of an id, if it matches.
    pub(super) fn named(&mut self, here: &Here<'_>, id: &str) -> Result<Option<StoredDevice>> {
        let Some(stored) = here.shard.device(id).map_err(store_error)? else {
            return Ok(None);
        };
        let matches = self.choice.device(here.shard, stored.ordinal)?.is_some();
        Ok(matches.then_some(stored))
    }

    /// Devices that were registered or changed: those that match from now on are watched from now on.
    pub(super) fn devices_changed(&mut self, here: &Here<'_>, put: &PutDevices) -> Result<()> {
        if self.silences.is_none() {
            return Ok(());
        }
        for device in put.devices.iter().filter_map(|put| put.device.as_ref()) {
            let Some(stored) = self.named(here, &device.id)? else {
                continue;
            };
            let (ordinal, type_number) = (stored.ordinal, stored.type_number);
            self.state_newest(here, ordinal, type_number)?;
            self.watch(here.catalog, ordinal, type_number);
        }
        Ok(())
    }

    /// Records were removed: where the newest one of a device was among them, another one is by now.
    pub(super) fn forget(&mut self, here: &Here<'_>, type_number: u32, removed: &RemoveRecords) -> Result<()> {
        for ordinal in &removed.ordinals {
            let newest = self.known.newest(*ordinal).max(self.stated.get(ordinal).copied());
            if newest.is_some_and(|newest| (removed.from_ns..removed.to_ns).contains(&newest)) {
                self.known.forget(*ordinal);
                self.state_newest(here, *ordinal, type_number)?;
                self.watch(here.catalog, *ordinal, type_number);
            }
        }
        Ok(())
    }

    /// Takes the newest record of a device from the state, or when the device was registered where it has none.
    fn state_newest(&mut self, here: &Here<'_>, ordinal: u32, type_number: u32) -> Result<()> {
        let newest = here.shard.newest(type_number, &[ordinal]).map_err(store_error)?;
        let observed = newest
            .iter()
            .flat_map(|values| values.iter())
            .map(|value| value.observed_at);
        match observed.max() {
            Some(observed) => drop(self.stated.insert(ordinal, observed)),
            None => {
                self.stated.remove(&ordinal);
                let stored = here.shard.devices_by_ordinal(&[ordinal]).map_err(store_error)?;
                let device = stored.into_iter().flatten().find_map(|stored| stored.device);
                self.registered
                    .insert(ordinal, device.map_or(0, |device| device.registered_at_ns));
            }
        }
        Ok(())
    }

    /// Devices that have become silent by now, as events.
    pub(super) fn silence(&mut self, here: &Here<'_>, now_ns: i64) -> Result<Vec<FollowEvent>> {
        let mut silent = Vec::new();
        while let Some(ordinal) = self.silences.as_mut().and_then(|silences| silences.pop(now_ns)) {
            let Some(device) = self.choice.device(here.shard, ordinal)? else {
                continue;
            };
            match self.due(here.catalog, ordinal, device.type_number()) {
                Some((_, due_ns)) if due_ns <= now_ns => silent.push(ordinal),
                Some(_) => self.watch(here.catalog, ordinal, device.type_number()),
                None => {}
            }
        }
        let told = self.tell(here, silent, now_ns)?;
        let mut events = Vec::new();
        let mut rest = told.as_slice();
        while let Some(last) = rest.get(..SILENT_PER_EVENT.min(rest.len())).and_then(<[_]>::last) {
            // All that are due at one moment go together: a cursor knows moments only.
            let end = rest.partition_point(|silence| silence.since_ns <= last.since_ns);
            let mut upto = self.upto();
            if end < rest.len() {
                upto.silence_ns = last.since_ns;
            }
            events.push(FollowEvent {
                silent: rest[..end].to_vec(),
                upto: Some(upto),
                ..FollowEvent::default()
            });
            rest = &rest[end..];
        }
        Ok(events)
    }

    /// What is told of silent devices, by the time at which they became so.
    fn tell(&mut self, here: &Here<'_>, ordinals: Vec<u32>, now_ns: i64) -> Result<Vec<Silence>> {
        let mut told = Vec::with_capacity(ordinals.len());
        for ordinal in ordinals {
            let Some(device) = self.choice.device(here.shard, ordinal)? else {
                continue;
            };
            let def = here.catalog.type_by_number(device.type_number());
            let due = self.due(here.catalog, ordinal, device.type_number());
            if let Some((def, (last_observed_at_ns, since_ns))) = def.zip(due.filter(|(_, due)| *due <= now_ns)) {
                told.push(Silence {
                    device: device.id().to_owned(),
                    device_type: def.id().to_owned(),
                    last_observed_at_ns,
                    since_ns,
                    ended: false,
                });
            }
        }
        told.sort_by(|a, b| (a.since_ns, &a.device).cmp(&(b.since_ns, &b.device)));
        Ok(told)
    }
}

pub(super) fn gone() -> Error {
    Error::new(Reason::Unreachable, "nobody listens any more")
}

/// The properties of a type that are asked for, and their numbers where not all are; `None` where the type lacks one.
pub(super) fn chosen<'a>(
    asked: &Asked,
    def: &'a TypeDef,
) -> Option<(Vec<&'a PropertyDef>, Option<Vec<PropertyNumber>>)> {
    let properties = def.choose(&asked.properties).ok()?;
    let numbers = (!asked.properties.is_empty()).then(|| properties.iter().map(|p| p.number).collect());
    Some((properties, numbers))
}

/// Devices of the beginning, one by one.
struct Reading<'a> {
    catalog: &'a Catalog,
    asked: &'a Asked,
    /// Newest records by type, where they are wanted.
    writers: Option<BTreeMap<u32, BatchWriter<'a>>>,
    send: &'a dyn Fn(FollowEvent) -> bool,
    newest: HashMap<u32, i64>,
    /// Types of all devices, where silence is wanted.
    types: HashMap<u32, u32>,
    silent: bool,
}

impl Reading<'_> {
    fn take(&mut self, opening: &Opening<'_>) -> Result<ControlFlow<()>> {
        let (roster, at) = (opening.roster, opening.at);
        let (ordinal, type_number) = (roster.ordinal(at), roster.type_number(at));
        if self.silent {
            self.types.insert(ordinal, type_number);
        }
        let Some(value) = opening.newest else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut observed = None;
        for block in bucket::blocks(value) {
            observed = observed.max(Some(block.map_err(corrupt)?.last_ns()));
        }
        if let Some(observed) = observed {
            self.newest.insert(ordinal, observed);
        }
        let Some(writers) = &mut self.writers else {
            return Ok(ControlFlow::Continue(()));
        };
        let def = known_type(self.catalog, type_number)?;
        let Some((properties, numbers)) = chosen(self.asked, def) else {
            return Ok(ControlFlow::Continue(()));
        };
        let records = bucket::decode(value, numbers.as_deref())
            .map_err(corrupt)?
            .without_empty_rows();
        if records.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let writer = writers
            .entry(type_number)
            .or_insert_with(|| BatchWriter::new(def, &properties));
        let rows = 0..records.len();
        writer.push(roster.id(at), records, rows);
        if writer.rows() < ROWS_PER_EVENT {
            return Ok(ControlFlow::Continue(()));
        }
        let full = writers.remove(&type_number);
        Ok(match full.is_none_or(|full| (self.send)(newest(full))) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    }

    fn flush(&mut self) -> Result<()> {
        for writer in self.writers.take().unwrap_or_default().into_values() {
            if !(self.send)(newest(writer)) {
                return Err(gone());
            }
        }
        Ok(())
    }
}

fn newest(writer: BatchWriter<'_>) -> FollowEvent {
    FollowEvent {
        batch: Some(writer.finish()),
        newest: true,
        ..FollowEvent::default()
    }
}

/// The type of a number; the catalog of this node may not know it yet.
pub(super) fn known_type(catalog: &Catalog, number: u32) -> Result<&std::sync::Arc<TypeDef>> {
    catalog
        .type_by_number(number)
        .ok_or_else(|| Error::new(Reason::TooStale, format!("type number {number} is not known here yet")))
}

/// A block that does not decode.
pub(super) fn corrupt(e: tidemark_series::Corrupt) -> Error {
    Error::new(Reason::Corruption, e.to_string())
}
