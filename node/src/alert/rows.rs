//! States as alerts, and the order in which they are listed. Pure.
//!
//! Never here: values and their age, which the points tell. Invariant: a device that was asked for has a row under every profile, also
//! where nothing is known of it.

use std::collections::BTreeMap;

use tidemark_proto::peer::AlertState;
use tidemark_proto::v1::{Alert, AlertReason, AlertStep, ListAlertsRequest};

use super::state::is_of_points;
use crate::catalog::alerts::ProfileDef;

/// What a row is of.
#[derive(Copy, Clone, Debug)]
pub struct Row<'a> {
    /// The device and its type.
    pub device: &'a str,
    /// See `device`.
    pub device_type: &'a str,
    /// Id of the profile, which may be gone.
    pub profile_id: &'a str,
    /// The profile.
    pub profile: Option<&'a ProfileDef>,
    /// What is kept of it.
    pub state: Option<&'a AlertState>,
}

/// The alerts of a device under a profile that a request asks for; the one that is in force, or normal, comes first.
pub fn rows_of(request: &ListAlertsRequest, row: &Row<'_>) -> Vec<Alert> {
    let now = match request.at_ns {
        0 => row.now(),
        at_ns => row.at(at_ns),
    };
    let (began_ns, in_force) = (now.began_ns, now.rank > 0);
    let mut rows = Vec::new();
    if in_force || (request.normal && row.profile.is_some()) {
        rows.push(Alert {
            steps: match request.steps {
                true => row.steps((in_force && !request.normal).then_some(began_ns)),
                false => Vec::new(),
            },
            ..now
        });
    }
    if request.history {
        let over = row.over(in_force.then_some(began_ns), request.steps);
        let within = |t_ns: i64| t_ns != 0 && (request.from_ns..request.to_ns).contains(&t_ns);
        let all = request.from_ns == 0 && request.to_ns == 0;
        rows.extend(
            over.into_iter()
                .filter(|alert| all || within(alert.began_ns) || within(alert.ended_ns)),
        );
    }
    rows
}

/// Puts alerts in the order in which they are listed.
pub fn in_order(alerts: &mut [Alert]) {
    let class = |alert: &Alert| match alert.rank {
        0 if alert.unknown => 3,
        0 if alert.stale => 2,
        0 => 1,
        _ => 0,
    };
    alerts.sort_by(|a, b| {
        let serious = (class(a), std::cmp::Reverse(a.severity)).cmp(&(class(b), std::cmp::Reverse(b.severity)));
        let names = (&a.device, &a.profile, a.began_ns).cmp(&(&b.device, &b.profile, b.began_ns));
        serious.then(names)
    });
}

impl<'a> Row<'a> {
    fn empty(&self) -> Alert {
        Alert {
            device: self.device.to_owned(),
            device_type: self.device_type.to_owned(),
            profile: self.profile_id.to_owned(),
            ..Alert::default()
        }
    }

    fn now(&self) -> Alert {
        let Some(state) = self.state else {
            return self.empty();
        };
        Alert {
            level: state.level.clone(),
            rank: state.rank,
            severity: state.severity,
            since_ns: state.since_ns,
            raised_at_ns: state.raised_at_ns,
            began_ns: state.began_ns,
            acknowledged: state.acknowledged,
            stale: state.stale,
            worst_level: self.worst(state.began_ns).unwrap_or_else(|| state.level.clone()),
            ..self.acknowledged(state.began_ns, state.acknowledged)
        }
    }

    /// An alert that has nothing but who acknowledged it, if somebody did.
    fn acknowledged(&self, began_ns: i64, is_acknowledged: bool) -> Alert {
        let said = self.all().filter(|step| is_acknowledged && step.began_ns == began_ns);
        let last = said.filter(|step| step.reason() == AlertReason::Acknowledged).last();
        let Some(step) = last else { return self.empty() };
        Alert {
            acknowledged_by: step.by.clone(),
            acknowledged_at_ns: step.since_ns,
            acknowledged_note: step.note.clone(),
            ..self.empty()
        }
    }

    /// As it was at a time, by what is known now.
    fn at(&self, at_ns: i64) -> Alert {
        let Some(step) = self.deciding(at_ns) else {
            return self.empty();
        };
        let levels = self.profile.map_or(&[][..], |profile| &profile.stored.levels);
        let rank = levels
            .iter()
            .position(|level| level.level == step.level)
            .map_or(0, |at| at + 1);
        Alert {
            level: step.level.clone(),
            rank: rank as u32,
            severity: step.severity,
            since_ns: step.since_ns,
            raised_at_ns: step.raised_at_ns,
            began_ns: if rank > 0 { step.began_ns } else { 0 },
            worst_level: step.level.clone(),
            ..self.empty()
        }
    }

