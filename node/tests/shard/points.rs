//! What is written is what is read: one device, a type, newest values, at every density and at both ends of time.
//!
//! Never here: restarts (see recovery). Invariant: each test would fail if the read gave stale or foreign points.

use std::ops::ControlFlow;

use crate::support::*;
use bytes::Bytes;
use tidemark_proto::peer::{Fragment, WriteFragments, applied};
use tidemark_series::{PropertyNumber, Records, Values, bucket};

fn shard(place: &Place) -> tidemark_node::shard::Shard {
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(4)]);
    shard
}

#[test]
fn written_points_are_read_back() {
    let place = Place::new();
    let shard = shard(&place);
    let points = [
        (-1_500, 1.0),
        (-1, 2.0),
        (0, 3.0),
        (999, 4.0),
        (1_000, 5.0),
        (70_000, 6.0),
    ];
    let answers = apply(
        &shard,
        2,
        &[write(2, write_of(&[(0, rows(&points)), (2, rows(&[(5, 9.0)]))]))],
    );
    let Some(applied::Result::Write(answer)) = &answers[0].result else {
        panic!("{answers:?}")
    };
    assert_eq!((answer.rows, answer.points, answer.duplicate), (7, 7, false));

    let check = |ordinal, from, to, expected: &[(i64, f64)]| {
        assert_eq!(
            cells(&shard, ordinal, from, to),
            expected,
            "device {ordinal} from {from} to {to}"
        );
    };
    check(0, i64::MIN, i64::MAX, &points);
    check(0, -1_500, -1, &points[..1]);
    check(0, -1_499, 0, &points[1..2]);
    check(0, 0, 1_000, &points[2..4]);
    check(0, 1_001, 70_000, &[]);
    check(0, 1_001, 70_001, &points[5..]);
    check(0, 5, 5, &[]);
    check(0, 9, 5, &[]);
    check(1, i64::MIN, i64::MAX, &[]);
    check(2, 0, 10, &[(5, 9.0)]);
    check(3, i64::MIN, i64::MAX, &[]);
}

#[test]
fn later_writes_win_whatever_their_order_in_time() {
    let place = Place::new();
    let shard = shard(&place);
    let steps: [&[(i64, f64)]; 4] = [
        &[(10, 1.0), (30, 3.0)],
        &[(20, 2.0)],
        &[(10, 1.5), (5, 0.5)],
        &[(30, 3.5)],
    ];
    for (index, step) in (2..).zip(steps) {
        apply(&shard, index, &[write(2, write_of(&[(0, rows(step))]))]);
        if index == 3 {
            shard.store().flush().unwrap();
        }
    }
    let expected = [(5, 0.5), (10, 1.5), (20, 2.0), (30, 3.5)];
    assert_eq!(cells(&shard, 0, 0, 100), expected);
    shard.store().db().compact().unwrap();
    assert_eq!(cells(&shard, 0, 0, 100), expected);
}

#[test]
fn entries_of_one_chunk_see_each_other() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    let chunk = [
        put_count(1),
        write(2, write_of(&[(0, rows(&[(1, 1.0)]))])),
        put(3, vec![device("late", &[])]),
        write(4, write_of(&[(1, rows(&[(2, 2.0)]))])),
        Default::default(),
        write(5, write_of(&[(0, rows(&[(1, 1.5)]))])),
    ];
    let answers = apply(&shard, 6, &chunk);
    assert!(answers[4].result.is_none());
    assert!(
        matches!(answers[3].result, Some(applied::Result::Write(_))),
        "{answers:?}"
    );
    assert_eq!(cells(&shard, 0, 0, 100), [(1, 1.5)]);
    assert_eq!(cells(&shard, 1, 0, 100), [(2, 2.0)]);
}

