//! The unfinished aggregate of one property: empty, fold, merge, finish.
//!
//! Never here: windows and blocks. Invariant: `merge` is associative, and commutative but for equal times, where
//! `other` counts as the later one.

mod bytes;
mod float;
mod simple;

pub use float::F64Partial;
pub use simple::{BoolPartial, EnumPartial, I64Partial, TextPartial};

use std::cmp::Ordering;

use crate::block::ColumnStats;
use crate::corrupt::Corrupt;
use crate::needs::Needs;
use crate::record::{ValueRef, ValueType, Values};
use crate::stamps::Stamps;
use crate::window::Edge;

/// What a value means in time; decides lawful aggregates and window edges.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A level at an instant.
    Gauge,
    /// The mean over the time before the stamp.
    Mean,
    /// An amount gathered since the last stamp.
    Increment,
    /// An ever growing count.
    Counter,
    /// A condition that holds until the next one.
    State,
    /// Something that happened.
    Event,
}

impl Kind {
    /// Which end of a window belongs to it for values of this kind.
    pub fn edge(self) -> Edge {
        match self {
            Kind::Mean | Kind::Increment => Edge::EndClosed,
            Kind::Gauge | Kind::Counter | Kind::State | Kind::Event => Edge::StartClosed,
        }
    }
}

/// What is asked of the values of a window.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// Number of values.
    Count,
    /// Sum; of bools the number of true ones.
    Sum,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Mean of the values; of bools the share of true ones.
    Avg,
    /// Value at the earliest time.
    First,
    /// Value at the latest time.
    Last,
    /// Largest value less smallest value.
    Spread,
}

impl Function {
    /// The functions that make sense for values of `kind`.
    pub fn lawful(kind: Kind) -> &'static [Function] {
        use Function::{Avg, Count, First, Last, Max, Min, Spread, Sum};
        match kind {
            Kind::Gauge | Kind::Mean => &[Avg, Min, Max, Spread, First, Last, Count],
            Kind::Increment => &[Sum, Max, Count],
            Kind::Counter => &[First, Last, Count],
            Kind::State => &[Last, Min, Max, Count],
            Kind::Event => &[Count, First, Last],
        }
    }
}

/// The answer of an aggregate.
#[derive(Clone, Debug)]
pub enum Finished {
    /// A count.
    U64(u64),
    /// A double: averages, and values of properties that are doubles.
    F64(f64),
    /// A signed integer: sums of integers and bools, and values of integer properties.
    I64(i64),
    /// A truth value.
    Bool(bool),
    /// A label index.
    Enum(u32),
    /// A text.
    Text(String),
}

impl PartialEq for Finished {
    /// Doubles by their bits.
    fn eq(&self, other: &Finished) -> bool {
        match (self, other) {
            (Finished::U64(a), Finished::U64(b)) => a == b,
            (Finished::F64(a), Finished::F64(b)) => a.to_bits() == b.to_bits(),
            (Finished::I64(a), Finished::I64(b)) => a == b,
            (Finished::Bool(a), Finished::Bool(b)) => a == b,
            (Finished::Enum(a), Finished::Enum(b)) => a == b,
            (Finished::Text(a), Finished::Text(b)) => a == b,
            _ => false,
        }
    }
}

/// A sum or a spread of integers is outside i64.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sum or spread is outside the range of a 64-bit integer")]
pub struct SumOverflow;

/// The unfinished aggregate of one property.
#[derive(Clone, Debug, PartialEq)]
pub enum Partial {
    /// Of doubles.
    F64(F64Partial),
    /// Of signed integers.
    I64(I64Partial),
    /// Of truth values.
    Bool(BoolPartial),
    /// Of label indices.
    Enum(EnumPartial),
    /// Of texts.
    Text(TextPartial),
}

impl Partial {
    /// Of no values.
    pub fn empty(of: ValueType) -> Partial {
        match of {
            ValueType::F64 => Partial::F64(F64Partial::default()),
            ValueType::I64 => Partial::I64(I64Partial::default()),
            ValueType::Bool => Partial::Bool(BoolPartial::default()),
            ValueType::Enum => Partial::Enum(EnumPartial::default()),
            ValueType::Text => Partial::Text(TextPartial::default()),
        }
    }

