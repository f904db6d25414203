//! One shard's part of a question about quality: how well each of its devices kept the promise of its type.
//!
//! Never here: merging shards (see `quality_merge`), what is good (see `tidemark_series`). Invariant: the means of a report are
//! sums until all shards have answered.

use std::ops::ControlFlow;

use tidemark_proto::peer::QualityReports;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{
    AnswerSummary, GetHealthRequest, GetQualityRequest, Health, Quality, QualityReport, ReportKind,
};
use tidemark_series::assess::{Assessing, Assessment, Freshness, Promise};
use tidemark_series::{Block, Corrupt, Edge, NewestValue, bucket};

use super::asked::Asked;
use super::health::{self, Signals};
use super::last_good::{Sought, last_good};
use super::plan::{check_range, one_property, passes_over_types};
use super::quality_device::{Counts, Device, Look, is_apart, last_point, last_word};
use super::quality_merge::{Reports, check};
use super::quality_scope::{Life, lives};
use super::shard_side::{Answering, Chosen, Wanted, corrupt};
use super::tally::HeldFor;
use super::walk::{Walk, Walked, choice, telling};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;

/// Points that may be looked at together, by what their devices promise: bounds memory.
const POINTS_TOGETHER: i64 = 1 << 20;
/// Reports of a message.
const REPORTS_PER_PART: usize = 256;
/// What was seen so many intervals before the time tells how it began.
const INTERVALS_BEFORE: i64 = 10;

/// Answers a question about quality.
pub(super) fn answer(answering: &Answering<'_>, request: &GetQualityRequest, asked: &Asked) -> Result<AnswerSummary> {
    judge(answering, request, None, asked)
}

/// The same with the health of each device where that is asked for.
pub(super) fn judge(
    answering: &Answering<'_>,
    request: &GetQualityRequest,
    health: Option<&GetHealthRequest>,
    asked: &Asked,
) -> Result<AnswerSummary> {
    check_range(request.from_ns, request.to_ns)?;
    check(request)?;
    let selector = request.selector.clone().unwrap_or_default();
    let mut looking = Looking {
        answering,
        request,
        health,
        pass_over: passes_over_types(&selector),
        reports: Reports::new(request),
        summary: AnswerSummary::default(),
    };
    let wanted = match request.grouping {
        Some(_) => Wanted::Tags,
        None => Wanted::Nothing,
    };
    let visited = answering.each_run(&selector, wanted, |devices| looking.run(devices));
    let flow = answering.ended(visited, asked, &mut looking.summary)?;
    let rest = looking.reports.into_sums();
    if flow.is_continue() {
        for reports in rest.chunks(REPORTS_PER_PART) {
            let part = QualityReports {
                reports: reports.to_vec(),
            };
            if answering.send(Part::Quality(part)).is_break() {
                break;
            }
        }
    }
    Ok(looking.summary)
}

struct Looking<'a> {
    answering: &'a Answering<'a>,
    request: &'a GetQualityRequest,
    health: Option<&'a GetHealthRequest>,
    pass_over: bool,
    reports: Reports,
    summary: AnswerSummary,
}

