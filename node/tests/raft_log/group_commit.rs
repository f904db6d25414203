//! One sync serves many groups, memory stays within its caps, and a failed sync ends everything.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::StreamExt as _;
use openraft::storage::{IOFlushed, LeaderBoundedStreamError, RaftLogReader as _, RaftLogStorage as _};
use tidemark_node::raft::log_store::{LogOptions, NodeLog, OpenGroupError};
use tidemark_node::raft::types::Vote;
use tidemark_node::store::marker::GROUPS_MAX;

use crate::support::{all_entries, append, append_durably, entry, log_id, small, vote};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_groups_share_syncs() {
    const GROUPS: u32 = 16;
    const ENTRIES: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let node = NodeLog::open(dir.path()).unwrap();
    let started = Instant::now();
    let tasks: Vec<_> = (0..GROUPS)
        .map(|group| {
            let mut log = node.group(group).unwrap();
            tokio::spawn(async move {
                for index in 0..ENTRIES {
                    append_durably(&mut log, vec![entry(1, index, 4096)]).await;
                }
                assert_eq!(all_entries(&log).await.len() as u64, ENTRIES);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (status, seconds) = (node.status(), started.elapsed().as_secs_f64());
    println!(
        "{} groups x {} entries of 4 KiB: {:.0} entries/s, {:.0} commits/s, {:.1} entries/sync, {:.0} us/sync, {:.0} us/marker",
        GROUPS,
        ENTRIES,
        status.entries as f64 / seconds,
        status.group_commits as f64 / seconds,
        status.entries as f64 / status.syncs as f64,
        status.sync_ns as f64 / status.syncs as f64 / 1e3,
        status.marker_ns as f64 / status.syncs as f64 / 1e3,
    );
    assert_eq!(status.entries, u64::from(GROUPS) * ENTRIES);
    assert!(status.syncs * 2 < status.entries, "{status:?}");
    assert_eq!(status.queued_bytes, 0);
}

#[tokio::test]
async fn callbacks_come_in_order_and_mean_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    let mut log = node.group(3).unwrap();
    let mut waiting = Vec::new();
    for index in 0..50 {
        waiting.push(append(&mut log, vec![entry(1, index, 100)]).await);
        // Readable at once, on disk or not.
        assert_eq!(
            log.reader().try_get_log_entries(index..=index).await.unwrap(),
            vec![entry(1, index, 100)]
        );
    }
    let last = waiting.pop().unwrap();
    last.await.unwrap().unwrap();
    for mut earlier in waiting {
        earlier.try_recv().expect("told before the later one").unwrap();
    }
}

#[tokio::test]
async fn committed_alone_is_not_synced() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeLog::open(dir.path()).unwrap();
    let mut log = node.group(1).unwrap();
    append_durably(&mut log, vec![entry(1, 0, 10)]).await;
    let before = node.status();
    log.save_committed(Some(log_id(1, 0))).await.unwrap();
    node.close();
    let after = node.status();
    assert_eq!(
        (after.syncs, after.group_commits),
        (before.syncs, before.group_commits + 1)
    );
    drop((log, node));
    let node = NodeLog::open(dir.path()).unwrap();
    assert_eq!(
        node.group(1).unwrap().read_committed().await.unwrap(),
        Some(log_id(1, 0))
    );
}

#[tokio::test]
async fn memory_stays_within_its_caps() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    let mut log = node.group(1).unwrap();
    for index in 0..200 {
        drop(append(&mut log, vec![entry(1, index, 500)]).await);
        let status = node.status();
        assert!(status.queued_bytes <= 20_000, "{status:?}");
        assert!(status.tail_bytes <= 2_000 + 20_000 + 600, "{status:?}");
    }
    // Larger than the whole queue: goes alone.
    append_durably(&mut log, vec![entry(1, 200, 50_000)]).await;
    append_durably(&mut log, vec![entry(1, 201, 1)]).await;
    node.flush().await.unwrap();
    assert!(node.status().tail_bytes <= 2_000, "{:?}", node.status());
    assert_eq!(all_entries(&log).await.len(), 202);
    let mut reader = log.reader();
    for (start, expected) in [(0, 1), (198, 1), (200, 1), (201, 1), (202, 0)] {
        assert_eq!(
            reader.limited_get_log_entries(start, 202).await.unwrap().len(),
            expected,
            "from {start}"
        );
    }
}

#[tokio::test]
async fn a_leaders_stream_ends_when_the_vote_changes() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    let mut log = node.group(1).unwrap();
    vote(&mut log, 1).await;
    append_durably(&mut log, (0..20).map(|index| entry(1, index, 300)).collect()).await;
    let leader = log_id(1, 0).leader_id;
    let mut reader = log.reader();
    let mut led = std::pin::pin!(reader.leader_bounded_stream(leader, 0..20).await);
    assert_eq!(led.next().await.unwrap().unwrap(), entry(1, 0, 300));
    let higher = Vote::new(2, 9);
    log.save_vote(&higher).await.unwrap();
    log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    let mut seen = 1;
    let changed = loop {
        match led.next().await.expect("ends with an error") {
            Ok(_) => seen += 1,
            Err(error) => break error,
        }
    };
    // What its chunk had already was the leader's; no chunk came after the vote.
    assert!(seen <= 2, "{seen}");
    let LeaderBoundedStreamError::LeaderChanged(changed) = changed else {
        panic!("{changed}")
    };
    assert_eq!(changed.current_vote, Some(higher));
    assert!(led.next().await.is_none());
}

