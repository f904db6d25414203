//! Answers on their way out: records, latest values and finished aggregates as protobuf columns. Never: storage.

use tidemark_proto::v1::{
    AggregateColumn, Batch, BoolValues, Column, EnumValues, F64Values, I64Values, LatestDevice, LatestValue,
    TextValues, Values, values,
};
use tidemark_series::{self as series, Bitmap, Finished, Records, ValueRef};

use crate::catalog::types::{PropertyDef, TypeDef};

/// Collects records of devices of one type into one batch.
pub struct BatchWriter<'a> {
    def: &'a TypeDef,
    devices: Vec<String>,
    device_index: Vec<u32>,
    observed_at_ns: Vec<i64>,
    received_at_ns: Vec<i64>,
    report_kind: Vec<i32>,
    columns: Vec<Outgoing<'a>>,
}

struct Outgoing<'a> {
    property: &'a PropertyDef,
    values: series::Values,
    quality: Vec<u8>,
    /// Row of each value.
    rows: Vec<u32>,
}

impl<'a> BatchWriter<'a> {
    /// An empty batch of the given properties.
    pub fn new(def: &'a TypeDef, properties: &[&'a PropertyDef]) -> BatchWriter<'a> {
        let outgoing = |property: &&'a PropertyDef| Outgoing {
            property,
            values: series::Values::empty(property.value_type),
            quality: Vec::new(),
            rows: Vec::new(),
        };
        BatchWriter {
            def,
            devices: Vec::new(),
            device_index: Vec::new(),
            observed_at_ns: Vec::new(),
            received_at_ns: Vec::new(),
            report_kind: Vec::new(),
            columns: properties.iter().map(outgoing).collect(),
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.observed_at_ns.len()
    }

    /// Adds the records of one device. Columns of other properties are left out.
    pub fn push(&mut self, device: &str, records: &Records) {
        if self.devices.last().is_none_or(|last| last != device) {
            self.devices.push(device.to_string());
        }
        let (index, base) = (self.devices.len() as u32 - 1, self.rows() as u32);
        self.device_index.extend(std::iter::repeat_n(index, records.len()));
        self.observed_at_ns.extend_from_slice(&records.observed_at);
        self.received_at_ns.extend_from_slice(&records.received_at);
        self.report_kind.extend(records.report_kind.iter().map(|&kind| i32::from(kind)));
        for outgoing in &mut self.columns {
            if let Some(column) = records.columns.iter().find(|c| c.property == outgoing.property.number) {
                outgoing.append(column, records.len(), base);
            }
        }
    }

    /// The batch as a message.
    pub fn finish(self) -> Batch {
        let rows = self.observed_at_ns.len();
        let report_kind = if self.report_kind.iter().all(|&k| k == 0) { Vec::new() } else { self.report_kind };
        Batch {
            device_type: self.def.id().to_string(),
            device_index: if self.devices.len() <= 1 { Vec::new() } else { self.device_index },
            devices: self.devices,
            observed_at_ns: self.observed_at_ns,
            columns: self.columns.into_iter().filter(|c| !c.rows.is_empty()).map(|c| c.finish(rows)).collect(),
            report_kind,
            received_at_ns: self.received_at_ns,
        }
    }
}

impl Outgoing<'_> {
    fn append(&mut self, column: &series::Column, rows: usize, base: u32) {
        match &column.presence {
            None => self.rows.extend(base..base + rows as u32),
            Some(presence) => self.rows.extend(presence.iter_ones().map(|row| base + row as u32)),
        }
        match (&mut self.values, &column.values) {
            (series::Values::F64(to), series::Values::F64(from)) => to.extend_from_slice(from),
            (series::Values::I64(to), series::Values::I64(from)) => to.extend_from_slice(from),
            (series::Values::Bool(to), series::Values::Bool(from)) => to.extend_from_slice(from),
            (series::Values::Enum(to), series::Values::Enum(from)) => to.extend_from_slice(from),
            (series::Values::Text(to), series::Values::Text(from)) => to.extend_from_slice(from),
            // A property's type never changes, and stored columns are checked against it when written.
            (to, from) => debug_assert!(false, "column {to:?} against {from:?}"),
        }
        match &column.quality {
            None => self.quality.resize(self.rows.len(), 0),
            Some(quality) => self.quality.extend_from_slice(quality),
        }
    }

    fn finish(self, rows: usize) -> Column {
        let presence = if self.rows.len() == rows {
            Vec::new()
        } else {
            let mut bitmap = Bitmap::new(rows);
            self.rows.iter().for_each(|&row| bitmap.set(row as usize, true));
            bitmap.to_bytes_lsb()
        };
        let stated = self.quality.iter().any(|&q| q != 0);
        let quality = if stated { self.quality.iter().map(|&q| i32::from(q)).collect() } else { Vec::new() };
        Column {
            property: self.property.id.clone(),
            values: Some(to_values(self.values, self.property)),
            presence: presence.into(),
            quality,
        }
    }
}

