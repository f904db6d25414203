//! What a crash, a restart, a checkpoint and damage leave.
//!
//! Never here: Raft. Invariant: data and applied state are there together or not at all.

use crate::support::*;
use bytes::Bytes;
use tidemark_node::shard::{ApplyEntry, Shard};
use tidemark_node::store::{Family, ReplicaStore, StoreError};
use tidemark_proto::peer::applied;
use tidemark_series::Records;

fn one(index: u64) -> ApplyEntry {
    write(index as i64, write_of(&[(0, rows(&[(index as i64, index as f64)]))]))
}

fn times(shard: &Shard) -> Vec<i64> {
    cells(shard, 0, 0, i64::MAX).into_iter().map(|(time, _)| time).collect()
}

fn applied(shard: &Shard) -> Option<u64> {
    index_of(&shard.store().applied().unwrap())
}

#[test]
fn a_crash_loses_unflushed_data_and_its_applied_state_together() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(1)]);
    apply(&shard, 2, &[one(2)]);
    shard.store().flush().unwrap();
    apply(&shard, 3, &[one(3), put(3, vec![device("late", &[])])]);
    assert_eq!(times(&shard), [2, 3]);
    assert_eq!(applied(&shard), Some(3));
    assert_eq!(index_of(&shard.store().persisted_applied().unwrap()), Some(2));
    crash_copy(&place.path("db"), &place.path("crashed"));

    let crashed = open(&place.path("crashed"));
    assert_eq!(times(&crashed), [2]);
    assert_eq!(crashed.store().applied().unwrap(), state(2));
    assert_eq!(crashed.store().persisted_applied().unwrap(), state(2));
    assert_eq!(crashed.device_count(), 1);
    assert_eq!(crashed.resolve(&["late"]).unwrap(), [None]);

    shard.store().flush().unwrap();
    assert_eq!(shard.store().persisted_applied().unwrap(), state(3));
    crash_copy(&place.path("db"), &place.path("flushed"));
    let flushed = open(&place.path("flushed"));
    assert_eq!((times(&flushed), applied(&flushed)), (vec![2, 3], Some(3)));
    assert_eq!(flushed.resolve(&["late"]).unwrap(), [Some((KIND, 1))]);
    assert_eq!(flushed.digest().unwrap(), shard.digest().unwrap());
}

#[test]
fn a_crash_before_anything_was_flushed_leaves_an_empty_shard() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(1), one(1)]);
    crash_copy(&place.path("db"), &place.path("crashed"));
    let crashed = open(&place.path("crashed"));
    assert_eq!(crashed.store().applied().unwrap(), Default::default());
    assert_eq!((times(&crashed), crashed.device_count()), (vec![], 0));
}

#[test]
fn replaying_the_log_over_what_is_there_changes_nothing() {
    for seed in seeds(6) {
        println!("TIDEMARK_SEED={seed}");
        let mut random = Random(seed);
        let log = random_log(&mut random, 120);
        let place = Place::new();
        let straight = open(&place.path("straight"));
        for (index, entry) in (1..).zip(&log) {
            apply(&straight, index, std::slice::from_ref(entry));
        }
        let expected = straight.digest().unwrap();

        // The same log, with crashes: each life begins at the applied state it finds.
        let mut life = 0;
        let mut shard = open(&place.path("life0"));
        loop {
            let from = applied(&shard).unwrap_or(0) as usize;
            if from == log.len() {
                break;
            }
            let until = (from + 1 + random.below(60) as usize).min(log.len());
            let mut at = from;
            while at < until {
                let end = (at + 1 + random.below(9) as usize).min(until);
                apply(&shard, end as u64, &log[at..end]);
                at = end;
                // At times nothing of this life is flushed.
                if random.below(3) == 0 || at == log.len() {
                    shard.store().flush().unwrap();
                }
            }
            if random.below(4) == 0 {
                shard.store().db().compact().unwrap();
            }
            let crashed = place.path(&format!("life{}", life + 1));
            crash_copy(&place.path(&format!("life{life}")), &crashed);
            life += 1;
            shard = open(&crashed);
        }
        assert_eq!(shard.digest().unwrap(), expected, "after {life} lives");
        assert!(life > 0);
    }
}

