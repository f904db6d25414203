//! What a node serves over HTTP/1.1 on the port of its clients: health, readiness, metrics.
//! Never here: gRPC. Invariant: probes answer also where the node is in no cluster.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::v1;
use tidemark_node::config::Tuning;

/// Status and body of a GET.
async fn get(cluster: &TestCluster, node: usize, path: &str) -> (u16, String) {
    cluster.get(node, path).await
}

async fn ready(cluster: &TestCluster, node: usize) {
    eventually("the node is ready", || async {
        match get(cluster, node, "/readyz").await {
            (200, _) => Ok(()),
            (_, missing) => Err(missing),
        }
    })
    .await;
}

/// Samples by name and labels; fails where the text is not of the format.
async fn samples(cluster: &TestCluster, node: usize) -> BTreeMap<String, f64> {
    let (code, text) = get(cluster, node, "/metrics").await;
    assert_eq!(code, 200);
    let (mut samples, mut families, mut family) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_string();
            assert!(families.insert(family.clone()), "{family} twice");
        }
        if !line.starts_with('#') {
            assert!(line.starts_with(&family), "{line} in {family}");
            let (name, value) = line.rsplit_once(' ').unwrap();
            let before = samples.insert(name.to_string(), value.parse().unwrap());
            assert!(before.is_none(), "{name} twice");
        }
    }
    samples
}

#[tokio::test]
async fn a_node_without_a_cluster_is_alive_and_not_ready() {
    let mut cluster = TestCluster::uninitialised(1, Tuning::default()).await;
    assert_eq!(get(&cluster, 0, "/healthz").await, (200, "ok\n".into()));
    let (code, missing) = get(&cluster, 0, "/readyz").await;
    assert_eq!(code, 503);
    assert!(missing.contains("belongs to no cluster"), "{missing}");
    assert_eq!(samples(&cluster, 0).await["tidemark_ready"], 0.0);
    cluster.init().await;
    ready(&cluster, 0).await;
    assert_eq!(samples(&cluster, 0).await["tidemark_ready"], 1.0);
}

#[tokio::test]
async fn a_node_that_lost_the_others_says_which_shards_have_no_leader() {
    let mut cluster = TestCluster::start(3).await;
    ready(&cluster, 0).await;
    cluster.drop_node(1).await;
    cluster.drop_node(2).await;
    let missing = eventually("no shard has a leader", || async {
        match get(&cluster, 0, "/readyz").await {
            (503, missing) if missing.contains("shard 0 has no leader") => Ok(missing),
            (code, body) => Err(format!("{code} {body}")),
        }
    })
    .await;
    assert!(missing.lines().all(|line| line.ends_with("has no leader")), "{missing}");
    assert_eq!(get(&cluster, 0, "/healthz").await.0, 200);
    cluster.restart(1).await;
    ready(&cluster, 0).await;
}

#[tokio::test]
async fn requests_are_counted_by_method_and_reason() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    client.write(write(one("level", 1.0))).await.unwrap();
    client.write(write(one("depth", 1.0))).await.unwrap_err();
    client.write(write(one("level", f64::NAN))).await.unwrap_err();
    read(&client, everything(of_type(METER))).await;
    let nothing = v1::QueryRangeRequest::default();
    assert!(cluster.at(0).range(nothing).await.is_err());
    // A method that a caller makes up does not become a label.
    cluster
        .at(0)
        .raw("/tidemark.v1.QueryService/Made.Up", Vec::new())
        .await
        .unwrap_err();

    let seen = samples(&cluster, 0).await;
    let count = |method: &str, reason: &str| {
        let name = format!("tidemark_requests_total{{method=\"{method}\",reason=\"{reason}\"}}");
        seen.get(&name).copied().unwrap_or(0.0)
    };
    assert_eq!(count("Write", "OK"), 1.0);
    assert_eq!(count("Write", "UNKNOWN_PROPERTY"), 1.0);
    assert_eq!(count("Write", "NON_FINITE"), 1.0);
    assert_eq!(count("QueryRange", "OK"), 1.0);
    assert_eq!(count("QueryRange", "NO_SELECTOR"), 1.0);
    assert_eq!(count("other", "UNIMPLEMENTED"), 1.0);
    assert_eq!(seen["tidemark_write_points_total"], 1.0);
    assert_eq!(seen["tidemark_write_failures_total{reason=\"NON_FINITE\"}"], 1.0);
    assert_eq!(seen["tidemark_write_seconds_count"], 3.0);
    assert_eq!(seen["tidemark_raft_leader{shard=\"1\"}"], 1.0);
    assert!(seen["tidemark_log_syncs_total"] > 0.0);
    assert!(
        seen.keys()
            .any(|name| name.starts_with("tidemark_node_info{node=\"1\""))
    );
    assert!(!seen.keys().any(|name| name.contains("m1") || name.contains("Made")));

    let status = cluster.at(0).status().await.unwrap();
    let facts = status.nodes[0].facts.clone().unwrap();
    assert_eq!((facts.writes, facts.points_written, facts.queries), (1, 1, 2));
    assert!(facts.failures >= 3, "{facts:?}");
    assert!(
        facts.memory_bytes > 0 && facts.cpu_ms > 0 && facts.open_files > 0,
        "{facts:?}"
    );
    assert!(facts.disk_total_bytes > 0 && !facts.disk_low, "{facts:?}");
}

#[tokio::test]
async fn nodes_of_one_machine_have_one_clock() {
    let cluster = TestCluster::start(3).await;
    let status = cluster.healthy(0).await;
    for node in status.nodes {
        let facts = node.facts.unwrap();
        assert!(facts.clock_offset_ms.abs() < 1_500, "{facts:?}");
        assert_eq!(facts.version, env!("CARGO_PKG_VERSION"));
    }
}
