//! One value of any type, and how it sits in the columns of the contract. Never here: batches.
//! Invariant: a value taken from columns and put back is the same value, bit for bit.

use std::fmt;

use tidemark_proto::v1::{self, values::Kind};

/// One value of a property.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A float, bit for bit.
    F64(f64),
    /// An integer.
    I64(i64),
    /// True or false.
    Bool(bool),
    /// One of the labels of the property.
    Enum(String),
    /// Free text.
    Text(String),
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::F64(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::I64(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F64(value) => write!(f, "{value}"),
            Self::I64(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Enum(value) | Self::Text(value) => f.write_str(value),
        }
    }
}

/// The value at `index` of a column; none where the column is shorter or points at a label it does not list.
pub fn value_at(values: &v1::Values, index: usize) -> Option<Value> {
    Some(match values.kind.as_ref()? {
        Kind::F64(column) => Value::F64(*column.values.get(index)?),
        Kind::I64(column) => Value::I64(*column.values.get(index)?),
        Kind::Bool(column) => Value::Bool(*column.values.get(index)?),
        Kind::Enum(column) => {
            let label = usize::try_from(*column.indexes.get(index)?).ok()?;
            Value::Enum(column.labels.get(label)?.clone())
        }
        Kind::Text(column) => Value::Text(column.values.get(index)?.clone()),
    })
}

/// What a function answers, window by window; none where a window has no answer.
pub fn answers_of(column: &v1::AggregateColumn) -> impl Iterator<Item = Option<Value>> + '_ {
    let windows = match column.presence.is_empty() {
        true => usize::MAX,
        false => column.presence.len() * 8,
    };
    let mut next = 0;
    (0..windows).map_while(move |window| {
        let present = column
            .presence
            .get(window / 8)
            .is_none_or(|bits| bits >> (window % 8) & 1 == 1);
        if !present {
            return Some(None);
        }
        next += 1;
        let value = column.values.as_ref().and_then(|values| value_at(values, next - 1));
        value.map(Some)
    })
}

/// Whether a window of a series has no values of its own: nothing in it was measured, or too little, and what it has was filled in.
pub fn is_filled(series: &v1::AggregateSeries, window: usize) -> bool {
    series
        .filled
        .get(window / 8)
        .is_some_and(|bits| bits >> (window % 8) & 1 == 1)
}

/// Every value of a column, in order; ends at the first that [`value_at`] cannot give.
pub fn values_of(values: &v1::Values) -> impl Iterator<Item = Value> + '_ {
    (0..).map_while(|index| value_at(values, index))
}
