//! Alerts of devices: both sides of the question.
//!
//! Never here: levels (see `crate::alert`). Invariant: the answer is in one order over all shards, and a limit cuts it behind the most serious.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{AlertChange, AlertNames, AlertState, AlertsPart, ShardAlerts, shard_alerts::Question};
use tidemark_proto::v1::{Alert, AnswerSummary, ListAlertsRequest, ListAlertsResponse};

use super::asked::Asked;
use super::plan::check_range;
use super::series::check_budget;
use super::shard_side::{Answering, Chosen, Wanted};
use super::streams::{Answers, Queries, Reads, unexpected};
use super::tally::HeldFor;
use super::terms::{Caller, HasTerms as _};
use crate::alert::{Looked, Row, before, in_order, marks, replay, rows_of};
use crate::catalog::alerts::ProfileDef;
use crate::clock::{NS_PER_MS, now_ns};
use crate::error::{Error, Reason, Result};
use crate::raft::state::store_error;

const ALERTS_PER_PART: usize = 256;
/// Names of states of a device that are looked at: as many as there can be profiles, twice.
const NAMES_MAX: usize = 2 * crate::limits::ALERT_PROFILES_MAX;

/// Answers one shard's part.
pub(super) fn answer(answering: &Answering<'_>, request: &ShardAlerts, asked: &Asked) -> Result<AnswerSummary> {
    match &request.question {
        Some(Question::List(request)) => list(answering, request, asked),
        Some(Question::States(names)) => states(answering, names),
        None => Err(Error::internal("a question about alerts that asks nothing")),
    }
}

fn states(answering: &Answering<'_>, names: &AlertNames) -> Result<AnswerSummary> {
    let ids: Vec<&str> = names.alerts.iter().map(|name| name.device.as_str()).collect();
    let known = answering.shard.resolve(&ids).map_err(store_error)?;
    let mut found = Vec::with_capacity(ids.len());
    for (at, (name, known)) in names.alerts.iter().zip(known).enumerate() {
        let unknown = || {
            let message = format!("no device {:?}", name.device);
            Error::new(Reason::UnknownDevice, message).field(format!("alerts[{at}].device"))
        };
        let (type_number, ordinal) = known.ok_or_else(unknown)?;
        found.push((type_number, ordinal, name.profile.as_str()));
    }
    let read = answering
        .shard
        .alert_states(found.iter().copied())
        .map_err(store_error)?;
    let states = found
        .iter()
        .zip(read.states)
        .map(|((type_number, ordinal, profile), state)| AlertChange {
            type_number: *type_number,
            ordinal: *ordinal,
            profile: (*profile).to_owned(),
            state,
        });
    let part = AlertsPart {
        states: states.collect(),
        base: read.base,
        ..AlertsPart::default()
    };
    let _ = answering.send(Part::Alerts(part));
    Ok(AnswerSummary::default())
}

fn list(answering: &Answering<'_>, request: &ListAlertsRequest, asked: &Asked) -> Result<AnswerSummary> {
    let mut looking = Looking {
        answering,
        request,
        now_ns: now_ns(),
        alerts: Vec::new(),
        bytes: 0,
    };
    let selector = request.selector.clone().unwrap_or_default();
    let mut summary = AnswerSummary::default();
    let mut devices_seen = 0;
    let visited = answering.each_run(&selector, Wanted::Nothing, |devices| {
        devices_seen += devices.len() as u64;
        looking.run(devices)?;
        Ok(ControlFlow::Continue(()))
    });
    let _ = answering.ended(visited, asked, &mut summary)?;
    summary.devices = devices_seen;
    let mut alerts = looking.alerts;
    summary.limited = cut(&mut alerts, request);
    while !alerts.is_empty() {
        let rest = alerts.split_off(alerts.len().min(ALERTS_PER_PART));
        let part = AlertsPart {
            alerts: std::mem::replace(&mut alerts, rest),
            ..AlertsPart::default()
        };
        if answering.send(Part::Alerts(part)).is_break() {
            break;
        }
    }
    Ok(summary)
}

