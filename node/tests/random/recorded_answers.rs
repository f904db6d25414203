//! Promises, newest values, intervals, checks and joins of recorded series at their own times, lost, late and doubled as networks do it,
//! against a recomputation from the points.
//! Never here: aggregates (see `recorded`). Invariant: the recomputation knows nothing of the store.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::judged::Wrong;
use crate::common::random::seed;
use crate::common::recomputed::Look;
use crate::common::recordings::{LATENCY_S, Played, Said, VALUE, play};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, Value, joined_rows, v1};
use v1::query_intervals_request::Condition;
use v1::{JoinDirection, Kind, Quality};

/// A value as a number; labels by their place.
fn number(played: &Played, value: Value) -> f64 {
    match value {
        Value::F64(value) => value,
        Value::Enum(label) => {
            let labels = played.recording.labels.iter();
            labels.into_iter().position(|other| *other == label).unwrap() as f64
        }
        other => panic!("{other:?}"),
    }
}

/// Some time that is so long that promises can be judged, and not longer than needed.
fn some_time(played: &Played, random: &mut StdRng) -> (i64, i64) {
    let (from, to) = played.some_time(random);
    (from, to.min(from + 3_000 * played.interval_ns()))
}

fn gaps(points: &[i64], before: Option<i64>, (from, to): (i64, i64), interval: i64) -> Vec<v1::Gap> {
    let mut found = Vec::new();
    let mut gap = |from_ns: i64, to_ns: i64, open: bool| {
        let intervals = (to_ns - from_ns) as f64 / interval as f64;
        let missing = if open {
            intervals.floor()
        } else {
            intervals.round() - 1.0
        };
        if intervals > 1.5 {
            found.push(v1::Gap {
                from_ns,
                to_ns,
                missing: missing as u64,
                open,
            });
        }
    };
    let mut last = before.unwrap_or(from);
    for t in points {
        // What ends where the time begins is no gap of it.
        if *t > from {
            gap(last, *t, false);
        }
        last = *t;
    }
    if to > from {
        gap(last, to, true);
    }
    found
}

/// What a report says of a device, beside its gaps.
#[derive(Debug, PartialEq)]
struct Report {
    slots: (u64, u64),
    points: (u64, u64, u64),
    wrong: (u64, u64),
    duplicates: u64,
    offline: u64,
    availability: i64,
}

fn expected_report(played: &Played, device: &str, (from, to): (i64, i64)) -> (Report, Vec<v1::Gap>) {
    let interval = played.interval_ns();
    let slots = (to - from) / interval;
    let end = from + slots * interval;
    let ends = played.recording.kind == Kind::Increment;
    let inside = |t: i64| {
        if ends {
            from < t && t <= end
        } else {
            from <= t && t < end
        }
    };
    let said = &played.said[device];
    let measured = || said.iter().filter(|(_, said)| said.stated != Quality::Missing);
    let points: Vec<(i64, &Said)> = measured()
        .filter(|(t, _)| inside(**t))
        .map(|(t, said)| (*t, said))
        .collect();
    let slot = |t: i64| (t - from - i64::from(ends)).div_euclid(interval);
    let filled: BTreeSet<i64> = points.iter().map(|(t, _)| slot(*t)).collect();
    let in_time = points.iter().filter(|(t, said)| said.received_ns - t <= LATENCY_S * S);
    // What was said ten intervals before tells of values too.
    let still = played.recording.limits.flat.map_or(0, |(over_s, _)| over_s * S);
    let verdicts = played.verdicts(device, (from - still.max(10 * interval), to));
    let wrong = |what: Wrong| {
        verdicts
            .iter()
            .filter(|(t, wrong)| inside(**t) && **wrong == Some(what))
            .count() as u64
    };
    let alive = 3 * interval;
    let times: Vec<i64> = measured()
        .map(|(t, _)| *t)
        .filter(|t| *t <= end && (inside(*t) || *t <= from))
        .collect();
    let next = times.iter().skip(1).copied().chain([i64::MAX]);
    let there = times.iter().zip(next).map(|(t, next)| {
        let until = (t + alive).min(next).min(end);
        (until - (*t).max(from)).max(0)
    });
    // Who is there is judged at the very end of the time.
    let heard = said.range(..=to).next_back().map(|(t, _)| *t);
    let report = Report {
        slots: (slots as u64, filled.len() as u64),
        points: (points.len() as u64, points.len() as u64, in_time.count() as u64),
        wrong: (wrong(Wrong::Fail), wrong(Wrong::Suspect)),
        duplicates: said
            .iter()
            .filter(|(t, _)| inside(**t))
            .map(|(_, said)| said.again)
            .sum(),
        offline: u64::from(heard.is_none_or(|heard| to - heard > alive)),
        availability: there.sum::<i64>() / S,
    };
    // Gaps lie between points that count, however far back the first of these lies.
    let counting = played.counting(device, false).into_iter().map(|(t, _)| t);
    let before = counting.clone().rfind(|t| !inside(*t) && *t <= from);
    let inner: Vec<i64> = counting.filter(|t| inside(*t)).collect();
    (report, gaps(&inner, before, (from, end), interval))
}

