//! Records of one device in columns: the shape every other file works on.
//!
//! Never here: bytes (see `block`) and the sorting and folding of rows (see `rows`).
//! Invariant of normalised records: times strictly increase, columns ascend by property, no column is empty, a
//! presence that covers every row is `None`, qualities that are all 0 are `None`, repeats that are all 0 are empty.

use std::ops::Range;

use crate::bitmap::Bitmap;
use crate::rows;

/// Number of a property within its device type, never reused.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct PropertyNumber(pub u32);

/// Type of the values of a property.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ValueType {
    /// IEEE double, kept bit for bit.
    F64,
    /// Signed 64-bit integer.
    I64,
    /// Truth value.
    Bool,
    /// Index of a label in the device type's list.
    Enum,
    /// UTF-8 text.
    Text,
}

/// One value, borrowed.
#[derive(Copy, Clone, Debug)]
pub enum ValueRef<'a> {
    /// IEEE double.
    F64(f64),
    /// Signed integer.
    I64(i64),
    /// Truth value.
    Bool(bool),
    /// Label index.
    Enum(u32),
    /// UTF-8 text.
    Text(&'a str),
}

impl ValueRef<'_> {
    /// The number that it is; `None` for what is no number.
    pub fn number(self) -> Option<f64> {
        match self {
            ValueRef::F64(value) => Some(value),
            ValueRef::I64(value) => Some(value as f64),
            ValueRef::Bool(_) | ValueRef::Enum(_) | ValueRef::Text(_) => None,
        }
    }
}

/// Values of the present rows only, in row order.
#[derive(Clone, Debug)]
pub enum Values {
    /// Doubles; compared by their bits.
    F64(Vec<f64>),
    /// Signed integers.
    I64(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Label indices.
    Enum(Vec<u32>),
    /// UTF-8 texts.
    Text(Vec<String>),
}

impl PartialEq for Values {
    fn eq(&self, other: &Values) -> bool {
        match (self, other) {
            (Values::F64(a), Values::F64(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
            }
            (Values::I64(a), Values::I64(b)) => a == b,
            (Values::Bool(a), Values::Bool(b)) => a == b,
            (Values::Enum(a), Values::Enum(b)) => a == b,
            (Values::Text(a), Values::Text(b)) => a == b,
            _ => false,
        }
    }
}

impl Values {
    /// No values of type `of`.
    pub fn empty(of: ValueType) -> Values {
        match of {
            ValueType::F64 => Values::F64(Vec::new()),
            ValueType::I64 => Values::I64(Vec::new()),
            ValueType::Bool => Values::Bool(Vec::new()),
            ValueType::Enum => Values::Enum(Vec::new()),
            ValueType::Text => Values::Text(Vec::new()),
        }
    }

    /// The type of the values.
    pub fn value_type(&self) -> ValueType {
        match self {
            Values::F64(_) => ValueType::F64,
            Values::I64(_) => ValueType::I64,
            Values::Bool(_) => ValueType::Bool,
            Values::Enum(_) => ValueType::Enum,
            Values::Text(_) => ValueType::Text,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Values::F64(v) => v.len(),
            Values::I64(v) => v.len(),
            Values::Bool(v) => v.len(),
            Values::Enum(v) => v.len(),
            Values::Text(v) => v.len(),
        }
    }

    /// True where there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `index` among the present ones.
    pub fn get(&self, index: usize) -> Option<ValueRef<'_>> {
        match self {
            Values::F64(v) => v.get(index).map(|&x| ValueRef::F64(x)),
            Values::I64(v) => v.get(index).map(|&x| ValueRef::I64(x)),
            Values::Bool(v) => v.get(index).map(|&x| ValueRef::Bool(x)),
            Values::Enum(v) => v.get(index).map(|&x| ValueRef::Enum(x)),
            Values::Text(v) => v.get(index).map(|x| ValueRef::Text(x)),
        }
    }

    /// The values at `indices`, in that order. Indices beyond the end are left out.
    pub(crate) fn gather(&self, indices: impl Iterator<Item = usize>) -> Values {
        fn pick<T: Clone>(from: &[T], indices: impl Iterator<Item = usize>) -> Vec<T> {
            indices.filter_map(|i| from.get(i).cloned()).collect()
        }
        match self {
            Values::F64(v) => Values::F64(pick(v, indices)),
            Values::I64(v) => Values::I64(pick(v, indices)),
            Values::Bool(v) => Values::Bool(pick(v, indices)),
            Values::Enum(v) => Values::Enum(pick(v, indices)),
            Values::Text(v) => Values::Text(pick(v, indices)),
        }
    }

    /// The values at `range`, cut to those there are.
    pub(crate) fn slice(&self, range: Range<usize>) -> Values {
        fn cut<T: Clone>(from: &[T], range: Range<usize>) -> Vec<T> {
            let end = range.end.min(from.len());
            from.get(range.start..end).unwrap_or_default().to_vec()
        }
        match self {
            Values::F64(v) => Values::F64(cut(v, range)),
            Values::I64(v) => Values::I64(cut(v, range)),
            Values::Bool(v) => Values::Bool(cut(v, range)),
            Values::Enum(v) => Values::Enum(cut(v, range)),
            Values::Text(v) => Values::Text(cut(v, range)),
        }
    }

    /// Makes room for that many more.
    pub(crate) fn reserve(&mut self, more: usize) {
        match self {
            Values::F64(v) => v.reserve_exact(more),
            Values::I64(v) => v.reserve_exact(more),
            Values::Bool(v) => v.reserve_exact(more),
            Values::Enum(v) => v.reserve_exact(more),
            Values::Text(v) => v.reserve_exact(more),
        }
    }

