//! What a subscriber is sent: everything, once, in order per device; what it goes on from; what it is refused.
//! Never here: moving leaders and dying nodes (`subscribe_failures`), readers that are slow (`subscribe_slow`).

use crate::common::fleet::*;
use crate::common::watch::{Seen, Watch, at_node, ended_by, meters};
use crate::common::{TestCluster, eventually};
use tidemark_client::{Client, Value, v1};
use tidemark_node::config::Tuning;

fn level(rows: &[(&'static str, i64)]) -> v1::Batch {
    let rows = rows.iter().map(|(device, t)| (*device, T0 + t * S, *t as f64));
    batch(METER, "level", rows)
}

async fn put(client: &Client, rows: &[(&'static str, i64)]) {
    client.write(write(level(rows))).await.unwrap();
}

fn shown(watch: &Watch) -> Vec<(String, i64)> {
    let times = watch.seen.times().into_iter();
    times.map(|(device, t)| (device.to_owned(), (t - T0) / S)).collect()
}

fn expect(rows: &[(&str, i64)]) -> Vec<(String, i64)> {
    rows.iter().map(|(device, t)| ((*device).to_owned(), *t)).collect()
}

#[tokio::test]
async fn what_is_written_comes_once_and_a_cursor_goes_on_behind_it() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "m3"]).await;
    put(&client, &[("m1", 0), ("m2", 0)]).await;
    let mut watch = Watch::begin(&client, meters()).await;
    put(&client, &[("m1", 1)]).await;
    put(&client, &[("m1", 2)]).await;
    watch.rows(2).await;
    assert_eq!(shown(&watch), expect(&[("m1", 1), ("m1", 2)]), "nothing from before");
    assert_eq!(watch.seen.rows[0].values, [("level".to_owned(), Value::F64(1.0))]);
    let cursor = watch.subscription.cursor().to_vec();
    drop(watch);

    put(&client, &[("m2", 3)]).await;
    put(&client, &[("m1", 4), ("m2", 4), ("m3", 4)]).await;
    for i in 0..3 {
        let request = v1::SubscribeRequest {
            cursor: cursor.clone().into(),
            ..meters()
        };
        let mut watch = Watch::begin(&cluster.client_at(i).await, request).await;
        watch.rows(4).await;
        watch.rest().await;
        let mut rows = shown(&watch);
        rows.sort();
        assert_eq!(
            rows,
            expect(&[("m1", 4), ("m2", 3), ("m2", 4), ("m3", 4)]),
            "at node {i}"
        );
        assert_eq!(
            (watch.seen.behind_ms, watch.seen.by_device()["m2"].is_sorted()),
            (0, true)
        );
    }
}

#[tokio::test]
async fn a_batch_that_a_producer_repeats_comes_once() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2"]).await;
    let mut watch = Watch::begin(&client, meters()).await;
    let start = watch.subscription.cursor().to_vec();
    let send = async |sequence: u64, t: i64| {
        let batch = level(&[("m1", t), ("m2", t)]);
        for _ in 0..3 {
            client.write(numbered(batch.clone(), "p", sequence)).await.unwrap();
        }
    };
    send(1, 1).await;
    send(2, 2).await;
    send(1, 1).await;
    let other = level(&[("m1", 9), ("m2", 9)]);
    client.write(numbered(other, "p", 2)).await.unwrap_err();
    send(3, 3).await;
    let expected = [1, 2, 3].map(|t| T0 + t * S);
    let check = async |watch: &mut Watch, which: &str| {
        watch.rows(6).await;
        watch.rest().await;
        let found = watch.seen.by_device();
        assert_eq!(
            (&found["m1"][..], &found["m2"][..]),
            (&expected[..], &expected[..]),
            "{which}"
        );
    };
    check(&mut watch, "live").await;
    let request = v1::SubscribeRequest {
        cursor: start.into(),
        ..meters()
    };
    check(&mut Watch::begin(&client, request).await, "from a cursor").await;
}

#[tokio::test]
async fn a_large_write_comes_in_parts_and_goes_on_within() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let (mut stream, _) = at_node(&cluster.at(0), meters()).await.unwrap();
    // Ten fragments of one device: some days each.
    let times: Vec<i64> = (0..25_000).map(|minute| T0 - DAY * 30 + minute * MIN).collect();
    let rows = times.iter().map(|t| ("m1", *t, 1.0));
    client.write(write(batch(METER, "level", rows))).await.unwrap();
    let mut seen = Seen::default();
    while seen.rows.is_empty() {
        seen.add(&stream.message().await.unwrap().unwrap());
    }
    drop(stream);
    let first = seen.rows.len();
    assert!(first < times.len(), "all {first} rows in one message");
    let request = v1::SubscribeRequest {
        cursor: seen.cursor.into(),
        ..meters()
    };
    let mut watch = Watch::begin(&cluster.client_at(1).await, request).await;
    watch.rows(times.len() - first).await;
    watch.rest().await;
    let found: Vec<i64> = seen.rows.iter().chain(&watch.seen.rows).map(|row| row.t).collect();
    assert_eq!(found.len(), times.len());
    assert!(found == times, "in order, each once");
}

