//! Values in columns of messages: appended, picked, and cut into batches of fewer rows.
//!
//! Never here: which rows belong to which. Invariant: a row keeps its values, whatever batch it is cut into.

use std::ops::Range;

use tidemark_proto::v1::values::Kind;
use tidemark_proto::v1::{Batch, BoolValues, Column, EnumValues, F64Values, I64Values, TextValues, Values};
use tidemark_series::Bitmap;

/// What a text takes beside its bytes.
const TEXT_BYTES: usize = 24;
/// What any other value takes.
const VALUE_BYTES: usize = 8;

/// About what some values take, bytes.
pub(super) fn bytes_of(values: &Values) -> usize {
    match &values.kind {
        None => 0,
        Some(Kind::F64(of)) => of.values.len() * VALUE_BYTES,
        Some(Kind::I64(of)) => of.values.len() * VALUE_BYTES,
        Some(Kind::Bool(of)) => of.values.len(),
        Some(Kind::Enum(of)) => of.indexes.len() * VALUE_BYTES / 2,
        Some(Kind::Text(of)) => of.values.iter().map(|text| text.len() + TEXT_BYTES).sum(),
    }
}

/// The most that one of some values takes, bytes.
pub(super) fn widest(values: &Values) -> usize {
    match &values.kind {
        Some(Kind::Text(of)) => of.values.iter().map(String::len).max().unwrap_or(0) + TEXT_BYTES,
        _ => VALUE_BYTES,
    }
}

/// Puts values of the same property behind others.
pub(super) fn append(to: &mut Values, more: Values) {
    match (&mut to.kind, more.kind) {
        (Some(Kind::F64(to)), Some(Kind::F64(more))) => to.values.extend(more.values),
        (Some(Kind::I64(to)), Some(Kind::I64(more))) => to.values.extend(more.values),
        (Some(Kind::Bool(to)), Some(Kind::Bool(more))) => to.values.extend(more.values),
        (Some(Kind::Enum(to)), Some(Kind::Enum(more))) => {
            // Labels are only ever added, so the longer list knows all.
            if more.labels.len() > to.labels.len() {
                to.labels = more.labels;
            }
            to.indexes.extend(more.indexes);
        }
        (Some(Kind::Text(to)), Some(Kind::Text(more))) => to.values.extend(more.values),
        (to @ None, more) => *to = more,
        // A property's type never changes.
        (to, more) => debug_assert!(more.is_none(), "{more:?} behind {to:?}"),
    }
}

/// The values at some places, in that order.
pub(super) fn pick(values: &Values, places: impl Iterator<Item = usize>) -> Values {
    fn some<T: Clone>(of: &[T], places: impl Iterator<Item = usize>) -> Vec<T> {
        places.filter_map(|place| of.get(place).cloned()).collect()
    }
    let kind = values.kind.as_ref().map(|kind| match kind {
        Kind::F64(of) => Kind::F64(F64Values {
            values: some(&of.values, places),
        }),
        Kind::I64(of) => Kind::I64(I64Values {
            values: some(&of.values, places),
        }),
        Kind::Bool(of) => Kind::Bool(BoolValues {
            values: some(&of.values, places),
        }),
        Kind::Enum(of) => Kind::Enum(EnumValues {
            labels: of.labels.clone(),
            indexes: some(&of.indexes, places),
        }),
        Kind::Text(of) => Kind::Text(TextValues {
            values: some(&of.values, places),
        }),
    });
    Values { kind }
}

/// Bits of rows that have something; empty where all have.
pub(super) fn bits(present: &[bool]) -> Vec<u8> {
    if present.iter().all(|one| *one) {
        return Vec::new();
    }
    let mut bits = Bitmap::new(present.len());
    present.iter().enumerate().for_each(|(row, one)| bits.set(row, *one));
    bits.to_bytes_lsb()
}

/// Cuts a batch into batches of one device each, row after row.
pub(super) struct Cutter<'b> {
    batch: &'b Batch,
    row: usize,
    /// Per column: values of rows that were cut already.
    taken: Vec<usize>,
}

