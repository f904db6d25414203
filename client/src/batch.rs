//! Rows into columns: builds a [`v1::Batch`] one row at a time. Never here: limits and checks that the server makes.
//! Invariant: every column has one presence bit per row, or none at all where every row has a value.

use std::collections::BTreeMap;

use tidemark_proto::v1::{self, values::Kind};
use tonic::Code;

use crate::{error::Error, value::Value};

/// Builds a batch of one device type, row by row.
///
/// ```
/// use tidemark_client::{BatchBuilder, Value};
///
/// let mut batch = BatchBuilder::new("tank");
/// batch.row("tank-1", 1_760_000_000_000_000_000).set("level", 1.25).set("state", Value::Enum("ok".into()));
/// batch.row("tank-2", 1_760_000_000_000_000_000).set("level", 0.75);
/// let batch = batch.build().unwrap();
/// assert_eq!(batch.devices, ["tank-1", "tank-2"]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct BatchBuilder {
    device_type: String,
    devices: Vec<String>,
    positions: BTreeMap<String, u32>,
    device_index: Vec<u32>,
    observed_at_ns: Vec<i64>,
    kinds: Vec<v1::ReportKind>,
    /// 0 where the store says when.
    received_at_ns: Vec<i64>,
    columns: Vec<ColumnBuilder>,
    wrong: Option<Error>,
}

#[derive(Debug, Clone)]
struct ColumnBuilder {
    property: String,
    rows: Vec<u32>,
    values: Kind,
    labels: BTreeMap<String, u32>,
    quality: Vec<v1::Quality>,
}

impl BatchBuilder {
    /// An empty batch of devices of this type.
    pub fn new(device_type: impl Into<String>) -> Self {
        Self {
            device_type: device_type.into(),
            ..Self::default()
        }
    }

    /// Begins a row: one time of one device, nanoseconds since the epoch, UTC.
    pub fn row(&mut self, device: &str, observed_at_ns: i64) -> RowBuilder<'_> {
        let position = match self.positions.get(device) {
            Some(position) => *position,
            None => {
                let position = self.devices.len() as u32;
                self.devices.push(device.to_owned());
                self.positions.insert(device.to_owned(), position);
                position
            }
        };
        self.device_index.push(position);
        self.observed_at_ns.push(observed_at_ns);
        self.kinds.push(v1::ReportKind::Unspecified);
        self.received_at_ns.push(0);
        RowBuilder { batch: self }
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.observed_at_ns.len()
    }

    /// True before the first row.
    pub fn is_empty(&self) -> bool {
        self.observed_at_ns.is_empty()
    }

    /// Points so far: values over all rows.
    pub fn points(&self) -> usize {
        self.columns.iter().map(|column| column.rows.len()).sum()
    }

    /// The batch in columns.
    ///
    /// # Errors
    /// `WRONG_VALUE_TYPE` where one property was given values of two types; names the row and the property.
    pub fn build(self) -> Result<v1::Batch, Error> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let rows = self.observed_at_ns.len();
        let routine = self.kinds.iter().all(|kind| *kind == v1::ReportKind::Unspecified);
        Ok(v1::Batch {
            device_type: self.device_type,
            device_index: if self.devices.len() == 1 {
                Vec::new()
            } else {
                self.device_index
            },
            devices: self.devices,
            observed_at_ns: self.observed_at_ns,
            columns: self.columns.into_iter().map(|column| column.build(rows)).collect(),
            report_kind: if routine {
                Vec::new()
            } else {
                self.kinds.into_iter().map(i32::from).collect()
            },
            received_at_ns: match self.received_at_ns.iter().all(|at| *at == 0) {
                true => Vec::new(),
                false => self.received_at_ns,
            },
        })
    }

    fn put(&mut self, property: &str, value: Value, quality: v1::Quality) {
        let row = self.observed_at_ns.len().saturating_sub(1) as u32;
        let position = self.columns.iter().position(|column| column.property == property);
        let position = position.unwrap_or_else(|| {
            self.columns.push(ColumnBuilder::new(property, &value));
            self.columns.len() - 1
        });
        if self.columns[position].put(row, value, quality).is_none() && self.wrong.is_none() {
            let message =
                format!("row {row} gives property {property} a value of another type than the rows before it");
            let mut wrong = Error::local(Code::InvalidArgument, "WRONG_VALUE_TYPE", message);
            wrong.field = Some(format!("rows[{row}].{property}"));
            self.wrong = Some(wrong);
        }
    }
}

