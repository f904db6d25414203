//! What the columns of a window say, of one device or of several together, recomputed from lists of points by the words of the contract
//! and nothing of the store.
//! Never here: which points count, asking. Invariant: every column looks at every point of every device.

use std::collections::BTreeMap;

use tidemark_client::v1::Function;

use super::fleet::*;
use super::recomputed::Look;

/// The points of a device, in order.
pub(crate) type Points = Vec<(i64, f64)>;

/// So many values have exact percentiles.
const EXACT_MAX: usize = 64;
/// How far those of more may be off, as a share of the value; and what rounding adds.
const PERCENTILE_ERROR: f64 = 0.01 + 1e-9;

/// What a column should say of a window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    Nothing,
    /// This very value.
    Exactly(f64),
    /// How many; a window that is not told has none.
    Count(f64),
    /// This, but for the rounding of sums.
    About(f64),
    /// No further from this than is promised of percentiles.
    Near(f64),
    /// One of these: of what several devices say at one time nobody knows which is first.
    OneOf(Vec<f64>),
}

impl Expected {
    pub(crate) fn fits(&self, found: Option<f64>) -> bool {
        match (self, found) {
            (Expected::Nothing, found) => found.is_none(),
            (Expected::Count(count), found) => found.unwrap_or(0.0) == *count,
            (_, None) => false,
            (Expected::Exactly(value), Some(found)) => found == *value,
            (Expected::About(value), Some(found)) => about(found, *value),
            (Expected::Near(value), Some(found)) => (found - value).abs() <= PERCENTILE_ERROR * value.abs() + 1e-9,
            (Expected::OneOf(values), Some(found)) => values.contains(&found),
        }
    }

    /// The value, where there is one and no other would do.
    pub(crate) fn value(&self) -> Option<f64> {
        match self {
            Expected::Nothing => None,
            Expected::Exactly(value) | Expected::Count(value) | Expected::About(value) | Expected::Near(value) => {
                Some(*value)
            }
            Expected::OneOf(values) => values.first().copied(),
        }
    }

    /// Whether there is something to say.
    pub(crate) fn tells(&self) -> bool {
        match self {
            Expected::Count(count) => *count > 0.0,
            other => other.value().is_some(),
        }
    }
}

/// Whether values are the same but for the rounding of sums.
pub(crate) fn about(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * b.abs().max(1.0)
}

/// What functions with several columns have one each of, and how points are looked at.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) look: Look,
    pub(crate) percentiles: Vec<f64>,
    pub(crate) bins: Vec<f64>,
    /// Numbers of states.
    pub(crate) states: Vec<usize>,
}

impl Columns {
    /// The columns of a function for a window of some devices.
    pub(crate) fn of(&self, function: Function, devices: &[Points], window: (i64, i64)) -> Vec<Expected> {
        use Function as F;
        let look = &self.look;
        let mut inside: Points = devices.iter().flat_map(|points| look.inside(points, window)).collect();
        inside.sort_by_key(|(t, _)| *t);
        let values = || inside.iter().map(|(_, value)| *value).collect::<Vec<_>>();
        let one = |expected| vec![expected];
        // Each device by itself, and then their sum.
        let sum = || {
            let each = devices
                .iter()
                .filter_map(|points| look.answer(function, points, window));
            one(each.reduce(|a, b| a + b).map_or(Expected::Nothing, Expected::About))
        };
        let merged = || look.answer(function, &inside, window);
        let exactly = |value: Option<f64>| one(value.map_or(Expected::Nothing, Expected::Exactly));
        match function {
            F::Count => one(Expected::Count(inside.len() as f64)),
            F::Min | F::Max => exactly(merged()),
            F::Sum | F::Avg | F::Spread | F::Stddev => one(merged().map_or(Expected::Nothing, Expected::About)),
            F::First => one(at_time(&inside, inside.first())),
            F::Last => one(at_time(&inside, inside.last())),
            F::Delta | F::Increase | F::Rate | F::Integral => sum(),
            F::TimeWeightedAvg => {
                let areas = devices.iter().filter_map(|points| look.area(points, window));
                let whole = areas.reduce(|a, b| (a.0 + b.0, a.1 + b.1));
                one(whole.map_or(Expected::Nothing, |(area, covered)| Expected::About(area / covered)))
            }
            F::RisePerHour | F::RisePerHourMax => one(self.rise(function, devices, window)),
            F::Percentile => {
                let mut sorted = values();
                sorted.sort_by(f64::total_cmp);
                self.percentiles
                    .iter()
                    .map(|percent| percentile(&sorted, *percent))
                    .collect()
            }
            F::Histogram => histogram(&values(), &self.bins),
            F::Mode => exactly(mode(&values())),
            F::Duration => self.durations(devices, window),
            F::Transitions => one(self.transitions(devices, window)),
            F::Unspecified => panic!("{function:?}"),
        }
    }

