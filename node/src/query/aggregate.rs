//! The shard's side of an aggregate: blocks of devices folded into series, sent per device or per group.
//!
//! Never here: merging what shards sent (see `merge`), points as a sequence (see `follow`). Invariant: a partial depends only
//! on the points of its window, wherever they were folded: from header statistics, from decoded values, or on different
//! shards.

use std::ops::ControlFlow;

use tidemark_proto::peer::Partials;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AggregateSeries, AnswerSummary, QueryAggregateRequest};
use tidemark_series::rollup::{self, Rollup};
use tidemark_series::{Function, Needs, Slots, ValueType, Windows, bucket};

use super::asked::Asked as Terms;
use super::finish::Finishing;
use super::follow::Follower;
use super::functions::{Asked, functions, has_sequences};
use super::grid::slots;
use super::groups::Groups;
use super::leading::{Headed, Order, is_bounded};
use super::plan::{aggregate_properties, check_aggregate, counts_slots, passes_over_types, scan_range, windows};
use super::rollups::rolling;
use super::series::{SLOTS_BYTES, Series, window_bytes};
use super::shard_side::{Answering, Chosen, Wanted, corrupt};
use super::tally::{HeldFor, Tally};
use super::top::Leaders;
use super::walk::choice;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;
use crate::shard::{Rolling, Stored};

/// Devices are read together as long as the windows of all of them take no more than this part of the budget.
const TOGETHER_SHARE: usize = 8;

/// Answers an aggregate: partials per device, or per group where devices are grouped.
pub(super) fn answer(
    answering: &Answering<'_>,
    request: &QueryAggregateRequest,
    terms: &Terms,
) -> Result<AnswerSummary> {
    check_aggregate(request, answering.limits)?;
    let selector = request.selector.clone().unwrap_or_default();
    let grouping = request.grouping.as_ref();
    let functions = functions(request)?;
    let of_points: Vec<Function> = functions.iter().filter_map(|asked| asked.of_points()).collect();
    let needs = Needs::of(&of_points);
    let leaders = request.top.as_ref().filter(|_| grouping.is_none());
    let mut aggregating = Aggregating {
        answering,
        request,
        pass_over: passes_over_types(&selector),
        needs,
        devices: 0,
        leaders: leaders.map(Leaders::new),
        groups: grouping.map(|grouping| Groups::new(&grouping.tags, answering.limits.partials_bytes_max)),
        following: false,
        rolling: None,
        functions,
        folded: Vec::new(),
        dropped: 0,
    };
    let wanted = if grouping.is_some() {
        Wanted::Tags
    } else {
        Wanted::Nothing
    };
    let mut summary = AnswerSummary::default();
    let visited = answering.each_run(&selector, wanted, |devices| aggregating.run(devices));
    let _ = answering.ended(visited, terms, &mut summary)?;
    let leaders = aggregating.leaders.into_iter().flat_map(Leaders::into_series);
    let groups = aggregating.groups.into_iter().flat_map(Groups::into_parts);
    for part in leaders.chain(groups) {
        if answering.send(Part::Partials(part)).is_break() {
            break;
        }
    }
    Ok(AnswerSummary {
        devices: aggregating.devices,
        points_dropped: aggregating.dropped,
        ..summary
    })
}

