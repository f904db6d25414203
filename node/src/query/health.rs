//! How devices are, beside how well they kept their promises: what they say of their batteries, supplies and signals, and when they
//! were heard last. Both sides: a shard of its devices, the coordinator of groups.
//!
//! Never here: names of properties (a type says by attributes which of them tell what). Invariant: a group is the sum of its devices,
//! wherever they are added.

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::v1::{
    AnswerSummary, GetHealthRequest, GetHealthResponse, GetQualityRequest, Health, QualityReport, ReportKind,
};
use tidemark_series::assess::{Assessing, Promise};
use tidemark_series::{Block, Corrupt, PropertyNumber, ValueRef};

use super::asked::Asked;
use super::last_good::{Sought, counts, last_good};
use super::quality;
use super::quality_merge::check;
use super::shard_side::{Answering, Chosen};
use super::streams::{Answers, Queries};
use super::terms::Caller;
use crate::catalog::types::{Diagnostic, PropertyDef, TypeDef};
use crate::clock::NS_PER_MS;
use crate::error::{Error, Reason, Result};

const BATTERY_LOW: f64 = 20.0;

/// Answers a question about health: reports of quality, each with what its device says of itself.
pub(super) fn answer(answering: &Answering<'_>, request: &GetHealthRequest, asked: &Asked) -> Result<AnswerSummary> {
    quality::judge(answering, &promises(request), Some(request), asked)
}

/// What of it is about promises.
fn promises(request: &GetHealthRequest) -> GetQualityRequest {
    GetQualityRequest {
        selector: request.selector.clone(),
        from_ns: request.from_ns,
        to_ns: request.to_ns,
        grouping: request.grouping.clone(),
        across_types: request.across_types,
        consistency: request.consistency,
        worst: request.worst,
        points_max: request.points_max,
        partial_ok: request.partial_ok,
        explain: request.explain,
        known_at_ns: request.known_at_ns,
        ..GetQualityRequest::default()
    }
}

impl Queries {
    /// How devices are.
    pub async fn health(&self, request: GetHealthRequest, caller: &Caller) -> Result<Answers<GetHealthResponse>> {
        if !(request.battery_low >= 0.0 && request.battery_low.is_finite()) {
            let message = format!("{} is no charge of a battery", request.battery_low);
            return Err(Error::new(Reason::InvalidValue, message).field("battery_low"));
        }
        let promises = promises(&request);
        check(&promises)?;
        let ask = move |selector| {
            Query::Health(GetHealthRequest {
                selector: Some(selector),
                ..request.clone()
            })
        };
        let message = |reports, summary| GetHealthResponse { reports, summary };
        self.judged(promises, caller, ask, message).await
    }
}

/// The signals of a device within a time.
pub(super) struct Signals<'a> {
    property: Option<&'a PropertyDef>,
    values: Vec<f64>,
}

