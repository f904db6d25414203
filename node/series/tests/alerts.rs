//! Levels of alerts against a recomputation from all points that knows nothing of marks, whatever order the points came in; and the
//! afternoon of rain, step by step.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidemark_series::Checks;
use tidemark_series::alert::{AlertFunction, Level, Mark, Outcome, Replay, Rule, Standing, Stated, Step, start};
use tidemark_series::checks::{Finding, Judge};

const S: i64 = 1_000_000_000;
const I: i64 = 300 * S;
const FAIL: u8 = 6;
const SUSPECT: u8 = 5;
const STATED: Stated = Stated {
    discounts: |stated| stated == FAIL,
    suspects: |stated| stated == SUSPECT,
};

type Points = BTreeMap<i64, (f64, u8)>;

fn replay(rule: &Rule, checks: &Checks, points: &Points, marks: Vec<Mark>, changed_ns: i64) -> (Outcome, i64) {
    let mut replay = Replay::new(rule, (checks, STATED), marks, changed_ns, i64::MAX);
    let begun = replay.begun_ns();
    for (t, (value, stated)) in points.range(replay.read_from_ns()..) {
        replay.point(*t, *value, *stated);
    }
    (replay.finish(), begun)
}

/// Points that count, judged from the first one on.
fn counted(rule: &Rule, checks: &Checks, points: &Points) -> Vec<(i64, f64)> {
    let mut judge = Judge::new(checks, STATED);
    let mut judged = Vec::new();
    for (t, (value, stated)) in points {
        judge.point(*t, *value, *stated, |point| judged.push(point));
    }
    judge.end(|point| judged.push(point));
    let counts = judged.into_iter().filter(|point| {
        let fails = point.stated == FAIL || point.finding.is_some_and(Finding::fails);
        let suspect = point.stated == SUSPECT || point.finding.is_some();
        !fails && (rule.accept_suspect || !suspect)
    });
    counts.map(|point| (point.t_ns, point.number.value())).collect()
}

/// What is compared at a point, and whether its window is whole.
fn measured(rule: &Rule, points: &[(i64, f64)], at: usize) -> Option<(f64, bool)> {
    let (t, value) = points[at];
    let inside: Vec<(i64, f64)> = points[..=at]
        .iter()
        .copied()
        .filter(|(u, _)| *u > t - rule.window_ns)
        .collect();
    let values = || inside.iter().map(|(_, value)| *value);
    let told = match rule.function {
        AlertFunction::Last => return Some((value, true)),
        AlertFunction::RisePerHour => {
            let near = |u: i64| u <= t - rule.window_ns && u >= t - rule.window_ns - rule.interval_ns;
            let (u, from) = points[..at]
                .iter()
                .rev()
                .find(|(u, _)| *u <= t - rule.window_ns)
                .filter(|(u, _)| near(*u))?;
            return Some(((value - from) / ((t - u) as f64 / 1e9 / 3_600.0), true));
        }
        AlertFunction::Sum => values().sum(),
        AlertFunction::Avg => values().sum::<f64>() / inside.len() as f64,
        AlertFunction::Min => values().reduce(f64::min)?,
        AlertFunction::Max => values().reduce(f64::max)?,
    };
    let mut slots: Vec<i64> = inside.iter().map(|(u, _)| (t - u) / rule.interval_ns).collect();
    slots.dedup();
    Some((
        told,
        slots.len() as f64 * rule.interval_ns as f64 >= 0.9 * rule.window_ns as f64,
    ))
}

/// Everything that is compared with levels.
fn compared(rule: &Rule, checks: &Checks, points: &Points) -> Vec<(i64, f64, bool)> {
    let counted = counted(rule, checks, points);
    let measured = |at: usize| measured(rule, &counted, at).map(|(value, whole)| (counted[at].0, value, whole));
    (0..counted.len()).filter_map(measured).collect()
}

/// Steps by the definition: at each point the run of points before it is looked at anew.
fn naive(rule: &Rule, checks: &Checks, points: &Points) -> (Vec<(i64, u32, u32)>, u32) {
    let mut all = compared(rule, checks, points);
    // That a sum of less than all points is low says nothing.
    all.retain(|(.., whole)| *whole || !rule.below || rule.function != AlertFunction::Sum);
    let beyond = |value: f64, limit: f64| if rule.below { value <= limit } else { value >= limit };
    let highest = |value: f64, below: usize| {
        (0..below)
            .rev()
            .find(|l| beyond(value, rule.levels[*l].off))
            .map_or(0, |l| l + 1)
    };
    let (mut level, mut entered, mut steps) = (0_usize, 0_usize, Vec::new());
    for (at, (t, value, whole)) in all.iter().enumerate() {
        let reached = rule
            .levels
            .iter()
            .rposition(|l| beyond(*value, l.on))
            .map_or(0, |l| l + 1);
        if reached > level {
            steps.push((*t, level as u32, reached as u32));
            (level, entered) = (reached, at + 1);
            continue;
        }
        if level == 0 || beyond(*value, rule.levels[level - 1].off) || !whole {
            continue;
        }
        // Back over those that say nothing, to the first of the run.
        let (mut first, mut later) = (*t, *t);
        for (u, value, whole) in all[entered..at].iter().rev() {
            let short = !beyond(*value, rule.levels[level - 1].off);
            if short && !whole {
                continue;
            }
            if !short || rule.silence_ns.is_some_and(|most| later - u > most) {
                break;
            }
            (first, later) = (*u, *u);
        }
        if t - first >= rule.hold_ns {
            let left = highest(*value, level - 1);
            steps.push((*t, level as u32, left as u32));
            (level, entered) = (left, at + 1);
        }
    }
    (steps, level as u32)
}

