//! Rollups in a shard: one that is there is what making it again would give, whatever was written and removed meanwhile.
//!
//! Never here: questions (see rollups). Invariant: two replicas of one log are equal, whatever each flushed.

use std::ops::ControlFlow;

use crate::support::*;
use tidemark_node::shard::{ApplyEntry, Edges, Missing, Rolling, Shard, Stored};
use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{
    Applied, RemoveBuckets, RemoveRecords, RemoveRollups, Removed, RollUp, RolledBucket, RolledProperty, Upkeep,
    applied, shard_command,
};
use tidemark_series::rollup::Wanted;
use tidemark_series::window::{Edge, Windows};
use tidemark_series::{
    ByWindow, Choice, Column, Finished, Function, Needs, PropertyNumber, Records, ValueType, Values, bucket, rollup,
};

pub(super) const DEVICES: u32 = 20;
/// Of windows, seconds; a bucket here is three of them.
pub(super) const LENGTH_S: u32 = 300;
pub(super) const LENGTH: i64 = 300_000_000_000;
pub(super) const BUCKET: i64 = 3 * LENGTH;
pub(super) const RULE: u64 = 7;

pub(super) fn upkeep(what: What) -> ApplyEntry {
    let upkeep = Upkeep {
        type_number: KIND,
        what: Some(what),
    };
    entry(1, shard_command::Command::Upkeep(upkeep))
}

fn roll_up(rule: u64, buckets: &[(i64, Vec<u32>)]) -> ApplyEntry {
    let property = |number: u32| RolledProperty {
        number,
        end_closed: number == 2,
        accepted: u64::MAX,
        ..RolledProperty::default()
    };
    let bucket = |(bucket_ns, ordinals): &(i64, Vec<u32>)| RolledBucket {
        bucket_ns: *bucket_ns,
        ordinals: ordinals.clone(),
    };
    let roll_up = RollUp {
        length_s: LENGTH_S,
        rule,
        properties: (1..=3).map(property).collect(),
        buckets: buckets.iter().map(bucket).collect(),
        interval_ns: 60_000_000_000,
    };
    // Of any version.
    upkeep(match buckets.len() % 3 {
        0 => What::RollUp(roll_up),
        1 => What::RollUpSequences(roll_up),
        _ => What::RollUpSlots(roll_up),
    })
}

pub(super) fn removed(answer: &Applied) -> Removed {
    match &answer.result {
        Some(applied::Result::Removed(removed)) => *removed,
        other => panic!("{other:?}"),
    }
}

/// Windows of a property, answers of each device.
type Answers = Vec<Vec<(i64, String)>>;

/// What all devices answer for a property, and how many of their buckets did as rollups.
fn ask(shard: &Shard, property: u32, (from_ns, to_ns): (i64, i64), rolling: Option<u64>) -> (Answers, usize) {
    let windows = Windows {
        from_ns,
        to_ns,
        step_ns: Some(2 * LENGTH),
        origin_ns: 0,
        edge: if property == 2 {
            Edge::EndClosed
        } else {
            Edge::StartClosed
        },
        borders: None,
    };
    let ordinals: Vec<u32> = (0..DEVICES).collect();
    let mut folded: Vec<ByWindow> = ordinals.iter().map(|_| ByWindow::default()).collect();
    let mut used = 0;
    let rolling = Rolling {
        length_s: Some(LENGTH_S),
        gone_s: &[LENGTH_S],
        rule: rolling.unwrap_or(0),
        from_ns,
        to_ns,
    };
    let end = shard.scan_rolled(
        (KIND, &ordinals),
        BUCKET,
        windows.scan_range(),
        &rolling,
        |at, stored| {
            let (of, into) = (PropertyNumber(property), &mut folded[at]);
            match stored {
                Stored::Points(value) => bucket::blocks(value).for_each(|block| {
                    let block = block.unwrap();
                    let mut folding = block.folding();
                    folding.fold(of, &windows, Needs::All, &Choice::ALL, into).unwrap();
                }),
                Stored::Rollup { rollup: rolled, .. } => {
                    used += 1;
                    rollup::fold(&rolled, (of, ValueType::F64), &windows, into).unwrap();
                }
            }
            ControlFlow::<()>::Continue(())
        },
    );
    assert!(end.unwrap().is_continue());
    let functions = [
        Function::Count,
        Function::Sum,
        Function::Min,
        Function::Max,
        Function::First,
        Function::Last,
    ];
    let answers = |all: ByWindow| {
        let windows = all.into_sorted().into_iter();
        windows.map(|(window, partial)| {
            (
                window,
                format!("{:?}", functions.map(|function| partial.finish(function))),
            )
        })
    };
    (folded.into_iter().map(|all| answers(all).collect()).collect(), used)
}

