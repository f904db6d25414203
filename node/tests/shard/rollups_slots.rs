//! Slots that rollups keep: those of the points that are there, whatever was written, corrected and removed, and on where these are gone.
//!
//! Never here: which rollups answer a question (see `rollups` of the questions). Invariant: slots are counted device by device, oldest first.

use std::ops::ControlFlow;

use super::rollups::{BUCKET, DEVICES, LENGTH, LENGTH_S, RULE, missing, random_place, random_write, removed, upkeep};
use crate::support::*;
use tidemark_node::shard::{ApplyEntry, Rolling, Shard, Stored};
use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{RemoveBuckets, RemoveRecords, RollUp, RolledBucket, RolledProperty};
use tidemark_series::rollup::Wanted;
use tidemark_series::window::{Edge, Windows};
use tidemark_series::{ByWindow, Choice, Filled, PropertyNumber, Sliding, Slots, ValueType, bucket};

/// Some of a rollup's window, none across two.
const INTERVAL: i64 = LENGTH / 5;

fn edge(property: u32) -> Edge {
    match property {
        2 => Edge::EndClosed,
        _ => Edge::StartClosed,
    }
}

fn roll_up(buckets: &[(i64, Vec<u32>)]) -> ApplyEntry {
    let property = |number: u32| RolledProperty {
        number,
        end_closed: edge(number) == Edge::EndClosed,
        accepted: u64::MAX,
        ..RolledProperty::default()
    };
    let bucket = |(bucket_ns, ordinals): &(i64, Vec<u32>)| RolledBucket {
        bucket_ns: *bucket_ns,
        ordinals: ordinals.clone(),
    };
    upkeep(What::RollUpSlots(RollUp {
        length_s: LENGTH_S,
        rule: RULE,
        properties: (1..=3).map(property).collect(),
        buckets: buckets.iter().map(bucket).collect(),
        interval_ns: INTERVAL,
    }))
}

/// Points and filled slots by device and window.
type Told = Vec<(u32, i64, u64, u64)>;

/// What slots of a property have a point, and how many buckets of devices told it as rollups.
fn ask(shard: &Shard, property: u32, (from_ns, to_ns): (i64, i64), rule: Option<u64>) -> (Told, usize) {
    let windows = Windows {
        from_ns,
        to_ns,
        step_ns: Some(2 * LENGTH),
        origin_ns: 0,
        borders: None,
        edge: edge(property),
    };
    let slots = Slots::new(
        Sliding {
            asked: windows.clone(),
            stepped: windows.clone(),
            steps: 1,
        },
        INTERVAL,
    );
    let rolling = Rolling {
        length_s: Some(LENGTH_S),
        gone_s: &[LENGTH_S],
        rule: rule.unwrap_or(0),
        from_ns,
        to_ns,
    };
    let wanted = Wanted {
        property: PropertyNumber(property),
        value_type: ValueType::F64,
        follows: None,
    };
    let (mut told, mut used) = (Told::new(), 0);
    for ordinal in 0..DEVICES {
        let mut filled = ByWindow::<Filled>::default();
        let device = (KIND, ordinal);
        let end = shard.follow_rolled(device, BUCKET, windows.scan_range(), &rolling, |stored| {
            match stored {
                Stored::Points(value) => bucket::blocks(value).for_each(|block| {
                    let block = block.unwrap();
                    let points = block.folding().points(wanted.property, &Choice::ALL).unwrap();
                    points.iter().for_each(|points| slots.fill(&points.times, &mut filled));
                }),
                Stored::Rollup { rollup, .. } => {
                    used += 1;
                    let rows = rollup.rows(&wanted).unwrap();
                    rows.iter().for_each(|row| slots.fill_row(row, &mut filled));
                }
            }
            ControlFlow::<()>::Continue(())
        });
        assert!(end.unwrap().is_continue());
        let window = |(window, filled): (i64, Filled)| (ordinal, window, filled.points, filled.slots);
        told.extend(filled.into_sorted().into_iter().map(window));
    }
    (told, used)
}

/// What is told with rollups is what is told without; how many buckets told it as rollups.
fn compare(shard: &Shard, random: &mut Random) -> usize {
    let mut used = 0;
    for property in 1..=3 {
        let mut end = || random.below(200) as i64 * INTERVAL - 10 * LENGTH;
        let (a, b) = (end(), end());
        for range in [(a.min(b), a.max(b)), (-20 * LENGTH, 40 * LENGTH)] {
            let (expected, none) = ask(shard, property, range, None);
            let (found, some) = ask(shard, property, range, Some(RULE));
            assert_eq!(found, expected, "property {property} in {range:?}");
            assert_eq!(none, 0);
            used += some;
        }
    }
    used
}

#[test]
fn slots_of_rollups_are_those_of_points_that_come_late_are_corrected_or_go() {
    for seed in seeds(3) {
        println!("TIDEMARK_SEED={seed}");
        let mut random = Random(seed);
        let place = Place::new();
        let shard = open(&place.path("db"));
        apply(&shard, 1, &[put_count(DEVICES)]);
        let (mut used, mut index) = (0, 2);
        while index < 70 {
            let mut entries = Vec::new();
            match random.below(4) {
                0 | 1 => {
                    let missing = missing(&shard, RULE).buckets;
                    let some = random.below(missing.len() as u64 + 1) as usize;
                    entries.push(roll_up(&missing[..some]));
                }
                2 => {
                    let (a, b) = (random_place(&mut random), random_place(&mut random));
                    let first = random.below(DEVICES.into()) as u32;
                    entries.push(upkeep(What::RemoveRecords(RemoveRecords {
                        ordinals: (first..DEVICES.min(first + 4)).collect(),
                        from_ns: a.min(b),
                        to_ns: a.max(b),
                        bucket_span_ns: BUCKET,
                        ..RemoveRecords::default()
                    })));
                }
                _ => {}
            }
            // Places repeat, so some of it is written again.
            entries.extend((0..random.below(3)).map(|_| random_write(&mut random, index)));
            apply(&shard, index, &entries);
            used += compare(&shard, &mut random);
            index += 1;
        }
        assert!(used > 50, "{used} rollups told");

        // And on, where only they are left.
        apply(&shard, index, &[roll_up(&missing(&shard, RULE).buckets)]);
        let range = (-20 * LENGTH, 40 * LENGTH);
        let expected = [1, 2, 3].map(|property| ask(&shard, property, range, None).0);
        let expire = What::RemoveBuckets(RemoveBuckets {
            before_ns: 20 * BUCKET,
            lengths_s: vec![LENGTH_S],
        });
        let gone = removed(&apply(&shard, index + 1, &[upkeep(expire)])[0]);
        assert!(gone.buckets > 3, "{gone:?}");
        for (property, expected) in (1..).zip(expected) {
            assert!(
                ask(&shard, property, range, Some(RULE)).0 == expected,
                "property {property}"
            );
            assert_eq!(
                ask(&shard, property, range, Some(RULE + 1)).0,
                expected,
                "by another rule"
            );
        }
    }
}