impl<'b> Cutter<'b> {
    pub(super) fn new(batch: &'b Batch) -> Cutter<'b> {
        Cutter {
            batch,
            row: 0,
            taken: vec![0; batch.columns.len()],
        }
    }

    /// Rows from the next one on that are of one device, and the device; `None` at the end.
    pub(super) fn run(&self) -> Option<(&'b str, Range<usize>)> {
        let rows = self.batch.observed_at_ns.len();
        if self.row >= rows {
            return None;
        }
        let device = |row: usize| self.batch.device_index.get(row).copied().unwrap_or(0);
        let first = device(self.row);
        let end = (self.row..rows).find(|row| device(*row) != first).unwrap_or(rows);
        let id = self.batch.devices.get(first as usize).map_or("", String::as_str);
        Some((id, self.row..end))
    }

    /// The next rows as a batch of one device.
    pub(super) fn next(&mut self, device: &str, rows: usize) -> Batch {
        let range = self.row..self.batch.observed_at_ns.len().min(self.row + rows);
        self.row = range.end;
        let columns = self.batch.columns.iter().zip(&mut self.taken);
        let columns = columns
            .filter_map(|(column, taken)| cut(column, &range, taken))
            .collect();
        let kinds = &self.batch.report_kind;
        Batch {
            device_type: self.batch.device_type.clone(),
            devices: vec![device.to_owned()],
            device_index: Vec::new(),
            observed_at_ns: self.batch.observed_at_ns[range.clone()].to_vec(),
            columns,
            report_kind: match kinds.len() {
                0 | 1 => kinds.clone(),
                _ => kinds.get(range.clone()).map(<[i32]>::to_vec).unwrap_or_default(),
            },
            received_at_ns: self
                .batch
                .received_at_ns
                .get(range)
                .map(<[i64]>::to_vec)
                .unwrap_or_default(),
        }
    }
}

/// Some rows of a column, of which so many values are `taken`; `None` where they have no value.
fn cut(column: &Column, rows: &Range<usize>, taken: &mut usize) -> Option<Column> {
    let is_present = |row: usize| {
        let byte = column.presence.get(row / 8).copied().unwrap_or(0);
        column.presence.is_empty() || byte & (1 << (row % 8)) != 0
    };
    let present: Vec<bool> = rows.clone().map(is_present).collect();
    let values = *taken..*taken + present.iter().filter(|one| **one).count();
    *taken = values.end;
    if values.is_empty() {
        return None;
    }
    let quality = column.quality.get(values.clone());
    Some(Column {
        property: column.property.clone(),
        values: column.values.as_ref().map(|all| pick(all, values)),
        presence: bits(&present).into(),
        quality: quality.map(<[i32]>::to_vec).unwrap_or_default(),
        qualifiers: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn texts(of: &[&str]) -> Values {
        let values = of.iter().map(ToString::to_string).collect();
        Values {
            kind: Some(Kind::Text(TextValues { values })),
        }
    }

    #[test]
    fn rows_keep_their_values_in_any_batch() {
        let column = |property: &str, values: Values, presence: u8, quality: &[i32]| Column {
            property: property.into(),
            values: Some(values),
            presence: if presence == 0 { vec![] } else { vec![presence] }.into(),
            quality: quality.to_vec(),
            qualifiers: Vec::new(),
        };
        let batch = Batch {
            device_type: "t".into(),
            devices: vec!["a".into(), "b".into()],
            device_index: vec![0, 0, 0, 1],
            observed_at_ns: vec![1, 2, 3, 1],
            columns: vec![
                column("all", texts(&["a1", "a2", "a3", "b1"]), 0, &[1, 2, 3, 4]),
                column("some", texts(&["a1", "a3"]), 0b0101, &[]),
            ],
            report_kind: vec![1, 2, 3, 4],
            received_at_ns: vec![10, 20, 30, 40],
        };
        let mut cutter = Cutter::new(&batch);
        let mut found = Vec::new();
        while let Some((device, rows)) = cutter.run() {
            let cut = cutter.next(device, rows.len().min(2));
            let columns = cut.columns.iter();
            let columns = columns.map(|column| (column.values.clone().unwrap(), column.presence.to_vec()));
            found.push((device, cut.observed_at_ns, cut.report_kind, columns.collect::<Vec<_>>()));
        }
        let expected = [
            (
                "a",
                vec![1, 2],
                vec![1, 2],
                vec![(texts(&["a1", "a2"]), vec![]), (texts(&["a1"]), vec![0b01])],
            ),
            (
                "a",
                vec![3],
                vec![3],
                vec![(texts(&["a3"]), vec![]), (texts(&["a3"]), vec![])],
            ),
            ("b", vec![1], vec![4], vec![(texts(&["b1"]), vec![])]),
        ];
        assert_eq!(found, expected);
    }
}