/// Orders alerts and leaves out what is not asked for; says whether the limit did.
fn cut(alerts: &mut Vec<Alert>, request: &ListAlertsRequest) -> bool {
    in_order(alerts);
    if request.by_device {
        let mut seen = BTreeSet::new();
        alerts.retain(|alert| seen.insert(alert.device.clone()));
    }
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let limited = limit > 0 && alerts.len() > limit;
    if limited {
        alerts.truncate(limit);
    }
    limited
}

struct Looking<'a> {
    answering: &'a Answering<'a>,
    request: &'a ListAlertsRequest,
    now_ns: i64,
    alerts: Vec<Alert>,
    bytes: usize,
}

impl Looking<'_> {
    /// Devices of one type.
    fn run(&mut self, devices: &[Chosen]) -> Result<()> {
        let Some(def) = devices.first().map(|first| first.def.clone()) else {
            return Ok(());
        };
        let wanted = |id: &String| self.request.profiles.is_empty() || self.request.profiles.contains(id);
        let of_type = self.answering.catalog.alerts_of_type(def.number()).iter();
        let profiles: Vec<&ProfileDef> = of_type
            .map(AsRef::as_ref)
            .filter(|profile| wanted(&profile.stored.id))
            .collect();
        if self.request.at_ns != 0 {
            let at = (self.request.at_ns, self.request.at_ns.saturating_add(1));
            self.answering.concerned.note(&def, at, 0);
        }
        for chosen in devices {
            self.answering.listened_to()?;
            let ids = profiles.iter().map(|profile| profile.stored.id.as_str());
            let names = ids.map(|id| (def.number(), chosen.ordinal(), id));
            let states = self.answering.shard.alert_states(names).map_err(store_error)?.states;
            for (profile, state) in profiles.iter().zip(&states) {
                let row = Row {
                    device: chosen.id(),
                    device_type: def.id(),
                    profile_id: &profile.stored.id,
                    profile: Some(profile),
                    state: state.as_ref(),
                };
                self.take(&row, chosen)?;
            }
            if self.request.history {
                self.gone(chosen, &profiles)?;
            }
        }
        self.answering.tally.hold(HeldFor::Later, self.bytes)
    }

    /// Alerts of a device under profiles that are gone.
    fn gone(&mut self, chosen: &Chosen, known: &[&ProfileDef]) -> Result<()> {
        let (type_number, ordinal) = (chosen.def.number(), chosen.ordinal());
        let first = (type_number, ordinal, String::new());
        let names = self
            .answering
            .shard
            .alert_names(Some(&first), NAMES_MAX)
            .map_err(store_error)?;
        let of_device = names
            .into_iter()
            .take_while(|name| (name.0, name.1) == (type_number, ordinal));
        for (.., id) in of_device {
            let wanted = self.request.profiles.is_empty() || self.request.profiles.contains(&id);
            if !wanted || known.iter().any(|profile| profile.stored.id == id) {
                continue;
            }
            let name = (type_number, ordinal, id.as_str());
            let mut states = self.answering.shard.alert_states([name]).map_err(store_error)?.states;
            let state = states.pop().flatten();
            let row = Row {
                device: chosen.id(),
                device_type: chosen.def.id(),
                profile_id: &id,
                profile: None,
                state: state.as_ref(),
            };
            self.take(&row, chosen)?;
        }
        Ok(())
    }

    fn take(&mut self, row: &Row<'_>, chosen: &Chosen) -> Result<()> {
        let mut alerts = rows_of(self.request, row);
        for alert in &mut alerts {
            let is_now = alert.rank > 0 || alert.began_ns == 0;
            if let Some(profile) = row.profile.filter(|_| is_now) {
                self.look_at_points(alert, profile, chosen, row.state)?;
            }
            self.bytes += alert.encoded_len();
        }
        self.alerts.extend(alerts);
        Ok(())
    }

    /// The newest value that counts, and how old it is.
    fn look_at_points(
        &self,
        alert: &mut Alert,
        profile: &ProfileDef,
        chosen: &Chosen,
        state: Option<&AlertState>,
    ) -> Result<()> {
        let (at_ns, until_ns) = match self.request.at_ns {
            0 => (self.now_ns, i64::MAX),
            at_ns => (at_ns, at_ns.saturating_add(1)),
        };
        let (shard, ordinal) = (self.answering.shard, chosen.ordinal());
        let mut known = state.map_or_else(Vec::new, |state| marks(state, profile));
        known.retain(|mark| mark.settled_by_ns < until_ns);
        if known.is_empty() {
            let newest = shard.newest(profile.def.number(), &[ordinal]).map_err(store_error)?;
            let of_property = newest.iter().flat_map(|values| values.iter());
            let of_property = of_property.filter(|value| value.property == profile.property);
            let newest = of_property.map(|value| value.observed_at).max();
            known = before(profile, newest.unwrap_or(at_ns).min(at_ns));
        }
        let looked = |looked: Looked| match looked {
            Looked::Bucket(value) => self.answering.read(value),
            Looked::Block(points) => self.answering.tally.block(points),
        };
        let (outcome, _) = replay(shard, profile, ordinal, known, (until_ns, until_ns), looked)?;
        let Some((observed_at_ns, value)) = outcome.newest else {
            (alert.unknown, alert.stale) = (true, false);
            return Ok(());
        };
        let age_ns = at_ns.saturating_sub(observed_at_ns).max(0);
        alert.value = value;
        alert.observed_at_ns = observed_at_ns;
        alert.age_ms = age_ns / NS_PER_MS;
        alert.stale = profile.stale_after_ns.is_some_and(|after_ns| age_ns > after_ns);
        Ok(())
    }
}

