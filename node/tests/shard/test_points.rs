//! Points of report kind test in a shard: stored apart, so that nothing that reads a type, or derives something from it, meets them.
//!
//! Never here: clients (see `questions/test_points.rs`). Invariant: a shard with tests strewn in holds what one without them holds, and
//! the tests beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::support::*;
use tidemark_node::shard::{ApplyEntry, Edges, Shard, contents, keys, test_lane};
use tidemark_node::store::Family;
use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{
    Applied, RemoveBuckets, RemoveRecords, RollUp, RolledBucket, RolledProperty, Upkeep, WriteFragments,
    WriteWithTests, applied, shard_command,
};
use tidemark_series::{Records, ValueRef, bucket};

const TESTS: u32 = test_lane(KIND);
const DEVICES: u32 = 8;
/// Of rollups.
const LENGTH_S: u32 = 300;
const LENGTH: i64 = 300_000_000_000;
const BUCKET: i64 = 3 * LENGTH;
const RULE: u64 = 7;

/// A write of points with tests among them.
fn with_tests(write: WriteFragments, tests: WriteFragments) -> ApplyEntry {
    let both = WriteWithTests {
        write: Some(WriteFragments {
            rows: write.rows + tests.rows,
            points: write.points + tests.points,
            ..write
        }),
        tests: tests.fragments,
        latest_tests: tests.latest,
    };
    entry(1, shard_command::Command::WriteWithTests(both))
}

fn upkeep(type_number: u32, what: &What) -> ApplyEntry {
    let upkeep = Upkeep {
        type_number,
        what: Some(what.clone()),
    };
    entry(1, shard_command::Command::Upkeep(upkeep))
}

/// Time and value of the points under a number, of one device.
fn points(shard: &Shard, number: u32, ordinal: u32) -> Vec<(i64, f64)> {
    let mut all = Records::default();
    let end = shard.scan_device(number, ordinal, SPAN, i64::MIN, i64::MAX, |value| {
        all = Records::merge(&all, &bucket::decode(value, None).unwrap());
        ControlFlow::<()>::Continue(())
    });
    assert!(end.unwrap().is_continue());
    let cells = all.columns.iter().flat_map(|column| column.cells());
    cells
        .map(|(row, value, _)| match value {
            ValueRef::F64(value) => (all.observed_at[row], value),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Time of the newest value under a number, of each device.
fn newest(shard: &Shard, number: u32) -> Vec<Option<i64>> {
    let ordinals: Vec<u32> = (0..DEVICES).collect();
    let found = shard.newest(number, &ordinals).unwrap();
    found
        .iter()
        .map(|values| values.iter().map(|value| value.observed_at).max())
        .collect()
}

fn refusal(answer: &Applied) -> Option<&str> {
    match &answer.result {
        Some(applied::Result::Failure(failure)) => Some(&failure.message),
        _ => None,
    }
}

#[test]
fn a_test_of_the_time_of_a_real_record_replaces_nothing() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(DEVICES)]);
    let real = rows(&[(5, 1.0), (1_500, 2.0)]);
    let tests = [(0, rows(&[(5, 99.0), (9_000, 98.0)])), (1, rows(&[(6, 97.0)]))];
    let entries = [
        write(1, write_of(&[(0, real)])),
        with_tests(write_of(&[(2, rows(&[(7, 3.0)]))]), write_of(&tests)),
    ];
    apply(&shard, 3, &entries);
    let check = |shard: &Shard| {
        assert_eq!(points(shard, KIND, 0), [(5, 1.0), (1_500, 2.0)]);
        assert_eq!(
            (points(shard, KIND, 1), points(shard, KIND, 2)),
            (vec![], vec![(7, 3.0)])
        );
        assert_eq!(points(shard, TESTS, 0), [(5, 99.0), (9_000, 98.0)]);
        assert_eq!(
            (points(shard, TESTS, 1), points(shard, TESTS, 2)),
            (vec![(6, 97.0)], vec![])
        );
        // Twice: the second time from memory.
        for _ in 0..2 {
            assert_eq!(newest(shard, KIND)[..3], [Some(1_500), None, Some(7)]);
            assert_eq!(newest(shard, TESTS)[..3], [Some(9_000), Some(6), None]);
        }
        let ends = |number: u32| (shard.data_begins(number), shard.data_ends(number, SPAN));
        assert_eq!(ends(KIND), (Some(0), Some(2_000)));
        assert_eq!(ends(TESTS), (Some(0), Some(10_000)));
        let mut speaking = Vec::new();
        let end = shard.latest_of_type(KIND, |ordinal, _| {
            speaking.push(ordinal);
            ControlFlow::<()>::Continue(())
        });
        assert!(end.unwrap().is_continue());
        assert_eq!(speaking, [0, 2]);
    };
    check(&shard);
    shard.store().flush().unwrap();
    drop(shard);
    check(&open(&place.path("db")));
}

