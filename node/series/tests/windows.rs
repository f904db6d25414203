//! Windows against brute force, ends of i64 included.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use tidemark_series::{Edge, Windows};

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        -50i64..50,
        any::<i64>(),
        (0i64..20).prop_map(|d| i64::MIN + d),
        (0i64..20).prop_map(|d| i64::MAX - d),
    ]
}

fn step() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        Just(None),
        (1i64..20).prop_map(Some),
        (1..=i64::MAX).prop_map(Some),
        Just(Some(0)),
        Just(Some(-3))
    ]
}

fn edge() -> impl Strategy<Value = Edge> {
    prop_oneof![Just(Edge::StartClosed), Just(Edge::EndClosed)]
}

fn inside(edge: Edge, start: i128, t: i128, end: i128) -> bool {
    match edge {
        Edge::StartClosed => start <= t && t < end,
        Edge::EndClosed => start < t && t <= end,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_time_is_in_its_window(from in time(), to in time(), step in step(), origin in time(), edge in edge(), t in time()) {
        let windows = Windows { from_ns: from, to_ns: to, step_ns: step, origin_ns: origin, borders: None, edge };
        let index = windows.index_of(t);
        prop_assert_eq!(index.is_some(), inside(edge, from.into(), t.into(), to.into()));
        let (scan_from, scan_to) = windows.scan_range();
        let Some(index) = index else { return Ok(()) };
        prop_assert!((scan_from <= t && t < scan_to) || t == i64::MAX);
        let (start, end) = windows.bounds(index);
        prop_assert!(from <= start && end <= to);
        match step.filter(|s| *s > 0) {
            None => prop_assert_eq!((index, start, end), (0, from, to)),
            Some(step) => {
                let uncut = i128::from(origin) + i128::from(index) * i128::from(step);
                if index != i64::MIN && index != i64::MAX {
                    prop_assert!(inside(edge, uncut, t.into(), uncut + i128::from(step)));
                    prop_assert!(inside(edge, start.into(), t.into(), end.into()));
                }
                let cut = |x: i128| x.clamp(from.into(), to.into()) as i64;
                prop_assert_eq!((start, end), (cut(uncut), cut(uncut + i128::from(step))));
            }
        }
    }

    #[test]
    fn borders_match_brute_force(
        from in -40i64..40, len in 1i64..60, edge in edge(), before in 0i64..9, behind in 0i64..9,
        inner in proptest::collection::btree_set(-60i64..120, 0..12),
    ) {
        let to = from + len;
        let (first, last) = (from - before, to + behind);
        let mut borders = inner;
        borders.retain(|border| (first..last).contains(border));
        borders.extend([first, last]);
        let borders: Vec<i64> = borders.into_iter().collect();
        let windows = Windows {
            from_ns: from, to_ns: to, step_ns: None, origin_ns: 0, borders: Some(borders.clone().into()), edge,
        };
        for t in -60..120 {
            let pairs = borders.windows(2).position(|pair| inside(edge, pair[0].into(), t.into(), pair[1].into()));
            let expected = pairs.filter(|_| inside(edge, from.into(), t.into(), to.into())).map(|at| at as i64);
            prop_assert_eq!(windows.index_of(t), expected);
            let Some(index) = expected else { continue };
            let cut = |place: usize| borders[place].clamp(from, to);
            prop_assert_eq!(windows.bounds(index), (cut(index as usize), cut(index as usize + 1)));
        }
        let seen: std::collections::BTreeSet<i64> = (-60..120).filter_map(|t| windows.index_of(t)).collect();
        prop_assert_eq!(windows.index_range(), seen.first().copied().zip(seen.last().copied()));
        prop_assert_eq!(windows.count(), seen.len() as u64);
    }

    #[test]
    fn small_ranges_match_brute_force(from in -40i64..40, len in -5i64..60, step in 1i64..15, origin in -100i64..100, edge in edge()) {
        let to = from + len;
        let windows = Windows { from_ns: from, to_ns: to, step_ns: Some(step), origin_ns: origin, borders: None, edge };
        let mut seen: Vec<i64> = (-60..120).filter_map(|t| windows.index_of(t)).collect();
        seen.dedup();
        prop_assert!(seen.windows(2).all(|w| w[1] == w[0] + 1), "windows have gaps");
        prop_assert_eq!(windows.count(), seen.len() as u64);
        let ends = seen.first().copied().zip(seen.last().copied());
        prop_assert_eq!(windows.index_range(), ends);
        let bounds: Vec<(i64, i64)> = seen.iter().map(|&i| windows.bounds(i)).collect();
        prop_assert!(bounds.windows(2).all(|w| w[0].1 == w[1].0), "bounds have gaps");
        if let (Some(first), Some(last)) = (bounds.first(), bounds.last()) {
            prop_assert_eq!((first.0, last.1), (from, to));
        }
        let (scan_from, scan_to) = windows.scan_range();
        prop_assert!((-60..120).all(|t| windows.index_of(t).is_none() || (scan_from <= t && t < scan_to)));
    }
}

#[track_caller]
fn check(windows: &Windows, t: i64, expected: Option<(i64, (i64, i64))>) {
    assert_eq!(windows.index_of(t).map(|i| (i, windows.bounds(i))), expected);
}

#[test]
fn windows_read_as_they_should() {
    let hour = Windows {
        from_ns: 0,
        to_ns: 100,
        step_ns: Some(10),
        origin_ns: 5,
        borders: None,
        edge: Edge::StartClosed,
    };
    check(&hour, 0, Some((-1, (0, 5))));
    check(&hour, 5, Some((0, (5, 15))));
    check(&hour, 99, Some((9, (95, 100))));
    check(&hour, 100, None);
    assert_eq!(hour.count(), 11);
    let mean = Windows {
        edge: Edge::EndClosed,
        ..hour.clone()
    };
    check(&mean, 0, None);
    check(&mean, 5, Some((-1, (0, 5))));
    check(&mean, 6, Some((0, (5, 15))));
    check(&mean, 100, Some((9, (95, 100))));
    let all = Windows {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        step_ns: None,
        origin_ns: 0,
        borders: None,
        edge: Edge::EndClosed,
    };
    check(&all, i64::MAX, Some((0, (i64::MIN, i64::MAX))));
    check(&all, i64::MIN, None);
    assert_eq!(all.count(), 1);
    let finest = Windows {
        step_ns: Some(1),
        origin_ns: i64::MIN,
        borders: None,
        ..all.clone()
    };
    assert_eq!(finest.count(), (1 << 63) - 1 + 1);
    let empty = Windows {
        from_ns: 7,
        to_ns: 7,
        ..hour.clone()
    };
    assert_eq!((empty.count(), empty.index_of(7)), (0, None));
}
