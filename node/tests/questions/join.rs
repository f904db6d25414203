//! Joins by time through the public client: a town of underpasses and rain gauges small enough to read.
//! Never here: random series (see `random/joins.rs`). Invariant: every expected line says the record, and what belongs to it.

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, Value, joined_rows, v1};
use v1::{JoinDirection, Kind, Quality, ValueType};

const UNDERPASS: &str = "test-underpass";
pub(crate) const GAUGE: &str = "test-gauge";

/// So many minutes after noon.
pub(crate) fn at(minute: i64) -> i64 {
    T0 + minute * MIN
}

fn standing(id: &str, device_type: &str, town: &str, longitude_deg: Option<f64>) -> v1::Device {
    let tags: &[(&str, &str)] = if town.is_empty() { &[] } else { &[("town", town)] };
    v1::Device {
        place: longitude_deg.map(|longitude_deg| v1::Place {
            latitude_deg: 30.7,
            longitude_deg,
        }),
        ..device(id, device_type, tags)
    }
}

/// Two types that promise a point in five minutes, three underpasses and three gauges. Rain in minutes after noon: of `g1` 1.0 at 1,
/// 2.0 at 6, a failed 9.9 at 11, 30.0, which no gauge can tell, at 12, and 3.0 at 20; of `g2` 5.0 at 5; of `g3` nothing.
pub(crate) async fn town(client: &Client) {
    let depth = v1::Property {
        min: Some(0.0),
        max: Some(2.0),
        attributes: [("spike".to_owned(), "0.2".to_owned())].into(),
        ..property("depth", ValueType::F64, Kind::Gauge)
    };
    let rain = v1::Property {
        min: Some(0.0),
        max: Some(25.4),
        ..property("rain", ValueType::F64, Kind::Increment)
    };
    let pump = v1::Property {
        labels: vec!["off".into(), "on".into()],
        ..property("pump", ValueType::Enum, Kind::State)
    };
    let made = |id: &str, properties| v1::DeviceType {
        id: id.into(),
        properties,
        sample_interval_s: 300,
        bucket_span_s: 3_600,
        ..v1::DeviceType::default()
    };
    let note = property("note", ValueType::Text, Kind::Event);
    let types = vec![made(UNDERPASS, vec![depth, pump]), made(GAUGE, vec![rain, note])];
    client.apply_device_types(types).await.unwrap();
    let devices = vec![
        standing("u1", UNDERPASS, "a", Some(121.00)),
        standing("u2", UNDERPASS, "b", Some(121.10)),
        standing("u3", UNDERPASS, "", None),
        standing("g1", GAUGE, "a", Some(121.01)),
        standing("g2", GAUGE, "a", Some(121.05)),
        standing("g3", GAUGE, "b", Some(121.09)),
    ];
    client.register_devices(devices).await.unwrap();
    let depths = [(0, 0.1), (5, 0.2), (10, 0.3), (60, 0.4)];
    let rows = depths.map(|(minute, value)| ("u1", at(minute), value));
    client.write(write(batch(UNDERPASS, "depth", rows))).await.unwrap();
    let mut rain = BatchBuilder::new(GAUGE);
    for (minute, value) in [(1, 1.0), (6, 2.0), (12, 30.0), (20, 3.0)] {
        rain.row("g1", at(minute)).set("rain", value);
    }
    rain.row("g1", at(11)).set_with_quality("rain", 9.9, Quality::Fail);
    rain.row("g2", at(5)).set("rain", 5.0);
    client.write(write(rain.build().unwrap())).await.unwrap();
}

/// The first two hours of underpass `u1`, joined.
pub(crate) fn ask_of(right: Vec<v1::JoinSide>) -> v1::QueryJoinRequest {
    v1::QueryJoinRequest {
        selector: of_devices(&["u1"]),
        properties: vec!["depth".into()],
        from_ns: at(0),
        to_ns: at(120),
        right,
        ..Default::default()
    }
}

pub(crate) fn rain_of(ids: &[&str]) -> v1::JoinSide {
    v1::JoinSide {
        selector: of_devices(ids),
        properties: vec!["rain".into()],
        ..Default::default()
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::F64(value) => format!("{value:?}"),
        Value::Enum(value) | Value::Text(value) => value.clone(),
        other => panic!("{other:?}"),
    }
}

