//! Aggregates through the public client against a recomputation of every window from the points that were sent.
//! Never here: raw ranges. Invariant: header statistics, decoded columns and merged shards give the same answer.

use std::collections::BTreeMap;

use crate::common::TestCluster;
use crate::common::fleet::*;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{BatchBuilder, Client, Value, v1, values_of};
use v1::Function::{self, Avg, Count, First, Last, Max, Min, Sum};

const TOWNS: [&str; 3] = ["a", "b", "c"];
const DEVICES: i64 = 9;
const ROWS: i64 = 300;
const LABELS: [&str; 3] = ["off", "slow", "fast"];

/// What a property takes, as the kinds of the issue say it, and whether its windows are `(start, end]`.
const LAWFUL: [(&str, &[Function], bool); 8] = [
    ("level", &[Avg, Min, Max, First, Last, Count], false),
    ("speed", &[Avg, Min, Max, First, Last, Count], true),
    ("rain", &[Sum, Max, Count], true),
    ("pulses", &[Sum, Max, Count], true),
    ("count", &[First, Last, Count], false),
    ("on", &[Last, Min, Max, Count], false),
    ("mode", &[Last, Min, Max, Count], false),
    ("note", &[Count, First, Last], false),
];

type Series = BTreeMap<(i64, &'static str), BTreeMap<i64, Value>>;

fn device_id(device: i64) -> String {
    format!("r{device}")
}

fn town(device: i64) -> &'static str {
    TOWNS[(device % 3) as usize]
}

/// A value of a property; floats are multiples of a quarter, so that their sums are exact in any order.
fn value(property: &str, random: &mut StdRng) -> Value {
    match property {
        "level" | "speed" | "rain" => Value::F64(random.random_range(-4_000..4_000) as f64 / 4.0),
        "pulses" | "count" => Value::I64(random.random_range(-1_000_000_000_000..1_000_000_000_000)),
        "on" => Value::Bool(random.random()),
        "mode" => Value::Enum(LABELS[random.random_range(0..3)].into()),
        _ => Value::Text(format!("n{}", random.random_range(0..99))),
    }
}

/// Random series around the epoch with gaps, written in shuffled batches, some points twice. No two devices share a time.
async fn seed_points(client: &Client, random: &mut StdRng) -> Series {
    furnish(client, &[]).await;
    let devices = (0..DEVICES).map(|d| device(&device_id(d), RELIC, &[("town", town(d))]));
    client.register_devices(devices.collect()).await.unwrap();
    let mut rows: Vec<(i64, i64)> = Vec::new();
    for device in 0..DEVICES {
        let mut minute = -150;
        for _ in 0..ROWS {
            minute += if random.random_bool(0.05) {
                random.random_range(2..20)
            } else {
                1
            };
            // On the full minute for the first device, so that points lie on the borders of windows.
            rows.push((device, minute * MIN + device * S));
        }
    }
    let again: Vec<_> = rows.iter().filter(|_| random.random_bool(0.1)).copied().collect();
    rows.extend(again);
    let mut series = Series::new();
    let batches = 2 + rows.len() / 400;
    for part in 0..batches {
        let mut batch = BatchBuilder::new(RELIC);
        // Runs of rows of one device make blocks that have statistics; strides make small ones.
        let picked = rows.iter().enumerate().filter(|(i, _)| match part < 2 {
            true => i % 7 == part,
            false => i % 7 > 1 && i / 400 == part - 2,
        });
        for (_, (device, t)) in picked {
            let mut row = batch.row(&device_id(*device), *t);
            for (property, ..) in LAWFUL {
                if random.random_bool(0.8) || property == "level" {
                    let value = value(property, random);
                    row = row.set(property, value.clone());
                    series.entry((*device, property)).or_default().insert(*t, value);
                }
            }
        }
        if !batch.is_empty() {
            client.write(write(batch.build().unwrap())).await.unwrap();
        }
    }
    series
}

/// One answer in lines, sorted: a line a window.
fn lines(messages: &[v1::QueryAggregateResponse]) -> Vec<String> {
    let mut lines = Vec::new();
    for series in messages.iter().flat_map(|message| &message.series) {
        let columns: Vec<Vec<Value>> = series
            .columns
            .iter()
            .map(|c| values_of(c.values.as_ref().unwrap()).collect())
            .collect();
        for window in 0..series.start_ns.len() {
            let values: Vec<_> = columns.iter().map(|column| format!("{:?}", column[window])).collect();
            let who = format!("{} {:?} {}", series.device, series.tags.get("town"), series.property);
            let (start, end) = (series.start_ns[window], series.end_ns[window]);
            let (seen, promised) = (series.points_seen[window], series.points_promised[window]);
            lines.push(format!("{who} {start}..{end} {seen}/{promised} {}", values.join(" ")));
        }
    }
    lines.sort();
    lines
}

