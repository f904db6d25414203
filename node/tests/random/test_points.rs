//! Devices come in twins, of which the one has points of report kind test strewn in, and every answer about it is that about the other.
//! Never here: cases (see `questions/test_points.rs`). Invariant: the same seed gives the same points and questions.

use std::time::Duration;

use crate::common::fleet::*;
use crate::common::operator::*;
use crate::common::random::seeded;
use crate::common::{TestCluster, eventually};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tidemark_client::{BatchBuilder, Client, Value, rows, v1};
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;
use v1::Function::{self, Avg, Count, Delta, First, Increase, Integral, Last, Max, Min, Sum, TimeWeightedAvg};
use v1::Function::{Stddev, Transitions};
use v1::query_intervals_request::Condition;
use v1::{Kind, ReportKind, ValueType};

const PROBE: &str = "twin-probe";
const LABELS: [&str; 3] = ["off", "slow", "fast"];
/// Points are of so many hours from [`T0`] on.
const HOURS: i64 = 9;
const PLAIN: &str = "plain";
/// As long as the other name, so that answers are cut alike.
const STREWN: &str = "tried";
const TWINS: usize = 3;

/// Makes rollups at once, and writes to disk often.
fn tuning() -> Tuning {
    Tuning {
        rollups_every: Duration::from_millis(50),
        rollups_after: Duration::ZERO,
        flush_every: Duration::from_millis(200),
        flush_all_every: 2,
        ..Tuning::default()
    }
}

async fn furnish_probes(client: &Client) {
    let level = v1::Property {
        min: Some(0.0),
        max: Some(60.0),
        typical_max: Some(50.0),
        attributes: [("spike".to_owned(), "6".to_owned())].into(),
        ..property("level", ValueType::F64, Kind::Gauge)
    };
    let rain = v1::Property {
        attributes: [("diag".to_owned(), "battery".to_owned())].into(),
        ..property("rain", ValueType::F64, Kind::Increment)
    };
    let mode = v1::Property {
        labels: LABELS.map(str::to_owned).to_vec(),
        ..property("mode", ValueType::Enum, Kind::State)
    };
    let probe = v1::DeviceType {
        id: PROBE.into(),
        properties: vec![level, rain, property("count", ValueType::I64, Kind::Counter), mode],
        sample_interval_s: 60,
        latency_s: 60,
        bucket_span_s: 3 * 3_600,
        rollups_s: vec![300, 3_600],
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![probe]).await.unwrap();
    let twins = (0..TWINS).flat_map(|n| [PLAIN, STREWN].map(|side| (twin(side, n), side)));
    let devices = twins.map(|(id, side)| device(&id, PROBE, &[("side", side)]));
    client.register_devices(devices.collect()).await.unwrap();
}

fn twin(side: &str, n: usize) -> String {
    format!("{side}-{n}")
}

fn side(side: &str) -> Option<v1::Selector> {
    Some(v1::Selector {
        device_type: PROBE.into(),
        tags: vec![v1::TagMatcher {
            key: "side".into(),
            values: vec![side.into()],
        }],
        ..v1::Selector::default()
    })
}

fn row(batch: &mut BatchBuilder, device: &str, t: i64, kind: ReportKind, level: f64, random: &mut StdRng) {
    let row = batch.row(device, t).received_at(t + random.random_range(1..90) * S);
    row.report_kind(kind)
        .set("level", level)
        .set("rain", f64::from(random.random_range(0..200)) / 4.0)
        .set("count", random.random_range(0..1_000))
        .set("mode", Value::Enum(LABELS[random.random_range(0..3)].into()));
}

/// Sends both twins the same points, and one of them tests: at the times of points and at others, in the same batches and in batches of
/// their own, long before all points and long after them.
async fn play(client: &Client, random: &mut StdRng) -> Tests {
    let (mut batch, mut tests) = (BatchBuilder::new(PROBE), Tests::new());
    for n in 0..TWINS {
        let mut minute = 0;
        while minute < HOURS * 60 {
            // No two devices speak at one time, so that of a group one is the last.
            let t = T0 + minute * MIN + n as i64 * S;
            let level = f64::from(random.random_range(0..120)) / 4.0;
            let kind = [ReportKind::Routine, ReportKind::Event, ReportKind::Keepalive][random.random_range(0..3)];
            let alike = random.random::<u64>();
            let mut strew = |batch: &mut BatchBuilder, random: &mut StdRng| {
                let t = match random.random_range(0..8) {
                    0 => t + random.random_range(-40..40) * DAY,
                    1..=3 => t + random.random_range(0..60) * S,
                    _ => t,
                };
                let level = f64::from(random.random_range(-40..400)) / 4.0;
                row(batch, &twin(STREWN, n), t, ReportKind::Test, level, random);
                tests.insert((twin(STREWN, n), t), level);
            };
            if random.random_bool(0.2) {
                strew(&mut batch, random);
            }
            for side in [PLAIN, STREWN] {
                let mut same: StdRng = rand::SeedableRng::seed_from_u64(alike);
                row(&mut batch, &twin(side, n), t, kind, level, &mut same);
            }
            if random.random_bool(0.2) {
                strew(&mut batch, random);
            }
            if random.random_bool(0.05) {
                send(client, &mut batch).await;
                strew(&mut batch, random);
                send(client, &mut batch).await;
            }
            minute += if random.random_bool(0.03) {
                random.random_range(3..60)
            } else {
                1
            };
        }
    }
    send(client, &mut batch).await;
    tests
}

