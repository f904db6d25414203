//! Raw records of one shard.

use std::ops::ControlFlow;

use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, QueryRangeRequest};
use tidemark_series::{PropertyNumber, Records, bucket};

use super::plan::{check_range, passes_over_types};
use super::shard_side::{Answering, Chosen, corrupt};
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
    let _ = answering.each_run(&selector, |devices| reading.run(devices))?;
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
        let Some(def) = devices.first().map(|first| &first.def) else { return Ok(ControlFlow::Continue(())) };
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
            flow = answering.scan(chosen, from_ns, to_ns, |value| {
                let mut records = decode(value, numbers.as_deref())?.slice_time(from_ns, to_ns);
                let room = usize::try_from(self.limit - self.summary.rows).unwrap_or(usize::MAX);
                if records.len() > room {
                    records = records.slice_rows(0, room);
                    self.summary.limited = true;
                }
                self.summary.rows += records.len() as u64;
                batch.push(&chosen.id, &records);
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
}

/// Records of a bucket, only the named properties and the rows that have one of them.
fn decode(value: &[u8], numbers: Option<&[PropertyNumber]>) -> Result<Records> {
    let records = bucket::decode(value, numbers).map_err(corrupt)?;
    Ok(match numbers {
        Some(numbers) => records.project(numbers),
        None => records,
    })
}