fn number(value: &Value) -> f64 {
    match value {
        Value::F64(v) => *v,
        Value::I64(v) => *v as f64,
        Value::Bool(v) => f64::from(u8::from(*v)),
        Value::Enum(label) => LABELS.iter().position(|l| l == label).unwrap() as f64,
        Value::Text(_) => f64::NAN,
    }
}

/// One function over values in the order of time.
fn compute(function: Function, values: &[Value]) -> Value {
    let by_size = || values.iter().cloned().map(|v| (number(&v), v));
    match function {
        Count => Value::I64(values.len() as i64),
        First => values[0].clone(),
        Last => values[values.len() - 1].clone(),
        Min => by_size().reduce(|a, b| if b.0 < a.0 { b } else { a }).unwrap().1,
        Max => by_size().reduce(|a, b| if b.0 > a.0 { b } else { a }).unwrap().1,
        Avg => Value::F64(values.iter().map(number).sum::<f64>() / values.len() as f64),
        Sum => match &values[0] {
            Value::F64(_) => Value::F64(values.iter().map(number).sum()),
            _ => Value::I64(values.iter().map(|v| if let Value::I64(v) = v { *v } else { 0 }).sum()),
        },
        other => unreachable!("{other:?} is not lawful here"),
    }
}

/// The same lines from the points alone.
fn expected(
    series: &Series,
    request: &v1::QueryAggregateRequest,
    property: &'static str,
    closed_end: bool,
) -> Vec<String> {
    let mut groups: BTreeMap<String, (u64, BTreeMap<i64, Value>)> = BTreeMap::new();
    for device in 0..DEVICES {
        let key = match &request.grouping {
            None => format!("{} None", device_id(device)),
            Some(grouping) if grouping.tags.is_empty() => " None".to_string(),
            Some(_) => format!(" Some({:?})", town(device)),
        };
        let (devices, points) = groups.entry(key).or_default();
        *devices += 1;
        points.extend(
            series
                .get(&(device, property))
                .into_iter()
                .flatten()
                .map(|(t, v)| (*t, v.clone())),
        );
    }
    let (from, to) = (request.from_ns, request.to_ns);
    let mut lines = Vec::new();
    for (key, (devices, points)) in groups {
        let mut windows: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
        for (t, value) in points {
            let shifted = if closed_end { t - 1 } else { t };
            if shifted < from || shifted >= to {
                continue;
            }
            let index = request
                .window
                .as_ref()
                .map_or(0, |w| (shifted - w.origin_ns).div_euclid(w.step_ns));
            windows.entry(index).or_default().push(value);
        }
        for (index, values) in windows {
            let (start, end) = request.window.as_ref().map_or((from, to), |w| {
                let start = w.origin_ns + index * w.step_ns;
                (start.max(from), (start + w.step_ns).min(to))
            });
            let promised = (end - start) / MIN * devices as i64;
            let functions = request.functions.iter().map(|f| Function::try_from(*f).unwrap());
            let answers: Vec<_> = functions.map(|f| format!("{:?}", compute(f, &values))).collect();
            lines.push(format!(
                "{key} {property} {start}..{end} {}/{promised} {}",
                values.len(),
                answers.join(" ")
            ));
        }
    }
    lines.sort();
    lines
}

/// A question of random range, step, origin and grouping for one property.
fn random_question(random: &mut StdRng, property: &str, functions: &[Function]) -> v1::QueryAggregateRequest {
    let whole = random.random_bool(0.2);
    let from_ns = if whole {
        -1_000 * MIN
    } else {
        random.random_range(-160..100) * MIN + random.random_range(0..2) * S
    };
    let to_ns = if whole {
        2_000 * MIN
    } else {
        from_ns + random.random_range(0..400) * MIN
    };
    let step_ns = [MIN, 7 * MIN, 45 * S, HOUR, 5 * HOUR, DAY][random.random_range(0..6)];
    let origin_ns = [0, -3 * MIN, 11 * S, -DAY][random.random_range(0..4)];
    let tags = [vec![], vec!["town".to_string()]][random.random_range(0..2)].clone();
    v1::QueryAggregateRequest {
        selector: of_type(RELIC),
        properties: vec![property.to_string()],
        functions: functions.iter().map(|f| *f as i32).collect(),
        from_ns,
        to_ns,
        window: random.random_bool(0.8).then_some(v1::Window {
            step_ns,
            origin_ns,
            length_ns: 0,
            ..Default::default()
        }),
        grouping: random.random_bool(0.5).then_some(v1::Grouping { tags }),
        ..v1::QueryAggregateRequest::default()
    }
}

