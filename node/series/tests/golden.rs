//! Every version for ever: the bytes in `tests/golden/*.hex` decode to what they were made of, whatever the encoder of today
//! would write instead. A file is written where it is missing (then the test fails once, so that it gets looked at and
//! committed), never again after.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::fmt::Write;
use std::path::PathBuf;

use common::Rng;
use tidemark_series::sequence::{Quantiles, State};
use tidemark_series::{
    Bitmap, Block, Column, Exact, Finished, Partial, PropertyNumber, Records, Sequence, SequenceFunction, ValueRef,
    ValueType, Values, block, bucket, latest,
};

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

/// The golden bytes of `name`, first written as `encoded`.
#[track_caller]
fn golden(name: &str, encoded: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.hex"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        std::fs::write(&path, to_hex(encoded)).unwrap();
        panic!("{name}.hex was missing: written now, look at it and commit it");
    };
    from_hex(&text)
}

/// What the golden block is made of, in words; it must decode to `records`, as must what is written today.
#[track_caller]
fn check(name: &str, records: &Records) -> String {
    let today = block::encode(records);
    let bytes = golden(name, &today);
    for bytes in [&bytes, &today] {
        let (block, rest) = Block::parse(bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!(
            &block.decode(None).unwrap(),
            records,
            "{name} decodes to something else"
        );
    }
    Block::parse(&bytes).unwrap().0.describe()
}

fn records(rows: usize, columns: Vec<(u32, Values)>) -> Records {
    let observed_at: Vec<i64> = (0..rows as i64)
        .map(|i| 1_700_000_000_000_000_000 + i * 900_000_000_000)
        .collect();
    let received_at = observed_at.iter().map(|t| t + 1_250_000_000).collect();
    let column = |(number, values)| Column {
        property: PropertyNumber(number),
        presence: None,
        values,
        quality: None,
    };
    let columns = columns.into_iter().map(column).collect();
    Records {
        observed_at,
        received_at,
        report_kind: vec![1; rows],
        repeats: Vec::new(),
        columns,
    }
}

/// One column in one encoding: the method of integers, the form of others.
#[track_caller]
fn column_of(name: &str, encoding: u8, values: Values) {
    let integers = matches!(values, Values::I64(_));
    let made = check(name, &records(values.len(), vec![(1, values)]));
    let column = made.split("; 1: ").nth(1).unwrap();
    let found = column.split(' ').nth(usize::from(integers)).unwrap();
    assert_eq!(found, format!("{encoding:#04x}"), "{name} is {made}");
}

/// A walk in steps of at most `step`.
fn walk(count: usize, step: u64) -> impl Iterator<Item = i64> {
    let mut rng = Rng(1);
    let mut level = 4427;
    (0..count).map(move |_| {
        level += rng.below(2 * step + 1) as i64 - step as i64;
        level
    })
}

/// A walk of which small steps are twice as likely as those a step larger.
fn rarely_far(count: usize) -> impl Iterator<Item = i64> {
    let mut steps = Rng(3);
    let mut level = 4427;
    (0..count).map(move |_| {
        let bits = steps.next();
        let step = i64::from((bits >> 8).trailing_zeros()) * 4 + (bits & 3) as i64;
        level += if bits & 4 == 0 { step } else { -step };
        level
    })
}

#[test]
fn records_of_version_1() {
    let four = vec![
        (1, Values::F64(vec![442.7])),
        (2, Values::F64(vec![21.35])),
        (3, Values::Bool(vec![true])),
        (9, Values::Enum(vec![2])),
    ];
    check("one_row", &records(1, four));
    let mut mixed = records(
        20,
        vec![
            (1, Values::F64(walk(20, 3).map(|v| v as f64 / 10.0).collect())),
            (2, Values::I64(walk(10, 9).collect())),
            (4, Values::Bool((0..20).map(|i| i % 7 == 0).collect())),
            (5, Values::Text((0..10).map(|i| format!("state {}", i / 4)).collect())),
        ],
    );
    let mut odd_rows = Bitmap::new(20);
    (0..10).for_each(|i| odd_rows.set(i * 2 + 1, true));
    mixed.columns[1].presence = Some(odd_rows.clone());
    mixed.columns[3].presence = Some(odd_rows);
    mixed.columns[0].quality = Some((0..20).map(|i| i / 18).collect());
    mixed.report_kind = (0..20).map(|i| 1 + i / 15).collect();
    mixed.observed_at[7] += 13_000_000;
    check("mixed", &mixed);
    let large = vec![
        (1, Values::F64(walk(1000, 3).map(|v| v as f64 / 10.0).collect())),
        (2, Values::I64(walk(1000, 500).collect())),
    ];
    check("large", &records(1000, large));
    check("no_columns", &records(3, Vec::new()));
}

#[test]
fn integers_of_version_1() {
    let mut rng = Rng(2);
    column_of("ints_constant", 0x01, Values::I64(vec![-7; 40]));
    column_of("ints_line", 0x02, Values::I64((0..40).map(|i| 100 - 3 * i).collect()));
    column_of(
        "ints_raw",
        0x03,
        Values::I64((0..20).map(|_| rng.next() as i64).collect()),
    );
    column_of(
        "ints_runs",
        0x04,
        Values::I64((0..600).map(|i| (i / 60 * 7919) % 1000).collect()),
    );
    column_of(
        "ints_dictionary",
        0x05,
        Values::I64((0..90).map(|_| [5, 1_000_003, -8][rng.below(3) as usize]).collect()),
    );
    column_of(
        "ints_scaled",
        0x06,
        Values::I64(walk(60, 4).map(|v| v * 156 + 11).collect()),
    );
    column_of(
        "ints_packed",
        0x08,
        Values::I64((0..50).map(|_| rng.below(64) as i64).collect()),
    );
    column_of(
        "ints_rice_0",
        0x10,
        Values::I64(
            (0..64)
                .map(|_| 500 + (rng.below(90) * rng.below(90) / 90) as i64)
                .collect(),
        ),
    );
    column_of("ints_rice_1", 0x11, Values::I64(walk(100, 2).collect()));
    let speed = walk(100, 2).scan(0, |at, v| {
        *at += v;
        Some(*at)
    });
    column_of("ints_rice_2", 0x12, Values::I64(speed.collect()));
    let skewed = (0..700).map(|_| (rng.below(70) * rng.below(50) * rng.below(30)) as i64);
    let push = walk(100, 2).scan((0, 0), |(speed, at), v| {
        *speed += v - 4427;
        *at += *speed;
        Some(*at)
    });
    column_of("ints_rice_3", 0x13, Values::I64(push.collect()));
    let bursts = walk(400, 3)
        .enumerate()
        .map(|(i, v)| if i / 32 % 4 == 1 { (v * v * v) % 9973 } else { v });
    column_of("ints_rice_parts", 0x15, Values::I64(bursts.collect()));
    column_of("ints_twin_1", 0x21, Values::I64(rarely_far(1030).collect()));
    column_of("ints_quad_1", 0x31, Values::I64(rarely_far(2050).collect()));
    column_of("ints_pco", 0x0c, Values::I64(skewed.collect()));
    column_of(
        "ints_extreme",
        0x12,
        Values::I64(vec![i64::MIN, i64::MAX, 0, -1, i64::MIN, 1]),
    );
}

#[test]
fn doubles_of_version_1() {
    column_of(
        "floats_decimal",
        0x02,
        Values::F64(walk(80, 5).map(|v| v as f64 / 100.0).collect()),
    );
    let mut odd: Vec<f64> = walk(80, 5).map(|v| v as f64 / 100.0).collect();
    (odd[3], odd[50], odd[51]) = (f64::from_bits(0x7ff8_0000_0000_0123), -0.0, f64::NEG_INFINITY);
    column_of("floats_exceptions", 0x22, Values::F64(odd));
    let ulps = walk(80, 5).map(|v| f64::from_bits((v as f64 / 1000.0).to_bits() - (v % 3 == 0) as u64));
    column_of("floats_ulps", 0x43, Values::F64(ulps.collect()));
    column_of(
        "floats_bits",
        0x60,
        Values::F64(walk(40, 500).map(|v| (v as f64).abs().sqrt()).collect()),
    );
    let tenths = walk(600, 40).map(|v| (v as f64).abs().sqrt() * 1e-9);
    column_of("floats_pco", 0x62, Values::F64(tenths.collect()));
}

#[test]
fn columns_like_another() {
    let raw: Vec<i64> = walk(100, 40).collect();
    let doubles = |f: &dyn Fn(usize, i64) -> f64| Values::F64(raw.iter().enumerate().map(|(i, &v)| f(i, v)).collect());
    let columns = vec![
        (1, doubles(&|_, v| v as f64 / 10.0)),
        (4, doubles(&|i, v| (v * 100 + 7 * i as i64) as f64 / 1000.0)),
        (5, Values::I64(raw.clone())),
        (9, Values::I64(raw.iter().map(|v| v + v % 3).collect())),
    ];
    let made = check("like", &records(100, columns));
    insta::assert_snapshot!(made, @"100 rows, times 0x01; 1: 0x01 0x11; 4: 0x03 0x02 like 1; 5: 0x00 0x11; 9: 0x00 0x08 like 5");
}

#[test]
fn rows_of_several_clocks() {
    let mut parts = Vec::new();
    for (number, clock) in [(1, 0), (2, 0), (7, 240)] {
        let mut part = records(60, vec![(number, Values::I64(walk(60, 2).collect()))]);
        let mut rng = Rng(6 + clock as u64);
        let mut at = 1_700_000_000 + clock;
        for time in &mut part.observed_at {
            at += if rng.chance(4) { 575 } else { 604 };
            *time = at * 1_000_000_000;
        }
        let rows: Vec<usize> = (0..60).filter(|row| number != 2 || row % 3 > 0).collect();
        parts.extend(rows.into_iter().map(|row| part.slice_rows(row, row + 1)));
    }
    let all = Records::merge_all(parts);
    let made = check("clocks", &all);
    insta::assert_snapshot!(made, @"120 rows, clocks 0x40; 1: 0x00 0x11 presence 6; 2: 0x00 0x11 presence 7; 7: 0x00 0x11 presence 6");
}

#[test]
fn repeats_of_version_2() {
    let plain = records(40, vec![(1, Values::I64(walk(40, 2).collect()))]);
    let mut again = plain.clone();
    again.repeats = vec![0; 40];
    assert_eq!(block::encode(&again), block::encode(&plain), "none take nothing");
    (again.repeats[3], again.repeats[4], again.repeats[39]) = (1, 70_000, 2);
    let made = check("repeats", &again);
    insta::assert_snapshot!(made, @"40 rows, times 0x01, 70003 repeats of 3 rows; 1: 0x00 0x11");
}

#[test]
fn the_rest_of_version_1() {
    let mut rng = Rng(4);
    column_of("bools", 0x00, Values::Bool((0..100).map(|_| rng.chance(5)).collect()));
    column_of("enums", 0x00, Values::Enum((0..100).map(|i| i / 30 * 2).collect()));
    column_of(
        "texts_plain",
        0x01,
        Values::Text(vec!["größer".to_owned(), String::new(), "x".to_owned()]),
    );
    column_of(
        "texts_dictionary",
        0x03,
        Values::Text((0..60).map(|i| ["open", "shut"][i / 7 % 2].to_owned()).collect()),
    );
    let lines = (0..40).map(|i| format!("gate {i} reported level {} cm", i * 37 % 91));
    column_of("texts_zstd", 0x02, Values::Text(lines.collect()));
    let (a, b) = (
        records(1, vec![(1, Values::F64(vec![1.5])), (2, Values::I64(vec![7]))]),
        records(3, vec![]),
    );
    let mut b = Records {
        columns: a.columns[..1].to_vec(),
        ..b.slice_rows(0, 1)
    };
    b.received_at[0] += 5;
    let (a, b) = (block::encode(&a), block::encode(&b));
    let newest = latest::merge_latest(Some(&a), [b.as_slice()].into_iter()).unwrap();
    let bytes = golden("newest", &newest);
    assert_eq!(bucket::decode(&bytes, None).unwrap().points(), 2);
}

#[test]
fn partials_of_version_1() {
    let values = [
        ("f64", ValueType::F64, ValueRef::F64(0.1)),
        ("i64", ValueType::I64, ValueRef::I64(-5)),
        ("bool", ValueType::Bool, ValueRef::Bool(true)),
        ("enum", ValueType::Enum, ValueRef::Enum(300)),
        ("text", ValueType::Text, ValueRef::Text("open")),
    ];
    for (name, of, value) in values {
        let mut partial = Partial::empty(of);
        (0..3).for_each(|i| partial.fold(1_700_000_000_000_000_000 + i, value));
        let bytes = golden(&format!("partial_{name}"), &partial.encode());
        assert_eq!(Partial::decode(&bytes).unwrap(), partial);
    }
}

/// The golden bytes of a sequence decode to what gives the same bytes and the same answers.
#[track_caller]
fn sequence_of(name: &str, sequence: &Sequence, answers: &[(SequenceFunction, Finished)]) {
    let mut today = Vec::new();
    sequence.encode_to(&mut today);
    let bytes = golden(&format!("sequence_{name}"), &today);
    let back = Sequence::decode(&bytes).unwrap();
    let mut again = Vec::new();
    back.encode_to(&mut again);
    assert_eq!(to_hex(&again), to_hex(&bytes), "{name} decodes to something else");
    for (function, expected) in answers {
        let answer = back.finish(*function, 60_000_000_000);
        assert_eq!(answer, Ok(Some(expected.clone())), "{function:?} of {name}");
    }
}

#[test]
fn sequences_of_version_2() {
    use SequenceFunction as F;
    let f64 = Finished::F64;
    let mut few = Sequence {
        rise: Exact::of(12.5),
        change: Exact::of(-3.25),
        steps: 300,
        area: Exact::product(90.0, 1e9),
        covered_ns: 45_000_000_000,
        bins: vec![0, 2, 1],
        ..Sequence::default()
    };
    for value in [0.5, -2.0, 7.0] {
        few.moments.add(value);
        few.quantiles.add(value);
    }
    let answers = [
        (F::Increase, f64(12.5)),
        (F::Delta, f64(-3.25)),
        (F::Integral, f64(90.0)),
        (F::TimeWeightedAvg, f64(2.0)),
        (F::Quantile(500_000), f64(0.5)),
        (F::Bin(1), Finished::U64(2)),
    ];
    sequence_of("few", &few, &answers);

    // By numbers of borders and not by values, so that nothing here depends on logarithms of this machine.
    let many = Sequence {
        quantiles: Quantiles::Many([(-1_038, 2), (0, 5), (1, 70_000), (1_342, 3)].into()),
        ..Sequence::default()
    };
    sequence_of(
        "many",
        &many,
        &[(F::Quantile(71), f64(0.0)), (F::Quantile(500_000), f64(9.9e-10))],
    );

    let state = |held_s: u128, entered, points| State {
        held_ns: held_s * 1_000_000_000,
        entered,
        points,
    };
    let states = Sequence {
        states: [(-7, state(1 << 40, 3, 9)), (0, state(0, 0, 1)), (300, state(15, 1, 2))].into(),
        ..Sequence::default()
    };
    let answers = [
        (F::Mode, Finished::I64(-7)),
        (F::Duration(300), f64(15.0)),
        (F::Transitions, Finished::U64(4)),
    ];
    sequence_of("states", &states, &answers);

    let rises = Sequence {
        last_rise: Some((1_700_000_000_000_000_000, Some(0.25))),
        most_rise: Some(1.5),
        ..Sequence::default()
    };
    sequence_of(
        "rises",
        &rises,
        &[(F::RisePerHour, f64(0.25)), (F::RisePerHourMax, f64(1.5))],
    );
    let unknown = Sequence {
        last_rise: Some((-1, None)),
        ..Sequence::default()
    };
    sequence_of("rise_unknown", &unknown, &[]);
}
