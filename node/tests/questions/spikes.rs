//! Spikes at the ends of a question: whether a point is one is decided by points around it, also where these lie outside of what is
//! asked for, and aggregates, ranges, quality and newest values agree about it.
//! Never here: other checks (see `flat`, `intervals`), random points (see `random/recorded_answers`).

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, Value, answers_of, v1, value_at};
use v1::{Kind, Quality, ValueType};

const PROBE: &str = "test-spiky";

/// A gauge, whose windows are [s, e), and a mean, whose windows are (s, e]; buckets are short.
async fn furnish_probe(client: &Client, id: &str) {
    let spiky = |id: &str, kind: Kind| v1::Property {
        max: Some(100.0),
        attributes: [("spike".to_owned(), "1.5".to_owned())].into(),
        ..property(id, ValueType::F64, kind)
    };
    let probe = v1::DeviceType {
        id: PROBE.into(),
        properties: vec![spiky("level", Kind::Gauge), spiky("flow", Kind::Mean)],
        sample_interval_s: 60,
        bucket_span_s: 300,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![probe]).await.unwrap();
    client.register_devices(vec![device(id, PROBE, &[])]).await.unwrap();
}

/// Sends points by minute, each received five seconds later.
async fn send(client: &Client, device: &str, points: &[(i64, f64, Quality)]) {
    let mut batch = BatchBuilder::new(PROBE);
    for (minute, value, stated) in points {
        let t = T0 + minute * MIN;
        let row = batch.row(device, t).received_at(t + 5 * S);
        let row = row.set_with_quality("level", Value::F64(*value), *stated);
        row.set_with_quality("flow", Value::F64(*value), *stated);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

fn plain(points: &[(i64, f64)]) -> Vec<(i64, f64, Quality)> {
    let unstated = |(minute, value): &(i64, f64)| (*minute, *value, Quality::Unspecified);
    points.iter().map(unstated).collect()
}

/// How many points aggregates left out of a time, and how many are in it for them.
async fn by_aggregate(client: &Client, device: &str, property: &str, span: (i64, i64), known: i64) -> (u64, u64) {
    let request = v1::QueryAggregateRequest {
        selector: of_devices(&[device]),
        properties: vec![property.into()],
        functions: vec![v1::Function::Count as i32],
        from_ns: span.0,
        to_ns: span.1,
        known_at_ns: known,
        ..Default::default()
    };
    let (messages, summary) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
    let series = messages.into_iter().flat_map(|message| message.series).next();
    let count = series.and_then(|series| answers_of(&series.columns[0]).next().flatten());
    match count {
        Some(Value::I64(count)) => (summary.points_dropped, summary.points_dropped + count as u64),
        None => (summary.points_dropped, summary.points_dropped),
        other => panic!("{other:?}"),
    }
}

/// The same of a range without points that failed.
async fn by_range(client: &Client, device: &str, property: &str, span: (i64, i64), known: i64) -> (u64, u64) {
    let request = v1::QueryRangeRequest {
        selector: of_devices(&[device]),
        properties: vec![property.into()],
        from_ns: span.0,
        to_ns: span.1,
        known_at_ns: known,
        quality: Some(v1::QualityFilter {
            drop_failed: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let (_, summary) = client.query_range(request).await.unwrap().collect().await.unwrap();
    (summary.points_dropped, summary.points_dropped + summary.rows)
}

/// The same of a report.
async fn by_quality(client: &Client, device: &str, property: &str, span: (i64, i64), known: i64) -> (u64, u64) {
    let request = v1::GetQualityRequest {
        selector: of_devices(&[device]),
        property: property.into(),
        from_ns: span.0,
        to_ns: span.1,
        known_at_ns: known,
        ..Default::default()
    };
    let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    let report = &messages[0].reports[0];
    (report.points_fail, report.points)
}

/// All say that so many points within some minutes fail, of so many.
#[track_caller]
fn check<'c>(
    client: &'c Client,
    device: &'c str,
    minutes: (i64, i64),
    known: i64,
    expected: (u64, u64),
) -> impl Future<Output = ()> + 'c {
    let caller = std::panic::Location::caller();
    async move {
        let span = (T0 + minutes.0 * MIN, T0 + minutes.1 * MIN);
        for (property, shift) in [("level", 0), ("flow", 1)] {
            // Windows of a mean end with their points.
            let minute = |ns: i64| ns - shift * MIN;
            let span = (minute(span.0), minute(span.1));
            let range = (span.0 + shift, span.1 + shift);
            let told = [
                by_aggregate(client, device, property, span, known).await,
                by_range(client, device, property, range, known).await,
                by_quality(client, device, property, span, known).await,
            ];
            assert_eq!(told, [expected; 3], "{property} at {caller}");
        }
    }
}

#[tokio::test]
async fn the_last_point_is_judged_by_the_next_one_behind_the_question() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_probe(&client, "p1").await;
    send(
        &client,
        "p1",
        &plain(&[(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 9.0)]),
    )
    .await;
    check(&client, "p1", (0, 5), 0, (0, 5)).await;
    check(&client, "p1", (0, 8), 0, (0, 5)).await;

    // What failed by itself decides nothing; the next one that counts does, from another bucket.
    let failed = [(5, 1.0, Quality::Fail), (6, 900.0, Quality::Unspecified)];
    send(&client, "p1", &failed).await;
    check(&client, "p1", (0, 5), 0, (0, 5)).await;
    send(&client, "p1", &plain(&[(7, 1.0)])).await;
    let all = [((0, 5), (1, 5)), ((0, 4), (0, 4)), ((4, 5), (1, 1)), ((2, 10), (3, 6))];
    for (minutes, expected) in all {
        check(&client, "p1", minutes, 0, expected).await;
    }
    // Before it was there nobody knew.
    let known = |minute: i64| T0 + minute * MIN + 6 * S;
    for (at, expected) in [(3, (0, 4)), (4, (0, 5)), (6, (0, 5)), (7, (1, 5))] {
        check(&client, "p1", (0, 5), known(at), expected).await;
    }
    // A correction may clear it again, and another one bring it back.
    for (value, expected) in [(9.0, (0, 5)), (1.2, (1, 5))] {
        send(&client, "p1", &plain(&[(7, value)])).await;
        check(&client, "p1", (0, 5), 0, expected).await;
    }
}

#[tokio::test]
async fn who_comes_too_late_is_no_neighbour() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    for (id, next, expected) in [("p3", 7, (1, 5)), ("p4", 8, (0, 5))] {
        furnish_probe(&client, id).await;
        send(
            &client,
            id,
            &plain(&[(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 9.0), (next, 1.0)]),
        )
        .await;
        check(&client, id, (0, 5), 0, expected).await;
    }
}

#[tokio::test]
async fn a_chain_of_spikes_is_judged_from_where_it_begins() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    for (id, begin, odd) in [("low", [1.0, 1.2], 9.0), ("high", [9.0, 8.8], 1.0)] {
        furnish_probe(&client, id).await;
        let usual = begin[0];
        let value = |minute: i64| match minute {
            0 | 1 => begin[minute as usize],
            _ if minute % 2 == 0 => odd,
            _ => usual,
        };
        let points: Vec<(i64, f64)> = (0..=60).map(|minute| (minute, value(minute))).collect();
        send(&client, id, &plain(&points)).await;
        for (minutes, fails) in [
            ((0, 61), 29),
            ((40, 45), 3),
            ((41, 45), 2),
            ((44, 45), 1),
            ((45, 46), 0),
        ] {
            let points = (minutes.1 - minutes.0) as u64;
            check(&client, id, minutes, 0, (fails, points)).await;
        }
        // The last one is the only odd one that nobody knows of yet.
        check(&client, id, (59, 61), 0, (0, 2)).await;
    }
}

