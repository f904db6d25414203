//! What a window holds of a sequence of points beyond what its points say one by one: how far values rose, the area under
//! them, how long each state held, and how the values are distributed.
//!
//! Never here: which points they are (see `sequence/feed`). Invariant: `merge` is associative and commutative, sums of
//! doubles to their last bits aside.

mod bytes;
mod feed;
mod quantiles;

use std::collections::BTreeMap;

pub use feed::{Between, Feed, Gathered, Point, Rise, Run};
pub use quantiles::{QUANTILE_ERROR, Quantiles};

use crate::corrupt::Corrupt;
use crate::exact::Exact;
use crate::partial::{Finished, Kind};

/// Different states of a window that are kept apart; more are an error.
pub const STATES_MAX: usize = 1_024;

/// What a state costs in memory, roughly, bytes.
const STATE_BYTES: usize = 64;

/// Nanoseconds of a second.
const NS_PER_S: f64 = 1e9;

/// What is asked of a sequence of points.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SequenceFunction {
    /// How far a counter rose, from the last point at or before the start to the last one at or before the end: wraps and
    /// resets are seen, nothing is extrapolated.
    Increase,
    /// Increase by seconds of the window.
    Rate,
    /// Value at the end less value at the start, each of the last point at or before it.
    Delta,
    /// Area under the values, in their unit times seconds.
    Integral,
    /// Area by the time it covers.
    TimeWeightedAvg,
    /// Standard deviation of the values, as of a whole population.
    Stddev,
    /// Value that so many millionths of the values do not exceed; see [`QUANTILE_ERROR`].
    Quantile(u32),
    /// The value that most points have; of several the least.
    Mode,
    /// Seconds in a state.
    Duration(i64),
    /// How often a state began that was not the one before.
    Transitions,
    /// Number of values in a bin: its number, by the bounds that were gathered with.
    Bin(u32),
    /// How fast the value rose until the last point, per hour; see [`Rise`].
    RisePerHour,
    /// How fast it rose at most until any point.
    RisePerHourMax,
}

impl SequenceFunction {
    /// Whether it makes sense for values of `kind`.
    pub fn is_lawful(self, kind: Kind) -> bool {
        use SequenceFunction::{
            Bin, Delta, Duration, Increase, Integral, Mode, Quantile, Rate, RisePerHour, RisePerHourMax, Stddev,
            TimeWeightedAvg, Transitions,
        };
        match self {
            Increase | Rate => kind == Kind::Counter,
            Delta | Integral | RisePerHour | RisePerHourMax => kind == Kind::Gauge,
            TimeWeightedAvg => matches!(kind, Kind::Gauge | Kind::State),
            Stddev => matches!(kind, Kind::Gauge | Kind::Mean),
            Quantile(_) | Bin(_) => matches!(kind, Kind::Gauge | Kind::Mean | Kind::Increment),
            Mode => matches!(kind, Kind::State | Kind::Event),
            Duration(_) | Transitions => kind == Kind::State,
        }
    }
}

/// The unfinished answer about the sequence of points in one window.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Sum of the steps up, with wraps and resets.
    pub rise: Exact,
    /// Sum of all steps.
    pub change: Exact,
    /// Number of steps, each counted where it ends.
    pub steps: u64,
    /// Area under the values, times nanoseconds.
    pub area: Exact,
    /// Time that the area covers, nanoseconds, of all devices together.
    pub covered_ns: u128,
    /// Values and how they scatter.
    pub moments: Moments,
    /// Values by size.
    pub quantiles: Quantiles,
    /// Values by bin.
    pub bins: Vec<u64>,
    /// States that held or began.
    pub states: BTreeMap<i64, State>,
    /// The last point, and how fast the value rose until it, per hour, where that is known.
    pub last_rise: Option<(i64, Option<f64>)>,
    /// The fastest rise until any point.
    pub most_rise: Option<f64>,
}

/// What there is to say of one state in a window.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How long it held, nanoseconds, of all devices together.
    pub held_ns: u128,
    /// How often it began and was not the one before.
    pub entered: u64,
    /// Points that say it.
    pub points: u64,
}

/// Number, mean and squared distances from it.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Number of values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of the squares of their distances from the mean.
    pub squares: f64,
}

impl Moments {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Moments) {
        let count = self.count.saturating_add(other.count);
        if other.count == 0 {
            return;
        }
        let (apart, share) = (other.mean - self.mean, other.count as f64 / count as f64);
        self.squares += other.squares + apart * apart * self.count as f64 * share;
        self.mean += apart * share;
        self.count = count;
    }
}

/// More states than are kept apart.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("over {STATES_MAX} different states")]
pub struct TooManyStates;

