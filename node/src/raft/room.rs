//! What a disk that fills up means for the groups of a node. Never: what is kept.
//!
//! - The leader's disk is low, or a majority of a group's disks are: nothing is proposed to the group.
//! - The leader's disk is low and another voter's is not: that one is made to lead, and writes go on.
//! - A disk is full, at half of its reserve: its replicas take no commands from their leaders; the others of the group
//!   are a majority, and it catches up when there is room. Where they are none, the leader takes no new commands; the rest
//!   of what it had taken passes while there is room for it, for without it no new leader could answer anything.
//! - Below a quarter of that nothing is flushed. A replica that a full disk stopped all the same comes back by a new start
//!   of the node, which ends by itself for it once there is room.
//! - Votes, heartbeats, memberships and the catalog always pass: they are small, and they are the way out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tidemark_proto::peer::{RaftRequest, entry, raft_request};

use super::host::Host;
use super::machine::blocking;
use super::replica::Replica;
use super::types::Member;
use crate::catalog::CATALOG_GROUP;
use crate::error::{Error, Reason, Result};
use crate::store::StoreError;

/// A leadership that was not taken over by then is offered again at the next look.
const SHED_WITHIN: Duration = Duration::from_secs(1);

impl Host {
    /// Looks at the disk for as long as the node lives, and lets others lead while it is low.
    pub async fn watch_disk(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let metrics = self.metrics().clone();
            let looked = blocking(move || metrics.disk().look().map_err(Error::internal)).await;
            let room = self.metrics().disk().room();
            let (free, reserve) = (room.free, room.reserve);
            match looked {
                Ok(true) if room.low => {
                    tracing::warn!(
                        free,
                        reserve,
                        "disk is below its reserve, writes to shards led here are refused"
                    );
                }
                Ok(true) => tracing::info!(free, reserve, "disk has room again, writes are taken"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "disk cannot be looked at"),
            }
            if room.low {
                self.shed_leaderships().await;
            }
            // Nobody else may ask for a while.
            for replica in self.replicas() {
                self.check_room(&replica).ok();
            }
            if !room.low {
                self.end_if_stopped();
            }
        }
    }

    /// A replica that a full disk stopped takes part again only in a new process: its log and its state are on the disk. There is
    /// room for them now.
    fn end_if_stopped(&self) {
        let full = |replica: &Arc<Replica>| replica.ended().is_some_and(StoreError::tells_of_full_disk);
        if let Some(replica) = self.replicas().into_iter().find(full) {
            let group = replica.group();
            self.end(format!(
                "shard {group} stopped here when the disk was full; there is room again, and a new start brings it back"
            ));
        }
    }

    /// Whether a group that this node leads may be given more to keep.
    pub fn check_room(&self, replica: &Replica) -> Result<()> {
        let room = self.room_of(replica);
        replica.ebbing.store(room.is_err(), Ordering::Relaxed);
        room
    }

    fn room_of(&self, replica: &Replica) -> Result<()> {
        if replica.group() == CATALOG_GROUP {
            return Ok(());
        }
        let here_low = self.metrics().disk().is_low();
        if !here_low && !self.peers().any_disk_low() {
            return Ok(());
        }
        let here = self.identity()?.node_id;
        let voters = replica.voters();
        let is_low = |member: &&Member| match member.node_id {
            node if node == here => here_low,
            _ => self.peers().disk_low(&member.peer_address),
        };
        let mut low: Vec<u64> = voters.iter().filter(is_low).map(|member| member.node_id).collect();
        low.sort_unstable();
        if !here_low && 2 * (voters.len() - low.len()) > voters.len() {
            return Ok(());
        }
        let group = replica.group();
        let message = format!(
            "shard {group} takes no writes: the disk of node {} is almost full",
            low.iter().map(u64::to_string).collect::<Vec<_>>().join(" and ")
        );
        Err(Error::new(Reason::DiskLow, message).hint("make room on the disk, or add a node and rebalance"))
    }

    /// Refuses the commands of a leader while the disk here is full.
    pub(super) fn check_append(&self, request: &RaftRequest) -> Result<()> {
        let Some(raft_request::Message::Append(append)) = &request.message else {
            return Ok(());
        };
        let disk = self.metrics().disk();
        if request.group == CATALOG_GROUP || !disk.is_full() {
            return Ok(());
        }
        let room = disk.room();
        // A new leader begins with entries from the middle of the log, to find out what is here: they cost nothing.
        let here = self
            .replica(request.group)
            .map_or(0, |replica| replica.last_log_index());
        let bytes = |entry: &tidemark_proto::peer::Entry| match &entry.payload {
            Some(entry::Payload::Command(command)) => command.len() as u64,
            _ => 0,
        };
        let is_new = |entry: &&tidemark_proto::peer::Entry| entry.log_id.as_ref().is_none_or(|id| id.index > here);
        let commands: u64 = append.entries.iter().filter(is_new).map(bytes).sum();
        let passes = append.ebbing && room.free >= commands.saturating_add(room.floor());
        match commands > 0 && !passes {
            true => {
                let (group, ebbing, free) = (request.group, append.ebbing, room.free);
                tracing::debug!(group, commands, ebbing, free, "refused: the disk is full");
                Err(Error::new(Reason::DiskLow, "the disk of this node is full"))
            }
            false => Ok(()),
        }
    }

    async fn shed_leaderships(&self) {
        let shed = |replica: Arc<Replica>| async move {
            let may_lead = |member: &Member| !self.peers().disk_low(&member.peer_address);
            match replica.shed(may_lead).await {
                Ok(true) => self.metrics().leaders_shed.add(1),
                Ok(false) => {}
                Err(error) => tracing::warn!(group = replica.group(), %error, "leadership not given away"),
            }
        };
        let data = |replica: &Arc<Replica>| replica.group() != CATALOG_GROUP;
        futures_util::future::join_all(self.replicas().into_iter().filter(data).map(shed)).await;
    }
}

impl Replica {
    /// Nodes of the voters of the group.
    fn voters(&self) -> Vec<Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let members = membership
            .voter_ids()
            .filter_map(|id| membership.get_node(&id).cloned());
        members.collect()
    }

    /// Where this replica leads: asks the voter that is most in step among those that may lead to do so. True once this
    /// one leads no more.
    async fn shed(&self, may_lead: impl Fn(&Member) -> bool) -> Result<bool> {
        let target = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let fit = |id: u64| {
                let votes = id != self.id && membership.voter_ids().any(|voter| voter == id);
                votes && membership.get_node(&id).is_some_and(&may_lead)
            };
            let progress = metrics.replication.iter().flatten();
            let newest = progress
                .filter(|(id, _)| fit(**id))
                .max_by_key(|(_, at)| at.as_ref().map(|at| at.index));
            newest
                .map(|(id, _)| *id)
                .filter(|_| metrics.current_leader == Some(self.id))
        };
        let Some(to) = target else { return Ok(false) };
        self.raft.trigger().transfer_leader(to).await.map_err(Error::internal)?;
        let another = |leader: Option<u64>| leader.is_some_and(|leader| leader != self.id);
        Ok(self.leader_becomes(another, SHED_WITHIN).await)
    }
}
