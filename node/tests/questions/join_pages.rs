//! What joins read, page by page, and how many devices a right side may have.
//! Never here: what belongs to what (see `join`).

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::join::{GAUGE, ask_of, at, rain_of, told, town};
use tidemark_client::{BatchBuilder, Client, v1};
use tidemark_node::config::Tuning;
use v1::JoinDirection;

/// Series of ten hours, a point a minute: `d0`, `d1` and more, each of a town of its own.
async fn long_series(client: &Client, devices: &[&str]) {
    let level = v1::DeviceType {
        bucket_span_s: 3_600,
        ..device_type("long", 0)
    };
    client.apply_device_types(vec![level]).await.unwrap();
    let towns = devices.iter().map(|id| device(id, "long", &[("town", id)]));
    client.register_devices(towns.collect()).await.unwrap();
    for id in devices {
        let mut batch = BatchBuilder::new("long");
        for minute in 0..600 {
            batch
                .row(id, at(minute) + 10 * S)
                .set("level", minute as f64)
                .set("speed", 1.0);
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
}

/// All lines of an answer in pages, and how many values were decoded for them.
async fn in_pages(client: &Client, whole: &v1::QueryJoinRequest, limit: u64) -> (Vec<String>, u64) {
    let (mut found, mut decoded, mut cursor) = (Vec::new(), 0, Default::default());
    loop {
        let request = v1::QueryJoinRequest {
            limit,
            cursor,
            ..whole.clone()
        };
        let (lines, summary) = told(client, request).await;
        let explain = summary.explain.unwrap();
        let shards = explain.shards.iter().filter_map(|work| work.work.as_ref());
        let total = explain.total.unwrap();
        assert_eq!(total.points_decoded, summary.points_read, "of all sides");
        assert_eq!(
            total.points_decoded,
            shards.map(|work| work.points_decoded).sum::<u64>()
        );
        (found, decoded) = ([found, lines].concat(), decoded + total.points_decoded);
        cursor = summary.next_cursor;
        if cursor.is_empty() {
            return (found, decoded);
        }
    }
}

#[tokio::test]
async fn pages_read_of_the_right_sides_what_their_records_need() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    long_series(&client, &["d0", "d1", "d2", "d3"]).await;
    let of = |ids: &[&str], direction: JoinDirection| v1::JoinSide {
        selector: of_devices(ids),
        properties: vec!["level".into()],
        direction: direction as i32,
        ..Default::default()
    };
    let one = v1::QueryJoinRequest {
        selector: of_devices(&["d0"]),
        properties: vec!["level".into()],
        from_ns: at(0),
        to_ns: at(600),
        right: vec![
            of(&["d1"], JoinDirection::Backward),
            of(&["d2", "d3"], JoinDirection::Nearest),
        ],
        explain: true,
        ..Default::default()
    };
    // Each device with what others say of its own town.
    let own = v1::JoinSide {
        selector: of_type("long"),
        properties: vec!["speed".into()],
        direction: JoinDirection::Forward as i32,
        strictly: true,
        r#match: Some(v1::JoinMatch {
            tags: vec!["town".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let each = v1::QueryJoinRequest {
        selector: of_type("long"),
        right: vec![own],
        ..one.clone()
    };
    for whole in [one, each] {
        let (expected, summary) = told(&client, whole.clone()).await;
        let at_once = summary.points_read;
        assert!(expected.len() >= 600 && at_once >= 2_400, "{at_once} values");
        for limit in [50, 240, 600] {
            let (found, decoded) = in_pages(&client, &whole, limit).await;
            assert_eq!(found, expected);
            // Pages share the bucket in which one ends and the next one begins.
            assert!(
                decoded <= 5 * at_once,
                "{decoded} values in pages of {limit}, {at_once} at once"
            );
        }
    }
}

#[tokio::test]
async fn a_right_side_has_so_many_devices_at_most() {
    let tuning = Tuning {
        join_devices_max: 2,
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(3, tuning).await;
    let client = cluster.client().await;
    town(&client).await;
    let two = rain_of(&["g1", "g2"]);
    let (expected, _) = told(&client, ask_of(vec![two.clone()])).await;
    assert_eq!(expected.len(), 4);
    let of_type = v1::JoinSide {
        selector: of_type(GAUGE),
        ..two.clone()
    };
    for side in [rain_of(&["g1", "g2", "g3"]), of_type] {
        for limit in [0, 1] {
            let request = v1::QueryJoinRequest {
                limit,
                ..ask_of(vec![two.clone(), side.clone()])
            };
            let error = match client.query_join(request).await {
                Err(error) => error,
                Ok(answer) => answer.collect().await.unwrap_err(),
            };
            let hint = "choose fewer devices on the right, or make them the left side";
            let line = format!("RESOURCE_EXHAUSTED TOO_MANY_SERIES right[1].selector; {hint}");
            assert_eq!(shown(&error), line);
            assert_eq!(error.message, "more than 2 devices to join records to");
        }
    }
    for i in 0..3 {
        let held = cluster.metric(i, "tidemark_query_bytes_held").await;
        assert_eq!(held, 0, "given back by node {i}");
    }
}
