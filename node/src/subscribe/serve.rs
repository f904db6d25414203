//! Follows the log of a replica of this node for one subscription: waits for what is applied, reads it, sends its events.
//!
//! Never here: what events are, or another replica. Invariant: only what is applied here is read; a reader that takes nothing
//! holds a chunk of log and an event, no more, and costs nothing once it is gone.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tidemark_proto::peer::follow_shard_response::Part;
use tidemark_proto::peer::{FollowEvent, FollowShardRequest, FollowShardResponse, FollowedUpTo, ShardCommand};
use tidemark_proto::v1::Selector;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::asked::Asked;
use super::events::Entry;
use super::follower::{Follower, Here, gone};
use crate::clock::{NS_PER_MS, monotonic, now_ns};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::raft::host::Host;
use crate::raft::machine::blocking;
use crate::raft::replica::Replica;
use crate::raft::state::store_error;
use crate::raft::tail::{Hold, Logged};
use crate::wire::status::to_failure;

/// Events that wait for whoever takes them.
const EVENTS_AHEAD: usize = 2;
/// A replica is looked at, and progress is told, this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A replica that may be so far behind is not followed.
const BEHIND_MAX: Duration = Duration::from_secs(3);
/// Longest wait until a replica has applied what the subscription has.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);
/// Longest wait until a leader is sure of itself.
const LINEARIZE_MAX: Duration = Duration::from_secs(2);
/// Longest wait until the catalog has the types of a write.
const TYPES_MAX: Duration = Duration::from_secs(5);
/// A larger entry is read by a thread that may block.
const INLINE_BYTES_MAX: usize = 8 << 10;

/// The followers of this node.
pub struct Follows {
    host: Arc<Host>,
    permits: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
}

impl Follows {
    /// Of the replicas of a node.
    pub fn new(host: Arc<Host>, limits: &Limits) -> Follows {
        Follows {
            host,
            permits: Arc::new(Semaphore::new(limits.follows_max)),
            stopping: watch::Sender::new(false),
        }
    }

    /// Ends all of them: the node stops.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Told once they are to end.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Follows a shard for another node.
    pub fn serve(&self, request: FollowShardRequest) -> Result<mpsc::Receiver<FollowShardResponse>> {
        self.host.check_envelope(request.envelope.as_ref())?;
        self.follow(request)
    }

    /// Follows the replica of a shard that is here.
    pub(super) fn follow(&self, request: FollowShardRequest) -> Result<mpsc::Receiver<FollowShardResponse>> {
        let permit = self.permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| {
            Error::new(
                Reason::Overloaded,
                "this node follows as many shards for subscriptions as it may",
            )
        })?;
        let (out, events) = mpsc::channel(EVENTS_AHEAD);
        let (host, mut stopping) = (self.host.clone(), self.stopping.subscribe());
        tokio::spawn(async move {
            let _permit: OwnedSemaphorePermit = permit;
            let following = Box::pin(follow(&host, &request, &out));
            let ended = tokio::select! {
                ended = following => ended,
                () = out.closed() => return,
                _ = stopping.wait_for(|stop| *stop) => Err(Error::new(Reason::Stopping, "the node is stopping")),
            };
            let part = match ended {
                Ok(leader) => Part::NotLeader(leader),
                Err(error) => Part::Failure(to_failure(&error)),
            };
            out.send(FollowShardResponse { part: Some(part) }).await.ok();
        });
        Ok(events)
    }
}

type Out = mpsc::Sender<FollowShardResponse>;

fn message(event: FollowEvent) -> FollowShardResponse {
    FollowShardResponse {
        part: Some(Part::Event(event)),
    }
}

