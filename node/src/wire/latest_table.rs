//! Newest values on their way out in columns: devices of one type, each property with its values and times.
//!
//! Never here: which values count. Invariant: a column has one time of each kind for each of its values, its own or those of the
//! column before.

use std::sync::Arc;

use tidemark_proto::v1::{Column, LatestColumn, LatestTable};
use tidemark_series::{NewestValue, ValueRef, Values};

use super::answer::{presence, to_values};
use super::latest::Finding;
use crate::catalog::types::{PropertyDef, TypeDef};

/// What a value takes beside itself: two times, and a little more.
const VALUE_BYTES: usize = 24;

/// Collects newest values of devices of one type.
pub struct LatestTableWriter {
    def: Arc<TypeDef>,
    devices: Vec<String>,
    columns: Vec<Gathered>,
}

/// Of one property, so far.
struct Gathered {
    /// Which of the properties of the type.
    at: usize,
    values: Values,
    /// Which of the devices.
    rows: Vec<usize>,
    observed_at_ns: Vec<i64>,
    received_at_ns: Vec<i64>,
    report_kind: Vec<i32>,
    quality: Vec<i32>,
    stale: Vec<bool>,
}

impl LatestTableWriter {
    /// Of the given properties of a type.
    pub fn new(def: &Arc<TypeDef>, properties: &[&PropertyDef]) -> LatestTableWriter {
        let at = |wanted: &&PropertyDef| def.properties.iter().position(|one| one.number == wanted.number);
        let gathered = |at: usize| Gathered {
            at,
            values: Values::empty(def.properties[at].value_type),
            rows: Vec::new(),
            observed_at_ns: Vec::new(),
            received_at_ns: Vec::new(),
            report_kind: Vec::new(),
            quality: Vec::new(),
            stale: Vec::new(),
        };
        LatestTableWriter {
            columns: properties.iter().filter_map(at).map(gathered).collect(),
            def: def.clone(),
            devices: Vec::new(),
        }
    }

    /// Whether devices of this type go here.
    pub fn is_of(&self, def: &Arc<TypeDef>) -> bool {
        Arc::ptr_eq(&self.def, def)
    }

    /// Adds the newest values of one device; `newest` ascends by property, `is_stale` judges an observation time. Returns about
    /// how many bytes they are.
    pub fn device(&mut self, device: &str, newest: &[NewestValue], is_stale: impl Fn(i64) -> bool) -> usize {
        let row = self.devices.len();
        self.devices.push(device.to_owned());
        let mut bytes = device.len();
        let mut finding = Finding::among(newest);
        for column in &mut self.columns {
            if let Some(value) = finding.of(self.def.properties[column.at].number) {
                bytes += column.push(row, value, is_stale(value.observed_at));
            }
        }
        bytes
    }

    /// The table as a message.
    pub fn finish(self) -> LatestTable {
        let LatestTableWriter { def, devices, columns } = self;
        let columns: Vec<Gathered> = columns.into_iter().filter(|column| !column.rows.is_empty()).collect();
        let first = std::iter::once(Shared::default());
        let shared: Vec<Shared> = first.chain(columns.windows(2).map(Shared::of)).collect();
        let message = |(column, shared): (Gathered, Shared)| column.message(&def, devices.len(), shared);
        LatestTable {
            device_type: def.id().to_owned(),
            columns: columns.into_iter().zip(shared).map(message).collect(),
            devices,
        }
    }
}

/// Which times of a column are those of the column before.
#[derive(Copy, Clone, Debug, Default)]
struct Shared {
    observed: bool,
    received: bool,
}

impl Shared {
    /// Of two neighbours.
    fn of(neighbours: &[Gathered]) -> Shared {
        match neighbours {
            [before, column] if before.rows == column.rows => Shared {
                observed: before.observed_at_ns == column.observed_at_ns,
                received: before.received_at_ns == column.received_at_ns,
            },
            _ => Shared::default(),
        }
    }
}

impl Gathered {
    /// Adds the value of a device; returns about how many bytes it is.
    fn push(&mut self, row: usize, newest: &NewestValue, is_stale: bool) -> usize {
        let mut bytes = VALUE_BYTES;
        match (&mut self.values, newest.value()) {
            (Values::F64(values), ValueRef::F64(v)) => values.push(v),
            (Values::I64(values), ValueRef::I64(v)) => values.push(v),
            (Values::Bool(values), ValueRef::Bool(v)) => values.push(v),
            (Values::Enum(values), ValueRef::Enum(v)) => values.push(v),
            (Values::Text(values), ValueRef::Text(v)) => {
                bytes += v.len();
                values.push(v.to_owned());
            }
            // A property's type never changes, and stored values are checked against it when written.
            (values, value) => {
                debug_assert!(false, "{value:?} among {values:?}");
                return 0;
            }
        }
        self.rows.push(row);
        self.observed_at_ns.push(newest.observed_at);
        self.received_at_ns.push(newest.received_at);
        self.report_kind.push(newest.report_kind.into());
        self.quality.push(newest.quality.into());
        self.stale.push(is_stale);
        bytes
    }

    /// As a message; of what it shares with the column before there is nothing in it.
    fn message(self, def: &TypeDef, devices: usize, shared: Shared) -> LatestColumn {
        let property = &def.properties[self.at];
        let present = match self.rows.len() == devices {
            true => Vec::new(),
            false => presence(devices, self.rows.iter().copied()),
        };
        let stale = self.stale.iter().enumerate();
        let stale = stale.filter(|(_, stale)| **stale).map(|(at, _)| at);
        LatestColumn {
            stale: match self.stale.contains(&true) {
                true => presence(self.stale.len(), stale).into(),
                false => Vec::new().into(),
            },
            column: Some(Column {
                property: property.id.clone(),
                values: Some(to_values(self.values, property)),
                presence: present.into(),
                quality: stated(self.quality),
                qualifiers: Vec::new(),
            }),
            observed_at_ns: own(self.observed_at_ns, shared.observed),
            received_at_ns: own(self.received_at_ns, shared.received),
            report_kind: stated(self.report_kind),
        }
    }
}

/// Times, unless they are shared.
fn own(times: Vec<i64>, shared: bool) -> Vec<i64> {
    if shared { Vec::new() } else { times }
}

/// Codes, unless all say nothing.
fn stated(codes: Vec<i32>) -> Vec<i32> {
    match codes.iter().all(|code| *code == 0) {
        true => Vec::new(),
        false => codes,
    }
}