#[tokio::test]
async fn only_what_was_asked_for_comes_of_devices_that_match_by_now() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    let north = |id: &str, town: &str| device(id, METER, &[("town", town)]);
    client.register_devices(vec![north("m2", "south")]).await.unwrap();
    let request = v1::SubscribeRequest {
        selector: Some(v1::Selector {
            tags: vec![v1::TagMatcher {
                key: "town".into(),
                values: vec!["north".into()],
            }],
            ..v1::Selector::default()
        }),
        properties: vec!["rain".into()],
        ..v1::SubscribeRequest::default()
    };
    let mut watch = Watch::begin(&client, request).await;
    let rain = async |device: &'static str, t: i64| {
        let rows = batch(METER, "rain", [(device, T0 + t * S, 0.5)]);
        client.write(write(rows)).await.unwrap();
    };
    rain("m1", 1).await;
    rain("m2", 1).await;
    client
        .register_devices(vec![north("m3", "north"), north("m2", "north")])
        .await
        .unwrap();
    rain("m3", 2).await;
    rain("m2", 2).await;
    put(&client, &[("m2", 3), ("m3", 3)]).await;
    let relic = batch(RELIC, "rain", [("r1", T0 + 3 * S, 1.0)]);
    client.write(write(relic)).await.unwrap();
    client.register_devices(vec![north("m2", "south")]).await.unwrap();
    rain("m2", 4).await;
    rain("m3", 5).await;
    watch.rows(3).await;
    watch.rest().await;
    let found = watch.seen.by_device();
    assert_eq!(
        (&found["m2"][..], &found["m3"][..]),
        (&[T0 + 2 * S][..], &[T0 + 2 * S, T0 + 5 * S][..])
    );
    assert_eq!(found.len(), 2);
    assert!(
        watch
            .seen
            .rows
            .iter()
            .all(|row| row.values == [("rain".to_owned(), Value::F64(0.5))])
    );
}

#[tokio::test]
async fn rows_that_are_not_newer_are_marked_late() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2"]).await;
    put(&client, &[("m1", 10)]).await;
    let mut watch = Watch::begin(&client, meters()).await;
    put(&client, &[("m1", 10)]).await;
    put(&client, &[("m1", 5), ("m1", 11), ("m1", 12)]).await;
    put(&client, &[("m1", 12), ("m1", 13)]).await;
    put(&client, &[("m2", 1)]).await;
    watch.rows(7).await;
    let late = |device: &str| -> Vec<(i64, bool)> {
        let rows = watch.seen.rows.iter().filter(|row| row.device == device);
        rows.map(|row| ((row.t - T0) / S, row.late)).collect()
    };
    let expected = [(10, true), (5, true), (11, false), (12, false), (12, true), (13, false)];
    assert_eq!(late("m1"), expected);
    assert_eq!(late("m2"), [(1, false)], "a first record is late to nobody");
}

#[tokio::test]
async fn points_that_are_deleted_are_told() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "r1"]).await;
    put(&client, &[("m1", 1), ("m1", 10), ("m2", 1)]).await;
    let mut watch = Watch::begin(&client, meters()).await;
    let request = v1::DeletePointsRequest {
        selector: of_devices(&["m1", "r1"]),
        from_ns: Some(T0 + 5 * S),
        to_ns: Some(T0 + 20 * S),
        ..v1::DeletePointsRequest::default()
    };
    client.delete_points(request).await.unwrap();
    put(&client, &[("m1", 7)]).await;
    watch.rows(1).await;
    let deleted = v1::Deleted {
        devices: vec!["m1".into()],
        device_type: METER.into(),
        from_ns: T0 + 5 * S,
        to_ns: T0 + 20 * S,
    };
    assert_eq!(watch.seen.deleted, [deleted]);
    assert!(!watch.seen.rows[0].late, "what was newer is gone");
}

