//! Nodes that come back after the log they need is gone: by checkpoint, also by one that is cut off on its way.
//! Never here: how pieces are checked and kept (unit tests of `raft`). Invariant: a node that comes back ends with everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{Client, v1};
use tidemark_node::config::Tuning;

const SHARDS: u32 = 2;
/// Enough for every shard to have some.
const DEVICES: usize = 12;
/// So slow that a checkpoint takes seconds.
const SLOW_BYTES_PER_SECOND: u64 = 256 << 10;
/// Of each shard.
const CUT_AT_BYTES: u64 = 300 << 10;

fn names() -> Vec<String> {
    (0..DEVICES).map(|i| format!("d{i}")).collect()
}

/// Three nodes that purge their logs as soon as they can, and send checkpoints slowly.
async fn forgetful() -> TestCluster {
    let tuning = Tuning {
        flush_every: Duration::from_millis(50),
        flush_all_every: 1,
        entries_unflushed_max: 1,
        log_entries_kept: 5,
        silent_after: Duration::from_millis(1),
        move_bytes_per_second: SLOW_BYTES_PER_SECOND,
        ..Tuning::default()
    };
    let cluster = TestCluster::uninitialised(3, tuning).await;
    let request = v1::InitRequest {
        peers: (0..3).map(|i| cluster.peer_address(i)).collect(),
        shards: SHARDS,
        replication_factor: 3,
    };
    cluster.at(0).init(request).await.unwrap();
    cluster
}

/// Pages of every diary at some seconds.
async fn keep(client: &Client, seconds: std::ops::Range<i64>, bytes: usize) {
    for second in seconds {
        let page = diary_page(&names(), T0 + second * S, bytes);
        client.write(numbered(page, "author", second as u64 + 1)).await.unwrap();
    }
}

/// What a node answers from its own replicas.
async fn held(cluster: &TestCluster, node: usize) -> Result<Vec<Point>, String> {
    let request = v1::QueryRangeRequest {
        consistency: any(),
        ..everything(of_type(DIARY))
    };
    let (messages, _) = cluster.at(node).range(request).await.map_err(|error| shown(&error))?;
    let mut found = points(&messages);
    found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    Ok(found)
}

/// Folders of a node's groups, the catalog first, with the name of the current state.
fn groups(cluster: &TestCluster, node: usize) -> Vec<(PathBuf, String)> {
    let folders = files(&cluster.data_dir(node).join("groups")).into_keys();
    let current = |group: &PathBuf| fs::read_to_string(group.join("CURRENT")).unwrap_or_default();
    folders
        .map(|group| {
            let state = current(&group).trim().to_string();
            (group, state)
        })
        .collect()
}

/// Files in a folder with their sizes; none where it is not there (any more).
fn files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
        .collect()
}

/// Of each data group, bytes that came for a checkpoint; `None` once one is installed.
fn arrived(cluster: &TestCluster, node: usize) -> Vec<Option<u64>> {
    let came = |group: &Path| files(&group.join("incoming")).values().sum::<u64>();
    let data = groups(cluster, node).into_iter().skip(1);
    data.map(|(group, state)| (state == "state-1").then(|| came(&group)))
        .collect()
}

/// Bytes of the largest data group of some nodes, and of all of them on one, but for what the engine writes for people.
fn sizes(cluster: &TestCluster, nodes: &[usize]) -> (u64, u64) {
    let in_checkpoint = |path: &Path| !path.file_name().unwrap().to_string_lossy().starts_with("LO");
    let bytes = |(group, state): (PathBuf, String)| {
        let state = files(&group.join(state)).into_iter();
        state
            .filter(|(path, _)| in_checkpoint(path))
            .map(|(_, bytes)| bytes)
            .sum::<u64>()
    };
    let of_node = |node: &usize| {
        groups(cluster, *node)
            .into_iter()
            .skip(1)
            .map(bytes)
            .collect::<Vec<_>>()
    };
    let nodes: Vec<Vec<u64>> = nodes.iter().map(of_node).collect();
    let largest = nodes.iter().flatten().copied().max().unwrap();
    let all = nodes.iter().map(|groups| groups.iter().sum()).max().unwrap();
    (largest, all)
}

