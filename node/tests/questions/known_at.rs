//! What was known at a time: questions that are answered from what had been received by then, through the public client, over an
//! afternoon whose live answers are known.
//! Never here: random points (see `random/known_at`), which rows of a block had been received (see `tidemark_series::known`).

use crate::common::TestCluster;
use crate::common::afternoon::*;
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, Value, answers_of, rows, v1, value_at};
use v1::Function::{self, Increase, Max, Sum};
use v1::query_intervals_request::Condition;

/// When the records of a time had come.
fn live(t: i64) -> i64 {
    t + 10 * S
}

fn over(ids: &[&str], property: &str, function: Function, span: (i64, i64), known: i64) -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_devices(ids),
        properties: vec![property.into()],
        functions: vec![function as i32],
        from_ns: span.0,
        to_ns: span.1,
        known_at_ns: known,
        ..Default::default()
    }
}

/// The only window of each series, and what the answer says of itself.
async fn told(client: &Client, request: v1::QueryAggregateRequest) -> (Vec<v1::AggregateSeries>, v1::AnswerSummary) {
    let known = request.known_at_ns;
    let (messages, summary) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
    assert_eq!(summary.known_at_ns, known, "an answer says what it knew");
    let mut series: Vec<_> = messages.into_iter().flat_map(|message| message.series).collect();
    series.sort_by(|a, b| a.device.cmp(&b.device));
    (series, summary)
}

fn number(series: &v1::AggregateSeries) -> f64 {
    match answers_of(&series.columns[0]).next().unwrap() {
        Some(Value::F64(number)) => number,
        other => panic!("{other:?}"),
    }
}

/// Device, value, minutes since 14:00, and whether it is stale.
async fn newest(client: &Client, at_ns: i64, known: i64) -> Vec<(String, f64, i64, bool)> {
    let request = v1::GetLatestRequest {
        selector: of_type(GAUGE),
        properties: vec!["rain".into(), "depth".into(), "level".into()],
        stale_after_ms: 1_800_000,
        at_ns,
        known_at_ns: known,
        ..Default::default()
    };
    let (messages, summary) = client.get_latest(request).await.unwrap().collect().await.unwrap();
    assert_eq!(summary.known_at_ns, known);
    let evaluated = messages.iter().filter(|message| !message.devices.is_empty());
    let expected = if at_ns == 0 { known } else { at_ns };
    assert!(evaluated.clone().all(|message| message.evaluated_at_ns == expected));
    let devices = messages.iter().flat_map(|message| &message.devices);
    let mut told: Vec<_> = devices
        .map(|device| {
            let value = &device.values[0];
            let number = match value_at(value.value.as_ref().unwrap(), 0) {
                Some(Value::F64(number)) => number,
                other => panic!("{other:?}"),
            };
            let minutes = (value.observed_at_ns - TWO) / MIN;
            (device.device.clone(), number, minutes, value.stale)
        })
        .collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    told
}

#[tokio::test]
async fn after_the_fact_a_town_is_told_what_it_was_told_live() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    afternoon_as_it_came(&client).await;
    let expected = |gauge: (f64, i64, bool)| {
        [
            ("PD1", 0.46, 120, false),
            ("RG1", 2.5, 120, false),
            ("RG2", gauge.0, gauge.1, gauge.2),
            ("RL1", 1.25, 120, false),
        ]
        .map(|(id, value, minutes, stale)| (id.to_owned(), value, minutes, stale))
    };
    let (four, known) = (at(16, 0), live(at(16, 0)));
    assert_eq!(newest(&client, four, known).await, expected((3.0, 80, true)));
    assert_eq!(
        newest(&client, 0, known).await,
        expected((3.0, 80, true)),
        "now is then"
    );
    assert_eq!(newest(&client, four, 0).await, expected((4.5, 120, false)));
    for (t, stale) in [(at(15, 50), false), (at(15, 55), true)] {
        let found = newest(&client, t, live(t)).await;
        assert_eq!((found[2].1, found[2].2, found[2].3), (3.0, 80, stale));
    }

    // The sum of an hour, and how much of it was there.
    let hour = (at(15, 0), four);
    let gauges = over(&["RG1", "RG2"], "rain", Sum, hour, known);
    let (series, summary) = told(&client, gauges.clone()).await;
    let of = |series: &v1::AggregateSeries| (number(series), series.points_seen[0], series.points_promised[0]);
    assert_eq!((of(&series[0]), of(&series[1])), ((69.0, 12, 12), (9.0, 4, 12)));
    assert_eq!((summary.received_later, summary.replaced_later), (8, 0));
    for everything in [0, at(16, 13), i64::MAX] {
        let gauges = v1::QueryAggregateRequest {
            known_at_ns: everything,
            ..gauges.clone()
        };
        let (series, summary) = told(&client, gauges).await;
        assert_eq!(of(&series[1]), (77.5, 12, 12));
        assert_eq!((summary.received_later, summary.replaced_later), (0, 0));
    }

    // Their mean over the area: never 39.0.
    let areal = |known_at_ns| v1::QueryAggregateRequest {
        grouping: Some(v1::Grouping::default()),
        areal: Some(v1::Areal::default()),
        known_at_ns,
        ..gauges.clone()
    };
    for (known, mean, used) in [(known, 69.0, (1, 1, 0)), (0, 73.25, (2, 0, 0))] {
        let (series, _) = told(&client, areal(known)).await;
        let areal = series[0].areal[0];
        assert_eq!(number(&series[0]), mean);
        assert_eq!((areal.used, areal.too_few_points, areal.no_points), used);
    }
    let total = over(&["RG1"], "total", Increase, hour, live(at(15, 45)));
    let until = v1::QueryAggregateRequest {
        to_ns: at(15, 45),
        known_at_ns: 0,
        ..total.clone()
    };
    assert_eq!(
        number(&told(&client, total).await.0[0]),
        number(&told(&client, until).await.0[0]),
        "a counter rose as far as was known"
    );
}