async fn send(client: &Client, batch: &mut BatchBuilder) {
    let batch = std::mem::replace(batch, BatchBuilder::new(PROBE));
    client.write(write(batch.build().unwrap())).await.unwrap();
}

/// Parts of an answer in words, whichever twin they are of.
fn nameless<T: std::fmt::Debug>(parts: impl IntoIterator<Item = T>, summary: &v1::AnswerSummary) -> Vec<String> {
    let name = |part: T| format!("{part:?}").replace(STREWN, PLAIN);
    let mut names: Vec<String> = parts.into_iter().map(name).collect();
    names.sort();
    let (rows, devices, dropped) = (summary.rows, summary.devices, summary.points_dropped);
    names.push(format!("{rows} of {devices}, without {dropped}"));
    assert!(!summary.test_points);
    names
}

/// Numbers as far as the order of additions does not show in them.
fn rounded(mut series: v1::AggregateSeries) -> v1::AggregateSeries {
    for column in &mut series.columns {
        if let Some(v1::values::Kind::F64(values)) = column.values.as_mut().and_then(|values| values.kind.as_mut()) {
            let round = |value: &mut f64| *value = format!("{value:.8e}").parse().unwrap();
            values.values.iter_mut().for_each(round);
        }
    }
    series
}

async fn aggregates(client: &Client, request: v1::QueryAggregateRequest) -> Vec<String> {
    let (messages, summary) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
    let series = messages.into_iter().flat_map(|message| message.series);
    nameless(series.map(rounded), &summary)
}

async fn records(client: &Client, request: v1::QueryRangeRequest) -> Vec<String> {
    let (messages, summary) = client.query_range(request).await.unwrap().collect().await.unwrap();
    let batches: Vec<_> = messages.into_iter().filter_map(|message| message.batch).collect();
    nameless(batches.iter().flat_map(rows), &summary)
}

async fn newest(client: &Client, request: v1::GetLatestRequest) -> Vec<String> {
    let (messages, summary) = client.get_latest(request).await.unwrap().collect().await.unwrap();
    nameless(messages.into_iter().flat_map(|message| message.devices), &summary)
}

async fn intervals(client: &Client, request: v1::QueryIntervalsRequest) -> Vec<String> {
    let (messages, summary) = client.query_intervals(request).await.unwrap().collect().await.unwrap();
    nameless(messages.into_iter().flat_map(|message| message.devices), &summary)
}

async fn qualities(client: &Client, request: v1::GetQualityRequest) -> Vec<String> {
    let (messages, summary) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    nameless(messages.into_iter().flat_map(|message| message.reports), &summary)
}

async fn healths(client: &Client, request: v1::GetHealthRequest) -> Vec<String> {
    let (messages, summary) = client.get_health(request).await.unwrap().collect().await.unwrap();
    nameless(messages.into_iter().flat_map(|message| message.reports), &summary)
}

async fn joins(client: &Client, mut request: v1::QueryJoinRequest) -> Vec<String> {
    // Both sides are of the same twins, each with its own.
    request.right[0].selector = request.selector.clone();
    let (messages, summary) = client.query_join(request).await.unwrap().collect().await.unwrap();
    nameless(messages.into_iter().flat_map(|message| message.joined), &summary)
}

fn some_span(random: &mut StdRng) -> (i64, i64) {
    let mut end = || T0 + random.random_range(-30..HOURS * 60 + 60) * MIN;
    let (a, b) = (end(), end());
    match random.random_range(0..3) {
        0 => (T0 - 50 * DAY, T0 + 50 * DAY),
        _ => (a.min(b), a.max(b)),
    }
}

