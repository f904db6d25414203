//! Bad writes through the public client: each gets its own code, reason, field, rows and hint.
//! Never here: what is accepted (`write.rs`). Invariant: a refused batch leaves nothing behind.

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, Value, v1};
use tidemark_node::clock::now_ns;

const UNIT_HINT: &str = "; times are nanoseconds since the Unix epoch: multiply seconds by 1e9, milliseconds by 1e6";

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
    let changed = |change: fn(&mut v1::Batch)| {
        let mut batch = two();
        change(&mut batch);
        batch
    };
    let devices = |index: &[u32]| v1::Batch {
        devices: vec!["m1".to_string(), "m2".to_string()],
        device_index: index.to_vec(),
        ..two()
    };
    let unknown_quality = "INVALID_ARGUMENT INVALID_VALUE batch.columns[0].quality".to_string();
    let no_value = "INVALID_ARGUMENT MISSING_FIELD batch.rows[0], rows [0, 1]".to_string();
    let cases: Vec<(&str, v1::Batch, String)> = vec![
        ("no values", column(|c| c.values = None), malformed("columns[0].values")),
        (
            "values of no kind",
            column(|c| c.values = Some(v1::Values::default())),
            malformed("columns[0].values"),
        ),
        (
            "two bytes of presence",
            column(|c| c.presence = vec![3, 0].into()),
            malformed("columns[0].presence"),
        ),
        (
            "one row present, two values",
            column(|c| c.presence = vec![1].into()),
            malformed("columns[0].values"),
        ),
        (
            "one quality, two values",
            column(|c| c.quality = vec![1]),
            malformed("columns[0].quality"),
        ),
        (
            "an unknown quality",
            column(|c| c.quality = vec![1, 99]),
            unknown_quality,
        ),
        (
            "a property twice",
            changed(|b| b.columns.push(b.columns[0].clone())),
            malformed("columns[1].property"),
        ),
        ("two devices and no index", devices(&[]), malformed("device_index")),
        (
            "an index past the devices",
            devices(&[0, 2]),
            malformed("device_index[1]"),
        ),
        ("one index for two rows", devices(&[0]), malformed("device_index")),
        (
            "rows and no device",
            changed(|b| b.devices.clear()),
            malformed("devices"),
        ),
        (
            "three report kinds",
            changed(|b| b.report_kind = vec![1, 1, 1]),
            malformed("report_kind"),
        ),
        (
            "an unknown report kind",
            changed(|b| b.report_kind = vec![77]),
            malformed("report_kind"),
        ),
        ("rows without a value", changed(|b| b.columns.clear()), no_value),
    ];
    for (what, batch, expected) in cases {
        refused(&client, what, write(batch), &expected).await;
    }
}

#[tokio::test]
async fn requests_without_batch_or_with_half_a_number_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let two = || one("level", 1.0);
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
