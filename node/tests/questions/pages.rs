//! Answers in pages: joined they are the whole answer, whatever is written between them, and nobody can make up where one begins.
//!
//! Never here: what records say (see `range_filters`), how a cursor is sealed (see `wire::cursor`). Invariant: every test walks
//! through public calls alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seeded;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tidemark_client::{BatchBuilder, Client, latest_rows, v1};

const DEVICES: usize = 30;

fn ids() -> Vec<String> {
    (0..DEVICES).map(|i| format!("m{i:02}")).collect()
}

/// Some points of random devices, at times that may have a point already.
async fn write_some(client: &Client, random: &mut StdRng, rows: usize) -> BTreeSet<(String, i64)> {
    let ids = ids();
    let mut batch = BatchBuilder::new(METER);
    let mut written = BTreeSet::new();
    for _ in 0..rows {
        let device = &ids[random.random_range(0..ids.len())];
        let t = T0 + random.random_range(0..5_000) * HOUR;
        batch.row(device, t).set("level", random.random_range(0..100) as f64);
        written.insert((device.clone(), t));
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    written
}

async fn furnished(n: usize) -> (TestCluster, Client) {
    let cluster = TestCluster::start(n).await;
    let client = cluster.client().await;
    let ids = ids();
    furnish(&client, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    (cluster, client)
}

async fn page(client: &Client, request: v1::QueryRangeRequest) -> (Vec<(String, i64)>, v1::AnswerSummary) {
    let (messages, summary) = client.query_range(request).await.unwrap().collect().await.unwrap();
    let rows: Vec<_> = points(&messages).into_iter().map(|(id, t, ..)| (id, t)).collect();
    assert_eq!(rows.len() as u64, summary.rows);
    (rows, summary)
}

#[tokio::test]
async fn pages_joined_are_the_whole_answer_whatever_is_written_between_them() {
    let (_cluster, client) = furnished(3).await;
    let mut random = seeded();
    let mut stored = write_some(&client, &mut random, 1_500).await;
    let some_ids: Vec<String> = ids().into_iter().step_by(2).collect();
    let everywhere = v1::Selector {
        everything: true,
        ..Default::default()
    };
    let by_id = of_devices(&some_ids.iter().map(String::as_str).collect::<Vec<_>>());
    for (round, selector) in [of_type(METER), by_id, Some(everywhere), of_type(METER)]
        .into_iter()
        .enumerate()
    {
        let newest_first = round % 2 == 1;
        let order = if newest_first {
            v1::Order::NewestFirst
        } else {
            v1::Order::Unspecified
        };
        let mut request = v1::QueryRangeRequest {
            order: order as i32,
            ..everything(selector.clone())
        };
        let named = selector.map(|selector| selector.device_ids).unwrap_or_default();
        let is_asked = |id: &String| named.is_empty() || named.contains(id);
        let at_start: BTreeSet<_> = stored.iter().filter(|(id, _)| is_asked(id)).cloned().collect();
        let mut joined = Vec::new();
        loop {
            request.limit = random.random_range(1..200);
            let (rows, summary) = page(&client, request.clone()).await;
            joined.extend(rows);
            assert_eq!(summary.limited, !summary.next_cursor.is_empty());
            if summary.next_cursor.is_empty() {
                break;
            }
            request.cursor = summary.next_cursor;
            if random.random_bool(0.5) {
                let new = write_some(&client, &mut random, 20).await;
                stored.extend(new);
            }
        }
        let distinct: BTreeSet<_> = joined.iter().cloned().collect();
        assert_eq!(distinct.len(), joined.len(), "round {round}: rows came twice");
        assert!(distinct.is_superset(&at_start), "round {round}: rows were lost");
        assert!(distinct.is_subset(&stored), "round {round}: rows of nowhere");
        for pair in joined.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            assert_eq!(pair[0].1 > pair[1].1, newest_first, "round {round}: {pair:?}");
        }
        let devices = joined.chunk_by(|a, b| a.0 == b.0).count();
        let known: BTreeSet<_> = joined.iter().map(|(id, _)| id).collect();
        assert_eq!(devices, known.len(), "round {round}: a device came in two pieces");
    }
}

#[tokio::test]
async fn the_same_limit_cuts_the_same_answer_on_every_node() {
    let (cluster, client) = furnished(3).await;
    write_some(&client, &mut seeded(), 600).await;
    let request = v1::QueryRangeRequest {
        limit: 333,
        ..everything(of_type(METER))
    };
    let (expected, _) = page(&client, request.clone()).await;
    for node in 0..3 {
        let (messages, _) = cluster.at(node).range(request.clone()).await.unwrap();
        let found: Vec<_> = points(&messages).into_iter().map(|(id, t, ..)| (id, t)).collect();
        assert_eq!(found, expected, "node {node}");
    }
}

#[tokio::test]
async fn devices_and_newest_values_come_in_pages() {
    let (_cluster, client) = furnished(3).await;
    let mut random = seeded();
    write_some(&client, &mut random, 200).await;
    for selector in [of_type(METER), of_devices(&["m03", "m01", "m02", "m29", "m17"]), None] {
        let expected: BTreeSet<String> = match &selector {
            Some(selector) if !selector.device_ids.is_empty() => selector.device_ids.iter().cloned().collect(),
            _ => ids().into_iter().collect(),
        };
        let mut request = v1::ListDevicesRequest {
            selector: selector.clone(),
            ..Default::default()
        };
        let mut listed: Vec<String> = Vec::new();
        loop {
            request.limit = random.random_range(1..9);
            let (messages, summary) = client
                .list_devices(request.clone())
                .await
                .unwrap()
                .collect()
                .await
                .unwrap();
            listed.extend(messages.into_iter().flat_map(|m| m.devices).map(|device| device.id));
            if summary.next_cursor.is_empty() {
                break;
            }
            request.cursor = summary.next_cursor;
        }
        assert_eq!(listed.len(), expected.len());
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
        if selector.is_none() {
            continue;
        }
        let mut request = v1::GetLatestRequest {
            selector,
            in_columns: random.random(),
            ..Default::default()
        };
        let mut newest: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            request.limit = random.random_range(1..9);
            let (messages, summary) = client
                .get_latest(request.clone())
                .await
                .unwrap()
                .collect()
                .await
                .unwrap();
            let devices: BTreeSet<&str> = messages.iter().flat_map(latest_rows).map(|row| row.device).collect();
            for device in devices {
                *newest.entry(device.to_owned()).or_default() += 1;
            }
            if summary.next_cursor.is_empty() {
                break;
            }
            request.cursor = summary.next_cursor;
        }
        assert!(newest.values().all(|times| *times == 1), "{newest:?}");
        assert_eq!(newest.into_keys().collect::<BTreeSet<_>>(), expected);
    }
}

