//! Time whose points are gone and whose rollups are left: answers say so, and nothing is written into it any more.
//! Never here: what rollups answer (see `rollups`).

use super::rollups::{GRADED, IDS, furnish_graded, graded, tuning};
use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, v1};
use tidemark_node::clock::now_ns;
use v1::Function;

/// What a question of each kind says of the time before which raw points are gone: the length of rollups that answered.
async fn sealed(client: &Client, (from_ns, to_ns): (i64, i64)) -> Vec<(&'static str, Option<u32>)> {
    let selector = of_type(GRADED);
    let aggregate = |function: Function, step_ns: i64| v1::QueryAggregateRequest {
        selector: selector.clone(),
        properties: vec!["level".into()],
        functions: vec![function as i32],
        from_ns,
        to_ns,
        window: Some(v1::Window {
            step_ns,
            ..v1::Window::default()
        }),
        ..v1::QueryAggregateRequest::default()
    };
    let range = v1::QueryRangeRequest {
        from_ns,
        to_ns,
        ..everything(selector.clone())
    };
    let quality = v1::GetQualityRequest {
        selector: selector.clone(),
        from_ns,
        to_ns,
        ..Default::default()
    };
    let health = v1::GetHealthRequest {
        selector: selector.clone(),
        from_ns,
        to_ns,
        ..Default::default()
    };
    let intervals = v1::QueryIntervalsRequest {
        selector: selector.clone(),
        property: "level".into(),
        from_ns,
        to_ns,
        condition: Some(v1::query_intervals_request::Condition::AtLeast(1.0)),
        ..Default::default()
    };
    let latest = |at_ns: i64| v1::GetLatestRequest {
        selector: selector.clone(),
        at_ns,
        ..Default::default()
    };
    macro_rules! summary {
        ($answer:expr) => {
            $answer.await.unwrap().collect().await.unwrap().1
        };
    }
    let summaries = [
        ("range", summary!(client.query_range(range))),
        (
            "hours",
            summary!(client.query_aggregate(aggregate(Function::Avg, HOUR))),
        ),
        (
            "five minutes",
            summary!(client.query_aggregate(aggregate(Function::Avg, 5 * MIN))),
        ),
        (
            "minutes",
            summary!(client.query_aggregate(aggregate(Function::Avg, MIN))),
        ),
        (
            "sequence",
            summary!(client.query_aggregate(aggregate(Function::TimeWeightedAvg, HOUR))),
        ),
        ("quality", summary!(client.get_quality(quality))),
        ("health", summary!(client.get_health(health))),
        ("intervals", summary!(client.query_intervals(intervals))),
        ("then", summary!(client.get_latest(latest(from_ns)))),
        ("now", summary!(client.get_latest(latest(0)))),
    ];
    let told = |(question, summary): (&'static str, v1::AnswerSummary)| {
        assert!(summary.sealed.len() < 2, "{summary:?}");
        let sealed = summary.sealed.first().inspect(|sealed| {
            assert_eq!(sealed.device_type, GRADED);
            assert!(sealed.before_ns > from_ns, "{sealed:?}");
        });
        (question, sealed.map(|sealed| sealed.rollup_s))
    };
    summaries.into_iter().map(told).collect()
}

#[tokio::test]
async fn an_answer_about_time_without_raw_points_says_so() {
    let cluster = TestCluster::start_with(3, tuning()).await;
    let client = cluster.client().await;
    furnish_graded(&client, 0, 60).await;
    let (old, new) = ((now_ns() - 6 * DAY) / DAY * DAY, now_ns() / HOUR * HOUR - 2 * HOUR);
    let mut batch = BatchBuilder::new(GRADED);
    for (minute, id) in (0..60).flat_map(|minute| IDS.map(|id| (minute, id))) {
        batch.row(id, old + minute * MIN).set("level", minute as f64 / 2.0);
        batch.row(id, new + minute * MIN).set("level", 1.0);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    let silent = [
        "range",
        "hours",
        "five minutes",
        "minutes",
        "sequence",
        "quality",
        "health",
        "intervals",
        "then",
        "now",
    ]
    .map(|question| (question, None));
    assert_eq!(sealed(&client, (old, old + HOUR)).await, silent, "nothing is gone yet");
    client.apply_device_types(vec![graded(2, 60)]).await.unwrap();
    eventually("points are gone", || async {
        let range = v1::QueryRangeRequest {
            from_ns: old,
            to_ns: old + HOUR,
            ..everything(of_type(GRADED))
        };
        match read(&client, range).await.len() {
            0 => Ok(()),
            others => Err(format!("{others} points")),
        }
    })
    .await;
    let told = [
        ("range", Some(0)),
        ("hours", Some(3_600)),
        ("five minutes", Some(300)),
        ("minutes", Some(0)),
        ("sequence", Some(3_600)),
        ("quality", Some(0)),
        ("health", Some(0)),
        ("intervals", Some(0)),
        ("then", Some(0)),
        ("now", None),
    ];
    assert_eq!(sealed(&client, (old, old + HOUR)).await, told);
    assert_eq!(sealed(&client, (old, new + HOUR)).await, told);
    assert_eq!(
        sealed(&client, (new, new + HOUR)).await,
        silent,
        "all of that time is there"
    );
}

#[tokio::test]
async fn a_row_in_sealed_time_refuses_its_batch_in_every_shard() {
    let cluster = TestCluster::start_with(3, tuning()).await;
    let client = cluster.client().await;
    furnish_graded(&client, 0, 60).await;
    let t0 = (now_ns() - 4 * DAY) / DAY * DAY;
    let level = |ids: &[&'static str]| batch(GRADED, "level", ids.iter().map(|id| (*id, t0 + MIN, 1.0)));
    client.write(write(level(&IDS[..1]))).await.unwrap();
    client.apply_device_types(vec![graded(2, 60)]).await.unwrap();
    eventually("its points are gone, and their time is sealed in one shard", || async {
        match read(&client, everything(of_type(GRADED))).await.len() {
            0 => Ok(()),
            others => Err(format!("{others} points")),
        }
    })
    .await;
    // Kept for longer again: now only that shard would not take them.
    client.apply_device_types(vec![graded(30, 60)]).await.unwrap();
    let refused = eventually("every node knows", || async {
        let error = client.write(write(level(&IDS))).await.unwrap_err();
        match error.message.contains("older than the retention") {
            true => Err(error.message),
            false => Ok(error),
        }
    })
    .await;
    assert_eq!(refused.reason, "TIME_TOO_OLD", "{refused:?}");
    assert!(
        refused.message.contains("their rollups stay as they are"),
        "{refused:?}"
    );
    assert_eq!(refused.rows[0].row, 0, "{refused:?}");
    let named = refused.rows.len();
    assert!(named < IDS.len(), "some rows go to other shards: {refused:?}");
    assert_eq!(
        read(&client, everything(of_type(GRADED))).await.len(),
        0,
        "nothing of it"
    );
    let young = batch(GRADED, "level", IDS.into_iter().map(|id| (id, t0 + DAY, 1.0)));
    assert_eq!(client.write(write(young)).await.unwrap().rows, 6);
}