    /// The type of the values.
    pub fn value_type(&self) -> ValueType {
        match self {
            Partial::F64(_) => ValueType::F64,
            Partial::I64(_) => ValueType::I64,
            Partial::Bool(_) => ValueType::Bool,
            Partial::Enum(_) => ValueType::Enum,
            Partial::Text(_) => ValueType::Text,
        }
    }

    /// Adds one value seen at `t_ns`. A value of another type is ignored.
    #[inline]
    pub fn fold(&mut self, t_ns: i64, value: ValueRef<'_>) {
        match (self, value) {
            (Partial::F64(p), ValueRef::F64(v)) => p.fold(t_ns, v),
            (Partial::I64(p), ValueRef::I64(v)) => p.fold(t_ns, v),
            (Partial::Bool(p), ValueRef::Bool(v)) => p.fold(t_ns, v),
            (Partial::Enum(p), ValueRef::Enum(v)) => p.fold(t_ns, v),
            (Partial::Text(p), ValueRef::Text(v)) => p.fold(t_ns, v),
            _ => debug_assert!(false, "value of another type"),
        }
    }

    /// Adds a stretch of a column, from its value `from` on, seen at `times`, which ascend. Values of another type are
    /// ignored.
    pub fn fold_values(&mut self, times: &[i64], values: &Values, from: usize) {
        self.fold_stamped(times, values, from, Needs::All);
    }

    /// The same for times of any form; what is not needed may be missed.
    #[inline]
    pub(crate) fn fold_stamped<S: Stamps>(&mut self, times: S, values: &Values, from: usize, needs: Needs) {
        fn part<T>(values: &[T], from: usize, len: usize) -> &[T] {
            values.get(from..from + len).unwrap_or_default()
        }
        let extremes = needs.in_any_order();
        match (self, values) {
            (Partial::F64(p), Values::F64(v)) if extremes => p.fold_extremes(part(v, from, times.len())),
            (Partial::I64(p), Values::I64(v)) if extremes => p.fold_extremes(part(v, from, times.len())),
            (Partial::Enum(p), Values::Enum(v)) if extremes => p.fold_extremes(part(v, from, times.len())),
            (Partial::F64(p), Values::F64(v)) => p.fold_many(times, part(v, from, times.len())),
            (Partial::I64(p), Values::I64(v)) => p.fold_many(times, part(v, from, times.len())),
            (Partial::Bool(p), Values::Bool(v)) => p.fold_many(times, part(v, from, times.len())),
            (Partial::Enum(p), Values::Enum(v)) => p.fold_many(times, part(v, from, times.len())),
            (Partial::Text(p), Values::Text(v)) => {
                let values = part(v, from, times.len()).iter().enumerate();
                values.for_each(|(at, v)| p.fold(times.at(at), v));
            }
            _ => debug_assert!(false, "values of another type"),
        }
    }

    /// Adds a whole column by the statistics of its block.
    pub fn fold_stats(&mut self, stats: &ColumnStats) {
        self.merge(&stats.partial);
    }

    /// Whether values of which `all` says how far they reach would change nothing that is needed but the count.
    pub(crate) fn outdoes(&self, all: &Partial, needs: Needs) -> bool {
        match (self, all, needs) {
            (Partial::F64(p), Partial::F64(all), Needs::Highest) => reaches(p.max, all.max, f64::total_cmp),
            (Partial::F64(p), Partial::F64(all), Needs::Lowest) => reaches(all.min, p.min, f64::total_cmp),
            (Partial::I64(p), Partial::I64(all), Needs::Highest) => reaches(p.max, all.max, i64::cmp),
            (Partial::I64(p), Partial::I64(all), Needs::Lowest) => reaches(all.min, p.min, i64::cmp),
            (Partial::Enum(p), Partial::Enum(all), Needs::Highest) => reaches(p.max, all.max, u32::cmp),
            (Partial::Enum(p), Partial::Enum(all), Needs::Lowest) => reaches(all.min, p.min, u32::cmp),
            _ => false,
        }
    }

