//! Coverage of windows: slots that have a point, not points, through the public client on three nodes.
//! Never here: random questions (see `random/windows` and `rollups`).

use super::rollups::tuning;
use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, Value, answers_of, v1};
use v1::Function::{Avg, Count, Max, Sum};

const FIVES: &str = "test-fives";
const KINDS: [&str; 3] = ["burst", "steady", "twice"];
/// Devices of each kind: enough for each shard to have some.
const EACH: usize = 6;

/// Seconds into an hour at which a device of a kind says something.
fn seconds(kind: &str) -> Vec<i64> {
    match kind {
        "burst" => (0..12).map(|n| 310 + n * 20).collect(),
        "steady" => (1..=12).map(|n| n * 300).collect(),
        _ => (0..24).map(|n| 10 + n * 150).collect(),
    }
}

fn id(kind: &str, at: usize) -> String {
    format!("{kind}-{at}")
}

/// A type that promises a record in five minutes, and keeps them for some days.
fn fives(retention_days: i64) -> v1::DeviceType {
    v1::DeviceType {
        sample_interval_s: 300,
        bucket_span_s: 3_600,
        rollups_s: vec![3_600],
        ..device_type(FIVES, retention_days)
    }
}

/// An hour of devices that keep what their type promises, do twice as much, or burst once.
async fn an_hour(client: &Client) {
    client.apply_device_types(vec![fives(0)]).await.unwrap();
    let all: Vec<(&str, String)> = KINDS
        .iter()
        .flat_map(|kind| (0..EACH).map(|at| (*kind, id(kind, at))))
        .collect();
    let devices = all.iter().map(|(kind, id)| device(id, FIVES, &[("kind", kind)]));
    client.register_devices(devices.collect()).await.unwrap();
    let mut batch = BatchBuilder::new(FIVES);
    for (kind, id) in &all {
        for second in seconds(kind) {
            let row = batch.row(id, T0 + second * S);
            row.set("rain", 1.0).set("level", 2.0).set("speed", 3.0);
        }
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

fn over(property: &str, function: v1::Function, span: (i64, i64)) -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_type(FIVES),
        properties: vec![property.into()],
        functions: vec![function as i32],
        from_ns: span.0,
        to_ns: span.1,
        slots_filled: true,
        ..Default::default()
    }
}

async fn series_of(client: &Client, request: v1::QueryAggregateRequest) -> Vec<v1::AggregateSeries> {
    let messages = ask(client, request).await;
    messages.into_iter().flat_map(|message| message.series).collect()
}

fn numbers(series: &v1::AggregateSeries) -> Vec<Option<f64>> {
    let number = |value: Value| match value {
        Value::F64(value) => value,
        Value::I64(value) => value as f64,
        other => panic!("{other:?}"),
    };
    let windows = answers_of(&series.columns[0]).take(series.start_ns.len());
    windows.map(|answer| answer.map(number)).collect()
}