#[tokio::test]
async fn pages_pass_over_devices_that_do_not_have_what_is_asked_for() {
    let (_cluster, client) = furnished(1).await;
    // Registered first, and many more than a page takes: runs of them come before the diaries.
    let meters: Vec<String> = (0..200).map(|i| format!("meter{i:03}")).collect();
    furnish(&client, &meters.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let diaries: Vec<String> = (0..25).map(|i| format!("diary{i:02}")).collect();
    furnish_diaries(&client, &diaries).await;
    for in_columns in [false, true] {
        let mut request = v1::GetLatestRequest {
            selector: Some(v1::Selector {
                everything: true,
                ..Default::default()
            }),
            properties: vec!["notes".to_owned()],
            limit: 4,
            in_columns,
            ..Default::default()
        };
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let asked = client.get_latest(request.clone()).await.unwrap();
            let (messages, summary) = asked.collect().await.unwrap();
            found.extend(messages.iter().flat_map(latest_rows).map(|row| row.device.to_owned()));
            pages += 1;
            assert!(pages <= 10, "{found:?}");
            if summary.next_cursor.is_empty() {
                break;
            }
            request.cursor = summary.next_cursor;
        }
        found.sort_unstable();
        assert_eq!(found, diaries);
    }
}

#[tokio::test]
async fn a_device_registered_meanwhile_does_no_harm() {
    let (_cluster, client) = furnished(1).await;
    let request = v1::ListDevicesRequest {
        limit: 10,
        ..Default::default()
    };
    let (mut ids_listed, summary) = listed(&client, request.clone()).await;
    let late = (0..20).map(|i| device(&format!("late{i}"), METER, &[])).collect();
    client.register_devices(late).await.unwrap();
    let rest = v1::ListDevicesRequest {
        limit: 0,
        cursor: summary.next_cursor,
        ..request
    };
    ids_listed.extend(listed(&client, rest).await.0);
    let distinct: BTreeSet<_> = ids_listed.iter().cloned().collect();
    assert_eq!(distinct.len(), ids_listed.len());
    assert!(ids().iter().all(|id| distinct.contains(id)), "{ids_listed:?}");
}

