//! Who leads a group, as one of its replicas deals with it: heartbeats, handing over, waiting for another leader. Never:
//! elections, which openraft holds.
//!
//! Invariant: leadership is only handed to a voter that answers and is in step; a hand-over that nobody takes up is asked
//! for again until it is.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::FutureExt as _;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;

use super::pulse::SILENT_AFTER;
use super::replica::{Metrics, Replica};
use super::types::LogId;
use crate::clock::monotonic;
use crate::error::{Error, Reason, Result};

/// One that the leader heard within this is alive enough to lead.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1_000);
/// One that the leader did not hear for so long may be down for good: others are better voters.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// Entries on their way to a replica that is in step.
const IN_STEP_ENTRIES: u64 = 64;
/// A request to take over that changed nothing by then is made again.
const TRANSFER_RETRY: Duration = Duration::from_millis(100);

impl Replica {
    /// A look at the clock of the whole node: sends heartbeats where this replica leads, if it is time for them, and has
    /// it count time by itself only where it does not lead and hears no leader.
    pub(super) fn pulse(&self, heartbeat: bool) {
        let leads = self.is_leader();
        self.raft.runtime_config().tick(!leads && !self.hears_leader());
        if leads && heartbeat {
            // A queue without room is one of a group that sends entries: they are heartbeats too.
            let trigger = self.raft.trigger();
            tokio::task::unconstrained(trigger.heartbeat()).now_or_never();
        }
    }

    /// Whether a leader that this replica follows was heard lately.
    pub(crate) fn hears_leader(&self) -> bool {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|heard| heard.elapsed() < SILENT_AFTER)
    }

    /// Whether a replica whose log ends there was removed by an entry that it has not got: ids are used once, so what is
    /// committed without it stays without it.
    pub(super) fn goes_on_without(&self, replica: u64, its_last: Option<LogId>) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let committed = &metrics.committed_membership_config;
        let member = committed.membership().get_node(&replica).is_some();
        !member && committed.log_id().is_some() && *committed.log_id() > its_last
    }

    /// Nodes that this replica heard lately as their leader, its own among them; none where it does not lead.
    pub fn nodes_heard(&self) -> BTreeSet<u64> {
        if !self.is_leader() {
            return BTreeSet::new();
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let heard = |id: u64| id == self.id || heard_within(&metrics, id, DEAD_AFTER);
        let members = metrics.membership_config.membership().nodes();
        let members = members.filter(|(id, _)| heard(**id));
        members.map(|(_, member)| member.node_id).collect()
    }

    /// Hands leadership to another voter that answers, where there is one; true once another replica leads.
    pub async fn hand_over(&self, timeout: Duration) -> Result<bool> {
        let target = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.current_leader != Some(self.id) || self.ended().is_some() {
                return Ok(false);
            }
            let membership = metrics.membership_config.membership();
            let mut candidates: Vec<u64> = membership.voter_ids().collect();
            candidates.retain(|id| *id != self.id && answers(&metrics, *id));
            // Groups that leave one node at once go to several others.
            candidates.get(self.group as usize % candidates.len().max(1)).copied()
        };
        match target {
            None => Ok(false),
            Some(to) => self.transfer_to(to, timeout).await.map(|_| true),
        }
    }

    /// Makes another voter lead: waits until it is in step, and then until a new leader is known here. Returns how long
    /// that took from the moment on when this replica led no more.
    pub async fn transfer_to(&self, to: u64, timeout: Duration) -> Result<Duration> {
        let deadline = monotonic() + timeout;
        let mut metrics = self.raft.metrics();
        let votes = metrics
            .borrow_watched()
            .membership_config
            .membership()
            .voter_ids()
            .any(|id| id == to);
        if !votes {
            let message = format!("replica {to} has no vote in group {}", self.group);
            return Err(Error::new(Reason::InvalidMove, message));
        }
        if to == self.id && self.is_leader() {
            return Ok(Duration::ZERO);
        }
        loop {
            {
                let metrics = metrics.borrow_watched();
                if metrics.current_leader != Some(self.id) {
                    let message = format!("group {} is not led by replica {}", self.group, self.id);
                    return Err(Error::new(Reason::NoLeader, message));
                }
                if in_step(&metrics, to) {
                    break;
                }
            }
            let left = deadline.saturating_duration_since(monotonic());
            if left.is_zero() {
                let message = format!("replica {to} of group {} is not in step", self.group);
                return Err(Error::new(Reason::TooStale, message));
            }
            tokio::time::timeout(left.min(TRANSFER_RETRY), metrics.changed())
                .await
                .ok();
        }
        let began = monotonic();
        loop {
            // Writes are refused from here on, so this must not hang on one lost message.
            self.raft.trigger().transfer_leader(to).await.map_err(Error::internal)?;
            let another = |leader: Option<u64>| leader.is_some_and(|leader| leader != self.id);
            if self.leader_becomes(another, TRANSFER_RETRY).await {
                return Ok(began.elapsed());
            }
            if monotonic() >= deadline {
                let message = format!("group {} has no new leader yet", self.group);
                return Err(Error::new(Reason::NoLeader, message));
            }
        }
    }

    /// Returns as soon as another replica than now leads, as far as this one knows, and otherwise after a while.
    pub async fn leader_change(&self, at_most: Duration) {
        let before = self.raft.server_metrics().borrow_watched().current_leader;
        self.leader_becomes(|leader| leader != before, at_most).await;
    }

    /// Returns once a replica of another node leads, as far as this one knows; never where that node has no replica.
    pub async fn led_by_another_than(&self, node: u64) {
        let there = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let mut members = metrics.membership_config.membership().nodes();
            members.find(|(_, member)| member.node_id == node).map(|(id, _)| *id)
        };
        let another = |leader: Option<u64>| there.is_some() && leader.is_some() && leader != there;
        self.leads_as(another).await;
    }

    /// Whether, within a time, somebody leads as wished, or nobody.
    pub(super) async fn leader_becomes(&self, wished: impl Fn(Option<u64>) -> bool, at_most: Duration) -> bool {
        tokio::time::timeout(at_most, self.leads_as(wished)).await.is_ok()
    }

    /// Returns once somebody leads as wished, or nobody; never where this replica ends before: it hears of nobody any more, and
    /// who waits for it must not turn in circles.
    async fn leads_as(&self, wished: impl Fn(Option<u64>) -> bool) {
        let mut changes = self.raft.server_metrics();
        while !wished(changes.borrow_watched().current_leader) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Whether the leader heard a replica lately.
fn answers(metrics: &Metrics, id: u64) -> bool {
    heard_within(metrics, id, ANSWERS_WITHIN)
}

fn heard_within(metrics: &Metrics, id: u64, within: Duration) -> bool {
    let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(&id));
    heard.is_some_and(|at| at.is_some_and(|at| at.elapsed() < within))
}

/// Whether a replica has almost all of the log: what it lacks is on its way.
fn in_step(metrics: &Metrics, id: u64) -> bool {
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&id)?.as_ref());
    let last = metrics.last_log_index.unwrap_or(0);
    answers(metrics, id) && matched.is_some_and(|at| at.index + IN_STEP_ENTRIES >= last)
}
