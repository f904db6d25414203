//! What is said of values beside their quality, in raw ranges that ask for it: by cases, and against a recomputation from all points.
//! Never here: reports of quality (see `health`). Invariant: what is said of a value does not depend on where the range begins or ends.

use std::collections::BTreeMap;

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seeded;
use rand::RngExt as _;
use tidemark_client::{BatchBuilder, Client, Row, rows, v1};
use v1::Qualifier::{Clock, Flat, Late, Maintenance, Manual, Range, Rate, Spike, Untypical};
use v1::{Kind, Order, Qualifier, Quality, ReportKind, ValueType};

const WELL: &str = "test-well";
const STILL_MIN: i64 = 10;

fn well_type() -> v1::DeviceType {
    let limits = [
        ("spike", "3"),
        ("rate_per_min", "1"),
        ("flat_s", "600"),
        ("flat_eps", "0.01"),
    ];
    let level = v1::Property {
        min: Some(0.0),
        max: Some(100.0),
        typical_max: Some(50.0),
        attributes: limits.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..property("level", ValueType::F64, Kind::Gauge)
    };
    v1::DeviceType {
        id: WELL.into(),
        properties: vec![level, property("note", ValueType::Text, Kind::Event)],
        sample_interval_s: 60,
        latency_s: 60,
        attributes: [("event_latency_s".to_owned(), "10".to_owned())].into(),
        bucket_span_s: 3_600,
        ..v1::DeviceType::default()
    }
}

async fn furnish_wells(client: &Client) {
    client.apply_device_types(vec![well_type()]).await.unwrap();
    let declared = v1::Maintenance {
        from_ns: T0 + 16 * MIN,
        to_ns: T0 + 17 * MIN,
        reason: "a new probe".into(),
    };
    let well = v1::Device {
        maintenance: vec![declared],
        ..device("w1", WELL, &[])
    };
    client.register_devices(vec![well]).await.unwrap();
}

fn asking(from_ns: i64, to_ns: i64) -> v1::QueryRangeRequest {
    v1::QueryRangeRequest {
        from_ns,
        to_ns,
        qualifiers: true,
        ..everything(of_devices(&["w1"]))
    }
}

/// What is said of the levels of an answer, by time.
async fn said(client: &Client, request: v1::QueryRangeRequest) -> BTreeMap<i64, Vec<Qualifier>> {
    let (messages, _) = client.query_range(request).await.unwrap().collect().await.unwrap();
    let batches = messages.iter().filter_map(|message| message.batch.as_ref());
    let of_row = |row: Row<'_>| {
        (
            row.observed_at_ns,
            row.qualifiers.get("level").cloned().unwrap_or_default(),
        )
    };
    batches.flat_map(rows).map(of_row).collect()
}

