//! A store for tests: points in memory, of the property that records are counted by. Never here: anything that a run plays
//! against. Invariant: it holds what it was given and answers nothing else.

use anyhow::{Result, bail};

use crate::run::batches::Batch;
use crate::run::fleet::{Fleet, ValueType};
use crate::run::question::{Ask, Row};
use crate::run::value::value;

/// A point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) type_at: usize,
    pub(crate) device: usize,
    pub(crate) at_ms: i64,
    pub(crate) v: f64,
}

/// Everything that was put in.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) points: Vec<Point>,
    /// So many answers are empty before the first that is right.
    pub(crate) late: usize,
}

impl Made {
    /// Stores a batch, whatever is there.
    pub(crate) fn put(&mut self, fleet: &Fleet, batch: &Batch) {
        self.points.extend(points(fleet, batch));
    }

    /// Loses a batch.
    pub(crate) fn lose(&mut self, fleet: &Fleet, batch: &Batch) {
        let lost = points(fleet, batch);
        self.points.retain(|point| !lost.contains(point));
    }

    pub(super) fn ask(&mut self, ask: &Ask) -> Result<Vec<Row>> {
        if let Some(left) = self.late.checked_sub(1) {
            self.late = left;
            return Ok(Vec::new());
        }
        let of = |type_at: usize, from_ms: i64, to_ms: i64| {
            let points = self.points.iter();
            points.filter(move |point| point.type_at == type_at && (from_ms..to_ms).contains(&point.at_ms))
        };
        match ask {
            Ask::Raw {
                of: series,
                device,
                from_ms,
                to_ms,
            } => {
                let points = of(series.type_at, *from_ms, *to_ms).filter(|point| point.device == *device);
                Ok(points.map(|point| Row::new("", point.at_ms, vec![point.v])).collect())
            }
            Ask::Total {
                of: series,
                from_ms,
                to_ms,
            } => {
                let values: Vec<f64> = of(series.type_at, *from_ms, *to_ms).map(|point| point.v).collect();
                let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total = vec![values.len() as f64, values.iter().sum(), max];
                Ok(vec![Row::new("", 0, total)])
            }
            _ => bail!("not asked of this store"),
        }
    }
}

fn points(fleet: &Fleet, batch: &Batch) -> Vec<Point> {
    let one = &fleet.types[batch.type_at];
    let number = |value_type| matches!(value_type, ValueType::F64 | ValueType::I64);
    let property = one.properties.iter().find(|property| number(property.value_type));
    let point = |row: crate::run::batches::RowAt| {
        let device = one.devices.get(row.device)?;
        Some(Point {
            type_at: batch.type_at,
            device: row.device,
            at_ms: one.at_ms(device, row.slot),
            v: value(device, property?, row.slot, one.interval_s),
        })
    };
    batch.rows().filter_map(point).collect()
}
