//! Newest values and checks of recorded series at their own times, lost, late and doubled as networks do it, with values that fail by
//! themselves, beside their neighbours, or by standing still, against a recomputation from the points.
//! Never here: aggregates (see `recorded`), intervals, promises, joins (each in a file of its own). Invariant: the recomputation knows
//! nothing of the store.

use crate::asked::number;
use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seed;
use crate::common::recordings::{Played, play, play_on};
use crate::recorded::derived;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, v1};
use v1::Quality;

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
        (told.observed_at_ns, number(played.recording.labels, value), told.stale)
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
        .map(|(_, t, _, value)| (t, number(played.recording.labels, value)));
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

#[tokio::test]
async fn answers_about_recordings_are_those_of_a_recomputation() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let mut all = play(&client, &mut random, &[]).await;
    all.extend(play_on(&client, &mut random, &derived(&[])).await);
    let (mut dropped, mut below, mut none) = (0, 0, 0);
    for played in &all {
        let limits = &played.recording.limits;
        let said = || played.said.values().flat_map(|said| said.values());
        below += said()
            .filter(|said| limits.min.is_some_and(|min| said.value < min))
            .count();
        none += said()
            .filter(|said| played.recording.missing.contains(&said.value) && said.stated == Quality::Missing)
            .count();
    }
    assert!(
        below > 3 && none > 3,
        "{below} values below their range, {none} that are none"
    );
    for flushed in [false, true] {
        for round in 0..8 {
            for played in &all {
                let file = played.recording.file;
                let what = format!("seed {seed}, round {round}, flushed {flushed}, {file}");
                compare_newest(&client, played, &mut random, &what).await;
                dropped += compare_checks(&client, played, &mut random, &what).await;
            }
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
    assert!(dropped > 200, "{dropped} points left out");
}
