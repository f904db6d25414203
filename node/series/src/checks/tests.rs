//! Verdicts about points, of lists short enough to be judged by eye.
use super::*;

const S: i64 = 1_000_000_000;
const STATED: Stated = Stated {
    discounts: |stated| stated == 6,
    suspects: |stated| stated == 5,
};

/// Findings of values that are so many seconds apart.
fn found(checks: &Checks, apart_s: i64, values: &[f64]) -> Vec<Option<Finding>> {
    let mut judge = Judge::new(checks, STATED);
    let mut judged = Vec::new();
    for (at, value) in values.iter().enumerate() {
        judge.point(at as i64 * apart_s * S, *value, 0, |point| judged.push(point));
    }
    judge.end(|point| judged.push(point));
    assert_eq!(
        judged.iter().map(|point| point.number.value()).collect::<Vec<_>>(),
        values,
        "in order"
    );
    judged.iter().map(|point| point.finding).collect()
}

#[test]
fn points_settle_where_no_earlier_one_can_matter() {
    let check = |drop_suspect, begin_s: i64, values: &[f64], expected: Option<usize>| {
        let checks = Checks {
            spike: Some(1.0),
            rate_per_s: Some(0.01),
            reach_ns: 180 * S,
            ..Checks::default()
        };
        let choice = Choice {
            accepted: Accepted::ALL,
            doubted: STATED.suspects,
            checks: &checks,
            suspect: Suspects::left_out(drop_suspect),
        };
        let points: Vec<(i64, f64)> = (0..).map(|n| n * 60 * S).zip(values.iter().copied()).collect();
        assert_eq!(choice.settled(begin_s * S, &points, |_| 0), expected, "{values:?}");
    };
    check(false, 0, &[], None);
    check(false, 0, &[1.0], None);
    check(false, 0, &[1.0, 1.5], Some(0));
    check(false, 0, &[1.0, 1.5, 9.0, 1.0, 9.0], Some(0));
    check(false, 0, &[1.0, 1.5, 9.0, 9.5, 1.0], Some(2));
    check(true, 0, &[1.0, 1.1, 1.2, 1.3, 1.4], Some(3));
    check(true, 0, &[1.0, 1.1, 1.2], None);
    check(true, -180, &[1.0, 1.1, 1.2], Some(1));
    check(true, -180, &[1.0, 1.1, 1.8, 1.9], Some(1));
}

#[test]
fn what_stands_still_settles_where_it_moved_last() {
    let checks = Checks {
        flat: Some(Flat {
            over_ns: 180 * S,
            within: 0.1,
            ignore: None,
            interval_ns: 60 * S,
        }),
        ..Checks::default()
    };
    let check = |begin_s: i64, values: &[f64], expected: Option<usize>| {
        let choice = Choice {
            accepted: Accepted::ALL,
            doubted: STATED.suspects,
            checks: &checks,
            suspect: Suspects::LeftOut,
        };
        let points: Vec<(i64, f64)> = (0..).map(|n| n * 60 * S).zip(values.iter().copied()).collect();
        assert_eq!(choice.settled(begin_s * S, &points, |_| 0), expected, "{values:?}");
    };
    check(-180, &[1.0, 1.0, 1.0, 1.0, 1.0], None);
    // The last one that is less than three minutes behind the change, and what lies that long before it.
    check(-180, &[1.0, 2.0, 1.0, 1.0, 1.0, 1.0], Some(1));
    check(0, &[1.0, 2.0, 1.0], None);
    // What begins its window is a spike: it is told from one that is none.
    let checks = Checks {
        spike: Some(1.0),
        ..checks.clone()
    };
    let choice = Choice {
        checks: &checks,
        suspect: Suspects::LeftOut,
        ..Choice::ALL
    };
    let points: Vec<(i64, f64)> = (0..).map(|n| n * 60 * S).zip([1.0, 1.2, 9.0, 1.0, 1.2, 1.2]).collect();
    assert_eq!(choice.settled(-180 * S, &points, |_| 0), Some(0));
}

