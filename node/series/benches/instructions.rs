//! The work whose instructions are counted: `bench/instructions.sh` runs this under callgrind and compares each function
//! named `counted_*` with the committed figures. Made series only, so that the figures are the same everywhere.
//!
//! Never here: time. Invariant: no input from outside, no randomness but seeds, no threads.
#![allow(clippy::unwrap_used, missing_docs, reason = "benchmarks")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::recorded::{cut, made};
use tidemark_series::{ByWindow, Choice, Edge, Needs, Records, Windows, bucket, latest};

const DAYS: Windows = Windows {
    from_ns: i64::MIN,
    to_ns: i64::MAX,
    step_ns: Some(86_400_000_000_000),
    origin_ns: 0,
    borders: None,
    edge: Edge::StartClosed,
};

fn encode(parts: &[Records]) -> Vec<Vec<u8>> {
    parts.iter().map(bucket::encode).collect()
}

#[inline(never)]
fn counted_encode_1(parts: &[Records]) -> Vec<Vec<u8>> {
    encode(parts)
}

#[inline(never)]
fn counted_encode_10(parts: &[Records]) -> Vec<Vec<u8>> {
    encode(black_box(parts))
}

#[inline(never)]
fn counted_encode_128(parts: &[Records]) -> Vec<Vec<u8>> {
    encode(black_box(black_box(parts)))
}

#[inline(never)]
fn counted_merge(fragments: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
    let merge = |parts: &Vec<Vec<u8>>| bucket::merge(None, parts.iter().map(Vec::as_slice)).unwrap();
    fragments.iter().map(merge).collect()
}

#[inline(never)]
fn counted_newest(fragments: &[Vec<u8>]) -> Vec<u8> {
    let one = |held: Vec<u8>, part: &Vec<u8>| latest::merge_latest(Some(&held), [part.as_slice()].into_iter()).unwrap();
    fragments.iter().fold(Vec::new(), one)
}

#[inline(never)]
fn counted_decode(entries: &[Vec<u8>]) -> usize {
    entries
        .iter()
        .map(|bytes| bucket::decode(bytes, None).unwrap().points())
        .sum()
}

#[inline(never)]
fn counted_fold(entries: &[Vec<u8>]) -> u64 {
    let mut count = 0;
    for block in entries.iter().flat_map(|bytes| bucket::blocks(bytes)) {
        let block = block.unwrap();
        let mut folding = block.folding();
        for property in block.properties() {
            let mut partials = ByWindow::default();
            folding
                .fold(property, &DAYS, Needs::All, &Choice::ALL, &mut partials)
                .unwrap();
            count += partials
                .sorted()
                .iter()
                .map(|(_, partial)| partial.count())
                .sum::<u64>();
        }
    }
    count
}

#[inline(never)]
fn counted_header(entries: &[Vec<u8>]) -> u64 {
    let blocks = entries.iter().flat_map(|bytes| bucket::blocks(bytes));
    let count = |block: tidemark_series::Block<'_>| -> u64 {
        let stats = block.properties().filter_map(|property| block.stats(property));
        stats.map(|stats| stats.count()).sum()
    };
    blocks.map(|block| count(block.unwrap())).sum()
}

fn main() {
    let buckets: Vec<Records> = made().iter().flat_map(|set| set.buckets()).collect();
    let buckets: Vec<Records> = buckets.into_iter().filter(|b| b.len() > 3000).collect();
    let ones = cut(&buckets, 1, 200);
    let ones = black_box(counted_encode_1(&ones));
    black_box(counted_encode_10(&cut(&buckets, 10, 50)));
    black_box(counted_encode_128(&cut(&buckets, 128, 16)));
    let fragments: Vec<Vec<Vec<u8>>> = buckets
        .iter()
        .map(|all| encode(&cut(std::slice::from_ref(all), 128, usize::MAX)))
        .collect();
    let merged = counted_merge(black_box(&fragments));
    black_box(counted_newest(black_box(&ones)));
    let read = counted_decode(black_box(&merged));
    let folded = counted_fold(black_box(&merged));
    let known = counted_header(black_box(&merged));
    assert_eq!(read as u64, folded);
    assert!(known <= folded && known > 0);
}
