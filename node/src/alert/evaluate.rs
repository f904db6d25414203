//! Some devices of a shard under the profiles of their type, as one command. Blocking.
//!
//! Never here: which devices, and when. Invariant: a command is made from the states that it names as its base.

use std::sync::Arc;

use prost::Message as _;
use tidemark_proto::peer::{AlertChange, AlertChanges, AlertState};
use tidemark_proto::v1::AlertStep;
use tidemark_series::alert::Mark;

use super::state::{self, Changed, silent_at, update};
use super::{before, replay};
use crate::catalog::Catalog;
use crate::catalog::alerts::ProfileDef;
use crate::clock::now_ns;
use crate::error::Result;
use crate::raft::state::store_error;
use crate::shard::{AlertName, Shard, bucket_start};

/// A command ends at so many bytes.
const COMMAND_BYTES_MAX: usize = 1 << 20;

/// Devices to evaluate: type, ordinal, and from which time on points have changed.
pub(super) type Devices = [(u32, u32, i64)];

/// A device by type and ordinal, and when it falls silent if nothing comes that counts; `None`: it is silent, or nobody would say so.
pub(super) type Silent = ((u32, u32), Option<i64>);

/// A command in the making.
pub(super) struct Making<'a> {
    shard: &'a Shard,
    catalog: &'a Catalog,
    /// The last version of a profile that the catalog gave out.
    version: u32,
    now_ns: i64,
    changes: AlertChanges,
    silent: Vec<Silent>,
    bytes: usize,
}