#[tokio::test]
async fn every_window_equals_a_recomputation_from_the_points() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let series = seed_points(&client, &mut random).await;
    // As written; then after a restart, when everything was flushed.
    for flushed in [false, true] {
        let mut windows = 0;
        for round in 0..20 {
            for (property, functions, closed_end) in LAWFUL {
                let request = random_question(&mut random, property, functions);
                let found = lines(&ask(&client, request.clone()).await);
                windows += found.len();
                let expected = expected(&series, &request, property, closed_end);
                assert_eq!(
                    found, expected,
                    "seed {seed}, round {round}, flushed {flushed}: {request:?}"
                );
            }
        }
        assert!(windows > 1_000, "{windows} windows were compared");
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}

fn over(device: &str, property: &str, functions: &[Function]) -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_devices(&[device]),
        properties: vec![property.into()],
        functions: functions.iter().map(|f| *f as i32).collect(),
        from_ns: 0,
        to_ns: DAY,
        ..v1::QueryAggregateRequest::default()
    }
}

#[tokio::test]
async fn sums_are_exact_or_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1", "r2", "r3", "r4"]).await;
    let pulses = |device: &'static str, values: &[i64]| {
        batch(
            RELIC,
            "pulses",
            values
                .iter()
                .enumerate()
                .map(|(i, v)| (device, (i as i64 + 1) * S, *v))
                .collect::<Vec<_>>(),
        )
    };
    let beyond_f64: Vec<i64> = (0..40).map(|i| (1 << 53) + i).collect();
    client
        .write(write(pulses("r1", &[i64::MAX, i64::MAX, i64::MIN, i64::MIN, 5])))
        .await
        .unwrap();
    client.write(write(pulses("r2", &[i64::MAX, 1]))).await.unwrap();
    client.write(write(pulses("r3", &beyond_f64))).await.unwrap();
    client
        .write(write(batch(
            RELIC,
            "rain",
            [("r4", S, f64::MAX), ("r4", 2 * S, f64::MAX)],
        )))
        .await
        .unwrap();
    let cases: [(&str, &str, Value); 3] = [
        ("r1", "pulses", Value::I64(3)),
        ("r3", "pulses", Value::I64(beyond_f64.iter().sum())),
        ("r4", "rain", Value::F64(f64::INFINITY)),
    ];
    for (device, property, expected) in cases {
        let messages = ask(&client, over(device, property, &[Sum])).await;
        let values = messages[0].series[0].columns[0].values.as_ref().unwrap();
        assert_eq!(values_of(values).collect::<Vec<_>>(), [expected], "{device}");
    }
    let error = client.query_aggregate(over("r2", "pulses", &[Sum])).await.unwrap_err();
    assert_eq!(shown(&error), "OUT_OF_RANGE SUM_OVERFLOW; ask for shorter windows");
    let short = v1::QueryAggregateRequest {
        window: Some(v1::Window {
            step_ns: S,
            origin_ns: 0,
            length_ns: 0,
            ..Default::default()
        }),
        ..over("r2", "pulses", &[Sum])
    };
    assert_eq!(lines(&ask(&client, short).await).len(), 2, "as the hint says");
}

#[tokio::test]
async fn functions_without_meaning_are_refused_and_the_lawful_ones_named() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    client
        .write(write(batch(RELIC, "level", [("r1", S, 1.5), ("r1", 2 * S, 2.0)])))
        .await
        .unwrap();
    let unlawful = "INVALID_ARGUMENT UNLAWFUL_FUNCTION functions; ask for one of these, or set allow_unlawful (tidemark query agg --allow-unlawful)";
    let cases: [(&str, Function, &str); 7] = [
        (
            "level",
            Sum,
            "its kind is gauge, which takes count, min, max, avg, first, last, spread, stddev, percentile, histogram, delta, integral, time_weighted_avg, rise_per_hour, rise_per_hour_max",
        ),
        (
            "speed",
            Sum,
            "its kind is mean, which takes count, min, max, avg, first, last, spread, stddev, percentile, histogram",
        ),
        (
            "rain",
            Avg,
            "its kind is increment, which takes count, sum, max, percentile, histogram",
        ),
        (
            "count",
            Avg,
            "its kind is counter, which takes count, first, last, increase, rate",
        ),
        (
            "on",
            First,
            "its kind is state, which takes count, min, max, last, mode, time_weighted_avg, duration, transitions",
        ),
        (
            "mode",
            Avg,
            "its kind is state, which takes count, min, max, last, mode, duration, transitions",
        ),
        ("note", Max, "its kind is event, which takes count, first, last"),
    ];
    for (property, function, said) in cases {
        for selector in [of_devices(&["r1"]), of_type(RELIC)] {
            let request = v1::QueryAggregateRequest {
                selector,
                ..over("r1", property, &[Count, function])
            };
            let error = client.query_aggregate(request).await.unwrap_err();
            assert_eq!(shown(&error), unlawful, "{property}");
            assert!(error.message.ends_with(said), "{}", error.message);
        }
    }
    let anyway = v1::QueryAggregateRequest {
        allow_unlawful: true,
        ..over("r1", "level", &[Sum])
    };
    let values = ask(&client, anyway).await[0].series[0].columns[0]
        .values
        .clone()
        .unwrap();
    assert_eq!(values_of(&values).collect::<Vec<_>>(), [Value::F64(3.5)]);
    let never = v1::QueryAggregateRequest {
        allow_unlawful: true,
        ..over("r1", "note", &[Sum])
    };
    assert_eq!(
        shown(&client.query_aggregate(never).await.unwrap_err()),
        unlawful,
        "a text has no sum"
    );
}