#[test]
fn a_value_far_from_both_neighbours_fails_and_they_do_not() {
    let checks = Checks {
        spike: Some(0.15),
        ..Checks::default()
    };
    let spike = Some(Finding::Spike);
    assert_eq!(
        found(&checks, 300, &[1.0, 1.0, 1.9, 1.01, 1.02]),
        [None, None, spike, None, None]
    );
    assert_eq!(
        found(&checks, 300, &[1.0, 1.0, 1.9, 1.91, 1.92]),
        [None; 5],
        "a step is no spike"
    );
    assert_eq!(
        found(&checks, 300, &[1.0, 9.0]),
        [None; 2],
        "the last one has one neighbour yet"
    );
    assert_eq!(found(&checks, 300, &[9.0, 1.0, 1.0]), [None; 3]);
    let quarter = Checks {
        spike: Some(0.25),
        ..Checks::default()
    };
    assert_eq!(
        found(&quarter, 300, &[1.0, 1.25, 1.0]),
        [None; 3],
        "a step as far as that may be true"
    );
    assert_eq!(found(&quarter, 300, &[1.0, 1.26, 1.0]), [None, spike, None]);
    assert_eq!(
        found(&quarter, 300, &[1.0, 1.5, 1.25]),
        [None; 3],
        "nor if one of both is"
    );
}

#[test]
fn a_judge_knows_what_it_does_not_know() {
    let checks = Checks {
        spike: Some(1.0),
        neighbours_ns: 180 * S,
        ..Checks::default()
    };
    let check = |checks: &Checks, points: &[(i64, f64)], expected: (bool, bool)| {
        let mut judge = Judge::new(checks, STATED);
        for (t, value) in points {
            judge.point(t * 60 * S, *value, 0, |_| ());
        }
        // What does not count says nothing.
        judge.point(1_000 * 60 * S, 5.0, 6, |_| ());
        assert_eq!((judge.is_settled(), judge.is_undecided()), expected, "{points:?}");
    };
    check(&checks, &[], (false, false));
    check(&checks, &[(0, 1.0)], (false, false));
    check(&checks, &[(0, 1.0), (1, 1.5)], (true, false));
    check(&checks, &[(0, 1.0), (1, 1.5), (2, 9.0)], (true, true));
    check(&checks, &[(0, 1.0), (1, 1.5), (2, 9.0), (3, 1.0)], (true, false));
    check(&checks, &[(0, 1.0), (1, 9.0)], (false, true));
    check(&checks, &[(0, 1.0), (1, 9.0), (2, 1.0), (3, 9.0)], (false, true));
    check(&checks, &[(0, 1.0), (4, 9.0)], (true, false));
    check(&Checks::default(), &[], (true, false));
}

#[test]
fn what_lies_too_far_apart_is_no_neighbour() {
    let checks = Checks {
        spike: Some(0.15),
        neighbours_ns: 900 * S,
        ..Checks::default()
    };
    let spike = Some(Finding::Spike);
    assert_eq!(found(&checks, 900, &[1.0, 1.9, 1.0]), [None, spike, None]);
    assert_eq!(found(&checks, 901, &[1.0, 1.9, 1.0]), [None; 3]);
}

/// What is told of a part of some points is what is told of all.
#[test]
fn a_part_tells_what_the_whole_tells_or_nothing() {
    let checks = Checks {
        spike: Some(1.5),
        neighbours_ns: 3 * S,
        ..Checks::default()
    };
    let mut state = 3_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let (mut told, mut open) = (0, 0);
    for _ in 0..300 {
        let mut t_ns = 0;
        let mut points = Vec::new();
        for _ in 0..30 {
            t_ns += [1, 1, 1, 1, 2, 4][next(6) as usize] * S;
            points.push((t_ns, next(4) as f64));
        }
        let mut judge = Judge::new(&checks, Stated::NOTHING);
        let mut counts = Vec::new();
        let mut note = |point: Judged| counts.push(point.finding.is_none());
        points
            .iter()
            .for_each(|(t, value)| judge.point(*t, *value, 0, &mut note));
        judge.end(&mut note);
        let (a, b) = (next(31) as usize, next(31) as usize);
        let part = a.min(b)..a.max(b);
        for (found, expected) in checks.settled(&points[part.clone()]).into_iter().zip(&counts[part]) {
            assert!(found.is_none_or(|found| found == *expected), "{points:?}");
            *(if found.is_some() { &mut told } else { &mut open }) += 1;
        }
    }
    assert!(told > 1_000 && open > 100, "{told} told, {open} open");
}

