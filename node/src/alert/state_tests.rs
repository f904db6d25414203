//! What evaluations make of the states of one device: steps that are forgotten, marks that hold, silence.
//! Never here: when levels begin (see `tidemark_series`). Invariant: each evaluation goes on from what the one before recorded, as a leader
//! does.

#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::Arc;

use tidemark_proto::v1::{self, AlertLevel, AlertProfile, DeviceType, Property};
use tidemark_series::PropertyNumber;
use tidemark_series::alert::{AlertFunction, Level, Replay, Rule, Stated};
use tidemark_series::checks::Checks;

use super::super::read::before;
use super::*;
use crate::catalog::types::TypeDef;
use crate::clock::{NS_PER_DAY, NS_PER_S};

const MIN: i64 = 60_000_000_000;
/// 2024-06-20 at UTC+8.
const T0: i64 = 1_718_812_800_000_000_000;
const NOBODY: Stated = Stated {
    discounts: |_| false,
    suspects: |_| false,
};

/// One level, which is entered at 5 and left at once, or after `hold` minutes, below it.
fn profile(version: u32, hold: i64) -> ProfileDef {
    let depth = Property {
        id: "depth".into(),
        number: 1,
        kind: v1::Kind::Gauge.into(),
        value_type: v1::ValueType::F64.into(),
        ..Property::default()
    };
    let gauge = DeviceType {
        id: "gauge".into(),
        number: 1,
        properties: vec![depth],
        ..DeviceType::default()
    };
    let high = AlertLevel {
        level: "high".into(),
        on: 5.0,
        off: 5.0,
        severity: 1,
    };
    ProfileDef {
        stored: AlertProfile {
            id: "p".into(),
            version,
            levels: vec![high],
            ..AlertProfile::default()
        },
        def: Arc::new(TypeDef::new(gauge).unwrap()),
        property: PropertyNumber(1),
        rule: Rule {
            function: AlertFunction::Last,
            window_ns: 0,
            interval_ns: MIN,
            hold_ns: hold * MIN,
            silence_ns: None,
            accept_suspect: false,
            below: false,
            levels: vec![Level { on: 5.0, off: 5.0 }],
        },
        stale_after_ns: None,
        lookback_ns: ALERT_LOOKBACK_NS,
    }
}

/// A device: its points by minute, and what is kept of it.
#[derive(Default)]
struct Device {
    points: BTreeMap<i64, f64>,
    state: Option<AlertState>,
    evaluations: i64,
}

impl Device {
    /// Evaluates it after points from a minute on have changed; `None` where nothing is to be recorded.
    fn evaluate(&mut self, profile: &ProfileDef, changed: i64) -> Option<Vec<AlertStep>> {
        let newest_ns = T0 + self.points.keys().next_back().unwrap() * MIN;
        let mut known = self.state.as_ref().map_or_else(Vec::new, |state| marks(state, profile));
        if known.is_empty() {
            known = before(profile, newest_ns);
        }
        let checks = Checks::default();
        let changed_ns = T0.saturating_add(changed.saturating_mul(MIN));
        let mut replay = Replay::new(&profile.rule, (&checks, NOBODY), known, changed_ns, profile.lookback_ns);
        let (begun_ns, from_ns) = (replay.begun_ns(), replay.read_from_ns());
        for (minute, value) in &self.points {
            if T0 + minute * MIN >= from_ns {
                replay.point(T0 + minute * MIN, *value, 0);
            }
        }
        self.evaluations += 1;
        let now_ns = newest_ns + self.evaluations;
        let changed = update(profile, self.state.clone(), replay.finish(), begun_ns, now_ns)?;
        self.state = Some(changed.state);
        Some(changed.steps)
    }

    /// Takes points, and evaluates as the leader does that has seen them come; gives "minute reason" of each new step.
    fn take(&mut self, profile: &ProfileDef, points: impl IntoIterator<Item = (i64, f64)>) -> Vec<String> {
        let points: BTreeMap<i64, f64> = points.into_iter().collect();
        let from = *points.keys().next().unwrap();
        self.points.extend(points);
        said(&self.evaluate(profile, from).unwrap_or_default())
    }

    /// Evaluates as a new leader does, which has seen nothing.
    fn anew(&mut self, profile: &ProfileDef) -> Vec<String> {
        said(&self.evaluate(profile, i64::MIN).unwrap_or_default())
    }