#[test]
fn both_ends_of_time() {
    let place = Place::new();
    let shard = shard(&place);
    let points = [(i64::MIN, 1.0), (i64::MIN + 900, 2.0), (0, 3.0), (i64::MAX - 1, 4.0)];
    apply(&shard, 2, &[write(2, write_of(&[(1, rows(&points))]))]);
    assert_eq!(cells(&shard, 1, i64::MIN, i64::MAX), points);
    assert_eq!(cells(&shard, 1, i64::MIN, i64::MIN + 1), points[..1]);
    assert_eq!(cells(&shard, 1, 1, i64::MAX), points[3..]);
    assert_eq!(cells(&shard, 0, i64::MIN, i64::MAX), []);
    let mut seen = Vec::new();
    let all = shard.scan_type(KIND, SPAN, i64::MIN, i64::MAX, |ordinal, _, value| {
        seen.push((ordinal, bucket::decode(value, None).unwrap().len()));
        ControlFlow::<()>::Continue(())
    });
    assert!(all.unwrap().is_continue());
    assert_eq!(seen.iter().map(|(_, rows)| rows).sum::<usize>(), points.len());
}

#[test]
fn many_buckets_are_read_by_seeking_and_few_by_key_alike() {
    let place = Place::new();
    let shard = shard(&place);
    // Device 1 reports into every third bucket of 3000, the others into others: all kinds of neighbours.
    for (ordinal, step, shift) in [(0_u32, 2_i64, 0_i64), (1, 3, 1), (3, 7, 5)] {
        let points: Vec<_> = (0..3_000)
            .filter(|at| at % step == shift % step)
            .map(|at| (at * SPAN, at as f64))
            .collect();
        apply(&shard, 2, &[write(2, write_of(&[(ordinal, rows(&points))]))]);
    }
    let expected: Vec<_> = (0..3_000)
        .filter(|at| at % 3 == 1)
        .map(|at| (at * SPAN, at as f64))
        .collect();
    assert_eq!(cells(&shard, 1, i64::MIN, i64::MAX), expected);
    let some: Vec<_> = expected
        .iter()
        .copied()
        .filter(|(at, _)| (600_000..900_000).contains(at))
        .collect();
    assert_eq!(cells(&shard, 1, 600_000, 900_000), some);
    assert_eq!(cells(&shard, 2, i64::MIN, i64::MAX), []);
}

