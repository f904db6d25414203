//! The coordinator: which shards a question goes to, and their answers as one stream.
//!
//! Invariant: every answer that ends well ends with a summary; the weakest consistency of its shards is what it claims.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tidemark_proto::peer::ShardDevices;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{
    AnswerSummary, Consistency, ConsistencyLevel, GetLatestRequest, GetLatestResponse, ListDevicesRequest,
    ListDevicesResponse, QueryAggregateRequest, QueryAggregateResponse, QueryRangeRequest, QueryRangeResponse,
    Selector, consistency,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::functions::functions;
use super::merge::Merge;
use super::series::check_budget;
use super::{calendar, fill, near, plan};
use crate::catalog::Catalog;
use crate::clock::{Instant, monotonic, now_ns};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::route::{Router, ShardAnswer, ShardJob, time_left};
use crate::wire::registry::check_selector;

const MESSAGES_AHEAD: usize = 4;
/// Shards of one query that work at the same time: bounds threads and memory.
const SHARDS_AHEAD: usize = 4;
/// So long an answer is worked on by whoever asks.
const BEGIN_HERE: std::time::Duration = std::time::Duration::from_millis(2);
/// A leader that takes longer to be sure of itself is not one to wait for where a short answer is hoped for.
const READY_WITHIN: std::time::Duration = std::time::Duration::from_millis(100);
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
    pub async fn range(&self, request: QueryRangeRequest) -> Result<Answers<QueryRangeResponse>> {
        plan::check_range(request.from_ns, request.to_ns)?;
        let start = self
            .begin(request.selector.as_ref(), true, request.consistency.as_ref())
            .await?;
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
    pub async fn latest(&self, request: GetLatestRequest) -> Result<Answers<GetLatestResponse>> {
        if request.stale_after_ms < 0 {
            return Err(Error::new(Reason::InvalidValue, "stale_after_ms is negative").field("stale_after_ms"));
        }
        let start = self
            .begin(request.selector.as_ref(), true, request.consistency.as_ref())
            .await?;
        start.check_properties(&request.properties)?;
        let limit = request.limit;
        let evaluated_at_ns = match request.at_ns {
            0 => now_ns(),
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
    pub async fn devices(&self, request: ListDevicesRequest) -> Result<Answers<ListDevicesResponse>> {
        let start = self
            .begin(request.selector.as_ref(), false, request.consistency.as_ref())
            .await?;
        let limit = request.limit;
        let ask = |selector, limit| {
            Query::Devices(ShardDevices {
                selector: Some(selector),
                limit,
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
    pub async fn aggregate(&self, request: QueryAggregateRequest) -> Result<Answers<QueryAggregateResponse>> {
        let request = calendar::with_borders(request, &self.limits)?;
        plan::check_aggregate(&request, &self.limits)?;
        let start = self
            .begin(request.selector.as_ref(), true, request.consistency.as_ref())
            .await?;
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
        let (taking, known) = (merge.clone(), catalog.clone());
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
        selector: Option<&Selector>,
        required: bool,
        wanted: Option<&Consistency>,
    ) -> Result<Start> {
        let permit = self.permits.clone().try_acquire_owned();
        let permit =
            permit.map_err(|_| Error::new(Reason::Overloaded, "this node answers as many queries as it may"))?;
        let selector = check_selector(selector, required, &self.limits)?;
        let consistency = wanted.copied().unwrap_or_default();
        if let Some(consistency::Level::Bounded(bounded)) = &consistency.level
            && bounded.max_lag_ms < 0
        {
            return Err(
                Error::new(Reason::InvalidValue, "max_lag_ms is negative").field("consistency.bounded.max_lag_ms")
            );
        }
        let mut catalog = self.router.host().catalog()?;
        let known =
            |catalog: &Catalog| selector.device_type.is_empty() || catalog.device_type(&selector.device_type).is_ok();
        if !known(&catalog) {
            self.router.catch_up_catalog(CATALOG_WAIT).await;
            catalog = self.router.host().catalog()?;
            catalog
                .device_type(&selector.device_type)
                .map_err(|e| e.field("selector.device_type"))?;
        }
        Ok(Start {
            router: self.router.clone(),
            job: self.job.clone(),
            deadline: monotonic() + self.limits.query_timeout(),
            targets: targets(&catalog, &selector),
            selector,
            consistency,
            catalog,
            permit,
        })
    }
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
    router: Arc<Router>,
    job: ShardJob,
    deadline: Instant,
    targets: Targets,
    selector: Selector,
    consistency: Consistency,
    catalog: Arc<Catalog>,
    permit: OwnedSemaphorePermit,
}

impl Start {
    /// The catalog that the question was planned with.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Refuses unknown properties before any shard is asked, where the selector names the type.
    pub(super) fn check_properties(&self, properties: &[String]) -> Result<()> {
        match self.selector.device_type.as_str() {
            "" => Ok(()),
            device_type => self.catalog.device_type(device_type)?.choose(properties).map(drop),
        }
    }

    /// Asks the shards and passes their parts on, shard by shard; a few shards work at once unless a limit makes
    /// the later ones depend on the earlier ones.
    pub(super) async fn stream<M: Send + 'static>(
        self,
        limit: u64,
        ask: impl Fn(Selector, u64) -> Query + Send + 'static,
        translate: impl FnMut(Vec<Part>) -> Result<(u64, Vec<M>)> + Send + 'static,
        finish: impl FnOnce(&mut AnswerSummary) -> Result<Vec<M>> + Send + 'static,
        last: impl FnOnce(AnswerSummary) -> M + Send + 'static,
    ) -> Answers<M> {
        let (out, answer) = mpsc::channel(MESSAGES_AHEAD);
        let work = Box::pin(async move {
            let deadline = self.deadline;
            let work = self.pass_on(limit, ask, translate, finish, last, &out);
            let left = time_left(deadline).unwrap_or_default();
            let ended = tokio::select! {
                ended = tokio::time::timeout(left, work) => ended,
                () = out.closed() => return,
            };
            let ended = ended.unwrap_or_else(|_| Err(Error::new(Reason::DeadlineExceeded, "the query took too long")));
            if let Err(error) = ended {
                out.send(Err(error)).await.ok();
            }
        });
        begin(work, &answer).await;
        answer
    }

    async fn pass_on<M: Send + 'static>(
        self,
        limit: u64,
        ask: impl Fn(Selector, u64) -> Query,
        mut translate: impl FnMut(Vec<Part>) -> Result<(u64, Vec<M>)>,
        finish: impl FnOnce(&mut AnswerSummary) -> Result<Vec<M>>,
        last: impl FnOnce(AnswerSummary) -> M,
        out: &mpsc::Sender<Result<M>>,
    ) -> Result<()> {
        let mut total = AnswerSummary {
            consistency: ConsistencyLevel::Linearizable as i32,
            ..AnswerSummary::default()
        };
        let mut answers = VecDeque::new();
        for (at, (shard, selector)) in self.targets.iter().enumerate() {
            if limit > 0 && total.rows >= limit {
                total.limited = true;
                break;
            }
            if limit == 0 && answers.is_empty() {
                let ahead = self.targets[at..].iter().take(SHARDS_AHEAD);
                let reads = ahead.map(|(shard, selector)| self.read(*shard, ask(selector.clone(), 0)));
                answers.extend(futures_util::future::try_join_all(reads).await?);
            }
            let mut answer = match answers.pop_front() {
                Some(answer) => answer,
                None => self.read(*shard, ask(selector.clone(), limit - total.rows)).await?,
            };
            let summary = loop {
                let lost = || {
                    let message = format!("shard {shard} broke off its answer");
                    Error::new(Reason::Unreachable, message)
                };
                let mut parts = answer.recv().await.ok_or_else(lost)??;
                let last = parts.pop_if(|part| matches!(part, Part::Summary(_)));
                let (rows, messages) = translate(parts)?;
                total.rows += rows;
                for message in messages {
                    out.send(Ok(message)).await.map_err(|_| gone())?;
                }
                if let Some(Part::Summary(summary)) = last {
                    break summary;
                }
            };
            add(&mut total, &summary);
        }
        for message in finish(&mut total)? {
            out.send(Ok(message)).await.map_err(|_| gone())?;
        }
        drop(self.permit);
        out.send(Ok(last(total))).await.map_err(|_| gone())
    }

    async fn read(&self, shard: u32, query: Query) -> Result<ShardAnswer> {
        // Where this fails, it is tried again below, and said.
        if near::names_few(&query)
            && let Ok(Some(ready)) = self.router.local(shard, &self.consistency, READY_WITHIN).await
        {
            let Some(parts) = near::answer(&ready, &query, &self.job) else {
                return Ok(ready.run(query, self.job.clone()));
            };
            let (out, answer) = mpsc::channel(1);
            out.try_send(Ok(parts)).ok();
            return Ok(answer);
        }
        self.router
            .read(shard, query, &self.consistency, &self.job, self.deadline)
            .await
    }
}

/// Works on an answer where it is asked for, as most are done at once; what takes longer, or has to wait until somebody takes
/// its messages, goes on by itself.
async fn begin<M>(mut work: Pin<Box<impl Future<Output = ()> + Send + 'static>>, answer: &Answers<M>) {
    let here = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending if answer.len() == answer.max_capacity() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    });
    let done = tokio::time::timeout(BEGIN_HERE, here).await.unwrap_or(false);
    if !done {
        tokio::spawn(work);
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

fn gone() -> Error {
    Error::new(Reason::Unreachable, "the client is gone")
}

/// Adds a shard's summary; rows are counted as they pass.
fn add(total: &mut AnswerSummary, summary: &AnswerSummary) {
    total.devices += summary.devices;
    total.points_dropped += summary.points_dropped;
    total.limited |= summary.limited;
    // One shard that cannot say, and nobody can.
    total.lag_ms = match total.lag_ms.min(summary.lag_ms) {
        ..0 => -1,
        _ => total.lag_ms.max(summary.lag_ms),
    };
    total.consistency = total.consistency.max(summary.consistency);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lags_like_its_worst_shard() {
        let total = |lags: &[i64]| {
            let mut total = AnswerSummary::default();
            for lag_ms in lags {
                let shard = AnswerSummary {
                    lag_ms: *lag_ms,
                    ..AnswerSummary::default()
                };
                add(&mut total, &shard);
            }
            total.lag_ms
        };
        assert_eq!((total(&[]), total(&[0, 7, 3])), (0, 7));
        assert_eq!((total(&[-1]), total(&[5, -1]), total(&[-1, 5, 0])), (-1, -1, -1));
    }
}
