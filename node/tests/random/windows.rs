//! Random questions about windows of every kind, gaps told and filled, rises and areal values, against a recomputation from the
//! points. Never here: known answers (see `windows`). Invariant: the recomputation shares no code with the node; calendars are
//! lists of known borders here.

use std::collections::BTreeMap;

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::*;
use crate::common::recomputed::Look;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Value, answers_of, is_filled, v1};
use v1::FillMode;
use v1::Function::{self, Avg, Count, RisePerHour, RisePerHourMax, Sum};

/// 2024-04-06 12:00, three hours before the clock of Lord Howe is put back by half an hour.
const NOON: i64 = 1_712_404_800 * S;
/// Minutes since noon at which hours begin there.
const LORD_HOWE: [i64; 16] = [
    -240, -180, -120, -60, 0, 60, 120, 210, 270, 330, 390, 450, 510, 570, 630, 690,
];

/// A question, as the recomputation sees it.
struct Asked {
    windows: Vec<(i64, i64)>,
    /// Windows are (s, e].
    ends: bool,
    functions: Vec<Function>,
    over_ns: i64,
    min_coverage: f64,
    fill: Option<(FillMode, i64)>,
    areal: Option<f64>,
    slots: bool,
    gaps: bool,
}

/// A window, as it should be answered.
#[derive(Debug, Default, PartialEq)]
struct Row {
    bounds: (i64, i64),
    seen: u64,
    promised: u64,
    /// Slots with points, where they are told.
    slots: Option<u64>,
    gap_ns: Option<i64>,
    filled: bool,
    devices: (u64, u64, u64),
    values: Vec<Option<f64>>,
}

type Points = Vec<(i64, f64)>;

impl Asked {
    fn holds(&self, (start, end): (i64, i64), t: i64) -> bool {
        match self.ends {
            true => start < t && t <= end,
            false => start <= t && t < end,
        }
    }

    fn inside(&self, points: &Points, window: (i64, i64)) -> Points {
        points.iter().copied().filter(|(t, _)| self.holds(window, *t)).collect()
    }

    /// Time and rise per hour until each point of a window.
    fn rises(&self, points: &Points, window: (i64, i64)) -> Vec<(i64, Option<f64>)> {
        let rise = |(t, value): (i64, f64)| {
            let from = points.iter().rev().find(|(u, _)| *u <= t - self.over_ns);
            let from = from.filter(|(u, _)| *u >= t - self.over_ns - MIN);
            (
                t,
                from.map(|(u, before)| (value - before) / ((t - u) as f64 / HOUR as f64)),
            )
        };
        self.inside(points, window).into_iter().map(rise).collect()
    }

    fn answer(&self, function: Function, devices: &[Points], window: (i64, i64)) -> Option<f64> {
        let inside: Vec<f64> = devices
            .iter()
            .flat_map(|points| self.inside(points, window))
            .map(|(_, v)| v)
            .collect();
        let rises: Vec<_> = devices.iter().flat_map(|points| self.rises(points, window)).collect();
        let greatest = |of: &mut dyn Iterator<Item = Option<f64>>| of.flatten().reduce(f64::max);
        match function {
            Count => Some(inside.len() as f64),
            _ if inside.is_empty() => None,
            Sum => Some(inside.iter().sum()),
            Avg => Some(inside.iter().sum::<f64>() / inside.len() as f64),
            RisePerHourMax => greatest(&mut rises.iter().map(|(_, rise)| *rise)),
            RisePerHour => {
                let last = rises.iter().map(|(t, _)| *t).max();
                greatest(&mut rises.iter().filter(|(t, _)| Some(*t) == last).map(|(_, rise)| *rise))
            }
            other => panic!("{other:?}"),
        }
    }

