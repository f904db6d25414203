//! Raw ranges and latest values through the public client: what is chosen, in which order, and what is refused.
//! Never here: aggregates (`aggregate.rs`). Invariant: an answer ends with a summary that tells what it holds.

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, Value, v1};
use tidemark_node::clock::now_ns;

/// Points in a line, sorted by device: `m1+0 level=0, m1+0 count=10`; times in minutes after `T0`.
fn brief(points: &[Point]) -> String {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.cmp(&b.0));
    let one = |(device, t, property, value): &Point| format!("{device}+{} {property}={value}", (t - T0) / MIN);
    points.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn tagged(tags: &[(&str, &[&str])], device_type: &str) -> Option<v1::Selector> {
    let matcher = |(key, values): &(&str, &[&str])| v1::TagMatcher {
        key: key.to_string(),
        values: values.iter().map(ToString::to_string).collect(),
    };
    Some(v1::Selector {
        tags: tags.iter().map(matcher).collect(),
        device_type: device_type.into(),
        ..v1::Selector::default()
    })
}

/// Three meters and a relic in two towns: `m1` has four rows, the others one.
async fn small_town(client: &Client) {
    furnish(client, &[]).await;
    let devices = vec![
        device("m1", METER, &[("town", "a"), ("use", "x")]),
        device("m2", METER, &[("town", "b"), ("use", "x")]),
        device("m3", METER, &[("town", "c")]),
        device("r1", RELIC, &[("town", "a")]),
    ];
    client.register_devices(devices).await.unwrap();
    let mut meters = BatchBuilder::new(METER);
    for minute in 0..4 {
        let row = meters.row("m1", T0 + minute * MIN).set("level", minute as f64);
        if minute % 2 == 0 {
            row.set("count", 10 + minute);
        }
    }
    meters.row("m2", T0 + MIN).set("level", 11.0);
    client.write(write(meters.build().unwrap())).await.unwrap();
    client
        .write(write(batch(RELIC, "level", [("r1", T0 + 2 * MIN, 21.0)])))
        .await
        .unwrap();
}

/// Minutes after `T0`.
fn range(selector: Option<v1::Selector>, from: i64, to: i64) -> v1::QueryRangeRequest {
    v1::QueryRangeRequest {
        from_ns: T0 + from * MIN,
        to_ns: T0 + to * MIN,
        ..everything(selector)
    }
}

fn only(properties: &[&str], limit: u64, request: v1::QueryRangeRequest) -> v1::QueryRangeRequest {
    v1::QueryRangeRequest {
        properties: properties.iter().map(ToString::to_string).collect(),
        limit,
        ..request
    }
}

fn m1() -> Option<v1::Selector> {
    of_devices(&["m1"])
}

/// What, request, points, then devices, rows and whether it was cut short.
type RangeCase<'a> = (&'a str, v1::QueryRangeRequest, &'a str, (u64, u64, bool));

