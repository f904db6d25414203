//! Raw records of one shard.

use std::ops::ControlFlow;

use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, QueryRangeRequest};
use tidemark_series::{PropertyNumber, bucket};

use super::plan::{check_range, passes_over_types};
use super::shard_side::{Answering, Chosen, Wanted, corrupt};
use crate::error::Result;
use crate::wire::answer::BatchWriter;

const ROWS_PER_PART: usize = 4096;

/// Answers a raw range.
pub(super) fn answer(answering: &Answering<'_>, request: &QueryRangeRequest) -> Result<AnswerSummary> {
    check_range(request.from_ns, request.to_ns)?;
    let selector = request.selector.clone().unwrap_or_default();
    let limit = if request.limit == 0 { u64::MAX } else { request.limit };
    let mut reading = Reading {
        answering,
        request,
        limit,
        pass_over: passes_over_types(&selector),
        summary: AnswerSummary::default(),
    };
    let _ = answering.each_run(&selector, Wanted::Nothing, |devices| reading.run(devices))?;
    Ok(reading.summary)
}

struct Reading<'a> {
    answering: &'a Answering<'a>,
    request: &'a QueryRangeRequest,
    limit: u64,
    pass_over: bool,
    summary: AnswerSummary,
}

impl Reading<'_> {
    /// Reads devices of one type into shared batches.
    fn run(&mut self, devices: &[Chosen]) -> Result<ControlFlow<()>> {
        let Some(def) = devices.first().map(|first| &first.def) else {
            return Ok(ControlFlow::Continue(()));
        };
        let properties = match def.choose(&self.request.properties) {
            Ok(properties) => properties,
            Err(_) if self.pass_over => return Ok(ControlFlow::Continue(())),
            Err(e) => return Err(e),
        };
        let numbers: Option<Vec<PropertyNumber>> =
            (!self.request.properties.is_empty()).then(|| properties.iter().map(|p| p.number).collect());
        let mut batch = BatchWriter::new(def, &properties);
        let (answering, from_ns, to_ns) = (self.answering, self.request.from_ns, self.request.to_ns);
        let mut flow = ControlFlow::Continue(());
        for chosen in devices {
            self.summary.devices += 1;
            flow = answering.scan(def, std::slice::from_ref(chosen), from_ns, to_ns, |_, value| {
                self.take(chosen, value, numbers.as_deref(), &mut batch)?;
                if self.summary.limited {
                    return Ok(ControlFlow::Break(()));
                }
                if batch.rows() < ROWS_PER_PART {
                    return Ok(ControlFlow::Continue(()));
                }
                let full = std::mem::replace(&mut batch, BatchWriter::new(def, &properties));
                Ok(answering.send(Part::Batch(full.finish())))
            })?;
            if flow.is_break() {
                break;
            }
        }
        if batch.rows() > 0 && answering.send(Part::Batch(batch.finish())).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(flow)
    }

    /// Adds the rows of a bucket that are asked for, up to the limit: only the named properties and the rows that have one
    /// of them.
    fn take(
        &mut self,
        chosen: &Chosen,
        value: &[u8],
        numbers: Option<&[PropertyNumber]>,
        batch: &mut BatchWriter<'_>,
    ) -> Result<()> {
        let (from_ns, to_ns) = (self.request.from_ns, self.request.to_ns);
        for block in bucket::blocks(value) {
            let block = block.map_err(corrupt)?;
            if block.last_ns() < from_ns || block.first_ns() >= to_ns {
                continue;
            }
            let mut records = block.decode(numbers).map_err(corrupt)?;
            if numbers.is_some() {
                records = records.without_empty_rows();
            }
            let mut rows = records.rows_between(from_ns, to_ns);
            let room = usize::try_from(self.limit - self.summary.rows).unwrap_or(usize::MAX);
            if rows.len() > room {
                rows.end = rows.start + room;
                self.summary.limited = true;
            }
            self.summary.rows += rows.len() as u64;
            batch.push(chosen.id(), &records, rows);
            if self.summary.limited {
                break;
            }
        }
        Ok(())
    }
}
