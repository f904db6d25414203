//! Whole numbers that no double holds, of properties whose values are judged by their neighbours: who asks gets what was written.
//! Never here: which values are judged down (see `spikes`, `flat`). Invariant: from points and from rollups, as written and once all is
//! flushed, the numbers are the same.

use std::time::Duration;

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, Value, answers_of, v1};
use tidemark_node::config::Tuning;
use v1::Function::{self, Count, First, Last, Max, Min, Spread, Sum};
use v1::{Kind, ValueType};

const TOTALS: &str = "test-totals";
const FUNCTIONS: [Function; 7] = [Count, First, Last, Min, Max, Sum, Spread];

/// How values of a property are judged; none of these limits but that of the first is ever reached.
const PROPERTIES: [(&str, &[(&str, &str)]); 4] = [
    ("jumping", &[("spike", "100")]),
    ("rushing", &[("rate_per_min", "1000000")]),
    ("resting", &[("flat_s", "3600")]),
    ("plain", &[]),
];

/// The first whole number that no double holds.
const ODD: i64 = (1 << 53) + 1;
const BUCKET_MINUTES: i64 = 180;
const MINUTES: i64 = 2 * BUCKET_MINUTES;
/// Neither neighbour is near it.
const LONE: i64 = 90;
/// A step up that ends a bucket: only the next one tells that it is no spike.
const STEP: i64 = BUCKET_MINUTES - 1;

/// What a device says each minute: `a` nothing that a double holds, and `b` one more.
fn told(id: &str, property: &str, minute: i64) -> i64 {
    match minute {
        LONE if property == "jumping" => 7,
        _ => ODD + i64::from(id == "b") + 2 * minute + if minute >= STEP { 10_000 } else { 0 },
    }
}

/// What of that counts.
fn counting(id: &str, property: &str, minutes: (i64, i64)) -> Vec<i64> {
    let counts = |minute: &i64| property != "jumping" || *minute != LONE;
    let minutes = (minutes.0..minutes.1).filter(counts);
    minutes.map(|minute| told(id, property, minute)).collect()
}

fn answer(function: Function, values: &[i64]) -> Value {
    let (least, most) = (values.iter().min().unwrap(), values.iter().max().unwrap());
    Value::I64(match function {
        Count => values.len() as i64,
        First => values[0],
        Last => values[values.len() - 1],
        Min => *least,
        Max => *most,
        Sum => values.iter().sum(),
        Spread => most - least,
        other => panic!("{other:?}"),
    })
}

async fn furnish_totals(client: &Client) {
    let judged = |(id, limits): (&str, &[(&str, &str)])| v1::Property {
        attributes: limits
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        ..property(id, ValueType::I64, Kind::Gauge)
    };
    let totals = v1::DeviceType {
        id: TOTALS.into(),
        properties: PROPERTIES.map(judged).into(),
        sample_interval_s: 60,
        bucket_span_s: BUCKET_MINUTES * 60,
        rollups_s: vec![300, 3_600],
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![totals]).await.unwrap();
    let devices = ["a", "b"].map(|id| device(id, TOTALS, &[]));
    client.register_devices(devices.to_vec()).await.unwrap();
}

