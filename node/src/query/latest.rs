//! Newest values of one shard.

use std::ops::ControlFlow;

use tidemark_proto::peer::LatestDevices;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, GetLatestRequest};
use tidemark_series::{Records, bucket};

use super::plan::passes_over_types;
use super::shard_side::{Answering, Chosen, corrupt};
use crate::clock::{NS_PER_MS, now_ns};
use crate::error::Result;
use crate::raft::state::store_error;
use crate::wire::answer::latest_device;

/// Answers a question for newest values.
pub(super) fn answer(answering: &Answering<'_>, request: &GetLatestRequest) -> Result<AnswerSummary> {
    let selector = request.selector.clone().unwrap_or_default();
    let limit = if request.limit == 0 { u64::MAX } else { request.limit };
    let pass_over = passes_over_types(&selector);
    let now = now_ns();
    let mut summary = AnswerSummary::default();
    let _ = answering.each_run(&selector, |devices| {
        let room = usize::try_from(limit - summary.devices).unwrap_or(usize::MAX);
        summary.limited = devices.len() > room;
        let devices = &devices[..devices.len().min(room)];
        let part = run(answering, request, devices, now, pass_over)?;
        summary.devices += part.devices.len() as u64;
        if !part.devices.is_empty() && answering.send(Part::Latest(part)).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(if summary.limited { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(AnswerSummary { rows: summary.devices, ..summary })
}

/// Devices of one type.
fn run(
    answering: &Answering<'_>,
    request: &GetLatestRequest,
    devices: &[Chosen],
    now: i64,
    pass_over: bool,
) -> Result<LatestDevices> {
    let Some(def) = devices.first().map(|first| &first.def) else { return Ok(LatestDevices::default()) };
    let properties = match def.choose(&request.properties) {
        Ok(properties) => properties,
        Err(_) if pass_over => return Ok(LatestDevices::default()),
        Err(e) => return Err(e),
    };
    let stale_after = match request.stale_after_ms {
        ms if ms > 0 => Some(ms.saturating_mul(NS_PER_MS)),
        _ => def.stale_after_ns(),
    };
    let is_stale = |observed: i64| stale_after.is_some_and(|after| now.saturating_sub(observed) > after);
    let ordinals: Vec<u32> = devices.iter().map(|chosen| chosen.ordinal).collect();
    let newest = answering.shard.latest(def.number(), &ordinals).map_err(store_error)?;
    let mut part = LatestDevices::default();
    for (chosen, value) in devices.iter().zip(newest) {
        let records = match value {
            Some(value) => bucket::decode(&value, None).map_err(corrupt)?,
            None => Records::default(),
        };
        part.devices.push(latest_device(def, &chosen.id, &records, &properties, is_stale));
    }
    Ok(part)
}
