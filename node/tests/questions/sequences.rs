//! Functions of points as a sequence, windows that slide, and coverage, through the public client: an afternoon of rain whose
//! answers are known, and random series recomputed here.
//! Never here: functions of points one by one (see `aggregate`).

use std::collections::BTreeMap;

use crate::common::TestCluster;
use crate::common::afternoon::*;
use crate::common::fleet::*;
use crate::common::random::*;
use crate::common::story;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{BatchBuilder, Client, Value, answers_of, v1};
use v1::Function::{self, Avg, Delta, Duration, Histogram, Increase, Max, Mode, Percentile, Rate, Stddev, Sum};
use v1::Function::{Count, Integral, Spread, TimeWeightedAvg, Transitions};

fn over(device: &str, property: &str, function: Function, span: (i64, i64)) -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_devices(&[device]),
        properties: vec![property.into()],
        functions: vec![function as i32],
        from_ns: span.0,
        to_ns: span.1,
        ..Default::default()
    }
}

fn by(step_ns: i64, length_ns: i64, request: v1::QueryAggregateRequest) -> v1::QueryAggregateRequest {
    let window = v1::Window {
        step_ns,
        origin_ns: TWO,
        length_ns,
        ..Default::default()
    };
    v1::QueryAggregateRequest {
        window: Some(window),
        ..request
    }
}

async fn one_series(client: &Client, request: v1::QueryAggregateRequest) -> v1::AggregateSeries {
    let messages = ask(client, request).await;
    let mut series: Vec<_> = messages.into_iter().flat_map(|message| message.series).collect();
    assert_eq!(series.len(), 1);
    series.remove(0)
}

fn numbers(column: &v1::AggregateColumn) -> Vec<f64> {
    let number = |value: Option<Value>| match value {
        Some(Value::F64(value)) => value,
        Some(Value::I64(value)) => value as f64,
        other => panic!("{other:?}"),
    };
    answers_of(column).map(number).collect()
}

/// The only number of an answer.
async fn number(client: &Client, request: v1::QueryAggregateRequest) -> f64 {
    let series = one_series(client, request).await;
    let numbers = numbers(&series.columns[0]);
    assert_eq!(numbers.len(), 1);
    numbers[0]
}

/// Numbers of an answer's windows, in order.
async fn by_window(client: &Client, request: v1::QueryAggregateRequest) -> Vec<f64> {
    numbers(&one_series(client, request).await.columns[0])
}

#[tokio::test]
async fn an_afternoon_of_rain_is_answered_as_it_was() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    afternoon(&client).await;
    let all = (TWO, at(20, 0));

    story::counter(&client).await;
    assert_eq!(
        number(&client, over("RG1", "total", Rate, (at(15, 0), at(16, 0)))).await,
        69.0 / 3_600.0
    );
    let hourly = |property, function| by(HOUR, 0, over("RG1", property, function, (TWO, at(19, 0))));
    assert_eq!(
        by_window(&client, hourly("total", Increase)).await,
        by_window(&client, hourly("rain", Sum)).await,
        "a counter rises by what fell, across its wrap"
    );

    story::lower_bound(&client).await;
    let live = over("RG2", "rain", Sum, (at(15, 0), at(16, 0)));
    let series = one_series(&client, live.clone()).await;
    assert_eq!((series.points_seen[0], series.points_promised[0]), (4, 12));
    let sure = v1::QueryAggregateRequest {
        min_coverage: 0.9,
        ..live
    };
    let series = one_series(&client, sure).await;
    let thin = &series.insufficient[0];
    assert_eq!(
        (series.start_ns.len(), thin.start_ns, thin.end_ns),
        (0, at(15, 0), at(16, 0))
    );
    assert_eq!((thin.points_seen, thin.points_promised), (4, 12));
    backfill(&client).await;
    story::sums(&client).await;
    story::averages(&client).await;
    let deepest = over("PD1", "depth", Max, all);
    let mut answer = client.query_aggregate(deepest).await.unwrap();
    let message = answer.next().await.unwrap().unwrap();
    assert_eq!(
        numbers(&message.series[0].columns[0]),
        [0.46],
        "what failed a check does not count"
    );
    while answer.next().await.is_some() {}
    assert_eq!(answer.summary().map(|summary| summary.points_dropped), Some(1));
}