    fn row(&self, devices: &[Points], bounds: (i64, i64)) -> (Row, bool) {
        let seen = |points: &Points| self.inside(points, bounds).len() as u64;
        let promised = ((bounds.1 - bounds.0) / MIN) as u64;
        let look = Look {
            ends: self.ends,
            held: false,
            gap_ns: 0,
            interval_ns: MIN,
            over_ns: 0,
            wrap: None,
        };
        let slots = |points: &Points| look.slots_filled(points, bounds);
        let filled: u64 = devices.iter().map(slots).sum();
        let gap = |points: &Points| {
            let mut times = vec![bounds.0];
            times.extend(self.inside(points, bounds).iter().map(|(t, _)| *t));
            times.push(bounds.1);
            times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
        };
        let mut row = Row {
            bounds,
            seen: devices.iter().map(seen).sum(),
            promised: promised * devices.len() as u64,
            slots: (self.slots || self.min_coverage > 0.0 || self.areal.is_some()).then_some(filled),
            gap_ns: devices.iter().map(gap).max().filter(|_| self.gaps),
            ..Row::default()
        };
        let thin = (filled as f64) < self.min_coverage * row.promised as f64;
        let (any, mut own) = (row.seen > 0, row.seen > 0 && !thin);
        match self.areal {
            None if own || !any => {
                let answer = |function: &Function| self.answer(*function, devices, bounds);
                row.values = self.functions.iter().map(answer).collect();
            }
            None => row.values = vec![None; self.functions.len()],
            Some(share) => {
                let enough = |points: &&Points| seen(points) > 0 && slots(points) as f64 >= share * promised as f64;
                let answers = |points: &Points| -> Option<Vec<f64>> {
                    let one = std::slice::from_ref(points);
                    self.functions
                        .iter()
                        .map(|function| self.answer(*function, one, bounds))
                        .collect()
                };
                let used: Vec<Vec<f64>> = devices.iter().filter(enough).filter_map(answers).collect();
                let silent = devices.iter().filter(|points| seen(points) == 0).count() as u64;
                let count = used.len() as u64;
                row.devices = (count, devices.len() as u64 - count - silent, silent);
                own &= count > 0;
                let mean = |at: usize| used.iter().map(|answers| answers[at]).sum::<f64>() / count as f64;
                row.values = (0..self.functions.len()).map(|at| own.then(|| mean(at))).collect();
            }
        }
        row.filled = !own;
        (row, any && !thin)
    }

    fn rows(&self, devices: &[Points]) -> Vec<Row> {
        let rows = self.windows.iter().map(|window| self.row(devices, *window));
        let listed = rows.filter(|(_, listed)| *listed || self.fill.is_some());
        let mut rows: Vec<Row> = listed.map(|(row, _)| row).collect();
        let Some((mode, most)) = self.fill else {
            rows.iter_mut().for_each(|row| row.filled = false);
            return rows;
        };
        let most = if most == 0 { i64::MAX } else { most };
        for (column, function) in self.functions.iter().enumerate() {
            // Windows that slide may begin together at the first border: which comes first is told by their ends.
            let own: Vec<(usize, (i64, f64))> = rows
                .iter()
                .enumerate()
                .filter(|(_, row)| !row.filled)
                .filter_map(|(place, row)| Some((place, (row.bounds.0, row.values[column]?))))
                .collect();
            let rows = rows.iter_mut().enumerate();
            for (place, row) in rows.filter(|(_, row)| row.filled && *function != Count) {
                let start = row.bounds.0;
                let before = own.iter().rev().find(|(at, _)| *at < place).map(|(_, own)| own);
                let behind = own.iter().find(|(at, _)| *at > place).map(|(_, own)| own);
                row.values[column] = match mode {
                    FillMode::Previous => before.filter(|(t, _)| start - t <= most).map(|(_, value)| *value),
                    FillMode::Linear => before.zip(behind).filter(|(a, b)| b.0 - a.0 <= most).map(|(a, b)| {
                        let share = (start - a.0) as f64 / ((b.0 - a.0) as f64).max(1.0);
                        a.1 * (1.0 - share) + b.1 * share
                    }),
                    FillMode::Constant => {
                        let near = before.into_iter().chain(behind).any(|(t, _)| (start - t).abs() <= most);
                        (near || most == i64::MAX).then_some(7.0)
                    }
                    _ => None,
                };
            }
        }
        rows
    }
}

