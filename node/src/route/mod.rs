//! Ways to a shard: to its leader with a command, to a fresh enough replica with a question; and how much this node reads at once,
//! for whom. Never: what is asked.
//!
//! Invariant: a request is forwarded at most once, and a proposal is tried again only when that cannot store it twice.

mod applications;
mod appointments;
mod asker;
mod gate;
mod newest_catalog;
mod parts;
mod propose;
mod read;
mod reads;
mod turns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use applications::{Admitted, Application, Applications};
pub use appointments::Appointments;
pub use asker::{Asker, Meter, too_many_points};
pub use gate::Turn;
pub use parts::{Hearing, ShardAnswer};
pub use propose::Retry;
pub(crate) use propose::outcome_unknown;
pub use read::{Ready, ShardJob};
pub use reads::{is_wide, names_few, selects_few};

use tonic::Status;

use gate::Gate;
use reads::Reads;

use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::raft::host::Host;
use crate::wire::status::from_status;

/// Longest pause before a leader is asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(40);
/// Pause after the first try that met no leader: during a hand-over there is one in a few milliseconds.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(4);
/// So many tries wait equally long: a node without a replica does not hear when a hand-over is done, and has to ask.
const TRIES_ALIKE: u32 = 4;
/// A request that met no leader for this long is refused, with `NO_LEADER` while nobody was offered it: longer than an
/// election, and shorter than callers wait for one try, so that they learn whether something may have been done.
pub(crate) const LEADERLESS_MAX: Duration = Duration::from_millis(2_500);

/// Finds leaders and replicas. Shared by writes and queries.
pub struct Router {
    host: Arc<Host>,
    /// Last known leader node of groups that have no replica here that would know.
    hints: Mutex<HashMap<u32, u64>>,
    reads: Reads,
    gate: Arc<Gate>,
    applications: Applications,
}