    /// Whether a window is told of at all, where these functions are asked for: what is known of it need not lie in it.
    pub(crate) fn is_known(&self, functions: &[Function], points: &Points, window: (i64, i64)) -> bool {
        use Function as F;
        let look = &self.look;
        let around = |function: &F| match function {
            F::Delta | F::Increase | F::Rate => look.steps(points, window).is_some(),
            F::Integral | F::TimeWeightedAvg | F::Mode | F::Duration | F::Transitions => {
                !look.pieces(points, window).is_empty()
            }
            _ => false,
        };
        !look.inside(points, window).is_empty() || functions.iter().any(around)
    }

    /// The rise until the last point of all devices, of several at that time the greatest; or the greatest until any.
    fn rise(&self, function: Function, devices: &[Points], window: (i64, i64)) -> Expected {
        let look = &self.look;
        let of = |points: &Points| -> Vec<(i64, Option<f64>)> {
            let inside = look.inside(points, window).into_iter();
            inside.map(|point| (point.0, look.rise(points, point))).collect()
        };
        let all: Vec<_> = devices.iter().flat_map(of).collect();
        let last = all.iter().map(|(t, _)| *t).max();
        let counts = |t: i64| function == Function::RisePerHourMax || Some(t) == last;
        let rises = all.iter().filter(|(t, _)| counts(*t)).filter_map(|(_, rise)| *rise);
        rises.reduce(f64::max).map_or(Expected::Nothing, Expected::About)
    }

    /// Seconds in each state; of a window of which nothing is known, none.
    fn durations(&self, devices: &[Points], window: (i64, i64)) -> Vec<Expected> {
        let pieces: Vec<_> = devices
            .iter()
            .flat_map(|points| self.look.pieces(points, window))
            .collect();
        let in_state = |state: &usize| {
            let held = pieces.iter().filter(|(.., value, _)| *value == *state as f64);
            let seconds: f64 = held.map(|(from, to, ..)| (to - from) as f64 / S as f64).sum();
            match pieces.is_empty() {
                true => Expected::Nothing,
                false => Expected::About(seconds),
            }
        };
        self.states.iter().map(in_state).collect()
    }

    /// How often a state began that was not the one before: known of points that are not too far apart.
    fn transitions(&self, devices: &[Points], (start, end): (i64, i64)) -> Expected {
        let look = &self.look;
        let began = |points: &Points| {
            let near = points.windows(2).filter(|pair| pair[1].0 - pair[0].0 <= look.gap_ns);
            let other = near.filter(|pair| pair[0].1 != pair[1].1);
            other.filter(|pair| start <= pair[1].0 && pair[1].0 < end).count()
        };
        let known = |points: &Points| self.is_known(&[Function::Transitions], points, (start, end));
        match devices.iter().any(known) {
            true => Expected::Exactly(devices.iter().map(began).sum::<usize>() as f64),
            false => Expected::Nothing,
        }
    }
}

/// What is said at the time of a point: that, or what another device says then.
fn at_time(inside: &[(i64, f64)], point: Option<&(i64, f64)>) -> Expected {
    let Some((t, _)) = point else {
        return Expected::Nothing;
    };
    let then = inside.iter().filter(|(other, _)| other == t);
    Expected::OneOf(then.map(|(_, value)| *value).collect())
}

/// The least value that so many percent of all are not above.
fn percentile(sorted: &[f64], percent: f64) -> Expected {
    let millionths = (percent * 1e4).round() as usize;
    let enough = |at: &usize| (at + 1) * 1_000_000 >= millionths * sorted.len();
    match (0..sorted.len()).find(enough).map(|at| sorted[at]) {
        None => Expected::Nothing,
        Some(value) if sorted.len() <= EXACT_MAX => Expected::Exactly(value),
        Some(value) => Expected::Near(value),
    }
}

/// How many values are above the border before and at most this, and how many above all; nothing where there are none.
fn histogram(values: &[f64], bins: &[f64]) -> Vec<Expected> {
    if values.is_empty() {
        return vec![Expected::Nothing; bins.len() + 1];
    }
    let below = std::iter::once(f64::NEG_INFINITY).chain(bins.iter().copied());
    let upper = bins.iter().copied().chain([f64::INFINITY]);
    let count = |(below, upper): (f64, f64)| {
        values
            .iter()
            .filter(|value| below < **value && **value <= upper)
            .count()
    };
    below.zip(upper).map(|bin| Expected::Count(count(bin) as f64)).collect()
}

/// The state that most points are in, of several the least.
fn mode(values: &[f64]) -> Option<f64> {
    let mut often: BTreeMap<i64, usize> = BTreeMap::new();
    values
        .iter()
        .for_each(|value| *often.entry(*value as i64).or_default() += 1);
    let most = often.values().max()?;
    let least = often.iter().find(|(_, count)| *count == most);
    least.map(|(state, _)| *state as f64)
}
