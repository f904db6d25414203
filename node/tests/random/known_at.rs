//! What was known of random points: each device has twins to which only that was ever written which the device had received by some
//! time, and all kinds of questions about the device, as it was known then, are answered as those about the twin.
//! Never here: cases (see `known_at`). Invariant: the same seed gives the same points and questions.

use std::collections::BTreeMap;

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seeded;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tidemark_client::{BatchBuilder, Client, Value, rows, v1};
use v1::Function::{self, Avg, Count, Delta, Duration, First, Increase, Integral, Last, Max, Min, Mode, Rate};
use v1::Function::{RisePerHourMax, Stddev, Sum, TimeWeightedAvg, Transitions};
use v1::query_intervals_request::Condition;
use v1::{Kind, Quality, ReportKind, ValueType};

const PROBE: &str = "known-probe";
const IDS: [&str; 3] = ["k1", "k2", "k3"];
const LABELS: [&str; 3] = ["off", "slow", "fast"];
/// Points are of so many hours from [`T0`] on.
const HOURS: i64 = 10;
/// In the middle of it, and long after it, when much had still not come.
const KNOWN: [i64; 4] = [T0 + 3 * HOUR, T0 + 7 * HOUR, T0 + DAY, T0 + 2 * DAY];

/// A record as it was written last, and how often it was written.
#[derive(Clone, Debug)]
struct Written {
    received: i64,
    kind: ReportKind,
    quality: Quality,
    level: f64,
    rain: f64,
    count: i64,
    mode: usize,
    times: usize,
}

