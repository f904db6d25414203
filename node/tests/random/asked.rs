//! Questions about recordings with any function that is lawful for them, and the comparison of every column of every window with a
//! recomputation.
//! Never here: tests. Invariant: what is compared is all that the answer says, and that it leaves nothing out.

use std::collections::BTreeMap;

use crate::common::columns::{Columns, Points};
use crate::common::fleet::*;
use crate::common::placed::TAGS;
use crate::common::recomputed::Look;
use crate::common::recordings::{Played, VALUE};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tidemark_client::{Client, Value, answers_of, v1};
use v1::Function::{self, *};
use v1::Kind;

/// All that is lawful for values of a kind.
pub(crate) fn functions_of(kind: Kind) -> &'static [Function] {
    match kind {
        Kind::Gauge => &[
            Count,
            Min,
            Max,
            Avg,
            First,
            Last,
            Spread,
            Stddev,
            Percentile,
            Histogram,
            Delta,
            Integral,
            TimeWeightedAvg,
            RisePerHour,
            RisePerHourMax,
        ],
        Kind::Mean => &[Count, Min, Max, Avg, First, Last, Spread, Stddev, Percentile, Histogram],
        Kind::Increment => &[Count, Sum, Max, Percentile, Histogram],
        Kind::Counter => &[Count, First, Last, Increase, Rate],
        Kind::State => &[Count, Min, Max, Last, Mode, Duration, Transitions],
        other => panic!("{other:?}"),
    }
}

/// A value as a number; labels by their place.
pub(crate) fn number(labels: &[&str], value: Value) -> f64 {
    match value {
        Value::F64(value) => value,
        Value::I64(value) => value as f64,
        Value::Enum(label) => labels.iter().position(|other| *other == label).unwrap() as f64,
        other => panic!("{other:?}"),
    }
}

/// Windows of a question: borders of a grid, cut at the range; each so many steps long, those that slide not cut at their begin.
pub(crate) fn windows((from, to): (i64, i64), step: i64, steps: i64) -> Vec<(i64, i64)> {
    let grid = from.div_euclid(step)..=(to - 1).div_euclid(step);
    let window = |at: i64| {
        let start = (at + 1 - steps) * step;
        let start = if steps == 1 { start.max(from) } else { start };
        (start, ((at + 1) * step).min(to))
    };
    grid.map(window).collect()
}

/// A time that is asked about, as a request says it and as it is.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) range: (i64, i64),
    pub(crate) window: Option<v1::Window>,
    pub(crate) windows: Vec<(i64, i64)>,
}

impl Span {
    /// Windows of a step, or of some steps, that slide.
    pub(crate) fn of_steps(range: (i64, i64), step: i64, steps: i64) -> Span {
        let window = v1::Window {
            step_ns: step,
            length_ns: step * steps,
            ..Default::default()
        };
        Span {
            range,
            window: Some(window),
            windows: windows(range, step, steps),
        }
    }

    /// All of it.
    pub(crate) fn whole(range: (i64, i64)) -> Span {
        Span {
            range,
            window: None,
            windows: vec![range],
        }
    }
}

/// Some time of a recording, in no more windows than so many.
pub(crate) fn some_span(played: &Played, random: &mut StdRng, most: i64) -> Span {
    let (from, to) = played.some_time(random);
    let interval = played.interval_ns();
    let step = match random.random_range(0..3) {
        // What rollups are kept of.
        0 => HOUR * random.random_range(1..=12),
        1 => interval * random.random_range(2..9),
        _ => (to - from) / S / random.random_range(1..20) * S + S,
    };
    let step = step.max((to - from) / most / HOUR * HOUR + HOUR * i64::from((to - from) / step > most));
    match random.random_range(0..8) {
        0 => Span::whole((from, to)),
        1..6 => Span::of_steps((from, to), step, 1),
        _ => Span::of_steps((from, to), step, 3),
    }
}

/// Whose points answer together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Whose {
    /// One device.
    One(String),
    /// All devices, each by itself.
    Each,
    /// Devices that agree on these tags.
    Groups(Vec<String>),
}