#[test]
fn ranges_and_rates() {
    let checks = Checks {
        min: Some(0.0),
        max: Some(2.0),
        typical_max: Some(1.2),
        rate_per_s: Some(0.1 / 60.0),
        reach_ns: 900 * S,
        ..Checks::default()
    };
    let (range, rate, untypical) = (Some(Finding::Range), Some(Finding::Rate), Some(Finding::Untypical));
    assert_eq!(found(&checks, 300, &[0.0, -0.1, 2.1, 0.4]), [None, range, range, None]);
    assert_eq!(
        found(&checks, 300, &[0.0, 0.9, 1.0]),
        [None, rate, None],
        "1.0 within ten minutes is slow enough"
    );
    assert_eq!(
        found(&checks, 300, &[0.0, 1.9, 1.9, 1.9, 1.9]),
        [None, rate, rate, rate, untypical],
        "what stays is believed once the last sure point is too old"
    );
    assert_eq!(found(&checks, 300, &[1.1, 1.3]), [None, untypical]);
}

#[test]
fn what_stands_still_is_suspect_and_a_spike_does_not_move_it() {
    let flat = Flat {
        over_ns: 1_200 * S,
        within: 0.01,
        ignore: None,
        interval_ns: 300 * S,
    };
    let checks = Checks {
        spike: Some(0.5),
        flat: Some(flat),
        ..Checks::default()
    };
    let (flat, spike) = (Some(Finding::Flat), Some(Finding::Spike));
    assert_eq!(
        found(&checks, 300, &[1.0, 1.0, 1.0, 1.0, 1.0, 1.1, 1.0]),
        [None, None, None, flat, flat, None, None]
    );
    let ten = Flat {
        over_ns: 1_500 * S,
        ..checks.flat.unwrap_or(NEVER)
    };
    let checks = Checks {
        flat: Some(ten),
        ..checks
    };
    assert_eq!(
        found(&checks, 300, &[1.0, 1.0, 1.0, 9.0, 1.0, 1.0]),
        [None, None, None, spike, flat, flat]
    );
}

const NEVER: Flat = Flat {
    over_ns: 0,
    within: 0.0,
    ignore: None,
    interval_ns: 0,
};

#[test]
fn what_the_source_does_not_count_is_no_neighbour() {
    let checks = Checks {
        spike: Some(0.5),
        ..Checks::default()
    };
    let mut judge = Judge::new(&checks, STATED);
    let mut judged = Vec::new();
    for (t, value, stated) in [
        (0, 1.0, 6),
        (1, 1.0, 0),
        (2, 9.0, 6),
        (3, 3.0, 0),
        (4, 9.0, 6),
        (5, 1.1, 0),
    ] {
        judge.point(t * S, value, stated, |point| {
            judged.push((point.t_ns / S, point.finding))
        });
    }
    judge.end(|point| judged.push((point.t_ns / S, point.finding)));
    let spike = Some(Finding::Spike);
    assert_eq!(
        judged,
        [(0, None), (1, None), (2, None), (3, spike), (4, None), (5, None)]
    );
}

