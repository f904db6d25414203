//! A batch on its way in: protobuf columns to checked records per device. Never: storage, clocks.
//!
//! Invariant: a batch is either wholly good or refused with every bad row named (the first hundred), before anything
//! of it is stored.

use std::collections::{BTreeSet, HashMap};

use tidemark_proto::v1::{Batch, Column, EnumValues, ReportKind, values};
use tidemark_series::{self as series, Bitmap, Records, Values};

use crate::catalog::types::{PropertyDef, TypeDef, unknown_property};
use crate::clock::{NS_PER_DAY, NS_PER_S};
use crate::error::{Error, Reason, Result, RowError};
use crate::limits::Limits;

const ABSENT: u32 = u32::MAX;
const QUALITY_MAX: i32 = 7;
const REPORT_KIND_MAX: i32 = 6;
const SECONDS_2000_TO_2100: std::ops::Range<i64> = 946_684_800..4_102_444_800;

/// Times that a batch may carry: `from..=to`, and when it was received. Nanoseconds since the Unix epoch.
#[derive(Copy, Clone, Debug)]
pub struct TimeGate {
    /// Oldest, from the type's retention.
    pub from_ns: i64,
    /// Newest, from the limit on clocks that are ahead.
    pub to_ns: i64,
    /// Stamp of receipt.
    pub received_at_ns: i64,
}

impl TimeGate {
    /// What a type accepts at `now_ns`.
    pub fn new(def: &TypeDef, now_ns: i64, limits: &Limits) -> TimeGate {
        let from_ns = def
            .retention_ns()
            .map_or(i64::MIN + 1, |kept| now_ns.saturating_sub(kept));
        TimeGate {
            from_ns,
            to_ns: now_ns.saturating_add(limits.future_max_ns),
            received_at_ns: now_ns,
        }
    }
}

/// Bad rows, the first hundred by name.
#[derive(Debug, Default)]
pub struct BadRows {
    named: Vec<RowError>,
    total: usize,
    limit: usize,
}

impl BadRows {
    /// An empty list that names at most `limit` rows.
    pub fn new(limit: usize) -> BadRows {
        BadRows {
            named: Vec::new(),
            total: 0,
            limit,
        }
    }

    /// Adds one.
    pub fn push(&mut self, row: usize, reason: Reason, field: &str, message: impl FnOnce() -> String) {
        self.total += 1;
        if self.named.len() < self.limit {
            self.named.push(RowError {
                row: row as u32,
                reason,
                message: message(),
                field: field.to_string(),
            });
        }
    }

    /// The refusal of the batch, if any row was bad. Its reason is that of the first bad row.
    pub fn into_result(mut self) -> Result<()> {
        self.named.sort_by_key(|row| row.row);
        let Some(first) = self.named.first() else { return Ok(()) };
        let message = match self.total {
            1 => format!("row {}: {}", first.row, first.message),
            n => format!("{n} bad rows, the first is row {}: {}", first.row, first.message),
        };
        let field = match first.field.as_str() {
            "" => format!("batch.rows[{}]", first.row),
            inner => format!("batch.rows[{}].{inner}", first.row),
        };
        let hint = hint_for(first);
        Err(Error::new(first.reason, message)
            .field(field)
            .hint(hint)
            .rows(self.named))
    }
}

fn hint_for(row: &RowError) -> String {
    match row.reason {
        Reason::TimeTooOld | Reason::TimeTooNew | Reason::TimeInvalid if row.message.contains("as nanoseconds") => {
            "times are nanoseconds since the Unix epoch: multiply seconds by 1e9, milliseconds by 1e6".to_string()
        }
        Reason::UnknownDevice => "register the device first: tidemark device import".to_string(),
        _ => String::new(),
    }
}

/// Rows and points of a batch whose columns fit together.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows, each one timestamp of one device.
    pub rows: usize,
    /// Values over all columns.
    pub points: usize,
}