#[test]
fn a_batch_of_both_kinds_is_stored_once_and_whole_or_not_at_all() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(1)]);
    let sent = |sequence: u64, ordinal_of_tests: u32| {
        let real = WriteFragments {
            producer: "p".into(),
            sequence,
            ..write_of(&[(0, rows(&[(sequence as i64, 1.0)]))])
        };
        let tests = write_of(&[(ordinal_of_tests, rows(&[(sequence as i64, 2.0), (90, 3.0)]))]);
        with_tests(real, tests)
    };
    let first = apply(&shard, 2, &[sent(5, 0)]);
    let kept = content(&shard);
    let again = apply(&shard, 3, &[sent(5, 0)]);
    let stored = |answer: &Applied| match &answer.result {
        Some(applied::Result::Write(write)) => (write.rows, write.points, write.duplicate),
        other => panic!("{other:?}"),
    };
    assert_eq!((stored(&first[0]), stored(&again[0])), ((3, 3, false), (3, 3, true)));
    assert_eq!(content(&shard), kept);

    let refused = apply(&shard, 4, &[sent(6, 1)]);
    assert_eq!(
        refusal(&refused[0]),
        Some("tests[0] names ordinal 1, which no device has")
    );
    assert_eq!(content(&shard), kept);
}

#[test]
fn nobody_who_wants_to_know_of_points_hears_of_tests() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(2)]);
    shard.notes().watch(BTreeSet::from([KIND, TESTS]));
    let tests = write_of(&[(0, rows(&[(5, 1.0)])), (1, rows(&[(7, 1.0)]))]);
    apply(&shard, 2, &[with_tests(write_of(&[]), tests)]);
    let remove = |ordinals: Vec<u32>| {
        let records = RemoveRecords {
            ordinals,
            from_ns: 0,
            to_ns: SPAN,
            bucket_span_ns: SPAN,
            ..RemoveRecords::default()
        };
        upkeep(TESTS, &What::RemoveRecords(records))
    };
    apply(&shard, 3, &[remove(vec![0])]);
    assert_eq!(shard.notes().take(), Some(BTreeMap::new()));
    let both = with_tests(write_of(&[(1, rows(&[(9, 1.0)]))]), write_of(&[(1, rows(&[(2, 1.0)]))]));
    apply(&shard, 4, &[both]);
    assert_eq!(shard.notes().take(), Some(BTreeMap::from([((KIND, 1), 9)])));
}

/// Records by family and key, values as a whole.
type Content = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

fn number(family: Family) -> u32 {
    Family::ALL.iter().position(|known| *known == family).unwrap() as u32
}

/// What a shard keeps: of tests, as if they were not any, and of everything else.
fn content(shard: &Shard) -> (Content, Content) {
    let (mut tests, mut others) = (Content::new(), Content::new());
    let series = [number(Family::Blocks), number(Family::Latest)];
    let end = contents::each_record(shard.store(), |family, key, value| {
        if !series.contains(&family) {
            others.insert((family, key.to_vec()), value.to_vec());
            return ControlFlow::<()>::Continue(());
        }
        let whole = bucket::encode(&bucket::decode(value, None).unwrap());
        let (first, rest) = key.split_first_chunk::<4>().unwrap();
        let of = u32::from_be_bytes(*first);
        assert!([KIND, TESTS].contains(&of), "{of} is no type");
        let key = [&KIND.to_be_bytes()[..], rest].concat();
        let into = if of == TESTS { &mut tests } else { &mut others };
        into.insert((family, key), whole);
        ControlFlow::Continue(())
    });
    assert!(end.unwrap().is_continue());
    (tests, others)
}