/// In parts that end neither with a bucket nor with a window.
async fn write_all(client: &Client) {
    for from in (0..MINUTES).step_by(70) {
        let mut batch = BatchBuilder::new(TOTALS);
        for (id, minute) in (from..MINUTES.min(from + 70)).flat_map(|minute| [("a", minute), ("b", minute)]) {
            let mut row = batch.row(id, T0 + minute * MIN);
            for (property, _) in PROPERTIES {
                row = row.set(property, told(id, property, minute));
            }
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
}

fn over(functions: &[Function], property: &str, minutes: (i64, i64)) -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_type(TOTALS),
        properties: vec![property.into()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        allow_unlawful: true,
        from_ns: T0 + minutes.0 * MIN,
        to_ns: T0 + minutes.1 * MIN,
        ..v1::QueryAggregateRequest::default()
    }
}

/// Device, start and answers of each window, in order.
async fn windows(client: &Client, request: v1::QueryAggregateRequest) -> Vec<(String, i64, Vec<Value>)> {
    let mut found = Vec::new();
    let messages = ask(client, request).await;
    for series in messages.into_iter().flat_map(|message| message.series) {
        let columns = series.columns.iter().map(|column| answers_of(column).collect());
        let columns: Vec<Vec<Option<Value>>> = columns.collect();
        for (at, start_ns) in series.start_ns.iter().enumerate() {
            let answers = columns.iter().map(|column| column[at].clone().unwrap()).collect();
            found.push((series.device.clone(), *start_ns, answers));
        }
    }
    found.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    found
}

async fn compare_windows(client: &Client, property: &str) {
    for (minutes, step) in [((0, MINUTES), MINUTES), ((0, MINUTES), 60), ((31, STEP + 7), MINUTES)] {
        let begins = (minutes.0..minutes.1).step_by(step as usize);
        let answers = |id: &'static str, from: i64| {
            let values = counting(id, property, (from, minutes.1.min(from + step)));
            let answers: Vec<Value> = FUNCTIONS.iter().map(|function| answer(*function, &values)).collect();
            (id.to_owned(), T0 + from * MIN, answers)
        };
        let expected = ["a", "b"].map(|id| begins.clone().map(move |from| (id, from)));
        let expected = expected.into_iter().flatten().map(|(id, from)| answers(id, from));
        let expected: Vec<_> = expected.collect();
        for (drop_suspect, no_rollups) in [(false, false), (false, true), (true, true)] {
            let request = v1::QueryAggregateRequest {
                window: (step < MINUTES).then(|| v1::Window {
                    step_ns: step * MIN,
                    ..v1::Window::default()
                }),
                drop_suspect,
                no_rollups,
                ..over(&FUNCTIONS, property, minutes)
            };
            assert_eq!(windows(client, request.clone()).await, expected, "{request:?}");
        }
    }
}

/// Of the nearest doubles both devices would have the same greatest and last one, and `a` would lead by its name.
async fn compare_leaders(client: &Client, property: &str) {
    for (function, drop_suspect) in [(Max, false), (Last, false), (Max, true), (Last, true)] {
        let request = v1::QueryAggregateRequest {
            top: Some(v1::Top {
                limit: 1,
                lowest: false,
            }),
            drop_suspect,
            ..over(&[function], property, (0, MINUTES))
        };
        let expected = vec![Value::I64(told("b", property, MINUTES - 1))];
        let found = windows(client, request).await;
        assert_eq!(found, [("b".to_owned(), T0, expected)], "{function:?} of {property}");
    }
}

async fn compare_range(client: &Client, property: &str) {
    for (drop_suspect, id) in [(false, "a"), (true, "a"), (true, "b")] {
        let request = v1::QueryRangeRequest {
            properties: vec![property.into()],
            quality: Some(v1::QualityFilter {
                drop_failed: true,
                drop_suspect,
                ..Default::default()
            }),
            ..everything(of_devices(&[id]))
        };
        let found: Vec<Value> = read(client, request).await.into_iter().map(|point| point.3).collect();
        let expected = counting(id, property, (0, MINUTES)).into_iter().map(Value::I64);
        assert_eq!(found, expected.collect::<Vec<_>>(), "{property} of {id}");
    }
}

async fn until_rolled(client: &Client) {
    let explained = || v1::QueryAggregateRequest {
        explain: true,
        ..over(&[Count], "jumping", (0, MINUTES))
    };
    eventually("rollups answer", || async {
        let asked = client.query_aggregate(explained()).await.unwrap();
        let work = asked.collect().await.unwrap().1.explain.unwrap().total.unwrap();
        match work.rollup_windows > 0 && work.points_decoded == 0 {
            true => Ok(()),
            false => Err(format!("{work:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn whole_numbers_that_neighbours_judge_are_answered_as_they_were_written() {
    let tuning = Tuning {
        rollups_every: Duration::from_millis(50),
        rollups_after: Duration::ZERO,
        ..Tuning::default()
    };
    let mut cluster = TestCluster::start_with(1, tuning).await;
    let client = cluster.client().await;
    furnish_totals(&client).await;
    write_all(&client).await;
    for flushed in [false, true] {
        println!("flushed {flushed}");
        until_rolled(&client).await;
        for (property, _) in PROPERTIES {
            compare_windows(&client, property).await;
            compare_leaders(&client, property).await;
            compare_range(&client, property).await;
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}
