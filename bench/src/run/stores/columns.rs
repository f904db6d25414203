//! Types and batches of the fleet in the columns of Tidemark's contract. Never here: calls. Invariant: every row of a batch is
//! in every column.

use tidemark_client::v1;
use tidemark_client::v1::values::Kind as Column;

use crate::run::batches::{Batch, RowAt};
use crate::run::fleet::{Fleet, Property, Type, ValueType};
use crate::run::value::value;

const MS: i64 = 1_000_000;

/// A type as the contract has it; nothing of it is ever thrown away.
pub(super) fn device_type(one: &Type) -> v1::DeviceType {
    let property = |property: &Property| v1::Property {
        id: property.id.clone(),
        unit: property.unit.clone(),
        value_type: match property.value_type {
            ValueType::F64 => v1::ValueType::F64,
            ValueType::I64 => v1::ValueType::I64,
            ValueType::Bool => v1::ValueType::Bool,
            ValueType::Enum => v1::ValueType::Enum,
        }
        .into(),
        kind: match property.kind.as_str() {
            "mean" => v1::Kind::Mean,
            "increment" => v1::Kind::Increment,
            "counter" => v1::Kind::Counter,
            "state" => v1::Kind::State,
            "event" => v1::Kind::Event,
            _ => v1::Kind::Gauge,
        }
        .into(),
        min: property.min,
        max: property.max,
        wrap: property.wrap,
        step: matches!(property.value_type, ValueType::F64 | ValueType::I64).then_some(property.step),
        labels: property.labels.clone(),
        ..Default::default()
    };
    v1::DeviceType {
        id: one.id.clone(),
        name: one.id.clone(),
        properties: one.properties.iter().map(property).collect(),
        sample_interval_s: one.interval_s,
        report_interval_s: one.interval_s,
        latency_s: 60,
        retention_days: 36_500,
        ..Default::default()
    }
}

/// A batch in columns.
pub(super) fn columns(fleet: &Fleet, batch: &Batch) -> v1::Batch {
    let Some(one) = fleet.types.get(batch.type_at) else {
        return v1::Batch::default();
    };
    let mut out = v1::Batch {
        device_type: one.id.clone(),
        ..Default::default()
    };
    // Position of a device in the batch; devices take turns, so most are met again.
    let mut positions = vec![u32::MAX; one.devices.len()];
    for row in batch.rows() {
        let (Some(device), Some(position)) = (one.devices.get(row.device), positions.get_mut(row.device)) else {
            continue;
        };
        if *position == u32::MAX {
            *position = out.devices.len() as u32;
            out.devices.push(device.id.clone());
        }
        out.device_index.push(*position);
        out.observed_at_ns.push(one.at_ms(device, row.slot) * MS);
    }
    for property in &one.properties {
        let at = |row: RowAt| {
            let device = one.devices.get(row.device);
            device.map_or(0.0, |device| value(device, property, row.slot, one.interval_s))
        };
        let values = batch.rows().map(at);
        let kind = match property.value_type {
            ValueType::F64 => Column::F64(v1::F64Values {
                values: values.collect(),
            }),
            ValueType::I64 => Column::I64(v1::I64Values {
                values: values.map(|v| v as i64).collect(),
            }),
            ValueType::Bool => Column::Bool(v1::BoolValues {
                values: values.map(|v| v != 0.0).collect(),
            }),
            ValueType::Enum => Column::Enum(v1::EnumValues {
                labels: property.labels.clone(),
                indexes: values.map(|v| v as u32).collect(),
            }),
        };
        out.columns.push(v1::Column {
            property: property.id.clone(),
            values: Some(v1::Values { kind: Some(kind) }),
            ..Default::default()
        });
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tidemark_client::value_at;

    use super::*;
    use crate::run::batches::{Order, batches};
    use crate::run::fleet::FleetSpec;

    #[test]
    fn a_batch_has_every_row_in_every_column() {
        let spec = FleetSpec {
            every: 500,
            ..FleetSpec::default()
        };
        let fleet = Fleet::new(&spec).unwrap();
        for batch in batches(&fleet, &(0..86_400), Order::ByTime, 100) {
            let columns = columns(&fleet, &batch);
            assert_eq!(columns.observed_at_ns.len(), batch.len());
            assert!(
                columns
                    .device_index
                    .iter()
                    .all(|at| (*at as usize) < columns.devices.len())
            );
            for column in &columns.columns {
                let values = column.values.as_ref().unwrap();
                assert!(value_at(values, batch.len() - 1).is_some() && value_at(values, batch.len()).is_none());
            }
        }
    }
}
