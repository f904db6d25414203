//! Reads that must not wait for the disk: what they give is what any read gives, or they fail.
//!
//! Never here: who asks so. Invariant: a shard that was opened just now has its points on disk, not in memory.

use std::ops::ControlFlow;

use crate::support::*;
use tidemark_node::shard::Shard;
use tidemark_node::store::{StoreError, from_memory};

/// So many that neither their names nor their points fit what a shard looks at when it is opened.
const DEVICES: u32 = 1_500;
const AMONG: u32 = 700;
const ENOUGH: usize = 1 << 20;

/// Ordinals of a device and of one that is not there, and the values of the first.
type Seen = (Vec<Option<(u32, u32)>>, Vec<Vec<u8>>);

fn look(shard: &Shard) -> Result<Seen, StoreError> {
    let ids = [AMONG, DEVICES].map(|number| format!("d{number}"));
    let known = shard.resolve(&ids)?;
    let mut values = Vec::new();
    let scanned = shard.scan_device(KIND, AMONG, SPAN, 0, 4 * SPAN, |value| {
        values.push(value.to_vec());
        ControlFlow::<()>::Continue(())
    });
    scanned.map(|_| (known, values))
}

fn written(place: &Place) -> Shard {
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(DEVICES)]);
    let mut random = Random(1);
    let mut of_device = |ordinal: u32| {
        let cells = (0..60).map(|at| (at * SPAN / 15, random.below(1_000_000) as f64));
        (ordinal, rows(&cells.collect::<Vec<_>>()))
    };
    let all: Vec<_> = (0..DEVICES).map(&mut of_device).collect();
    apply(&shard, 2, &[write(2, write_of(&all))]);
    shard
}

#[test]
fn what_was_written_just_now_is_in_memory() {
    let place = Place::new();
    let shard = written(&place);
    let seen = from_memory(ENOUGH, || look(&shard)).unwrap();
    assert_eq!(seen, look(&shard).unwrap());
    assert_eq!((seen.0[0], seen.0[1], seen.1.len()), (Some((KIND, AMONG)), None, 4));
}

#[test]
fn what_lies_on_disk_is_not_waited_for_and_never_taken_for_nothing() {
    let place = Place::new();
    let shard = written(&place);
    shard.store().flush().unwrap();
    drop(shard);
    let shard = open(&place.path("db"));
    let before = from_memory(ENOUGH, || look(&shard));
    assert!(before.is_err(), "{before:?}");
    let expected = look(&shard).unwrap();
    assert_eq!(expected.1.len(), 4);
    assert_eq!(from_memory(ENOUGH, || look(&shard)).unwrap(), expected);
}

#[test]
fn what_is_much_is_refused_and_only_in_there() {
    let place = Place::new();
    let shard = written(&place);
    let (_, values) = look(&shard).unwrap();
    let bytes: usize = values.iter().map(Vec::len).sum();
    assert!(from_memory(bytes / 2, || look(&shard)).is_err());
    let nested = from_memory(bytes / 2, || from_memory(ENOUGH, || look(&shard)));
    assert_eq!(nested.unwrap(), look(&shard).unwrap());
    let panicked = std::panic::catch_unwind(|| from_memory(0, || panic!("on purpose")));
    assert!(panicked.is_err() && look(&shard).is_ok());
}
