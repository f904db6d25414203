//! Recorded series with rollups of every length, alone and mixed, against a recomputation from the points: as they are made, after late
//! and corrected points, and once they are made again.
//! Never here: what a rollup holds (see `shard/rollups`). Invariant: an answer is compared whether rollups gave it or not, and each length
//! gave some.

use crate::asked::{Asked, Compared, Span, Whose, answered, ask_for, compare, functions_of};
use crate::common::derived::DERIVED;
use crate::common::fleet::*;
use crate::common::random::seed;
use crate::common::recordings::{Played, RECORDINGS, Recording, Stage, VALUE, play_on};
use crate::common::{TestCluster, eventually};
use crate::recorded::tuning;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, v1};
use v1::Function::{self, *};

const FIVE: u32 = 300;
const HOURLY: u32 = 3_600;
const DAILY: u32 = 86_400;
/// What types keep, some of them each.
const KEPT: [&[u32]; 7] = [
    &[FIVE],
    &[HOURLY],
    &[DAILY],
    &[FIVE, HOURLY],
    &[FIVE, DAILY],
    &[HOURLY, DAILY],
    &[FIVE, HOURLY, DAILY],
];
/// Windows of a question at most.
const WINDOWS_MAX: i64 = 120;

/// A recording, and the rollups that its type keeps.
struct Rolled {
    played: Played,
    kept: Vec<u32>,
}

async fn play_rolled(
    client: &Client,
    random: &mut StdRng,
    recordings: &'static [Recording],
    stem: &'static str,
) -> Vec<Rolled> {
    let mut rollups_s: Vec<Vec<u32>> = KEPT.iter().map(|kept| kept.to_vec()).collect();
    rollups_s.shuffle(random);
    let stage = Stage {
        recordings,
        stem,
        rollups_s,
        end_ns: None,
    };
    let all = play_on(client, random, &stage).await.into_iter();
    let kept = stage.rollups_s.iter().cycle().cloned();
    all.zip(kept).map(|(played, kept)| Rolled { played, kept }).collect()
}

/// Whether rollups have what a function asks.
fn is_rolled(function: Function) -> bool {
    !matches!(function, Stddev | Percentile | Histogram | RisePerHour | RisePerHourMax)
}

/// Functions that rollups answer, over windows that are made of some length: mostly whole ones.
fn some_question(rolled: &Rolled, random: &mut StdRng) -> Asked {
    let played = &rolled.played;
    let length = i64::from(rolled.kept[random.random_range(0..rolled.kept.len())]) * S;
    let step = length * random.random_range(1..4);
    let (from, to) = played.some_time(random);
    let to = to.min(from + (WINDOWS_MAX - 3) * step);
    let range = match random.random_range(0..4) {
        0 => (from, to),
        1 => (from.div_euclid(length) * length, to),
        _ => (from.div_euclid(step) * step, (to.div_euclid(step) + 1) * step),
    };
    let span = match random.random_range(0..6) {
        0 => Span::whole(range),
        1 => Span::of_steps(range, step, 2),
        _ => Span::of_steps(range, step, 1),
    };
    let all: Vec<Function> = functions_of(played.recording.kind)
        .iter()
        .copied()
        .filter(|f| is_rolled(*f))
        .collect();
    let mut functions: Vec<Function> = all.iter().copied().filter(|_| random.random_bool(0.4)).collect();
    functions.push(all[random.random_range(0..all.len())]);
    let whose = Whose::any(played, random);
    ask_for(played, random, whose, functions, span)
}

/// Waits until the longest rollups of each type answer.
async fn wait_for_rollups(client: &Client, all: &[Rolled]) {
    for Rolled { played, kept } in all {
        let length = i64::from(*kept.last().unwrap()) * S;
        let (from, to) = (played.span.0.div_euclid(length), played.span.1.div_euclid(length) + 1);
        let request = v1::QueryAggregateRequest {
            selector: of_type(&played.device_type),
            properties: vec![VALUE.into()],
            functions: vec![Count as i32],
            from_ns: from * length,
            to_ns: to * length,
            ..Default::default()
        };
        eventually("rollups answer", || async {
            let (_, work) = answered(client, &request).await;
            match work.rollup_windows > 0 && work.points_decoded == 0 {
                true => Ok(()),
                false => Err(format!("{} with {kept:?}: {work:?}", played.device_type)),
            }
        })
        .await;
    }
}

async fn compare_all(client: &Client, random: &mut StdRng, all: &[Rolled], what: &str, of_length: &mut [u64; 3]) {
    for rolled in all {
        let asked = some_question(rolled, random);
        let mut compared = Compared::default();
        compare(client, &rolled.played, &asked, what, &mut compared).await;
        // The longest of those that windows are made of answers.
        let made_of = |length_s: &&u32| {
            let length = i64::from(**length_s) * S;
            let step = asked.request.window.as_ref().map_or(0, |window| window.step_ns);
            step % length == 0
        };
        let longest = rolled.kept.iter().rev().find(made_of);
        let place = longest.and_then(|longest| [FIVE, HOURLY, DAILY].iter().position(|other| other == longest));
        if let Some(place) = place {
            of_length[place] += compared.rollups;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_with_rollups_answer_as_their_points_do() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start_with(1, tuning()).await;
    let client = cluster.client().await;
    let mut all = play_rolled(&client, &mut random, &RECORDINGS, "recorded").await;
    all.extend(play_rolled(&client, &mut random, &DERIVED, "derived").await);
    let mut of_length = [0; 3];
    for part in ["as they are made", "changed", "restarted"] {
        for round in 0..6 {
            let what = format!("seed {seed}, round {round}, {part}");
            compare_all(&client, &mut random, &all, &what, &mut of_length).await;
            if round == 2 {
                wait_for_rollups(&client, &all).await;
            }
        }
        for Rolled { played, .. } in &mut all {
            let device = played.any(&mut random).to_owned();
            let from = random.random_range(played.span.0..=played.span.1);
            // A device may have said nothing since.
            let from = from.min(*played.said[&device].last_key_value().unwrap().0);
            played.amend(&client, &mut random, &device, from).await;
        }
        // At once, while some are gone and some are not.
        let what = format!("seed {seed}, {part}, amended");
        compare_all(&client, &mut random, &all, &what, &mut of_length).await;
        if part == "changed" {
            cluster.stop(0).await;
            cluster.restart(0).await;
        }
    }
    assert!(
        of_length.iter().all(|used| *used > 3),
        "rollups used by length: {of_length:?}"
    );
}
