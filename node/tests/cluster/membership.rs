//! Clusters through their public face: making them, growing them, and what goes on while nodes are down.
//! Never here: kill -9 of processes. Invariant: what was acknowledged is there, whoever is asked.

use std::time::Duration;

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{Value, v1};
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;
use v1::ConsistencyLevel as Level;

/// Enough devices for every shard to have some.
const DEVICES: usize = 24;

fn names() -> Vec<String> {
    (0..DEVICES).map(|i| format!("m{i}")).collect()
}

async fn furnish_all(cluster: &TestCluster) {
    let mut names = names();
    names.push("r-contested".into());
    let client = cluster.client().await;
    furnish(&client, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// One row of every device at one time.
fn sweep(t: i64, value: i64) -> v1::Batch {
    let mut batch = tidemark_client::BatchBuilder::new(METER);
    for device in names() {
        batch.row(&device, t).set("count", value);
    }
    batch.build().unwrap()
}

fn all_meters(consistency: Option<v1::Consistency>) -> v1::QueryRangeRequest {
    v1::QueryRangeRequest {
        consistency,
        ..everything(of_type(METER))
    }
}

/// What one node answers, sorted, and what it says about it.
async fn seen(
    cluster: &TestCluster,
    node: usize,
    consistency: Option<v1::Consistency>,
) -> Result<(Vec<Point>, v1::AnswerSummary), String> {
    let answer = cluster.at(node).range(all_meters(consistency)).await;
    let (messages, summary) = answer.map_err(|error| shown(&error))?;
    let mut found = points(&messages);
    found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    Ok((found, summary))
}

/// Waits until a node's own replicas show what the cluster has. (While they are still being opened, others answer for it.)
async fn caught_up(cluster: &TestCluster, node: usize, expected: &[Point]) {
    let what = format!("node {node} has everything");
    eventually(&what, || async {
        let status = cluster.at(node).status().await.map_err(|error| shown(&error))?;
        for shard in &status.shards {
            let applied = |replica: &v1::ReplicaStatus| replica.applied_index;
            let newest = shard.replicas.iter().map(applied).max().unwrap();
            let here = shard.replicas.iter().find(|replica| replica.node_id == status.node_id);
            let here = here.map_or(0, applied);
            if here < newest {
                return Err(format!("shard {}: entry {here} of {newest}", shard.shard));
            }
        }
        let (found, summary) = seen(cluster, node, any()).await?;
        assert_eq!(summary.consistency(), Level::Any);
        let (has, of) = (found.len(), expected.len());
        if found == expected {
            Ok(())
        } else {
            Err(format!("{has} points of {of}"))
        }
    })
    .await;
}

#[tokio::test]
async fn init_says_why_it_refuses() {
    let mut cluster = TestCluster::uninitialised(2, Tuning::default()).await;
    let (one, two) = (cluster.peer_address(0), cluster.peer_address(1));
    let request = |peers: &[&String], shards: u32, replication_factor: u32| v1::InitRequest {
        peers: peers.iter().map(ToString::to_string).collect(),
        shards,
        replication_factor,
    };
    let nobody = "127.0.0.1:1".to_string();
    let cases: Vec<(&str, v1::InitRequest, &str)> = vec![
        (
            "one shard",
            request(&[&one], 1, 0),
            "INVALID_ARGUMENT INVALID_INIT shards",
        ),
        (
            "65 shards",
            request(&[&one], 65, 0),
            "INVALID_ARGUMENT INVALID_INIT shards",
        ),
        (
            "2 replicas",
            request(&[&one, &two], 0, 2),
            "INVALID_ARGUMENT INVALID_INIT replication_factor",
        ),
        (
            "3 replicas on 2 nodes",
            request(&[&one, &two], 0, 3),
            "INVALID_ARGUMENT INVALID_INIT replication_factor",
        ),
        (
            "a peer twice",
            request(&[&one, &one], 0, 0),
            "INVALID_ARGUMENT INVALID_INIT peers",
        ),
        (
            "only others",
            request(&[&two], 0, 0),
            "INVALID_ARGUMENT INVALID_INIT peers",
        ),
        (
            "a peer that is not there",
            request(&[&one, &nobody], 0, 0),
            "UNAVAILABLE UNREACHABLE peers",
        ),
    ];
    for (what, request, expected) in cases {
        let error = cluster.at(0).init(request).await.expect_err(what);
        assert_eq!(shown(&error), expected, "{what}: {}", error.message);
        let status = cluster.at(0).status().await.unwrap();
        assert_eq!(
            (status.cluster_id.as_str(), status.healthy),
            ("", false),
            "{what}: nothing was begun"
        );
    }
    let not_yet = "FAILED_PRECONDITION NOT_INITIALISED; tidemark cluster init";
    let write = cluster.at(0).write(write(sweep(now_ns(), 1))).await.unwrap_err();
    let query = cluster.at(0).range(all_meters(None)).await.unwrap_err();
    let apply = cluster.at(0).apply(vec![device_type(METER, 0)]).await.unwrap_err();
    for error in [write, query, apply] {
        assert_eq!(shown(&error), not_yet);
    }

    // The second node makes a cluster of its own; from then on it is taken.
    let made = cluster.at(1).init(v1::InitRequest::default()).await.unwrap();
    assert_eq!((made.shards, made.replication_factor, made.nodes.len()), (4, 1, 1));
    let again = cluster.at(1).init(v1::InitRequest::default()).await.unwrap_err();
    assert_eq!(shown(&again), "FAILED_PRECONDITION ALREADY_INITIALISED");
    let taken = cluster.at(0).init(request(&[&one, &two], 0, 0)).await.unwrap_err();
    let expected = "FAILED_PRECONDITION ALREADY_INITIALISED peers";
    assert!(shown(&taken).starts_with(expected), "{}", shown(&taken));

    // Joining needs the right cluster and somebody who is there.
    let join = |peer: &String, cluster_id: &str| v1::JoinRequest {
        peer: peer.clone(),
        cluster_id: cluster_id.into(),
    };
    let wrong = cluster.at(0).join(join(&two, "another")).await.unwrap_err();
    assert_eq!(shown(&wrong), "FAILED_PRECONDITION WRONG_CLUSTER cluster_id");
    let nobody = cluster.at(0).join(join(&nobody, "")).await.unwrap_err();
    assert_eq!(shown(&nobody), "UNAVAILABLE UNREACHABLE peer");
    let joined = cluster.at(0).join(join(&two, &made.cluster_id)).await.unwrap();
    assert_eq!((joined.cluster_id, joined.node.unwrap().id), (made.cluster_id, 2));
    cluster.stop(0).await;
}

#[tokio::test]
async fn three_nodes_serve_while_one_is_down_and_refuse_while_two_are() {
    let mut cluster = TestCluster::start(3).await;
    let status = cluster.healthy(0).await;
    assert_eq!(
        (status.nodes.len(), status.shards.len(), status.replication_factor),
        (3, 7, 3)
    );
    furnish_all(&cluster).await;
    written_anywhere_read_everywhere(&cluster).await;
    levels_say_what_they_gave(&cluster).await;
    overwrites_at_once_agree(&cluster).await;
    one_down_and_back(&mut cluster).await;
    two_down_and_back(&mut cluster).await;
}

async fn written_anywhere_read_everywhere(cluster: &TestCluster) {
    let start = now_ns() - HOUR;
    for (i, from) in [0, 1, 2].into_iter().enumerate() {
        let stored = cluster
            .at(from)
            .write(write(sweep(start + i as i64 * S, i as i64)))
            .await
            .unwrap();
        assert_eq!(stored.points, DEVICES as u64);
        for reader in 0..3 {
            let (found, summary) = seen(cluster, reader, None).await.unwrap();
            assert_eq!(found.len(), (i + 1) * DEVICES, "written at {from}, read at {reader}");
            assert_eq!((summary.consistency(), summary.lag_ms), (Level::Linearizable, 0));
            assert_eq!((summary.devices, summary.rows), (DEVICES as u64, found.len() as u64));
        }
    }
}

async fn levels_say_what_they_gave(cluster: &TestCluster) {
    let (expected, _) = seen(cluster, 0, None).await.unwrap();
    for node in 0..3 {
        caught_up(cluster, node, &expected).await;
        let (found, summary) = seen(cluster, node, bounded(20_000)).await.unwrap();
        assert_eq!(found, expected);
        assert_eq!(summary.consistency(), Level::Bounded, "some shards are led elsewhere");
        assert!((0..=20_000).contains(&summary.lag_ms), "{summary:?}");
        // Nobody but a leader was in step 0 ms ago.
        let (found, summary) = seen(cluster, node, bounded(0)).await.unwrap();
        assert_eq!((found.len(), summary.lag_ms), (expected.len(), 0));
    }
    let negative = seen(cluster, 0, bounded(-1)).await.unwrap_err();
    assert_eq!(
        negative,
        "INVALID_ARGUMENT INVALID_VALUE consistency.bounded.max_lag_ms"
    );
}

async fn overwrites_at_once_agree(cluster: &TestCluster) {
    let t = now_ns() - HOUR;
    let writes = (0..30).map(|i| {
        let request = write(batch(RELIC, "count", [("r-contested", t, i)]));
        let node = cluster.at(i as usize % 3);
        async move { node.write(request).await }
    });
    for stored in futures_util::future::join_all(writes).await {
        assert_eq!(stored.unwrap().points, 1);
    }
    let mut answers = Vec::new();
    for node in 0..3 {
        let (messages, _) = cluster
            .at(node)
            .range(everything(of_devices(&["r-contested"])))
            .await
            .unwrap();
        answers.push(points(&messages));
    }
    assert_eq!(answers[0].len(), 1);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

async fn one_down_and_back(cluster: &mut TestCluster) {
    cluster.stop(2).await;
    let client = cluster.client_at(0).await;
    for i in 0..10 {
        let request = numbered(sweep(now_ns() - MIN + i * S, i), "one-down", i as u64 + 1);
        assert_eq!(client.write(request).await.unwrap().points, DEVICES as u64);
    }
    let (expected, _) = seen(cluster, 1, None).await.unwrap();
    assert_eq!(expected.len(), 13 * DEVICES);
    let status = cluster.at(0).status().await.unwrap();
    assert!(!status.healthy);
    assert_eq!(
        status.problems,
        [format!("node 3 at {} does not answer", cluster.peer_address(2))]
    );
    let reachable: Vec<bool> = status.nodes.iter().map(|node| node.reachable).collect();
    assert_eq!(reachable, [true, true, false]);
    cluster.restart(2).await;
    cluster.healthy(2).await;
    caught_up(cluster, 2, &expected).await;
}

/// Two nodes die while every device is written at the third, one write after the other until one fails.
async fn in_flight_when_cut_off(cluster: &mut TestCluster, late: i64) {
    let node = cluster.at(0);
    let until_refused = |device: String| {
        let node = node.clone();
        let mut batch = tidemark_client::BatchBuilder::new(METER);
        batch.row(&device, late).set("count", 7);
        let batch = batch.build().unwrap();
        async move {
            let mut sequence = 0;
            loop {
                sequence += 1;
                let request = numbered(batch.clone(), &format!("until-refused-{device}"), sequence);
                if let Err(refused) = node.write(request).await {
                    return refused;
                }
            }
        }
    };
    let writers = futures_util::future::join_all(names().into_iter().map(until_refused));
    let (refused, ()) = tokio::join!(writers, async {
        cluster.drop_node(1).await;
        cluster.drop_node(2).await;
    });
    let shown = |error: &tidemark_client::Error| format!("{} {}", shown(error), error.message);
    let all: Vec<String> = refused.iter().map(shown).collect();
    assert!(all.iter().all(|one| one.starts_with("UNAVAILABLE ")), "{all:#?}");
    let said = |one: &String| one.contains("OUTCOME_UNKNOWN") && one.contains("no majority has agreed");
    assert!(all.iter().any(said), "{all:#?}");
}

async fn two_down_and_back(cluster: &mut TestCluster) {
    let (expected, _) = seen(cluster, 0, None).await.unwrap();
    let late = now_ns();
    in_flight_when_cut_off(cluster, late).await;
    let refused = cluster.at(0).write(write(sweep(late, 7))).await.unwrap_err();
    assert!(shown(&refused).starts_with("UNAVAILABLE "), "{}", shown(&refused));
    assert!(refused.retry_after.is_some(), "{refused:?}");
    let refused = seen(cluster, 0, None).await.unwrap_err();
    assert_eq!(refused, "UNAVAILABLE NO_LEADER");
    let (found, summary) = seen(cluster, 0, any()).await.unwrap();
    let before = |found: Vec<Point>| found.into_iter().filter(|(_, t, ..)| *t != late).collect::<Vec<_>>();
    assert_eq!((before(found), summary.consistency()), (expected.clone(), Level::Any));
    assert!(!cluster.at(0).status().await.unwrap().healthy);
    // The client library says the same when its time is up.
    let hasty = cluster.client_in_a_hurry(0, Duration::from_secs(3)).await;
    let refused = hasty.write(numbered(sweep(late, 7), "two-down", 1)).await.unwrap_err();
    assert_eq!(refused.kind, tidemark_client::ErrorKind::Retry, "{refused:?}");

    cluster.restart(1).await;
    cluster.restart(2).await;
    cluster.healthy(0).await;
    let stored = cluster
        .client()
        .await
        .write(numbered(sweep(late, 7), "two-down", 1))
        .await
        .unwrap();
    assert_eq!(stored.points, DEVICES as u64);
    let (found, _) = seen(cluster, 0, None).await.unwrap();
    assert_eq!(before(found), expected, "nothing is lost, nothing is doubled");
}

#[tokio::test]
async fn a_node_that_missed_the_purged_log_is_given_a_snapshot() {
    let tuning = Tuning {
        flush_every: Duration::from_millis(50),
        flush_all_every: 1,
        entries_unflushed_max: 1,
        log_entries_kept: 5,
        silent_after: Duration::from_millis(1),
        ..Tuning::default()
    };
    let mut cluster = TestCluster::start_with(3, tuning).await;
    furnish_all(&cluster).await;
    let client = cluster.client().await;
    let start = now_ns() - HOUR;
    let mut sent = 0;
    // The nodes that are up purge in their own time; a node that comes back too early is given the log.
    while snapshots_installed(&cluster, 2) == 0 {
        assert!(sent < 3_000, "no purge made a snapshot necessary");
        cluster.stop(2).await;
        for _ in 0..150 {
            let request = numbered(sweep(start + sent * S, sent), "p", sent as u64 + 1);
            client.write(request).await.unwrap();
            sent += 1;
        }
        cluster.restart(2).await;
        let (expected, _) = seen(&cluster, 0, None).await.unwrap();
        assert_eq!(expected.len(), sent as usize * DEVICES);
        caught_up(&cluster, 2, &expected).await;
    }
    let last = sent - 1;
    // What came by snapshot is as good as the rest: latest values, producers, devices, the next entries, a restart.
    let request = v1::GetLatestRequest {
        selector: of_type(METER),
        consistency: any(),
        ..v1::GetLatestRequest::default()
    };
    let (messages, _) = cluster.at(2).latest(request).await.unwrap();
    let newest = latest(&messages);
    assert_eq!(newest.len(), DEVICES);
    assert!(
        newest
            .values()
            .all(|value| *value == (start + last * S, Value::I64(last)))
    );
    cluster.stop(0).await;
    let again = client
        .write(numbered(sweep(start + last * S, last), "p", sent as u64))
        .await
        .unwrap();
    assert!(again.duplicate, "{again:?}");
    assert!(
        !client
            .write(numbered(sweep(start - S, 1), "p", sent as u64 + 1))
            .await
            .unwrap()
            .duplicate
    );
    let (expected, _) = seen(&cluster, 1, None).await.unwrap();
    caught_up(&cluster, 2, &expected).await;
    cluster.stop(2).await;
    cluster.restart(2).await;
    caught_up(&cluster, 2, &expected).await;
    cluster.restart(0).await;
    caught_up(&cluster, 0, &expected).await;
}

/// Replicas of a node whose state is no longer the one they were opened with first.
fn snapshots_installed(cluster: &TestCluster, node: usize) -> usize {
    let groups = std::fs::read_dir(cluster.data_dir(node).join("groups")).unwrap();
    let current = groups.map(|group| std::fs::read_to_string(group.unwrap().path().join("CURRENT")).unwrap());
    current.filter(|name| name.trim() != "state-1").count()
}

#[tokio::test]
async fn a_fourth_node_joins_and_forwards() {
    let mut cluster = TestCluster::start(3).await;
    furnish_all(&cluster).await;
    let fourth = cluster.add().await;
    let request = v1::JoinRequest {
        peer: cluster.peer_address(1),
        cluster_id: String::new(),
    };
    let joined = cluster.at(fourth).join(request.clone()).await.unwrap();
    assert_eq!(joined.node.unwrap().id, 4);
    let again = cluster.at(fourth).join(request).await.unwrap_err();
    assert_eq!(shown(&again), "FAILED_PRECONDITION ALREADY_INITIALISED");

    // The catalog reaches it.
    eventually("the fourth node knows the types", || async {
        let types = cluster.at(fourth).types(&[]).await.map_err(|e| shown(&e))?;
        let ids: Vec<_> = types.into_iter().map(|t| t.id).collect();
        if ids == [METER, RELIC] {
            Ok(())
        } else {
            Err(format!("{ids:?}"))
        }
    })
    .await;
    for node in 0..4 {
        let status = cluster.healthy(node).await;
        let ids: Vec<_> = status.nodes.iter().map(|n| n.node.as_ref().unwrap().id).collect();
        assert_eq!(ids, [1, 2, 3, 4], "as node {node} sees it");
        assert_eq!(status.shards[0].replicas.len(), 4, "the catalog is on all of them");
    }
    // It takes what the others take and forwards it.
    cluster
        .at(fourth)
        .apply(vec![device_type("test-late", 0)])
        .await
        .unwrap();
    cluster
        .at(fourth)
        .register(vec![device("late", "test-late", &[])])
        .await
        .unwrap();
    let now = now_ns();
    cluster.at(fourth).write(write(sweep(now, 1))).await.unwrap();
    let expected = seen(&cluster, 0, None).await.unwrap().0;
    assert_eq!(expected.len(), DEVICES);
    for consistency in [None, bounded(60_000), any()] {
        assert_eq!(
            seen(&cluster, fourth, consistency).await.unwrap().0,
            expected,
            "{consistency:?}"
        );
    }
    let client = cluster.client_at(fourth).await;
    client
        .write(write(batch("test-late", "level", [("late", now, 1.0)])))
        .await
        .unwrap();

    // And comes back after a restart.
    cluster.stop(fourth).await;
    cluster.restart(fourth).await;
    eventually("the fourth node answers again", || async {
        let (found, _) = seen(&cluster, fourth, None).await?;
        if found == expected {
            Ok(())
        } else {
            Err(format!("{} points", found.len()))
        }
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_all_nodes_keeps_everything() {
    let mut cluster = TestCluster::start(3).await;
    furnish_all(&cluster).await;
    let client = cluster.client().await;
    let start = now_ns() - HOUR;
    for i in 0..20 {
        client
            .write(numbered(sweep(start + i * S, i), "p", i as u64 + 1))
            .await
            .unwrap();
    }
    let (expected, _) = seen(&cluster, 0, None).await.unwrap();
    assert_eq!(expected.len(), 20 * DEVICES);
    for abrupt in [false, true] {
        for node in 0..3 {
            if abrupt {
                cluster.drop_node(node).await
            } else {
                cluster.stop(node).await
            }
        }
        for node in 0..3 {
            cluster.restart(node).await;
        }
        cluster.healthy(0).await;
        for node in 0..3 {
            let (found, _) = seen(&cluster, node, None).await.unwrap();
            assert_eq!(found, expected, "node {node}, abrupt {abrupt}");
            caught_up(&cluster, node, &expected).await;
        }
        let again = client.write(numbered(sweep(start, 0), "p", 1)).await.unwrap();
        assert!(again.duplicate, "producers are remembered");
        let listed = cluster.at(1).devices(v1::ListDevicesRequest::default()).await.unwrap();
        assert_eq!(listed.1.devices, DEVICES as u64 + 1);
        assert_eq!(cluster.at(2).types(&[]).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let cluster = TestCluster::uninitialised(1, Tuning::default()).await;
    let channel = cluster.at(0).channel;
    let health = HealthClient::new(channel.clone())
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);

    let expected = [
        "AlertService",
        "BackupService",
        "ClusterService",
        "IngestService",
        "QueryService",
        "RegistryService",
        "SubscribeService",
    ]
    .map(|s| format!("tidemark.v1.{s}"));
    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = ServerReflectionClient::new(channel.clone());
            let answers = client
                .server_reflection_info(tokio_stream::iter([request]))
                .await
                .unwrap();
            let answer = answers.into_inner().message().await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("{answer:?}")
            };
            let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
            names.retain(|name| name.starts_with("tidemark."));
            names.sort();
            names
        }};
    }
    assert_eq!(services!(v1), expected);
    assert_eq!(services!(v1alpha), expected);
}
