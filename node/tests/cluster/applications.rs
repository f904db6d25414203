//! Many questions at once, and applications that ask too much: who is refused, and that all others get their answers.
//!
//! Never here: budgets of one question (see `budgets`). Invariant: every refusal says when to come again.

use std::time::Duration;

use crate::common::direct::Direct;
use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, ClientOptions, Error, ErrorKind, v1};
use tidemark_node::config::Tuning;
use v1::Function::{Count, Percentile};

const IDS: [&str; 12] = [
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11", "m12",
];
const ROWS: i64 = 2_000;
const POINTS: u64 = IDS.len() as u64 * ROWS as u64;

async fn seed(client: &Client) {
    furnish(client, &IDS).await;
    for id in IDS {
        let mut batch = BatchBuilder::new(METER);
        for row in 0..ROWS {
            batch.row(id, T0 + row * MIN).set("level", (row % 97) as f64);
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
}

/// Every value of every device.
fn wide() -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_type(METER),
        properties: vec!["level".into()],
        functions: vec![Percentile as i32],
        percentiles: vec![50.0],
        from_ns: T0,
        to_ns: T0 + ROWS * MIN,
        window: Some(v1::Window {
            step_ns: 10 * MIN,
            ..v1::Window::default()
        }),
        ..v1::QueryAggregateRequest::default()
    }
}

/// One device.
fn small() -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_devices(&["m1"]),
        properties: vec!["level".into()],
        functions: vec![Count as i32],
        from_ns: T0,
        to_ns: T0 + ROWS * MIN,
        ..v1::QueryAggregateRequest::default()
    }
}

/// A metric of an application.
fn labelled(name: &str, application: &str) -> String {
    format!("{name}{{application=\"{application}\"}}")
}

