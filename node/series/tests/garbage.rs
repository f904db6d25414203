//! The fuzz targets' entry points on a fixed corpus: random bytes, bytes that start like the real thing, and real
//! columns with bits flipped. Nothing may panic, hang or allocate without bound.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Rng;
use tidemark_series::decoders::{self, ALL, Decoder};
use tidemark_series::{Partial, block};

/// First bytes that lead into every branch of some decoder.
fn lead(rng: &mut Rng) -> u8 {
    if rng.chance(2) {
        rng.below(0x70) as u8
    } else {
        rng.next() as u8
    }
}

#[test]
fn random_bytes_never_panic() {
    for seed in 0..60_000 {
        let rng = &mut Rng(seed);
        let len = if rng.chance(20) { rng.below(3000) } else { rng.below(60) };
        let mut bytes: Vec<u8> = (0..len)
            .map(|_| {
                if rng.chance(3) {
                    rng.below(4) as u8
                } else {
                    rng.next() as u8
                }
            })
            .collect();
        for byte in bytes.iter_mut().take(3) {
            *byte = lead(rng);
        }
        let count = [1, 2, 5, 16, 700, 4096][rng.below(6) as usize];
        for (name, decoder) in ALL {
            let outcome = std::panic::catch_unwind(|| decoder(count, &bytes).is_ok());
            assert!(
                outcome.is_ok(),
                "{name} panicked: seed {seed}, count {count}, {bytes:?}"
            );
        }
    }
}

#[test]
fn damaged_columns_never_panic() {
    for seed in 0..2500 {
        let rng = &mut Rng(seed);
        let count = [3, 20, 130, 600, 4096][rng.below(5) as usize];
        let (decoder, column): (Decoder, Vec<u8>) = match rng.below(3) {
            0 => (decoders::read_ints, decoders::write_ints(&common::ints(rng, count))),
            1 => (
                decoders::read_floats,
                decoders::write_floats(&common::floats(rng, count)),
            ),
            _ => (decoders::read_text, decoders::write_text(&common::texts(rng, count))),
        };
        assert_eq!(decoder(count, &column), Ok(()), "seed {seed}");
        for _ in 0..30 {
            let mut bytes = column.clone();
            for _ in 0..=rng.below(3) {
                // Most of what decides is at the front.
                let end = if rng.chance(2) {
                    bytes.len().min(24)
                } else {
                    bytes.len()
                };
                let at = rng.below(end as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            if rng.chance(8) {
                bytes.truncate(rng.below(bytes.len() as u64) as usize);
            }
            let outcome = std::panic::catch_unwind(|| decoder(count, &bytes).is_ok());
            assert!(outcome.is_ok(), "seed {seed}, count {count}, {} bytes", bytes.len());
        }
    }
}

#[test]
fn every_decoder_knows_its_own() {
    let records = common::records(&mut Rng(3), 50);
    let bytes = block::encode(&records);
    let partial = Partial::empty(tidemark_series::ValueType::I64).encode();
    let good = |name: &str| match name {
        "ints" => vec![1, 4],
        "floats" => vec![1, 1, 4],
        "text" => vec![1, 2, 1, 0],
        "presence" => vec![1, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x01],
        "stats" => vec![2, 0, 5],
        "clocks" => vec![2, 25, 3, 2, 0, 4, 25, 3, 2, 2, 4],
        "like" => vec![2, 1, 4],
        "repeats" => vec![2, 1, 0, 1, 4],
        "partial" => partial.clone(),
        _ => bytes.clone(),
    };
    for (name, decoder) in ALL {
        assert_eq!(decoder(50, &good(name)), Ok(()), "{name}");
        assert!(
            decoder(50, &[]).is_err() || ["bucket", "latest"].contains(&name),
            "{name} takes nothing"
        );
    }
}
