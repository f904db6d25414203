//! Where a shard is followed: at the replica of this node where it will do, else at another node. Never: what is told.

use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::peer::follow_shard_response::Part;
use tidemark_proto::peer::{FollowEvent, FollowShardRequest, FollowShardResponse};
use tokio::sync::mpsc;
use tonic::{Request, Streaming};

use super::serve::Follows;
use crate::error::{Error, Reason, Result};
use crate::route::Router;
use crate::wire::status::{from_failure, from_status};

/// A replica that may be so far behind is not the first to be followed.
const IN_STEP: Duration = Duration::from_secs(1);
/// Longest wait for another node to begin.
const OPEN_MAX: Duration = Duration::from_secs(3);

/// The events of one replica.
pub(super) enum Source {
    /// Of this node.
    Here(mpsc::Receiver<FollowShardResponse>),
    /// Of another one.
    There(Box<Streaming<FollowShardResponse>>),
}

/// What comes from a replica.
pub(super) enum Came {
    /// What happened.
    Event(Box<FollowEvent>),
    /// It cannot begin here; that node leads (0: unknown).
    NotLeader(u64),
}

impl Source {
    /// True where what is not taken stands in the way of what else that node is asked.
    pub(super) fn is_there(&self) -> bool {
        matches!(self, Source::There(_))
    }

    /// What comes next.
    pub(super) async fn next(&mut self) -> Result<Came> {
        let lost = || Error::new(Reason::Unreachable, "the events of a shard broke off");
        let message = match self {
            Source::Here(events) => events.recv().await,
            Source::There(events) => events.message().await.map_err(|status| from_status(&status))?,
        };
        match message.and_then(|message| message.part).ok_or_else(lost)? {
            Part::Event(event) => Ok(Came::Event(Box::new(event))),
            Part::NotLeader(leader) => Ok(Came::NotLeader(leader)),
            Part::Failure(failure) => Err(from_failure(failure)),
        }
    }
}

/// Nodes to follow a shard at, the best one first. Without a place to go on from only its leader will do.
pub(super) fn candidates(router: &Router, group: u32, goes_on: bool) -> Result<Vec<u64>> {
    let host = router.host();
    let here = host.identity()?.node_id;
    let in_step = |lag: Option<Duration>| lag.is_some_and(|lag| lag <= IN_STEP);
    let own = host.replica(group).filter(|replica| replica.votes());
    let own = own.filter(|replica| replica.is_leader() || goes_on && in_step(replica.lag()));
    let mut nodes: Vec<u64> = own.iter().map(|_| here).collect();
    nodes.extend(router.known_leader(group).filter(|node| !nodes.contains(node)));
    let catalog = host.catalog()?;
    let listed = catalog.shard(group).map_or(&[][..], |shard| &shard.replicas);
    for replica in listed.iter().filter(|replica| !replica.joining) {
        if !nodes.contains(&replica.node_id) {
            nodes.push(replica.node_id);
        }
    }
    Ok(nodes)
}

/// Begins to follow a shard at a node.
pub(super) async fn open(
    router: &Router,
    follows: &Arc<Follows>,
    node: u64,
    mut request: FollowShardRequest,
) -> Result<Source> {
    let host = router.host();
    if host.identity()?.node_id == node {
        return Ok(Source::Here(follows.follow(request)?));
    }
    request.envelope = Some(host.envelope(node)?);
    let mut client = router.peer(node)?.client();
    let opening = client.follow_shard(Request::new(request));
    let opened = tokio::time::timeout(OPEN_MAX, opening).await;
    let opened = opened.map_err(|_| Error::new(Reason::Unreachable, format!("node {node} did not answer")))?;
    let stream = opened.map_err(|status| from_status(&status))?.into_inner();
    Ok(Source::There(Box::new(stream)))
}
