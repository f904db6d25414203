//! Bytes a point and points a CPU second on recorded series (see `tests/common/recorded.rs`), made ones where there are
//! none: `cargo run --release -p tidemark-series --example sizes [SET…]`.
//!
//! Never here: a judgement. Invariant: what is measured was decoded and is what was encoded.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;

use common::recorded::{Set, sets};
use rustix::time::{ClockId, clock_gettime};
use tidemark_series::{Block, ByWindow, Choice, Edge, Needs, Records, Sizes, Windows, bucket};

/// What is measured is repeated, and the fastest counts: other work on the machine only ever slows it down.
const ROUNDS: usize = 3;
/// CPU seconds of one stage, `encode-1` to `fold`, to look at with a profiler: `STAGE=decode`.
const STAGE_S: f64 = 5.0;
/// Key, sequence and lengths of an entry.
const ENTRY_BYTES: usize = 16 + 8 + 3;
/// Filter of a key.
const FILTER_BYTES: f64 = 1.25;
const FILE_BLOCK_BYTES: usize = 32 << 10;

fn cpu_s() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// The result and the CPU seconds of the fastest round.
fn timed<T>(stage: &str, work: impl Fn() -> T) -> (T, f64) {
    let mut best = f64::INFINITY;
    let mut result = None;
    let wanted = std::env::var("STAGE").is_ok_and(|wanted| wanted == stage);
    let until = if wanted { cpu_s() + STAGE_S } else { 0.0 };
    let mut rounds = 0;
    while rounds < ROUNDS || cpu_s() < until {
        rounds += 1;
        let begun = cpu_s();
        result = Some(std::hint::black_box(work()));
        best = best.min(cpu_s() - begun);
    }
    (result.unwrap(), best)
}

/// Of one way to lay a set out: bytes by role, and about what a file of them takes, compressed at the bottom or not.
#[derive(Default)]
struct Laid {
    sizes: Sizes,
    plain: f64,
    squeezed: f64,
    /// Of all bytes: equal where no byte changed.
    digest: u32,
}

fn lay(entries: &[Vec<u8>]) -> Laid {
    let mut laid = Laid::default();
    let mut file_block = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        laid.digest = crc32c::crc32c_append(laid.digest, entry);
        for block in bucket::blocks(entry) {
            laid.sizes.add(Sizes::of(&block.unwrap()));
        }
        file_block.extend([0; ENTRY_BYTES]);
        let at = file_block.len() - 4;
        file_block[at..].copy_from_slice(&(number as u32).to_be_bytes());
        file_block.extend_from_slice(entry);
        laid.plain += FILTER_BYTES;
        laid.squeezed += FILTER_BYTES;
        if file_block.len() > FILE_BLOCK_BYTES || number + 1 == entries.len() {
            laid.plain += file_block.len() as f64;
            let squeezed = zstd::bulk::compress(&file_block, 3).unwrap();
            laid.squeezed += squeezed.len().min(file_block.len()) as f64;
            file_block.clear();
        }
    }
    laid
}

fn print_sizes(name: &str, how: &str, points: usize, laid: &Laid) {
    let each = |bytes: usize| bytes as f64 / points as f64;
    let s = &laid.sizes;
    println!(
        "{name:>14} {how:>9} | values {:.4} presence {:.4} times {:.4} receipts {:.4} header {:.4} statistics {:.4} | \
         blocks {:.4} file {:.4} zstd {:.4} digest {:08x}",
        each(s.values),
        each(s.presences),
        each(s.times),
        each(s.receipts + s.kinds),
        each(s.header),
        each(s.statistics),
        each(s.total()),
        laid.plain / points as f64,
        laid.squeezed / points as f64,
        laid.digest
    );
}

/// Encodings (and of integers methods) of merged columns, by how many columns have them.
fn print_encodings(name: &str, entries: &[Vec<u8>]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for block in entries.iter().flat_map(|entry| bucket::blocks(entry)) {
        let made = block.unwrap().describe();
        for column in made.split("; ").skip(1) {
            let encoding = column.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ");
            let like = if column.contains("like") { " like" } else { "" };
            *counts.entry(encoding + like).or_default() += 1;
        }
    }
    let mut counts: Vec<(usize, String)> = counts.into_iter().map(|(name, count)| (count, name)).collect();
    counts.sort_by(|a, b| b.cmp(a));
    let shown: Vec<String> = counts
        .iter()
        .take(16)
        .map(|(count, name)| format!("{name}: {count}"))
        .collect();
    println!("{name:>14} encodings: {}", shown.join(", "));
}