#[tokio::test]
async fn a_cursor_is_good_for_its_question_alone() {
    let (cluster, client) = furnished(3).await;
    write_some(&client, &mut seeded(), 300).await;
    let first = v1::QueryRangeRequest {
        limit: 10,
        ..everything(of_type(METER))
    };
    let (_, summary) = page(&client, first.clone()).await;
    let cursor = summary.next_cursor;
    let refused = async |request: v1::QueryRangeRequest| match cluster.at(1).range(request).await {
        Err(error) => shown(&error),
        Ok(_) => "accepted".to_owned(),
    };
    let with = |cursor: &[u8]| v1::QueryRangeRequest {
        cursor: cursor.to_vec().into(),
        ..first.clone()
    };
    // The same question, asked of another node in other words about its cost.
    let again = v1::QueryRangeRequest {
        limit: 3,
        consistency: any(),
        explain: true,
        ..with(&cursor)
    };
    assert_eq!(refused(again).await, "accepted");
    let invalid = "INVALID_ARGUMENT INVALID_CURSOR cursor; ask from the beginning, without a cursor";
    let other_time = v1::QueryRangeRequest {
        to_ns: T0,
        ..with(&cursor)
    };
    let other_devices = v1::QueryRangeRequest {
        selector: of_devices(&["m01"]),
        ..with(&cursor)
    };
    let other_order = v1::QueryRangeRequest {
        order: v1::Order::NewestFirst as i32,
        ..with(&cursor)
    };
    for other in [other_time, other_devices, other_order] {
        assert_eq!(refused(other).await, invalid);
    }
    let mut random = seeded();
    for _ in 0..20 {
        let mut changed = cursor.to_vec();
        let at = random.random_range(0..changed.len());
        changed[at] ^= 1 << random.random_range(0..8);
        assert_eq!(refused(with(&changed)).await, invalid, "byte {at}");
    }
    for made_up in [&b"x"[..], &[0; 64], &cursor[..cursor.len() - 1]] {
        assert_eq!(refused(with(made_up)).await, invalid);
    }
    let of_others = v1::ListDevicesRequest {
        cursor,
        ..Default::default()
    };
    let error = client.list_devices(of_others).await.expect_err("a cursor of records");
    assert_eq!(shown(&error), invalid);
}

#[tokio::test]
async fn a_cursor_of_another_cluster_is_foreign() {
    let (_ours, client) = furnished(1).await;
    let (_theirs, foreign) = furnished(1).await;
    let request = v1::ListDevicesRequest {
        limit: 3,
        ..Default::default()
    };
    let (_, summary) = listed(&foreign, request.clone()).await;
    let with_cursor = v1::ListDevicesRequest {
        cursor: summary.next_cursor,
        ..request
    };
    assert!(foreign.list_devices(with_cursor.clone()).await.is_ok());
    let error = client.list_devices(with_cursor).await.expect_err("a foreign cursor");
    assert_eq!(error.reason, "INVALID_CURSOR");
}

#[tokio::test]
async fn a_cursor_is_of_the_application_that_it_was_given_to() {
    let (cluster, client) = furnished(1).await;
    write_some(&client, &mut seeded(), 50).await;
    let flood = cluster.client_for(0, "flood").await;
    let roads = cluster.client_for(0, "roads").await;
    let first = v1::QueryRangeRequest {
        limit: 9,
        ..everything(of_type(METER))
    };
    let (_, summary) = page(&flood, first.clone()).await;
    let next = v1::QueryRangeRequest {
        cursor: summary.next_cursor,
        ..first
    };
    for other in [&roads, &client] {
        let error = other.query_range(next.clone()).await.expect_err("a cursor of others");
        assert_eq!(error.reason, "INVALID_CURSOR");
    }
    assert_eq!(page(&flood, next).await.0.len(), 9);
}
