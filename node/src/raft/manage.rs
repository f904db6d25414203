//! Changes of a group's members and leader, asked of its leader. Never: who should be a member (the catalog says).
//!
//! Invariant: every step may be asked again; one that is done already changes nothing. A leader that would remove
//! itself hands over first, so that the group is led through every change.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tidemark_proto::peer::{GroupView, MemberNode, Membership, ReplicaProgress, VoterSet};

use super::replica::Replica;
use super::types::Member;
use crate::error::{Error, Reason, Result};

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Managed {
    /// It is as asked.
    Done,
    /// This replica does not lead (any more): ask that node, where known.
    NotLeader(Option<u64>),
}

/// Members as a leader knows them, with nothing of the library in them.
struct Now {
    leads: bool,
    leader_node: Option<u64>,
    joint: bool,
    voters: BTreeSet<u64>,
    members: BTreeSet<u64>,
}

impl Replica {
    fn now(&self) -> Now {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.filter(|_| self.ended().is_none());
        Now {
            leads: leader == Some(self.id),
            leader_node: leader
                .and_then(|id| membership.get_node(&id))
                .map(|member| member.node_id),
            joint: membership.get_joint_config().len() > 1,
            voters: membership.get_joint_config().last().cloned().unwrap_or_default(),
            members: membership.nodes().map(|(id, _)| *id).collect(),
        }
    }

    async fn change(&self, change: ChangeMembers<u64, Member>) -> Result<Managed> {
        // Voters that leave become learners first, and so hear that they left.
        match self.raft.change_membership(change, true).await {
            Ok(_) => Ok(Managed::Done),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Ok(Managed::NotLeader(to.leader_node.map(|member| member.node_id)))
            }
            // To ask again would not help.
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::LearnerNotFound(e),
            ))) => {
                let message = format!(
                    "replica {} is no member of group {} that could vote",
                    e.node_id, self.group
                );
                Err(Error::new(Reason::InvalidMove, message))
            }
            Err(RaftError::APIError(e)) => Err(Error::new(Reason::NoLeader, e.to_string())),
            Err(RaftError::Fatal(e)) => Err(Error::internal(e)),
        }
    }

    /// Takes a replica in without a vote; it is sent what it lacks from then on.
    pub async fn add_learner(&self, id: u64, member: Member) -> Result<Managed> {
        let now = self.now();
        // Also one that is taken in already: this leader may be another one than then, with a longer log.
        if now.leads && !self.has_anything(id) {
            self.prefer_checkpoint().await?;
        }
        match (now.leads, now.members.contains(&id)) {
            (false, _) => Ok(Managed::NotLeader(now.leader_node)),
            (true, true) => Ok(Managed::Done),
            (true, false) => self.change(ChangeMembers::AddNodes([(id, member)].into())).await,
        }
    }

    /// Whether a replica is known to have some of the log.
    fn has_anything(&self, id: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut progress = metrics.replication.iter().flatten();
        id == self.id || progress.any(|(known, at)| *known == id && at.is_some())
    }

    /// Makes exactly these replicas the voters and the learners. New voters must be learners already.
    pub async fn set_members(
        &self,
        voters: &BTreeSet<u64>,
        learners: &BTreeSet<u64>,
        timeout: Duration,
    ) -> Result<Managed> {
        let now = self.now();
        if !now.leads {
            return Ok(Managed::NotLeader(now.leader_node));
        }
        if !voters.contains(&self.id) {
            return self.leave(&now, voters, timeout).await;
        }
        if now.joint || now.voters != *voters {
            let changed = self.change(ChangeMembers::ReplaceAllVoters(voters.clone())).await?;
            if changed != Managed::Done {
                return Ok(changed);
            }
        }
        let wanted = |id: &u64| voters.contains(id) || learners.contains(id);
        let gone: BTreeSet<u64> = self.now().members.into_iter().filter(|id| !wanted(id)).collect();
        match gone.is_empty() {
            true => Ok(Managed::Done),
            false => self.change(ChangeMembers::RemoveNodes(gone)).await,
        }
    }

    /// This leader is not among the voters to be: somebody who is takes over, and does the rest.
    async fn leave(&self, now: &Now, voters: &BTreeSet<u64>, timeout: Duration) -> Result<Managed> {
        let mut heirs: BTreeSet<u64> = now.voters.intersection(voters).copied().collect();
        if heirs.is_empty() {
            let both = now.voters.union(voters).copied().collect();
            let changed = self.change(ChangeMembers::ReplaceAllVoters(both)).await?;
            if changed != Managed::Done {
                return Ok(changed);
            }
            heirs.clone_from(voters);
        }
        let heir = self.newest_of(&heirs);
        let heir = heir.ok_or_else(|| Error::new(Reason::NoLeader, "no voter could take over"))?;
        self.transfer_to(heir, timeout).await?;
        Ok(Managed::NotLeader(self.leader_node()))
    }

    /// Of these replicas, the one that has most of the log.
    fn newest_of(&self, ids: &BTreeSet<u64>) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let progress = metrics.replication.iter().flatten();
        let known = progress.filter(|(id, _)| **id != self.id && ids.contains(id));
        known
            .max_by_key(|(_, at)| at.as_ref().map(|at| at.index))
            .map(|(id, _)| *id)
    }

    /// The replica of a node in this group.
    pub fn replica_on(&self, node: u64) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut members = metrics.membership_config.membership().nodes();
        members.find(|(_, member)| member.node_id == node).map(|(id, _)| *id)
    }

    /// The group as its leader knows it; `None` where this replica does not lead.
    pub fn group_view(&self) -> Option<GroupView> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        if metrics.current_leader != Some(self.id) || self.ended().is_some() {
            return None;
        }
        let membership = metrics.membership_config.membership();
        let settled = membership.get_joint_config().len() == 1
            && metrics.membership_config.log_id() == metrics.committed_membership_config.log_id();
        let transfers = self.transfer_progress();
        let progress = metrics.replication.iter().flatten().map(|(id, at)| {
            let transfer = transfers.iter().find(|(to, ..)| to == id);
            let (bytes_total, bytes_done) = transfer.map_or((0, 0), |(_, total, done)| (*total, *done));
            ReplicaProgress {
                replica: *id,
                matched_index: at.as_ref().map_or(0, |at| at.index),
                bytes_total,
                bytes_done,
            }
        });
        Some(GroupView {
            membership: Some(members_to_wire(membership)),
            settled,
            last_index: metrics.last_log_index.unwrap_or(0),
            progress: progress.collect(),
        })
    }
}

fn members_to_wire(membership: &openraft::Membership<u64, Member>) -> Membership {
    let configs = membership.get_joint_config().iter().map(|voters| VoterSet {
        replicas: voters.iter().copied().collect(),
    });
    let members = membership.nodes().map(|(id, member)| MemberNode {
        replica: *id,
        node_id: member.node_id,
        peer_address: member.peer_address.clone(),
    });
    Membership {
        configs: configs.collect(),
        members: members.collect(),
    }
}