struct Aggregating<'a> {
    answering: &'a Answering<'a>,
    request: &'a QueryAggregateRequest,
    functions: Vec<Asked>,
    /// Whether points have to be followed one after the other.
    following: bool,
    /// Which rollups will do for the type that is read, if any.
    rolling: Option<Rolling>,
    pass_over: bool,
    needs: Needs,
    devices: u64,
    /// Only of devices: which groups lead shows when all shards have answered.
    leaders: Option<Leaders<Partials>>,
    groups: Option<Groups>,
    /// Series of the devices that are read together, all properties of a device side by side; kept for their room.
    folded: Vec<Series>,
    /// Points left out for their quality.
    dropped: u64,
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
        let in_order = properties
            .iter()
            .any(|p| choice(p, self.request.drop_suspect).needs_order());
        self.following = in_order || has_sequences(&self.functions) || self.request.largest_gap;
        let range = scan_range(asked.iter().map(|(_, windows)| windows));
        let gone_ns = self.answering.shard.sealed_before(def.number());
        let any_gone = gone_ns.is_some_and(|before_ns| range.0 < before_ns);
        self.rolling = rolling(&def, any_gone, self.request, &self.functions, &asked);
        // Slots are counted in the order of time, and rollups are read before points.
        self.following |= counts_slots(self.request) && self.rolling.is_some();
        let rollup_s = self.rolling.and_then(|rolling| rolling.length_s).unwrap_or(0);
        self.answering.concerned.note(&def, range, rollup_s);
        // Devices of a group fill slots each by itself.
        let as_one = self.groups.is_some() && !counts_slots(self.request);
        if self.needs.in_any_order() && as_one && !self.following {
            self.devices += devices.len() as u64;
            self.fold_together(&def, devices, &asked)?;
            return Ok(ControlFlow::Continue(()));
        }
        for together in devices.chunks(self.together(&asked)) {
            self.devices += together.len() as u64;
            let flow = match self.headers_tell_leaders(&asked) {
                true => self.fold_leading(&def, together, &asked)?,
                false => {
                    self.fold(&def, together, &asked)?;
                    self.pass_on(&def, together, &asked)?
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether headers tell who may lead.
    fn headers_tell_leaders(&self, asked: &[(&PropertyDef, Windows)]) -> bool {
        let by_points = !self.following && self.rolling.is_none() && self.answering.known.is_none();
        match (&self.leaders, asked) {
            (Some(_), [(property, _)]) => by_points && is_bounded(self.functions.first(), property),
            _ => false,
        }
    }

    /// Looks at the headers of all devices, then folds those that may lead, the most promising ones first.
    fn fold_leading(
        &mut self,
        def: &TypeDef,
        devices: &[Chosen],
        asked: &[(&PropertyDef, Windows)],
    ) -> Result<ControlFlow<()>> {
        let mut headed = vec![Headed::NOTHING; devices.len()];
        if let (Some(leaders), [(property, _)]) = (&self.leaders, asked) {
            let (from, to) = scan_range(asked.iter().map(|(_, windows)| windows));
            let choice = choice(property, self.request.drop_suspect);
            let _ = self.answering.scan(def, devices, from, to, |at, value| {
                for block in bucket::blocks(value) {
                    let block = block.map_err(corrupt)?;
                    if block.last_ns() >= from && block.first_ns() < to {
                        headed[at].take(&block, (property.number, &choice), leaders);
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        let mut order = Order::new(&headed);
        while let Some(leaders) = &self.leaders {
            let places = order.next(leaders);
            if places.is_empty() {
                break;
            }
            let chosen: Vec<Chosen> = places.iter().map(|place| devices[*place].clone()).collect();
            self.fold(def, &chosen, asked)?;
            if self.pass_on(def, &chosen, asked)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.answering.tally.header_only(order.blocks_left());
        Ok(ControlFlow::Continue(()))
    }

    /// How many devices may be read together.
    fn together(&self, asked: &[(&PropertyDef, Windows)]) -> usize {
        let slots = if counts_slots(self.request) { SLOTS_BYTES } else { 0 };
        let bytes = |(property, windows): &(&PropertyDef, Windows)| {
            let texts = match property.value_type {
                ValueType::Text => 2 * property.text_bytes_max,
                _ => 0,
            };
            let windows = usize::try_from(windows.count()).unwrap_or(usize::MAX);
            windows.saturating_mul(window_bytes(self.following) + slots + texts)
        };
        let bytes = asked.iter().map(bytes).fold(0, usize::saturating_add);
        (self.answering.limits.partials_bytes_max / TOGETHER_SHARE / bytes.max(1)).max(1)
    }

    /// Folds each device by itself.
    fn fold(&mut self, def: &TypeDef, devices: &[Chosen], asked: &[(&PropertyDef, Windows)]) -> Result<()> {
        self.folded.iter_mut().for_each(Series::clear);
        self.folded.resize_with(devices.len() * asked.len(), Series::default);
        if self.following {
            return self.follow(def, devices, asked);
        }
        let tally = &self.answering.tally;
        let folding = Folding::new((self.request, def), asked, self.rolling, self.needs, tally);
        let mut held = 0;
        let (folded, dropped) = (&mut self.folded, &mut self.dropped);
        let (range, rolling) = ((folding.from, folding.to), folding.rolling.as_ref());
        self.answering.scan_rolled(def, devices, range, rolling, |at, stored| {
            let series = &mut folded[at * asked.len()..][..asked.len()];
            held -= bytes_of(series);
            *dropped += folding.fold(stored, series)?;
            held += bytes_of(series);
            tally.hold(HeldFor::Reading, held)
        })
    }

    /// Follows the points of each device.
    fn follow(&mut self, def: &TypeDef, devices: &[Chosen], asked: &[(&PropertyDef, Windows)]) -> Result<()> {
        let follower = Follower::new(self.answering, self.request, &self.functions, def, asked, self.rolling);
        let mut held = 0;
        for (chosen, series) in devices.iter().zip(self.folded.chunks_mut(asked.len().max(1))) {
            self.dropped += follower.follow(chosen, series)?;
            held += bytes_of(series);
            self.answering.tally.hold(HeldFor::Reading, held)?;
        }
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
        let tally = &self.answering.tally;
        let folding = Folding::new((self.request, def), asked, self.rolling, self.needs, tally);
        let dropped = &mut self.dropped;
        let (range, rolling) = ((folding.from, folding.to), folding.rolling.as_ref());
        self.answering.scan_rolled(def, devices, range, rolling, |at, stored| {
            *dropped += groups.with(places[at], |series| folding.fold(stored, series))?;
            tally.hold(HeldFor::Later, groups.bytes())
        })
    }

    /// Hands on what was folded, device by device.
    fn pass_on(
        &mut self,
        def: &TypeDef,
        devices: &[Chosen],
        asked: &[(&PropertyDef, Windows)],
    ) -> Result<ControlFlow<()>> {
        let numbers = numbers(asked);
        let bytes_max = self.answering.limits.partials_bytes_max;
        let finishing = |property| Finishing::new(self.request, &self.functions, (def, property), bytes_max);
        // Leaders are of one property.
        let leading = match (&self.leaders, asked) {
            (Some(_), [(property, _)]) => Some(finishing(*property)?),
            _ => None,
        };
        let areal = asked.iter().filter(|_| self.request.areal.is_some());
        let areal = areal.map(|(property, _)| finishing(*property));
        let areal: Vec<Finishing<'_>> = areal.collect::<Result<_>>()?;
        // Nothing is left to do with the series of a device, but where it may lead others.
        let finishes_here = self.answering.takes_finished() && self.request.top.is_none();
        for (chosen, series) in devices.iter().zip(self.folded.chunks_mut(asked.len().max(1))) {
            if let Some(groups) = &mut self.groups {
                for (series, areal) in series.iter_mut().zip(&areal) {
                    *series = areal.areal_of(std::mem::take(series))?;
                }
                let place = groups.place(def.number(), &numbers, |key| chosen.tag(key));
                groups.merge(place, series)?;
                self.answering.tally.hold(HeldFor::Later, groups.bytes())?;
                continue;
            }
            let series = asked.iter().map(|(property, _)| *property).zip(series);
            let all = self.request.fill.is_some();
            for (property, series) in series.filter(|(_, series)| all || !series.is_empty()) {
                // What has no standing is passed on, for the coordinator to refuse.
                if let Some(leaders) = &mut self.leaders
                    && let Some(leading) = &leading
                    && let Ok(first) = leading.first(series, 1)
                {
                    let name = || vec![chosen.id().to_owned()];
                    let standing = leaders.stands(first.as_ref());
                    let bytes = series.bytes();
                    leaders.offer(standing, name, bytes, || of_device(def, property, chosen, series));
                    self.answering.tally.hold(HeldFor::Later, leaders.bytes())?;
                    continue;
                }
                let here = finishes_here.then(|| finishing(property)).transpose()?;
                let part = match here.filter(|finishing| finishing.is_short(series)) {
                    Some(finishing) => Part::Finished(AggregateSeries {
                        device: chosen.id().to_owned(),
                        ..finishing.finish(series, 1)?
                    }),
                    None => Part::Partials(of_device(def, property, chosen, series)),
                };
                if self.answering.send(part).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn of_device(def: &TypeDef, property: &PropertyDef, chosen: &Chosen, series: &mut Series) -> Partials {
    let mut part = Partials {
        type_number: def.number(),
        property: property.number.0,
        device: chosen.id().to_owned(),
        devices: 1,
        ..Partials::default()
    };
    series.put_into(&mut part);
    part
}

/// How bucket values are folded.
struct Folding<'a> {
    request: &'a QueryAggregateRequest,
    asked: &'a [(&'a PropertyDef, Windows)],
    /// By property, where slots are counted: of points alone.
    slots: Vec<Option<Slots>>,
    needs: Needs,
    /// What any of the windows may hold.
    from: i64,
    to: i64,
    /// Which rollups will do, if any.
    rolling: Option<Rolling>,
    tally: &'a Tally<'a>,
}

impl Folding<'_> {
    fn new<'a>(
        (request, def): (&'a QueryAggregateRequest, &TypeDef),
        asked: &'a [(&'a PropertyDef, Windows)],
        rolling: Option<Rolling>,
        needs: Needs,
        tally: &'a Tally<'a>,
    ) -> Folding<'a> {
        let (from, to) = scan_range(asked.iter().map(|(_, windows)| windows));
        Folding {
            request,
            asked,
            slots: asked
                .iter()
                .map(|(property, _)| slots(request, def, property))
                .collect(),
            needs,
            from,
            to,
            rolling,
            tally,
        }
    }

    /// Adds a bucket to series, one per property; returns how many points were left out for their quality.
    fn fold(&self, stored: Stored<'_>, series: &mut [Series]) -> Result<u64> {
        let mut dropped = 0;
        let value = match stored {
            Stored::Points(value) => value,
            Stored::Rollup { rollup, .. } => return self.fold_rollup(&rollup, series),
        };
        for block in bucket::blocks(value) {
            let block = block.map_err(corrupt)?;
            if block.last_ns() < self.from || block.first_ns() >= self.to {
                continue;
            }
            let mut folding = block.folding();
            for (((property, windows), slots), series) in self.asked.iter().zip(&self.slots).zip(series.iter_mut()) {
                let choice = choice(property, self.request.drop_suspect);
                let (number, needs, points) = (property.number, self.needs, &mut series.points);
                if points.is_empty() {
                    let windows_max = usize::try_from(windows.count()).unwrap_or(usize::MAX);
                    points.reserve(windows_max.min(block.count(number)));
                }
                let folded = match slots {
                    None => folding.fold(number, windows, needs, &choice, points),
                    Some(slots) => {
                        let slots = (slots, &mut series.slots);
                        folding.fold_filling(number, windows, needs, &choice, points, slots)
                    }
                };
                folded.map_err(corrupt)?;
            }
            dropped += folding.dropped();
            self.tally.block(folding.decoded())?;
            self.tally.fits(bytes_of(series))?;
        }
        Ok(dropped)
    }

    fn fold_rollup(&self, rolled: &Rollup<'_>, series: &mut [Series]) -> Result<u64> {
        let mut dropped = 0;
        for ((property, windows), series) in self.asked.iter().zip(series.iter_mut()) {
            let of = (property.number, property.value_type);
            let folded = rollup::fold(rolled, of, windows, &mut series.points);
            dropped += folded.map_err(corrupt)?;
        }
        Ok(dropped)
    }
}

fn numbers(asked: &[(&PropertyDef, Windows)]) -> Vec<u32> {
    asked.iter().map(|(property, _)| property.number.0).collect()
}

fn bytes_of(series: &[Series]) -> usize {
    series.iter().map(Series::bytes).sum()
}