#[test]
fn scans_stop_when_the_visitor_breaks() {
    let place = Place::new();
    let shard = shard(&place);
    let points: Vec<_> = (0..20).map(|at| (at * SPAN, at as f64)).collect();
    apply(
        &shard,
        2,
        &[write(2, write_of(&[(0, rows(&points)), (1, rows(&points))]))],
    );
    let mut seen = 0;
    let end = shard.scan_device(KIND, 0, SPAN, 0, i64::MAX, |_| {
        seen += 1;
        if seen == 3 {
            ControlFlow::Break("enough")
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!((end.unwrap(), seen), (ControlFlow::Break("enough"), 3));
    let mut keys = Vec::new();
    let end = shard.scan_type(KIND, SPAN, 2_500, 3_001, |ordinal, bucket_ns, _| {
        keys.push((bucket_ns, ordinal));
        ControlFlow::<()>::Continue(())
    });
    assert!(end.unwrap().is_continue());
    assert_eq!(keys, [(2_000, 0), (2_000, 1), (3_000, 0), (3_000, 1)]);
    let none = shard.scan_type(KIND + 1, SPAN, i64::MIN, i64::MAX, |_, _, _| ControlFlow::Break(()));
    assert!(none.unwrap().is_continue(), "another type has no points");
}

#[test]
fn newest_values_are_the_newest_observed_not_the_last_written() {
    let place = Place::new();
    let shard = shard(&place);
    apply(&shard, 2, &[write(2, write_of(&[(0, rows(&[(10, 1.0), (50, 5.0)]))]))]);
    apply(
        &shard,
        3,
        &[write(3, write_of(&[(0, rows(&[(20, 2.0)])), (3, rows(&[(7, 7.0)]))]))],
    );
    // Where the writer gives the newest record, that one is kept.
    let mut given = write_of(&[(1, rows(&[(1, 1.0), (2, 2.0)]))]);
    given.latest = vec![Fragment {
        ordinal: 1,
        bucket_ns: 0,
        block: Bytes::from(bucket::encode(&rows(&[(2, 2.0)]))),
    }];
    apply(&shard, 4, &[write(4, given)]);

    let newest = |value: &[u8]| {
        let records = bucket::decode(value, None).unwrap();
        let Values::F64(values) = &records.columns[0].values else {
            panic!("wrong type")
        };
        assert_eq!((records.len(), records.columns[0].property), (1, PropertyNumber(1)));
        (records.observed_at[0], values[0])
    };
    for compacted in [false, true] {
        let found = shard.latest(KIND, &[3, 2, 0, 1]).unwrap();
        let found: Vec<_> = found.iter().map(|value| value.as_deref().map(newest)).collect();
        assert_eq!(
            found,
            [Some((7, 7.0)), None, Some((50, 5.0)), Some((2, 2.0))],
            "compacted: {compacted}"
        );
        let mut all = Vec::new();
        let end = shard.latest_of_type(KIND, |ordinal, value| {
            all.push((ordinal, newest(value)));
            ControlFlow::<()>::Continue(())
        });
        assert!(end.unwrap().is_continue());
        assert_eq!(all, [(0, (50, 5.0)), (1, (2, 2.0)), (3, (7, 7.0))]);
        shard.store().db().compact().unwrap();
    }
}

#[test]
fn a_bucket_far_denser_than_promised_stays_correct() {
    const SPAN_POINTS: i64 = 100 * 4096 / 4;
    let place = Place::new();
    let shard = shard(&place);
    // One bucket, 102,400 rows in fragments of 64, interleaved and with every tenth fragment sent again.
    let wide = SPAN_POINTS * 10;
    let mut index = 2;
    for part in 0..SPAN_POINTS / 64 {
        let points: Vec<_> = (0..64)
            .map(|row| row * (SPAN_POINTS / 64) + part)
            .map(|at| (at * 10, at as f64))
            .collect();
        let again = if part % 10 == 0 { 2 } else { 1 };
        for _ in 0..again {
            let block = Bytes::from(bucket::encode(&rows(&points)));
            let fragments = vec![Fragment {
                ordinal: 0,
                bucket_ns: 0,
                block,
            }];
            apply(
                &shard,
                index,
                &[write(
                    2,
                    WriteFragments {
                        type_number: KIND,
                        fragments,
                        ..Default::default()
                    },
                )],
            );
            index += 1;
        }
        if part % 400 == 0 {
            shard.store().flush().unwrap();
        }
    }
    let read_all = || {
        let mut all = Records::default();
        let end = shard.scan_device(KIND, 0, wide, 0, wide, |value| {
            all = bucket::decode(value, None).unwrap();
            for block in bucket::blocks(value) {
                assert!(block.unwrap().rows() <= tidemark_series::BLOCK_ROWS_MAX);
            }
            ControlFlow::<()>::Continue(())
        });
        assert!(end.unwrap().is_continue());
        all
    };
    let expected: Vec<i64> = (0..SPAN_POINTS).map(|at| at * 10).collect();
    assert_eq!(read_all().observed_at, expected);
    shard.store().db().compact().unwrap();
    let all = read_all();
    assert_eq!(all.observed_at, expected);
    assert_eq!(
        all.columns[0].values,
        Values::F64((0..SPAN_POINTS).map(|at| at as f64).collect())
    );
}

#[test]
fn bad_fragments_are_refused_and_leave_nothing() {
    let place = Place::new();
    let shard = shard(&place);
    apply(&shard, 2, &[write(2, write_of(&[(0, rows(&[(1, 1.0)]))]))]);
    let good = write_of(&[(0, rows(&[(2, 2.0)]))]);
    let with = |change: &dyn Fn(&mut WriteFragments)| {
        let mut bad = good.clone();
        bad.fragments.insert(0, fragments(1, &rows(&[(3, 3.0)])).remove(0));
        bad.producer = "p".to_owned();
        bad.sequence = 1;
        change(&mut bad);
        bad
    };
    let bads = [
        with(&|bad| bad.fragments[1].ordinal = 4),
        with(&|bad| bad.fragments[1].block = Bytes::from_static(b"no block")),
        with(&|bad| bad.fragments[1].block = Bytes::new()),
        with(&|bad| bad.fragments[1].bucket_ns += SPAN),
        with(&|bad| bad.fragments[1].block = [&good.fragments[0].block[..]; 2].concat().into()),
        with(&|bad| bad.fragments[1].block = good.fragments[0].block.slice(1..)),
        with(&|bad| {
            bad.latest = vec![Fragment {
                block: Bytes::from_static(b"no"),
                ..good.fragments[0].clone()
            }]
        }),
    ];
    let before = shard.digest().unwrap();
    for bad in bads {
        let answers = apply(&shard, 2, &[write(3, bad)]);
        let Some(applied::Result::Failure(failure)) = &answers[0].result else {
            panic!("{answers:?}")
        };
        assert_eq!(
            (failure.code, failure.reason.as_str()),
            (13, "BAD_FRAGMENT"),
            "{failure:?}"
        );
        assert_eq!(shard.digest().unwrap(), before);
    }
    apply(&shard, 3, &[write(3, good)]);
    assert_eq!(cells(&shard, 0, 0, 10), [(1, 1.0), (2, 2.0)]);
}

#[test]
fn devices_are_read_together_as_each_by_itself() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put_count(120)]);
    // Some have no points at all, some none in some buckets.
    let cells = |ordinal: u32| -> Vec<(i64, f64)> {
        let times = (0..6).map(|at| (at * 700 + i64::from(ordinal) * 13 % 2_000, f64::from(ordinal)));
        times.take((ordinal % 7) as usize).collect()
    };
    let all: Vec<_> = (0..120).filter(|o| o % 7 > 0).map(|o| (o, rows(&cells(o)))).collect();
    apply(&shard, 2, &[write(2, write_of(&all))]);
    shard.store().flush().unwrap();
    let check = |ordinals: &[u32]| {
        let mut together: Vec<Vec<Vec<u8>>> = vec![Vec::new(); ordinals.len()];
        let scanned = shard.scan_devices(KIND, ordinals, SPAN, 500, 4_000, |at, value| {
            together[at].push(value.to_vec());
            ControlFlow::<()>::Continue(())
        });
        assert!(scanned.unwrap().is_continue());
        for (ordinal, together) in ordinals.iter().zip(together) {
            let mut alone = Vec::new();
            let scanned = shard.scan_device(KIND, *ordinal, SPAN, 500, 4_000, |value| {
                alone.push(value.to_vec());
                ControlFlow::<()>::Continue(())
            });
            assert!(scanned.unwrap().is_continue());
            assert_eq!(together, alone, "device {ordinal} of {ordinals:?}");
        }
    };
    check(&(0..120).collect::<Vec<_>>());
    check(&(10..90).step_by(3).collect::<Vec<_>>());
    check(&(0..120).step_by(30).collect::<Vec<_>>());
    check(&(0..120).rev().collect::<Vec<_>>());
    check(&[5; 20]);
    let mut seen = 0;
    let scanned = shard.scan_devices(KIND, &(0..120).collect::<Vec<_>>(), SPAN, 0, 9_000, |_, _| {
        seen += 1;
        if seen < 5 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break("enough")
        }
    });
    assert_eq!((scanned.unwrap(), seen), (ControlFlow::Break("enough"), 5));
}
