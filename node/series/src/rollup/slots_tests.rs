//! Slots that rollups keep, against those of the points that they were made of, and what that costs.
//! Never here: how slots are counted (see `slots/tests`). Invariant: rollups are read from their bytes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests; sizes are printed")]
use super::tests::{FIRST_VERSION, SECOND_VERSION, THIRD_VERSION};
use super::*;
use crate::checks::{Checks, Choice};
use crate::record::Values;
use crate::slots::{Filled, Slots};
use crate::window::Sliding;

const LENGTH: i64 = 100;
const PROPERTIES: [(PropertyNumber, Edge); 2] = [
    (PropertyNumber(1), Edge::StartClosed),
    (PropertyNumber(2), Edge::EndClosed),
];

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
    let column = |(property, _): (PropertyNumber, Edge)| Column {
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
        columns: PROPERTIES.map(column).into(),
    }
}

fn rolled(checks: &Checks, follows: Option<Follows>) -> [Rolled<'_>; 2] {
    PROPERTIES.map(|(property, edge)| Rolled {
        property,
        edge,
        choice: Choice { checks, ..Choice::ALL },
        follows,
    })
}

/// Points at random, some close together, some far apart.
fn some_times(random: &mut Random) -> Vec<i64> {
    let (mut at, mut times) = (-1_000, Vec::new());
    while at < 1_000 {
        at += match random.below(12) {
            0 => 1 + random.below(200) as i64,
            1..5 => 1 + random.below(4) as i64,
            _ => 1 + random.below(30) as i64,
        };
        times.push(at);
    }
    times.extend((0..random.below(4)).map(|at| at as i64 * LENGTH));
    times.sort_unstable();
    times.dedup();
    times
}

/// Points and filled slots by window.
fn told(filled: ByWindow<Filled>) -> Vec<(i64, (u64, u64))> {
    let one = |(window, filled): (i64, Filled)| (window, (filled.points, filled.slots));
    filled.into_sorted().into_iter().map(one).collect()
}

#[test]
fn slots_of_rollups_are_those_of_their_buckets() {
    let checks = Checks {
        max: Some(9.0),
        ..Checks::default()
    };
    for seed in 1..600 {
        let mut random = Random(seed);
        let times = some_times(&mut random);
        let value = |t_ns: i64| (t_ns * 7_919).rem_euclid(11) as f64;
        let interval_ns = [1, 5, 10, 20, 50, 100, 130, 300][random.below(8) as usize];
        let bucket_ns = [LENGTH / 2, LENGTH, 6 * LENGTH][random.below(3) as usize];
        let from_ns = (random.below(12) as i64 - 11) * LENGTH;
        for (property, edge) in PROPERTIES {
            let windows = Windows {
                from_ns,
                to_ns: from_ns + random.below(20) as i64 * LENGTH,
                step_ns: (random.below(4) > 0).then(|| (1 + random.below(7)) as i64 * LENGTH),
                origin_ns: 0,
                borders: None,
                edge,
            };
            let sliding = Sliding {
                asked: windows.clone(),
                stepped: windows.clone(),
                steps: 1,
            };
            let slots = Slots::new(sliding, interval_ns);
            let (mut expected, mut found) = (ByWindow::default(), ByWindow::default());
            for times in times.chunk_by(|a, b| a.div_euclid(bucket_ns) == b.div_euclid(bucket_ns)) {
                let counting: Vec<i64> = times.iter().copied().filter(|t_ns| value(*t_ns) <= 9.0).collect();
                slots.fill(&counting, &mut expected);
                if random.below(4) == 0 {
                    slots.fill(&counting, &mut found);
                    continue;
                }
                let bucket = bucket::encode(&records(times, value));
                let format = Format::WithSlots(interval_ns);
                let rollup = roll_up(&bucket, format, (1, LENGTH), &rolled(&checks, None));
                for row in rows(&rollup.unwrap().unwrap(), property) {
                    slots.fill_row(&row, &mut found);
                }
            }
            let message = format!("seed {seed}, slots of {interval_ns}, {windows:?}");
            assert_eq!(told(found), told(expected), "{message}, {times:?}");
        }
    }
}

