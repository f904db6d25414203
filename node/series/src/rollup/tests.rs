//! Rollups against the buckets that they were made of.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::block::Accepted;
use crate::checks::Checks;
use crate::partial::Function;

const LENGTH: i64 = 100;
const TYPES: [ValueType; 4] = [ValueType::F64, ValueType::I64, ValueType::Bool, ValueType::Enum];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Records with a property of each type, some of bad quality, some out of range, some with gaps.
fn records(random: &mut Random) -> Records {
    let mut times: Vec<i64> = (0..1 + random.below(300))
        .map(|_| random.below(6_000) as i64 - 3_000)
        .collect();
    times.sort_unstable();
    times.dedup();
    let mut columns = Vec::new();
    for (number, of) in (1..).zip(TYPES) {
        let mut presence = Bitmap::new(times.len());
        let mut values = Values::empty(of);
        let mut quality = Vec::new();
        for row in 0..times.len() {
            if random.below(5) == 0 {
                continue;
            }
            presence.set(row, true);
            quality.push(if random.below(9) == 0 { 3 } else { 0 });
            let number = random.below(1_100);
            match &mut values {
                Values::F64(values) if number == 7 => values.push(f64::NAN),
                Values::F64(values) => values.push(number as f64 / 10.0),
                Values::I64(values) if number < 20 => values.push(i64::MAX),
                Values::I64(values) => values.push(number as i64 - 50),
                Values::Bool(values) => values.push(number.is_multiple_of(2)),
                Values::Enum(values) => values.push(number as u32 % 5),
                Values::Text(_) => {}
            }
        }
        if !values.is_empty() {
            columns.push(Column {
                property: PropertyNumber(number),
                presence: (values.len() < times.len()).then_some(presence),
                values,
                quality: Some(quality).filter(|quality| quality.iter().any(|one| *one > 0)),
            });
        }
    }
    Records {
        received_at: times.clone(),
        report_kind: vec![0; times.len()],
        repeats: Vec::new(),
        observed_at: times,
        columns,
    }
    .without_empty_rows()
}

fn answers(partials: ByWindow) -> Vec<(i64, String)> {
    let functions = [
        Function::Count,
        Function::Sum,
        Function::Min,
        Function::Max,
        Function::Avg,
        Function::First,
        Function::Last,
        Function::Spread,
    ];
    let answer = |(window, partial): (i64, Partial)| {
        let finished = functions.map(|function| partial.finish(function));
        (window, format!("{finished:?}"))
    };
    partials.into_sorted().into_iter().map(answer).collect()
}

#[test]
fn a_rollup_answers_as_its_bucket_does() {
    let checks = Checks {
        min: Some(0.0),
        max: Some(100.0),
        ..Checks::default()
    };
    let nothing = Checks::default();
    for seed in 1..60 {
        let mut random = Random(seed);
        let value = bucket::encode(&records(&mut random));
        let choice = |number: u32| Choice {
            accepted: Accepted(!(1 << 3)),
            checks: if number == 1 { &checks } else { &nothing },
            drop_suspect: false,
        };
        let edge = |number: u32| {
            if number.is_multiple_of(2) {
                Edge::EndClosed
            } else {
                Edge::StartClosed
            }
        };
        let rolled: Vec<_> = (1..=4)
            .map(|number| Rolled {
                property: PropertyNumber(number),
                edge: edge(number),
                choice: choice(number),
            })
            .collect();
        let rollup = roll_up(&value, seed, LENGTH, &rolled).unwrap().unwrap();
        let (rule, kept) = open(&rollup).unwrap();
        assert_eq!(rule, seed);
        for (number, of) in (1..).zip(TYPES) {
            let from_ns = (random.below(40) as i64 - 30) * LENGTH;
            let windows = Windows {
                from_ns,
                to_ns: from_ns + random.below(50) as i64 * LENGTH,
                step_ns: (random.below(4) > 0).then(|| (1 + random.below(7)) as i64 * LENGTH),
                origin_ns: random.below(5) as i64 * LENGTH,
                borders: None,
                edge: edge(number),
            };
            let (mut expected, mut dropped) = (ByWindow::default(), 0);
            for block in bucket::blocks(&value) {
                let block = block.unwrap();
                let mut folding = block.folding();
                let property = PropertyNumber(number);
                folding
                    .fold(property, &windows, Needs::All, &choice(number), &mut expected)
                    .unwrap();
                dropped += folding.dropped();
            }
            let mut found = ByWindow::default();
            let left_out = fold(kept, LENGTH, (PropertyNumber(number), of), &windows, &mut found).unwrap();
            assert_eq!(left_out, dropped, "seed {seed}, property {number}, {windows:?}");
            assert_eq!(
                answers(found),
                answers(expected),
                "seed {seed}, property {number}, {windows:?}"
            );
        }
    }
}

#[test]
fn windows_that_were_deleted_from_are_gone() {
    let times = [0, 50, 100, 250, 300];
    let records = Records {
        observed_at: times.to_vec(),
        received_at: times.to_vec(),
        report_kind: vec![0; times.len()],
        repeats: Vec::new(),
        columns: vec![Column {
            property: PropertyNumber(1),
            presence: None,
            values: Values::F64(vec![1.0; times.len()]),
            quality: None,
        }],
    };
    let rolled = [Rolled {
        property: PropertyNumber(1),
        edge: Edge::StartClosed,
        choice: Choice::ALL,
    }];
    let rollup = roll_up(&bucket::encode(&records), 7, LENGTH, &rolled).unwrap().unwrap();
    let starts = |rollup: &[u8]| bucket::decode(open(rollup).unwrap().1, None).unwrap().observed_at;
    assert_eq!(starts(&rollup), [0, 100, 200, 300]);
    let check = |from_ns, to_ns, expected: &[i64]| {
        let left = without(&rollup, LENGTH, from_ns, to_ns).unwrap();
        assert_eq!(
            left.map_or(Vec::new(), |left| starts(&left)),
            expected,
            "{from_ns} to {to_ns}"
        );
    };
    check(-50, 0, &[0, 100, 200, 300]);
    check(110, 120, &[0, 200, 300]);
    check(150, 201, &[0, 300]);
    check(i64::MIN, i64::MAX, &[]);
    check(500, 600, &[0, 100, 200, 300]);
    assert!(open(&rollup[..5]).is_err() && open(&[2; 20]).is_err() && without(&rollup[..20], LENGTH, 0, 1).is_err());
}
