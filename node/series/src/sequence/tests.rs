//! Sequences against known answers, and random ones against sums over seconds. Never here: nodes. Invariant: what a test says is
//! recomputed from the points alone.

use proptest::prelude::*;

use super::*;
use crate::by_window::ByWindow;
use crate::record::ValueRef;
use crate::window::{Edge, Windows};

const S: i64 = 1_000_000_000;

fn windows(from_s: i64, to_s: i64, step_s: Option<i64>) -> Windows {
    Windows {
        from_ns: from_s * S,
        to_ns: to_s * S,
        step_ns: step_s.map(|step| step * S),
        origin_ns: 0,
        borders: None,
        edge: Edge::StartClosed,
    }
}

/// Everything, with values that go on like this and gaps of up to so many seconds.
fn everything(between: Between, max_gap_s: i64) -> Gathered {
    Gathered {
        steps: true,
        wrap: None,
        area: Some(between),
        max_gap_ns: max_gap_s * S,
        now_ns: i64::MAX,
        moments: true,
        quantiles: true,
        states: true,
        bins: vec![0.0, 5.0],
        rise: Some(Rise {
            over_ns: 50 * S,
            slack_ns: 10 * S,
        }),
    }
}

/// Feeds (second, value) to windows.
fn fed(gathered: &Gathered, windows: &Windows, points: &[(i64, f64)]) -> ByWindow<Sequence> {
    let mut out = ByWindow::default();
    let mut feed = Feed::new(gathered, windows);
    for (t, value) in points {
        feed.point(t * S, ValueRef::F64(*value), &mut out);
    }
    feed.end(&mut out);
    out
}

fn one(gathered: &Gathered, over: &Windows, points: &[(i64, f64)]) -> Sequence {
    let mut out = fed(gathered, over, points);
    out.sorted()
        .first()
        .map(|(_, sequence)| sequence.clone())
        .unwrap_or_default()
}

fn number(sequence: &Sequence, function: SequenceFunction) -> Option<f64> {
    match sequence.finish(function, 100 * S as u64).unwrap()? {
        Finished::F64(value) => Some(value),
        Finished::U64(value) => Some(value as f64),
        Finished::I64(value) => Some(value as f64),
        _ => None,
    }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

#[test]
fn a_counter_wraps_where_that_is_plausible_and_starts_anew_where_not() {
    let rose = |wrap: Option<f64>, values: &[f64]| {
        let gathered = Gathered {
            wrap,
            ..everything(Between::Linear, 60)
        };
        let points: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(at, value)| (at as i64, *value))
            .collect();
        number(
            &one(&gathered, &windows(0, 100, None), &points),
            SequenceFunction::Increase,
        )
    };
    assert_eq!(rose(Some(10_000.0), &[9_999.0, 9.5]), Some(10.5));
    assert_eq!(rose(None, &[9_999.0, 9.5]), Some(9.5));
    assert_eq!(
        rose(Some(10_000.0), &[3_000.0, 2.0]),
        Some(2.0),
        "70 % of a turn at once is a reset"
    );
    assert_eq!(rose(None, &[5.0, 7.0, 1.0, 4.0]), Some(6.0));
    assert_eq!(rose(None, &[5.0]), None, "one point says nothing of a rise");
}

#[test]
fn an_increase_counts_from_the_point_at_or_before_the_start() {
    let points = [(0, 10.0), (40, 14.0), (100, 15.0), (130, 18.0)];
    let gathered = everything(Between::Linear, 60);
    let of = |from, to| {
        number(
            &one(&gathered, &windows(from, to, None), &points),
            SequenceFunction::Increase,
        )
    };
    assert_eq!(
        (of(10, 100), of(100, 200), of(10, 200)),
        (Some(5.0), Some(3.0), Some(8.0))
    );
}

#[test]
fn averages_over_time_go_along_lines_or_hold() {
    let points = [(0, 0.0), (10, 10.0), (40, 10.0)];
    let of = |between, max_gap_s| {
        let gathered = Gathered {
            now_ns: 40 * S,
            ..everything(between, max_gap_s)
        };
        let sequence = one(&gathered, &windows(0, 40, None), &points);
        (
            number(&sequence, SequenceFunction::TimeWeightedAvg),
            sequence.covered_ns as i64 / S,
        )
    };
    assert_eq!(of(Between::Linear, 30), (Some(8.75), 40));
    assert_eq!(of(Between::Held, 30), (Some(7.5), 40));
    assert_eq!(
        of(Between::Linear, 20),
        (Some(5.0), 10),
        "the long span is in neither part of the fraction"
    );
    assert_eq!(of(Between::Held, 20), (Some(0.0), 10));
    assert_eq!(of(Between::Linear, 5), (None, 0));
}