/// Devices, points in and out of order, duplicates.
fn random_log(random: &mut Random, length: usize) -> Vec<ApplyEntry> {
    let mut log = vec![put_count(3)];
    while log.len() < length {
        let stamp = log.len() as i64;
        log.push(match random.below(10) {
            0 => put(
                stamp,
                vec![device(
                    &format!("d{}", random.below(6)),
                    &[("n", &random.below(3).to_string())],
                )],
            ),
            1 => ApplyEntry::default(),
            _ => {
                let mut command = write_of(&[(random.below(3) as u32, random_records(random))]);
                if random.below(2) == 0 {
                    command.producer = format!("p{}", random.below(2));
                    command.sequence = random.below(20);
                    command.digest = random.below(2);
                }
                write(stamp, command)
            }
        });
    }
    log
}

#[test]
fn a_checkpoint_opens_and_equals() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(1)]);
    for index in 2..50 {
        apply(&shard, index, &[one(index)]);
    }
    assert!(shard.store().db().memtable_bytes().unwrap() > 0);
    let at = shard.store().checkpoint(&place.path("copy"), &resources()).unwrap();
    assert_eq!(at, state(49));
    assert_eq!(
        ReplicaStore::verify_open(&place.path("copy"), &resources()).unwrap(),
        state(49)
    );
    assert!(shard.store().db().disk_bytes().unwrap() > 0);
    let expected = shard.digest().unwrap();
    apply(&shard, 50, &[one(50)]);
    assert_ne!(shard.digest().unwrap(), expected);
    drop(shard);
    std::fs::remove_dir_all(place.path("db")).unwrap();
    let copy = open(&place.path("copy"));
    assert_eq!(copy.digest().unwrap(), expected);
    assert_eq!(applied(&copy), Some(49));
    apply(&copy, 50, &[one(50)]);
    assert_eq!(times(&copy).len(), 49);
    assert!(ReplicaStore::verify_open(&place.path("nothing"), &resources()).is_err());
}

#[test]
fn unknown_commands_stop_the_shard() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(1), one(1)]);
    let before = shard.digest().unwrap();
    // Field 15: a kind of some later release.
    let unknown = ApplyEntry {
        command: Some(Bytes::from_static(&[0x7A, 0x01, 0x00])),
    };
    let error = shard.apply(&[one(2), unknown], state(3)).unwrap_err();
    assert!(matches!(error, StoreError::UnknownCommand(_)), "{error}");
    assert!(matches!(shard.apply(&[one(2)], state(2)), Err(StoreError::Stopped)));
    assert_eq!(applied(&shard), Some(1));
    assert_eq!(shard.digest().unwrap(), before, "nothing of the chunk was applied");
    drop(shard);
    let shard = open(&place.path("db"));
    let garbage = ApplyEntry {
        command: Some(Bytes::from_static(&[0xFF, 0xFF, 0xFF])),
    };
    assert!(matches!(
        shard.apply(&[garbage], state(2)),
        Err(StoreError::UnknownCommand(_))
    ));
}

#[test]
fn a_directory_opens_once_and_never_backwards() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    let error = try_open(&place.path("db")).err().unwrap();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    let mut batch = shard.store().batch().unwrap();
    batch.put(Family::Meta, b"format", &2_u32.to_be_bytes());
    shard.store().db().write(batch).unwrap();
    shard.store().flush().unwrap();
    drop(shard);
    let error = try_open(&place.path("db")).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("has format version 2, this binary reads up to 1"),
        "{error}"
    );
    assert!(ReplicaStore::verify_open(&place.path("db"), &resources()).is_err());
}

