//! One shard of a subscription: follows it at one replica after the other, as long as anybody can be followed.
//!
//! Never here: what clients are sent. Invariant: whatever breaks, it goes on behind the last event that was handed on, so nothing is
//! lost or doubled; what was handed on and not taken yet is bounded in bytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tidemark_proto::peer::{FollowEvent, FollowedUpTo};
use tidemark_proto::v1::Selector;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::asked::Asked;
use super::follower::gone;
use super::serve::Follows;
use super::source::{Came, candidates, open};
use crate::clock::{Instant, monotonic};
use crate::error::{Code, Error, Reason, Result};
use crate::route::Router;

/// A shard that nobody could be followed at for so long ends the subscription: another node may know one.
const LOST_MAX: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Another node's events are not left waiting for longer: they would stand in the way of everything else it is asked.
const WAIT_THERE: Duration = Duration::from_millis(50);
/// Longest that newest records wait for a reader.
const WAIT_NEWEST: Duration = Duration::from_secs(60);
/// What an event takes of a subscription's bytes at least.
pub(super) const EVENT_BYTES_MIN: usize = 1 << 10;

/// An event on its way to the subscriber.
pub(super) struct Handed {
    pub(super) group: u32,
    pub(super) event: FollowEvent,
    /// Its room, free again once it is dropped.
    pub(super) room: OwnedSemaphorePermit,
}

/// What all shards of a subscription share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) router: Arc<Router>,
    pub(super) follows: Arc<Follows>,
    pub(super) asked: Asked,
    pub(super) outlet: Outlet,
}

/// The way to the subscriber.
#[derive(Clone)]
pub(super) struct Outlet {
    pub(super) out: mpsc::Sender<Handed>,
    /// Bytes that may wait for the subscriber.
    pub(super) room: Arc<Semaphore>,
    pub(super) room_max: usize,
    /// Whether every shard has begun: no change is handed on before.
    pub(super) begun: watch::Receiver<bool>,
}

/// One shard.
pub(super) struct Shard {
    pub(super) shared: Shared,
    pub(super) group: u32,
    pub(super) selector: Selector,
    /// The last event that was handed on.
    pub(super) upto: Option<FollowedUpTo>,
    tries: usize,
    failing_since: Option<Instant>,
    /// Nodes whose log does not reach back far enough.
    expired: BTreeSet<u64>,
}

impl Shard {
    pub(super) fn new(shared: Shared, group: u32, selector: Selector, upto: Option<FollowedUpTo>) -> Shard {
        Shard {
            shared,
            group,
            selector,
            upto,
            tries: 0,
            failing_since: None,
            expired: BTreeSet::new(),
        }
    }

    /// Follows until it cannot, and says why.
    pub(super) async fn run(mut self) -> Error {
        loop {
            let nodes = match candidates(&self.shared.router, self.group, self.upto.is_some()) {
                Ok(nodes) => nodes,
                Err(error) => return error,
            };
            let Some(node) = nodes.get(self.tries % nodes.len().max(1)).copied() else {
                return Error::new(Reason::NoLeader, format!("shard {} has no replica", self.group));
            };
            let Err(error) = self.follow_at(node).await else {
                continue;
            };
            if error.reason() == Reason::CursorExpired {
                self.expired.insert(node);
            }
            self.tries += 1;
            let since = *self.failing_since.get_or_insert_with(monotonic);
            // Whoever could not be asked in a whole round does not count.
            let all_asked = !self.expired.is_empty() && self.tries >= 2 * nodes.len();
            let all_expired = nodes.iter().all(|node| self.expired.contains(node));
            if all_expired || all_asked && error.reason() == Reason::CursorExpired {
                return error;
            }
            if !may_go_on(&error) || since.elapsed() > LOST_MAX {
                return error;
            }
            tracing::debug!(group = self.group, node, %error, "a subscription goes on at another replica");
            let pause = (PAUSE_MIN * (1 << (self.tries / nodes.len().max(1)).min(8))).min(PAUSE_MAX);
            tokio::time::sleep(pause).await;
        }
    }

