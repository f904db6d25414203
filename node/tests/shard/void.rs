//! Entries that stored nothing are remembered by their place in the log, so that whoever reads the log passes them over.
//!
//! Never here: what a producer's retry is (`shard_producers`). Invariant: what is remembered depends on the log alone.

use crate::support::*;
use tidemark_node::shard::{ApplyEntry, Shard};

fn sent(producer: &str, sequence: u64, digest: u64) -> ApplyEntry {
    let mut command = write_of(&[(0, rows(&[(sequence as i64, 1.0)]))]);
    command.producer = producer.to_owned();
    command.sequence = sequence;
    command.digest = digest;
    write(5, command)
}

fn apply_at(shard: &Shard, first: u64, entries: &[ApplyEntry]) {
    let last = first + entries.len() as u64 - 1;
    shard.apply_at(Some(first), entries, state(last)).unwrap();
}

#[test]
fn retries_and_refusals_are_remembered_and_nothing_else() {
    let place = Place::new();
    let entries = [
        put_count(1),
        sent("p", 1, 100),
        sent("p", 1, 100),
        ApplyEntry::default(),
        sent("p", 2, 100),
        sent("p", 1, 999),
        sent("q", 1, 100),
        sent("p", 1, 100),
    ];
    for cut in 1..entries.len() {
        let name = format!("db-{cut}");
        let shard = open(&place.path(&name));
        apply_at(&shard, 10, &entries[..cut]);
        apply_at(&shard, 10 + cut as u64, &entries[cut..]);
        let void = |from, to| shard.void_entries(from, to).unwrap().unwrap();
        assert_eq!(void(0, 100), [12, 15, 17], "cut at {cut}");
        assert_eq!((void(13, 15), void(13, 14)), (vec![15], vec![]));
        shard.store().flush().unwrap();
        drop(shard);
        let shard = open(&place.path(&name));
        assert_eq!(
            shard.void_entries(0, u64::MAX).unwrap().unwrap(),
            [12, 15, 17],
            "after a restart"
        );
        apply_at(&shard, 18, &[sent("q", 1, 100)]);
        assert_eq!(shard.void_entries(16, 18).unwrap().unwrap(), [17, 18]);
    }
}

#[test]
fn what_is_forgotten_is_not_guessed() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply_at(&shard, 1, &[put_count(1), sent("p", 1, 100)]);
    let again: Vec<_> = (0..1_024).map(|_| sent("p", 1, 100)).collect();
    for round in 0..9 {
        apply_at(&shard, 3 + round * 1_024, &again);
    }
    // Entries 3 to 9,218 stored nothing, and 8,192 of them are remembered.
    assert_eq!(shard.void_entries(1_026, 2_000).unwrap(), None);
    assert_eq!(shard.void_entries(1, 2).unwrap(), None, "it may have been one of them");
    assert_eq!(shard.void_entries(1_027, 1_028).unwrap().unwrap(), [1_027, 1_028]);
}
