//! The coordinator: which shards a question goes to, and how their answers read.
//!
//! Never here: how a question passes its shards (see `passing`). Invariant: the weakest consistency of its shards is what an
//! answer claims.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemark_proto::encoded::GetLatestResponse;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{Position, ShardDevices};
use tidemark_proto::v1::{
    AnswerSummary, Consistency, ConsistencyLevel, GetLatestRequest, ListDevicesRequest, ListDevicesResponse,
    QueryAggregateRequest, QueryAggregateResponse, QueryRangeRequest, QueryRangeResponse, Selector, consistency,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::asked::points_max;
use super::functions::functions;
use super::held::Held;
use super::merge::Merge;
use super::series::check_budget;
use super::terms::{Caller, HasTerms as _, Terms};
use super::{calendar, fill, filter, known, plan};
use crate::catalog::Catalog;
use crate::clock::monotonic;
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::metrics::{Metrics, Present};
use crate::route::{Admitted, Asker, Meter, Router, ShardJob};
use crate::wire::cursor::CursorKey;
use crate::wire::registry::check_selector;

const CATALOG_WAIT: std::time::Duration = std::time::Duration::from_millis(600);

/// A streamed answer.
pub type Answers<M> = mpsc::Receiver<Result<M>>;

/// The query path of a node.
pub struct Queries {
    router: Arc<Router>,
    limits: Arc<Limits>,
    job: ShardJob,
    permits: Arc<Semaphore>,
}

/// Where a question goes: shards in order, each with its part of the selector.
type Targets = Vec<(u32, Selector)>;

impl Queries {
    /// A query path over a router.
    pub fn new(router: Arc<Router>, limits: Arc<Limits>, job: ShardJob) -> Queries {
        let permits = Arc::new(Semaphore::new(limits.queries_max));
        Queries {
            router,
            limits,
            job,
            permits,
        }
    }

    /// Raw records.
    pub async fn range(&self, request: QueryRangeRequest, caller: &Caller) -> Result<Answers<QueryRangeResponse>> {
        plan::check_range(request.from_ns, request.to_ns)?;
        filter::check(&request)?;
        let start = self
            .begin(caller, request.selector.as_ref(), true, request.consistency.as_ref())
            .await?
            .on(Terms {
                test_points: request.test_points,
                ..request.terms(caller.deadline)
            })?;
        start.check_properties(&request.properties)?;
        let limit = request.limit;
        let ask = move |selector, limit| {
            Query::Range(QueryRangeRequest {
                selector: Some(selector),
                limit,
                ..request.clone()
            })
        };
        let translate = each(|part| match part {
            Part::Batch(batch) => {
                let message = QueryRangeResponse {
                    batch: Some(batch),
                    summary: None,
                };
                let rows = message.batch.as_ref().map_or(0, |batch| batch.observed_at_ns.len());
                Ok((rows as u64, message))
            }
            other => Err(unexpected(&other)),
        });
        Ok(start
            .stream(
                limit,
                ask,
                translate,
                |_| Ok(Vec::new()),
                |summary| QueryRangeResponse {
                    batch: None,
                    summary: Some(summary),
                },
            )
            .await)
    }

    /// Newest values.
    pub async fn latest(&self, request: GetLatestRequest, caller: &Caller) -> Result<Answers<GetLatestResponse>> {
        if request.stale_after_ms < 0 {
            return Err(Error::new(Reason::InvalidValue, "stale_after_ms is negative").field("stale_after_ms"));
        }
        let start = self
            .begin(caller, request.selector.as_ref(), true, request.consistency.as_ref())
            .await?
            .on(Terms {
                test_points: request.test_points,
                ..request.terms(caller.deadline)
            })?;
        start.check_properties(&request.properties)?;
        let limit = request.limit;
        let evaluated_at_ns = match request.at_ns {
            0 => known::present_ns(request.known_at_ns),
            at => at,
        };
        let ask = move |selector, limit| {
            Query::Latest(GetLatestRequest {
                selector: Some(selector),
                limit,
                ..request.clone()
            })
        };
        let translate = each(move |part| match part {
            Part::Latest(latest) => {
                let message = GetLatestResponse {
                    devices: latest.devices,
                    evaluated_at_ns,
                    summary: None,
                };
                Ok((message.devices.len() as u64, message))
            }
            other => Err(unexpected(&other)),
        });
        let last = move |summary| GetLatestResponse {
            devices: Vec::new(),
            evaluated_at_ns,
            summary: Some(summary),
        };
        Ok(start.stream(limit, ask, translate, |_| Ok(Vec::new()), last).await)
    }

    /// Devices.
    pub async fn devices(&self, request: ListDevicesRequest, caller: &Caller) -> Result<Answers<ListDevicesResponse>> {
        let start = self
            .begin(caller, request.selector.as_ref(), false, request.consistency.as_ref())
            .await?
            .on(request.terms(caller.deadline))?;
        let (limit, explain) = (request.limit, request.explain);
        let ask = move |selector, limit| {
            Query::Devices(ShardDevices {
                selector: Some(selector),
                limit,
                explain,
                ..ShardDevices::default()
            })
        };
        let translate = each(|part| match part {
            Part::Devices(mut list) => {
                list.devices.sort_by(|a, b| a.id.cmp(&b.id));
                let message = ListDevicesResponse {
                    devices: list.devices,
                    summary: None,
                };
                Ok((message.devices.len() as u64, message))
            }
            other => Err(unexpected(&other)),
        });
        let last = |summary| ListDevicesResponse {
            devices: Vec::new(),
            summary: Some(summary),
        };
        Ok(start.stream(limit, ask, translate, |_| Ok(Vec::new()), last).await)
    }

    /// Aggregates over windows.
    pub async fn aggregate(
        &self,
        request: QueryAggregateRequest,
        caller: &Caller,
    ) -> Result<Answers<QueryAggregateResponse>> {
        let request = calendar::with_borders(request, &self.limits)?;
        plan::check_aggregate(&request, &self.limits)?;
        let start = self
            .begin(caller, request.selector.as_ref(), true, request.consistency.as_ref())
            .await?
            .on(request.terms(caller.deadline))?;
        if !start.selector.device_type.is_empty() {
            let def = start.catalog.device_type(&start.selector.device_type)?;
            let functions = functions(&request)?;
            for property in plan::aggregate_properties(def, &request, &functions)? {
                functions
                    .iter()
                    .try_for_each(|asked| asked.columns(&request, property).map(drop))?;
            }
        }
        let merge = Arc::new(std::sync::Mutex::new(Some(Merge::new(request.clone())?)));
        let (catalog, most) = (start.catalog.clone(), self.limits.partials_bytes_max);
        let ask = move |selector, _| {
            Query::Aggregate(QueryAggregateRequest {
                selector: Some(selector),
                ..request.clone()
            })
        };
        let message = |series: Vec<_>| QueryAggregateResponse { series, summary: None };
        let (taking, known, mut held) = (merge.clone(), catalog.clone(), start.held());
        let translate = move |parts: Vec<Part>| {
            let mut merge = taking.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let merge = merge
                .as_mut()
                .ok_or_else(|| Error::internal("a series after the end"))?;
            let mut finished = Vec::new();
            let mut bytes = 0;
            for part in parts {
                let Part::Partials(partials) = part else {
                    return Err(unexpected(&part));
                };
                let taken = merge.take(partials, &known, most)?;
                bytes += taken.as_ref().map_or(0, fill::bytes_of);
                check_budget(bytes, most)?;
                finished.extend(taken);
            }
            held.is_now(merge.bytes())?;
            let rows = finished.len() as u64;
            Ok((rows, fill::in_messages(finished).into_iter().map(message).collect()))
        };
        let finish = move |summary: &mut AnswerSummary| {
            let merge = merge.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            let groups = merge.map_or(Ok(Vec::new()), |merge| merge.finish_rest(&catalog))?;
            summary.rows += groups.len() as u64;
            let chunks = groups.chunks(256).flat_map(|some| fill::in_messages(some.to_vec()));
            Ok(chunks.map(message).collect())
        };
        let last = |summary| QueryAggregateResponse {
            series: Vec::new(),
            summary: Some(summary),
        };
        Ok(start.stream(0, ask, translate, finish, last).await)
    }

    /// Limits of this node.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Admission, the checked selector, and the shards it concerns.
    pub(super) async fn begin(
        &self,
        caller: &Caller,
        selector: Option<&Selector>,
        required: bool,
        wanted: Option<&Consistency>,
    ) -> Result<Start> {
        let permit = self.permits.clone().try_acquire_owned();
        let permit =
            permit.map_err(|_| Error::new(Reason::Overloaded, "this node answers as many queries as it may"))?;
        let application = self.router.applications().named(&caller.application);
        let admitted = application.admit()?;
        let selector = check_selector(selector, required, &self.limits)?;
        let metrics = self.router.host().metrics().clone();
        let consistency = wanted.copied().unwrap_or_default();
        if let Some(consistency::Level::Bounded(bounded)) = &consistency.level
            && bounded.max_lag_ms < 0
        {
            return Err(
                Error::new(Reason::InvalidValue, "max_lag_ms is negative").field("consistency.bounded.max_lag_ms")
            );
        }
        let catalog = self.catalog_that_knows(&selector).await?;
        Ok(Start {
            router: self.router.clone(),
            job: self.job.clone(),
            limits: self.limits.clone(),
            asker: Asker::uncounted(application, monotonic() + self.limits.query_timeout()),
            targets: targets(&catalog, &selector),
            key: CursorKey::of_cluster(&catalog.state().secret, &catalog.state().cluster_id),
            selector,
            consistency,
            catalog,
            terms: Terms::default(),
            after: None,
            spent: nothing_yet(),
            _running: Arc::new(Present::new(metrics, |metrics| &metrics.queries_running)),
            _permit: Arc::new(permit),
            _admitted: Arc::new(admitted),
        })
    }

    /// Checks the selector of a further side of a question, whose type has to be known from then on.
    pub(super) async fn take_in(&self, start: &mut Start, selector: Option<&Selector>) -> Result<Selector> {
        let selector = check_selector(selector, true, &self.limits)?;
        start.catalog = self.catalog_that_knows(&selector).await?;
        Ok(selector)
    }

    /// The catalog, newer where a selector names a type that is not known here yet.
    async fn catalog_that_knows(&self, selector: &Selector) -> Result<Arc<Catalog>> {
        let catalog = self.router.host().catalog()?;
        if selector.device_type.is_empty() || catalog.device_type(&selector.device_type).is_ok() {
            return Ok(catalog);
        }
        self.router.catch_up_catalog(CATALOG_WAIT).await;
        let catalog = self.router.host().catalog()?;
        catalog
            .device_type(&selector.device_type)
            .map_err(|e| e.field("selector.device_type"))?;
        Ok(catalog)
    }
}

/// What an answer begins with.
fn nothing_yet() -> AnswerSummary {
    AnswerSummary {
        consistency: ConsistencyLevel::Linearizable as i32,
        ..AnswerSummary::default()
    }
}

/// A message of a question that is asked beside another one.
enum Beside {
    Part(Part),
    Last(AnswerSummary),
}

/// Shards that a selector concerns.
pub fn targets(catalog: &Catalog, selector: &Selector) -> Vec<(u32, Selector)> {
    if selector.device_ids.is_empty() {
        return catalog
            .data_shards()
            .map(|shard| (shard.id, selector.clone()))
            .collect();
    }
    let mut by_shard: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for id in &selector.device_ids {
        by_shard.entry(catalog.shard_of(id)).or_default().push(id.clone());
    }
    let part = |(shard, device_ids)| {
        (
            shard,
            Selector {
                device_ids,
                ..selector.clone()
            },
        )
    };
    by_shard.into_iter().map(part).collect()
}

pub(super) fn unexpected(part: &Part) -> Error {
    let shown: String = format!("{part:?}").chars().take(60).collect();
    Error::internal(format!("unexpected part of an answer: {shown}"))
}

/// A query that was admitted and planned.
pub(super) struct Start {
    pub(super) router: Arc<Router>,
    pub(super) job: ShardJob,
    pub(super) limits: Arc<Limits>,
    pub(super) asker: Asker,
    pub(super) targets: Targets,
    pub(super) key: CursorKey,
    selector: Selector,
    pub(super) consistency: Consistency,
    catalog: Arc<Catalog>,
    pub(super) terms: Terms,
    /// Where the page begins; `None`: at the beginning.
    pub(super) after: Option<Position>,
    /// What questions beside this one have cost so far, how fresh their answers were.
    pub(super) spent: AnswerSummary,
    _running: Arc<Present>,
    _permit: Arc<OwnedSemaphorePermit>,
    _admitted: Arc<Admitted>,
}

impl Start {
    /// What the coordinator holds of the answer: nothing yet.
    pub(super) fn held(&self) -> Held {
        Held::new(self.router.host().metrics().clone(), self.asker.application.clone())
    }

    /// The catalog that the question was planned with.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The checked selector.
    pub(super) fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Where the node shows what it does.
    pub(super) fn metrics(&self) -> Arc<Metrics> {
        self.router.host().metrics().clone()
    }

    /// Asks other devices beside this question, on its admission, in its time and from its budgets, and gives `take` every part of what
    /// they answer: all of it, or of devices `limit` at most.
    pub(super) async fn beside(
        &mut self,
        selector: &Selector,
        limit: u64,
        ask: impl Fn(Selector, u64) -> Query + Send + Sync + 'static,
        take: impl FnMut(Part) -> Result<()>,
    ) -> Result<()> {
        let other = Start {
            targets: targets(&self.catalog, selector),
            selector: selector.clone(),
            terms: Terms {
                points_max: self.terms.points_max,
                explain: self.terms.explain,
                ..Terms::default()
            },
            after: None,
            ..self.again()
        };
        let rows = |part: &Part| match part {
            Part::Devices(list) => list.devices.len(),
            _ => 0,
        };
        self.spend(&other.gather(limit, ask, rows, take).await?);
        Ok(())
    }

    /// Asks for the records of this question's page, before it is answered: gives `take` every part of them, and says how the page ends.
    pub(super) async fn page(
        &mut self,
        limit: u64,
        ask: impl Fn(Selector, u64) -> Query + Send + Sync + 'static,
        take: impl FnMut(Part) -> Result<()>,
    ) -> Result<AnswerSummary> {
        let rows = |part: &Part| match part {
            Part::Batch(batch) => batch.observed_at_ns.len(),
            _ => 0,
        };
        let summary = self.again().gather(limit, ask, rows, take).await?;
        self.spend(&summary);
        Ok(summary)
    }

    /// The same question once more, on the same admission.
    fn again(&self) -> Start {
        Start {
            router: self.router.clone(),
            job: self.job.clone(),
            limits: self.limits.clone(),
            asker: self.asker.clone(),
            targets: self.targets.clone(),
            key: self.key.clone(),
            selector: self.selector.clone(),
            consistency: self.consistency,
            catalog: self.catalog.clone(),
            terms: self.terms.clone(),
            after: self.after.clone(),
            spent: self.spent.clone(),
            _running: self._running.clone(),
            _permit: self._permit.clone(),
            _admitted: self._admitted.clone(),
        }
    }

    /// Remembers what was asked beside, and what it cost.
    fn spend(&mut self, summary: &AnswerSummary) {
        self.spent = AnswerSummary {
            devices: 0,
            rows: 0,
            limited: false,
            cut_short: None,
            next_cursor: Default::default(),
            ..summary.clone()
        };
    }

    /// Gives `take` every part of an answer; says how it ended.
    async fn gather(
        self,
        limit: u64,
        ask: impl Fn(Selector, u64) -> Query + Send + Sync + 'static,
        rows: impl Fn(&Part) -> usize + Send + 'static,
        mut take: impl FnMut(Part) -> Result<()>,
    ) -> Result<AnswerSummary> {
        let translate = each(move |part| Ok((rows(&part) as u64, Beside::Part(part))));
        let mut answer = self
            .stream(limit, ask, translate, |_| Ok(Vec::new()), Beside::Last)
            .await;
        while let Some(message) = answer.recv().await {
            match message? {
                Beside::Part(part) => take(part)?,
                Beside::Last(summary) => return Ok(summary),
            }
        }
        Err(Error::new(Reason::Unreachable, "an answer broke off"))
    }

    /// On other terms than those of a node: what the client allows, and from where its cursor points to.
    pub(super) fn on(mut self, terms: Terms) -> Result<Start> {
        known::check(terms.known_at_ns)?;
        if let Some(deadline) = terms.deadline {
            self.asker.deadline = self.asker.deadline.min(deadline);
        }
        let most = points_max(terms.points_max, &self.limits);
        self.asker.meter = Some(Arc::new(Meter::new(most, self.asker.application.clone())));
        let pages = terms.pages.as_ref();
        let after = pages
            .map(|pages| pages.begin(&self.key, self.limits.cursor_age_ms_max))
            .transpose()?;
        self.after = after.flatten();
        if let Some(after) = &self.after {
            self.targets.retain(|(shard, _)| *shard >= after.shard);
        }
        self.terms = terms;
        Ok(self)
    }

    /// Refuses unknown properties before any shard is asked, where the selector names the type.
    pub(super) fn check_properties(&self, properties: &[String]) -> Result<()> {
        match self.selector.device_type.as_str() {
            "" => Ok(()),
            device_type => self.catalog.device_type(device_type)?.choose(properties).map(drop),
        }
    }
}

/// Translates part by part.
pub(super) fn each<M>(
    translate: impl Fn(Part) -> Result<(u64, M)> + Send + 'static,
) -> impl FnMut(Vec<Part>) -> Result<(u64, Vec<M>)> + Send + 'static {
    move |parts| {
        let mut translated = (0, Vec::with_capacity(parts.len()));
        for part in parts {
            let (rows, message) = translate(part)?;
            translated.0 += rows;
            translated.1.push(message);
        }
        Ok(translated)
    }
}