/// Checks sizes and that columns, indexes and bitmaps fit together; looks at no value.
pub fn check_shape(batch: &Batch, limits: &Limits) -> Result<Shape> {
    let rows = batch.observed_at_ns.len();
    let malformed = |field: String, message: String| Err(Error::new(Reason::MalformedBatch, message).field(field));
    let mut points = 0;
    for (at, column) in batch.columns.iter().enumerate() {
        let field = format!("batch.columns[{at}]");
        let count = values_len(column);
        let expected = match column.presence.len() {
            0 => rows,
            n if n != rows.div_ceil(8) => {
                return malformed(
                    format!("{field}.presence"),
                    format!("{n} bytes of presence for {rows} rows"),
                );
            }
            _ => Bitmap::from_bytes_lsb(&column.presence, rows).count_ones(),
        };
        if count != expected {
            return malformed(
                format!("{field}.values"),
                format!("{count} values where {expected} rows have one"),
            );
        }
        if !column.quality.is_empty() && column.quality.len() != count {
            return malformed(
                format!("{field}.quality"),
                format!("{} qualities for {count} values", column.quality.len()),
            );
        }
        points += count;
    }
    check_sizes(batch, Shape { rows, points }, limits)?;
    check_rows(batch)?;
    Ok(Shape { rows, points })
}

/// Checks that what is told row by row is told of every row.
fn check_rows(batch: &Batch) -> Result<()> {
    let rows = batch.observed_at_ns.len();
    let malformed = |field: String, message: String| Err(Error::new(Reason::MalformedBatch, message).field(field));
    if batch.device_index.is_empty() && batch.devices.len() > 1 && rows > 0 {
        return malformed(
            "batch.device_index".into(),
            format!("{} devices and no index", batch.devices.len()),
        );
    }
    if !batch.device_index.is_empty() && batch.device_index.len() != rows {
        return malformed(
            "batch.device_index".into(),
            format!("{} indexes for {rows} rows", batch.device_index.len()),
        );
    }
    if batch.devices.is_empty() && rows > 0 {
        return malformed("batch.devices".into(), "rows without devices".into());
    }
    if let Some(row) = batch
        .device_index
        .iter()
        .position(|&i| i as usize >= batch.devices.len())
    {
        return malformed(
            format!("batch.device_index[{row}]"),
            format!("row {row} points past the list of devices"),
        );
    }
    if !matches!(batch.report_kind.len(), 0 | 1) && batch.report_kind.len() != rows {
        let n = batch.report_kind.len();
        return malformed("batch.report_kind".into(), format!("{n} report kinds for {rows} rows"));
    }
    if !batch.received_at_ns.is_empty() && batch.received_at_ns.len() != rows {
        let n = batch.received_at_ns.len();
        return malformed(
            "batch.received_at_ns".into(),
            format!("{n} times of receipt for {rows} rows"),
        );
    }
    if let Some(bad) = batch
        .report_kind
        .iter()
        .find(|kind| !(0..=REPORT_KIND_MAX).contains(*kind))
    {
        return malformed("batch.report_kind".into(), format!("report kind {bad} is not known"));
    }
    Ok(())
}

fn check_sizes(batch: &Batch, shape: Shape, limits: &Limits) -> Result<()> {
    for (what, is, most) in [
        ("rows", shape.rows, limits.batch_rows_max),
        ("points", shape.points, limits.batch_points_max),
        ("devices", batch.devices.len(), limits.batch_devices_max),
    ] {
        if is > most {
            return Err(Error::new(
                Reason::BatchTooLarge,
                format!("{is} {what} in one batch, the limit is {most}"),
            )
            .field("batch")
            .hint("send smaller batches"));
        }
    }
    Ok(())
}

fn values_len(column: &Column) -> usize {
    match column.values.as_ref().and_then(|v| v.kind.as_ref()) {
        None => 0,
        Some(values::Kind::F64(v)) => v.values.len(),
        Some(values::Kind::I64(v)) => v.values.len(),
        Some(values::Kind::Bool(v)) => v.values.len(),
        Some(values::Kind::Enum(v)) => v.indexes.len(),
        Some(values::Kind::Text(v)) => v.values.len(),
    }
}

/// Records of one device of a batch.
#[derive(Debug)]
pub struct DeviceRecords {
    /// Position in the batch's list of devices.
    pub device: usize,
    /// These are its records of report kind test; those of others come apart from them.
    pub tests: bool,
    /// Sorted by time, duplicates folded (the later row wins).
    pub records: Records,
}

/// Why a row was reported; 0 where nothing is said of it.
fn report_kind(batch: &Batch, row: usize) -> u8 {
    match batch.report_kind.as_slice() {
        [] => 0,
        [all] => *all as u8,
        each => each.get(row).map_or(0, |kind| *kind as u8),
    }
}