/// Asks about that hour in all ways in which coverage tells.
async fn check_hour(client: &Client) {
    let hour = (T0, T0 + HOUR);
    // Stamps at the full five minutes end slots of rain and begin those of a level: the last one is of the next hour.
    for (property, function, steady) in [("rain", Sum, 12), ("level", Avg, 11), ("speed", Max, 12)] {
        let all = series_of(client, over(property, function, hour)).await;
        assert_eq!(all.len(), KINDS.len() * EACH);
        for series in &all {
            let slots = match series.device.split('-').next().unwrap() {
                "burst" => 1,
                "steady" => steady,
                _ => 12,
            };
            let found = (&series.slots_filled[..], &series.points_promised[..]);
            assert_eq!(found, (&[slots][..], &[12][..]), "{property} of {}", series.device);
        }
    }

    let sure = v1::QueryAggregateRequest {
        min_coverage: 0.9,
        slots_filled: false,
        ..over("rain", Sum, hour)
    };
    for series in series_of(client, sure.clone()).await {
        if series.device.starts_with("burst") {
            let thin = &series.insufficient[0];
            assert_eq!(
                (series.start_ns.len(), thin.points_seen, thin.points_promised),
                (0, 12, 12)
            );
            assert_eq!(thin.slots_filled, 1, "all in one of them");
        } else {
            assert_eq!((&series.slots_filled[..], series.insufficient.len()), (&[12][..], 0));
        }
    }
    // Twice as many points of one device are none of another.
    let pairs = v1::QueryAggregateRequest {
        selector: of_devices(&["burst-0", "twice-0"]),
        grouping: Some(v1::Grouping::default()),
        functions: vec![Count as i32],
        ..sure.clone()
    };
    let pair = &series_of(client, pairs).await[0].insufficient[0];
    assert_eq!(
        (pair.points_seen, pair.points_promised, pair.slots_filled),
        (36, 24, 13)
    );

    let areal = v1::QueryAggregateRequest {
        grouping: Some(v1::Grouping::default()),
        areal: Some(v1::Areal::default()),
        ..over("rain", Sum, hour)
    };
    let series = &series_of(client, areal.clone()).await[0];
    assert_eq!(numbers(series), [Some(18.0)], "12 and 24, and not the bursts");
    let devices = v1::ArealDevices {
        used: 2 * EACH as u64,
        too_few_points: EACH as u64,
        no_points: 0,
    };
    assert_eq!(
        (&series.areal[..], &series.slots_filled[..]),
        (&[devices][..], &[25 * EACH as u64][..])
    );
    let by_kind = v1::QueryAggregateRequest {
        grouping: Some(v1::Grouping {
            tags: vec!["kind".into()],
        }),
        ..areal
    };
    for series in series_of(client, by_kind).await {
        let expected = match series.tags["kind"].as_str() {
            "burst" => None,
            "steady" => Some(12.0),
            _ => Some(24.0),
        };
        assert_eq!(numbers(&series), [expected], "{:?}", series.tags);
    }
}

#[tokio::test]
async fn twelve_points_in_one_slot_are_no_hour() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    an_hour(&client).await;
    check_hour(&client).await;
}

#[tokio::test]
async fn twelve_points_in_one_slot_are_no_hour_where_only_their_rollups_are_left() {
    let cluster = TestCluster::start_with(3, tuning()).await;
    let client = cluster.client().await;
    an_hour(&client).await;
    eventually("rollups answer", || async {
        let request = v1::QueryAggregateRequest {
            explain: true,
            ..over("level", Avg, (T0, T0 + HOUR))
        };
        let answer = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
        let work = answer.1.explain.unwrap().total.unwrap();
        match work.points_decoded {
            0 => Ok(()),
            _ => Err(format!("{work:?}")),
        }
    })
    .await;
    check_hour(&client).await;
    client.apply_device_types(vec![fives(2)]).await.unwrap();
    eventually("points are gone", || async {
        match read(&client, everything(of_type(FIVES))).await.len() {
            0 => Ok(()),
            others => Err(format!("{others} points")),
        }
    })
    .await;
    check_hour(&client).await;
}

#[tokio::test]
async fn a_slot_across_blocks_and_buckets_counts_once() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    an_hour(&client).await;
    // Buckets are hours, and each point comes by itself.
    for second in [3_480, 3_540, 3_630, 3_660, 3_719] {
        let row = ("burst-0", T0 + second * S, 1.0);
        client.write(write(batch(FIVES, "level", [row]))).await.unwrap();
    }
    let across = |step_ns: i64, length_ns: i64| v1::QueryAggregateRequest {
        selector: of_devices(&["burst-0"]),
        window: Some(v1::Window {
            step_ns,
            origin_ns: T0 + 2 * MIN,
            length_ns,
            ..Default::default()
        }),
        ..over("level", Count, (T0 + 42 * MIN, T0 + 82 * MIN))
    };
    let slots = async |step: i64, length: i64| {
        let series = series_of(&client, across(step, length)).await.remove(0);
        let ends = series.end_ns.iter().map(|end| (end - T0) / MIN);
        ends.zip(series.slots_filled).collect::<Vec<_>>()
    };
    assert_eq!(slots(20 * MIN, 0).await, [(62, 1)], "from 57 to 62");
    assert_eq!(slots(10 * MIN, 20 * MIN).await, [(62, 1), (72, 1)]);
    // Steps may be shorter than slots, which lie otherwise in each window then.
    let sliding = slots(2 * MIN, 10 * MIN).await;
    let halves = [(60, 1), (62, 1), (64, 2), (66, 2), (68, 1), (70, 1)];
    assert_eq!(sliding, halves, "of 50 to 60, 52 to 62, 54 to 64 …");
}
