//! Rollups whose points are gone: which length answers, what a delete takes of them, and what none of it may bring back.
//!
//! Never here: rollups beside points (see `rollups`). Invariant: what is answered is what the windows hold that hold no removed time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::support::*;
use tidemark_node::shard::{ApplyEntry, Counted, Edges, Rolling, Shard, Stored};
use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{
    Applied, RemoveBuckets, RemoveRecords, Removed, RollUp, RolledBucket, RolledProperty, Upkeep, applied,
    shard_command,
};
use tidemark_series::window::{Edge, Windows};
use tidemark_series::{ByWindow, Choice, Finished, Function, Needs, PropertyNumber, ValueType, bucket, rollup};

const DEVICES: u32 = 3;
const SHORT_S: u32 = 300;
const LONG_S: u32 = 900;
const SHORT: i64 = 300_000_000_000;
const LONG: i64 = 900_000_000_000;
const BUCKET: i64 = 2 * LONG;
const BUCKETS: i64 = 6;
const RULE: u64 = 7;

fn edge(property: u32) -> Edge {
    match property {
        1 => Edge::StartClosed,
        _ => Edge::EndClosed,
    }
}

fn upkeep(what: What) -> ApplyEntry {
    let upkeep = Upkeep {
        type_number: KIND,
        what: Some(what),
    };
    entry(1, shard_command::Command::Upkeep(upkeep))
}

fn removed(answer: &Applied) -> Removed {
    match &answer.result {
        Some(applied::Result::Removed(removed)) => *removed,
        other => panic!("{other:?}"),
    }
}

/// Rollups of a length of all buckets before a time.
fn roll_up(shard: &Shard, length_s: u32, rule: u64, before_ns: i64) -> ApplyEntry {
    let range = (i64::MIN, before_ns);
    let missing = shard
        .rollups_missing((KIND, length_s), rule, range, usize::MAX)
        .unwrap();
    let bucket = |(bucket_ns, ordinals): (i64, Vec<u32>)| RolledBucket { bucket_ns, ordinals };
    let property = |number: u32| RolledProperty {
        number,
        end_closed: edge(number) == Edge::EndClosed,
        accepted: u64::MAX,
        ..RolledProperty::default()
    };
    upkeep(What::RollUpSlots(RollUp {
        length_s,
        rule,
        properties: vec![property(1), property(2)],
        buckets: missing.buckets.into_iter().map(bucket).collect(),
        interval_ns: 60_000_000_000,
    }))
}

fn buckets(before_ns: i64, lengths_s: &[u32]) -> RemoveBuckets {
    RemoveBuckets {
        before_ns,
        lengths_s: lengths_s.to_vec(),
    }
}

fn records(ordinals: &[u32], from_ns: i64, to_ns: i64) -> RemoveRecords {
    RemoveRecords {
        ordinals: ordinals.to_vec(),
        from_ns,
        to_ns,
        bucket_span_ns: BUCKET,
        start_closed: vec![1],
        end_closed: vec![2],
    }
}

fn count(shard: &Shard, ordinals: &[u32], range: (i64, i64)) -> Vec<Counted> {
    let edges = Edges::new([1, 2].map(|number| (number, edge(number))).into_iter());
    shard.count_records(KIND, ordinals, BUCKET, range, &edges).unwrap()
}

/// Sums by device and start of window.
type Sums = BTreeMap<(u32, i64), f64>;