impl<'a> Making<'a> {
    pub(super) fn new(shard: &'a Shard, catalog: &'a Catalog) -> Result<Making<'a>> {
        let base = shard.alert_states([]).map_err(store_error)?.base;
        Ok(Making {
            shard,
            catalog,
            version: catalog.alerts_version().0,
            now_ns: now_ns(),
            changes: AlertChanges {
                base,
                ..AlertChanges::default()
            },
            silent: Vec::new(),
            bytes: 0,
        })
    }

    /// When it was known.
    pub(super) fn now_ns(&self) -> i64 {
        self.now_ns
    }

    /// The command, `None` where nothing changes; and when the devices fall silent that were evaluated for it.
    pub(super) fn finish(self) -> (Option<AlertChanges>, Vec<Silent>) {
        let changes = (!self.changes.changes.is_empty()).then_some(self.changes);
        (changes, self.silent)
    }

    /// Evaluates devices; says how many of them are done.
    pub(super) fn devices(&mut self, devices: &Devices) -> Result<usize> {
        for (at, (type_number, ordinal, changed_ns)) in devices.iter().enumerate() {
            if self.bytes >= COMMAND_BYTES_MAX {
                return Ok(at);
            }
            let profiles = self.catalog.alerts_of_type(*type_number);
            let names = profiles
                .iter()
                .map(|profile| (*type_number, *ordinal, profile.stored.id.as_str()));
            let states = self.shard.alert_states(names).map_err(store_error)?.states;
            let mut silent = None;
            for (profile, state) in profiles.iter().zip(states) {
                let (changed, silent_at) = self.one(profile, *ordinal, state, *changed_ns)?;
                silent = silent.into_iter().chain(silent_at).min();
                if let Some(changed) = changed {
                    self.add(profile, *ordinal, changed)?;
                }
            }
            self.silent.push(((*type_number, *ordinal), silent));
        }
        Ok(devices.len())
    }

    /// Ends alerts of profiles that are gone, and forgets states that say nothing; says how many are done.
    pub(super) fn gone(&mut self, names: &[AlertName]) -> Result<usize> {
        for (at, (type_number, ordinal, profile)) in names.iter().enumerate() {
            if self.bytes >= COMMAND_BYTES_MAX {
                return Ok(at);
            }
            let known = self.catalog.alert_profile(profile);
            let of_type = self.catalog.type_by_number(*type_number);
            let in_use = |id: &str| known.as_ref().is_ok_and(|known| known.device_type == id);
            let Some(def) = of_type.filter(|def| !in_use(def.id())) else {
                continue;
            };
            let name = (*type_number, *ordinal, profile.as_str());
            let Some(state) = self
                .shard
                .alert_states([name])
                .map_err(store_error)?
                .states
                .pop()
                .flatten()
            else {
                continue;
            };
            if self.lags_behind(&state) {
                continue;
            }
            let nobody = ProfileDef::of_nothing(profile, def);
            if state.steps.is_empty() {
                self.changes.changes.push(AlertChange {
                    type_number: *type_number,
                    ordinal: *ordinal,
                    profile: profile.clone(),
                    state: None,
                });
            } else if let Some(changed) = state::profile_removed(state, &nobody, (self.version, self.now_ns)) {
                self.add(&nobody, *ordinal, changed)?;
            }
        }
        Ok(names.len())
    }

    /// What becomes of a state, and when the device falls silent.
    fn one(
        &self,
        profile: &Arc<ProfileDef>,
        ordinal: u32,
        state: Option<AlertState>,
        changed_ns: i64,
    ) -> Result<(Option<Changed>, Option<i64>)> {
        if state.as_ref().is_some_and(|state| self.lags_behind(state)) {
            return Ok((None, None));
        }
        let mut marks = state
            .as_ref()
            .map_or_else(Vec::new, |state| state::marks(state, profile));
        if marks.is_empty() {
            match self.newest_of(profile, ordinal)? {
                Some(newest) => marks = before(profile, newest.min(self.now_ns)),
                None if state.is_none() => return Ok((None, None)),
                None => marks = before(profile, self.now_ns),
            }
        } else if self.is_gone(profile, ordinal)? {
            // What is known of it stands, as nothing of it would be found again: silence clears no alert.
            return Ok((None, None));
        }
        let changed_ns = changed_ns.max(self.kept_since(profile, &marks));
        let (outcome, begun_ns) = replay(self.shard, profile, ordinal, marks, (changed_ns, i64::MAX), |_| Ok(()))?;
        let (newest, was_stale) = (outcome.newest, state.as_ref().is_some_and(|state| state.stale));
        let changed = update(profile, state, outcome, begun_ns, self.now_ns);
        let is_stale = changed.as_ref().map_or(was_stale, |changed| changed.state.stale);
        let silent_at = silent_at(profile, newest, self.now_ns).filter(|_| !is_stale);
        Ok((changed, silent_at))
    }

    /// Whether all points of the property may be gone for their age.
    fn is_gone(&self, profile: &ProfileDef, ordinal: u32) -> Result<bool> {
        if profile.def.retention_ns().is_none() {
            return Ok(false);
        }
        let newest = self.newest_of(profile, ordinal)?;
        Ok(newest.is_some_and(|newest| newest < self.gone_before(profile)))
    }

    /// When the newest value of the property was observed, be its point gone or not.
    fn newest_of(&self, profile: &ProfileDef, ordinal: u32) -> Result<Option<i64>> {
        let newest = self
            .shard
            .newest(profile.def.number(), &[ordinal])
            .map_err(store_error)?;
        let of_property = newest.iter().flat_map(|values| values.iter());
        let newest = of_property
            .filter(|value| value.property == profile.property)
            .map(|value| value.observed_at);
        Ok(newest.max())
    }

    /// Points that were observed before this may be gone for their age.
    fn gone_before(&self, profile: &ProfileDef) -> i64 {
        let (def, now_ns) = (&profile.def, self.now_ns);
        def.retention_ns().map_or(i64::MIN, |kept_ns| {
            let kept_from_ns = bucket_start(now_ns.saturating_sub(kept_ns), def.bucket_span_ns);
            kept_from_ns.saturating_add(def.bucket_span_ns)
        })
    }

    /// From when on there are marks to go on from: one that needs points which may be gone will not do, where there is another.
    fn kept_since(&self, profile: &ProfileDef, marks: &[Mark]) -> i64 {
        let gone_ns = self.gone_before(profile);
        let first = marks.partition_point(|mark| mark.read_from_ns < gone_ns);
        match (first, marks.get(first).or(marks.last())) {
            (1.., Some(mark)) => mark.settled_by_ns.saturating_add(1),
            _ => i64::MIN,
        }
    }

    /// Whether the catalog here does not know yet of the version that a state was made under. One that was given out and that the profile
    /// does not have was that of another one, or of a time that a backup does not reach.
    fn lags_behind(&self, state: &AlertState) -> bool {
        state.profile_version > self.version
    }

    fn add(&mut self, profile: &ProfileDef, ordinal: u32, changed: Changed) -> Result<()> {
        if !changed.steps.is_empty() {
            let stored = self
                .shard
                .devices_by_ordinal(&[ordinal])
                .map_err(store_error)?
                .pop()
                .flatten();
            let device = stored
                .and_then(|stored| stored.device)
                .map_or_else(String::new, |device| device.id);
            let named = changed.steps.into_iter().map(|step| AlertStep {
                device: device.clone(),
                device_type: profile.def.id().to_owned(),
                ..step
            });
            self.changes.steps.extend(named);
        }
        let change = AlertChange {
            type_number: profile.def.number(),
            ordinal,
            profile: profile.stored.id.clone(),
            state: Some(changed.state),
        };
        self.bytes += change.encoded_len();
        self.changes.changes.push(change);
        Ok(())
    }
}
