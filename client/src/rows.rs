//! Columns into rows: walks a [`v1::Batch`] row by row. Never here: building batches.
//! Invariant: a malformed batch gives fewer values, never a panic and never a value of another row.

use std::collections::BTreeMap;

use tidemark_proto::v1;

use crate::value::{Value, value_at};

/// One row of a batch: one time of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// Id of the device.
    pub device: &'a str,
    /// Nanoseconds since the epoch, UTC.
    pub observed_at_ns: i64,
    /// When the first node took it, nanoseconds since the epoch; only in answers.
    pub received_at_ns: Option<i64>,
    /// Why it was reported.
    pub report_kind: v1::ReportKind,
    /// Property ids and values, in the order of the columns; a property without a value in this row is left out.
    pub values: Vec<(&'a str, Value)>,
    /// What the source said about the values, where it said anything.
    pub quality: BTreeMap<&'a str, v1::Quality>,
    /// What there is to say of the values beside their quality, where the question asked for it and there is anything.
    pub qualifiers: BTreeMap<&'a str, Vec<v1::Qualifier>>,
}

/// The rows of a batch, in order.
#[derive(Debug)]
pub struct Rows<'a> {
    batch: &'a v1::Batch,
    row: usize,
    /// Per column: values before `row`.
    taken: Vec<usize>,
}

/// The rows of a batch, in order.
///
/// ```
/// let mut batch = tidemark_client::BatchBuilder::new("tank");
/// batch.row("tank-1", 5).set("level", 1.25);
/// let batch = batch.build().unwrap();
/// for row in tidemark_client::rows(&batch) {
///     assert_eq!((row.device, row.observed_at_ns, row.values.len()), ("tank-1", 5, 1));
/// }
/// ```
pub fn rows(batch: &v1::Batch) -> Rows<'_> {
    Rows {
        batch,
        row: 0,
        taken: vec![0; batch.columns.len()],
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        let batch = self.batch;
        let row = self.row;
        let observed_at_ns = *batch.observed_at_ns.get(row)?;
        self.row += 1;
        let position = batch.device_index.get(row).map_or(0, |position| *position as usize);
        let kind = batch
            .report_kind
            .get(if batch.report_kind.len() == 1 { 0 } else { row });
        let mut values = Vec::with_capacity(batch.columns.len());
        let mut quality = BTreeMap::new();
        let mut qualifiers = BTreeMap::new();
        for (column, taken) in batch.columns.iter().zip(&mut self.taken) {
            if !is_present(&column.presence, row) {
                continue;
            }
            let index = *taken;
            *taken += 1;
            if let Some(value) = column.values.as_ref().and_then(|values| value_at(values, index)) {
                values.push((column.property.as_str(), value));
                if let Some(stated) = column
                    .quality
                    .get(index)
                    .and_then(|stated| v1::Quality::try_from(*stated).ok())
                {
                    quality.insert(column.property.as_str(), stated);
                }
                if let Some(bits) = column.qualifiers.get(index).filter(|bits| **bits != 0) {
                    qualifiers.insert(column.property.as_str(), qualifiers_of(*bits));
                }
            }
        }
        Some(Row {
            device: batch.devices.get(position).map_or("", String::as_str),
            observed_at_ns,
            received_at_ns: batch.received_at_ns.get(row).copied(),
            report_kind: kind
                .and_then(|kind| v1::ReportKind::try_from(*kind).ok())
                .unwrap_or_default(),
            values,
            quality,
            qualifiers,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batch.observed_at_ns.len() - self.row;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Rows<'_> {}

/// The qualifiers of which some bits are the sum; those that this version does not know are left out.
pub fn qualifiers_of(bits: u32) -> Vec<v1::Qualifier> {
    let set = (0..u32::BITS).map(|place| bits & (1 << place));
    let known = set.filter(|bit| *bit != 0).filter_map(|bit| i32::try_from(bit).ok());
    known.filter_map(|bit| v1::Qualifier::try_from(bit).ok()).collect()
}

pub(crate) fn is_present(presence: &[u8], row: usize) -> bool {
    presence.is_empty() || presence.get(row / 8).is_some_and(|byte| byte & (1 << (row % 8)) != 0)
}