/// Records in lines: `u1@5 g1.rain=1.0@1`, times in minutes after noon, nothing where nothing belongs.
pub(crate) async fn told(client: &Client, request: v1::QueryJoinRequest) -> (Vec<String>, v1::AnswerSummary) {
    let answer = client.query_join(request).await.unwrap();
    let (messages, summary) = answer.collect().await.unwrap();
    let minute = |t: i64| (t - T0) / MIN;
    let mut lines = Vec::new();
    for records in messages.iter().flat_map(|message| &message.joined) {
        for joined in joined_rows(records) {
            let mut line = format!("{}@{}", joined.row.device, minute(joined.row.observed_at_ns));
            for (column, value) in records.columns.iter().zip(&joined.values) {
                line += &format!(" {}.{}=", column.device, column.property);
                if let Some((value, t)) = value {
                    line += &format!("{}@{}", text(value), minute(*t));
                }
            }
            lines.push(line);
        }
    }
    assert_eq!(summary.rows, lines.len() as u64);
    (lines, summary)
}

async fn check(client: &Client, request: v1::QueryJoinRequest, expected: &[&str]) {
    let what = format!("{request:?}");
    assert_eq!(told(client, request).await.0, expected, "{what}");
}

async fn refused(client: &Client, request: v1::QueryJoinRequest) -> String {
    match client.query_join(request).await {
        Err(error) => shown(&error),
        Ok(answer) => shown(&answer.collect().await.unwrap_err()),
    }
}

#[tokio::test]
async fn records_are_told_with_what_belongs_to_them() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    town(&client).await;
    let toward = |direction: JoinDirection| v1::JoinSide {
        direction: direction as i32,
        ..rain_of(&["g1"])
    };
    let one = |side| ask_of(vec![side]);

    let backward = [
        "u1@0 g1.rain=",
        "u1@5 g1.rain=1.0@1",
        "u1@10 g1.rain=2.0@6",
        "u1@60 g1.rain=",
    ];
    check(&client, one(rain_of(&["g1"])), &backward).await;
    check(&client, one(toward(JoinDirection::Backward)), &backward).await;
    let forward = [
        "u1@0 g1.rain=1.0@1",
        "u1@5 g1.rain=2.0@6",
        "u1@10 g1.rain=3.0@20",
        "u1@60 g1.rain=",
    ];
    check(&client, one(toward(JoinDirection::Forward)), &forward).await;
    let nearest = [
        "u1@0 g1.rain=1.0@1",
        "u1@5 g1.rain=2.0@6",
        "u1@10 g1.rain=2.0@6",
        "u1@60 g1.rain=",
    ];
    check(&client, one(toward(JoinDirection::Nearest)), &nearest).await;

    // Forty minutes are more than three intervals of five; said otherwise, they are not too far.
    let within = |tolerance_ms| {
        ask_of(vec![v1::JoinSide {
            tolerance_ms,
            ..rain_of(&["g1"])
        }])
    };
    let last = |request: v1::QueryJoinRequest| v1::QueryJoinRequest {
        from_ns: at(60),
        ..request
    };
    check(&client, last(within(40 * 60_000)), &["u1@60 g1.rain=3.0@20"]).await;
    check(&client, last(within(40 * 60_000 - 1)), &["u1@60 g1.rain="]).await;
    let however_far = v1::JoinSide {
        however_far: true,
        ..rain_of(&["g1"])
    };
    check(&client, last(one(however_far.clone())), &["u1@60 g1.rain=3.0@20"]).await;

    // What lies around the range of the left side belongs to it too.
    let around = |right| v1::QueryJoinRequest {
        from_ns: at(5),
        to_ns: at(6),
        ..one(right)
    };
    check(&client, around(rain_of(&["g1"])), &["u1@5 g1.rain=1.0@1"]).await;
    check(&client, around(toward(JoinDirection::Forward)), &["u1@5 g1.rain=2.0@6"]).await;

    // The very time counts, unless it must not.
    let strictly = v1::JoinSide {
        strictly: true,
        ..rain_of(&["g2"])
    };
    check(&client, around(rain_of(&["g2"])), &["u1@5 g2.rain=5.0@5"]).await;
    check(&client, around(strictly), &["u1@5 g2.rain="]).await;

    // Several sides, in the order in which they were asked for; a side of several devices, by id.
    let sides = ask_of(vec![rain_of(&["g3", "g2", "g1"]), however_far]);
    let both = ["u1@60 g1.rain= g2.rain= g3.rain= g1.rain=3.0@20"];
    check(&client, last(sides), &both).await;

    // A point that comes late, and one that is corrected.
    let late = [("g1", at(9), 7.0), ("g1", at(1), 1.5)];
    client.write(write(batch(GAUGE, "rain", late))).await.unwrap();
    let late = [
        "u1@0 g1.rain=",
        "u1@5 g1.rain=1.5@1",
        "u1@10 g1.rain=7.0@9",
        "u1@60 g1.rain=",
    ];
    check(&client, one(rain_of(&["g1"])), &late).await;
}

