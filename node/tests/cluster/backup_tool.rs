//! `tidemark backup` as operators run it, against real nodes: folders, exit codes, what is refused.
//! Never here: what a restored cluster answers in detail (`backup.rs`). Invariant: what a command says is read from its
//! json, what it refuses from its exit code and reason.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually, program};
use serde_json::Value;
use tidemark_client::{Client, v1};
use tidemark_node::config::Tuning;

async fn run(endpoint: &str, arguments: &[&str]) -> Output {
    let arguments = [&["-o", "json", "-e", endpoint, "backup"][..], arguments].concat();
    program::run("tidemark", &arguments).await
}

/// What a command that goes well says.
async fn good(endpoint: &str, arguments: &[&str]) -> Value {
    let output = run(endpoint, arguments).await;
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {err}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Exit code, reason and the sentence that says why.
async fn refused(endpoint: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = run(endpoint, arguments).await;
    let err = String::from_utf8_lossy(&output.stderr);
    let line = err.lines().last().unwrap_or_default();
    let error: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{arguments:?}: {err}"));
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    assert!(!text("next").is_empty(), "{arguments:?} says what to run next: {err}");
    (output.status.code().unwrap(), text("reason"), text("why"))
}

const IDS: [&str; 6] = ["m1", "m2", "m3", "r1", "r2", "r3"];

async fn fill(client: &Client, from: i64) {
    for id in IDS {
        let device_type = if id.starts_with('m') { METER } else { RELIC };
        let rows = (from..from + 300).map(|row| (id, T0 + row * MIN, row as f64));
        client.write(write(batch(device_type, "level", rows))).await.unwrap();
    }
}

async fn source(dir: &Path) -> (TestCluster, Client, Value) {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &IDS).await;
    fill(&client, 0).await;
    let made = good(&cluster.client_address(0), &["create", dir.to_str().unwrap()]).await;
    (cluster, client, made)
}

#[tokio::test]
async fn a_second_backup_copies_only_what_is_new_and_either_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let (cluster, client, first) = source(dir.path()).await;
    let endpoint = cluster.client_address(1);
    assert_eq!(
        (&first["files_reused"], first["shards"].as_array().unwrap().len()),
        (&0.into(), 7)
    );
    let points_of_first = stored(&client).await;
    // Leaders elsewhere: the files that are there already are still taken where they lie.
    let again = good(&endpoint, &["create", folder]).await;
    assert!(
        again["bytes_copied"].as_u64().unwrap() < first["bytes_copied"].as_u64().unwrap() / 2,
        "{again}"
    );
    assert!(again["bytes_reused"].as_u64().unwrap() > 0);
    fill(&client, 300).await;
    let points_of_last = stored(&client).await;
    let last = good(&endpoint, &["create", folder]).await;
    assert!(last["files_reused"].as_u64().unwrap() > 0, "{last}");
    let listed = good(&endpoint, &["list", folder]).await;
    let ids: Vec<_> = listed["backups"].as_array().unwrap().iter().map(|b| &b["id"]).collect();
    assert_eq!(ids, [&first["id"], &again["id"], &last["id"]]);
    let verified = good(&endpoint, &["verify", folder]).await;
    assert!(
        verified["backups"]
            .as_array()
            .unwrap()
            .iter()
            .all(|b| b["whole"] == true)
    );

    for (id, nodes, replication, points) in [
        (Some(&first), 1, "0", &points_of_first),
        (None, 3, "3", &points_of_last),
    ] {
        let target = TestCluster::uninitialised(nodes, Tuning::default()).await;
        let endpoint = target.client_address(0);
        let peers: Vec<_> = (0..nodes).map(|i| target.peer_address(i)).collect();
        let peers = peers.join(",");
        let mut arguments = vec!["restore", folder];
        arguments.extend(id.and_then(|made| made["id"].as_str()));
        let (code, reason, _) = refused(&endpoint, &arguments).await;
        assert_eq!((code, reason.as_str()), (6, "NOT_INITIALISED"));
        arguments.extend(["--peers", &peers, "--replication", replication]);
        let restored = good(&endpoint, &arguments).await;
        assert_eq!(restored["already_restored"], false);
        let client = target.client().await;
        assert_eq!(&stored(&client).await, points);
        let restored = good(&endpoint, &arguments).await;
        assert_eq!(
            restored["already_restored"], true,
            "the same command again changes nothing"
        );
        assert_eq!(&stored(&client).await, points);
    }

    let prune = ["prune", folder, "--keep", "1"];
    let would_go = good(&endpoint, &[&prune[..], &["--dry-run"]].concat()).await;
    assert_eq!(would_go["would_delete"].as_array().unwrap().len(), 2, "{would_go}");
    let (code, reason, why) = refused(&endpoint, &prune).await;
    assert_eq!((code, reason.as_str()), (6, "REFUSED"));
    assert!(why.contains("2 backups would be gone for good"), "{why}");
    assert_eq!(good(&endpoint, &["list", folder]).await, listed, "nothing is gone");
    let cluster_id = listed["backups"][2]["cluster_id"].as_str().unwrap();
    let pruned = good(&endpoint, &[&prune[..], &["--confirm", &cluster_id[..8]]].concat()).await;
    assert!(pruned["files_deleted"].as_u64().unwrap() > 0, "{pruned}");
    let left = good(&endpoint, &["verify", folder]).await;
    assert_eq!(left["backups"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&left["backups"][0]["id"], &left["backups"][0]["whole"]),
        (&last["id"], &true.into())
    );
}

