//! Good writes through the public client: what is stored, once, and exactly what comes back.
//! Never here: what is refused as it stands (`refusals.rs`). Invariant: an acknowledged point is read back bit for bit.

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{Ack, BatchBuilder, Client, Value, WriterOptions, v1};
use tidemark_node::clock::now_ns;
use tidemark_proto::v1::write_stream_response::Result as Outcome;
use tokio_stream::StreamExt as _;

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
        for (nth, other) in others.iter().enumerate() {
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
                assert_eq!(bits(&value), format!("{:016x}", other.to_bits()), "{after}");
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
async fn the_last_row_wins_also_where_its_device_is_listed_again() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1", "r2"]).await;
    // By hand: the builders list each device once.
    let level = v1::Column {
        property: "level".into(),
        values: Some(v1::Values {
            kind: Some(v1::values::Kind::F64(v1::F64Values {
                values: vec![1.0, 5.0, 2.0, 6.0, 7.0],
            })),
        }),
        ..v1::Column::default()
    };
    let batch = v1::Batch {
        device_type: RELIC.into(),
        devices: ["r1", "r2", "r1"].map(String::from).to_vec(),
        device_index: vec![2, 1, 0, 0, 2],
        observed_at_ns: vec![S, S, S, 2 * S, 2 * S],
        columns: vec![level],
        ..v1::Batch::default()
    };
    let stored = client.write(write(batch)).await.unwrap();
    assert_eq!((stored.rows, stored.points), (5, 5));
    let found = read(&client, everything(of_type(RELIC))).await;
    let mut found: Vec<_> = found
        .iter()
        .map(|(id, t, _, value)| (id.as_str(), *t, value.clone()))
        .collect();
    found.sort_by_key(|(id, t, _)| (*id, *t));
    let expected = [("r1", S, 2.0), ("r1", 2 * S, 7.0), ("r2", S, 5.0)];
    assert_eq!(found, expected.map(|(id, t, level)| (id, t, Value::F64(level))));
    let request = v1::GetLatestRequest {
        selector: of_devices(&["r1"]),
        ..v1::GetLatestRequest::default()
    };
    let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
    let newest = latest(&messages);
    assert_eq!(
        newest[&(String::from("r1"), String::from("level"))],
        (2 * S, Value::F64(7.0))
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
