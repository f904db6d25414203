//! What a subscription asks for, checked. Pure.

use prost::Message as _;
use tidemark_proto::peer::FollowShardRequest;
use tidemark_proto::v1::{Selector, SubscribeRequest};

use crate::clock::NS_PER_MS;
use crate::error::{Error, Reason, Result};

/// What to send, of whatever devices.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) properties: Vec<String>,
    pub(super) records: bool,
    pub(super) alerts: bool,
    pub(super) silence: bool,
    pub(super) newest_first: bool,
    /// `None`: as the type promises.
    pub(super) silent_after_ns: Option<i64>,
}

impl Asked {
    /// Of a client; nothing chosen means records.
    pub(super) fn new(request: &SubscribeRequest) -> Result<Asked> {
        if request.silent_after_ms < 0 {
            return Err(Error::new(Reason::InvalidValue, "silent_after_ms is negative").field("silent_after_ms"));
        }
        let any = request.records || request.alerts || request.silence;
        Ok(Asked {
            properties: request.properties.clone(),
            records: request.records || !any,
            alerts: request.alerts,
            silence: request.silence,
            newest_first: request.newest_first,
            silent_after_ns: after(request.silent_after_ms),
        })
    }

    /// Of another node.
    pub(super) fn of_peer(request: &FollowShardRequest) -> Asked {
        Asked {
            properties: request.properties.clone(),
            records: request.records,
            alerts: request.alerts,
            silence: request.silence,
            newest_first: request.newest_first,
            silent_after_ns: after(request.silent_after_ms),
        }
    }

    /// For another node: of one shard.
    pub(super) fn to_peer(&self, group: u32, selector: &Selector) -> FollowShardRequest {
        FollowShardRequest {
            envelope: None,
            group,
            after: None,
            selector: Some(selector.clone()),
            properties: self.properties.clone(),
            records: self.records,
            alerts: self.alerts,
            silence: self.silence,
            newest_first: self.newest_first,
            silent_after_ms: self.silent_after_ns.unwrap_or(0) / NS_PER_MS,
        }
    }

    /// All that a cursor is bound to.
    pub(super) fn bound(&self, selector: &Selector) -> Vec<u8> {
        let bound = FollowShardRequest {
            newest_first: false,
            ..self.to_peer(0, selector)
        };
        bound.encode_to_vec()
    }
}

fn after(ms: i64) -> Option<i64> {
    (ms > 0).then(|| ms.saturating_mul(NS_PER_MS))
}
