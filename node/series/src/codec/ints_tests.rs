//! The menu picks what it should, and every method comes back.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

fn noise(i: u64) -> u64 {
    let x = i
        .wrapping_add(0x9e37_79b9_7f4a_7c15)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ x >> 29).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

#[track_caller]
fn check(values: &[i64], methods: std::ops::RangeInclusive<u8>, most: usize) {
    let bytes = encode(values);
    assert_eq!(decode(&bytes, values.len()).unwrap(), values);
    assert_eq!(bytes, encode(values), "not deterministic");
    assert!(
        methods.contains(&bytes[0]),
        "method {:#04x}, {} bytes",
        bytes[0],
        bytes.len()
    );
    assert!(bytes.len() <= most, "{} bytes by method {:#04x}", bytes.len(), bytes[0]);
}

#[test]
fn the_menu_picks_what_fits() {
    check(&[7; 4096], CONSTANT..=CONSTANT, 2);
    check(&[-3], CONSTANT..=CONSTANT, 2);
    check(&(0..4096).map(|i| 5 + i * 900).collect::<Vec<_>>(), LINE..=LINE, 4);
    let wild: Vec<i64> = (0..50)
        .map(|i| noise(i).wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64)
        .collect();
    check(&wild, RAW..=RAW, 401);
    let held: Vec<i64> = (0..2000).map(|i| (noise(i / 50) % 1000) as i64).collect();
    check(&held, RUNS..=RUNS, 70);
    let level: Vec<i64> = (0..100u64).map(|i| 4427 + (noise(i) % 5) as i64).collect();
    check(&level, PACKED..=0x1f, 46);
    let walk: Vec<i64> = level
        .iter()
        .scan(0, |at, v| {
            *at += v - 4429;
            Some(*at)
        })
        .collect();
    check(&walk, PACKED..=0x1f, 44);
    let states: Vec<i64> = (0..400).map(|i| [3, 1_000_000, -77][(noise(i) % 3) as usize]).collect();
    check(&states, DICTIONARY..=DICTIONARY, 120);
    let tips: Vec<i64> = (0..500).map(|i| 13 + (noise(i) % 9) as i64 * 156).collect();
    check(&tips, SCALED..=SCALED, 270);
    let skewed: Vec<i64> = (0..4096)
        .map(|i| (noise(i) % 70 * (noise(i + 9) % 50) * (noise(i + 5) % 30)) as i64)
        .collect();
    check(&skewed, PCO..=0x0e, 7800);
}

#[test]
fn few_values_cost_few_bytes() {
    check(&[4427, 4428], LINE..=LINE, 5);
    check(&[4427, 4428, 4426], 0..=0x1f, 7);
    check(&[0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0], 0..=0x1f, 5);
}

#[test]
fn extremes_round_trip_by_every_order() {
    for len in [1usize, 2, 3, 4, 5, 31, 32, 33, 129, 700] {
        let values: Vec<i64> = (0..len as u64)
            .map(|i| match noise(i) % 4 {
                0 => i64::MIN,
                1 => i64::MAX,
                2 => (noise(i) as i64).wrapping_mul(0x1234_5678_9abc),
                _ => i as i64,
            })
            .collect();
        for order in 0..=rice::ORDER_MAX.min(len) {
            for partition in 0..4 {
                let residuals = rice::Residuals::new(&values, order, rice::middle(&values));
                let mut out = Vec::new();
                residuals.encode(&residuals.plan_of(partition), &mut out);
                assert_eq!(
                    rice::decode(&out, 1, (order, partition), Part::all(len), Whole::PLAIN).unwrap(),
                    values,
                    "{len} {order} {partition}"
                );
                for lanes in [2, 4] {
                    if len >= 5 * rice::ORDER_MAX {
                        let mut out = Vec::new();
                        rice::encode_lanes(&values, lanes, order, partition, &mut out);
                        let back = rice::decode(&out, lanes, (order, partition), Part::all(len), Whole::PLAIN);
                        assert_eq!(back.unwrap(), values, "{lanes} of {len} {order} {partition}");
                    }
                }
            }
        }
        for order in 0..=pack::ORDER_MAX.min(len) {
            let packed = pack::Packed::new(&values, order);
            let mut out = Vec::new();
            packed.encode(&mut out);
            assert_eq!(out.len(), packed.size());
            assert_eq!(
                pack::decode(&out, order, len, Whole::PLAIN).unwrap(),
                values,
                "{len} {order}"
            );
        }
        assert_eq!(decode(&encode(&values), len).unwrap(), values);
    }
}