impl Looking<'_> {
    /// Devices of one type.
    fn run(&mut self, devices: &[Chosen]) -> Result<ControlFlow<()>> {
        let Some(def) = devices.first().map(|first| first.def.clone()) else {
            return Ok(ControlFlow::Continue(()));
        };
        let Some(property) = self.property(&def)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let time = (self.request.from_ns, self.request.to_ns);
        self.answering.concerned.note(&def, time, 0);
        let slots = def.sample_interval_ns().map_or(0, |interval| {
            let length = self.request.to_ns.saturating_sub(self.request.from_ns);
            length.saturating_add(looks_back_ns(property)) / interval
        });
        let together = (POINTS_TOGETHER / slots.max(1)).clamp(1, 1 << 16) as usize;
        for devices in devices.chunks(together) {
            self.summary.devices += devices.len() as u64;
            let reports = match def.sample_interval_ns() {
                Some(interval) => self.assess(&def, property, interval, devices)?,
                None => self.unpromised(&def, devices)?,
            };
            let reports = self.with_health(&def, devices, reports)?;
            let mut part = QualityReports::default();
            for (chosen, report) in devices.iter().zip(reports) {
                let named = QualityReport {
                    device: chosen.id().to_owned(),
                    device_type: def.id().to_owned(),
                    ..report
                };
                part.reports.extend(self.reports.take(named, |key| chosen.tag(key)));
            }
            self.answering.tally.hold(HeldFor::Later, self.reports.bytes())?;
            if !part.reports.is_empty() && self.answering.send(Part::Quality(part)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The property that is looked at; `None` where the type is passed over.
    fn property<'d>(&self, def: &'d TypeDef) -> Result<Option<&'d PropertyDef>> {
        if self.request.property.is_empty() {
            return Ok(def.properties.first());
        }
        one_property(def, &self.request.property, self.pass_over)
    }

    /// Looks at all points of devices in the time.
    fn assess(
        &self,
        def: &TypeDef,
        property: &PropertyDef,
        interval_ns: i64,
        devices: &[Chosen],
    ) -> Result<Vec<Found>> {
        let before = alive_ns(def, interval_ns).max(interval_ns.saturating_mul(INTERVALS_BEFORE));
        // Values are judged by more of what was before than devices are.
        let assess_from = self.request.from_ns.saturating_sub(before);
        let from = assess_from.saturating_sub(looks_back_ns(property));
        let look = Look {
            def,
            property,
            signals: self.health.is_some(),
            gaps: self.request.gaps,
            assess_from,
            range: (from, self.request.to_ns.saturating_add(1)),
        };
        let promises = self.promises(&look, interval_ns, devices)?;
        let mut looked_at: Vec<Device<'_>> = promises.iter().map(|promise| Device::new(promise, look)).collect();
        let _ = self
            .answering
            .scan(def, devices, look.range.0, look.range.1, |at, value| {
                looked_at[at].take(&self.answering.tally, value)?;
                Ok(ControlFlow::Continue(()))
            })?;
        if property.checks.needs_order() {
            let around = Around::new(self.answering, look);
            for ((chosen, promise), device) in devices.iter().zip(&promises).zip(&mut looked_at) {
                self.answering.aside(|| around.tell(chosen, device, promise))?;
            }
        }
        self.answering.aside(|| self.begins(&look, devices, &mut looked_at))?;
        let ever = self.ever(&look, devices, &looked_at)?;
        let to_ns = self.request.to_ns;
        let reports = looked_at.into_iter().zip(ever).map(|(device, ever)| {
            let (promise, found, counts, signal_median) = device.finish();
            let heard_ns = found.heard_ns.or(ever.word_ns);
            // Who is not in service then is neither there nor missed.
            let serves = is_in_service(promise, to_ns);
            let offline = serves && is_offline(promise, heard_ns);
            Found {
                report: QualityReport {
                    offline: u64::from(offline),
                    ..report(promise, found, counts, ever, self.request.gaps)
                },
                signal_median,
                heard_ns,
                online: serves && heard_ns.is_some_and(|heard| !is_silent(promise, heard)),
            }
        });
        Ok(reports.collect())
    }

    /// What is known of devices whose type promises no points at fixed times: when they were heard, and what they say of themselves.
    fn unpromised(&self, def: &TypeDef, devices: &[Chosen]) -> Result<Vec<Found>> {
        if self.health.is_none() {
            return Ok(devices.iter().map(|_| Found::default()).collect());
        }
        let range = (self.request.from_ns, self.request.to_ns);
        let lives = lives(self.answering, def, devices, range, range.0)?;
        let promises: Vec<Promise> = lives
            .into_iter()
            .map(|life| Promise {
                from_ns: range.0,
                to_ns: range.1,
                until_ns: range.1.min(life.end_ns),
                since_ns: life.begin_ns,
                serves: life.begin_ns < range.1 && life.end_ns > range.0,
                edge: Edge::StartClosed,
                interval_ns: 1,
                alive_ns: def.stale_after_ns().unwrap_or(0),
                gap_factor: 1.0,
                maintenance: life.maintenance,
            })
            .collect();
        let assessing: Vec<Assessing<'_>> = promises.iter().map(Assessing::new).collect();
        let mut signals: Vec<Signals<'_>> = devices.iter().map(|_| Signals::of(def, true)).collect();
        if signals.first().is_some_and(Signals::are_told) {
            let visit = |at: usize, value: &[u8]| {
                for block in bucket::blocks(value) {
                    let decoded = signals[at].take(&block.map_err(corrupt)?, &promises[at], &assessing[at]);
                    self.answering.tally.block(decoded.map_err(corrupt)?)?;
                }
                Ok(ControlFlow::Continue(()))
            };
            let until_ns = range.1.saturating_add(1);
            let _ = self.answering.scan(def, devices, range.0, until_ns, visit)?;
        }
        let of: Vec<&Chosen> = devices.iter().collect();
        let newest = self.answering.aside(|| self.answering.newest(def, &of))?;
        let mut found = Vec::with_capacity(devices.len());
        for (at, signals) in signals.into_iter().enumerate() {
            let heard_ns = self.word(def, &devices[at], &newest[at], true)?;
            let is_young = |heard: i64| def.stale_after_ns().is_some() && !is_silent(&promises[at], heard);
            found.push(Found {
                signal_median: signals.median(),
                heard_ns,
                online: is_in_service(&promises[at], range.1) && heard_ns.is_some_and(is_young),
                ..Found::default()
            });
        }
        Ok(found)
    }

    /// The reports, each with the health of its device where that is asked for.
    fn with_health(&self, def: &TypeDef, devices: &[Chosen], found: Vec<Found>) -> Result<Vec<QualityReport>> {
        let Some(request) = self.health else {
            return Ok(found.into_iter().map(|found| found.report).collect());
        };
        let said = || health::said(self.answering, def, devices, request.to_ns);
        let said = self.answering.aside(said)?;
        let with = |(found, said): (Found, Health)| {
            let health = health::of_device(request, said, found.signal_median, found.heard_ns, found.online);
            QualityReport {
                health: Some(health),
                ..found.report
            }
        };
        Ok(found.into_iter().zip(said).map(with).collect())
    }

    /// What each device promises: nothing for the time before and after its life, and under maintenance.
    fn promises(&self, look: &Look<'_>, interval_ns: i64, devices: &[Chosen]) -> Result<Vec<Promise>> {
        let (from, to) = (self.request.from_ns, self.request.to_ns);
        let lives = lives(self.answering, look.def, devices, (from, to), look.assess_from)?;
        let promise = |life: Life| {
            // Whole slots from the begin of the time to another one, which is not before it; that fits (see `check`).
            let slots = |until: i64| (until - from) / interval_ns;
            let begin = match life.begin_ns.min(to) {
                begin if begin > from => from.saturating_add((slots(begin - 1) + 1).saturating_mul(interval_ns)),
                _ => from,
            };
            let end = to.min(life.end_ns);
            Promise {
                from_ns: begin,
                to_ns: (from + slots(end.max(from)) * interval_ns).max(begin),
                until_ns: end,
                since_ns: life.begin_ns,
                serves: life.begin_ns < to && life.end_ns > from,
                edge: look.property.kind.edge(),
                interval_ns,
                alive_ns: alive_ns(look.def, interval_ns),
                gap_factor: match self.request.gap_factor {
                    0.0 => 1.5,
                    factor => factor,
                },
                maintenance: life.maintenance,
            }
        };
        Ok(lives.into_iter().map(promise).collect())
    }

    /// Where gaps begin that lead into the time and began before what was read.
    fn begins(&self, look: &Look<'_>, devices: &[Chosen], looked_at: &mut [Device<'_>]) -> Result<()> {
        let lacking: Vec<usize> = (0..devices.len()).filter(|at| looked_at[*at].lacks_begin()).collect();
        let of: Vec<&Chosen> = lacking.iter().map(|at| &devices[*at]).collect();
        let newest = self.answering.newest(look.def, &of)?;
        let (property, until_ns) = (look.property, look.range.0);
        for (at, newest) in lacking.into_iter().zip(&newest) {
            let newest = newest.iter().find(|value| value.property == property.number);
            // Who never said anything said nothing before.
            let Some(newest) = newest else { continue };
            let stated = (newest.quality, newest.report_kind);
            let good_before = |until_ns: i64| -> Result<Option<i64>> {
                let (answering, chosen) = (self.answering, &devices[at]);
                let found = last_good(answering, look.def, chosen, &[property], until_ns, Sought::Promised)?;
                Ok(found.first().map(|value| value.observed_at))
            };
            let mut begin =
                match newest.observed_at < until_ns && Sought::Promised.takes(property, newest.value(), stated) {
                    true => Some(newest.observed_at),
                    false => good_before(until_ns)?,
                };
            while let Some(until_ns) = begin.and_then(|t_ns| looked_at[at].before_maintenance(t_ns)) {
                begin = good_before(until_ns)?;
            }
            if let Some(t_ns) = begin {
                looked_at[at].began_with(t_ns);
            }
        }
        Ok(())
    }

    /// What is known of devices that showed no point, or were not heard at all, from before.
    fn ever(&self, look: &Look<'_>, devices: &[Chosen], looked_at: &[Device<'_>]) -> Result<Vec<Ever>> {
        let number = look.property.number;
        let silent: Vec<usize> = (0..devices.len())
            .filter(|at| looked_at[*at].silent() != (false, false))
            .collect();
        let silent_devices: Vec<&Chosen> = silent.iter().map(|at| &devices[*at]).collect();
        let newest = self
            .answering
            .aside(|| self.answering.newest(look.def, &silent_devices))?;
        let mut ever = vec![Ever::default(); devices.len()];
        for (at, newest) in silent.into_iter().zip(&newest) {
            let of_property = || newest.iter().filter(|value| value.property == number);
            let is_point =
                |value: &&NewestValue| value.quality != Quality::Missing as u8 && !is_apart(value.report_kind);
            ever[at] = Ever {
                point_ns: of_property().map(|value| value.observed_at).max(),
                last_ns: of_property().filter(is_point).map(|value| value.observed_at).max(),
                word_ns: self.word(look.def, &devices[at], newest, looked_at[at].silent().1)?,
                excusing_ns: match looked_at[at].silent().0 && looked_at[at].has_maintenance() {
                    true => {
                        let of_property = |block: &Block<'_>, to_ns| last_point(block, number, to_ns);
                        self.last_of(look.def, &devices[at], look.assess_from.saturating_sub(1), of_property)?
                    }
                    false => None,
                },
            };
        }
        Ok(ever)
    }

    /// When a device was heard last, not after the time, as its newest values tell; where these may hide it, and `look` says so, its blocks.
    fn word(&self, def: &TypeDef, chosen: &Chosen, newest: &[NewestValue], look: bool) -> Result<Option<i64>> {
        let to_ns = self.request.to_ns;
        let is_word = |value: &&NewestValue| value.report_kind != ReportKind::Test as u8 && value.observed_at <= to_ns;
        let word_ns = newest.iter().filter(is_word).map(|value| value.observed_at).max();
        // A newest value that is no word of the time may have taken the place of one that was.
        let hidden = look && !newest.iter().all(|value| is_word(&value));
        Ok(match hidden {
            true => word_ns.max(self.last_of(def, chosen, to_ns, last_word)?),
            false => word_ns,
        })
    }

    /// What `last` finds in the newest block of a device that has it and begins no later than a time.
    fn last_of(
        &self,
        def: &TypeDef,
        chosen: &Chosen,
        to_ns: i64,
        last: impl Fn(&Block<'_>, i64) -> std::result::Result<Option<i64>, Corrupt>,
    ) -> Result<Option<i64>> {
        let mut found = None;
        let visit = |value: &[u8]| {
            let blocks = bucket::blocks(value).collect::<std::result::Result<Vec<_>, _>>();
            for block in blocks.map_err(corrupt)?.iter().rev() {
                if found.is_none() && block.first_ns() <= to_ns {
                    found = last(block, to_ns).map_err(corrupt)?;
                }
            }
            Ok(match found {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            })
        };
        let range = (i64::MIN, to_ns.saturating_add(1));
        let _ = self
            .answering
            .aside(|| self.answering.scan_back(def, chosen, range, visit))?;
        Ok(found)
    }
}

