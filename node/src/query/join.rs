//! Records of one side joined, as of their times, to values of others: the coordinator's side.
//!
//! Never here: points (see `join_shard`), what is held of them (see `join_table`). Invariant: the right sides are whole, as far as left
//! records need them, before the first of these is joined. Left records stream, but for those of a small page: they come first, and
//! the right sides are read for them alone.

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{ShardDevices, ShardJoin};
use tidemark_proto::v1::{
    AnswerSummary, Device, JoinDirection, JoinSide, QualityFilter, QueryJoinRequest, QueryJoinResponse,
    QueryRangeRequest, Selector,
};
use tokio::sync::mpsc::Sender;

use super::join_match::{self, Facts, needs_facts, tags_of};
use super::join_table::Table;
use super::passing::{answered, gone};
use super::plan::check_range;
use super::start::Start;
use super::streams::{Answers, Queries, Reads, unexpected};
use super::terms::{Caller, HasTerms as _};
use crate::clock::monotonic;
use crate::error::{Error, Reason, Result};
use crate::limits::JOIN_SIDES_MAX;

/// Of a page of so many records at most the left ones are read first, and held. Larger ones stream, and the right sides are worth to be
/// read whole for them.
const PAGE_ROWS_MAX: u64 = 10_000;

/// Checks what is asked, as far as no type need be known.
fn check(request: &QueryJoinRequest) -> Result<()> {
    check_range(request.from_ns, request.to_ns)?;
    if request.right.is_empty() {
        let error = Error::new(Reason::MissingField, "a join of one side").field("right");
        return Err(error.hint("say what is joined to the records: a selector, and properties"));
    }
    if request.right.len() > JOIN_SIDES_MAX {
        let message = format!("{} sides, the limit is {JOIN_SIDES_MAX}", request.right.len());
        return Err(Error::new(Reason::InvalidValue, message).field("right"));
    }
    let mut sides = request.right.iter().enumerate();
    sides.try_for_each(|(at, side)| check_side(side).map_err(|error| of_side(error, at)))
}

fn check_side(side: &JoinSide) -> Result<()> {
    let refused = |message: &str, field: &str| Err(Error::new(Reason::InvalidValue, message).field(field));
    if JoinDirection::try_from(side.direction).is_err() {
        return refused("no such direction", "direction");
    }
    if side.tolerance_ms < 0 {
        return refused("tolerance_ms is negative", "tolerance_ms");
    }
    if side.however_far && side.tolerance_ms > 0 {
        return refused("a tolerance, and however far", "tolerance_ms");
    }
    side.r#match.as_ref().map_or(Ok(()), join_match::check)
}

/// Names the side that an error is about.
fn of_side(error: Error, at: usize) -> Error {
    let field = format!("right[{at}].{}", error.field_path());
    error.field(field.trim_end_matches('.').to_owned())
}

impl Queries {
    /// Left records with what belongs to them of other devices.
    pub async fn join(&self, request: QueryJoinRequest, caller: &Caller) -> Result<Answers<QueryJoinResponse>> {
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
        start.check_properties(&request.properties)?;
        let table = Table::new(self.limits().partials_bytes_max, start.held());
        match request.limit {
            1..=PAGE_ROWS_MAX if request.points_max == 0 => self.page(start, request, table).await,
            _ => self.whole(start, request, table).await,
        }
    }

    /// The right sides, and then the left one as it comes.
    async fn whole(
        &self,
        mut start: Start,
        request: QueryJoinRequest,
        mut table: Table,
    ) -> Result<Answers<QueryJoinResponse>> {
        self.sides(&mut start, &request, &mut table).await?;
        let left = start.selector().clone();
        facts(&mut start, &request, &left, &mut table).await?;
        Ok(left_side(start, request, table).await)
    }