#[test]
fn every_width_of_residuals_round_trips() {
    for bits in 1..=64 {
        for len in [3u64, 40, 700] {
            let values: Vec<i64> = (0..len)
                .map(|i| (noise(i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as i64)
                .collect();
            for order in 0..=rice::ORDER_MAX.min(values.len()) {
                for partition in 0..4 {
                    let mut out = Vec::new();
                    let residuals = rice::Residuals::new(&values, order, rice::middle(&values));
                    residuals.encode(&residuals.plan_of(partition), &mut out);
                    let all = Part::all(values.len());
                    let back = rice::decode(&out, 1, (order, partition), all, Whole::PLAIN);
                    assert_eq!(
                        back.as_deref(),
                        Ok(values.as_slice()),
                        "{bits} bits, order {order}, partition {partition}"
                    );
                    for lanes in [2, 4].into_iter().filter(|_| len > 3) {
                        let mut out = Vec::new();
                        rice::encode_lanes(&values, lanes, order, partition, &mut out);
                        let back = rice::decode(&out, lanes, (order, partition), all, Whole::PLAIN);
                        assert_eq!(
                            back.as_deref(),
                            Ok(values.as_slice()),
                            "{lanes} of {bits} bits, order {order}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_part_of_a_stream_is_what_the_whole_has_there() {
    let check = |values: &[i64], methods: std::ops::RangeInclusive<u8>| {
        let bytes = encode(values);
        assert!(methods.contains(&bytes[0]), "method {:#04x}", bytes[0]);
        let count = values.len();
        let mut ends: Vec<usize> = (0..60).map(|i| noise(i) as usize % (count + 1)).collect();
        ends.extend([0, 1, 2, count / 4, count / 4 + 1, count / 2, count - 1, count]);
        for (from, to) in ends.iter().zip(ends.iter().rev()) {
            let range = *from.min(to)..*from.max(to);
            let part = decode_part(&bytes, Part::of(range.clone(), count), Whole::PLAIN);
            assert_eq!(
                part.as_deref(),
                Ok(&values[range.clone()]),
                "{range:?} of {:#04x}",
                bytes[0]
            );
        }
    };
    let walk = |count: u64, order: usize| {
        let mut sums = [0i64; rice::ORDER_MAX];
        let next = |i: u64| {
            // Small steps are twice as likely as those a step larger.
            let size = (i64::from((noise(i) >> 8).trailing_zeros()) << 2) + (noise(i) & 3) as i64;
            let mut step = if noise(i) & 4 == 0 { size } else { -size };
            sums[..order].iter_mut().rev().for_each(|sum| {
                *sum += step;
                step = *sum;
            });
            step
        };
        (0..count).map(next).collect::<Vec<i64>>()
    };
    for order in 1..=rice::ORDER_MAX {
        check(&walk(300, order), RICE..=0x1f);
        check(&walk(1100, order), TWIN..=0x2f);
        check(&walk(4096, order), QUAD..=0x3f);
        check(&walk(2051, order), QUAD..=0x3f);
    }
    check(&[9; 70], CONSTANT..=CONSTANT);
    check(&(0..70).collect::<Vec<_>>(), LINE..=LINE);
    let wild = |i| noise(i).wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64;
    check(&(0..70).map(wild).collect::<Vec<_>>(), RAW..=RAW);
    check(
        &(0..2000).map(|i| (noise(i / 50) % 1000) as i64).collect::<Vec<_>>(),
        RUNS..=RUNS,
    );
    let states = |i| [3, 1_000_000, -77][(noise(i) % 3) as usize];
    check(&(0..400).map(states).collect::<Vec<_>>(), DICTIONARY..=DICTIONARY);
    check(
        &(0..500).map(|i| 13 + (noise(i) % 9) as i64 * 156).collect::<Vec<_>>(),
        SCALED..=SCALED,
    );
    check(
        &(0..100).map(|i| 4427 + (noise(i) % 8) as i64).collect::<Vec<_>>(),
        PACKED..=0x0a,
    );
    let skewed = |i| (noise(i) % 70 * (noise(i + 9) % 50) * (noise(i + 5) % 30)) as i64;
    check(&(0..4096).map(skewed).collect::<Vec<_>>(), PCO..=0x0e);
}