/// One window, recomputed from the points that count, in order.
fn expected(points: &[(i64, f64)], function: Function, (start, end): (i64, i64), gap: i64) -> Option<Vec<f64>> {
    let inside: Vec<f64> = points
        .iter()
        .filter(|(t, _)| (start..end).contains(t))
        .map(|(_, v)| *v)
        .collect();
    let pairs = || points.windows(2).map(|pair| (pair[0], pair[1]));
    let steps: Vec<f64> = pairs()
        .filter(|(_, b)| b.0 > start && b.0 <= end)
        .map(|(a, b)| b.1 - a.1)
        .collect();
    let joined = || pairs().filter(|(a, b)| b.0 - a.0 <= gap);
    let overlap = |a: i64, b: i64| (a.max(start), b.min(end));
    let seconds = |a: i64, b: i64| (b - a).max(0) as f64 / S as f64;
    let some = |all: &[f64], value: f64| (!all.is_empty()).then(|| vec![value]);
    match function {
        Delta => some(&steps, steps.iter().sum()),
        Increase => {
            let rise = |(a, b): &((i64, f64), (i64, f64))| if b.1 < a.1 { b.1 } else { b.1 - a.1 };
            let rises: Vec<f64> = pairs()
                .filter(|(_, b)| b.0 > start && b.0 <= end)
                .map(|pair| rise(&pair))
                .collect();
            some(&rises, rises.iter().sum())
        }
        Stddev => {
            let mean = inside.iter().sum::<f64>() / inside.len() as f64;
            let squares: f64 = inside.iter().map(|v| (v - mean) * (v - mean)).sum();
            some(&inside, (squares / inside.len() as f64).sqrt())
        }
        Percentile => {
            let mut sorted = inside.clone();
            sorted.sort_by(f64::total_cmp);
            let rank = |share: f64| ((share * sorted.len() as f64).ceil() as usize).max(1) - 1;
            (!sorted.is_empty()).then(|| vec![sorted[rank(0.5)], sorted[rank(0.9)]])
        }
        Histogram => {
            let within = |low: f64, high: f64| inside.iter().filter(|v| **v > low && **v <= high).count() as f64;
            (!inside.is_empty()).then(|| vec![within(f64::MIN, 0.0), within(0.0, 50.0), within(50.0, f64::MAX)])
        }
        TimeWeightedAvg | Integral => {
            let (mut area, mut covered) = (0.0, 0.0);
            for (a, b) in joined() {
                let (from, to) = overlap(a.0, b.0);
                let slope = (b.1 - a.1) / seconds(a.0, b.0);
                if from < to {
                    area += seconds(from, to) * (a.1 + slope * (seconds(a.0, from) + seconds(from, to) / 2.0));
                    covered += seconds(from, to);
                }
            }
            let value = if function == Integral { area } else { area / covered };
            (covered > 0.0).then(|| vec![value])
        }
        Duration => {
            let mut held = [0.0; 3];
            for (a, b) in joined() {
                let (from, to) = overlap(a.0, b.0);
                held[a.1 as usize] += seconds(from, to);
            }
            (held.iter().sum::<f64>() > 0.0).then(|| held.to_vec())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn random_questions_are_answered_as_a_recomputation_does() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let all = random_points(&client, &mut random, 0).await;
    let cases: [(&str, Function); 9] = [
        ("level", Delta),
        ("count", Increase),
        ("level", Stddev),
        ("level", Percentile),
        ("level", Histogram),
        ("level", TimeWeightedAvg),
        ("level", Integral),
        ("mode", Duration),
        ("level", Integral),
    ];
    for flushed in [false, true] {
        let mut compared = 0;
        for round in 0..8 {
            for (property, function) in cases {
                let device = ["r1", "r2", "r3"][random.random_range(0..3)];
                let step = [7 * MIN, HOUR, 2 * HOUR][random.random_range(0..3)];
                let steps = random.random_range(1..4);
                let from = random.random_range(0..400) * MIN;
                let to = from + random.random_range(1..300) * MIN;
                let max_gap_ms = [0, 90_000, 1_200_000][random.random_range(0..3)];
                let gap = if max_gap_ms == 0 {
                    3 * MIN
                } else {
                    max_gap_ms * 1_000_000
                };
                let mut request = v1::QueryAggregateRequest {
                    percentiles: vec![50.0, 90.0],
                    bins: vec![0.0, 50.0],
                    max_gap_ms,
                    ..over(device, property, function, (from, to))
                };
                request.window = Some(v1::Window {
                    step_ns: step,
                    origin_ns: 0,
                    length_ns: step * steps,
                    ..Default::default()
                });
                let what = format!("seed {seed}, round {round}, flushed {flushed}: {request:?}");
                let points = counting(&all, device, property);
                let mut found: BTreeMap<i64, Vec<Option<f64>>> = BTreeMap::new();
                for series in ask(&client, request)
                    .await
                    .into_iter()
                    .flat_map(|message| message.series)
                {
                    for column in &series.columns {
                        for (end, value) in series.end_ns.iter().zip(answers_of(column)) {
                            let value = value.map(|value| match value {
                                Value::F64(value) => value,
                                Value::I64(value) => value as f64,
                                other => panic!("{other:?}"),
                            });
                            found.entry(*end).or_default().push(value);
                        }
                    }
                }
                for window in from.div_euclid(step)..=(to - 1).div_euclid(step) {
                    let end = ((window + 1) * step).min(to);
                    let mut start = (window + 1 - steps) * step;
                    if steps == 1 {
                        start = start.max(from);
                    }
                    let expected = expected(&points, function, (start, end), gap);
                    let found = found
                        .get(&end)
                        .map(|found| found.iter().copied().collect::<Option<Vec<f64>>>());
                    let found = found.flatten();
                    // Many values are told by a sketch of them.
                    let share = if function == Percentile { 0.010_001 } else { 1e-6 };
                    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= (share * b.abs()).max(1e-6);
                    let same = match (&found, &expected) {
                        (Some(found), Some(expected)) => found.iter().zip(expected).all(near),
                        (None, None) => true,
                        _ => false,
                    };
                    assert!(same, "{what}: {start} to {end}: {found:?}, not {expected:?}");
                    compared += usize::from(expected.is_some());
                }
            }
        }
        assert!(compared > 150, "{compared} windows were compared");
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}

#[tokio::test]
async fn states_are_told_by_their_labels() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    let said = [(0, "off"), (60, "fast"), (120, "fast"), (180, "slow"), (240, "fast")];
    let rows = said.map(|(t, label)| ("r1", t * S, Value::Enum(label.into())));
    client.write(write(batch(RELIC, "mode", rows))).await.unwrap();
    let request = v1::QueryAggregateRequest {
        functions: [Mode, Transitions, Duration].map(|f| f as i32).to_vec(),
        ..over("r1", "mode", Mode, (0, 300 * S))
    };
    let series = one_series(&client, request.clone()).await;
    let first: Vec<_> = series
        .columns
        .iter()
        .map(|column| answers_of(column).next().flatten())
        .collect();
    let told = |value: Value| Some(value);
    let expected = [
        told(Value::Enum("fast".into())),
        told(Value::I64(3)),
        told(Value::F64(60.0)),
        told(Value::F64(60.0)),
        told(Value::F64(120.0)),
    ];
    assert_eq!(first, expected);
    let states: Vec<&str> = series.columns[2..].iter().map(|column| column.state.as_str()).collect();
    assert_eq!(states, ["off", "slow", "fast"]);
    assert_eq!(
        series.covered_ns,
        [240 * S],
        "what comes after the last point is not known"
    );
    let named = v1::QueryAggregateRequest {
        states: vec!["fast".into(), "broken".into()],
        ..request
    };
    let error = client.query_aggregate(named).await.unwrap_err();
    assert_eq!(shown(&error), "INVALID_ARGUMENT INVALID_VALUE states[1]");
}

#[tokio::test]
async fn groups_leaders_and_windows_take_sequences_too() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["r1", "r2", "r3"]).await;
    let rows =
        (0..10_i64).flat_map(|n| [("r1", n), ("r2", 3 * n), ("r3", 2 * n)].map(|(id, count)| (id, n * MIN, count)));
    client.write(write(batch(RELIC, "count", rows))).await.unwrap();
    let together = v1::QueryAggregateRequest {
        selector: of_type(RELIC),
        grouping: Some(v1::Grouping::default()),
        ..over("", "count", Increase, (0, HOUR))
    };
    assert_eq!(number(&client, together).await, 54.0);
    let leaders = v1::QueryAggregateRequest {
        selector: of_type(RELIC),
        top: Some(v1::Top {
            limit: 2,
            lowest: false,
        }),
        ..over("", "count", Increase, (0, HOUR))
    };
    let messages = ask(&client, leaders).await;
    let names: Vec<&str> = messages
        .iter()
        .flat_map(|m| &m.series)
        .map(|series| series.device.as_str())
        .collect();
    assert_eq!(names, ["r2", "r3"]);
}

