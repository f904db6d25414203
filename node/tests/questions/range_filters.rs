//! Raw records by their values, their quality and in either order, against a naive filter of all records.
//!
//! Never here: pages (see `pages`). Invariant: what is expected is worked out from what was written alone.

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seeded;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tidemark_client::{BatchBuilder, Client, Value, v1};
use v1::value_filter::Condition;
use v1::{Kind, Quality, ValueType};

const GAUGE: &str = "test-gauge";

/// A gauge whose type checks what it reads, and a state beside it.
async fn furnish_gauges(client: &Client) {
    let level = v1::Property {
        min: Some(0.0),
        max: Some(100.0),
        typical_max: Some(80.0),
        ..property("level", ValueType::F64, Kind::Gauge)
    };
    let mode = v1::Property {
        labels: vec!["dry".into(), "wet".into()],
        ..property("mode", ValueType::Enum, Kind::State)
    };
    let spiky = v1::Property {
        attributes: [("spike".to_owned(), "5".to_owned())].into(),
        ..property("spiky", ValueType::F64, Kind::Gauge)
    };
    let gauge = v1::DeviceType {
        id: GAUGE.into(),
        properties: vec![level, mode, spiky, property("note", ValueType::Text, Kind::Event)],
        sample_interval_s: 60,
        ..Default::default()
    };
    client.apply_device_types(vec![gauge]).await.unwrap();
    let devices = ["g1", "g2", "g3"].map(|id| device(id, GAUGE, &[]));
    client.register_devices(devices.to_vec()).await.unwrap();
}

#[derive(Clone, Debug, PartialEq)]
struct Written {
    device: &'static str,
    t: i64,
    level: Option<(f64, Quality)>,
    mode: Option<&'static str>,
}

