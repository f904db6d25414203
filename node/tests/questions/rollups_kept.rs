//! Rollups whose points are gone, through the public client: types that change meanwhile, deletes, and points that never had any.
//! Never here: rollups beside points (see `rollups`). Invariant: what is answered is what was written, but for what was deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, Value, answers_of, v1};
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;
use v1::{Function, Kind, ValueType};

const KEPT: &str = "kept";
const IDS: [&str; 2] = ["g1", "g2"];

/// Makes rollups at once.
fn tuning() -> Tuning {
    Tuning {
        rollups_every: Duration::from_millis(50),
        rollups_after: Duration::ZERO,
        retention_every: Duration::from_millis(100),
        ..Tuning::default()
    }
}

/// A type that keeps points and rollups for some days.
fn kept(retention_days: i64, rollups_s: &[u32], rollup_retention_days: i64) -> v1::DeviceType {
    v1::DeviceType {
        rollups_s: rollups_s.to_vec(),
        rollup_retention_days,
        bucket_span_s: 3 * 3_600,
        ..device_type(KEPT, retention_days)
    }
}

async fn apply(client: &Client, made: v1::DeviceType) {
    client.apply_device_types(vec![made]).await.unwrap();
}

async fn furnished(made: v1::DeviceType) -> (TestCluster, Client) {
    let cluster = TestCluster::start_with(1, tuning()).await;
    let client = cluster.client().await;
    apply(&client, made).await;
    let devices = IDS.map(|id| device(id, KEPT, &[]));
    client.register_devices(devices.to_vec()).await.unwrap();
    (cluster, client)
}

fn days_ago(days: i64) -> i64 {
    (now_ns() - days * DAY) / DAY * DAY
}