/// What lies around the time where that tells what is wrong with points in it, as it is looked for wherever these are left out.
struct Around<'a> {
    walk: Walk<'a>,
    look: Look<'a>,
}

impl<'a> Around<'a> {
    fn new(answering: &'a Answering<'a>, look: Look<'a>) -> Around<'a> {
        let property = look.property;
        let choice = match property.checks.rate_per_s {
            // Rates are told from what is not even suspect.
            Some(_) => telling(property),
            None => choice(property, false),
        };
        let walked = vec![Walked { property, choice }];
        let mut walk = Walk::new(answering, look.def, walked, look.range, (0, 0));
        walk.from_ns = look.range.0;
        Around { walk, look }
    }

    /// Tells a device of its neighbours, if they decide; begins it anew where points before what was read do.
    fn tell<'d>(&self, chosen: &Chosen, device: &mut Device<'d>, promise: &'d Promise) -> Result<()>
    where
        'a: 'd,
    {
        let next = |device: &mut Device<'d>| -> Result<()> {
            if device.is_undecided() {
                let points = self.walk.behind(chosen)?;
                points.iter().flatten().for_each(|points| device.neighbours(points));
            }
            Ok(())
        };
        next(device)?;
        if !device.is_unsettled() {
            return Ok(());
        }
        *device = Device::new(promise, self.look);
        let before = self.walk.before(chosen)?;
        before.iter().flatten().for_each(|points| device.neighbours(points));
        let (answering, one) = (self.walk.answering, std::slice::from_ref(chosen));
        let range = self.look.range;
        let _ = answering.scan(self.walk.def, one, range.0, range.1, |_, value| {
            device.take(&answering.tally, value)?;
            Ok(ControlFlow::Continue(()))
        })?;
        next(device)
    }
}

