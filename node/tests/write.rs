//! Writes through the public client: what is refused and how, what is stored and exactly what comes back.
//! Never here: queries for their own sake. Invariant: a refused batch leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::TestCluster;
use common::fleet::*;
use tidemark_client::{Ack, BatchBuilder, Client, Value, WriterOptions, v1};
use tidemark_node::clock::now_ns;
use tidemark_proto::v1::write_stream_response::Result as Outcome;
use tokio_stream::StreamExt as _;

const UNIT_HINT: &str = "; times are nanoseconds since the Unix epoch: multiply seconds by 1e9, milliseconds by 1e6";

/// Everything that is stored, of both types.
async fn stored(client: &Client) -> Vec<Point> {
    let mut found = read(client, everything(of_type(METER))).await;
    found.extend(read(client, everything(of_type(RELIC))).await);
    found
}

/// Sends a batch that must be refused as expected and leave nothing behind, neither points nor latest values.
async fn refused(client: &Client, what: &str, request: v1::WriteRequest, expected: &str) {
    let error = client.write(request).await.expect_err(what);
    assert_eq!(shown(&error), expected, "{what}: {}", error.message);
    assert_eq!(stored(client).await, [], "{what}: points were stored");
    for device_type in [METER, RELIC] {
        let request = v1::GetLatestRequest {
            selector: of_type(device_type),
            ..v1::GetLatestRequest::default()
        };
        let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
        assert!(latest(&messages).is_empty(), "{what}: latest values were stored");
    }
}

fn one<V: Into<Value>>(property: &str, value: V) -> v1::Batch {
    batch(METER, property, [("m1", now_ns(), value)])
}

fn at(t: i64) -> v1::Batch {
    batch(METER, "level", [("m1", now_ns(), 1.0), ("m1", t, 2.0)])
}

fn by_name(device: &str) -> v1::Batch {
    v1::Batch {
        devices: vec!["m1".into(), device.into()],
        device_index: vec![0, 1],
        ..batch(METER, "level", [("m1", now_ns(), 1.0), ("m1", now_ns() - S, 2.0)])
    }
}

#[tokio::test]
async fn what_names_nothing_known_is_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let no_type = batch("no-such-type", "level", [("m1", now_ns(), 1.0)]);
    let cases: Vec<(&str, v1::Batch, &str)> = vec![
        (
            "an unknown type",
            no_type,
            "NOT_FOUND UNKNOWN_TYPE batch.device_type; tidemark type list",
        ),
        (
            "no type",
            v1::Batch {
                device_type: String::new(),
                ..one("level", 1.0)
            },
            "NOT_FOUND UNKNOWN_TYPE batch.device_type; tidemark type list",
        ),
        (
            "an unknown device",
            by_name("m2"),
            "NOT_FOUND UNKNOWN_DEVICE batch.rows[1].device, rows [1]; register the device first: tidemark device import",
        ),
        (
            "an unknown property",
            one("depth", 1.0),
            "NOT_FOUND UNKNOWN_PROPERTY batch.columns[0].property; tidemark type show test-meter",
        ),
        (
            "a device of another type",
            by_name("r1"),
            "FAILED_PRECONDITION WRONG_DEVICE_TYPE batch.rows[1].device, rows [1]",
        ),
        (
            "an empty device id",
            by_name(""),
            "INVALID_ARGUMENT INVALID_ID batch.rows[1].device, rows [1]",
        ),
        (
            "a device id of 65 bytes",
            by_name(&"x".repeat(65)),
            "INVALID_ARGUMENT INVALID_ID batch.rows[1].device, rows [1]",
        ),
        (
            "a device id of 10 MiB",
            by_name(&"x".repeat(10 << 20)),
            "INVALID_ARGUMENT INVALID_ID batch.rows[1].device, rows [1]",
        ),
        (
            "a newline in an id",
            by_name("m1\n"),
            "INVALID_ARGUMENT INVALID_ID batch.rows[1].device, rows [1]",
        ),
        (
            "an escape in an id",
            by_name("\u{1b}[31mm1"),
            "INVALID_ARGUMENT INVALID_ID batch.rows[1].device, rows [1]",
        ),
        (
            "a zero byte in an id",
            by_name("m1\0"),
            "INVALID_ARGUMENT INVALID_ID batch.rows[1].device, rows [1]",
        ),
        (
            "a path as an id",
            by_name("../m1"),
            "INVALID_ARGUMENT INVALID_ID batch.rows[1].device, rows [1]",
        ),
        (
            "an umlaut in an id",
            by_name("m\u{fc}1"),
            "INVALID_ARGUMENT INVALID_ID batch.rows[1].device, rows [1]",
        ),
    ];
    for (what, batch, expected) in cases {
        refused(&client, what, write(batch), expected).await;
    }
}