impl Whose {
    pub(crate) fn any(played: &Played, random: &mut StdRng) -> Whose {
        let tags = |at: &[usize]| Whose::Groups(at.iter().map(|at| TAGS[*at].to_owned()).collect());
        match random.random_range(0..8) {
            0..3 => Whose::One(played.any(random).to_owned()),
            3 => Whose::Each,
            4 => tags(&[]),
            5 => tags(&[0]),
            6 => tags(&[1]),
            _ => tags(&[0, 1]),
        }
    }

    /// The devices that answer, by the name of their series.
    pub(crate) fn series<'p>(&'p self, played: &'p Played) -> Vec<(String, Vec<&'p str>)> {
        match self {
            Whose::One(device) => vec![(device.clone(), vec![device.as_str()])],
            Whose::Each => {
                let devices = played.devices().into_iter();
                devices.map(|device| (device.to_owned(), vec![device])).collect()
            }
            Whose::Groups(tags) => played.groups(tags),
        }
    }

    /// The name of a series of an answer.
    pub(crate) fn name(&self, series: &v1::AggregateSeries) -> String {
        match self {
            Whose::Groups(tags) => {
                let values: Vec<&str> = tags.iter().map(|key| series.tags[key].as_str()).collect();
                values.join(" ")
            }
            _ => series.device.clone(),
        }
    }
}

/// A question about a recording, and what it takes to answer it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) request: v1::QueryAggregateRequest,
    pub(crate) functions: Vec<Function>,
    pub(crate) windows: Vec<(i64, i64)>,
    pub(crate) whose: Whose,
    pub(crate) columns: Columns,
}

/// Asks for some functions.
pub(crate) fn ask_for(
    played: &Played,
    random: &mut StdRng,
    whose: Whose,
    functions: Vec<Function>,
    span: Span,
) -> Asked {
    let interval = played.interval_ns();
    let labels = played.recording.labels;
    let max_gap_ms = [0, 0, interval * 3 / 2_000_000, interval / 100_000][random.random_range(0..4)];
    let look = Look {
        gap_ns: if max_gap_ms == 0 {
            3 * interval
        } else {
            max_gap_ms * 1_000_000
        },
        over_ns: interval * random.random_range(1..10),
        ..played.look()
    };
    let percentiles = (0..random.random_range(1..6)).map(|_| match random.random_range(0..4) {
        0 => [0.0, 0.1, 12.5, 99.9, 100.0][random.random_range(0..5)],
        _ => f64::from(random.random_range(1..100)),
    });
    let columns = Columns {
        look,
        percentiles: percentiles.collect(),
        bins: some_bins(played, random),
        states: (0..labels.len()).rev().filter(|_| random.random_bool(0.7)).collect(),
    };
    let asks = |function: Function| functions.contains(&function);
    let states = if columns.states.is_empty() {
        (0..labels.len()).collect()
    } else {
        columns.states.clone()
    };
    let request = v1::QueryAggregateRequest {
        selector: match &whose {
            Whose::One(device) => of_devices(&[device]),
            _ => of_type(&played.device_type),
        },
        grouping: match &whose {
            Whose::Groups(tags) => Some(v1::Grouping { tags: tags.clone() }),
            _ => None,
        },
        properties: vec![VALUE.into()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        from_ns: span.range.0,
        to_ns: span.range.1,
        window: span.window,
        percentiles: if asks(Percentile) {
            columns.percentiles.clone()
        } else {
            vec![]
        },
        bins: if asks(Histogram) { columns.bins.clone() } else { vec![] },
        // None are all.
        states: columns.states.iter().map(|state| labels[*state].to_owned()).collect(),
        max_gap_ms,
        drop_suspect: random.random_bool(0.2),
        rise_over_ms: look.over_ns / 1_000_000,
        ..Default::default()
    };
    Asked {
        request,
        functions,
        windows: span.windows,
        whose,
        columns: Columns { states, ..columns },
    }
}

/// Borders at and beside values, ascending.
fn some_bins(played: &Played, random: &mut StdRng) -> Vec<f64> {
    let said = &played.said[played.any(random)];
    let mut border = || {
        let at = random.random_range(0..said.len());
        let value = said.values().nth(at).map_or(0.0, |said| said.value);
        value + [0.0, 0.0, 0.05, -3.0][random.random_range(0..4)]
    };
    let mut bins: Vec<f64> = (0..6).map(|_| border()).collect();
    bins.sort_by(f64::total_cmp);
    bins.dedup();
    bins
}

/// Any question about a recording.
pub(crate) fn some_question(played: &Played, random: &mut StdRng) -> Asked {
    let whose = Whose::any(played, random);
    let devices = match &whose {
        Whose::One(_) => 1,
        _ => played.said.len() as i64,
    };
    let span = some_span(played, random, (400 / devices).max(30));
    let all = functions_of(played.recording.kind);
    let mut functions: Vec<Function> = all.iter().copied().filter(|_| random.random_bool(0.3)).collect();
    functions.push(all[random.random_range(0..all.len())]);
    ask_for(played, random, whose, functions, span)
}

/// Values of a series by window and column.
pub(crate) fn told(labels: &[&str], series: &v1::AggregateSeries) -> BTreeMap<(i64, i64), Vec<Option<f64>>> {
    let mut columns: Vec<_> = series.columns.iter().map(answers_of).collect();
    let bounds = series.start_ns.iter().copied().zip(series.end_ns.iter().copied());
    bounds
        .map(|bounds| {
            let values = columns
                .iter_mut()
                .map(|column| column.next().flatten().map(|value| number(labels, value)));
            (bounds, values.collect())
        })
        .collect()
}

/// Series of an answer, in their order, and what it cost.
pub(crate) async fn answered(
    client: &Client,
    request: &v1::QueryAggregateRequest,
) -> (Vec<v1::AggregateSeries>, v1::Work) {
    let explained = v1::QueryAggregateRequest {
        explain: true,
        ..request.clone()
    };
    let answer = client.query_aggregate(explained).await.unwrap();
    let (messages, summary) = answer.collect().await.unwrap();
    let series = messages.into_iter().flat_map(|message| message.series).collect();
    (series, summary.explain.unwrap().total.unwrap())
}

/// What was compared: how many values of each function that were not nothing; and rollups that were read for it.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) values: BTreeMap<&'static str, usize>,
    pub(crate) rollups: u64,
}

