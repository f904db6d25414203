//! Aggregates: folded into partials on the shard, merged and finished by the coordinator.
//!
//! Invariant: a partial depends only on the points of its window, wherever they were folded: from header statistics,
//! from decoded values, or on different shards.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tidemark_proto::peer::Partials;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AggregateSeries, AnswerSummary, QueryAggregateRequest};
use tidemark_series::{Block, Finished, Function, Partial, PropertyNumber, Windows, bucket};

use super::plan::{aggregate_properties, check_aggregate, functions, passes_over_types, promised, windows};
use super::shard_side::{Answering, Chosen, corrupt};
use crate::catalog::Catalog;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::{Error, Reason, Result};
use crate::wire::answer::aggregate_column;

/// What a partial costs in memory, roughly, bytes.
const PARTIAL_BYTES: usize = 160;

/// Partials of one series, by window.
type ByWindow = BTreeMap<i64, Partial>;

/// Answers an aggregate: partials per device, or per group where devices are grouped.
pub(super) fn answer(answering: &Answering<'_>, request: &QueryAggregateRequest) -> Result<AnswerSummary> {
    check_aggregate(request, answering.limits)?;
    let selector = request.selector.clone().unwrap_or_default();
    let pass_over = passes_over_types(&selector);
    let functions = functions(request)?;
    let mut summary = AnswerSummary::default();
    let mut groups = Groups::default();
    let _ = answering.each_run(&selector, |devices| {
        let Some(def) = devices.first().map(|first| &first.def) else { return Ok(ControlFlow::Continue(())) };
        let properties = match aggregate_properties(def, request, &functions) {
            Ok(properties) => properties,
            Err(_) if pass_over => return Ok(ControlFlow::Continue(())),
            Err(e) => return Err(e),
        };
        for chosen in devices {
            summary.devices += 1;
            let folded = fold_device(answering, chosen, request, &properties)?;
            for (property, partials) in properties.iter().zip(folded) {
                if request.grouping.is_some() {
                    groups.add(chosen, property, partials, request, answering.limits.partials_bytes_max)?;
                } else if !partials.is_empty() {
                    let part = to_wire(def, property, &partials);
                    let part = Partials { device: chosen.id.clone(), devices: 1, ..part };
                    if answering.send(Part::Partials(part)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for part in groups.into_parts() {
        if answering.send(Part::Partials(part)).is_break() {
            break;
        }
    }
    Ok(summary)
}

/// One map of partials per property.
fn fold_device(
    answering: &Answering<'_>,
    chosen: &Chosen,
    request: &QueryAggregateRequest,
    properties: &[&PropertyDef],
) -> Result<Vec<ByWindow>> {
    let windows: Vec<Windows> = properties.iter().map(|p| windows(request, p.kind)).collect();
    let mut folded: Vec<ByWindow> = properties.iter().map(|_| ByWindow::new()).collect();
    let ranges = windows.iter().map(Windows::scan_range);
    let (from, to) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0, 0));
    let _ = answering.scan(chosen, from, to, |value| {
        for block in bucket::blocks(value) {
            let block = block.map_err(corrupt)?;
            if block.last_ns() < from || block.first_ns() >= to {
                continue;
            }
            let mut times = None;
            for ((property, windows), partials) in properties.iter().zip(&windows).zip(&mut folded) {
                fold_block(&block, property, windows, &mut times, partials)?;
            }
        }
        let held: usize = folded.iter().map(BTreeMap::len).sum();
        check_budget(held * PARTIAL_BYTES, answering.limits.partials_bytes_max)?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(folded)
}

fn fold_block(
    block: &Block<'_>,
    property: &PropertyDef,
    windows: &Windows,
    times: &mut Option<Vec<i64>>,
    partials: &mut ByWindow,
) -> Result<()> {
    let (first, last) = (windows.index_of(block.first_ns()), windows.index_of(block.last_ns()));
    if let (Some(first), Some(last)) = (first, last)
        && first == last
        && let Some(stats) = block.stats(property.number)
    {
        partials.entry(first).or_insert_with(|| Partial::empty(property.value_type)).fold_stats(&stats);
        return Ok(());
    }
    let Some(column) = block.column(property.number).map_err(corrupt)? else { return Ok(()) };
    let times = match times {
        Some(times) => times,
        None => times.insert(block.times().map_err(corrupt)?),
    };
    for (row, value, _) in column.cells() {
        let t = times[row];
        if let Some(index) = windows.index_of(t) {
            partials.entry(index).or_insert_with(|| Partial::empty(property.value_type)).fold(t, value);
        }
    }
    Ok(())
}

fn check_budget(bytes: usize, most: usize) -> Result<()> {
    match bytes > most {
        true => Err(Error::new(Reason::QueryTooLarge, format!("the query holds over {most} bytes of windows"))
            .hint("ask for fewer devices, a longer step or a shorter range")),
        false => Ok(()),
    }
}

fn to_wire(def: &TypeDef, property: &PropertyDef, partials: &ByWindow) -> Partials {
    Partials {
        type_number: def.number(),
        property: property.number.0,
        window: partials.keys().copied().collect(),
        partial: partials.values().map(|partial| partial.encode().into()).collect(),
        ..Partials::default()
    }
}

/// Which devices share a series: type, property, and the values of the tags that devices are grouped by.
type GroupKey = (u32, u32, BTreeMap<String, String>);

/// Partials of groups of devices.
#[derive(Default)]
struct Groups {
    by_key: BTreeMap<GroupKey, (u64, ByWindow)>,
    bytes: usize,
}

impl Groups {
    fn add(
        &mut self,
        chosen: &Chosen,
        property: &PropertyDef,
        partials: ByWindow,
        request: &QueryAggregateRequest,
        bytes_max: usize,
    ) -> Result<()> {
        let keys = request.grouping.iter().flat_map(|grouping| &grouping.tags);
        let tags = chosen.stored.device.as_ref().map(|device| &device.tags);
        let tag = |key: &String| (key.clone(), tags.and_then(|tags| tags.get(key)).cloned().unwrap_or_default());
        let key = (chosen.def.number(), property.number.0, keys.map(tag).collect());
        let (devices, merged) = self.by_key.entry(key).or_default();
        *devices += 1;
        self.bytes += merge_windows(merged, partials) * PARTIAL_BYTES;
        check_budget(self.bytes, bytes_max)
    }

    fn into_parts(self) -> impl Iterator<Item = Partials> {
        self.by_key.into_iter().map(|((type_number, property, tags), (devices, windows))| Partials {
            type_number,
            property,
            tags,
            devices,
            device: String::new(),
            window: windows.keys().copied().collect(),
            partial: windows.values().map(|partial| partial.encode().into()).collect(),
        })
    }
}

/// Merges by window; returns how many windows are new.
fn merge_windows(into: &mut ByWindow, from: ByWindow) -> usize {
    let before = into.len();
    for (window, partial) in from {
        match into.entry(window) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(partial);
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => slot.get_mut().merge(&partial),
        }
    }
    into.len() - before
}

/// The coordinator's side: merges what shards send and finishes it.
pub(super) struct Merge {
    functions: Vec<Function>,
    request: QueryAggregateRequest,
    groups: BTreeMap<GroupKey, (u64, ByWindow)>,
    bytes: usize,
}

impl Merge {
    /// For a checked request.
    pub(super) fn new(request: QueryAggregateRequest) -> Result<Merge> {
        Ok(Merge { functions: functions(&request)?, request, groups: BTreeMap::new(), bytes: 0 })
    }

    /// Takes one shard's series; returns it finished at once where it is of one device.
    pub(super) fn take(&mut self, part: Partials, catalog: &Catalog, most: usize) -> Result<Option<AggregateSeries>> {
        let decoded = part.partial.iter().map(|bytes| Partial::decode(bytes).map_err(corrupt));
        let windows: ByWindow = part.window.iter().copied().zip(decoded).map(|(w, p)| Ok((w, p?))).collect::<Result<_>>()?;
        if self.request.grouping.is_none() {
            let series = self.finish(part.type_number, part.property, part.devices, windows, catalog)?;
            return Ok(Some(AggregateSeries { device: part.device, ..series }));
        }
        let (devices, merged) = self.groups.entry((part.type_number, part.property, part.tags)).or_default();
        *devices += part.devices;
        self.bytes += merge_windows(merged, windows) * PARTIAL_BYTES;
        check_budget(self.bytes, most)?;
        Ok(None)
    }

    /// The groups, finished.
    pub(super) fn finish_groups(mut self, catalog: &Catalog) -> Result<Vec<AggregateSeries>> {
        let groups = std::mem::take(&mut self.groups);
        let finish = |((type_number, property, tags), (devices, windows)): (GroupKey, (u64, ByWindow))| {
            let series = self.finish(type_number, property, devices, windows, catalog)?;
            Ok(AggregateSeries { tags, ..series })
        };
        groups.into_iter().filter(|(_, (_, windows))| !windows.is_empty()).map(finish).collect()
    }

    fn finish(
        &self,
        type_number: u32,
        property: u32,
        devices: u64,
        partials: ByWindow,
        catalog: &Catalog,
    ) -> Result<AggregateSeries> {
        let unknown = || Error::new(Reason::TooStale, format!("type number {type_number} is not known here yet"));
        let def = catalog.type_by_number(type_number).ok_or_else(unknown)?;
        let property = def.property_by_number(PropertyNumber(property)).ok_or_else(unknown)?;
        let windows = windows(&self.request, property.kind);
        let mut series = AggregateSeries {
            device_type: def.id().to_string(),
            property: property.id.clone(),
            ..AggregateSeries::default()
        };
        let mut columns: Vec<Vec<Finished>> = vec![Vec::with_capacity(partials.len()); self.functions.len()];
        for (index, partial) in partials {
            let (start, end) = windows.bounds(index);
            series.start_ns.push(start);
            series.end_ns.push(end);
            series.points_seen.push(partial.count());
            series.points_promised.push(promised(def, start, end, devices));
            for (function, column) in self.functions.iter().zip(&mut columns) {
                let finished = partial.finish(*function).map_err(|_| {
                    let message = format!("the sum of {} from {start} ns does not fit 64 bits", property.id);
                    Error::new(Reason::SumOverflow, message).hint("ask for shorter windows")
                })?;
                // Only windows whose every value is NaN have points but no smallest or greatest one.
                column.push(finished.unwrap_or(Finished::F64(f64::NAN)));
            }
        }
        let column = |(number, column)| aggregate_column(number, column, property);
        series.columns = self.request.functions.iter().copied().zip(columns).map(column).collect();
        Ok(series)
    }
}