/// Some windows, as a request and as they are.
fn random_windows(random: &mut StdRng, (from, to): (i64, i64)) -> (Option<v1::Window>, Vec<(i64, i64)>) {
    let length = random.random_range(1..4);
    let (window, borders) = match random.random_range(0..4) {
        0 => return (None, vec![(from, to)]),
        1 => {
            let step = [7 * MIN, HOUR, 100 * MIN][random.random_range(0..3)];
            let first = (from - NOON).div_euclid(step) - length;
            let borders = (first..first + 200).map(|n| NOON + n * step).collect::<Vec<_>>();
            let window = v1::Window {
                step_ns: step,
                origin_ns: NOON,
                length_ns: step * length,
                ..Default::default()
            };
            (window, borders)
        }
        2 => {
            let mut borders: Vec<i64> = (0..random.random_range(2..12))
                .map(|_| NOON + random.random_range(-90..700) * MIN)
                .collect();
            borders.sort_unstable();
            borders.dedup();
            borders.push(NOON + 720 * MIN);
            let window = v1::Window {
                borders_ns: borders.clone(),
                length: length as u32,
                ..Default::default()
            };
            (window, borders)
        }
        _ => {
            let calendar = v1::Calendar {
                unit: v1::CalendarUnit::Hour as i32,
                time_zone: "Australia/Lord_Howe".into(),
                ..Default::default()
            };
            let window = v1::Window {
                calendar: Some(calendar),
                length: length as u32,
                ..Default::default()
            };
            (window, LORD_HOWE.map(|minute| NOON + minute * MIN).to_vec())
        }
    };
    let ends = (borders[0], *borders.last().unwrap());
    let (from, to) = (from.max(ends.0), to.min(ends.1));
    let pairs = (0..borders.len() - 1).filter(|at| borders[at + 1] > from && borders[*at] < to);
    let bounds = |at: usize| {
        let earlier = borders[at.saturating_sub(length as usize - 1)];
        let start = if length == 1 { earlier.max(from) } else { earlier };
        (start, borders[at + 1].min(to))
    };
    (Some(window), pairs.map(bounds).collect())
}

fn random_question(random: &mut StdRng) -> (v1::QueryAggregateRequest, Asked) {
    let mut off = || [0, 0, 0, 17 * S, 30 * S][random.random_range(0..5)];
    let (off_from, off_to) = (off(), off());
    let from = NOON + random.random_range(-60..500) * MIN + off_from;
    let to = from + random.random_range(1..400) * MIN + off_to;
    let to = to.min(NOON + 690 * MIN);
    let (window, windows) = random_windows(random, (from, to));
    let ends = random.random_bool(0.3);
    let functions = match ends {
        true => vec![Sum, Count],
        false => vec![Avg, RisePerHour, RisePerHourMax, Count],
    };
    let modes = [FillMode::Null, FillMode::Previous, FillMode::Linear, FillMode::Constant];
    let fill = random.random_bool(0.6).then(|| {
        let most = [0, 20 * MIN, 2 * HOUR][random.random_range(0..3)];
        (modes[random.random_range(0..4)], most)
    });
    let areal = random.random_bool(0.4).then(|| [0.9, 0.5][random.random_range(0..2)]);
    let asked = Asked {
        windows,
        ends,
        functions,
        over_ns: [5 * MIN, HOUR][random.random_range(0..2)],
        min_coverage: if random.random_bool(0.3) { 0.7 } else { 0.0 },
        fill,
        areal,
        slots: random.random_bool(0.3),
        gaps: random.random_bool(0.5),
    };
    let request = v1::QueryAggregateRequest {
        properties: vec![if ends { "rain" } else { "level" }.into()],
        functions: asked.functions.iter().map(|function| *function as i32).collect(),
        from_ns: from,
        to_ns: to,
        window,
        min_coverage: asked.min_coverage,
        largest_gap: asked.gaps,
        slots_filled: asked.slots,
        rise_over_ms: asked.over_ns / 1_000_000,
        fill: fill.map(|(mode, most)| v1::Fill {
            mode: mode as i32,
            max_gap_ms: most / 1_000_000,
            constant: 7.0,
        }),
        areal: areal.map(|min_coverage| v1::Areal { min_coverage }),
        ..Default::default()
    };
    (request, asked)
}

