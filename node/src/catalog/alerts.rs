//! Alert profiles: what a valid one is, how they change, and the compiled form that evaluation uses.
//!
//! Never here: points, states of alerts. Invariant: a version is given once in the life of a cluster, so that a state that was made
//! under one is never taken for one made under another.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;
use tidemark_proto::peer::{AlertsApplied, applied};
use tidemark_proto::v1::{self, AlertLevel, AlertProfile};
use tidemark_series::alert::{AlertFunction, Level, Rule};
use tidemark_series::{Function, Kind, PropertyNumber, ValueType};

use super::types::{PropertyDef, TypeDef, unknown_property};
use super::{Catalog, Record};
use crate::clock::{NS_PER_DAY, NS_PER_S};
use crate::error::{Error, Reason, Result};
use crate::limits::{ALERT_LEVELS_MAX, ALERT_LOOKBACK_NS, ALERT_PROFILES_MAX, ALERT_WINDOW_INTERVALS_MAX};

/// Records of profiles begin with this; an empty one says that the profile was removed.
pub(super) const KEY_ALERT: &[u8] = b"alert/";
const SPAN_MAX_S: i64 = 31 * (NS_PER_DAY / NS_PER_S);
const ID_BYTES_MAX: usize = 64;
const LEVEL_BYTES_MAX: usize = 32;

/// An alert profile, ready for use.
#[derive(Clone, Debug)]
pub struct ProfileDef {
    /// As stored in the catalog.
    pub stored: AlertProfile,
    /// The type that it is of.
    pub def: Arc<TypeDef>,
    /// The property that is looked at.
    pub property: PropertyNumber,
    /// When levels begin and end.
    pub rule: Rule,
    /// Silence after which nobody knows the level, nanoseconds; `None` where nothing is promised.
    pub stale_after_ns: Option<i64>,
    /// Points so much older than the newest one of their device change nothing; well within what the type keeps, so that points
    /// that are gone for their age withdraw no step.
    pub lookback_ns: i64,
}

impl ProfileDef {
    fn new(stored: AlertProfile, def: &Arc<TypeDef>) -> Result<ProfileDef> {
        let missing = || unknown_property(def.id(), &stored.property);
        let property = def.property(&stored.property).ok_or_else(missing)?.number;
        let stale_after_ns = match stored.stale_after_s {
            // Reports may be more frequent than samples: a device that only says that it is there is silent all the same.
            0 => def
                .stale_after_ns()
                .max(def.sample_interval_ns().map(|ns| ns.saturating_mul(3))),
            s => Some(s.saturating_mul(NS_PER_S)),
        };
        let level = |level: &AlertLevel| Level {
            on: level.on,
            off: level.off,
        };
        let rule = Rule {
            function: function(stored.function).unwrap_or(AlertFunction::Last),
            window_ns: stored.window_s.saturating_mul(NS_PER_S),
            interval_ns: def.sample_interval_ns().unwrap_or(0),
            hold_ns: stored.hold_s.saturating_mul(NS_PER_S),
            silence_ns: stale_after_ns,
            accept_suspect: stored.accept_suspect,
            below: stored.below,
            levels: stored.levels.iter().map(level).collect(),
        };
        let kept = def.retention_ns().unwrap_or(i64::MAX).saturating_sub(rule.window_ns);
        Ok(ProfileDef {
            def: def.clone(),
            property,
            lookback_ns: ALERT_LOOKBACK_NS.min(kept.max(0) / 4),
            rule,
            stale_after_ns,
            stored,
        })
    }

    /// What stands in for a profile that is gone: it has no levels.
    pub fn of_nothing(id: &str, def: &Arc<TypeDef>) -> ProfileDef {
        ProfileDef {
            stored: AlertProfile {
                id: id.to_owned(),
                ..AlertProfile::default()
            },
            def: def.clone(),
            property: PropertyNumber(0),
            rule: Rule {
                function: AlertFunction::Last,
                window_ns: 0,
                interval_ns: 0,
                hold_ns: 0,
                silence_ns: None,
                accept_suspect: false,
                below: false,
                levels: Vec::new(),
            },
            stale_after_ns: None,
            lookback_ns: 0,
        }
    }