/// The one table file that is largest.
fn largest(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir.join("files"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|end| end == "sst"));
    tables.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[tokio::test]
async fn a_damaged_backup_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let (cluster, _, made) = source(dir.path()).await;
    let id = made["id"].as_str().unwrap();
    let target = TestCluster::uninitialised(1, Tuning::default()).await;
    let (endpoint, peers) = (target.client_address(0), target.peer_address(0));
    let table = largest(dir.path());
    let manifest = dir.path().join("backups").join(id).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let bytes = std::fs::read(&table).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let newer = text.replacen("\"format\": 1", "\"format\": 2", 1);
    let other = text.replacen("tidemark-backup", "other-backup", 1);
    let edited = text.replacen("\"applied_index\": ", "\"applied_index\": 1", 1);
    let cut = &bytes[..bytes.len() - 1];
    for (path, content, why) in [
        (&table, Some(flipped.as_slice()), "fails its check"),
        (&table, Some(cut), "bytes"),
        (&table, None, "is missing"),
        (&manifest, Some(&text.as_bytes()[..text.len() / 2]), "is torn"),
        (&manifest, Some(newer.as_bytes()), "has format 2"),
        (&manifest, Some(other.as_bytes()), "of no Tidemark backup"),
        (&manifest, Some(edited.as_bytes()), "fails its check"),
    ] {
        let whole = std::fs::read(path).unwrap();
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let (code, _, said) = refused(&endpoint, &["verify", folder]).await;
        assert!(code == 8 && said.contains(why), "{why}: {code} {said}");
        let (code, reason, said) = refused(&endpoint, &["restore", folder, id, "--peers", &peers]).await;
        assert_eq!((code, reason.as_str()), (6, "INVALID_BACKUP"), "{said}");
        assert!(said.contains(why), "{why}: {said}");
        let status = target.at(0).status().await.unwrap();
        assert_eq!(status.cluster_id, "", "{why}: not even a cluster was made");
        std::fs::write(path, whole).unwrap();
    }
    let (code, reason, _) = refused(&endpoint, &["restore", folder, "other"]).await;
    assert_eq!((code, reason.as_str()), (4, "NOT_FOUND"));
    // What is damaged is copied again by the next backup that has it.
    std::fs::write(&table, flipped).unwrap();
    good(&cluster.client_address(0), &["create", folder, "--check"]).await;
    good(&endpoint, &["verify", folder, id]).await;
}

#[tokio::test]
async fn a_restore_that_was_killed_goes_on_when_it_is_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let (_cluster, client, made) = source(dir.path()).await;
    let target = TestCluster::uninitialised(1, Tuning::default()).await;
    let (endpoint, peers) = (target.client_address(0), target.peer_address(0));
    let arguments = ["restore", folder, "--peers", &peers];
    let mut command = Command::new(program::built("tidemark"));
    command
        .args(["-e", &endpoint, "backup"])
        .args(arguments)
        .args(["--limit-rate", "10k"]);
    let mut slow = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let restored = target.client().await;
    eventually("a shard has begun", || {
        let (restored, endpoint) = (restored.clone(), endpoint.clone());
        let request = v1::BeginRestoreRequest {
            shard: 1,
            backup_id: made["id"].as_str().unwrap().into(),
            check_only: true,
        };
        async move {
            let known = restored
                .begin_restore(&endpoint, request)
                .await
                .map_err(|e| e.to_string())?;
            if known.begun { Ok(()) } else { Err(format!("{known:?}")) }
        }
    })
    .await;
    slow.kill().unwrap();
    slow.wait().unwrap();
    assert_eq!(restored.status().await.unwrap().device_types, 0, "types come last");
    let done = good(&endpoint, &arguments).await;
    assert_eq!(done["already_restored"], false);
    assert_eq!(stored(&restored).await, stored(&client).await);
}

#[tokio::test]
async fn only_an_empty_cluster_of_as_many_shards_takes_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let (cluster, client, _) = source(dir.path()).await;
    let before = stored(&client).await;
    let (code, reason, why) = refused(&cluster.client_address(0), &["restore", folder]).await;
    assert_eq!((code, reason.as_str()), (6, "CLUSTER_NOT_EMPTY"), "{why}");
    assert_eq!(stored(&client).await, before);
    let target = TestCluster::start(1).await;
    let (code, reason, why) = refused(&target.client_address(0), &["restore", folder]).await;
    assert_eq!((code, reason.as_str()), (6, "CLUSTER_NOT_EMPTY"));
    assert!(why.contains("6 shards, the cluster 4"), "{why}");
    let target = TestCluster::start(3).await;
    let types = vec![device_type(METER, 0)];
    target.client().await.apply_device_types(types).await.unwrap();
    let (code, reason, why) = refused(&target.client_address(0), &["restore", folder]).await;
    assert_eq!((code, reason.as_str()), (6, "CLUSTER_NOT_EMPTY"));
    assert!(why.contains("1 device types"), "{why}");
    let (code, reason, _) = refused(&target.client_address(0), &["list", "/nowhere"]).await;
    assert_eq!((code, reason.as_str()), (4, "NOT_FOUND"));
}
