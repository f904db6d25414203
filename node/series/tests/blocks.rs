//! Blocks: what goes in comes out, and whatever comes in never panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::Rng;
use proptest::prelude::*;
use tidemark_series::{
    BLOCK_ROWS_MAX, Block, Column, Partial, Projection, PropertyNumber, Records, Values, block, bucket,
};

fn touch_everything(bytes: &[u8]) {
    for block in bucket::blocks(bytes) {
        let Ok(block) = block else { continue };
        let _ = block.times();
        for property in block.properties().collect::<Vec<_>>() {
            let _ = block.stats(property);
            let _ = block.column(property);
        }
        let _ = block.decode(None);
        let _ = block.decode_between(Projection::ALL, (block.first_ns().saturating_add(1), block.last_ns()));
    }
    let _ = bucket::decode(bytes, Some(&[PropertyNumber(3)]));
    let _ = tidemark_series::latest::merge_latest(Some(bytes), [bytes].into_iter());
    let _ = bucket::merge(Some(bytes), [bytes].into_iter());
    let _ = Partial::decode(bytes);
}

fn check_round_trip(records: &Records) {
    let bytes = block::encode(records);
    assert_eq!(bytes, block::encode(records), "not deterministic");
    let (parsed, rest) = Block::parse(&bytes).unwrap();
    assert!(rest.is_empty());
    assert_eq!(parsed.byte_len(), bytes.len());
    assert_eq!(parsed.rows(), records.len());
    assert_eq!(parsed.first_ns(), records.observed_at[0]);
    assert_eq!(parsed.last_ns(), *records.observed_at.last().unwrap());
    assert_eq!(&parsed.decode(None).unwrap(), records);
    assert_eq!(parsed.times().unwrap(), records.observed_at);
    check_parts(&parsed, records);
    for column in &records.columns {
        assert_eq!(parsed.column(column.property).unwrap().as_ref(), Some(column));
        assert_eq!(parsed.count(column.property), column.values.len());
        if let Some(stats) = parsed.stats(column.property) {
            check_stats(&stats.partial, column, records);
        } else {
            assert!(records.len() < 256 || matches!(column.values, Values::F64(_) | Values::Text(_)));
        }
    }
    assert_eq!(parsed.column(PropertyNumber(9999)).unwrap(), None);
    assert_eq!(parsed.decode(Some(&[])).unwrap().columns, []);
}

/// Rows between two times are those of the whole block.
fn check_parts(block: &Block<'_>, records: &Records) {
    let times = &records.observed_at;
    let at = |share: usize| times[(times.len() - 1) * share / 7];
    for (from, to) in [
        (i64::MIN, at(3)),
        (at(2), at(5)),
        (at(4), at(4).saturating_add(1)),
        (at(6), i64::MAX),
        (at(5), at(2)),
    ] {
        let expected = records.slice_time(from, to);
        assert_eq!(
            block.decode_between(Projection::ALL, (from, to)).unwrap(),
            expected,
            "{from} to {to}"
        );
        let some: Vec<_> = records
            .columns
            .iter()
            .map(|column| column.property)
            .skip(1)
            .step_by(2)
            .collect();
        for receipts in [true, false] {
            let properties = Some(&some[..]);
            let projection = Projection { properties, receipts };
            let part = block.decode_between(projection, (from, to)).unwrap();
            let wanted = expected.columns.iter().filter(|column| some.contains(&column.property));
            let received = expected.received_at.iter().filter(|_| receipts);
            assert_eq!(
                (part.observed_at, part.received_at, part.columns),
                (
                    expected.observed_at.clone(),
                    received.copied().collect(),
                    wanted.cloned().collect()
                )
            );
        }
    }
}

