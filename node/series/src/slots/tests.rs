//! Slots against a list of them, each looked at by itself.
//! Never here: blocks (see `tests/shapes.rs`). Invariant: the list shares no arithmetic with what it judges.

use std::collections::BTreeMap;

use super::*;
use crate::stamps::Even;
use crate::window::Windows;

/// Windows of so many steps over a range.
fn sliding(range: (i64, i64), step: Option<i64>, steps: i64, edge: Edge) -> Sliding {
    let asked = Windows {
        from_ns: range.0,
        to_ns: range.1,
        step_ns: step,
        origin_ns: 3,
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

#[test]
fn windows_of_rollups_fill_as_many_slots_as_they_can_have() {
    let check = |length: i64, rows: &[(i64, u64)], expected: (u64, u64)| {
        for edge in [Edge::StartClosed, Edge::EndClosed] {
            let mut filled = ByWindow::default();
            for (start, points) in rows {
                hour(edge).fill_about((*start, length), *points, &mut filled);
            }
            assert_eq!(told(filled), [(0, expected)].into(), "{length} {rows:?} {edge:?}");
        }
    };
    check(3_600, &[(0, 5)], (5, 5));
    check(3_600, &[(0, 40)], (40, 12));
    check(300, &[(0, 7), (600, 1)], (8, 2));
    check(100, &[(0, 7), (100, 1), (300, 1)], (9, 2));
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
