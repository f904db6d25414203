//! The newest value of every property of a device, as a bucket value of (nearly always) one block.
//!
//! Never here: which bucket or key. Invariant: any grouping of operands gives the same bytes. For that, values of
//! equal time that came in with different receipt times or report kinds stay in rows of their own: each property is
//! in one row, and a row may have the time of the one before.

use std::collections::BTreeMap;

use crate::bitmap::Bitmap;
use crate::bucket;
use crate::corrupt::Corrupt;
use crate::record::{Column, PropertyNumber, Records, ValueRef, Values};

/// Attributes of a row, in the order of rows: observed, received, kind.
type Row = (i64, i64, u8);

struct Newest {
    row: Row,
    values: Values,
    quality: u8,
}

/// Folds operands (oldest first, log order) over the existing value: per property the newest observed value wins, at
/// equal time the later operand.
///
/// # Errors
/// The existing value or an operand is damaged.
pub fn merge_latest<'a>(existing: Option<&[u8]>, operands: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Corrupt> {
    let mut newest = BTreeMap::new();
    for value in existing.into_iter() {
        add(&mut newest, value)?;
    }
    for value in operands {
        add(&mut newest, value)?;
    }
    Ok(bucket::encode(&gather(newest)))
}

fn add(newest: &mut BTreeMap<PropertyNumber, Newest>, value: &[u8]) -> Result<(), Corrupt> {
    for block in bucket::blocks(value) {
        let records = block?.decode(None)?;
        for column in &records.columns {
            let (Some(at), Some(row)) = (column.values.len().checked_sub(1), column.present_rows().last()) else {
                continue;
            };
            let observed = records.observed_at[row];
            if newest.get(&column.property).is_some_and(|kept| kept.row.0 > observed) {
                continue;
            }
            let row = (observed, records.received_at[row], records.report_kind[row]);
            let quality = column.quality.as_ref().and_then(|q| q.last().copied()).unwrap_or(0);
            let values = column.values.gather(at..at + 1);
            newest.insert(column.property, Newest { row, values, quality });
        }
    }
    Ok(())
}

fn gather(newest: BTreeMap<PropertyNumber, Newest>) -> Records {
    let mut rows: Vec<Row> = newest.values().map(|n| n.row).collect();
    rows.sort_unstable();
    rows.dedup();
    let column = |(property, newest): (PropertyNumber, Newest)| {
        let mut map = Bitmap::new(rows.len());
        map.set(rows.partition_point(|row| *row < newest.row), true);
        Column {
            property,
            presence: (rows.len() > 1).then_some(map),
            values: newest.values,
            quality: (newest.quality != 0).then(|| vec![newest.quality]),
        }
    };
    Records {
        observed_at: rows.iter().map(|r| r.0).collect(),
        received_at: rows.iter().map(|r| r.1).collect(),
        report_kind: rows.iter().map(|r| r.2).collect(),
        columns: newest.into_iter().map(column).collect(),
        // Those of a record count where the record is.
        repeats: Vec::new(),
    }
}

/// The newest value of one property.
#[derive(Clone, Debug)]
pub struct NewestValue {
    /// Which property.
    pub property: PropertyNumber,
    /// When it was observed, nanoseconds since the epoch, UTC.
    pub observed_at: i64,
    /// When the first node took it, nanoseconds since the epoch, UTC.
    pub received_at: i64,
    /// Why it was reported.
    pub report_kind: u8,
    /// Its quality.
    pub quality: u8,
    value: Scalar,
}

#[derive(Clone, Debug)]
enum Scalar {
    F64(f64),
    I64(i64),
    Bool(bool),
    Enum(u32),
    Text(Box<str>),
}

impl NewestValue {
    /// One point: its property, times of observation and receipt, report kind, quality and value.
    pub fn of_point(
        property: PropertyNumber,
        times: (i64, i64),
        report_kind: u8,
        quality: u8,
        value: ValueRef<'_>,
    ) -> Self {
        NewestValue {
            property,
            observed_at: times.0,
            received_at: times.1,
            report_kind,
            quality,
            value: match value {
                ValueRef::F64(v) => Scalar::F64(v),
                ValueRef::I64(v) => Scalar::I64(v),
                ValueRef::Bool(v) => Scalar::Bool(v),
                ValueRef::Enum(v) => Scalar::Enum(v),
                ValueRef::Text(v) => Scalar::Text(v.into()),
            },
        }
    }

    /// The value.
    pub fn value(&self) -> ValueRef<'_> {
        match &self.value {
            Scalar::F64(v) => ValueRef::F64(*v),
            Scalar::I64(v) => ValueRef::I64(*v),
            Scalar::Bool(v) => ValueRef::Bool(*v),
            Scalar::Enum(v) => ValueRef::Enum(*v),
            Scalar::Text(v) => ValueRef::Text(v),
        }
    }

    /// Bytes it takes beside its own size.
    pub fn heap_bytes(&self) -> usize {
        match &self.value {
            Scalar::Text(text) => text.len(),
            _ => 0,
        }
    }
}

/// The newest values of a device, ascending by property, from what [`merge_latest`] gave.
///
/// # Errors
/// The value is damaged.
pub fn newest_values(value: &[u8]) -> Result<Vec<NewestValue>, Corrupt> {
    let records = bucket::decode(value, None)?;
    let newest = |column: &Column| {
        let last = column.values.len().checked_sub(1)?;
        let row = match &column.presence {
            None => last,
            Some(map) => map.iter_ones().last()?,
        };
        Some(NewestValue {
            property: column.property,
            observed_at: *records.observed_at.get(row)?,
            received_at: *records.received_at.get(row)?,
            report_kind: *records.report_kind.get(row)?,
            quality: column.quality.as_ref().and_then(|q| q.get(last).copied()).unwrap_or(0),
            value: match column.values.get(last)? {
                ValueRef::F64(v) => Scalar::F64(v),
                ValueRef::I64(v) => Scalar::I64(v),
                ValueRef::Bool(v) => Scalar::Bool(v),
                ValueRef::Enum(v) => Scalar::Enum(v),
                ValueRef::Text(v) => Scalar::Text(v.into()),
            },
        })
    };
    Ok(records.columns.iter().filter_map(newest).collect())
}
