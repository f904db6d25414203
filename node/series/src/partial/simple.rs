//! The unfinished aggregates of integers, bools, labels and texts.
//!
//! Never here: doubles (see `float`). Invariant: everything is exact; of equal times the later call keeps `last`,
//! the earlier one `first`.

use super::{Finished, Function, SumOverflow};
use crate::stamps::Stamps;

/// Count, sum, extremes, first and last of signed integers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct I64Partial {
    /// Number of values.
    pub count: u64,
    /// The exact sum.
    pub sum: i128,
    /// Smallest.
    pub min: Option<i64>,
    /// Largest.
    pub max: Option<i64>,
    /// Earliest time and its value.
    pub first: Option<(i64, i64)>,
    /// Latest time and its value.
    pub last: Option<(i64, i64)>,
}

/// Count, number of true ones, first and last of truth values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoolPartial {
    /// Number of values.
    pub count: u64,
    /// How many of them are true.
    pub trues: u64,
    /// Earliest time and its value.
    pub first: Option<(i64, bool)>,
    /// Latest time and its value.
    pub last: Option<(i64, bool)>,
}

/// Count, extremes, first and last of label indices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnumPartial {
    /// Number of values.
    pub count: u64,
    /// Smallest index.
    pub min: Option<u32>,
    /// Largest index.
    pub max: Option<u32>,
    /// Earliest time and its value.
    pub first: Option<(i64, u32)>,
    /// Latest time and its value.
    pub last: Option<(i64, u32)>,
}

/// Count, first and last of texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextPartial {
    /// Number of values.
    pub count: u64,
    /// Earliest time and its value.
    pub first: Option<(i64, String)>,
    /// Latest time and its value.
    pub last: Option<(i64, String)>,
}

#[inline]
fn keep_first<T: Copy>(kept: &mut Option<(i64, T)>, new: Option<(i64, T)>) {
    if let Some(new) = new
        && kept.is_none_or(|(t, _)| new.0 < t)
    {
        *kept = Some(new);
    }
}

#[inline]
fn keep_last<T: Copy>(kept: &mut Option<(i64, T)>, new: Option<(i64, T)>) {
    if let Some(new) = new
        && kept.is_none_or(|(t, _)| new.0 >= t)
    {
        *kept = Some(new);
    }
}

/// The earliest and the latest of values seen at `times`, which ascend.
type Ends<T> = (Option<(i64, T)>, Option<(i64, T)>);

fn ends<T: Copy>(times: impl Stamps, values: &[T]) -> Ends<T> {
    let at = |index: usize| Some((times.at(index), *values.get(index)?));
    (at(0), values.len().checked_sub(1).and_then(at))
}

fn smaller<T: Ord + Copy>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}

fn larger<T: Ord + Copy>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).max()
}

impl I64Partial {
    /// Adds one value.
    #[inline]
    pub fn fold(&mut self, t_ns: i64, value: i64) {
        let timed = Some((t_ns, value));
        self.merge(&I64Partial {
            count: 1,
            sum: value.into(),
            min: Some(value),
            max: Some(value),
            first: timed,
            last: timed,
        });
    }

    /// Adds values seen at `times`, which ascend.
    pub(crate) fn fold_many(&mut self, times: impl Stamps, values: &[i64]) {
        let (first, last) = ends(times, values);
        self.merge(&I64Partial {
            count: values.len() as u64,
            sum: values.iter().map(|&v| i128::from(v)).sum(),
            min: values.iter().min().copied(),
            max: values.iter().max().copied(),
            first,
            last,
        });
    }

    /// Adds values to count, smallest and largest alone.
    #[inline]
    pub(crate) fn fold_extremes(&mut self, values: &[i64]) {
        self.count += values.len() as u64;
        self.min = smaller(self.min, values.iter().min().copied());
        self.max = larger(self.max, values.iter().max().copied());
    }

    /// Adds all that `other` has seen.
    #[inline]
    pub fn merge(&mut self, other: &I64Partial) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.min = smaller(self.min, other.min);
        self.max = larger(self.max, other.max);
        keep_first(&mut self.first, other.first);
        keep_last(&mut self.last, other.last);
    }

    pub(super) fn finish(&self, function: Function) -> Result<Option<Finished>, SumOverflow> {
        Ok(match function {
            Function::Sum => Some(Finished::I64(i64::try_from(self.sum).map_err(|_| SumOverflow)?)),
            Function::Avg => Some(Finished::F64(self.sum as f64 / self.count as f64)),
            Function::Min => self.min.map(Finished::I64),
            Function::Max => self.max.map(Finished::I64),
            Function::Spread => match self.max.zip(self.min) {
                Some((max, min)) => Some(Finished::I64(max.checked_sub(min).ok_or(SumOverflow)?)),
                None => None,
            },
            Function::First => self.first.map(|(_, v)| Finished::I64(v)),
            Function::Last => self.last.map(|(_, v)| Finished::I64(v)),
            Function::Count => None,
        })
    }
}

