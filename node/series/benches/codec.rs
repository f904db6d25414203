//! Micro-benchmarks of the codec on recorded series (made ones where there are none), items are points:
//! `cargo bench -p tidemark-series --bench codec [-- FILTER]`. Times are noisy on a shared machine: for a regression
//! check count instructions (`bench/instructions.sh`).
//!
//! Never here: correctness. Invariant: the work of a case is the same in every run on the same files.
#![allow(clippy::unwrap_used, missing_docs, reason = "benchmarks")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::Rng;
use common::recorded::{cut, sets};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tidemark_series::{ByWindow, Choice, Edge, Needs, Records, Windows, block, bucket, decoders, latest};

fn main() {
    divan::main();
}

/// A few full buckets of each set.
static BUCKETS: LazyLock<Vec<(String, Vec<Records>)>> = LazyLock::new(|| {
    let few = |buckets: Vec<Records>| {
        let step = buckets.len().div_ceil(12);
        buckets.into_iter().step_by(step).collect()
    };
    sets()
        .0
        .iter()
        .map(|set| (set.name.clone(), few(set.buckets())))
        .collect()
});

const DAYS: Windows = Windows {
    from_ns: i64::MIN,
    to_ns: i64::MAX,
    step_ns: Some(86_400_000_000_000),
    origin_ns: 0,
    borders: None,
    edge: Edge::StartClosed,
};

fn names() -> Vec<String> {
    BUCKETS.iter().map(|(name, _)| name.clone()).collect()
}

fn buckets(name: &str) -> &'static [Records] {
    BUCKETS
        .iter()
        .find(|(n, _)| n == name)
        .map_or(&[], |(_, buckets)| buckets)
}

fn points(parts: &[Records]) -> ItemsCount {
    ItemsCount::new(parts.iter().map(Records::points).sum::<usize>())
}

fn encode_by(bencher: Bencher<'_, '_>, set: &str, rows: usize) {
    let parts = cut(buckets(set), rows, usize::MAX);
    bencher.counter(points(&parts)).bench(|| {
        parts.iter().for_each(|part| drop(black_box(bucket::encode(part))));
    });
}

#[divan::bench(args = names())]
fn encode_1(bencher: Bencher<'_, '_>, set: &str) {
    encode_by(bencher, set, 1);
}

#[divan::bench(args = names())]
fn encode_10(bencher: Bencher<'_, '_>, set: &str) {
    encode_by(bencher, set, 10);
}

#[divan::bench(args = names())]
fn encode_128(bencher: Bencher<'_, '_>, set: &str) {
    encode_by(bencher, set, 128);
}

#[divan::bench(args = names())]
fn encode_4096(bencher: Bencher<'_, '_>, set: &str) {
    encode_by(bencher, set, 4096);
}

/// Fragments of 128 rows into a bucket.
#[divan::bench(args = names())]
fn merge(bencher: Bencher<'_, '_>, set: &str) {
    let fragments: Vec<Vec<Vec<u8>>> = buckets(set)
        .iter()
        .map(|all| {
            cut(std::slice::from_ref(all), 128, usize::MAX)
                .iter()
                .map(bucket::encode)
                .collect()
        })
        .collect();
    bencher.counter(points(buckets(set))).bench(|| {
        for parts in &fragments {
            black_box(bucket::merge(None, parts.iter().map(Vec::as_slice)).unwrap());
        }
    });
}

/// A record over the newest values of its device, as applying a write does; the items are points too.
#[divan::bench(args = names())]
fn newest(bencher: Bencher<'_, '_>, set: &str) {
    let mut parts = cut(buckets(set), 1, usize::MAX);
    parts.truncate(2000);
    let fragments: Vec<Vec<u8>> = parts.iter().map(bucket::encode).collect();
    bencher.counter(points(&parts)).bench(|| {
        let one =
            |held: Vec<u8>, part: &Vec<u8>| latest::merge_latest(Some(&held), [part.as_slice()].into_iter()).unwrap();
        fragments.iter().fold(Vec::new(), one)
    });
}

#[divan::bench(args = names())]
fn decode(bencher: Bencher<'_, '_>, set: &str) {
    let encoded: Vec<Vec<u8>> = buckets(set).iter().map(bucket::encode).collect();
    bencher.counter(points(buckets(set))).bench(|| {
        encoded
            .iter()
            .for_each(|bytes| drop(black_box(bucket::decode(bytes, None).unwrap())));
    });
}

