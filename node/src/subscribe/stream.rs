//! All shards of a subscription as one stream with a cursor; admission of subscriptions.
//!
//! Never here: the log, or where a shard is followed. Invariant: the cursor of a message covers that message and those before it, and
//! nothing else; what waits for a reader has a cap in bytes, and its end frees everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemark_proto::peer::{FollowEvent, FollowedUpTo};
use tidemark_proto::v1::{Selector, SubscribeRequest, SubscribeResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::asked::Asked;
use super::cursor::Cursors;
use super::serve::Follows;
use super::shard::{EVENT_BYTES_MIN, Handed, Outlet, Shard, Shared};
use crate::clock::{NS_PER_MS, now_ns};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::query::targets;
use crate::route::Router;
use crate::wire::registry::check_selector;

const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// The subscriptions that clients have at this node.
pub struct Subscriptions {
    router: Arc<Router>,
    follows: Arc<Follows>,
    limits: Arc<Limits>,
    permits: Arc<Semaphore>,
    /// Of shards, all subscriptions together.
    shards: Arc<Semaphore>,
}

impl Subscriptions {
    /// None yet.
    pub fn new(router: Arc<Router>, follows: Arc<Follows>, limits: Arc<Limits>) -> Subscriptions {
        Subscriptions {
            router,
            follows,
            permits: Arc::new(Semaphore::new(limits.subscriptions_max)),
            shards: Arc::new(Semaphore::new(limits.follows_max)),
            limits,
        }
    }

    /// Begins one of an application; without a name where it has none.
    pub async fn subscribe(&self, request: SubscribeRequest, application: &str) -> Result<Messages> {
        let full = |_| Error::new(Reason::Overloaded, "this node has as many subscriptions as it may");
        let permit = self.permits.clone().try_acquire_owned().map_err(full)?;
        let asked = Asked::new(&request)?;
        let selector = check_selector(request.selector.as_ref(), true, &self.limits)?;
        let catalog = self.router.catalog_of(&selector).await?;
        if !selector.device_type.is_empty() {
            let def = catalog.device_type(&selector.device_type);
            let def = def.map_err(|e| e.field("selector.device_type"))?;
            def.choose(&asked.properties)?;
        }
        let cursors = Cursors::new(&catalog, &asked, &selector, application);
        let targets = targets(&catalog, &selector);
        let upto = match request.cursor.is_empty() {
            true => None,
            false => Some(known_shards(&request.cursor, &cursors, &targets)?),
        };
        let shards = self.shards.clone().try_acquire_many_owned(targets.len() as u32);
        let shards = shards.map_err(full)?;
        // Everything in them has its room, of which there is no more, but for the first heartbeat and the error at the end: they are never
        // full.
        let most = self.limits.subscription_bytes_max / EVENT_BYTES_MIN + 2;
        let (out, inbox) = mpsc::channel(most);
        let metrics = self.router.host().metrics().clone();
        metrics.subscriptions_begun.add(1);
        let joined = Joined {
            cursors,
            waits_for: if upto.is_some() { 0 } else { targets.len() },
            upto: upto.unwrap_or_default(),
            behind: BTreeMap::new(),
            out,
            metrics: metrics.clone(),
        };
        let (follows, room_max) = (self.follows.clone(), self.limits.subscription_bytes_max);
        let (handed, events) = mpsc::channel(most);
        let begun = watch::Sender::new(joined.waits_for == 0);
        let shared = Shared {
            router: self.router.clone(),
            follows,
            asked,
            outlet: Outlet {
                out: handed,
                room: Arc::new(Semaphore::new(room_max)),
                room_max,
                begun: begun.subscribe(),
            },
        };
        tokio::spawn(async move {
            let _permits = (permit, shards);
            joined.run(shared, targets, events, begun).await;
            metrics.subscriptions_ended.add(1);
        });
        Ok(Messages { inbox })
    }
}

/// The places of a cursor, one for each shard that is followed.
fn known_shards(bytes: &[u8], cursors: &Cursors, targets: &[(u32, Selector)]) -> Result<BTreeMap<u32, FollowedUpTo>> {
    let shards = cursors.take(bytes)?;
    let known: BTreeMap<u32, FollowedUpTo> = shards.into_iter().map(|upto| (upto.group, upto)).collect();
    match targets.iter().all(|(group, _)| known.contains_key(group)) && known.len() == targets.len() {
        true => Ok(known),
        false => Err(Error::new(Reason::InvalidCursor, "the cursor is of other shards").field("cursor")),
    }
}

/// A message, and the room that it takes until it is taken.
struct Waiting {
    message: Result<SubscribeResponse>,
    /// Stamp of the newest write that it tells of.
    stamp_ns: Option<i64>,
    _room: Option<OwnedSemaphorePermit>,
}

/// The messages of one subscription; whoever drops them ends it.
pub struct Messages {
    inbox: mpsc::Receiver<Waiting>,
}

impl Messages {
    /// The next one; an error is the last.
    pub async fn next(&mut self) -> Option<Result<SubscribeResponse>> {
        let waiting = self.inbox.recv().await?;
        Some(waiting.message.map(|message| SubscribeResponse {
            // Told now, as it leaves, and not when it was made.
            behind_ms: waiting.stamp_ns.map_or(0, age_ms),
            ..message
        }))
    }
}

fn age_ms(stamp_ns: i64) -> i64 {
    (now_ns().saturating_sub(stamp_ns) / NS_PER_MS).max(0)
}

/// The shards of a subscription, joined.
struct Joined {
    cursors: Cursors,
    /// Shards that have not begun.
    waits_for: usize,
    upto: BTreeMap<u32, FollowedUpTo>,
    /// Stamps of the newest writes of shards that have more to tell.
    behind: BTreeMap<u32, i64>,
    out: mpsc::Sender<Waiting>,
    metrics: Arc<Metrics>,
}

impl Joined {
    /// Follows the shards until one of them fails for good, or nobody takes the messages any more.
    async fn run(
        mut self,
        shared: Shared,
        targets: Vec<(u32, Selector)>,
        mut events: mpsc::Receiver<Handed>,
        begun: watch::Sender<bool>,
    ) {
        let room = shared.outlet.room.clone();
        let mut stopping = shared.follows.stopping();
        let mut shards = JoinSet::new();
        for (group, selector) in targets {
            let upto = self.upto.get(&group).copied();
            shards.spawn(Shard::new(shared.clone(), group, selector, upto).run());
        }
        drop(shared);
        if self.waits_for == 0 {
            self.heartbeat(None);
        }
        let mut heartbeats = tokio::time::interval(HEARTBEAT_EVERY);
        heartbeats.reset();
        heartbeats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let error = loop {
            tokio::select! {
                () = self.out.closed() => return,
                _ = stopping.wait_for(|stop| *stop) => break Error::new(Reason::Stopping, "the node is stopping"),
                Some(handed) = events.recv() => {
                    if self.take(handed) {
                        begun.send_replace(true);
                        heartbeats.reset();
                    }
                }
                _ = heartbeats.tick(), if self.waits_for == 0 => {
                    // Behind a full queue there is no need for one.
                    if let Ok(room) = room.clone().try_acquire_many_owned(HEARTBEAT_BYTES) {
                        self.heartbeat(Some(room));
                    }
                }
                Some(ended) = shards.join_next() => break ended.unwrap_or_else(Error::internal),
            }
        };
        // What was told before the end is told.
        while let Ok(handed) = events.try_recv() {
            self.take(handed);
        }
        self.send(Err(error), None, None);
    }

    /// An event of a shard, and what of it a client is told. With the first one of the last shard the subscription has begun, and the
    /// client is told, whether there is room or not: true.
    fn take(&mut self, handed: Handed) -> bool {
        let has_begun = self.waits_for == 0;
        self.pass(handed);
        let begins = !has_begun && self.waits_for == 0;
        if begins {
            self.heartbeat(None);
        }
        begins
    }

    fn pass(&mut self, handed: Handed) {
        let Handed { group, event, room } = handed;
        if let Some(upto) = event.upto {
            if self.upto.insert(group, upto).is_none() {
                self.waits_for = self.waits_for.saturating_sub(1);
            }
            match event.stamp_ns {
                _ if event.caught_up => drop(self.behind.remove(&group)),
                0 => {}
                stamp_ns => drop(self.behind.insert(group, stamp_ns)),
            }
        }
        let nothing = event.batch.is_none() && event.alerts.is_empty() && event.silent.is_empty();
        if nothing && event.deleted.is_empty() {
            return;
        }
        let stamp_ns = Some(event.stamp_ns).filter(|stamp_ns| *stamp_ns != 0);
        let message = self.message(event);
        self.send(Ok(message), stamp_ns, Some(room));
    }

    fn message(&self, event: FollowEvent) -> SubscribeResponse {
        SubscribeResponse {
            batch: event.batch,
            late: event.late,
            alerts: event.alerts,
            silent: event.silent,
            deleted: event.deleted,
            newest: event.newest,
            cursor: match self.waits_for {
                0 => self.cursor(),
                _ => Bytes::new(),
            },
            ..SubscribeResponse::default()
        }
    }

    fn cursor(&self) -> Bytes {
        self.cursors.give(self.upto.values().copied().collect())
    }

    /// Says that the connection lives.
    fn heartbeat(&self, room: Option<OwnedSemaphorePermit>) {
        let message = SubscribeResponse {
            cursor: self.cursor(),
            heartbeat: true,
            ..SubscribeResponse::default()
        };
        self.send(Ok(message), self.behind.values().min().copied(), room);
    }

    fn send(&self, message: Result<SubscribeResponse>, stamp_ns: Option<i64>, room: Option<OwnedSemaphorePermit>) {
        if let Ok(message) = &message {
            self.metrics.subscription_messages.add(1);
            let rows = message.batch.as_ref().map_or(0, |batch| batch.observed_at_ns.len());
            self.metrics.subscription_rows.add(rows as u64);
        }
        let waiting = Waiting {
            message,
            stamp_ns,
            _room: room,
        };
        // Nobody there: the loop ends by itself.
        self.out.try_send(waiting).ok();
    }
}

/// What a heartbeat takes of a subscription's bytes.
const HEARTBEAT_BYTES: u32 = 4 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::catalog::Catalog;
    use crate::config::DiskReserve;
    use crate::disk::Disk;

    #[tokio::test]
    async fn that_it_has_begun_is_told_also_where_there_is_no_room() {
        let asked = Asked::new(&SubscribeRequest::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path(), DiskReserve::Auto, None).unwrap();
        let (out, inbox) = mpsc::channel(4);
        let mut joined = Joined {
            cursors: Cursors::new(&Catalog::default(), &asked, &Selector::default(), ""),
            waits_for: 2,
            upto: BTreeMap::new(),
            behind: BTreeMap::new(),
            out,
            metrics: Arc::new(Metrics::new(disk)),
        };
        let room = Arc::new(Semaphore::new(2));
        let mut begins = |group: u32| {
            let upto = Some(FollowedUpTo {
                group,
                ..FollowedUpTo::default()
            });
            joined.take(Handed {
                group,
                event: FollowEvent {
                    upto,
                    ..FollowEvent::default()
                },
                room: room.clone().try_acquire_owned().unwrap(),
            })
        };
        assert!(!begins(1) && begins(2) && !begins(2), "once");
        drop(joined);
        let mut messages = Messages { inbox };
        let first = messages.next().await.unwrap().unwrap();
        assert!(first.heartbeat && !first.cursor.is_empty(), "{first:?}");
        assert!(messages.next().await.is_none());
    }
}
