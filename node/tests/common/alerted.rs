//! Levels of alerts told from the list of all points that count, by the words of the contract and nothing of the store.
//! Never here: which points count (see `judged`), sending, asking. Invariant: every step looks at the whole list before it.

use std::collections::BTreeMap;

use tidemark_client::v1;
use v1::{AlertFunction, AlertReason};

use super::fleet::*;

/// What is compared with levels: of which time, how much, and whether nothing is missing in its window.
pub(crate) type Measured = (i64, f64, bool);

/// A step between levels; levels count from 1, 0 is normal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stepped {
    pub(crate) t_ns: i64,
    pub(crate) before: usize,
    pub(crate) level: usize,
    pub(crate) began_ns: i64,
    pub(crate) value: f64,
}

impl Stepped {
    pub(crate) fn reason(&self) -> AlertReason {
        match self.level {
            0 => AlertReason::Cleared,
            level if level > self.before => AlertReason::Raised,
            _ => AlertReason::Lowered,
        }
    }
}

/// What of points that count is compared with the levels of a profile.
pub(crate) fn measured(profile: &v1::AlertProfile, interval_ns: i64, points: &[(i64, f64)]) -> Vec<Measured> {
    let window_ns = profile.window_s * S;
    let one = |(at, (t, value)): (usize, &(i64, f64))| {
        let within: Vec<(i64, f64)> = points[..=at]
            .iter()
            .copied()
            .filter(|(u, _)| *u > t - window_ns)
            .collect();
        let values = || within.iter().map(|(_, value)| *value);
        let slots: std::collections::BTreeSet<i64> = within.iter().map(|(u, _)| (t - u) / interval_ns).collect();
        let whole = slots.len() as f64 * interval_ns as f64 >= 0.9 * window_ns as f64;
        match profile.function() {
            AlertFunction::Last => Some((*t, *value, true)),
            AlertFunction::RisePerHour => {
                let (u, before) = points.iter().rev().find(|(u, _)| *u <= t - window_ns)?;
                let near = *u >= t - window_ns - interval_ns;
                let hours = (t - u) as f64 / S as f64 / 3_600.0;
                near.then(|| (*t, (value - before) / hours, true))
            }
            AlertFunction::Sum => Some((*t, values().sum(), whole)),
            AlertFunction::Avg => Some((*t, values().sum::<f64>() / within.len() as f64, whole)),
            AlertFunction::Min => Some((*t, values().fold(f64::INFINITY, f64::min), whole)),
            AlertFunction::Max => Some((*t, values().fold(f64::NEG_INFINITY, f64::max), whole)),
            AlertFunction::Unspecified => panic!("no function"),
        }
    };
    points.iter().enumerate().filter_map(one).collect()
}

/// After which silence a level is held, and nobody knows it.
pub(crate) fn stale_after_ns(profile: &v1::AlertProfile, interval_ns: i64) -> i64 {
    match profile.stale_after_s {
        0 => 3 * interval_ns,
        s => s * S,
    }
}

/// How long after the newest point it is told: with the first sample after that silence.
pub(crate) fn silent_after_ns(profile: &v1::AlertProfile, interval_ns: i64) -> i64 {
    let mut samples = (1..).map(|missing| missing * interval_ns);
    let young_ns = stale_after_ns(profile, interval_ns);
    samples.find(|age_ns| *age_ns > young_ns).unwrap()
}

/// The steps of a device under a profile.
pub(crate) fn steps(profile: &v1::AlertProfile, interval_ns: i64, values: &[Measured]) -> Vec<Stepped> {
    let sign = if profile.below { -1.0 } else { 1.0 };
    let reaches_on = |level: usize, value: f64| sign * value >= sign * profile.levels[level - 1].on;
    let reaches_off = |level: usize, value: f64| sign * value >= sign * profile.levels[level - 1].off;
    let (hold_ns, silence_ns) = (profile.hold_s * S, stale_after_ns(profile, interval_ns));
    let (mut level, mut began_ns) = (0, 0);
    let mut steps = Vec::new();
    // A sum of less than all points may be more: that it is low says nothing.
    let sums_down = profile.below && profile.function() == AlertFunction::Sum;
    let values: Vec<Measured> = values
        .iter()
        .copied()
        .filter(|(.., whole)| *whole || !sums_down)
        .collect();
    for (at, (t, value, whole)) in values.iter().enumerate() {
        let raised = (level + 1..=profile.levels.len())
            .rev()
            .find(|up| reaches_on(*up, *value));
        let next = match raised {
            Some(up) => up,
            None if level == 0 || reaches_off(level, *value) || !whole => continue,
            None => {
                // Back to the first of the values that were all short of `off`, one soon after the other.
                let mut since = *t;
                for (u, before, whole) in values[..at].iter().rev() {
                    match reaches_off(level, *before) {
                        false if !whole => {}
                        false if since - u <= silence_ns => since = *u,
                        _ => break,
                    }
                }
                if t - since < hold_ns {
                    continue;
                }
                (1..level).rev().find(|down| reaches_off(*down, *value)).unwrap_or(0)
            }
        };
        if level == 0 {
            began_ns = *t;
        }
        steps.push(Stepped {
            t_ns: *t,
            before: level,
            level: next,
            began_ns,
            value: *value,
        });
        level = next;
    }
    steps
}

/// Steps that were published and hold: those that were withdrawn are out, by time.
pub(crate) fn standing(published: &[v1::AlertStep]) -> Vec<v1::AlertStep> {
    let names = |step: &v1::AlertStep| {
        (
            step.since_ns,
            step.began_ns,
            step.level.clone(),
            step.level_before.clone(),
        )
    };
    let mut standing: Vec<v1::AlertStep> = Vec::new();
    for step in published {
        match step.reason() {
            AlertReason::Raised | AlertReason::Lowered | AlertReason::Cleared => standing.push(step.clone()),
            AlertReason::Withdrawn => {
                let known = standing.iter().position(|known| names(known) == names(step));
                standing.remove(known.unwrap_or_else(|| panic!("{step:?} was never published: {published:?}")));
            }
            _ => {}
        }
    }
    standing.sort_by_key(|step| step.since_ns);
    standing
}

/// Alerts that are over: when each began and ended, and the highest level it had.
pub(crate) fn over(steps: &[Stepped]) -> Vec<(i64, i64, usize)> {
    let mut alerts: BTreeMap<i64, (i64, usize)> = BTreeMap::new();
    for step in steps {
        let alert = alerts.entry(step.began_ns).or_default();
        alert.1 = alert.1.max(step.level);
        if step.level == 0 {
            alert.0 = step.t_ns;
        }
    }
    let ended = alerts.into_iter().filter(|(_, (ended, _))| *ended != 0);
    ended.map(|(began, (ended, worst))| (began, ended, worst)).collect()
}
