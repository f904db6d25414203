//! Replicas whose store failed under them while their node goes on: what the node does for their shards, and how they come back.
//! Never here: a disk that merely has little room (see `disk`). Invariant: nothing acknowledged is lost by any of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::direct::Direct;
use crate::common::fleet::*;
use crate::common::operator::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::v1;
use tidemark_node::config::Tuning;
use v1::job_spec::Goal;

const DEVICES: [&str; 12] = [
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11", "m12",
];
/// More files than an engine begins while a test runs.
const FILES: u64 = 200;

fn often() -> Tuning {
    Tuning {
        disk_every: Duration::from_millis(20),
        ..Tuning::default()
    }
}

/// One point of every device is taken, wherever its shard is led.
async fn taken(node: &Direct, second: i64) {
    for device in DEVICES {
        eventually("the write is taken", || async {
            let batch = batch(METER, "level", [(device, T0 + second * S, 1.0)]);
            let written = node.write(numbered(batch, device, second as u64)).await;
            written.map_err(|e| e.to_string())
        })
        .await;
    }
}

async fn count(node: &Direct) -> usize {
    let (messages, _) = node.range(everything(of_type(METER))).await.unwrap();
    points(&messages).len()
}

/// A data shard that has devices and is as wished.
fn holding(status: &v1::StatusResponse, wished: impl Fn(&v1::ShardStatus) -> bool) -> u32 {
    let fits = |shard: &&v1::ShardStatus| shard.shard > 0 && shard.devices > 0 && wished(shard);
    status.shards.iter().find(fits).expect("such a shard").shard
}

/// Folder of the state of the replica of a shard on node `i`.
fn state_of(cluster: &TestCluster, i: usize, shard: u32) -> PathBuf {
    let groups = cluster.data_dir(i).join("groups");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names = fs::read_dir(&groups).unwrap().map(|entry| name(entry.unwrap()));
    let replica = names.find(|name| name.starts_with(&format!("{shard}-"))).unwrap();
    groups.join(replica).join("state-1")
}

/// Has the replicas of a shard flush, and gives what went wrong on a node.
async fn flush_fails(cluster: &TestCluster, i: usize, shard: u32) -> String {
    let answer = cluster.client().await.compact_shard(shard).await.unwrap();
    let here = answer.replicas.into_iter().find(|one| one.node_id == i as u64 + 1);
    here.unwrap().problem
}

/// Why the replica of a shard on node `i` has ended, once it has and another node leads.
async fn ended(cluster: &TestCluster, i: usize, shard: u32) -> Result<String, String> {
    let node = i as u64 + 1;
    let status = cluster.at((i + 1) % 3).status().await.map_err(|e| e.to_string())?;
    let seen = &status.shards[shard as usize];
    let here = seen.replicas.iter().find(|replica| replica.node_id == node).unwrap();
    match here.state() {
        v1::ReplicaState::Damaged if ![0, node].contains(&seen.leader_node) => Ok(here.problem.clone()),
        _ => Err(format!("{seen:?}")),
    }
}

#[tokio::test]
async fn a_node_whose_leader_ended_passes_everything_to_those_that_go_on() {
    let cluster = TestCluster::start(3).await;
    furnish(&cluster.client().await, &DEVICES).await;
    let node = cluster.at(0);
    taken(&node, 1).await;
    let status = cluster.healthy(0).await;
    let shard = holding(&status, |shard| shard.leader_node == 1);

    // Gone under the engine: not what a failing disk says, so the process does not end.
    let state = state_of(&cluster, 0, shard);
    fs::rename(&state, state.with_extension("aside")).unwrap();
    let problem = flush_fails(&cluster, 0, shard).await;
    assert!(problem.contains("No such file"), "{problem}");
    taken(&node, 2).await;
    eventually("the replica has ended", || ended(&cluster, 0, shard)).await;

    for second in 3..6 {
        taken(&node, second).await;
    }
    assert_eq!(count(&node).await, 5 * DEVICES.len());
    let (code, missing) = cluster.get(0, "/readyz").await;
    assert_eq!(code, 503);
    assert!(
        missing.contains(&format!("shard {shard} has stopped here")),
        "{missing}"
    );
    let problems = node.status().await.unwrap().problems;
    assert!(
        problems.iter().any(|problem| problem.contains("is damaged")),
        "{problems:?}"
    );
}
