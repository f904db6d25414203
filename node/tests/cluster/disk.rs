//! Disks that fill up: what is refused, by whom, until when, what goes on all the same, and what makes room.
//! Never here: a disk that is really full. Invariant: nothing acknowledged is lost by any of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::direct::Direct;
use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{Client, Error, v1};
use tidemark_node::config::Tuning;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use v1::upload_backup_file_request::Part;

/// Looks at its disk often.
fn often() -> Tuning {
    Tuning {
        disk_every: Duration::from_millis(20),
        ..Tuning::default()
    }
}

const HINT: &str = "make room on the disk, or add a node and rebalance";
const DEVICES: [&str; 12] = [
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11", "m12",
];

/// What the nodes keep free of their disks.
async fn reserve(cluster: &TestCluster) -> u64 {
    let status = cluster.at(0).status().await.unwrap();
    status.nodes[0].facts.as_ref().unwrap().disk_reserve_bytes
}

/// A point of a device, sent again as if nothing had come of it.
async fn point(node: &Direct, device: &'static str, second: i64) -> Result<v1::WriteResponse, Error> {
    let batch = batch(METER, "level", [(device, T0 + second * S, 1.0)]);
    node.write(numbered(batch, device, second as u64)).await
}

/// Waits until writes of all these devices are refused for want of room.
async fn refused(node: &Direct, second: i64) {
    for device in DEVICES {
        let error = eventually("the write is refused", || async {
            // What is stored already, until nodes know of the disk: it changes nothing where it is taken.
            point(node, device, 1).await.err().ok_or("taken".to_string())?;
            point(node, device, second).await.err().ok_or("taken".to_string())
        })
        .await;
        assert_eq!(
            shown(&error),
            format!("RESOURCE_EXHAUSTED DISK_LOW; {HINT}"),
            "{}",
            error.message
        );
        assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    }
}

/// Waits until writes of all these devices are taken.
async fn taken(node: &Direct, second: i64) {
    for device in DEVICES {
        eventually("the write is taken", || async {
            point(node, device, second).await.map_err(|e| e.to_string())
        })
        .await;
    }
}

/// Uploads a file of a backup in pieces, each after `between`.
async fn upload(client: &Client, address: &str, bytes: &[u8], between: impl AsyncFn(usize)) -> Result<(), Error> {
    const PIECE: usize = 1_000;
    const WAIT: Duration = Duration::from_secs(60);
    let header = v1::UploadHeader {
        shard: 1,
        backup_id: "20260101T000000Z-0001".into(),
        file: Some(v1::BackupFile {
            name: "000007.sst".into(),
            bytes: bytes.len() as u64,
            digest: xxhash_rust::xxh3::xxh3_64(bytes),
        }),
    };
    let (out, inbox) = tokio::sync::mpsc::channel(1);
    let send = async {
        out.send(Part::Header(header)).await.ok();
        for (at, data) in bytes.chunks(PIECE).enumerate() {
            between(at).await;
            let piece = v1::BackupPiece {
                offset: (at * PIECE) as u64,
                data: data.to_vec().into(),
                crc: crc32c::crc32c(data),
            };
            if out.send(Part::Piece(piece)).await.is_err() {
                break;
            }
        }
        drop(out);
    };
    let messages = ReceiverStream::new(inbox).map(|part| v1::UploadBackupFileRequest { part: Some(part) });
    let (uploaded, ()) = tokio::join!(client.upload_backup_file(address, messages, WAIT), send);
    uploaded
}

/// Data shards of which a replica lacks entries that another has.
fn behind(status: &v1::StatusResponse) -> usize {
    let data = status.shards.iter().filter(|shard| shard.shard > 0);
    let lags = |shard: &&v1::ShardStatus| {
        let most = shard.replicas.iter().map(|r| r.last_log_index).max().unwrap();
        shard.replicas.iter().any(|r| r.last_log_index < most)
    };
    data.filter(lags).count()
}

/// Waits until all replicas have the same entries.
async fn in_step(node: &Direct) {
    eventually("all replicas are in step", || async {
        let status = node.status().await.map_err(|e| e.to_string())?;
        match behind(&status) {
            0 => Ok(()),
            shards => Err(format!("{shards} shards behind")),
        }
    })
    .await;
}

async fn count(node: &Direct) -> usize {
    let (messages, _) = node.range(everything(of_type(METER))).await.unwrap();
    points(&messages).len()
}

