//! Recorded series joined by time with others of the same time, in every direction, strictly or not, however far, and with
//! those that stand nearest or bear the same tags, against a recomputation from the points.
//! Never here: made series (see `joins`). Invariant: the recomputation looks at every point of every device for every record.

use std::collections::BTreeMap;

use crate::asked::number;
use crate::common::TestCluster;
use crate::common::derived::DERIVED;
use crate::common::fleet::*;
use crate::common::placed::{TAGS, place_of, tag_of};
use crate::common::random::seed;
use crate::common::recordings::{Played, Stage, play_on, play_until};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, joined_rows, v1};
use v1::JoinDirection;

/// By device and time of a record: the device of each column, and what belongs to the record.
type Joined = BTreeMap<(String, i64), Vec<(String, Option<(f64, i64)>)>>;

fn some_side(other: &Played, random: &mut StdRng) -> v1::JoinSide {
    let interval = other.interval_ns();
    let directions = [JoinDirection::Backward, JoinDirection::Forward, JoinDirection::Nearest];
    let however_far = random.random_bool(0.25);
    let tolerance = [0, interval / 2, interval, 40 * interval][random.random_range(0..4)];
    let matching = v1::JoinMatch {
        tags: match random.random_range(0..4) {
            0 => vec![TAGS[0].to_owned()],
            1 => TAGS.map(str::to_owned).to_vec(),
            _ => vec![],
        },
        nearest: [0, 0, 1, 2, 5][random.random_range(0..5)],
        ..Default::default()
    };
    v1::JoinSide {
        selector: of_type(&other.device_type),
        direction: directions[random.random_range(0..3)] as i32,
        tolerance_ms: if however_far { 0 } else { tolerance / 1_000_000 },
        however_far,
        strictly: random.random_bool(0.4),
        r#match: random.random_bool(0.7).then_some(matching),
        ..Default::default()
    }
}

/// Devices of the right that belong to one of the left, by their names.
fn belonging<'p>(side: &v1::JoinSide, left: &str, other: &'p Played) -> Vec<&'p str> {
    let matching = side.r#match.clone().unwrap_or_default();
    let agrees = |device: &&str| matching.tags.iter().all(|key| tag_of(device, key) == tag_of(left, key));
    let mut devices: Vec<&str> = other.devices().into_iter().filter(agrees).collect();
    devices.sort_unstable();
    if matching.nearest > 0 {
        let far = |device: &str| (place_of(device) - place_of(left)).abs();
        // Of equally near ones the first by name: sorting keeps them so.
        devices.sort_by(|a, b| far(a).total_cmp(&far(b)));
        devices.truncate(matching.nearest as usize);
        devices.sort_unstable();
    }
    devices
}

/// What belongs to a time.
fn value_at(points: &[(i64, f64)], side: &v1::JoinSide, interval: i64, t: i64) -> Option<(f64, i64)> {
    let most = match (side.however_far, side.tolerance_ms) {
        (true, _) => i64::MAX,
        (false, 0) => 3 * interval,
        (false, ms) => ms * 1_000_000,
    };
    let fits = |u: i64| {
        let direction = match side.direction() {
            JoinDirection::Forward => u >= t,
            JoinDirection::Nearest => true,
            _ => u <= t,
        };
        direction && (u - t).abs() <= most && !(side.strictly && u == t)
    };
    let near = points.iter().filter(|(u, _)| fits(*u));
    near.min_by_key(|(u, _)| ((u - t).abs(), *u))
        .map(|(u, value)| (*value, *u))
}

fn told(messages: &[v1::QueryJoinResponse], labels: &[&str]) -> Joined {
    let mut found = Joined::new();
    for records in messages.iter().flat_map(|message| &message.joined) {
        for joined in joined_rows(records) {
            let devices = records.columns.iter().map(|column| column.device.clone());
            let values = joined
                .values
                .into_iter()
                .map(|value| value.map(|(value, t)| (number(labels, value), t)));
            let key = (joined.row.device.to_owned(), joined.row.observed_at_ns);
            found.insert(key, devices.zip(values).collect());
        }
    }
    found
}

/// Asks for a join; returns how many values belonged to records.
async fn compare(client: &Client, played: &Played, other: &Played, random: &mut StdRng, what: &str) -> usize {
    let (from, to) = played.some_time(random);
    let whole_type = random.random_bool(0.3);
    let lefts = match whole_type {
        true => played.devices(),
        false => vec![played.any(random)],
    };
    let side = some_side(other, random);
    let request = v1::QueryJoinRequest {
        selector: match whole_type {
            true => of_type(&played.device_type),
            false => of_devices(&lefts),
        },
        from_ns: from,
        to_ns: to,
        right: vec![side.clone()],
        drop_suspect: random.random_bool(0.2),
        ..Default::default()
    };
    let what = format!("{what}: {request:?}");
    let answer = client.query_join(request.clone()).await.unwrap();
    let (messages, _) = answer.collect().await.unwrap();
    let found = told(&messages, other.recording.labels);
    let rights: BTreeMap<&str, Vec<(i64, f64)>> = other
        .devices()
        .into_iter()
        .map(|id| (id, other.counting(id, request.drop_suspect)))
        .collect();
    let mut expected = Joined::new();
    for left in lefts {
        let devices = belonging(&side, left, other);
        let records = played.counting(left, request.drop_suspect).into_iter();
        for t in records.map(|(t, _)| t).filter(|t| (from..to).contains(t)) {
            let value = |device: &&str| {
                let value = value_at(&rights[*device], &side, other.interval_ns(), t);
                ((*device).to_owned(), value)
            };
            expected.insert((left.to_owned(), t), devices.iter().map(value).collect());
        }
    }
    let differ = found.iter().zip(&expected).find(|(a, b)| a != b);
    assert!(
        differ.is_none() && found.len() == expected.len(),
        "{what}: {} records, not {}: {differ:?}",
        found.len(),
        expected.len()
    );
    let values = expected.values().flatten();
    values.filter(|(_, value)| value.is_some()).count()
}

#[tokio::test]
async fn joins_of_recordings_are_those_of_a_recomputation() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    // All of them end together, so that they are of one time.
    let mut all = play_until(&client, &mut random, &[], Some(T0)).await;
    let derived = Stage {
        recordings: &DERIVED,
        stem: "derived",
        rollups_s: vec![vec![]],
        end_ns: Some(T0),
    };
    all.extend(play_on(&client, &mut random, &derived).await);
    let mut values = 0;
    for flushed in [false, true] {
        for round in 0..6 {
            for played in &all {
                let file = played.recording.file;
                let what = format!("seed {seed}, round {round}, flushed {flushed}, {file}");
                let other = &all[random.random_range(0..all.len())];
                values += compare(&client, played, other, &mut random, &what).await;
            }
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
    assert!(values > 200, "{values} values joined");
}
