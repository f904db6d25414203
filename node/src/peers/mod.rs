//! Connections to the other nodes: one lane for Raft, one for answers of shards, one for everything else. Never: what the messages mean.
//!
//! Answers have a lane of their own because nobody may take one for a while (its reader is slow, or takes another shard's first): what
//! came of it then fills a part of the connection's window, which must stay open for all others, and above all for writes.
//!
//! Invariant: every call has a deadline, every connection a keepalive, and what waits to be sent is bounded in bytes; so many answers
//! as a node asks for at once fit the window of their lane even if none of them is taken.

mod gather;
mod link;
mod throttle;
mod turns;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemark_proto::peer::peer_service_client::PeerServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::config::Tuning;
use crate::error::{Error, Reason, Result};

pub use gather::Gather;
pub use link::{LinkError, RaftLink, is_idle};
pub use throttle::Throttle;
pub use turns::Turns;

/// Largest message between nodes, bytes. Snapshot pieces and Raft batches stay far below.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Of an answer that nobody takes, so much may be on this side.
const ANSWER_WINDOW_BYTES: u32 = 256 << 10;
/// More answers at once are asked of no node: four for each of twice the questions that a node takes by default, and some more.
const ANSWERS_WINDOW_BYTES: u32 = 1_024 * ANSWER_WINDOW_BYTES;

/// Client of another node's peer service.
pub type PeerClient = PeerServiceClient<Channel>;

/// One other node, by its peer address.
pub struct Peer {
    client: PeerClient,
    answers: PeerClient,
    raft: RaftLink,
    replay: Turns,
    disk_low: AtomicBool,
}

impl Peer {
    /// For proposals, what writes have to know, and snapshots. Cheap to clone; the caller sets the deadline on each request.
    pub fn client(&self) -> PeerClient {
        self.client.clone()
    }

    /// For answers of shards to questions, which may lie a while before they are taken.
    pub fn answers(&self) -> PeerClient {
        self.answers.clone()
    }

    /// For Raft messages.
    pub fn raft(&self) -> &RaftLink {
        &self.raft
    }

    /// For Raft messages that repeat the past.
    pub fn replay(&self) -> &Turns {
        &self.replay
    }

    /// What it said last of its disk.
    pub fn note_disk_low(&self, low: bool) {
        self.disk_low.store(low, Ordering::Relaxed);
    }
}

/// All other nodes, connected when first needed.
pub struct Peers {
    by_address: Mutex<HashMap<String, Arc<Peer>>>,
    throttle: Arc<Throttle>,
    /// Copies that have a rate of their own, by group and receiver.
    limited: Mutex<HashMap<(u32, u64), Arc<Throttle>>>,
    gather: Arc<Gather>,
}

impl Default for Peers {
    fn default() -> Peers {
        Peers::sending(Tuning::default().move_bytes_per_second)
    }
}

impl Peers {
    /// None yet. So many bytes of checkpoints leave a second, to all of them together.
    pub fn sending(bytes_per_second: u64) -> Peers {
        Peers {
            by_address: Mutex::default(),
            throttle: Arc::new(Throttle::new(bytes_per_second)),
            limited: Mutex::default(),
            gather: Arc::default(),
        }
    }

    /// What lets a checkpoint to a replica of a group out: a rate of its own where it has one, else what all share.
    pub fn throttle_to(&self, group: u32, replica: u64) -> Arc<Throttle> {
        let limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        limited.get(&(group, replica)).unwrap_or(&self.throttle).clone()
    }

    /// Gives these copies, and no others, a rate of their own, each the same.
    pub fn limit_copies(&self, bytes_per_second: u64, copies: &[(u32, u64)]) {
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        limited.retain(|copy, _| copies.contains(copy));
        for copy in copies {
            let new = || Arc::new(Throttle::new(bytes_per_second));
            limited.entry(*copy).or_insert_with(new).set(bytes_per_second);
        }
    }

    /// When heartbeats to all of them leave.
    pub fn gather(&self) -> &Gather {
        &self.gather
    }

    /// The node at a peer address (`host:port`).
    pub fn at(&self, address: &str) -> Result<Arc<Peer>> {
        let mut peers = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(address) {
            return Ok(peer.clone());
        }
        let peer = Arc::new(Peer {
            client: client(lane(address, STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES)?),
            answers: client(lane(address, ANSWER_WINDOW_BYTES, ANSWERS_WINDOW_BYTES)?),
            raft: RaftLink::start(
                client(lane(address, STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES)?),
                self.gather.clone(),
            ),
            replay: Turns::default(),
            disk_low: AtomicBool::new(false),
        });
        peers.insert(address.to_string(), peer.clone());
        Ok(peer)
    }

    /// Whether the disk of a node is below its reserve, as it said last.
    pub fn disk_low(&self, address: &str) -> bool {
        let peers = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        peers
            .get(address)
            .is_some_and(|peer| peer.disk_low.load(Ordering::Relaxed))
    }

    /// Whether any is.
    pub fn any_disk_low(&self) -> bool {
        let peers = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        peers.values().any(|peer| peer.disk_low.load(Ordering::Relaxed))
    }
}

fn client(channel: Channel) -> PeerClient {
    PeerServiceClient::new(channel)
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
}

/// A connection of its own with its windows in bytes, made when first used and made again when lost.
fn lane(address: &str, stream_window: u32, window: u32) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| Error::new(Reason::InvalidValue, format!("peer address {address:?}: {e}")))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(window)
        .connect_lazy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_with_a_rate_of_its_own_leaves_the_others_theirs() {
        let peers = Peers::sending(64 << 20);
        let rates = |copies: [(u32, u64); 3]| copies.map(|(group, to)| peers.throttle_to(group, to).bytes_per_second());
        let three = [(1, 7), (2, 7), (1, 8)];
        assert_eq!(rates(three), [64 << 20; 3]);
        peers.limit_copies(1 << 20, &[(1, 7), (2, 7)]);
        let before = peers.throttle_to(2, 7);
        assert_eq!(rates(three), [1 << 20, 1 << 20, 64 << 20]);
        peers.limit_copies(2 << 20, &[(2, 7)]);
        assert_eq!(rates(three), [64 << 20, 2 << 20, 64 << 20]);
        assert_eq!(before.bytes_per_second(), 2 << 20, "whoever waits learns of it");
    }
}
