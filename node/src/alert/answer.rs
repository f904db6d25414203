//! Alerts acknowledged and closed, and profiles changed: from request to answer.
//!
//! Never here: evaluation. Invariant: everything of a request is checked before anything of it is recorded; what was recorded once is not
//! recorded again.

use std::collections::BTreeMap;

use prost::Message as _;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{
    self, AlertChange, AlertChanges, AlertKnown, AlertNames, AlertState, AlertsApplied, AlertsPart, CatalogCommand,
    ShardAlerts, applied, catalog_command, shard_alerts,
};
use tidemark_proto::v1::{
    Alert, AlertName, AlertReason, AlertStep, AnswerAlertsRequest, AnswerAlertsResponse, ApplyAlertProfilesRequest,
    ApplyAlertProfilesResponse, Consistency, ListAlertProfilesResponse, ListAlertsRequest,
};

use super::evaluator::Alerts;
use super::rows::{Row, rows_of};
use super::state::{forget_old, is_of_points};
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::clock::{Instant, monotonic, now_ns};
use crate::error::{Error, Reason, Result};
use crate::limits::{ALERT_NAMES_MAX, ALERT_PROFILES_MAX, Limits};
use crate::route::{LEADERLESS_MAX, Retry, time_left};

const BY_BYTES_MAX: usize = 64;
const NOTE_BYTES_MAX: usize = 1_024;
/// So often an answer is made anew because other states were recorded meanwhile.
const TRIES: usize = 16;

impl Alerts {
    /// Creates or replaces profiles, all or none.
    pub async fn apply_profiles(&self, request: ApplyAlertProfilesRequest) -> Result<ApplyAlertProfilesResponse> {
        if request.profiles.len() > ALERT_PROFILES_MAX {
            let message = format!("{} profiles, the limit is {ALERT_PROFILES_MAX}", request.profiles.len());
            return Err(Error::new(Reason::TooManyAlertProfiles, message).field("profiles"));
        }
        let profiles = request.profiles;
        let catalog = self.router.newest_catalog(LEADERLESS_MAX).await?;
        for (at, profile) in profiles.iter().enumerate() {
            let checked = catalog.check_silence(profile);
            checked.map_err(|error| error.field(format!("profiles[{at}].stale_after_s")))?;
        }
        let apply = catalog_command::Command::ApplyAlertProfiles(peer::ApplyAlertProfiles { profiles });
        self.change_catalog(apply)
            .await?
            .profiles
            .ok_or_else(|| Error::internal("profiles were applied without an answer"))
    }

    /// Removes profiles, all or none.
    pub async fn remove_profiles(&self, ids: Vec<String>) -> Result<u32> {
        let remove = catalog_command::Command::RemoveAlertProfiles(peer::RemoveAlertProfiles { ids });
        Ok(self.change_catalog(remove).await?.removed)
    }

    /// Profiles by id; all where none is named.
    pub async fn list_profiles(&self, ids: &[String]) -> Result<ListAlertProfilesResponse> {
        let deadline = monotonic() + Limits::default().request_timeout();
        let catalog = self.router.newest_catalog(time_left(deadline)?).await?;
        let profiles = match ids.is_empty() {
            true => catalog.alert_profiles().cloned().collect(),
            false => {
                let each = ids.iter().map(|id| Ok(catalog.alert_profile(id)?.clone()));
                each.collect::<Result<_>>()?
            }
        };
        Ok(ListAlertProfilesResponse { profiles })
    }

    async fn change_catalog(&self, command: catalog_command::Command) -> Result<AlertsApplied> {
        let deadline = monotonic() + Limits::default().request_timeout();
        self.router.host().catalog()?;
        let command = CatalogCommand {
            stamp_ns: now_ns(),
            command: Some(command),
        };
        let command = command.encode_to_vec().into();
        let proposed = self.router.propose(CATALOG_GROUP, command, Retry::Safe, deadline);
        match proposed.await? {
            applied::Result::Alerts(answer) => Ok(answer),
            other => Err(Error::internal(format!("answer {other:?} to alert profiles"))),
        }
    }

