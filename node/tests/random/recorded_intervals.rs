//! When recorded series were beyond a threshold, or in a state, interval by interval, against a walk along their points.
//! Never here: which points count (see `common/judged`). Invariant: every interval is compared with all that it says, and none is
//! missing.

use std::collections::BTreeMap;

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seed;
use crate::common::recordings::{Played, VALUE, play, play_on};
use crate::recorded::derived;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, v1};
use v1::Kind;
use v1::query_intervals_request::Condition;

/// Crossings are told to the nanosecond, give or take what rounding does.
const ROUNDING_NS: i64 = 2;

/// What is asked of points, in numbers.
struct Walk {
    /// Which way is beyond: 1.0 is above, -1.0 below.
    sign: f64,
    threshold: f64,
    /// Values hold until the next one instead of going along lines.
    held: bool,
    gap_ns: i64,
    span: (i64, i64),
}

/// An interval as it should be told.
#[derive(Clone, Debug)]
struct Beyond {
    from_ns: i64,
    to_ns: i64,
    /// The points that it is made of.
    points: Vec<(i64, f64)>,
    unknown_after: bool,
}

/// What of intervals was seen.
#[derive(Debug, Default)]
struct Seen {
    ended: usize,
    unknown: usize,
    open: usize,
    single: usize,
    below: usize,
}

impl Walk {
    fn holds(&self, value: f64) -> bool {
        self.sign * value >= self.sign * self.threshold
    }

    /// Where the way between two points, one of which is beyond, meets the threshold.
    fn crossing(&self, (t, a): (i64, f64), (u, b): (i64, f64)) -> i64 {
        match self.held {
            true => u,
            false => t + ((u - t) as f64 * (self.threshold - a) / (b - a)).round() as i64,
        }
    }

    /// All intervals of points that are never too far apart, whenever they were.
    fn of_run(&self, run: &[(i64, f64)]) -> Vec<Beyond> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < run.len() {
            if !self.holds(run[at].1) {
                at += 1;
                continue;
            }
            let end = (at..run.len())
                .find(|next| !self.holds(run[*next].1))
                .unwrap_or(run.len());
            let before = at.checked_sub(1).map(|before| self.crossing(run[before], run[at]));
            let behind = run.get(end).map(|behind| self.crossing(run[end - 1], *behind));
            found.push(Beyond {
                from_ns: before.unwrap_or(run[at].0),
                to_ns: behind.unwrap_or(run[end - 1].0),
                points: run[at..end].to_vec(),
                unknown_after: behind.is_none(),
            });
            at = end;
        }
        found
    }

    /// The intervals that a time has a part of, not cut.
    fn intervals(&self, points: &[(i64, f64)]) -> Vec<Beyond> {
        let (from, to) = self.span;
        let runs = points.chunk_by(|a, b| b.0 - a.0 <= self.gap_ns);
        let mut all: Vec<Beyond> = runs.flat_map(|run| self.of_run(run)).collect();
        // A state that ends as the time begins is not of it; a value that reaches the threshold right then is.
        let held_on = |one: &Beyond| one.to_ns > from || (one.to_ns == from && (!self.held || one.unknown_after));
        all.retain(|one| one.from_ns < to && held_on(one));
        all
    }

    #[track_caller]
    fn check(&self, found: &[v1::Interval], points: &[(i64, f64)], what: &str, seen: &mut Seen) {
        let expected = self.intervals(points);
        assert_eq!(found.len(), expected.len(), "{what}: {found:#?}, not {expected:#?}");
        for (told, one) in found.iter().zip(&expected) {
            let what = format!("{what}: {told:?}, not {one:?}");
            let (from, to) = self.span;
            let near = |a: i64, b: i64| (a - b).abs() <= ROUNDING_NS;
            assert!(near(told.from_ns, one.from_ns.max(from)), "begin: {what}");
            assert!(near(told.to_ns, one.to_ns.min(to)), "end: {what}");
            let cut = one.to_ns > to;
            assert_eq!(told.open, cut, "open: {what}");
            assert_eq!(told.unknown_after, one.unknown_after && !cut, "unknown after: {what}");
            self.check_peak(told, one, &what);
            seen.open += usize::from(cut);
            seen.unknown += usize::from(told.unknown_after);
            seen.ended += usize::from(!cut && !told.unknown_after);
            seen.single += usize::from(told.from_ns == told.to_ns);
            seen.below += usize::from(self.sign < 0.0);
        }
    }

    /// The peak is the point that is furthest beyond, of those the first; where none was observed in the time, one of the others.
    fn check_peak(&self, told: &v1::Interval, one: &Beyond, what: &str) {
        let (from, to) = self.span;
        let inside = one.points.iter().filter(|(t, _)| (from..to).contains(t));
        let further =
            |a: &&(i64, f64), b: &&(i64, f64)| (self.sign * a.1).total_cmp(&(self.sign * b.1)).then(b.0.cmp(&a.0));
        let peak = inside.max_by(further);
        let told = (told.peak_at_ns, told.peak);
        match peak {
            Some(peak) => assert_eq!(told, *peak, "peak: {what}"),
            None => assert!(one.points.contains(&told), "peak of others: {what}"),
        }
    }
}

