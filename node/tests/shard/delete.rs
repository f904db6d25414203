//! Removals in a shard: records of devices over a time against a model, and old buckets of a type.
//!
//! Never here: selectors, several nodes (see delete). Invariant: two replicas of one log are equal, whatever each flushed.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::*;
use tidemark_node::shard::{ApplyEntry, Counted, Edges, Shard};
use tidemark_node::store::StoreError;
use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{
    Applied, RemoveBuckets, RemoveRecords, Removed, Upkeep, WriteFragments, applied, shard_command,
};
use tidemark_series::{Records, ValueRef};

const DEVICES: u32 = 24;

fn remove(what: What) -> ApplyEntry {
    let upkeep = Upkeep {
        type_number: KIND,
        what: Some(what),
    };
    entry(1, shard_command::Command::Upkeep(upkeep))
}

fn remove_records(ordinals: &[u32], from_ns: i64, to_ns: i64) -> ApplyEntry {
    remove(What::RemoveRecords(RemoveRecords {
        ordinals: ordinals.to_vec(),
        from_ns,
        to_ns,
        bucket_span_ns: SPAN,
        ..RemoveRecords::default()
    }))
}

fn removed(answer: &Applied) -> Removed {
    match &answer.result {
        Some(applied::Result::Removed(removed)) => *removed,
        other => panic!("{other:?}"),
    }
}

/// Value bits by device, property and time.
type Model = BTreeMap<(u32, u32, i64), u64>;

fn bits(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::F64(number) => number.to_bits(),
        other => panic!("{other:?}"),
    }
}

fn add(model: &mut Model, ordinal: u32, records: &Records) {
    for column in &records.columns {
        for (row, value, _) in column.cells() {
            model.insert((ordinal, column.property.0, records.observed_at[row]), bits(value));
        }
    }
}

/// All that a shard has, record by record.
fn content(shard: &Shard) -> Model {
    let mut found = Model::new();
    for ordinal in 0..DEVICES {
        add(&mut found, ordinal, &read(shard, ordinal, i64::MIN, i64::MAX).unwrap());
    }
    found
}

/// Newest values: time and bits by device and property.
type Newest = BTreeMap<(u32, u32), (i64, u64)>;

fn newest(shard: &Shard) -> Newest {
    let ordinals: Vec<u32> = (0..DEVICES).collect();
    let mut found = Newest::new();
    for (ordinal, values) in (0..).zip(shard.newest(KIND, &ordinals).unwrap()) {
        for value in values.iter() {
            let newest = (value.observed_at, bits(value.value()));
            found.insert((ordinal, value.property.0), newest);
        }
    }
    found
}

fn newest_of(model: &Model) -> Newest {
    let newest = |((ordinal, property, time), bits): (&(u32, u32, i64), &u64)| ((*ordinal, *property), (*time, *bits));
    model.iter().map(newest).collect()
}

fn compare(shard: &Shard, model: &Model) {
    let found = content(shard);
    for (cell, bits) in model {
        assert_eq!(found.get(cell), Some(bits), "{cell:?} is missing");
    }
    for cell in found.keys() {
        assert!(model.contains_key(cell), "{cell:?} should be gone");
    }
    assert_eq!(newest(shard), newest_of(model), "newest values");
}

fn random_devices(random: &mut Random) -> Vec<u32> {
    let first = random.below(DEVICES.into()) as u32;
    let close = random.below(2) == 0;
    let all = (0..DEVICES).filter(|ordinal| *ordinal == first || close || random.below(5) == 0);
    all.collect()
}

/// A range that ends anywhere, on a bucket, or nowhere.
fn random_range(random: &mut Random) -> (i64, i64) {
    let mut end = || match random.below(6) {
        0 => random_time(random) / SPAN * SPAN,
        _ => random_time(random),
    };
    let (a, b) = (end(), end());
    match random.below(10) {
        0 => (i64::MIN, a),
        1 => (a, i64::MAX),
        2 => (i64::MIN, i64::MAX),
        3 => (a, a),
        _ => (a.min(b), a.max(b)),
    }
}

/// Takes a range of devices out of the model; what a removal of it must answer.
fn take(model: &mut Model, ordinals: &[u32], (from_ns, to_ns): (i64, i64)) -> (u64, u64) {
    let inside = |(ordinal, _, time): &(u32, u32, i64)| ordinals.contains(ordinal) && (from_ns..to_ns).contains(time);
    let records: BTreeSet<(u32, i64)> = model
        .keys()
        .filter(|key| inside(key))
        .map(|(ordinal, _, time)| (*ordinal, *time))
        .collect();
    let devices: BTreeSet<u32> = records.iter().map(|(ordinal, _)| *ordinal).collect();
    model.retain(|key, _| !inside(key));
    (devices.len() as u64, records.len() as u64)
}

