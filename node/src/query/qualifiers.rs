//! What is said of values beside their quality, where a raw range asks for it: what checks find, who entered them, how they came.
//!
//! Never here: which records are wanted (see `filter`). Invariant: what is found of a value by its neighbours is what the quality of its
//! device counts, whatever block the neighbours lie in.

use std::ops::Range;

use tidemark_proto::v1::{Qualifier, Quality, ReportKind};
use tidemark_series::checks::Finding;
use tidemark_series::{Column, Records};

use super::judging::{Verdict, Verdicts};
use super::latencies::Latencies;
use super::quality_device::counts_for_nothing;
use super::shard_side::Chosen;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::wire::answer::Qualified;

/// Looks at the values of devices of one type.
pub(super) struct Qualifying<'d> {
    properties: Vec<&'d PropertyDef>,
    latencies: Latencies,
}

impl<'d> Qualifying<'d> {
    pub(super) fn new(def: &'d TypeDef, properties: &[&'d PropertyDef]) -> Qualifying<'d> {
        Qualifying {
            properties: properties.to_vec(),
            latencies: Latencies::of_type(def),
        }
    }

    /// What is said of any value, or would be.
    pub(super) fn properties(&self) -> &[&'d PropertyDef] {
        &self.properties
    }

    /// Of some rows of a device, of which neighbours say so much.
    pub(super) fn of(&self, verdicts: &Verdicts, chosen: &Chosen, records: &Records, rows: Range<usize>) -> Qualified {
        let of_record = |row| self.of_record(chosen, records, row);
        let of_records: Vec<u32> = rows.clone().map(of_record).collect();
        let of_column = |property: &&'d PropertyDef| {
            let column = records.column(property.number)?;
            let bits = of_values(property, column, records, (&rows, &of_records), verdicts);
            Some((property.number, bits))
        };
        self.properties.iter().filter_map(of_column).collect()
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
}

fn of_values(
    property: &PropertyDef,
    column: &Column,
    records: &Records,
    (rows, of_records): (&Range<usize>, &[u32]),
    verdicts: &Verdicts,
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
        let found = verdicts.of(property.number, records.observed_at[row]);
        bits | found.map_or(0, by_neighbours)
    });
    bits.collect()
}

/// What neighbours say of a value; what it is by itself is told anyway.
fn by_neighbours(verdict: Verdict) -> u32 {
    let found = match verdict.finding {
        Some(Finding::Spike) => Qualifier::Spike as u32,
        Some(Finding::Rate) => Qualifier::Rate as u32,
        _ => 0,
    };
    let still = if verdict.still { Qualifier::Flat as u32 } else { 0 };
    found | still
}
