//! Backups through the public client: what is copied at an exact index comes back with the same answers.
//! Never here: the folder that backups lie in (`backup_tool.rs`). Invariant: every case compares what clients are told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tidemark_client::{BatchBuilder, Client, Error, v1};
use tidemark_node::config::Tuning;
use v1::upload_backup_file_request::Part;

const WAIT: Duration = Duration::from_secs(30);

/// A backup in memory: of each shard the listed files with their bytes.
#[derive(Clone, Debug, Default)]
struct Backup {
    id: String,
    shards: BTreeMap<u32, Vec<(v1::BackupFile, Vec<u8>)>>,
}

async fn leader(client: &Client, shard: u32) -> String {
    eventually("the shard has a leader", || async {
        let status = client.status().await.map_err(|e| e.to_string())?;
        let leader = status.shards.iter().find(|s| s.shard == shard).map(|s| s.leader_node);
        let nodes = status.nodes.iter().filter_map(|node| node.node.as_ref());
        let address = nodes
            .filter(|node| Some(node.id) == leader)
            .map(|node| node.client_address.clone())
            .next();
        address.ok_or_else(|| format!("{:?}", status.problems))
    })
    .await
}

async fn take(client: &Client, shards: u32) -> Backup {
    let mut backup = Backup {
        id: "20260101T000000Z-0001".into(),
        ..Backup::default()
    };
    for shard in 0..=shards {
        take_shard(client, shard, &mut backup).await;
    }
    backup
}

async fn take_shard(client: &Client, shard: u32, backup: &mut Backup) {
    let address = leader(client, shard).await;
    let request = v1::BeginBackupRequest {
        shard,
        follower_too: false,
    };
    let taken = client.begin_backup(&address, request, WAIT).await.unwrap();
    let mut files = Vec::new();
    for file in taken.files {
        let bytes = read_file(client, &address, &taken.backup, &file.name).await.unwrap();
        assert_eq!(bytes.len() as u64, file.bytes, "{}", file.name);
        files.push((file, bytes));
    }
    client.end_backup(&address, &taken.backup).await.unwrap();
    backup.shards.insert(shard, files);
}

async fn read_file(client: &Client, address: &str, backup: &str, file: &str) -> Result<Vec<u8>, Error> {
    let request = v1::ReadBackupFileRequest {
        backup: backup.into(),
        file: file.into(),
        offset: 0,
    };
    let mut pieces = client.read_backup_file(address, request).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await? {
        assert_eq!(piece.offset, bytes.len() as u64);
        bytes.extend_from_slice(&piece.data);
    }
    Ok(bytes)
}

async fn begin(
    client: &Client,
    address: &str,
    shard: u32,
    id: &str,
    check_only: bool,
) -> Result<v1::BeginRestoreResponse, Error> {
    let request = v1::BeginRestoreRequest {
        shard,
        backup_id: id.into(),
        check_only,
    };
    client.begin_restore(address, request).await
}

async fn upload(
    client: &Client,
    address: &str,
    shard: u32,
    id: &str,
    file: &v1::BackupFile,
    bytes: &[u8],
) -> Result<(), Error> {
    let header = v1::UploadHeader {
        shard,
        backup_id: id.into(),
        file: Some(file.clone()),
    };
    let pieces = bytes.chunks(100_000).enumerate().map(|(at, data)| v1::BackupPiece {
        offset: at as u64 * 100_000,
        data: data.to_vec().into(),
        crc: crc32c::crc32c(data),
    });
    let parts: Vec<_> = std::iter::once(Part::Header(header))
        .chain(pieces.map(Part::Piece))
        .collect();
    let messages = parts
        .into_iter()
        .map(|part| v1::UploadBackupFileRequest { part: Some(part) });
    client
        .upload_backup_file(address, tokio_stream::iter(messages), WAIT)
        .await
}

/// Uploads the files of a shard and restores it; with `stop_after`, leaves after so many messages.
async fn put(
    client: &Client,
    address: &str,
    shard: u32,
    backup: &Backup,
    from: u32,
    stop_after: Option<usize>,
) -> Result<bool, Error> {
    begin(client, address, shard, &backup.id, false).await?;
    for (file, bytes) in &backup.shards[&from] {
        upload(client, address, shard, &backup.id, file, bytes).await?;
    }
    let request = v1::RestoreShardRequest {
        shard,
        backup_id: backup.id.clone(),
        files: backup.shards[&from].iter().map(|(file, _)| file.clone()).collect(),
    };
    let mut progress = client.restore_shard(address, request).await?;
    let mut messages = 0;
    while let Some(message) = progress.next().await? {
        messages += 1;
        if message.done || stop_after.is_some_and(|most| messages >= most) {
            return Ok(message.done);
        }
    }
    panic!("a restore ended without its last message");
}