/// Waits until no table file of some nodes has come or gone for a while: compaction has nothing left to do.
async fn settled(cluster: &TestCluster, nodes: &[usize]) {
    const LOOKS: usize = 25;
    let seen = std::cell::RefCell::new((BTreeMap::new(), 0));
    eventually("table files stay the same", || async {
        let folders = nodes.iter().flat_map(|node| groups(cluster, *node));
        let tables: BTreeMap<PathBuf, u64> = folders.flat_map(|(group, state)| files(&group.join(state))).collect();
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

/// Waits until nothing is left on a node but the state of each group: of data groups, of the one checkpoint that came.
async fn installed_once(cluster: &TestCluster, node: usize) {
    eventually("only the state is there", || async {
        let mut left = BTreeSet::new();
        let groups = groups(cluster, node);
        for (group, state) in &groups {
            for file in files(group).into_keys() {
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                if name != "CURRENT" && name != *state {
                    left.insert(name);
                }
            }
        }
        let once = groups.iter().skip(1).all(|(_, state)| state == "state-2");
        match left.is_empty() && once {
            true => Ok(()),
            false => Err(format!("{left:?} in {groups:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_transfer_cut_off_by_a_restart_goes_on_where_it_stopped_and_leaves_nothing_behind() {
    let mut cluster = forgetful().await;
    let client = cluster.client().await;
    furnish_diaries(&client, &names()).await;
    keep(&client, 0..10, 10).await;
    cluster.drop_node(2).await;
    keep(&client, 10..18, 40_000).await;
    // What node 2 lacks is no longer in the logs of the others.
    keep(&client, 18..40, 10).await;
    settled(&cluster, &[0, 1]).await;
    let (largest, whole) = sizes(&cluster, &[0, 1]);

    cluster.restart(2).await;
    eventually("a part of both checkpoints arrives", || async {
        let came = arrived(&cluster, 2);
        match came.iter().all(|bytes| *bytes > Some(CUT_AT_BYTES)) {
            true => Ok(()),
            false => Err(format!("{came:?} of {whole} bytes, {:?}", groups(&cluster, 2))),
        }
    })
    .await;
    cluster.drop_node(2).await;
    let came = arrived(&cluster, 2);
    assert_eq!(came.len(), SHARDS as usize);
    assert!(
        came.iter().all(|bytes| *bytes > Some(CUT_AT_BYTES)),
        "one ended before the cut: {came:?} of {whole}"
    );
    let (least, before) = came
        .iter()
        .flatten()
        .fold((u64::MAX, 0), |(least, sum), bytes| (least.min(*bytes), sum + bytes));
    // Room for what is still to come, and not for all of it again.
    let status = cluster.at(0).status().await.unwrap();
    let reserve = status.nodes[0].facts.as_ref().unwrap().disk_reserve_bytes;
    cluster.set_disk_free(2, reserve / 2 + largest - least / 2);
    cluster.restart(2).await;
    eventually("both go on", || async {
        let now = arrived(&cluster, 2);
        match now.iter().zip(&came).all(|(now, came)| now.is_none() || now > came) {
            true => Ok(()),
            false => Err(format!("{now:?} after {came:?}")),
        }
    })
    .await;
    // More entries than a log keeps: what is written behind a checkpoint stays for its receiver.
    keep(&client, 40..80, 10).await;
    let expected = eventually("node 0 has applied everything", || async {
        match held(&cluster, 0).await? {
            found if found.len() == 80 * DEVICES => Ok(found),
            found => Err(format!("{} points", found.len())),
        }
    })
    .await;
    eventually("everything is there", || async {
        match held(&cluster, 2).await? {
            found if found == expected => Ok(()),
            found => Err(format!("{} points", found.len())),
        }
    })
    .await;
    let again = cluster.metric(2, "tidemark_snapshot_received_bytes_total").await;
    let kept = cluster.metric(2, "tidemark_snapshot_kept_bytes_total").await;
    println!("{before} bytes of {whole} came before the cut; {kept} were kept, {again} came after it");
    assert!(kept >= before, "of {before} bytes that had come {kept} were kept");
    assert!(
        again + before / 2 < whole,
        "of {whole} bytes {before} came before the cut, and {again} after it"
    );
    installed_once(&cluster, 2).await;
}
