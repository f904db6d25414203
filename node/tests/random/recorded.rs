//! Aggregates of recorded series at their own times, lost, late and doubled as networks do it, against a recomputation from the points;
//! from points, and from rollups once there are some.
//! Never here: promises, intervals and joins (see `recorded_answers`). Invariant: the recomputation knows nothing of the store.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::fleet::*;
use crate::common::random::seed;
use crate::common::recomputed::Look;
use crate::common::recordings::{Played, VALUE, play};
use crate::common::{TestCluster, eventually};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, Value, answers_of, is_filled, v1};
use tidemark_node::config::Tuning;
use v1::{FillMode, Function, Kind};

/// Makes rollups at once.
fn tuning() -> Tuning {
    Tuning {
        rollups_every: Duration::from_millis(50),
        rollups_after: Duration::ZERO,
        ..Tuning::default()
    }
}

fn functions_of(kind: Kind) -> &'static [Function] {
    use Function as F;
    match kind {
        Kind::Gauge => &[
            F::Count,
            F::Min,
            F::Max,
            F::Avg,
            F::First,
            F::Last,
            F::Spread,
            F::Stddev,
            F::Delta,
            F::Integral,
            F::TimeWeightedAvg,
            F::RisePerHour,
            F::RisePerHourMax,
        ],
        Kind::Increment => &[F::Count, F::Sum, F::Max],
        Kind::Counter => &[F::Count, F::First, F::Last, F::Increase, F::Rate],
        other => panic!("{other:?}"),
    }
}

fn number(value: Value) -> f64 {
    match value {
        Value::F64(value) => value,
        Value::I64(value) => value as f64,
        other => panic!("{other:?}"),
    }
}

/// Windows of a question: borders of a grid, cut at the range; each so many steps long, those that slide not cut at their begin.
fn windows((from, to): (i64, i64), step: i64, steps: i64) -> Vec<(i64, i64)> {
    let grid = from.div_euclid(step)..=(to - 1).div_euclid(step);
    let window = |at: i64| {
        let start = (at + 1 - steps) * step;
        let start = if steps == 1 { start.max(from) } else { start };
        (start, ((at + 1) * step).min(to))
    };
    grid.map(window).collect()
}

/// A question about one recording, and what it takes to answer it.
struct Asked {
    request: v1::QueryAggregateRequest,
    windows: Vec<(i64, i64)>,
    look: Look,
    functions: Vec<Function>,
}

fn some_question(played: &Played, random: &mut StdRng) -> Asked {
    let (from, to) = played.some_time(random);
    let interval = played.interval_ns();
    let step = match random.random_range(0..3) {
        // What rollups are kept of.
        0 => HOUR * random.random_range(1..=12),
        1 => interval * random.random_range(2..9),
        _ => (to - from) / S / random.random_range(1..20) * S + S,
    };
    let step = step.max((to - from) / 400 / HOUR * HOUR + HOUR * i64::from((to - from) / step > 400));
    let steps = [1, 1, 3][random.random_range(0..3)];
    let all = functions_of(played.recording.kind);
    let mut functions: Vec<Function> = all.iter().copied().filter(|_| random.random_bool(0.4)).collect();
    functions.push(Function::Count);
    let max_gap_ms = [0, interval * 3 / 2_000_000, interval / 100_000][random.random_range(0..3)];
    let look = Look {
        ends: played.recording.kind == Kind::Increment,
        held: false,
        gap_ns: if max_gap_ms == 0 {
            3 * interval
        } else {
            max_gap_ms * 1_000_000
        },
        interval_ns: interval,
        over_ns: interval * random.random_range(1..10),
    };
    let request = v1::QueryAggregateRequest {
        properties: vec![VALUE.into()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        from_ns: from,
        to_ns: to,
        window: Some(v1::Window {
            step_ns: step,
            length_ns: step * steps,
            ..Default::default()
        }),
        max_gap_ms,
        drop_suspect: random.random_bool(0.3),
        rise_over_ms: look.over_ns / 1_000_000,
        ..Default::default()
    };
    Asked {
        windows: windows((from, to), step, steps),
        request,
        look,
        functions,
    }
}

/// Values of a series by window and function.
fn told(series: &v1::AggregateSeries) -> BTreeMap<(i64, i64), Vec<Option<f64>>> {
    let mut columns: Vec<_> = series.columns.iter().map(answers_of).collect();
    let bounds = series.start_ns.iter().copied().zip(series.end_ns.iter().copied());
    bounds
        .map(|bounds| {
            let values = columns.iter_mut().map(|column| column.next().flatten().map(number));
            (bounds, values.collect())
        })
        .collect()
}

fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs().max(1.0),
        (a, b) => a.is_none() && b.is_none(),
    }
}

async fn one_series(client: &Client, request: v1::QueryAggregateRequest) -> v1::AggregateSeries {
    let messages = ask(client, request).await;
    let mut series: Vec<_> = messages.into_iter().flat_map(|message| message.series).collect();
    assert!(series.len() <= 1, "{series:?}");
    series.pop().unwrap_or_default()
}

