//! Slots against a list of them, each looked at by itself.
//! Never here: blocks (see `tests/shapes.rs`). Invariant: the list shares no arithmetic with what it judges.

use std::collections::BTreeMap;

use super::*;
use crate::partial::Partial;
use crate::record::{ValueRef, ValueType};
use crate::rollup::Empty;
use crate::stamps::Even;
use crate::window::Windows;

/// Windows of so many steps over a range, on a grid that goes through none of its ends.
fn sliding(range: (i64, i64), step: Option<i64>, steps: i64, edge: Edge) -> Sliding {
    sliding_from(3, range, step, steps, edge)
}

fn sliding_from(origin_ns: i64, range: (i64, i64), step: Option<i64>, steps: i64, edge: Edge) -> Sliding {
    let asked = Windows {
        from_ns: range.0,
        to_ns: range.1,
        step_ns: step,
        origin_ns,
        borders: None,
        edge,
    };
    let endless = Windows {
        from_ns: i64::MIN,
        ..asked.clone()
    };
    let begin = match (steps, asked.index_range()) {
        (2.., Some((first, _))) => endless.bounds(first - (steps - 1)).0,
        _ => range.0,
    };
    Sliding {
        stepped: Windows {
            from_ns: begin,
            ..asked.clone()
        },
        asked,
        steps,
    }
}

/// Points and filled slots by window.
fn expected(windows: &Sliding, interval: i64, times: &[i64]) -> BTreeMap<i64, (u64, u64)> {
    let edge = windows.asked.edge;
    let holds = |(start, end): (i64, i64), t: i64| match edge {
        Edge::StartClosed => start <= t && t < end,
        Edge::EndClosed => start < t && t <= end,
    };
    let any = |span: (i64, i64)| times.iter().any(|t| holds(span, *t));
    let Some((first, last)) = windows.asked.index_range() else {
        return BTreeMap::new();
    };
    let window = |window: i64| {
        let (start, end) = windows.bounds(window);
        let points = times.iter().filter(|t| holds((start, end), **t)).count() as u64;
        let whole = (end - start) / interval;
        let slot = |at: i64| match edge {
            Edge::StartClosed => (start + at * interval, start + (at + 1) * interval),
            Edge::EndClosed => (end - (at + 1) * interval, end - at * interval),
        };
        (window, (points, (0..whole).filter(|at| any(slot(*at))).count() as u64))
    };
    (first..=last)
        .map(window)
        .filter(|(_, (points, _))| *points > 0)
        .collect()
}

/// The same as it was noted.
fn noted(windows: &Sliding, slots: &Slots, mut filled: ByWindow<Filled>) -> BTreeMap<i64, (u64, u64)> {
    let (Some((first, last)), true) = (windows.asked.index_range(), slots.of_steps()) else {
        return told(filled);
    };
    let window = |window: i64| {
        let inside = |step: &&(i64, Filled)| (window + 1 - windows.steps..=window).contains(&step.0);
        let mut steps = filled.sorted().iter().filter(inside).map(|(_, filled)| *filled);
        let first = steps.next()?;
        let whole = steps.fold(first, |mut whole, step| {
            whole.merge(&step);
            whole
        });
        Some((window, (whole.points, whole.slots)))
    };
    (first..=last).filter_map(window).collect()
}

fn told(mut filled: ByWindow<Filled>) -> BTreeMap<i64, (u64, u64)> {
    let one = |(window, filled): &(i64, Filled)| (*window, (filled.points, filled.slots));
    filled.sorted().iter().map(one).collect()
}

#[test]
fn slots_are_those_of_a_list_of_them() {
    let mut state = 7_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % below) as i64
    };
    let mut of_steps = 0;
    for round in 0..4_000 {
        let from = next(40) - 20;
        let interval = 1 + next(20);
        let step = match next(5) {
            0 => None,
            1 => Some(interval * (1 + next(3))),
            _ => Some(1 + next(30)),
        };
        let steps = if step.is_some() { 1 + next(4) } else { 1 };
        let edge = [Edge::StartClosed, Edge::EndClosed][next(2) as usize];
        let windows = sliding((from, from + next(120)), step, steps, edge);
        let slots = Slots::new(windows.clone(), interval);
        of_steps += u64::from(slots.of_steps());
        // Blocks one after the other, some of even times.
        let (mut t, mut times, mut filled) = (from - 60, Vec::new(), ByWindow::default());
        for _ in 0..next(6) {
            let (count, spread) = (1 + next(25) as usize, 1 + next(9) as u64);
            if next(2) == 0 {
                let even = Even {
                    first_ns: t,
                    step_ns: 1 + next(spread * 2),
                    count,
                };
                slots.fill_stamped(even, &mut filled);
                times.extend(even.list());
            } else {
                let list: Vec<i64> = (0..count)
                    .map(|_| {
                        t += next(spread);
                        t
                    })
                    .collect();
                slots.fill(&list, &mut filled);
                times.extend(list);
            }
            t = times.last().copied().unwrap_or(t) + next(12);
        }
        assert_eq!(
            noted(&windows, &slots, filled),
            expected(&windows, interval, &times),
            "round {round}: {slots:?} {times:?}"
        );
    }
    assert!((200..3_000).contains(&of_steps), "{of_steps} times steps added up");
}

