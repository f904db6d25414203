//! The columns of a property in a rollup.
//!
//! ```text
//! part = 0 count | 1 sum (of bools the true ones) | 2 what rounding took from a sum of doubles, or what of a sum of integers is
//!        above 64 bits | 3 least | 4 greatest | 5 first value | 6 last value | 7, 8 when these were, nanoseconds after the start |
//!        9 points that do not count | 20 slots without a point between that of the first point and that of the last | others from 10 on:
//!        see `rollup/runs`
//! ```
//! A window of one point says only what its first value is, and when it was; 2 and 20 are left out where they are 0.
//!
//! Never here: which points count, points as a sequence. Invariant: what is read is what was put, to the last bit.

use std::collections::BTreeMap;

use crate::bitmap::Bitmap;
use crate::partial::{BoolPartial, EnumPartial, F64Partial, I64Partial, Partial, TextPartial};
use crate::record::{Column, PropertyNumber, Records, ValueRef, ValueType, Values};

pub(super) const COUNT: u32 = 0;
const SUM: u32 = 1;
const REST: u32 = 2;
const MIN: u32 = 3;
const MAX: u32 = 4;
const FIRST: u32 = 5;
const LAST: u32 = 6;
const FIRST_AFTER: u32 = 7;
const LAST_AFTER: u32 = 8;
pub(super) const DROPPED: u32 = 9;
pub(super) const EMPTY: u32 = 20;

/// Puts the cells of a partial. `short`: without what follows from others.
pub(super) fn put(partial: &Partial, start_ns: i64, short: bool, cell: &mut impl FnMut(u32, ValueRef<'_>)) {
    cell(COUNT, ValueRef::I64(partial.count() as i64));
    let alone = short && partial.count() == 1;
    let last = partial.last().filter(|_| !alone);
    for (end, value, after) in [(partial.first(), FIRST, FIRST_AFTER), (last, LAST, LAST_AFTER)] {
        if let Some((t_ns, end)) = end {
            cell(value, end);
            cell(after, ValueRef::I64(t_ns.saturating_sub(start_ns)));
        }
    }
    if !alone {
        put_totals(partial, short, cell);
    }
}

/// Sums and extremes.
fn put_totals(partial: &Partial, short: bool, cell: &mut impl FnMut(u32, ValueRef<'_>)) {
    match partial {
        Partial::F64(p) => {
            cell(SUM, ValueRef::F64(p.sum));
            if !short || p.sum_rest.to_bits() != 0 {
                cell(REST, ValueRef::F64(p.sum_rest));
            }
            if let (Some(min), Some(max)) = (p.min, p.max) {
                cell(MIN, ValueRef::F64(min));
                cell(MAX, ValueRef::F64(max));
            }
        }
        Partial::I64(p) => {
            cell(SUM, ValueRef::I64(p.sum as i64));
            let above = (p.sum >> 64) as i64;
            if i128::from(p.sum as i64) != p.sum {
                cell(REST, ValueRef::I64(above));
            }
            if let (Some(min), Some(max)) = (p.min, p.max) {
                cell(MIN, ValueRef::I64(min));
                cell(MAX, ValueRef::I64(max));
            }
        }
        Partial::Bool(p) => cell(SUM, ValueRef::I64(p.trues as i64)),
        Partial::Enum(p) => {
            if let (Some(min), Some(max)) = (p.min, p.max) {
                cell(MIN, ValueRef::Enum(min));
                cell(MAX, ValueRef::Enum(max));
            }
        }
        Partial::Text(_) => {}
    }
}

/// Columns that are being filled, row by row.
pub(super) struct Filling {
    rows: usize,
    by_number: BTreeMap<u32, (Bitmap, Values)>,
}

impl Filling {
    /// Of so many rows.
    pub(super) fn new(rows: usize) -> Filling {
        Filling {
            rows,
            by_number: BTreeMap::new(),
        }
    }

    pub(super) fn put(&mut self, row: usize, number: u32, value: ValueRef<'_>) {
        let of = match value {
            ValueRef::F64(_) => ValueType::F64,
            ValueRef::I64(_) => ValueType::I64,
            ValueRef::Bool(_) => ValueType::Bool,
            ValueRef::Enum(_) => ValueType::Enum,
            ValueRef::Text(_) => ValueType::Text,
        };
        let rows = self.rows;
        let new = || (Bitmap::new(rows), Values::empty(of));
        let (presence, values) = self.by_number.entry(number).or_insert_with(new);
        match (values, value) {
            (Values::F64(values), ValueRef::F64(value)) => values.push(value),
            (Values::I64(values), ValueRef::I64(value)) => values.push(value),
            (Values::Bool(values), ValueRef::Bool(value)) => values.push(value),
            (Values::Enum(values), ValueRef::Enum(value)) => values.push(value),
            (Values::Text(values), ValueRef::Text(value)) => values.push(value.to_owned()),
            _ => return debug_assert!(false, "one type a column"),
        }
        presence.set(row, true);
    }

    pub(super) fn finish(self) -> Vec<Column> {
        let rows = self.rows;
        let column = |(number, (presence, values)): (u32, (Bitmap, Values))| Column {
            property: PropertyNumber(number),
            presence: (values.len() < rows).then_some(presence),
            values,
            quality: None,
        };
        self.by_number.into_iter().map(column).collect()
    }
}

/// Columns of a property that are read row by row.
pub(super) struct Columns<'r> {
    columns: Vec<(u32, &'r Column)>,
    /// Cells of each column that were given out.
    taken: Vec<usize>,
}

/// The cells of a row, by part.
pub(super) struct Cells<'r>(Vec<(u32, ValueRef<'r>)>);