#[tokio::test]
async fn values_out_of_their_domain_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let second = |value: f64| batch(METER, "level", [("m1", now_ns(), 1.0), ("m1", now_ns() - S, value)]);
    let text = |text: &str| Value::Text(text.to_string());
    let label = |text: &str| Value::Enum(text.to_string());
    let wrong_type = "FAILED_PRECONDITION WRONG_VALUE_TYPE batch.columns[0].values";
    let cases: Vec<(&str, v1::Batch, &str)> = vec![
        (
            "NaN",
            second(f64::NAN),
            "INVALID_ARGUMENT NON_FINITE batch.rows[1].level, rows [1]",
        ),
        (
            "infinity",
            second(f64::INFINITY),
            "INVALID_ARGUMENT NON_FINITE batch.rows[1].level, rows [1]",
        ),
        (
            "-infinity",
            second(f64::NEG_INFINITY),
            "INVALID_ARGUMENT NON_FINITE batch.rows[1].level, rows [1]",
        ),
        ("an integer for a float", one("level", 1), wrong_type),
        ("a float for an integer", one("count", 1.0), wrong_type),
        ("a text for a truth value", one("on", "true"), wrong_type),
        ("a text for a label", one("mode", "off"), wrong_type),
        (
            "an unknown label",
            one("mode", label("warp")),
            "INVALID_ARGUMENT UNKNOWN_LABEL batch.rows[0].mode, rows [0]",
        ),
        (
            "an empty label",
            one("mode", label("")),
            "INVALID_ARGUMENT UNKNOWN_LABEL batch.rows[0].mode, rows [0]",
        ),
        (
            "a text of 17 bytes where 16 fit",
            one("note", text("seventeen bytes!!")),
            "INVALID_ARGUMENT TEXT_TOO_LONG batch.rows[0].note, rows [0]",
        ),
        (
            "16 characters of 2 bytes",
            one("note", text(&"\u{e4}".repeat(16))),
            "INVALID_ARGUMENT TEXT_TOO_LONG batch.rows[0].note, rows [0]",
        ),
    ];
    for (what, batch, expected) in cases {
        refused(&client, what, write(batch), expected).await;
    }
}

#[tokio::test]
async fn times_outside_the_accepted_window_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let now = now_ns();
    let old = "OUT_OF_RANGE TIME_TOO_OLD batch.rows[1].observed_at_ns, rows [1]";
    let looks_like = format!("{old}{UNIT_HINT}");
    let cases: Vec<(&str, i64, &str, &str)> = vec![
        (
            "the beginning of time",
            i64::MIN,
            "INVALID_ARGUMENT TIME_INVALID batch.rows[1].observed_at_ns, rows [1]",
            "",
        ),
        (
            "the end of time",
            i64::MAX,
            "INVALID_ARGUMENT TIME_INVALID batch.rows[1].observed_at_ns, rows [1]",
            "",
        ),
        ("almost the beginning of time", i64::MIN + 1, old, "3650 days"),
        ("zero", 0, old, "3650 days"),
        ("before 1970", -DAY, old, "3650 days"),
        ("older than retention", now - 3_651 * DAY, old, "3650 days"),
        ("seconds", now / S, &looks_like, "seconds"),
        ("milliseconds", now / 1_000_000, &looks_like, "milliseconds"),
        ("microseconds", now / 1_000, &looks_like, "microseconds"),
        (
            "more than a day ahead",
            now + DAY + HOUR,
            "OUT_OF_RANGE TIME_TOO_NEW batch.rows[1].observed_at_ns, rows [1]",
            "1 day",
        ),
        (
            "almost the end of time",
            i64::MAX - 1,
            "OUT_OF_RANGE TIME_TOO_NEW batch.rows[1].observed_at_ns, rows [1]",
            "1 day",
        ),
    ];
    for (what, t, expected, said) in cases {
        refused(&client, what, write(at(t)), expected).await;
        let message = client.write(write(at(t))).await.unwrap_err().message;
        assert!(message.contains(said), "{what}: {message:?} does not say {said:?}");
    }
    // The same times are good where points are kept for ever, and an hour ahead is good everywhere.
    let kept = [i64::MIN + 1, -DAY, 0, now - 3_651 * DAY, now / S];
    let accepted = batch(RELIC, "level", kept.map(|t| ("r1", t, 1.0)));
    client.write(write(accepted)).await.unwrap();
    client.write(write(at(now + HOUR))).await.unwrap();
    let times = stored(&client)
        .await
        .into_iter()
        .map(|(_, t, ..)| t)
        .collect::<Vec<_>>();
    assert_eq!(times[2..], [i64::MIN + 1, -DAY, 0, now / S, now - 3_651 * DAY]);
}