fn cut(buckets: &[Records], rows: usize) -> Vec<Vec<Records>> {
    let parts = |all: &Records| {
        (0..all.len())
            .step_by(rows)
            .map(|row| all.slice_rows(row, row + rows))
            .collect()
    };
    buckets.iter().map(parts).collect()
}

fn encode(parts: &[Vec<Records>]) -> Vec<Vec<Vec<u8>>> {
    parts
        .iter()
        .map(|parts| parts.iter().map(bucket::encode).collect())
        .collect()
}

/// One after another, as a query does: nothing is kept.
fn decode(entries: &[Vec<u8>]) -> usize {
    let points = |entry: &Vec<u8>| std::hint::black_box(bucket::decode(entry, None).unwrap()).points();
    entries.iter().map(points).sum()
}

fn check<'a>(entries: &[Vec<u8>], expected: impl Iterator<Item = &'a Records>) {
    let same = entries
        .iter()
        .map(|entry| bucket::decode(entry, None).unwrap())
        .eq(expected.cloned());
    assert!(same, "not bit for bit");
}

/// Every column into windows of a day, of which no block is a whole one.
fn fold(entries: &[Vec<u8>]) -> u64 {
    let windows = Windows {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        step_ns: Some(86_400_000_000_000),
        origin_ns: 0,
        borders: None,
        edge: Edge::StartClosed,
    };
    let mut count = 0;
    for block in entries.iter().flat_map(|entry| bucket::blocks(entry)) {
        let block: Block<'_> = block.unwrap();
        let mut folding = block.folding();
        for property in block.properties() {
            let mut partials = ByWindow::default();
            folding
                .fold(property, &windows, Needs::All, &Choice::ALL, &mut partials)
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

fn measure(set: &Set, total: &mut Vec<(String, usize, Laid)>) {
    let (points, buckets) = (set.points(), set.buckets());
    let values = points + set.devices.iter().map(Records::len).sum::<usize>();
    let mut speeds = String::new();
    let mut rate = |what: &str, count: usize, seconds: f64| {
        speeds += &format!(" {what} {:.1}", count as f64 / seconds / 1e6);
    };
    let mut fragments = Vec::new();
    for rows in [1, 10, 128] {
        let parts = cut(&buckets, rows);
        let parts = if rows == 1 {
            &parts[..parts.len().div_ceil(8)]
        } else {
            &parts[..]
        };
        let (encoded, seconds) = timed(&format!("encode-{rows}"), || encode(parts));
        let of: usize = parts.iter().flatten().map(Records::points).sum();
        rate(&format!("encode-{rows}"), of, seconds);
        let flat: Vec<Vec<u8>> = encoded.iter().flatten().cloned().collect();
        let laid = lay(&flat);
        print_sizes(&set.name, &format!("by {rows}"), of, &laid);
        total.push((format!("by {rows}"), of, laid));
        if rows == 128 {
            check(&flat, parts.iter().flatten());
            let (_, seconds) = timed("decode-128", || decode(&flat));
            rate("decode-128", values, seconds);
        }
        fragments = encoded;
    }
    let (merged, seconds) = timed("merge", || {
        let merge = |parts: &Vec<Vec<u8>>| bucket::merge(None, parts.iter().map(Vec::as_slice)).unwrap();
        fragments.iter().map(merge).collect::<Vec<_>>()
    });
    rate("merge", points, seconds);
    let laid = lay(&merged);
    print_sizes(&set.name, "merged", points, &laid);
    print_encodings(&set.name, &merged);
    total.push(("merged".to_owned(), points, laid));
    check(&merged, buckets.iter());
    let (_, seconds) = timed("decode", || decode(&merged));
    rate("decode", values, seconds);
    let (count, seconds) = timed("fold", || fold(&merged));
    assert_eq!(count as usize, points);
    rate("fold", points, seconds);
    println!("{:>14} M a CPU second: {}", set.name, speeds.trim_start());
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let (sets, recorded) = sets();
    println!("{} series, bytes a point", if recorded { "recorded" } else { "made" });
    let mut all = Vec::new();
    for set in sets.iter().filter(|s| wanted.is_empty() || wanted.contains(&s.name)) {
        measure(set, &mut all);
    }
    for how in ["by 1", "by 10", "by 128", "merged"] {
        let (mut points, mut sum) = (0, Laid::default());
        for (_, of, laid) in all.iter().filter(|(name, ..)| name == how) {
            points += of;
            sum.sizes.add(laid.sizes);
            sum.plain += laid.plain;
            sum.squeezed += laid.squeezed;
            sum.digest ^= laid.digest;
        }
        print_sizes("all", how, points, &sum);
    }
}