    fn state(&self) -> &AlertState {
        self.state.as_ref().unwrap()
    }
}

fn said(steps: &[AlertStep]) -> Vec<String> {
    let minute = |step: &AlertStep| (step.since_ns - T0).div_euclid(MIN);
    let each = steps.iter().map(|step| match step.reason() {
        AlertReason::ProfileChanged => "changed".to_owned(),
        reason => format!("{} {}", minute(step), format!("{reason:?}").to_lowercase()),
    });
    each.collect()
}

/// High in every other minute.
fn flapping(minutes: std::ops::Range<i64>) -> impl Iterator<Item = (i64, f64)> {
    let first = minutes.start;
    minutes.map(move |minute| (minute, if (minute - first) % 2 == 0 { 9.0 } else { 0.0 }))
}

#[test]
fn what_a_changed_profile_leaves_in_force_is_told_however_much_was_said_before() {
    let mut device = Device::default();
    assert_eq!(device.take(&profile(1, 0), flapping(0..200)).len(), 200);
    assert_eq!(device.state().steps.len(), ALERT_STEPS_MAX);
    // With an hour to wait it has been high since the first minute.
    let calm = profile(2, 60);
    assert_eq!(device.anew(&calm), ["changed", "0 raised"]);
    let raised = &device.state().steps.last().unwrap().step;
    assert_eq!(
        raised.as_ref().map(|step| step.raised_at_ns),
        Some(device.state().raised_at_ns)
    );
    assert!(device.state().raised_at_ns > 0);
    assert_eq!(device.anew(&calm), [""; 0]);
}

#[test]
fn what_was_forgotten_is_not_told_again_whatever_came_late_meanwhile() {
    let (profile, mut device) = (profile(1, 0), Device::default());
    device.points.insert(-100, 0.0);
    assert_eq!(device.take(&profile, flapping(100..226)).len(), 126);
    assert_eq!(
        device.take(&profile, [(10, 9.0), (11, 0.0)]),
        ["10 raised", "11 cleared"]
    );
    assert_eq!(device.take(&profile, flapping(226..228)), ["226 raised", "227 cleared"]);
    assert_eq!(
        device.anew(&profile),
        [""; 0],
        "that of minute 100 was told, and is forgotten"
    );
    assert_eq!(device.state().forgotten_ns, Some(T0 + 101 * MIN));
    // A state of before does not say what was forgotten: the first one that is left does.
    device.state.as_mut().unwrap().forgotten_ns = None;
    assert_eq!(device.anew(&profile), [""; 0]);
    // One that is full and has forgotten nothing hears of what came late.
    let mut full = Device::default();
    full.points.insert(-100, 0.0);
    assert_eq!(full.take(&profile, flapping(100..228)).len(), ALERT_STEPS_MAX);
    assert_eq!(full.take(&profile, [(10, 9.0), (11, 0.0)]), ["10 raised", "11 cleared"]);
}

#[test]
fn nothing_is_recorded_where_nothing_changed_however_much_is_read() {
    let (profile, mut device) = (profile(1, 0), Device::default());
    assert_eq!(device.take(&profile, (0..2_000).map(|minute| (minute, 1.0))), [""; 0]);
    assert!(device.state.is_some(), "the first time");
    assert!(device.evaluate(&profile, i64::MIN).is_none());
    let few = (2_000..2_200).map(|minute| (minute, 1.0));
    device.points.extend(few);
    assert!(device.evaluate(&profile, 2_000).is_none());
    assert!(device.evaluate(&profile, i64::MIN).is_none());
    device.points.extend((2_200..2_300).map(|minute| (minute, 1.0)));
    assert!(device.evaluate(&profile, 2_200).is_some(), "it lags too far behind");
    assert!(device.evaluate(&profile, i64::MIN).is_none());
}

#[test]
fn a_late_point_that_takes_no_step_moves_the_time_that_a_level_is_held() {
    let (profile, mut device) = (profile(1, 10), Device::default());
    let points = [(0, 0.0), (5, 9.0), (10, 1.0), (14, 1.0)];
    assert_eq!(device.take(&profile, points), ["5 raised"]);
    assert_eq!(device.take(&profile, [(10, 5.0)]), [""; 0], "below since minute 14");
    assert_eq!(device.take(&profile, [(20, 1.0)]), [""; 0]);
    assert_eq!(device.take(&profile, [(24, 1.0)]), ["24 cleared"]);
}