/// What rollups of some lengths answer for windows so long, and how many of them.
fn ask(shard: &Shard, property: u32, step_ns: i64, length_s: Option<u32>, gone_s: &'static [u32]) -> (Sums, usize) {
    let windows = Windows {
        from_ns: -BUCKET,
        to_ns: (BUCKETS + 1) * BUCKET,
        step_ns: Some(step_ns),
        origin_ns: 0,
        borders: None,
        edge: edge(property),
    };
    let rolling = Rolling {
        length_s,
        gone_s,
        rule: RULE,
        from_ns: windows.from_ns,
        to_ns: windows.to_ns,
    };
    let ordinals: Vec<u32> = (0..DEVICES).collect();
    let mut folded: Vec<ByWindow> = ordinals.iter().map(|_| ByWindow::default()).collect();
    let (of, mut used) = (PropertyNumber(property), 0);
    let mut take = |at: usize, stored: Stored<'_>| match stored {
        Stored::Points(value) => bucket::blocks(value).for_each(|block| {
            let block = block.unwrap();
            let (mut folding, into) = (block.folding(), &mut folded[at]);
            folding.fold(of, &windows, Needs::All, &Choice::ALL, into).unwrap();
        }),
        Stored::Rollup { rollup, .. } => {
            used += 1;
            rollup::fold(&rollup, (of, ValueType::F64), &windows, &mut folded[at]).unwrap();
        }
    };
    let range = windows.scan_range();
    let end = shard.scan_rolled((KIND, &ordinals), BUCKET, range, &rolling, |at, stored| {
        take(at, stored);
        ControlFlow::<()>::Continue(())
    });
    assert!(end.unwrap().is_continue());
    let mut sums = Sums::new();
    for (ordinal, all) in (0..).zip(folded) {
        for (window, partial) in all.into_sorted() {
            let Ok(Some(Finished::F64(sum))) = partial.finish(Function::Sum) else {
                panic!("{partial:?}")
            };
            sums.insert((ordinal, windows.bounds(window).0), sum);
        }
    }
    // One device after the other gives the same.
    for ordinal in ordinals {
        let mut alone = 0;
        let end = shard.follow_rolled((KIND, ordinal), BUCKET, range, &rolling, |stored| {
            alone += usize::from(matches!(stored, Stored::Rollup { .. }));
            ControlFlow::<()>::Continue(())
        });
        assert!(end.unwrap().is_continue());
        used -= alone;
    }
    (sums, used)
}

/// Whole numbers, so that sums do not depend on their order.
fn write_all(shard: &Shard, random: &mut Random) -> BTreeMap<(u32, u32, i64), f64> {
    let (mut points, mut all) = (BTreeMap::new(), write_of(&[]));
    for ordinal in 0..DEVICES {
        let mut times: Vec<i64> = (0..60)
            .map(|_| random.below((BUCKETS * BUCKET) as u64) as i64)
            .collect();
        times.extend((0..30).map(|_| random.below(6 * BUCKETS as u64) as i64 * SHORT));
        times.sort_unstable();
        times.dedup();
        let cells: Vec<_> = times.iter().map(|t_ns| (*t_ns, random.below(1_000) as f64)).collect();
        let mut records = rows(&cells);
        let others: Vec<_> = cells.iter().map(|(_, value)| Some(value + 1.0)).collect();
        records.columns.extend(column(2, &others));
        for (t_ns, value) in cells {
            points.insert((ordinal, 1, t_ns), value);
            points.insert((ordinal, 2, t_ns), value + 1.0);
        }
        all.fragments.extend(fragments_of(ordinal, &records, BUCKET));
    }
    apply(shard, 2, &[write(1, all)]);
    points
}

fn window_of(property: u32, t_ns: i64, length_ns: i64) -> i64 {
    match edge(property) {
        Edge::StartClosed => t_ns.div_euclid(length_ns) * length_ns,
        Edge::EndClosed => (t_ns - 1).div_euclid(length_ns) * length_ns,
    }
}

fn sums_of(points: &BTreeMap<(u32, u32, i64), f64>, property: u32, step_ns: i64) -> Sums {
    let mut sums = Sums::new();
    for ((ordinal, of, t_ns), value) in points {
        if *of == property {
            *sums.entry((*ordinal, window_of(property, *t_ns, step_ns))).or_default() += value;
        }
    }
    sums
}

fn furnished(place: &Place) -> Shard {
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(DEVICES)]);
    shard
}