async fn put_all(client: &Client, backup: &Backup) {
    for shard in (1..backup.shards.len() as u32).chain([0]) {
        let address = leader(client, shard).await;
        assert!(put(client, &address, shard, backup, shard, None).await.unwrap());
    }
}

/// An empty cluster of `n` nodes for a backup of so many shards.
async fn empty(n: usize, shards: u32, replication_factor: u32) -> TestCluster {
    let cluster = TestCluster::uninitialised(n, Tuning::default()).await;
    let request = v1::InitRequest {
        peers: (0..n).map(|i| cluster.peer_address(i)).collect(),
        shards,
        replication_factor,
    };
    cluster.at(0).init(request).await.unwrap();
    cluster
}

/// Everything that clients are told, as text.
async fn answers(client: &Client) -> BTreeMap<&'static str, String> {
    let mut told = BTreeMap::new();
    let mut points: Vec<String> = stored(client).await.iter().map(|point| format!("{point:?}")).collect();
    points.sort();
    told.insert("range", points.join("\n"));
    let request = v1::GetLatestRequest {
        selector: of_type(METER),
        ..v1::GetLatestRequest::default()
    };
    let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
    told.insert("latest", format!("{:?}", latest(&messages)));
    let request = v1::QueryAggregateRequest {
        selector: of_type(METER),
        from_ns: T0 - DAY,
        to_ns: T0 + DAY,
        window: Some(v1::Window {
            step_ns: HOUR,
            origin_ns: 0,
            length_ns: 0,
            ..Default::default()
        }),
        properties: vec!["level".into()],
        functions: vec![
            v1::Function::Min.into(),
            v1::Function::Max.into(),
            v1::Function::Count.into(),
        ],
        ..v1::QueryAggregateRequest::default()
    };
    let (messages, _) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
    let mut series: Vec<String> = messages
        .iter()
        .flat_map(|m| &m.series)
        .map(|s| format!("{s:?}"))
        .collect();
    series.sort();
    assert!(!series.is_empty());
    told.insert("aggregate", series.join("\n"));
    let listed = client.list_devices(v1::ListDevicesRequest::default()).await.unwrap();
    let (messages, _) = listed.collect().await.unwrap();
    let mut devices: Vec<String> = messages
        .iter()
        .flat_map(|m| &m.devices)
        .map(|d| format!("{d:?}"))
        .collect();
    devices.sort();
    told.insert("devices", devices.join("\n"));
    told.insert(
        "types",
        format!("{:?}", client.list_device_types(Vec::new()).await.unwrap()),
    );
    told
}

const IDS: [&str; 12] = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "r1", "r2", "r3", "r4"];

/// Points of every device, some of them written again, from two producers.
async fn fill(client: &Client) {
    furnish(client, &IDS).await;
    let declared = v1::Maintenance {
        from_ns: T0,
        to_ns: T0 + HOUR,
        reason: "calibration".into(),
    };
    let kept = v1::Device {
        maintenance: vec![declared],
        ..device("m1", METER, &[])
    };
    client.register_devices(vec![kept]).await.unwrap();
    for (at, id) in IDS.into_iter().enumerate() {
        let device_type = if id.starts_with('m') { METER } else { RELIC };
        for (sequence, shift) in [(1, 0.0), (2, 0.5)] {
            let rows = (0..200).filter(|row| sequence == 1 || row % 3 == 0);
            let rows = rows.map(|row| (id, T0 + row * MIN, at as f64 * 1_000.0 + row as f64 + shift));
            let request = numbered(batch(device_type, "level", rows), &format!("p-{id}"), sequence);
            assert!(!client.write(request).await.unwrap().duplicate);
        }
    }
}

fn last_of(id: &'static str, at: usize) -> v1::WriteRequest {
    let device_type = if id.starts_with('m') { METER } else { RELIC };
    let rows = (0..200).filter(|row| row % 3 == 0);
    let rows = rows.map(|row| (id, T0 + row * MIN, at as f64 * 1_000.0 + row as f64 + 0.5));
    numbered(batch(device_type, "level", rows), &format!("p-{id}"), 2)
}