    /// Acknowledges or closes alerts.
    pub async fn answer(&self, request: AnswerAlertsRequest) -> Result<AnswerAlertsResponse> {
        check(&request)?;
        let deadline = monotonic() + Limits::default().request_timeout();
        let catalog = self.router.host().catalog()?;
        let mut shards: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, name) in request.alerts.iter().enumerate() {
            shards.entry(catalog.shard_of(&name.device)).or_default().push(at);
        }
        for (shard, positions) in &shards {
            let part = self.states(*shard, &request.alerts, positions, deadline).await?;
            answered(&request, positions, part, now_ns())?;
        }
        let mut alerts = vec![Alert::default(); request.alerts.len()];
        for (shard, positions) in &shards {
            self.answer_in(*shard, &request, positions, &mut alerts, (&catalog, deadline))
                .await?;
        }
        Ok(AnswerAlertsResponse { alerts })
    }

    async fn answer_in(
        &self,
        shard: u32,
        request: &AnswerAlertsRequest,
        positions: &[usize],
        alerts: &mut [Alert],
        (catalog, deadline): (&Catalog, Instant),
    ) -> Result<()> {
        for _ in 0..TRIES {
            let now_ns = now_ns();
            let part = self.states(shard, &request.alerts, positions, deadline).await?;
            let (changes, states) = answered(request, positions, part, now_ns)?;
            let changes = AlertChanges {
                steps: changes
                    .steps
                    .into_iter()
                    .map(|step| with_type(catalog, &states, step))
                    .collect(),
                ..changes
            };
            let taken = changes.changes.is_empty() || self.propose(shard, now_ns, changes).await?;
            if taken {
                for at in positions {
                    alerts[*at] = as_it_is(catalog, &request.alerts[*at], &states);
                }
                return Ok(());
            }
        }
        let message = format!("alerts of shard {shard} change faster than they can be answered");
        Err(Error::new(Reason::Overloaded, message))
    }

    async fn states(
        &self,
        shard: u32,
        names: &[AlertName],
        positions: &[usize],
        deadline: Instant,
    ) -> Result<AlertsPart> {
        let alerts = positions.iter().map(|at| names[*at].clone()).collect();
        let query = Query::Alerts(ShardAlerts {
            question: Some(shard_alerts::Question::States(AlertNames { alerts })),
        });
        let consistency = Consistency::default();
        let mut answer = self
            .router
            .read(shard, query, &consistency, &self.job, &self.router.own_asker(deadline))
            .await?;
        let mut found = None;
        while let Some(together) = answer.recv().await {
            for part in together? {
                if let Part::Alerts(part) = part {
                    found = Some(part);
                }
            }
        }
        found.ok_or_else(|| Error::new(Reason::Unreachable, format!("shard {shard} broke off its answer")))
    }
}

/// A state by device and profile.
type States = BTreeMap<(String, String), AlertChange>;