/// Asks about one device, and compares every window; returns how many had points.
async fn compare(client: &Client, played: &Played, random: &mut StdRng, what: &str) -> usize {
    let device = played.any(random).to_owned();
    let asked = some_question(played, random);
    let request = v1::QueryAggregateRequest {
        selector: of_devices(&[&device]),
        ..asked.request
    };
    let points = played.counting(&device, request.drop_suspect);
    let found = told(&one_series(client, request.clone()).await);
    let mut compared = 0;
    for window in &asked.windows {
        for (at, function) in asked.functions.iter().enumerate() {
            let expected = asked.look.answer(*function, &points, *window);
            let found = found.get(window).and_then(|values| values[at]);
            let found = if *function == Function::Count {
                found.or(Some(0.0))
            } else {
                found
            };
            assert!(
                same(found, expected),
                "{what}: {request:?}: {function:?} of {window:?} is {found:?}, not {expected:?}"
            );
            compared += usize::from(expected.is_some_and(|value| value != 0.0));
        }
    }
    assert!(
        found.keys().all(|window| asked.windows.contains(window)),
        "{what}: {request:?}"
    );
    compared
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
    let all = play(&client, &mut random, &[3_600]).await;
    let numbers: Vec<&Played> = all
        .iter()
        .filter(|played| played.recording.kind != Kind::State)
        .collect();
    for restarted in [false, true] {
        let mut compared = 0;
        for round in 0..12 {
            for played in &numbers {
                let file = played.recording.file;
                let what = format!("seed {seed}, round {round}, restarted {restarted}, {file}");
                compared += compare(&client, played, &mut random, &what).await;
            }
        }
        assert!(compared > 1_000, "{compared} values were compared");
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
}

#[tokio::test]
async fn states_of_a_plant_are_those_of_a_recomputation() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let all = play(&client, &mut random, &[]).await;
    let plant = all.iter().find(|played| played.recording.kind == Kind::State).unwrap();
    let device = plant.any(&mut random).to_owned();
    let labels = plant.recording.labels;
    let points = plant.counting(&device, false);
    let mut transitions_seen = 0.0;
    for round in 0..60 {
        let (from, to) = plant.some_time(&mut random);
        let request = v1::QueryAggregateRequest {
            selector: of_devices(&[&device]),
            properties: vec![VALUE.into()],
            functions: vec![
                Function::Duration as i32,
                Function::Transitions as i32,
                Function::Count as i32,
            ],
            states: labels.iter().map(ToString::to_string).collect(),
            from_ns: from,
            to_ns: to,
            ..Default::default()
        };
        let what = format!("seed {seed}, round {round}: {request:?}");
        let found = told(&one_series(&client, request).await).remove(&(from, to));
        let look = Look {
            ends: false,
            held: true,
            gap_ns: 3 * plant.interval_ns(),
            interval_ns: plant.interval_ns(),
            over_ns: 0,
        };
        let pieces = look.pieces(&points, (from, to));
        let in_state = |state: usize| -> f64 {
            let of_it = pieces.iter().filter(|(.., value, _)| *value == state as f64);
            of_it.map(|(from, to, ..)| (to - from) as f64 / S as f64).sum()
        };
        let near = points.windows(2).filter(|pair| pair[1].0 - pair[0].0 <= look.gap_ns);
        let changed = near.filter(|pair| pair[0].1 != pair[1].1);
        let transitions = changed.filter(|pair| (from..to).contains(&pair[1].0)).count() as f64;
        let count = look.inside(&points, (from, to)).len() as f64;
        let Some(found) = found else {
            assert!(count == 0.0 && pieces.is_empty(), "{what}");
            continue;
        };
        for state in 0..labels.len() {
            let (found, expected) = (found[state].unwrap_or(0.0), in_state(state));
            assert!(
                (found - expected).abs() < 1e-6,
                "{what}: {found} s {}, not {expected}",
                labels[state]
            );
        }
        let told = found[labels.len()].unwrap_or(0.0);
        assert_eq!((told, found[labels.len() + 1]), (transitions, Some(count)), "{what}");
        transitions_seen += transitions;
    }
    assert!(transitions_seen > 10.0, "{transitions_seen} transitions");
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
    assert_eq!(told(&series).into_values().collect::<Vec<_>>(), [vec![Some(240.0)]]);
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
    let found = told(&series);
    let look = Look {
        ends: played.recording.kind == Kind::Increment,
        held: false,
        gap_ns: 0,
        interval_ns: interval,
        over_ns: 0,
    };
    let least = if share == 0.0 { 0.9 } else { share };
    let mut compared = 0;
    for window in windows((from, to), step, 1) {
        let promised = ((window.1 - window.0) / interval) as f64;
        let (mut values, mut too_few, mut none) = (Vec::new(), 0, 0);
        for device in played.devices() {
            let points = played.counting(device, false);
            let filled = look.slots_filled(&points, window) as f64;
            match look.answer(function, &points, window) {
                _ if look.inside(&points, window).is_empty() => none += 1,
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
    let (found, windows) = (told(&series), windows((from, to), step, 1));
    assert_eq!(series.start_ns.len(), windows.len(), "{what}: {request:?}");
    let look = Look {
        ends: played.recording.kind == Kind::Increment,
        held: false,
        gap_ns: 0,
        interval_ns: played.interval_ns(),
        over_ns: 0,
    };
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
    let all = play(&client, &mut random, &[]).await;
    let (mut areal, mut filled) = (0, 0);
    for round in 0..10 {
        for played in &all {
            let what = format!("seed {seed}, round {round}, {}", played.recording.file);
            if matches!(played.recording.kind, Kind::Gauge | Kind::Increment) {
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