/// When a device was heard last, as far as its newest values tell.
#[derive(Copy, Clone, Default)]
struct Ever {
    /// That of the property, whatever it is.
    point_ns: Option<i64>,
    /// The same, where it is a point.
    last_ns: Option<i64>,
    word_ns: Option<i64>,
    /// The last point before what was looked at, where maintenance may say why there is none in it.
    excusing_ns: Option<i64>,
}

/// How far before a point others tell whether it stands still.
fn looks_back_ns(property: &PropertyDef) -> i64 {
    property.checks.flat.map_or(0, |flat| flat.over_ns)
}

fn alive_ns(def: &TypeDef, interval_ns: i64) -> i64 {
    def.stale_after_ns().unwrap_or(interval_ns.saturating_mul(3))
}

/// What was found of a device.
struct Found {
    report: QualityReport,
    signal_median: Option<f64>,
    heard_ns: Option<i64>,
    /// It was heard shortly before the end of the time.
    online: bool,
}

impl Default for Found {
    /// Of a device that promises nothing.
    fn default() -> Found {
        Found {
            report: QualityReport {
                devices: 1,
                freshness: tidemark_proto::v1::Freshness::NothingPromised as i32,
                ..QualityReport::default()
            },
            signal_median: None,
            heard_ns: None,
            online: false,
        }
    }
}

