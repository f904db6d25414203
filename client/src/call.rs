//! One operation: which node, how long, and whether to try again. Never here: what is asked.
//! Invariant: a request that may not be repeated is sent again only when the failure proves that nothing was stored.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidemark_proto::v1::{self, cluster_service_client::ClusterServiceClient};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    cluster_tag::Lane,
    error::{DOMAIN, Error, ErrorKind, Failed, Reached},
    nodes::{Node, Nodes},
    options::ClientOptions,
    routing::ShardMap,
};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The map is asked for again after this long in use, and at most this often after errors.
const MAP_AGE_MAX: Duration = Duration::from_secs(5);
const MAP_AGE_MIN: Duration = Duration::from_millis(250);
/// Reasons with which a shard says that it stored nothing; of a request for several shards, others may have stored their part.
const NOTHING_STORED: [&str; 2] = ["NO_LEADER", "OVERLOADED"];
/// Reason of a node that belongs to no cluster yet.
const NOT_INITIALISED: &str = "NOT_INITIALISED";
const MAP_WAIT: Duration = Duration::from_secs(1);

/// Where a request goes first.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To<'a> {
    /// Any live node.
    Any,
    /// The first node we were given, and no other.
    First,
    /// The leader of the one shard that holds these devices; else any.
    Leader(&'a [String]),
}

/// What repeating a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing more than doing it once.
    Safe,
    /// Perhaps something twice. What goes to one shard is also repeated where the reason says that nothing was stored.
    OnlyIfNothingStored { one_shard: bool },
}

/// How long one try may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// `attempt_timeout`.
    Quick,
    /// Half of the time that is left, if that is longer: a stalled node must not eat all of it.
    Half,
    /// All the time there is.
    All,
}

/// How an operation is carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) to: To<'a>,
    pub(crate) repeat: Repeat,
    pub(crate) pace: Pace,
}

/// What every clone of a client shares.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: ClientOptions,
    pub(crate) nodes: Nodes,
    map: RwLock<Arc<ShardMap>>,
    /// When the map was last asked for; locked while it is.
    asked_at: tokio::sync::Mutex<Option<Instant>>,
    refreshing: AtomicBool,
}

impl Core {
    pub(crate) fn new(options: ClientOptions) -> Result<Self, Error> {
        Ok(Self {
            nodes: Nodes::new(&options)?,
            options,
            map: RwLock::default(),
            asked_at: tokio::sync::Mutex::new(None),
            refreshing: AtomicBool::new(false),
        })
    }

    /// The shard map as last heard.
    pub(crate) fn map(&self) -> Arc<ShardMap> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The node for the next try.
    pub(crate) fn pick(&self, to: To<'_>, avoid: Option<&str>) -> Result<Arc<Node>, Error> {
        let node = match to {
            To::Any => self.nodes.pick(None, avoid),
            To::First => self.nodes.configured().into_iter().next(),
            To::Leader(devices) => self.nodes.pick(self.map().leader_of(devices), avoid),
        };
        node.ok_or_else(|| Error::local(Code::Unavailable, "NO_ENDPOINT", "no node is known"))
    }