/// What of it are points.
fn series_of(content: Content) -> Content {
    let series = [number(Family::Blocks), number(Family::Latest)];
    content
        .into_iter()
        .filter(|((family, _), _)| series.contains(family))
        .collect()
}

/// Three shards: one without tests, one with tests strewn in, and one that was sent the tests alone, as points like others.
struct Play {
    place: Place,
    plain: Shard,
    strewn: Shard,
    alone: Shard,
    index: u64,
}

impl Play {
    fn new() -> Self {
        let place = Place::new();
        let [plain, strewn, alone] = ["plain", "strewn", "alone"].map(|name| open(&place.path(name)));
        for shard in [&plain, &strewn, &alone] {
            apply(shard, 1, &[put_count(DEVICES)]);
        }
        let index = 1;
        Self {
            place,
            plain,
            strewn,
            alone,
            index,
        }
    }

    /// The same of real points, where there are tests and where there are none: with the same outcome.
    fn of_points(&mut self, what: &What) {
        self.index += 1;
        let [plain, strewn] =
            [&self.plain, &self.strewn].map(|shard| apply(shard, self.index, &[upkeep(KIND, what)]).remove(0));
        assert_eq!(plain, strewn, "{what:?}");
    }

    /// The same of tests, and of what was sent like others.
    fn of_tests(&mut self, what: &What) {
        self.index += 1;
        let strewn = apply(&self.strewn, self.index, &[upkeep(TESTS, what)]);
        assert_eq!(
            strewn,
            apply(&self.alone, self.index, &[upkeep(KIND, what)]),
            "{what:?}"
        );
    }

    fn write(&mut self, real: &WriteFragments, tests: &WriteFragments) {
        self.index += 1;
        let both = match tests.fragments.is_empty() {
            true => write(1, real.clone()),
            false => with_tests(real.clone(), tests.clone()),
        };
        let strewn = apply(&self.strewn, self.index, &[both]);
        let plain = apply(&self.plain, self.index, &[write(1, real.clone())]);
        assert_eq!(refusal(&strewn[0]), refusal(&plain[0]));
        if refusal(&strewn[0]).is_none() {
            apply(&self.alone, self.index, &[write(1, tests.clone())]);
        }
    }

    fn roll_up(&mut self) {
        let level = (KIND, LENGTH_S);
        let missing = |shard: &Shard| {
            let all = (i64::MIN, i64::MAX);
            shard.rollups_missing(level, RULE, all, usize::MAX).unwrap().buckets
        };
        let buckets = missing(&self.plain);
        assert_eq!(
            missing(&self.strewn),
            buckets,
            "tests take no rollup away, and want none"
        );
        let property = RolledProperty {
            number: 1,
            accepted: u64::MAX,
            ..RolledProperty::default()
        };
        let bucket = |(bucket_ns, ordinals)| RolledBucket { bucket_ns, ordinals };
        self.of_points(&What::RollUpSequences(RollUp {
            length_s: LENGTH_S,
            rule: RULE,
            properties: vec![property],
            buckets: buckets.into_iter().map(bucket).collect(),
            ..RollUp::default()
        }));
    }

    fn compare(&self) {
        let (none, plain) = content(&self.plain);
        let (tests, others) = content(&self.strewn);
        let (_, alone) = content(&self.alone);
        assert_eq!((none.len(), others), (0, plain));
        assert_eq!(tests, series_of(alone));
        assert_eq!(newest(&self.strewn, KIND), newest(&self.plain, KIND));
        assert_eq!(newest(&self.strewn, TESTS), newest(&self.alone, KIND));
        let ordinals: Vec<u32> = (0..DEVICES).collect();
        let (range, edges) = ((0, 20 * LENGTH), Edges::default());
        let count = |shard: &Shard, number: u32| shard.count_records(number, &ordinals, BUCKET, range, &edges);
        let counts = |shard: &Shard, number: u32| count(shard, number).unwrap();
        assert_eq!(counts(&self.strewn, KIND), counts(&self.plain, KIND));
        assert_eq!(counts(&self.strewn, TESTS), counts(&self.alone, KIND));
        let first = |shard: &Shard, number: u32| shard.first_bucket_before(number, i64::MAX).unwrap();
        assert_eq!(first(&self.strewn, KIND), first(&self.plain, KIND));
        assert_eq!(first(&self.strewn, TESTS), first(&self.alone, KIND));
    }
}