fn some_aggregate(random: &mut StdRng) -> v1::QueryAggregateRequest {
    let (property, functions): (&str, &[Function]) = [
        ("level", &[Avg, Min, Max, First, Last, Count, Stddev][..]),
        ("level", &[TimeWeightedAvg, Integral, Delta]),
        ("rain", &[Sum, Max, Count]),
        ("count", &[Increase]),
        ("mode", &[Last, Count, Transitions]),
    ][random.random_range(0..5)];
    let (from_ns, to_ns) = some_span(random);
    let top = random.random_bool(0.2);
    let window = v1::Window {
        step_ns: [5 * MIN, 7 * MIN, HOUR][random.random_range(0..3)],
        ..Default::default()
    };
    v1::QueryAggregateRequest {
        properties: vec![property.into()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        from_ns,
        to_ns,
        window: (!top).then_some(window),
        top: top.then_some(v1::Top {
            limit: 2,
            lowest: false,
        }),
        grouping: (!top && random.random_bool(0.3)).then(|| v1::Grouping {
            tags: vec!["side".into()],
        }),
        drop_suspect: random.random_bool(0.3),
        ..Default::default()
    }
}

/// Asks a question of each kind about both.
async fn compare(client: &Client, random: &mut StdRng) {
    macro_rules! both {
        ($answer:ident, $request:expr) => {
            let request = $request;
            let (mut plain, mut strewn) = (request.clone(), request.clone());
            (plain.selector, strewn.selector) = (side(PLAIN), side(STREWN));
            assert_eq!(
                $answer(client, strewn).await,
                $answer(client, plain).await,
                "{request:?}"
            );
        };
    }
    both!(aggregates, some_aggregate(random));
    let (from_ns, to_ns) = some_span(random);
    let quality = v1::QualityFilter {
        drop_failed: true,
        ..Default::default()
    };
    let range = v1::QueryRangeRequest {
        from_ns,
        to_ns,
        quality: random.random_bool(0.5).then_some(quality),
        order: random.random_range(1..3),
        ..Default::default()
    };
    both!(records, range);
    let latest = v1::GetLatestRequest {
        at_ns: if random.random_bool(0.5) { to_ns } else { now_ns() },
        any_quality: random.random_bool(0.5),
        ..Default::default()
    };
    both!(newest, latest);
    let high = v1::QueryIntervalsRequest {
        property: "level".into(),
        condition: Some(Condition::AtLeast(22.0)),
        from_ns,
        to_ns,
        ..Default::default()
    };
    both!(intervals, high);
    let quality = v1::GetQualityRequest {
        property: ["level", "rain"][random.random_range(0..2)].into(),
        from_ns,
        to_ns,
        gaps: true,
        ..Default::default()
    };
    both!(qualities, quality);
    let health = v1::GetHealthRequest {
        from_ns,
        to_ns,
        ..Default::default()
    };
    both!(healths, health);
    let right = v1::JoinSide {
        properties: vec!["rain".into()],
        r#match: Some(v1::JoinMatch {
            same_device: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let join = v1::QueryJoinRequest {
        properties: vec!["level".into()],
        from_ns,
        to_ns: to_ns.min(from_ns + 3 * HOUR),
        right: vec![right],
        ..Default::default()
    };
    both!(joins, join);
}

/// What both twins answer to a question for hours, as points and as rollups, once all is rolled up.
async fn compare_rolled(client: &Client, property: &str, functions: &[Function]) {
    let of = |of: &str, no_rollups: bool| v1::QueryAggregateRequest {
        selector: side(of),
        properties: vec![property.into()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        from_ns: T0 - 50 * DAY,
        to_ns: T0 + 50 * DAY,
        window: Some(v1::Window {
            step_ns: HOUR,
            ..Default::default()
        }),
        no_rollups,
        explain: true,
        ..Default::default()
    };
    let expected = aggregates(client, of(PLAIN, true)).await;
    for twins in [PLAIN, STREWN] {
        eventually("rollups answer", || async {
            let answer = client.query_aggregate(of(twins, false)).await.unwrap();
            let (_, summary) = answer.collect().await.unwrap();
            let cost = summary.explain.unwrap().total.unwrap();
            match cost.rollup_windows > 0 && cost.points_decoded == 0 {
                true => Ok(()),
                false => Err(format!("{twins} {property}: {cost:?}")),
            }
        })
        .await;
        assert_eq!(
            aggregates(client, of(twins, false)).await,
            expected,
            "{twins} {property}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_if_tests_had_never_been_sent() {
    let mut random = seeded();
    let mut cluster = TestCluster::start_with(3, tuning()).await;
    let client = cluster.client().await;
    furnish_probes(&client).await;
    let sent = play(&client, &mut random).await;
    for _ in 0..30 {
        compare(&client, &mut random).await;
    }
    compare_rolled(&client, "level", &[Avg, Max, Count]).await;
    compare_rolled(&client, "rain", &[Sum, Count]).await;
    for _ in 0..10 {
        compare(&client, &mut random).await;
    }
    assert_eq!(tests(&client, side(STREWN), None).await, sent);
    assert_eq!(tests(&client, side(PLAIN), None).await, Tests::new());
    assert_eq!(tests(&client, of_type(PROBE), None).await, sent);

    // What there is outlasts a node, and reaches one that comes in its place.
    cluster.stop(0).await;
    cluster.restart(0).await;
    cluster.drop_node(2).await;
    cluster.wipe(2);
    let i = cluster.add().await;
    let new = cluster.take_in(i).await;
    cluster.done(0, replace(3, new)).await;
    cluster.healthy(0).await;
    cluster.replicas_agree(0).await;
    let client = cluster.client_at(i).await;
    assert_eq!(tests(&client, side(STREWN), None).await, sent);
    let found = eventually("a new replica has all", || async {
        let found = tests(&client, side(STREWN), any()).await;
        match found.len() == sent.len() {
            true => Ok(found),
            false => Err(format!("{} of {}", found.len(), sent.len())),
        }
    });
    assert_eq!(found.await, sent);
    compare(&client, &mut random).await;
}
