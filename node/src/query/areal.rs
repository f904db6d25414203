//! The mean over devices of what each of them answers: an areal value. What is asked for, and sums on their way. Pure.
//!
//! Never here: what a device answers (see `finish`). Invariant: a device counts with all columns of a window or with none of
//! them, and each device that does not is counted by why.

use bytes::Bytes;
use tidemark_proto::peer::{ArealPartial, Partials};
use tidemark_proto::v1::QueryAggregateRequest;
use tidemark_series::{ByWindow, Finished, Function, Partial, Unfinished, ValueRef, ValueType};

use super::shard_side::corrupt;
use crate::error::{Error, Reason, Result};

/// Devices with points in a smaller share of their slots are left out where nothing else is asked for.
const MIN_COVERAGE: f64 = 0.9;
/// What a window costs in memory, roughly, bytes; and each of its columns.
const WINDOW_BYTES: usize = 96;
const COLUMN_BYTES: usize = 112;

/// The share of its slots in which a device needs points in a window, where areal values are asked for.
pub(super) fn min_coverage(request: &QueryAggregateRequest) -> Result<Option<f64>> {
    let Some(areal) = &request.areal else {
        return Ok(None);
    };
    let refused = |message: String, field: &str| Err(Error::new(Reason::InvalidValue, message).field(field));
    if request.grouping.is_none() {
        let missing = Error::new(Reason::MissingField, "an areal value is of a group").field("grouping");
        return Err(missing.hint("an empty grouping makes one group of all devices"));
    }
    if request.top.is_some() {
        return refused("a top list of areal values".into(), "top");
    }
    match areal.min_coverage {
        0.0 => Ok(Some(MIN_COVERAGE)),
        share if (0.0..=1.0).contains(&share) => Ok(Some(share)),
        share => {
            let message = format!("areal.min_coverage is {share}, and a share is from 0 to 1");
            refused(message, "areal.min_coverage")
        }
    }
}

/// What devices of a group answer in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Areal {
    /// Points of all devices.
    pub(super) seen: u64,
    /// Devices whose answers are in the mean.
    pub(super) used: u64,
    /// Slots of all devices that have a point.
    pub(super) filled: u64,
    /// Devices that have points, and too few.
    pub(super) too_few: u64,
    columns: Vec<Partial>,
}

impl Areal {
    /// The answers of one device that saw so many points in so many slots; `None`: too few for an answer.
    pub(super) fn of_device((seen, filled): (u64, u64), answers: Option<Vec<f64>>) -> Areal {
        let column = |answer: f64| {
            let mut column = Partial::empty(ValueType::F64);
            column.fold(0, ValueRef::F64(answer));
            column
        };
        Areal {
            seen,
            filled,
            used: u64::from(answers.is_some()),
            too_few: u64::from(answers.is_none() && seen > 0),
            columns: answers.into_iter().flatten().map(column).collect(),
        }
    }

    /// The mean of a column.
    pub(super) fn mean(&self, column: usize) -> Option<Finished> {
        let column = self.columns.get(column)?;
        column.finish(Function::Avg).ok().flatten()
    }
}

impl Unfinished for Areal {
    fn merge(&mut self, other: &Areal) {
        self.seen = self.seen.saturating_add(other.seen);
        self.filled = self.filled.saturating_add(other.filled);
        self.used = self.used.saturating_add(other.used);
        self.too_few = self.too_few.saturating_add(other.too_few);
        if self.columns.is_empty() {
            self.columns.clone_from(&other.columns);
            return;
        }
        for (mine, theirs) in self.columns.iter_mut().zip(&other.columns) {
            mine.merge(theirs);
        }
    }
}

/// An answer as a number to make a mean of; labels and texts are none.
pub(super) fn number(finished: &Finished) -> Option<f64> {
    let number = match finished {
        Finished::F64(value) => *value,
        Finished::I64(value) => *value as f64,
        Finished::U64(value) => *value as f64,
        Finished::Bool(value) => f64::from(u8::from(*value)),
        Finished::Enum(_) | Finished::Text(_) => return None,
    };
    number.is_finite().then_some(number)
}

/// What windows cost in memory, roughly, bytes.
pub(super) fn bytes_of(windows: &ByWindow<Areal>) -> usize {
    let columns: usize = windows.values().map(|areal| areal.columns.len()).sum();
    windows.len() * WINDOW_BYTES + columns * COLUMN_BYTES
}

/// Puts windows into a message.
pub(super) fn put_into(windows: &mut ByWindow<Areal>, part: &mut Partials) {
    let wire = |(window, areal): &(i64, Areal)| ArealPartial {
        window: *window,
        seen: areal.seen,
        used: areal.used,
        too_few: areal.too_few,
        slots_filled: Some(areal.filled),
        column: areal
            .columns
            .iter()
            .map(|column| Bytes::from(column.encode()))
            .collect(),
    };
    part.areal = windows.sorted().iter().map(wire).collect();
}

/// Reads what [`put_into`] wrote.
pub(super) fn from_wire(part: &Partials) -> Result<ByWindow<Areal>> {
    let mut windows = ByWindow::default();
    for wire in &part.areal {
        let columns = wire.column.iter().map(|column| Partial::decode(column));
        let areal = Areal {
            seen: wire.seen,
            used: wire.used,
            too_few: wire.too_few,
            // A node that does not count slots takes points for them.
            filled: wire.slots_filled.unwrap_or(wire.seen),
            columns: columns.collect::<std::result::Result<_, _>>().map_err(corrupt)?,
        };
        windows.add(wire.window, areal);
    }
    Ok(windows)
}
