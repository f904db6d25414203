//! What a shard keeps decoded in memory against what its database holds: newest values and devices.
//!
//! Never here: single cases of reads (see points, devices). Invariant: after every step, and beside a writer, a
//! read from memory is a read of the database.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::support::*;
use bytes::Bytes;
use tidemark_node::shard::{DeviceFilter, Shard, contents};
use tidemark_node::store::{ReplicaStore, Resources};
use tidemark_proto::peer::{PutDevice, RestoreRecords, RestoredRecord, applied, shard_command};
use tidemark_series::{NewestValue, ValueRef, bucket};

/// More than one page of either kind.
const DEVICES: u32 = 1_500;
const TOWNS: [&str; 3] = ["north", "south", "west"];

fn open_with(place: &Place, resident_bytes: usize) -> Shard {
    let resources = resources().with_resident_bytes(resident_bytes);
    open_over(&place.path("db"), &resources)
}

fn open_over(directory: &std::path::Path, resources: &Resources) -> Shard {
    Shard::open(ReplicaStore::open(directory, resources).unwrap()).unwrap()
}

/// Property, time, receipt, report kind, quality and bits.
type Cell = (u32, i64, i64, u8, u8, u64);

fn cell(value: &NewestValue) -> Cell {
    let ValueRef::F64(number) = value.value() else {
        panic!("wrong type")
    };
    let who = (value.property.0, value.observed_at, value.received_at);
    (who.0, who.1, who.2, value.report_kind, value.quality, number.to_bits())
}

fn kept_newest(shard: &Shard, ordinals: &[u32]) -> Vec<Vec<Cell>> {
    let newest = shard.newest(KIND, ordinals).unwrap();
    newest.iter().map(|values| values.iter().map(cell).collect()).collect()
}

/// The same from the database, decoded in another way.
fn stored_newest(shard: &Shard, ordinals: &[u32]) -> Vec<Vec<Cell>> {
    let decode = |value: Vec<u8>| {
        let records = bucket::decode(&value, None).unwrap();
        let mut cells = Vec::new();
        for column in &records.columns {
            let mut of_column = column.cells();
            let (row, value, quality) = of_column.next().unwrap();
            assert!(of_column.next().is_none(), "one value per property");
            let ValueRef::F64(number) = value else {
                panic!("wrong type")
            };
            let (observed, received) = (records.observed_at[row], records.received_at[row]);
            let kind = records.report_kind[row];
            cells.push((column.property.0, observed, received, kind, quality, number.to_bits()));
        }
        cells
    };
    let values = shard.latest(KIND, ordinals).unwrap();
    values
        .into_iter()
        .map(|value| value.map(decode).unwrap_or_default())
        .collect()
}

/// Ordinal, type, id, and the tags that are asked for.
type Told = (u32, u32, String, [Option<String>; 2]);

const KEYS: [&str; 2] = ["town", "number"];

fn selected(shard: &Shard, filter: &DeviceFilter) -> Vec<Told> {
    let mut told = Vec::new();
    let end = shard.select(filter, |roster, at| {
        let tags = KEYS.map(|key| roster.tag(at, key).map(str::to_owned));
        told.push((
            roster.ordinal(at),
            roster.type_number(at),
            roster.id(at).to_owned(),
            tags,
        ));
        ControlFlow::<()>::Continue(())
    });
    assert!(end.unwrap().is_continue());
    told
}

/// The same from the database: every device, filtered here.
fn stored_devices(shard: &Shard, filter: &DeviceFilter) -> Vec<Told> {
    let mut told = Vec::new();
    let end = shard.devices(&DeviceFilter::default(), |stored| {
        let device = stored.device.as_ref().unwrap();
        let of_type = filter.type_number.is_none_or(|number| number == stored.type_number);
        let tagged = |(key, values): &(String, Vec<String>)| device.tags.get(key).is_some_and(|v| values.contains(v));
        if of_type && filter.tags.iter().all(tagged) {
            let tags = KEYS.map(|key| device.tags.get(key).cloned());
            told.push((stored.ordinal, stored.type_number, device.id.clone(), tags));
        }
        ControlFlow::<()>::Continue(())
    });
    assert!(end.unwrap().is_continue());
    told
}