#[tokio::test]
async fn a_range_gives_what_is_in_it() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    small_town(&client).await;
    let whole = "m1+0 level=0, m1+0 count=10, m1+1 level=1, m1+2 level=2, m1+2 count=12, m1+3 level=3";
    let cases: Vec<RangeCase> = vec![
        ("a device", everything(m1()), whole, (1, 4, false)),
        ("the start is in", range(m1(), 3, 9), "m1+3 level=3", (1, 1, false)),
        (
            "the end is out",
            range(m1(), 1, 3),
            "m1+1 level=1, m1+2 level=2, m1+2 count=12",
            (1, 2, false),
        ),
        ("an empty range", range(m1(), 1, 1), "", (1, 0, false)),
        (
            "a property",
            only(&["count"], 0, everything(m1())),
            "m1+0 count=10, m1+2 count=12",
            (1, 2, false),
        ),
        (
            "a property nobody sent",
            only(&["rain"], 0, everything(m1())),
            "",
            (1, 0, false),
        ),
        (
            "two of four rows",
            only(&[], 2, everything(m1())),
            "m1+0 level=0, m1+0 count=10, m1+1 level=1",
            (1, 2, true),
        ),
        (
            "as many rows as there are",
            only(&[], 4, everything(m1())),
            whole,
            (1, 4, false),
        ),
        (
            "two devices",
            range(of_devices(&["m2", "m1"]), 1, 2),
            "m1+1 level=1, m2+1 level=11",
            (2, 2, false),
        ),
        (
            "a type",
            range(of_type(METER), 1, 2),
            "m1+1 level=1, m2+1 level=11",
            (3, 2, false),
        ),
        (
            "a town with two types",
            range(tagged(&[("town", &["a"])], ""), 2, 3),
            "m1+2 level=2, m1+2 count=12, r1+2 level=21",
            (2, 2, false),
        ),
        (
            "two towns",
            range(tagged(&[("town", &["b", "c"])], ""), 0, 9),
            "m2+1 level=11",
            (2, 1, false),
        ),
        (
            "a town and a use",
            range(tagged(&[("town", &["a", "b"]), ("use", &["x"])], ""), 1, 2),
            "m1+1 level=1, m2+1 level=11",
            (2, 2, false),
        ),
        (
            "a town of one type",
            range(tagged(&[("town", &["a"])], RELIC), 0, 9),
            "r1+2 level=21",
            (1, 1, false),
        ),
        (
            "a town nobody lives in",
            range(tagged(&[("town", &["z"])], ""), 0, 9),
            "",
            (0, 0, false),
        ),
        (
            "all of all time",
            everything(tagged(&[("town", &["b"])], "")),
            "m2+1 level=11",
            (1, 1, false),
        ),
    ];
    for (what, request, expected, counts) in cases {
        let (messages, summary) = client.query_range(request).await.unwrap().collect().await.unwrap();
        assert_eq!(brief(&points(&messages)), expected, "{what}");
        assert_eq!((summary.devices, summary.rows, summary.limited), counts, "{what}");
    }
}

#[tokio::test]
async fn long_ranges_come_in_order_and_in_pieces() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    // 20,000 rows over many buckets, sent in four interleaved batches.
    for part in 0..4 {
        let rows = (0..5_000).map(|i| ("m1", T0 + (i * 4 + part) * 7 * MIN, (i * 4 + part) as f64));
        client.write(write(batch(METER, "level", rows))).await.unwrap();
    }
    let (messages, summary) = client
        .query_range(everything(of_devices(&["m1"])))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert!(messages.len() > 1, "more than a message");
    assert_eq!(summary.rows, 20_000);
    for (i, (_, t, _, value)) in points(&messages).into_iter().enumerate() {
        assert_eq!((t, value), (T0 + i as i64 * 7 * MIN, Value::F64(i as f64)));
    }
    let limited = v1::QueryRangeRequest {
        limit: 12_345,
        ..everything(of_devices(&["m1"]))
    };
    let (messages, summary) = client.query_range(limited).await.unwrap().collect().await.unwrap();
    assert_eq!(
        (points(&messages).len(), summary.rows, summary.limited),
        (12_345, 12_345, true)
    );
}

#[tokio::test]
async fn what_came_with_a_row_comes_back_with_it() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let before = now_ns();
    let mut sent = BatchBuilder::new(METER);
    sent.row("m1", T0)
        .set_with_quality("level", 1.0, v1::Quality::Estimated)
        .set("count", 1)
        .report_kind(v1::ReportKind::Backfill);
    sent.row("m1", T0 + MIN)
        .set("level", 2.0)
        .report_kind(v1::ReportKind::Event);
    client.write(write(sent.build().unwrap())).await.unwrap();
    let (messages, _) = client
        .query_range(everything(of_devices(&["m1"])))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let rows: Vec<_> = messages
        .iter()
        .filter_map(|m| m.batch.as_ref())
        .flat_map(tidemark_client::rows)
        .collect();
    let kinds: Vec<_> = rows.iter().map(|row| row.report_kind).collect();
    assert_eq!(kinds, [v1::ReportKind::Backfill, v1::ReportKind::Event]);
    assert_eq!(rows[0].quality["level"], v1::Quality::Estimated);
    for row in rows {
        let received = row.received_at_ns.unwrap();
        assert!((before..=now_ns()).contains(&received), "{received}");
    }
}

