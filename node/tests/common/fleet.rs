//! The device types and devices of the tests, and short words for batches, questions and answers.
//! Never here: cases. Invariant: what a test sends and what it compares is written in a line.

use std::collections::BTreeMap;

use tidemark_client::{BatchBuilder, Client, Code, Error, LatestRow, Value, rows, v1};
use v1::{Kind, ValueType};

/// Second, minute, hour and day in nanoseconds.
pub(crate) const S: i64 = 1_000_000_000;
pub(crate) const MIN: i64 = 60 * S;
pub(crate) const HOUR: i64 = 60 * MIN;
pub(crate) const DAY: i64 = 24 * HOUR;

/// A day in September 2025.
pub(crate) const T0: i64 = 1_757_894_400 * S;

/// Type with one property of each type and kind; promises a record a minute and keeps points for ten years.
pub(crate) const METER: &str = "test-meter";
/// The same properties, kept for ever.
pub(crate) const RELIC: &str = "test-relic";

pub(crate) fn property(id: &str, value_type: ValueType, kind: Kind) -> v1::Property {
    v1::Property {
        id: id.into(),
        value_type: value_type as i32,
        kind: kind as i32,
        ..v1::Property::default()
    }
}

pub(crate) fn device_type(id: &str, retention_days: i64) -> v1::DeviceType {
    let label = |text: &str| text.to_string();
    let properties = vec![
        property("level", ValueType::F64, Kind::Gauge),
        v1::Property {
            allow_non_finite: true,
            ..property("raw", ValueType::F64, Kind::Gauge)
        },
        property("speed", ValueType::F64, Kind::Mean),
        property("rain", ValueType::F64, Kind::Increment),
        property("pulses", ValueType::I64, Kind::Increment),
        property("count", ValueType::I64, Kind::Counter),
        property("on", ValueType::Bool, Kind::State),
        v1::Property {
            labels: vec![label("off"), label("slow"), label("fast")],
            ..property("mode", ValueType::Enum, Kind::State)
        },
        v1::Property {
            max_len: 16,
            ..property("note", ValueType::Text, Kind::Event)
        },
    ];
    v1::DeviceType {
        id: id.into(),
        properties,
        sample_interval_s: 60,
        retention_days,
        ..v1::DeviceType::default()
    }
}

pub(crate) fn device(id: &str, device_type: &str, tags: &[(&str, &str)]) -> v1::Device {
    v1::Device {
        id: id.into(),
        device_type: device_type.into(),
        tags: tags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..v1::Device::default()
    }
}

/// Applies both types and registers devices of the first one (`m*`) and the second one (all others).
pub(crate) async fn furnish(client: &Client, ids: &[&str]) {
    let types = vec![device_type(METER, 3_650), device_type(RELIC, 0)];
    client.apply_device_types(types).await.unwrap();
    let type_of = |id: &str| if id.starts_with('m') { METER } else { RELIC };
    let devices = ids.iter().map(|id| device(id, type_of(id), &[])).collect();
    client.register_devices(devices).await.unwrap();
}

/// Longest text of a diary.
pub(crate) const DIARY_BYTES: usize = 60_000;

/// Type whose one property fills files quickly: long texts, kept for ever.
pub(crate) const DIARY: &str = "test-diary";

/// Applies the type and registers devices of it.
pub(crate) async fn furnish_diaries(client: &Client, ids: &[String]) {
    let notes = v1::Property {
        max_len: DIARY_BYTES as u32,
        ..property("notes", ValueType::Text, Kind::Event)
    };
    let diary = v1::DeviceType {
        id: DIARY.into(),
        properties: vec![notes],
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![diary]).await.unwrap();
    let devices = ids.iter().map(|id| device(id, DIARY, &[])).collect();
    client.register_devices(devices).await.unwrap();
}

