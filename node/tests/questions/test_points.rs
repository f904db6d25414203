//! Points of report kind test through the public client: in no answer but those that ask for them.
//! Never here: what a shard keeps of them (`shard/test_points.rs`), random points (`random/test_points.rs`).

use std::time::Duration;

use crate::common::fleet::*;
use crate::common::watch::{Watch, meters};
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, Value, v1};
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;
use v1::ReportKind;

/// Rows of one property, each with its kind.
fn of_kinds(rows: &[(&str, i64, f64, ReportKind)]) -> v1::Batch {
    let mut batch = BatchBuilder::new(METER);
    for (device, t, level, kind) in rows {
        batch.row(device, *t).report_kind(*kind).set("level", *level);
    }
    batch.build().unwrap()
}

/// Time and level of the newest values, by device.
async fn newest_levels(client: &Client, request: v1::GetLatestRequest) -> Vec<(String, i64, Value)> {
    let request = v1::GetLatestRequest {
        selector: of_type(METER),
        ..request
    };
    let (messages, summary) = client
        .get_latest(request.clone())
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(summary.test_points, request.test_points);
    let found = latest(&messages).into_iter();
    found.map(|((device, _), (t, value))| (device, t - T0, value)).collect()
}

#[tokio::test]
async fn tests_are_told_to_who_asks_for_them_in_all_that_a_question_may_say() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "m3"]).await;
    let (real, test) = (ReportKind::Routine, ReportKind::Test);
    let rows = [
        ("m1", T0, 1.0, real),
        ("m1", T0, 90.0, test),
        ("m1", T0 + MIN, 91.0, test),
        ("m2", T0 + 2 * MIN, 92.0, test),
        ("m3", T0, 3.0, real),
    ];
    let stored = client.write(numbered(of_kinds(&rows), "p", 1)).await.unwrap();
    let again = client.write(numbered(of_kinds(&rows), "p", 1)).await.unwrap();
    assert_eq!((stored.rows, stored.duplicate), (5, false));
    assert_eq!((again.rows, again.duplicate), (5, true));

    let range = |change: fn(&mut v1::QueryRangeRequest)| {
        let mut request = tests_of(of_type(METER));
        change(&mut request);
        let client = client.clone();
        async move {
            let found = read(&client, request).await;
            let mut found: Vec<_> = found
                .into_iter()
                .map(|(device, t, _, value)| (device, t - T0, value))
                .collect();
            found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
            found
        }
    };
    let one = |device: &str, minutes: i64, level: f64| (device.to_owned(), minutes * MIN, Value::F64(level));
    let all = [one("m1", 0, 90.0), one("m1", 1, 91.0), one("m2", 2, 92.0)];
    assert_eq!(range(|_| {}).await, all);
    assert_eq!(range(|request| request.from_ns = T0 + MIN).await, all[1..]);
    assert_eq!(
        range(|request| request.order = v1::Order::NewestFirst as i32).await,
        all
    );
    let high = |request: &mut v1::QueryRangeRequest| {
        request.values = vec![v1::ValueFilter {
            property: "level".into(),
            condition: Some(v1::value_filter::Condition::AtLeast(90.5)),
        }];
        request.quality = Some(v1::QualityFilter {
            drop_failed: true,
            ..Default::default()
        });
    };
    assert_eq!(range(high).await, all[1..]);
    assert_eq!(range(|request| request.known_at_ns = 1).await, []);

    let ask = |test_points: bool, at_ns: i64| v1::GetLatestRequest {
        test_points,
        at_ns,
        ..Default::default()
    };
    let real = [one("m1", 0, 1.0), one("m3", 0, 3.0)];
    assert_eq!(newest_levels(&client, ask(false, 0)).await, real);
    assert_eq!(newest_levels(&client, ask(true, 0)).await, all[1..]);
    assert_eq!(newest_levels(&client, ask(true, T0 + 30 * S)).await, all[..1]);

    // A page of the ones does not go on among the others.
    let first = v1::QueryRangeRequest {
        limit: 1,
        ..tests_of(of_type(METER))
    };
    let (_, summary) = client
        .query_range(first.clone())
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let onward = |test_points: bool| v1::QueryRangeRequest {
        cursor: summary.next_cursor.clone(),
        limit: 0,
        test_points,
        ..first.clone()
    };
    assert_eq!(read(&client, onward(true)).await.len(), 2);
    let refused = match client.query_range(onward(false)).await {
        Err(error) => error,
        Ok(answer) => answer.collect().await.unwrap_err(),
    };
    assert_eq!(refused.reason, "INVALID_CURSOR");
}