/// Quality, report kind, delay in seconds, level, and what is said of it.
type Case = (Quality, ReportKind, i64, f64, &'static [Qualifier]);

#[tokio::test]
async fn what_there_is_to_say_of_a_value_is_said() {
    use Quality::{Fail, Good};
    use ReportKind::{Backfill, Event, Routine};
    let cases: [Case; 17] = [
        (Good, Routine, 5, 10.0, &[]),
        (Good, Routine, 61, 10.5, &[Late]),
        (Good, Event, 11, 10.1, &[Late]),
        (Good, Backfill, 11, 10.2, &[Late]),
        (Quality::Manual, Routine, 5, 10.3, &[Manual]),
        (Good, ReportKind::Manual, 60, 10.4, &[Manual]),
        (Good, Routine, -1, 10.5, &[Clock]),
        (Good, Routine, 5, 101.0, &[Range]),
        (Fail, Routine, 5, 102.0, &[]),
        (Good, Routine, 5, 15.0, &[Spike]),
        (Good, Routine, 5, 10.6, &[]),
        (Good, Routine, 5, 12.0, &[Rate]),
        (Good, Routine, 5, 12.5, &[]),
        (Good, Routine, 5, 13.5, &[]),
        (Good, Routine, 5, 60.0, &[Untypical, Rate]),
        (Good, Routine, 90, 60.5, &[Untypical, Rate, Late]),
        (Good, Routine, 5, 60.0, &[Untypical, Rate, Maintenance]),
    ];
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish_wells(&client).await;
    let mut levels = BatchBuilder::new(WELL);
    for (minute, (quality, kind, delay_s, level, _)) in (0..).zip(cases) {
        let t = T0 + minute * MIN;
        let row = levels.row("w1", t).received_at(t + delay_s * S).report_kind(kind);
        row.set_with_quality("level", level, quality).set("note", "n");
    }
    client.write(write(levels.build().unwrap())).await.unwrap();
    let expected: BTreeMap<i64, Vec<Qualifier>> = (0..)
        .zip(cases)
        .map(|(minute, (.., said))| (T0 + minute * MIN, said.to_vec()))
        .collect();
    let all = asking(T0, T0 + HOUR);
    assert_eq!(said(&client, all.clone()).await, expected);

    let newest_first = v1::QueryRangeRequest {
        order: Order::NewestFirst as i32,
        limit: 6,
        ..all.clone()
    };
    let newest: BTreeMap<_, _> = expected
        .iter()
        .rev()
        .take(6)
        .map(|(t, said)| (*t, said.clone()))
        .collect();
    assert_eq!(said(&client, newest_first).await, newest);

    let unasked = v1::QueryRangeRequest {
        qualifiers: false,
        ..all
    };
    assert!(said(&client, unasked).await.values().all(Vec::is_empty));
}

/// What neighbours say of points in a row, from lists of them.
fn judged(points: &[(i64, f64)]) -> BTreeMap<i64, Vec<Qualifier>> {
    let in_range: Vec<(i64, f64)> = points
        .iter()
        .copied()
        .filter(|(_, level)| (0.0..=100.0).contains(level))
        .collect();
    let mut told: BTreeMap<i64, Vec<Qualifier>> = points.iter().map(|(t, _)| (*t, vec![Range])).collect();
    let mut sound: Vec<(i64, f64)> = Vec::new();
    let mut sure: Option<(i64, f64)> = None;
    for (at, (t, level)) in in_range.iter().copied().enumerate() {
        let mut said = Vec::new();
        if level > 50.0 {
            said.push(Untypical);
        }
        let near = |one: i64, other: i64| other - one <= 3 * MIN;
        let sides = sound.last().zip(in_range.get(at + 1));
        let is_spike = sides.is_some_and(|((u, before), (v, next))| {
            let (to, from) = (level - before, next - level);
            near(*u, t) && near(t, *v) && ((to > 3.0 && from < -3.0) || (to < -3.0 && from > 3.0))
        });
        let is_fast =
            sure.is_some_and(|(u, before)| near(u, t) && (level - before).abs() > (t - u) as f64 / MIN as f64);
        if is_spike {
            said.push(Spike);
        } else {
            if is_fast {
                said.push(Rate);
            }
            sound.push((t, level));
            let together: Vec<_> = sound.iter().filter(|(u, _)| *u > t - STILL_MIN * MIN).collect();
            let least = together.iter().map(|(_, level)| *level).fold(f64::INFINITY, f64::min);
            let most = together
                .iter()
                .map(|(_, level)| *level)
                .fold(f64::NEG_INFINITY, f64::max);
            if most - least <= 0.01 && together.len() >= 8 {
                said.push(Flat);
            }
            if said.is_empty() {
                sure = Some((t, level));
            }
        }
        told.insert(t, said);
    }
    told
}

#[tokio::test]
async fn random_values_are_told_as_a_recomputation_does_wherever_a_range_begins() {
    let mut random = seeded();
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_wells(&client).await;
    let (mut t, mut level) = (T0, 20.0);
    let mut points = Vec::new();
    for _ in 0..1_500 {
        t += if random.random_range(0..50) == 0 {
            random.random_range(2..20) * MIN
        } else {
            MIN
        };
        level = match random.random_range(0..40) {
            0 => f64::from(random.random_range(0..130_u8)),
            1..=4 => level + f64::from(random.random_range(0..40_u8)) / 10.0 - 2.0,
            5..=10 => level + f64::from(random.random_range(0..10_u8)) / 10.0 - 0.5,
            _ => level,
        };
        let blip = if random.random_range(0..30) == 0 { 9.0 } else { 0.0 };
        points.push((t, level + blip));
    }
    // The second half comes first.
    for part in [&points[750..], &points[..750]] {
        let mut batch = BatchBuilder::new(WELL);
        for (t, level) in part {
            batch.row("w1", *t).received_at(t + S).set("level", *level);
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
    let told = judged(&points);
    for kind in [Range, Untypical, Spike, Rate, Flat] {
        let some = told.values().filter(|said| said.contains(&kind)).count();
        assert!((1..1_400).contains(&some), "{kind:?}: {some}");
    }
    for flushed in [false, true] {
        for round in 0..40 {
            let from = T0 + random.random_range(0..(t - T0) / MIN) * MIN;
            let to = from + random.random_range(1..300) * MIN;
            let request = v1::QueryRangeRequest {
                order: if round % 3 == 0 { Order::NewestFirst as i32 } else { 0 },
                limit: if round % 4 == 0 { 7 } else { 0 },
                ..asking(from, to)
            };
            let mut answer = said(&client, request).await;
            answer
                .values_mut()
                .for_each(|said| said.retain(|one| *one != Maintenance));
            let all = told.range(from..to);
            let expected: Vec<_> = match (round % 4, round % 3) {
                (0, 0) => all.rev().take(7).collect(),
                (0, _) => all.take(7).collect(),
                _ => all.collect(),
            };
            let expected: BTreeMap<i64, Vec<Qualifier>> =
                expected.into_iter().map(|(t, said)| (*t, said.clone())).collect();
            assert_eq!(answer, expected, "round {round}, flushed {flushed}");
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}