/// Whether a row is of report kind test.
pub fn is_test(batch: &Batch, row: usize) -> bool {
    report_kind(batch, row) == ReportKind::Test as u8
}

/// Checks every value and cuts the batch by device. The shape must have been checked.
pub fn to_records(batch: &Batch, def: &TypeDef, gate: TimeGate, limits: &Limits) -> Result<Vec<DeviceRecords>> {
    let rows = batch.observed_at_ns.len();
    let mut bad = BadRows::new(limits.rows_named_max);
    check_times(&batch.observed_at_ns, gate, &mut bad);
    for (row, _) in batch
        .received_at_ns
        .iter()
        .enumerate()
        .filter(|(_, t)| **t > gate.to_ns)
    {
        let message = || "was received later than now".to_string();
        bad.push(row, Reason::TimeTooNew, "received_at_ns", message);
    }
    let mut columns = Vec::with_capacity(batch.columns.len());
    let mut seen = BTreeSet::new();
    for (at, column) in batch.columns.iter().enumerate() {
        let property = def.property(&column.property).ok_or_else(|| {
            unknown_property(def.id(), &column.property).field(format!("batch.columns[{at}].property"))
        })?;
        if !seen.insert(property.number) {
            return Err(Error::new(
                Reason::MalformedBatch,
                format!("property {:?} has two columns", property.id),
            )
            .field(format!("batch.columns[{at}].property")));
        }
        if values_len(column) > 0 {
            columns.push(checked_column(column, at, rows, property, &mut bad)?);
        }
    }
    columns.sort_by_key(|column| column.property.number);
    for row in (0..rows).filter(|&row| columns.iter().all(|column| column.dense[row] == ABSENT)) {
        bad.push(row, Reason::MissingField, "", || "the row has no value".to_string());
    }
    bad.into_result()?;
    Ok(cut_by_device(batch, &columns, gate.received_at_ns))
}

fn check_times(times: &[i64], gate: TimeGate, bad: &mut BadRows) {
    for (row, &t) in times.iter().enumerate() {
        if t == i64::MIN || t == i64::MAX {
            bad.push(row, Reason::TimeInvalid, "observed_at_ns", || {
                "the end of the time range is no time".to_string()
            });
        } else if t < gate.from_ns {
            bad.push(row, Reason::TimeTooOld, "observed_at_ns", || {
                format!("{t} ns is {}", too_old(t, gate))
            });
        } else if t > gate.to_ns {
            let days = (gate.to_ns - gate.received_at_ns) / NS_PER_DAY;
            bad.push(row, Reason::TimeTooNew, "observed_at_ns", || {
                format!("{t} ns is more than {days} day ahead")
            });
        }
    }
}

fn too_old(t: i64, gate: TimeGate) -> String {
    let days = gate.received_at_ns.saturating_sub(gate.from_ns) / NS_PER_DAY;
    let unit = [("seconds", 1), ("milliseconds", 1_000), ("microseconds", 1_000_000)]
        .into_iter()
        .find(|(_, per_s)| SECONDS_2000_TO_2100.contains(&(t / per_s)) && t < NS_PER_S.saturating_mul(86_400 * 365));
    match unit {
        Some((unit, _)) => format!("older than the retention of {days} days: looks like {unit} sent as nanoseconds"),
        None => format!("older than the retention of {days} days"),
    }
}

/// A column of a batch: values in the store's types, and where each row's value is.
struct CheckedColumn<'a> {
    property: &'a PropertyDef,
    values: Values,
    quality: Option<Vec<u8>>,
    /// Per row: position in `values`, or `ABSENT`.
    dense: Vec<u32>,
}

fn checked_column<'a>(
    column: &Column,
    at: usize,
    rows: usize,
    property: &'a PropertyDef,
    bad: &mut BadRows,
) -> Result<CheckedColumn<'a>> {
    let dense = dense_positions(column, rows);
    let values =
        typed_values(column, property, &dense, bad).map_err(|e| e.field(format!("batch.columns[{at}].values")))?;
    if let Some(quality) = column.quality.iter().find(|q| !(0..=QUALITY_MAX).contains(*q)) {
        return Err(
            Error::new(Reason::InvalidValue, format!("quality {quality} is not known"))
                .field(format!("batch.columns[{at}].quality")),
        );
    }
    let stated = column.quality.iter().any(|&q| q != 0);
    let mut quality = stated.then(|| column.quality.iter().map(|&q| q as u8).collect());
    property.missing.mark(&values, &mut quality);
    Ok(CheckedColumn {
        property,
        values,
        quality,
        dense,
    })
}

