//! What an answer says it cost, against what it must have cost.
//!
//! Never here: how blocks are read. Invariant: the expected numbers follow from what was written and how buckets lie.

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seeded;
use rand::RngExt as _;
use tidemark_client::{BatchBuilder, Client, v1};
use v1::Function::{Count, Max, Percentile};

/// A device of METER keeps a day of minutes in a bucket.
const MINUTES: i64 = 24 * 60;

/// Two days of two devices, a value a minute.
async fn two_days(client: &Client) {
    furnish(client, &["m1", "m2"]).await;
    for id in ["m1", "m2"] {
        for day in 0..2 {
            let mut batch = BatchBuilder::new(METER);
            for minute in 0..MINUTES {
                batch
                    .row(id, T0 + day * DAY + minute * MIN)
                    .set("level", (minute % 100) as f64);
            }
            client.write(write(batch.build().unwrap())).await.unwrap();
        }
    }
}

fn aggregate(ids: &[&str], function: v1::Function, from: i64, to: i64) -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_devices(ids),
        properties: vec!["level".into()],
        functions: vec![function as i32],
        percentiles: if function == Percentile { vec![50.0] } else { Vec::new() },
        from_ns: from,
        to_ns: to,
        explain: true,
        ..Default::default()
    }
}

async fn explained(client: &Client, request: v1::QueryAggregateRequest) -> (v1::Explain, v1::AnswerSummary) {
    let (_, mut summary) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
    let explain = summary.explain.take().expect("it was asked for");
    assert_eq!(explain.total.unwrap().points_decoded, summary.points_read);
    (explain, summary)
}

#[tokio::test]
async fn whole_days_are_answered_from_headers_and_a_part_of_one_decodes_it() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    two_days(&client).await;
    let (span_ns, _) = {
        let types = client.list_device_types(vec![METER.into()]).await.unwrap();
        (types[0].bucket_span_s * S, ())
    };
    let buckets = 2 * (2 * DAY / span_ns).max(1) as u64;
    let both = ["m1", "m2"];
    let (explain, _) = explained(&client, aggregate(&both, Max, T0, T0 + 2 * DAY)).await;
    let total = explain.total.unwrap();
    assert_eq!((total.devices, total.buckets), (2, buckets), "{explain:?}");
    assert_eq!(
        (total.points_decoded, total.blocks_decoded, total.blocks_header_only),
        (0, 0, total.blocks),
        "{explain:?}"
    );
    assert!(total.blocks >= total.buckets && total.bytes > 0, "{explain:?}");

    // An hour within one block: only that block, and of it only the hour.
    let (explain, _) = explained(&client, aggregate(&["m1"], Max, T0 + HOUR, T0 + 2 * HOUR)).await;
    let total = explain.total.unwrap();
    assert_eq!((total.blocks_decoded, total.points_decoded), (1, 60), "{explain:?}");

    // What no header tells has to be decoded, all of it.
    let (explain, _) = explained(&client, aggregate(&both, Percentile, T0, T0 + 2 * DAY)).await;
    let total = explain.total.unwrap();
    assert_eq!(total.blocks_header_only, 0, "{explain:?}");
    assert_eq!(total.points_decoded, 2 * 2 * MINUTES as u64);
}

#[tokio::test]
async fn an_explanation_names_the_shards_and_costs_nothing_unasked() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    two_days(&client).await;
    let everything = Some(v1::Selector {
        everything: true,
        ..Default::default()
    });
    let request = v1::QueryRangeRequest {
        selector: everything.clone(),
        from_ns: T0,
        to_ns: T0 + DAY,
        explain: true,
        ..Default::default()
    };
    let answer = client.query_range(request.clone()).await.unwrap();
    let (_, summary) = answer.collect().await.unwrap();
    let explain = summary.explain.unwrap();
    let shards: Vec<u32> = explain.shards.iter().map(|work| work.shard).collect();
    assert_eq!(shards, [1, 2, 3, 4, 5, 6]);
    assert!(explain.took_us >= explain.shards.iter().map(|work| work.took_us).max().unwrap());
    let total = explain.total.unwrap();
    assert_eq!(
        (total.points_decoded, summary.points_read),
        (2 * MINUTES as u64, 2 * MINUTES as u64)
    );
    assert_eq!(total.devices, 2);

    let unasked = v1::QueryRangeRequest {
        explain: false,
        ..request
    };
    let (_, summary) = client.query_range(unasked).await.unwrap().collect().await.unwrap();
    assert_eq!((summary.explain, summary.points_read), (None, 2 * MINUTES as u64));

    // Newest values, quality, intervals and devices say so too; what is in memory is no block.
    let latest = v1::GetLatestRequest {
        selector: everything.clone(),
        explain: true,
        ..Default::default()
    };
    let (_, summary) = client.get_latest(latest).await.unwrap().collect().await.unwrap();
    let total = summary.explain.unwrap().total.unwrap();
    assert_eq!((total.devices, total.points_decoded), (2, 0));
    let quality = v1::GetQualityRequest {
        selector: everything.clone(),
        from_ns: T0,
        to_ns: T0 + DAY,
        explain: true,
        ..Default::default()
    };
    let (_, summary) = client.get_quality(quality).await.unwrap().collect().await.unwrap();
    let total = summary.explain.unwrap().total.unwrap();
    assert!(total.blocks >= 2, "{total:?}");
    assert_eq!(
        total.points_decoded, 0,
        "what comes by the clock is judged by its headers"
    );
    let intervals = v1::QueryIntervalsRequest {
        selector: everything.clone(),
        property: "level".into(),
        from_ns: T0,
        to_ns: T0 + DAY,
        condition: Some(v1::query_intervals_request::Condition::AtLeast(50.0)),
        explain: true,
        ..Default::default()
    };
    let (_, summary) = client
        .query_intervals(intervals)
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert!(summary.explain.unwrap().total.unwrap().blocks_decoded >= 2);
    let devices = v1::ListDevicesRequest {
        selector: everything,
        explain: true,
        ..Default::default()
    };
    let (_, summary) = client.list_devices(devices).await.unwrap().collect().await.unwrap();
    assert_eq!(summary.explain.unwrap().total.unwrap().devices, 2);
}