fn random_device(random: &mut Random, number: u64) -> PutDevice {
    let town = TOWNS[random.below(3) as usize];
    let own = format!("{}", random.below(5));
    let tags: &[(&str, &str)] = match random.below(4) {
        0 => &[],
        1 => &[("town", town)],
        _ => &[("town", town), ("number", &own)],
    };
    PutDevice {
        type_number: KIND + (number % 3 == 2) as u32,
        ..device(&format!("d{number}"), tags)
    }
}

fn random_filter(random: &mut Random) -> DeviceFilter {
    let type_number = [None, Some(KIND), Some(KIND + 1), Some(KIND + 2)][random.below(4) as usize];
    let mut tags = Vec::new();
    if random.below(2) == 0 {
        let towns: Vec<String> = TOWNS
            .iter()
            .take(1 + random.below(2) as usize)
            .map(|t| (*t).to_owned())
            .collect();
        tags.push(("town".to_owned(), towns));
    }
    if random.below(4) == 0 {
        tags.push(("number".to_owned(), vec![format!("{}", random.below(6))]));
    }
    DeviceFilter {
        type_number,
        tags,
        ..DeviceFilter::default()
    }
}

fn compare(shard: &Shard, random: &mut Random) {
    let known = shard.device_count().max(1);
    let from = random.below(known) as u32;
    let mut ordinals: Vec<u32> = (from..from + 1 + random.below(300) as u32).collect();
    if random.below(3) == 0 {
        ordinals.reverse();
    }
    // Twice: what the first read kept, the second one finds.
    for _ in 0..2 {
        assert_eq!(
            kept_newest(shard, &ordinals),
            stored_newest(shard, &ordinals),
            "from {from}"
        );
    }
    let filter = random_filter(random);
    for _ in 0..2 {
        assert_eq!(selected(shard, &filter), stored_devices(shard, &filter), "{filter:?}");
    }
    let listed = |filter: &DeviceFilter| {
        let mut ordinals = Vec::new();
        let end = shard.devices(filter, |stored| {
            ordinals.push(stored.ordinal);
            ControlFlow::<()>::Continue(())
        });
        assert!(end.unwrap().is_continue());
        ordinals
    };
    let expected: Vec<u32> = stored_devices(shard, &filter).iter().map(|told| told.0).collect();
    assert_eq!(listed(&filter), expected, "{filter:?}");
}

#[test]
fn memory_tells_what_the_database_holds() {
    for seed in seeds(9) {
        println!("TIDEMARK_SEED={seed}");
        let mut random = Random(seed);
        let place = Place::new();
        // No room, room for little, room for everything.
        let bytes = [0, 40 << 10, 32 << 20][(seed % 3) as usize];
        let mut shard = open_with(&place, bytes);
        let first = (0..DEVICES).map(|number| random_device(&mut random, number.into()));
        apply(&shard, 1, &[put(1, first.collect())]);
        for index in 2..70 {
            let mut entries = Vec::new();
            for _ in 0..1 + random.below(3) {
                if random.below(4) == 0 {
                    let numbers = (0..1 + random.below(5)).map(|_| random.below(u64::from(DEVICES) + 900));
                    let devices = numbers.collect::<Vec<_>>().into_iter();
                    entries.push(put(
                        index as i64,
                        devices.map(|n| random_device(&mut random, n)).collect(),
                    ));
                } else {
                    let parts: Vec<_> = (0..1 + random.below(5))
                        .map(|_| (random.below(u64::from(DEVICES)) as u32, random_records(&mut random)))
                        .collect();
                    entries.push(write(index as i64, write_of(&parts)));
                }
            }
            apply(&shard, index, &entries);
            match random.below(30) {
                0..3 => shard.store().flush().unwrap(),
                3 => shard.store().db().compact().unwrap(),
                4 => {
                    shard.store().flush().unwrap();
                    drop(shard);
                    shard = open_with(&place, bytes);
                }
                _ => {}
            }
            compare(&shard, &mut random);
        }
    }
}

