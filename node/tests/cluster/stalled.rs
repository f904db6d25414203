//! Clients that ask for much and then take nothing: everybody else is served, also by the connections between the nodes.
//! Never here: subscribers that stall (see `live/subscribe_slow`).

use std::time::Duration;

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::v1::{self, query_service_client::QueryServiceClient};
use tidemark_client::{Code, Error};
use tidemark_node::config::Tuning;
use tonic::Streaming;

const DEVICES: usize = 24;
const PAGES: i64 = 50;
/// More than what a connection between two nodes may hold of answers that share it with everything else.
const STALLED: usize = 12;
const ANSWER_BYTES_MAX: usize = 64 << 20;
const SOON: Duration = Duration::from_secs(20);

/// A long answer of which one message was taken.
async fn begun(cluster: &TestCluster) -> Streaming<v1::QueryRangeResponse> {
    let address = format!("http://{}", cluster.client_address(0));
    let client = QueryServiceClient::connect(address).await.unwrap();
    let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
    let answer = client.query_range(everything(of_type(DIARY))).await;
    let mut answer = answer.unwrap().into_inner();
    answer.message().await.unwrap().unwrap();
    answer
}

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
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(begun(&cluster).await);
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
    let mut answer = stalled.pop().unwrap();
    let summary = loop {
        let message = answer.message().await.unwrap().expect("it ends with a summary");
        if let Some(summary) = message.summary {
            break summary;
        }
    };
    assert!(summary.rows >= (DEVICES as i64 * PAGES) as u64);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends_says_so_and_frees_what_it_held() {
    let tuning = Tuning {
        reader_patience: Duration::from_secs(2),
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(1, tuning).await;
    let client = cluster.client().await;
    let ids: Vec<String> = (0..DEVICES).map(|n| format!("d{n:02}")).collect();
    furnish_diaries(&client, &ids).await;
    for page in 0..PAGES {
        let batch = diary_page(&ids, T0 + page * S, DIARY_BYTES);
        client.write(write(batch)).await.unwrap();
    }
    let mut answer = begun(&cluster).await;
    eventually("the answer ends", || async {
        let mut left = Vec::new();
        for name in ["tidemark_queries_running", "tidemark_query_bytes_held"] {
            left.push(cluster.metric(0, name).await);
        }
        if left == [0, 0] {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    let status = loop {
        match answer.message().await {
            Ok(message) => assert!(message.expect("no end without a word").summary.is_none()),
            Err(status) => break status,
        }
    };
    let error = Error::from(&status);
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::Cancelled, "ANSWER_NOT_TAKEN")
    );
}
