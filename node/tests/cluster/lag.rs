//! What replicas say of their lag while messages to them are late.
//! Never here: nodes that are down (see `cluster`), arithmetic (see `raft::lag`). Invariant: an answer that lacks what was
//! acknowledged before its question never claims to be fresher than that.

use std::time::{Duration, Instant};

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{Value, v1};
use tidemark_node::config::Tuning;

/// Enough devices for every shard to have some.
const DEVICES: [&str; 12] = ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11"];
const READS: usize = 200;
/// Several rounds of heartbeats of both other nodes.
const HELD: u64 = 12;

fn sweep(value: i64) -> v1::Batch {
    batch(METER, "count", DEVICES.map(|device| (device, T0, value)))
}

/// The values that a node answers with, and what it says about them.
async fn values(
    cluster: &TestCluster,
    node: usize,
    consistency: Option<v1::Consistency>,
) -> Result<(Vec<Value>, v1::AnswerSummary), String> {
    let request = v1::QueryRangeRequest {
        consistency,
        ..everything(of_type(METER))
    };
    let answer = cluster.at(node).range(request).await;
    let (messages, summary) = answer.map_err(|error| shown(&error))?;
    let found = points(&messages).into_iter().map(|point| point.3);
    Ok((found.collect(), summary))
}

/// Waits until a node answers, from its own replicas, with one value of every device.
async fn shows(cluster: &TestCluster, node: usize, value: i64) {
    eventually("the node shows all values", || async {
        let (found, summary) = values(cluster, node, bounded(2_000)).await?;
        let itself = summary.consistency() == v1::ConsistencyLevel::Bounded;
        match itself && found == DEVICES.map(|_| Value::I64(value)) {
            true => Ok(()),
            false => Err(format!("{summary:?} {found:?}")),
        }
    })
    .await;
}

/// Has a node lead no data: what others would ask it to do is late as well.
async fn leads_nothing(cluster: &TestCluster, node_id: u64) {
    let request = v1::SetNodeStateRequest {
        node_id,
        state: v1::NodeState::Cordoned as i32,
    };
    cluster.at(0).cluster().set_node_state(request).await.unwrap();
    eventually("the node leads no data", || async {
        let status = cluster.at(0).status().await.map_err(|e| e.to_string())?;
        let led = |shard: &&v1::ShardStatus| shard.shard > 0 && [0, node_id].contains(&shard.leader_node);
        match status.shards.iter().filter(led).count() {
            0 => Ok(()),
            led => Err(led.to_string()),
        }
    })
    .await;
}

/// Reads at the late node, and holds what it says against when the second value had been acknowledged; how often that
/// was missing.
async fn never_claims_too_much(cluster: &TestCluster, late: usize, acknowledged: Instant) -> usize {
    const BOUND: Duration = Duration::from_millis(100);
    let lacks = |found: &[Value]| found.iter().any(|value| *value != Value::I64(2));
    let mut missing = 0;
    for round in 0..READS {
        let behind = acknowledged.elapsed();
        let (found, summary) = values(cluster, late, any()).await.unwrap();
        let honest = summary.lag_ms == -1 || Duration::from_millis(summary.lag_ms as u64) >= behind;
        assert!(
            !lacks(&found) || honest,
            "{behind:?} behind, says {} ms",
            summary.lag_ms
        );
        missing += usize::from(lacks(&found));
        if round % (READS / 4) > 0 {
            continue;
        }
        let behind = acknowledged.elapsed();
        // It may know of no leader to ask, and says so.
        let answer = values(cluster, late, bounded(BOUND.as_millis() as i64)).await;
        let wrong = answer.as_ref().is_ok_and(|(found, _)| lacks(found)) && behind > BOUND;
        assert!(!wrong, "{behind:?} behind: {answer:?}");
    }
    missing
}

/// An append that is on its way for long says nothing of the time at which it comes.
#[tokio::test]
async fn late_messages_do_not_make_a_replica_look_fresh() {
    let mut cluster = TestCluster::uninitialised(2, Tuning::default()).await;
    let (gate, late) = (cluster.add_behind_gate().await, 2);
    cluster.init().await;
    cluster.healthy(0).await;
    let client = cluster.client_at(0).await;
    furnish(&client, &DEVICES).await;
    client.write(write(sweep(1))).await.unwrap();
    leads_nothing(&cluster, late as u64 + 1).await;
    shows(&cluster, late, 1).await;

    let before = gate.begin_section();
    eventually("heartbeats are on their way", || async {
        match gate.held() {
            HELD.. => Ok(()),
            held => Err(held.to_string()),
        }
    })
    .await;
    gate.begin_section();
    client.write(write(sweep(2))).await.unwrap();
    let acknowledged = Instant::now();
    assert!(never_claims_too_much(&cluster, late, acknowledged).await > 0);
    gate.open_upto(before);
    assert!(never_claims_too_much(&cluster, late, acknowledged).await > 0);

    gate.open_upto(u64::MAX);
    shows(&cluster, late, 2).await;
}