#[test]
fn what_lies_outside_reaches_in() {
    let gathered = everything(Between::Linear, 30);
    let sequence = one(&gathered, &windows(5, 20, None), &[(0, 0.0), (10, 10.0), (30, 10.0)]);
    assert_eq!(number(&sequence, SequenceFunction::Integral), Some(37.5 + 100.0));
    assert_eq!(sequence.covered_ns, 15 * S as u128);
}

#[test]
fn rises_are_told_from_a_point_that_lies_long_enough_back() {
    let rise = Rise {
        over_ns: 3_600 * S,
        slack_ns: 300 * S,
    };
    let gathered = Gathered {
        rise: Some(rise),
        ..everything(Between::Linear, 60)
    };
    let of = |from: i64, to: i64, points: &[(i64, f64)]| {
        let points: Vec<_> = points.iter().map(|(minute, value)| (minute * 60, *value)).collect();
        let sequence = one(&gathered, &windows(from * 60, to * 60, None), &points);
        let number = |function| number(&sequence, function).map(|rise| (rise * 1e9).round() / 1e9);
        (
            number(SequenceFunction::RisePerHour),
            number(SequenceFunction::RisePerHourMax),
        )
    };
    assert_eq!(of(60, 61, &[(0, 1.05), (60, 1.25)]), (Some(0.2), Some(0.2)));
    assert_eq!(
        of(60, 80, &[(0, 1.0), (5, 1.3), (62, 3.0), (71, 1.5)]),
        (None, Some(round(2.0 / 62.0 * 60.0)))
    );
    assert_eq!(of(60, 80, &[(0, 1.0), (66, 3.0)]), (None, None), "six minutes too old");
    assert_eq!(of(0, 60, &[(0, 1.0), (60, 3.0)]), (None, None), "behind the window");
    assert_eq!(
        of(0, 90, &[(0, 1.0), (10, 4.0), (60, 1.5), (71, 1.0)]),
        (Some(round(-3.0 / 61.0 * 60.0)), Some(0.5))
    );
}

fn round(rise: f64) -> f64 {
    (rise * 1e9).round() / 1e9
}

#[test]
fn states_hold_until_the_next_one_and_not_across_gaps() {
    let mut out = ByWindow::default();
    let gathered = Gathered {
        now_ns: 50 * S,
        ..everything(Between::Held, 20)
    };
    let over = windows(0, 100, None);
    let mut feed = Feed::new(&gathered, &over);
    for (t, state) in [(0, 1), (10, 2), (15, 2), (20, 1), (45, 2)] {
        feed.point(t * S, ValueRef::Enum(state), &mut out);
    }
    feed.end(&mut out);
    let sequence = &out.sorted()[0].1;
    let of = |function| number(sequence, function);
    assert_eq!(
        of(SequenceFunction::Duration(1)),
        Some(10.0),
        "20 to 45 is too long to know"
    );
    assert_eq!(
        of(SequenceFunction::Duration(2)),
        Some(10.0 + 5.0),
        "until now, not until the end"
    );
    assert_eq!(of(SequenceFunction::Duration(7)), Some(0.0));
    assert_eq!(
        of(SequenceFunction::Transitions),
        Some(2.0),
        "what began in the gap is not known to have begun then"
    );
    assert_eq!(of(SequenceFunction::Mode), Some(2.0));
}

#[test]
fn quantiles_of_few_are_exact_and_of_many_within_the_error() {
    let of = |values: &[f64]| {
        let mut quantiles = Quantiles::default();
        values.iter().for_each(|value| quantiles.add(*value));
        quantiles
    };
    let few = of(&[3.0, 1.0, 2.0, 10.0]);
    let at = |millionths| few.at(millionths);
    assert_eq!(
        (at(0), at(500_000), at(750_000), at(1_000_000)),
        (Some(1.0), Some(2.0), Some(3.0), Some(10.0))
    );
    assert_eq!(Quantiles::default().at(500_000), None);
    for count in 1..=64_u32 {
        let all = of(&(1..=count).map(f64::from).collect::<Vec<_>>());
        for percent in 1..=100_u32 {
            let rank = (percent * count).div_ceil(100);
            assert_eq!(
                all.at(percent * 10_000),
                Some(f64::from(rank)),
                "{percent} % of {count}"
            );
        }
    }
    let many: Vec<f64> = (-2_000..3_000).map(|n| f64::from(n) * 0.37).collect();
    let sketch = of(&many);
    for millionths in (1..=100).map(|n| n * 10_000) {
        let rank = (f64::from(millionths) / 1e6 * many.len() as f64).ceil() as usize;
        let (exact, found) = (many[rank - 1], sketch.at(millionths).unwrap());
        assert!(
            (found - exact).abs() <= exact.abs() * QUANTILE_ERROR * 1.000_001,
            "{millionths}: {found}, {exact}"
        );
    }
}