    /// When a device falls silent whose newest point that counts is of a time: when the first promised sample is missing at which that
    /// point is older than `stale_after_ns`. Where no interval is promised, once it is that old. `None`: nobody is ever silent.
    pub fn silent_from_ns(&self, newest_ns: i64) -> Option<i64> {
        let (after_ns, interval_ns) = (self.stale_after_ns?, self.rule.interval_ns);
        let span_ns = match interval_ns > 0 {
            // Strictly older: a point of just that age is young enough.
            true => (after_ns / interval_ns).saturating_add(1).saturating_mul(interval_ns),
            false => after_ns,
        };
        Some(newest_ns.saturating_add(span_ns))
    }

    /// The level at a position from 1; `None` is normal.
    pub fn level(&self, rank: u32) -> Option<&AlertLevel> {
        self.stored.levels.get((rank as usize).checked_sub(1)?)
    }
}

impl Catalog {
    pub(super) fn apply_alert_profiles(&mut self, new: Vec<AlertProfile>) -> Result<(applied::Result, Vec<Record>)> {
        let mut response = v1::ApplyAlertProfilesResponse::default();
        let (mut version, mut records, mut ids) = (self.state.alert_version, Vec::new(), BTreeSet::new());
        for (at, mut profile) in new.into_iter().enumerate() {
            let field = |inner: &str| format!("profiles[{at}].{inner}");
            if !ids.insert(profile.id.clone()) {
                return Err(invalid(format!("profile {:?} is listed twice", profile.id)).field(field("id")));
            }
            check(self, &mut profile).map_err(|error| error_at(error, at))?;
            let known = self.alerts.get(&profile.id);
            profile.version = known.map_or(0, |known| known.version);
            match known {
                Some(known) if *known == profile => response.unchanged += 1,
                known => {
                    match known {
                        Some(_) => response.changed += 1,
                        None => response.created += 1,
                    }
                    version += 1;
                    profile.version = version;
                    records.push((key(&profile.id), profile.encode_to_vec()));
                }
            }
            response.profiles.push(profile);
        }
        if self.alerts.len() + response.created as usize > ALERT_PROFILES_MAX {
            let message = format!("a cluster has at most {ALERT_PROFILES_MAX} alert profiles");
            return Err(Error::new(Reason::TooManyAlertProfiles, message).field("profiles"));
        }
        for profile in &response.profiles {
            self.alerts.insert(profile.id.clone(), profile.clone());
        }
        self.state.alert_version = version;
        if !records.is_empty() {
            records.push(self.cluster_record());
            self.compile_alerts();
        }
        let applied = AlertsApplied {
            profiles: Some(response),
            ..AlertsApplied::default()
        };
        Ok((applied::Result::Alerts(applied), records))
    }

    pub(super) fn remove_alert_profiles(&mut self, ids: &[String]) -> Result<(applied::Result, Vec<Record>)> {
        for (at, id) in ids.iter().enumerate() {
            self.alert_profile(id)
                .map_err(|error| error.field(format!("ids[{at}]")))?;
        }
        let ids: BTreeSet<&String> = ids.iter().collect();
        self.alerts.retain(|id, _| !ids.contains(id));
        self.state.alert_version += u32::from(!ids.is_empty());
        self.compile_alerts();
        let applied = AlertsApplied {
            removed: ids.len() as u32,
            ..AlertsApplied::default()
        };
        let mut records: Vec<Record> = ids.into_iter().map(|id| (key(id), Vec::new())).collect();
        if !records.is_empty() {
            records.push(self.cluster_record());
        }
        Ok((applied::Result::Alerts(applied), records))
    }

    /// Takes a stored record over; call [`Catalog::compile_alerts`] behind the last one.
    pub(super) fn load_alert(&mut self, value: &[u8]) -> std::result::Result<(), prost::DecodeError> {
        if !value.is_empty() {
            let profile = AlertProfile::decode(value)?;
            self.alerts.insert(profile.id.clone(), profile);
        }
        Ok(())
    }

    /// Takes profiles of a backup over as they were; their types are there. Versions up to the given one are not given out any more.
    pub(super) fn restore_alerts(&mut self, profiles: Vec<AlertProfile>, version: u32) -> Vec<Record> {
        let mut records = Vec::new();
        self.state.alert_version = self.state.alert_version.max(version);
        for profile in profiles {
            self.state.alert_version = self.state.alert_version.max(profile.version);
            records.push((key(&profile.id), profile.encode_to_vec()));
            self.alerts.insert(profile.id.clone(), profile);
        }
        self.compile_alerts();
        records
    }