#[tokio::test]
async fn what_does_not_count_is_passed_over() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    town(&client).await;
    let depths = [(0, 0.0), (5, 1.9), (10, 0.0), (55, 0.0), (60, 1.7), (65, 0.0)];
    let rows = depths.map(|(minute, value)| ("u2", at(minute), value));
    client.write(write(batch(UNDERPASS, "depth", rows))).await.unwrap();

    let forward = v1::JoinSide {
        direction: JoinDirection::Forward as i32,
        ..rain_of(&["g1"])
    };
    let at_ten = v1::QueryJoinRequest {
        from_ns: at(10),
        to_ns: at(12),
        ..ask_of(vec![forward])
    };
    let (lines, summary) = told(&client, at_ten.clone()).await;
    assert_eq!(lines, ["u1@10 g1.rain=3.0@20"]);
    assert_eq!(
        summary.points_dropped, 1,
        "the failed one at 11; that at 12 is outside of the range"
    );
    let any = v1::QueryJoinRequest {
        any_quality: true,
        ..at_ten
    };
    let (lines, summary) = told(&client, any).await;
    assert_eq!(
        (lines, summary.points_dropped),
        (vec!["u1@10 g1.rain=9.9@11".to_owned()], 0)
    );

    // A spike is one because of its neighbours: inside of the range, before it and behind it.
    let depth = |ids: &[&str], direction: JoinDirection| v1::JoinSide {
        selector: of_devices(ids),
        properties: vec!["depth".into()],
        direction: direction as i32,
        ..Default::default()
    };
    let of_rain = |from: i64, to: i64, right| v1::QueryJoinRequest {
        selector: of_devices(&["g1"]),
        properties: vec!["rain".into()],
        from_ns: at(from),
        to_ns: at(to),
        right: vec![right],
        ..Default::default()
    };
    let backward = || depth(&["u2"], JoinDirection::Backward);
    check(
        &client,
        of_rain(0, 7, backward()),
        &["g1@1 u2.depth=0.0@0", "g1@6 u2.depth=0.0@0"],
    )
    .await;
    check(&client, of_rain(6, 7, backward()), &["g1@6 u2.depth=0.0@0"]).await;
    let forward = || depth(&["u2"], JoinDirection::Forward);
    check(&client, of_rain(1, 2, forward()), &["g1@1 u2.depth=0.0@10"]).await;
    // From the bucket before, too.
    let rows = [("g1", at(63), 4.0)];
    client.write(write(batch(GAUGE, "rain", rows))).await.unwrap();
    check(&client, of_rain(63, 64, backward()), &["g1@63 u2.depth=0.0@55"]).await;

    // A left record that failed is none.
    let (lines, summary) = told(&client, of_rain(10, 25, backward())).await;
    assert_eq!(lines, ["g1@20 u2.depth=0.0@10"]);
    assert_eq!(summary.points_dropped, 2, "of the left side");

    // Labels and texts belong to records as numbers do.
    let mut said = BatchBuilder::new(GAUGE);
    said.row("g3", at(3)).set("note", "cleaned");
    client.write(write(said.build().unwrap())).await.unwrap();
    let label = ("u3", at(2), Value::Enum("on".into()));
    client.write(write(batch(UNDERPASS, "pump", [label]))).await.unwrap();
    let all = |ids: &[&str]| v1::JoinSide {
        selector: of_devices(ids),
        ..Default::default()
    };
    let told_of = v1::QueryJoinRequest {
        to_ns: at(6),
        ..ask_of(vec![all(&["g3"]), all(&["u3"])])
    };
    let expected = [
        "u1@0 g3.rain= g3.note= u3.depth= u3.pump=",
        "u1@5 g3.rain= g3.note=cleaned@3 u3.depth= u3.pump=on@2",
    ];
    check(&client, told_of, &expected).await;
}

