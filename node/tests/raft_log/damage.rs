//! A log that lost something says so, and a torn marker does no harm.

use std::fs;
use std::path::Path;

use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};
use tidemark_node::raft::log_store::{NodeLog, OpenGroupError};
use tidemark_node::raft::types::{Entry, Vote};

use crate::support::{
    all_entries, append, append_durably, copy_dir, entry, flip, log_id, marker_file, small, vote, wal_files, with_log,
};

const SLOT_BYTES: usize = 64 << 10;

/// Two groups with a vote and entries each, everything acknowledged; returns the entries.
async fn acknowledged(dir: &Path, count: u64) -> Vec<Entry> {
    acknowledged_of(dir, count, 40).await
}

async fn acknowledged_of(dir: &Path, count: u64, bytes: usize) -> Vec<Entry> {
    let entries: Vec<Entry> = (0..count).map(|index| entry(1, index, bytes)).collect();
    with_log(dir, async |node| {
        for group in [1, 2] {
            vote(&mut node.group(group).unwrap(), 3).await;
        }
        for one in &entries {
            for group in [1, 2] {
                append_durably(&mut node.group(group).unwrap(), vec![one.clone()]).await;
            }
        }
    })
    .await;
    entries
}

/// Opens `dir` and says what a group holds: everything, or that something is wrong.
async fn all_or_reported(dir: &Path, entries: &[Entry], what: &str) -> bool {
    let Ok(node) = NodeLog::open_with(dir, small()) else {
        return true;
    };
    let mut reported = false;
    for group in [1, 2] {
        match node.group(group) {
            Err(OpenGroupError::Damaged(_)) => reported = true,
            Err(other) => panic!("{what}: {other}"),
            Ok(log) => {
                assert_eq!(
                    log.reader().read_vote().await.unwrap(),
                    Some(Vote::new_committed(3, 1)),
                    "{what}"
                );
                assert_eq!(all_entries(&log).await, entries, "{what}, group {group}");
            }
        }
    }
    reported
}

#[tokio::test]
async fn an_intact_log_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let entries = acknowledged(dir.path(), 5).await;
    assert!(!all_or_reported(dir.path(), &entries, "untouched").await);
    assert!(!all_or_reported(dir.path(), &entries, "opened again").await);
}

#[tokio::test]
async fn either_marker_slot_may_be_torn() {
    let dir = tempfile::tempdir().unwrap();
    let entries = acknowledged(dir.path(), 5).await;
    for slot in 0..2 {
        for at in [0, 5, 10, 17, 21, 70, 100] {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            flip(&marker_file(copy.path()), slot * SLOT_BYTES + at);
            assert!(!all_or_reported(copy.path(), &entries, &format!("slot {slot} byte {at}")).await);
        }
    }
}

#[tokio::test]
async fn without_any_valid_slot_every_group_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    acknowledged(dir.path(), 5).await;
    let (both, missing, short) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    for copy in [&both, &missing, &short] {
        copy_dir(dir.path(), copy.path());
    }
    flip(&marker_file(both.path()), 70);
    flip(&marker_file(both.path()), SLOT_BYTES + 70);
    fs::remove_file(marker_file(missing.path())).unwrap();
    fs::write(marker_file(short.path()), b"").unwrap();
    for copy in [&both, &missing, &short] {
        for _ in 0..2 {
            let node = NodeLog::open_with(copy.path(), small()).unwrap();
            assert!(node.marker_lost());
            assert_eq!(node.damaged().len(), 2);
            // Group 3 was never seen, but it might have been: nobody knows any more.
            for group in [1, 2, 3] {
                assert!(
                    matches!(node.group(group), Err(OpenGroupError::Damaged(_))),
                    "group {group}"
                );
            }
            assert!(node.forget(1).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_new_folder_is_a_new_node() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let node = NodeLog::open(&dir.path().join("a/b")).unwrap();
        assert!(!node.marker_lost());
        assert_eq!(node.group(7).unwrap().log_state().last_log_id, None);
    }
}

#[tokio::test]
async fn a_lost_database_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let entries = acknowledged(dir.path(), 5).await;
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    assert!(all_or_reported(dir.path(), &entries, "database removed").await);
}

#[tokio::test]
async fn a_lost_wal_file_is_noticed_until_the_group_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    acknowledged(dir.path(), 5).await;
    // Flushes the WAL into a table; what follows is in the newest WAL file only, and only for group 1.
    with_log(dir.path(), async |node| {
        append_durably(&mut node.group(1).unwrap(), vec![entry(1, 5, 40), entry(1, 6, 40)]).await;
    })
    .await;
    let newest = wal_files(dir.path()).pop().unwrap();
    assert!(fs::metadata(&newest).unwrap().len() > 0);
    fs::remove_file(newest).unwrap();
    for _ in 0..2 {
        let node = NodeLog::open_with(dir.path(), small()).unwrap();
        let Err(OpenGroupError::Damaged(damaged)) = node.group(1) else {
            panic!("a shorter log may vote")
        };
        assert_eq!(damaged.group, 1);
        assert!(damaged.reason.contains("index: 6"), "{damaged}");
        assert_eq!(all_entries(&node.group(2).unwrap()).await.len(), 5);
    }
    with_log(dir.path(), async |node| node.forget(1).await.unwrap()).await;
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    assert_eq!(node.damaged(), []);
    append_durably(&mut node.group(1).unwrap(), vec![entry(8, 0, 40)]).await;
}