fn check(request: &AnswerAlertsRequest) -> Result<()> {
    let refused = |message: String, field: &str| Err(Error::new(Reason::InvalidValue, message).field(field));
    let count = request.alerts.len();
    if count == 0 || count > ALERT_NAMES_MAX {
        return refused(
            format!("{count} alerts, and it may be 1 to {ALERT_NAMES_MAX}"),
            "alerts",
        );
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:@-".contains(c);
    if request.by.is_empty() || request.by.len() > BY_BYTES_MAX || !request.by.chars().all(plain) {
        return refused(format!("{:?} is not [A-Za-z0-9._:@-]{{1,64}}", request.by), "by");
    }
    match request.note.len() > NOTE_BYTES_MAX {
        true => refused(
            format!("a note of {} bytes, the limit is {NOTE_BYTES_MAX}", request.note.len()),
            "note",
        ),
        false => Ok(()),
    }
}

/// What a request makes of the states of a shard.
fn answered(
    request: &AnswerAlertsRequest,
    positions: &[usize],
    part: AlertsPart,
    now_ns: i64,
) -> Result<(AlertChanges, States)> {
    let mut states = States::new();
    let mut steps = Vec::new();
    let mut touched = Vec::new();
    for (at, found) in positions.iter().zip(part.states) {
        let name = &request.alerts[*at];
        let key = (name.device.clone(), name.profile.clone());
        let change = states.entry(key.clone()).or_insert(found);
        let unknown = || {
            let message = format!(
                "no alert of {} under {} that began at {}",
                name.device, name.profile, name.began_ns
            );
            Error::new(Reason::UnknownAlert, message)
                .field(format!("alerts[{at}]"))
                .hint("tidemark alert list --history")
        };
        let state = change.state.as_mut().ok_or_else(unknown)?;
        let step =
            changed(state, name.began_ns, request, now_ns).map_err(|error| error.field(format!("alerts[{at}]")))?;
        if let Some(step) = step.ok_or_else(unknown)? {
            steps.push(AlertStep {
                device: name.device.clone(),
                profile: name.profile.clone(),
                ..step
            });
            touched.push(key);
        }
    }
    let changes = states.iter().filter(|(key, _)| touched.contains(key));
    let changes = AlertChanges {
        base: part.base,
        changes: changes.map(|(_, change)| change.clone()).collect(),
        steps,
    };
    Ok((changes, states))
}

/// Acknowledges or closes an alert in a state: the step, if that was not done before; `None` where there is no such alert.
fn changed(
    state: &mut AlertState,
    began_ns: i64,
    request: &AnswerAlertsRequest,
    now_ns: i64,
) -> Result<Option<Option<AlertStep>>> {
    let in_force = state.rank > 0 && state.began_ns == began_ns;
    let of_it = || {
        let steps = state.steps.iter().filter_map(|known| known.step.as_ref());
        steps.filter(|step| step.began_ns == began_ns)
    };
    if began_ns == 0 || !(in_force || of_it().any(is_of_points)) {
        return Ok(None);
    }
    if request.close && in_force {
        let message = format!("the alert is in force, at level {}", state.level);
        return Err(Error::new(Reason::AlertInForce, message).hint("acknowledge it; it can be closed once it is over"));
    }
    let reason = match request.close {
        true => AlertReason::Closed,
        false => AlertReason::Acknowledged,
    };
    let done = match (request.close, in_force) {
        (false, true) => state.acknowledged,
        _ => of_it().any(|step| step.reason() == reason),
    };
    if done {
        return Ok(Some(None));
    }
    let level = if in_force { state.level.clone() } else { String::new() };
    let step = AlertStep {
        level_before: level.clone(),
        level,
        reason: reason as i32,
        since_ns: now_ns,
        raised_at_ns: now_ns,
        stale: state.stale,
        by: request.by.clone(),
        note: request.note.clone(),
        began_ns,
        severity: if in_force { state.severity } else { 0 },
        ..AlertStep::default()
    };
    state.acknowledged |= in_force;
    state.steps.push(AlertKnown {
        step: Some(step.clone()),
        withdrawn: false,
    });
    forget_old(state);
    Ok(Some(Some(step)))
}

fn with_type(catalog: &Catalog, states: &States, step: AlertStep) -> AlertStep {
    let state = states.get(&(step.device.clone(), step.profile.clone()));
    let def = state.and_then(|state| catalog.type_by_number(state.type_number));
    AlertStep {
        device_type: def.map_or_else(String::new, |def| def.id().to_owned()),
        ..step
    }
}

/// The alert of a name.
fn as_it_is(catalog: &Catalog, name: &AlertName, states: &States) -> Alert {
    let found = states.get(&(name.device.clone(), name.profile.clone()));
    let type_number = found.map_or(0, |found| found.type_number);
    let def = catalog.type_by_number(type_number);
    let profiles = catalog.alerts_of_type(type_number).iter();
    let row = Row {
        device: &name.device,
        device_type: def.map_or("", |def| def.id()),
        profile_id: &name.profile,
        profile: profiles
            .into_iter()
            .find(|profile| profile.stored.id == name.profile)
            .map(AsRef::as_ref),
        state: found.and_then(|found| found.state.as_ref()),
    };
    let all = ListAlertsRequest {
        history: true,
        steps: true,
        ..ListAlertsRequest::default()
    };
    let mut rows = rows_of(&all, &row).into_iter();
    rows.find(|alert| alert.began_ns == name.began_ns).unwrap_or_default()
}
