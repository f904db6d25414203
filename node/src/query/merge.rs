//! The coordinator's side of an aggregate: merges what shards send and finishes it.
//!
//! Never here: blocks. Invariant: a series of one device is finished as it comes, groups and leaders after the last shard.

use std::collections::BTreeMap;

use tidemark_proto::peer::Partials;
use tidemark_proto::v1::{AggregateSeries, QueryAggregateRequest};
use tidemark_series::{ByWindow, Finished, Function, PropertyNumber};

use super::groups::GroupKey;
use super::partials::{PARTIAL_BYTES, check_budget, from_wire};
use super::plan::{functions, promised, windows};
use super::top::Leaders;
use crate::catalog::Catalog;
use crate::error::{Error, Reason, Result};
use crate::wire::answer::FinishedColumn;

/// Series on their way together.
pub(super) struct Merge {
    functions: Vec<Function>,
    request: QueryAggregateRequest,
    groups: BTreeMap<GroupKey, (u64, ByWindow)>,
    leaders: Option<Leaders<Unfinished>>,
    bytes: usize,
}

/// A series of a device or a group.
struct Unfinished {
    type_number: u32,
    property: u32,
    devices: u64,
    device: String,
    tags: BTreeMap<String, String>,
    windows: ByWindow,
}

impl Merge {
    /// For a checked request.
    pub(super) fn new(request: QueryAggregateRequest) -> Result<Merge> {
        let functions = functions(&request)?;
        Ok(Merge {
            leaders: request.top.as_ref().map(|top| Leaders::new(top, &functions)),
            functions,
            request,
            groups: BTreeMap::new(),
            bytes: 0,
        })
    }

    /// Takes one shard's series; returns it finished at once where it is of one device and need not lead others.
    pub(super) fn take(&mut self, part: Partials, catalog: &Catalog, most: usize) -> Result<Option<AggregateSeries>> {
        let mut windows = from_wire(&part)?;
        if self.request.grouping.is_some() {
            let key = (part.type_number, part.property, part.tags);
            let (devices, merged) = self.groups.entry(key).or_default();
            *devices += part.devices;
            self.bytes += merged.merge(&mut windows) * PARTIAL_BYTES;
            check_budget(self.bytes, most)?;
            return Ok(None);
        }
        let series = Unfinished {
            type_number: part.type_number,
            property: part.property,
            devices: part.devices,
            device: part.device,
            tags: BTreeMap::new(),
            windows,
        };
        let Some(leaders) = &mut self.leaders else {
            return self.finish(series, catalog).map(Some);
        };
        if let Some(refused) = offer(leaders, series) {
            return self.finish(*refused, catalog).map(Some);
        }
        check_budget(leaders.len() * PARTIAL_BYTES, most)?;
        Ok(None)
    }

    /// What was held back, finished: groups, or those that lead.
    pub(super) fn finish_rest(mut self, catalog: &Catalog) -> Result<Vec<AggregateSeries>> {
        let groups = std::mem::take(&mut self.groups);
        let group = |((type_number, property, tags), (devices, windows)): (GroupKey, (u64, ByWindow))| Unfinished {
            type_number,
            property,
            devices,
            device: String::new(),
            tags,
            windows,
        };
        let groups = groups
            .into_iter()
            .filter(|(_, (_, windows))| !windows.is_empty())
            .map(group);
        let Some(mut leaders) = self.leaders.take() else {
            return groups.map(|series| self.finish(series, catalog)).collect();
        };
        for series in groups {
            if let Some(refused) = offer(&mut leaders, series) {
                self.finish(*refused, catalog)?;
            }
        }
        leaders
            .into_series()
            .map(|series| self.finish(series, catalog))
            .collect()
    }

    fn finish(&self, mut unfinished: Unfinished, catalog: &Catalog) -> Result<AggregateSeries> {
        let (type_number, property) = (unfinished.type_number, unfinished.property);
        let unknown = || {
            Error::new(
                Reason::TooStale,
                format!("type number {type_number} is not known here yet"),
            )
        };
        let def = catalog.type_by_number(type_number).ok_or_else(unknown)?;
        let property = def.property_by_number(PropertyNumber(property)).ok_or_else(unknown)?;
        let windows = windows(&self.request, property.kind);
        let partials = unfinished.windows.sorted();
        let mut series = AggregateSeries {
            device_type: def.id().to_string(),
            property: property.id.clone(),
            device: unfinished.device,
            tags: unfinished.tags,
            ..AggregateSeries::default()
        };
        let room = partials.len();
        series.start_ns.reserve_exact(room);
        series.end_ns.reserve_exact(room);
        series.points_seen.reserve_exact(room);
        series.points_promised.reserve_exact(room);
        let mut columns: Vec<_> = self.functions.iter().map(|_| FinishedColumn::new(room)).collect();
        for (index, partial) in partials {
            let (start, end) = windows.bounds(*index);
            series.start_ns.push(start);
            series.end_ns.push(end);
            series.points_seen.push(partial.count());
            series
                .points_promised
                .push(promised(def, start, end, unfinished.devices));
            for (function, column) in self.functions.iter().zip(&mut columns) {
                let finished = partial.finish(*function).map_err(|_| {
                    let message = format!("the sum of {} from {start} ns does not fit 64 bits", property.id);
                    Error::new(Reason::SumOverflow, message).hint("ask for shorter windows")
                })?;
                // Only windows whose every value is NaN have points but no smallest or greatest one.
                column.push(finished.unwrap_or(Finished::F64(f64::NAN)));
            }
        }
        let numbers = self.request.functions.iter();
        series.columns = numbers
            .zip(columns)
            .map(|(number, column)| column.finish(*number, property))
            .collect();
        Ok(series)
    }
}

/// Offers a series; gives it back where it has no standing because its sum does not fit.
fn offer(leaders: &mut Leaders<Unfinished>, mut series: Unfinished) -> Option<Box<Unfinished>> {
    let Ok(standing) = leaders.standing(&mut series.windows) else {
        return Some(Box::new(series));
    };
    let mut name: Vec<String> = series.tags.values().cloned().collect();
    name.extend([series.device.clone(), series.type_number.to_string()]);
    leaders.offer(standing, || name, || series);
    None
}