#[tokio::test]
async fn newest_records_come_before_the_first_change() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "m3"]).await;
    put(&client, &[("m1", 1), ("m2", 1)]).await;
    put(&client, &[("m1", 2)]).await;
    let request = v1::SubscribeRequest {
        newest_first: true,
        ..meters()
    };
    let mut watch = Watch::begin(&client, request).await;
    watch.until("it begins", |seen| seen.heartbeats == 1).await;
    put(&client, &[("m2", 3)]).await;
    watch.rows(3).await;
    let (change, newest) = watch.seen.rows.split_last().unwrap();
    let mut newest: Vec<_> = newest
        .iter()
        .map(|row| (row.device.as_str(), (row.t - T0) / S, row.newest))
        .collect();
    newest.sort_unstable();
    assert_eq!(newest, [("m1", 2, true), ("m2", 1, true)]);
    assert_eq!(
        (change.device.as_str(), change.newest, change.late),
        ("m2", false, false)
    );
}

#[tokio::test]
async fn a_silence_is_told_once_and_not_again_behind_its_cursor() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2", "m3"]).await;
    let now = || tidemark_node::clock::now_ns();
    let send = async |device: &'static str, t: i64| {
        client
            .write(write(batch(METER, "level", [(device, t, 1.0)])))
            .await
            .unwrap();
    };
    let began = now();
    send("m1", began).await;
    send("m2", began - HOUR).await;
    let request = v1::SubscribeRequest {
        silence: true,
        silent_after_ms: 6_000,
        ..meters()
    };
    let mut watch = Watch::begin(&client, request.clone()).await;
    let early = watch.subscription.cursor().to_vec();
    let told = |watch: &Watch| {
        let mut told: Vec<_> = watch
            .seen
            .silent
            .iter()
            .map(|s| (s.device.clone(), s.last_observed_at_ns))
            .collect();
        told.sort();
        told
    };
    // m2 was silent before; m3 never sent anything since it was registered.
    watch.until("silence is told", |seen| seen.silent.len() >= 2).await;
    assert_eq!(told(&watch), [("m1".to_owned(), began), ("m3".to_owned(), 0)]);
    assert_eq!(
        watch.seen.silent.iter().find(|s| s.device == "m1").unwrap().since_ns,
        began + 6 * S
    );
    watch.rest().await;
    assert_eq!(watch.seen.silent.len(), 2, "told once");
    assert!(watch.seen.rows.is_empty(), "records were not asked for");
    let later = watch.subscription.cursor().to_vec();
    drop(watch);

    let again = now();
    send("m1", again).await;
    let resumed = |cursor: Vec<u8>| v1::SubscribeRequest {
        cursor: cursor.into(),
        ..request.clone()
    };
    let mut watch = Watch::begin(&client, resumed(later)).await;
    watch.until("the next silence", |seen| !seen.silent.is_empty()).await;
    watch.rest().await;
    assert_eq!(told(&watch), [("m1".to_owned(), again)], "m3 was told before");
    let mut watch = Watch::begin(&client, resumed(early)).await;
    watch.until("the same", |seen| seen.silent.len() >= 2).await;
    watch.rest().await;
    assert_eq!(
        told(&watch),
        [("m1".to_owned(), began), ("m1".to_owned(), again), ("m3".to_owned(), 0)],
        "all that was silent meanwhile, or is"
    );
    let over = watch.seen.silent.iter().filter(|silence| silence.ended);
    assert_eq!(
        over.map(|silence| silence.since_ns).collect::<Vec<_>>(),
        [began + 6 * S]
    );
}