impl<'r> Columns<'r> {
    /// Columns by their numbers, which ascend; parts count from `start` on.
    pub(super) fn new(records: &'r Records, numbers: &[PropertyNumber], start: u32) -> Columns<'r> {
        let column = |number: &PropertyNumber| Some((number.0 - start, records.column(*number)?));
        let columns: Vec<_> = numbers.iter().filter_map(column).collect();
        Columns {
            taken: vec![0; columns.len()],
            columns,
        }
    }

    /// The next row; `None` where the property has nothing in it.
    pub(super) fn next(&mut self, row: usize) -> Option<Cells<'r>> {
        let mut cells = Vec::with_capacity(self.columns.len());
        for ((part, column), taken) in self.columns.iter().zip(&mut self.taken) {
            if column.presence.as_ref().is_none_or(|presence| presence.get(row)) {
                cells.extend(column.values.get(*taken).map(|value| (*part, value)));
                *taken += 1;
            }
        }
        (!cells.is_empty()).then_some(Cells(cells))
    }
}

impl<'r> Cells<'r> {
    pub(super) fn get(&self, part: u32) -> Option<ValueRef<'r>> {
        let at = self.0.binary_search_by_key(&part, |(part, _)| *part).ok()?;
        Some(self.0[at].1)
    }

    pub(super) fn integer(&self, part: u32) -> Option<i64> {
        match self.get(part)? {
            ValueRef::I64(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn double(&self, part: u32) -> Option<f64> {
        match self.get(part)? {
            ValueRef::F64(value) => Some(value),
            _ => None,
        }
    }

    /// Those of parts from one on.
    pub(super) fn from(&self, part: u32) -> impl Iterator<Item = (u32, ValueRef<'r>)> + '_ {
        let first = self.0.partition_point(|(of, _)| *of < part);
        self.0[first..].iter().copied()
    }

    /// The partial of the cells; `None` where they are not those of one.
    pub(super) fn partial(&self, value_type: ValueType, start_ns: i64) -> Option<Partial> {
        let count = u64::try_from(self.integer(COUNT)?).ok()?;
        let first_ns = start_ns.saturating_add(self.integer(FIRST_AFTER)?);
        let Some(last_after) = self.integer(LAST_AFTER) else {
            let mut one = Partial::empty(value_type);
            let of_its_type = self
                .get(FIRST)
                .filter(|value| is_of(*value, value_type) && count == 1)?;
            one.fold(first_ns, of_its_type);
            return Some(one);
        };
        let last_ns = start_ns.saturating_add(last_after);
        macro_rules! of {
            ($type:ident, $part:expr) => {
                match self.get($part) {
                    Some(ValueRef::$type(value)) => Some(value.to_owned()),
                    _ => None,
                }
            };
        }
        Some(match value_type {
            ValueType::F64 => Partial::F64(F64Partial {
                count,
                sum: of!(F64, SUM)?,
                sum_rest: of!(F64, REST).unwrap_or(0.0),
                min: of!(F64, MIN),
                max: of!(F64, MAX),
                first: Some((first_ns, of!(F64, FIRST)?)),
                last: Some((last_ns, of!(F64, LAST)?)),
            }),
            ValueType::I64 => {
                let low = self.integer(SUM)?;
                let sum = match self.integer(REST) {
                    Some(above) => i128::from(above) << 64 | i128::from(low as u64),
                    None => i128::from(low),
                };
                Partial::I64(I64Partial {
                    count,
                    sum,
                    min: of!(I64, MIN),
                    max: of!(I64, MAX),
                    first: Some((first_ns, of!(I64, FIRST)?)),
                    last: Some((last_ns, of!(I64, LAST)?)),
                })
            }
            ValueType::Bool => Partial::Bool(BoolPartial {
                count,
                trues: u64::try_from(self.integer(SUM)?).ok()?,
                first: Some((first_ns, of!(Bool, FIRST)?)),
                last: Some((last_ns, of!(Bool, LAST)?)),
            }),
            ValueType::Enum => Partial::Enum(EnumPartial {
                count,
                min: of!(Enum, MIN),
                max: of!(Enum, MAX),
                first: Some((first_ns, of!(Enum, FIRST)?)),
                last: Some((last_ns, of!(Enum, LAST)?)),
            }),
            ValueType::Text => Partial::Text(TextPartial {
                count,
                first: Some((first_ns, of!(Text, FIRST)?)),
                last: Some((last_ns, of!(Text, LAST)?)),
            }),
        })
    }
}

fn is_of(value: ValueRef<'_>, value_type: ValueType) -> bool {
    matches!(
        (value, value_type),
        (ValueRef::F64(_), ValueType::F64)
            | (ValueRef::I64(_), ValueType::I64)
            | (ValueRef::Bool(_), ValueType::Bool)
            | (ValueRef::Enum(_), ValueType::Enum)
            | (ValueRef::Text(_), ValueType::Text)
    )
}