/// Whether a device is in service at the end of the time.
fn is_in_service(promise: &Promise, to_ns: i64) -> bool {
    promise.since_ns <= to_ns && promise.until_ns == to_ns
}

/// Whether a device that was heard last at a time has been silent for too long.
fn is_silent(promise: &Promise, heard_ns: i64) -> bool {
    promise.until_ns.saturating_sub(heard_ns) > promise.alive_ns
}

/// Whether a device is missed at the end of the time: silent for too long, and for nothing that was declared.
fn is_offline(promise: &Promise, heard_ns: Option<i64>) -> bool {
    let maintenance = &promise.maintenance;
    if maintenance.hold(Edge::StartClosed, promise.until_ns) {
        return false;
    }
    let missed = |heard_ns| maintenance.length_outside(heard_ns, promise.until_ns) > promise.alive_ns;
    heard_ns.is_none_or(missed)
}

/// The report of one device; its means are sums over one.
fn report(promise: &Promise, found: Assessment, counts: Counts, ever: Ever, gaps: bool) -> QualityReport {
    use tidemark_proto::v1::Freshness as Wire;
    let length = found.slots as f64 * promise.interval_ns as f64;
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let until_the_end = |at: &i64| promise.edge.holds(i64::MIN, *at, promise.to_ns);
    let last = found.last_ns.or(ever.last_ns.filter(until_the_end));
    let (freshness, spacing_ratio) = match found.freshness {
        Freshness::AsPromised(ratio) => (Wire::AsPromised, ratio),
        Freshness::Slower(ratio) => (Wire::Slower, ratio),
        Freshness::Stalled => (Wire::Stalled, 0.0),
        Freshness::Never if ever.excusing_ns.is_some_and(|at| promise.excuses(at)) => (Wire::NotAssessable, 0.0),
        // It was heard before, or only behind the time.
        Freshness::Never if ever.point_ns.is_some() => (Wire::Stalled, 0.0),
        Freshness::Never => (Wire::Never, 0.0),
        Freshness::NotAssessable => (Wire::NotAssessable, 0.0),
    };
    let is = |verdict: Wire| u64::from(freshness == verdict);
    let wire = |gap: &tidemark_series::assess::Gap| tidemark_proto::v1::Gap {
        from_ns: gap.from_ns,
        to_ns: gap.to_ns,
        missing: gap.missing,
        open: gap.open,
    };
    QualityReport {
        devices: 1,
        devices_assessed: u64::from(found.slots > 0),
        slots_expected: found.slots,
        slots_filled: found.filled,
        completeness_mean: share(found.filled as f64, found.slots as f64),
        points: found.points,
        points_timed: found.timed,
        points_in_time: found.in_time,
        points_fail: counts.fail,
        points_suspect: counts.suspect,
        duplicates: counts.repeats,
        availability_mean: share(found.alive_ns as f64, length),
        as_promised: is(Wire::AsPromised),
        slower: is(Wire::Slower),
        stalled: is(Wire::Stalled),
        never: is(Wire::Never),
        not_assessable: is(Wire::NotAssessable),
        under_maintenance: u64::from(promise.maintenance.hold(Edge::StartClosed, promise.until_ns)),
        freshness: freshness as i32,
        spacing_ratio,
        last_observed_at_ns: last.unwrap_or(0),
        gaps: match gaps {
            true => found.gaps.iter().map(wire).collect(),
            false => Vec::new(),
        },
        ..QualityReport::default()
    }
}