#[tokio::test]
async fn questions_without_an_answer_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    small_town(&client).await;
    let no_type = "NOT_FOUND UNKNOWN_TYPE selector.device_type; tidemark type list";
    let no_device = "NOT_FOUND UNKNOWN_DEVICE selector.device_ids";
    let no_selector = "INVALID_ARGUMENT NO_SELECTOR selector; name device ids, a device type, tags or an area; every device: `everything`";
    let but_unknown = v1::Selector {
        none_of: of_type("nope").into_iter().collect(),
        ..of_type(METER).unwrap()
    };
    // These hold for every kind of question.
    let selectors: Vec<(&str, Option<v1::Selector>, &str)> = vec![
        ("an unknown device", of_devices(&["m9"]), no_device),
        (
            "an unknown device among known ones",
            of_devices(&["m1", "m9", "m2"]),
            no_device,
        ),
        (
            "an id that is none",
            of_devices(&["m1", "m 1"]),
            "INVALID_ARGUMENT INVALID_ID selector.device_ids[1]",
        ),
        ("an unknown type", of_type("nope"), no_type),
        ("an unknown type to be left out", Some(but_unknown), no_type),
        ("no selector", None, no_selector),
        ("an empty selector", Some(v1::Selector::default()), no_selector),
    ];
    for (what, selector, expected) in selectors {
        let range = cluster.at(0).range(everything(selector.clone())).await.expect_err(what);
        let latest = v1::GetLatestRequest {
            selector: selector.clone(),
            ..v1::GetLatestRequest::default()
        };
        let latest = cluster.at(0).latest(latest).await.expect_err(what);
        let aggregate = v1::QueryAggregateRequest {
            selector,
            functions: vec![1],
            to_ns: 1,
            ..v1::QueryAggregateRequest::default()
        };
        let aggregate = cluster.at(0).aggregate(aggregate).await.expect_err(what);
        assert_eq!(
            [shown(&range), shown(&latest), shown(&aggregate)],
            [expected; 3],
            "{what}"
        );
    }
    let unknown = |selector| v1::QueryRangeRequest {
        properties: vec!["level".into(), "depth".into()],
        ..everything(selector)
    };
    let no_property = "NOT_FOUND UNKNOWN_PROPERTY properties[1]; tidemark type show test-meter";
    let reversed = v1::QueryRangeRequest {
        from_ns: 5,
        to_ns: 4,
        ..everything(of_type(METER))
    };
    let ranges: Vec<(&str, v1::QueryRangeRequest, &str)> = vec![
        ("an unknown property of a type", unknown(of_type(METER)), no_property),
        (
            "an unknown property of a device",
            unknown(of_devices(&["m1"])),
            no_property,
        ),
        (
            "from after to",
            reversed,
            "INVALID_ARGUMENT RANGE_REVERSED from_ns; swap from and to",
        ),
    ];
    for (what, request, expected) in ranges {
        // Through the library: an error of the request is not tried again and reads the same.
        let answer = match client.query_range(request).await {
            Ok(answer) => answer.collect().await.map(|_| ()),
            Err(error) => Err(error),
        };
        assert_eq!(shown(&answer.expect_err(what)), expected, "{what}");
    }
    let negative = v1::GetLatestRequest {
        selector: of_type(METER),
        stale_after_ms: -1,
        ..v1::GetLatestRequest::default()
    };
    let error = client.get_latest(negative).await.unwrap_err();
    assert_eq!(shown(&error), "INVALID_ARGUMENT INVALID_VALUE stale_after_ms");
}

async fn ask_latest(client: &Client, request: v1::GetLatestRequest) -> (Vec<v1::GetLatestResponse>, v1::AnswerSummary) {
    client.get_latest(request).await.unwrap().collect().await.unwrap()
}

fn latest_of(selector: Option<v1::Selector>) -> v1::GetLatestRequest {
    v1::GetLatestRequest {
        selector,
        ..v1::GetLatestRequest::default()
    }
}