fn one_value(value: ValueRef<'_>) -> series::Values {
    match value {
        ValueRef::F64(v) => series::Values::F64(vec![v]),
        ValueRef::I64(v) => series::Values::I64(vec![v]),
        ValueRef::Bool(v) => series::Values::Bool(vec![v]),
        ValueRef::Enum(v) => series::Values::Enum(vec![v]),
        ValueRef::Text(v) => series::Values::Text(vec![v.to_string()]),
    }
}

/// Values as a message; enum codes become labels.
pub fn to_values(values: series::Values, property: &PropertyDef) -> Values {
    let kind = match values {
        series::Values::F64(values) => values::Kind::F64(F64Values { values }),
        series::Values::I64(values) => values::Kind::I64(I64Values { values }),
        series::Values::Bool(values) => values::Kind::Bool(BoolValues { values }),
        series::Values::Enum(indexes) => {
            values::Kind::Enum(EnumValues { labels: property.labels.clone(), indexes })
        }
        series::Values::Text(values) => values::Kind::Text(TextValues { values }),
    };
    Values { kind: Some(kind) }
}

/// The newest values of one device, one per property that ever had one. `is_stale` judges an observation time.
pub fn latest_device(
    def: &TypeDef,
    device: &str,
    records: &Records,
    properties: &[&PropertyDef],
    is_stale: impl Fn(i64) -> bool,
) -> LatestDevice {
    let newest = |property: &&PropertyDef| {
        let column = records.columns.iter().find(|c| c.property == property.number)?;
        let last = column.values.len().checked_sub(1)?;
        let row = column.present_rows().last()?;
        let observed_at_ns = records.observed_at[row];
        Some(LatestValue {
            property: property.id.clone(),
            value: Some(to_values(one_value(column.values.get(last)?), property)),
            observed_at_ns,
            received_at_ns: records.received_at[row],
            quality: column.quality.as_ref().map_or(0, |q| i32::from(q[last])),
            report_kind: i32::from(records.report_kind[row]),
            stale: is_stale(observed_at_ns),
        })
    };
    LatestDevice {
        device: device.to_string(),
        device_type: def.id().to_string(),
        values: properties.iter().filter_map(newest).collect(),
    }
}

/// One function over all windows of a series. Windows where the function has no answer are given as NaN, 0 or empty
/// only when `finished` says so; callers leave such windows out.
pub fn aggregate_column(function: i32, finished: Vec<Finished>, property: &PropertyDef) -> AggregateColumn {
    let mut values: Option<series::Values> = None;
    for one in finished {
        match (&mut values, one) {
            (Some(series::Values::F64(v)), Finished::F64(x)) => v.push(x),
            (Some(series::Values::I64(v)), Finished::I64(x)) => v.push(x),
            (Some(series::Values::I64(v)), Finished::U64(x)) => v.push(x as i64),
            (Some(series::Values::Bool(v)), Finished::Bool(x)) => v.push(x),
            (Some(series::Values::Enum(v)), Finished::Enum(x)) => v.push(x),
            (Some(series::Values::Text(v)), Finished::Text(x)) => v.push(x),
            (_, Finished::F64(x)) => values = Some(series::Values::F64(vec![x])),
            (_, Finished::I64(x)) => values = Some(series::Values::I64(vec![x])),
            (_, Finished::U64(x)) => values = Some(series::Values::I64(vec![x as i64])),
            (_, Finished::Bool(x)) => values = Some(series::Values::Bool(vec![x])),
            (_, Finished::Enum(x)) => values = Some(series::Values::Enum(vec![x])),
            (_, Finished::Text(x)) => values = Some(series::Values::Text(vec![x])),
        }
    }
    AggregateColumn { function, values: values.map(|values| to_values(values, property)) }
}