#[tokio::test]
async fn deletes_and_retention_take_tests_too() {
    let tuning = Tuning {
        retention_every: Duration::from_millis(100),
        ..Tuning::default()
    };
    let mut cluster = TestCluster::start_with(3, tuning).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "m3"]).await;
    let (real, test) = (ReportKind::Routine, ReportKind::Test);
    let rows = [
        ("m1", T0, 1.0, real),
        ("m1", T0, 90.0, test),
        ("m1", T0 + DAY, 91.0, test),
        ("m2", T0, 92.0, test),
        ("m3", T0, 3.0, real),
    ];
    client.write(write(of_kinds(&rows))).await.unwrap();
    let mut watch = Watch::begin(&client, meters()).await;
    let delete = |dry_run: bool| v1::DeletePointsRequest {
        selector: of_type(METER),
        from_ns: Some(T0),
        to_ns: Some(T0 + HOUR),
        dry_run,
        ..Default::default()
    };
    for dry_run in [true, false] {
        let gone = client.delete_points(delete(dry_run)).await.unwrap();
        assert_eq!(
            (gone.devices_matched, gone.devices, gone.records),
            (3, 3, 4),
            "{dry_run}"
        );
    }
    let left = tests(&client, of_type(METER), None).await;
    assert_eq!(left, Tests::from([(("m1".to_owned(), T0 + DAY), 91.0)]));
    assert_eq!(read(&client, everything(of_type(METER))).await, []);
    let newest = v1::GetLatestRequest {
        test_points: true,
        ..Default::default()
    };
    let expected = [("m1".to_owned(), DAY, Value::F64(91.0))];
    assert_eq!(newest_levels(&client, newest).await, expected);
    watch.rest().await;
    let mut told: Vec<_> = watch.seen.deleted.iter().flat_map(|deleted| &deleted.devices).collect();
    told.sort();
    assert_eq!(told, ["m1", "m3"], "of tests nobody is told");

    // These are almost a day old; some seconds later they are older.
    let brief = v1::DeviceType {
        bucket_span_s: 1,
        rollups_s: Vec::new(),
        ..device_type("brief", 1)
    };
    client.apply_device_types(vec![brief]).await.unwrap();
    client.register_devices(vec![device("b1", "brief", &[])]).await.unwrap();
    let old = now_ns() - DAY + 12 * S;
    let mut batch = BatchBuilder::new("brief");
    for (t, level) in [(old, 1.0), (old + HOUR, 2.0)] {
        batch.row("b1", t).report_kind(test).set("level", level);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    eventually("old tests are gone", || async {
        match tests(&client, of_type("brief"), None).await.len() {
            1 => Ok(()),
            others => Err(format!("{others} tests")),
        }
    })
    .await;
    cluster.replicas_agree(0).await;
    cluster.stop(1).await;
    cluster.restart(1).await;
    assert_eq!(tests(&client, of_type("brief"), None).await.len(), 1);
}

#[tokio::test]
async fn who_follows_hears_of_no_test_and_is_silent_all_the_same() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2"]).await;
    let began = now_ns();
    let (real, test) = (ReportKind::Routine, ReportKind::Test);
    let first = [("m1", began, 1.0, real), ("m2", began, 9.0, test)];
    client.write(write(of_kinds(&first))).await.unwrap();
    let request = v1::SubscribeRequest {
        records: true,
        silence: true,
        silent_after_ms: 1_500,
        newest_first: true,
        ..meters()
    };
    let mut watch = Watch::begin(&client, request).await;
    watch.until("both are silent", |seen| seen.silent.len() >= 2).await;
    let mut told: Vec<_> = watch
        .seen
        .silent
        .iter()
        .map(|s| (s.device.as_str(), s.last_observed_at_ns))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [("m1", began), ("m2", 0)], "of m2 nothing is known");
    assert_eq!(watch.seen.times(), [("m1", began)]);

    // A test ends no silence; the record behind it does, and comes alone.
    let tried = now_ns();
    client
        .write(write(of_kinds(&[("m1", tried, 9.0, test)])))
        .await
        .unwrap();
    let both = [
        ("m1", tried + 1, 9.0, test),
        ("m1", tried, 2.0, real),
        ("m2", tried, 9.0, test),
    ];
    client.write(write(of_kinds(&both))).await.unwrap();
    watch.until("a record comes", |seen| seen.rows.len() >= 2).await;
    watch.until("m1 is silent again", |seen| seen.silent.len() >= 3).await;
    watch.rest().await;
    assert_eq!(watch.seen.times(), [("m1", began), ("m1", tried)]);
    assert!(!watch.seen.rows[1].late);
    let again = &watch.seen.silent[2];
    assert_eq!((again.device.as_str(), again.last_observed_at_ns), ("m1", tried));
    assert_eq!(watch.seen.silent.len(), 3);
}

#[tokio::test]
async fn who_only_says_that_it_is_there_makes_no_value_fresh() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2"]).await;
    let keepalive = ReportKind::Keepalive;
    let rows = [
        ("m1", T0, 1.0, ReportKind::Routine),
        ("m1", T0 + HOUR, 2.0, keepalive),
        ("m2", T0, 3.0, keepalive),
    ];
    client.write(write(of_kinds(&rows))).await.unwrap();
    let at = |at_ns: i64, any_quality: bool, known_at_ns: i64| v1::GetLatestRequest {
        at_ns,
        any_quality,
        known_at_ns,
        ..Default::default()
    };
    let one = |device: &str, t: i64, level: f64| (device.to_owned(), t, Value::F64(level));
    for at_ns in [0, T0 + 2 * HOUR] {
        for known_at_ns in [0, i64::MAX] {
            let measured = newest_levels(&client, at(at_ns, false, known_at_ns)).await;
            assert_eq!(measured, [one("m1", 0, 1.0)]);
            let newest = newest_levels(&client, at(at_ns, true, known_at_ns)).await;
            assert_eq!(newest, [one("m1", HOUR, 2.0), one("m2", 0, 3.0)]);
        }
    }
    // It is online, and what it measured is as old as it was.
    let health = v1::GetHealthRequest {
        selector: of_devices(&["m1"]),
        from_ns: T0 - HOUR,
        to_ns: T0 + HOUR,
        ..Default::default()
    };
    let (messages, _) = client.get_health(health).await.unwrap().collect().await.unwrap();
    let report = messages.iter().flat_map(|message| &message.reports).next().unwrap();
    assert_eq!((report.offline, report.points, report.last_observed_at_ns), (0, 1, T0));
}