/// Points of all of time but the last bucket are gone, and rollups of both lengths are left.
fn seal(shard: &Shard) {
    let before_ns = (BUCKETS - 1) * BUCKET;
    for (index, length_s) in [(3, SHORT_S), (4, LONG_S)] {
        apply(shard, index, &[roll_up(shard, length_s, RULE, i64::MAX)]);
    }
    let expire = What::RemoveBuckets(buckets(before_ns, &[SHORT_S, LONG_S]));
    assert_eq!(
        removed(&apply(shard, 5, &[upkeep(expire)])[0]).buckets,
        BUCKETS as u64 - 1
    );
}

#[test]
fn what_is_left_after_deletes_is_what_the_shortest_windows_hold() {
    for seed in seeds(6) {
        println!("TIDEMARK_SEED={seed}");
        let mut random = Random(seed);
        let place = Place::new();
        let shard = furnished(&place);
        let mut points = write_all(&shard, &mut random);
        seal(&shard);
        let sealed_ns = (BUCKETS - 1) * BUCKET;
        for index in 6..26 {
            let mut end = || match random.below(3) {
                0 => random.below((BUCKETS * BUCKET) as u64) as i64,
                at => random.below(6 * BUCKETS as u64) as i64 * SHORT + at as i64 - 1,
            };
            let (a, b) = (end(), end());
            let (from_ns, to_ns) = (a.min(b), a.max(b).min(a.min(b) + 2 * BUCKET));
            let first = random.below(DEVICES.into()) as u32;
            let ordinals: Vec<u32> = (first..DEVICES).collect();
            let counted = count(&shard, &ordinals, (from_ns, to_ns));
            let delete = What::RemoveRecordsAndWindows(records(&ordinals, from_ns, to_ns));
            let gone = removed(&apply(&shard, index, &[upkeep(delete)])[0]);
            let sum = |of: fn(&Counted) -> u64| counted.iter().map(of).sum::<u64>();
            assert_eq!(
                (gone.records, gone.windows),
                (sum(|of| of.records), sum(|of| of.windows))
            );
            points.retain(|(ordinal, property, t_ns), _| {
                let start_ns = window_of(*property, *t_ns, SHORT);
                let (first_ns, last_ns) = match edge(*property) {
                    Edge::StartClosed => (start_ns, start_ns + SHORT - 1),
                    Edge::EndClosed => (start_ns + 1, start_ns + SHORT),
                };
                let is_touched = match *t_ns < sealed_ns {
                    true => from_ns < to_ns && first_ns < to_ns && from_ns <= last_ns,
                    false => (from_ns..to_ns).contains(t_ns),
                };
                !(ordinals.contains(ordinal) && is_touched)
            });
            for property in [1, 2] {
                for (step_ns, length_s, gone_s) in
                    [(SHORT, SHORT_S, &[SHORT_S][..]), (LONG, LONG_S, &[SHORT_S, LONG_S])]
                {
                    let (found, used) = ask(&shard, property, step_ns, Some(length_s), gone_s);
                    let expected = sums_of(&points, property, step_ns);
                    assert_eq!(
                        found, expected,
                        "seed {seed}, property {property} by {step_ns}, {from_ns} to {to_ns}"
                    );
                    assert_eq!(used, 0, "as many for each device alone");
                }
            }
        }
    }
}

#[test]
fn lengths_that_a_type_has_no_more_answer_where_points_are_gone() {
    let place = Place::new();
    let shard = furnished(&place);
    let points = write_all(&shard, &mut Random(1));
    let half = BUCKETS / 2 * BUCKET;
    // Shorter ones at first, longer ones afterwards; the last bucket keeps its points.
    apply(&shard, 3, &[roll_up(&shard, SHORT_S, RULE + 1, half)]);
    apply(&shard, 4, &[upkeep(What::RemoveBuckets(buckets(half, &[SHORT_S])))]);
    apply(&shard, 5, &[roll_up(&shard, LONG_S, RULE, (BUCKETS - 1) * BUCKET)]);
    let expire = What::RemoveBuckets(buckets((BUCKETS - 1) * BUCKET, &[LONG_S]));
    apply(&shard, 6, &[upkeep(expire)]);
    for property in [1, 2] {
        let expected = sums_of(&points, property, LONG);
        for length_s in [Some(LONG_S), Some(SHORT_S), None] {
            assert_eq!(
                ask(&shard, property, LONG, length_s, &[SHORT_S, LONG_S]).0,
                expected,
                "{length_s:?}"
            );
        }
        // Of windows that are too short for it nothing is told.
        let finer = ask(&shard, property, SHORT, Some(SHORT_S), &[SHORT_S]).0;
        let of_both: Sums = sums_of(&points, property, SHORT);
        let missing = of_both.keys().filter(|window| !finer.contains_key(window));
        assert!(missing.clone().count() > 0);
        for (_, start_ns) in missing {
            assert!((half - SHORT..(BUCKETS - 1) * BUCKET).contains(start_ns), "{start_ns}");
        }
    }
}