impl BoolPartial {
    /// Adds one value.
    #[inline]
    pub fn fold(&mut self, t_ns: i64, value: bool) {
        let timed = Some((t_ns, value));
        self.merge(&BoolPartial {
            count: 1,
            trues: value.into(),
            first: timed,
            last: timed,
        });
    }

    /// Adds values seen at `times`, which ascend.
    pub(crate) fn fold_many(&mut self, times: impl Stamps, values: &[bool]) {
        let (first, last) = ends(times, values);
        self.merge(&BoolPartial {
            count: values.len() as u64,
            trues: values.iter().filter(|&&v| v).count() as u64,
            first,
            last,
        });
    }

    /// Adds all that `other` has seen.
    #[inline]
    pub fn merge(&mut self, other: &BoolPartial) {
        self.count = self.count.saturating_add(other.count);
        self.trues = self.trues.saturating_add(other.trues);
        keep_first(&mut self.first, other.first);
        keep_last(&mut self.last, other.last);
    }

    pub(super) fn finish(&self, function: Function) -> Option<Finished> {
        match function {
            Function::Sum => i64::try_from(self.trues).ok().map(Finished::I64),
            Function::Avg => Some(Finished::F64(self.trues as f64 / self.count as f64)),
            Function::Min => Some(Finished::Bool(self.trues == self.count)),
            Function::Max => Some(Finished::Bool(self.trues > 0)),
            Function::Spread => None,
            Function::First => self.first.map(|(_, v)| Finished::Bool(v)),
            Function::Last => self.last.map(|(_, v)| Finished::Bool(v)),
            Function::Count => None,
        }
    }
}

impl EnumPartial {
    /// Adds one value.
    #[inline]
    pub fn fold(&mut self, t_ns: i64, value: u32) {
        let timed = Some((t_ns, value));
        self.merge(&EnumPartial {
            count: 1,
            min: Some(value),
            max: Some(value),
            first: timed,
            last: timed,
        });
    }

    /// Adds values seen at `times`, which ascend.
    pub(crate) fn fold_many(&mut self, times: impl Stamps, values: &[u32]) {
        let (first, last) = ends(times, values);
        self.merge(&EnumPartial {
            count: values.len() as u64,
            min: values.iter().min().copied(),
            max: values.iter().max().copied(),
            first,
            last,
        });
    }

    /// Adds values to count, smallest and largest alone.
    #[inline]
    pub(crate) fn fold_extremes(&mut self, values: &[u32]) {
        self.count += values.len() as u64;
        self.min = smaller(self.min, values.iter().min().copied());
        self.max = larger(self.max, values.iter().max().copied());
    }

    /// Adds all that `other` has seen.
    #[inline]
    pub fn merge(&mut self, other: &EnumPartial) {
        self.count = self.count.saturating_add(other.count);
        self.min = smaller(self.min, other.min);
        self.max = larger(self.max, other.max);
        keep_first(&mut self.first, other.first);
        keep_last(&mut self.last, other.last);
    }

    pub(super) fn finish(&self, function: Function) -> Option<Finished> {
        match function {
            Function::Min => self.min.map(Finished::Enum),
            Function::Max => self.max.map(Finished::Enum),
            Function::First => self.first.map(|(_, v)| Finished::Enum(v)),
            Function::Last => self.last.map(|(_, v)| Finished::Enum(v)),
            Function::Count | Function::Sum | Function::Avg | Function::Spread => None,
        }
    }
}

impl TextPartial {
    /// Adds one value.
    pub fn fold(&mut self, t_ns: i64, value: &str) {
        self.count += 1;
        if self.first.as_ref().is_none_or(|(t, _)| t_ns < *t) {
            self.first = Some((t_ns, value.to_owned()));
        }
        if self.last.as_ref().is_none_or(|(t, _)| t_ns >= *t) {
            self.last = Some((t_ns, value.to_owned()));
        }
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &TextPartial) {
        self.count = self.count.saturating_add(other.count);
        if let Some(first) = &other.first
            && self.first.as_ref().is_none_or(|(t, _)| first.0 < *t)
        {
            self.first = Some(first.clone());
        }
        if let Some(last) = &other.last
            && self.last.as_ref().is_none_or(|(t, _)| last.0 >= *t)
        {
            self.last = Some(last.clone());
        }
    }

    /// Bytes of the texts.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.first.iter().chain(&self.last);
        texts.map(|(_, text)| text.len()).sum()
    }

    pub(super) fn finish(&self, function: Function) -> Option<Finished> {
        match function {
            Function::First => self.first.as_ref().map(|(_, v)| Finished::Text(v.clone())),
            Function::Last => self.last.as_ref().map(|(_, v)| Finished::Text(v.clone())),
            _ => None,
        }
    }
}