async fn compare_promises(client: &Client, played: &Played, random: &mut StdRng, what: &str) {
    let device = played.any(random).to_owned();
    let (from, to) = some_time(played, random);
    let request = v1::GetQualityRequest {
        selector: of_devices(&[&device]),
        from_ns: from,
        to_ns: to,
        gaps: true,
        ..Default::default()
    };
    let answer = client.get_quality(request.clone()).await.unwrap();
    let (messages, _) = answer.collect().await.unwrap();
    let told = &messages[0].reports[0];
    let (expected, gaps) = expected_report(played, &device, (from, to));
    let length = expected.slots.0 as i64 * played.interval_ns() / S;
    let found = Report {
        slots: (told.slots_expected, told.slots_filled),
        points: (told.points, told.points_timed, told.points_in_time),
        wrong: (told.points_fail, told.points_suspect),
        duplicates: told.duplicates,
        offline: told.offline,
        availability: (told.availability_mean * length as f64).round() as i64,
    };
    let near = (found.availability - expected.availability).abs() <= 1;
    let found = Report {
        availability: if near {
            expected.availability
        } else {
            found.availability
        },
        ..found
    };
    assert_eq!(found, expected, "{what}: {request:?}");
    let share = if expected.slots.0 == 0 {
        0.0
    } else {
        expected.slots.1 as f64 / expected.slots.0 as f64
    };
    assert!((told.completeness_mean - share).abs() < 1e-9, "{what}: {request:?}");
    assert_eq!(told.gaps, gaps, "{what}: {request:?}");
}

async fn compare_newest(client: &Client, played: &Played, random: &mut StdRng, what: &str) {
    let device = played.any(random).to_owned();
    let (at, _) = played.some_time(random);
    let stale_after_ms = [0, played.interval_ns() / 2_000_000][random.random_range(0..2)];
    let request = v1::GetLatestRequest {
        selector: of_devices(&[&device]),
        at_ns: at,
        stale_after_ms,
        ..Default::default()
    };
    let answer = client.get_latest(request.clone()).await.unwrap();
    let (messages, _) = answer.collect().await.unwrap();
    let values = &messages[0].devices[0].values;
    let found = values.iter().map(|told| {
        let value = tidemark_client::value_at(told.value.as_ref().unwrap(), 0).unwrap();
        (told.observed_at_ns, number(played, value), told.stale)
    });
    let most = if stale_after_ms == 0 {
        3 * played.interval_ns()
    } else {
        stale_after_ms * 1_000_000
    };
    let newest = played.counting(&device, false).into_iter().rfind(|(t, _)| *t <= at);
    let expected = newest.map(|(t, value)| (t, value, at - t > most));
    assert_eq!(
        found.collect::<Vec<_>>(),
        Vec::from_iter(expected),
        "{what}: {request:?}"
    );
}