fn rules() -> impl Strategy<Value = Rule> {
    let function = prop_oneof![
        Just(AlertFunction::Last),
        Just(AlertFunction::Sum),
        Just(AlertFunction::RisePerHour),
        Just(AlertFunction::Avg),
        Just(AlertFunction::Min),
        Just(AlertFunction::Max),
    ];
    let levels = prop::collection::vec((1_u32..4, 0_u32..4), 1..4);
    (
        function,
        1_i64..6,
        0_i64..5,
        prop::option::of(2_i64..6),
        any::<(bool, bool)>(),
        levels,
    )
        .prop_map(|(function, window, hold, silence, (accept_suspect, below), gaps)| {
            let (mut on, mut off) = (0.0, f64::NEG_INFINITY);
            let sign = if below { -1.0 } else { 1.0 };
            let levels = gaps.iter().map(|(gap, width)| {
                on += f64::from(*gap);
                off = f64::max(off, on - f64::from(*width));
                Level {
                    on: sign * on,
                    off: sign * off,
                }
            });
            Rule {
                levels: levels.collect(),
                function,
                window_ns: if function == AlertFunction::Last { 0 } else { window * I },
                interval_ns: I,
                hold_ns: hold * I,
                silence_ns: silence.map(|n| n * I),
                accept_suspect,
                below,
            }
        })
}

fn checks() -> impl Strategy<Value = Checks> {
    (
        prop::option::of(1_i32..6),
        prop::option::of(1_i32..4),
        prop::option::of(3_i32..8),
    )
        .prop_map(|(spike, rate, max)| Checks {
            spike: spike.map(f64::from),
            rate_per_s: rate.map(|rate| f64::from(rate) / 300.0),
            reach_ns: 3 * I,
            max: max.map(f64::from),
            ..Checks::default()
        })
}

