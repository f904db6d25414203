//! The shard's side of an aggregate: blocks of devices folded into partials, sent per device or per group.
//!
//! Never here: merging what shards sent (see `merge`). Invariant: a partial depends only on the points of its window,
//! wherever they were folded: from header statistics, from decoded values, or on different shards.

use std::ops::ControlFlow;

use tidemark_proto::peer::Partials;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, QueryAggregateRequest};
use tidemark_series::{ByWindow, Function, Windows, bucket};

use super::groups::Groups;
use super::partials::{PARTIAL_BYTES, check_budget, to_wire};
use super::plan::{aggregate_properties, check_aggregate, functions, passes_over_types, windows};
use super::shard_side::{Answering, Chosen, Wanted, corrupt};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;

/// Devices are read together as long as the windows of all of them take no more than this part of the budget.
const TOGETHER_SHARE: usize = 8;

/// Answers an aggregate: partials per device, or per group where devices are grouped.
pub(super) fn answer(answering: &Answering<'_>, request: &QueryAggregateRequest) -> Result<AnswerSummary> {
    check_aggregate(request, answering.limits)?;
    let selector = request.selector.clone().unwrap_or_default();
    let grouping = request.grouping.as_ref();
    let mut aggregating = Aggregating {
        answering,
        request,
        functions: functions(request)?,
        pass_over: passes_over_types(&selector),
        devices: 0,
        groups: grouping.map(|grouping| Groups::new(&grouping.tags, answering.limits.partials_bytes_max)),
        folded: Vec::new(),
    };
    let wanted = if grouping.is_some() {
        Wanted::Tags
    } else {
        Wanted::Nothing
    };
    let _ = answering.each_run(&selector, wanted, |devices| aggregating.run(devices))?;
    let parts = aggregating.groups.into_iter().flat_map(Groups::into_parts);
    for part in parts {
        if answering.send(Part::Partials(part)).is_break() {
            break;
        }
    }
    Ok(AnswerSummary {
        devices: aggregating.devices,
        ..AnswerSummary::default()
    })
}

struct Aggregating<'a> {
    answering: &'a Answering<'a>,
    request: &'a QueryAggregateRequest,
    functions: Vec<Function>,
    pass_over: bool,
    devices: u64,
    groups: Option<Groups>,
    /// Series of the devices that are read together, all properties of a device side by side; kept for their room.
    folded: Vec<ByWindow>,
}

impl Aggregating<'_> {
    /// Reads devices of one type.
    fn run(&mut self, devices: &[Chosen]) -> Result<ControlFlow<()>> {
        let Some(def) = devices.first().map(|first| first.def.clone()) else {
            return Ok(ControlFlow::Continue(()));
        };
        let properties = match aggregate_properties(&def, self.request, &self.functions) {
            Ok(properties) => properties,
            Err(_) if self.pass_over => return Ok(ControlFlow::Continue(())),
            Err(e) => return Err(e),
        };
        let asked: Vec<_> = properties.iter().map(|p| (*p, windows(self.request, p.kind))).collect();
        for together in devices.chunks(self.together(&asked)) {
            self.devices += together.len() as u64;
            self.fold(&def, together, &asked)?;
            if self.pass_on(&def, together, &asked)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// How many devices may be read together.
    fn together(&self, asked: &[(&PropertyDef, Windows)]) -> usize {
        let windows: u64 = asked.iter().map(|(_, windows)| windows.count()).sum();
        let bytes = usize::try_from(windows)
            .unwrap_or(usize::MAX)
            .saturating_mul(PARTIAL_BYTES);
        (self.answering.limits.partials_bytes_max / TOGETHER_SHARE / bytes.max(1)).max(1)
    }

    fn fold(&mut self, def: &TypeDef, devices: &[Chosen], asked: &[(&PropertyDef, Windows)]) -> Result<()> {
        self.folded.iter_mut().for_each(ByWindow::clear);
        self.folded.resize_with(devices.len() * asked.len(), ByWindow::default);
        let ranges = asked.iter().map(|(_, windows)| windows.scan_range());
        let (from, to) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0, 0));
        let (mut held, bytes_max) = (0, self.answering.limits.partials_bytes_max);
        let folded = &mut self.folded;
        let _ = self.answering.scan(def, devices, from, to, |at, value| {
            let series = &mut folded[at * asked.len()..][..asked.len()];
            held -= windows_of(series);
            for block in bucket::blocks(value) {
                let block = block.map_err(corrupt)?;
                if block.last_ns() < from || block.first_ns() >= to {
                    continue;
                }
                let mut folding = block.folding();
                for ((property, windows), partials) in asked.iter().zip(series.iter_mut()) {
                    folding.fold(property.number, windows, partials).map_err(corrupt)?;
                }
            }
            held += windows_of(series);
            check_budget(held * PARTIAL_BYTES, bytes_max)?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }

    /// Hands on what was folded, device by device.
    fn pass_on(
        &mut self,
        def: &TypeDef,
        devices: &[Chosen],
        asked: &[(&PropertyDef, Windows)],
    ) -> Result<ControlFlow<()>> {
        for (chosen, series) in devices.iter().zip(self.folded.chunks_mut(asked.len().max(1))) {
            let numbers = asked.iter().map(|(property, _)| property.number.0);
            let series = numbers.zip(series);
            if let Some(groups) = &mut self.groups {
                groups.add(def.number(), |key| chosen.tag(key), series)?;
                continue;
            }
            for (property, series) in series.filter(|(_, series)| !series.is_empty()) {
                let (window, partial) = to_wire(series);
                let part = Partials {
                    type_number: def.number(),
                    property,
                    device: chosen.id().to_owned(),
                    devices: 1,
                    window,
                    partial,
                    ..Partials::default()
                };
                if self.answering.send(Part::Partials(part)).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn windows_of(series: &[ByWindow]) -> usize {
    series.iter().map(ByWindow::len).sum()
}