#[tokio::test]
async fn batches_that_do_not_fit_together_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "r1"]).await;
    let now = now_ns();
    let two = || batch(METER, "level", [("m1", now, 1.0), ("m1", now - S, 2.0)]);
    let column = |change: fn(&mut v1::Column)| {
        let mut batch = two();
        change(&mut batch.columns[0]);
        batch
    };
    let malformed = |field: &str| format!("INVALID_ARGUMENT MALFORMED_BATCH batch.{field}");
    let twice = v1::Batch {
        columns: [two().columns, two().columns].concat(),
        ..two()
    };
    let devices = vec!["m1".to_string(), "m2".to_string()];
    let cases: Vec<(&str, v1::Batch, String)> = vec![
        ("no values", column(|c| c.values = None), malformed("columns[0].values")),
        (
            "values of no kind",
            column(|c| c.values = Some(v1::Values { kind: None })),
            malformed("columns[0].values"),
        ),
        (
            "presence of two bytes for two rows",
            column(|c| c.presence = vec![3, 0].into()),
            malformed("columns[0].presence"),
        ),
        (
            "presence of one row and two values",
            column(|c| c.presence = vec![1].into()),
            malformed("columns[0].values"),
        ),
        (
            "one quality for two values",
            column(|c| c.quality = vec![1]),
            malformed("columns[0].quality"),
        ),
        (
            "an unknown quality",
            column(|c| c.quality = vec![1, 99]),
            "INVALID_ARGUMENT INVALID_VALUE batch.columns[0].quality".into(),
        ),
        ("two columns of a property", twice, malformed("columns[1].property")),
        (
            "two devices and no index",
            v1::Batch {
                devices: devices.clone(),
                ..two()
            },
            malformed("device_index"),
        ),
        (
            "an index past the devices",
            v1::Batch {
                devices: devices.clone(),
                device_index: vec![0, 2],
                ..two()
            },
            malformed("device_index[1]"),
        ),
        (
            "one index for two rows",
            v1::Batch {
                devices,
                device_index: vec![0],
                ..two()
            },
            malformed("device_index"),
        ),
        (
            "rows and no device",
            v1::Batch {
                devices: vec![],
                ..two()
            },
            malformed("devices"),
        ),
        (
            "three report kinds for two rows",
            v1::Batch {
                report_kind: vec![1, 1, 1],
                ..two()
            },
            malformed("report_kind"),
        ),
        (
            "an unknown report kind",
            v1::Batch {
                report_kind: vec![77],
                ..two()
            },
            malformed("report_kind"),
        ),
        (
            "rows without a value",
            v1::Batch {
                columns: vec![],
                ..two()
            },
            "INVALID_ARGUMENT MISSING_FIELD batch.rows[0]., rows [0, 1]".into(),
        ),
    ];
    for (what, batch, expected) in cases {
        refused(&client, what, write(batch), &expected).await;
    }
    let requests: Vec<(&str, v1::WriteRequest, &str)> = vec![
        (
            "no batch",
            v1::WriteRequest::default(),
            "INVALID_ARGUMENT MISSING_FIELD batch",
        ),
        (
            "a sequence without a producer",
            numbered(two(), "", 1),
            "INVALID_ARGUMENT MISSING_FIELD producer",
        ),
        (
            "a producer without a sequence",
            numbered(two(), "p", 0),
            "INVALID_ARGUMENT MISSING_FIELD sequence",
        ),
        (
            "a producer with a space",
            numbered(two(), "p 1", 1),
            "INVALID_ARGUMENT INVALID_ID producer",
        ),
    ];
    for (what, request, expected) in requests {
        refused(&client, what, request, expected).await;
    }
}