/// Ends with a failure, or with the node that leads where this one cannot begin.
async fn follow(host: &Arc<Host>, request: &FollowShardRequest, out: &Out) -> Result<u64> {
    let group = request.group;
    let Some(replica) = host.replica(group).filter(|replica| replica.votes()) else {
        let hint = host.replica(group).and_then(|replica| replica.leader_node());
        return Ok(hint.unwrap_or(0));
    };
    match request.after {
        Some(after) => has_applied(&replica, after).await?,
        None => {
            if replica.linearize(LINEARIZE_MAX).await? != Ok(()) {
                return Ok(replica.leader_node().unwrap_or(0));
            }
        }
    }
    let applied = replica.watch_applied();
    let from = request.after.map_or_else(|| *applied.borrow(), |after| after.index);
    let hold = replica.hold_log(from);
    let follower = begin(host, &replica, request, out).await?;
    hold.read_upto(follower.index);
    let mut following = Following {
        host: host.clone(),
        replica,
        follower: Some(follower),
        out: out.clone(),
    };
    following.run(applied, &hold).await
}

/// Waits until this replica has everything that a subscription was told.
async fn has_applied(replica: &Replica, after: FollowedUpTo) -> Result<()> {
    let mut applied = replica.watch_applied();
    let needed = after.index.saturating_add(u64::from(after.parts > 0));
    let waiting = applied.wait_for(|applied| *applied >= needed);
    if matches!(tokio::time::timeout(CATCH_UP_MAX, waiting).await, Ok(Ok(_))) {
        return Ok(());
    }
    // A leader that is sure of itself has all that anybody was ever told.
    if replica.linearize(LINEARIZE_MAX).await? == Ok(()) && *replica.watch_applied().borrow() < needed {
        let message = "the cursor is ahead of everything that was ever written";
        return Err(Error::new(Reason::InvalidCursor, message).field("cursor"));
    }
    Err(Error::new(
        Reason::TooStale,
        "this replica lacks what the subscriber has",
    ))
}

/// Looks at all devices once.
async fn begin(host: &Arc<Host>, replica: &Replica, request: &FollowShardRequest, out: &Out) -> Result<Follower> {
    let began = monotonic();
    loop {
        let (state, catalog, request) = (replica.state().clone(), host.catalog()?, request.clone());
        let out = out.clone();
        let begun = blocking(move || {
            let asked = Asked::of_peer(&request);
            let selector: Selector = request.selector.unwrap_or_default();
            let send = |event| out.blocking_send(message(event)).is_ok();
            let whose = (&selector, request.after);
            Follower::begin(&state, &catalog, request.group, &asked, whose, (now_ns(), &send))
        });
        match begun.await {
            Err(error) if error.reason() == Reason::TooStale && began.elapsed() < TYPES_MAX => {
                catalog_change(host).await;
            }
            begun => return begun,
        }
    }
}

/// Returns when this node learns of another catalog, or after a moment.
async fn catalog_change(host: &Host) {
    let mut changes = host.watch_catalog();
    tokio::time::timeout(LOOK_EVERY / 10, changes.changed()).await.ok();
}

/// A follower on its way.
struct Following {
    host: Arc<Host>,
    replica: Arc<Replica>,
    /// Away only while another thread works with it.
    follower: Option<Follower>,
    out: Out,
}