#[test]
fn two_shards_share_one_budget_and_no_values() {
    let place = Place::new();
    let resources = resources().with_resident_bytes(64 << 10);
    let (a, b) = (
        open_over(&place.path("a"), &resources),
        open_over(&place.path("b"), &resources),
    );
    let mut random = Random(3);
    for (shard, value) in [(&a, 1.0), (&b, 2.0)] {
        let devices = (0..DEVICES).map(|number| random_device(&mut random, number.into()));
        apply(shard, 1, &[put(1, devices.collect())]);
        let parts: Vec<_> = (0..DEVICES).map(|ordinal| (ordinal, rows(&[(5, value)]))).collect();
        apply(shard, 2, &[write(2, write_of(&parts))]);
    }
    let ordinals: Vec<u32> = (0..DEVICES).collect();
    for _ in 0..3 {
        for shard in [&a, &b] {
            assert_eq!(kept_newest(shard, &ordinals), stored_newest(shard, &ordinals));
            let all = DeviceFilter::default();
            assert_eq!(selected(shard, &all), stored_devices(shard, &all));
            assert!(shard.store().db().resident().bytes() <= 64 << 10);
        }
    }
    drop(a);
    let ordinals: Vec<u32> = (0..DEVICES).collect();
    assert_eq!(kept_newest(&b, &ordinals), stored_newest(&b, &ordinals));
    drop(b);
}

#[test]
fn what_a_shard_kept_goes_with_it() {
    let place = Place::new();
    let resources = resources();
    let shard = open_over(&place.path("db"), &resources);
    apply(&shard, 1, &[put_count(9)]);
    apply(&shard, 2, &[write(2, write_of(&[(0, rows(&[(1, 1.0)]))]))]);
    kept_newest(&shard, &[0, 1]);
    selected(&shard, &DeviceFilter::default());
    let other = open_over(&place.path("other"), &resources);
    assert!(other.store().db().resident().bytes() > 0);
    drop(shard);
    assert_eq!(other.store().db().resident().bytes(), 0);
}

#[test]
fn damage_is_told_and_not_kept() {
    let place = Place::new();
    let shard = open_with(&place, 1 << 20);
    apply(&shard, 1, &[put_count(3)]);
    apply(
        &shard,
        2,
        &[write(2, write_of(&[(0, rows(&[(1, 1.0)])), (1, rows(&[(1, 2.0)]))]))],
    );
    let key = tidemark_node::shard::keys::latest(KIND, 1);
    let mut batch = shard.store().batch().unwrap();
    batch.put(tidemark_node::store::Family::Latest, &key, b"no block");
    shard.store().db().write(batch).unwrap();
    for _ in 0..2 {
        assert!(shard.newest(KIND, &[0, 1]).unwrap_err().is_corruption());
    }
    assert_eq!(kept_newest(&shard, &[0]), stored_newest(&shard, &[0]));
    let key = tidemark_node::shard::keys::device_ordinal(2);
    let mut batch = shard.store().batch().unwrap();
    batch.put(tidemark_node::store::Family::Devices, &key, b"no device");
    shard.store().db().write(batch).unwrap();
    for type_number in [None, Some(KIND)] {
        let filter = DeviceFilter {
            type_number,
            ..DeviceFilter::default()
        };
        let end = shard.select(&filter, |_, _| ControlFlow::<()>::Continue(()));
        assert!(end.unwrap_err().is_corruption());
    }
}