    /// Appends `other`; false (and nothing done) where the types differ.
    pub(crate) fn append(&mut self, other: Values) -> bool {
        match (self, other) {
            (Values::F64(a), Values::F64(b)) => a.extend(b),
            (Values::I64(a), Values::I64(b)) => a.extend(b),
            (Values::Bool(a), Values::Bool(b)) => a.extend(b),
            (Values::Enum(a), Values::Enum(b)) => a.extend(b),
            (Values::Text(a), Values::Text(b)) => a.extend(b),
            _ => return false,
        }
        true
    }
}

/// The values of one property over the rows of some records.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Which property.
    pub property: PropertyNumber,
    /// Which rows have a value; `None`: every row.
    pub presence: Option<Bitmap>,
    /// One value per present row.
    pub values: Values,
    /// One quality per present value; `None`: all 0.
    pub quality: Option<Vec<u8>>,
}

impl Column {
    /// The value at row `row` and its quality. Linear in the row number for columns with gaps; iterate with
    /// [`Column::cells`] instead.
    pub fn at(&self, row: usize) -> Option<(ValueRef<'_>, u8)> {
        let index = match &self.presence {
            None => row,
            Some(map) if map.get(row) => map.rank(row),
            Some(_) => return None,
        };
        Some((self.values.get(index)?, self.quality_at(index)))
    }

    /// Row, value and quality of every present value, in row order.
    pub fn cells(&self) -> impl Iterator<Item = (usize, ValueRef<'_>, u8)> + '_ {
        self.present_rows()
            .enumerate()
            .filter_map(|(i, row)| Some((row, self.values.get(i)?, self.quality_at(i))))
    }

    /// Rows that have a value, ascending.
    pub fn present_rows(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        match &self.presence {
            None => Box::new(0..self.values.len()),
            Some(map) => Box::new(map.iter_ones()),
        }
    }

    fn quality_at(&self, index: usize) -> u8 {
        self.quality.as_ref().and_then(|q| q.get(index).copied()).unwrap_or(0)
    }
}

/// Records of one device: a row is everything it said of one observation time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// Observation time per row, nanoseconds since the epoch, UTC.
    pub observed_at: Vec<i64>,
    /// When the first node took the record, per row, nanoseconds since the epoch, UTC. Empty where that was not decoded.
    pub received_at: Vec<i64>,
    /// Why it was reported, per row.
    pub report_kind: Vec<u8>,
    /// The properties, ascending.
    pub columns: Vec<Column>,
    /// How many values of a row took the place of others, per row: a record of three values that was sent once more has 3. Empty: none
    /// of any. It adds up whatever is merged first.
    pub repeats: Vec<u32>,
}

impl Records {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.observed_at.len()
    }

    /// True where there is no row.
    pub fn is_empty(&self) -> bool {
        self.observed_at.is_empty()
    }

    /// Number of present values over all columns.
    pub fn points(&self) -> usize {
        self.columns.iter().map(|c| c.values.len()).sum()
    }

    /// The column of `property`, found by binary search (columns ascend).
    pub fn column(&self, property: PropertyNumber) -> Option<&Column> {
        self.columns
            .binary_search_by_key(&property, |c| c.property)
            .ok()
            .map(|i| &self.columns[i])
    }

    /// Sorts rows by time (stable) and folds rows of equal time into one: per property the later row wins; receipt
    /// time and report kind are those of the later row. Two columns of one property become one; where their types
    /// differ the later type wins and the other values are dropped. A value that takes the place of another is a repeat;
    /// a record that comes in pieces has none.
    pub fn normalise(self) -> Records {
        rows::normalise(vec![self])
    }

    /// `newer` overwrites `older` at equal time, property by property; each such value is a repeat. Both normalised.
    pub fn merge(older: &Records, newer: &Records) -> Records {
        rows::normalise(vec![older.clone(), newer.clone()])
    }

    /// The same for many, oldest first, in time linear in their rows (sorting aside).
    pub fn merge_all(parts: Vec<Records>) -> Records {
        rows::normalise(parts)
    }

    /// Numbers of the rows with `from <= observed_at < to`. Times ascend.
    pub fn rows_between(&self, from: i64, to: i64) -> Range<usize> {
        let start = self.observed_at.partition_point(|&t| t < from);
        let end = self.observed_at.partition_point(|&t| t < to).max(start);
        start..end
    }

    /// Rows with `from <= observed_at < to`. Times ascend.
    pub fn slice_time(&self, from: i64, to: i64) -> Records {
        let rows = self.rows_between(from, to);
        self.slice_rows(rows.start, rows.end)
    }

    /// Rows `start..end` (cut to the rows there are).
    pub fn slice_rows(&self, start: usize, end: usize) -> Records {
        rows::slice(self, start, end)
    }

    /// Some rows, in the order in which they are named; they need not ascend then. Each at most once.
    pub fn pick_rows(&self, rows: &[usize]) -> Records {
        rows::pick(self, rows)
    }

    /// Only the values that `keep` takes, by property, row, value and quality. Rows stay, with or without a value.
    pub fn keep_values(self, keep: impl FnMut(PropertyNumber, usize, ValueRef<'_>, u8) -> bool) -> Records {
        rows::keep_values(self, keep)
    }

    /// Rows that hold the newest value of some property, at most one per property; other cells of these rows are
    /// dropped.
    pub fn newest(&self) -> Records {
        rows::newest(self)
    }

    /// Only rows that have a value.
    pub fn without_empty_rows(self) -> Records {
        rows::without_empty(self)
    }

    /// Only these properties; rows that then have no value at all stay out.
    pub fn project(&self, properties: &[PropertyNumber]) -> Records {
        rows::project(self, properties)
    }
}
