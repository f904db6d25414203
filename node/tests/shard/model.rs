//! Random writes against a model: an ordered map of cells.
//!
//! Never here: single cases (see points). Invariant: after every step the shard reads as the model does.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::support::*;
use tidemark_node::shard::Shard;
use tidemark_series::{PropertyNumber, Records, Values, bucket};

const DEVICES: u32 = 4;

/// Value bits by device, time, property.
type Model = BTreeMap<(u32, i64, u32), u64>;
/// Values written of a device's record of a time.
type Writes = BTreeMap<(u32, i64), u32>;

fn each_cell(records: &Records, mut cell: impl FnMut(i64, u32, u64)) {
    for column in &records.columns {
        let Values::F64(values) = &column.values else {
            panic!("wrong type")
        };
        let mut values = values.iter();
        for (row, time) in records.observed_at.iter().enumerate() {
            if column.presence.as_ref().is_none_or(|presence| presence.get(row)) {
                cell(*time, column.property.0, values.next().unwrap().to_bits());
            }
        }
    }
}

fn cells_of(ordinal: u32, records: &Records) -> Model {
    let mut cells = Model::new();
    each_cell(records, |time, property, bits| {
        cells.insert((ordinal, time, property), bits);
    });
    cells
}

fn part(model: &Model, from_ns: i64, to_ns: i64, ordinal: Option<u32>) -> Model {
    let inside = |(device, time, _): &(u32, i64, u32)| {
        (from_ns..to_ns).contains(time) && ordinal.is_none_or(|ordinal| ordinal == *device)
    };
    model
        .iter()
        .filter(|(key, _)| inside(key))
        .map(|(key, bits)| (*key, *bits))
        .collect()
}

/// Names the first difference instead of printing both sides.
fn same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
    what: &str,
) {
    for (key, value) in expected {
        assert_eq!(found.get(key), Some(value), "{what}: {key:?}");
    }
    for key in found.keys() {
        assert!(expected.contains_key(key), "{what}: nobody wrote {key:?}");
    }
}

fn count_writes(ordinal: u32, records: &Records, writes: &mut Writes) {
    each_cell(records, |time, _, _| *writes.entry((ordinal, time)).or_default() += 1);
    for (row, repeats) in records.repeats.iter().enumerate() {
        *writes.entry((ordinal, records.observed_at[row])).or_default() += repeats;
    }
}

fn compare(shard: &Shard, model: &Model, writes: &Writes, random: &mut Random) {
    let (mut from, mut to) = (random_time(random), random_time(random));
    if random.below(4) == 0 {
        (from, to) = (i64::MIN, i64::MAX);
    }
    for ordinal in 0..DEVICES {
        let records = read(shard, ordinal, from, to).unwrap();
        let mut found = Writes::new();
        count_writes(ordinal, &records, &mut found);
        let inside = writes
            .iter()
            .filter(|((device, time), _)| *device == ordinal && (from..to).contains(time));
        let expected = inside.map(|(key, times)| (*key, *times)).collect();
        same(
            &found,
            &expected,
            &format!("writes of device {ordinal} from {from} to {to}"),
        );
        let found = cells_of(ordinal, &records);
        assert_eq!(
            found,
            part(model, from, to, Some(ordinal)),
            "device {ordinal} from {from} to {to}"
        );
    }
    let mut found = Model::new();
    let end = shard.scan_type(KIND, SPAN, from, to, |ordinal, _, value| {
        let records = bucket::decode(value, None).unwrap().slice_time(from, to);
        found.append(&mut cells_of(ordinal, &records));
        ControlFlow::<()>::Continue(())
    });
    assert!(end.unwrap().is_continue());
    same(
        &found,
        &part(model, from, to, None),
        &format!("type from {from} to {to}"),
    );

    let newest = shard.latest(KIND, &(0..DEVICES).collect::<Vec<_>>()).unwrap();
    for (ordinal, value) in (0..).zip(newest) {
        let mut expected = BTreeMap::new();
        for ((_, time, property), bits) in part(model, i64::MIN, i64::MAX, Some(ordinal)) {
            expected.insert(PropertyNumber(property), (time, bits));
        }
        let mut found = BTreeMap::new();
        if let Some(value) = value {
            each_cell(&bucket::decode(&value, None).unwrap(), |time, property, bits| {
                assert!(
                    found.insert(PropertyNumber(property), (time, bits)).is_none(),
                    "one value per property"
                );
            });
        }
        same(&found, &expected, &format!("newest of device {ordinal}"));
    }
}

#[test]
fn random_writes_read_as_the_model_does() {
    for seed in seeds(8) {
        println!("TIDEMARK_SEED={seed}");
        let mut random = Random(seed);
        let place = Place::new();
        let mut shard = open(&place.path("db"));
        apply(&shard, 1, &[put_count(DEVICES)]);
        let (mut model, mut writes) = (Model::new(), Writes::new());
        for index in 2..80 {
            let mut entries = Vec::new();
            for _ in 0..1 + random.below(3) {
                let parts: Vec<_> = (0..1 + random.below(3))
                    .map(|_| (random.below(4) as u32, random_records(&mut random)))
                    .collect();
                for (ordinal, records) in &parts {
                    model.append(&mut cells_of(*ordinal, records));
                    count_writes(*ordinal, records, &mut writes);
                }
                entries.push(write(index as i64, write_of(&parts)));
            }
            apply(&shard, index, &entries);
            match random.below(24) {
                0..4 => shard.store().flush().unwrap(),
                4 => shard.store().db().compact().unwrap(),
                5 => {
                    shard.store().flush().unwrap();
                    drop(shard);
                    shard = open(&place.path("db"));
                }
                _ => {}
            }
            if random.below(4) == 0 {
                compare(&shard, &model, &writes, &mut random);
            }
        }
        compare(&shard, &model, &writes, &mut random);
    }
}
