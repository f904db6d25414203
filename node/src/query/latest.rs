//! Newest values of one shard.
//!
//! Never here: where they are kept. Invariant: a part holds the next devices in the order of the selection, and says which is the last.

use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message as _;
use tidemark_proto::peer::LatestDevices;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, GetLatestRequest};
use tidemark_series::NewestValue;

use super::asked::{Asked, position};
use super::last_good::{Sought, last_good};
use super::plan::passes_over_types;
use super::shard_side::{Answering, Begin, Chosen, Wanted};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::clock::NS_PER_MS;
use crate::error::Result;
use crate::raft::state::store_error;
use crate::wire::latest::LatestWriter;
use crate::wire::latest_table::LatestTableWriter;

/// Devices of a part, from as many types as there are.
const DEVICES_PER_PART: usize = 256;
/// In columns, where few devices of a type would make a table hardly smaller.
const DEVICES_PER_PART_IN_COLUMNS: u64 = 4_096;
/// A part of so many bytes is sent at once.
const BYTES_PER_PART: usize = 1 << 20;

/// Answers a question for newest values.
pub(super) fn answer(answering: &Answering<'_>, request: &GetLatestRequest, asked: &Asked) -> Result<AnswerSummary> {
    let after = position(&request.cursor)?;
    let begin = after.as_ref().map(|position| Begin {
        device: &position.device,
        with: false,
    });
    let selector = request.selector.clone().unwrap_or_default();
    let limit = if request.limit == 0 { u64::MAX } else { request.limit };
    let mut reading = Reading {
        answering,
        request,
        pass_over: passes_over_types(&selector),
        now: match request.at_ns {
            0 => answering.present_ns(),
            at => at,
        },
        summary: AnswerSummary::default(),
        part: LatestDevices::default(),
        tables: Vec::new(),
        bytes: 0,
    };
    let visited = answering.each_run_from(&selector, Wanted::Nothing, begin, |devices| {
        let room = usize::try_from(limit - reading.summary.devices).unwrap_or(usize::MAX);
        if reading.run(devices, room)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if reading.is_full() && reading.pass_on().is_break() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(if reading.summary.limited {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    });
    let mut cut = AnswerSummary::default();
    let flow = answering.ended(visited, asked, &mut cut)?;
    if flow.is_continue() || reading.summary.limited {
        let _ = reading.pass_on();
    }
    Ok(AnswerSummary {
        rows: reading.summary.devices,
        cut_short: cut.cut_short,
        ..reading.summary
    })
}

struct Reading<'a> {
    answering: &'a Answering<'a>,
    request: &'a GetLatestRequest,
    pass_over: bool,
    now: i64,
    summary: AnswerSummary,
    part: LatestDevices,
    /// Of the part, where it is in columns: one for each type.
    tables: Vec<LatestTableWriter>,
    /// Of the part.
    bytes: usize,
}

impl Reading<'_> {
    /// Devices of one type, `room` of them at most; one that is left out for that limits the answer.
    fn run(&mut self, devices: &[Chosen], room: usize) -> Result<ControlFlow<()>> {
        let Some(def) = devices.first().map(|first| &first.def) else {
            return Ok(ControlFlow::Continue(()));
        };
        let properties = match def.choose(&self.request.properties) {
            Ok(properties) => properties,
            Err(_) if self.pass_over => return Ok(ControlFlow::Continue(())),
            Err(e) => return Err(e),
        };
        let limited = devices.len() > room;
        let devices = &devices[..devices.len().min(room)];
        let stale_after = match self.request.stale_after_ms {
            ms if ms > 0 => Some(ms.saturating_mul(NS_PER_MS)),
            _ => def.stale_after_ns(),
        };
        let now = self.now;
        let is_stale = |observed: i64| stale_after.is_some_and(|after| now.saturating_sub(observed) > after);
        let ordinals: Vec<u32> = devices.iter().map(Chosen::ordinal).collect();
        let newest = self.answering.shard.newest(self.answering.number(def), &ordinals);
        let newest = newest.map_err(store_error)?;
        // Newest values of all stay whatever their age; those of an earlier time are looked for among points.
        if self.request.at_ns != 0 {
            let at = (now, now.saturating_add(1));
            self.answering.concern(def, at);
        }
        let mut rows = (!self.request.in_columns).then(|| LatestWriter::new(def, &properties));
        for (chosen, newest) in devices.iter().zip(&newest) {
            let counting = self.counting(def, chosen, newest, &properties)?;
            let newest: &[NewestValue] = counting.as_deref().unwrap_or(newest);
            if let Some(rows) = &mut rows {
                let answer = rows.device(chosen.id(), newest, is_stale);
                self.bytes += answer.len();
                self.part.devices.push(answer);
            } else {
                self.bytes += self
                    .table(&chosen.def, &properties)
                    .device(chosen.id(), newest, is_stale);
                self.part.devices_in_tables += 1;
            }
            chosen.id().clone_into(&mut self.part.last);
            self.summary.devices += 1;
            if self.bytes > BYTES_PER_PART && self.pass_on().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.summary.limited = limited;
        Ok(ControlFlow::Continue(()))
    }

    /// The newest values that count, where those that are newest of all do not, are too new, or came too late.
    fn counting(
        &self,
        def: &TypeDef,
        chosen: &Chosen,
        newest: &[NewestValue],
        properties: &[&PropertyDef],
    ) -> Result<Option<Vec<NewestValue>>> {
        let sought = match self.request.any_quality {
            true => Sought::Any,
            false => Sought::Measured,
        };
        let counts = |property: Option<&PropertyDef>, value: &NewestValue| {
            let in_time = self.request.at_ns == 0 || value.observed_at <= self.request.at_ns;
            let in_time = in_time && self.answering.had_come(value.received_at);
            let stated = (value.quality, value.report_kind);
            in_time && property.is_none_or(|property| sought.takes(property, value.value(), stated))
        };
        // Most types list their properties by number: the next one asked for is the next one there is.
        let mut next = 0;
        let all_count = newest.iter().all(|value| {
            let is = |property: &&PropertyDef| property.number == value.property;
            if !properties.get(next).is_some_and(is) {
                next = properties.iter().position(is).unwrap_or(properties.len());
            }
            let property = properties.get(next).copied();
            next += 1;
            counts(property, value)
        });
        if all_count {
            return Ok(None);
        }
        let (mut kept, others): (Vec<NewestValue>, Vec<NewestValue>) = newest
            .iter()
            .cloned()
            .partition(|value| counts(def.property_by_number(value.property), value));
        let wanted = |property: &&&PropertyDef| others.iter().any(|other| other.property == property.number);
        let wanted: Vec<&PropertyDef> = properties.iter().filter(wanted).copied().collect();
        let until_ns = match self.request.at_ns {
            0 => i64::MAX,
            at => at.saturating_add(1),
        };
        let until_ns = others
            .iter()
            .map(|other| other.observed_at)
            .max()
            .unwrap_or(until_ns)
            .saturating_add(1)
            .min(until_ns);
        kept.extend(last_good(self.answering, def, chosen, &wanted, until_ns, sought)?);
        kept.sort_by_key(|value| value.property);
        Ok(Some(kept))
    }

    /// The table of the part for devices of a type.
    fn table(&mut self, def: &Arc<TypeDef>, properties: &[&PropertyDef]) -> &mut LatestTableWriter {
        let found = self.tables.iter().position(|table| table.is_of(def));
        let at = found.unwrap_or_else(|| {
            self.tables.push(LatestTableWriter::new(def, properties));
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    fn is_full(&self) -> bool {
        self.part.devices.len() >= DEVICES_PER_PART || self.part.devices_in_tables >= DEVICES_PER_PART_IN_COLUMNS
    }

    /// Hands on what is there; breaks when nobody listens any more.
    fn pass_on(&mut self) -> ControlFlow<()> {
        self.bytes = 0;
        let mut part = std::mem::take(&mut self.part);
        let tables = std::mem::take(&mut self.tables).into_iter();
        part.tables = tables.map(|table| table.finish().encode_to_vec().into()).collect();
        match part.last.is_empty() {
            true => ControlFlow::Continue(()),
            false => self.answering.send(Part::Latest(part)),
        }
    }
}
