//! Quality of a device from blocks, told by headers where that is possible, is what its points one by one tell.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Rng;
use proptest::prelude::*;
use tidemark_series::assess::{Assessing, Assessment, Promise};
use tidemark_series::{Bitmap, Block, Checks, Column, Edge, PropertyNumber, Records, Values, block};

const S: i64 = 1_000_000_000;
const LEVEL: PropertyNumber = PropertyNumber(2);

/// A device that mostly reports each `step`: some points are missing, some clocks are not exact, some points come late.
fn device(rng: &mut Rng, step: i64) -> Vec<Records> {
    let (misses, jitters) = (rng.chance(2), rng.chance(3));
    let (late, sparse) = (rng.below(3), rng.chance(3));
    let mut parts = Vec::new();
    let mut at = rng.below(20) as i64 * step;
    for _ in 0..1 + rng.below(4) {
        let mut times = Vec::new();
        for _ in 0..1 + rng.below(60) {
            at += step;
            if misses && rng.chance(9) {
                at += rng.below(14) as i64 * step;
            }
            times.push(at + if jitters { rng.below(7) as i64 * S } else { 0 });
        }
        let mut map = Bitmap::new(times.len());
        (0..times.len()).for_each(|row| map.set(row, row == 0 || !rng.chance(3)));
        let presence = Some(map).filter(|map| sparse && map.count_ones() < times.len());
        let count = presence.as_ref().map_or(times.len(), Bitmap::count_ones);
        let delay = |t: &i64| match late {
            0 => t + 5 * S,
            1 => t + rng.below(90) as i64 * S,
            _ => at + 100 * S,
        };
        parts.push(Records {
            received_at: times.iter().map(delay).collect(),
            report_kind: vec![1; times.len()],
            columns: vec![Column {
                property: LEVEL,
                presence,
                values: Values::F64((0..count).map(|v| v as f64).collect()),
                quality: None,
            }],
            observed_at: times,
            repeats: Vec::new(),
        });
    }
    parts
}

fn promise(rng: &mut Rng, step: i64) -> Promise {
    let interval_ns = [step, step * 2, step / 2, step * 4 / 3][rng.below(4) as usize];
    let from_ns = rng.below(120) as i64 * step / 2;
    let to_ns = from_ns + rng.below(90) as i64 * interval_ns;
    Promise {
        from_ns,
        to_ns,
        until_ns: to_ns + rng.below(3) as i64 * interval_ns / 2,
        since_ns: if rng.chance(2) { i64::MIN } else { from_ns - 2 * step },
        edge: if rng.chance(2) {
            Edge::StartClosed
        } else {
            Edge::EndClosed
        },
        interval_ns,
        alive_ns: interval_ns * (1 + rng.below(4) as i64),
        gap_factor: [1.0, 1.5, 3.0][rng.below(3) as usize],
    }
}

fn by_points(promise: &Promise, parts: &[Records], (from, to): (i64, i64), latency: Option<i64>) -> Assessment {
    let mut assessing = Assessing::new(promise);
    for part in parts {
        for (row, _, _) in part.column(LEVEL).unwrap().cells() {
            let t = part.observed_at[row];
            if (from..to).contains(&t) {
                assessing.point(t, part.received_at[row], latency);
                assessing.counting(t);
            }
        }
    }
    assessing.finish()
}

fn by_blocks(promise: &Promise, parts: &[Records], range: (i64, i64), latency: Option<i64>) -> Assessment {
    let mut assessing = Assessing::new(promise);
    for part in parts {
        let bytes = block::encode(part);
        let block = Block::parse(&bytes).unwrap().0;
        assessing.rows(&block, LEVEL, range, latency).unwrap();
    }
    assessing.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_tell_what_their_points_tell(seed: u64) {
        let rng = &mut Rng(seed);
        let step = [60, 300, 3_600][rng.below(3) as usize] * S;
        let (parts, promise) = (device(rng, step), promise(rng, step));
        let before = rng.below(30) as i64 * step;
        let range = (promise.from_ns - before, promise.to_ns + 1);
        let latency = Some(60 * S).filter(|_| rng.chance(4) || seed % 2 == 0);
        prop_assert_eq!(by_blocks(&promise, &parts, range, latency), by_points(&promise, &parts, range, latency));
    }
}

#[test]
fn what_is_sound_is_told_by_the_header_or_by_the_values() {
    let sound = |values: Vec<f64>, checks: &Checks| {
        let rows = values.len() as i64;
        let bytes = block::encode(&Records {
            observed_at: (0..rows).collect(),
            received_at: (0..rows).collect(),
            report_kind: vec![0; rows as usize],
            columns: vec![Column {
                property: LEVEL,
                presence: None,
                values: Values::F64(values),
                quality: None,
            }],
            repeats: Vec::new(),
        });
        Block::parse(&bytes).unwrap().0.is_sound(LEVEL, checks).unwrap()
    };
    let checks = Checks {
        min: Some(0.0),
        typical_max: Some(5.0),
        ..Checks::default()
    };
    for rows in [10, 1_000] {
        let values = |odd: f64| {
            let mut values: Vec<f64> = (0..rows).map(|v| f64::from(v % 50) / 10.0).collect();
            values[7] = odd;
            values
        };
        assert!(sound(values(5.0), &checks), "{rows}");
        for odd in [5.1, -0.1, f64::NAN, f64::INFINITY] {
            assert!(!sound(values(odd), &checks), "{odd} among {rows}");
            assert!(sound(values(odd), &Checks::default()), "nothing is checked");
        }
        let order = Checks {
            spike: Some(1.0),
            ..checks.clone()
        };
        assert!(!sound(values(1.0), &order), "neighbours decide");
    }
}
