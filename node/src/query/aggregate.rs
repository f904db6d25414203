//! The shard's side of an aggregate: blocks of devices folded into partials, sent per device or per group.
//!
//! Never here: merging what shards sent (see `merge`). Invariant: a partial depends only on the points of its window,
//! wherever they were folded: from header statistics, from decoded values, or on different shards.

use std::ops::ControlFlow;

use tidemark_proto::peer::Partials;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, QueryAggregateRequest};
use tidemark_series::{ByWindow, Function, Needs, Windows, bucket};

use super::groups::Groups;
use super::partials::{PARTIAL_BYTES, check_budget, to_wire};
use super::plan::{aggregate_properties, check_aggregate, functions, passes_over_types, windows};
use super::shard_side::{Answering, Chosen, Wanted, corrupt};
use super::top::Leaders;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;

/// Devices are read together as long as the windows of all of them take no more than this part of the budget.
const TOGETHER_SHARE: usize = 8;

/// Answers an aggregate: partials per device, or per group where devices are grouped.
pub(super) fn answer(answering: &Answering<'_>, request: &QueryAggregateRequest) -> Result<AnswerSummary> {
    check_aggregate(request, answering.limits)?;
    let selector = request.selector.clone().unwrap_or_default();
    let grouping = request.grouping.as_ref();
    let functions = functions(request)?;
    let needs = Needs::of(&functions);
    let leaders = request.top.as_ref().filter(|_| grouping.is_none());
    let mut aggregating = Aggregating {
        answering,
        request,
        pass_over: passes_over_types(&selector),
        needs,
        devices: 0,
        leaders: leaders.map(|top| Leaders::new(top, &functions)),
        groups: grouping.map(|grouping| Groups::new(&grouping.tags, answering.limits.partials_bytes_max)),
        functions,
        folded: Vec::new(),
    };
    let wanted = if grouping.is_some() {
        Wanted::Tags
    } else {
        Wanted::Nothing
    };
    let _ = answering.each_run(&selector, wanted, |devices| aggregating.run(devices))?;
    let leaders = aggregating.leaders.into_iter().flat_map(Leaders::into_series);
    let groups = aggregating.groups.into_iter().flat_map(Groups::into_parts);
    for part in leaders.chain(groups) {
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
    needs: Needs,
    devices: u64,
    /// Only of devices: which groups lead shows when all shards have answered.
    leaders: Option<Leaders<Partials>>,
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
        if self.needs == Needs::Extremes && self.groups.is_some() {
            self.devices += devices.len() as u64;
            self.fold_together(&def, devices, &asked)?;
            return Ok(ControlFlow::Continue(()));
        }
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

    /// Folds each device by itself.
    fn fold(&mut self, def: &TypeDef, devices: &[Chosen], asked: &[(&PropertyDef, Windows)]) -> Result<()> {
        self.folded.iter_mut().for_each(ByWindow::clear);
        self.folded.resize_with(devices.len() * asked.len(), ByWindow::default);
        let folding = Folding::new(asked, self.needs);
        let (mut held, bytes_max) = (0, self.answering.limits.partials_bytes_max);
        let folded = &mut self.folded;
        let _ = self
            .answering
            .scan(def, devices, folding.from, folding.to, |at, value| {
                let series = &mut folded[at * asked.len()..][..asked.len()];
                held -= windows_of(series);
                folding.fold(value, series)?;
                held += windows_of(series);
                check_budget(held * PARTIAL_BYTES, bytes_max)?;
                Ok(ControlFlow::Continue(()))
            })?;
        Ok(())
    }

    /// Folds each device straight into its group.
    fn fold_together(&mut self, def: &TypeDef, devices: &[Chosen], asked: &[(&PropertyDef, Windows)]) -> Result<()> {
        let Some(groups) = &mut self.groups else {
            return Ok(());
        };
        let numbers = numbers(asked);
        let place = |chosen: &Chosen| groups.place(def.number(), &numbers, |key| chosen.tag(key));
        let places: Vec<usize> = devices.iter().map(place).collect();
        let folding = Folding::new(asked, self.needs);
        let _ = self
            .answering
            .scan(def, devices, folding.from, folding.to, |at, value| {
                groups.with(places[at], |series| folding.fold(value, series))?;
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
        let numbers = numbers(asked);
        for (chosen, series) in devices.iter().zip(self.folded.chunks_mut(asked.len().max(1))) {
            if let Some(groups) = &mut self.groups {
                let place = groups.place(def.number(), &numbers, |key| chosen.tag(key));
                groups.merge(place, series)?;
                continue;
            }
            let series = numbers.iter().zip(series);
            for (property, series) in series.filter(|(_, series)| !series.is_empty()) {
                // What has no standing is passed on, for the coordinator to refuse.
                if let Some(leaders) = &mut self.leaders
                    && let Ok(standing) = leaders.standing(series)
                {
                    let name = || vec![chosen.id().to_owned()];
                    leaders.offer(standing, name, || of_device(def, *property, chosen, series));
                    check_budget(leaders.len() * PARTIAL_BYTES, self.answering.limits.partials_bytes_max)?;
                    continue;
                }
                let part = of_device(def, *property, chosen, series);
                if self.answering.send(Part::Partials(part)).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn of_device(def: &TypeDef, property: u32, chosen: &Chosen, series: &mut ByWindow) -> Partials {
    let (window, partial) = to_wire(series);
    Partials {
        type_number: def.number(),
        property,
        device: chosen.id().to_owned(),
        devices: 1,
        window,
        partial,
        ..Partials::default()
    }
}

/// How bucket values are folded.
struct Folding<'a> {
    asked: &'a [(&'a PropertyDef, Windows)],
    needs: Needs,
    /// What any of the windows may hold.
    from: i64,
    to: i64,
}

impl Folding<'_> {
    fn new<'a>(asked: &'a [(&'a PropertyDef, Windows)], needs: Needs) -> Folding<'a> {
        let ranges = asked.iter().map(|(_, windows)| windows.scan_range());
        let (from, to) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0, 0));
        Folding { asked, needs, from, to }
    }

    /// Adds a bucket value to series, one per property.
    fn fold(&self, value: &[u8], series: &mut [ByWindow]) -> Result<()> {
        for block in bucket::blocks(value) {
            let block = block.map_err(corrupt)?;
            if block.last_ns() < self.from || block.first_ns() >= self.to {
                continue;
            }
            let mut folding = block.folding();
            for ((property, windows), partials) in self.asked.iter().zip(series.iter_mut()) {
                let folded = folding.fold(property.number, windows, self.needs, partials);
                folded.map_err(corrupt)?;
            }
        }
        Ok(())
    }
}

fn numbers(asked: &[(&PropertyDef, Windows)]) -> Vec<u32> {
    asked.iter().map(|(property, _)| property.number.0).collect()
}

fn windows_of(series: &[ByWindow]) -> usize {
    series.iter().map(ByWindow::len).sum()
}