    /// Carries out an operation within `options.timeout`, over as many tries as that allows.
    pub(crate) async fn run<R, F, Fut>(self: &Arc<Self>, call: Call<'_>, ask: F) -> Result<R, Error>
    where
        F: Fn(Lane, Duration) -> Fut,
        Fut: Future<Output = Result<R, Status>>,
    {
        let ends_at = Instant::now() + self.options.timeout;
        let mut backoff = Backoff::default();
        let mut avoid = None;
        let mut said: Option<Failed> = None;
        self.refresh_soon(MAP_AGE_MAX, None);
        loop {
            let node = self.pick(call.to, avoid.as_deref())?;
            let left = ends_at.saturating_duration_since(Instant::now());
            let budget = match call.pace {
                Pace::Quick => self.options.attempt_timeout,
                Pace::Half => self.options.attempt_timeout.max(left / 2),
                Pace::All => left,
            };
            let failed = match try_once(&node, budget.min(left), &ask).await {
                Ok(answer) => return Ok(answer),
                // What a node said before tells more than that the rest of the time was too short for another try.
                Err(failed) if left < budget && failed.is_timeout() && call.repeat == Repeat::Safe => {
                    said.take().unwrap_or(failed)
                }
                Err(failed) => failed,
            };
            let astray = self.is_astray(&failed.error, &node);
            if astray {
                node.failed();
            }
            if !astray && !may_repeat(call.repeat, &failed) {
                return Err(settle(failed, call.repeat));
            }
            let pause = self.pause_after(&failed, &node, &mut backoff);
            if Instant::now() + pause >= ends_at {
                // What a node answered tells more than that another one could not be reached.
                let told = said.filter(|_| failed.node_at_fault && call.repeat == Repeat::Safe);
                return Err(settle(told.unwrap_or(failed), call.repeat));
            }
            tracing::debug!(node = node.address, error = %failed.error, ?pause, "trying again");
            avoid = failed.another_may_know().then(|| node.address.clone());
            if !failed.is_timeout() && (!failed.node_at_fault || said.is_none()) {
                said = Some(failed);
            }
            self.pause(pause, avoid.as_deref()).await;
        }
    }

    /// True where a node says of itself that it is not of the cluster: one endpoint that belongs to none, or no longer, must
    /// not spoil the others, nor an advertised address that leads to another cluster from here.
    pub(crate) fn is_astray(&self, error: &Error, node: &Node) -> bool {
        match error.reason.as_str() {
            NOT_INITIALISED | "NODE_REMOVED" => !self.map().is_empty(),
            "WRONG_CLUSTER" => node.is_learned(),
            _ => false,
        }
    }

    /// How long to wait after a failed try on a node.
    pub(crate) fn pause_after(&self, failed: &Failed, node: &Node, backoff: &mut Backoff) -> Duration {
        let elsewhere = failed.node_at_fault && self.nodes.another_than(node);
        backoff.next(elsewhere, failed.error.retry_after)
    }

    /// Waits before another try, and asks meanwhile who leads what by now: not the node that could not help, which may
    /// still take itself for the leader.
    pub(crate) async fn pause(self: &Arc<Self>, pause: Duration, avoid: Option<&str>) {
        match pause.is_zero() {
            true => self.refresh_soon(MAP_AGE_MIN, avoid),
            false => drop(tokio::join!(sleep(pause), self.refresh(MAP_AGE_MIN, avoid))),
        }
    }

    /// Asks any node but `avoid` for the shard map, unless that was done less than `age` ago.
    pub(crate) async fn refresh(&self, age: Duration, avoid: Option<&str>) {
        let mut asked_at = self.asked_at.lock().await;
        if asked_at.is_some_and(|asked_at| asked_at.elapsed() < age) {
            return;
        }
        *asked_at = Some(Instant::now());
        let Ok(node) = self.pick(To::Any, avoid) else { return };
        if let Err(failed) = self.ask_map(&node, MAP_WAIT).await {
            tracing::debug!(node = node.address, error = %failed.error, "no shard map");
        }
    }

    /// Asks this node for the shard map and takes it over.
    pub(crate) async fn ask_map(&self, node: &Node, budget: Duration) -> Result<v1::GetShardMapResponse, Failed> {
        let answer = try_once(node, budget, &|channel, budget| get_map(channel, budget)).await?;
        let map = ShardMap::from(&answer);
        self.nodes.belong_to(&answer.cluster_id);
        self.nodes.learn(map.addresses(), &self.options);
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        Ok(answer)
    }

    /// Notes that the map was asked for just now.
    pub(crate) async fn map_is_new(&self) {
        *self.asked_at.lock().await = Some(Instant::now());
    }

    /// Asks for a new map on the side where the one we have is older than this.
    fn refresh_soon(self: &Arc<Self>, age: Duration, avoid: Option<&str>) {
        let old = self
            .asked_at
            .try_lock()
            .is_ok_and(|at| at.is_none_or(|at| at.elapsed() >= age));
        if !old || self.refreshing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (core, avoid) = (Arc::clone(self), avoid.map(str::to_owned));
        tokio::spawn(async move {
            core.refresh(age, avoid.as_deref()).await;
            core.refreshing.store(false, Ordering::Relaxed);
        });
    }
}

pub(crate) async fn get_map(channel: Lane, budget: Duration) -> Result<v1::GetShardMapResponse, Status> {
    let request = with_deadline(v1::GetShardMapRequest {}, budget);
    Ok(ClusterServiceClient::new(channel)
        .get_shard_map(request)
        .await?
        .into_inner())
}

/// What a node that knows no cluster would say, had it refused to answer.
pub(crate) fn not_initialised() -> Status {
    let details = ErrorDetails::with_error_info(NOT_INITIALISED, DOMAIN, HashMap::<String, String>::new());
    let message = "the node belongs to no cluster yet, or has not heard of it";
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// A request that tells the server how long we wait.
pub(crate) fn with_deadline<T>(message: T, budget: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(budget);
    request
}

/// One try on one node; the node's health follows from it.
async fn try_once<R, F, Fut>(node: &Node, budget: Duration, ask: &F) -> Result<R, Failed>
where
    F: Fn(Lane, Duration) -> Fut,
    Fut: Future<Output = Result<R, Status>>,
{
    let result = match timeout(budget, node.channel()).await {
        Ok(Ok(channel)) => match timeout(budget, ask(channel, budget)).await {
            Ok(answer) => answer.map_err(Failed::from),
            Err(_) => Err(Failed::timed_out(&node.address, budget, Reached::Perhaps)),
        },
        Ok(Err(failed)) => Err(failed),
        Err(_) => Err(Failed::timed_out(&node.address, budget, Reached::Nothing)),
    };
    match &result {
        Err(failed) if failed.node_at_fault => node.failed(),
        _ => node.worked(),
    }
    result
}

fn may_repeat(repeat: Repeat, failed: &Failed) -> bool {
    let safe = match repeat {
        Repeat::Safe => true,
        Repeat::OnlyIfNothingStored { one_shard } => {
            failed.reached != Reached::Perhaps || one_shard && NOTHING_STORED.contains(&failed.error.reason.as_str())
        }
    };
    safe && failed.error.kind == ErrorKind::Retry
}

/// The error as the caller gets it.
fn settle(failed: Failed, repeat: Repeat) -> Error {
    let mut error = failed.error;
    let unknown = repeat != Repeat::Safe && failed.reached == Reached::Perhaps;
    if unknown && error.kind == ErrorKind::Retry && error.hint.is_none() {
        error.hint = Some(
            "it may have been done: look before it is repeated (a write with producer and sequence is safe to repeat)"
                .to_owned(),
        );
    }
    error
}

/// Growing pauses between tries: 50 ms to 1 s, with jitter, never shorter than the server asks for. A node that went
/// away says nothing about the others: the first time, another one is asked at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    waited: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            pause: PAUSE_MIN,
            waited: false,
        }
    }
}

impl Backoff {
    /// The next pause; `elsewhere`: the node is at fault, and there is another one.
    fn next(&mut self, elsewhere: bool, retry_after: Option<Duration>) -> Duration {
        let first = !std::mem::replace(&mut self.waited, true);
        if first && elsewhere && retry_after.is_none() {
            return Duration::ZERO;
        }
        let pause = self.pause.mul_f64(rand::random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        match retry_after {
            Some(asked) if asked > pause => asked.mul_f64(rand::random_range(1.0..1.2)),
            _ => pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_node_is_asked_at_once_and_only_the_first_time() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(true, None), Duration::ZERO);
        assert!(
            backoff.next(true, None) >= PAUSE_MIN / 2,
            "the other one failed as well"
        );
        assert!(
            Backoff::default().next(false, None) >= PAUSE_MIN / 2,
            "nobody else is there"
        );
        let asked = Some(Duration::from_secs(3));
        assert!(
            Backoff::default().next(true, asked) >= Duration::from_secs(3),
            "told to wait"
        );
    }
}