#[tokio::test]
async fn questions_that_lack_something_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    let level = |function| over("r1", "level", function, (0, HOUR));
    let refused = |request: v1::QueryAggregateRequest| {
        let client = client.clone();
        async move { shown(&client.query_aggregate(request).await.unwrap_err()) }
    };
    assert_eq!(
        refused(level(Percentile)).await,
        "INVALID_ARGUMENT MISSING_FIELD percentiles; name them, for example 50 and 95"
    );
    let beyond = v1::QueryAggregateRequest {
        percentiles: vec![50.0, 101.0],
        ..level(Percentile)
    };
    assert_eq!(refused(beyond).await, "INVALID_ARGUMENT INVALID_VALUE percentiles[1]");
    let descending = v1::QueryAggregateRequest {
        bins: vec![2.0, 1.0],
        ..level(Histogram)
    };
    assert_eq!(refused(descending).await, "INVALID_ARGUMENT INVALID_VALUE bins");
    let uneven = by(FIVE, FIVE + 1, level(Avg));
    assert_eq!(
        refused(uneven).await,
        "INVALID_ARGUMENT INVALID_VALUE window.length_ns; ask for a length that is a multiple of the step"
    );
    let share = v1::QueryAggregateRequest {
        min_coverage: 1.5,
        ..level(Count)
    };
    assert_eq!(refused(share).await, "INVALID_ARGUMENT INVALID_VALUE min_coverage");
    let unlawful = refused(level(Increase)).await;
    assert!(
        unlawful.starts_with("INVALID_ARGUMENT UNLAWFUL_FUNCTION functions"),
        "{unlawful}"
    );
    assert_eq!(number(&client_with_points(&client).await, level(Spread)).await, 4.5);
}