fn random_write(random: &mut Random, model: &mut Model, index: u64) -> ApplyEntry {
    let parts: Vec<_> = (0..1 + random.below(6))
        .map(|_| (random.below(DEVICES.into()) as u32, random_records(random)))
        .collect();
    parts
        .iter()
        .for_each(|(ordinal, records)| add(model, *ordinal, records));
    write(index as i64, write_of(&parts))
}

#[test]
fn random_writes_and_removals_read_as_the_model_does() {
    for seed in seeds(3) {
        println!("TIDEMARK_SEED={seed}");
        let mut random = Random(seed);
        let place = Place::new();
        let paths = ["one", "other"].map(|name| place.path(name));
        let mut shards: Vec<Shard> = paths.iter().map(|path| open(path)).collect();
        shards
            .iter()
            .for_each(|shard| drop(apply(shard, 1, &[put_count(DEVICES)])));
        let mut model = Model::new();
        for index in 2..90 {
            let mut expected = None;
            let mut entries = Vec::new();
            if random.below(3) == 0 {
                let (ordinals, range) = (random_devices(&mut random), random_range(&mut random));
                let counted = shards[0]
                    .count_records(KIND, &ordinals, SPAN, range, &Edges::default())
                    .unwrap();
                let gone = take(&mut model, &ordinals, range);
                let records: u64 = counted.iter().map(|counted| counted.records).sum();
                assert_eq!(records, gone.1, "counted before");
                entries.push(remove_records(&ordinals, range.0, range.1));
                expected = Some(gone);
            }
            // What follows a removal in its chunk stays.
            for _ in 0..random.below(3) {
                entries.push(random_write(&mut random, &mut model, index));
            }
            for (at, path) in paths.iter().enumerate() {
                let shard = &shards[at];
                let answers = apply(shard, index, &entries);
                if let Some(expected) = expected {
                    let removed = removed(&answers[0]);
                    assert_eq!((removed.devices, removed.records), expected);
                }
                match random.below(20) {
                    0..4 => shard.store().flush().unwrap(),
                    4 => shard.store().db().compact().unwrap(),
                    5 => {
                        shard.store().flush().unwrap();
                        drop(shards.remove(at));
                        shards.insert(at, open(path));
                    }
                    _ => {}
                }
            }
            if random.below(4) == 0 {
                shards.iter().for_each(|shard| compare(shard, &model));
            }
        }
        shards.iter().for_each(|shard| compare(shard, &model));
        assert_eq!(shards[0].digest().unwrap(), shards[1].digest().unwrap(), "replicas");
    }
}

#[test]
fn newest_values_are_found_however_far_back() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(3)]);
    let sparse = Records {
        columns: column(2, &[Some(9.0)]).into_iter().collect(),
        ..rows(&[(-7 * SPAN, 0.0)])
    };
    let far = 3_000_000 * SPAN;
    let mut both = rows(&[(far, 2.0)]);
    both.columns.extend(column(2, &[Some(8.0)]));
    let others = rows(&[(5 * SPAN, 1.0), (far - SPAN, 1.5), (far + SPAN, 3.0)]);
    let parts = [
        (1, sparse),
        (1, rows(&[(4 * SPAN, 1.0)])),
        (1, both),
        (0, others.clone()),
        (2, others),
    ];
    apply(&shard, 2, &[write(1, write_of(&parts))]);
    let of = |shard: &Shard| -> Vec<((u32, u32), i64)> {
        let newest = newest(shard).into_iter().filter(|((ordinal, _), _)| *ordinal == 1);
        newest.map(|(key, (time, _))| (key, time)).collect()
    };
    assert_eq!(of(&shard), [((1, 1), far), ((1, 2), far)]);
    // From memory before, and not from memory after.
    let answers = apply(&shard, 3, &[remove_records(&[1], far, far + 1)]);
    assert_eq!((removed(&answers[0]).devices, removed(&answers[0]).records), (1, 1));
    assert_eq!(of(&shard), [((1, 1), 4 * SPAN), ((1, 2), -7 * SPAN)]);
    let again = apply(&shard, 4, &[remove_records(&[1], far, far + 1)]);
    assert_eq!(removed(&again[0]), Removed::default(), "done once");
    apply(&shard, 5, &[remove_records(&[1], i64::MIN, i64::MAX)]);
    assert_eq!((of(&shard).len(), cells(&shard, 0, i64::MIN, i64::MAX).len()), (0, 3));
}

#[test]
fn a_repeated_batch_stays_a_duplicate_and_later_points_stay() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(1)]);
    let numbered = |sequence| WriteFragments {
        producer: "p".into(),
        sequence,
        digest: 7,
        ..write_of(&[(0, rows(&[(10, 1.0), (20, 2.0)]))])
    };
    apply(&shard, 2, &[write(1, numbered(1))]);
    apply(&shard, 3, &[remove_records(&[0], 0, 100)]);
    let answers = apply(&shard, 4, &[write(2, numbered(1))]);
    let Some(applied::Result::Write(again)) = &answers[0].result else {
        panic!("{answers:?}")
    };
    assert!(again.duplicate);
    assert_eq!(cells(&shard, 0, i64::MIN, i64::MAX), []);
    apply(&shard, 5, &[write(3, numbered(2))]);
    assert_eq!(cells(&shard, 0, i64::MIN, i64::MAX), [(10, 1.0), (20, 2.0)]);
}