/// A backup that comes in piece by piece changes everything that a read before it kept.
#[test]
fn a_restored_shard_forgets_what_it_was() {
    let place = Place::new();
    let source = open(&place.path("source"));
    let mut random = Random(11);
    let devices = (0..DEVICES).map(|number| random_device(&mut random, number.into()));
    apply(&source, 1, &[put(1, devices.collect())]);
    let parts: Vec<_> = (0..DEVICES)
        .map(|ordinal| (ordinal, random_records(&mut random)))
        .collect();
    apply(&source, 2, &[write(2, write_of(&parts))]);
    let mut records = Vec::new();
    let end = contents::each_record(source.store(), |family, key, value| {
        records.push(RestoredRecord {
            family,
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
        });
        ControlFlow::<()>::Continue(())
    });
    assert!(end.unwrap().is_continue());
    let target = open_with(&place, 32 << 20);
    let pieces: Vec<_> = records.chunks(700).collect();
    let ordinals: Vec<u32> = (0..DEVICES).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let restore = RestoreRecords {
            backup_id: "b".to_owned(),
            piece: number as u64,
            records: piece.to_vec(),
            last: number + 1 == pieces.len(),
            ..RestoreRecords::default()
        };
        let entry = entry(3, shard_command::Command::Restore(restore));
        let answers = apply(&target, 3 + number as u64, &[entry]);
        assert!(
            matches!(answers[0].result, Some(applied::Result::Restored(_))),
            "{answers:?}"
        );
        let all = DeviceFilter::default();
        assert_eq!(selected(&target, &all), stored_devices(&target, &all), "piece {number}");
        assert_eq!(kept_newest(&target, &ordinals), stored_newest(&target, &ordinals));
    }
    assert_eq!(kept_newest(&target, &ordinals), kept_newest(&source, &ordinals));
    let all = DeviceFilter::default();
    assert_eq!(selected(&target, &all), selected(&source, &all));
}

/// One writer, three readers: whoever was answered is never shown less, and one command is seen whole or not at all.
#[test]
fn readers_beside_a_writer_see_one_point_in_time() {
    const STEPS: i64 = 1_500;
    const PAIR: [u32; 2] = [3, 1_100];
    for bytes in [6 << 10, 32 << 20] {
        let place = Place::new();
        let shard = open_with(&place, bytes);
        let name = |ordinal: u32| format!("d{ordinal}");
        apply(&shard, 1, &[put_count(DEVICES)]);
        let (answered, ended) = (AtomicI64::new(0), AtomicBool::new(false));
        let towns = |shard: &Shard| {
            let mut towns = BTreeMap::new();
            let end = shard.select(&DeviceFilter::default(), |roster, at| {
                if PAIR.contains(&roster.ordinal(at)) {
                    towns.insert(roster.ordinal(at), roster.tag(at, "town").map(str::to_owned));
                }
                ControlFlow::<()>::Continue(())
            });
            assert!(end.unwrap().is_continue());
            towns.into_values().collect::<Vec<_>>()
        };
        std::thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    while !ended.load(Ordering::SeqCst) {
                        let least = answered.load(Ordering::SeqCst);
                        let newest = kept_newest(&shard, &PAIR);
                        let times: Vec<_> = newest
                            .iter()
                            .map(|values| values.first().map_or(0, |cell| cell.1))
                            .collect();
                        assert_eq!(times[0], times[1], "half a command");
                        assert!(times[0] >= least, "{} after {least} was answered", times[0]);
                        let least = answered.load(Ordering::SeqCst);
                        let towns = towns(&shard);
                        assert_eq!(towns[0], towns[1], "half a command");
                        let town = towns[0].as_ref().map_or(0, |town| town.parse().unwrap());
                        assert!(town >= least, "{town} after {least} was answered");
                    }
                });
            }
            for step in 1..=STEPS {
                let town = step.to_string();
                let parts = PAIR.map(|ordinal| (ordinal, rows(&[(step, step as f64)])));
                let devices = PAIR.map(|ordinal| device(&name(ordinal), &[("town", &town)]));
                let entries = [write(step, write_of(&parts)), put(step, devices.to_vec())];
                apply(&shard, 1 + step as u64, &entries);
                answered.store(step, Ordering::SeqCst);
            }
            ended.store(true, Ordering::SeqCst);
        });
        assert_eq!(kept_newest(&shard, &PAIR), stored_newest(&shard, &PAIR));
    }
}