#[tokio::test]
async fn questions_without_windows_or_with_too_many_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    let step = |step_ns| v1::QueryAggregateRequest {
        window: Some(v1::Window {
            step_ns,
            ..Default::default()
        }),
        ..over("r1", "level", &[Count])
    };
    let not_positive =
        "INVALID_ARGUMENT STEP_NOT_POSITIVE window.step_ns; leave window out for one window over the whole range";
    let ten_years = v1::QueryAggregateRequest {
        to_ns: 3_650 * DAY,
        ..step(1)
    };
    let reversed = v1::QueryAggregateRequest {
        from_ns: 2 * DAY,
        ..step(S)
    };
    let unknown = v1::QueryAggregateRequest {
        functions: vec![1, 99],
        ..step(S)
    };
    let depth = over("r1", "depth", &[Count]);
    let cases: Vec<(&str, v1::QueryAggregateRequest, &str)> = vec![
        ("a step of zero", step(0), not_positive),
        ("a negative step", step(-S), not_positive),
        (
            "a nanosecond over ten years",
            ten_years,
            "RESOURCE_EXHAUSTED TOO_MANY_WINDOWS window.step_ns; ask for a longer step or a shorter range",
        ),
        (
            "from after to",
            reversed,
            "INVALID_ARGUMENT RANGE_REVERSED from_ns; swap from and to",
        ),
        (
            "no function",
            over("r1", "level", &[]),
            "INVALID_ARGUMENT NO_FUNCTION functions",
        ),
        (
            "an unknown function",
            unknown,
            "INVALID_ARGUMENT INVALID_VALUE functions[1]",
        ),
        (
            "an unknown property",
            depth,
            "NOT_FOUND UNKNOWN_PROPERTY properties[0]; tidemark type show test-relic",
        ),
    ];
    for (what, request, expected) in cases {
        let error = client.query_aggregate(request).await.expect_err(what);
        assert_eq!(shown(&error), expected, "{what}");
    }
}

#[tokio::test]
async fn without_names_the_numeric_properties_that_take_the_functions_are_meant() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1", "r2"]).await;
    let mut all = BatchBuilder::new(RELIC);
    let row = all
        .row("r1", S)
        .set("level", 1.0)
        .set("raw", f64::NAN)
        .set("speed", 1.0)
        .set("rain", 1.0);
    row.set("pulses", 1)
        .set("count", 1)
        .set("on", true)
        .set("mode", Value::Enum("off".into()))
        .set("note", "n");
    client.write(write(all.build().unwrap())).await.unwrap();
    let cases: [(&[Function], &str); 3] = [
        (&[Sum], "pulses rain"),
        (&[Count], "count level pulses rain raw speed"),
        (&[Avg, Max], "level raw speed"),
    ];
    for (functions, expected) in cases {
        let request = v1::QueryAggregateRequest {
            properties: vec![],
            ..over("r1", "", functions)
        };
        let messages = ask(&client, request).await;
        let mut properties: Vec<_> = messages
            .iter()
            .flat_map(|m| &m.series)
            .map(|s| s.property.as_str())
            .collect();
        properties.sort_unstable();
        assert_eq!(properties.join(" "), expected);
    }
    // A device without points has no series; the summary still counts it.
    let (messages, summary) = client
        .query_aggregate(over("r2", "level", &[Count]))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!((messages.len(), summary.devices, summary.rows), (0, 1, 0));
}