impl Compared {
    /// Each of the functions was compared so often at least.
    #[track_caller]
    pub(crate) fn check(&self, functions: &[Function], least: usize) {
        for function in functions {
            let name = function.as_str_name();
            let count = self.values.get(name).copied().unwrap_or(0);
            assert!(count >= least, "{name} was compared {count} times: {self:?}");
        }
    }
}

/// Asks, and compares every column of every window of every series.
pub(crate) async fn compare(client: &Client, played: &Played, asked: &Asked, what: &str, compared: &mut Compared) {
    let request = &asked.request;
    let (series, work) = answered(client, request).await;
    compared.rollups += work.rollup_windows;
    let labels = played.recording.labels;
    let named = series.iter().map(|one| (asked.whose.name(one), told(labels, one)));
    let mut found: BTreeMap<_, _> = named.collect();
    assert_eq!(found.len(), series.len(), "{what}: {request:?}: a series came twice");
    for (name, devices) in asked.whose.series(played) {
        let points: Vec<Points> = devices
            .iter()
            .map(|device| played.counting(device, request.drop_suspect))
            .collect();
        let of_series = found.remove(&name).unwrap_or_default();
        let strays = of_series.keys().find(|window| !asked.windows.contains(window));
        assert_eq!(strays, None, "{what}: {request:?}: {name}");
        for window in &asked.windows {
            let mut values = of_series.get(window).into_iter().flatten();
            for function in &asked.functions {
                for (at, expected) in asked.columns.of(*function, &points, *window).iter().enumerate() {
                    let value = values.next().copied().flatten();
                    assert!(
                        expected.fits(value),
                        "{what}: {request:?}: {function:?} ({at}) of {name:?} in {window:?} is {value:?}, not {expected:?}"
                    );
                    let count = compared.values.entry(function.as_str_name()).or_default();
                    *count += usize::from(expected.tells());
                }
            }
            assert_eq!(values.next(), None, "{what}: {request:?}: a column too many");
        }
    }
    assert!(found.is_empty(), "{what}: {request:?}: series of nobody: {found:?}");
}