impl Queries {
    /// Alerts of devices.
    pub async fn alerts(&self, request: ListAlertsRequest, caller: &Caller) -> Result<Answers<ListAlertsResponse>> {
        check_range(request.from_ns, request.to_ns)?;
        let start = self
            .begin(
                caller,
                Reads::More,
                request.selector.as_ref(),
                true,
                request.consistency.as_ref(),
            )
            .await?
            .on(request.terms(caller))?;
        for (at, id) in request.profiles.iter().enumerate().filter(|_| !request.history) {
            let known = start.catalog().alert_profile(id);
            known.map_err(|error| error.field(format!("profiles[{at}]")))?;
        }
        let evaluated_at_ns = match request.at_ns {
            0 => now_ns(),
            at_ns => at_ns,
        };
        let held = Arc::new(Mutex::new((Vec::new(), 0_usize)));
        let (taking, most, mut holding) = (held.clone(), self.limits().partials_bytes_max, start.held());
        let asked = request.clone();
        let ask = move |selector, _| {
            Query::Alerts(ShardAlerts {
                question: Some(Question::List(ListAlertsRequest {
                    selector: Some(selector),
                    ..asked.clone()
                })),
            })
        };
        let translate = move |parts: Vec<Part>| {
            let mut held = taking.lock().unwrap_or_else(PoisonError::into_inner);
            for part in parts {
                let Part::Alerts(part) = part else {
                    return Err(unexpected(&part));
                };
                held.1 += part.encoded_len();
                held.0.extend(part.alerts);
            }
            holding.is_now(held.1)?;
            check_budget(held.1, most)?;
            Ok((0, Vec::new()))
        };
        let message = move |alerts: Vec<Alert>, summary| ListAlertsResponse {
            alerts,
            evaluated_at_ns,
            summary,
        };
        let finish = move |summary: &mut AnswerSummary| {
            let mut alerts = std::mem::take(&mut held.lock().unwrap_or_else(PoisonError::into_inner).0);
            summary.limited |= cut(&mut alerts, &request);
            summary.rows = alerts.len() as u64;
            let some = alerts.chunks(ALERTS_PER_PART);
            Ok(some.map(|some| message(some.to_vec(), None)).collect())
        };
        let last = move |summary| message(Vec::new(), Some(summary));
        Ok(start.stream(0, ask, translate, finish, last).await)
    }
}