#[test]
fn rollups_that_were_left_without_a_seal_go_with_what_is_deleted() {
    let place = Place::new();
    let shard = furnished(&place);
    write_all(&shard, &mut Random(2));
    apply(&shard, 3, &[roll_up(&shard, SHORT_S, RULE, i64::MAX)]);
    // As if the type had none: points go, and the time is not sealed.
    apply(&shard, 4, &[upkeep(What::RemoveBuckets(buckets(4 * BUCKET, &[])))]);
    assert_eq!(shard.sealed_before(KIND), None);
    let all = (i64::MIN, i64::MAX);
    let counted = count(&shard, &[0, 2], all);
    assert!(counted.iter().all(|of| of.windows > 0 && of.buckets > 4), "{counted:?}");
    let delete = What::RemoveRecordsAndWindows(records(&[0, 2], all.0, all.1));
    let gone = removed(&apply(&shard, 5, &[upkeep(delete)])[0]);
    assert_eq!(gone.windows, counted.iter().map(|of| of.windows).sum::<u64>());
    for property in [1, 2] {
        let left = ask(&shard, property, SHORT, Some(SHORT_S), &[SHORT_S]).0;
        assert!(left.keys().all(|(ordinal, _)| *ordinal == 1), "{left:?}");
        assert!(
            left.keys().any(|(_, start_ns)| *start_ns < 4 * BUCKET),
            "those of another device answer on"
        );
    }
    let nothing = Counted {
        rolled: true,
        ..Counted::default()
    };
    assert_eq!(count(&shard, &[0, 2], all), [nothing; 2]);
}

#[test]
fn time_is_sealed_where_rollups_are_left() {
    let place = Place::new();
    let shard = furnished(&place);
    let points = write_all(&shard, &mut Random(3));
    apply(&shard, 3, &[roll_up(&shard, SHORT_S, RULE, 3 * BUCKET)]);
    assert!(!shard.has_rollups_to_seal(KIND, 0).unwrap());
    assert!(shard.has_rollups_to_seal(KIND, 4 * BUCKET).unwrap());
    let gone = apply(&shard, 4, &[upkeep(What::SealBuckets(buckets(4 * BUCKET, &[])))]);
    assert_eq!(removed(&gone[0]).buckets, 4);
    assert_eq!(shard.sealed_before(KIND), Some(4 * BUCKET));
    assert!(!shard.has_rollups_to_seal(KIND, i64::MAX).unwrap());
    let mut late = write_of(&[]);
    late.fragments = fragments_of(0, &rows(&[(BUCKET + 1, 1.0)]), BUCKET);
    let answers = apply(&shard, 5, &[write(1, late)]);
    assert!(matches!(&answers[0].result, Some(applied::Result::Failure(refused)) if refused.reason == "TIME_TOO_OLD"));
    let expected = sums_of(&points, 1, SHORT);
    let is_left = |start_ns: i64| !(3 * BUCKET..4 * BUCKET).contains(&start_ns);
    let expected: Sums = expected
        .into_iter()
        .filter(|((_, start_ns), _)| is_left(*start_ns))
        .collect();
    assert_eq!(
        ask(&shard, 1, SHORT, None, &[SHORT_S]).0,
        expected,
        "of a length that the type has no more"
    );
}
