//! An afternoon of rain, 2024-06-20 from 14:00 to 20:00 at UTC+8: two gauges, an underpass, a river, and what their day of data
//! is known to answer.
//! Never here: questions, and what they are answered (see `story`). Invariant: records are made of lists alone, whenever they are sent.

use tidemark_client::{BatchBuilder, Client, v1};
use v1::{Kind, ValueType};

use super::fleet::*;

pub(crate) const GAUGE: &str = "afternoon-gauge";
/// 2024-06-20 14:00 at UTC+8.
pub(crate) const TWO: i64 = 1_718_863_200 * S;
pub(crate) const FIVE: i64 = 5 * MIN;

/// Rain of 5 minutes, millimetres, of two gauges: from 14:25 and from 14:30.
const RAIN: [&[f64]; 2] = [
    &[
        0.5, 1.0, 0.5, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 2.5, 2.5, 3.5, 5.0, 9.0, 17.0, 10.5, 6.5, 4.5, 4.0, 2.5, 2.5, 2.5,
        1.5, 2.0, 1.5, 1.5, 1.0, 1.0, 1.5, 1.0, 0.5, 1.0, 1.0, 1.0, 0.5, 1.0,
    ],
    &[
        0.5, 1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.5, 19.0, 12.0, 7.5, 5.0, 4.5, 3.5, 2.5,
        2.5, 2.0, 2.0, 2.0, 1.5, 1.5, 1.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
    ],
];
/// Depth of water in an underpass from 15:25 to 17:00, metres.
const DEPTH: [f64; 20] = [
    0.05, 0.16, 0.30, 0.41, 0.45, 0.46, 0.46, 0.46, 0.45, 0.43, 0.42, 0.40, 0.37, 0.35, 0.32, 0.28, 0.24, 0.19, 0.12,
    0.0,
];
/// Level of a river from 15:15 to 18:00, metres.
const LEVEL: [f64; 34] = [
    1.06, 1.06, 1.07, 1.08, 1.11, 1.14, 1.17, 1.20, 1.22, 1.25, 1.27, 1.30, 1.32, 1.34, 1.36, 1.38, 1.40, 1.42, 1.43,
    1.45, 1.46, 1.48, 1.49, 1.50, 1.52, 1.53, 1.54, 1.55, 1.55, 1.56, 1.57, 1.57, 1.58, 1.58,
];

/// Half past two is `at(14, 30)`.
pub(crate) fn at(hour: i64, minute: i64) -> i64 {
    TWO + (hour - 14) * HOUR + minute * MIN
}

/// Every five minutes from 14:00 to 20:00.
pub(crate) fn stamps() -> impl Iterator<Item = i64> {
    (0..=72).map(|n| TWO + n * FIVE)
}

/// The value of a list that begins at a time; `outside` elsewhere.
pub(crate) fn listed(values: &[f64], begin: i64, t: i64, outside: f64) -> f64 {
    usize::try_from((t - begin) / FIVE)
        .ok()
        .filter(|_| t >= begin)
        .and_then(|n| values.get(n).copied())
        .unwrap_or(outside)
}

pub(crate) fn rain(gauge: usize, t: i64) -> f64 {
    listed(RAIN[gauge], at(14, 25) + gauge as i64 * FIVE, t, 0.0)
}

/// Depth of water in the underpass, with one reading that nobody says is wrong.
pub(crate) fn depth(t: i64) -> f64 {
    if t == at(15, 5) {
        1.9
    } else {
        listed(&DEPTH, at(15, 25), t, 0.0)
    }
}

/// Level of the river.
pub(crate) fn level(t: i64) -> f64 {
    let outside = match t {
        _ if t < at(15, 15) => 1.05,
        _ if (at(18, 25)..=at(19, 25)).contains(&t) => 1.6,
        _ if t >= at(19, 55) => 1.58,
        _ => 1.59,
    };
    listed(&LEVEL, at(15, 15), t, outside)
}

