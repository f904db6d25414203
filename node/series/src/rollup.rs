//! Rollups: of one bucket of a device, the unfinished aggregates of all windows of one length, as a value of its own.
//!
//! ```text
//! rollup   = version u8 = 1 | rule u64 LE: which points count | a bucket value, one row a window that has points
//! row      = observed_at is the start of the window, a multiple of the length; received_at the same; report kind 0
//! property = columns of number 16 * property + part, each only where there is something:
//!            0 count | 1 sum (of bools the true ones) | 2 what rounding took from a sum of doubles, or what of a sum of
//!            integers is above 64 bits | 3 least | 4 greatest | 5 first value | 6 last value |
//!            7, 8 when these were, nanoseconds after the start | 9 points that do not count
//! ```
//! Never here: keys, when rollups are made, texts. Invariant: what is folded from a rollup is what is folded from its bucket, for
//! windows that are made of whole windows of the length.

use std::collections::BTreeMap;

use crate::bitmap::Bitmap;
use crate::bucket;
use crate::by_window::ByWindow;
use crate::checks::Choice;
use crate::corrupt::Corrupt;
use crate::needs::Needs;
use crate::partial::{BoolPartial, EnumPartial, F64Partial, I64Partial, Partial};
use crate::record::{Column, PropertyNumber, Records, ValueRef, ValueType, Values};
use crate::window::{Edge, Windows};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 9;
/// Columns that a property may take.
const PARTS: u32 = 16;

const COUNT: u32 = 0;
const SUM: u32 = 1;
const REST: u32 = 2;
const MIN: u32 = 3;
const MAX: u32 = 4;
const FIRST: u32 = 5;
const LAST: u32 = 6;
const FIRST_AFTER: u32 = 7;
const LAST_AFTER: u32 = 8;
const DROPPED: u32 = 9;

/// A property to roll up: which end belongs to its windows, and which of its points count. Choices that need the order of
/// points are not made here.
#[derive(Clone, Debug)]
pub struct Rolled<'c> {
    /// Its number.
    pub property: PropertyNumber,
    /// See `Windows`.
    pub edge: Edge,
    /// What counts.
    pub choice: Choice<'c>,
}

/// The rollup of a bucket value. `None` where it has windows at the ends of time.
///
/// # Errors
/// The bucket is damaged.
pub fn roll_up(value: &[u8], rule: u64, length_ns: i64, properties: &[Rolled<'_>]) -> Result<Option<Vec<u8>>, Corrupt> {
    let mut rows = BTreeMap::<i64, BTreeMap<PropertyNumber, Kept>>::new();
    for block in bucket::blocks(value) {
        let block = block?;
        let mut folding = block.folding();
        for rolled in properties {
            if !matches!(block.value_type(rolled.property), Some(of) if of != ValueType::Text) {
                continue;
            }
            let Some(points) = folding.points(rolled.property, &rolled.choice)? else {
                continue;
            };
            let windows = all_of_time(length_ns, rolled.edge);
            let mut partials = ByWindow::default();
            points.fold(&windows, Needs::All, &mut partials);
            for (window, partial) in partials.into_sorted() {
                let kept = rows.entry(window).or_default().entry(rolled.property).or_default();
                match &mut kept.partial {
                    Some(before) => before.merge(&partial),
                    None => kept.partial = Some(partial),
                }
            }
            for window in points.dropped.iter().filter_map(|t_ns| windows.index_of(*t_ns)) {
                rows.entry(window)
                    .or_default()
                    .entry(rolled.property)
                    .or_default()
                    .dropped += 1;
            }
        }
    }
    let starts: Option<Vec<i64>> = rows.keys().map(|window| window.checked_mul(length_ns)).collect();
    Ok(starts.map(|starts| encode(rule, &starts, rows.values())))
}

/// What is kept of a window of a property.
#[derive(Debug, Default)]
struct Kept {
    partial: Option<Partial>,
    dropped: i64,
}

fn all_of_time(length_ns: i64, edge: Edge) -> Windows {
    Windows {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        step_ns: Some(length_ns),
        origin_ns: 0,
        borders: None,
        edge,
    }
}

fn encode<'k>(rule: u64, starts: &[i64], rows: impl Iterator<Item = &'k BTreeMap<PropertyNumber, Kept>>) -> Vec<u8> {
    let mut columns = Columns {
        rows: starts.len(),
        by_number: BTreeMap::new(),
    };
    for ((row, start_ns), properties) in starts.iter().enumerate().zip(rows) {
        for (property, kept) in properties {
            let mut cell = |part: u32, value: ValueRef<'_>| columns.put(row, property.0 * PARTS + part, value);
            if kept.dropped > 0 {
                cell(DROPPED, ValueRef::I64(kept.dropped));
            }
            if let Some(partial) = &kept.partial {
                cells(partial, *start_ns, &mut cell);
            }
        }
    }
    let records = Records {
        observed_at: starts.to_vec(),
        received_at: starts.to_vec(),
        report_kind: vec![0; starts.len()],
        repeats: Vec::new(),
        columns: columns.finish(),
    };
    let mut out = vec![VERSION];
    out.extend(rule.to_le_bytes());
    out.extend(bucket::encode(&records));
    out
}