    /// The step that says which level was in force at a time. Steps under a version of the profile reach back before the change to it;
    /// those of the version before count only where these do not reach, before the change.
    fn deciding(&self, at_ns: i64) -> Option<&'a AlertStep> {
        let steps: Vec<&AlertStep> = self.valid().collect();
        let mut rest = &steps[..];
        loop {
            let changed = rest
                .iter()
                .rposition(|step| step.reason() == AlertReason::ProfileChanged);
            let of_version = &rest[changed.map_or(0, |at| at + 1)..];
            let known = of_version.iter().copied();
            let known = known.filter(|step| is_of_points(step) && step.since_ns <= at_ns);
            if let Some(step) = known.max_by_key(|step| step.since_ns) {
                return Some(step);
            }
            let change = rest[changed?];
            if change.since_ns <= at_ns {
                return Some(change);
            }
            rest = &rest[..changed?];
        }
    }

    /// Alerts that are over, the oldest first.
    fn over(&self, in_force: Option<i64>, with_steps: bool) -> Vec<Alert> {
        let mut begun: BTreeMap<i64, bool> = BTreeMap::new();
        for known in self.state.iter().flat_map(|state| &state.steps) {
            let step = known
                .step
                .as_ref()
                .filter(|step| is_of_points(step) && step.began_ns != 0);
            if let Some(step) = step.filter(|step| Some(step.began_ns) != in_force) {
                *begun.entry(step.began_ns).or_insert(true) &= known.withdrawn;
            }
        }
        let alert = |(began_ns, withdrawn): (i64, bool)| {
            let of_it = || self.all().filter(|step| step.began_ns == began_ns);
            let has = |reason: AlertReason| of_it().any(|step| step.reason() == reason);
            let ends = |step: &&AlertStep| {
                let ends = matches!(step.reason(), AlertReason::Cleared | AlertReason::ProfileChanged);
                ends && step.began_ns == began_ns
            };
            let raised = of_it().find(|step| step.reason() == AlertReason::Raised);
            let end = self.valid().filter(ends).last();
            Alert {
                began_ns,
                since_ns: end.map_or(began_ns, |end| end.since_ns),
                ended_ns: end.map_or(0, |end| end.since_ns),
                raised_at_ns: raised.map_or(0, |step| step.raised_at_ns),
                acknowledged: has(AlertReason::Acknowledged),
                closed: has(AlertReason::Closed),
                worst_level: self.worst(began_ns).unwrap_or_default(),
                withdrawn,
                steps: match with_steps {
                    true => self.steps(Some(began_ns)),
                    false => Vec::new(),
                },
                ..self.acknowledged(began_ns, true)
            }
        };
        begun.into_iter().map(alert).collect()
    }

    /// The most serious level of an alert.
    fn worst(&self, began_ns: i64) -> Option<String> {
        // What is said of steps, that one was withdrawn or a device fell silent, names levels too.
        let of_it = self
            .valid()
            .filter(|step| is_of_points(step) && step.began_ns == began_ns && !step.level.is_empty());
        of_it.max_by_key(|step| step.severity).map(|step| step.level.clone())
    }

    /// Steps of one alert, or all, as they were published.
    fn steps(&self, began_ns: Option<i64>) -> Vec<AlertStep> {
        let of_it = self
            .all()
            .filter(|step| began_ns.is_none_or(|began_ns| step.began_ns == began_ns));
        let named = of_it.map(|step| AlertStep {
            device: self.device.to_owned(),
            device_type: self.device_type.to_owned(),
            profile: self.profile_id.to_owned(),
            ..step.clone()
        });
        named.collect()
    }

    fn all(&self) -> impl Iterator<Item = &'a AlertStep> + use<'a> {
        let steps = self.state.into_iter().flat_map(|state| &state.steps);
        steps.filter_map(|known| known.step.as_ref())
    }

    /// Steps that still hold.
    fn valid(&self) -> impl Iterator<Item = &'a AlertStep> + use<'a> {
        let steps = self.state.into_iter().flat_map(|state| &state.steps);
        steps
            .filter(|known| !known.withdrawn)
            .filter_map(|known| known.step.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use tidemark_proto::peer::AlertKnown;

    use super::*;

    /// The profile was changed at noon, with an alert in force since ten and one from seven to eight.
    #[test]
    fn a_level_that_a_changed_profile_leaves_in_force_was_in_force_all_the_while() {
        use AlertReason::{Cleared, ProfileChanged, Raised};
        let step = |reason: AlertReason, since_ns: i64, level: &str| AlertKnown {
            step: Some(AlertStep {
                reason: reason as i32,
                since_ns,
                level: level.into(),
                ..AlertStep::default()
            }),
            withdrawn: false,
        };
        let before = [
            step(Raised, 7, "old"),
            step(Cleared, 8, ""),
            step(Raised, 10, "old"),
            step(ProfileChanged, 12, ""),
        ];
        let check = |behind: &[AlertKnown], expected: [&str; 6]| {
            let state = AlertState {
                steps: [&before[..], behind].concat(),
                ..AlertState::default()
            };
            let row = Row {
                device: "d",
                device_type: "t",
                profile_id: "p",
                profile: None,
                state: Some(&state),
            };
            let found = [6, 7, 9, 11, 13, 15].map(|at_ns| row.at(at_ns).level);
            assert_eq!(found, expected);
        };
        check(&[step(Raised, 10, "new")], ["", "old", "", "new", "new", "new"]);
        check(
            &[step(Raised, 10, "new"), step(Cleared, 14, "")],
            ["", "old", "", "new", "new", ""],
        );
        check(&[step(Raised, 9, "new")], ["", "old", "new", "new", "new", "new"]);
        // Under the new one there is nothing, or the profile is gone.
        check(&[], ["", "old", "", "old", "", ""]);
        check(&[step(Raised, 15, "new")], ["", "old", "", "old", "", "new"]);
        let again = [step(Raised, 10, "mid"), step(ProfileChanged, 14, "")];
        check(&again, ["", "old", "", "mid", "mid", ""]);
    }

    #[test]
    fn the_most_serious_first_and_the_unknown_last() {
        let alert = |device: &str, severity: u32, stale: bool, unknown: bool| Alert {
            device: device.into(),
            rank: severity,
            severity,
            stale,
            unknown,
            ..Alert::default()
        };
        let mut alerts = [
            alert("a", 0, false, true),
            alert("b", 0, true, false),
            alert("c", 0, false, false),
            alert("d", 2, true, false),
            alert("e", 4, false, false),
            alert("f", 2, false, false),
        ];
        in_order(&mut alerts);
        let order: String = alerts.iter().map(|alert| alert.device.as_str()).collect();
        assert_eq!(order, "edfcba");
    }
}
