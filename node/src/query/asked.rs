//! What all questions to a shard have in common: where to go on, what they may cost, whether they say so.
//!
//! Never here: what is asked. Invariant: between nodes `cursor` holds a position as it is; what clients hold is sealed.

use prost::Message as _;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::shard_alerts::Question;
use tidemark_proto::peer::{Position, ShardAlerts};
use tidemark_proto::v1::{Budget, CutShort};

use crate::error::{Error, Reason, Result};
use crate::limits::Limits;

/// The terms of a shard's part of a question.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Values that may be decoded; 0: as many as the node allows.
    points_max: u64,
    pub(super) partial_ok: bool,
    pub(super) explain: bool,
    /// Only points of report kind test are asked for.
    pub(super) tests: bool,
}

impl Asked {
    /// What a question says.
    pub(super) fn of(query: &Query) -> Asked {
        let (points_max, partial_ok, explain) = match query {
            Query::Range(request) => (request.points_max, request.partial_ok, request.explain),
            Query::Aggregate(request) => (request.points_max, request.partial_ok, request.explain),
            Query::Latest(request) => (request.points_max, request.partial_ok, request.explain),
            Query::Intervals(request) => (request.points_max, request.partial_ok, request.explain),
            Query::Quality(request) => (request.points_max, request.partial_ok, request.explain),
            Query::Health(request) => (request.points_max, request.partial_ok, request.explain),
            Query::Alerts(ShardAlerts {
                question: Some(Question::List(request)),
            }) => (request.points_max, request.partial_ok, request.explain),
            Query::Devices(request) => (0, false, request.explain),
            Query::Join(request) => (request.points_max, false, request.explain),
            _ => return Asked::default(),
        };
        let tests = match query {
            Query::Range(request) => request.test_points,
            Query::Latest(request) => request.test_points,
            _ => false,
        };
        Asked {
            points_max,
            partial_ok,
            explain,
            tests,
        }
    }

    /// Values that may be decoded.
    pub(super) fn points_max(&self, limits: &Limits) -> u64 {
        points_max(self.points_max, limits)
    }

    /// How a failure cuts an answer short, where the answer may be partial and a budget is what failed.
    pub(super) fn cut_short(&self, error: &Error, limits: &Limits) -> Option<CutShort> {
        let (budget, limit) = match error.reason() {
            Reason::TooManyPoints => (Budget::Points, self.points_max(limits)),
            Reason::QueryTooLarge => (Budget::Bytes, limits.partials_bytes_max as u64),
            _ => return None,
        };
        self.partial_ok.then(|| CutShort {
            budget: budget as i32,
            limit,
            ..CutShort::default()
        })
    }
}

/// What a request may decode that says so much of it.
pub(super) fn points_max(asked: u64, limits: &Limits) -> u64 {
    match asked {
        0 => limits.points_read_max,
        asked => asked.min(limits.points_read_max),
    }
}

/// Tells a shard where to go on, and how many values it may decode.
pub(super) fn put(query: &mut Query, after: Option<&Position>, points: u64) {
    let after = after
        .map(|position| position.encode_to_vec().into())
        .unwrap_or_default();
    match query {
        Query::Range(request) => (request.cursor, request.points_max) = (after, points),
        Query::Latest(request) => (request.cursor, request.points_max) = (after, points),
        Query::Devices(request) => request.after = after,
        Query::Aggregate(request) => request.points_max = points,
        Query::Intervals(request) => request.points_max = points,
        Query::Quality(request) => request.points_max = points,
        Query::Health(request) => request.points_max = points,
        Query::Alerts(ShardAlerts {
            question: Some(Question::List(request)),
        }) => request.points_max = points,
        Query::Join(request) => request.points_max = points,
        _ => {}
    }
}

/// A position that another node sent; `None` where the answer begins at the beginning.
pub(super) fn position(bytes: &[u8]) -> Result<Option<Position>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let position = Position::decode(bytes).map_err(|error| Error::internal(format!("a position: {error}")))?;
    Ok(Some(position).filter(|position| !position.device.is_empty()))
}