fn rows(rollup: &[u8], property: PropertyNumber) -> Vec<Row> {
    let wanted = Wanted {
        property,
        value_type: ValueType::F64,
        follows: None,
    };
    Rollup::open(rollup, LENGTH).unwrap().rows(&wanted).unwrap()
}

#[test]
fn rollups_of_all_versions_are_read() {
    let check = |hex: &str, expected: [Option<u64>; 3]| {
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let rollup: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
        let wanted = Wanted {
            property: PropertyNumber(4),
            value_type: ValueType::Enum,
            follows: None,
        };
        let rows = Rollup::open(&rollup, LENGTH).unwrap().rows(&wanted).unwrap();
        let counts: Vec<u64> = rows.iter().map(|row| row.points.as_ref().unwrap().count()).collect();
        assert_eq!(counts, [4, 1, 1]);
        let empty: Vec<_> = rows.iter().map(|row| row.empty.map(|empty| empty.slots)).collect();
        assert_eq!(empty, expected);
        // 5, 10, 15 and 20 in slots of 2, of which nothing else tells that they are four.
        let windows = Windows {
            from_ns: 0,
            to_ns: LENGTH,
            step_ns: None,
            origin_ns: 0,
            borders: None,
            edge: Edge::StartClosed,
        };
        let sliding = Sliding {
            asked: windows.clone(),
            stepped: windows,
            steps: 1,
        };
        let mut filled = ByWindow::default();
        rows.iter()
            .for_each(|row| Slots::new(sliding.clone(), 2).fill_row(row, &mut filled));
        assert_eq!(told(filled), [(0, (4, 4))]);
    };
    check(FIRST_VERSION, [None; 3]);
    check(SECOND_VERSION, [None; 3]);
    check(THIRD_VERSION, [Some(5), Some(0), Some(0)]);
}

/// Bytes per window of a property in the second version, and how many more in the third one.
fn cost(times: &[i64], length_ns: i64, interval_ns: i64) -> (f64, f64) {
    let value = bucket::encode(&records(times, |t_ns| {
        (t_ns / interval_ns * 7_919).rem_euclid(500) as f64 / 100.0
    }));
    let nothing = Checks::default();
    let rolled = rolled(&nothing, Some(Follows::Linear(3 * interval_ns)));
    let made = |format| roll_up(&value, format, (1, length_ns), &rolled).unwrap().unwrap();
    let (second, third) = (made(Format::WithSequences), made(Format::WithSlots(interval_ns)));
    let windows = 2.0 * Rollup::open(&third, length_ns).unwrap().windows().unwrap() as f64;
    (
        second.len() as f64 / windows,
        (third.len() as f64 - second.len() as f64) / windows,
    )
}

#[test]
fn slots_cost_a_byte_or_two_a_window_where_some_are_empty() {
    const S: i64 = 1_000_000_000;
    let check = |what: &str, times: &dyn Fn(&mut Random) -> Vec<i64>, most: f64| {
        for length_s in [300, 3_600, 86_400] {
            let times = times(&mut Random(5));
            let (before, more) = cost(&times, length_s * S, 60 * S);
            println!(
                "{what}, a day of windows of {length_s} s: {before:.2} bytes a window, and {more:.2} more for slots"
            );
            // Whatever is kept of slots, the rollup names their length.
            let named = 8.0 / (2.0 * 86_400.0 / length_s as f64);
            assert!(more <= most + named + 0.01, "{what}, {length_s}: {before} {more}");
        }
    };
    check("each minute", &|_| (0..1_440).map(|at| at * 60 * S).collect(), 0.0);
    let often = |random: &mut Random, percent: u64| {
        let mut times: Vec<i64> = (0..1_440).filter(|_| random.below(100) >= percent).collect();
        times.iter_mut().for_each(|at| *at *= 60 * S);
        times
    };
    check("one minute of a hundred left out", &|random| often(random, 1), 4.0);
    check("a tenth left out", &|random| often(random, 10), 4.0);
    check("half of them left out", &|random| often(random, 50), 8.0);
}
