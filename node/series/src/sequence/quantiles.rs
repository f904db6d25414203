//! Values by size: all of them while they are few, counts of values that lie close together beyond (DDSketch, Masson, Rim and
//! Lee, VLDB 2019: borders grow by a constant ratio, so that the error is a share of the value).
//!
//! Never here: which values. Invariant: a quantile of few values is one of them; of many it is wrong by no more than
//! [`QUANTILE_ERROR`] of itself, or zero where that is nearer than 1e-9, whatever was merged with what.

use std::collections::BTreeMap;

/// The greatest error of a quantile of more than 64 values, as a share of the value.
pub const QUANTILE_ERROR: f64 = 0.01;
/// So many values are kept as they are.
pub(super) const FEW: usize = 64;
/// What is nearer to zero than this counts as zero: in bytes that were written, numbers of borders begin here.
const SMALLEST: f64 = 1e-9;
/// What a count costs in memory, roughly, bytes.
const COUNT_BYTES: usize = 24;
/// From border to border.
const RATIO: f64 = (1.0 + QUANTILE_ERROR) / (1.0 - QUANTILE_ERROR);

/// Values by size.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantiles {
    /// As they are.
    Few(Vec<f64>),
    /// How many lie between which borders. Numbers of those below zero are negative, 0 is zero.
    Many(BTreeMap<i32, u64>),
}

impl Default for Quantiles {
    fn default() -> Quantiles {
        Quantiles::Few(Vec::new())
    }
}

impl Quantiles {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        match self {
            Quantiles::Few(few) if few.len() < FEW => few.push(value),
            _ => *self.counts().entry(place(value)).or_default() += 1,
        }
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Quantiles) {
        match other {
            Quantiles::Few(few) => few.iter().for_each(|value| self.add(*value)),
            Quantiles::Many(counts) => {
                let mine = self.counts();
                for (place, count) in counts {
                    let sum = mine.entry(*place).or_default();
                    *sum = sum.saturating_add(*count);
                }
            }
        }
    }

    /// The value that so many millionths of the values do not exceed; `None` where there is none.
    pub fn at(&self, millionths: u32) -> Option<f64> {
        // In whole numbers: 55 % of 20 are 11, and as doubles a little more.
        let part = u128::from(millionths.min(1_000_000));
        let rank = |count: u64| ((part * u128::from(count)).div_ceil(1_000_000) as u64).max(1);
        match self {
            Quantiles::Few(few) => {
                let mut sorted = few.clone();
                sorted.sort_by(f64::total_cmp);
                sorted.get(rank(sorted.len() as u64) as usize - 1).copied()
            }
            Quantiles::Many(counts) => {
                let all = counts.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
                let (rank, mut passed) = (rank(all), 0_u64);
                let reached = counts.iter().find(|(_, count)| {
                    passed = passed.saturating_add(**count);
                    passed >= rank
                });
                reached.map(|(place, _)| middle(*place))
            }
        }
    }

    /// What counts cost, roughly, bytes; few values cost nothing beside what has them.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Quantiles::Few(_) => 0,
            Quantiles::Many(counts) => counts.len() * COUNT_BYTES,
        }
    }

    fn counts(&mut self) -> &mut BTreeMap<i32, u64> {
        if let Quantiles::Few(few) = self {
            let mut counts = BTreeMap::new();
            for value in few.iter() {
                *counts.entry(place(*value)).or_default() += 1;
            }
            *self = Quantiles::Many(counts);
        }
        match self {
            Quantiles::Many(counts) => counts,
            Quantiles::Few(_) => unreachable!("just replaced"),
        }
    }
}

/// Number of the borders that a value lies between.
fn place(value: f64) -> i32 {
    let size = value.abs();
    if size < SMALLEST {
        return 0;
    }
    // Rounded as it always was, since others count by these numbers; but so large that the ratio leaves the doubles.
    let ratio = size / SMALLEST;
    let logarithm = match ratio.is_finite() {
        true => ratio.ln(),
        false => size.ln() - SMALLEST.ln(),
    };
    let steps = ((logarithm / RATIO.ln()).ceil() as i32).saturating_add(1);
    if value < 0.0 { -steps } else { steps }
}

/// The value whose distance to both borders is the same share of them.
fn middle(place: i32) -> f64 {
    if place == 0 {
        return 0.0;
    }
    let steps = place.unsigned_abs() - 1;
    let ratio = RATIO.powi(i32::try_from(steps).unwrap_or(i32::MAX));
    let size = match ratio.is_finite() {
        true => SMALLEST * ratio * (1.0 - QUANTILE_ERROR),
        false => (SMALLEST.ln() + RATIO.ln() * f64::from(steps) + (1.0 - QUANTILE_ERROR).ln()).exp(),
    };
    // Of the last borders the middle, and no value, lies beyond the doubles.
    size.min(f64::MAX) * f64::from(place.signum())
}