/// One text of each device, which no codec makes much shorter; the same for the same time.
pub(crate) fn diary_page(ids: &[String], t: i64, bytes: usize) -> v1::Batch {
    let mut state = (t as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state % 64) as u8)
    };
    let mut batch = BatchBuilder::new(DIARY);
    for device in ids {
        let text: String = (0..bytes).map(|_| next()).collect();
        batch.row(device, t).set("notes", text);
    }
    batch.build().unwrap()
}

/// A batch of one property: rows of device, time and value.
pub(crate) fn batch<V: Into<Value>>(
    device_type: &str,
    property: &str,
    rows: impl IntoIterator<Item = (&'static str, i64, V)>,
) -> v1::Batch {
    let mut batch = BatchBuilder::new(device_type);
    for (device, t, value) in rows {
        batch.row(device, t).set(property, value);
    }
    batch.build().unwrap()
}

/// One value of `m1`, now.
pub(crate) fn one<V: Into<Value>>(property: &str, value: V) -> v1::Batch {
    batch(METER, property, [("m1", tidemark_node::clock::now_ns(), value)])
}

/// Every message of an aggregate.
pub(crate) async fn ask(client: &Client, request: v1::QueryAggregateRequest) -> Vec<v1::QueryAggregateResponse> {
    let (messages, summary) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
    let series: usize = messages.iter().map(|message| message.series.len()).sum();
    assert_eq!(summary.rows, series as u64);
    messages
}

/// A write without producer.
pub(crate) fn write(batch: v1::Batch) -> v1::WriteRequest {
    v1::WriteRequest {
        batch: Some(batch),
        ..v1::WriteRequest::default()
    }
}

/// A write that is stored once.
pub(crate) fn numbered(batch: v1::Batch, producer: &str, sequence: u64) -> v1::WriteRequest {
    v1::WriteRequest {
        producer: producer.into(),
        sequence,
        ..write(batch)
    }
}

pub(crate) fn of_type(device_type: &str) -> Option<v1::Selector> {
    Some(v1::Selector {
        device_type: device_type.into(),
        ..v1::Selector::default()
    })
}

pub(crate) fn of_devices(ids: &[&str]) -> Option<v1::Selector> {
    Some(v1::Selector {
        device_ids: ids.iter().map(ToString::to_string).collect(),
        ..v1::Selector::default()
    })
}

/// Ids of the devices that an answer lists, in its order, and how it ended.
pub(crate) async fn listed(client: &Client, request: v1::ListDevicesRequest) -> (Vec<String>, v1::AnswerSummary) {
    let (messages, summary) = client.list_devices(request).await.unwrap().collect().await.unwrap();
    let devices = messages.into_iter().flat_map(|message| message.devices);
    (devices.map(|device| device.id).collect(), summary)
}

/// Ids of the devices that a selector chooses, in order.
pub(crate) async fn listed_ids(client: &Client, selector: v1::Selector) -> Vec<String> {
    let request = v1::ListDevicesRequest {
        selector: Some(selector),
        ..Default::default()
    };
    let (mut ids, _) = listed(client, request).await;
    ids.sort();
    ids
}

/// All points of all time.
pub(crate) fn everything(selector: Option<v1::Selector>) -> v1::QueryRangeRequest {
    v1::QueryRangeRequest {
        selector,
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        ..v1::QueryRangeRequest::default()
    }
}

pub(crate) fn any() -> Option<v1::Consistency> {
    Some(v1::Consistency {
        level: Some(v1::consistency::Level::Any(v1::AnyReplica {})),
    })
}

pub(crate) fn bounded(max_lag_ms: i64) -> Option<v1::Consistency> {
    Some(v1::Consistency {
        level: Some(v1::consistency::Level::Bounded(v1::Bounded { max_lag_ms })),
    })
}

/// Device, time, property, value.
pub(crate) type Point = (String, i64, String, Value);

/// The points of a raw answer, in the order in which they came.
pub(crate) fn points(messages: &[v1::QueryRangeResponse]) -> Vec<Point> {
    let batches = messages.iter().filter_map(|message| message.batch.as_ref());
    let of_row = |row: tidemark_client::Row<'_>| {
        let (device, t) = (row.device.to_string(), row.observed_at_ns);
        let point = move |(property, value): (&str, Value)| (device.clone(), t, property.to_string(), value);
        row.values.into_iter().map(point).collect::<Vec<_>>()
    };
    batches.flat_map(rows).flat_map(of_row).collect()
}