    /// Counts values that would change nothing else that is needed.
    pub(crate) fn count_more(&mut self, values: u64) {
        match self {
            Partial::F64(p) => p.count += values,
            Partial::I64(p) => p.count += values,
            Partial::Bool(p) => p.count += values,
            Partial::Enum(p) => p.count += values,
            Partial::Text(p) => p.count += values,
        }
    }

    /// Adds all that `other` has seen. One of another type is ignored.
    pub fn merge(&mut self, other: &Partial) {
        match (self, other) {
            (Partial::F64(p), Partial::F64(o)) => p.merge(o),
            (Partial::I64(p), Partial::I64(o)) => p.merge(o),
            (Partial::Bool(p), Partial::Bool(o)) => p.merge(o),
            (Partial::Enum(p), Partial::Enum(o)) => p.merge(o),
            (Partial::Text(p), Partial::Text(o)) => p.merge(o),
            _ => debug_assert!(false, "partial of another type"),
        }
    }

    /// Number of values seen.
    pub fn count(&self) -> u64 {
        match self {
            Partial::F64(p) => p.count,
            Partial::I64(p) => p.count,
            Partial::Bool(p) => p.count,
            Partial::Enum(p) => p.count,
            Partial::Text(p) => p.count,
        }
    }

    /// Bytes of the texts that it holds.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Partial::Text(p) => p.bytes(),
            Partial::F64(_) | Partial::I64(_) | Partial::Bool(_) | Partial::Enum(_) => 0,
        }
    }

    /// When the last value was seen, and what it was.
    pub fn last(&self) -> Option<(i64, ValueRef<'_>)> {
        match self {
            Partial::F64(p) => p.last.map(|(t, v)| (t, ValueRef::F64(v))),
            Partial::I64(p) => p.last.map(|(t, v)| (t, ValueRef::I64(v))),
            Partial::Bool(p) => p.last.map(|(t, v)| (t, ValueRef::Bool(v))),
            Partial::Enum(p) => p.last.map(|(t, v)| (t, ValueRef::Enum(v))),
            Partial::Text(p) => p.last.as_ref().map(|(t, v)| (*t, ValueRef::Text(v))),
        }
    }

    /// When the first value was seen, and what it was.
    pub fn first(&self) -> Option<(i64, ValueRef<'_>)> {
        match self {
            Partial::F64(p) => p.first.map(|(t, v)| (t, ValueRef::F64(v))),
            Partial::I64(p) => p.first.map(|(t, v)| (t, ValueRef::I64(v))),
            Partial::Bool(p) => p.first.map(|(t, v)| (t, ValueRef::Bool(v))),
            Partial::Enum(p) => p.first.map(|(t, v)| (t, ValueRef::Enum(v))),
            Partial::Text(p) => p.first.as_ref().map(|(t, v)| (*t, ValueRef::Text(v))),
        }
    }

    /// The answer; `None` where there is none (nothing seen, only NaN for min and max, or a function that the type
    /// does not know). Count always has one.
    ///
    /// # Errors
    /// The sum or the spread of integers is outside i64.
    pub fn finish(&self, function: Function) -> Result<Option<Finished>, SumOverflow> {
        if function == Function::Count {
            return Ok(Some(Finished::U64(self.count())));
        }
        if self.count() == 0 {
            return Ok(None);
        }
        match self {
            Partial::F64(p) => Ok(p.finish(function).map(Finished::F64)),
            Partial::I64(p) => p.finish(function),
            Partial::Bool(p) => Ok(p.finish(function)),
            Partial::Enum(p) => Ok(p.finish(function)),
            Partial::Text(p) => Ok(p.finish(function)),
        }
    }

    /// The bytes of an unfinished aggregate, for another shard or node (layout in `partial/bytes.rs`).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_to(&mut out);
        out
    }

    /// Appends them.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        bytes::encode(self, out);
    }

    /// Reads what [`Partial::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are not those of a partial, or there are more.
    pub fn decode(bytes: &[u8]) -> Result<Partial, Corrupt> {
        bytes::decode(bytes)
    }
}

/// Whether one value is no less than another one; where either is missing, nobody knows.
fn reaches<T>(value: Option<T>, other: Option<T>, compare: impl Fn(&T, &T) -> Ordering) -> bool {
    value
        .zip(other)
        .is_some_and(|(value, other)| compare(&value, &other).is_ge())
}