#[tokio::test]
async fn a_lost_vote_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    acknowledged(dir.path(), 2).await;
    with_log(dir.path(), async |node| vote(&mut node.group(2).unwrap(), 9).await).await;
    fs::remove_file(wal_files(dir.path()).pop().unwrap()).unwrap();
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    let Err(OpenGroupError::Damaged(damaged)) = node.group(2) else {
        panic!("a forgotten vote may be given again")
    };
    assert!(damaged.reason.contains("older"), "{damaged}");
    assert!(node.group(1).is_ok());
}

#[tokio::test]
async fn a_lost_rewrite_is_noticed_although_the_log_is_not_shorter() {
    let dir = tempfile::tempdir().unwrap();
    acknowledged(dir.path(), 9).await;
    with_log(dir.path(), async |node| {
        let mut log = node.group(1).unwrap();
        log.truncate_after(Some(log_id(1, 3))).await.unwrap();
        append_durably(&mut log, vec![entry(2, 4, 40), entry(2, 5, 40)]).await;
    })
    .await;
    fs::remove_file(wal_files(dir.path()).pop().unwrap()).unwrap();
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    assert!(matches!(node.group(1), Err(OpenGroupError::Damaged(_))));
}

#[tokio::test]
async fn a_marker_torn_after_a_rewrite_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    acknowledged(dir.path(), 9).await;
    with_log(dir.path(), async |node| {
        let mut log = node.group(1).unwrap();
        log.truncate_after(Some(log_id(1, 3))).await.unwrap();
        append_durably(&mut log, vec![entry(2, 4, 40)]).await;
    })
    .await;
    // The slot that is left was lowered before the entries went.
    for slot in 0..2 {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        flip(&marker_file(copy.path()), slot * SLOT_BYTES);
        let node = NodeLog::open_with(copy.path(), small()).unwrap();
        assert_eq!(node.damaged(), [], "slot {slot}");
        assert_eq!(all_entries(&node.group(1).unwrap()).await.len(), 5);
    }
}

/// Inverts every so many bytes of the WAL, one at a time; everything in it was acknowledged, so no byte is spare.
async fn check_flips(count: u64, entry_bytes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let entries = acknowledged_of(dir.path(), count, entry_bytes).await;
    let wal = wal_files(dir.path()).pop().unwrap();
    let bytes = fs::metadata(&wal).unwrap().len() as usize;
    for at in (0..bytes).step_by(bytes / 120 + 1) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        flip(&copy.path().join("log").join(wal.file_name().unwrap()), at);
        let what = format!("byte {at} of {bytes}");
        assert!(all_or_reported(copy.path(), &entries, &what).await, "{what}");
    }
}

#[tokio::test]
async fn no_flipped_byte_of_a_short_wal_goes_unnoticed() {
    check_flips(30, 40).await;
}

#[tokio::test]
async fn no_flipped_byte_of_a_wal_of_many_blocks_goes_unnoticed() {
    check_flips(50, 3_000).await;
}

#[tokio::test]
async fn no_cut_of_the_wal_goes_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let entries = acknowledged(dir.path(), 30).await;
    let wal = wal_files(dir.path()).pop().unwrap();
    let bytes = fs::metadata(&wal).unwrap().len();
    for keep in (0..bytes).rev().step_by(bytes as usize / 40 + 1) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let file = fs::OpenOptions::new()
            .write(true)
            .open(copy.path().join("log").join(wal.file_name().unwrap()));
        file.unwrap().set_len(keep).unwrap();
        assert!(all_or_reported(copy.path(), &entries, &format!("{keep} of {bytes} bytes")).await);
    }
}

#[tokio::test]
async fn a_crash_at_any_time_leaves_marker_at_or_below_log() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    let mut log = node.group(1).unwrap();
    let mut acknowledged = 0;
    for round in 0..30_u64 {
        let (first, term) = (round * 4, round / 5 + 1);
        let told = append(
            &mut log,
            (first..first + 4).map(|index| entry(term, index, 200)).collect(),
        )
        .await;
        if round % 3 == 0 {
            log.purge(log_id(1.max(first.saturating_sub(9) / 20 + 1), first.saturating_sub(9)))
                .await
                .unwrap();
        }
        if round % 2 == 0 {
            told.await.unwrap().unwrap();
            acknowledged = first + 3;
        }
        // What a killed process leaves: the marker first, so the log in the copy is at least as new.
        let copy = copies.path().join(round.to_string());
        fs::create_dir_all(&copy).unwrap();
        fs::copy(marker_file(dir.path()), marker_file(&copy)).unwrap();
        copy_dir(&dir.path().join("log"), &copy.join("log"));
        let found = NodeLog::open_with(&copy, small()).unwrap();
        assert_eq!(found.damaged(), [], "round {round}");
        let last = found.group(1).unwrap().log_state().last_log_id;
        assert!(
            last.is_some_and(|last| last.index >= acknowledged),
            "round {round}: {last:?} < {acknowledged}"
        );
    }
}
