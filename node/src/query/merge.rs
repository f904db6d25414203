//! The coordinator's side of an aggregate: merges what shards send and finishes it.
//!
//! Never here: blocks. Invariant: a series of one device is finished as it comes, groups after the last shard.

use std::collections::BTreeMap;

use tidemark_proto::peer::Partials;
use tidemark_proto::v1::{AggregateSeries, QueryAggregateRequest};
use tidemark_series::{ByWindow, Finished, Function, PropertyNumber};

use super::groups::GroupKey;
use super::partials::{PARTIAL_BYTES, check_budget, from_wire};
use super::plan::{functions, promised, windows};
use crate::catalog::Catalog;
use crate::error::{Error, Reason, Result};
use crate::wire::answer::FinishedColumn;

/// Series on their way together.
pub(super) struct Merge {
    functions: Vec<Function>,
    request: QueryAggregateRequest,
    groups: BTreeMap<GroupKey, (u64, ByWindow)>,
    bytes: usize,
}

impl Merge {
    /// For a checked request.
    pub(super) fn new(request: QueryAggregateRequest) -> Result<Merge> {
        Ok(Merge {
            functions: functions(&request)?,
            request,
            groups: BTreeMap::new(),
            bytes: 0,
        })
    }

    /// Takes one shard's series; returns it finished at once where it is of one device.
    pub(super) fn take(&mut self, part: Partials, catalog: &Catalog, most: usize) -> Result<Option<AggregateSeries>> {
        let mut windows = from_wire(&part)?;
        if self.request.grouping.is_none() {
            let series = self.finish(part.type_number, part.property, part.devices, windows, catalog)?;
            return Ok(Some(AggregateSeries {
                device: part.device,
                ..series
            }));
        }
        let (devices, merged) = self
            .groups
            .entry((part.type_number, part.property, part.tags))
            .or_default();
        *devices += part.devices;
        self.bytes += merged.merge(&mut windows) * PARTIAL_BYTES;
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
        groups
            .into_iter()
            .filter(|(_, (_, windows))| !windows.is_empty())
            .map(finish)
            .collect()
    }

    fn finish(
        &self,
        type_number: u32,
        property: u32,
        devices: u64,
        mut partials: ByWindow,
        catalog: &Catalog,
    ) -> Result<AggregateSeries> {
        let unknown = || {
            Error::new(
                Reason::TooStale,
                format!("type number {type_number} is not known here yet"),
            )
        };
        let def = catalog.type_by_number(type_number).ok_or_else(unknown)?;
        let property = def.property_by_number(PropertyNumber(property)).ok_or_else(unknown)?;
        let windows = windows(&self.request, property.kind);
        let partials = partials.sorted();
        let mut series = AggregateSeries {
            device_type: def.id().to_string(),
            property: property.id.clone(),
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
        let numbers = self.request.functions.iter();
        series.columns = numbers
            .zip(columns)
            .map(|(number, column)| column.finish(*number, property))
            .collect();
        Ok(series)
    }
}
