//! Exactly-once: the same batch sent again is stored once, whatever lies between.
//!
//! Never here: points beyond what shows that a write took place. Invariant: answers depend on the log alone, not on how it
//! was cut into chunks nor on restarts.

use crate::support::*;
use tidemark_node::shard::{ApplyEntry, Shard};
use tidemark_proto::peer::{Applied, applied};

/// A write of one point whose value tells the sequence and the digest.
fn sent(stamp_ns: i64, producer: &str, sequence: u64, digest: u64) -> ApplyEntry {
    let point = (sequence as i64, digest as f64);
    let mut command = write_of(&[(0, rows(&[point]))]);
    command.producer = producer.to_owned();
    command.sequence = sequence;
    command.digest = digest;
    command.points = sequence.wrapping_add(10);
    write(stamp_ns, command)
}

fn told(answer: &Applied) -> String {
    match &answer.result {
        Some(applied::Result::Write(answer)) if answer.duplicate => format!("again {}", answer.points),
        Some(applied::Result::Write(answer)) => format!("new {}", answer.points),
        Some(applied::Result::Failure(failure)) => format!("{} {}", failure.code, failure.reason),
        other => panic!("{other:?}"),
    }
}

fn send(shard: &Shard, producer: &str, sequence: u64, digest: u64) -> String {
    told(&apply(shard, 9, &[sent(5, producer, sequence, digest)])[0])
}

fn shard(place: &Place) -> Shard {
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(1)]);
    shard
}

#[test]
fn the_same_batch_again_is_stored_once() {
    let place = Place::new();
    let shard = shard(&place);
    let chunk = [
        sent(1, "p", 1, 100),
        sent(2, "p", 1, 100),
        sent(3, "q", 1, 100),
        sent(4, "p", 1, 101),
    ];
    let answers: Vec<_> = apply(&shard, 2, &chunk).iter().map(told).collect();
    assert_eq!(answers, ["new 11", "again 11", "new 11", "3 SEQUENCE_REUSED"]);
    assert_eq!(send(&shard, "p", 1, 100), "again 11");
    assert_eq!(cells(&shard, 0, 0, 10), [(1, 100.0)]);
    shard.store().flush().unwrap();
    drop(shard);
    let shard = open(&place.path("db"));
    assert_eq!(send(&shard, "p", 1, 100), "again 11");
    assert_eq!(send(&shard, "p", 1, 7), "3 SEQUENCE_REUSED");
    assert_eq!(send(&shard, "p", 2, 7), "new 12");
}

#[test]
fn without_a_producer_nothing_is_remembered() {
    let place = Place::new();
    let shard = shard(&place);
    assert_eq!(send(&shard, "", 1, 100), "new 11");
    assert_eq!(send(&shard, "", 1, 101), "new 11");
    assert_eq!(cells(&shard, 0, 0, 10), [(1, 101.0)]);
}

#[test]
fn the_window_is_256_and_never_guesses() {
    let place = Place::new();
    let shard = shard(&place);
    assert_eq!(send(&shard, "p", 300, 1), "new 310");
    // Never stored here, and nothing took its place: it may still come, late.
    assert_eq!(send(&shard, "p", 43, 1), "new 53");
    assert_eq!(send(&shard, "p", 43, 1), "again 53");
    // Its slot went to 300: it may have been stored long ago.
    assert_eq!(send(&shard, "p", 44, 1), "9 SEQUENCE_TOO_OLD");
    assert_eq!(send(&shard, "p", 299, 1), "new 309");
    assert_eq!(send(&shard, "p", 43, 1), "9 SEQUENCE_TOO_OLD");
    assert_eq!(send(&shard, "p", 300, 1), "again 310");
    assert_eq!(send(&shard, "p", u64::MAX, 1).split(' ').next(), Some("new"));
    assert_eq!(send(&shard, "p", u64::MAX, 1).split(' ').next(), Some("again"));
    assert_eq!(send(&shard, "p", 0, 1), "new 10");
}

#[test]
fn refused_writes_are_not_remembered() {
    let place = Place::new();
    let shard = shard(&place);
    let mut bad = write_of(&[(5, rows(&[(1, 1.0)]))]);
    bad.producer = "p".to_owned();
    bad.sequence = 1;
    assert_eq!(told(&apply(&shard, 2, &[write(1, bad)])[0]), "13 BAD_FRAGMENT");
    assert_eq!(send(&shard, "p", 1, 100), "new 11");
}

#[test]
fn beyond_4096_producers_the_oldest_is_forgotten() {
    let place = Place::new();
    let shard = shard(&place);
    // Stamps descend, so the last names are the oldest.
    let names: Vec<_> = (0..4_096).map(|number| format!("p{number:04}")).collect();
    let all: Vec<_> = names
        .iter()
        .zip((1_000..).step_by(1))
        .map(|(name, at)| sent(10_000 - at, name, 1, 1))
        .collect();
    apply(&shard, 2, &all);
    assert_eq!(send(&shard, "p4095", 1, 1), "again 11");
    // In one chunk: a new one, which takes the place of p4095, which then comes back as if never seen and takes the
    // place of p4094, and its older sequence is not found in what is on its way out.
    let chunk = [
        sent(20_000, "new", 1, 1),
        sent(20_001, "p4095", 5, 1),
        sent(20_002, "p4095", 1, 9),
        sent(20_003, "p4094", 1, 9),
    ];
    let answers: Vec<_> = apply(&shard, 3, &chunk).iter().map(told).collect();
    assert_eq!(answers, ["new 11", "new 15", "new 11", "new 11"]);
    assert_eq!(send(&shard, "p4092", 1, 1), "again 11");
    shard.store().flush().unwrap();
    drop(shard);
    let shard = open(&place.path("db"));
    assert_eq!(send(&shard, "p4092", 1, 1), "again 11");
    assert_eq!(send(&shard, "p4095", 1, 9), "again 11");
    assert_eq!(send(&shard, "p4093", 1, 9), "new 11", "it was the third to go");
}

#[test]
fn answers_do_not_depend_on_chunks_or_flushes() {
    for seed in seeds(4) {
        println!("TIDEMARK_SEED={seed}");
        let mut random = Random(seed);
        let log: Vec<_> = (0..600)
            .map(|at| {
                let producer = format!("p{}", random.below(3));
                let sequence = at / 4 + random.below(300);
                sent(at as i64, &producer, sequence, random.below(2))
            })
            .collect();
        let mut outcomes = Vec::new();
        for chunk in [1, 7, 600] {
            let place = Place::new();
            let shard = shard(&place);
            let mut answers = Vec::new();
            for entries in log.chunks(chunk) {
                answers.extend(apply(&shard, 2, entries).iter().map(told));
                if random.below(20) == 0 {
                    shard.store().flush().unwrap();
                }
            }
            outcomes.push((answers, shard.digest().unwrap()));
        }
        assert_eq!(outcomes[0], outcomes[1]);
        assert_eq!(outcomes[0], outcomes[2]);
    }
}