/// Points of some devices, or of none.
fn some_write(random: &mut Random) -> WriteFragments {
    let mut write = write_of(&[]);
    for _ in 0..random.below(4).saturating_sub(1) {
        let mut times: Vec<i64> = (0..1 + random.below(12))
            .map(|_| random.below(280) as i64 * (LENGTH / 7))
            .collect();
        times.sort_unstable();
        times.dedup();
        let cells: Vec<_> = times.iter().map(|t| (*t, random.below(1_000) as f64 / 8.0)).collect();
        let ordinal = random.below(DEVICES.into()) as u32;
        write.rows += cells.len() as u64;
        write.points += cells.len() as u64;
        write.fragments.extend(fragments_of(ordinal, &rows(&cells), BUCKET));
    }
    write
}

fn some_removal(random: &mut Random) -> What {
    let mut end = || random.below(280) as i64 * (LENGTH / 7);
    let (a, b) = (end(), end());
    let ordinals = (0..DEVICES).filter(|_| random.below(2) == 0).collect();
    What::RemoveRecords(RemoveRecords {
        ordinals,
        from_ns: a.min(b),
        to_ns: a.max(b),
        bucket_span_ns: BUCKET,
        ..RemoveRecords::default()
    })
}

fn step(play: &mut Play, random: &mut Random) {
    let old = random.below(4) as i64 * BUCKET;
    match random.below(16) {
        0 => play.of_points(&some_removal(random)),
        1 => play.of_tests(&some_removal(random)),
        2 => play.roll_up(),
        3 if random.below(3) == 0 => play.of_points(&What::RemoveBuckets(RemoveBuckets {
            before_ns: old,
            lengths_s: vec![LENGTH_S],
        })),
        4 if random.below(3) == 0 => play.of_tests(&What::RemoveBuckets(RemoveBuckets {
            before_ns: old,
            lengths_s: Vec::new(),
        })),
        5 => play.strewn.store().flush().unwrap(),
        6 => {
            play.strewn.store().flush().unwrap();
            let elsewhere = open(&play.place.path("elsewhere"));
            drop(std::mem::replace(&mut play.strewn, elsewhere));
            play.strewn = open(&play.place.path("strewn"));
            std::fs::remove_dir_all(play.place.path("elsewhere")).unwrap();
        }
        7 => drop(play.strewn.compact_emptied().unwrap()),
        _ => {
            let [real, tests] = [0, 1].map(|_| some_write(random));
            play.write(&real, &tests);
        }
    }
}

#[test]
fn a_shard_with_tests_strewn_in_is_one_without_and_the_tests_beside_it() {
    for seed in seeds(4) {
        println!("TIDEMARK_SEED={seed}");
        let mut random = Random(seed);
        let mut play = Play::new();
        for at in 0..180 {
            step(&mut play, &mut random);
            if at % 8 == 7 {
                play.compare();
            }
        }
        play.compare();
        assert!(!content(&play.strewn).0.is_empty(), "there were tests");
    }
}

#[test]
fn a_backup_brings_tests_back_to_where_they_were() {
    let place = Place::new();
    let shard = open(&place.path("a"));
    apply(&shard, 1, &[put_count(DEVICES)]);
    let real = write_of(&[(0, rows(&[(5, 1.0)])), (3, rows(&[(2_500, 2.0)]))]);
    let tests = write_of(&[(0, rows(&[(5, 9.0)])), (1, rows(&[(7_700, 8.0)]))]);
    apply(&shard, 2, &[with_tests(real, tests)]);
    let other = open(&place.path("b"));
    apply(&other, 2, &restore_of(&shard, 1));
    assert_eq!(content(&other), content(&shard));
    assert_eq!(points(&other, TESTS, 1), [(7_700, 8.0)]);
    assert_eq!(other.data_ends(KIND, SPAN), Some(3_000));
    assert_eq!(other.data_ends(TESTS, SPAN), Some(8_000));
}

#[test]
fn numbers_of_types_and_of_their_tests_never_meet() {
    for number in [0, 1, KIND, tidemark_node::limits::TYPE_NUMBER_MAX] {
        let tests = test_lane(number);
        assert!(keys::is_test_lane(tests) && !keys::is_test_lane(number));
        assert_eq!(
            (keys::type_of_lane(tests), keys::type_of_lane(number)),
            (number, number)
        );
    }
}