/// The values of a column in the property's type; what a property does not take is noted by row.
fn typed_values(column: &Column, property: &PropertyDef, dense: &[u32], bad: &mut BadRows) -> Result<Values> {
    let present: Vec<usize> = match column.presence.is_empty() {
        true => Vec::new(),
        false => (0..dense.len()).filter(|&row| dense[row] != ABSENT).collect(),
    };
    let row_of = |value: usize| present.get(value).copied().unwrap_or(value);
    let wrong_type = |is: &str| {
        let message = format!(
            "property {:?} holds {:?} values, the column has {is}",
            property.id, property.value_type
        );
        Err(Error::new(Reason::WrongValueType, message))
    };
    match (
        column.values.as_ref().and_then(|v| v.kind.as_ref()),
        property.value_type,
    ) {
        (Some(values::Kind::F64(v)), series::ValueType::F64) => {
            if !property.allow_non_finite {
                for (n, value) in v.values.iter().enumerate().filter(|(_, value)| !value.is_finite()) {
                    bad.push(row_of(n), Reason::NonFinite, &property.id, || {
                        format!("{value} is not a finite number")
                    });
                }
            }
            Ok(Values::F64(v.values.clone()))
        }
        (Some(values::Kind::I64(v)), series::ValueType::I64) => Ok(Values::I64(v.values.clone())),
        (Some(values::Kind::Bool(v)), series::ValueType::Bool) => Ok(Values::Bool(v.values.clone())),
        (Some(values::Kind::Enum(v)), series::ValueType::Enum) => Ok(enum_codes(v, property, row_of, bad)),
        (Some(values::Kind::Text(v)), series::ValueType::Text) => {
            for (n, text) in v
                .values
                .iter()
                .enumerate()
                .filter(|(_, text)| text.len() > property.text_bytes_max)
            {
                let (is, most) = (text.len(), property.text_bytes_max);
                bad.push(row_of(n), Reason::TextTooLong, &property.id, || {
                    format!("{is} bytes, the limit is {most}")
                });
            }
            Ok(Values::Text(v.values.clone()))
        }
        (Some(values::Kind::F64(_)), _) => wrong_type("f64"),
        (Some(values::Kind::I64(_)), _) => wrong_type("i64"),
        (Some(values::Kind::Bool(_)), _) => wrong_type("bool"),
        (Some(values::Kind::Enum(_)), _) => wrong_type("enum labels"),
        (Some(values::Kind::Text(_)), _) => wrong_type("text"),
        (None, _) => wrong_type("none"),
    }
}

fn dense_positions(column: &Column, rows: usize) -> Vec<u32> {
    if column.presence.is_empty() {
        return (0..rows as u32).collect();
    }
    let presence = Bitmap::from_bytes_lsb(&column.presence, rows);
    let mut next = 0;
    let place = |row| {
        if !presence.get(row) {
            return ABSENT;
        }
        next += 1;
        next - 1
    };
    (0..rows).map(place).collect()
}

fn enum_codes(v: &EnumValues, property: &PropertyDef, row_of: impl Fn(usize) -> usize, bad: &mut BadRows) -> Values {
    let codes: Vec<_> = v.labels.iter().map(|label| property.label_code(label)).collect();
    let code = |(n, &index): (usize, &u32)| match codes.get(index as usize) {
        Some(Some(code)) => *code,
        Some(None) => {
            let label = &v.labels[index as usize];
            bad.push(row_of(n), Reason::UnknownLabel, &property.id, || {
                format!("{label:?} is none of {}", property.labels.join(", "))
            });
            0
        }
        None => {
            bad.push(row_of(n), Reason::MalformedBatch, &property.id, || {
                format!("label {index} is not listed")
            });
            0
        }
    };
    Values::Enum(v.indexes.iter().enumerate().map(code).collect())
}