/// Alerts in force with their steps, without what passes with time; once all are there that points raise.
async fn alarms(client: &Client) -> Vec<String> {
    let request = v1::ListAlertsRequest {
        selector: of_type(METER),
        steps: true,
        ..v1::ListAlertsRequest::default()
    };
    crate::common::eventually("alerts", || async {
        let found = crate::common::alarm::alerts(client, request.clone()).await;
        let told = found
            .iter()
            .map(|one| format!("{} {} {:?}", one.device, one.raised_at_ns, one.steps));
        match found.len() {
            7 => Ok(told.collect()),
            other => Err(format!("{other} alerts")),
        }
    })
    .await
}

fn high() -> v1::AlertProfile {
    let level = v1::AlertLevel {
        level: "high".into(),
        on: 500.0,
        off: 400.0,
        severity: 0,
    };
    v1::AlertProfile {
        id: "high".into(),
        device_type: METER.into(),
        property: "level".into(),
        function: v1::AlertFunction::Last.into(),
        levels: vec![level],
        ..v1::AlertProfile::default()
    }
}

#[tokio::test]
async fn a_backup_comes_back_with_the_same_answers() {
    let source = TestCluster::start(3).await;
    let from = source.client().await;
    fill(&from).await;
    from.apply_alert_profiles(vec![high()]).await.unwrap();
    let alerts = alarms(&from).await;
    let before = answers(&from).await;
    assert!(before["devices"].contains("calibration"), "{}", before["devices"]);
    let backup = take(&from, 6).await;
    for (nodes, factor) in [(1, 1), (3, 3), (3, 1)] {
        let mut cluster = empty(nodes, 6, factor).await;
        let client = cluster.client().await;
        put_all(&client, &backup).await;
        assert_eq!(answers(&client).await, before, "{nodes} nodes, factor {factor}");
        assert_eq!(alarms(&client).await, alerts);
        for (at, id) in IDS.into_iter().enumerate() {
            let again = client.write(last_of(id, at)).await.unwrap();
            assert!(again.duplicate, "the retry of p-{id} is known");
        }
        assert_eq!(answers(&client).await, before, "retries change nothing");
        // Counters and extents in memory: new devices, types and times go on beside the old ones.
        let types = vec![device_type("test-late", 0)];
        let made = client.apply_device_types(types).await.unwrap();
        assert!(made.device_types[0].number > 2, "{made:?}");
        client.register_devices(vec![device("m9", METER, &[])]).await.unwrap();
        client
            .write(write(batch(METER, "level", [("m9", T0 - 30 * DAY, 1.0)])))
            .await
            .unwrap();
        let now = answers(&client).await;
        assert_eq!(now["range"].lines().count(), before["range"].lines().count() + 1);
        // And what is on disk gives the same.
        cluster.stop(0).await;
        cluster.restart(0).await;
        cluster.healthy(0).await;
        assert_eq!(answers(&client).await, now, "after a restart");
    }
}