/// The cells of a partial.
fn cells(partial: &Partial, start_ns: i64, cell: &mut impl FnMut(u32, ValueRef<'_>)) {
    cell(COUNT, ValueRef::I64(partial.count() as i64));
    let mut ends = |first: Option<(i64, ValueRef<'_>)>, last: Option<(i64, ValueRef<'_>)>| {
        for (ends, value, after) in [(first, FIRST, FIRST_AFTER), (last, LAST, LAST_AFTER)] {
            if let Some((t_ns, end)) = ends {
                cell(value, end);
                cell(after, ValueRef::I64(t_ns.saturating_sub(start_ns)));
            }
        }
    };
    match partial {
        Partial::F64(p) => {
            ends(
                p.first.map(|(t, v)| (t, ValueRef::F64(v))),
                p.last.map(|(t, v)| (t, ValueRef::F64(v))),
            );
            cell(SUM, ValueRef::F64(p.sum));
            cell(REST, ValueRef::F64(p.sum_rest));
            if let (Some(min), Some(max)) = (p.min, p.max) {
                cell(MIN, ValueRef::F64(min));
                cell(MAX, ValueRef::F64(max));
            }
        }
        Partial::I64(p) => {
            ends(
                p.first.map(|(t, v)| (t, ValueRef::I64(v))),
                p.last.map(|(t, v)| (t, ValueRef::I64(v))),
            );
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
        Partial::Bool(p) => {
            ends(
                p.first.map(|(t, v)| (t, ValueRef::Bool(v))),
                p.last.map(|(t, v)| (t, ValueRef::Bool(v))),
            );
            cell(SUM, ValueRef::I64(p.trues as i64));
        }
        Partial::Enum(p) => {
            ends(
                p.first.map(|(t, v)| (t, ValueRef::Enum(v))),
                p.last.map(|(t, v)| (t, ValueRef::Enum(v))),
            );
            if let (Some(min), Some(max)) = (p.min, p.max) {
                cell(MIN, ValueRef::Enum(min));
                cell(MAX, ValueRef::Enum(max));
            }
        }
        Partial::Text(_) => {}
    }
}

/// Columns that are being filled, row by row.
struct Columns {
    rows: usize,
    by_number: BTreeMap<u32, (Bitmap, Values)>,
}

impl Columns {
    fn put(&mut self, row: usize, number: u32, value: ValueRef<'_>) {
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
            _ => return debug_assert!(false, "one type a column"),
        }
        presence.set(row, true);
    }

    fn finish(self) -> Vec<Column> {
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

/// The rule that a rollup was made by, and its windows.
///
/// # Errors
/// It is damaged, or of a version that is not known.
pub fn open(rollup: &[u8]) -> Result<(u64, &[u8]), Corrupt> {
    match rollup.split_first_chunk::<HEADER_BYTES>() {
        Some(([VERSION, rule @ ..], windows)) => Ok((u64::from_le_bytes(*rule), windows)),
        _ => Err(Corrupt::new("rollup", 0)),
    }
}

/// Adds the windows of a property that lie whole within the range of `windows` (what [`open`] gave, of this length); returns how many points
/// in them do not count.
///
/// # Errors
/// The rollup is damaged.
pub fn fold(
    rolled: &[u8],
    length_ns: i64,
    (property, value_type): (PropertyNumber, ValueType),
    windows: &Windows,
    partials: &mut ByWindow,
) -> Result<u64, Corrupt> {
    let wanted: Vec<_> = (0..=DROPPED)
        .map(|part| PropertyNumber(property.0 * PARTS + part))
        .collect();
    let records = bucket::decode(rolled, Some(&wanted))?;
    let damaged = || Corrupt::new("rollup", 0);
    let mut rows = Rows::new(&records, property);
    let mut dropped = 0;
    for (row, start_ns) in records.observed_at.iter().enumerate() {
        let found = rows.next(row);
        let end_ns = start_ns.saturating_add(length_ns);
        let inside = *start_ns >= windows.from_ns && end_ns <= windows.to_ns;
        let within = match windows.edge {
            Edge::StartClosed => *start_ns,
            Edge::EndClosed => end_ns,
        };
        let Some(window) = windows.index_of(within).filter(|_| inside) else {
            continue;
        };
        if let Some(ValueRef::I64(more)) = found[DROPPED as usize] {
            dropped += more.unsigned_abs();
        }
        if found[COUNT as usize].is_some() {
            let partial = partial(&found, value_type, *start_ns).ok_or_else(damaged)?;
            partials.at(window, value_type).merge(&partial);
        }
    }
    Ok(dropped)
}

/// The cells of a property, row by row.
struct Rows<'r> {
    columns: [Option<&'r Column>; PARTS as usize],
    /// Cells of each column that were given out.
    taken: [usize; PARTS as usize],
}

type Cells<'r> = [Option<ValueRef<'r>>; PARTS as usize];

impl<'r> Rows<'r> {
    fn new(records: &'r Records, property: PropertyNumber) -> Self {
        let column = |part: usize| records.column(PropertyNumber(property.0 * PARTS + part as u32));
        Self {
            columns: std::array::from_fn(column),
            taken: [0; PARTS as usize],
        }
    }

    fn next(&mut self, row: usize) -> Cells<'r> {
        std::array::from_fn(|part| {
            let column = self.columns[part]?;
            if column.presence.as_ref().is_some_and(|presence| !presence.get(row)) {
                return None;
            }
            self.taken[part] += 1;
            column.values.get(self.taken[part] - 1)
        })
    }
}

/// The partial of some cells; `None` where they are not those of one.
fn partial(cells: &Cells<'_>, value_type: ValueType, start_ns: i64) -> Option<Partial> {
    let integer = |part: u32| match cells[part as usize] {
        Some(ValueRef::I64(value)) => Some(value),
        _ => None,
    };
    let count = u64::try_from(integer(COUNT)?).ok()?;
    let first_ns = start_ns.saturating_add(integer(FIRST_AFTER)?);
    let last_ns = start_ns.saturating_add(integer(LAST_AFTER)?);
    macro_rules! of {
        ($type:ident, $part:expr) => {
            match cells[$part as usize] {
                Some(ValueRef::$type(value)) => Some(value),
                _ => None,
            }
        };
    }
    Some(match value_type {
        ValueType::F64 => Partial::F64(F64Partial {
            count,
            sum: of!(F64, SUM)?,
            sum_rest: of!(F64, REST)?,
            min: of!(F64, MIN),
            max: of!(F64, MAX),
            first: Some((first_ns, of!(F64, FIRST)?)),
            last: Some((last_ns, of!(F64, LAST)?)),
        }),
        ValueType::I64 => {
            let low = integer(SUM)?;
            let sum = match integer(REST) {
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
            trues: u64::try_from(integer(SUM)?).ok()?,
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
        ValueType::Text => return None,
    })
}

/// A rollup without the windows that touch `[from_ns, to_ns)`, given its length and which ends belong to windows; `None` where
/// nothing is left.
///
/// # Errors
/// The rollup is damaged.
pub fn without(rollup: &[u8], length_ns: i64, from_ns: i64, to_ns: i64) -> Result<Option<Vec<u8>>, Corrupt> {
    let (rule, rolled) = open(rollup)?;
    let records = bucket::decode(rolled, None)?;
    // A window may hold either of its ends: which one is known to whoever reads it.
    let before = records
        .observed_at
        .partition_point(|start_ns| start_ns.saturating_add(length_ns) < from_ns);
    let behind = records.observed_at.partition_point(|start_ns| *start_ns < to_ns);
    if before >= behind {
        return Ok(Some(rollup.to_vec()));
    }
    let rest = Records::merge_all(vec![
        records.slice_rows(0, before),
        records.slice_rows(behind, records.len()),
    ]);
    if rest.is_empty() {
        return Ok(None);
    }
    let mut out = vec![VERSION];
    out.extend(rule.to_le_bytes());
    out.extend(bucket::encode(&rest));
    Ok(Some(out))
}

#[cfg(test)]
#[path = "rollup/tests.rs"]
mod tests;
