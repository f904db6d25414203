//! Records whose columns resemble each other, or come by clocks of their own: what goes in comes out, whole, by column and
//! by aggregate, and damage is noticed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::Rng;
use proptest::prelude::*;
use tidemark_series::{
    Bitmap, Block, ByWindow, Choice, Column, Edge, Finished, Function, Needs, Partial, PropertyNumber, Records,
    Sliding, Slots, Values, Windows, block, bucket,
};

const S: i64 = 1_000_000_000;

/// Columns of one, two or three clocks; each but the first may resemble the one before.
fn records(rng: &mut Rng, rows: usize) -> Records {
    let mut parts = Vec::new();
    let mut number = 0;
    for clock in 0..1 + rng.below(3) as i64 {
        let jitter = 1 + rng.below(30);
        let mut at = 1_700_000_000 + clock * 211;
        let observed_at: Vec<i64> = (0..rows)
            .map(|_| {
                at += 600 + rng.below(jitter) as i64;
                at * S
            })
            .collect();
        let mut columns: Vec<Column> = Vec::new();
        for _ in 0..1 + rng.below(3) {
            number += 1 + rng.below(4) as u32;
            let values = match columns.last() {
                Some(before) if rng.chance(2) => resembling(rng, &before.values),
                _ if rng.chance(3) => Values::I64(common::ints(rng, rows)),
                _ => Values::F64(common::floats(rng, rows)),
            };
            columns.push(Column {
                property: PropertyNumber(number),
                presence: None,
                values,
                quality: None,
            });
        }
        if rng.chance(3) {
            columns.iter_mut().for_each(|column| thin(rng, column));
        }
        parts.push(Records {
            received_at: observed_at.iter().map(|t| t + rng.below(3) as i64 * S).collect(),
            report_kind: vec![1; rows],
            repeats: Vec::new(),
            observed_at,
            columns,
        });
    }
    let all = Records::merge_all(parts);
    let numbers: Vec<PropertyNumber> = all.columns.iter().map(|c| c.property).collect();
    let end = all.len().min(4096);
    all.project(&numbers).slice_rows(0, end)
}

fn resembling(rng: &mut Rng, values: &Values) -> Values {
    let power = 10f64.powi(rng.below(5) as i32);
    match values {
        Values::F64(v) => Values::F64(v.iter().map(|v| (v * power).round() / power).collect()),
        Values::I64(v) => Values::I64(v.iter().map(|v| v.wrapping_add(rng.below(3) as i64)).collect()),
        other => other.clone(),
    }
}

/// Leaves out values, but not the first: records of which nothing is left make no block.
fn thin(rng: &mut Rng, column: &mut Column) {
    let mut map = Bitmap::new(column.values.len());
    (0..map.len()).for_each(|row| map.set(row, !rng.chance(5) || row == 0));
    column.values = match &column.values {
        Values::F64(v) => Values::F64(map.iter_ones().map(|row| v[row]).collect()),
        Values::I64(v) => Values::I64(map.iter_ones().map(|row| v[row]).collect()),
        other => other.clone(),
    };
    column.presence = Some(map);
}

fn check(records: &Records) {
    let bytes = block::encode(records);
    let (block, rest) = Block::parse(&bytes).unwrap();
    assert!(rest.is_empty());
    assert_eq!(&block.decode(None).unwrap(), records, "{}", block.describe());
    assert_eq!(block.times().unwrap(), records.observed_at);
    for column in &records.columns {
        assert_eq!(
            block.column(column.property).unwrap().as_ref(),
            Some(column),
            "{}",
            block.describe()
        );
        let one = block.decode(Some(&[column.property])).unwrap();
        assert_eq!(one.columns, std::slice::from_ref(column));
    }
}

/// Sums of doubles differ by rounding only.
fn assert_same(a: &mut BTreeMap<i64, Partial>, b: &mut BTreeMap<i64, Partial>, column: &Column) {
    let Values::F64(values) = &column.values else {
        return assert_eq!(a, b);
    };
    let size: f64 = values.iter().map(|v| v.abs()).sum();
    for (a, b) in a.values_mut().zip(b.values_mut()) {
        let (Partial::F64(a), Partial::F64(b)) = (a, b) else {
            continue;
        };
        let off = (a.sum + a.sum_rest) - (b.sum + b.sum_rest);
        assert!(
            off.abs() <= size * 1e-12 || !size.is_finite(),
            "{} against {}",
            a.sum,
            b.sum
        );
        (a.sum, a.sum_rest, b.sum, b.sum_rest) = (0.0, 0.0, 0.0, 0.0);
    }
    assert_eq!(a, b);
}