/// Waits until so many alerts of meters under a profile are in force, or over.
async fn counted(client: &Client, profile: &str, in_force: usize, over: usize) {
    let request = v1::ListAlertsRequest {
        selector: of_type(METER),
        profiles: vec![profile.into()],
        history: true,
        ..v1::ListAlertsRequest::default()
    };
    eventually(&format!("alerts under {profile}"), || async {
        let found = crate::common::alarm::alerts(client, request.clone()).await;
        let ended = found.iter().filter(|alert| alert.ended_ns != 0).count();
        match (found.len() - ended, ended) {
            counts if counts == (in_force, over) => Ok(()),
            counts => Err(format!("{counts:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn profiles_are_evaluated_after_a_restore_whatever_the_shards_knew_of_later_ones() {
    let source = TestCluster::start(1).await;
    let from = source.client().await;
    fill(&from).await;
    let other = v1::AlertProfile {
        id: "other".into(),
        ..high()
    };
    from.apply_alert_profiles(vec![high(), other.clone()]).await.unwrap();
    counted(&from, "other", 7, 0).await;
    from.remove_alert_profiles(vec!["other".into()]).await.unwrap();
    counted(&from, "other", 0, 7).await;
    let mut backup = Backup {
        id: "20260101T000000Z-0004".into(),
        ..Backup::default()
    };
    take_shard(&from, 0, &mut backup).await;
    // The profile changes between the copies of the catalog and of the shards.
    let mut lower = high();
    (lower.levels[0].on, lower.levels[0].off) = (100.0, 50.0);
    from.apply_alert_profiles(vec![lower]).await.unwrap();
    counted(&from, "high", 8, 0).await;
    for shard in 1..=4 {
        take_shard(&from, shard, &mut backup).await;
    }
    let cluster = empty(1, 4, 1).await;
    let client = cluster.client().await;
    put_all(&client, &backup).await;
    counted(&client, "high", 7, 1).await;
    client.apply_alert_profiles(vec![other]).await.unwrap();
    counted(&client, "other", 7, 0).await;
}

#[tokio::test]
async fn a_backup_under_writes_is_a_prefix_of_each_device() {
    let source = TestCluster::start(1).await;
    let client = source.client().await;
    furnish(&client, &IDS).await;
    let writing = {
        let client = client.clone();
        tokio::spawn(async move {
            for row in 0..i64::MAX {
                for id in IDS {
                    let device_type = if id.starts_with('m') { METER } else { RELIC };
                    let batch = batch(device_type, "count", [(id, T0 + row * S, row)]);
                    client.write(write(batch)).await.unwrap();
                }
            }
        })
    };
    eventually("some rows are stored", || async {
        let rows = stored(&client).await.len();
        if rows > 100 { Ok(()) } else { Err(format!("{rows}")) }
    })
    .await;
    let acknowledged = stored(&client).await.len();
    let backup = take(&client, 4).await;
    writing.abort();
    let cluster = empty(1, 4, 1).await;
    let client = cluster.client().await;
    put_all(&client, &backup).await;
    let mut rows: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let points = stored(&client).await;
    assert!(points.len() >= acknowledged, "what was acknowledged before is there");
    for (device, t, _, _) in points {
        rows.entry(device).or_default().push((t - T0) / S);
    }
    for (device, rows) in rows {
        assert!(rows.iter().copied().eq(0..rows.len() as i64), "{device}: {rows:?}");
    }
}

/// A cluster whose one big shard takes several entries of the log.
async fn big(client: &Client) -> (u32, Backup) {
    furnish(client, &["m1"]).await;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for part in 0..20 {
        let mut batch = BatchBuilder::new(METER);
        for row in 0..20_000 {
            let value = f64::from_bits(random.random::<u64>() >> 2);
            batch.row("m1", T0 + (part * 20_000 + row) * S).set("raw", value);
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
    let status = client.status().await.unwrap();
    let shard = status.shards.iter().find(|shard| shard.devices == 1).unwrap().shard;
    (shard, take(client, 4).await)
}

#[tokio::test]
async fn a_restore_that_was_cut_off_goes_on() {
    let source = TestCluster::start(1).await;
    let from = source.client().await;
    let (shard, backup) = big(&from).await;
    let mut cluster = empty(1, 4, 1).await;
    let client = cluster.client().await;
    let address = leader(&client, shard).await;
    let done = put(&client, &address, shard, &backup, shard, Some(1)).await.unwrap();
    assert!(!done, "it was left early");
    let known = begin(&client, &address, shard, &backup.id, true).await.unwrap();
    assert!(known.begun && !known.done, "{known:?}");
    // Nobody comes between, not even before the types are there.
    client
        .apply_device_types(vec![device_type(METER, 3_650)])
        .await
        .unwrap();
    let refused = client
        .register_devices(vec![device("m1", METER, &[])])
        .await
        .unwrap_err();
    assert_eq!(refused.reason, "RESTORE_RUNNING");
    let mut other = backup.clone();
    other.id = "20260101T000000Z-0002".into();
    let refused = begin(&client, &address, shard, &other.id, false).await.unwrap_err();
    assert_eq!(refused.reason, "CLUSTER_NOT_EMPTY");
    cluster.stop(0).await;
    cluster.restart(0).await;
    cluster.healthy(0).await;
    let address = leader(&client, shard).await;
    let request = v1::RestoreShardRequest {
        shard,
        backup_id: backup.id.clone(),
        files: Vec::new(),
    };
    let gone = client.restore_shard(&address, request).await.unwrap_err();
    assert_eq!(gone.reason, "UNKNOWN_BACKUP", "uploads do not outlive the process");
    assert!(put(&client, &address, shard, &backup, shard, None).await.unwrap());
    let known = begin(&client, &address, shard, &backup.id, false).await.unwrap();
    assert!(known.done && known.uploaded.is_empty(), "{known:?}");
    assert_eq!(
        read(&client, everything(of_devices(&["m1"]))).await.len(),
        read(&from, everything(of_devices(&["m1"]))).await.len()
    );
}

#[tokio::test]
async fn what_is_not_a_backup_of_the_shard_changes_nothing() {
    let source = TestCluster::start(1).await;
    let from = source.client().await;
    fill(&from).await;
    let backup = take(&from, 4).await;
    let cluster = empty(1, 4, 1).await;
    let client = cluster.client().await;
    let address = leader(&client, 1).await;
    let refuse = |result: Result<bool, Error>, reason: &str, why: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.reason, reason, "{error}");
        assert!(error.message.contains(why), "{error}");
    };
    let invalid = "INVALID_BACKUP";
    refuse(
        put(&client, &address, 1, &backup, 0, None).await,
        invalid,
        "hold a catalog",
    );
    let refused = put(&client, &leader(&client, 2).await, 2, &backup, 3, None).await;
    refuse(refused, invalid, "belongs to shard 3, not 2");
    refuse(
        put(&client, &address, 0, &backup, 4, None).await,
        invalid,
        "hold no catalog",
    );
    let refused = put(&client, &address, 9, &backup, 4, None).await;
    refuse(refused, "UNKNOWN_SHARD", "no shard 9");
    let mut flipped = backup.clone();
    flipped.id = "20260101T000000Z-0003".into();
    let (_, bytes) = flipped.shards.get_mut(&4).unwrap().last_mut().unwrap();
    bytes[0] ^= 1;
    refuse(
        put(&client, &address, 4, &flipped, 4, None).await,
        invalid,
        "fails its check",
    );
    let refused = put(&from, &leader(&from, 1).await, 1, &backup, 1, None).await;
    refuse(refused, "CLUSTER_NOT_EMPTY", "devices");
    for bad in ["", "../x", "a/b", "a..b"] {
        let error = begin(&client, &address, 1, bad, true).await.unwrap_err();
        assert_eq!(error.reason, "INVALID_ID", "{bad:?}");
    }
    let file = v1::BackupFile {
        name: "../x".into(),
        ..v1::BackupFile::default()
    };
    let error = upload(&client, &address, 1, &backup.id, &file, b"").await.unwrap_err();
    assert_eq!(error.reason, invalid);
    let status = client.status().await.unwrap();
    assert!(status.shards.iter().all(|shard| shard.devices == 0) && status.device_types == 0);
}

#[tokio::test]
async fn checkpoints_are_taken_where_they_were_asked_for_and_end() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    fill(&client).await;
    let leads = leader(&client, 1).await;
    let follower = (0..3).map(|i| cluster.client_address(i)).find(|a| *a != leads).unwrap();
    let request = |follower_too| v1::BeginBackupRequest { shard: 1, follower_too };
    let refused = client.begin_backup(&follower, request(false), WAIT).await.unwrap_err();
    assert_eq!(refused.reason, "NOT_LEADER");
    assert!(
        refused.hint.as_ref().is_some_and(|hint| hint.contains(&leads)),
        "{refused}"
    );
    let taken = client.begin_backup(&follower, request(true), WAIT).await.unwrap();
    let name = taken.files.iter().find(|file| file.bytes > 0).unwrap().name.clone();
    assert!(
        !read_file(&client, &follower, &taken.backup, &name)
            .await
            .unwrap()
            .is_empty()
    );
    let unknown = read_file(&client, &follower, &taken.backup, "../identity.toml")
        .await
        .unwrap_err();
    assert_eq!(unknown.reason, "UNKNOWN_BACKUP");
    client.end_backup(&follower, &taken.backup).await.unwrap();
    client.end_backup(&follower, &taken.backup).await.unwrap();
    let ended = read_file(&client, &follower, &taken.backup, &name).await.unwrap_err();
    assert_eq!(ended.reason, "UNKNOWN_BACKUP");
    for i in 0..3 {
        let left = std::fs::read_dir(cluster.data_dir(i).join("backups")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "checkpoints left on node {i}");
    }
}
