//! Values that stand still for too long: suspect wherever suspect values are told apart, through the public client, against a
//! recomputation from the points. Never here: other checks (see `intervals`, `fleet_health`).

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seed;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{BatchBuilder, Client, Value, answers_of, v1};
use v1::Function::{self, Count, Max};
use v1::query_intervals_request::Condition;
use v1::{Kind, ValueType};

const PROBE: &str = "test-probe";
/// Twenty minutes within a hundredth, but at 0.
const STILL: i64 = 20 * MIN;

async fn furnish_probes(client: &Client) {
    let limits = [("flat_s", "1200"), ("flat_eps", "0.01"), ("flat_ignore", "0.0")];
    let depth = v1::Property {
        attributes: limits.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..property("depth", ValueType::F64, Kind::Gauge)
    };
    let probe = v1::DeviceType {
        id: PROBE.into(),
        properties: vec![depth],
        sample_interval_s: 60,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![probe]).await.unwrap();
    client.register_devices(vec![device("p1", PROBE, &[])]).await.unwrap();
}

async fn write_depths(client: &Client, points: &[(i64, f64)]) {
    let mut batch = BatchBuilder::new(PROBE);
    for (t, depth) in points {
        batch.row("p1", *t).set("depth", *depth);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

fn over(function: Function, (from_ns, to_ns): (i64, i64), drop_suspect: bool) -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_devices(&["p1"]),
        properties: vec!["depth".into()],
        functions: vec![function as i32],
        from_ns,
        to_ns,
        drop_suspect,
        ..Default::default()
    }
}

/// Number of points in a window, or none.
async fn counted(client: &Client, span: (i64, i64), drop_suspect: bool) -> i64 {
    let messages = ask(client, over(Count, span, drop_suspect)).await;
    let series = messages.into_iter().flat_map(|message| message.series).next();
    let count = series.and_then(|series| answers_of(&series.columns[0]).next().flatten());
    match count {
        Some(Value::I64(count)) => count,
        None => 0,
        other => panic!("{other:?}"),
    }
}

async fn suspects(client: &Client, (from_ns, to_ns): (i64, i64)) -> u64 {
    let request = v1::GetQualityRequest {
        selector: of_devices(&["p1"]),
        from_ns,
        to_ns,
        ..Default::default()
    };
    let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    messages[0].reports[0].points_suspect
}

#[tokio::test]
async fn a_stuck_probe_is_suspect_and_a_dry_one_is_healthy() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish_probes(&client).await;
    let depth = |minute: i64| match minute {
        0..60 => 0.0,
        60..90 => 0.3 + minute as f64 / 100.0,
        _ => 1.2,
    };
    let points: Vec<(i64, f64)> = (0..150).map(|minute| (minute * MIN, depth(minute))).collect();
    write_depths(&client, &points).await;
    let all = (0, 150 * MIN);
    assert_eq!(
        counted(&client, all, false).await,
        150,
        "suspect points count by default"
    );
    let moved_last = 89;
    let sure = counted(&client, all, true).await;
    assert_eq!(sure, moved_last + 20, "all of twenty minutes");
    assert_eq!(suspects(&client, all).await as i64, 150 - sure);
    assert_eq!(
        counted(&client, (120 * MIN, 150 * MIN), true).await,
        0,
        "also where the range begins later"
    );
    let request = v1::QueryIntervalsRequest {
        selector: of_devices(&["p1"]),
        property: "depth".into(),
        from_ns: 0,
        to_ns: 150 * MIN,
        condition: Some(Condition::AtLeast(1.2)),
        drop_suspect: true,
        ..Default::default()
    };
    let (messages, _) = client.query_intervals(request).await.unwrap().collect().await.unwrap();
    let interval = messages[0].devices[0].intervals[0];
    assert!(interval.unknown_after && interval.to_ns < 110 * MIN, "{interval:?}");
}

/// Which points stand still, by lists of the points before them.
fn flat(points: &[(i64, f64)]) -> Vec<bool> {
    let is_flat = |at: usize| {
        let (t, value) = points[at];
        let before: Vec<_> = points[..=at].iter().filter(|(other, _)| *other > t - STILL).collect();
        let mut slots: Vec<i64> = before.iter().map(|(t, _)| t.div_euclid(MIN)).collect();
        slots.dedup();
        let least = before.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
        let most = before.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
        most - least <= 0.01 && value.abs() > 0.01 && before.len() >= 3 && slots.len() >= 16
    };
    (0..points.len()).map(is_flat).collect()
}

#[tokio::test]
async fn random_probes_are_judged_as_a_recomputation_does() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_probes(&client).await;
    let (mut t, mut depth) = (0, 1.0);
    let mut points = Vec::new();
    for _ in 0..2_000 {
        t += match random.random_range(0..60) {
            0 => random.random_range(2..40) * MIN,
            _ => MIN,
        };
        if random.random_range(0..25) == 0 {
            depth = f64::from(random.random_range(0..5_u8)) * 0.25;
        }
        points.push((t, depth + f64::from(random.random_range(0..3_u8)) * 0.004));
    }
    // The second half comes first.
    write_depths(&client, &points[1_000..]).await;
    write_depths(&client, &points[..1_000]).await;
    let flags = flat(&points);
    let all = flags.iter().filter(|flag| **flag).count();
    assert!((100..1_900).contains(&all), "seed {seed}: {all} points stand still");
    for flushed in [false, true] {
        for round in 0..40 {
            let from = random.random_range(0..t / MIN) * MIN;
            let to = from + random.random_range(1..600) * MIN;
            let inside = || points.iter().zip(&flags).filter(|((t, _), _)| (from..to).contains(t));
            let still = inside().filter(|(_, flag)| **flag).count() as i64;
            let what = format!("seed {seed}, round {round}, flushed {flushed}: {from} to {to}");
            let sure = counted(&client, (from, to), true).await;
            assert_eq!(sure, inside().count() as i64 - still, "{what}");
            assert_eq!(
                counted(&client, (from, to), false).await,
                inside().count() as i64,
                "{what}"
            );
            assert_eq!(suspects(&client, (from, to)).await as i64, still, "{what}");
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
    let highest = ask(&client, over(Max, (0, t + 1), true)).await;
    assert_eq!(highest[0].series.len(), 1);
}