impl Sequence {
    /// Adds all that `other` holds.
    pub fn merge(&mut self, other: &Sequence) {
        self.rise.add(other.rise);
        self.change.add(other.change);
        self.steps = self.steps.saturating_add(other.steps);
        self.area.add(other.area);
        self.covered_ns = self.covered_ns.saturating_add(other.covered_ns);
        self.moments.merge(&other.moments);
        self.quantiles.merge(&other.quantiles);
        if self.bins.len() < other.bins.len() {
            self.bins.resize(other.bins.len(), 0);
        }
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            *mine = mine.saturating_add(*theirs);
        }
        for (code, theirs) in &other.states {
            // One more than is kept apart says that there were more, however many series come together.
            if self.states.len() > STATES_MAX && !self.states.contains_key(code) {
                continue;
            }
            let mine = self.states.entry(*code).or_default();
            mine.held_ns = mine.held_ns.saturating_add(theirs.held_ns);
            mine.entered = mine.entered.saturating_add(theirs.entered);
            mine.points = mine.points.saturating_add(theirs.points);
        }
        if let Some(theirs) = other.last_rise {
            self.rise_until(theirs);
        }
        self.most_rise = greater(self.most_rise, other.most_rise);
    }

    /// What it holds beyond a few values, and grows with what is gathered, roughly, bytes.
    pub fn heap_bytes(&self) -> usize {
        self.states.len() * STATE_BYTES + self.quantiles.heap_bytes() + self.bins.len() * size_of::<u64>()
    }

    /// Adds how fast the value rose until a point. Of several at one time the fastest counts.
    fn rise_until(&mut self, (t_ns, rise): (i64, Option<f64>)) {
        self.last_rise = Some(match self.last_rise {
            Some((mine, known)) if mine > t_ns => (mine, known),
            Some((mine, known)) if mine == t_ns => (mine, greater(known, rise)),
            _ => (t_ns, rise),
        });
    }

    /// The answer for a window so long; `None` where there is none.
    ///
    /// # Errors
    /// A question about states, of which there are too many.
    pub fn finish(&self, function: SequenceFunction, window_ns: u64) -> Result<Option<Finished>, TooManyStates> {
        let seconds = |ns: u128| ns as f64 / NS_PER_S;
        let stepped = |value: f64| (self.steps > 0).then_some(Finished::F64(value));
        let covered = |value: f64| (self.covered_ns > 0).then_some(Finished::F64(value));
        if self.states.len() > STATES_MAX {
            return Err(TooManyStates);
        }
        Ok(match function {
            SequenceFunction::Increase => stepped(self.rise.value()),
            SequenceFunction::Rate => stepped(self.rise.value() / seconds(u128::from(window_ns.max(1)))),
            SequenceFunction::Delta => stepped(self.change.value()),
            SequenceFunction::Integral => covered(self.area.value() / NS_PER_S),
            SequenceFunction::TimeWeightedAvg => covered(self.area.value() / self.covered_ns as f64),
            SequenceFunction::Stddev => {
                let Moments { count, squares, .. } = self.moments;
                (count > 0).then(|| Finished::F64((squares / count as f64).sqrt()))
            }
            SequenceFunction::Quantile(millionths) => self.quantiles.at(millionths).map(Finished::F64),
            SequenceFunction::Mode => {
                let most = self
                    .states
                    .iter()
                    .max_by_key(|(code, state)| (state.points, -i128::from(**code)));
                most.filter(|(_, state)| state.points > 0)
                    .map(|(code, _)| Finished::I64(*code))
            }
            SequenceFunction::Duration(code) => {
                let known = self.states.values().any(|state| state.held_ns > 0);
                let held = self.states.get(&code).map_or(0, |state| state.held_ns);
                known.then(|| Finished::F64(seconds(held)))
            }
            SequenceFunction::Transitions => {
                let entered = self.states.values().map(|state| state.entered);
                let entered = entered.fold(0, u64::saturating_add);
                (!self.states.is_empty()).then_some(Finished::U64(entered))
            }
            SequenceFunction::Bin(bin) => {
                let count = self.bins.get(bin as usize).copied();
                (!self.bins.is_empty()).then(|| Finished::U64(count.unwrap_or(0)))
            }
            SequenceFunction::RisePerHour => self.last_rise.and_then(|(_, rise)| rise).map(Finished::F64),
            SequenceFunction::RisePerHourMax => self.most_rise.map(Finished::F64),
        })
    }

    /// Appends its bytes, for another shard or node (layout in `sequence/bytes.rs`).
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        bytes::encode(self, out);
    }

    /// Reads what [`Sequence::encode_to`] wrote.
    ///
    /// # Errors
    /// The bytes are not those of a sequence, or there are more.
    pub fn decode(bytes: &[u8]) -> Result<Sequence, Corrupt> {
        bytes::decode(bytes)
    }
}

/// The greater of what is known.
fn greater(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
#[path = "sequence/tests.rs"]
mod tests;
