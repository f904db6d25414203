//! Buckets and newest values: any grouping of operands is the same; a hot bucket stays correct and linear.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::Rng;
use proptest::prelude::*;
use tidemark_series::{BLOCK_ROWS_MAX, Column, PropertyNumber, Records, Values, block, bucket, latest};

type Merge = fn(Option<&[u8]>, &[Vec<u8>]) -> Vec<u8>;

fn merge(existing: Option<&[u8]>, operands: &[Vec<u8>]) -> Vec<u8> {
    bucket::merge(existing, operands.iter().map(Vec::as_slice)).unwrap()
}

fn merge_latest(existing: Option<&[u8]>, operands: &[Vec<u8>]) -> Vec<u8> {
    latest::merge_latest(existing, operands.iter().map(Vec::as_slice)).unwrap()
}

/// Merges neighbours at random until one operand is left, as compactions may; the first one may be a full merge.
fn merge_grouped(rng: &mut Rng, mut operands: Vec<Vec<u8>>, merge: Merge) -> Vec<u8> {
    while operands.len() > 1 {
        let start = rng.below(operands.len() as u64 - 1) as usize;
        let end = (start + 2 + rng.below(3) as usize).min(operands.len());
        let merged = if start == 0 && rng.chance(2) {
            merge(Some(&operands[0]), &operands[1..end])
        } else {
            merge(None, &operands[start..end])
        };
        operands.splice(start..end, [merged]);
    }
    operands.pop().unwrap_or_default()
}

/// The definition: point by point, the later one wins.
fn by_points(parts: &[Records]) -> Records {
    let mut rows = std::collections::BTreeMap::new();
    for part in parts {
        for row in 0..part.len() {
            let one = part.slice_rows(row, row + 1);
            let merged = rows.get(&one.observed_at[0]).map(|kept| overwrite(kept, &one));
            rows.insert(one.observed_at[0], merged.unwrap_or(one));
        }
    }
    let mut all = rows.into_values().fold(Records::default(), |mut all, row| {
        let at = all.len();
        all.observed_at.extend(&row.observed_at);
        all.received_at.extend(&row.received_at);
        all.report_kind.extend(&row.report_kind);
        all.repeats.push(again(&row));
        all.columns.extend(row.columns.into_iter().map(|mut column| {
            let mut map = tidemark_series::Bitmap::new(at + 1);
            map.set(at, true);
            column.presence = Some(map);
            column
        }));
        all
    });
    if all.repeats.iter().all(|&repeats| repeats == 0) {
        all.repeats.clear();
    }
    all
}

/// Repeats of a single row.
fn again(row: &Records) -> u32 {
    row.repeats.first().copied().unwrap_or(0)
}

fn overwrite(older: &Records, newer: &Records) -> Records {
    let mut columns = older.columns.clone();
    let both = newer
        .columns
        .iter()
        .filter(|c| older.column(c.property).is_some())
        .count();
    for column in &newer.columns {
        columns.retain(|c| c.property != column.property);
        columns.push(column.clone());
    }
    columns.sort_by_key(|c| c.property);
    Records {
        columns,
        repeats: vec![again(older) + again(newer) + both as u32],
        ..newer.clone()
    }
}