#[tokio::test]
async fn a_low_disk_refuses_writes_and_nothing_else_until_there_is_room() {
    let cluster = TestCluster::start_with(1, often()).await;
    furnish(&cluster.client().await, &DEVICES).await;
    let (node, reserve) = (cluster.at(0), reserve(&cluster).await);
    taken(&node, 1).await;

    cluster.set_disk_free(0, reserve - 1);
    refused(&node, 2).await;
    let register = node.register(vec![device("m99", METER, &[])]).await.unwrap_err();
    assert_eq!(shown(&register), format!("RESOURCE_EXHAUSTED DISK_LOW; {HINT}"));
    assert_eq!(
        count(&node).await,
        DEVICES.len(),
        "reads go on, and nothing refused was stored"
    );
    node.apply(vec![device_type("another", 0)]).await.unwrap();
    let status = node.status().await.unwrap();
    assert!(status.nodes[0].facts.as_ref().unwrap().disk_low);

    // Back by itself, and not at the first byte above the reserve.
    cluster.set_disk_free(0, reserve + 1);
    refused(&node, 3).await;
    cluster.set_disk_free(0, 2 * reserve);
    taken(&node, 4).await;
    assert_eq!(count(&node).await, 2 * DEVICES.len());
}

#[tokio::test]
async fn nodes_with_room_take_the_leaderships_of_one_without() {
    let cluster = TestCluster::start_with(3, often()).await;
    furnish(&cluster.client().await, &DEVICES).await;
    let (reserve, node) = (reserve(&cluster).await, cluster.at(2));
    taken(&node, 1).await;

    cluster.set_disk_free(0, reserve - 1);
    taken(&node, 2).await;
    eventually("node 1 leads no data shard", || async {
        let status = node.status().await.map_err(|e| e.to_string())?;
        let led = status
            .shards
            .iter()
            .filter(|shard| shard.shard > 0 && shard.leader_node <= 1);
        let led: Vec<u32> = led.map(|shard| shard.shard).collect();
        if led.is_empty() {
            Ok(())
        } else {
            Err(format!("{led:?}"))
        }
    })
    .await;

    // Two of three disks: no majority would have room.
    cluster.set_disk_free(1, reserve - 1);
    refused(&node, 3).await;
    assert_eq!(count(&node).await, 2 * DEVICES.len());
    cluster.set_disk_free(1, 2 * reserve);
    taken(&node, 4).await;
    cluster.set_disk_free(0, 2 * reserve);
    taken(&cluster.at(0), 5).await;
}

#[tokio::test]
async fn a_full_disk_takes_no_entries_and_catches_up_when_it_has_room() {
    let cluster = TestCluster::start_with(3, often()).await;
    furnish(&cluster.client().await, &DEVICES).await;
    let (reserve, node) = (reserve(&cluster).await, cluster.at(0));
    taken(&node, 1).await;

    cluster.set_disk_free(2, 0);
    for second in 2..10 {
        taken(&node, second).await;
    }
    eventually("node 3 is behind", || async {
        let status = node.status().await.map_err(|e| e.to_string())?;
        if behind(&status) > 0 {
            Ok(())
        } else {
            Err("in step".to_string())
        }
    })
    .await;

    cluster.set_disk_free(2, 2 * reserve);
    in_step(&node).await;
    assert_eq!(count(&cluster.at(2)).await, 9 * DEVICES.len());
}

#[tokio::test]
async fn what_was_under_way_when_all_disks_filled_up_does_not_stop_a_new_leader_from_answering() {
    let cluster = TestCluster::start_with(3, often()).await;
    let client = cluster.client().await;
    furnish(&client, &DEVICES).await;
    let (reserve, node) = (reserve(&cluster).await, cluster.at(0));
    taken(&node, 1).await;

    let writing = DEVICES.map(|device| {
        let node = cluster.at(1);
        tokio::spawn(async move {
            for second in 2.. {
                if point(&node, device, second).await.is_err() {
                    break;
                }
            }
        })
    });
    eventually("points come in", || async {
        let found = count(&node).await;
        if found > 4 * DEVICES.len() {
            Ok(())
        } else {
            Err(found.to_string())
        }
    })
    .await;
    for i in 0..3 {
        cluster.set_disk_free(i, reserve / 4);
    }
    refused(&node, 1_000_000).await;
    in_step(&node).await;
    for i in 0..3 {
        cluster.set_disk_free(i, 0);
    }
    for shard in node
        .status()
        .await
        .unwrap()
        .shards
        .iter()
        .filter(|shard| shard.shard > 0)
    {
        let request = v1::TransferLeaderRequest {
            shard: shard.shard,
            to_node: shard.leader_node % 3 + 1,
        };
        client.transfer_leader(request).await.unwrap();
    }
    let before = count(&node).await;
    assert!(before > DEVICES.len());

    for i in 0..3 {
        cluster.set_disk_free(i, 2 * reserve);
    }
    for writer in writing {
        writer.abort();
    }
    taken(&node, 1_000_001).await;
    assert!(count(&node).await >= before + DEVICES.len());
}

