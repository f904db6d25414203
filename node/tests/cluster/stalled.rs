//! Clients that ask for much and then take nothing: everybody else is served, also by the connections between the nodes.
//! Never here: subscribers that stall (see `live/subscribe_slow`).

use std::time::Duration;

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::v1;

const DEVICES: usize = 24;
const PAGES: i64 = 20;
/// More than what a connection between two nodes may hold of answers that share it with everything else.
const STALLED: usize = 12;
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn answers_that_nobody_takes_keep_no_write_and_no_small_question_waiting() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let ids: Vec<String> = (0..DEVICES).map(|n| format!("d{n:02}")).collect();
    furnish_diaries(&client, &ids).await;
    for page in 0..PAGES {
        let batch = diary_page(&ids, T0 + page * S, DIARY_BYTES);
        client.write(write(batch)).await.unwrap();
    }
    let stalling = cluster.client_at(0).await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(stalling.query_range(everything(of_type(DIARY))).await.unwrap());
    }
    // Each of them to all shards, most of which other nodes lead.
    let node = cluster.at(0);
    for page in 0..10 {
        let batch = diary_page(&ids, T0 - (1 + page) * S, 10);
        let written = tokio::time::timeout(SOON, node.write(write(batch))).await;
        written.expect("a write goes through").unwrap();
    }
    for id in &ids {
        let asked = node.range(v1::QueryRangeRequest {
            limit: 1,
            ..everything(of_devices(&[id]))
        });
        let (messages, _) = tokio::time::timeout(SOON, asked)
            .await
            .expect("an answer comes")
            .unwrap();
        assert_eq!(points(&messages).len(), 1);
    }
    // Whoever goes on reading has lost nothing.
    let (messages, summary) = stalled.pop().unwrap().collect().await.unwrap();
    assert_eq!(points(&messages).len() as u64, summary.rows);
    assert!(summary.rows >= (DEVICES as i64 * PAGES) as u64);
}
