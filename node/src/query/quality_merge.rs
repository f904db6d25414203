//! Reports of quality on their way: those of devices passed on or kept where they are among the worst, those of groups added up.
//! Both sides use it: a shard for its devices, the coordinator for what shards send.
//!
//! Never here: points. Invariant: sums become means once, at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, GetQualityRequest, GetQualityResponse, QualityReport, Selector};

use super::health;
use super::plan::check_range;
use super::series::check_budget;
use super::streams::{Answers, Queries, Reads, unexpected};
use super::terms::{Caller, HasTerms as _};
use crate::error::{Error, Reason, Result};

const REPORTS_PER_MESSAGE: usize = 256;

/// Reports that are held back.
pub(super) struct Reports {
    /// Tags to group by; `None`: no groups.
    tags: Option<Vec<String>>,
    across_types: bool,
    /// Only so many.
    worst: usize,
    groups: BTreeMap<(String, Vec<String>), QualityReport>,
    /// By completeness, then name; doubles of at most 1 are ordered as their bits are.
    held: BTreeMap<(u64, Vec<String>), QualityReport>,
    /// About what all of these take.
    bytes: usize,
}

/// What a report takes beside its texts.
const REPORT_BYTES: usize = 2 * size_of::<QualityReport>();

/// About what a report takes that is held back, its name among the others included.
fn bytes_of(report: &QualityReport) -> usize {
    let tags = report
        .tags
        .iter()
        .map(|(key, value)| 2 * value.len() + key.len() + 2 * size_of::<String>());
    REPORT_BYTES + 2 * report.device.len() + report.device_type.len() + tags.sum::<usize>()
}