/// The row begun last.
#[derive(Debug)]
pub struct RowBuilder<'a> {
    batch: &'a mut BatchBuilder,
}

impl RowBuilder<'_> {
    /// Gives the row a value of a property; given twice, the last one counts.
    pub fn set(self, property: &str, value: impl Into<Value>) -> Self {
        self.set_with_quality(property, value, v1::Quality::Unspecified)
    }

    /// The same, with the quality that the source states.
    pub fn set_with_quality(self, property: &str, value: impl Into<Value>, quality: v1::Quality) -> Self {
        self.batch.put(property, value.into(), quality);
        self
    }

    /// When the row was received, nanoseconds since the epoch, where that is known from elsewhere; otherwise the store says when it
    /// took it.
    pub fn received_at(self, received_at_ns: i64) -> Self {
        if let Some(last) = self.batch.received_at_ns.last_mut() {
            *last = received_at_ns;
        }
        self
    }

    /// Why the row was reported; routine where not said.
    pub fn report_kind(self, kind: v1::ReportKind) -> Self {
        if let Some(last) = self.batch.kinds.last_mut() {
            *last = kind;
        }
        self
    }
}

impl ColumnBuilder {
    fn new(property: &str, first: &Value) -> Self {
        let values = match first {
            Value::F64(_) => Kind::F64(v1::F64Values::default()),
            Value::I64(_) => Kind::I64(v1::I64Values::default()),
            Value::Bool(_) => Kind::Bool(v1::BoolValues::default()),
            Value::Enum(_) => Kind::Enum(v1::EnumValues::default()),
            Value::Text(_) => Kind::Text(v1::TextValues::default()),
        };
        Self {
            property: property.to_owned(),
            rows: Vec::new(),
            values,
            labels: BTreeMap::new(),
            quality: Vec::new(),
        }
    }

    /// None where the value is of another type than the column.
    fn put(&mut self, row: u32, value: Value, quality: v1::Quality) -> Option<()> {
        let again = self.rows.last() == Some(&row);
        match (&mut self.values, value) {
            (Kind::F64(column), Value::F64(value)) => push(&mut column.values, value, again),
            (Kind::I64(column), Value::I64(value)) => push(&mut column.values, value, again),
            (Kind::Bool(column), Value::Bool(value)) => push(&mut column.values, value, again),
            (Kind::Text(column), Value::Text(value)) => push(&mut column.values, value, again),
            (Kind::Enum(column), Value::Enum(label)) => {
                let index = self.labels.get(&label).copied().unwrap_or_else(|| {
                    let index = column.labels.len() as u32;
                    column.labels.push(label.clone());
                    self.labels.insert(label, index);
                    index
                });
                push(&mut column.indexes, index, again);
            }
            _ => return None,
        }
        push(&mut self.rows, row, again);
        push(&mut self.quality, quality, again);
        Some(())
    }

    fn build(self, rows: usize) -> v1::Column {
        let mut presence = Vec::new();
        if self.rows.len() < rows {
            presence.resize(rows.div_ceil(8), 0_u8);
            for row in &self.rows {
                presence[*row as usize / 8] |= 1 << (row % 8);
            }
        }
        let stated = self.quality.iter().any(|quality| *quality != v1::Quality::Unspecified);
        v1::Column {
            property: self.property,
            values: Some(v1::Values {
                kind: Some(self.values),
            }),
            presence: presence.into(),
            quality: if stated {
                self.quality.into_iter().map(i32::from).collect()
            } else {
                Vec::new()
            },
            qualifiers: Vec::new(),
        }
    }
}

fn push<T>(column: &mut Vec<T>, value: T, replace: bool) {
    if replace {
        column.pop();
    }
    column.push(value);
}