#[tokio::test]
async fn who_goes_on_hears_what_came_and_went_meanwhile_and_what_was_late() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2"]).await;
    let now = || tidemark_node::clock::now_ns();
    let send = async |device: &'static str, t: i64| {
        let rows = batch(METER, "level", [(device, t, 1.0)]);
        client.write(write(rows)).await.unwrap();
    };
    let request = v1::SubscribeRequest {
        records: true,
        silence: true,
        silent_after_ms: 6_000,
        ..meters()
    };
    let mut watch = Watch::begin(&client, request.clone()).await;
    let began = now();
    send("m1", began).await;
    send("m2", began).await;
    watch.rows(2).await;
    let cursor = watch.subscription.cursor().to_vec();
    assert!(watch.seen.silent.is_empty());
    drop(watch);
    eventually("m1 and m2 are silent", || async {
        match now() - began {
            age if age > 7 * S => Ok(()),
            age => Err(format!("{age} ns")),
        }
    })
    .await;
    let again = now();
    send("m1", again).await;
    send("m2", began - S).await;
    send("m2", again).await;

    let resumed = |cursor: &[u8]| v1::SubscribeRequest {
        cursor: cursor.to_vec().into(),
        ..request.clone()
    };
    let mut watch = Watch::begin(&client, resumed(&cursor)).await;
    watch.rows(3).await;
    // Where records of a device come in two messages, that it fell silent may be told by itself, before it is over.
    let over: Vec<_> = watch.seen.silent.iter().filter(|silence| silence.ended).collect();
    let mut told: Vec<_> = over.iter().map(|s| (s.device.as_str(), s.since_ns)).collect();
    told.sort_unstable();
    let since = began + 6 * S;
    assert_eq!(
        told,
        [("m1", since), ("m2", since)],
        "a late record ends no silence, the next one does"
    );
    let late = |device: &str| -> Vec<(i64, bool)> {
        let rows = watch.seen.rows.iter().filter(|row| row.device == device);
        rows.map(|row| (row.t, row.late)).collect()
    };
    assert_eq!(late("m1"), [(again, false)]);
    assert_eq!(late("m2"), [(began - S, true), (again, false)], "the first one too");
    // From behind any of its messages, which are of one shard each: what is told up to there and from there on is told once.
    let told = |all: &[v1::Silence]| all.iter().filter(|s| s.since_ns == since && s.ended).count();
    let lasting = |all: &[v1::Silence]| all.iter().filter(|s| s.since_ns > again).count();
    for (at, (cursor, silent)) in watch.seen.places.clone().iter().enumerate() {
        let before = told(&watch.seen.silent[..*silent]);
        let mut behind = Watch::begin(&client, resumed(cursor)).await;
        behind
            .until("silence that lasts", |seen| lasting(&seen.silent) >= 2)
            .await;
        assert_eq!(before + told(&behind.seen.silent), 2, "from behind message {at}");
    }
    let mut watch = Watch::begin(&client, resumed(&watch.seen.cursor.clone())).await;
    watch.until("silence that lasts", |seen| seen.silent.len() >= 2).await;
    assert!(watch.seen.rows.is_empty() && watch.seen.silent.iter().all(|s| s.since_ns > again && !s.ended));
}

#[tokio::test]
async fn those_that_are_silent_already_come_with_the_newest_records() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    put(&client, &[("m1", 1)]).await;
    let request = v1::SubscribeRequest {
        records: true,
        silence: true,
        newest_first: true,
        ..meters()
    };
    let (_, first) = at_node(&cluster.at(1), request.clone()).await.unwrap();
    assert!(first.newest && first.cursor.is_empty(), "{first:?}");
    let mut watch = Watch::begin(&client, request).await;
    watch.until("it begins", |seen| seen.heartbeats == 1).await;
    let silent = &watch.seen.silent;
    assert_eq!(
        (silent.len(), silent[0].since_ns),
        (1, T0 + S + 3 * MIN),
        "three times a record a minute"
    );
}

#[tokio::test]
async fn a_cursor_of_another_cluster_or_request_is_refused_and_so_are_strange_bytes() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let (_stream, first) = at_node(&cluster.at(0), meters()).await.unwrap();
    assert!(first.heartbeat && first.batch.is_none());
    let refused = async |request: v1::SubscribeRequest| shown_error(at_node(&cluster.at(2), request).await);
    let with = |cursor: &[u8]| v1::SubscribeRequest {
        cursor: cursor.to_vec().into(),
        ..meters()
    };
    let hint = "give back the cursor of a message as it came, with the same devices, properties and events; or subscribe without one";
    let none = format!("INVALID_ARGUMENT INVALID_CURSOR cursor; {hint}");
    let unsealed = [&[1, 10, 1, b'c'][..], &[7; 40]].concat();
    for cursor in [&b"x"[..], &[0; 40], &first.cursor[1..]] {
        assert_eq!(refused(with(cursor)).await, none);
    }
    assert_eq!(
        refused(with(&unsealed)).await,
        "INVALID_ARGUMENT INVALID_CURSOR cursor; subscribe without a cursor, with newest_first"
    );
    let mut forged = first.cursor.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(with(&forged)).await, none);
    let request = v1::SubscribeRequest {
        properties: vec!["rain".into()],
        ..with(&first.cursor)
    };
    assert_eq!(refused(request).await, none);
    let request = v1::SubscribeRequest {
        selector: of_devices(&["m1"]),
        ..with(&first.cursor)
    };
    assert_eq!(refused(request).await, none);
    let elsewhere = TestCluster::start(1).await;
    furnish(&elsewhere.client().await, &["m1"]).await;
    let foreign = shown_error(at_node(&elsewhere.at(0), with(&first.cursor)).await);
    assert_eq!(foreign, none);
}