impl Following {
    async fn run(&mut self, mut applied: watch::Receiver<u64>, hold: &Hold) -> Result<u64> {
        let mut look_at = monotonic();
        loop {
            let upto = *applied.borrow_and_update();
            while self.follower()?.index < upto {
                let after = self.follower()?.index;
                let entries = self.replica.applied_entries(after, upto).await?.ok_or_else(expired)?;
                self.read(entries).await?;
                hold.read_upto(self.follower()?.index);
                // One that has far to go leaves room for others.
                tokio::task::yield_now().await;
            }
            self.tell_silence().await?;
            let now = monotonic();
            if now >= look_at {
                self.look()?;
                let progress = FollowEvent {
                    upto: Some(self.follower()?.upto()),
                    caught_up: self.follower()?.index >= *applied.borrow(),
                    ..FollowEvent::default()
                };
                self.send(progress).await?;
                look_at = now + LOOK_EVERY;
            }
            let due = self.follower()?.next_silence_ns();
            let due = due.map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(now_ns()).max(NS_PER_MS) as u64));
            let pause = look_at.saturating_duration_since(now);
            let pause = due.map_or(pause, |due| pause.min(due));
            tokio::select! {
                changed = applied.changed() => changed.map_err(|_| moved())?,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn follower(&self) -> Result<&Follower> {
        self.follower
            .as_ref()
            .ok_or_else(|| Error::internal("a follower was lost"))
    }

    /// Whether this replica is still one to follow.
    fn look(&self) -> Result<()> {
        let here = self.host.replica(self.replica.group());
        if here.is_none_or(|here| here.id() != self.replica.id()) || !self.replica.votes() {
            return Err(moved());
        }
        match self.replica.lag().is_some_and(|lag| lag <= BEHIND_MAX) {
            true => Ok(()),
            false => Err(Error::new(
                Reason::TooStale,
                "this replica is behind its leader, or knows of none",
            )),
        }
    }

    async fn send(&self, event: FollowEvent) -> Result<()> {
        self.out.send(message(event)).await.map_err(|_| gone())
    }

    /// Tells what entries say, in order.
    async fn read(&mut self, entries: Vec<Logged>) -> Result<()> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let (from, to) = (first.index, last.index);
        let void = self
            .replica
            .state()
            .with_shard(|shard| shard.void_entries(from, to).map_err(store_error))?;
        let void = void.ok_or_else(expired)?;
        for logged in entries {
            let bytes = logged.command.as_ref().map_or(0, |command| command.len());
            let command = match logged.command {
                Some(command) if void.binary_search(&logged.index).is_err() => ShardCommand::decode(command),
                _ => Ok(ShardCommand::default()),
            };
            let command =
                command.map_err(|error| Error::new(Reason::Corruption, format!("entry of the log: {error}")))?;
            let mut entry = Entry {
                index: logged.index,
                command,
            };
            if entry.command.command.is_none() {
                self.follower
                    .iter_mut()
                    .for_each(|follower| follower.pass_over(entry.index));
                continue;
            }
            loop {
                let event;
                (entry, event) = self.event(entry, bytes > INLINE_BYTES_MAX).await?;
                match event {
                    Some(event) => self.send(event).await?,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// The next event of an entry; waits for a catalog that knows what is in it.
    async fn event(&mut self, mut entry: Entry, large: bool) -> Result<(Entry, Option<FollowEvent>)> {
        let began = monotonic();
        loop {
            let event;
            (entry, event) = self.event_now(entry, large).await?;
            match event {
                Err(error) if error.reason() == Reason::TooStale && began.elapsed() < TYPES_MAX => {
                    catalog_change(&self.host).await;
                }
                event => return Ok((entry, event?)),
            }
        }
    }

    async fn event_now(&mut self, entry: Entry, large: bool) -> Result<(Entry, Result<Option<FollowEvent>>)> {
        let lost = || Error::internal("a follower was lost");
        let mut follower = self.follower.take().ok_or_else(lost)?;
        let (state, catalog) = (self.replica.state().clone(), self.host.catalog()?);
        // What devices had before may have to be read from disk.
        let large = large || follower.is_catching_up();
        let work = move || {
            let catalog = &catalog;
            let event = state.with_shard(|shard| follower.event(&Here { shard, catalog }, &entry));
            Ok((follower, entry, event))
        };
        let (follower, entry, event) = match large {
            true => blocking(work).await?,
            false => work()?,
        };
        self.follower = Some(follower);
        Ok((entry, event))
    }

    async fn tell_silence(&mut self) -> Result<()> {
        let Some(follower) = self.follower.as_mut() else {
            return Ok(());
        };
        let (catalog, now_ns) = (self.host.catalog()?, now_ns());
        let state = self.replica.state();
        let events = state.with_shard(|shard| {
            let here = Here {
                shard,
                catalog: &catalog,
            };
            follower.silence(&here, now_ns)
        })?;
        for event in events {
            self.send(event).await?;
        }
        Ok(())
    }
}

fn expired() -> Error {
    Error::new(Reason::CursorExpired, "the log no longer holds what follows the cursor")
        .field("cursor")
        .hint("subscribe anew with newest_first, and read with a query of records what was missed")
}

fn moved() -> Error {
    Error::new(Reason::TooStale, "the replica has left this node")
}