#[test]
fn a_removal_begins_its_chunk_and_names_devices_that_are_there() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(2)]);
    for ordinals in [&[0, 2][..], &[1, 0], &[1, 1]] {
        let answers = apply(&shard, 2, &[remove_records(ordinals, 0, 1)]);
        assert!(
            matches!(answers[0].result, Some(applied::Result::Failure(_))),
            "{ordinals:?}"
        );
    }
    let entries = [
        write(1, write_of(&[(0, rows(&[(1, 1.0)]))])),
        remove_records(&[0], 0, 9),
    ];
    let refused = shard.apply(&entries, state(3)).unwrap_err();
    assert!(matches!(refused, StoreError::UnknownCommand(_)), "{refused}");
}

#[test]
fn old_buckets_go_newest_values_stay_and_the_space_comes_back() {
    let place = Place::new();
    let mut shards = ["one", "other"].map(|name| open(&place.path(name)));
    let mut random = Random(1);
    let mut noise = |bucket: i64| {
        let cells: Vec<_> = (0..SPAN / 2)
            .map(|at| (bucket * SPAN + at, random.next() as f64))
            .collect();
        rows(&cells)
    };
    let mut entries = vec![put_count(2)];
    for bucket in -10..30 {
        entries.push(write(1, write_of(&[(0, noise(bucket))])));
    }
    entries.push(write(1, write_of(&[(1, noise(3))])));
    for shard in &shards {
        apply(shard, 1, &entries);
    }
    shards[0].store().db().compact().unwrap();
    let before = shards[0].store().db().disk_bytes().unwrap();
    let kept = newest(&shards[0]);
    let expire = remove(What::RemoveBuckets(RemoveBuckets {
        before_ns: 25 * SPAN,
        ..RemoveBuckets::default()
    }));
    for shard in &mut shards {
        assert_eq!(shard.first_bucket_before(KIND, 25 * SPAN).unwrap(), Some(-10 * SPAN));
        let answers = apply(shard, 2, std::slice::from_ref(&expire));
        assert_eq!(removed(&answers[0]).buckets, 35);
        assert_eq!(shard.first_bucket_before(KIND, 25 * SPAN).unwrap(), None);
        let first = cells(shard, 0, i64::MIN, i64::MAX)[0].0;
        assert_eq!((first, cells(shard, 1, i64::MIN, i64::MAX).len()), (25 * SPAN, 0));
        assert_eq!(newest(shard), kept);
        assert_eq!(
            removed(&apply(shard, 3, std::slice::from_ref(&expire))[0]),
            Removed::default()
        );
    }
    assert_eq!(shards[0].compact_emptied().unwrap(), 1);
    let after = shards[0].store().db().disk_bytes().unwrap();
    assert!(after * 4 < before, "{before} bytes before, {after} after");
    assert_eq!(shards[0].digest().unwrap(), shards[1].digest().unwrap());

    // The last word of a device that fell silent goes when its time is deleted.
    let counted = shards[0]
        .count_records(KIND, &[0, 1], SPAN, (0, 5 * SPAN), &Edges::default())
        .unwrap();
    let silent = Counted {
        beside: true,
        ..Counted::default()
    };
    assert_eq!(counted, [Counted::default(), silent]);
    let answers = apply(&shards[0], 4, &[remove_records(&[0, 1], 0, 5 * SPAN)]);
    assert_eq!((removed(&answers[0]).devices, removed(&answers[0]).records), (1, 0));
    assert!(newest(&shards[0]).keys().all(|(ordinal, _)| *ordinal == 0));
}

#[test]
fn deleted_records_give_their_space_back() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    let mut random = Random(2);
    let cells: Vec<_> = (0..40 * SPAN).map(|time| (time, random.next() as f64)).collect();
    apply(&shard, 1, &[put_count(2)]);
    apply(
        &shard,
        2,
        &[write(1, write_of(&[(0, rows(&cells)), (1, rows(&cells[..100]))]))],
    );
    let db = shard.store().db();
    db.compact().unwrap();
    let before = db.disk_bytes().unwrap();
    apply(&shard, 3, &[remove_records(&[0], SPAN / 2, i64::MAX)]);
    db.compact().unwrap();
    let after = db.disk_bytes().unwrap();
    assert!(after * 10 < before, "{before} bytes before, {after} after");
    assert_eq!(read(&shard, 0, i64::MIN, i64::MAX).unwrap().len() as i64, SPAN / 2);
}
