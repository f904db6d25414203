//! The nodes we know, their connections and which of them to leave alone for a while. Never here: requests.
//! Invariant: one connection a node, made when first needed, dropped when it failed.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic::{Code, transport::Endpoint};

use crate::{
    cluster_tag::{ClusterTag, Lane},
    error::{Error, Failed, Reached},
    options::ClientOptions,
};

const REST_MIN: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(5);
/// A node that the map no longer names is forgotten after this many failures in a row.
const GONE_AFTER: u32 = 3;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// An answer of some hundred kilobytes comes in a few frames, not in dozens.
const FRAME_BYTES_MAX: u32 = 256 << 10;
/// A refused batch names a hundred rows in the trailers of the answer, each with its message: more than the 16 KiB of the HTTP layer.
const TRAILERS_BYTES_MAX: u32 = 1 << 20;

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: String,
    configured: bool,
    endpoint: Endpoint,
    connect_timeout: Duration,
    channel: tokio::sync::Mutex<Option<Lane>>,
    tag: ClusterTag,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Node {
    fn new(address: &str, configured: bool, tag: &ClusterTag, options: &ClientOptions) -> Result<Self, Error> {
        let bad = |cause: &dyn std::fmt::Display| {
            let mut error = Error::local(
                Code::InvalidArgument,
                "BAD_ENDPOINT",
                format!("bad endpoint {address:?}: {cause}"),
            );
            error.hint = Some("write host:port or http://host:port".to_owned());
            error
        };
        let bare = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
        let port = bare.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return Err(bad(&"no port"));
        }
        let endpoint = Endpoint::from_shared(format!("http://{bare}"))
            .map_err(|cause| bad(&cause))?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .http2_keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_max_header_list_size(TRAILERS_BYTES_MAX);
        Ok(Self {
            address: bare.to_owned(),
            configured,
            endpoint,
            connect_timeout: options.connect_timeout,
            channel: tokio::sync::Mutex::new(None),
            tag: tag.clone(),
            health: Mutex::new(Health::default()),
        })
    }

    /// True where we know the node from a shard map only.
    pub(crate) fn is_learned(&self) -> bool {
        !self.configured
    }

    /// The connection, made now if there is none.
    pub(crate) async fn channel(&self) -> Result<Lane, Failed> {
        let mut channel = self.channel.lock().await;
        if let Some(channel) = &*channel {
            return Ok(channel.clone());
        }
        let message = match tokio::time::timeout(self.connect_timeout, self.endpoint.connect()).await {
            Ok(Ok(made)) => {
                let made = self.tag.on(made);
                *channel = Some(made.clone());
                return Ok(made);
            }
            Ok(Err(cause)) => format!("cannot connect to {}: {}", self.address, crate::error::deepest(&cause)),
            Err(_) => format!(
                "cannot connect to {}: no answer in {:?}",
                self.address, self.connect_timeout
            ),
        };
        let error = Error::local(Code::Unavailable, "CONNECTION_FAILED", message);
        Err(Failed {
            error,
            reached: Reached::Nothing,
            node_at_fault: true,
        })
    }

    /// The node answered: it may be asked again at once.
    pub(crate) fn worked(&self) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = Health::default();
    }

    /// The node or the connection failed: leave it alone for a while, longer each time, and connect anew after.
    pub(crate) fn failed(&self) {
        {
            let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
            // Many requests fail with one connection: that is one failure.
            if health.rests_until.is_some_and(|until| until > Instant::now()) {
                return;
            }
            let rest = (REST_MIN * 2_u32.pow(health.failures.min(6))).min(REST_MAX);
            health.failures = health.failures.saturating_add(1);
            health.rests_until = Some(Instant::now() + rest.mul_f64(rand::random_range(0.5..1.0)));
        }
        // Locked means that somebody is connecting anew already.
        if let Ok(mut channel) = self.channel.try_lock() {
            *channel = None;
        }
    }

    fn seems_gone(&self) -> bool {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).failures >= GONE_AFTER
    }

    fn rests_until(&self) -> Option<Instant> {
        let until = self.health.lock().unwrap_or_else(PoisonError::into_inner).rests_until;
        until.filter(|until| *until > Instant::now())
    }
}

/// All nodes we know: those we were given, and those of the shard map.
#[derive(Debug)]
pub(crate) struct Nodes {
    list: RwLock<Vec<Arc<Node>>>,
    turn: AtomicUsize,
    tag: ClusterTag,
}

impl Nodes {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, Error> {
        let tag = ClusterTag::of(options.application.as_deref())?;
        let list: Result<Vec<_>, _> = options
            .endpoints
            .iter()
            .map(|address| Node::new(address.trim(), true, &tag, options).map(Arc::new))
            .collect();
        let list = list?;
        if list.is_empty() {
            return Err(Error::local(Code::InvalidArgument, "NO_ENDPOINT", "no endpoint given"));
        }
        // Many clients with one list must not all begin at its head.
        let turn = AtomicUsize::new(rand::random_range(0..list.len()));
        Ok(Self {
            list: RwLock::new(list),
            turn,
            tag,
        })
    }

    /// The nodes we were given.
    pub(crate) fn configured(&self) -> Vec<Arc<Node>> {
        self.all().into_iter().filter(|node| node.configured).collect()
    }

    fn all(&self) -> Vec<Arc<Node>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on every call says that this cluster is meant.
    pub(crate) fn belong_to(&self, cluster_id: &str) {
        self.tag.learn(cluster_id);
    }

    /// Takes over the nodes of the shard map; one that it no longer names and that fails is forgotten, unless we were given it.
    pub(crate) fn learn<'a>(&self, addresses: impl Iterator<Item = &'a str>, options: &ClientOptions) {
        let mut wanted: Vec<&str> = addresses.collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|node| node.configured || !node.seems_gone() || wanted.contains(&node.address.as_str()));
        for address in wanted {
            if list.iter().any(|node| node.address == address) {
                continue;
            }
            match Node::new(address, false, &self.tag, options) {
                Ok(node) => list.push(Arc::new(node)),
                Err(error) => tracing::warn!(address, %error, "node of the shard map left out"),
            }
        }
    }

    /// The node at an address, whether we knew it or not.
    pub(crate) fn at(&self, address: &str, options: &ClientOptions) -> Result<Arc<Node>, Error> {
        if let Some(node) = self.all().into_iter().find(|node| node.address == address) {
            return Ok(node);
        }
        let node = Arc::new(Node::new(address, false, &self.tag, options)?);
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.push(Arc::clone(&node));
        Ok(node)
    }

    /// Whether there is another node that is not resting.
    pub(crate) fn another_than(&self, node: &Node) -> bool {
        let all = self.all();
        all.iter()
            .any(|other| other.address != node.address && other.rests_until().is_none())
    }

    /// The wanted node if it is neither resting nor `avoid`; else the next one that is neither; else `avoid` if it is not
    /// resting; else whichever rests the shortest.
    pub(crate) fn pick(&self, wanted: Option<&str>, avoid: Option<&str>) -> Option<Arc<Node>> {
        let all = self.all();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let from_turn = || (0..all.len()).map(|step| &all[(turn.wrapping_add(step)) % all.len()]);
        let awake = || from_turn().filter(|node| node.rests_until().is_none());
        let others = || awake().filter(|node| Some(node.address.as_str()) != avoid);
        others()
            .find(|node| Some(node.address.as_str()) == wanted)
            .or_else(|| others().next())
            .or_else(|| awake().next())
            .or_else(|| from_turn().min_by_key(|node| node.rests_until()))
            .cloned()
    }
}