impl Reports {
    /// For a checked request.
    pub(super) fn new(request: &GetQualityRequest) -> Reports {
        Reports {
            tags: request.grouping.as_ref().map(|grouping| grouping.tags.clone()),
            across_types: request.across_types,
            worst: usize::try_from(request.worst).unwrap_or(usize::MAX),
            groups: BTreeMap::new(),
            held: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// About the bytes that are held back.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the report of a device, of which `tag` tells the tags; gives it back where it need not be held back.
    pub(super) fn take<'a>(
        &mut self,
        report: QualityReport,
        tag: impl Fn(&str) -> Option<&'a str>,
    ) -> Option<QualityReport> {
        let Some(tags) = &self.tags else {
            if self.worst == 0 {
                return Some(report);
            }
            self.hold(report);
            return None;
        };
        let values: Vec<String> = tags.iter().map(|key| tag(key).unwrap_or_default().to_owned()).collect();
        let tags = tags.iter().cloned().zip(values).collect();
        self.add(QualityReport { tags, ..report });
        None
    }

    /// Takes what a shard sent.
    fn take_sums(&mut self, report: QualityReport) -> Option<QualityReport> {
        match (&self.tags, self.worst) {
            (None, 0) => Some(finished(report)),
            (None, _) => {
                self.hold(report);
                None
            }
            (Some(_), _) => {
                self.add(report);
                None
            }
        }
    }

    /// Everything that was held back, as sums.
    pub(super) fn into_sums(self) -> Vec<QualityReport> {
        self.groups.into_values().chain(self.held.into_values()).collect()
    }

    /// The same as it is answered.
    fn finish(mut self) -> Vec<QualityReport> {
        if self.worst > 0 {
            for report in std::mem::take(&mut self.groups).into_values() {
                self.hold(report);
            }
        }
        self.into_sums().into_iter().map(finished).collect()
    }

    fn hold(&mut self, report: QualityReport) {
        let completeness = share(report.slots_filled, report.slots_expected);
        let mut name = vec![report.device.clone()];
        if report.device.is_empty() {
            let mut tags: Vec<_> = report.tags.iter().collect();
            tags.sort();
            name.push(report.device_type.clone());
            name.extend(tags.into_iter().map(|(_, value)| value.clone()));
        }
        self.bytes += bytes_of(&report);
        let mut gone = self.held.insert((completeness.to_bits(), name), report);
        if self.held.len() > self.worst {
            gone = self.held.pop_last().map(|(_, last)| last);
        }
        self.bytes -= gone.as_ref().map_or(0, bytes_of).min(self.bytes);
    }

    fn add(&mut self, report: QualityReport) {
        let device_type = match self.across_types {
            true => String::new(),
            false => report.device_type.clone(),
        };
        let keys = self.tags.iter().flatten();
        let values = keys.map(|key| report.tags.get(key).cloned().unwrap_or_default());
        let key = (device_type.clone(), values.collect());
        let bytes = &mut self.bytes;
        let group = self.groups.entry(key).or_insert_with(|| {
            let group = QualityReport {
                device_type,
                tags: report.tags.clone(),
                ..QualityReport::default()
            };
            *bytes += bytes_of(&group);
            group
        });
        group.devices += report.devices;
        group.devices_assessed += report.devices_assessed;
        group.slots_expected += report.slots_expected;
        group.slots_filled += report.slots_filled;
        group.completeness_mean += report.completeness_mean;
        group.points += report.points;
        group.points_timed += report.points_timed;
        group.points_in_time += report.points_in_time;
        group.points_fail += report.points_fail;
        group.points_suspect += report.points_suspect;
        group.duplicates += report.duplicates;
        group.availability_mean += report.availability_mean;
        group.offline += report.offline;
        group.as_promised += report.as_promised;
        group.slower += report.slower;
        group.stalled += report.stalled;
        group.never += report.never;
        group.not_assessable += report.not_assessable;
        group.under_maintenance += report.under_maintenance;
        health::add(&mut group.health, report.health.as_ref());
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole > 0 { part as f64 / whole as f64 } else { 1.0 }
}

fn finished(mut report: QualityReport) -> QualityReport {
    health::finish(&mut report);
    let mean = |sum: f64, of: u64| if of > 0 { sum / of as f64 } else { 0.0 };
    QualityReport {
        completeness_mean: mean(report.completeness_mean, report.devices_assessed),
        availability_mean: mean(report.availability_mean, report.devices_assessed),
        ..report
    }
}

/// Checks what a question asks, as far as no type need be known.
pub(super) fn check(request: &GetQualityRequest) -> Result<()> {
    let factor = request.gap_factor;
    let gaps = factor == 0.0 || (factor >= 1.0 && factor.is_finite());
    let refused = |message: String, field: &str| Err(Error::new(Reason::InvalidValue, message).field(field));
    if request.to_ns.checked_sub(request.from_ns).is_none() {
        let message = "promises are judged over 292 years at most".to_owned();
        return refused(message, "from_ns");
    }
    if !gaps {
        return refused(
            format!("a gap of {factor} intervals, and it takes at least 1"),
            "gap_factor",
        );
    }
    match &request.grouping {
        Some(_) if request.gaps => refused("gaps are those of devices, and devices are grouped".into(), "gaps"),
        None if request.across_types => refused("only groups are across types".into(), "across_types"),
        _ => Ok(()),
    }
}

impl Queries {
    /// How well devices kept their promises.
    pub async fn quality(&self, request: GetQualityRequest, caller: &Caller) -> Result<Answers<GetQualityResponse>> {
        let asked = request.clone();
        let ask = move |selector| {
            Query::Quality(GetQualityRequest {
                selector: Some(selector),
                ..asked.clone()
            })
        };
        self.judged(request, caller, ask, |reports, summary| GetQualityResponse {
            reports,
            summary,
        })
        .await
    }

    /// Reports on what `ask` asks each shard, of which the request is what is about promises.
    pub(super) async fn judged<M: Send + 'static>(
        &self,
        request: GetQualityRequest,
        caller: &Caller,
        ask: impl Fn(Selector) -> Query + Send + Sync + 'static,
        message: impl Fn(Vec<QualityReport>, Option<AnswerSummary>) -> M + Copy + Send + 'static,
    ) -> Result<Answers<M>> {
        check_range(request.from_ns, request.to_ns)?;
        check(&request)?;
        let start = self
            .begin(
                caller,
                Reads::More,
                request.selector.as_ref(),
                true,
                request.consistency.as_ref(),
            )
            .await?
            .on(request.terms(caller))?;
        if !request.property.is_empty() {
            start
                .check_properties(std::slice::from_ref(&request.property))
                .map_err(|error| error.field("property"))?;
        }
        let reports = Arc::new(Mutex::new(Reports::new(&request)));
        let ask = move |selector, _| ask(selector);
        let (taking, most, mut held) = (reports.clone(), self.limits().partials_bytes_max, start.held());
        let translate = move |parts: Vec<Part>| {
            let mut taking = taking.lock().unwrap_or_else(PoisonError::into_inner);
            let mut ready = Vec::new();
            for part in parts {
                let Part::Quality(part) = part else {
                    return Err(unexpected(&part));
                };
                ready.extend(part.reports.into_iter().filter_map(|report| taking.take_sums(report)));
            }
            held.is_now(taking.bytes())?;
            check_budget(taking.bytes(), most)?;
            let rows = ready.len() as u64;
            let messages = (rows > 0).then(|| message(ready, None));
            Ok((rows, messages.into_iter().collect()))
        };
        let finish = move |summary: &mut AnswerSummary| {
            let mut held = reports.lock().unwrap_or_else(PoisonError::into_inner);
            let nothing = Reports::new(&GetQualityRequest::default());
            let rest = std::mem::replace(&mut *held, nothing).finish();
            summary.rows += rest.len() as u64;
            Ok(rest
                .chunks(REPORTS_PER_MESSAGE)
                .map(|some| message(some.to_vec(), None))
                .collect())
        };
        let last = move |summary| message(Vec::new(), Some(summary));
        Ok(start.stream(0, ask, translate, finish, last).await)
    }
}
