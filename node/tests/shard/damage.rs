//! Flipped bits on disk: an error, never another value.
//!
//! Never here: damage to memory or to the log. Invariant: whatever byte of a table file is damaged, each read gives the
//! truth or an error.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::support::*;
use tidemark_node::shard::{DeviceFilter, Shard};
use tidemark_node::store::StoreError;
use tidemark_series::Records;

#[derive(Debug, PartialEq)]
struct Truth {
    points: Vec<Records>,
    latest: Vec<Option<Vec<u8>>>,
    devices: u64,
}

const DEVICES: u32 = 12;

fn tables(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut tables: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    tables.sort();
    tables
}

/// Every byte of all tables is as likely.
fn any_byte(tables: &[PathBuf], random: &mut Random) -> (PathBuf, usize) {
    let bytes = |table: &PathBuf| table.metadata().unwrap().len();
    let mut at = random.below(tables.iter().map(bytes).sum());
    for table in tables {
        if at < bytes(table) {
            return (table.clone(), at as usize);
        }
        at -= bytes(table);
    }
    panic!("no tables");
}

/// Every read on its own: one error does not hide a wrong value elsewhere.
fn compare(shard: &Shard, truth: &Truth, errors: &mut Vec<StoreError>) {
    for ordinal in 0..DEVICES {
        match read(shard, ordinal, i64::MIN, i64::MAX) {
            Ok(records) => assert_eq!(records, truth.points[ordinal as usize]),
            Err(error) => errors.push(error),
        }
        match shard.latest(KIND, &[ordinal]) {
            Ok(latest) => assert_eq!(latest[0], truth.latest[ordinal as usize]),
            Err(error) => errors.push(error),
        }
        match shard.resolve(&[format!("d{ordinal}")]) {
            Ok(found) => assert_eq!(found, [Some((KIND, ordinal))]),
            Err(error) => errors.push(error),
        }
    }
    let mut devices = 0;
    let end = shard.devices(&DeviceFilter::default(), |_| {
        devices += 1;
        ControlFlow::<()>::Continue(())
    });
    match end {
        Ok(_) => assert_eq!(devices, truth.devices),
        Err(error) => errors.push(error),
    }
    match shard.store().applied() {
        Ok(applied) => assert_eq!(applied, state(40)),
        Err(error) => errors.push(error),
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_harmless_never_a_wrong_value() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(DEVICES)]);
    let mut random = Random(1);
    for index in 2..=40 {
        let parts: Vec<_> = (0..DEVICES)
            .map(|ordinal| {
                let points: Vec<_> = (0..20)
                    .map(|_| (random.below(9_000) as i64, random.next() as f64))
                    .collect();
                (ordinal, rows(&points))
            })
            .collect();
        apply(&shard, index, &[write(index as i64, write_of(&parts))]);
    }
    shard.store().db().compact().unwrap();
    let truth = Truth {
        points: (0..DEVICES)
            .map(|ordinal| read(&shard, ordinal, i64::MIN, i64::MAX).unwrap())
            .collect(),
        latest: shard.latest(KIND, &(0..DEVICES).collect::<Vec<_>>()).unwrap(),
        devices: u64::from(DEVICES),
    };
    drop(shard);
    assert!(!tables(&place.path("db")).is_empty());

    let (mut refused, mut harmless, mut corrupt) = (0, 0, 0);
    for seed in seeds(60) {
        let mut random = Random(seed);
        let damaged = place.path("damaged");
        crash_copy(&place.path("db"), &damaged);
        let (table, at) = any_byte(&tables(&damaged), &mut random);
        let mut bytes = std::fs::read(&table).unwrap();
        bytes[at] ^= 1 << random.below(8);
        std::fs::write(&table, bytes).unwrap();
        println!("TIDEMARK_SEED={seed} byte {at} of {}", table.display());
        match try_open(&damaged) {
            Err(error) => {
                assert!(error.is_corruption(), "{error}");
                refused += 1;
            }
            Ok(shard) => {
                let mut errors = Vec::new();
                compare(&shard, &truth, &mut errors);
                assert!(errors.iter().all(StoreError::is_corruption), "{errors:?}");
                if errors.is_empty() { harmless += 1 } else { corrupt += 1 }
            }
        }
        std::fs::remove_dir_all(&damaged).unwrap();
    }
    println!("{refused} refused at open, {corrupt} noticed by a read, {harmless} harmless");
    // The reads themselves must have been put to the test, not only the opening.
    assert!(
        corrupt > 0 || std::env::var("TIDEMARK_SEED").is_ok(),
        "no read noticed any damage"
    );
}