#[tokio::test]
async fn compaction_makes_files_smaller_and_changes_no_answer() {
    let mut cluster = TestCluster::start_shaped(3, 2, 3).await;
    let client = cluster.client().await;
    furnish(&client, &DEVICES).await;
    for second in 0..60 {
        let rows = DEVICES.map(|device| (device, T0 + second * S, second as f64));
        client.write(write(batch(METER, "level", rows))).await.unwrap();
    }
    let before = stored(&client).await;

    let mut gained = 0;
    for shard in 1..=2 {
        let answer = client.compact_shard(shard).await.unwrap();
        assert_eq!((answer.shard, answer.replicas.len()), (shard, 3));
        for one in answer.replicas {
            assert_eq!(one.problem, "");
            assert!(one.bytes_after > 0 && one.bytes_after <= one.bytes_before, "{one:?}");
            gained += one.bytes_before - one.bytes_after;
        }
    }
    assert!(gained > 0, "nothing became smaller");
    for node in 0..3 {
        assert_eq!(stored(&cluster.client_at(node).await).await, before);
    }
    cluster.replicas_agree(0).await;

    cluster.stop(2).await;
    let answer = cluster.client_at(0).await.compact_shard(1).await.unwrap();
    let done = |one: &v1::ReplicaCompaction| (one.node_id, one.problem.is_empty());
    let done: BTreeMap<u64, bool> = answer.replicas.iter().map(done).collect();
    assert_eq!(done, BTreeMap::from([(1, true), (2, true), (3, false)]), "{answer:?}");
    let refused = client.compact_shard(99).await.unwrap_err();
    assert_eq!(refused.reason, "UNKNOWN_SHARD");
}

/// Makes a disk have so many free bytes, and waits until the node has seen it.
async fn make_room(cluster: &TestCluster, bytes: u64) {
    cluster.set_disk_free(0, bytes);
    let node = cluster.at(0);
    eventually("the node looks at its disk", || async {
        let status = node.status().await.map_err(|e| e.to_string())?;
        match status.nodes[0].facts.as_ref().map_or(0, |facts| facts.disk_free_bytes) {
            seen if seen == bytes => Ok(()),
            seen => Err(format!("{seen}")),
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_would_take_the_disk_below_its_reserve_is_refused() {
    let cluster = TestCluster::start_with(1, often()).await;
    let (client, address, reserve) = (
        cluster.client().await,
        cluster.client_address(0),
        reserve(&cluster).await,
    );
    let folder = cluster.data_dir(0).join("restores").join("1-20260101T000000Z-0001");
    let files = || -> Vec<String> {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let is_refused = |uploaded: Result<(), Error>| {
        let error = uploaded.unwrap_err();
        assert_eq!(
            shown(&error),
            "RESOURCE_EXHAUSTED DISK_LOW; make room on the disk",
            "{}",
            error.message
        );
        assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
        assert_eq!(files(), Vec::<String>::new(), "nothing of it stays");
    };
    let bytes = [7; 10_000];

    make_room(&cluster, reserve + 9_999).await;
    is_refused(upload(&client, &address, &bytes, async |_| {}).await);
    // Room that others take while the file comes.
    make_room(&cluster, 2 * reserve).await;
    let taken_away = async |piece: usize| {
        if piece == 5 {
            make_room(&cluster, reserve - 1).await;
        }
    };
    is_refused(upload(&client, &address, &bytes, taken_away).await);
    make_room(&cluster, 2 * reserve).await;
    make_room(&cluster, reserve + 10_000).await;
    upload(&client, &address, &bytes, async |_| {}).await.unwrap();
    assert_eq!(files(), ["000007.sst"]);
}