#[test]
fn group_state_is_written_with_the_applied_state() {
    let place = Place::new();
    let store = ReplicaStore::open(&place.path("db"), &resources()).unwrap();
    let mut batch = store.batch().unwrap();
    ReplicaStore::put_group_state(&mut batch, b"types/1", Some(b"one"));
    ReplicaStore::put_group_state(&mut batch, b"types/2", Some(b"two"));
    ReplicaStore::put_group_state(&mut batch, b"nodes", Some(b"three"));
    store.commit(batch, state(4)).unwrap();
    assert_eq!(store.group_state(b"nodes").unwrap().as_deref(), Some(&b"three"[..]));
    assert_eq!(store.persisted_applied().unwrap(), Default::default());
    let mut batch = store.batch().unwrap();
    ReplicaStore::put_group_state(&mut batch, b"types/1", None);
    store
        .commit(
            batch,
            tidemark_node::store::AppliedState {
                log_id: Some(vec![9]),
                membership: None,
            },
        )
        .unwrap();
    store.flush().unwrap();
    crash_copy(&place.path("db"), &place.path("crashed"));
    let store = ReplicaStore::open(&place.path("crashed"), &resources()).unwrap();
    let types = store.group_states(b"types/").unwrap();
    assert_eq!(
        types.into_iter().collect::<Vec<_>>(),
        [(b"types/2".to_vec(), b"two".to_vec())]
    );
    let applied = store.applied().unwrap();
    assert_eq!(
        (applied.log_id, applied.membership),
        (Some(vec![9]), state(4).membership)
    );
}

#[test]
fn an_operand_that_is_no_block_is_corruption_for_every_reader() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(2), one(1)]);
    for family in [Family::Blocks, Family::Latest] {
        let view = shard.store().db().view();
        let mut scan = view.scan(family, &[], None).unwrap();
        let key = scan.next().unwrap().unwrap().0.to_vec();
        let mut batch = shard.store().batch().unwrap();
        batch.merge(family, &key, b"garbage");
        shard.store().db().write(batch).unwrap();
    }
    assert!(read(&shard, 0, 0, 10).unwrap_err().is_corruption());
    assert!(shard.latest(KIND, &[0]).unwrap_err().is_corruption());
    assert!(shard.digest().unwrap_err().is_corruption());
    assert_eq!(cells(&shard, 1, 0, 10), [], "the other device is unharmed");
    // Flush and compaction do not get rid of it by dropping it.
    let _ = shard.store().db().compact();
    assert!(read(&shard, 0, 0, 10).unwrap_err().is_corruption());
    assert!(shard.latest(KIND, &[0]).unwrap_err().is_corruption());
    drop(shard);
    match try_open(&place.path("db")) {
        Err(error) => assert!(error.is_corruption(), "{error}"),
        Ok(shard) => {
            // What never reached the disk is replayed from the log; what did is still damaged.
            if applied(&shard) == Some(1) {
                assert!(read(&shard, 0, 0, 10).unwrap_err().is_corruption());
            }
        }
    }
}

#[test]
fn while_a_backup_comes_in_no_points_are_taken() {
    let place = Place::new();
    let source = open(&place.path("source"));
    apply(&source, 1, &[put_count(1), one(1)]);
    let shard = open(&place.path("db"));
    // All records, and not yet the last piece.
    let [begun, ended] = restore_of(&source, 0);
    apply(&shard, 1, &[begun]);
    let refused = apply(&shard, 2, &[one(2)]);
    let reason = match &refused[0].result {
        Some(applied::Result::Failure(failure)) => failure.reason.as_str(),
        _ => "",
    };
    assert_eq!(reason, "RESTORE_RUNNING");
    apply(&shard, 3, &[ended, one(4)]);
    assert_eq!(times(&shard), [1, 4]);
}

#[test]
fn newest_values_do_not_depend_on_when_a_replica_flushes() {
    // Property 2 of the second row loses to the third row; what is left of its time must not depend on who met first.
    let row = |time, received, property| Records {
        observed_at: vec![time],
        received_at: vec![received],
        report_kind: vec![0],
        repeats: Vec::new(),
        columns: column(property, &[Some(1.0)]).into_iter().collect(),
    };
    let log = [row(10, 1, 1), row(10, 2, 2), row(20, 3, 2)].map(|records| write(1, write_of(&[(0, records)])));
    let mut digests = Vec::new();
    for flush_after in [&[][..], &[0], &[0, 1], &[1], &[0, 1, 2]] {
        let place = Place::new();
        let shard = open(&place.path("db"));
        apply(&shard, 1, &[put_count(1)]);
        for (at, entry) in log.iter().enumerate() {
            apply(&shard, 2, std::slice::from_ref(entry));
            if flush_after.contains(&at) {
                shard.store().flush().unwrap();
            }
        }
        shard.store().flush().unwrap();
        digests.push(shard.digest().unwrap());
        shard.store().db().compact().unwrap();
        digests.push(shard.digest().unwrap());
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