#[tokio::test]
async fn the_newest_value_of_each_property_is_kept_whatever_the_order() {
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "r1"]).await;
    let at = |minute: i64| T0 + minute * MIN;
    let level = |minute: i64, value: f64| batch(METER, "level", [("m1", at(minute), value)]);
    let mut many = BatchBuilder::new(METER);
    for minute in [5, 9, 2, 7] {
        many.row("m1", at(minute)).set("level", 700.0 + minute as f64);
    }
    many.row("m1", at(8)).set("count", 8);
    // What is written, and the latest values after it.
    let steps: Vec<(&str, v1::Batch, &str)> = vec![
        ("the first", level(1, 1.0), "level=1@1"),
        ("a newer one", level(4, 4.0), "level=4@4"),
        ("an older one", level(2, 2.0), "level=4@4"),
        ("backfill of long ago", level(-100_000, 0.0), "level=4@4"),
        ("the same time again", level(4, 44.0), "level=44@4"),
        (
            "another property, older",
            batch(METER, "count", [("m1", at(3), 3)]),
            "count=3@3 level=44@4",
        ),
        (
            "many rows, shuffled, two properties",
            many.build().unwrap(),
            "count=8@8 level=709@9",
        ),
        (
            "a label",
            batch(METER, "mode", [("m1", at(0), Value::Enum("fast".into()))]),
            "count=8@8 level=709@9 mode=fast@0",
        ),
    ];
    let seen = async |client: &Client| {
        let (messages, _) = ask_latest(client, latest_of(of_devices(&["m1"]))).await;
        let shown = |((_, property), (t, value)): (&(String, String), &(i64, Value))| {
            format!("{property}={value}@{}", (t - T0) / MIN)
        };
        latest(&messages).iter().map(shown).collect::<Vec<_>>().join(" ")
    };
    for (what, batch, expected) in steps {
        client.write(write(batch)).await.unwrap();
        assert_eq!(seen(&client).await, expected, "{what}");
    }
    cluster.stop(0).await;
    cluster.restart(0).await;
    assert_eq!(
        seen(&client).await,
        "count=8@8 level=709@9 mode=fast@0",
        "after a restart"
    );
    // A device that never sent anything is there, without values.
    let (messages, summary) = ask_latest(&client, latest_of(of_type(METER))).await;
    let silent = messages
        .iter()
        .flat_map(|m| &m.devices)
        .find(|device| device.device == "m2")
        .unwrap();
    assert_eq!(
        (silent.device_type.as_str(), silent.values.len(), summary.devices),
        (METER, 0, 2)
    );
}

#[tokio::test]
async fn latest_values_say_how_old_and_how_good_they_are() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "m3", "m4", "r1"]).await;
    let now = now_ns();
    let mut sent = BatchBuilder::new(METER);
    sent.row("m1", now)
        .set_with_quality("level", 1.0, v1::Quality::Manual)
        .report_kind(v1::ReportKind::Event);
    sent.row("m1", now - 10 * MIN).set("count", 1);
    client.write(write(sent.build().unwrap())).await.unwrap();
    // The type promises a record a minute: three minutes of silence make a value stale, unless the question says otherwise.
    for (stale_after_ms, expected) in [(0, [false, true]), (1_000 * 3_600, [false, false]), (1, [true, true])] {
        let request = v1::GetLatestRequest {
            stale_after_ms,
            ..latest_of(of_devices(&["m1"]))
        };
        let asked = crate::common::eventually("a millisecond goes by", || async {
            if now_ns() > now + 5_000_000 {
                Ok(())
            } else {
                Err(String::new())
            }
        });
        asked.await;
        let (messages, _) = ask_latest(&client, request).await;
        assert!(messages[0].evaluated_at_ns >= now);
        let stale: Vec<_> = messages[0].devices[0].values.iter().map(|v| v.stale).collect();
        assert_eq!(stale, expected, "stale after {stale_after_ms} ms");
    }
    let (messages, _) = ask_latest(
        &client,
        v1::GetLatestRequest {
            properties: vec!["level".into()],
            ..latest_of(of_devices(&["m1"]))
        },
    )
    .await;
    let values = &messages[0].devices[0].values;
    assert_eq!(values.len(), 1, "only what was asked for");
    assert_eq!(
        (values[0].quality(), values[0].report_kind()),
        (v1::Quality::Manual, v1::ReportKind::Event)
    );
    assert!((now..=now_ns()).contains(&values[0].received_at_ns));

    for (limit, devices, limited) in [(3, 3, true), (4, 4, false), (0, 4, false)] {
        let (messages, summary) = ask_latest(
            &client,
            v1::GetLatestRequest {
                limit,
                ..latest_of(of_type(METER))
            },
        )
        .await;
        let sent: usize = messages.iter().map(|m| m.devices.len()).sum();
        assert_eq!(
            (sent, summary.rows, summary.limited),
            (devices as usize, devices, limited),
            "limit {limit}"
        );
    }
}