    /// Compiles all profiles anew: profiles or types have changed.
    pub(super) fn compile_alerts(&mut self) {
        self.alerts_by_type.clear();
        for profile in self.alerts.values() {
            let def = self.types.get(&profile.device_type);
            let compiled = def.and_then(|def| ProfileDef::new(profile.clone(), def).ok());
            if let Some(compiled) = compiled {
                let of_type = self.alerts_by_type.entry(compiled.def.number()).or_default();
                of_type.push(Arc::new(compiled));
            }
        }
    }

    /// The profile with this id.
    pub fn alert_profile(&self, id: &str) -> Result<&AlertProfile> {
        let missing = || Error::new(Reason::UnknownAlertProfile, format!("no alert profile {id:?}"));
        let known = self.alerts.get(id);
        known.ok_or_else(|| missing().hint("tidemark alert profile list"))
    }

    /// Refuses a profile that old logs may hold, and that makes no sense: one that calls a device silent between two samples.
    ///
    /// # Errors
    /// `INVALID_ALERT_PROFILE`.
    pub fn check_silence(&self, profile: &AlertProfile) -> Result<()> {
        let interval_s = self
            .device_type(&profile.device_type)
            .map_or(0, |def| def.stored.sample_interval_s);
        let stale_s = profile.stale_after_s;
        match (1..interval_s).contains(&stale_s) {
            true => {
                let message = format!("stale_after_s of {stale_s} s, and one sample is promised each {interval_s} s");
                Err(invalid(message).field("stale_after_s"))
            }
            false => Ok(()),
        }
    }

    /// All profiles by id.
    pub fn alert_profiles(&self) -> impl Iterator<Item = &AlertProfile> {
        self.alerts.values()
    }

    /// Profiles of a type, by id.
    pub fn alerts_of_type(&self, type_number: u32) -> &[Arc<ProfileDef>] {
        self.alerts_by_type.get(&type_number).map_or(&[], Vec::as_slice)
    }

    /// Changes whenever profiles or their types do.
    pub fn alerts_version(&self) -> (u32, u64) {
        let types = self
            .alerts_by_type
            .keys()
            .filter_map(|number| self.by_number.get(number));
        (
            self.state.alert_version,
            types.map(|def| u64::from(def.stored.version)).sum(),
        )
    }

    /// Numbers of the types that have profiles.
    pub fn types_with_alerts(&self) -> impl Iterator<Item = u32> {
        self.alerts_by_type.keys().copied()
    }
}

fn key(id: &str) -> Vec<u8> {
    [KEY_ALERT, id.as_bytes()].concat()
}

fn invalid(message: String) -> Error {
    Error::new(Reason::InvalidAlertProfile, message)
}

fn error_at(error: Error, at: usize) -> Error {
    let inner = error.field_path().to_owned();
    error.field(format!("profiles[{at}].{inner}"))
}

/// What a number of the contract stands for.
fn function(number: i32) -> Option<AlertFunction> {
    Some(match v1::AlertFunction::try_from(number).ok()? {
        v1::AlertFunction::Last => AlertFunction::Last,
        v1::AlertFunction::Sum => AlertFunction::Sum,
        v1::AlertFunction::RisePerHour => AlertFunction::RisePerHour,
        v1::AlertFunction::Avg => AlertFunction::Avg,
        v1::AlertFunction::Min => AlertFunction::Min,
        v1::AlertFunction::Max => AlertFunction::Max,
        v1::AlertFunction::Unspecified => return None,
    })
}

/// Checks a profile and fills in what follows from the rest.
fn check(catalog: &Catalog, profile: &mut AlertProfile) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if profile.id.is_empty() || profile.id.len() > ID_BYTES_MAX || !profile.id.chars().all(plain) {
        return Err(invalid(format!("id {:?} is not [A-Za-z0-9_.-]{{1,64}}", profile.id)).field("id"));
    }
    let def = catalog
        .device_type(&profile.device_type)
        .map_err(|error| error.field("device_type"))?;
    let missing = || unknown_property(def.id(), &profile.property).field("property");
    let property = def.property(&profile.property).ok_or_else(missing)?;
    check_function(profile, def, property)?;
    for (span, name) in [(profile.hold_s, "hold_s"), (profile.stale_after_s, "stale_after_s")] {
        if !(0..=SPAN_MAX_S).contains(&span) {
            return Err(invalid(format!("{name} of {span} s, and it may be 0 to {SPAN_MAX_S}")).field(name));
        }
    }
    check_levels(profile)
}