#[tokio::test]
async fn devices_belong_to_each_other_by_tag_place_and_id() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    town(&client).await;
    let rows = ["u2", "u3"].map(|id| (id, at(5), 0.0));
    client.write(write(batch(UNDERPASS, "depth", rows))).await.unwrap();
    let matched = |matching: v1::JoinMatch| v1::QueryJoinRequest {
        selector: of_type(UNDERPASS),
        from_ns: at(5),
        to_ns: at(6),
        ..ask_of(vec![v1::JoinSide {
            selector: of_type(GAUGE),
            r#match: Some(matching),
            ..rain_of(&[])
        }])
    };
    let lines = async |matching| {
        let (mut lines, _) = told(&client, matched(matching)).await;
        lines.sort();
        lines
    };
    let tags = v1::JoinMatch {
        tags: vec!["town".into()],
        ..Default::default()
    };
    let by_town = ["u1@5 g1.rain=1.0@1 g2.rain=5.0@5", "u2@5 g3.rain=", "u3@5"];
    assert_eq!(lines(tags).await, by_town);
    let nearest = v1::JoinMatch {
        nearest: 1,
        ..Default::default()
    };
    assert_eq!(lines(nearest).await, ["u1@5 g1.rain=1.0@1", "u2@5 g3.rain=", "u3@5"]);
    let within = v1::JoinMatch {
        within_m: 5_000.0,
        ..Default::default()
    };
    assert_eq!(
        lines(within).await,
        [
            "u1@5 g1.rain=1.0@1 g2.rain=5.0@5",
            "u2@5 g2.rain=5.0@5 g3.rain=",
            "u3@5"
        ]
    );
    // Another value of the device itself.
    let pumps = [
        ("u1", at(4), Value::Enum("on".into())),
        ("u2", at(3), Value::Enum("off".into())),
    ];
    client.write(write(batch(UNDERPASS, "pump", pumps))).await.unwrap();
    let own = v1::JoinSide {
        selector: of_type(UNDERPASS),
        properties: vec!["pump".into()],
        r#match: Some(v1::JoinMatch {
            same_device: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = v1::QueryJoinRequest {
        right: vec![own],
        ..matched(v1::JoinMatch::default())
    };
    let (mut own, _) = told(&client, request).await;
    own.sort();
    assert_eq!(own, ["u1@5 u1.pump=on@4", "u2@5 u2.pump=off@3", "u3@5 u3.pump="]);
}

#[tokio::test]
async fn pages_together_are_the_whole_answer() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    town(&client).await;
    let rows = (0..30).map(|minute| ("u2", at(minute), 0.5));
    client.write(write(batch(UNDERPASS, "depth", rows))).await.unwrap();
    let whole = v1::QueryJoinRequest {
        selector: of_type(UNDERPASS),
        ..ask_of(vec![rain_of(&["g1", "g2"])])
    };
    let (expected, summary) = told(&client, whole.clone()).await;
    assert_eq!((expected.len(), summary.limited, summary.devices), (34, false, 3));
    let (mut found, mut cursor) = (Vec::new(), Default::default());
    for page in 0.. {
        assert!(page < 6, "it ends");
        let request = v1::QueryJoinRequest {
            limit: 7,
            cursor,
            ..whole.clone()
        };
        let (lines, summary) = told(&client, request).await;
        found.extend(lines);
        cursor = summary.next_cursor;
        if cursor.is_empty() {
            break;
        }
        assert!(summary.limited);
        let other = v1::QueryJoinRequest {
            cursor: cursor.clone(),
            drop_suspect: true,
            ..whole.clone()
        };
        let error = refused(&client, other).await;
        assert!(error.starts_with("INVALID_ARGUMENT INVALID_CURSOR cursor"), "{error}");
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_a_join_costs_is_said_and_bounded() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    town(&client).await;
    let request = v1::QueryJoinRequest {
        explain: true,
        any_quality: true,
        ..ask_of(vec![rain_of(&["g1", "g2"])])
    };
    let (_, summary) = told(&client, request.clone()).await;
    let explain = summary.explain.unwrap();
    let total = explain.total.unwrap();
    assert_eq!(summary.points_read, total.points_decoded, "of all sides");
    // Four depths, and ten values of rain: five of g1 in one bucket, one of g2; what lies before and behind is looked for too.
    assert!(total.points_decoded >= 4 + 6, "{total:?}");
    assert_eq!(summary.devices, 1, "of the left side");
    let shards: Vec<u32> = explain.shards.iter().map(|work| work.shard).collect();
    assert!(
        shards.len() >= 3,
        "the right side's devices and points, and the left side: {shards:?}"
    );
    for i in 0..3 {
        let held = cluster.metric(i, "tidemark_query_bytes_held").await;
        assert_eq!(held, 0, "given back by node {i}");
    }
    let few = v1::QueryJoinRequest {
        points_max: 3,
        ..request.clone()
    };
    let error = refused(&client, few).await;
    assert!(
        error.starts_with("RESOURCE_EXHAUSTED TOO_MANY_POINTS right[0]"),
        "{error}"
    );
    // The right side fits; of the left one the first hour will do.
    let rows = (100..110).map(|minute| ("u1", at(minute), 0.5));
    client.write(write(batch(UNDERPASS, "depth", rows))).await.unwrap();
    let most = total.points_decoded;
    let part = v1::QueryJoinRequest {
        points_max: most - 2,
        partial_ok: true,
        ..request.clone()
    };
    let (lines, summary) = told(&client, part).await;
    let budget = summary.cut_short.map(|cut| cut.budget());
    assert_eq!(
        (budget, summary.next_cursor.is_empty()),
        (Some(v1::Budget::Points), false)
    );
    assert_eq!(lines.len(), 3, "{lines:?}");
    let none = v1::QueryJoinRequest {
        points_max: 3,
        partial_ok: true,
        ..request
    };
    let error = refused(&client, none).await;
    assert!(
        error.starts_with("RESOURCE_EXHAUSTED TOO_MANY_POINTS right[0]"),
        "a right side is whole: {error}"
    );
}