#[test]
fn silence_is_told_however_long_it_takes_to_be_one() {
    let check = |after_days: i64, days: i64, expected: &[&str]| {
        let promised = ProfileDef {
            stale_after_ns: Some(after_days * NS_PER_DAY),
            ..profile(1, 0)
        };
        let newest_ns = T0 + 5 * MIN;
        let mut device = Device::default();
        device.take(&promised, [(5, 9.0)]);
        let silent_at = |now_ns: i64| silent_at(&promised, Some((newest_ns, 9.0)), now_ns);
        // The first sample that is missing when the newest one is older than that.
        assert_eq!(silent_at(newest_ns), Some(newest_ns + after_days * NS_PER_DAY + MIN));
        let now_ns = newest_ns + days * NS_PER_DAY + MIN + 1;
        assert_eq!(
            silent_at(now_ns).is_some(),
            days < after_days + 7,
            "{after_days} {days}"
        );
        let state = device.state.take();
        let known = marks(state.as_ref().unwrap(), &promised);
        let checks = Checks::default();
        let mut replay = Replay::new(&promised.rule, (&checks, NOBODY), known, i64::MAX, i64::MAX);
        let begun_ns = replay.begun_ns();
        replay.point(newest_ns, 9.0, 0);
        let changed = update(&promised, state, replay.finish(), begun_ns, now_ns);
        let reasons = changed.map_or_else(Vec::new, |changed| changed.steps);
        let reasons: Vec<_> = reasons.iter().map(|step| format!("{:?}", step.reason())).collect();
        assert_eq!(reasons, expected, "{days} days, silent after {after_days}");
    };
    check(1, 0, &[]);
    check(1, 1, &["Stale"]);
    check(1, 8, &[]);
    check(8, 7, &[]);
    check(8, 8, &["Stale"]);
    check(31, 32, &["Stale"]);
}

#[test]
fn silence_begins_with_the_first_sample_that_is_missing() {
    // Silent after so many seconds, one sample in so many; each look by seconds behind the newest point, and what it says: seconds again.
    let check = |after_s: i64, interval_s: i64, looks: &[(i64, &str)]| {
        let mut promised = profile(1, 0);
        promised.stale_after_ns = Some(after_s * NS_PER_S);
        promised.rule.interval_ns = interval_s * NS_PER_S;
        let (mut state, mut due_ns) = (None, None);
        for (age_s, expected) in looks {
            let known = state.as_ref().map_or_else(Vec::new, |state| marks(state, &promised));
            let known = if known.is_empty() { before(&promised, T0) } else { known };
            let checks = Checks::default();
            let mut replay = Replay::new(&promised.rule, (&checks, NOBODY), known, i64::MAX, i64::MAX);
            let begun_ns = replay.begun_ns();
            replay.point(T0, 1.0, 0);
            let now_ns = T0 + age_s * NS_PER_S;
            let changed = update(&promised, state.clone(), replay.finish(), begun_ns, now_ns);
            let steps = changed.as_ref().map_or(&[][..], |changed| changed.steps.as_slice());
            let steps = steps
                .iter()
                .map(|step| format!("{:?} {}", step.reason(), (step.since_ns - T0) / NS_PER_S));
            assert_eq!(steps.collect::<String>(), *expected, "{after_s} {interval_s} {age_s}");
            state = changed.map(|changed| changed.state).or(state);
            due_ns = silent_at(&promised, Some((T0, 1.0)), T0);
        }
        (due_ns.unwrap() - T0) as f64 / NS_PER_S as f64
    };
    let story = [(1_800, ""), (1_801, ""), (2_099, ""), (2_100, "Stale 2100")];
    assert_eq!(check(1_800, 300, &story), 2_100.0);
    assert_eq!(check(1_801, 300, &[(2_099, ""), (2_100, "Stale 2100")]), 2_100.0);
    assert_eq!(check(1_799, 300, &[(1_799, ""), (1_800, "Stale 1800")]), 1_800.0);
    assert_eq!(
        check(100, 300, &[(299, ""), (300, "Stale 300")]),
        300.0,
        "and never between two samples"
    );
    // Whoever looks later says the same of when it began.
    assert_eq!(check(1_800, 300, &[(9_000, "Stale 2100"), (9_001, "")]), 2_100.0);
    // Nothing is promised.
    assert_eq!(
        check(1_800, 0, &[(1_800, ""), (1_801, "Stale 1800")]),
        1_800.000_000_001
    );
}