/// An hour of five minutes each, in seconds.
fn hour(edge: Edge) -> Slots {
    Slots::new(sliding((0, 3_600), None, 1, edge), 300)
}

#[test]
fn a_slot_is_filled_once_however_many_points_it_has() {
    let check = |edge: Edge, times: &[i64], slots: u64| {
        let mut filled = ByWindow::default();
        // Each point in a block of its own.
        times.iter().for_each(|t| hour(edge).fill(&[*t], &mut filled));
        assert_eq!(told(filled), [(0, (times.len() as u64, slots))].into(), "{times:?}");
    };
    let twelve: Vec<i64> = (0..12).map(|n| 301 + n * 20).collect();
    check(Edge::StartClosed, &twelve, 1);
    check(Edge::EndClosed, &twelve, 1);
    let twice: Vec<i64> = (0..24).map(|n| 10 + n * 150).collect();
    check(Edge::StartClosed, &twice, 12);
    check(Edge::StartClosed, &[0, 299, 300, 3_599], 3);
    check(Edge::EndClosed, &[1, 300, 301, 3_600], 3);
}

#[test]
fn what_is_left_beside_whole_slots_is_none() {
    let slots = |edge| Slots::new(sliding((0, 1_000), None, 1, edge), 300);
    let check = |edge: Edge, times: &[i64], expected: (u64, u64)| {
        let mut filled = ByWindow::default();
        slots(edge).fill(times, &mut filled);
        assert_eq!(told(filled), [(0, expected)].into(), "{edge:?} {times:?}");
    };
    check(Edge::StartClosed, &[50, 899, 900, 999], (4, 2));
    check(Edge::EndClosed, &[50, 100, 101, 1_000], (4, 2));
}

/// A window of a rollup that stands for points at these times, and what it knows of their slots.
fn row(start_ns: i64, length_ns: i64, times: &[i64], empty: Option<Empty>) -> Row {
    let mut points = Partial::empty(ValueType::I64);
    times.iter().for_each(|t| points.fold(*t, ValueRef::I64(1)));
    Row {
        start_ns,
        length_ns,
        points: Some(points),
        empty,
        ..Row::default()
    }
}

/// Windows of a rollup over points of one bucket, with their empty slots told one by one.
fn rows_of(times: &[i64], length: i64, interval: i64, edge: Edge) -> Vec<Row> {
    let start = |t: i64| match edge {
        Edge::StartClosed => t.div_euclid(length) * length,
        Edge::EndClosed => (t - 1).div_euclid(length) * length,
    };
    let row_of = |times: &[i64]| {
        let begin = start(times[0]);
        let slot = |at: i64| match edge {
            Edge::StartClosed => (begin + at * interval, begin + (at + 1) * interval),
            Edge::EndClosed => (begin + length - (at + 1) * interval, begin + length - at * interval),
        };
        let has = |at: &i64| times.iter().any(|t| edge.holds(slot(*at).0, *t, slot(*at).1));
        let filled: Vec<i64> = (0..=length / interval).filter(has).collect();
        let slots = (filled[0]..filled[filled.len() - 1])
            .filter(|at| !filled.contains(at))
            .count() as u64;
        let known = Empty {
            interval_ns: interval,
            slots,
        };
        row(begin, length, times, Some(known))
    };
    times.chunk_by(|a, b| start(*a) == start(*b)).map(row_of).collect()
}

