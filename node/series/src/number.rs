//! A number as it is stored, which a double need not hold.
//!
//! Never here: what is calculated with it. Invariant: what goes in comes out to the last bit, unless a double was asked for.

use crate::record::ValueRef;

/// A number of a point.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Number {
    /// IEEE double.
    Double(f64),
    /// Signed integer.
    Whole(i64),
}

impl Number {
    /// That of a value; `None` for what is no number.
    #[inline]
    pub fn of(value: ValueRef<'_>) -> Option<Number> {
        match value {
            ValueRef::F64(value) => Some(Number::Double(value)),
            ValueRef::I64(value) => Some(Number::Whole(value)),
            ValueRef::Bool(_) | ValueRef::Enum(_) | ValueRef::Text(_) => None,
        }
    }

    /// What is compared and calculated with: of whole numbers beyond 2^53 the nearest double.
    #[inline]
    pub fn value(self) -> f64 {
        match self {
            Number::Double(value) => value,
            Number::Whole(value) => value as f64,
        }
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Double(value)
    }
}