async fn report(client: &Client, device: &str, property: &str, until: i64, known: i64) -> v1::QualityReport {
    let request = v1::GetQualityRequest {
        selector: of_devices(&[device]),
        property: property.into(),
        from_ns: TWO,
        to_ns: until,
        gaps: true,
        known_at_ns: known,
        ..Default::default()
    };
    let (messages, summary) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    assert_eq!(summary.known_at_ns, known);
    messages.into_iter().flat_map(|message| message.reports).next().unwrap()
}

#[tokio::test]
async fn gaps_findings_and_what_came_again_are_those_that_were_known() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    afternoon_as_it_came(&client).await;
    let ten = at(16, 10);
    let then = report(&client, "RG2", "rain", ten, live(ten)).await;
    let gap = &then.gaps[0];
    assert_eq!(
        (then.gaps.len(), gap.from_ns, gap.missing, gap.open, then.offline),
        (1, at(15, 20), 10, true, 1)
    );
    let whole = report(&client, "RG2", "rain", ten, 0).await;
    assert_eq!((whole.gaps.len(), whole.slots_filled, whole.offline), (0, 26, 0));
    let health = |known_at_ns| v1::GetHealthRequest {
        selector: of_devices(&["RG2"]),
        from_ns: TWO,
        to_ns: ten,
        known_at_ns,
        ..Default::default()
    };
    for (known, online, age_min) in [(live(ten), 0, 50), (0, 1, 0)] {
        let (messages, summary) = client.get_health(health(known)).await.unwrap().collect().await.unwrap();
        let health = messages[0].reports[0].health.clone().unwrap();
        assert_eq!(summary.known_at_ns, known);
        assert_eq!((health.online, health.age_ms), (online, age_min * 60_000));
    }

    // Nothing before it is so high, and what comes next decides that it cannot be.
    let found = async |t: i64| {
        let report = report(&client, "PD1", "depth", t + FIVE, live(t)).await;
        (report.points_suspect, report.points_fail)
    };
    assert_eq!((found(at(15, 5)).await, found(at(15, 10)).await), ((1, 0), (0, 1)));
    let depths = async |quality: v1::QualityFilter, known: i64| {
        let request = v1::QueryRangeRequest {
            selector: of_devices(&["PD1"]),
            from_ns: at(15, 0),
            to_ns: at(15, 15),
            quality: Some(quality),
            known_at_ns: known,
            ..Default::default()
        };
        let found = read(&client, request).await.into_iter();
        found.map(|(_, t, ..)| (t - at(15, 0)) / MIN).collect::<Vec<_>>()
    };
    let failed = v1::QualityFilter {
        drop_failed: true,
        ..Default::default()
    };
    let suspect = v1::QualityFilter {
        drop_suspect: true,
        ..Default::default()
    };
    assert_eq!(depths(failed.clone(), at(15, 6)).await, [0, 5]);
    assert_eq!(depths(failed, at(15, 11)).await, [0, 10]);
    assert_eq!(depths(suspect, at(15, 6)).await, [0]);

    // The message of 15:30 came twice: once the second had come.
    let river = async |known: i64| report(&client, "RL1", "level", at(15, 35), known).await;
    let (before, after) = (river(at(15, 30) + 7 * S).await, river(at(15, 36)).await);
    assert_eq!((before.duplicates, after.duplicates), (0, 1));
    assert_eq!((before.points, after.points), (18, 19), "it has the time of the second");
}