/// Of each place in a list of devices the first one of the same device; `None` where all of them differ.
fn first_places(devices: &[String]) -> Option<Vec<usize>> {
    // Those of a sorted list are compared at once.
    if devices.windows(2).all(|pair| pair[0] < pair[1]) {
        return None;
    }
    let mut first = HashMap::with_capacity(devices.len());
    let each = devices.iter().enumerate();
    let places: Vec<usize> = each.map(|(at, id)| *first.entry(id.as_str()).or_insert(at)).collect();
    (first.len() < devices.len()).then_some(places)
}

fn cut_by_device(batch: &Batch, columns: &[CheckedColumn<'_>], received_at_ns: i64) -> Vec<DeviceRecords> {
    let rows = batch.observed_at_ns.len();
    // Rows of a device that is listed twice are cut together, or those of its later place would win.
    let first = first_places(&batch.devices);
    let mut rows_of = vec![Vec::new(); batch.devices.len()];
    for row in 0..rows {
        let device = batch.device_index.get(row).copied().unwrap_or(0) as usize;
        let device = first.as_ref().map_or(device, |first| first[device]);
        rows_of[device].push(row as u32);
    }
    let received = |row: &u32| {
        let given = batch.received_at_ns.get(*row as usize).copied();
        given.filter(|given| *given != 0).unwrap_or(received_at_ns)
    };
    let has_tests = batch.report_kind.contains(&(ReportKind::Test as i32));
    let kinds = |(device, rows): (usize, Vec<u32>)| {
        let (tests, others) = match has_tests {
            true => rows.into_iter().partition(|row| is_test(batch, *row as usize)),
            false => (Vec::new(), rows),
        };
        [(device, false, others), (device, true, tests)]
    };
    let cut = |(device, tests, rows): (usize, bool, Vec<u32>)| {
        let records = Records {
            observed_at: rows.iter().map(|&row| batch.observed_at_ns[row as usize]).collect(),
            received_at: match batch.received_at_ns.is_empty() {
                true => vec![received_at_ns; rows.len()],
                false => rows.iter().map(received).collect(),
            },
            report_kind: rows.iter().map(|&row| report_kind(batch, row as usize)).collect(),
            columns: columns.iter().filter_map(|column| gather(column, &rows)).collect(),
            repeats: Vec::new(),
        };
        DeviceRecords {
            device,
            tests,
            records: records.normalise(),
        }
    };
    rows_of
        .into_iter()
        .enumerate()
        .flat_map(kinds)
        .filter(|(_, _, rows)| !rows.is_empty())
        .map(cut)
        .collect()
}

fn gather(column: &CheckedColumn<'_>, rows: &[u32]) -> Option<series::Column> {
    let at: Vec<u32> = rows.iter().map(|&row| column.dense[row as usize]).collect();
    let present: Vec<usize> = at.iter().filter(|&&d| d != ABSENT).map(|&d| d as usize).collect();
    if present.is_empty() {
        return None;
    }
    let values = match &column.values {
        Values::F64(v) => Values::F64(present.iter().map(|&d| v[d]).collect()),
        Values::I64(v) => Values::I64(present.iter().map(|&d| v[d]).collect()),
        Values::Bool(v) => Values::Bool(present.iter().map(|&d| v[d]).collect()),
        Values::Enum(v) => Values::Enum(present.iter().map(|&d| v[d]).collect()),
        Values::Text(v) => Values::Text(present.iter().map(|&d| v[d].clone()).collect()),
    };
    let presence = (present.len() < rows.len()).then(|| {
        let mut bitmap = Bitmap::new(rows.len());
        at.iter()
            .enumerate()
            .filter(|(_, d)| **d != ABSENT)
            .for_each(|(row, _)| bitmap.set(row, true));
        bitmap
    });
    let quality = column.quality.as_ref().map(|q| present.iter().map(|&d| q[d]).collect());
    Some(series::Column {
        property: column.property.number,
        presence,
        values,
        quality,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_are_listed_again_stand_at_their_first_place() {
        let check = |devices: &[&str], expected: Option<&[usize]>| {
            let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
            assert_eq!(first_places(&devices).as_deref(), expected, "{devices:?}");
        };
        check(&[], None);
        check(&["a"], None);
        check(&["a", "b", "c"], None);
        check(&["c", "a", "b"], None);
        check(&["a", "a"], Some(&[0, 0]));
        check(&["b", "a", "b", "c", "a"], Some(&[0, 1, 0, 3, 1]));
    }
}