#[tokio::test]
async fn one_bad_row_refuses_the_batch_and_is_named() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "r1"]).await;
    let now = now_ns();
    let rows = |n: i64, bad: fn(i64) -> bool| {
        let value = move |i| if bad(i) { f64::NAN } else { i as f64 };
        let device = |i| if i % 2 == 0 { "m1" } else { "m2" };
        write(batch(
            METER,
            "level",
            (0..n).map(|i| (device(i), now - i * S, value(i))),
        ))
    };
    let expected = "INVALID_ARGUMENT NON_FINITE batch.rows[7321].level, rows [7321]";
    refused(&client, "one of 10,000", rows(10_000, |i| i == 7_321), expected).await;

    let error = client.write(rows(1_000, |i| i % 5 == 0)).await.unwrap_err();
    assert_eq!(error.rows.len(), 100, "the first hundred are named");
    assert!(
        error
            .rows
            .iter()
            .zip(0..)
            .all(|(row, i)| row.row == i * 5 && row.field == "level")
    );
    assert!(error.message.contains("200 bad rows"), "{}", error.message);

    let mut mixed = BatchBuilder::new(METER);
    mixed.row("m1", now).set("level", 1.0);
    mixed.row("m1", now + 9 * DAY).set("level", 1.0);
    mixed
        .row("m2", now)
        .set("note", "far too long a text")
        .set("level", f64::NAN);
    let error = client.write(write(mixed.build().unwrap())).await.unwrap_err();
    let named: Vec<_> = error
        .rows
        .iter()
        .map(|row| (row.row, row.reason.as_str(), row.field.as_str()))
        .collect();
    let expected = [
        (1, "TIME_TOO_NEW", "observed_at_ns"),
        (2, "NON_FINITE", "level"),
        (2, "TEXT_TOO_LONG", "note"),
    ];
    assert_eq!(named, expected);
    assert_eq!(stored(&client).await, []);
}

#[tokio::test]
async fn more_than_a_batch_may_hold_is_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let now = now_ns();
    let too_large = "RESOURCE_EXHAUSTED BATCH_TOO_LARGE batch; send smaller batches";
    let rows = batch(METER, "level", (0..50_001).map(|i| ("m1", now - i * S, 1.0)));
    refused(&client, "50,001 rows", write(rows), too_large).await;
    let devices = v1::Batch {
        devices: (0..50_001).map(|i| format!("m{i}")).collect(),
        ..one("level", 1.0)
    };
    refused(&client, "50,001 devices", write(devices), too_large).await;

    let text = "x".repeat(1 << 20);
    let long = batch(METER, "note", (0..17).map(|i| ("m1", now - i * S, text.as_str())));
    refused(
        &client,
        "a message of 17 MiB",
        write(long),
        "RESOURCE_EXHAUSTED MESSAGE_TOO_LARGE; send smaller batches",
    )
    .await;

    let most = batch(METER, "level", (0..50_000).map(|i| ("m1", now - i * S, 1.0)));
    assert_eq!(
        client.write(write(most)).await.unwrap().rows,
        50_000,
        "as many as a batch may hold"
    );
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_and_fields_of_newer_clients_ignored() {
    use prost::Message as _;
    const WRITE: &str = "/tidemark.v1.IngestService/Write";
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let good = write(one("level", 1.0)).encode_to_vec();
    let mut not_text = good.clone();
    let at = not_text
        .windows(METER.len())
        .position(|bytes| bytes == METER.as_bytes())
        .unwrap();
    not_text[at] = 0xff;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an id that is no UTF-8", not_text),
        ("a message cut short", good[..good.len() - 3].to_vec()),
        ("random bytes", vec![0xff, 0x17, 0x80, 0x99, 0x00, 0x01]),
        ("groups within groups", vec![0x0b; 10_000]),
    ];
    for (what, bytes) in cases {
        let error = cluster.at(0).raw(WRITE, bytes).await.expect_err(what);
        assert_eq!(
            shown(&error),
            "INVALID_ARGUMENT MALFORMED_MESSAGE",
            "{what}: {}",
            error.message
        );
    }
    assert_eq!(stored(&client).await, []);
    let mut newer = good;
    newer.extend([0xc0, 0x3e, 0x07]);
    cluster.at(0).raw(WRITE, newer).await.expect("field 1000, a number");
    assert_eq!(stored(&client).await.len(), 1);
}