/// By window, what those get who ask for extremes alone; partials that travelled are as good.
fn extremes(partials: impl IntoIterator<Item = (i64, Partial)>) -> Vec<(i64, [Option<Finished>; 3])> {
    let finish = |(window, partial): (i64, Partial)| {
        let partial = Partial::decode(&partial.encode()).unwrap();
        let finish = |function| partial.finish(function).unwrap();
        (window, [Function::Count, Function::Min, Function::Max].map(finish))
    };
    partials.into_iter().map(finish).collect()
}

fn check_folds(records: &Records, windows: &Windows) {
    let bytes = block::encode(records);
    let (block, _) = Block::parse(&bytes).unwrap();
    let mut folding = block.folding();
    for column in &records.columns {
        let (mut expected, mut got) = (BTreeMap::new(), ByWindow::default());
        let empty = || Partial::empty(column.values.value_type());
        for (row, value, _) in column.cells() {
            let time = records.observed_at[row];
            if let Some(window) = windows.index_of(time) {
                expected.entry(window).or_insert_with(empty).fold(time, value);
            }
        }
        folding
            .fold(column.property, windows, Needs::All, &Choice::ALL, &mut got)
            .unwrap();
        let mut got = got.sorted().iter().cloned().collect();
        assert_same(&mut got, &mut expected, column);
        let mut got = ByWindow::default();
        folding
            .fold(column.property, windows, Needs::Extremes, &Choice::ALL, &mut got)
            .unwrap();
        let expected = extremes(expected);
        assert_eq!(extremes(got.sorted().iter().cloned()), expected);
        for (needs, place) in [(Needs::Lowest, 1), (Needs::Highest, 2)] {
            // Once more over what was seen already: where nothing new can come, values are counted and no more.
            let mut got = ByWindow::default();
            for times in 1..=2 {
                let of = (column.property, windows, needs);
                folding.fold(of.0, of.1, of.2, &Choice::ALL, &mut got).unwrap();
                for ((window, got), (expected_window, expected)) in
                    extremes(got.sorted().iter().cloned()).iter().zip(&expected)
                {
                    let count = |finished: &Option<Finished>| match finished {
                        Some(Finished::U64(count)) => *count,
                        _ => 0,
                    };
                    assert_eq!((window, count(&got[0])), (expected_window, times * count(&expected[0])));
                    assert_eq!(got[place], expected[place]);
                }
                assert_eq!(got.len(), expected.len());
            }
        }
        let slots = Slots::new(
            Sliding {
                asked: windows.clone(),
                stepped: windows.clone(),
                steps: 1,
            },
            700 * S,
        );
        let (mut filled, mut expected, mut got) = (ByWindow::default(), ByWindow::default(), ByWindow::default());
        for (row, ..) in column.cells() {
            slots.fill(&[records.observed_at[row]], &mut expected);
        }
        // In a folding of its own: times may have been decoded before.
        for folding in [&mut folding, &mut block.folding()] {
            let of = (column.property, windows, Needs::Extremes, &Choice::ALL);
            folding
                .fold_filling(of.0, of.1, of.2, of.3, &mut got, (&slots, &mut filled))
                .unwrap();
            assert_eq!(filled.sorted(), expected.sorted());
            filled.clear();
        }
    }
    folding
        .fold(
            PropertyNumber(9999),
            windows,
            Needs::All,
            &Choice::ALL,
            &mut ByWindow::default(),
        )
        .unwrap();
}

