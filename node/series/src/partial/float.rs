//! The unfinished aggregate of doubles.
//!
//! Never here: other types. Invariant: NaN takes no part in min and max; the sum carries its rounding error along
//! (double-double), so that any grouping of merges agrees to about 1e-30 of the sum of magnitudes.

use super::Function;

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