/// Every answer with rollups is the answer without; how many buckets answered as rollups.
fn compare(shard: &Shard, random: &mut Random) -> usize {
    let mut used = 0;
    for property in 1..=3 {
        let mut end = || random.below(40) as i64 * LENGTH + random.below(3) as i64 * (LENGTH / 7) - 10 * LENGTH;
        let (a, b) = (end(), end());
        for range in [(a.min(b), a.max(b)), (i64::MIN, i64::MAX)] {
            let (expected, none) = ask(shard, property, range, None);
            let (found, some) = ask(shard, property, range, Some(RULE));
            assert_eq!(found, expected, "property {property} in {range:?}");
            assert_eq!(none, 0);
            used += some;
        }
    }
    used
}

pub(super) fn missing(shard: &Shard, rule: u64) -> Missing {
    let all = (i64::MIN, i64::MAX);
    shard.rollups_missing((KIND, LENGTH_S), rule, all, usize::MAX).unwrap()
}

/// A few rows over some buckets.
pub(super) fn random_write(random: &mut Random, index: u64) -> ApplyEntry {
    let parts: Vec<_> = (0..1 + random.below(6))
        .map(|_| {
            let mut records = random_records(random);
            let mut times: Vec<i64> = records.observed_at.iter().map(|_| random_place(random)).collect();
            times.sort_unstable();
            times.dedup();
            records = records.slice_rows(0, times.len());
            records.observed_at = times[..records.len()].to_vec();
            (random.below(DEVICES.into()) as u32, records)
        })
        .collect();
    let mut write_all = write_of(&[]);
    for (ordinal, records) in &parts {
        write_all.fragments.extend(fragments_of(*ordinal, records, BUCKET));
    }
    write(index as i64, write_all)
}

/// Often on a border.
pub(super) fn random_place(random: &mut Random) -> i64 {
    let place = random.below(30) as i64 * LENGTH - 5 * LENGTH;
    match random.below(3) {
        0 => place,
        _ => place + random.below(300) as i64 * 1_000_000_000,
    }
}

#[test]
fn a_rollup_that_is_there_is_what_making_it_again_would_give() {
    for seed in seeds(2) {
        println!("TIDEMARK_SEED={seed}");
        let mut random = Random(seed);
        let place = Place::new();
        let paths = ["one", "other"].map(|name| place.path(name));
        let mut shards: Vec<Shard> = paths.iter().map(|path| open(path)).collect();
        shards
            .iter()
            .for_each(|shard| drop(apply(shard, 1, &[put_count(DEVICES)])));
        let mut used = 0;
        for index in 2..90 {
            let mut entries = Vec::new();
            match random.below(5) {
                0 => {
                    let missing = missing(&shards[0], RULE).buckets;
                    let some = random.below(missing.len() as u64 + 1) as usize;
                    entries.push(roll_up(RULE, &missing[..some]));
                }
                1 => {
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
            for _ in 0..random.below(3) {
                entries.push(random_write(&mut random, index));
            }
            for (at, path) in paths.iter().enumerate() {
                let shard = &shards[at];
                apply(shard, index, &entries);
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
                used += compare(&shards[at], &mut random);
            }
        }
        assert!(used > 1_000, "{used} rollups answered");
        assert_eq!(shards[0].digest().unwrap(), shards[1].digest().unwrap(), "replicas");
    }
}

#[test]
fn points_go_only_where_their_rollups_are_and_these_answer_on() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(DEVICES)]);
    let cells: Vec<_> = (0..90).map(|at| (at * LENGTH / 3, at as f64)).collect();
    let mut all = write_of(&[]);
    for ordinal in [0, 3] {
        all.fragments.extend(fragments_of(ordinal, &rows(&cells), BUCKET));
    }
    apply(&shard, 2, &[write(1, all)]);
    let range = (0, 30 * LENGTH);
    let (expected, _) = ask(&shard, 1, range, None);
    let first: Vec<_> = missing(&shard, RULE)
        .buckets
        .into_iter()
        .filter(|(at, _)| *at < 6 * BUCKET)
        .collect();
    apply(&shard, 3, &[roll_up(RULE, &first)]);
    let expire = |before_ns| {
        upkeep(What::RemoveBuckets(RemoveBuckets {
            before_ns,
            lengths_s: vec![LENGTH_S],
        }))
    };
    // The seventh bucket has no rollup yet: it stays, and all behind it.
    let gone = removed(&apply(&shard, 4, &[expire(8 * BUCKET)])[0]);
    assert_eq!(gone.buckets, 6);
    let (found, used) = ask(&shard, 1, range, Some(RULE));
    assert_eq!((found, used), (expected.clone(), 12));

    // A late point among rollups would look like all of them.
    let mut late = write_of(&[]);
    late.fragments = fragments_of(0, &rows(&[(BUCKET + 1, 1.0)]), BUCKET);
    let answers = apply(&shard, 5, &[write(1, late.clone())]);
    let Some(applied::Result::Failure(refused)) = &answers[0].result else {
        panic!("{answers:?}")
    };
    assert_eq!(refused.reason, "TIME_TOO_OLD");
    shard.store().flush().unwrap();
    drop(shard);

    // All of it again after a start, by another rule too: nothing else is left to answer from.
    let shard = open(&place.path("db"));
    assert_eq!(ask(&shard, 1, range, Some(RULE + 1)).0[0][..9], expected[0][..9]);
    assert!(matches!(
        apply(&shard, 6, &[write(1, late)])[0].result,
        Some(applied::Result::Failure(_))
    ));

    // What is deleted goes from rollups with the windows that it touches.
    let delete = RemoveRecords {
        ordinals: vec![0],
        from_ns: LENGTH + 5,
        to_ns: 2 * LENGTH,
        bucket_span_ns: BUCKET,
        ..RemoveRecords::default()
    };
    let range_of_delete = (delete.from_ns, delete.to_ns);
    let counted = shard.count_records(KIND, &[0, 1], BUCKET, range_of_delete, &Edges::default());
    let windows = counted.unwrap().iter().map(|of| of.windows).collect::<Vec<_>>();
    assert_eq!(windows, [1, 0]);
    assert_eq!(
        removed(&apply(&shard, 7, &[upkeep(What::RemoveRecords(delete))])[0]).devices,
        1
    );
    let (left, _) = ask(&shard, 1, range, Some(RULE));
    assert_eq!(left[3], expected[3]);
    assert!(
        left[0][0].1.starts_with("[Ok(Some(U64(3)))"),
        "one window of two is left: {:?}",
        left[0][0]
    );

    // And rollups go when they are old themselves.
    let level = (KIND, LENGTH_S);
    assert!(shard.has_rollups_before(level, 2 * BUCKET).unwrap());
    let rollups = RemoveRollups {
        length_s: LENGTH_S,
        before_ns: 2 * BUCKET,
    };
    apply(&shard, 8, &[upkeep(What::RemoveRollups(rollups))]);
    assert!(!shard.has_rollups_before(level, 2 * BUCKET).unwrap());
    assert_eq!(ask(&shard, 1, range, Some(RULE)).0[3][..], expected[3][3..]);
}