impl<'a> Signals<'a> {
    /// Of a type that may say which of its properties tells; none where nobody asks.
    pub(super) fn of(def: &'a TypeDef, wanted: bool) -> Signals<'a> {
        let property = def.diagnostic(Diagnostic::Signal).filter(|_| wanted);
        Signals {
            property,
            values: Vec::new(),
        }
    }

    /// Whether there can be any.
    pub(super) fn are_told(&self) -> bool {
        self.property.is_some()
    }

    /// Takes those of a block that were not under maintenance; returns how many values had to be decoded.
    pub(super) fn take(
        &mut self,
        block: &Block<'_>,
        promise: &Promise,
        assessing: &Assessing<'_>,
    ) -> std::result::Result<u64, Corrupt> {
        let Some(property) = self.property else {
            return Ok(0);
        };
        let (from_ns, to_ns) = (promise.from_ns, promise.to_ns);
        let outside = block.last_ns() < from_ns || block.first_ns() > to_ns;
        if outside || block.count(property.number) == 0 {
            return Ok(0);
        }
        let records = block.decode(Some(&[property.number]))?;
        for (row, value, quality) in records
            .column(property.number)
            .into_iter()
            .flat_map(|column| column.cells())
        {
            let (edge, t_ns) = (property.kind.edge(), records.observed_at[row]);
            let within = edge.holds(from_ns, t_ns, to_ns) && !assessing.left_out().hold(edge, t_ns);
            let is_test = records.report_kind[row] == ReportKind::Test as u8;
            if within && !is_test && counts(property, value, quality) {
                self.values.extend(value.number());
            }
        }
        Ok(records.points() as u64)
    }

    /// The one in the middle; of two the larger.
    pub(super) fn median(mut self) -> Option<f64> {
        let middle = self.values.len() / 2;
        (!self.values.is_empty()).then(|| *self.values.select_nth_unstable_by(middle, f64::total_cmp).1)
    }
}

/// What devices of one type say of themselves, one for each, at a time.
pub(super) fn said(answering: &Answering<'_>, def: &TypeDef, devices: &[Chosen], to_ns: i64) -> Result<Vec<Health>> {
    let roles = [Diagnostic::Battery, Diagnostic::Supply, Diagnostic::Signal].map(|role| def.diagnostic(role));
    let newest = answering.newest(def, &devices.iter().collect::<Vec<_>>())?;
    let mut said = Vec::with_capacity(devices.len());
    for (chosen, newest) in devices.iter().zip(&newest) {
        let known = |number: PropertyNumber| newest.iter().find(|value| value.property == number);
        let mut found = [None; 3];
        for (found, property) in found.iter_mut().zip(roles) {
            let Some((property, value)) = property.and_then(|p| known(p.number).map(|value| (p, value))) else {
                continue;
            };
            let good = value.observed_at <= to_ns && counts(property, value.value(), value.quality);
            *found = match good {
                true => value.value().number(),
                false => {
                    let until = to_ns.saturating_add(1);
                    let before = last_good(answering, def, chosen, &[property], until, Sought::Good)?;
                    before.first().and_then(|value| ValueRef::number(value.value()))
                }
            };
        }
        let [battery, supply, signal] = found;
        said.push(Health {
            battery,
            supply,
            signal,
            ..Health::default()
        });
    }
    Ok(said)
}

/// Health of one device, from what it said, its signals and when it was heard last.
pub(super) fn of_device(
    request: &GetHealthRequest,
    said: Health,
    signal_median: Option<f64>,
    heard_ns: Option<i64>,
    online: bool,
) -> Health {
    let low = match request.battery_low {
        0.0 => BATTERY_LOW,
        low => low,
    };
    Health {
        online: u64::from(online),
        last_heard_at_ns: heard_ns.unwrap_or(0),
        age_ms: heard_ns.map_or(0, |heard| request.to_ns.saturating_sub(heard) / NS_PER_MS),
        signal_median,
        battery_known: u64::from(said.battery.is_some()),
        battery_low: u64::from(said.battery.is_some_and(|battery| battery < low)),
        ..said
    }
}

/// Adds a device or a part of a group to a group.
pub(super) fn add(group: &mut Option<Health>, other: Option<&Health>) {
    let Some(other) = other else {
        return;
    };
    let group = group.get_or_insert_default();
    group.online += other.online;
    group.battery_known += other.battery_known;
    group.battery_low += other.battery_low;
    let least = [group.supply_min, other.supply_min, other.supply];
    group.supply_min = least.into_iter().flatten().min_by(f64::total_cmp);
    for (signal, devices) in &other.devices_by_signal {
        *group.devices_by_signal.entry(*signal).or_default() += devices;
    }
    if let Some(median) = other.signal_median {
        *group.devices_by_signal.entry(median.round() as i32).or_default() += 1;
    }
}

/// What a group says once all are added.
pub(super) fn finish(report: &mut QualityReport) {
    let Some(health) = report.health.as_mut().filter(|_| report.device.is_empty()) else {
        return;
    };
    let devices: u64 = health.devices_by_signal.values().sum();
    let mut seen = 0;
    let middle = health.devices_by_signal.iter().find(|(_, devices_of)| {
        seen += **devices_of;
        seen > devices / 2
    });
    health.signal_median = middle.map(|(signal, _)| f64::from(*signal));
}
