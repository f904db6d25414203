//! Questions about few devices and about many, about little and about much: however they are answered, the answer is whole.
//!
//! Never here: how a shard reads (see `shard/from_memory`). Invariant: nothing comes twice from an answer that was begun in one
//! way and given in another.

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, v1};
use v1::Function::{Count, Max};

const IDS: [&str; 5] = ["r1", "r2", "r3", "r4", "r5"];
/// More than is sent from the thread that asks.
const LONG: i64 = 20_000;
const SHORT: i64 = 30;

/// Many rows of the first device, few of the others.
async fn seed_points(client: &Client) {
    furnish(client, &IDS).await;
    for (at, id) in IDS.iter().enumerate() {
        let mut batch = BatchBuilder::new(RELIC);
        for row in 0..if at == 0 { LONG } else { SHORT } {
            batch.row(id, row * MIN).set("level", (row % 997) as f64 + at as f64);
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
}

async fn rows(client: &Client, ids: &[&str], limit: u64) -> (Vec<(String, i64)>, v1::AnswerSummary) {
    let request = v1::QueryRangeRequest {
        limit,
        ..everything(of_devices(ids))
    };
    let answer = client.query_range(request).await.unwrap();
    let (messages, summary) = answer.collect().await.unwrap();
    let mut found: Vec<(String, i64)> = points(&messages).into_iter().map(|(id, t, ..)| (id, t)).collect();
    found.sort();
    (found, summary)
}

#[tokio::test]
async fn every_row_comes_once_whether_there_are_few_or_many() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    seed_points(&client).await;
    for ids in [&IDS[..1], &IDS[1..2], &IDS[..2], &IDS[1..5], &IDS[..]] {
        let length = |id: &str| if id == IDS[0] { LONG } else { SHORT };
        let of_one = |id: &&str| {
            (0..length(id))
                .map(|row| ((*id).to_owned(), row * MIN))
                .collect::<Vec<_>>()
        };
        let expected: Vec<_> = ids.iter().flat_map(of_one).collect();
        let (found, summary) = rows(&client, ids, 0).await;
        assert_eq!(
            (summary.rows, summary.limited),
            (expected.len() as u64, false),
            "{ids:?}"
        );
        assert!(found == expected, "{ids:?}: {} rows", found.len());
    }
    for limit in [7, 17_000] {
        let (found, summary) = rows(&client, &IDS[..1], limit).await;
        let expected: Vec<_> = (0..limit as i64).map(|row| (IDS[0].to_owned(), row * MIN)).collect();
        assert!(found == expected && summary.limited, "{} of {limit} rows", found.len());
    }
}

#[tokio::test]
async fn aggregates_and_newest_values_of_few_are_those_of_many() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    seed_points(&client).await;
    let ask = async |ids: &[&str]| {
        let request = v1::QueryAggregateRequest {
            selector: of_devices(ids),
            properties: vec!["level".into()],
            functions: vec![Count as i32, Max as i32],
            from_ns: 3 * MIN,
            to_ns: (LONG - 3) * MIN,
            window: Some(v1::Window {
                step_ns: DAY,
                origin_ns: 0,
                length_ns: 0,
                ..Default::default()
            }),
            ..v1::QueryAggregateRequest::default()
        };
        let answer = client.query_aggregate(request).await.unwrap();
        let (messages, _) = answer.collect().await.unwrap();
        let mut series: Vec<_> = messages.into_iter().flat_map(|message| message.series).collect();
        series.sort_by(|a, b| a.device.cmp(&b.device));
        let request = v1::GetLatestRequest {
            selector: of_devices(ids),
            ..v1::GetLatestRequest::default()
        };
        let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
        (series, latest(&messages))
    };
    let (all, newest) = ask(&IDS).await;
    assert_eq!((all.len(), newest.len()), (5, 5));
    assert_eq!(all[0].points_seen.iter().sum::<u64>(), LONG as u64 - 6);
    for (at, id) in IDS.iter().enumerate() {
        let (one, value) = ask(&[id]).await;
        assert_eq!(one, all[at..=at], "{id}");
        assert_eq!(value.values().next(), newest.values().nth(at), "{id}");
    }
}