#[tokio::test]
async fn what_lasts_until_now_lasted_until_then() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    afternoon_as_it_came(&client).await;
    let flooded = |known_at_ns| v1::QueryIntervalsRequest {
        selector: of_devices(&["PD1"]),
        property: "depth".into(),
        from_ns: TWO,
        to_ns: at(20, 0),
        condition: Some(Condition::AtLeast(0.4)),
        known_at_ns,
        ..Default::default()
    };
    let intervals = async |known: i64| {
        let answer = client.query_intervals(flooded(known)).await.unwrap();
        let (messages, summary) = answer.collect().await.unwrap();
        assert_eq!(summary.known_at_ns, known);
        let devices = messages.into_iter().flat_map(|message| message.devices);
        let each = devices.flat_map(|device| device.intervals);
        each.map(|one| (one.peak, one.open, one.unknown_after))
            .collect::<Vec<_>>()
    };
    assert_eq!(intervals(live(at(15, 35))).await, []);
    assert_eq!(intervals(live(at(15, 45))).await, [(0.45, true, false)]);
    assert_eq!(intervals(live(at(15, 50))).await, [(0.46, true, false)]);
    assert_eq!(intervals(live(at(16, 25))).await, [(0.46, false, false)]);
}

/// Rows as (seconds since [`T0`], level, note), and how many were left out, and of these had taken the place of others.
async fn records(client: &Client, known: i64) -> (Vec<(i64, Option<f64>, bool)>, (u64, u64)) {
    let request = v1::QueryRangeRequest {
        known_at_ns: known,
        ..everything(of_devices(&["r1"]))
    };
    let (messages, summary) = client.query_range(request).await.unwrap().collect().await.unwrap();
    let batches = messages.iter().filter_map(|message| message.batch.as_ref());
    let row = |row: tidemark_client::Row<'_>| {
        let level = row.values.iter().find_map(|(property, value)| match value {
            Value::F64(level) if *property == "level" => Some(*level),
            _ => None,
        });
        let note = row.values.iter().any(|(property, _)| *property == "note");
        ((row.observed_at_ns - T0) / S, level, note)
    };
    let found = batches.flat_map(rows).map(row).collect();
    (found, (summary.received_later, summary.replaced_later))
}

#[tokio::test]
async fn a_record_is_known_once_what_is_stored_of_it_had_come() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    let send = async |t: i64, received: i64, property: &'static str, value: Value| {
        let mut batch = BatchBuilder::new(RELIC);
        let row = batch.row("r1", T0 + t * S).received_at(T0 + received * S);
        row.set(property, value);
        client.write(write(batch.build().unwrap())).await.unwrap();
    };
    let level = |level: f64| Value::F64(level);
    for t in [0, 60, 120] {
        send(t, t + 5, "level", level(1.0)).await;
    }
    // One is corrected, and a piece of another comes later.
    send(60, 600, "level", level(2.0)).await;
    send(120, 700, "note", Value::Text("x".into())).await;
    let at = |s: i64| T0 + s * S;
    let (zero, one) = ((0, Some(1.0), false), (60, Some(2.0), false));
    let whole = (120, Some(1.0), true);
    let check = async |known: i64, expected: &[(i64, Option<f64>, bool)], left_out: (u64, u64)| {
        assert_eq!(records(&client, known).await, (expected.to_vec(), left_out));
    };
    check(1, &[], (3, 1)).await;
    check(at(4), &[], (3, 1)).await;
    // What was known of it is not there any more: it is left out, and told.
    check(at(500), &[zero], (2, 1)).await;
    check(at(600), &[zero, one], (1, 0)).await;
    check(at(700), &[zero, one, whole], (0, 0)).await;
    check(0, &[zero, one, whole], (0, 0)).await;

    // Newest values are kept one by one, each with its time.
    let latest = v1::GetLatestRequest {
        selector: of_devices(&["r1"]),
        at_ns: at(800),
        ..Default::default()
    };
    let latest = async |known_at_ns| {
        let request = v1::GetLatestRequest {
            known_at_ns,
            ..latest.clone()
        };
        let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
        let found = crate::common::fleet::latest(&messages).into_iter();
        found
            .map(|((_, property), (t, _))| (property, (t - T0) / S))
            .collect::<Vec<_>>()
    };
    assert_eq!(latest(at(500)).await, [("level".to_owned(), 120)]);
    assert_eq!(latest(at(100)).await, [("level".to_owned(), 0)]);
    assert_eq!(latest(at(4)).await, []);
    assert_eq!(
        latest(at(700)).await,
        [("level".to_owned(), 120), ("note".to_owned(), 120)]
    );
}