async fn compare_intervals(client: &Client, played: &Played, random: &mut StdRng, what: &str) {
    let device = played.any(random).to_owned();
    let span = played.some_time(random);
    let points = played.counting(&device, false);
    assert!(!points.is_empty(), "{what}: nothing counts");
    let threshold = points[random.random_range(0..points.len())].1;
    let max_gap_ms = [0, played.interval_ns() * 3 / 2_000_000][random.random_range(0..2)];
    let held = played.recording.kind == Kind::State;
    let condition = match played.recording.labels.get(threshold as usize) {
        Some(label) => Condition::State((*label).to_owned()),
        None => Condition::AtLeast(threshold),
    };
    let request = v1::QueryIntervalsRequest {
        selector: of_devices(&[&device]),
        property: VALUE.into(),
        from_ns: span.0,
        to_ns: span.1,
        condition: Some(condition),
        max_gap_ms,
        ..Default::default()
    };
    let answer = client.query_intervals(request.clone()).await.unwrap();
    let (messages, _) = answer.collect().await.unwrap();
    let found: Vec<v1::DeviceIntervals> = messages.into_iter().flat_map(|message| message.devices).collect();
    let intervals = found.iter().flat_map(|device| &device.intervals);
    let look = Look {
        ends: false,
        held,
        gap_ns: if max_gap_ms == 0 {
            3 * played.interval_ns()
        } else {
            max_gap_ms * 1_000_000
        },
        interval_ns: played.interval_ns(),
        over_ns: 0,
    };
    // Pieces of the way that are at or above the threshold: whole, to or from the crossing, or none of it.
    let above = |(from, to, a, b): &(i64, i64, f64, f64)| {
        let length = (to - from) as f64;
        match (held, *a >= threshold, *b >= threshold) {
            (true, ..) => {
                if *a == threshold {
                    length
                } else {
                    0.0
                }
            }
            (_, true, true) => length,
            (_, false, false) => 0.0,
            (_, true, false) => length * (threshold - a) / (b - a),
            (_, false, true) => length * (b - threshold) / (b - a),
        }
    };
    let pieces = look.pieces(&points, span);
    let total: f64 = pieces.iter().map(above).sum();
    let told: i64 = intervals
        .clone()
        .map(|interval| interval.to_ns - interval.from_ns)
        .sum();
    assert_eq!(
        told,
        found.iter().map(|device| device.total_ns).sum::<i64>(),
        "{what}: {request:?}"
    );
    let rounding = 2.0 * pieces.len() as f64 + total * 1e-12;
    assert!(
        (told as f64 - total).abs() <= rounding,
        "{what}: {request:?}: {told} ns, not {total}"
    );
    let times: Vec<i64> = intervals
        .flat_map(|interval| [interval.from_ns, interval.to_ns])
        .collect();
    assert!(
        times.is_sorted() && times.iter().all(|t| (span.0..=span.1).contains(t)),
        "{what}: {request:?}"
    );
}