impl Router {
    /// Over the replicas of this node and the lanes to others.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new(host: Arc<Host>, limits: &Limits) -> Result<Router> {
        Ok(Router {
            reads: Reads::new(limits, host.metrics())?,
            gate: Gate::new(limits.wide_questions_max, host.metrics()),
            applications: Applications::new(limits),
            host,
            hints: Mutex::default(),
        })
    }

    /// Ends what reads shards for wide questions, and waits for it.
    pub async fn stop_reading(&self) {
        self.reads.stop().await;
    }

    /// A turn of a question, which waits for it if it is a wide one.
    pub fn turn(&self) -> Turn {
        Turn::new(self.gate.clone())
    }

    /// Who asks, and what they have of this node.
    pub fn applications(&self) -> &Applications {
        &self.applications
    }

    /// Asks for no application of a client: what the store reads for itself.
    pub fn own_asker(&self, deadline: Instant) -> Asker {
        Asker::uncounted(self.applications.named(""), deadline)
    }

    /// The replicas of this node.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The node to ask for the leader's work, other than this one; `None` when nobody knows a leader right now.
    pub(crate) fn leader_elsewhere(&self, group: u32) -> Option<u64> {
        let here = self.host.identity().ok()?.node_id;
        match self.heard_here(group) {
            Some(leader) => leader.filter(|node| *node != here),
            None => self.hint(group, here).or_else(|| self.any_node(group, None)),
        }
    }

    /// The node that leads a group, this one or another, as far as this one knows. One that is cut off from its majority
    /// does not name itself.
    pub fn known_leader(&self, group: u32) -> Option<u64> {
        let here = self.host.identity().ok()?.node_id;
        if self.leading_here(group).is_some() {
            return Some(here);
        }
        match self.heard_here(group) {
            Some(leader) => leader.filter(|node| *node != here),
            None => self.hint(group, here),
        }
    }

    /// Who leads, as the replica of this node has it; `None` where there is no replica here that can be believed.
    fn heard_here(&self, group: u32) -> Option<Option<u64>> {
        let replica = self.host.replica(group)?;
        let leader = replica.leader_node();
        // One on its way in or out may not hear of new leaders, and name the last one for ever.
        let believed = replica.votes() || (leader.is_some() && replica.hears_leader());
        believed.then_some(leader)
    }

    fn hint(&self, group: u32, here: u64) -> Option<u64> {
        let hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        hints.get(&group).copied().filter(|node| *node != here)
    }

    /// Waits for a node that was asked as the leader; `None` as soon as another one leads, as far as this node hears: what
    /// was asked may be cut off, and never answer.
    async fn while_it_leads<T>(&self, group: u32, node: u64, answer: impl Future<Output = T>) -> Option<T> {
        // One that is not believed names somebody who led long ago.
        let replica = self.host.replica(group).filter(|_| self.heard_here(group).is_some());
        let another = async {
            match &replica {
                Some(replica) => replica.led_by_another_than(node).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = another => None,
        }
    }

    /// A node with a replica of the group, the one after `after` in their order.
    fn any_node(&self, group: u32, after: Option<u64>) -> Option<u64> {
        let here = self.host.identity().ok()?.node_id;
        let catalog = self.host.catalog().ok()?;
        let nodes: Vec<u64> = catalog
            .shard(group)?
            .replicas
            .iter()
            .filter(|replica| !replica.joining)
            .map(|r| r.node_id)
            .filter(|n| *n != here)
            .collect();
        let at = after
            .and_then(|after| nodes.iter().position(|node| *node == after))
            .map_or(0, |at| at + 1);
        nodes.get(at % nodes.len().max(1)).copied()
    }

    /// Waits before another try: until this node hears of another leader, or for a moment that grows with the tries.
    async fn pause(&self, group: u32, tries: u32) {
        let pause = (RETRY_PAUSE_MIN * (1 << (tries / TRIES_ALIKE).min(8))).min(RETRY_PAUSE);
        match self.host.replica(group) {
            Some(replica) => replica.leader_change(pause).await,
            None => tokio::time::sleep(pause).await,
        }
    }

    /// Remembers who leads a group that is not here; with `None` the next node is asked.
    pub(crate) fn learn_leader(&self, group: u32, asked: u64, leader: Option<u64>) {
        let leader = leader
            .filter(|node| *node != 0)
            .or_else(|| self.any_node(group, Some(asked)));
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        match leader {
            Some(node) => hints.insert(group, node),
            None => hints.remove(&group),
        };
    }

    /// What another node refused. One that says that this node was removed is believed: it belongs nowhere any more, and
    /// stops before more requests wait for it in vain.
    fn heed(&self, status: &Status) -> Error {
        let error = from_status(status);
        if error.reason() == Reason::NodeRemoved {
            self.host.leave_for_good();
        }
        error
    }

    pub(crate) fn peer(&self, node: u64) -> Result<Arc<crate::peers::Peer>> {
        let address = self.peer_address(node);
        let address = address.ok_or_else(|| Error::new(Reason::Unreachable, format!("node {node} is unknown")))?;
        self.host.peers().at(&address)
    }

    /// Where a node listens to others. Before the catalog is there, the identity names those that begin it: one of
    /// them may lead.
    fn peer_address(&self, node: u64) -> Option<String> {
        if let Some(known) = self.host.catalog_now().node(node) {
            return Some(known.peer_address.clone());
        }
        let first = &self.host.identity().ok()?.catalog;
        let member = first.iter().find(|member| member.node_id == node)?;
        Some(member.peer_address.clone())
    }
}

/// Time left until a deadline; an error once it has passed.
pub fn time_left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(monotonic());
    match left.is_zero() {
        true => Err(Error::new(Reason::DeadlineExceeded, "time ran out")),
        false => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{DiskReserve, Tuning};
    use crate::disk::Disk;
    use crate::identity::{CatalogMember, Identity};
    use crate::metrics::Metrics;
    use crate::peers::Peers;
    use crate::raft::log_store::NodeLog;
    use crate::store::Resources;

    /// A node killed within `init` may find another one leading the catalog group when it goes on.
    #[tokio::test]
    async fn before_there_is_a_catalog_its_first_members_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let log = NodeLog::open(&dir.path().join("log")).unwrap();
        let resources = Arc::new(Resources::new(1 << 20, 1 << 20, 1).unwrap());
        let peers = Arc::new(Peers::default());
        let disk = Disk::new(dir.path(), DiskReserve::Auto, None).unwrap();
        let metrics = Arc::new(Metrics::new(disk));
        let host = Host::new(
            dir.path().to_path_buf(),
            log,
            resources,
            peers,
            Tuning::default(),
            metrics,
        )
        .unwrap();
        let member = |id: u64| CatalogMember {
            replica: id,
            node_id: id,
            peer_address: format!("127.0.0.1:{id}"),
        };
        let identity = Identity {
            format: Identity::FORMAT,
            cluster_id: "c".into(),
            node_id: 1,
            catalog_replica: 1,
            catalog: vec![member(1), member(2)],
        };
        host.start(identity).await.unwrap();
        let router = Router::new(host, &Limits::default()).unwrap();
        assert_eq!(router.peer_address(2), Some("127.0.0.1:2".to_string()));
        assert_eq!(router.peer_address(3), None);
    }
}
