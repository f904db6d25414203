//! Raw ranges that leave out when records were received: the same rows, filtered, in either order, in pages, with all that is said of
//! them. Never here: what records say (see `range_filters`, `qualifiers`). Invariant: what is expected is the answer that has these times.

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seeded;
use rand::RngExt as _;
use tidemark_client::{BatchBuilder, Client, Row, rows, v1};
use v1::value_filter::Condition;

/// All rows of an answer, over its pages; every other page has the times of receipt if these may differ.
async fn answered(client: &Client, mut request: v1::QueryRangeRequest, by_turns: bool) -> Vec<v1::QueryRangeResponse> {
    let mut all = Vec::new();
    loop {
        let (messages, summary) = client
            .query_range(request.clone())
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        all.extend(messages);
        request.without_received_at ^= by_turns;
        request.cursor = summary.next_cursor;
        if request.cursor.is_empty() {
            return all;
        }
    }
}

fn all_rows(messages: &[v1::QueryRangeResponse]) -> Vec<Row<'_>> {
    messages
        .iter()
        .filter_map(|message| message.batch.as_ref())
        .flat_map(rows)
        .collect()
}

/// The same row without its time of receipt.
fn stripped<'a>(row: &Row<'a>) -> Row<'a> {
    Row {
        received_at_ns: None,
        ..row.clone()
    }
}

#[tokio::test]
async fn rows_without_times_of_receipt_are_the_same_rows() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2"]).await;
    let mut random = seeded();
    for _ in 0..6 {
        let mut batch = BatchBuilder::new(METER);
        for _ in 0..700 {
            let device = ["m1", "m2"][random.random_range(0..2)];
            let t = T0 + random.random_range(0..20_000) * MIN;
            let row = batch.row(device, t).received_at(t + random.random_range(-60..600) * S);
            row.set("level", f64::from(random.random_range(0..100)));
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
    let high = v1::ValueFilter {
        property: "level".into(),
        condition: Some(Condition::AtLeast(50.0)),
    };
    let all = everything(of_type(METER));
    let questions = [
        all.clone(),
        v1::QueryRangeRequest {
            properties: vec!["level".into()],
            ..all.clone()
        },
        v1::QueryRangeRequest {
            order: v1::Order::NewestFirst as i32,
            limit: 900,
            ..all.clone()
        },
        v1::QueryRangeRequest {
            values: vec![high],
            limit: 333,
            ..all.clone()
        },
        v1::QueryRangeRequest {
            qualifiers: true,
            limit: 1_000,
            ..all.clone()
        },
        v1::QueryRangeRequest {
            known_at_ns: T0 + 10_000 * MIN,
            ..all
        },
    ];
    for question in questions {
        let with = answered(&client, question.clone(), false).await;
        let with = all_rows(&with);
        assert!(
            with.len() > 300 && with.iter().all(|row| row.received_at_ns.is_some()),
            "{question:?}"
        );
        let bare = v1::QueryRangeRequest {
            without_received_at: true,
            ..question
        };
        for by_turns in [false, true] {
            let without = answered(&client, bare.clone(), by_turns).await;
            let without = all_rows(&without);
            assert_eq!(
                by_turns && bare.limit > 0,
                without.iter().any(|row| row.received_at_ns.is_some())
            );
            let [with, without] = [&with, &without].map(|rows| rows.iter().map(stripped).collect::<Vec<_>>());
            assert_eq!(with, without, "{bare:?}");
        }
    }
}