async fn compare_checks(client: &Client, played: &Played, random: &mut StdRng, what: &str) -> usize {
    let device = played.any(random).to_owned();
    let (from, to) = played.some_time(random);
    let drop_suspect = random.random_bool(0.5);
    let request = v1::QueryRangeRequest {
        selector: of_devices(&[&device]),
        from_ns: from,
        to_ns: to,
        quality: Some(v1::QualityFilter {
            drop_failed: true,
            drop_suspect,
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = client.query_range(request.clone()).await.unwrap();
    let (messages, summary) = answer.collect().await.unwrap();
    let found = points(&messages)
        .into_iter()
        .map(|(_, t, _, value)| (t, number(played, value)));
    let counting = played.counting(&device, drop_suspect);
    let expected: Vec<_> = counting.into_iter().filter(|(t, _)| (from..to).contains(t)).collect();
    let found: Vec<(i64, f64)> = found.collect();
    let differ = found.iter().zip(&expected).find(|(a, b)| a != b);
    let same = differ.is_none() && found.len() == expected.len();
    assert!(
        same,
        "{what}: {request:?}: {} points, not {}: {differ:?}",
        found.len(),
        expected.len()
    );
    let all = played.said[&device].range(from..to).count();
    assert_eq!(
        summary.points_dropped as usize,
        all - expected.len(),
        "{what}: {request:?}"
    );
    all - expected.len()
}

async fn compare_joined(client: &Client, played: &Played, other: &Played, random: &mut StdRng, what: &str) -> usize {
    let device = played.any(random).to_owned();
    let (from, to) = played.some_time(random);
    let interval = other.interval_ns();
    let tolerance = [0, interval / 2, 40 * interval][random.random_range(0..3)];
    let directions = [JoinDirection::Backward, JoinDirection::Forward, JoinDirection::Nearest];
    let direction = directions[random.random_range(0..3)];
    let request = v1::QueryJoinRequest {
        selector: of_devices(&[&device]),
        from_ns: from,
        to_ns: to,
        right: vec![v1::JoinSide {
            selector: of_type(&other.device_type),
            direction: direction as i32,
            tolerance_ms: tolerance / 1_000_000,
            ..Default::default()
        }],
        drop_suspect: random.random_bool(0.2),
        ..Default::default()
    };
    let answer = client.query_join(request.clone()).await.unwrap();
    let (messages, _) = answer.collect().await.unwrap();
    let mut found: BTreeMap<i64, Vec<Option<(f64, i64)>>> = BTreeMap::new();
    for records in messages.iter().flat_map(|message| &message.joined) {
        for joined in joined_rows(records) {
            let values = joined
                .values
                .into_iter()
                .map(|value| value.map(|(value, t)| (number(other, value), t)));
            found.insert(joined.row.observed_at_ns, values.collect());
        }
    }
    let rights: Vec<_> = other
        .devices()
        .into_iter()
        .map(|id| other.counting(id, request.drop_suspect))
        .collect();
    let most = if tolerance == 0 { 3 * interval } else { tolerance };
    let belonging = |points: &Vec<(i64, f64)>, t: i64| {
        let fits = |u: i64| match direction {
            JoinDirection::Forward => u >= t,
            JoinDirection::Nearest => true,
            _ => u <= t,
        };
        let near = points.iter().filter(|(u, _)| fits(*u) && (u - t).abs() <= most);
        near.min_by_key(|(u, _)| ((u - t).abs(), *u))
            .map(|(u, value)| (*value, *u))
    };
    let left = played.counting(&device, request.drop_suspect);
    let left = left.into_iter().map(|(t, _)| t).filter(|t| (from..to).contains(t));
    let expected: BTreeMap<i64, Vec<_>> = left
        .map(|t| (t, rights.iter().map(|points| belonging(points, t)).collect()))
        .collect();
    let differ = found.iter().zip(&expected).find(|(a, b)| a != b);
    let same = differ.is_none() && found.len() == expected.len();
    assert!(
        same,
        "{what}: {request:?}: {} records, not {}: {differ:?}",
        found.len(),
        expected.len()
    );
    expected.values().flatten().filter(|value| value.is_some()).count()
}

#[tokio::test]
async fn answers_about_recordings_are_those_of_a_recomputation() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let all = play(&client, &mut random, &[]).await;
    let (mut dropped, mut joined) = (0, 0);
    for flushed in [false, true] {
        for round in 0..8 {
            for played in &all {
                let file = played.recording.file;
                let what = format!("seed {seed}, round {round}, flushed {flushed}, {file}");
                compare_promises(&client, played, &mut random, &what).await;
                compare_newest(&client, played, &mut random, &what).await;
                compare_intervals(&client, played, &mut random, &what).await;
                dropped += compare_checks(&client, played, &mut random, &what).await;
                // Recordings of the same place and time.
                let others: Vec<&Played> = all.iter().filter(|other| other.recording.file == file).collect();
                let other = others[random.random_range(0..others.len())];
                joined += compare_joined(&client, played, other, &mut random, &what).await;
            }
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
    assert!(
        dropped > 200 && joined > 1_000,
        "{dropped} points left out, {joined} values joined"
    );
}