/// Every point of some devices, as the client reads it.
pub(crate) async fn read(client: &Client, request: v1::QueryRangeRequest) -> Vec<Point> {
    let (messages, _) = client.query_range(request).await.unwrap().collect().await.unwrap();
    points(&messages)
}

/// Level by device and time of points of report kind test.
pub(crate) type Tests = BTreeMap<(String, i64), f64>;

/// All points of report kind test.
pub(crate) fn tests_of(selector: Option<v1::Selector>) -> v1::QueryRangeRequest {
    v1::QueryRangeRequest {
        test_points: true,
        ..everything(selector)
    }
}

/// The tests that there are, as some replica has them where `consistency` says so.
pub(crate) async fn tests(
    client: &Client,
    selector: Option<v1::Selector>,
    consistency: Option<v1::Consistency>,
) -> Tests {
    let request = v1::QueryRangeRequest {
        consistency,
        ..tests_of(selector)
    };
    let (messages, summary) = client.query_range(request).await.unwrap().collect().await.unwrap();
    assert!(summary.test_points, "the answer says what it is of");
    let batches = messages.iter().filter_map(|message| message.batch.as_ref());
    let mut found = Tests::new();
    for row in batches.flat_map(rows) {
        assert_eq!(row.report_kind, v1::ReportKind::Test);
        let level = row.values.iter().find(|(property, _)| *property == "level").unwrap();
        let Value::F64(level) = level.1 else {
            panic!("{level:?}")
        };
        found.insert((row.device.to_owned(), row.observed_at_ns), level);
    }
    assert_eq!(found.len() as u64, summary.rows);
    found
}

/// Everything that is stored, of both types.
pub(crate) async fn stored(client: &Client) -> Vec<Point> {
    let mut found = read(client, everything(of_type(METER))).await;
    found.extend(read(client, everything(of_type(RELIC))).await);
    found
}

/// Latest values, answered device by device, by device and property: time and value.
pub(crate) fn latest(messages: &[v1::GetLatestResponse]) -> BTreeMap<(String, String), (i64, Value)> {
    let devices = messages.iter().flat_map(|message| &message.devices);
    let told: usize = devices.map(|device| device.values.len()).sum();
    let rows = messages.iter().flat_map(tidemark_client::latest_rows);
    let value = |row: LatestRow<'_>| {
        let newest = row.newest?;
        let key = (row.device.to_owned(), newest.property.to_owned());
        Some((key, (newest.observed_at_ns, newest.value)))
    };
    let found: BTreeMap<_, _> = rows.filter_map(value).collect();
    assert_eq!(found.len(), told, "each value told has a row of its own");
    found
}

/// The name of a code, as the contract spells it.
fn code_name(code: Code) -> String {
    let camel = format!("{code:?}");
    let mut name = String::new();
    for (at, c) in camel.chars().enumerate() {
        if at > 0 && c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

/// An error in a line: code, reason, field, rows with their reasons where they differ, hint.
///
/// `OUT_OF_RANGE TIME_TOO_OLD batch.rows[1].observed_at_ns, rows [1]; times are nanoseconds`
pub(crate) fn shown(error: &Error) -> String {
    let mut line = format!("{} {}", code_name(error.code), error.reason);
    if let Some(field) = &error.field {
        line.push_str(&format!(" {field}"));
    }
    if !error.rows.is_empty() {
        let rows: Vec<u32> = error.rows.iter().map(|row| row.row).collect();
        line.push_str(&format!(", rows {rows:?}"));
    }
    if let Some(hint) = &error.hint {
        line.push_str(&format!("; {hint}"));
    }
    line
}