#[tokio::test]
async fn questions_without_meaning_are_refused() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    town(&client).await;
    let many: Vec<v1::Device> = (0..129).map(|n| device(&format!("g-{n:03}"), GAUGE, &[])).collect();
    client.register_devices(many).await.unwrap();
    let one = |side| ask_of(vec![rain_of(&["g1"]), side]);
    let with = |change: fn(&mut v1::JoinSide)| {
        let mut side = rain_of(&["g2"]);
        change(&mut side);
        one(side)
    };
    let matching = |matching| {
        one(v1::JoinSide {
            r#match: Some(matching),
            ..rain_of(&["g2"])
        })
    };
    let cases = [
        (ask_of(vec![]), "INVALID_ARGUMENT MISSING_FIELD right"),
        (
            ask_of(vec![rain_of(&["g1"]); 9]),
            "INVALID_ARGUMENT INVALID_VALUE right",
        ),
        (
            v1::QueryJoinRequest {
                from_ns: at(121),
                ..one(rain_of(&["g1"]))
            },
            "INVALID_ARGUMENT RANGE_REVERSED from_ns",
        ),
        (
            v1::QueryJoinRequest {
                selector: None,
                ..one(rain_of(&["g1"]))
            },
            "INVALID_ARGUMENT NO_SELECTOR selector",
        ),
        (
            v1::QueryJoinRequest {
                selector: of_devices(&["u9"]),
                ..one(rain_of(&["g1"]))
            },
            "NOT_FOUND UNKNOWN_DEVICE selector.device_ids",
        ),
        (
            one(rain_of(&["g9"])),
            "NOT_FOUND UNKNOWN_DEVICE right[1].selector.device_ids",
        ),
        (
            with(|side| side.selector = of_type("nothing")),
            "NOT_FOUND UNKNOWN_TYPE right[1].selector.device_type",
        ),
        (
            with(|side| side.selector = None),
            "INVALID_ARGUMENT NO_SELECTOR right[1].selector",
        ),
        (
            with(|side| side.properties = vec!["rain".into(), "snow".into()]),
            "NOT_FOUND UNKNOWN_PROPERTY right[1].properties[1]",
        ),
        (
            v1::QueryJoinRequest {
                properties: vec!["snow".into()],
                ..one(rain_of(&["g1"]))
            },
            "NOT_FOUND UNKNOWN_PROPERTY properties[0]",
        ),
        (
            with(|side| side.direction = 9),
            "INVALID_ARGUMENT INVALID_VALUE right[1].direction",
        ),
        (
            with(|side| side.tolerance_ms = -1),
            "INVALID_ARGUMENT INVALID_VALUE right[1].tolerance_ms",
        ),
        (
            with(|side| (side.tolerance_ms, side.however_far) = (1, true)),
            "INVALID_ARGUMENT INVALID_VALUE right[1].tolerance_ms",
        ),
        (
            matching(v1::JoinMatch {
                within_m: f64::NAN,
                ..Default::default()
            }),
            "INVALID_ARGUMENT INVALID_VALUE right[1].match.within_m",
        ),
        (
            with(|side| side.selector = of_type(GAUGE)),
            "RESOURCE_EXHAUSTED TOO_MANY_SERIES right",
        ),
    ];
    for (request, expected) in cases {
        let what = format!("{request:?}");
        let error = refused(&client, request).await;
        let (said, _) = error.split_once(';').unwrap_or((&error, ""));
        assert_eq!(said, expected, "{what}");
    }
}
