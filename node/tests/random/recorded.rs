//! Aggregates of recorded series at their own times, lost, late and doubled as networks do it, against a recomputation from the points:
//! every function that is lawful, stepped, sliding and grouped; from points, and from rollups once there are some.
//! Never here: promises, intervals and joins (see `recorded_answers`), how questions are made (see `asked`). Invariant: the recomputation
//! knows nothing of the store.

use std::time::Duration;

use crate::asked::{Compared, compare, functions_of, some_question, told, windows};
use crate::common::columns::about;
use crate::common::derived::DERIVED;
use crate::common::fleet::*;
use crate::common::random::seed;
use crate::common::recordings::{Played, Stage, VALUE, play, play_on};
use crate::common::{TestCluster, eventually};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, is_filled, v1};
use tidemark_node::config::Tuning;
use v1::{FillMode, Function, Kind};

/// Makes rollups at once.
pub(crate) fn tuning() -> Tuning {
    Tuning {
        rollups_every: Duration::from_millis(50),
        rollups_after: Duration::ZERO,
        ..Tuning::default()
    }
}

/// Derived series with rollups of these lengths.
pub(crate) fn derived(rollups_s: &[u32]) -> Stage {
    Stage {
        recordings: &DERIVED,
        stem: "derived",
        rollups_s: vec![rollups_s.to_vec()],
        end_ns: None,
    }
}

fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => about(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

async fn one_series(client: &Client, request: v1::QueryAggregateRequest) -> v1::AggregateSeries {
    let messages = ask(client, request).await;
    let mut series: Vec<_> = messages.into_iter().flat_map(|message| message.series).collect();
    assert!(series.len() <= 1, "{series:?}");
    series.pop().unwrap_or_default()
}

async fn used(cluster: &TestCluster) -> u64 {
    cluster.metric(0, "tidemark_rollups_used_total").await
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_of_recordings_are_those_of_a_recomputation() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start_with(1, tuning()).await;
    let client = cluster.client().await;
    let mut all = play(&client, &mut random, &[3_600]).await;
    all.extend(play_on(&client, &mut random, &derived(&[3_600])).await);
    let mut compared = Compared::default();
    for restarted in [false, true] {
        for round in 0..10 {
            for played in &all {
                let file = played.recording.file;
                let what = format!("seed {seed}, round {round}, restarted {restarted}, {file}");
                let asked = some_question(played, &mut random);
                compare(&client, played, &asked, &what, &mut compared).await;
            }
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
        // Rain is asked for by hours until rollups answer.
        let rain = all
            .iter()
            .find(|played| played.recording.kind == Kind::Increment)
            .unwrap();
        let (from, to) = (rain.span.0 / DAY * DAY, rain.span.0 / DAY * DAY + 20 * DAY);
        let by_day = v1::QueryAggregateRequest {
            selector: of_devices(&rain.devices()),
            properties: vec![VALUE.into()],
            functions: vec![Function::Sum as i32],
            from_ns: from,
            to_ns: to,
            window: Some(v1::Window {
                step_ns: DAY,
                ..Default::default()
            }),
            ..Default::default()
        };
        eventually("rollups answer", || async {
            let before = used(&cluster).await;
            ask(&client, by_day.clone()).await;
            match used(&cluster).await > before {
                true => Ok(()),
                false => Err("none did".to_owned()),
            }
        })
        .await;
    }
    for kind in [Kind::Gauge, Kind::Mean, Kind::Increment, Kind::Counter, Kind::State] {
        compared.check(functions_of(kind), 3);
    }
}

/// What a bucket holds may end before a question begins in it; what comes in the next one is told nevertheless.
#[tokio::test]
async fn a_question_that_begins_behind_the_last_point_of_a_bucket_is_answered() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let hourly = v1::DeviceType {
        bucket_span_s: 3_600,
        ..device_type("hourly", 0)
    };
    client.apply_device_types(vec![hourly]).await.unwrap();
    client
        .register_devices(vec![device("h1", "hourly", &[])])
        .await
        .unwrap();
    let rows = [1, 61, 62, 63].map(|minute| ("h1", T0 + minute * MIN, 2.0));
    client.write(write(batch("hourly", "level", rows))).await.unwrap();
    let request = v1::QueryAggregateRequest {
        selector: of_devices(&["h1"]),
        properties: vec!["level".into()],
        functions: vec![Function::Integral as i32],
        from_ns: T0 + 30 * MIN,
        to_ns: T0 + 3 * HOUR,
        ..Default::default()
    };
    let series = one_series(&client, request).await;
    assert_eq!(
        told(&[], &series).into_values().collect::<Vec<_>>(),
        [vec![Some(240.0)]]
    );
}

/// Windows of devices together: the mean over those that saw enough.
async fn compare_areal(client: &Client, played: &Played, random: &mut StdRng, what: &str) -> usize {
    let (from, to) = played.some_time(random);
    let interval = played.interval_ns();
    let step = (interval * random.random_range(4..40)).max((to - from) / 300 / S * S);
    let share = [0.0, 0.5, 0.05][random.random_range(0..3)];
    let function = if played.recording.kind == Kind::Increment {
        Function::Sum
    } else {
        Function::Avg
    };
    let request = v1::QueryAggregateRequest {
        selector: of_type(&played.device_type),
        properties: vec![VALUE.into()],
        functions: vec![function as i32],
        from_ns: from,
        to_ns: to,
        window: Some(v1::Window {
            step_ns: step,
            ..Default::default()
        }),
        grouping: Some(v1::Grouping::default()),
        areal: Some(v1::Areal { min_coverage: share }),
        ..Default::default()
    };
    let series = one_series(client, request.clone()).await;
    let found = told(&[], &series);
    let look = played.look();
    let least = if share == 0.0 { 0.9 } else { share };
    let devices = played.devices().into_iter();
    let counting: Vec<_> = devices.map(|device| played.counting(device, false)).collect();
    let mut compared = 0;
    for window in windows((from, to), step, 1) {
        let promised = ((window.1 - window.0) / interval) as f64;
        let (mut values, mut too_few, mut none) = (Vec::new(), 0, 0);
        for points in &counting {
            let filled = look.slots_filled(points, window) as f64;
            match look.answer(function, points, window) {
                _ if look.inside(points, window).is_empty() => none += 1,
                Some(value) if filled >= least * promised => values.push(value),
                _ => too_few += 1,
            }
        }
        let used = values.len() as u64;
        let expected = (used > 0).then(|| values.iter().sum::<f64>() / used as f64);
        let place = series.start_ns.iter().position(|start| *start == window.0);
        let told = place.and_then(|place| series.areal.get(place));
        if let Some(told) = told {
            let told = (told.used, told.too_few_points, told.no_points);
            assert_eq!(told, (used, too_few, none), "{what}: {request:?}: {window:?}");
        }
        let found = found.get(&window).and_then(|values| values[0]);
        assert!(
            same(found, expected),
            "{what}: {request:?}: {window:?}: {found:?}, not {expected:?}"
        );
        compared += usize::from(expected.is_some());
    }
    compared
}

/// Windows without points, filled from those before and behind.
async fn compare_filled(client: &Client, played: &Played, random: &mut StdRng, what: &str) -> usize {
    let (from, to) = played.some_time(random);
    let device = played.any(random).to_owned();
    let step = (played.interval_ns() * random.random_range(1..4)).max((to - from) / 300 / S * S);
    let mode = [FillMode::Previous, FillMode::Linear][random.random_range(0..2)];
    let most = [0, 5 * step, 30 * step][random.random_range(0..3)];
    let request = v1::QueryAggregateRequest {
        selector: of_devices(&[&device]),
        properties: vec![VALUE.into()],
        functions: vec![Function::Max as i32],
        from_ns: from,
        to_ns: to,
        window: Some(v1::Window {
            step_ns: step,
            ..Default::default()
        }),
        fill: Some(v1::Fill {
            mode: mode as i32,
            max_gap_ms: most / 1_000_000,
            constant: 0.0,
        }),
        ..Default::default()
    };
    let series = one_series(client, request.clone()).await;
    let (found, windows) = (told(&[], &series), windows((from, to), step, 1));
    assert_eq!(series.start_ns.len(), windows.len(), "{what}: {request:?}");
    let look = played.look();
    let points = played.counting(&device, false);
    let own: Vec<Option<f64>> = windows
        .iter()
        .map(|w| look.answer(Function::Max, &points, *w))
        .collect();
    let near = |a: usize, b: usize| most == 0 || windows[b].0 - windows[a].0 <= most;
    let mut filled = 0;
    for at in 0..windows.len() {
        let before = (0..at).rev().find(|other| own[*other].is_some());
        let behind = (at + 1..windows.len()).find(|other| own[*other].is_some());
        let expected = own[at].or_else(|| match mode {
            FillMode::Previous => own[before.filter(|before| near(*before, at))?],
            _ => {
                let (a, b) = before.zip(behind).filter(|(a, b)| near(*a, *b))?;
                let share = (windows[at].0 - windows[a].0) as f64 / (windows[b].0 - windows[a].0) as f64;
                Some(own[a]? * (1.0 - share) + own[b]? * share)
            }
        });
        let told = found[&windows[at]][0];
        assert!(
            same(told, expected),
            "{what}: {request:?}: {:?}: {told:?}, not {expected:?}",
            windows[at]
        );
        assert_eq!(
            is_filled(&series, at),
            own[at].is_none(),
            "{what}: {request:?}: {:?}",
            windows[at]
        );
        filled += usize::from(own[at].is_none() && expected.is_some());
    }
    filled
}

#[tokio::test]
async fn areas_and_gaps_of_recordings_are_those_of_a_recomputation() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let mut all = play(&client, &mut random, &[]).await;
    all.extend(play_on(&client, &mut random, &derived(&[3_600])).await);
    let (mut areal, mut filled) = (0, 0);
    for round in 0..10 {
        for played in &all {
            let what = format!("seed {seed}, round {round}, {}", played.recording.file);
            if matches!(played.recording.kind, Kind::Gauge | Kind::Mean | Kind::Increment) {
                areal += compare_areal(&client, played, &mut random, &what).await;
                filled += compare_filled(&client, played, &mut random, &what).await;
            }
        }
    }
    assert!(
        areal > 50 && filled > 50,
        "{areal} areal values and {filled} filled ones were compared"
    );
}