/// Every column decoded into aggregates of a day.
#[divan::bench(args = names())]
fn fold(bencher: Bencher<'_, '_>, set: &str) {
    let encoded: Vec<Vec<u8>> = buckets(set).iter().map(bucket::encode).collect();
    bencher.counter(points(buckets(set))).bench(|| {
        for block in encoded.iter().flat_map(|bytes| bucket::blocks(bytes)) {
            let block = block.unwrap();
            let mut folding = block.folding();
            for property in block.properties() {
                let mut partials = ByWindow::default();
                folding
                    .fold(property, &DAYS, Needs::All, &Choice::ALL, &mut partials)
                    .unwrap();
                black_box(partials);
            }
        }
    });
}

/// Every column answered from the header.
#[divan::bench(args = names())]
fn fold_header(bencher: Bencher<'_, '_>, set: &str) {
    let encoded: Vec<Vec<u8>> = buckets(set).iter().map(bucket::encode).collect();
    bencher.counter(points(buckets(set))).bench(|| {
        for block in encoded.iter().flat_map(|bytes| bucket::blocks(bytes)) {
            let block = block.unwrap();
            block
                .properties()
                .for_each(|property| drop(black_box(block.stats(property))));
        }
    });
}

/// Columns of one encoding each: by its name, with the first byte of its streams.
const CODECS: [(&str, u8); 9] = [
    ("constant", 0x01),
    ("line", 0x02),
    ("runs", 0x04),
    ("dictionary", 0x05),
    ("scaled", 0x06),
    ("packed", 0x08),
    ("rice", 0x31),
    ("rice of order 2", 0x32),
    ("pco", 0x0c),
];

fn codecs() -> impl Iterator<Item = &'static str> {
    CODECS.iter().map(|(name, _)| *name)
}

/// Integers that take the encoding, and its stream.
fn integers(codec: &str) -> (Vec<i64>, Vec<u8>) {
    let rng = &mut Rng(5);
    let mut level = 4427i64;
    // Small steps are twice as likely as those a step larger.
    let mut walk = || {
        let bits = rng.next();
        let step = (i64::from((bits >> 8).trailing_zeros()) << 2) + (bits & 3) as i64;
        level += if bits & 4 == 0 { step } else { -step };
        level
    };
    let made = |next: &mut dyn FnMut(i64) -> i64| (0..4096).map(next).collect::<Vec<i64>>();
    let values = match codec {
        "constant" => vec![7; 4096],
        "line" => made(&mut |i| 60 * i),
        "runs" => made(&mut |i| i / 97 * 7919 % 1000),
        "dictionary" => made(&mut |_| ((walk() / 8).clamp(500, 620) * 15_625 + 500) / 1_000),
        "scaled" => made(&mut |_| walk() * 156 + 7),
        "packed" => made(&mut |_| Rng(walk() as u64).below(64) as i64),
        "rice" => made(&mut |_| walk()),
        "rice of order 2" => {
            let mut sum = 0;
            made(&mut |_| {
                sum += walk() - 4427;
                sum
            })
        }
        _ => made(&mut |_| {
            let mut rng = Rng(walk() as u64);
            (rng.below(70) * rng.below(50) * rng.below(30)) as i64
        }),
    };
    let bytes = decoders::write_ints(&values);
    let expected = CODECS
        .iter()
        .find(|(name, _)| *name == codec)
        .map(|(_, method)| *method);
    // Partitions may differ.
    let found = bytes
        .first()
        .map(|method| if *method < 0x10 { *method } else { method & 0x33 });
    assert_eq!(found, expected, "{codec} takes another encoding");
    (values, bytes)
}

#[divan::bench(args = codecs())]
fn ints_encode(bencher: Bencher<'_, '_>, codec: &str) {
    let (values, _) = integers(codec);
    bencher
        .counter(ItemsCount::new(values.len()))
        .bench(|| decoders::write_ints(&values));
}

#[divan::bench(args = codecs())]
fn ints_decode(bencher: Bencher<'_, '_>, codec: &str) {
    let (values, bytes) = integers(codec);
    bencher
        .counter(ItemsCount::new(values.len()))
        .bench(|| decoders::read_ints(values.len(), &bytes));
}

#[divan::bench]
fn block_header(bencher: Bencher<'_, '_>) {
    let bytes = block::encode(&common::records(&mut Rng(3), 50));
    bencher.bench(|| tidemark_series::Block::parse(&bytes).unwrap().0.rows());
}
