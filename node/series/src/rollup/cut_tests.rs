//! What a removal takes of a rollup, and points that only neighbours could tell of.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::checks::{Checks, Choice};
use crate::record::Values;

const LENGTH: i64 = 100;
const FIRST: PropertyNumber = PropertyNumber(1);
const SECOND: PropertyNumber = PropertyNumber(2);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// One value of both properties at each time.
fn records(times: &[i64], value: impl Fn(i64) -> f64) -> Records {
    let column = |property: PropertyNumber| Column {
        property,
        presence: None,
        values: Values::F64(times.iter().map(|t_ns| value(*t_ns)).collect()),
        quality: None,
    };
    Records {
        observed_at: times.to_vec(),
        received_at: times.to_vec(),
        report_kind: vec![0; times.len()],
        repeats: Vec::new(),
        columns: vec![column(FIRST), column(SECOND)],
    }
}

fn edge(property: PropertyNumber) -> Edge {
    match property {
        FIRST => Edge::StartClosed,
        _ => Edge::EndClosed,
    }
}

fn rollup_of(records: &Records, format: Format, checks: &Checks) -> Vec<u8> {
    let rolled = [FIRST, SECOND].map(|property| Rolled {
        property,
        edge: edge(property),
        choice: Choice { checks, ..Choice::ALL },
        follows: None,
    });
    roll_up(&bucket::encode(records), format, (7, LENGTH), &rolled)
        .unwrap()
        .unwrap()
}

/// Starts of windows of a property, each with how many points it has.
fn windows(rollup: &[u8], property: PropertyNumber) -> Vec<(i64, u64)> {
    let wanted = Wanted {
        property,
        value_type: ValueType::F64,
        follows: None,
    };
    let rows = Rollup::open(rollup, LENGTH).unwrap().rows(&wanted).unwrap();
    let row = |row: &Row| (row.start_ns, row.points.as_ref().unwrap().count());
    rows.iter().map(row).collect()
}

#[test]
fn windows_go_that_hold_something_of_the_range_and_no_others() {
    let nothing = Checks::default();
    for seed in 1..300 {
        let mut random = Random(seed);
        let mut times: Vec<i64> = (0..1 + random.below(30))
            .map(|_| random.below(900) as i64 - 300)
            .collect();
        times.extend((0..random.below(5)).map(|_| (random.below(9) as i64 - 3) * LENGTH));
        times.sort_unstable();
        times.dedup();
        let formats = [Format::PointsOnly, Format::WithSequences, Format::WithSlots(7)];
        let format = formats[(seed % 3) as usize];
        let rollup = rollup_of(&records(&times, |_| 1.0), format, &nothing);
        let mut end = || match random.below(3) {
            0 => random.below(1_000) as i64 - 350,
            1 => (random.below(10) as i64 - 3) * LENGTH,
            _ => (random.below(10) as i64 - 3) * LENGTH + 1,
        };
        let (a, b) = (end(), end());
        let (from_ns, to_ns) = (a.min(b), a.max(b));
        let known = seed % 5 > 0;
        let cut = Rollup::open(&rollup, LENGTH)
            .unwrap()
            .cut((from_ns, to_ns), |property| known.then(|| edge(property)))
            .unwrap();
        let mut gone = BTreeSet::new();
        for property in [FIRST, SECOND] {
            let holds =
                |start_ns: i64, edge: Edge| (from_ns..to_ns).any(|t| edge.holds(start_ns, t, start_ns + LENGTH));
            let goes = |start_ns: i64| match known {
                true => holds(start_ns, edge(property)),
                false => holds(start_ns, Edge::StartClosed) || holds(start_ns, Edge::EndClosed),
            };
            let all = windows(&rollup, property);
            gone.extend(
                all.iter()
                    .map(|(start_ns, _)| *start_ns)
                    .filter(|start_ns| goes(*start_ns)),
            );
            let expected: Vec<_> = all.into_iter().filter(|(start_ns, _)| !goes(*start_ns)).collect();
            let left = match &cut {
                None => windows(&rollup, property),
                Some(Cut { rest: None, .. }) => Vec::new(),
                Some(Cut { rest: Some(rest), .. }) => windows(rest, property),
            };
            assert_eq!(
                left, expected,
                "seed {seed}, {property:?}, {from_ns} to {to_ns} of {times:?}"
            );
        }
        let counted = cut.map_or(0, |cut| cut.windows);
        assert_eq!(
            counted,
            gone.len() as u64,
            "seed {seed}, {from_ns} to {to_ns} of {times:?}"
        );
    }
}

#[test]
fn loose_points_go_with_their_window_and_count_where_no_neighbours_are_asked() {
    let spikes = Checks {
        spike: Some(5.0),
        neighbours_ns: 1_000,
        ..Checks::default()
    };
    // The first and the last one are far from their neighbour, and only another bucket tells whether also from one on the other side.
    let times = [0, 40, 80, 120, 160, 200];
    let value = |t_ns: i64| if t_ns % 200 == 0 { 100.0 } else { t_ns as f64 / 100.0 };
    let rollup = rollup_of(&records(&times, value), Format::WithSlots(40), &spikes);
    let opened = Rollup::open(&rollup, LENGTH).unwrap();
    let loose = |opened: &Rollup<'_>, property| opened.loose(property).unwrap().observed_at;
    assert_eq!(
        (loose(&opened, FIRST), loose(&opened, SECOND)),
        (vec![0, 200], vec![0, 200])
    );
    for (property, expected) in [
        (FIRST, vec![(0, 3), (1, 2), (2, 1)]),
        (SECOND, vec![(-1, 1), (0, 2), (1, 3)]),
    ] {
        let all = Windows {
            from_ns: -LENGTH,
            to_ns: 3 * LENGTH,
            step_ns: Some(LENGTH),
            origin_ns: 0,
            borders: None,
            edge: edge(property),
        };
        let mut partials = ByWindow::default();
        assert_eq!(fold(&opened, (property, ValueType::F64), &all, &mut partials), Ok(0));
        let counts = partials
            .into_sorted()
            .into_iter()
            .map(|(window, partial)| (window, partial.count()));
        assert_eq!(counts.collect::<Vec<_>>(), expected);
    }
    let cut = opened.cut((0, 1), |property| Some(edge(property))).unwrap().unwrap();
    assert_eq!(cut.windows, 2, "that of the first from 0, that of the second up to 0");
    let rest = cut.rest.unwrap();
    let rest = Rollup::open(&rest, LENGTH).unwrap();
    assert_eq!((loose(&rest, FIRST), loose(&rest, SECOND)), (vec![200], vec![200]));
    assert_eq!(opened.cut((5, 5), |_| None), Ok(None), "no time at all");
    assert_eq!(opened.cut((301, 400), |_| None), Ok(None));
}
