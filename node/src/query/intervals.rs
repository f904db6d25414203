//! When a property of a device was at or beyond a threshold, or in a state: both sides of the question.
//!
//! Never here: which points count (see `walk`), where lines cross (see `tidemark_series::exceed`). Invariant: a device is told in
//! one piece.

use std::ops::ControlFlow;

use tidemark_proto::peer::IntervalsList;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::query_intervals_request::Condition;
use tidemark_proto::v1::{AnswerSummary, DeviceIntervals, Interval, QueryIntervalsRequest, QueryIntervalsResponse};
use tidemark_series::exceed::{Exceedance, Exceeding, Threshold};
use tidemark_series::{Between, Kind, ValueRef, ValueType};

use super::asked::Asked;
use super::functions::{max_gap_ns, state_code};
use super::plan::{check_range, one_property, passes_over_types};
use super::shard_side::{Answering, Chosen, Wanted};
use super::streams::{Answers, Queries, Reads, each, unexpected};
use super::terms::{Caller, HasTerms as _};
use super::walk::{Walk, Walked, choice};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::{Error, Reason, Result};

const DEVICES_PER_PART: usize = 64;

/// Answers one shard's part.
pub(super) fn answer(
    answering: &Answering<'_>,
    request: &QueryIntervalsRequest,
    asked: &Asked,
) -> Result<AnswerSummary> {
    check(request)?;
    let selector = request.selector.clone().unwrap_or_default();
    let pass_over = passes_over_types(&selector);
    let mut summary = AnswerSummary::default();
    let mut part = IntervalsList::default();
    let visited = answering.each_run(&selector, Wanted::Nothing, |devices| {
        let Some(def) = devices.first().map(|first| first.def.clone()) else {
            return Ok(ControlFlow::Continue(()));
        };
        let Some(property) = one_property(&def, &request.property, pass_over)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let asking = Asking::new(request, &def, property, answering.present_ns())?;
        answering.concerned.note(&def, (request.from_ns, request.to_ns), 0);
        let walked = vec![Walked {
            property,
            choice: choice(property, request.drop_suspect),
        }];
        let (range, gap) = ((request.from_ns, request.to_ns), asking.threshold.max_gap_ns);
        let walk = Walk::new(answering, &def, walked, range, (gap, gap));
        for chosen in devices {
            summary.devices += 1;
            part.devices.extend(asking.of_device(&walk, chosen)?);
            if part.devices.len() >= DEVICES_PER_PART
                && answering.send(Part::Intervals(std::mem::take(&mut part))).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    let flow = answering.ended(visited, asked, &mut summary)?;
    if flow.is_continue() && !part.devices.is_empty() {
        let _ = answering.send(Part::Intervals(part));
    }
    Ok(summary)
}

/// Checks what is asked, as far as no type need be known.
fn check(request: &QueryIntervalsRequest) -> Result<()> {
    check_range(request.from_ns, request.to_ns)?;
    if request.property.is_empty() {
        return Err(Error::new(Reason::MissingField, "intervals of no property").field("property"));
    }
    if request.max_gap_ms < 0 {
        return Err(Error::new(Reason::InvalidValue, "max_gap_ms is negative").field("max_gap_ms"));
    }
    match &request.condition {
        None => Err(Error::new(Reason::MissingField, "no condition")
            .field("condition")
            .hint("give at_least, at_most or state")),
        Some(Condition::AtLeast(value) | Condition::AtMost(value)) if !value.is_finite() => {
            Err(Error::new(Reason::InvalidValue, format!("a threshold of {value}")).field("condition"))
        }
        Some(_) => Ok(()),
    }
}

/// A condition in terms of one property.
struct Asking {
    threshold: Threshold,
    /// The state that is asked for; it counts as 1, all others as 0.
    state: Option<i64>,
}

impl Asking {
    fn new(request: &QueryIntervalsRequest, def: &TypeDef, property: &PropertyDef, now_ns: i64) -> Result<Asking> {
        let refused = |message: String| Error::new(Reason::InvalidValue, message).field("condition");
        let numbers = matches!(property.value_type, ValueType::F64 | ValueType::I64);
        let (value, below, state) = match &request.condition {
            Some(Condition::State(name)) => {
                let code = state_code(property, name);
                let unknown = || refused(format!("{} has no state {name:?}", property.id));
                (0.5, false, Some(code.ok_or_else(unknown)?))
            }
            Some(Condition::AtLeast(value)) if numbers => (*value, false, None),
            Some(Condition::AtMost(value)) if numbers => (*value, true, None),
            _ => return Err(refused(format!("{} has no numbers to compare", property.id))),
        };
        let held = state.is_some() || property.kind == Kind::State;
        Ok(Asking {
            threshold: Threshold {
                from_ns: request.from_ns,
                to_ns: request.to_ns,
                value,
                below,
                between: if held { Between::Held } else { Between::Linear },
                max_gap_ns: max_gap_ns(request.max_gap_ms, def),
                now_ns,
            },
            state,
        })
    }

    fn of_device(&self, walk: &Walk<'_>, chosen: &Chosen) -> Result<Option<DeviceIntervals>> {
        let mut exceeding = Exceeding::new(&self.threshold);
        walk.over(chosen, |_, points| {
            for (at, t_ns) in points.times.iter().enumerate() {
                if let Some(value) = points.values.get(at).and_then(|value| self.number(value)) {
                    exceeding.point(*t_ns, value);
                }
            }
            Ok(())
        })?;
        let found = exceeding.finish();
        if found.is_empty() {
            return Ok(None);
        }
        let total = found.iter().map(|one| one.to_ns.saturating_sub(one.from_ns));
        Ok(Some(DeviceIntervals {
            device: chosen.id().to_owned(),
            device_type: chosen.def.id().to_owned(),
            total_ns: total.sum(),
            intervals: found.iter().map(interval).collect(),
        }))
    }

    fn number(&self, value: ValueRef<'_>) -> Option<f64> {
        let code = match value {
            ValueRef::F64(value) => return Some(value).filter(|value| value.is_finite()),
            ValueRef::I64(value) if self.state.is_none() => return Some(value as f64),
            ValueRef::I64(value) => value,
            ValueRef::Bool(value) => i64::from(value),
            ValueRef::Enum(value) => i64::from(value),
            ValueRef::Text(_) => return None,
        };
        Some(f64::from(u8::from(self.state == Some(code))))
    }
}

fn interval(found: &Exceedance) -> Interval {
    Interval {
        from_ns: found.from_ns,
        to_ns: found.to_ns,
        peak: found.peak,
        peak_at_ns: found.peak_at_ns,
        unknown_after: found.unknown_after,
        open: found.open,
    }
}

impl Queries {
    /// When a property was at or beyond a threshold, or in a state.
    pub async fn intervals(
        &self,
        request: QueryIntervalsRequest,
        caller: &Caller,
    ) -> Result<Answers<QueryIntervalsResponse>> {
        check(&request)?;
        let start = self
            .begin(
                caller,
                Reads::Blocks,
                request.selector.as_ref(),
                true,
                request.consistency.as_ref(),
            )
            .await?
            .on(request.terms(caller))?;
        start
            .check_properties(std::slice::from_ref(&request.property))
            .map_err(|error| error.field("property"))?;
        let ask = move |selector, _| {
            Query::Intervals(QueryIntervalsRequest {
                selector: Some(selector),
                ..request.clone()
            })
        };
        let translate = each(|part| match part {
            Part::Intervals(list) => {
                let message = QueryIntervalsResponse {
                    devices: list.devices,
                    summary: None,
                };
                Ok((message.devices.len() as u64, message))
            }
            other => Err(unexpected(&other)),
        });
        let last = |summary| QueryIntervalsResponse {
            devices: Vec::new(),
            summary: Some(summary),
        };
        Ok(start.stream(0, ask, translate, |_| Ok(Vec::new()), last).await)
    }
}