#[tokio::test]
async fn entries_that_do_not_continue_the_log_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    let mut log = node.group(1).unwrap();
    append_durably(&mut log, vec![entry(1, 0, 10), entry(1, 1, 10)]).await;
    for wrong in [
        vec![entry(1, 3, 10)],
        vec![entry(1, 1, 10)],
        vec![entry(1, 2, 10), entry(1, 4, 10)],
    ] {
        let error = log.append(wrong, IOFlushed::noop()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(log.log_state().last_log_id, Some(log_id(1, 1)));
}

#[tokio::test]
async fn a_failed_sync_calls_the_abort_hook_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let (armed, heard) = (Arc::clone(&failing), Arc::clone(&reasons));
    let options = LogOptions {
        before_sync: Some(Arc::new(move || match armed.load(Ordering::SeqCst) {
            true => Err(io::Error::other("injected")),
            false => Ok(()),
        })),
        on_failure: Arc::new(move |reason| heard.lock().unwrap().push(reason.to_owned())),
        ..small()
    };
    let node = NodeLog::open_with(dir.path(), options).unwrap();
    let mut log = node.group(1).unwrap();
    append_durably(&mut log, vec![entry(1, 0, 10)]).await;
    assert!(reasons.lock().unwrap().is_empty());

    failing.store(true, Ordering::SeqCst);
    let outcome = append(&mut log, vec![entry(1, 1, 10)]).await.await.unwrap();
    assert!(outcome.unwrap_err().to_string().contains("injected"));
    assert_eq!(*reasons.lock().unwrap(), ["injected"]);

    failing.store(false, Ordering::SeqCst);
    node.close();
    assert!(log.append(vec![entry(1, 2, 10)], IOFlushed::noop()).await.is_err());
    assert!(log.save_vote(&Vote::new(7, 1)).await.is_err());
    assert_eq!(reasons.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_forgotten_group_leaves_nothing_and_its_handles_are_dead() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    let (mut gone, mut kept) = (node.group(1).unwrap(), node.group(2).unwrap());
    for log in [&mut gone, &mut kept] {
        vote(log, 4).await;
        append_durably(log, (0..9).map(|index| entry(1, index, 300)).collect()).await;
    }
    node.forget(1).await.unwrap();
    assert!(gone.append(vec![entry(1, 9, 10)], IOFlushed::noop()).await.is_err());
    assert!(gone.save_vote(&Vote::new(9, 1)).await.is_err());
    assert_eq!(node.groups(), [2]);
    drop((gone, kept, node));

    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    assert_eq!(node.groups(), [2]);
    let fresh = node.group(1).unwrap();
    assert_eq!(fresh.log_state().last_log_id, None);
    assert_eq!(fresh.reader().read_vote().await.unwrap(), None);
    assert_eq!(all_entries(&node.group(2).unwrap()).await.len(), 9);
}

#[tokio::test]
async fn a_panicking_writer_calls_the_abort_hook() {
    let dir = tempfile::tempdir().unwrap();
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&reasons);
    let options = LogOptions {
        before_sync: Some(Arc::new(|| panic!("injected"))),
        on_failure: Arc::new(move |reason| heard.lock().unwrap().push(reason.to_owned())),
        ..small()
    };
    let node = NodeLog::open_with(dir.path(), options).unwrap();
    assert!(node.group(1).unwrap().save_vote(&Vote::new(1, 1)).await.is_err());
    node.close();
    assert_eq!(*reasons.lock().unwrap(), ["the writer panicked"]);
}

#[tokio::test]
async fn groups_beyond_the_marker_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    let known: Vec<_> = (0..GROUPS_MAX as u32).map(|group| node.group(group).unwrap()).collect();
    for mut log in known {
        drop(append(&mut log, vec![entry(1, 0, 10)]).await);
    }
    assert!(matches!(node.group(5_000), Err(OpenGroupError::TooMany)));
    node.forget(17).await.unwrap();
    append_durably(&mut node.group(5_000).unwrap(), vec![entry(1, 0, 10)]).await;
    drop(node);
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    assert_eq!((node.groups().len(), node.damaged().len()), (GROUPS_MAX, 0));
}