/// Replicas that apply an entry of the log late, or again, are to be as those that applied it before whole numbers were kept exactly.
#[test]
fn whole_numbers_that_are_judged_are_rolled_up_as_the_entry_says() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(1)]);
    // Halfway between two doubles.
    let odd = (1_i64 << 53) + 1;
    let observed_at: Vec<i64> = (0..4).map(|at| at * LENGTH / 4).collect();
    let records = Records {
        received_at: observed_at.clone(),
        report_kind: vec![0; 4],
        repeats: Vec::new(),
        observed_at,
        columns: vec![Column {
            property: PropertyNumber(1),
            presence: None,
            values: Values::I64(vec![odd; 4]),
            quality: None,
        }],
    };
    let mut all = write_of(&[]);
    all.fragments = fragments_of(0, &records, BUCKET);
    apply(&shard, 2, &[write(1, all)]);
    let property = RolledProperty {
        number: 1,
        accepted: u64::MAX,
        spike: Some(5.0),
        ..RolledProperty::default()
    };
    let roll_up = RollUp {
        length_s: LENGTH_S,
        rule: RULE,
        properties: vec![property],
        buckets: vec![RolledBucket {
            bucket_ns: 0,
            ordinals: vec![0],
        }],
        interval_ns: 0,
    };
    let before = What::RollUpSequences(roll_up.clone());
    for (index, what, expected) in [(3, before, odd - 1), (4, What::RollUpSlots(roll_up), odd)] {
        assert_eq!(removed(&apply(&shard, index, &[upkeep(what)])[0]).buckets, 1);
        let rolling = Rolling {
            length_s: Some(LENGTH_S),
            gone_s: &[LENGTH_S],
            rule: RULE,
            from_ns: 0,
            to_ns: BUCKET,
        };
        let mut greatest = None;
        let end = shard.follow_rolled((KIND, 0), BUCKET, (0, BUCKET), &rolling, |stored| {
            let Stored::Rollup { rollup, .. } = stored else {
                panic!("points, where there is a rollup");
            };
            let wanted = Wanted {
                property: PropertyNumber(1),
                value_type: ValueType::I64,
                follows: None,
            };
            let rows = rollup.rows(&wanted).unwrap();
            greatest = Some(rows[0].points.as_ref().unwrap().finish(Function::Max));
            ControlFlow::<()>::Continue(())
        });
        assert!(end.unwrap().is_continue());
        assert_eq!(greatest, Some(Ok(Some(Finished::I64(expected)))));
    }
}
