//! Nodes that come back after the log they need is gone: by checkpoint, also by one that is cut off on its way.
//! Never here: how pieces are checked and kept (unit tests of `raft`). Invariant: a node that comes back ends with everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use common::fleet::*;
use common::{TestCluster, eventually};
use tidemark_client::v1;
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;

/// Enough devices for every shard to have some.
const DEVICES: usize = 24;
/// So slow that a checkpoint of seven groups takes seconds.
const SLOW_BYTES_PER_SECOND: u64 = 64 << 10;

fn names() -> Vec<String> {
    (0..DEVICES).map(|i| format!("m{i}")).collect()
}

fn sweep(t: i64, value: i64) -> v1::Batch {
    let mut batch = tidemark_client::BatchBuilder::new(METER);
    for device in names() {
        batch.row(&device, t).set("count", value);
    }
    batch.build().unwrap()
}

/// Purges the log as soon as it can.
fn forgetful(move_bytes_per_second: u64) -> Tuning {
    Tuning {
        flush_every: Duration::from_millis(50),
        flush_all_every: 1,
        entries_unflushed_max: 1,
        log_entries_kept: 5,
        silent_after: Duration::from_millis(1),
        move_bytes_per_second,
        ..Tuning::default()
    }
}

/// What a node answers from its own replicas.
async fn held(cluster: &TestCluster, node: usize) -> Result<Vec<Point>, String> {
    let request = v1::QueryRangeRequest {
        consistency: any(),
        ..everything(of_type(METER))
    };
    let (messages, _) = cluster.at(node).range(request).await.map_err(|error| shown(&error))?;
    let mut found = points(&messages);
    found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    Ok(found)
}

/// Folders of a node's groups, with the name of the current state.
fn groups(cluster: &TestCluster, node: usize) -> Vec<(PathBuf, String)> {
    let groups = fs::read_dir(cluster.data_dir(node).join("groups")).unwrap();
    let groups = groups.map(|group| group.unwrap().path());
    let current = |group: &PathBuf| fs::read_to_string(group.join("CURRENT")).unwrap_or_default();
    groups
        .map(|group| {
            let state = current(&group).trim().to_string();
            (group, state)
        })
        .collect()
}

/// Files in a folder by inode; none where it is not there (any more).
fn inodes(dir: &std::path::Path) -> BTreeSet<u64> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let whole = entries.filter(|entry| !entry.file_name().to_string_lossy().ends_with(".part"));
    whole.filter_map(|entry| Some(entry.metadata().ok()?.ino())).collect()
}

/// Files that came for a group that has not installed them yet.
fn arrived(cluster: &TestCluster, node: usize) -> Vec<(PathBuf, BTreeSet<u64>)> {
    let unfinished = groups(cluster, node)
        .into_iter()
        .filter(|(_, state)| state == "state-1");
    let files = unfinished.map(|(group, _)| {
        let files = inodes(&group.join("incoming"));
        (group, files)
    });
    files.filter(|(_, files)| !files.is_empty()).collect()
}

/// Waits until no table file of some nodes has come or gone for a while: compaction has nothing left to do.
async fn settled(cluster: &TestCluster, nodes: &[usize]) {
    const LOOKS: usize = 25;
    let seen = std::cell::RefCell::new((BTreeSet::new(), 0));
    eventually("table files stay the same", || async {
        let folders = nodes.iter().flat_map(|node| groups(cluster, *node));
        let tables: BTreeSet<u64> = folders.flat_map(|(group, state)| inodes(&group.join(state))).collect();
        let mut seen = seen.borrow_mut();
        let looks = if seen.0 == tables { seen.1 + 1 } else { 0 };
        *seen = (tables, looks);
        if looks >= LOOKS {
            Ok(())
        } else {
            Err(format!("{looks} times"))
        }
    })
    .await;
}

/// Writes while a node is down until the others have purged what it lacks.
async fn leave_behind(cluster: &mut TestCluster, node: usize, client: &tidemark_client::Client) {
    let start = now_ns() - HOUR;
    let mut sequence = 0;
    for i in 0..40 {
        sequence += 1;
        client
            .write(numbered(sweep(start + i * S, i), "before", sequence))
            .await
            .unwrap();
    }
    cluster.drop_node(node).await;
    for i in 0..300 {
        sequence += 1;
        client
            .write(numbered(sweep(start + (100 + i) * S, i), "before", sequence))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_transfer_cut_off_by_a_restart_ends_whole_and_leaves_nothing_behind() {
    let mut cluster = TestCluster::start_with(3, forgetful(SLOW_BYTES_PER_SECOND)).await;
    let client = cluster.client().await;
    let ids = names();
    furnish(&client, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    leave_behind(&mut cluster, 2, &client).await;
    let expected = held(&cluster, 0).await.unwrap();
    assert_eq!(expected.len(), 340 * DEVICES);

    settled(&cluster, &[0, 1]).await;
    cluster.restart(2).await;
    eventually("files of a checkpoint arrive", || async {
        match arrived(&cluster, 2).is_empty() {
            true => Err(format!("{:?}", groups(&cluster, 2))),
            false => Ok(()),
        }
    })
    .await;
    cluster.drop_node(2).await;
    let came = arrived(&cluster, 2);
    println!("{} groups had files when the node ended", came.len());
    cluster.restart(2).await;
    eventually("everything is there", || async {
        match held(&cluster, 2).await? {
            found if found == expected => Ok(()),
            found => Err(format!("{} points", found.len())),
        }
    })
    .await;
    // Nothing stays behind but the state.
    eventually("only the state is there", || async {
        let mut left = BTreeSet::new();
        for (group, state) in groups(&cluster, 2) {
            for entry in fs::read_dir(group).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name != "CURRENT" && name != state {
                    left.insert(name);
                }
            }
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}