async fn compare(client: &Client, played: &Played, random: &mut StdRng, what: &str, seen: &mut Seen) {
    let span = played.some_time(random);
    let drop_suspect = random.random_bool(0.3);
    let whole_type = random.random_bool(0.4);
    let devices: Vec<&str> = match whole_type {
        true => played.devices(),
        false => vec![played.any(random)],
    };
    let counting: BTreeMap<&str, Vec<(i64, f64)>> = devices
        .iter()
        .map(|device| (*device, played.counting(device, drop_suspect)))
        .collect();
    let known: Vec<f64> = counting.values().flatten().map(|(_, value)| *value).collect();
    if known.is_empty() {
        return;
    }
    let threshold = known[random.random_range(0..known.len())] + [0.0, 0.0, 0.03][random.random_range(0..3)];
    let max_gap_ms = [0, 0, played.interval_ns() * 3 / 2_000_000][random.random_range(0..3)];
    let state = played.recording.kind == Kind::State;
    let condition = match played.recording.labels.get(threshold as usize) {
        Some(label) => Condition::State((*label).to_owned()),
        None if random.random_bool(0.5) => Condition::AtLeast(threshold),
        None => Condition::AtMost(threshold),
    };
    let request = v1::QueryIntervalsRequest {
        selector: match whole_type {
            true => of_type(&played.device_type),
            false => of_devices(&devices),
        },
        property: VALUE.into(),
        from_ns: span.0,
        to_ns: span.1,
        condition: Some(condition.clone()),
        max_gap_ms,
        drop_suspect,
        ..Default::default()
    };
    let what = format!("{what}: {request:?}");
    let answer = client.query_intervals(request).await.unwrap();
    let (messages, _) = answer.collect().await.unwrap();
    let told = messages.into_iter().flat_map(|message| message.devices);
    let mut found: BTreeMap<String, v1::DeviceIntervals> = told.map(|one| (one.device.clone(), one)).collect();
    let walk = Walk {
        sign: if matches!(condition, Condition::AtMost(_)) {
            -1.0
        } else {
            1.0
        },
        // A state is 1 where it is the one that is asked for, and others are 0.
        threshold: if state { 1.0 } else { threshold },
        held: state,
        gap_ns: if max_gap_ms == 0 {
            3 * played.interval_ns()
        } else {
            max_gap_ms * 1_000_000
        },
        span,
    };
    for (device, mut points) in counting {
        if state {
            let asked = threshold as i64;
            points
                .iter_mut()
                .for_each(|(_, value)| *value = f64::from(u8::from(*value as i64 == asked)));
        }
        let told = found.remove(device).unwrap_or_default();
        walk.check(&told.intervals, &points, &format!("{what}: {device}"), seen);
        let lengths = told.intervals.iter().map(|one| one.to_ns - one.from_ns);
        assert_eq!(told.total_ns, lengths.sum::<i64>(), "{what}: {device}");
    }
    assert!(found.is_empty(), "{what}: devices of nobody: {found:?}");
}

#[tokio::test]
async fn intervals_of_recordings_are_those_of_a_walk_along_their_points() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let mut all = play(&client, &mut random, &[]).await;
    all.extend(play_on(&client, &mut random, &derived(&[])).await);
    let mut seen = Seen::default();
    for flushed in [false, true] {
        for round in 0..10 {
            for played in &all {
                let file = played.recording.file;
                let what = format!("seed {seed}, round {round}, flushed {flushed}, {file}");
                compare(&client, played, &mut random, &what, &mut seen).await;
            }
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
    let least = [
        (seen.ended, 300),
        (seen.unknown, 100),
        (seen.open, 20),
        (seen.single, 5),
        (seen.below, 100),
    ];
    assert!(least.iter().all(|(count, least)| count >= least), "{seen:?}");
}