/// By device, time, and whether it is of report kind test: those are stored apart.
type Model = BTreeMap<(&'static str, i64, bool), Written>;

fn is_test(record: &Written) -> bool {
    record.kind == ReportKind::Test
}

async fn furnish_probes(client: &Client) {
    let limits = [
        ("spike", "6"),
        ("rate_per_min", "5"),
        ("flat_s", "600"),
        ("flat_eps", "0.1"),
    ];
    let level = v1::Property {
        min: Some(0.0),
        max: Some(60.0),
        typical_max: Some(50.0),
        attributes: limits.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..property("level", ValueType::F64, Kind::Gauge)
    };
    let mode = v1::Property {
        labels: LABELS.map(str::to_owned).to_vec(),
        ..property("mode", ValueType::Enum, Kind::State)
    };
    let rain = v1::Property {
        attributes: [("diag".to_owned(), "battery".to_owned())].into(),
        ..property("rain", ValueType::F64, Kind::Increment)
    };
    let probe = v1::DeviceType {
        id: PROBE.into(),
        properties: vec![level, rain, property("count", ValueType::I64, Kind::Counter), mode],
        sample_interval_s: 60,
        latency_s: 60,
        bucket_span_s: 3 * 3_600,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![probe]).await.unwrap();
    let twins = IDS.iter().flat_map(|id| (0..KNOWN.len()).map(|n| twin(id, n)));
    let ids = IDS.iter().map(|id| (*id).to_owned()).chain(twins);
    let devices = ids.map(|id| device(&id, PROBE, &[])).collect();
    client.register_devices(devices).await.unwrap();
}

fn twin(id: &str, known: usize) -> String {
    format!("{id}.{known}")
}

fn some_record(random: &mut StdRng, t: i64, level: f64) -> Written {
    let received = match random.random_range(0..20) {
        0 => t - random.random_range(0..3_600) * S,
        1..=3 => t + random.random_range(0..3 * DAY / S) * S,
        4..=6 => t + random.random_range(0..7_200) * S,
        _ => t + 5 * S,
    };
    let kinds = [
        ReportKind::Routine,
        ReportKind::Event,
        ReportKind::Test,
        ReportKind::Keepalive,
    ];
    let rarely = |random: &mut StdRng, some: u32| random.random_range(0..some) == 0;
    Written {
        received,
        kind: if rarely(random, 12) {
            kinds[random.random_range(0..4)]
        } else {
            kinds[0]
        },
        quality: if rarely(random, 12) {
            Quality::Fail
        } else {
            Quality::Good
        },
        level,
        rain: f64::from(random.random_range(0..200)) / 4.0,
        count: random.random_range(0..1_000),
        mode: random.random_range(0..3),
        times: 1,
    }
}

/// Levels that mostly go slowly, stand still now and then, and sometimes jump.
fn next_level(random: &mut StdRng, before: f64) -> f64 {
    let step = match random.random_range(0..30) {
        0 => f64::from(random.random_range(-100..100)) / 4.0,
        1..=20 => f64::from(random.random_range(-4..=4)) / 4.0,
        _ => 0.0,
    };
    (before + step).clamp(-1.0, 61.0)
}

/// Records in the order in which they are written: late ones, corrections and repetitions among them.
fn some_writes(random: &mut StdRng) -> Vec<((&'static str, i64), Written)> {
    let mut writes = Vec::new();
    for id in IDS {
        let (mut minute, mut level) = (0, 20.0);
        while minute < HOURS * 60 {
            let t = T0 + minute * MIN + random.random_range(0..3) * S;
            level = next_level(random, level);
            writes.push(((id, t), some_record(random, t, level)));
            minute += if random.random_range(0..40) == 0 {
                random.random_range(3..60)
            } else {
                1
            };
        }
    }
    let turn = random.random_range(0..writes.len());
    writes.rotate_left(turn);
    for _ in 0..writes.len() / 6 {
        let ((id, t), before) = writes[random.random_range(0..writes.len())].clone();
        let received = before.received + random.random_range(0..DAY / S) * S;
        let level = next_level(random, before.level);
        let again = match random.random_range(0..3) {
            0 => before,
            _ => some_record(random, t, level),
        };
        writes.push(((id, t), Written { received, ..again }));
    }
    writes
}

fn row(batch: &mut BatchBuilder, device: &str, t: i64, record: &Written) {
    let row = batch
        .row(device, t)
        .received_at(record.received)
        .report_kind(record.kind);
    row.set_with_quality("level", record.level, record.quality)
        .set_with_quality("rain", record.rain, record.quality)
        .set_with_quality("count", record.count, record.quality)
        .set_with_quality("mode", Value::Enum(LABELS[record.mode].into()), record.quality);
}

async fn write_all(client: &Client, records: impl IntoIterator<Item = (String, i64, Written)>) {
    let records: Vec<_> = records.into_iter().collect();
    for part in records.chunks(311) {
        let mut batch = BatchBuilder::new(PROBE);
        part.iter()
            .for_each(|(device, t, record)| row(&mut batch, device, *t, record));
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
}

/// Writes random records, deletes some, and writes to each twin what its device had received.
async fn play(client: &Client, random: &mut StdRng) -> Model {
    furnish_probes(client).await;
    let writes = some_writes(random);
    let each = writes
        .iter()
        .map(|((id, t), record)| ((*id).to_owned(), *t, record.clone()));
    write_all(client, each).await;
    let mut model = Model::new();
    for ((id, t), record) in writes {
        let key = (id, t, is_test(&record));
        let times = model.get(&key).map_or(0, |before| before.times) + 1;
        model.insert(key, Written { times, ..record });
    }
    let from = T0 + random.random_range(0..HOURS * 60) * MIN;
    let to = from + random.random_range(1..40) * MIN;
    let delete = v1::DeletePointsRequest {
        selector: of_devices(&IDS[..2]),
        from_ns: Some(from),
        to_ns: Some(to),
        ..Default::default()
    };
    client.delete_points(delete).await.unwrap();
    model.retain(|(id, t, _), _| *id == IDS[2] || !(from..to).contains(t));
    for (n, known) in KNOWN.iter().enumerate() {
        let had_come = model.iter().filter(|(_, record)| record.received <= *known);
        let again =
            had_come.flat_map(|((id, t, _), record)| (0..record.times).map(move |_| (twin(id, n), *t, record.clone())));
        write_all(client, again).await;
    }
    model
}

/// Numbers as far as the order of additions does not show in them.
fn rounded(mut series: v1::AggregateSeries) -> String {
    series.device.clear();
    for column in &mut series.columns {
        if let Some(v1::values::Kind::F64(values)) = column.values.as_mut().and_then(|values| values.kind.as_mut()) {
            values
                .values
                .iter_mut()
                .for_each(|value| *value = format!("{value:.8e}").parse().unwrap());
        }
    }
    format!("{series:?}")
}

async fn aggregates(client: &Client, request: v1::QueryAggregateRequest) -> (Vec<String>, u64) {
    let (messages, summary) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
    let series = messages.into_iter().flat_map(|message| message.series);
    (series.map(rounded).collect(), summary.points_dropped)
}

/// Records of a device, page by page.
async fn records(client: &Client, mut request: v1::QueryRangeRequest) -> (Vec<String>, u64, u64) {
    let (mut found, mut later, mut replaced) = (Vec::new(), 0, 0);
    loop {
        let (messages, summary) = client
            .query_range(request.clone())
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        for batch in messages.iter().filter_map(|message| message.batch.as_ref()) {
            found.extend(rows(batch).map(|row| {
                let stated = (row.received_at_ns, row.report_kind, row.quality);
                format!("{} {:?} {stated:?}", row.observed_at_ns, row.values)
            }));
        }
        later += summary.received_later;
        replaced += summary.replaced_later;
        if summary.next_cursor.is_empty() {
            return (found, later, replaced);
        }
        request.cursor = summary.next_cursor;
    }
}

async fn reports(client: &Client, request: v1::GetQualityRequest) -> Vec<String> {
    let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    let reports = messages.into_iter().flat_map(|message| message.reports);
    reports.map(nameless).collect()
}

async fn healths(client: &Client, request: v1::GetHealthRequest) -> Vec<String> {
    let (messages, _) = client.get_health(request).await.unwrap().collect().await.unwrap();
    let reports = messages.into_iter().flat_map(|message| message.reports);
    reports.map(nameless).collect()
}

fn nameless(mut report: v1::QualityReport) -> String {
    report.device.clear();
    format!("{report:?}")
}

async fn newest(client: &Client, request: v1::GetLatestRequest) -> Vec<String> {
    let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
    let devices = messages.into_iter().flat_map(|message| message.devices);
    devices.map(|device| format!("{:?}", device.values)).collect()
}

async fn intervals(client: &Client, request: v1::QueryIntervalsRequest) -> Vec<String> {
    let (messages, _) = client.query_intervals(request).await.unwrap().collect().await.unwrap();
    let devices = messages.into_iter().flat_map(|message| message.devices);
    devices.map(|device| format!("{:?}", device.intervals)).collect()
}

/// Property and functions; those that hold until now only where now is long after all points.
fn some_functions(random: &mut StdRng, calm: bool) -> (&'static str, Vec<Function>) {
    match random.random_range(0..6) {
        0 => ("level", vec![Avg, Min, Max, First, Last, Count, Stddev]),
        1 => ("level", vec![TimeWeightedAvg, Integral, Delta, RisePerHourMax]),
        2 => ("rain", vec![Sum, Max, Count]),
        3 => ("rain", vec![Max]),
        4 => ("count", vec![Increase, Rate]),
        _ if calm => ("mode", vec![Duration, Transitions, Mode]),
        _ => ("mode", vec![Last, Count, Mode]),
    }
}

fn some_span(random: &mut StdRng) -> (i64, i64) {
    let mut end = || T0 + random.random_range(-30..HOURS * 60 + 60) * MIN;
    let (a, b) = (end(), end());
    match random.random_range(0..5) {
        0 => (T0 - DAY, T0 + DAY),
        _ => (a.min(b), a.max(b)),
    }
}

fn some_aggregate(random: &mut StdRng, calm: bool) -> v1::QueryAggregateRequest {
    let (property, functions) = some_functions(random, calm);
    let (from_ns, to_ns) = some_span(random);
    let step_ns = [5 * MIN, 7 * MIN, HOUR][random.random_range(0..3)];
    let window = v1::Window {
        step_ns,
        length_ns: step_ns * random.random_range(1..4),
        origin_ns: T0,
        ..Default::default()
    };
    v1::QueryAggregateRequest {
        properties: vec![property.into()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        from_ns,
        to_ns,
        window: random.random_bool(0.7).then_some(window),
        grouping: random.random_bool(0.2).then(v1::Grouping::default),
        drop_suspect: random.random_bool(0.3),
        largest_gap: random.random_bool(0.2),
        rise_over_ms: if functions.contains(&RisePerHourMax) {
            600_000
        } else {
            0
        },
        ..Default::default()
    }
}

fn some_range(random: &mut StdRng) -> v1::QueryRangeRequest {
    let (from_ns, to_ns) = some_span(random);
    let wet = v1::ValueFilter {
        property: "level".into(),
        condition: Some(v1::value_filter::Condition::AtLeast(22.0)),
    };
    let quality = v1::QualityFilter {
        drop_failed: random.random_bool(0.5),
        drop_suspect: random.random_bool(0.5),
        ..Default::default()
    };
    v1::QueryRangeRequest {
        properties: if random.random_bool(0.3) {
            vec!["rain".into()]
        } else {
            Vec::new()
        },
        from_ns,
        to_ns,
        limit: if random.random_bool(0.3) { 90 } else { 0 },
        values: if random.random_bool(0.3) { vec![wet] } else { Vec::new() },
        quality: random.random_bool(0.5).then_some(quality),
        order: random.random_range(1..3),
        test_points: random.random_bool(0.2),
        ..Default::default()
    }
}

/// Asks one question of each kind about a device as it was known, and about its twin.
async fn compare(client: &Client, random: &mut StdRng, id: &str, n: usize) {
    let (device, twin) = (of_devices(&[id]), of_devices(&[&twin(id, n)]));
    let calm = KNOWN[n] > T0 + HOURS * HOUR;
    macro_rules! both {
        ($answer:ident, $request:expr) => {
            let request = $request;
            let (mut then, mut alone) = (request.clone(), request);
            (then.selector, then.known_at_ns) = (device.clone(), KNOWN[n]);
            alone.selector = twin.clone();
            let known = $answer(client, then.clone()).await;
            assert_eq!(known, $answer(client, alone).await, "{then:?}");
        };
    }
    both!(aggregates, some_aggregate(random, calm));
    let plain = async |client, request| records(client, request).await.0;
    both!(plain, some_range(random));
    let (from_ns, to_ns) = some_span(random);
    let quality = v1::GetQualityRequest {
        property: ["level", "rain"][random.random_range(0..2)].into(),
        from_ns,
        to_ns,
        gaps: true,
        ..Default::default()
    };
    both!(reports, quality);
    let health = v1::GetHealthRequest {
        from_ns,
        to_ns,
        ..Default::default()
    };
    both!(healths, health);
    let latest = v1::GetLatestRequest {
        at_ns: to_ns,
        any_quality: random.random_bool(0.5),
        test_points: random.random_bool(0.2),
        ..Default::default()
    };
    both!(newest, latest);
    if calm {
        let (property, condition) = match random.random_range(0..3) {
            0 => ("mode", Condition::State("fast".into())),
            1 => ("level", Condition::AtMost(18.0)),
            _ => ("level", Condition::AtLeast(22.0)),
        };
        let asked = v1::QueryIntervalsRequest {
            property: property.into(),
            condition: Some(condition),
            from_ns,
            to_ns,
            drop_suspect: random.random_bool(0.5),
            ..Default::default()
        };
        both!(intervals, asked);
    }
}

#[tokio::test]
async fn a_device_as_it_was_known_answers_as_one_that_never_knew_more() {
    let mut random = seeded();
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let model = play(&client, &mut random).await;
    let mut replaced_in_all = 0;
    for (n, known) in KNOWN.iter().enumerate() {
        for (id, tests) in IDS.iter().flat_map(|id| [(*id, false), (*id, true)]) {
            let request = v1::QueryRangeRequest {
                known_at_ns: *known,
                test_points: tests,
                ..everything(of_devices(&[id]))
            };
            let (found, later, replaced) = records(&client, request).await;
            let of_device = model
                .iter()
                .filter(|((device, _, is_test), _)| (*device, *is_test) == (id, tests))
                .map(|(_, record)| record);
            let (had_come, late): (Vec<_>, Vec<_>) = of_device.partition(|record| record.received <= *known);
            let again = late.iter().filter(|record| record.times > 1).count();
            assert_eq!(
                (found.len(), later, replaced),
                (had_come.len(), late.len() as u64, again as u64)
            );
            replaced_in_all += replaced;
            for _ in 0..20 {
                compare(&client, &mut random, id, n).await;
            }
        }
    }
    assert!(replaced_in_all > 0, "no correction came late");
}
