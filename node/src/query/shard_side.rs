//! One shard's part of a question, answered from one replica's state. Blocking; runs off the async threads.
//!
//! Invariant: parts are bounded in size, and work stops at the next part when nobody listens.

use std::ops::ControlFlow;
use std::sync::Arc;

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{DeviceList, Resolved, ShardDevices, ShardResolve};
use tidemark_proto::v1::{AnswerSummary, Explain, Selector, ShardWork, TagMatcher};

use super::asked::{Asked, position};
use super::known::Known;
use super::sealed::Concerned;
use super::tally::Tally;
use super::{aggregate, alerts, count, health, intervals, join_shard, latest, quality, range};
use crate::catalog::Catalog;
use crate::catalog::types::TypeDef;
use crate::clock::monotonic;
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::metrics::{Metrics, Present};
use crate::raft::host::Host;
use crate::raft::replica::Replica;
use crate::raft::state::store_error;
use crate::route::{Hearing, ShardJob};
use crate::shard::{DeviceFilter, Roster, Shard, test_lane};
use crate::wire::registry::area;

const DEVICES_PER_PART: usize = 500;
const DEVICES_PER_RUN: usize = 256;

/// A shard, the catalog it is read with, and where its answer goes.
pub(super) struct Answering<'a> {
    pub(super) shard: &'a Shard,
    pub(super) catalog: &'a Catalog,
    pub(super) limits: &'a Limits,
    pub(super) metrics: &'a Metrics,
    pub(super) tally: Tally<'a>,
    pub(super) concerned: Concerned,
    /// Where only some points may take part.
    pub(super) known: Option<Known>,
    /// Only points of report kind test are asked for; else none of them are.
    pub(super) tests: bool,
    hearing: &'a dyn Hearing,
}

/// Where an answer goes on: devices before this one were given already, and it too unless it is to come again.
#[derive(Copy, Clone, Debug)]
pub(super) struct Begin<'a> {
    pub(super) device: &'a str,
    pub(super) with: bool,
}

/// A device that a selector matched, with its type.
#[derive(Clone)]
pub(super) struct Chosen {
    roster: Arc<Roster>,
    at: usize,
    pub(super) def: Arc<TypeDef>,
}

impl Chosen {
    pub(super) fn id(&self) -> &str {
        self.roster.id(self.at)
    }

    pub(super) fn ordinal(&self) -> u32 {
        self.roster.ordinal(self.at)
    }

    /// The device's value of a tag; known only where [`Wanted::Tags`] was asked for, or no ids were.
    pub(super) fn tag(&self, key: &str) -> Option<&str> {
        self.roster.tag(self.at, key)
    }

    /// Whether the device is, was or will be under declared maintenance at a time. Known as tags are.
    pub(super) fn in_maintenance(&self, t_ns: i64) -> bool {
        self.roster.in_maintenance(self.at, t_ns)
    }
}

/// What of a device is looked at beside id and type.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Nothing,
    Tags,
}

/// The job that answers every kind of question.
pub fn shard_job(host: Arc<Host>, limits: Arc<Limits>) -> ShardJob {
    Arc::new(move |replica: &Replica, query: &Query, hearing: &dyn Hearing| {
        let catalog = host.catalog()?;
        let metrics = host.metrics();
        let _running = Present::new(metrics.clone(), |metrics| &metrics.shard_reads_running);
        let (asked, began) = (Asked::of(query), monotonic());
        replica.state().with_shard(|shard| {
            let points_max = asked.points_max(&limits);
            let answering = Answering {
                shard,
                catalog: &catalog,
                limits: &limits,
                metrics,
                tally: Tally::new(
                    points_max,
                    limits.partials_bytes_max,
                    &metrics.query_bytes_held,
                    hearing,
                ),
                concerned: Concerned::default(),
                known: Known::of(query),
                tests: asked.tests,
                hearing,
            };
            let summary = match query {
                Query::Resolve(resolve) => answering.resolve(resolve),
                Query::Devices(devices) => answering.devices(devices),
                Query::Range(request) => range::answer(&answering, request, &asked),
                Query::Aggregate(request) => aggregate::answer(&answering, request, &asked),
                Query::Latest(request) => latest::answer(&answering, request, &asked),
                Query::Intervals(request) => intervals::answer(&answering, request, &asked),
                Query::Quality(request) => quality::answer(&answering, request, &asked),
                Query::Count(request) => count::answer(&answering, request),
                Query::Alerts(request) => alerts::answer(&answering, request, &asked),
                Query::Health(request) => health::answer(&answering, request, &asked),
                Query::Join(request) => join_shard::answer(&answering, request),
            }?;
            let mut summary = AnswerSummary {
                points_read: answering.tally.points(),
                sealed: answering.concerned.sealed(shard),
                test_points: asked.tests,
                ..summary
            };
            if let Some(known) = &answering.known {
                known.label(&mut summary);
            }
            if asked.explain {
                let shard_work = ShardWork {
                    work: Some(answering.tally.work(summary.devices)),
                    took_us: i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX),
                    ..ShardWork::default()
                };
                summary.explain = Some(Explain {
                    shards: vec![shard_work],
                    ..Explain::default()
                });
            }
            Ok(summary)
        })
    })
}

