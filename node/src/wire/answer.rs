//! Answers on their way out: records and finished aggregates as protobuf columns. Never: storage.

use std::ops::Range;

use tidemark_proto::v1::{
    AggregateColumn, Batch, BoolValues, Column, EnumValues, F64Values, I64Values, TextValues, Values, values,
};
use tidemark_series::{self as series, Bitmap, Finished, PropertyNumber, Records};

use crate::catalog::types::{PropertyDef, TypeDef};

/// Qualifiers of the values of some rows, in the order of the values, by property: sums of bits.
pub type Qualified = Vec<(PropertyNumber, Vec<u32>)>;

/// Collects records of devices of one type into one batch.
pub struct BatchWriter<'a> {
    def: &'a TypeDef,
    /// With the row behind their last one.
    devices: Vec<(String, usize)>,
    observed_at_ns: Vec<i64>,
    received_at_ns: Vec<i64>,
    report_kind: Vec<u8>,
    columns: Vec<Outgoing<'a>>,
    bytes: usize,
}

/// What a row takes beside its values.
const ROW_BYTES: usize = 24;

struct Outgoing<'a> {
    property: &'a PropertyDef,
    values: series::Values,
    /// Of each value, but for those at the end that have none.
    quality: Vec<u8>,
    /// As `quality`.
    qualifiers: Vec<u32>,
    /// Row of each value, as soon as there is a row without one.
    rows: Option<Vec<u32>>,
}

impl<'a> BatchWriter<'a> {
    /// An empty batch of the given properties.
    pub fn new(def: &'a TypeDef, properties: &[&'a PropertyDef]) -> BatchWriter<'a> {
        let outgoing = |property: &&'a PropertyDef| Outgoing {
            property,
            values: series::Values::empty(property.value_type),
            quality: Vec::new(),
            qualifiers: Vec::new(),
            rows: None,
        };
        BatchWriter {
            def,
            devices: Vec::new(),
            observed_at_ns: Vec::new(),
            received_at_ns: Vec::new(),
            report_kind: Vec::new(),
            columns: properties.iter().map(outgoing).collect(),
            bytes: 0,
        }
    }

    /// About the bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.observed_at_ns.len()
    }

    /// Adds some rows of one device. Columns of other properties are left out. Either all records say when they were received or none
    /// of them does.
    pub fn push(&mut self, device: &str, records: Records, rows: Range<usize>) {
        self.push_qualified(device, records, rows, &Vec::new());
    }

    /// The same, with the qualifiers of their values.
    pub fn push_qualified(&mut self, device: &str, records: Records, rows: Range<usize>, qualified: &Qualified) {
        let base = self.rows();
        match self.devices.last_mut().filter(|(last, _)| last == device) {
            Some((_, end)) => *end += rows.len(),
            None => self.devices.push((device.to_string(), base + rows.len())),
        }
        append(&mut self.observed_at_ns, records.observed_at, &rows);
        if !records.received_at.is_empty() {
            append(&mut self.received_at_ns, records.received_at, &rows);
        }
        append(&mut self.report_kind, records.report_kind, &rows);
        self.bytes += rows.len() * ROW_BYTES;
        for column in records.columns {
            let bits = qualified.iter().find(|(property, _)| *property == column.property);
            let bits = bits.map_or(&[][..], |(_, bits)| bits);
            let mut fitting = self.columns.iter_mut().filter(|o| o.property.number == column.property);
            let Some(first) = fitting.next() else { continue };
            // A property may be asked for twice.
            for again in fitting {
                again.qualify(bits);
                self.bytes += again.append(column.clone(), rows.clone(), base);
            }
            first.qualify(bits);
            self.bytes += first.append(column, rows.clone(), base);
        }
    }

    /// What there is as a message; an empty batch of the same properties is left.
    pub fn take(&mut self) -> Batch {
        let properties: Vec<&PropertyDef> = self.columns.iter().map(|outgoing| outgoing.property).collect();
        std::mem::replace(self, BatchWriter::new(self.def, &properties)).finish()
    }

    /// The batch as a message.
    pub fn finish(self) -> Batch {
        let rows = self.observed_at_ns.len();
        let report_kind = match self.report_kind.iter().all(|&kind| kind == 0) {
            true => Vec::new(),
            false => self.report_kind.into_iter().map(i32::from).collect(),
        };
        let mut device_index = Vec::new();
        if self.devices.len() > 1 {
            device_index.reserve_exact(rows);
            for (index, (_, end)) in self.devices.iter().enumerate() {
                device_index.resize(*end, index as u32);
            }
        }
        Batch {
            device_type: self.def.id().to_string(),
            device_index,
            devices: self.devices.into_iter().map(|(device, _)| device).collect(),
            observed_at_ns: self.observed_at_ns,
            columns: self
                .columns
                .into_iter()
                .filter(|c| !c.values.is_empty())
                .map(|c| c.finish(rows))
                .collect(),
            report_kind,
            received_at_ns: self.received_at_ns,
        }
    }
}