async fn client_with_points(client: &Client) -> Client {
    let rows = [("r1", S, -1.5), ("r1", 2 * S, 3.0)];
    client.write(write(batch(RELIC, "level", rows))).await.unwrap();
    client.clone()
}

#[tokio::test]
async fn a_bucket_whose_points_all_lie_before_the_range_does_not_end_the_answer() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    let rows = [(0, 1.0), (MIN, 1.0), (2 * DAY, 2.0), (2 * DAY + MIN, 4.0)];
    let rows = rows.map(|(t, level)| ("r1", T0 + t, level));
    client.write(write(batch(RELIC, "level", rows))).await.unwrap();
    // Silent from the second minute of the first day on, and asked about from the second hour on.
    let from_then = over("r1", "level", TimeWeightedAvg, (T0 + 2 * HOUR, T0 + 3 * DAY));
    assert_eq!(number(&client, from_then).await, 3.0);
}

#[tokio::test]
async fn the_step_that_ends_with_a_window_is_of_it_wherever_it_is_kept() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2"]).await;
    // A day is a bucket; one device is written record by record, and so in as many blocks.
    let hours = |device: &'static str| (0..=48).map(move |hour| (device, T0 + hour * HOUR, 10 * hour));
    let whole = |rows: Vec<(&str, i64, i64)>| {
        let mut batch = BatchBuilder::new(METER);
        for (device, t, count) in rows {
            batch.row(device, t).set("count", count);
        }
        write(batch.build().unwrap())
    };
    client.write(whole(hours("m1").collect())).await.unwrap();
    for row in hours("m2") {
        client.write(whole(vec![row])).await.unwrap();
    }
    for device in ["m1", "m2"] {
        let rise = async |from_hour: i64, to_hour: i64| {
            let range = (T0 + from_hour * HOUR, T0 + to_hour * HOUR);
            number(&client, over(device, "count", Increase, range)).await
        };
        for (from_hour, to_hour) in [(0, 24), (24, 48), (0, 48), (5, 6), (23, 24), (24, 25), (12, 36)] {
            let expected = 10.0 * (to_hour - from_hour) as f64;
            assert_eq!(
                rise(from_hour, to_hour).await,
                expected,
                "{device} {from_hour} to {to_hour}"
            );
        }
    }
}
