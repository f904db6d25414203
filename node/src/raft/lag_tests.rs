//! A majority, times on another clock, and marks that wait to be reached. Never here: nodes (see `tests/cluster/lag.rs`).
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_majority_agrees_since() {
    let began = monotonic();
    let at = |ms: u64| Some(began + MS(ms));
    for (agreed, expected) in [
        (vec![], None),
        (vec![at(5)], at(5)),
        (vec![at(5), at(3)], at(3)),
        (vec![at(5), None], None),
        (vec![at(5), None, at(3)], at(3)),
        (vec![at(5), None, None], None),
        (vec![at(9), at(1), at(5), at(3)], at(3)),
        (vec![at(9), at(1), at(5), at(3), None], at(3)),
        (vec![None, at(9), None, at(8), None], None),
    ] {
        assert_eq!(majority(agreed.clone()), expected, "{agreed:?}");
    }
}

#[test]
fn a_time_here_is_never_too_late_there() {
    let began = monotonic() + MS(10_000);
    let answer = Answer {
        sent: Moment {
            run: 7,
            micros: 500_000,
        },
        came: began,
    };
    let at = |ours: Instant| answer.at(ours).map(|moment| (moment.run, moment.micros));
    assert_eq!(at(began), Some((7, 500_000)));
    // A thousandth is given away, in both directions.
    assert_eq!(at(began + MS(200)), Some((7, 500_000 + 199_800)));
    assert_eq!(at(began - MS(200)), Some((7, 500_000 - 200_201)));
    // Its clock had not begun.
    assert_eq!(at(began - MS(500)), None);
}

/// Marks of index and milliseconds, then what is reached at an applied index.
fn check(marks: &[(u64, u64)], reached: &[(u64, Option<u64>)]) {
    let began = monotonic();
    let mut all = Marks::default();
    for (index, ms) in marks {
        let at = began + MS(*ms);
        all.note(Mark { index: *index, at });
    }
    for (applied, expected) in reached {
        let found = all.reached(*applied).map(|at| (at - began).as_millis() as u64);
        assert_eq!(found, *expected, "{marks:?} applied {applied}");
    }
}

#[test]
fn what_is_applied_decides_what_is_reached() {
    check(&[], &[(9, None)]);
    check(&[(5, 10)], &[(4, None), (5, Some(10)), (9, Some(10))]);
    check(&[(5, 10), (7, 20), (9, 30)], &[(4, None), (8, Some(20)), (9, Some(30))]);
    // At rest the index stays and the time goes on.
    check(&[(5, 10), (5, 20), (5, 30)], &[(4, None), (5, Some(30))]);
    // One that was overtaken says nothing new, one that says more with less takes the place of others.
    check(&[(7, 20), (5, 10)], &[(6, None), (7, Some(20))]);
    check(&[(7, 20), (9, 10)], &[(7, Some(20)), (9, Some(20))]);
    check(&[(7, 20), (6, 30)], &[(5, None), (6, Some(30))]);
    check(&[(7, 20), (9, 25), (8, 30)], &[(7, Some(20)), (8, Some(30))]);
}

#[test]
fn many_marks_that_are_never_reached_take_no_room() {
    let marks: Vec<(u64, u64)> = (1..=1_000).map(|n| (n, n)).collect();
    check(
        &marks,
        &[(10, Some(10)), (999, Some(AHEAD_MAX as u64 - 1)), (1_000, Some(1_000))],
    );
}