impl Answering<'_> {
    /// The number under which the points of a type that are asked for are stored.
    pub(super) fn number(&self, def: &TypeDef) -> u32 {
        match self.tests {
            true => test_lane(def.number()),
            false => def.number(),
        }
    }

    /// Notes that points of a type are asked for that may be gone for their age with rollups left. (Of test points there are none.)
    pub(super) fn concern(&self, def: &TypeDef, range: (i64, i64)) {
        if !self.tests {
            self.concerned.note(def, range, 0);
        }
    }

    /// Hands a part on; breaks when nobody listens any more.
    pub(super) fn send(&self, part: Part) -> ControlFlow<()> {
        match self.hearing.take(part) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    /// Whether whoever asks takes series of single devices finished.
    pub(super) fn takes_finished(&self) -> bool {
        self.hearing.asker().takes_finished
    }

    /// Counts a bucket value that was read.
    pub(super) fn read(&self, value: &[u8]) -> Result<()> {
        self.tally.bucket(value.len());
        self.listened_to()
    }

    /// Work for nobody ends here.
    pub(super) fn listened_to(&self) -> Result<()> {
        match self.hearing.is_there() {
            true => Ok(()),
            false => Err(Error::new(Reason::Unreachable, "nobody listens any more")),
        }
    }

    /// Ends an answer whose devices were visited: as cut short, where the failure is that of a budget and it may be.
    pub(super) fn ended(
        &self,
        visited: Result<ControlFlow<()>>,
        asked: &Asked,
        summary: &mut AnswerSummary,
    ) -> Result<ControlFlow<()>> {
        match visited {
            Err(error) => {
                summary.cut_short = Some(asked.cut_short(&error, self.limits).ok_or(error)?);
                Ok(ControlFlow::Continue(()))
            }
            visited => visited,
        }
    }

    /// Visits the bucket values of devices of one type that can hold points of a range, as far as these were known, each with the
    /// position of its device; those of one device come oldest first.
    pub(super) fn scan(
        &self,
        def: &TypeDef,
        devices: &[Chosen],
        from_ns: i64,
        to_ns: i64,
        mut visit: impl FnMut(usize, &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let ordinals: Vec<u32> = devices.iter().map(Chosen::ordinal).collect();
        let (number, span_ns) = (self.number(def), def.bucket_span_ns);
        let scanned = self
            .shard
            .scan_devices(number, &ordinals, span_ns, from_ns, to_ns, |at, value| {
                let visit = |known: &[u8]| visit(at, known);
                passed(
                    self.read(value)
                        .and_then(|()| self.known_of(value, (from_ns, to_ns), visit)),
                )
            });
        outcome(scanned.map_err(store_error)?)
    }

    /// The same for one device, newest first.
    pub(super) fn scan_back(
        &self,
        def: &TypeDef,
        chosen: &Chosen,
        range: (i64, i64),
        mut visit: impl FnMut(&[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let device = (self.number(def), chosen.ordinal());
        let visit = |value: &[u8]| {
            let known = self.read(value).and_then(|()| self.known_of(value, range, &mut visit));
            passed(known)
        };
        let scanned = self.shard.scan_device_back(device, def.bucket_span_ns, range, visit);
        outcome(scanned.map_err(store_error)?)
    }

    /// Visits matching devices in runs of one type, so that a run shares properties and batches.
    pub(super) fn each_run(
        &self,
        selector: &Selector,
        wanted: Wanted,
        visit: impl FnMut(&[Chosen]) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        self.each_run_from(selector, wanted, None, visit)
    }

    /// The same from a device on.
    pub(super) fn each_run_from(
        &self,
        selector: &Selector,
        wanted: Wanted,
        begin: Option<Begin<'_>>,
        mut visit: impl FnMut(&[Chosen]) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let mut run: Vec<Chosen> = Vec::new();
        let flow = self.each_device(selector, wanted, begin, |chosen| {
            let other_type = run.first().is_some_and(|first| !Arc::ptr_eq(&first.def, &chosen.def));
            if other_type || run.len() == DEVICES_PER_RUN {
                let flow = passed(visit(&std::mem::take(&mut run)));
                if flow.is_break() {
                    return flow;
                }
            }
            run.push(chosen);
            ControlFlow::Continue(())
        })?;
        match flow {
            ControlFlow::Continue(()) if run.is_empty() => Ok(ControlFlow::Continue(())),
            ControlFlow::Continue(()) => visit(&run),
            stopped => outcome(stopped),
        }
    }

    fn resolve(&self, resolve: &ShardResolve) -> Result<AnswerSummary> {
        let known = self.shard.resolve(&resolve.ids).map_err(store_error)?;
        let mut resolved = Resolved::default();
        for known in known {
            let (type_number, ordinal) = known.unwrap_or((0, 0));
            resolved.type_numbers.push(type_number);
            resolved.ordinals.push(ordinal);
        }
        if resolve.seal_of_type != 0 {
            let before_ns = self.shard.sealed_before(resolve.seal_of_type);
            resolved.sealed_before_ns = Some(before_ns.unwrap_or(i64::MIN));
        }
        let _ = self.send(Part::Resolved(resolved));
        Ok(AnswerSummary::default())
    }

    fn devices(&self, request: &ShardDevices) -> Result<AnswerSummary> {
        let selector = request.selector.clone().unwrap_or_default();
        let limit = if request.limit == 0 { u64::MAX } else { request.limit };
        let mut summary = AnswerSummary::default();
        let mut part = DeviceList::default();
        let mut filter = self.filter(&selector)?;
        self.known(&selector.device_ids)?;
        if let Some(after) = position(&request.after)? {
            let begin = Begin {
                device: &after.device,
                with: false,
            };
            if !self.begin_at(&mut filter, begin)? {
                return Ok(summary);
            }
        }
        let mut types = Types::new(self.catalog);
        let flow = self.shard.devices(&filter, |stored| {
            if types.find(stored.type_number).is_none() {
                return ControlFlow::Continue(());
            }
            if summary.devices == limit {
                summary.limited = true;
                return ControlFlow::Break(());
            }
            summary.devices += 1;
            part.devices.extend(stored.device.clone());
            if part.devices.len() < DEVICES_PER_PART {
                return ControlFlow::Continue(());
            }
            self.send(Part::Devices(std::mem::take(&mut part)))
        });
        types.check()?;
        let flow = flow.map_err(store_error)?;
        if !part.devices.is_empty() && (flow.is_continue() || summary.limited) {
            let _ = self.send(Part::Devices(part));
        }
        Ok(AnswerSummary {
            rows: summary.devices,
            ..summary
        })
    }

    /// Visits every device of this shard that a selector matches. An id that is not registered here is an error.
    fn each_device<B>(
        &self,
        selector: &Selector,
        wanted: Wanted,
        begin: Option<Begin<'_>>,
        mut visit: impl FnMut(Chosen) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let mut filter = self.filter(selector)?;
        if let Some(begin) = begin
            && !self.begin_at(&mut filter, begin)?
        {
            return Ok(ControlFlow::Continue(()));
        }
        let mut types = Types::new(self.catalog);
        let mut choose = |roster: &Arc<Roster>, at: usize| match types.find(roster.type_number(at)) {
            Some(def) => visit(Chosen {
                roster: roster.clone(),
                at,
                def: def.clone(),
            }),
            None => ControlFlow::Continue(()),
        };
        let flow = match selector.device_ids.is_empty() {
            true => self.shard.select(&filter, &mut choose).map_err(store_error),
            false => self.each_id(&filter, wanted, &mut choose),
        };
        types.check()?;
        flow
    }

    /// Devices by id, which must all be registered, ascending by id.
    fn each_id<B>(
        &self,
        filter: &DeviceFilter,
        wanted: Wanted,
        choose: &mut impl FnMut(&Arc<Roster>, usize) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let known = self.known(&filter.ids)?;
        let mut known: Vec<_> = filter.ids.iter().map(String::as_str).zip(known).collect();
        known.sort_unstable();
        known.dedup();
        let with_tags = wanted == Wanted::Tags || filter.looks_at_details();
        for known in known.chunks(DEVICES_PER_RUN) {
            let roster = self.shard.roster_of(known, with_tags).map_err(store_error)?;
            let roster = Arc::new(roster);
            for at in roster.filtered(filter) {
                if let ControlFlow::Break(with) = choose(&roster, at) {
                    return Ok(ControlFlow::Break(with));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Lets a filter begin at a device; false where nothing is left of it.
    fn begin_at(&self, filter: &mut DeviceFilter, begin: Begin<'_>) -> Result<bool> {
        if !filter.ids.is_empty() {
            let left = |id: &String| match begin.with {
                true => id.as_str() >= begin.device,
                false => id.as_str() > begin.device,
            };
            filter.ids.retain(left);
            return Ok(!filter.ids.is_empty());
        }
        let known = self.shard.resolve(&[begin.device]).map_err(store_error)?;
        let known = known.into_iter().flatten().next();
        let (_, ordinal) = known.ok_or_else(|| {
            let message = format!("device {:?} of the cursor is not known here yet", begin.device);
            Error::new(Reason::TooStale, message)
        })?;
        filter.from_ordinal = if begin.with { ordinal } else { ordinal.saturating_add(1) };
        Ok(true)
    }

    fn filter(&self, selector: &Selector) -> Result<DeviceFilter> {
        device_filter(self.catalog, selector)
    }

    /// Type and ordinal of each id; an error names the first one that is not registered here.
    fn known(&self, ids: &[String]) -> Result<Vec<(u32, u32)>> {
        let found = self.shard.resolve(ids).map_err(store_error)?;
        let known = |(id, known): (&String, Option<(u32, u32)>)| {
            known.ok_or_else(|| {
                Error::new(Reason::UnknownDevice, format!("no device {id:?}")).field("selector.device_ids")
            })
        };
        ids.iter().zip(found).map(known).collect()
    }
}

/// A selector in the numbers of the catalog.
///
/// # Errors
/// `TOO_STALE` for a type that is not known here: whoever asks a shard knows that there is one.
pub(crate) fn device_filter(catalog: &Catalog, selector: &Selector) -> Result<DeviceFilter> {
    let type_number = match selector.device_type.as_str() {
        "" => None,
        id => Some(catalog.type_known_elsewhere(id)?.number()),
    };
    let tag = |tag: &TagMatcher| (tag.key.clone(), tag.values.clone());
    let nested = |selectors: &[Selector]| -> Result<Vec<DeviceFilter>> {
        selectors
            .iter()
            .map(|selector| device_filter(catalog, selector))
            .collect()
    };
    Ok(DeviceFilter {
        ids: selector.device_ids.clone(),
        type_number,
        tags: selector.tags.iter().map(tag).collect(),
        area: selector.area.as_ref().and_then(area),
        any_of: nested(&selector.any_of)?,
        none_of: nested(&selector.none_of)?,
        from_ordinal: 0,
    })
}

/// A visitor's answer, for a scan that knows nothing of errors.
pub(super) fn passed(visited: Result<ControlFlow<()>>) -> ControlFlow<Option<Error>> {
    match visited {
        Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
        Ok(ControlFlow::Break(())) => ControlFlow::Break(None),
        Err(error) => ControlFlow::Break(Some(error)),
    }
}

/// What became of a scan of which each visit was [`passed`].
pub(super) fn outcome(scanned: ControlFlow<Option<Error>>) -> Result<ControlFlow<()>> {
    match scanned {
        ControlFlow::Continue(()) => Ok(ControlFlow::Continue(())),
        ControlFlow::Break(None) => Ok(ControlFlow::Break(())),
        ControlFlow::Break(Some(error)) => Err(error),
    }
}

/// Types of devices by number, the last one at hand.
struct Types<'a> {
    catalog: &'a Catalog,
    last: Option<&'a Arc<TypeDef>>,
    unknown: Option<u32>,
}

impl<'a> Types<'a> {
    fn new(catalog: &'a Catalog) -> Self {
        Types {
            catalog,
            last: None,
            unknown: None,
        }
    }

    /// The type of a number; one that the catalog does not know yet is remembered.
    fn find(&mut self, number: u32) -> Option<&'a Arc<TypeDef>> {
        if self.last.is_none_or(|last| last.number() != number) {
            self.last = self.catalog.type_by_number(number);
        }
        if self.last.is_none() {
            self.unknown = Some(number);
        }
        self.last
    }

    fn check(&self) -> Result<()> {
        match self.unknown {
            Some(number) => Err(Error::new(
                Reason::TooStale,
                format!("type number {number} is not known here yet"),
            )),
            None => Ok(()),
        }
    }
}

/// Passes a decoding failure out of a visitor.
pub(super) fn corrupt(e: tidemark_series::Corrupt) -> Error {
    Error::new(Reason::Corruption, e.to_string())
}