fn shown_error<T>(answer: Result<T, tidemark_client::Error>) -> String {
    crate::common::fleet::shown(&answer.err().expect("it is refused"))
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let check = async |request: v1::SubscribeRequest, expected: &str| {
        assert_eq!(shown_error(at_node(&cluster.at(0), request).await), expected);
    };
    let no_selector = v1::SubscribeRequest::default();
    check(
        no_selector,
        "INVALID_ARGUMENT NO_SELECTOR selector; name device ids, a device type, tags or an area; every device: `everything`",
    )
    .await;
    let selector = of_type("nothing");
    check(
        v1::SubscribeRequest { selector, ..meters() },
        "NOT_FOUND UNKNOWN_TYPE selector.device_type; tidemark type list",
    )
    .await;
    let selector = of_devices(&["m1", "m9"]);
    check(
        v1::SubscribeRequest { selector, ..meters() },
        "NOT_FOUND UNKNOWN_DEVICE selector.device_ids",
    )
    .await;
    let properties = vec!["nothing".to_owned()];
    let expected = format!("NOT_FOUND UNKNOWN_PROPERTY properties[0]; tidemark type show {METER}");
    check(v1::SubscribeRequest { properties, ..meters() }, &expected).await;
    let silent_after_ms = -1;
    check(
        v1::SubscribeRequest {
            silent_after_ms,
            ..meters()
        },
        "INVALID_ARGUMENT INVALID_VALUE silent_after_ms",
    )
    .await;
}

/// A node by itself that keeps so many entries, and the cursor of a subscriber who has gone.
async fn left_alone(log_entries_kept: u64) -> (TestCluster, Client, v1::SubscribeResponse, u32) {
    let tuning = Tuning {
        log_entries_kept,
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(1, tuning).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let (_, first) = at_node(&cluster.at(0), meters()).await.unwrap();
    let shards = client.shard_map().await.unwrap().leaders.len() as u32;
    (cluster, client, first, shards)
}

#[tokio::test]
async fn what_the_log_no_longer_holds_is_said_and_not_passed_over() {
    let (mut cluster, client, first, shards) = left_alone(0).await;
    let with = || v1::SubscribeRequest {
        cursor: first.cursor.clone(),
        ..meters()
    };
    let compact = async |client: &Client| {
        for shard in 1..=shards {
            client.compact_shard(shard).await.unwrap();
        }
    };
    put(&client, &[("m1", 1)]).await;
    compact(&client).await;
    // Whoever left a moment ago finds what it missed.
    let mut watch = Watch::begin(&client, with()).await;
    watch.rows(1).await;
    assert_eq!(shown(&watch), expect(&[("m1", 1)]));
    drop(watch);
    // A node that starts anew waits for nobody.
    cluster.stop(0).await;
    cluster.restart(0).await;
    cluster.healthy(0).await;
    put(&client, &[("m1", 2)]).await;
    compact(&client).await;
    let refused = shown_error(ended_by(&cluster.at(0), with()).await);
    let hint = "subscribe anew with newest_first, and read with a query of records what was missed";
    assert_eq!(refused, format!("OUT_OF_RANGE CURSOR_EXPIRED cursor; {hint}"));
}

#[tokio::test]
async fn one_replica_keeps_log_for_those_who_are_away() {
    let (mut cluster, client, first, shards) = left_alone(30).await;
    for t in 1..5 {
        put(&client, &[("m1", t)]).await;
        for shard in 1..=shards {
            client.compact_shard(shard).await.unwrap();
        }
        // What is remembered of readers is forgotten.
        cluster.stop(0).await;
        cluster.restart(0).await;
        cluster.healthy(0).await;
    }
    let request = v1::SubscribeRequest {
        cursor: first.cursor,
        ..meters()
    };
    let mut watch = Watch::begin(&client, request).await;
    watch.rows(4).await;
    assert_eq!(shown(&watch), expect(&[("m1", 1), ("m1", 2), ("m1", 3), ("m1", 4)]));
}

#[tokio::test]
async fn a_subscription_that_nobody_reads_any_more_is_gone_at_once() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let (stream, _) = at_node(&cluster.at(0), meters()).await.unwrap();
    assert_eq!(cluster.metric(0, "tidemark_subscriptions").await, 1);
    drop(stream);
    eventually("it is gone", || async {
        match cluster.metric(0, "tidemark_subscriptions").await {
            0 => Ok(()),
            some => Err(format!("{some} subscriptions")),
        }
    })
    .await;
}