/// Waits until no node has anything on hand.
async fn all_is_quiet(cluster: &TestCluster) {
    for node in 0..3 {
        eventually("questions end and give back what they held", || async {
            let mut seen = Vec::new();
            for name in [
                "tidemark_queries_running",
                "tidemark_shard_reads_running",
                "tidemark_shard_reads_queued",
                "tidemark_query_bytes_held",
            ] {
                seen.push(cluster.metric(node, name).await);
            }
            if seen == [0; 4] {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
    }
}

fn asks_again(error: &Error) -> &str {
    assert!(error.retry_after.is_some_and(|after| !after.is_zero()), "{error:?}");
    &error.reason
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_wide_questions_at_once_are_answered_or_told_to_come_again() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    seed(&client).await;
    let nodes: Vec<Direct> = (0..3).map(|i| cluster.at(i)).collect();
    let mut asking = tokio::task::JoinSet::new();
    for at in 0..500 {
        let node = nodes[at % 3].clone();
        asking.spawn(async move { node.aggregate(wide()).await });
    }
    // Meanwhile others write, and ask for little.
    for row in 0..40 {
        let t = T0 + (ROWS + row) * MIN;
        let rows = batch(METER, "level", [("m2", t, 1.0)]);
        client.write(numbered(rows, "meanwhile", row as u64 + 1)).await.unwrap();
    }
    let (_, summary) = client.query_aggregate(small()).await.unwrap().collect().await.unwrap();
    assert_eq!(summary.devices, 1);
    let (mut answered, mut refused) = (0, 0);
    while let Some(outcome) = asking.join_next().await {
        match outcome.unwrap() {
            Ok((messages, summary)) => {
                let series: usize = messages.iter().map(|message| message.series.len()).sum();
                assert_eq!(series, IDS.len());
                assert!(summary.points_read >= POINTS, "{summary:?}");
                answered += 1;
            }
            Err(error) => {
                assert!(["OVERLOADED", "APPLICATION_LIMIT"].contains(&asks_again(&error)));
                refused += 1;
            }
        }
    }
    assert!(
        answered >= 3 && refused > 0,
        "{answered} were answered, {refused} refused"
    );
    all_is_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_application_is_refused_while_another_gets_its_answers() {
    let tuning = Tuning {
        read_threads: 1,
        application_questions_max: 4,
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(3, tuning).await;
    seed(&cluster.client().await).await;
    let (node, calm) = (cluster.at(0), cluster.client_for(0, "calm").await);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut busy = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (node, stopped) = (node.clone(), stopped.clone());
        busy.spawn(async move {
            let (mut answered, mut refused) = (0, 0);
            while !*stopped.borrow() {
                match node.aggregate_for(wide(), "busy").await {
                    Ok(_) => answered += 1,
                    Err(error) => {
                        assert_eq!(asks_again(&error), "APPLICATION_LIMIT");
                        assert_eq!(error.field.as_deref(), Some("application_questions_max"));
                        refused += 1;
                    }
                }
                tokio::task::yield_now().await;
            }
            (answered, refused)
        });
    }
    for _ in 0..10 {
        let answer = calm.query_aggregate(wide()).await.unwrap();
        let (messages, _) = answer.collect().await.unwrap();
        let series: usize = messages.iter().map(|message| message.series.len()).sum();
        assert_eq!(series, IDS.len());
    }
    stop.send(true).unwrap();
    let (mut answered, mut refused) = (0, 0);
    while let Some(outcome) = busy.join_next().await {
        let one = outcome.unwrap();
        (answered, refused) = (answered + one.0, refused + one.1);
    }
    assert!(
        answered > 0 && refused > 0,
        "{answered} were answered, {refused} refused"
    );
    all_is_quiet(&cluster).await;
    let of = async |name: &str, application: &str| cluster.metric(0, &labelled(name, application)).await;
    assert_eq!(of("tidemark_application_refused_total", "busy").await, refused);
    assert_eq!(of("tidemark_application_questions_total", "busy").await, answered);
    assert_eq!(of("tidemark_application_refused_total", "calm").await, 0);
    assert_eq!(of("tidemark_application_questions", "busy").await, 0);
}

#[tokio::test]
async fn an_application_pays_for_the_values_that_all_nodes_decode_for_it() {
    let tuning = Tuning {
        application_points_per_minute: POINTS / 4,
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(3, tuning).await;
    seed(&cluster.client().await).await;
    let node = cluster.at(1);
    let (_, summary) = node.aggregate_for(wide(), "hungry").await.unwrap();
    assert_eq!(summary.points_read, POINTS);
    let decoded = cluster
        .metric(1, &labelled("tidemark_application_points_total", "hungry"))
        .await;
    assert_eq!(decoded, POINTS, "whoever decoded them");
    let refused = node.aggregate_for(small(), "hungry").await.unwrap_err();
    assert_eq!(
        shown(&refused),
        "RESOURCE_EXHAUSTED APPLICATION_LIMIT application_points_per_minute; ask less at once, or raise the limit in the \
         settings of the nodes"
    );
    let after = refused.retry_after.expect("it says when");
    assert!(
        (Duration::from_secs(100)..=Duration::from_secs(180)).contains(&after),
        "{after:?}"
    );
    assert!(node.aggregate_for(wide(), "other").await.is_ok());
    assert!(
        node.aggregate(wide()).await.is_ok(),
        "those without a name have their own"
    );
}

#[tokio::test]
async fn what_an_application_holds_is_bounded() {
    let tuning = Tuning {
        application_bytes_max: 64 << 10,
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(3, tuning).await;
    seed(&cluster.client().await).await;
    let node = cluster.at(0);
    let grouped = v1::QueryAggregateRequest {
        grouping: Some(v1::Grouping::default()),
        window: Some(v1::Window {
            step_ns: MIN,
            ..v1::Window::default()
        }),
        ..wide()
    };
    // Nobody else of the application asks: to ask again would not help.
    let refused = node.aggregate_for(grouped, "hoarder").await.unwrap_err();
    assert_eq!(
        (refused.reason.as_str(), refused.kind),
        ("QUERY_TOO_LARGE", ErrorKind::Fix)
    );
    assert_eq!(refused.field.as_deref(), Some("application_bytes_max"));
    all_is_quiet(&cluster).await;
    assert!(node.aggregate_for(small(), "hoarder").await.is_ok());
}

#[tokio::test]
async fn names_of_applications_are_checked() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let long = "x".repeat(65);
    for name in ["", "a b", "(others)", long.as_str()] {
        let refused = cluster.at(0).aggregate_for(small(), name).await.unwrap_err();
        assert_eq!(
            shown(&refused),
            "INVALID_ARGUMENT INVALID_ID tidemark-application; give [A-Za-z0-9._:-]{1,64}, or leave it out",
            "{name:?}"
        );
    }
    let options = ClientOptions {
        endpoints: vec![cluster.client_address(0)],
        application: Some("a b".into()),
        ..ClientOptions::default()
    };
    let refused = Client::connect_with(options).await.unwrap_err();
    assert_eq!(refused.reason, "INVALID_ID");
    // Every question says whose it is.
    let client = cluster.client_for(0, "asks:all").await;
    let selector = of_type(METER);
    let range = everything(selector.clone());
    client.query_range(range).await.unwrap().collect().await.unwrap();
    let latest = v1::GetLatestRequest {
        selector: selector.clone(),
        ..Default::default()
    };
    client.get_latest(latest).await.unwrap().collect().await.unwrap();
    let devices = v1::ListDevicesRequest {
        selector: selector.clone(),
        ..Default::default()
    };
    client.list_devices(devices).await.unwrap().collect().await.unwrap();
    let alerts = v1::ListAlertsRequest {
        selector: selector.clone(),
        ..Default::default()
    };
    client.list_alerts(alerts).await.unwrap().collect().await.unwrap();
    let health = v1::GetHealthRequest {
        selector: selector.clone(),
        from_ns: T0,
        to_ns: T0 + HOUR,
        ..Default::default()
    };
    client.get_health(health).await.unwrap().collect().await.unwrap();
    let quality = v1::GetQualityRequest {
        selector,
        from_ns: T0,
        to_ns: T0 + HOUR,
        ..Default::default()
    };
    client.get_quality(quality).await.unwrap().collect().await.unwrap();
    client.query_aggregate(small()).await.unwrap().collect().await.unwrap();
    let asked = labelled("tidemark_application_questions_total", "asks:all");
    assert_eq!(cluster.metric(0, &asked).await, 7);
}