#[test]
fn what_is_suspect_whoever_says_so_is_no_reference_for_rates() {
    let checks = Checks {
        rate_per_s: Some(1.0 / 60.0),
        reach_ns: 180 * S,
        ..Checks::default()
    };
    let mut judge = Judge::new(&checks, STATED);
    let mut judged = Vec::new();
    // 2.95 is near enough to 1.0, two minutes before, and too far from what is doubted.
    for (minute, value, stated) in [(0, 1.0, 0), (1, 1.9, 5), (2, 2.95, 0), (3, 9.0, 5), (4, 9.0, 0)] {
        judge.point(minute * 60 * S, value, stated, |point| judged.push(point.finding));
    }
    judge.end(|point| judged.push(point.finding));
    let rate = Some(Finding::Rate);
    assert_eq!(judged, [None, None, None, rate, rate]);
}

#[test]
fn who_leaves_suspect_values_out_leaves_out_more_and_nothing_else() {
    let checks = Checks {
        max: Some(10.0),
        typical_max: Some(1.2),
        spike: Some(0.2),
        ..Checks::default()
    };
    let choice = |suspect: Suspects| Choice {
        accepted: Accepted(!(1 << 6)),
        doubted: STATED.suspects,
        checks: &checks,
        suspect,
    };
    let kept = |suspect: Suspects, points: &[(f64, u8)]| {
        let choice = choice(suspect);
        let mut kept = Vec::new();
        let mut judge = choice.judge();
        let mut keep = |point: Judged| {
            if !choice.leaves_out(&point) {
                kept.push(point.t_ns / S);
            }
        };
        for (t, (value, stated)) in (0..).zip(points) {
            if choice.takes(*value) && choice.accepts(*stated) {
                judge.point(t * S, *value, *stated, &mut keep);
            }
        }
        judge.end(&mut keep);
        kept
    };
    let check = |points: &[(f64, u8)], by_default: &[i64], without: &[i64]| {
        assert_eq!(kept(Suspects::Count, points), by_default, "{points:?}");
        assert_eq!(kept(Suspects::Told, points), by_default, "{points:?}");
        assert_eq!(kept(Suspects::LeftOut, points), without, "{points:?}");
    };
    let usual = |values: [f64; 5]| values.map(|value| (value, 0));
    check(&usual([1.3, 1.3, 0.5, 1.3, 1.3]), &[0, 1, 3, 4], &[]);
    check(&usual([1.0, 1.0, 1.3, 1.0, 1.0]), &[0, 1, 3, 4], &[0, 1, 3, 4]);
    check(&usual([1.0, 1.1, 1.3, 1.3, 1.1]), &[0, 1, 2, 3, 4], &[0, 1, 4]);
    check(&[(1.0, 5), (0.5, 0), (1.0, 5)], &[0, 2], &[]);
    check(&[(1.0, 0), (1.0, 5), (1.0, 6), (11.0, 0)], &[0, 1], &[0]);
    // Where neighbours say nothing, values that are suspect by themselves need not be looked at.
    let plain = Checks {
        spike: None,
        ..checks.clone()
    };
    let choice = |suspect: Suspects| Choice {
        checks: &plain,
        ..choice(suspect)
    };
    for (suspect, expected) in [(Suspects::Count, true), (Suspects::LeftOut, false)] {
        let choice = choice(suspect);
        assert_eq!(
            (choice.takes(1.3), choice.accepts(5)),
            (expected, expected),
            "{suspect:?}"
        );
    }
}

/// Numbers below another, the same each time.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    }
}

/// Points that stand still at times, jump at others, and some of which their source doubts or calls failed.
fn some_points(next: &mut impl FnMut(u64) -> u64) -> Vec<(i64, f64, u8)> {
    let (mut t, mut value) = (0, 1.0);
    let point = |_| {
        t += [60, 60, 60, 60, 60, 60, 120, 300][next(8) as usize] * S;
        value = match next(10) {
            0..5 => value,
            5..9 => value + next(5) as f64 * 0.1 - 0.2,
            _ => next(4) as f64,
        };
        (t, value, [0, 0, 0, 0, 0, 0, 0, 0, 5, 6][next(10) as usize])
    };
    (0..60).map(point).collect()
}

