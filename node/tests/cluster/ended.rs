//! Replicas whose store failed under them while their node goes on: what the node does for their shards, and how they come back.
//! Never here: a disk that merely has little room (see `disk`). Invariant: nothing acknowledged is lost by any of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::direct::Direct;
use crate::common::fleet::*;
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

/// Files of an engine that are there, by number; links are none.
fn numbers(state: &Path) -> impl Iterator<Item = u64> {
    let files = fs::read_dir(state).unwrap().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().unwrap().is_file());
    files.filter_map(|entry| entry.path().file_stem()?.to_str()?.parse().ok())
}

/// Every table that the engine begins from now on is on a full disk, until it clears up after it failed.
fn fill_up(state: &Path) {
    let next = numbers(state).max().unwrap() + 1;
    for number in next..next + FILES {
        // Some may be there from the time before.
        std::os::unix::fs::symlink("/dev/full", state.join(format!("{number:06}.sst"))).ok();
    }
}

fn make_room(state: &Path) {
    for entry in fs::read_dir(state).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_symlink() {
            fs::remove_file(entry.path()).ok();
        }
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

#[tokio::test]
async fn a_node_starts_anew_for_a_replica_that_a_full_disk_ended_once_there_is_room() {
    let mut cluster = TestCluster::start_with(3, often()).await;
    furnish(&cluster.client().await, &DEVICES).await;
    let node = cluster.at(2);
    taken(&node, 1).await;
    let status = cluster.healthy(0).await;
    let reserve = status.nodes[2].facts.as_ref().unwrap().disk_reserve_bytes;
    // Low, so that it waits, and not full: entries come in.
    cluster.set_disk_free(2, reserve / 4 * 3);
    let shard = holding(&status, |_| true);
    let state = state_of(&cluster, 2, shard);
    let mut second = 1;
    let problem = loop {
        // The engine tries again by itself: only what is applied before it has room is what the replica ends for.
        fill_up(&state);
        let flushed = flush_fails(&cluster, 2, shard).await;
        second += 1;
        taken(&node, second).await;
        match ended(&cluster, 2, shard).await {
            Ok(problem) => break problem,
            Err(seen) => assert!(second < 30, "the replica goes on: {flushed}; {seen}"),
        }
    };
    assert!(problem.contains("No space left on device"), "{problem}");
    second += 1;
    taken(&node, second).await;
    assert_eq!(count(&node).await, second as usize * DEVICES.len());

    make_room(&state);
    cluster.set_disk_free(2, 2 * reserve);
    let why = cluster.ended(2).await;
    let says = format!("shard {shard} stopped here when the disk was full");
    assert!(why.contains(&says), "{why}");
    second += 1;
    taken(&cluster.at(0), second).await;
    cluster.restart(2).await;
    let node = cluster.at(2);
    eventually("the node has everything", || async {
        let status = node.status().await.map_err(|e| e.to_string())?;
        let behind = |shard: &&v1::ShardStatus| {
            let last = shard.replicas.iter().map(|replica| replica.applied_index).max();
            shard.replicas.iter().any(|replica| Some(replica.applied_index) < last)
        };
        match status.shards.iter().filter(behind).count() {
            0 if status.healthy => Ok(()),
            behind => Err(format!("{behind} shards, {:?}", status.problems)),
        }
    })
    .await;
    cluster.replicas_agree(2).await;
    assert_eq!(count(&node).await, second as usize * DEVICES.len());
}

/// A folder that is in the way stands for any error that passes.
#[tokio::test]
async fn what_a_node_cannot_open_or_remove_at_once_it_does_later() {
    let mut cluster = TestCluster::start(3).await;
    furnish(&cluster.client().await, &DEVICES).await;
    taken(&cluster.at(0), 1).await;
    let i = cluster.add().await;
    cluster.take_in(i).await;
    let status = cluster.healthy(0).await;
    let ids = status.shards.iter().flat_map(|shard| &shard.replicas);
    let next = ids.map(|replica| replica.replica_id).max().unwrap() + 1;
    let groups = |i: usize| cluster.data_dir(i).join("groups");
    let old = state_of(&cluster, 0, 1).parent().unwrap().to_path_buf();
    let (no_room_for_new, no_note_of_old) = (groups(i).join(format!("1-{next}")), groups(0).join("GONE.new"));
    fs::write(&no_room_for_new, "").unwrap();
    fs::create_dir(&no_note_of_old).unwrap();

    let spec = v1::MoveShard {
        shard: 1,
        from_node: 1,
        to_node: 4,
    };
    let job = cluster.start_job(0, Goal::MoveShard(spec)).await.unwrap();
    let waits_for = async |what: &str| {
        eventually("the move waits", || async {
            let job = cluster.job(0, job.id).await?;
            match &job.moves[0].waits_for {
                why if why.contains(what) => Ok(()),
                _ => Err(format!("{job:?}")),
            }
        })
        .await;
    };
    waits_for("the new replica is damaged").await;
    fs::remove_file(&no_room_for_new).unwrap();
    waits_for("node 1 removes the old replica's files").await;
    let refused = fs::read_to_string(groups(0).join("GONE")).unwrap_or_default();
    assert_eq!(refused, "");
    assert!(old.join("CURRENT").exists(), "nothing goes before the note is there");
    fs::remove_dir(&no_note_of_old).unwrap();
    assert_eq!(cluster.job_ended(0, job.id).await.state(), v1::JobState::Done);
    assert!(!old.exists());
    let gone = fs::read_to_string(groups(0).join("GONE")).unwrap();
    assert_eq!(gone.lines().count(), 1, "{gone}");
    assert_eq!(count(&cluster.at(0)).await, DEVICES.len());
}

#[tokio::test]
async fn parts_of_a_checkpoint_that_nobody_sends_any_more_go() {
    let tuning = Tuning {
        flush_every: Duration::from_millis(50),
        incoming_kept: Duration::ZERO,
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(1, tuning).await;
    let incoming = state_of(&cluster, 0, 1).with_file_name("incoming");
    fs::create_dir(&incoming).unwrap();
    fs::write(incoming.join("000007.sst"), "half").unwrap();
    eventually("it is gone", || async {
        match incoming.exists() {
            false => Ok(()),
            true => Err("still there".to_string()),
        }
    })
    .await;
}
