//! The newest value of a property that counts, at or before a time: found by looking back from there.
//!
//! Never here: newest values that are kept (see `latest`). Invariant: a value that no neighbour is known of is judged by itself.

use std::ops::ControlFlow;

use tidemark_series::{NewestValue, PropertyNumber, ValueRef, bucket};

use super::shard_side::{Answering, Chosen, corrupt};
use super::walk::{choice, spans_back};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;

/// Whether a newest value counts: nobody says that it failed, and a sensor can tell it.
pub(super) fn is_good(property: &PropertyDef, value: &NewestValue) -> bool {
    counts(property, value.value(), value.quality)
}

/// The same of a value and its quality.
pub(super) fn counts(property: &PropertyDef, value: ValueRef<'_>, quality: u8) -> bool {
    let choice = choice(property, false);
    choice.accepted.accepts(quality) && value.number().is_none_or(|number| choice.takes(number))
}

/// The newest values of some properties of a device that count and were observed before `until_ns`.
pub(super) fn last_good(
    answering: &Answering<'_>,
    def: &TypeDef,
    chosen: &Chosen,
    properties: &[&PropertyDef],
    until_ns: i64,
    any_quality: bool,
) -> Result<Vec<NewestValue>> {
    if answering.known.is_some() {
        let numbers = properties.iter().map(|property| property.number).collect();
        return answering.last_known(def, chosen, numbers, until_ns, |number, value, quality| {
            let property = properties.iter().find(|property| property.number == number);
            any_quality || property.is_some_and(|property| counts(property, value, quality))
        });
    }
    let mut found: Vec<Option<NewestValue>> = properties.iter().map(|_| None).collect();
    let Some(begins) = answering.shard.data_begins(answering.number(def)) else {
        return Ok(Vec::new());
    };
    let one = std::slice::from_ref(chosen);
    for (begin, end) in spans_back(def, begins, until_ns) {
        let missing: Vec<usize> = (0..found.len()).filter(|at| found[*at].is_none()).collect();
        if missing.is_empty() {
            break;
        }
        let numbers: Vec<PropertyNumber> = missing.iter().map(|at| properties[*at].number).collect();
        let _ = answering.scan(def, one, begin, end, |_, value| {
            for block in bucket::blocks(value) {
                let records = block.map_err(corrupt)?.decode(Some(&numbers)).map_err(corrupt)?;
                answering.tally.block(records.points() as u64)?;
                for at in &missing {
                    let Some(column) = records.column(properties[*at].number) else {
                        continue;
                    };
                    let good = column.cells().filter(|(row, value, quality)| {
                        let inside = (begin..end).contains(&records.observed_at[*row]);
                        inside && (any_quality || counts(properties[*at], *value, *quality))
                    });
                    if let Some((row, value, quality)) = good.last() {
                        let times = (records.observed_at[row], records.received_at[row]);
                        let kind = records.report_kind[row];
                        found[*at] = Some(NewestValue::of_point(column.property, times, kind, quality, value));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(found.into_iter().flatten().collect())
}
