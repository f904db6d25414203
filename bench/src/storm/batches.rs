//! Records into columns. Nothing here decides what a value is. Invariant: a column holds exactly the values of the rows
//! whose presence bit is set, in row order.

use std::collections::HashMap;

use tidemark_client::v1::values::Kind;
use tidemark_client::v1::{self, Property, ReportKind, ValueType};

use super::calm::Value;
use super::{Record, Storm};

/// From observation to receipt.
const TRANSIT_NS: i64 = 5_000_000_000;

impl Storm {
    /// Records of one type with `from_ns` <= time < `to_ns`, in batches of at most `rows`.
    pub(super) fn batches(&self, type_index: usize, from_ns: i64, to_ns: i64, rows: usize) -> Vec<v1::Batch> {
        let records = self.records(type_index, from_ns, to_ns);
        records
            .chunks(rows.max(1))
            .map(|chunk| self.batch(type_index, chunk))
            .collect()
    }

    fn batch(&self, type_index: usize, records: &[Record]) -> v1::Batch {
        let t = &self.fleet.types[type_index];
        let (mut devices, mut position) = (Vec::new(), HashMap::new());
        let device_index = records
            .iter()
            .map(|r| {
                *position.entry(r.device).or_insert_with(|| {
                    devices.push(self.fleet.devices[r.device].id.clone());
                    devices.len() as u32 - 1
                })
            })
            .collect();
        v1::Batch {
            device_type: t.id.clone(),
            devices,
            device_index,
            observed_at_ns: records.iter().map(|r| r.observed_at_ns).collect(),
            columns: t
                .properties
                .iter()
                .enumerate()
                .filter_map(|(i, p)| column(p, i, records))
                .collect(),
            report_kind: records.iter().map(|r| r.kind.into()).collect(),
            received_at_ns: records.iter().map(received_at_ns).collect(),
        }
    }
}

/// A scenario is told after the fact: most of it was received moments after it was observed, what came late arrives now.
fn received_at_ns(record: &Record) -> i64 {
    match record.kind {
        ReportKind::Backfill => 0,
        _ => record.observed_at_ns + TRANSIT_NS,
    }
}

/// The column of one property; none where no row has a value.
fn column(p: &Property, index: usize, records: &[Record]) -> Option<v1::Column> {
    let values: Vec<&Value> = records.iter().filter_map(|r| r.values[index].as_ref()).collect();
    if values.is_empty() {
        return None;
    }
    let mut presence = Vec::new();
    if values.len() < records.len() {
        presence.resize(records.len().div_ceil(8), 0_u8);
        for (row, _) in records.iter().enumerate().filter(|(_, r)| r.values[index].is_some()) {
            presence[row / 8] |= 1 << (row % 8);
        }
    }
    Some(v1::Column {
        property: p.id.clone(),
        values: Some(v1::Values {
            kind: Some(kind(p, &values)),
        }),
        presence: presence.into(),
        ..v1::Column::default()
    })
}

fn kind(p: &Property, values: &[&Value]) -> Kind {
    match p.value_type() {
        ValueType::F64 | ValueType::Unspecified => Kind::F64(v1::F64Values {
            values: only(values, |v| if let Value::F64(x) = v { Some(*x) } else { None }),
        }),
        ValueType::I64 => Kind::I64(v1::I64Values {
            values: only(values, |v| if let Value::I64(x) = v { Some(*x) } else { None }),
        }),
        ValueType::Bool => Kind::Bool(v1::BoolValues {
            values: only(values, |v| if let Value::Bool(x) = v { Some(*x) } else { None }),
        }),
        ValueType::Enum => Kind::Enum(v1::EnumValues {
            labels: p.labels.clone(),
            indexes: only(values, |v| if let Value::Label(x) = v { Some(*x) } else { None }),
        }),
        ValueType::Text => Kind::Text(v1::TextValues {
            values: only(values, |v| if let Value::Text(x) = v { Some(x.clone()) } else { None }),
        }),
    }
}

fn only<T>(values: &[&Value], pick: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    values.iter().filter_map(|v| pick(v)).collect()
}