    /// Hands on the events of one replica until it fails, or is given up for a reader that is too slow.
    async fn follow_at(&mut self, node: u64) -> Result<()> {
        let mut request = self.shared.asked.to_peer(self.group, &self.selector);
        request.after = self.upto;
        let mut source = open(&self.shared.router, &self.shared.follows, node, request).await?;
        loop {
            let event = match source.next().await? {
                Came::Event(event) => *event,
                Came::NotLeader(leader) => {
                    let leader = Some(leader).filter(|leader| *leader != node);
                    self.shared.router.learn_leader(self.group, node, leader);
                    return Err(Error::new(
                        Reason::NoLeader,
                        format!("node {node} does not lead the shard"),
                    ));
                }
            };
            (self.tries, self.failing_since) = (0, None);
            self.expired.clear();
            let wait = match (event.upto, source.is_there()) {
                (None, _) => WAIT_NEWEST,
                (Some(_), true) => WAIT_THERE,
                (Some(_), false) => Duration::MAX,
            };
            let upto = event.upto;
            let kept = self.shared.outlet.hand_on(self.group, event, (source, wait)).await?;
            self.upto = upto.or(self.upto);
            match kept {
                Some(kept) => source = kept,
                None => return Ok(()),
            }
        }
    }
}

impl Outlet {
    /// Hands on an event of a shard once there is room for it, and waits until the next one may be. After `wait` its source is let go;
    /// otherwise it is given back.
    async fn hand_on<S>(&self, group: u32, event: FollowEvent, (source, wait): (S, Duration)) -> Result<Option<S>> {
        let bytes = event.encoded_len().clamp(EVENT_BYTES_MIN, self.room_max) as u32;
        let closed = |_| gone();
        let acquired = self.room.clone().acquire_many_owned(bytes);
        let (room, source) = match tokio::time::timeout(wait, acquired).await {
            Ok(permit) => (permit.map_err(closed)?, Some(source)),
            Err(_) if event.upto.is_none() => {
                return Err(Error::new(
                    Reason::DeadlineExceeded,
                    "the newest records were not taken in time",
                ));
            }
            Err(_) => {
                drop(source);
                let permit = self.room.clone().acquire_many_owned(bytes).await.map_err(closed)?;
                (permit, None)
            }
        };
        let is_change = event.upto.is_some();
        self.out.try_send(Handed { group, event, room }).map_err(|_| gone())?;
        if is_change {
            // The first one says that the shard has begun: what is behind it waits for the others, whatever source it comes from.
            let mut begun = self.begun.clone();
            begun.wait_for(|begun| *begun).await.map_err(|_| gone())?;
        }
        if source.is_none() {
            // Beginning again has its price: not for every event.
            let half = self.room.acquire_many((self.room_max / 2) as u32).await;
            drop(half.map_err(closed)?);
        }
        Ok(source)
    }
}

/// Whether another replica, or this one a moment later, may do better.
fn may_go_on(error: &Error) -> bool {
    match error.code() {
        Code::Unavailable | Code::Internal | Code::DataLoss | Code::ResourceExhausted => true,
        // One that is on its way in or out does not have the shard.
        Code::FailedPrecondition => error.reason() == Reason::WrongCluster,
        Code::OutOfRange => error.reason() == Reason::CursorExpired,
        Code::Cancelled | Code::InvalidArgument | Code::NotFound | Code::DeadlineExceeded => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn no_change_comes_before_all_have_begun_also_of_a_source_that_was_let_go() {
        let (out, mut inbox) = mpsc::channel(4);
        let begun = watch::Sender::new(false);
        let room = Arc::new(Semaphore::new(8 * EVENT_BYTES_MIN));
        let outlet = Outlet {
            out,
            room: room.clone(),
            room_max: 8 * EVENT_BYTES_MIN,
            begun: begun.subscribe(),
        };
        let full = room.try_acquire_many_owned(outlet.room_max as u32).unwrap();
        let first = FollowEvent {
            upto: Some(FollowedUpTo::default()),
            ..FollowEvent::default()
        };
        let mut handing = std::pin::pin!(outlet.hand_on(1, first, ((), Duration::ZERO)));
        assert!(
            tokio::time::timeout(MOMENT, &mut handing).await.is_err(),
            "there is no room"
        );
        drop(full);
        assert!(
            tokio::time::timeout(MOMENT, &mut handing).await.is_err(),
            "others have not begun"
        );
        assert!(inbox.try_recv().is_ok(), "but what says that it has is handed on");
        begun.send_replace(true);
        assert!(handing.await.unwrap().is_none(), "the source is let go");
    }
}
