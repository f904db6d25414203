//! The fuzz targets' entry points on a fixed corpus: random bytes, bytes that start like the real thing, and real
//! columns with bits flipped. Nothing may panic, hang or allocate without bound.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Rng;
use tidemark_series::checks::{Checks, Choice, Stated, Suspects};
use tidemark_series::decoders::{self, ALL, Decoder};
use tidemark_series::rollup::{Follows, Format, Rolled, roll_up};
use tidemark_series::sequence::State;
use tidemark_series::{
    Accepted, Column, Edge, Exact, Partial, PropertyNumber, Records, Sequence, ValueType, Values, block,
};

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

/// A sequence of any of the parts there are.
fn sequence(rng: &mut Rng) -> Vec<u8> {
    let mut sequence = Sequence::default();
    if rng.chance(2) {
        (sequence.steps, sequence.rise, sequence.change) = (rng.below(100), Exact::of(7.25), Exact::of(-0.5));
    }
    if rng.chance(2) {
        (sequence.covered_ns, sequence.area) = (u128::from(rng.next()) << rng.below(50), Exact::of(1e9));
    }
    let values = common::floats(rng, 90);
    for value in values.iter().take(rng.below(90) as usize) {
        sequence.moments.add(*value);
        sequence.quantiles.add(*value);
    }
    sequence.bins = (0..rng.below(5)).collect();
    for _ in 0..rng.below(20) {
        let state = State {
            held_ns: rng.next().into(),
            entered: rng.next(),
            points: rng.below(9),
        };
        sequence.states.insert(rng.next() as i64, state);
    }
    if rng.chance(3) {
        sequence.last_rise = Some((rng.next() as i64, Some(0.5)));
        sequence.most_rise = Some(7.0);
    }
    let mut bytes = Vec::new();
    sequence.encode_to(&mut bytes);
    bytes
}

#[test]
fn damaged_sequences_never_panic() {
    for seed in 0..3_000 {
        let rng = &mut Rng(seed);
        let whole = sequence(rng);
        assert_eq!(decoders::read_sequence(1, &whole), Ok(()), "seed {seed}");
        for _ in 0..30 {
            let mut bytes = whole.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            if rng.chance(8) {
                bytes.truncate(rng.below(bytes.len() as u64) as usize);
            }
            let outcome = std::panic::catch_unwind(|| decoders::read_sequence(1, &bytes).is_ok());
            assert!(outcome.is_ok(), "seed {seed}, {bytes:?}");
        }
    }
}

/// A rollup of a property of each type, by windows of 50 s.
fn rollup() -> Vec<u8> {
    const S: i64 = 1_000_000_000;
    let values = [
        Values::F64((0..40).map(|n| f64::from(n * 7 % 11)).collect()),
        Values::I64((0..40).map(|n| n * 5 % 13).collect()),
        Values::Bool((0..40).map(|n| n % 3 == 0).collect()),
        Values::Enum((0..40).map(|n| n / 6 % 4).collect()),
        Values::Text((0..40).map(|n| format!("gate {}", n / 9)).collect()),
    ];
    let column = |(number, values)| Column {
        property: PropertyNumber(number),
        presence: None,
        values,
        quality: None,
    };
    let times: Vec<i64> = (0..40).map(|n| n * 9 * S).collect();
    let records = Records {
        received_at: times.clone(),
        report_kind: vec![0; times.len()],
        observed_at: times,
        repeats: Vec::new(),
        columns: (1..).zip(values).map(column).collect(),
    };
    let checks = Checks::default();
    let follows = [
        Follows::Linear(60 * S),
        Follows::Counter(None),
        Follows::Held(60 * S),
        Follows::State(60 * S),
    ];
    let follows = follows.map(Some).into_iter().chain([None]);
    let rolled = |(number, follows)| Rolled {
        property: PropertyNumber(number),
        edge: Edge::StartClosed,
        choice: Choice {
            accepted: Accepted::ALL,
            doubted: Stated::NOTHING.suspects,
            checks: &checks,
            suspect: Suspects::Count,
        },
        follows,
    };
    let rolled: Vec<Rolled<'_>> = (1..).zip(follows).map(rolled).collect();
    let value = tidemark_series::bucket::encode(&records);
    roll_up(&value, Format::WithSlots(10 * S), (7, 50 * S), &rolled)
        .unwrap()
        .unwrap()
}

#[test]
fn every_decoder_knows_its_own() {
    let records = common::records(&mut Rng(3), 50);
    let bytes = block::encode(&records);
    let partial = Partial::empty(ValueType::I64).encode();
    let (sequence, rollup) = (sequence(&mut Rng(5)), rollup());
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
        "sequence" => sequence.clone(),
        "rollup" => rollup.clone(),
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
