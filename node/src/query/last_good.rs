//! The newest value of a property that counts, at or before a time: found by looking back from there.
//!
//! Never here: newest values that are kept (see `latest`). Invariant: a value that no neighbour is known of is judged by itself; one that
//! is known to be a spike by now, also by what came behind the time, is passed over as ranges and aggregates pass it over.

use std::ops::ControlFlow;

use tidemark_proto::v1::ReportKind;
use tidemark_series::{NewestValue, Points, PropertyNumber, ValueRef, bucket};

use super::shard_side::{Answering, Chosen, corrupt};
use super::walk::{Walk, Walked, choice, spans_back};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;

/// Which points are sought.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    /// Whatever they are.
    Any,
    /// Those that count.
    Good,
    /// Those of them that were measured: who only says that it is there (report kind keepalive) makes no value fresh.
    Measured,
    /// Those of these that are no tests, which old blocks hold among others: by them devices are held to their promises.
    Promised,
}

impl Sought {
    /// Whether a value with this quality, of a record of this kind, is looked for.
    pub(super) fn takes(self, property: &PropertyDef, value: ValueRef<'_>, (quality, kind): (u8, u8)) -> bool {
        match self {
            Sought::Any => true,
            Sought::Good => counts(property, value, quality),
            Sought::Measured => kind != ReportKind::Keepalive as u8 && counts(property, value, quality),
            Sought::Promised => {
                kind != ReportKind::Test as u8 && Sought::Measured.takes(property, value, (quality, kind))
            }
        }
    }
}

/// Whether a value counts by its quality: nobody says that it failed, and a sensor can tell it.
pub(super) fn counts(property: &PropertyDef, value: ValueRef<'_>, quality: u8) -> bool {
    let choice = choice(property, false);
    choice.accepted.accepts(quality) && value.number().is_none_or(|number| choice.takes(number))
}

/// The newest values of some properties of a device that are looked for and were observed before `until_ns`.
pub(super) fn last_good(
    answering: &Answering<'_>,
    def: &TypeDef,
    chosen: &Chosen,
    properties: &[&PropertyDef],
    until_ns: i64,
    sought: Sought,
) -> Result<Vec<NewestValue>> {
    let mut found = last_alone(answering, def, chosen, properties, until_ns, sought)?;
    if sought == Sought::Any {
        return Ok(found);
    }
    for property in properties.iter().filter(|property| property.checks.spike.is_some()) {
        while let Some(at) = found.iter().position(|value| value.property == property.number) {
            let t_ns = found[at].observed_at;
            if !is_spike(answering, def, chosen, property, t_ns)? {
                break;
            }
            found.swap_remove(at);
            found.extend(answering.aside(|| last_alone(answering, def, chosen, &[property], t_ns, sought))?);
        }
    }
    Ok(found)
}

/// Whether the points around one that counts by itself make it a spike.
fn is_spike(
    answering: &Answering<'_>,
    def: &TypeDef,
    chosen: &Chosen,
    property: &PropertyDef,
    t_ns: i64,
) -> Result<bool> {
    let walked = Walked {
        property,
        choice: choice(property, false),
    };
    let walk = Walk::new(answering, def, vec![walked], (t_ns, t_ns.saturating_add(1)), (0, 0));
    let mut left_out = false;
    let each = |_: usize, points: &Points| {
        left_out |= points.dropped.contains(&t_ns);
        Ok(())
    };
    answering.aside(|| walk.over(chosen, each))?;
    Ok(left_out)
}

/// The same, each value judged by itself.
fn last_alone(
    answering: &Answering<'_>,
    def: &TypeDef,
    chosen: &Chosen,
    properties: &[&PropertyDef],
    until_ns: i64,
    sought: Sought,
) -> Result<Vec<NewestValue>> {
    if answering.known.is_some() {
        let numbers = properties.iter().map(|property| property.number).collect();
        return answering.last_known(def, chosen, numbers, until_ns, |number, value, stated| {
            let property = properties.iter().find(|property| property.number == number);
            property.is_some_and(|property| sought.takes(property, value, stated))
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
                        inside && sought.takes(properties[*at], *value, (*quality, records.report_kind[*row]))
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