    /// The left records of a page, and then what these need of the right sides.
    async fn page(
        &self,
        mut start: Start,
        request: QueryJoinRequest,
        mut table: Table,
    ) -> Result<Answers<QueryJoinResponse>> {
        let (began, deadline) = (monotonic(), start.asker.deadline);
        table.begin_page(request.from_ns);
        let take = |part| match part {
            Part::Batch(batch) => table.keep(batch),
            other => Err(unexpected(&other)),
        };
        let page = start.page(request.limit, ask_left(request.clone()), take).await?;
        let works_of_left = start.spent.explain.as_ref().map_or(0, |explain| explain.shards.len());
        if page.rows > 0 {
            let left = Selector {
                device_ids: table.devices_kept(),
                ..Selector::default()
            };
            facts(&mut start, &request, &left, &mut table).await?;
        }
        self.sides(&mut start, &request, &mut table).await?;
        let mut summary = AnswerSummary {
            devices: page.devices,
            rows: page.rows,
            limited: page.limited,
            cut_short: page.cut_short,
            next_cursor: page.next_cursor,
            ..start.spent.clone()
        };
        if let Some(explain) = &mut summary.explain {
            explain.shards.rotate_left(works_of_left);
            explain.took_us = i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX);
        }
        let work = move |out: Sender<Result<QueryJoinResponse>>| async move {
            // Everything was read; others need not wait until it is taken.
            start.turn.leave();
            for batch in table.end_page() {
                for message in table.join(&batch)? {
                    out.send(Ok(message)).await.map_err(|_| gone())?;
                }
            }
            drop((start, table));
            out.send(Ok(last(summary))).await.map_err(|_| gone())
        };
        Ok(answered(deadline, work).await)
    }

    /// Reads all right sides.
    async fn sides(&self, start: &mut Start, request: &QueryJoinRequest, table: &mut Table) -> Result<()> {
        for (at, side) in request.right.iter().enumerate() {
            let side = self.right(start, request, side, table);
            side.await.map_err(|error| of_side(error, at))?;
        }
        Ok(())
    }

    /// Reads a right side: its devices first, then what may belong to left records.
    async fn right(
        &self,
        start: &mut Start,
        request: &QueryJoinRequest,
        side: &JoinSide,
        table: &mut Table,
    ) -> Result<()> {
        let mut selector = self.take_in(start, side.selector.as_ref()).await?;
        if !selector.device_type.is_empty() {
            start
                .catalog()
                .device_type(&selector.device_type)?
                .choose(&side.properties)?;
        }
        let mut devices = Vec::new();
        let most = self.limits().join_devices_max;
        listed(start, &selector, most as u64 + 1, |mut some| {
            devices.append(&mut some);
            Ok(())
        })
        .await?;
        if devices.len() > most {
            let message = format!("more than {most} devices to join records to");
            let error = Error::new(Reason::TooManySeries, message).field("selector");
            return Err(error.hint("choose fewer devices on the right, or make them the left side"));
        }
        table.add_side(side, devices, start.catalog())?;
        if let Some(device_ids) = table.needed() {
            if device_ids.is_empty() {
                return Ok(());
            }
            selector = Selector {
                device_ids,
                ..Selector::default()
            };
        }
        let (from_ns, to_ns) = table.time_kept().unwrap_or((request.from_ns, request.to_ns));
        let (any_quality, drop_suspect) = (request.any_quality, request.drop_suspect);
        let (side, explain, known_at_ns) = (side.clone(), request.explain, request.known_at_ns);
        let ask = move |selector, _| {
            Query::Join(ShardJoin {
                side: Some(JoinSide {
                    selector: Some(selector),
                    ..side.clone()
                }),
                from_ns,
                to_ns,
                any_quality,
                drop_suspect,
                explain,
                known_at_ns,
                ..ShardJoin::default()
            })
        };
        let take = |part| match part {
            Part::Join(points) => points
                .series
                .into_iter()
                .try_for_each(|series| table.add_points(series)),
            other => Err(unexpected(&other)),
        };
        start.beside(&selector, 0, ask, take).await
    }
}

/// Adds what decides about left devices to whom they belong, where something does.
async fn facts(start: &mut Start, request: &QueryJoinRequest, left: &Selector, table: &mut Table) -> Result<()> {
    if !request.right.iter().any(needs_facts) {
        return Ok(());
    }
    let keys = tags_of(&request.right);
    listed(start, left, 0, |devices| {
        let mut devices = devices.iter();
        devices.try_for_each(|device| table.add_left(device.id.clone(), Facts::of(device, &keys)))
    })
    .await
}

/// Gives `take` the devices of a selector, `limit` at most; 0: all.
async fn listed(
    start: &mut Start,
    selector: &Selector,
    limit: u64,
    mut take: impl FnMut(Vec<Device>) -> Result<()>,
) -> Result<()> {
    let explain = start.terms.explain;
    let ask = move |selector, limit| {
        Query::Devices(ShardDevices {
            selector: Some(selector),
            limit,
            explain,
            ..ShardDevices::default()
        })
    };
    let take = |part| match part {
        Part::Devices(list) => take(list.devices),
        other => Err(unexpected(&other)),
    };
    start.beside(selector, limit, ask, take).await
}

/// The question for left records.
fn ask_left(request: QueryJoinRequest) -> impl Fn(Selector, u64) -> Query + Send + Sync + 'static {
    let quality = (!request.any_quality).then(|| QualityFilter {
        accept: Vec::new(),
        drop_failed: true,
        drop_suspect: request.drop_suspect,
    });
    move |selector, limit| {
        Query::Range(QueryRangeRequest {
            selector: Some(selector),
            properties: request.properties.clone(),
            from_ns: request.from_ns,
            to_ns: request.to_ns,
            limit,
            quality: quality.clone(),
            partial_ok: request.partial_ok,
            explain: request.explain,
            known_at_ns: request.known_at_ns,
            ..QueryRangeRequest::default()
        })
    }
}

/// The message that ends an answer.
fn last(summary: AnswerSummary) -> QueryJoinResponse {
    QueryJoinResponse {
        joined: Vec::new(),
        summary: Some(summary),
    }
}

/// Streams the left side, joined.
async fn left_side(start: Start, request: QueryJoinRequest, table: Table) -> Answers<QueryJoinResponse> {
    let limit = request.limit;
    let translate = move |parts: Vec<Part>| {
        let (mut rows, mut messages) = (0, Vec::new());
        for part in parts {
            let Part::Batch(batch) = part else {
                return Err(unexpected(&part));
            };
            rows += batch.observed_at_ns.len() as u64;
            messages.extend(table.join(&batch)?);
        }
        Ok((rows, messages))
    };
    start
        .stream(limit, ask_left(request), translate, |_| Ok(Vec::new()), last)
        .await
}