fn check_function(profile: &AlertProfile, def: &TypeDef, property: &PropertyDef) -> Result<()> {
    let asked = function(profile.function).ok_or_else(|| invalid("no function is named".into()).field("function"))?;
    if !matches!(property.value_type, ValueType::F64 | ValueType::I64) {
        let message = format!("{} has no numbers to compare", property.id);
        return Err(invalid(message).field("property"));
    }
    let lawful = |function| Function::lawful(property.kind).contains(&function);
    let fits = match asked {
        AlertFunction::Last => true,
        AlertFunction::Sum => property.kind == Kind::Increment,
        AlertFunction::RisePerHour => matches!(property.kind, Kind::Gauge | Kind::Mean),
        AlertFunction::Avg => lawful(Function::Avg),
        AlertFunction::Min => lawful(Function::Min),
        AlertFunction::Max => lawful(Function::Max),
    };
    if !fits {
        let message = format!(
            "{asked:?} has no meaning for {}, whose kind is {:?}",
            property.id, property.kind
        );
        return Err(Error::new(Reason::UnlawfulFunction, message).field("function"));
    }
    let window = profile.window_s;
    if asked == AlertFunction::Last {
        return match window {
            0 => Ok(()),
            _ => Err(invalid("the last value has no window".into()).field("window_s")),
        };
    }
    let interval = def.sample_interval_ns().map(|ns| ns / NS_PER_S);
    let most = interval.map_or(SPAN_MAX_S, |s| {
        s.saturating_mul(ALERT_WINDOW_INTERVALS_MAX).min(SPAN_MAX_S)
    });
    if !(1..=most).contains(&window) {
        return Err(invalid(format!("a window of {window} s, and it may be 1 to {most}")).field("window_s"));
    }
    match asked == AlertFunction::RisePerHour && interval.is_none() {
        true => {
            let message = format!(
                "type {} promises no sample interval, and a rise is told by it",
                def.id()
            );
            Err(invalid(message).field("function"))
        }
        false => Ok(()),
    }
}

fn check_levels(profile: &mut AlertProfile) -> Result<()> {
    let count = profile.levels.len();
    if count == 0 || count > ALERT_LEVELS_MAX {
        let message = format!("{count} levels, and there may be 1 to {ALERT_LEVELS_MAX}");
        return Err(invalid(message).field("levels"));
    }
    let sign = if profile.below { -1.0 } else { 1.0 };
    let mut before: Option<AlertLevel> = None;
    let mut names = BTreeSet::new();
    for (at, level) in profile.levels.iter_mut().enumerate() {
        let refused = |message: String, field: &str| Err(invalid(message).field(format!("levels[{at}].{field}")));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
        let name = &level.level;
        if name.is_empty() || name.len() > LEVEL_BYTES_MAX || !name.chars().all(plain) {
            return refused(format!("level {name:?} is not [a-z0-9_.-]{{1,32}}"), "level");
        }
        if !names.insert(name.clone()) {
            return refused(format!("level {name:?} is there twice"), "level");
        }
        if !level.on.is_finite() || !level.off.is_finite() {
            return refused(format!("on {} and off {} are no thresholds", level.on, level.off), "on");
        }
        if sign * level.off > sign * level.on {
            return refused(format!("off {} lies beyond on {}", level.off, level.on), "off");
        }
        if level.severity == 0 {
            level.severity = at as u32 + 1;
        }
        if let Some(before) = &before {
            if sign * level.on <= sign * before.on {
                return refused(
                    format!(
                        "on {} does not lie beyond {}, that of {}",
                        level.on, before.on, before.level
                    ),
                    "on",
                );
            }
            if sign * level.off < sign * before.off {
                return refused(
                    format!(
                        "off {} lies short of {}, that of {}",
                        level.off, before.off, before.level
                    ),
                    "off",
                );
            }
            if level.severity <= before.severity {
                let message = format!("severity {} is not above that of {}", level.severity, before.level);
                return refused(message, "severity");
            }
        }
        before = Some(level.clone());
    }
    Ok(())
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