#[test]
fn windows_of_rollups_fill_the_slots_of_their_points() {
    let mut state = 11_u64;
    let mut next = |below: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as i64 % below
    };
    let (mut exact, mut of_steps) = (0, 0);
    for round in 0..6_000 {
        let interval = 1 + next(12);
        let length = match next(3) {
            0 => interval * (1 + next(4)),
            1 => 1 + next(interval),
            _ => 1 + next(40),
        };
        let (step, steps) = (length * (1 + next(4)), 1 + next(3));
        let edge = [Edge::StartClosed, Edge::EndClosed][next(2) as usize];
        let from = length * (next(12) - 6);
        let windows = sliding_from(0, (from, from + length * next(20)), Some(step), steps, edge);
        let slots = Slots::new(windows.clone(), interval);
        of_steps += u64::from(slots.of_steps());
        let (bucket, spread) = (1 + next(100), 1 + next(interval * 2));
        let (mut t, mut times) = (from - 60, Vec::new());
        for _ in 0..next(120) {
            t += if next(9) == 0 { next(50) } else { next(spread) } + 1;
            times.push(t);
        }
        let mut filled = ByWindow::default();
        for of_bucket in times.chunk_by(|a, b| a.div_euclid(bucket) == b.div_euclid(bucket)) {
            match next(4) {
                0 => slots.fill(of_bucket, &mut filled),
                _ => {
                    let rows = rows_of(of_bucket, length, interval, edge);
                    rows.iter().for_each(|row| slots.fill_row(row, &mut filled));
                }
            }
        }
        let found = noted(&windows, &slots, filled);
        let expected = expected(&windows, interval, &times);
        let message = format!("round {round}: {slots:?}, rollups of {length} and buckets of {bucket}, {times:?}");
        if length <= interval || length % interval == 0 || (step == length && steps == 1) {
            exact += 1;
            assert_eq!(found, expected, "{message}");
            continue;
        }
        // Where slots lie across borders of rollups, none is there that is not promised.
        assert!(found.keys().eq(expected.keys()), "{message}");
        for (window, (points, slots)) in &found {
            let ((start, end), (all, truly)) = (windows.bounds(*window), expected[window]);
            assert_eq!(*points, all, "{message}");
            assert!(
                *slots <= ((end - start) / interval) as u64,
                "{slots} in {window}, {message}"
            );
            assert_eq!(*slots > 0, truly > 0, "{message}");
        }
    }
    assert!(exact > 3_000 && of_steps > 1_000, "{exact} exact, {of_steps} by steps");
}

#[test]
fn windows_of_rollups_that_know_no_slots_fill_as_many_as_there_may_be() {
    let check = |length: i64, rows: &[(i64, &[i64])], expected: (u64, u64)| {
        for (edge, empty) in [
            (Edge::StartClosed, None),
            // Of slots of another length.
            (
                Edge::StartClosed,
                Some(Empty {
                    interval_ns: 60,
                    slots: 7,
                }),
            ),
            (Edge::EndClosed, None),
        ] {
            let mut filled = ByWindow::default();
            for (start, times) in rows {
                hour(edge).fill_row(&row(*start, length, times, empty), &mut filled);
            }
            assert_eq!(told(filled), [(0, expected)].into(), "{length} {rows:?} {edge:?}");
        }
    };
    let often: Vec<i64> = (0..40).map(|n| 10 + n * 90).collect();
    check(3_600, &[(0, &[10, 50, 60, 1_000, 3_000])], (5, 5));
    check(3_600, &[(0, &often)], (40, 12));
    check(3_600, &[(0, &[310, 330, 350, 370])], (4, 1));
    check(300, &[(0, &[10, 20, 30]), (600, &[700])], (4, 2));
    check(100, &[(0, &[10, 20]), (100, &[150]), (300, &[390])], (4, 2));
}

#[test]
fn slots_across_rollups_are_all_filled_where_all_of_them_are() {
    // Seven into sixty goes not, and not into a day of them.
    for edge in [Edge::StartClosed, Edge::EndClosed] {
        let day = sliding_from(0, (0, 1_440), None, 1, edge);
        let slots = Slots::new(day, 7);
        let times: Vec<i64> = (0..206).map(|at| at * 7 + 3).collect();
        let mut filled = ByWindow::default();
        let rows = rows_of(&times, 60, 7, edge);
        rows.iter().for_each(|row| slots.fill_row(row, &mut filled));
        assert_eq!(told(filled), [(0, (206, 205))].into(), "{edge:?}");
    }
}

#[test]
fn devices_add_up() {
    let mut both = Filled::new(12, 1);
    both.merge(&Filled::new(6, 6));
    assert_eq!(both, Filled::new(18, 7));
}

#[test]
fn nothing_overflows_at_the_ends_of_time() {
    for edge in [Edge::StartClosed, Edge::EndClosed] {
        let slots = Slots::new(sliding((i64::MIN, i64::MAX), None, 1, edge), 1);
        let mut filled = ByWindow::default();
        slots.fill(&[i64::MIN + 1, 0, i64::MAX - 1], &mut filled);
        assert_eq!(told(filled), [(0, (3, 3))].into(), "{edge:?}");
    }
}