fn well_formed(value: &[u8]) {
    let mut before = None;
    for block in bucket::blocks(value) {
        let block = block.unwrap();
        assert!((1..=BLOCK_ROWS_MAX).contains(&block.rows()));
        assert!(before < Some(block.first_ns()), "blocks overlap");
        before = Some(block.last_ns());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_grouping_gives_the_same_records(seed: u64, parts in 1usize..9, rows in 1usize..30, grid in 1u64..60) {
        let rng = &mut Rng(seed);
        let parts: Vec<Records> = (0..parts).map(|_| common::overlapping(rng, rows, grid)).collect();
        let operands: Vec<Vec<u8>> = parts.iter().map(bucket::encode).collect();
        let all = merge(None, &operands);
        well_formed(&all);
        let expected = Records::merge_all(parts.clone());
        // Sparse columns of one row each are as good as wide ones once normalised.
        prop_assert_eq!(&by_points(&parts).normalise(), &expected);
        prop_assert_eq!(&bucket::decode(&all, None).unwrap(), &expected);
        let pairwise = parts.iter().skip(1).fold(parts[0].clone(), |all, part| Records::merge(&all, part));
        prop_assert_eq!(&pairwise, &expected);
        for _ in 0..3 {
            let grouped = merge_grouped(rng, operands.clone(), merge);
            well_formed(&grouped);
            prop_assert_eq!(&bucket::decode(&grouped, None).unwrap(), &expected);
        }
        let mut twice = operands.clone();
        twice.push(operands[operands.len() - 1].clone());
        let mut replayed = bucket::decode(&merge(None, &twice), None).unwrap();
        let sum = |repeats: &[u32]| repeats.iter().sum::<u32>();
        let last = &parts[parts.len() - 1];
        prop_assert_eq!(sum(&replayed.repeats), sum(&expected.repeats) + sum(&last.repeats) + last.points() as u32);
        replayed.repeats.clone_from(&expected.repeats);
        prop_assert_eq!(&replayed, &expected, "a replay changed something");
    }

    #[test]
    fn any_grouping_gives_the_same_newest(seed: u64, parts in 1usize..9, rows in 1usize..6, grid in 1u64..8) {
        let rng = &mut Rng(seed);
        let parts: Vec<Records> = (0..parts).map(|_| common::overlapping(rng, rows, grid)).collect();
        let operands: Vec<Vec<u8>> = parts.iter().map(|p| bucket::encode(&p.newest())).collect();
        let all = merge_latest(None, &operands);
        let newest = bucket::decode(&all, None).unwrap();
        prop_assert_eq!(newest.points(), newest.columns.len());
        for column in Records::merge_all(parts.clone()).columns {
            let (row, value, quality) = column.cells().last().unwrap();
            let kept = newest.column(column.property).unwrap().cells().next().unwrap();
            prop_assert_eq!(format!("{value:?} {quality}"), format!("{:?} {}", kept.1, kept.2));
            let merged = Records::merge_all(parts.clone());
            prop_assert_eq!(newest.observed_at[kept.0], merged.observed_at[row]);
        }
        for _ in 0..3 {
            prop_assert_eq!(&merge_grouped(rng, operands.clone(), merge_latest), &all);
        }
    }

    #[test]
    fn cutting_and_projecting_keep_what_they_should(seed: u64, rows in 1usize..80, from in 0i64..50, len in 0i64..60) {
        let records = common::overlapping(&mut Rng(seed), rows, 60);
        let (from, to) = (from * 60_000_000_000, (from + len) * 60_000_000_000);
        let cut = records.slice_time(from, to);
        prop_assert!(cut.observed_at.iter().all(|t| (from..to).contains(t)));
        let outside = [records.slice_time(i64::MIN, from), records.slice_time(to, i64::MAX)];
        prop_assert_eq!(cut.len() + outside[0].len() + outside[1].len(), records.len());
        let again = Records::merge_all(vec![outside[1].clone(), cut, outside[0].clone()]);
        prop_assert_eq!(&again, &records);
        let wanted = [PropertyNumber(1), PropertyNumber(4)];
        let projected = records.project(&wanted);
        prop_assert!(projected.columns.iter().all(|c| wanted.contains(&c.property)));
        let has = |row: usize| wanted.iter().any(|p| records.column(*p).is_some_and(|c| c.at(row).is_some()));
        let expected: Vec<i64> = (0..records.len()).filter(|&r| has(r)).map(|r| records.observed_at[r]).collect();
        prop_assert_eq!(&projected.observed_at, &expected);
        let points: usize = wanted.iter().filter_map(|p| records.column(*p)).map(|c| c.values.len()).sum();
        prop_assert_eq!(projected.points(), points);
        prop_assert_eq!(&projected.clone().normalise(), &projected);
        let newest = records.newest();
        prop_assert_eq!(newest.points(), records.columns.len());
        prop_assert_eq!(&newest.clone().normalise(), &newest);
    }
}

fn row(at: i64, value: f64) -> Records {
    Records {
        observed_at: vec![at * 1_000_000_000],
        received_at: vec![at * 1_000_000_000 + 7],
        report_kind: vec![1],
        repeats: Vec::new(),
        columns: vec![Column {
            property: PropertyNumber(2),
            presence: None,
            values: Values::F64(vec![value]),
            quality: None,
        }],
    }
}

#[test]
fn a_record_in_pieces_is_no_repeat() {
    let of = |property: u32, times: &[i64]| Records {
        columns: vec![Column {
            property: PropertyNumber(property),
            presence: None,
            values: Values::I64(times.to_vec()),
            quality: None,
        }],
        observed_at: times.to_vec(),
        received_at: times.to_vec(),
        report_kind: vec![0; times.len()],
        repeats: Vec::new(),
    };
    let batch = |parts: &[(u32, &[i64])]| {
        let mut all = Records::default();
        for (property, times) in parts {
            let mut column = of(*property, times).columns.remove(0);
            let mut map = tidemark_series::Bitmap::new(all.len() + times.len());
            (all.len()..all.len() + times.len()).for_each(|row| map.set(row, true));
            column.presence = Some(map);
            all.columns.push(column);
            all.observed_at.extend_from_slice(times);
        }
        all.normalise()
    };
    assert_eq!(batch(&[(1, &[1, 2, 3]), (2, &[1, 2, 3])]).repeats, [0; 0]);
    assert_eq!(batch(&[(1, &[1, 2, 2, 2, 3]), (2, &[1, 2, 3, 3])]).repeats, [0, 2, 1]);
    let repeats = |older: &Records, newer: &Records| {
        let merged = merge(None, &[bucket::encode(older), bucket::encode(newer)]);
        let block = bucket::blocks(&merged).next().unwrap().unwrap();
        (block.repeats_sum(), block.repeated_records().unwrap())
    };
    assert_eq!(repeats(&of(1, &[1, 2]), &of(2, &[2])), (0, vec![]));
    assert_eq!(repeats(&of(1, &[1, 2]), &of(1, &[2])), (1, vec![0, 1]));
    let both = batch(&[(1, &[1, 2]), (2, &[1, 2])]);
    assert_eq!(repeats(&both, &both), (4, vec![1, 1]), "each record once again");
    assert_eq!(repeats(&both, &of(2, &[2])), (1, vec![0, 1]), "a part of a record too");
    let sparse = batch(&[(1, &[1, 2, 3]), (2, &[2])]);
    assert_eq!(repeats(&sparse, &sparse), (4, vec![1, 1, 1]));
}

fn hot(order: impl Iterator<Item = i64>) -> Vec<Records> {
    let rows: Vec<Records> = order.map(|i| row(i, (i * 37 % 1001) as f64 / 10.0)).collect();
    rows.chunks(100).map(|c| Records::merge_all(c.to_vec())).collect()
}

fn shuffled(len: i64) -> Vec<i64> {
    let rng = &mut Rng(5);
    let mut order: Vec<i64> = (0..len).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    order
}

#[test]
fn a_hot_bucket_is_merged_at_once() {
    let expected = Records::merge_all(hot(0..100_000));
    for order in [(0..100_000).collect(), (0..100_000).rev().collect(), shuffled(100_000)] {
        let operands: Vec<Vec<u8>> = hot(order.into_iter()).iter().map(bucket::encode).collect();
        let value = merge(None, &operands);
        well_formed(&value);
        assert_eq!(bucket::blocks(&value).count(), 25);
        assert_eq!(bucket::decode(&value, None).unwrap(), expected);
        let (older, newer) = operands.split_at(operands.len() / 2);
        let value = merge(Some(&merge(None, older)), newer);
        well_formed(&value);
        assert_eq!(bucket::decode(&value, None).unwrap(), expected);
    }
}

/// Rows in blocks of a value that were not blocks of it before.
fn rewritten(before: &[u8], after: &[u8]) -> usize {
    let before: Vec<Vec<u8>> = bucket::blocks(before).map(|b| b.unwrap().bytes().to_vec()).collect();
    let blocks = bucket::blocks(after).map(Result::unwrap);
    let new = blocks.filter(|block| !before.iter().any(|old| old == block.bytes()));
    new.map(|block| block.rows()).sum()
}

#[test]
fn appending_rewrites_a_row_a_few_times_whatever_the_portions() {
    for portion in [1, 3, 7, 50] {
        let parts = hot(0..30_000);
        let (mut value, mut rows) = (Vec::new(), 0);
        for group in parts.chunks(portion) {
            let operands: Vec<Vec<u8>> = group.iter().map(bucket::encode).collect();
            let merged = merge(Some(&value), &operands);
            rows += rewritten(&value, &merged);
            value = merged;
        }
        well_formed(&value);
        let doublings = (BLOCK_ROWS_MAX / (portion * 100)).max(1).ilog2() as usize;
        let most = 30_000 * (2 + doublings);
        assert!(
            rows <= most,
            "portions of {portion} hundred: {rows} rows rewritten, {most} at most"
        );
        let blocks: Vec<usize> = bucket::blocks(&value).map(|b| b.unwrap().rows()).collect();
        assert!(
            blocks.len() <= 8 + 1 + doublings,
            "portions of {portion} hundred: {blocks:?}"
        );
        assert_eq!(bucket::decode(&value, None).unwrap(), Records::merge_all(parts));
    }
}

#[test]
fn large_fragments_stay_as_they_are_unless_they_meet() {
    let part = |range: (i64, i64)| bucket::encode(&Records::merge_all(hot(range.0..range.1)));
    let rows = |value: &[u8]| -> Vec<usize> { bucket::blocks(value).map(|b| b.unwrap().rows()).collect() };
    let check = |existing: (i64, i64), operands: &[(i64, i64)], expected: &[usize]| {
        let values: Vec<Vec<u8>> = operands.iter().copied().map(part).collect();
        let existing = part(existing);
        let merged = merge(Some(&existing), &values);
        well_formed(&merged);
        assert_eq!(rows(&merged), expected, "{operands:?}");
        let whole = Records::merge_all(
            std::iter::once(&existing)
                .chain(&values)
                .map(|value| bucket::decode(value, None).unwrap())
                .collect(),
        );
        assert_eq!(bucket::decode(&merged, None).unwrap(), whole, "{operands:?}");
    };
    // Beside each other: only those of about one size join.
    check((0, 4_000), &[(4_000, 4_200)], &[4_000, 200]);
    check((0, 1_000), &[(1_000, 1_600)], &[1_600]);
    check((0, 3_000), &[(3_000, 3_200), (3_200, 3_400)], &[3_000, 400]);
    check((0, 800), &[(800, 1_200), (1_200, 1_400), (1_400, 1_600)], &[1_600]);
    check((1_000, 4_000), &[(0, 500)], &[500, 3_000]);
    // Over each other: the rows are one.
    check((0, 4_000), &[(3_900, 4_100)], &[2_050, 2_050]);
    check((0, 200), &[(100, 300), (200, 400)], &[400]);
}

#[test]
fn a_late_row_rewrites_one_block() {
    let value = bucket::encode(&Records::merge_all(hot((0..50_000).map(|i| i * 2))));
    let before: Vec<Vec<u8>> = bucket::blocks(&value).map(|b| b.unwrap().bytes().to_vec()).collect();
    let merged = merge(Some(&value), &[bucket::encode(&row(60_001, 1.0))]);
    well_formed(&merged);
    let after: Vec<Vec<u8>> = bucket::blocks(&merged).map(|b| b.unwrap().bytes().to_vec()).collect();
    assert_eq!(before.iter().filter(|b| !after.contains(b)).count(), 1);
    assert_eq!(after.iter().filter(|b| !before.contains(b)).count(), 2);
}

#[test]
fn rows_in_reverse_do_not_leave_crumbs() {
    let mut value = Vec::new();
    for part in hot((0..20_000).rev()) {
        value = merge(Some(&value), &[bucket::encode(&part)]);
    }
    well_formed(&value);
    let rows: Vec<usize> = bucket::blocks(&value).map(|b| b.unwrap().rows()).collect();
    assert!(rows.len() <= 10, "{rows:?}");
    assert_eq!(bucket::decode(&value, None).unwrap().len(), 20_000);
}

#[test]
fn large_texts_split_blocks_and_come_back() {
    let mut records = Records::merge_all(hot(0..300));
    let texts = (0..300)
        .map(|i| format!("{i:x}").repeat(20_000 / format!("{i:x}").len()))
        .collect();
    records.columns[0].values = Values::Text(texts);
    let value = bucket::encode(&records);
    well_formed(&value);
    assert!(bucket::blocks(&value).count() >= 5);
    assert_eq!(bucket::decode(&value, None).unwrap(), records);
    assert_eq!(bucket::decode(&merge(None, &[value]), None).unwrap(), records);
}

#[test]
fn what_a_merge_must_refuse() {
    let merged = |existing: &[u8], operand: &[u8]| bucket::merge(Some(existing), [operand].into_iter());
    let mut whole = row(1, 2.0);
    whole.columns[0].values = Values::I64(vec![2]);
    assert!(
        merged(&block::encode(&row(1, 2.0)), &block::encode(&whole)).is_err(),
        "another type"
    );
    let newest = latest::merge_latest(None, [block::encode(&row(1, 2.0)).as_slice()].into_iter()).unwrap();
    let mut other = row(1, 3.0);
    other.received_at[0] += 1;
    other.columns[0].property = PropertyNumber(3);
    let newest = latest::merge_latest(Some(&newest), [block::encode(&other).as_slice()].into_iter()).unwrap();
    assert_eq!(bucket::decode(&newest, None).unwrap().len(), 2);
    assert!(merged(&[], &newest).is_err(), "rows of equal time");
    let one = block::encode(&row(1, 2.0));
    assert!(
        merged(&[one.clone(), one.clone()].concat(), &one).is_err(),
        "blocks overlap"
    );
    assert_eq!(merge(None, &[]), [0u8; 0]);
    assert_eq!(merge(Some(&one), &[]), one);
}