/// Some of all checks.
fn some_checks(next: &mut impl FnMut(u64) -> u64) -> Checks {
    let flat = Flat {
        over_ns: 300 * S,
        within: 0.05,
        ignore: Some(1.0),
        interval_ns: 60 * S,
    };
    Checks {
        max: Some(2.5),
        typical_max: (next(2) == 0).then_some(1.5),
        spike: (next(3) > 0).then_some(0.4),
        rate_per_s: (next(3) > 0).then_some(0.15 / 60.0),
        neighbours_ns: 180 * S,
        reach_ns: 180 * S,
        flat: (next(2) == 0).then_some(flat),
        ..Checks::default()
    }
}

/// All points, judged from the first one on.
fn judged(checks: &Checks, points: &[(i64, f64, u8)]) -> Vec<Judged> {
    let mut judge = Judge::new(checks, STATED);
    let mut judged = Vec::new();
    for (t, value, stated) in points {
        judge.point(*t, *value, *stated, |point| judged.push(point));
    }
    judge.end(|point| judged.push(point));
    judged
}

#[test]
fn who_begins_later_tells_the_same_once_he_says_so() {
    let mut next = numbers(5);
    let (mut told, mut open) = (0, 0);
    for _ in 0..2_000 {
        let checks = some_checks(&mut next);
        let points = some_points(&mut next);
        let all = judged(&checks, &points);
        let first = next(30) as usize;
        let mut judge = Judge::new(&checks, STATED).since(points[first].0 - next(60) as i64 * S);
        for (t, value, stated) in &points[first..] {
            let mut out = Vec::new();
            judge.point(*t, *value, *stated, |point| out.push(point));
            if !judge.is_settled() {
                open += 1;
                continue;
            }
            told += 1;
            for point in out {
                let expected = all.iter().find(|other| other.t_ns == point.t_ns);
                assert_eq!(Some(&point), expected, "{checks:?} from {first}: {points:?}");
            }
        }
    }
    assert!(told > 20_000 && open > 5_000, "{told} told, {open} open");
}

#[test]
fn what_lies_before_a_settled_point_changes_nothing_behind_it() {
    let mut next = numbers(7);
    let (mut told, mut open) = (0, 0);
    for _ in 0..3_000 {
        let checks = some_checks(&mut next);
        let points = some_points(&mut next);
        let suspect = [Suspects::Told, Suspects::LeftOut][next(2) as usize];
        let choice = Choice {
            accepted: Accepted(!(1 << 6)),
            doubted: STATED.suspects,
            checks: &checks,
            suspect,
        };
        let looked_at = |(_, value, stated): &&(i64, f64, u8)| choice.takes(*value) && choice.accepts(*stated);
        let points: Vec<_> = points.iter().filter(looked_at).copied().collect();
        if !choice.needs_order() || points.len() < 30 {
            continue;
        }
        let (begin, split) = (next(10) as usize, 10 + next(20) as usize);
        let before = &points[begin..split];
        let known: Vec<(i64, f64)> = before.iter().map(|(t, value, _)| (*t, *value)).collect();
        let Some(first) = choice.settled(before[0].0, &known, |at| before[at].2) else {
            open += 1;
            continue;
        };
        told += 1;
        let last_kept = |judged: &[Judged]| {
            let early = judged.iter().filter(|point| point.t_ns < points[split].0);
            early
                .rev()
                .find(|point| !choice.leaves_out(point))
                .map(|point| point.t_ns)
        };
        let (all, some) = (judged(&checks, &points), judged(&checks, &points[begin + first..]));
        assert_eq!(
            all[split..],
            some[split - begin - first..],
            "{checks:?} {begin} {first} {split}: {points:?}"
        );
        assert_eq!(
            last_kept(&all),
            last_kept(&some),
            "{checks:?} {begin} {first} {split}: {points:?}"
        );
    }
    assert!(told > 1_000 && open > 100, "{told} told, {open} open");
}
