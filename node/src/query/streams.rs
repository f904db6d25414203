//! The coordinator: which questions there are, who is let in, and how the answers of shards read.
//!
//! Never here: where a question goes (`start`), how it passes its shards (`passing`). Invariant: the weakest consistency of its shards is what an
//! answer claims.

use std::sync::Arc;

use tidemark_proto::encoded::{GetLatestResponse, QueryRangeResponse};
use tidemark_proto::peer::ShardDevices;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{
    AnswerSummary, Consistency, ConsistencyLevel, GetLatestRequest, ListDevicesRequest, ListDevicesResponse,
    QueryAggregateRequest, QueryAggregateResponse, QueryRangeRequest, Selector, consistency,
};
use tokio::sync::{Semaphore, mpsc};

use super::functions::functions;
use super::merge::Merge;
use super::series::check_budget;
use super::start::{Start, targets};
use super::terms::{Caller, HasTerms as _, Terms};
use super::{calendar, fill, filter, known, plan};
use crate::clock::monotonic;
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::metrics::Present;
use crate::route::{Appointments, Asker, Router, ShardJob, selects_few};
use crate::wire::batch_bytes::batch_bytes;
use crate::wire::cursor::CursorKey;
use crate::wire::registry::check_selector;

/// A streamed answer.
pub type Answers<M> = mpsc::Receiver<Result<M>>;

/// The query path of a node.
pub struct Queries {
    router: Arc<Router>,
    limits: Arc<Limits>,
    job: ShardJob,
    permits: Permits,
    again: Appointments,
}

/// What a question reads of its devices.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Their blocks, or newest values: little, where a few devices are named.
    Blocks,
    /// Something else, or of others too.
    More,
}

/// How many questions a node answers at once: small ones never wait until wide ones are done.
struct Permits {
    few: Arc<Semaphore>,
    wide: Arc<Semaphore>,
}

impl Queries {
    /// A query path over a router.
    pub fn new(router: Arc<Router>, limits: Arc<Limits>, job: ShardJob) -> Queries {
        let permits = Permits {
            few: Arc::new(Semaphore::new(limits.queries_max)),
            wide: Arc::new(Semaphore::new(limits.queries_max)),
        };
        Queries {
            router,
            limits,
            job,
            permits,
            again: Appointments::default(),
        }
    }

    /// Raw records.
    pub async fn range(&self, request: QueryRangeRequest, caller: &Caller) -> Result<Answers<QueryRangeResponse>> {
        plan::check_range(request.from_ns, request.to_ns)?;
        filter::check(&request)?;
        let start = self
            .begin(
                caller,
                Reads::Blocks,
                request.selector.as_ref(),
                true,
                request.consistency.as_ref(),
            )
            .await?
            .on(Terms {
                test_points: request.test_points,
                ..request.terms(caller)
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
                let rows = batch.observed_at_ns.len() as u64;
                let message = QueryRangeResponse {
                    batch: Some(batch_bytes(batch)),
                    summary: None,
                };
                Ok((rows, message))
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
            .begin(
                caller,
                Reads::Blocks,
                request.selector.as_ref(),
                true,
                request.consistency.as_ref(),
            )
            .await?
            .on(Terms {
                test_points: request.test_points,
                ..request.terms(caller)
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
                    tables: latest.tables,
                };
                Ok((message.devices.len() as u64 + latest.devices_in_tables, message))
            }
            other => Err(unexpected(&other)),
        });
        let last = move |summary| GetLatestResponse {
            devices: Vec::new(),
            evaluated_at_ns,
            summary: Some(summary),
            tables: Vec::new(),
        };
        Ok(start.stream(limit, ask, translate, |_| Ok(Vec::new()), last).await)
    }

    /// Devices.
    pub async fn devices(&self, request: ListDevicesRequest, caller: &Caller) -> Result<Answers<ListDevicesResponse>> {
        let start = self
            .begin(
                caller,
                Reads::More,
                request.selector.as_ref(),
                false,
                request.consistency.as_ref(),
            )
            .await?
            .on(request.terms(caller))?;
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
            .begin(
                caller,
                Reads::Blocks,
                request.selector.as_ref(),
                true,
                request.consistency.as_ref(),
            )
            .await?
            .on(request.terms(caller))?;
        if !start.selector.device_type.is_empty() {
            let def = start.catalog.device_type(&start.selector.device_type)?;
            let functions = functions(&request)?;
            for property in plan::aggregate_properties(def, &request, &functions)? {
                functions
                    .iter()
                    .try_for_each(|asked| asked.columns(&request, property).map(drop))?;
            }
        }
        let (catalog, most) = (start.catalog.clone(), self.limits.partials_bytes_max);
        let merge = Arc::new(std::sync::Mutex::new(Some(Merge::new(request.clone(), most)?)));
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
                let taken = match part {
                    Part::Finished(series) => Some(series),
                    Part::Partials(partials) => merge.take(partials, &known)?,
                    other => return Err(unexpected(&other)),
                };
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
        reads: Reads,
        selector: Option<&Selector>,
        required: bool,
        wanted: Option<&Consistency>,
    ) -> Result<Start> {
        let few = reads == Reads::Blocks && selector.is_some_and(selects_few);
        let permits = if few { &self.permits.few } else { &self.permits.wide };
        let permit = permits.clone().try_acquire_owned().map_err(|_| {
            let message = "this node answers as many queries as it may";
            Error::new(Reason::Overloaded, message).retry_after_ms(self.again.next_ms())
        })?;
        let application = self.router.applications().named(&caller.application);
        let admitted = application.admit(few)?;
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
        let catalog = self.router.catalog_of(&selector).await?;
        Ok(Start {
            turn: Arc::new(self.router.turn()),
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
        start.catalog = self.router.catalog_of(&selector).await?;
        Ok(selector)
    }
}

/// What an answer begins with.
fn nothing_yet() -> AnswerSummary {
    AnswerSummary {
        consistency: ConsistencyLevel::Linearizable as i32,
        ..AnswerSummary::default()
    }
}

pub(super) fn unexpected(part: &Part) -> Error {
    let shown: String = format!("{part:?}").chars().take(60).collect();
    Error::internal(format!("unexpected part of an answer: {shown}"))
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