#[test]
fn records_of_nothing_make_no_block() {
    assert_eq!(block::encode(&Records::merge_all(Vec::new())), Vec::<u8>::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn resembling_columns_and_clocks_round_trip(seed: u64, rows in prop_oneof![1usize..40, 1usize..400]) {
        check(&records(&mut Rng(seed), rows));
    }

    #[test]
    fn folds_are_what_single_values_give(
        seed: u64,
        rows in 1usize..300,
        step in prop_oneof![Just(None), (1i64..40_000).prop_map(|s| Some(s * S))],
        from in -50_000i64..200_000,
        closed: bool,
        any: bool,
        uneven in prop::option::of(prop::collection::btree_set(1i64..150_000, 0..40)),
    ) {
        let rng = &mut Rng(seed);
        let records = if any { common::records(rng, rows) } else { records(rng, rows) };
        let start = records.observed_at.first().copied().unwrap_or_default();
        let (from_ns, to_ns) = (start.saturating_add(from * S), start.saturating_add((from + 150_000) * S));
        let borders = uneven.map(|between| {
            let between = between.iter().map(|s| from_ns.saturating_add(s * S)).filter(|border| *border < to_ns);
            let mut borders: Vec<i64> = std::iter::once(from_ns).chain(between).chain([to_ns]).collect();
            borders.dedup();
            borders.into()
        });
        let windows = Windows {
            from_ns,
            to_ns,
            step_ns: step,
            origin_ns: 17,
            borders,
            edge: if closed { Edge::EndClosed } else { Edge::StartClosed },
        };
        check_folds(&records, &windows);
    }

    #[test]
    fn flipped_bits_are_noticed(seed: u64, rows in 12usize..80, at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = block::encode(&records(&mut Rng(seed), rows));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(bucket::decode(&bytes, None).is_err(), "a flipped bit went unnoticed");
    }
}

/// Times that need no list give what listed ones do, whether every row has a value or not.
#[test]
fn even_times_fold_like_any_others() {
    let rng = &mut Rng(9);
    for (first, step, rows) in [
        (0, S, 1),
        (-7 * S, 60 * S, 2),
        (17, 300 * S, 400),
        (i64::MIN, 1 << 51, 4_000),
    ] {
        let observed_at: Vec<i64> = (0..rows).map(|row| first + step * row).collect();
        let doubles = Values::F64((0..rows).map(|row| (row * 7 % 91) as f64 / 4.0).collect());
        let numbers = [
            doubles.clone(),
            Values::I64((0..rows).map(|row| row * row % 1_000).collect()),
            Values::Bool((0..rows).map(|row| row % 3 == 0).collect()),
            Values::Enum((0..rows).map(|row| row as u32 % 5).collect()),
            Values::Text((0..rows).map(|row| format!("t{}", row % 4)).collect()),
            doubles,
        ];
        let column = |(number, values)| Column {
            property: PropertyNumber(number),
            presence: None,
            values,
            quality: None,
        };
        let mut columns: Vec<Column> = (1..).zip(numbers).map(column).collect();
        if rows > 10 {
            columns.last_mut().into_iter().for_each(|column| thin(rng, column));
        }
        let records = Records {
            received_at: observed_at.clone(),
            report_kind: vec![0; observed_at.len()],
            repeats: Vec::new(),
            observed_at,
            columns,
        };
        check(&records);
        for (from, to, width) in [
            (0, rows, 12),
            (1, rows - 1, 1),
            (rows / 3, rows / 2, 7),
            (0, rows, 1_000_000),
        ] {
            for edge in [Edge::StartClosed, Edge::EndClosed] {
                let windows = Windows {
                    from_ns: first.saturating_add(step * from),
                    to_ns: first.saturating_add(step * to),
                    step_ns: step.checked_mul(width),
                    origin_ns: 3,
                    borders: None,
                    edge,
                };
                check_folds(&records, &windows);
            }
        }
    }
}

#[test]
fn zeros_of_both_signs_are_told_apart() {
    for (values, min, max) in [([0.0, -0.0], -0.0, 0.0), ([-0.0; 2], -0.0, -0.0), ([0.0; 2], 0.0, 0.0)] {
        let values: Vec<f64> = values.into_iter().cycle().take(20).collect();
        let times: Vec<i64> = (0..20).collect();
        let mut partial = Partial::empty(tidemark_series::ValueType::F64);
        partial.fold_values(&times, &Values::F64(values), 0);
        let Partial::F64(partial) = partial else { continue };
        assert_eq!(partial.min.unwrap().to_bits(), f64::to_bits(min));
        assert_eq!(partial.max.unwrap().to_bits(), f64::to_bits(max));
        assert_eq!(partial.count, 20);
        assert_eq!(partial.last.unwrap().0, 19);
    }
}