/// A record each ten minutes of so many hours from a time on.
async fn write_hours(client: &Client, from_ns: i64, hours: i64) {
    let mut batch = BatchBuilder::new(KEPT);
    for (at, id) in (0..hours * 6).flat_map(|at| IDS.map(|id| (at, id))) {
        let row = batch.row(id, from_ns + at * 10 * MIN);
        row.set("level", (at % 7) as f64).set("rain", 1.0);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

async fn points_left(client: &Client) -> usize {
    read(client, everything(of_type(KEPT))).await.len()
}

async fn until_points_left(client: &Client, expected: usize) {
    eventually("points go", || async {
        match points_left(client).await {
            left if left == expected => Ok(()),
            left => Err(format!("{left} points")),
        }
    })
    .await;
}

/// Waits until rollups answer for all levels of a time.
async fn until_rolled(client: &Client, (from_ns, to_ns): (i64, i64)) {
    let explained = || v1::QueryAggregateRequest {
        selector: of_type(KEPT),
        properties: vec!["level".into()],
        functions: vec![Function::Count as i32],
        from_ns,
        to_ns,
        explain: true,
        ..v1::QueryAggregateRequest::default()
    };
    eventually("there are rollups", || async {
        let asked = client.query_aggregate(explained()).await.unwrap();
        let work = asked.collect().await.unwrap().1.explain.unwrap().total.unwrap();
        match work.points_decoded {
            0 => Ok(()),
            points => Err(format!("{points} points")),
        }
    })
    .await;
}

/// A function of a property over windows by device and start, and the length of rollups that answered for points that are gone.
async fn windows(
    client: &Client,
    (property, functions): (&str, &[Function]),
    (from_ns, to_ns): (i64, i64),
    step_ns: i64,
) -> (BTreeMap<(String, i64), Value>, Option<u32>) {
    let request = v1::QueryAggregateRequest {
        selector: of_type(KEPT),
        properties: vec![property.into()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        from_ns,
        to_ns,
        window: (step_ns > 0).then(|| v1::Window {
            step_ns,
            ..v1::Window::default()
        }),
        ..v1::QueryAggregateRequest::default()
    };
    let (messages, summary) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
    let mut found = BTreeMap::new();
    for series in messages.into_iter().flat_map(|message| message.series) {
        let starts = series.start_ns.iter().zip(answers_of(&series.columns[0]));
        found.extend(starts.filter_map(|(start_ns, value)| Some(((series.device.clone(), *start_ns), value?))));
    }
    (found, summary.sealed.first().map(|sealed| sealed.rollup_s))
}

async fn counts(client: &Client, property: &str, range: (i64, i64), step_ns: i64) -> BTreeMap<(String, i64), Value> {
    windows(client, (property, &[Function::Count]), range, step_ns).await.0
}

#[tokio::test]
async fn points_that_never_get_rollups_keep_no_others_from_going() {
    let (_cluster, client) = furnished(kept(0, &[], 0)).await;
    let (ancient, old, new) = (days_ago(20), days_ago(6), now_ns() / HOUR * HOUR - 2 * HOUR);
    for from_ns in [ancient, old, new] {
        write_hours(&client, from_ns, 1).await;
    }
    // Before time begins no window does.
    let first = batch(KEPT, "level", IDS.map(|id| (id, i64::MIN + 1, 1.0)));
    client.write(write(first)).await.unwrap();
    let hour = (old, old + HOUR);
    let expected = counts(&client, "level", hour, HOUR).await;
    assert_eq!(expected.len(), 2);
    apply(&client, kept(2, &[300, 3_600], 10)).await;
    until_points_left(&client, 2 * 6 * 2).await;
    assert_eq!(counts(&client, "level", hour, HOUR).await, expected);
    let all = (i64::MIN + 1, days_ago(15));
    assert_eq!(
        counts(&client, "level", all, 0).await.len(),
        0,
        "nothing is kept of what is older"
    );
    // Rollups that are kept no longer than points.
    apply(&client, kept(2, &[300, 3_600], 2)).await;
    eventually("rollups go", || async {
        match counts(&client, "level", hour, HOUR).await.len() {
            0 => Ok(()),
            others => Err(format!("{others} windows")),
        }
    })
    .await;
}

#[tokio::test]
async fn rollups_of_other_lengths_answer_for_points_that_are_gone() {
    let (_cluster, client) = furnished(kept(0, &[3_600], 0)).await;
    let t0 = days_ago(6);
    write_hours(&client, t0, 48).await;
    let range = (t0, t0 + 2 * DAY);
    let functions: [(&str, &[Function]); 3] = [
        ("level", &[Function::Avg, Function::Count]),
        ("level", &[Function::TimeWeightedAvg]),
        ("rain", &[Function::Sum]),
    ];
    let mut expected = Vec::new();
    for asked in functions {
        for step_ns in [HOUR, DAY, 0] {
            expected.push((asked, step_ns, windows(&client, asked, range, step_ns).await.0));
        }
    }
    apply(&client, kept(2, &[3_600], 0)).await;
    until_points_left(&client, 0).await;
    for rollups_s in [&[3_600_u32][..], &[3_600, 86_400], &[86_400], &[300], &[]] {
        apply(&client, kept(2, rollups_s, 0)).await;
        for (asked, step_ns, expected) in &expected {
            let (found, sealed) = windows(&client, *asked, range, *step_ns).await;
            assert_eq!(&found, expected, "{asked:?} by {step_ns} with {rollups_s:?}");
            assert_eq!(sealed, Some(3_600), "{asked:?} by {step_ns} with {rollups_s:?}");
        }
        let (finer, sealed) = windows(&client, functions[0], range, 5 * MIN).await;
        assert_eq!(finer.len(), 0, "with {rollups_s:?}");
        assert_eq!(sealed, Some(if rollups_s == [300] { 300 } else { 0 }));
        // In how many slots points were is told too.
        let covered = v1::QueryAggregateRequest {
            selector: of_type(KEPT),
            properties: vec!["level".into()],
            functions: vec![Function::Count as i32],
            from_ns: t0,
            to_ns: t0 + DAY,
            slots_filled: true,
            ..v1::QueryAggregateRequest::default()
        };
        let (messages, _) = client.query_aggregate(covered).await.unwrap().collect().await.unwrap();
        let filled = messages
            .iter()
            .flat_map(|message| &message.series)
            .flat_map(|series| &series.slots_filled);
        assert_eq!(filled.copied().collect::<Vec<_>>(), [144, 144], "with {rollups_s:?}");
    }
    // They are kept as long as others.
    apply(&client, kept(2, &[], 3)).await;
    eventually("rollups go", || async {
        match counts(&client, "level", range, HOUR).await.len() {
            0 => Ok(()),
            others => Err(format!("{others} windows")),
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_deleted_does_not_come_back_with_rollups() {
    let (_cluster, client) = furnished(kept(0, &[3_600], 0)).await;
    let t0 = days_ago(6);
    write_hours(&client, t0, 3).await;
    let range = (t0, t0 + DAY);
    let expected = counts(&client, "level", range, HOUR).await;
    until_rolled(&client, range).await;
    // Points go while the type has no rollups: those that there are stay, and say that they are alone.
    apply(&client, kept(2, &[], 0)).await;
    until_points_left(&client, 0).await;
    let (found, sealed) = windows(&client, ("level", &[Function::Count]), range, HOUR).await;
    assert_eq!((&found, sealed), (&expected, Some(3_600)));
    let delete = |dry_run| v1::DeletePointsRequest {
        selector: of_devices(&["g1"]),
        everything: true,
        dry_run,
        ..v1::DeletePointsRequest::default()
    };
    let there_is = client.delete_points(delete(true)).await.unwrap();
    // Of gauges three hours, of increments those that end at them: one more.
    assert_eq!((there_is.records, there_is.devices, there_is.rollup_windows), (0, 1, 4));
    assert_eq!(client.delete_points(delete(false)).await.unwrap(), there_is);
    assert_eq!(client.delete_points(delete(true)).await.unwrap().devices, 0);
    apply(&client, kept(2, &[3_600], 0)).await;
    let left: BTreeMap<_, _> = expected.into_iter().filter(|((id, _), _)| id == "g2").collect();
    assert_eq!(counts(&client, "level", range, HOUR).await, left);
}

#[tokio::test]
async fn an_hour_that_is_deleted_takes_an_hour_where_shorter_rollups_are_left() {
    let (_cluster, client) = furnished(kept(0, &[300, 3_600, 86_400], 0)).await;
    let t0 = days_ago(6);
    write_hours(&client, t0, 72).await;
    apply(&client, kept(2, &[300, 3_600, 86_400], 0)).await;
    until_points_left(&client, 0).await;
    let noon = t0 + DAY + 12 * HOUR;
    let delete = |(from_ns, to_ns): (i64, i64), dry_run| v1::DeletePointsRequest {
        selector: of_devices(&["g1"]),
        from_ns: Some(from_ns),
        to_ns: Some(to_ns),
        dry_run,
        ..v1::DeletePointsRequest::default()
    };
    let first_hour = (t0 + DAY, t0 + DAY + HOUR);
    for range in [first_hour, (noon, noon + 1)] {
        let there_is = client.delete_points(delete(range, true)).await.unwrap();
        assert_eq!((there_is.records, there_is.devices), (0, 1), "{there_is:?}");
        assert!(there_is.rollup_windows > 2, "{there_is:?}");
        assert_eq!(client.delete_points(delete(range, false)).await.unwrap(), there_is);
    }
    let before = (t0 - DAY, t0 - 2 * HOUR);
    let nothing = client.delete_points(delete(before, true)).await.unwrap();
    assert_eq!(
        (nothing.devices, nothing.rollup_windows),
        (0, 0),
        "beside it is not in it: {nothing:?}"
    );
    let by_day = |id: &str, counts: [i64; 3]| {
        let day = |(at, count): (i64, i64)| ((id.to_owned(), t0 + at * DAY), Value::I64(count));
        (0..).zip(counts).map(day).collect::<Vec<_>>()
    };
    let range = (t0, t0 + 3 * DAY);
    let days = counts(&client, "level", range, DAY).await;
    let expected = [by_day("g1", [144, 144 - 6 - 1, 144]), by_day("g2", [144; 3])].concat();
    assert_eq!(days, expected.into_iter().collect());
    // What falls into a day at its end: the window that ends with the first day has a time that is deleted.
    let days = counts(&client, "rain", (t0 - DAY, t0 + 3 * DAY), DAY).await;
    let of_first = days
        .iter()
        .filter(|((id, _), _)| id == "g1")
        .map(|(_, count)| count.clone());
    let expected = [1, 143, 144 - 6 - 1, 143].map(Value::I64);
    assert_eq!(of_first.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn an_hour_that_is_deleted_beside_sealed_time_takes_nothing_of_it() {
    // Nothing ends at its stamp: no window of sealed time touches the hour.
    let gauge = |retention_days: i64, rollups_s: &[u32]| v1::DeviceType {
        properties: vec![property("level", ValueType::F64, Kind::Gauge)],
        ..kept(retention_days, rollups_s, 5 * retention_days)
    };
    let (_cluster, client) = furnished(gauge(0, &[])).await;
    let begin = days_ago(4);
    let mut batch = BatchBuilder::new(KEPT);
    for (at, id) in (0..3 * 144).flat_map(|at| IDS.map(|id| (at, id))) {
        batch.row(id, begin + at * 10 * MIN).set("level", (at % 7) as f64);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    apply(&client, gauge(2, &[300, 3_600, 86_400])).await;
    // The bucket that holds the end of what is kept stays.
    let seal = (now_ns() - 2 * DAY).div_euclid(3 * HOUR) * 3 * HOUR;
    let left = (begin + 3 * DAY - seal) / (10 * MIN);
    until_points_left(&client, IDS.len() * left as usize).await;
    let sealed = async || {
        let mut found = Vec::new();
        for (range, step_ns) in [
            ((seal - 3 * HOUR, seal), 5 * MIN),
            ((seal - DAY, seal), HOUR),
            ((begin, seal), 0),
        ] {
            found.push(counts(&client, "level", range, step_ns).await);
        }
        found
    };
    let before = sealed().await;
    assert_eq!((before[0].len(), before[1].len()), (2 * 18, 2 * 24));
    let delete = |dry_run| v1::DeletePointsRequest {
        selector: of_devices(&["g1"]),
        from_ns: Some(seal),
        to_ns: Some(seal + HOUR),
        dry_run,
        ..v1::DeletePointsRequest::default()
    };
    let there_is = client.delete_points(delete(true)).await.unwrap();
    assert_eq!((there_is.records, there_is.rollup_windows), (6, 0));
    assert_eq!(client.delete_points(delete(false)).await.unwrap(), there_is);
    assert_eq!(sealed().await, before);
    assert_eq!(counts(&client, "level", (seal, seal + HOUR), HOUR).await.len(), 1);
}

#[tokio::test]
async fn points_wait_for_rollups_by_the_rule_of_today() {
    let tuning = Tuning {
        rollups_every: Duration::from_millis(1_500),
        ..tuning()
    };
    let cluster = TestCluster::start_with(1, tuning).await;
    let client = cluster.client().await;
    let limited = |retention_days: i64, max: Option<f64>| {
        let mut made = kept(retention_days, &[3_600], 5 * retention_days);
        made.properties[0].max = max;
        made
    };
    apply(&client, limited(0, Some(3.0))).await;
    let devices = IDS.map(|id| device(id, KEPT, &[]));
    client.register_devices(devices.to_vec()).await.unwrap();
    let t0 = days_ago(6);
    write_hours(&client, t0, 2).await;
    let range = (t0, t0 + DAY);
    until_rolled(&client, range).await;
    // The limit was wrong: from now on all values count, and points are to go.
    let kept_before = counts(&client, "level", range, HOUR).await;
    apply(&client, limited(2, None)).await;
    until_points_left(&client, 0).await;
    let all = counts(&client, "level", range, HOUR).await;
    assert_ne!(all, kept_before);
    assert!(all.values().all(|count| *count == Value::I64(6)), "{all:?}");
}

#[tokio::test]
async fn points_at_the_ends_of_rollups_count_where_spikes_are_told_no_more() {
    let spiky = |retention_days: i64, is_spiky: bool| {
        let mut made = kept(retention_days, &[3_600], 0);
        let spike = is_spiky.then(|| ("spike".to_owned(), "50".to_owned()));
        made.properties[0].attributes.extend(spike);
        made
    };
    let (_cluster, client) = furnished(spiky(0, true)).await;
    let t0 = days_ago(6);
    // Those at the borders of buckets are far from the next one: only other buckets tell whether they are spikes.
    let level = |at: i64| if at == 0 { 80.0 } else { (at % 7) as f64 };
    let mut minutes = BatchBuilder::new(KEPT);
    for (at, id) in (0..30).flat_map(|at| IDS.map(|id| (at, id))) {
        minutes.row(id, t0 + at * MIN).set("level", level(at));
        minutes.row(id, t0 + 6 * HOUR - at * MIN).set("level", level(at));
    }
    client.write(write(minutes.build().unwrap())).await.unwrap();
    let range = (t0, t0 + DAY);
    let asked: [&[Function]; 2] = [&[Function::Count], &[Function::Count, Function::TimeWeightedAvg]];
    let expected = counts(&client, "level", range, HOUR).await;
    let all: i64 = expected
        .values()
        .map(|count| if let Value::I64(count) = count { *count } else { 0 })
        .sum();
    assert_eq!(all, 120);
    apply(&client, spiky(2, true)).await;
    until_points_left(&client, 0).await;
    for is_spiky in [true, false] {
        apply(&client, spiky(2, is_spiky)).await;
        for functions in asked {
            let found = windows(&client, ("level", functions), range, HOUR).await.0;
            assert_eq!(found, expected, "{functions:?}, spikes are told: {is_spiky}");
        }
    }
}