async fn write_all(client: &Client, rows: &[Written]) {
    let mut batch = BatchBuilder::new(GAUGE);
    for row in rows {
        let mut building = batch.row(row.device, row.t);
        if let Some((level, quality)) = row.level {
            building = building.set_with_quality("level", level, quality);
        }
        if let Some(mode) = row.mode {
            building.set("mode", Value::Enum(mode.into()));
        }
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

fn random_rows(random: &mut StdRng) -> Vec<Written> {
    let qualities = [
        Quality::Unspecified,
        Quality::Good,
        Quality::Manual,
        Quality::Suspect,
        Quality::Fail,
    ];
    let mut rows = Vec::new();
    for device in ["g1", "g2", "g3"] {
        for minute in 0..2_000 {
            let level = random.random_bool(0.8).then(|| {
                let level = random.random_range(-10..110) as f64;
                (level, qualities[random.random_range(0..qualities.len())])
            });
            let mode = random
                .random_bool(0.5)
                .then(|| if random.random_bool(0.3) { "wet" } else { "dry" });
            if level.is_some() || mode.is_some() {
                rows.push(Written {
                    device,
                    t: T0 + minute * MIN,
                    level,
                    mode,
                });
            }
        }
    }
    rows
}

/// What the naive filter leaves of a record.
fn left(row: &Written, request: &v1::QueryRangeRequest) -> Option<Written> {
    let quality = request.quality.clone().unwrap_or_default();
    let mut row = row.clone();
    let accepts = |stated: Quality| {
        let stated = if stated == Quality::Unspecified {
            Quality::Unchecked
        } else {
            stated
        };
        quality.accept.is_empty() || quality.accept.contains(&(stated as i32))
    };
    row.level = row.level.filter(|(level, stated)| {
        let failed = *stated == Quality::Fail || !(0.0..=100.0).contains(level);
        let suspect = *stated == Quality::Suspect || *level > 80.0;
        let drop_failed = quality.drop_failed || quality.drop_suspect;
        accepts(*stated) && !(drop_failed && failed) && !(quality.drop_suspect && suspect)
    });
    row.mode = row.mode.filter(|_| accepts(Quality::Unspecified));
    let holds = request
        .values
        .iter()
        .all(|filter| match (filter.property.as_str(), &filter.condition) {
            ("level", Some(Condition::AtLeast(least))) => row.level.is_some_and(|(level, _)| level >= *least),
            ("level", Some(Condition::AtMost(most))) => row.level.is_some_and(|(level, _)| level <= *most),
            ("level", Some(Condition::Equals(other))) => row.level.is_some_and(|(level, _)| level == *other),
            ("mode", Some(Condition::Is(label))) => row.mode == Some(label.as_str()),
            other => panic!("{other:?}"),
        });
    let asked = |id: &str| request.properties.is_empty() || request.properties.iter().any(|asked| asked == id);
    row.level = row.level.filter(|_| asked("level"));
    row.mode = row.mode.filter(|_| asked("mode"));
    (holds && (row.level.is_some() || row.mode.is_some())).then_some(row)
}

type Row = (String, i64, Vec<(String, Value)>);

fn expected(rows: &[Written], request: &v1::QueryRangeRequest) -> Vec<Row> {
    let values = |row: &Written| {
        let level = row.level.map(|(level, _)| ("level".to_owned(), Value::F64(level)));
        let mode = row.mode.map(|mode| ("mode".to_owned(), Value::Enum(mode.into())));
        level.into_iter().chain(mode).collect()
    };
    let in_time = rows
        .iter()
        .filter(|row| (request.from_ns..request.to_ns).contains(&row.t));
    let mut found: Vec<Row> = in_time
        .filter_map(|row| left(row, request))
        .map(|row| (row.device.to_owned(), row.t, values(&row)))
        .collect();
    if request.order() == v1::Order::NewestFirst {
        found.reverse();
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Records as they came; devices in any order, which is that of shards.
async fn asked(client: &Client, request: v1::QueryRangeRequest) -> Vec<Row> {
    let (messages, _) = client.query_range(request).await.unwrap().collect().await.unwrap();
    let mut found: Vec<Row> = Vec::new();
    for (device, t, property, value) in points(&messages) {
        match found.last_mut().filter(|last| last.0 == device && last.1 == t) {
            Some(last) => last.2.push((property, value)),
            None => found.push((device, t, vec![(property, value)])),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn random_request(random: &mut StdRng) -> v1::QueryRangeRequest {
    let mut values = Vec::new();
    let mut add = |property: &str, condition| {
        values.push(v1::ValueFilter {
            property: property.into(),
            condition: Some(condition),
        });
    };
    let number = random.random_range(0..100) as f64;
    match random.random_range(0..5) {
        0 => add("level", Condition::AtLeast(number)),
        1 => add("level", Condition::AtMost(number)),
        2 => add("level", Condition::Equals(number)),
        _ => {}
    }
    if random.random_bool(0.3) {
        add("mode", Condition::Is("wet".into()));
    }
    let accept = [Quality::Good, Quality::Unchecked, Quality::Fail].map(|quality| quality as i32);
    let quality = v1::QualityFilter {
        accept: accept.into_iter().filter(|_| random.random_bool(0.3)).collect(),
        drop_failed: random.random_bool(0.3),
        drop_suspect: random.random_bool(0.2),
    };
    let properties: &[&str] = [&[][..], &["level"], &["mode"]][random.random_range(0..3)];
    let order = if random.random_bool(0.5) {
        v1::Order::NewestFirst
    } else {
        v1::Order::OldestFirst
    };
    let from = T0 + random.random_range(0..1_500) * MIN;
    v1::QueryRangeRequest {
        properties: properties.iter().map(ToString::to_string).collect(),
        values,
        quality: (quality != v1::QualityFilter::default()).then_some(quality),
        order: order as i32,
        from_ns: from,
        to_ns: from + random.random_range(0..1_000) * MIN,
        ..everything(of_type(GAUGE))
    }
}

#[tokio::test]
async fn filters_and_order_are_those_of_a_naive_reader() {
    let mut random = seeded();
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish_gauges(&client).await;
    let rows = random_rows(&mut random);
    write_all(&client, &rows).await;
    let mut answers = 0;
    for _ in 0..60 {
        let request = random_request(&mut random);
        let found = asked(&client, request.clone()).await;
        assert!(found == expected(&rows, &request), "{request:?}");
        answers += found.len();
    }
    assert!(answers > 1_000, "hardly anything was compared: {answers} records");
}

#[tokio::test]
async fn the_newest_records_come_first_over_many_buckets_and_a_limit_takes_those() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["r1", "r2"]).await;
    let times: Vec<i64> = (0..40).map(|i| (i - 20) * 97 * DAY + i * MIN).collect();
    for id in ["r1", "r2"] {
        let rows = times.iter().map(|t| (id, *t, 1.0));
        client.write(write(batch(RELIC, "level", rows))).await.unwrap();
    }
    let request = v1::QueryRangeRequest {
        order: v1::Order::NewestFirst as i32,
        ..everything(of_devices(&["r1"]))
    };
    let found: Vec<i64> = read(&client, request.clone())
        .await
        .into_iter()
        .map(|(_, t, ..)| t)
        .collect();
    assert_eq!(found, times.iter().rev().copied().collect::<Vec<_>>());
    let limited = v1::QueryRangeRequest { limit: 3, ..request };
    let found: Vec<i64> = read(&client, limited).await.into_iter().map(|(_, t, ..)| t).collect();
    assert_eq!(found, [times[39], times[38], times[37]]);
}

#[tokio::test]
async fn what_the_checks_of_a_type_reject_is_left_out_on_request() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_gauges(&client).await;
    let rows =
        [(0, 1.0), (1, 1.5), (2, 19.0), (3, 1.0), (4, 2.0)].map(|(minute, value)| ("g1", T0 + minute * MIN, value));
    client.write(write(batch(GAUGE, "spiky", rows))).await.unwrap();
    let read_with = async |quality: Option<v1::QualityFilter>| {
        let request = v1::QueryRangeRequest {
            quality,
            ..everything(of_devices(&["g1"]))
        };
        let values: Vec<Value> = read(&client, request)
            .await
            .into_iter()
            .map(|(.., value)| value)
            .collect();
        values
    };
    let all = [1.0, 1.5, 19.0, 1.0, 2.0].map(Value::F64);
    assert_eq!(read_with(None).await, all);
    let sound = v1::QualityFilter {
        drop_failed: true,
        ..Default::default()
    };
    let without_the_spike = [1.0, 1.5, 1.0, 2.0].map(Value::F64);
    assert_eq!(read_with(Some(sound)).await, without_the_spike);
}

#[tokio::test]
async fn neighbours_are_looked_at_once_however_many_blocks_there_are() {
    const BLOCKS: i64 = 20;
    const ROWS: i64 = 3_000;
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_gauges(&client).await;
    let mut random = seeded();
    for block in 0..BLOCKS {
        let rows = (block * ROWS..(block + 1) * ROWS).map(|row| {
            let level = if row % 700 == 350 {
                90.0
            } else {
                random.random_range(0.0..1.0)
            };
            ("g1", T0 + row * S, level)
        });
        client.write(write(batch(GAUGE, "spiky", rows))).await.unwrap();
    }
    let plain = v1::QueryRangeRequest {
        explain: true,
        ..everything(of_devices(&["g1"]))
    };
    let cost = async |request: v1::QueryRangeRequest| {
        let (_, summary) = client.query_range(request).await.unwrap().collect().await.unwrap();
        let work = summary.explain.unwrap().total.unwrap();
        (summary.rows, summary.points_read, work.blocks)
    };
    let (rows, points, blocks) = cost(plain.clone()).await;
    assert!(
        rows == (BLOCKS * ROWS) as u64 && points == rows && blocks >= 16,
        "{rows}, {points}, {blocks}"
    );
    for order in [v1::Order::OldestFirst, v1::Order::NewestFirst] {
        for (drop_failed, qualifiers) in [(true, false), (false, true), (true, true)] {
            let request = v1::QueryRangeRequest {
                order: order as i32,
                quality: drop_failed.then(|| v1::QualityFilter {
                    drop_failed,
                    ..Default::default()
                }),
                qualifiers,
                ..plain.clone()
            };
            let spikes = if drop_failed { (rows + 349) / 700 } else { 0 };
            let (left, judged, _) = cost(request).await;
            assert_eq!(left, rows - spikes);
            assert!(
                judged <= 4 * points,
                "{judged} values for {points}, {drop_failed}, {qualifiers}"
            );
        }
    }
}

#[tokio::test]
async fn conditions_that_mean_nothing_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_gauges(&client).await;
    let refused = async |property: &str, condition: Option<Condition>| {
        let request = v1::QueryRangeRequest {
            values: vec![v1::ValueFilter {
                property: property.into(),
                condition,
            }],
            ..everything(of_type(GAUGE))
        };
        match client.query_range(request).await {
            Err(error) => shown(&error),
            Ok(answer) => answer
                .collect()
                .await
                .map_or_else(|error| shown(&error), |_| "accepted".into()),
        }
    };
    for (property, condition, expected) in [
        ("", None, "INVALID_ARGUMENT MISSING_FIELD values[0].property"),
        (
            "level",
            None,
            "INVALID_ARGUMENT MISSING_FIELD values[0].condition; give at_least, at_most, equals or is",
        ),
        (
            "level",
            Some(Condition::AtLeast(f64::NAN)),
            "INVALID_ARGUMENT INVALID_VALUE values[0].condition",
        ),
        (
            "level",
            Some(Condition::Is("high".into())),
            "INVALID_ARGUMENT INVALID_VALUE values[0].condition",
        ),
        (
            "mode",
            Some(Condition::AtMost(1.0)),
            "INVALID_ARGUMENT INVALID_VALUE values[0].condition",
        ),
        (
            "mode",
            Some(Condition::Is("damp".into())),
            "INVALID_ARGUMENT INVALID_VALUE values[0].condition",
        ),
        (
            "depth",
            Some(Condition::Equals(1.0)),
            "NOT_FOUND UNKNOWN_PROPERTY values[0].property; tidemark type show test-gauge",
        ),
    ] {
        assert_eq!(refused(property, condition).await, expected, "{property}");
    }
}