#[tokio::test]
async fn an_empty_batch_is_no_error() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let empty = v1::Batch {
        device_type: METER.into(),
        ..v1::Batch::default()
    };
    let before = last_indexes(&client).await;
    for request in [write(empty.clone()), numbered(empty, "p", 1)] {
        let answer = client.write(request).await.unwrap();
        assert_eq!((answer.rows, answer.points, answer.duplicate), (0, 0, false));
    }
    assert_eq!(last_indexes(&client).await, before, "no log entry");
}

/// Last log index of every shard.
async fn last_indexes(client: &Client) -> Vec<u64> {
    let status = client.status().await.unwrap();
    status
        .shards
        .iter()
        .map(|shard| shard.replicas[0].last_log_index)
        .collect()
}

/// A value with its bits, for floats that are not equal to themselves.
fn bits(value: &Value) -> String {
    match value {
        Value::F64(v) => format!("{:016x}", v.to_bits()),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn every_value_comes_back_bit_for_bit() {
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let nan = |payload: u64| f64::from_bits(0x7ff0_0000_0000_0000 | payload);
    let finite = [
        -0.0,
        0.0,
        5e-324,
        -5e-324,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::MIN,
        0.1 + 0.2,
        1.0 + f64::EPSILON,
    ];
    let others = [
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -f64::NAN,
        nan(1),
        nan(0x000d_ead0_beef),
        nan(0x000f_ffff_ffff_ffff),
    ];
    let integers = [i64::MIN, i64::MAX, 0, -1, i64::MIN + 1, i64::MAX - 1];
    let start = now_ns() - HOUR;
    let mut expected: Vec<(i64, &str, String)> = Vec::new();
    let mut whole = BatchBuilder::new(METER);
    let mut add = |at: usize, property: &'static str, value: Value| {
        let t = start + at as i64 * S;
        expected.push((t, property, bits(&value)));
        whole.row("m1", t).set(property, value);
    };
    finite
        .iter()
        .enumerate()
        .for_each(|(i, v)| add(i, "level", Value::F64(*v)));
    finite
        .iter()
        .chain(&others)
        .enumerate()
        .for_each(|(i, v)| add(100 + i, "raw", Value::F64(*v)));
    integers
        .iter()
        .enumerate()
        .for_each(|(i, v)| add(200 + i, "count", Value::I64(*v)));
    [true, false]
        .iter()
        .enumerate()
        .for_each(|(i, v)| add(300 + i, "on", Value::Bool(*v)));
    ["fast", "off", "slow"]
        .iter()
        .enumerate()
        .for_each(|(i, v)| add(400 + i, "mode", Value::Enum(v.to_string())));
    ["", "16 bytes of text", "\n\0\u{1b}[31m", "\u{1f30a}"]
        .iter()
        .enumerate()
        .for_each(|(i, v)| add(500 + i, "note", Value::Text(v.to_string())));
    let answer = client.write(write(whole.build().unwrap())).await.unwrap();
    assert_eq!(
        (answer.rows, answer.points),
        (expected.len() as u64, expected.len() as u64)
    );

    for after in ["from memory", "after a restart"] {
        let found = read(&client, everything(of_devices(&["m1"]))).await;
        let found: Vec<_> = found
            .iter()
            .map(|(_, t, property, value)| (*t, property.as_str(), bits(value)))
            .collect();
        assert_eq!(found, expected, "{after}");
        for nth in 0..others.len() {
            let t = start + (100 + finite.len() + nth) as i64 * S;
            let functions = [v1::Function::First, v1::Function::Last].map(i32::from).to_vec();
            let request = v1::QueryAggregateRequest {
                selector: of_devices(&["m1"]),
                properties: vec!["raw".into()],
                functions,
                from_ns: t,
                to_ns: t + 1,
                ..v1::QueryAggregateRequest::default()
            };
            let (messages, _) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
            for column in &messages[0].series[0].columns {
                let value = tidemark_client::value_at(column.values.as_ref().unwrap(), 0).unwrap();
                assert_eq!(bits(&value), format!("{:016x}", others[nth].to_bits()), "{after}");
            }
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}

#[tokio::test]
async fn order_and_repetition_of_rows_do_not_matter_but_the_last_value_wins() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m-sorted", "m-shuffled", "m-twice", "m-same"]).await;
    let now = now_ns();
    let t = |i: i64| now - HOUR + i * S;
    let of = |points: Vec<Point>| points.into_iter().map(|(_, t, _, v)| (t, v)).collect::<Vec<_>>();

    let shuffled = (0..1_000).map(|i| i * 619 % 1_000);
    let sorted = batch(METER, "level", (0..1_000).map(|i| ("m-sorted", t(i), i as f64)));
    let shuffled = batch(METER, "level", shuffled.map(|i| ("m-shuffled", t(i), i as f64)));
    for batch in [sorted, shuffled] {
        assert_eq!(client.write(write(batch)).await.unwrap().rows, 1_000);
    }
    let sorted = of(read(&client, everything(of_devices(&["m-sorted"]))).await);
    assert_eq!(sorted.len(), 1_000);
    assert_eq!(sorted, of(read(&client, everything(of_devices(&["m-shuffled"]))).await));

    // The last row of a batch wins; a later batch wins over an earlier one; the other properties of a row stay.
    let mut twice = BatchBuilder::new(METER);
    twice.row("m-twice", t(0)).set("level", 1.0).set("count", 7);
    twice.row("m-twice", t(1)).set("level", 1.5);
    twice.row("m-twice", t(0)).set("level", 2.0);
    client.write(write(twice.build().unwrap())).await.unwrap();
    client
        .write(write(batch(METER, "level", [("m-twice", t(1), 3.0)])))
        .await
        .unwrap();
    let found = read(&client, everything(of_devices(&["m-twice"]))).await;
    let found: Vec<_> = found.iter().map(|(_, at, p, v)| (*at, p.as_str(), v.clone())).collect();
    let expected = [
        (t(0), "level", Value::F64(2.0)),
        (t(0), "count", Value::I64(7)),
        (t(1), "level", Value::F64(3.0)),
    ];
    assert_eq!(found, expected);

    for _ in 0..2 {
        client
            .write(write(batch(
                METER,
                "level",
                [("m-same", t(0), 1.0), ("m-same", t(0), 1.0)],
            )))
            .await
            .unwrap();
    }
    assert_eq!(
        of(read(&client, everything(of_devices(&["m-same"]))).await),
        [(t(0), Value::F64(1.0))]
    );
}

#[tokio::test]
async fn a_numbered_batch_is_stored_once() {
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let many: Vec<String> = (0..40).map(|i| format!("m{i}")).collect();
    furnish(&client, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let now = now_ns();
    let wide = |value: f64| {
        let mut batch = BatchBuilder::new(METER);
        for device in &many {
            batch.row(device, now).set("level", value);
        }
        batch.build().unwrap()
    };
    let once = |n: u64, duplicate: bool| v1::WriteResponse {
        rows: n,
        points: n,
        duplicate,
    };
    assert_eq!(
        client.write(numbered(wide(1.0), "p", 1)).await.unwrap(),
        once(40, false)
    );
    assert_eq!(
        client.write(numbered(wide(1.0), "p", 1)).await.unwrap(),
        once(40, true),
        "a retry answers the same"
    );
    // Another producer, and the next number, are other batches.
    assert_eq!(
        client.write(numbered(wide(1.0), "q", 1)).await.unwrap(),
        once(40, false)
    );
    assert_eq!(
        client.write(numbered(wide(2.0), "p", 2)).await.unwrap(),
        once(40, false)
    );

    let error = client.write(numbered(wide(9.0), "p", 1)).await.unwrap_err();
    assert_eq!(shown(&error), "INVALID_ARGUMENT SEQUENCE_REUSED sequence");
    // An old retry that comes late does not bring the old values back.
    assert_eq!(client.write(numbered(wide(1.0), "p", 1)).await.unwrap(), once(40, true));
    cluster.stop(0).await;
    cluster.restart(0).await;
    assert_eq!(
        client.write(numbered(wide(1.0), "p", 1)).await.unwrap(),
        once(40, true),
        "also after a restart"
    );
    let found = read(&client, everything(of_type(METER))).await;
    assert_eq!(found.len(), 40);
    assert!(found.iter().all(|(.., value)| *value == Value::F64(2.0)));

    // A shard remembers the last 256 batches of a producer.
    for sequence in 3..=258 {
        client
            .write(numbered(batch(METER, "level", [("m0", now - S, 0.0)]), "p", sequence))
            .await
            .unwrap();
    }
    let error = client
        .write(numbered(batch(METER, "level", [("m0", now, 1.0)]), "p", 2))
        .await
        .unwrap_err();
    assert_eq!(shown(&error), "FAILED_PRECONDITION SEQUENCE_TOO_OLD");
}

#[tokio::test]
async fn a_stream_acknowledges_every_batch_by_its_token() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let now = now_ns();
    let good = move |i: u64| write(batch(METER, "level", [("m1", now - i as i64 * S, i as f64)]));
    let requests = (0..30u64).map(move |token| {
        let request = match token % 10 {
            3 => write(one("level", f64::NAN)),
            5 => write(one("depth", 1.0)),
            7 => v1::WriteRequest::default(),
            _ => good(token),
        };
        v1::WriteStreamRequest {
            token,
            write: Some(request),
        }
    });
    let answers = cluster
        .at(0)
        .ingest()
        .write_stream(tokio_stream::iter(requests))
        .await
        .unwrap();
    let answers: Vec<_> = answers.into_inner().collect::<Vec<_>>().await;
    let mut by_token = std::collections::BTreeMap::new();
    for answer in answers {
        let answer = answer.unwrap();
        assert!(
            by_token.insert(answer.token, answer.result.unwrap()).is_none(),
            "one answer a token"
        );
    }
    assert_eq!(by_token.len(), 30);
    for (token, outcome) in by_token {
        let seen = match outcome {
            Outcome::Stored(stored) => format!("stored {}", stored.points),
            Outcome::Failure(failure) => shown(&failure.into()),
        };
        let expected = match token % 10 {
            3 => "INVALID_ARGUMENT NON_FINITE batch.rows[0].level, rows [0]",
            5 => "NOT_FOUND UNKNOWN_PROPERTY batch.columns[0].property; tidemark type show test-meter",
            7 => "INVALID_ARGUMENT MISSING_FIELD batch",
            _ => "stored 1",
        };
        assert_eq!(seen, expected, "token {token}");
    }
    assert_eq!(stored(&client).await.len(), 21);
}

#[tokio::test]
async fn the_writer_of_the_client_has_every_batch_acknowledged() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let now = now_ns();
    let mut writer = client.writer(WriterOptions {
        producer: "w".into(),
        ..WriterOptions::default()
    });
    for i in 0..200i64 {
        let value = if i == 77 { f64::NAN } else { i as f64 };
        writer
            .send(batch(METER, "level", [("m1", now - i * S, value)]))
            .await
            .unwrap();
    }
    let acks: Vec<Ack> = writer.finish().await.unwrap();
    assert_eq!(acks.len(), 200);
    let failed: Vec<_> = acks
        .iter()
        .filter(|ack| ack.result.is_err())
        .map(|ack| ack.sequence)
        .collect();
    assert_eq!(failed, [78], "sequences start at 1");
    assert_eq!(stored(&client).await.len(), 199);
}
