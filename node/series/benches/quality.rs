//! Micro-benchmark of quality from blocks, a day of a device at a time; items are points:
//! `cargo bench -p tidemark-series --bench quality`.
//!
//! Never here: correctness. Invariant: the work of a case is the same in every run.
#![allow(clippy::unwrap_used, missing_docs, reason = "benchmarks")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tidemark_series::assess::{Assessing, Promise};
use tidemark_series::{Checks, Column, Edge, PropertyNumber, Records, Spans, Values, bucket};

const S: i64 = 1_000_000_000;
const ROWS: i64 = 288;
const LEVEL: PropertyNumber = PropertyNumber(1);
const CHECKS: Checks = Checks {
    min: Some(0.0),
    max: Some(100.0),
    typical_min: None,
    typical_max: Some(60.0),
    spike: None,
    flat: None,
    rate_per_s: None,
    neighbours_ns: 900 * S,
    reach_ns: 900 * S,
};
static PROMISE: Promise = Promise {
    from_ns: 0,
    to_ns: ROWS * 300 * S,
    until_ns: ROWS * 300 * S,
    since_ns: i64::MIN,
    serves: true,
    edge: Edge::StartClosed,
    interval_ns: 300 * S,
    alive_ns: 900 * S,
    gap_factor: 1.5,
    maintenance: Spans::NONE,
};

fn main() {
    divan::main();
}

/// A day every five minutes of five properties: by the clock or a little beside it, and always as late or not.
fn day(jitters: bool, delays: bool) -> Vec<u8> {
    let at = |row: i64| row * 300 * S + 150 * S + if jitters { row * 7919 % 20 * S } else { 0 };
    let late = |row: i64| 5 * S + if delays { row * 104_729 % 5_000 * 1_000_000 } else { 0 };
    let column = |number: u32| Column {
        property: PropertyNumber(number),
        presence: None,
        values: Values::F64((0..ROWS).map(|row| (row * 31 % 517) as f64 / 10.0).collect()),
        quality: None,
    };
    bucket::encode(&Records {
        observed_at: (0..ROWS).map(at).collect(),
        received_at: (0..ROWS).map(|row| at(row) + late(row)).collect(),
        report_kind: vec![1; ROWS as usize],
        columns: (1..=5).map(column).collect(),
        repeats: Vec::new(),
    })
}

const DAYS: [&str; 3] = ["by the clock", "delays that vary", "times that vary"];

fn value(name: &str) -> Vec<u8> {
    day(name == DAYS[2], name != DAYS[0])
}

/// As blocks are told.
#[divan::bench(args = DAYS)]
fn by_blocks(bencher: Bencher<'_, '_>, name: &str) {
    let value = value(name);
    bencher.counter(ItemsCount::new(ROWS as usize)).bench(|| {
        let mut assessing = Assessing::new(&PROMISE);
        for block in bucket::blocks(black_box(&value)) {
            let block = block.unwrap();
            assert!(block.is_sound(LEVEL, &CHECKS).unwrap());
            assessing
                .rows(&block, LEVEL, (PROMISE.from_ns, PROMISE.to_ns), Some(60 * S))
                .unwrap();
        }
        assessing.finish()
    });
}

/// As each of its points is told.
#[divan::bench(args = DAYS)]
fn by_points(bencher: Bencher<'_, '_>, name: &str) {
    let value = value(name);
    bencher.counter(ItemsCount::new(ROWS as usize)).bench(|| {
        let mut assessing = Assessing::new(&PROMISE);
        let mut bad = 0;
        for block in bucket::blocks(black_box(&value)) {
            let records = block.unwrap().decode(Some(&[LEVEL])).unwrap();
            for (row, value, _) in records.column(LEVEL).unwrap().cells() {
                assessing.point(records.observed_at[row], records.received_at[row], Some(60 * S));
                assessing.counting(records.observed_at[row]);
                bad += u64::from(!value.number().is_some_and(|number| CHECKS.finds_nothing(number)));
            }
        }
        (assessing.finish(), bad)
    });
}