fn rows_of(series: &v1::AggregateSeries) -> Vec<Row> {
    let number = |value: Value| match value {
        Value::F64(value) => value,
        Value::I64(value) => value as f64,
        other => panic!("{other:?}"),
    };
    let mut columns: Vec<_> = series.columns.iter().map(answers_of).collect();
    let row = |window: usize| Row {
        bounds: (series.start_ns[window], series.end_ns[window]),
        seen: series.points_seen[window],
        promised: series.points_promised[window],
        slots: series.slots_filled.get(window).copied(),
        gap_ns: series.largest_gap_ns.get(window).copied(),
        filled: is_filled(series, window),
        devices: series
            .areal
            .get(window)
            .map_or((0, 0, 0), |areal| (areal.used, areal.too_few_points, areal.no_points)),
        values: columns
            .iter_mut()
            .map(|column| column.next().flatten().map(number))
            .collect(),
    };
    (0..series.start_ns.len()).map(row).collect()
}

#[track_caller]
fn check(found: &[Row], expected: &[Row], what: &str) {
    let near = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs().max(1.0),
        (a, b) => a.is_none() && b.is_none(),
    };
    let rest = |row: &Row| {
        let counts = (row.seen, row.promised, row.slots);
        (row.bounds, counts, row.gap_ns, row.filled, row.devices)
    };
    let same = |(a, b): (&Row, &Row)| {
        rest(a) == rest(b) && a.values.len() == b.values.len() && a.values.iter().zip(&b.values).all(near)
    };
    let all = found.len() == expected.len() && found.iter().zip(expected).all(same);
    let differ = found.iter().zip(expected).find(|(a, b)| !same((a, b)));
    assert!(
        all,
        "{what}: {} windows, not {}: {differ:#?}",
        found.len(),
        expected.len()
    );
}

#[tokio::test]
async fn random_windows_are_answered_as_a_recomputation_does() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let all = random_points(&client, &mut random, NOON).await;
    for flushed in [false, true] {
        let mut compared = 0;
        for round in 0..150 {
            let (request, asked) = random_question(&mut random);
            let property = request.properties[0].clone();
            let grouped = asked.areal.is_some() || random.random_bool(0.3);
            let request = v1::QueryAggregateRequest {
                selector: of_devices(&SAYING),
                grouping: grouped.then(v1::Grouping::default),
                ..request
            };
            let what = format!("seed {seed}, round {round}, flushed {flushed}: {request:?}");
            let mut found: BTreeMap<String, Vec<Row>> = BTreeMap::new();
            for series in ask(&client, request)
                .await
                .into_iter()
                .flat_map(|message| message.series)
            {
                found.insert(series.device.clone(), rows_of(&series));
            }
            let points = |device: &&str| counting(&all, device, &property);
            let devices: Vec<Points> = SAYING.iter().map(points).collect();
            let expected: Vec<(&str, Vec<Row>)> = match grouped {
                true => vec![("", asked.rows(&devices))],
                false => SAYING
                    .iter()
                    .zip(&devices)
                    .map(|(id, one)| (*id, asked.rows(std::slice::from_ref(one))))
                    .collect(),
            };
            for (device, rows) in expected {
                let nothing = Vec::new();
                check(
                    found.get(device).unwrap_or(&nothing),
                    &rows,
                    &format!("{what} {device}"),
                );
                compared += rows.len();
            }
        }
        assert!(compared > 500, "{compared} windows were compared");
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}