/// What the first gauge has counted, millimetres, of which it can show 10,000.
fn total(t: i64) -> f64 {
    let fallen: f64 = stamps()
        .take_while(|stamp| *stamp <= t)
        .map(|stamp| rain(0, stamp))
        .sum();
    let total = (9_950.0 + fallen) % 10_000.0;
    if total == 0.0 { 10_000.0 } else { total }
}

/// The type and the devices, without points.
pub(crate) async fn equip(client: &Client, ids: &[&str]) {
    let total = v1::Property {
        wrap: Some(10_000.0),
        ..property("total", ValueType::F64, Kind::Counter)
    };
    let depth = v1::Property {
        min: Some(0.0),
        max: Some(2.0),
        typical_max: Some(1.2),
        attributes: [("spike", "0.2"), ("rate_per_min", "0.1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..property("depth", ValueType::F64, Kind::Gauge)
    };
    let rain_5min = v1::Property {
        min: Some(0.0),
        max: Some(25.4),
        typical_max: Some(15.0),
        ..property("rain", ValueType::F64, Kind::Increment)
    };
    let gauge = v1::DeviceType {
        id: GAUGE.into(),
        properties: vec![rain_5min, total, depth, property("level", ValueType::F64, Kind::Gauge)],
        sample_interval_s: 300,
        latency_s: 120,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![gauge]).await.unwrap();
    let devices = ids.iter().map(|id| device(id, GAUGE, &[]));
    client.register_devices(devices.collect()).await.unwrap();
}

pub(crate) async fn afternoon(client: &Client) {
    equip(client, &["RG1", "RG2", "PD1", "RL1"]).await;
    client.write(write(records(stamps(), |_| 0))).await.unwrap();
}

/// The afternoon as it came: each record five seconds after it was observed, those that the outage held back together at 16:12:30, and
/// the river's record of 15:30 once more.
pub(crate) async fn afternoon_as_it_came(client: &Client) {
    equip(client, &["RG1", "RG2", "PD1", "RL1"]).await;
    for batch in [records(stamps(), soon), records_held_back(), record_again()] {
        client.write(write(batch)).await.unwrap();
    }
}

/// When a record came that nothing held back.
pub(crate) fn soon(t: i64) -> i64 {
    t + 5 * S
}

fn held_back(t: &i64) -> bool {
    (at(15, 25)..=at(16, 10)).contains(t)
}

/// What the outage held back, as it came.
pub(crate) fn records_held_back() -> v1::Batch {
    let mut batch = BatchBuilder::new(GAUGE);
    for t in stamps().filter(held_back) {
        let row = batch.row("RG2", t).received_at(at(16, 12) + 30 * S);
        row.report_kind(v1::ReportKind::Backfill).set("rain", rain(1, t));
    }
    batch.build().unwrap()
}

/// The river's record of 15:30 once more.
pub(crate) fn record_again() -> v1::Batch {
    let mut batch = BatchBuilder::new(GAUGE);
    let again = batch.row("RL1", at(15, 30)).received_at(at(15, 30) + 9 * S);
    again.set("level", level(at(15, 30)));
    batch.build().unwrap()
}

/// All records of some times but those that the outage held back.
pub(crate) fn records(times: impl IntoIterator<Item = i64>, received_at: impl Fn(i64) -> i64) -> v1::Batch {
    let mut batch = BatchBuilder::new(GAUGE);
    for t in times {
        let received = received_at(t);
        let first = batch.row("RG1", t).received_at(received);
        first.set("rain", rain(0, t)).set("total", total(t));
        if !held_back(&t) {
            batch.row("RG2", t).received_at(received).set("rain", rain(1, t));
        }
        batch.row("PD1", t).received_at(received).set("depth", depth(t));
        batch.row("RL1", t).received_at(received).set("level", level(t));
    }
    batch.build().unwrap()
}

/// The ten points that an outage held back.
pub(crate) async fn backfill(client: &Client) {
    let late = stamps().filter(held_back);
    let rows = late.map(|t| ("RG2", t, rain(1, t)));
    client.write(write(batch(GAUGE, "rain", rows))).await.unwrap();
}
