//! The terms of a question: how long it may take, what it may decode, whether a part of the answer will do, and where it goes on.
//!
//! Never here: what is asked. Invariant: a cursor is bound to everything of its question that decides what the answer is.

use bytes::Bytes;
use prost::Message;
use tidemark_proto::peer::Position;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{
    GetHealthRequest, GetLatestRequest, GetQualityRequest, LatestDevice, ListAlertsRequest, ListDevicesRequest,
    QueryAggregateRequest, QueryIntervalsRequest, QueryJoinRequest, QueryRangeRequest,
};

use crate::clock::{Instant, NS_PER_MS, now_ns};
use crate::error::{Error, Result};
use crate::wire::cursor::{Bound, CursorKey, CursorKind, open, seal};

/// Whoever asks, as the call said beside its message.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// When the client stops waiting; `None`: it does not say.
    pub deadline: Option<Instant>,
    /// The application, as it names itself; empty: it does not.
    pub application: String,
}

/// What a request says beside its question.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// When the client stops waiting.
    pub(super) deadline: Option<Instant>,
    /// Values that may be decoded; 0: as many as the node allows.
    pub(super) points_max: u64,
    pub(super) partial_ok: bool,
    pub(super) explain: bool,
    /// Only what had been received by then takes part; 0: everything. (A part of the question, so that cursors are bound to it.)
    pub(super) known_at_ns: i64,
    /// Only points of report kind test take part; else none of them do. (A part of the question too.)
    pub(super) test_points: bool,
    /// Where the answer can go on.
    pub(super) pages: Option<Pages>,
}

/// An answer that can be had in pages.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    kind: CursorKind,
    question: Vec<u8>,
    /// As the client gave it; empty: the first page.
    cursor: Bytes,
    /// The application that asks.
    user: String,
}

impl Pages {
    fn bound(&self) -> Bound<'_> {
        Bound {
            kind: self.kind,
            question: &self.question,
            user: &self.user,
        }
    }

    /// Where the page begins; `None`: at the beginning.
    pub(super) fn begin(&self, key: &CursorKey, age_ms_max: u64) -> Result<Option<Position>> {
        if self.cursor.is_empty() {
            return Ok(None);
        }
        let position = open(key, &self.bound(), &self.cursor, now_ms(), age_ms_max)?;
        let position = Position::decode(position).map_err(|error| Error::internal(format!("a position: {error}")))?;
        Ok(Some(position))
    }

    /// The cursor of the page that begins behind a position.
    pub(super) fn next(&self, key: &CursorKey, position: &Position) -> Bytes {
        seal(key, &self.bound(), &position.encode_to_vec(), now_ms())
    }
}

fn now_ms() -> u64 {
    u64::try_from(now_ns() / NS_PER_MS).unwrap_or(0)
}

/// Requests that have terms.
pub(super) trait HasTerms {
    /// Them, of whoever asks.
    fn terms(&self, caller: &Caller) -> Terms;
}

macro_rules! terms {
    ($request:ident, $caller:ident) => {
        Terms {
            deadline: $caller.deadline,
            points_max: $request.points_max,
            partial_ok: $request.partial_ok,
            explain: $request.explain,
            known_at_ns: $request.known_at_ns,
            test_points: false,
            pages: None,
        }
    };
}

/// Of requests for records, which come in pages; with what else a page may ask otherwise than the one before.
macro_rules! terms_of_pages {
    ($request:ident, $kind:ident $(, $free:ident)*) => {
        impl HasTerms for $request {
            fn terms(&self, caller: &Caller) -> Terms {
                let question = $request {
                    limit: 0,
                    consistency: None,
                    cursor: Bytes::new(),
                    points_max: 0,
                    partial_ok: false,
                    explain: false,
                    $($free: Default::default(),)*
                    ..self.clone()
                };
                Terms {
                    pages: pages(CursorKind::$kind, &question, &self.cursor, caller),
                    ..terms!(self, caller)
                }
            }
        }
    };
}

terms_of_pages!(QueryRangeRequest, Range, without_received_at);
terms_of_pages!(GetLatestRequest, Latest);
terms_of_pages!(QueryJoinRequest, Join);

impl HasTerms for ListDevicesRequest {
    fn terms(&self, caller: &Caller) -> Terms {
        let question = ListDevicesRequest {
            selector: self.selector.clone(),
            ..ListDevicesRequest::default()
        };
        Terms {
            deadline: caller.deadline,
            points_max: 0,
            partial_ok: self.partial_ok,
            explain: self.explain,
            known_at_ns: 0,
            test_points: false,
            pages: pages(CursorKind::Devices, &question, &self.cursor, caller),
        }
    }
}

impl HasTerms for QueryAggregateRequest {
    fn terms(&self, caller: &Caller) -> Terms {
        terms!(self, caller)
    }
}

impl HasTerms for QueryIntervalsRequest {
    fn terms(&self, caller: &Caller) -> Terms {
        terms!(self, caller)
    }
}

impl HasTerms for GetQualityRequest {
    fn terms(&self, caller: &Caller) -> Terms {
        terms!(self, caller)
    }
}

impl HasTerms for GetHealthRequest {
    fn terms(&self, caller: &Caller) -> Terms {
        terms!(self, caller)
    }
}

impl HasTerms for ListAlertsRequest {
    fn terms(&self, caller: &Caller) -> Terms {
        Terms {
            deadline: caller.deadline,
            points_max: self.points_max,
            partial_ok: self.partial_ok,
            explain: self.explain,
            known_at_ns: 0,
            test_points: false,
            pages: None,
        }
    }
}

fn pages(kind: CursorKind, question: &impl Message, cursor: &Bytes, caller: &Caller) -> Option<Pages> {
    Some(Pages {
        kind,
        question: question.encode_to_vec(),
        cursor: cursor.clone(),
        user: caller.application.clone(),
    })
}

/// How far an answer came with a part of a shard; `None` where that does not tell.
pub(super) fn reached(shard: u32, part: &Part) -> Option<Position> {
    let (device, t_ns) = match part {
        Part::Batch(batch) => {
            let at = batch.device_index.last().map_or(0, |at| *at as usize);
            (batch.devices.get(at)?.clone(), *batch.observed_at_ns.last()?)
        }
        Part::Latest(latest) if !latest.last.is_empty() => (latest.last.clone(), 0),
        // Of a node that does not say it.
        Part::Latest(latest) => (LatestDevice::decode(latest.devices.last()?.clone()).ok()?.device, 0),
        Part::Devices(list) => (list.devices.last()?.id.clone(), 0),
        _ => return None,
    };
    Some(Position { shard, device, t_ns })
}