#[test]
fn quantiles_of_many_hold_at_both_ends_of_the_doubles() {
    let median = |value: f64| {
        let mut quantiles = Quantiles::default();
        (0..65).for_each(|_| quantiles.add(value));
        assert!(matches!(quantiles, Quantiles::Many(_)));
        quantiles.at(500_000).unwrap()
    };
    for size in [
        1e-9,
        1e-3,
        7.5,
        1e12,
        1.7e299,
        1.8e299,
        1e300,
        3e307,
        1.76e308,
        1.79e308,
        f64::MAX,
    ] {
        for value in [size, -size] {
            let found = median(value);
            let error = (found / value - 1.0).abs();
            assert!(error <= QUANTILE_ERROR * 1.000_001, "{found}, not {value}");
        }
    }
    // Nearer to zero than the first border, as the contract says.
    for value in [0.0, 1e-12, -1e-12, 9.9e-10, f64::MIN_POSITIVE] {
        assert_eq!(median(value), 0.0, "{value}");
    }
    let mut all = Quantiles::default();
    let ends = [-f64::MAX, -1e300, -1.0, 1e-12, 1.0, 1e300, f64::MAX];
    (0..70).for_each(|n| all.add(ends[n % ends.len()]));
    let found: Vec<f64> = (1..=7).map(|n| all.at(n * 142_857).unwrap()).collect();
    for (found, expected) in found.iter().zip(ends) {
        let near = (found - expected).abs() <= expected.abs().max(1e-9) * QUANTILE_ERROR * 1.000_001;
        assert!(near, "{found}, not {expected}");
    }
}

/// Borders have the numbers that they had when rollups and nodes first counted by them.
#[test]
fn values_are_counted_where_they_always_were() {
    let check = |value: f64, expected: i32| {
        let mut quantiles = Quantiles::default();
        (0..65).for_each(|_| quantiles.add(value));
        let Quantiles::Many(counts) = quantiles else {
            panic!("few")
        };
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(expected, 65)], "{value}");
    };
    let known = [
        (1e-9, 1),
        (1.5e-9, 22),
        (0.001, 692),
        (1.0, 1_038),
        (7.5, 1_138),
        (442.7, 1_342),
        (1e6, 1_728),
        (1e12, 2_419),
        (1e100, 12_550),
        (1e299, 35_460),
    ];
    for (value, expected) in known {
        check(value, expected);
        check(-value, -expected);
    }
}

#[test]
fn too_many_states_of_many_devices_are_an_error_that_fits_its_bytes() {
    let mut all = Sequence::default();
    for device in 0..70_i64 {
        let codes = device * 2_000..device * 2_000 + STATES_MAX as i64 + 1;
        let of_device = Sequence {
            states: codes
                .map(|code| {
                    (
                        code,
                        State {
                            points: 1,
                            ..State::default()
                        },
                    )
                })
                .collect(),
            ..Sequence::default()
        };
        all.merge(&of_device);
        assert_eq!(all.states.len(), STATES_MAX + 1, "after device {device}");
    }
    // What is there already goes on.
    let again = Sequence {
        states: [(
            5,
            State {
                points: 3,
                ..State::default()
            },
        )]
        .into(),
        ..Sequence::default()
    };
    all.merge(&again);
    assert_eq!(all.states[&5].points, 4);
    let mut bytes = Vec::new();
    all.encode_to(&mut bytes);
    let back = Sequence::decode(&bytes).unwrap();
    assert_eq!(back.finish(SequenceFunction::Mode, 1), Err(TooManyStates));
    // As many as are kept apart are told.
    let mut most = Sequence::default();
    for device in 0..70 {
        let code = |at: usize| {
            (
                at as i64,
                State {
                    points: 1,
                    ..State::default()
                },
            )
        };
        let of_device = Sequence {
            states: (0..STATES_MAX).skip(device).map(code).collect(),
            ..Sequence::default()
        };
        most.merge(&of_device);
    }
    assert_eq!(most.finish(SequenceFunction::Mode, 1), Ok(Some(Finished::I64(69))));
}