/// Batches as they come: at which slot, which value, what the source says.
fn batches() -> impl Strategy<Value = Vec<Vec<(i64, i32, u8)>>> {
    let stated = prop_oneof![8 => Just(0_u8), 1 => Just(FAIL), 1 => Just(SUSPECT)];
    let point = (0_i64..60, -4_i32..9, stated);
    prop::collection::vec(prop::collection::vec(point, 1..12), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn from_marks_as_from_all_points(rule in rules(), checks in checks(), batches in batches()) {
        let mut points = Points::new();
        let mut marks = vec![start(&rule, -1_000 * I)];
        let mut known: Vec<(i64, u32, u32)> = Vec::new();
        for batch in batches {
            let changed = batch.iter().map(|(slot, ..)| slot * I).min().unwrap();
            points.extend(batch.into_iter().map(|(slot, value, stated)| (slot * I, (f64::from(value), stated))));
            let (outcome, begun) = replay(&rule, &checks, &points, marks.clone(), changed);
            known.retain(|(t, ..)| *t <= begun);
            known.extend(outcome.steps.iter().map(|step| (step.t_ns, step.before, step.level)));
            let (expected, level) = naive(&rule, &checks, &points);
            prop_assert_eq!(&known, &expected);
            prop_assert_eq!(outcome.standing.level, level);
            let compared = compared(&rule, &checks, &points);
            prop_assert_eq!(outcome.newest, compared.last().map(|(t, value, _)| (*t, *value)));
            // Marks that hold need not be replaced each time.
            if outcome.moved || outcome.points > 3 {
                marks = outcome.marks;
            }
            prop_assert!(marks.len() <= tidemark_series::alert::MARKS_MAX + 1);
            prop_assert!(marks.is_sorted_by_key(|mark| mark.t_ns));
        }
    }
}

#[test]
fn a_late_point_is_reached_without_reading_much_more_than_it_is_late() {
    let rule = last(&[(5.0, 5.0)], 0);
    let checks = Checks::default();
    let points: Points = (0..2_000)
        .map(|slot| (slot * I, (f64::from(slot as u32 % 7), 0)))
        .collect();
    let (outcome, _) = replay(&rule, &checks, &points, vec![start(&rule, 0)], 0);
    let age = |mark: &Mark| (1_999 * I - mark.t_ns) / I;
    for late in [1, 10, 100, 1_000] {
        let before = outcome.marks.iter().rev().find(|mark| age(mark) > late).unwrap();
        assert!(age(before) <= 4 * late + 4, "{late} slots late, {} read", age(before));
    }
}

#[test]
fn marks_hold_until_something_happens_before_them() {
    let rule = last(&[(5.0, 3.0)], 3_000);
    let checks = Checks {
        spike: Some(8.0),
        ..Checks::default()
    };
    let mut points: Points = (0..2_000).map(|slot| (slot * I, (1.0, 0))).collect();
    points.insert(1_990 * I, (6.0, 0));
    let (first, _) = replay(&rule, &checks, &points, vec![start(&rule, 0)], 0);
    assert!(first.points == 2_000 && !first.moved);
    let check = |points: &Points, changed: i64, expected: (u64, bool)| {
        let (again, _) = replay(&rule, &checks, points, first.marks.clone(), changed);
        assert_eq!((again.points, again.moved), expected);
        assert_eq!(
            (again.standing.level, again.steps.len()),
            (1, usize::from(changed <= 1_991 * I))
        );
    };
    check(&points, i64::MIN, (1, false));
    check(&points, i64::MAX, (1, false));
    points.insert(2_000 * I, (1.0, 0));
    check(&points, 2_000 * I, (2, false));
    check(&points, i64::MIN, (2, false));
    // Below since one point later: no step says so.
    points.insert(1_991 * I, (4.0, 0));
    check(&points, 1_991 * I, (2, true));
    points.remove(&(1_000 * I));
    check(&points, i64::MIN, (2, true));
}

fn last(levels: &[(f64, f64)], hold_s: i64) -> Rule {
    Rule {
        function: AlertFunction::Last,
        window_ns: 0,
        interval_ns: I,
        hold_ns: hold_s * S,
        silence_ns: Some(3 * I),
        accept_suspect: false,
        below: false,
        levels: levels.iter().map(|(on, off)| Level { on: *on, off: *off }).collect(),
    }
}

#[test]
fn a_spike_raises_nothing_once_the_next_point_is_there() {
    let rule = last(&[(0.05, 0.03), (0.4, 0.35)], 600);
    let unchecked = Checks {
        spike: Some(0.2),
        ..Checks::default()
    };
    let told = |checks: &Checks, values: &[f64]| {
        let points: Points = values
            .iter()
            .enumerate()
            .map(|(at, value)| (at as i64 * I, (*value, 0)))
            .collect();
        let (outcome, _) = replay(&rule, checks, &points, vec![start(&rule, 0)], 0);
        outcome
            .steps
            .iter()
            .map(|step: &Step| (step.t_ns / I, step.level))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&unchecked, &[0.0, 1.9]), [(1, 2)], "nobody knows yet");
    assert_eq!(told(&unchecked, &[0.0, 1.9, 0.0]), []);
    let rate = Checks {
        rate_per_s: Some(0.1 / 60.0),
        reach_ns: 3 * I,
        ..unchecked
    };
    assert_eq!(told(&rate, &[0.0, 1.9]), [], "too fast to be believed");
}

/// Points that do not count leave no mark behind which nothing is known.
#[test]
fn the_newest_value_is_known_behind_points_that_do_not_count() {
    let doubtful = (10..40).map(|slot| (slot * I, (9.0, SUSPECT)));
    let points: Points = (0..10).map(|slot| (slot * I, (1.0, 0))).chain(doubtful).collect();
    let sum = Rule {
        function: AlertFunction::Sum,
        window_ns: 3 * I,
        ..last(&[(5.0, 5.0)], 0)
    };
    for (rule, value) in [(last(&[(5.0, 5.0)], 0), 1.0), (sum, 3.0)] {
        let (outcome, _) = replay(&rule, &Checks::default(), &points, vec![start(&rule, 0)], 0);
        let (again, begun) = replay(&rule, &Checks::default(), &points, outcome.marks, i64::MAX);
        assert!(begun > 20 * I, "from the last mark");
        assert_eq!(
            (outcome.newest, again.newest),
            (Some((9 * I, value)), Some((9 * I, value)))
        );
    }
}

#[test]
fn nothing_is_known_before_the_first_point() {
    let rule = last(&[(1.0, 1.0)], 0);
    let (outcome, _) = replay(&rule, &Checks::default(), &Points::new(), vec![start(&rule, 0)], 0);
    assert_eq!(
        (outcome.standing, outcome.newest, outcome.points),
        (Standing::default(), None, 0)
    );
}
