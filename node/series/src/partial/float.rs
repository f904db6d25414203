//! The unfinished aggregate of doubles.
//!
//! Never here: other types. Invariant: NaN takes no part in min and max; the sum carries its rounding error along
//! (double-double), so that any grouping of merges agrees to about 1e-30 of the sum of magnitudes.

use super::Function;
use crate::stamps::Stamps;

/// Sums that run side by side.
const LANES: usize = 4;

/// One of several running sums, with the extremes of what it saw.
#[derive(Copy, Clone, Debug)]
struct Lane {
    sum: f64,
    /// What rounding took from the sum, itself rounded.
    error: f64,
    min: f64,
    max: f64,
}

impl Default for Lane {
    fn default() -> Lane {
        Lane {
            sum: 0.0,
            error: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Lane {
    #[inline(always)]
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        let shadow = sum - self.sum;
        self.error += (self.sum - (sum - shadow)) + (value - shadow);
        self.sum = sum;
        self.min = if value < self.min { value } else { self.min };
        self.max = if value > self.max { value } else { self.max };
    }
}

/// Count, sum, extremes, first and last of doubles.
#[derive(Clone, Debug, Default)]
pub struct F64Partial {
    /// Number of values, NaN included.
    pub count: u64,
    /// The sum, rounded.
    pub sum: f64,
    /// What rounding took from the sum.
    pub sum_rest: f64,
    /// Smallest in total order (-0.0 below +0.0), NaN left out.
    pub min: Option<f64>,
    /// Largest in total order, NaN left out.
    pub max: Option<f64>,
    /// Earliest time and its value.
    pub first: Option<(i64, f64)>,
    /// Latest time and its value.
    pub last: Option<(i64, f64)>,
}

impl PartialEq for F64Partial {
    /// Doubles by their bits.
    fn eq(&self, other: &F64Partial) -> bool {
        let bits = |p: &F64Partial| {
            let timed = |x: Option<(i64, f64)>| x.map(|(t, v)| (t, v.to_bits()));
            let plain = |x: Option<f64>| x.map(f64::to_bits);
            let sum = (p.sum.to_bits(), p.sum_rest.to_bits());
            (p.count, sum, plain(p.min), plain(p.max), timed(p.first), timed(p.last))
        };
        bits(self) == bits(other)
    }
}

impl F64Partial {
    /// Adds one value.
    #[inline]
    pub fn fold(&mut self, t_ns: i64, value: f64) {
        self.count += 1;
        self.add(value, 0.0);
        if !value.is_nan() {
            self.extremes(value, value);
        }
        if self.first.is_none_or(|(t, _)| t_ns < t) {
            self.first = Some((t_ns, value));
        }
        if self.last.is_none_or(|(t, _)| t_ns >= t) {
            self.last = Some((t_ns, value));
        }
    }

    /// Adds values seen at `times`, which ascend: in lanes, so that one addition need not wait for the one before.
    pub(crate) fn fold_many(&mut self, times: impl Stamps, values: &[f64]) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let mut lanes = [Lane::default(); LANES];
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| lane.add(value));
        }
        let all_finite = lanes.iter().all(|lane| (lane.sum + lane.error).is_finite());
        let (Some(&first), Some(&last)) = (values.first(), values.last()) else {
            return;
        };
        let (first_t, last_t) = (times.at(0), times.at(values.len() - 1));
        if chunks.is_empty() || !all_finite {
            let values = values.iter().enumerate();
            values.for_each(|(at, &v)| self.fold(times.at(at), v));
            return;
        }
        let lowest = lanes.iter().map(|lane| lane.min).fold(f64::INFINITY, f64::min);
        let highest = lanes.iter().map(|lane| lane.max).fold(f64::NEG_INFINITY, f64::max);
        // Comparing does not tell the zeros apart, the total order does.
        let zero = |negative: bool| {
            chunks
                .iter()
                .flatten()
                .any(|v| *v == 0.0 && v.is_sign_negative() == negative)
        };
        let lowest = if lowest == 0.0 && zero(true) {
            -0.0
        } else {
            lowest + 0.0
        };
        let highest = if highest == 0.0 && !zero(false) {
            -0.0
        } else {
            highest + 0.0
        };
        self.merge(&F64Partial {
            count: (values.len() - rest.len()) as u64,
            sum: 0.0,
            sum_rest: 0.0,
            min: Some(lowest),
            max: Some(highest),
            first: Some((first_t, first)),
            last: Some((first_t, first)),
        });
        lanes.iter().for_each(|lane| self.add(lane.sum, lane.error));
        let rest_at = values.len() - rest.len();
        let rest = rest.iter().enumerate();
        rest.for_each(|(at, &v)| self.fold(times.at(rest_at + at), v));
        if self.last.is_none_or(|(t, _)| last_t >= t) {
            self.last = Some((last_t, last));
        }
    }

    /// Adds values to count, smallest and largest alone.
    #[inline]
    pub(crate) fn fold_extremes(&mut self, values: &[f64]) {
        self.count += values.len() as u64;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for &value in values {
            low = if value < low { value } else { low };
            high = if value > high { value } else { high };
        }
        // Comparing passes over NaN, takes an infinity for nothing yet, and does not tell the zeros apart.
        if low.is_finite() && high.is_finite() && low != 0.0 && high != 0.0 {
            self.extremes(low, high);
        } else {
            let numbers = values.iter().filter(|value| !value.is_nan());
            numbers.for_each(|&value| self.extremes(value, value));
        }
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &F64Partial) {
        self.count = self.count.saturating_add(other.count);
        self.add(other.sum, other.sum_rest);
        if let (Some(min), Some(max)) = (other.min, other.max) {
            self.extremes(min, max);
        }
        if let Some(first) = other.first
            && self.first.is_none_or(|(t, _)| first.0 < t)
        {
            self.first = Some(first);
        }
        if let Some(last) = other.last
            && self.last.is_none_or(|(t, _)| last.0 >= t)
        {
            self.last = Some(last);
        }
    }

    pub(super) fn finish(&self, function: Function) -> Option<f64> {
        match function {
            Function::Sum => Some(self.sum + self.sum_rest),
            Function::Avg => Some((self.sum + self.sum_rest) / self.count as f64),
            Function::Min => self.min,
            Function::Max => self.max,
            Function::Spread => Some(self.max? - self.min?),
            Function::First => self.first.map(|(_, v)| v),
            Function::Last => self.last.map(|(_, v)| v),
            Function::Count => None,
        }
    }

    #[inline]
    fn extremes(&mut self, min: f64, max: f64) {
        if self.min.is_none_or(|m| min.total_cmp(&m).is_lt()) {
            self.min = Some(min);
        }
        if self.max.is_none_or(|m| max.total_cmp(&m).is_gt()) {
            self.max = Some(max);
        }
    }

    /// Double-double addition (Knuth's exact two-sum, then renormalised).
    #[inline]
    fn add(&mut self, value: f64, rest: f64) {
        let sum = self.sum + value;
        let shadow = sum - self.sum;
        let error = (self.sum - (sum - shadow)) + (value - shadow);
        let small = error + (self.sum_rest + rest);
        let high = sum + small;
        if high.is_finite() {
            self.sum_rest = small - (high - sum);
            self.sum = high;
        } else {
            self.sum_rest = 0.0;
            self.sum = if sum.is_nan() { f64::NAN } else { sum };
        }
    }
}