#[tokio::test]
async fn a_question_about_one_device_is_answered_from_memory_and_says_so() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    two_days(&client).await;
    let (explain, _) = explained(&client, aggregate(&["m1"], Count, T0, T0 + HOUR)).await;
    assert_eq!(explain.shards.len(), 1);
    assert!(explain.shards[0].from_memory, "{explain:?}");
}

#[tokio::test]
async fn a_month_of_one_device_is_answered_from_memory_and_much_of_it_is_not() {
    const EVERY: i64 = 5 * MIN;
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let mut random = seeded();
    let mut write_from = async |from: i64, rows: i64| {
        let mut batch = BatchBuilder::new(METER);
        for row in from..from + rows {
            batch
                .row("m1", T0 + row * EVERY)
                .set("level", random.random_range(0.0..1.0));
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    };
    write_from(0, 8_640).await;
    let month = v1::QueryRangeRequest {
        explain: true,
        ..everything(of_devices(&["m1"]))
    };
    let asked = async || {
        let (_, summary) = client
            .query_range(month.clone())
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        (summary.rows, summary.explain.unwrap().shards[0].from_memory)
    };
    assert_eq!(asked().await, (8_640, true));
    write_from(8_640, 8_640).await;
    assert_eq!(asked().await, (17_280, false));
}

#[tokio::test]
async fn health_and_alerts_say_what_they_cost_and_keep_to_a_budget() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    two_days(&client).await;
    let profile = v1::AlertProfile {
        id: "high".into(),
        device_type: METER.into(),
        property: "level".into(),
        function: v1::AlertFunction::Last as i32,
        levels: vec![v1::AlertLevel {
            level: "red".into(),
            on: 50.0,
            off: 40.0,
            severity: 1,
        }],
        ..Default::default()
    };
    client.apply_alert_profiles(vec![profile]).await.unwrap();
    let list = v1::ListAlertsRequest {
        selector: of_type(METER),
        normal: true,
        explain: true,
        ..Default::default()
    };
    let (_, summary) = client.list_alerts(list.clone()).await.unwrap().collect().await.unwrap();
    let explain = summary.explain.unwrap();
    let total = explain.total.unwrap();
    assert_eq!((explain.shards.len(), total.devices, summary.rows), (6, 2, 2));
    assert!(total.buckets >= 2 && total.points_decoded > 2, "{total:?}");
    assert_eq!(total.points_decoded, summary.points_read);
    let short = v1::ListAlertsRequest { points_max: 1, ..list };
    let refused = match client.list_alerts(short.clone()).await {
        Err(error) => error,
        Ok(answer) => answer.collect().await.expect_err("more than one value"),
    };
    assert_eq!(refused.reason, "TOO_MANY_POINTS");
    let partial = v1::ListAlertsRequest {
        partial_ok: true,
        ..short
    };
    let (_, summary) = client.list_alerts(partial).await.unwrap().collect().await.unwrap();
    let cut = summary.cut_short.expect("it says that it is partial");
    assert_eq!((cut.budget(), cut.limit, summary.rows), (v1::Budget::Points, 1, 0));

    let health = v1::GetHealthRequest {
        selector: of_type(METER),
        from_ns: T0,
        to_ns: T0 + DAY,
        explain: true,
        ..Default::default()
    };
    let (_, summary) = client.get_health(health).await.unwrap().collect().await.unwrap();
    let total = summary.explain.unwrap().total.unwrap();
    assert_eq!((total.devices, total.points_decoded), (2, 0), "headers tell all of it");
    assert!(total.blocks_header_only >= 2, "{total:?}");
}
