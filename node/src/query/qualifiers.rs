//! What is said of values beside their quality, where a raw range asks for it: what checks find, who entered them, how they came.
//!
//! Never here: which records are wanted (see `filter`). Invariant: what is found of a value by its neighbours is what the quality of its
//! device counts, whatever block the neighbours lie in.

use std::ops::Range;

use tidemark_proto::v1::{Qualifier, Quality, ReportKind};
use tidemark_series::checks::Finding;
use tidemark_series::{Column, Records, ValueType};

use super::latencies::Latencies;
use super::quality_device::counts_for_nothing;
use super::shard_side::{Answering, Chosen};
use super::walk::{Walk, Walked, telling};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;
use crate::wire::answer::Qualified;

/// Looks at the values of devices of one type.
pub(super) struct Qualifying<'d> {
    def: &'d TypeDef,
    properties: Vec<&'d PropertyDef>,
    /// Those of them whose points are judged by their neighbours.
    judged: Vec<&'d PropertyDef>,
    latencies: Latencies,
}

impl<'d> Qualifying<'d> {
    pub(super) fn new(def: &'d TypeDef, properties: &[&'d PropertyDef]) -> Qualifying<'d> {
        let by_neighbours = |property: &&&PropertyDef| {
            let numeric = matches!(property.value_type, ValueType::F64 | ValueType::I64);
            numeric && property.checks.needs_order()
        };
        Qualifying {
            def,
            properties: properties.to_vec(),
            judged: properties.iter().filter(by_neighbours).copied().collect(),
            latencies: Latencies::of_type(def),
        }
    }

    /// Of some rows of a device.
    pub(super) fn of(
        &self,
        answering: &Answering<'_>,
        chosen: &Chosen,
        records: &Records,
        rows: Range<usize>,
    ) -> Result<Qualified> {
        let Some(times) = records.observed_at.get(rows.clone()).filter(|times| !times.is_empty()) else {
            return Ok(Vec::new());
        };
        // The newest may come first.
        let (one, other) = (times[0], times[times.len() - 1]);
        let range = (one.min(other), one.max(other));
        let found = self.findings(answering, chosen, range)?;
        let of_record = |row| self.of_record(chosen, records, row);
        let of_records: Vec<u32> = rows.clone().map(of_record).collect();
        let of_column = |property: &&'d PropertyDef| {
            let column = records.column(property.number)?;
            let judged = self.judged.iter().position(|other| other.number == property.number);
            let found = judged.and_then(|at| found.get(at)).map_or(&[][..], Vec::as_slice);
            let bits = self.of_values(property, column, records, (&rows, &of_records), found);
            Some((property.number, bits))
        };
        Ok(self.properties.iter().filter_map(of_column).collect())
    }

    fn of_values(
        &self,
        property: &PropertyDef,
        column: &Column,
        records: &Records,
        (rows, of_records): (&Range<usize>, &[u32]),
        found: &[(i64, u32)],
    ) -> Vec<u32> {
        let cells = column.cells().filter(|(row, ..)| rows.contains(row));
        let bits = cells.map(|(row, value, stated)| {
            let mut bits = of_records[row - rows.start];
            if stated == Quality::Manual as u8 {
                bits |= Qualifier::Manual as u32;
            }
            if counts_for_nothing(stated) {
                return bits;
            }
            if let Some(number) = value.number() {
                let checks = &property.checks;
                bits |= match (checks.is_in_range(number), checks.finds_nothing(number)) {
                    (false, _) => Qualifier::Range as u32,
                    (true, false) => Qualifier::Untypical as u32,
                    (true, true) => 0,
                };
            }
            match found.binary_search_by_key(&records.observed_at[row], |(t_ns, _)| *t_ns) {
                Ok(at) => bits | found[at].1,
                Err(_) => bits,
            }
        });
        bits.collect()
    }

    /// What holds for all values of a record.
    fn of_record(&self, chosen: &Chosen, records: &Records, row: usize) -> u32 {
        let (observed, received) = (records.observed_at[row], records.received_at[row]);
        let kind = records.report_kind[row];
        let mut bits = 0;
        if kind == ReportKind::Manual as u8 {
            bits |= Qualifier::Manual as u32;
        }
        if chosen.in_maintenance(observed) {
            bits |= Qualifier::Maintenance as u32;
        }
        // 0: nobody knows when it was received.
        if received == 0 {
            return bits;
        }
        if received < observed {
            bits |= Qualifier::Clock as u32;
        }
        let took = received.saturating_sub(observed);
        if self.latencies.of(kind).is_some_and(|promised| took > promised) {
            bits |= Qualifier::Late as u32;
        }
        bits
    }

    /// What is found by neighbours, by property and time, from the first time to the last.
    fn findings(
        &self,
        answering: &Answering<'_>,
        chosen: &Chosen,
        (first, last): (i64, i64),
    ) -> Result<Vec<Vec<(i64, u32)>>> {
        let mut found: Vec<Vec<(i64, u32)>> = self.judged.iter().map(|_| Vec::new()).collect();
        if self.judged.is_empty() {
            return Ok(found);
        }
        let walked = self.judged.iter().map(|property| Walked {
            property,
            choice: telling(property),
        });
        let range = (first, last.saturating_add(1));
        let walk = Walk::new(answering, self.def, walked.collect(), range, (0, 0));
        answering.aside(|| {
            walk.findings(chosen, |at, judged| {
                let by_neighbours = match judged.finding {
                    Some(Finding::Spike) => Qualifier::Spike as u32,
                    Some(Finding::Rate) => Qualifier::Rate as u32,
                    _ => 0,
                };
                let still = if judged.still { Qualifier::Flat as u32 } else { 0 };
                found[at].push((judged.t_ns, by_neighbours | still));
            })
        })?;
        Ok(found)
    }
}
