//! A subscriber that reads slower than others write: what waits for it is bounded, it is told, and it loses nothing.
//! Never here: what a subscription asks for (`subscribe`).

use crate::common::fleet::*;
use crate::common::watch::{Seen, at_node};
use crate::common::{TestCluster, eventually};
use tidemark_client::v1;

const ROUNDS: i64 = 400;
const TEXT_BYTES: usize = 20_000;

/// What may be on its way to one that reads nothing: the subscription's bytes, one event a shard, and what HTTP/2 takes at once.
const UNREAD_BYTES_MAX: u64 = (4 << 20) + (8 << 20);

#[tokio::test]
async fn a_reader_that_stops_holds_little_and_gets_everything_later() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let ids: Vec<String> = (0..4).map(|n| format!("d{n}")).collect();
    furnish_diaries(&client, &ids).await;
    let request = v1::SubscribeRequest {
        selector: of_type(DIARY),
        ..v1::SubscribeRequest::default()
    };
    let (mut stream, _) = at_node(&cluster.at(0), request).await.unwrap();
    for t in 0..ROUNDS {
        client
            .write(write(diary_page(&ids, T0 + t * S, TEXT_BYTES)))
            .await
            .unwrap();
    }
    let made = |rows: u64| rows * TEXT_BYTES as u64;
    let all = made(ROUNDS as u64 * ids.len() as u64);
    assert!(all > 2 * UNREAD_BYTES_MAX, "{all} bytes are too few to tell");
    let unread = made(cluster.metric(0, "tidemark_subscription_rows_total").await);
    assert!(unread < UNREAD_BYTES_MAX, "{unread} of {all} bytes wait");
    // Others are served meanwhile, by the same connections between the nodes.
    for _ in 0..20 {
        client.write(write(diary_page(&ids, T0 - S, 10))).await.unwrap();
    }

    let (mut seen, mut behind_max) = (Seen::default(), 0);
    let expected = ROUNDS as usize * ids.len() + 20 * ids.len();
    let reading = async {
        while seen.rows.len() < expected || seen.behind_ms > 0 {
            let message = stream.message().await.unwrap().expect("it goes on");
            behind_max = behind_max.max(message.behind_ms);
            seen.add(&message);
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), reading)
        .await
        .expect("everything comes");
    assert!(behind_max > 0, "it is told that it is behind");
    for id in &ids {
        let times = &seen.by_device()[id.as_str()][..];
        let expected: Vec<i64> = (0..ROUNDS)
            .map(|t| T0 + t * S)
            .chain(std::iter::repeat_n(T0 - S, 20))
            .collect();
        assert_eq!(times, expected, "{id}");
    }
    drop(stream);
    eventually("its memory is free", || async {
        match cluster.metric(0, "tidemark_subscriptions").await {
            0 => Ok(()),
            some => Err(format!("{some} subscriptions")),
        }
    })
    .await;
}
