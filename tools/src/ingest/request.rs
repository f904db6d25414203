//! A cut of a chunk as a request in columns. Never: what to leave out, sending.
//!
//! Invariant: the same cut with the same exclusions gives the same request, byte for byte.

use std::collections::BTreeMap;

use tidemark_client::v1;

use super::chunk::{Chunk, Cut, Excluded};
use super::values::{Scalar, Typed};

impl Cut {
    /// The request without what is excluded; per row of it, the record. None where nothing is left.
    pub(crate) fn batch(
        &self,
        chunk: &Chunk,
        types: &[Typed],
        kind: v1::ReportKind,
        excluded: &Excluded,
    ) -> Option<Sent> {
        let typed = &types[self.device_type];
        let mut sent = Sent {
            batch: v1::Batch {
                device_type: typed.id.clone(),
                ..v1::Batch::default()
            },
            ..Sent::default()
        };
        let mut columns: BTreeMap<u16, ColumnBuild> = BTreeMap::new();
        for (index, record) in self.records.iter().enumerate() {
            let index = index as u32;
            let cells: Vec<_> = self.cells[record.cells.start as usize..record.cells.end as usize]
                .iter()
                .filter(|cell| excluded.is_empty() || !excluded.contains(&(index, Some(cell.property))))
                .collect();
            if cells.is_empty() || excluded.contains(&(index, None)) {
                continue;
            }
            let row = sent.records.len();
            if sent.devices.last() != Some(&record.device) {
                sent.devices.push(record.device);
                sent.batch.devices.push(chunk.devices[record.device as usize].1.clone());
            }
            sent.records.push(index);
            sent.batch.device_index.push(sent.devices.len() as u32 - 1);
            sent.batch.observed_at_ns.push(record.at_ns);
            for cell in cells {
                sent.points += 1;
                columns
                    .entry(cell.property)
                    .or_insert_with(|| ColumnBuild::new(typed, cell.property))
                    .put(row, &cell.value);
            }
        }
        if sent.records.is_empty() {
            return None;
        }
        if sent.devices.len() == 1 {
            sent.batch.device_index.clear();
        }
        if kind != v1::ReportKind::Routine {
            sent.batch.report_kind = vec![kind as i32];
        }
        let rows = sent.records.len();
        sent.properties = columns.keys().copied().collect();
        sent.batch.columns = columns.into_values().map(|column| column.finish(rows)).collect();
        Some(sent)
    }
}

/// A request and what its positions mean.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// The request.
    pub(crate) batch: v1::Batch,
    /// Per row, the record of the cut.
    pub(crate) records: Vec<u32>,
    /// Per column, the property.
    pub(crate) properties: Vec<u16>,
    /// Per device, its position in the chunk.
    pub(crate) devices: Vec<u32>,
    /// Values.
    pub(crate) points: u64,
}

struct ColumnBuild {
    column: v1::Column,
    presence: Vec<u8>,
    present: usize,
    kind: v1::values::Kind,
}

impl ColumnBuild {
    fn new(typed: &Typed, property: u16) -> ColumnBuild {
        use v1::values::Kind;
        let property = &typed.properties[usize::from(property)];
        let kind = match property.value_type {
            v1::ValueType::I64 => Kind::I64(v1::I64Values::default()),
            v1::ValueType::Bool => Kind::Bool(v1::BoolValues::default()),
            v1::ValueType::Enum => Kind::Enum(v1::EnumValues {
                labels: property.labels.clone(),
                indexes: Vec::new(),
            }),
            v1::ValueType::Text => Kind::Text(v1::TextValues::default()),
            v1::ValueType::F64 | v1::ValueType::Unspecified => Kind::F64(v1::F64Values::default()),
        };
        let column = v1::Column {
            property: property.id.clone(),
            ..v1::Column::default()
        };
        ColumnBuild {
            column,
            presence: Vec::new(),
            present: 0,
            kind,
        }
    }

    fn put(&mut self, row: usize, value: &Scalar) {
        use v1::values::Kind;
        match (&mut self.kind, value) {
            (Kind::F64(column), Scalar::F64(value)) => column.values.push(*value),
            (Kind::I64(column), Scalar::I64(value)) => column.values.push(*value),
            (Kind::Bool(column), Scalar::Bool(value)) => column.values.push(*value),
            (Kind::Enum(column), Scalar::Enum(value)) => column.indexes.push(*value),
            (Kind::Text(column), Scalar::Text(value)) => column.values.push(value.to_string()),
            // A value is parsed by the type its column is made of.
            _ => return,
        }
        self.presence.resize(row / 8 + 1, 0);
        self.presence[row / 8] |= 1 << (row % 8);
        self.present += 1;
    }

    fn finish(mut self, rows: usize) -> v1::Column {
        if self.present < rows {
            self.presence.resize(rows.div_ceil(8), 0);
            self.column.presence = self.presence.into();
        }
        self.column.values = Some(v1::Values { kind: Some(self.kind) });
        self.column
    }
}