impl Outgoing<'_> {
    /// Notes the qualifiers of the values that are added next.
    fn qualify(&mut self, bits: &[u32]) {
        if !bits.is_empty() {
            self.qualifiers.resize(self.values.len(), 0);
            self.qualifiers.extend_from_slice(bits);
        }
    }

    /// Adds the values of some rows; the first of these is row `base` of the batch. Returns about how many bytes they are.
    fn append(&mut self, column: series::Column, rows: Range<usize>, base: usize) -> usize {
        let values = match &column.presence {
            None => rows.clone(),
            Some(presence) => presence.rank(rows.start)..presence.rank(rows.end),
        };
        if values.is_empty() {
            return 0;
        }
        let bytes = match &column.values {
            series::Values::Text(texts) => texts[values.clone()].iter().map(String::len).sum(),
            _ => values.len() * size_of::<u64>(),
        };
        let held = self.values.len();
        if self.rows.is_some() || held != base || values.len() != rows.len() {
            let numbers = self.rows.get_or_insert_with(|| (0..held as u32).collect());
            let row = |row: usize| (base + row - rows.start) as u32;
            match &column.presence {
                None => numbers.extend(rows.clone().map(row)),
                Some(presence) => numbers.extend(presence.ones_between(rows.start, rows.end).map(row)),
            }
        }
        if let Some(quality) = &column.quality {
            self.quality.resize(held, 0);
            self.quality.extend_from_slice(&quality[values.clone()]);
        }
        match (&mut self.values, column.values) {
            (series::Values::F64(to), series::Values::F64(from)) => append(to, from, &values),
            (series::Values::I64(to), series::Values::I64(from)) => append(to, from, &values),
            (series::Values::Bool(to), series::Values::Bool(from)) => append(to, from, &values),
            (series::Values::Enum(to), series::Values::Enum(from)) => append(to, from, &values),
            (series::Values::Text(to), series::Values::Text(from)) => append(to, from, &values),
            // A property's type never changes, and stored columns are checked against it when written.
            (to, from) => debug_assert!(false, "column {to:?} against {from:?}"),
        }
        bytes
    }

    fn finish(mut self, rows: usize) -> Column {
        let presence = match &self.rows {
            None if self.values.len() == rows => Vec::new(),
            None => presence(rows, 0..self.values.len()),
            Some(numbers) => presence(rows, numbers.iter().map(|&row| row as usize)),
        };
        let quality = if self.quality.iter().any(|&q| q != 0) {
            self.quality.resize(self.values.len(), 0);
            self.quality.iter().map(|&q| i32::from(q)).collect()
        } else {
            Vec::new()
        };
        let qualifiers = if self.qualifiers.iter().any(|&bits| bits != 0) {
            self.qualifiers.resize(self.values.len(), 0);
            self.qualifiers
        } else {
            Vec::new()
        };
        Column {
            property: self.property.id.clone(),
            values: Some(to_values(self.values, self.property)),
            presence: presence.into(),
            quality,
            qualifiers,
        }
    }
}

/// Appends some of the values there are; all of them where there are none yet go over as they lie.
fn append<T: Clone>(to: &mut Vec<T>, from: Vec<T>, some: &Range<usize>) {
    match to.is_empty() && *some == (0..from.len()) {
        true => *to = from,
        false => to.extend_from_slice(&from[some.clone()]),
    }
}

/// The bits of a column that has values in some of `rows` rows.
pub(super) fn presence(rows: usize, present: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut bitmap = Bitmap::new(rows);
    present.for_each(|row| bitmap.set(row, true));
    bitmap.to_bytes_lsb()
}

/// Values as a message; enum codes become labels.
pub fn to_values(values: series::Values, property: &PropertyDef) -> Values {
    let kind = match values {
        series::Values::F64(values) => values::Kind::F64(F64Values { values }),
        series::Values::I64(values) => values::Kind::I64(I64Values { values }),
        series::Values::Bool(values) => values::Kind::Bool(BoolValues { values }),
        series::Values::Enum(indexes) => values::Kind::Enum(EnumValues {
            labels: property.labels.clone(),
            indexes,
        }),
        series::Values::Text(values) => values::Kind::Text(TextValues { values }),
    };
    Values { kind: Some(kind) }
}

/// One function over the windows of a series, window by window.
pub struct FinishedColumn {
    values: Option<series::Values>,
    room: usize,
}

impl FinishedColumn {
    /// Of about `room` windows.
    pub fn new(room: usize) -> FinishedColumn {
        FinishedColumn { values: None, room }
    }

    /// Adds the next window's answer; the first one decides the type.
    pub fn push(&mut self, finished: Finished) {
        fn first<T>(value: T, room: usize) -> Vec<T> {
            let mut values = Vec::with_capacity(room);
            values.push(value);
            values
        }
        let room = self.room;
        match (&mut self.values, finished) {
            (Some(series::Values::F64(v)), Finished::F64(x)) => v.push(x),
            (Some(series::Values::I64(v)), Finished::I64(x)) => v.push(x),
            (Some(series::Values::I64(v)), Finished::U64(x)) => v.push(x as i64),
            (Some(series::Values::Bool(v)), Finished::Bool(x)) => v.push(x),
            (Some(series::Values::Enum(v)), Finished::Enum(x)) => v.push(x),
            (Some(series::Values::Text(v)), Finished::Text(x)) => v.push(x),
            (values, Finished::F64(x)) => *values = Some(series::Values::F64(first(x, room))),
            (values, Finished::I64(x)) => *values = Some(series::Values::I64(first(x, room))),
            (values, Finished::U64(x)) => *values = Some(series::Values::I64(first(x as i64, room))),
            (values, Finished::Bool(x)) => *values = Some(series::Values::Bool(first(x, room))),
            (values, Finished::Enum(x)) => *values = Some(series::Values::Enum(first(x, room))),
            (values, Finished::Text(x)) => *values = Some(series::Values::Text(first(x, room))),
        }
    }

    /// The column as a message.
    pub fn finish(self, function: i32, property: &PropertyDef) -> AggregateColumn {
        AggregateColumn {
            function,
            values: self.values.map(|values| to_values(values, property)),
            ..AggregateColumn::default()
        }
    }
}