#[test]
fn too_many_states_are_an_error_and_stay_bounded() {
    let gathered = everything(Between::Held, 60);
    let points: Vec<(i64, f64)> = (0..5_000).map(|n| (n, n as f64)).collect();
    let sequence = one(&gathered, &windows(0, 10_000, None), &points);
    assert_eq!(sequence.states.len(), STATES_MAX + 1);
    assert_eq!(sequence.finish(SequenceFunction::Mode, 1), Err(TooManyStates));
}

fn points() -> impl Strategy<Value = Vec<(i64, f64)>> {
    prop::collection::vec((1_i64..40, -8_i8..8), 0..60).prop_map(|steps| {
        let mut at = -100;
        let next = |(step, value): (i64, i8)| {
            at += step;
            (at, f64::from(value))
        };
        steps.into_iter().map(next).collect()
    })
}

fn area_of(sequence: &Sequence) -> f64 {
    sequence.area.value() / S as f64
}

fn assert_same(a: &Sequence, b: &Sequence) {
    assert!(
        near(a.rise.value(), b.rise.value())
            && near(a.change.value(), b.change.value())
            && near(area_of(a), area_of(b)),
        "{a:?} {b:?}"
    );
    assert_eq!(
        (a.steps, a.covered_ns, a.moments.count),
        (b.steps, b.covered_ns, b.moments.count)
    );
    assert!(
        near(a.moments.mean, b.moments.mean) && near(a.moments.squares, b.moments.squares),
        "{a:?} {b:?}"
    );
    assert_eq!((&a.bins, &a.states), (&b.bins, &b.states));
    assert_eq!((a.last_rise, a.most_rise), (b.last_rise, b.most_rise));
    for millionths in [0, 250_000, 500_000, 900_000, 1_000_000] {
        assert_eq!(a.quantiles.at(millionths), b.quantiles.at(millionths));
    }
}

proptest! {
    /// Windows side by side hold together what one over all of them holds.
    #[test]
    fn parts_make_the_whole(points in points(), step in 1_i64..200, held in any::<bool>(), gap in 1_i64..60) {
        let gathered = everything(if held { Between::Held } else { Between::Linear }, gap);
        let (from, to) = (-40, 900);
        let mut parts = Sequence::default();
        for (_, part) in fed(&gathered, &windows(from, to, Some(step)), &points).sorted() {
            parts.merge(part);
        }
        assert_same(&parts, &one(&gathered, &windows(from, to, None), &points));
    }

    /// Area and time covered, against sums over seconds.
    #[test]
    fn areas_are_those_of_small_steps(points in points(), held in any::<bool>(), gap in 1_i64..60) {
        let gathered = everything(if held { Between::Held } else { Between::Linear }, gap);
        let (from, to) = (-40, 700);
        let sequence = one(&gathered, &windows(from, to, None), &points);
        let (mut area, mut covered) = (0.0, 0);
        for second in from..to {
            let after = points.partition_point(|(t, _)| *t <= second);
            let (Some(a), Some(b)) = (after.checked_sub(1).map(|at| points[at]), points.get(after)) else {
                continue;
            };
            if b.0 - a.0 <= gap {
                let slope = if held { 0.0 } else { (b.1 - a.1) / (b.0 - a.0) as f64 };
                area += a.1 + slope * ((second - a.0) as f64 + 0.5);
                covered += 1;
            }
        }
        prop_assert!(near(area_of(&sequence), area), "{:?} {}", sequence.area, area);
        prop_assert_eq!(sequence.covered_ns, covered * S as u128);
    }

    /// What is sent is what comes.
    #[test]
    fn bytes_come_back(points in points(), step in 1_i64..500) {
        let gathered = everything(Between::Linear, 30);
        for (_, sequence) in fed(&gathered, &windows(-40, 900, Some(step)), &points).sorted() {
            let mut bytes = Vec::new();
            sequence.encode_to(&mut bytes);
            let back = Sequence::decode(&bytes).unwrap();
            assert_same(&back, sequence);
            for cut in 0..bytes.len() {
                prop_assert!(Sequence::decode(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn damage_is_no_more_than_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Sequence::decode(&bytes);
    }
}
