//! Records of one side joined, as of their times, to values of others: the coordinator's side.
//!
//! Never here: points (see `join_shard`), what is held of them (see `join_table`). Invariant: the right sides are whole before the first
//! left record is joined, and left records stream.

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{ShardDevices, ShardJoin};
use tidemark_proto::v1::{
    Device, JoinDirection, JoinSide, QualityFilter, QueryJoinRequest, QueryJoinResponse, QueryRangeRequest, Selector,
};

use super::join_match::{self, Facts, needs_facts, tags_of};
use super::join_table::Table;
use super::plan::check_range;
use super::streams::{Answers, Queries, Start, unexpected};
use super::terms::{Caller, HasTerms as _};
use crate::error::{Error, Reason, Result};
use crate::limits::{JOIN_DEVICES_MAX, JOIN_SIDES_MAX};

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
        let mut start = self
            .begin(caller, request.selector.as_ref(), true, request.consistency.as_ref())
            .await?
            .on(request.terms(caller.deadline))?;
        start.check_properties(&request.properties)?;
        let mut table = Table::new(self.limits().partials_bytes_max, start.metrics());
        for (at, side) in request.right.iter().enumerate() {
            let side = self.right(&mut start, &request, side, &mut table);
            side.await.map_err(|error| of_side(error, at))?;
        }
        if request.right.iter().any(needs_facts) {
            let keys = tags_of(&request.right);
            let selector = start.selector().clone();
            let facts = |device: &Device| (device.id.clone(), Facts::of(device, &keys));
            listed(&mut start, &selector, 0, |devices| {
                devices
                    .iter()
                    .map(facts)
                    .try_for_each(|(id, facts)| table.add_left(id, facts))
            })
            .await?;
        }
        Ok(left(start, request, table).await)
    }

    /// Reads a right side: its devices first, then what may belong to left records.
    async fn right(
        &self,
        start: &mut Start,
        request: &QueryJoinRequest,
        side: &JoinSide,
        table: &mut Table,
    ) -> Result<()> {
        let selector = self.take_in(start, side.selector.as_ref()).await?;
        if !selector.device_type.is_empty() {
            start
                .catalog()
                .device_type(&selector.device_type)?
                .choose(&side.properties)?;
        }
        let mut devices = Vec::new();
        let limit = JOIN_DEVICES_MAX as u64 + 1;
        listed(start, &selector, limit, |mut some| {
            devices.append(&mut some);
            Ok(())
        })
        .await?;
        if devices.len() > JOIN_DEVICES_MAX {
            let message = format!("more than {JOIN_DEVICES_MAX} devices to join records to");
            let error = Error::new(Reason::TooManySeries, message).field("selector");
            return Err(error.hint("choose fewer devices on the right, or make them the left side"));
        }
        table.add_side(side, devices, start.catalog())?;
        let (from_ns, to_ns) = (request.from_ns, request.to_ns);
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

/// Streams the left side, joined.
async fn left(start: Start, request: QueryJoinRequest, table: Table) -> Answers<QueryJoinResponse> {
    let limit = request.limit;
    let quality = (!request.any_quality).then(|| QualityFilter {
        accept: Vec::new(),
        drop_failed: true,
        drop_suspect: request.drop_suspect,
    });
    let ask = move |selector, limit| {
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
    };
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
    let last = |summary| QueryJoinResponse {
        joined: Vec::new(),
        summary: Some(summary),
    };
    start.stream(limit, ask, translate, |_| Ok(Vec::new()), last).await
}