#[tokio::test]
async fn headers_answer_as_before_and_only_blocks_that_came_in_part_are_decoded() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let minutes = 24 * 60;
    for day in 0..3 {
        let mut batch = BatchBuilder::new(METER);
        for minute in 0..minutes {
            let t = T0 + day * DAY + minute * MIN;
            let row = batch.row("m1", t).received_at(t + 5 * S);
            row.set("level", (minute % 100) as f64);
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
    let cost = async |known_at_ns: i64| {
        let request = v1::QueryAggregateRequest {
            explain: true,
            ..over(&["m1"], "level", Max, (T0, T0 + 3 * DAY), known_at_ns)
        };
        let (series, summary) = told(&client, request).await;
        let total = summary.explain.unwrap().total.unwrap();
        let seen = series.iter().map(|series| series.points_seen[0]).sum::<u64>();
        (
            seen,
            total.blocks_header_only,
            total.blocks_decoded,
            total.points_decoded,
        )
    };
    let day = minutes as u64;
    assert_eq!(cost(0).await, (3 * day, 3, 0, 0));
    assert_eq!(cost(T0 + 4 * DAY).await, (3 * day, 3, 0, 0), "all of it had come");
    assert_eq!(cost(T0 + DAY).await, (day, 1, 0, 0), "blocks that came whole, or not");
    let (seen, header_only, decoded, points) = cost(T0 + DAY + 6 * HOUR + 30 * S).await;
    assert_eq!((seen, header_only + decoded), (day + 361, 2));
    assert_eq!(points, day, "one block was decoded, to cut it");
}

#[tokio::test]
async fn times_before_all_time_are_refused_and_cursors_are_bound_to_theirs() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    afternoon_as_it_came(&client).await;
    let refused = "INVALID_ARGUMENT INVALID_VALUE known_at_ns; leave it out (0) for everything";
    let selector = of_devices(&["RG1"]);
    let (from_ns, to_ns, known_at_ns) = (TWO, at(20, 0), -1);
    let range = v1::QueryRangeRequest {
        selector: selector.clone(),
        from_ns,
        to_ns,
        known_at_ns,
        ..Default::default()
    };
    let latest = v1::GetLatestRequest {
        selector: selector.clone(),
        known_at_ns,
        ..Default::default()
    };
    let quality = v1::GetQualityRequest {
        selector: selector.clone(),
        from_ns,
        to_ns,
        known_at_ns,
        ..Default::default()
    };
    let health = v1::GetHealthRequest {
        selector: selector.clone(),
        from_ns,
        to_ns,
        known_at_ns,
        ..Default::default()
    };
    let intervals = v1::QueryIntervalsRequest {
        selector,
        property: "rain".into(),
        from_ns,
        to_ns,
        condition: Some(Condition::AtLeast(1.0)),
        known_at_ns,
        ..Default::default()
    };
    let sum = over(&["RG1"], "rain", Sum, (from_ns, to_ns), known_at_ns);
    let errors = [
        client.query_range(range.clone()).await.unwrap_err(),
        client.query_aggregate(sum).await.unwrap_err(),
        client.get_latest(latest).await.unwrap_err(),
        client.get_quality(quality).await.unwrap_err(),
        client.get_health(health).await.unwrap_err(),
        client.query_intervals(intervals).await.unwrap_err(),
    ];
    errors.iter().for_each(|error| assert_eq!(shown(error), refused));

    let page = |known_at_ns, cursor| v1::QueryRangeRequest {
        known_at_ns,
        limit: 5,
        cursor,
        ..range.clone()
    };
    let first = client.query_range(page(at(16, 0), Default::default())).await.unwrap();
    let cursor = first.collect().await.unwrap().1.next_cursor;
    assert!(client.query_range(page(at(16, 0), cursor.clone())).await.is_ok());
    for other in [0, at(16, 0) + 1] {
        let error = client.query_range(page(other, cursor.clone())).await.unwrap_err();
        assert_eq!(error.reason, "INVALID_CURSOR");
    }
}