/// In the place of a minute.
const NOW: i64 = i64::MAX;

/// The newest level at a minute and when it was observed, by what was known at a time.
async fn newest(client: &Client, device: &str, minute: i64, known: i64) -> (f64, i64) {
    let request = v1::GetLatestRequest {
        selector: of_devices(&[device]),
        properties: vec!["level".into()],
        at_ns: if minute == NOW { 0 } else { T0 + minute * MIN },
        known_at_ns: known,
        ..Default::default()
    };
    let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
    let told = &messages[0].devices[0].values[0];
    match value_at(told.value.as_ref().unwrap(), 0) {
        Some(Value::F64(level)) => (level, (told.observed_at_ns - T0) / MIN),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_newest_value_is_none_that_is_known_to_be_a_spike() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_probe(&client, "p1").await;
    let first = [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.1), (4, 9.0)];
    send(&client, "p1", &plain(&first)).await;
    for minute in [4, 6, NOW] {
        assert_eq!(newest(&client, "p1", minute, 0).await, (9.0, 4), "nothing came since");
    }
    send(&client, "p1", &[(5, 1.0, Quality::Fail)]).await;
    assert_eq!(
        newest(&client, "p1", NOW, 0).await,
        (9.0, 4),
        "nor anything that counts"
    );

    // Afterwards it is known, also of the time before; of what was known then, it is not.
    send(&client, "p1", &plain(&[(7, 1.2)])).await;
    let told = [
        (3, (1.1, 3)),
        (4, (1.1, 3)),
        (6, (1.1, 3)),
        (7, (1.2, 7)),
        (NOW, (1.2, 7)),
    ];
    for (minute, expected) in told {
        assert_eq!(newest(&client, "p1", minute, 0).await, expected, "at {minute}");
    }
    let known = |minute: i64| T0 + minute * MIN + 6 * S;
    assert_eq!(newest(&client, "p1", 6, known(6)).await, (9.0, 4));
    assert_eq!(newest(&client, "p1", 6, known(7)).await, (1.1, 3));

    // Two in a row are none, and every other one of many is.
    furnish_probe(&client, "p2").await;
    let saw = (0..=40).map(|minute| (minute, if minute > 2 && minute % 2 == 0 { 9.0 } else { 1.0 }));
    send(&client, "p2", &plain(&saw.collect::<Vec<_>>())).await;
    send(&client, "p2", &plain(&[(41, 9.0), (42, 1.0)])).await;
    for (minute, expected) in [(30, (1.0, 29)), (31, (1.0, 31)), (40, (9.0, 40)), (41, (9.0, 41))] {
        assert_eq!(newest(&client, "p2", minute, 0).await, expected, "at {minute}");
    }
}