fn check_stats(stats: &Partial, column: &Column, records: &Records) {
    let mut folded = Partial::empty(column.values.value_type());
    column
        .cells()
        .for_each(|(row, value, _)| folded.fold(records.observed_at[row], value));
    let mut stats = stats.clone();
    if let (Partial::F64(a), Partial::F64(b)) = (&mut stats, &folded) {
        let Values::F64(values) = &column.values else {
            panic!("not doubles")
        };
        let size: f64 = values.iter().map(|v| v.abs()).sum();
        let same =
            (a.sum + a.sum_rest - b.sum - b.sum_rest).abs() <= size * 1e-12 || a.sum.to_bits() == b.sum.to_bits();
        assert!(same || b.sum.is_nan() && a.sum.is_nan(), "{} against {}", a.sum, b.sum);
        (a.sum, a.sum_rest) = (b.sum, b.sum_rest);
    }
    assert_eq!(stats, folded);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_round_trip(seed: u64, rows in prop_oneof![1usize..4, 1usize..40, 1usize..300]) {
        check_round_trip(&common::records(&mut Rng(seed), rows));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        touch_everything(&bytes);
    }

    #[test]
    fn flipped_bits_are_noticed(seed: u64, rows in 1usize..60, at: prop::sample::Index, bit in 0u8..8) {
        let records = common::records(&mut Rng(seed), rows);
        let mut bytes = block::encode(&records);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        touch_everything(&bytes);
        let decoded = bucket::decode(&bytes, None);
        prop_assert!(decoded.is_err(), "a flipped bit went unnoticed");
    }

    #[test]
    fn cut_blocks_are_noticed(seed: u64, rows in 1usize..60, at: prop::sample::Index) {
        let bytes = block::encode(&common::records(&mut Rng(seed), rows));
        let cut = at.index(bytes.len());
        prop_assert!(Block::parse(&bytes[..cut]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn large_records_round_trip(seed: u64, rows in 300usize..=4096) {
        check_round_trip(&common::records(&mut Rng(seed), rows));
    }
}

#[test]
fn a_record_of_four_properties_costs_less_than_sixty_bytes() {
    let column = |number, values| Column {
        property: PropertyNumber(number),
        presence: None,
        values,
        quality: None,
    };
    let records = Records {
        observed_at: vec![1_700_000_000_123_000_000],
        received_at: vec![1_700_000_000_345_678_901],
        report_kind: vec![1],
        repeats: Vec::new(),
        columns: vec![
            column(1, Values::F64(vec![442.7])),
            column(2, Values::F64(vec![21.35])),
            column(3, Values::F64(vec![-3.0])),
            column(4, Values::Enum(vec![2])),
        ],
    };
    check_round_trip(&records);
    let bytes = block::encode(&records);
    assert!(bytes.len() < 60, "{} bytes", bytes.len());
}

#[test]
fn a_damaged_column_spoils_only_itself() {
    let mut rng = Rng(7);
    let column = |number, values| Column {
        property: PropertyNumber(number),
        presence: None,
        values,
        quality: None,
    };
    let records = Records {
        observed_at: (0..1000).collect(),
        received_at: vec![5; 1000],
        report_kind: vec![0; 1000],
        repeats: Vec::new(),
        columns: vec![
            column(
                1,
                Values::F64((0..1000).map(|_| f64::from_bits(rng.next() >> 2)).collect()),
            ),
            column(2, Values::I64((0..1000).map(|_| rng.next() as i64).collect())),
        ],
    };
    let mut bytes = block::encode(&records);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let (block, _) = Block::parse(&bytes).unwrap();
    assert_eq!(
        block.column(PropertyNumber(1)).unwrap().as_ref(),
        Some(&records.columns[0])
    );
    assert!(block.column(PropertyNumber(2)).is_err());
    assert!(block.decode(None).is_err());
    assert!(block.decode(Some(&[PropertyNumber(1)])).is_ok());
}

#[test]
fn times_at_the_ends_of_the_range_round_trip() {
    let at = |times: &[i64]| Records {
        observed_at: times.to_vec(),
        received_at: times.iter().map(|t| !t).collect(),
        report_kind: vec![9; times.len()],
        columns: Vec::new(),
        repeats: Vec::new(),
    };
    check_round_trip(&at(&[i64::MIN]));
    check_round_trip(&at(&[i64::MAX]));
    check_round_trip(&at(&[i64::MIN, i64::MAX]));
    check_round_trip(&at(&[i64::MIN, -1, 0, 1, i64::MAX]));
}

#[test]
fn what_nobody_could_read_is_not_written() {
    let good = common::records(&mut Rng(3), 20);
    assert!(!good.columns.is_empty());
    let refused = |spoil: &dyn Fn(&mut Records)| {
        let mut bad = good.clone();
        spoil(&mut bad);
        std::panic::catch_unwind(|| block::encode(&bad)).is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|r| r.observed_at.swap(3, 4)));
    assert!(refused(&|r| r.received_at.truncate(19)));
    assert!(refused(&|r| r.columns[0].quality = Some(vec![1; 3])));
    assert!(refused(&|r| r.columns.push(r.columns[0].clone())));
    assert!(refused(&|r| *r = common::records(&mut Rng(1), BLOCK_ROWS_MAX + 1)));
    assert_eq!(block::encode(&Records::default()), [0u8; 0]);
}
