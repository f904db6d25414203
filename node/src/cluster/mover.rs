//! Carries out the running job, one step of each move at a time. Runs where the catalog is led. Never: planning.
//!
//! ```text
//! PENDING    the catalog lists the new replica ───────────> its node opens it, empty, without a vote
//! COPYING    the shard's leader takes it in as a learner ─> checkpoint, then log, until it is in step
//! SWITCHING  joint membership: new one in, old one out ───> the catalog no longer lists the old one
//! CLEANING   its node drops the files ────────────────────> DONE
//! ```
//!
//! Invariant: every step may be done again by another leader of the catalog. What was done shows in the catalog or in the
//! group's own membership, never only here; progress in bytes is all that this node alone knows.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use tidemark_proto::peer::manage_group_request::Step;
use tidemark_proto::peer::{AdvanceMove, Blank, EndJob, MemberNode, VoterSet, applied, catalog_command::Command};
use tidemark_proto::v1::{Job, JobState, Move, MovePhase, ReplicaState, job_spec::Goal};

use super::Cluster;
use super::groups::Stepped;
use crate::catalog::jobs::{MOVES_AT_ONCE, is_final};
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Result};

/// Longest time for one step; what is not done by then is looked at again.
const STEP_TIMEOUT: Duration = Duration::from_secs(8);
/// A learner this close to the leader's last entry gets its vote: it has the rest within a heartbeat.
const IN_STEP_ENTRIES: u64 = 64;

/// So long nothing begins after a move has ended: replicas that open, leaders that change and files that go make clients
/// wait a little, and small shards would follow each other without a break.
const REST: Duration = Duration::from_millis(500);

/// Why a move does not go on whose members a leader has written, and no majority is known to have.
const UNSETTLED: &str = "the new members are not known to a majority yet";

/// The pause between the moves of a job, as the node that carries it out sees it.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Job, and how many of its moves have ended.
    ended: (u64, usize),
    until: Option<Instant>,
}

impl Rest {
    /// Whether another move may begin.
    fn is_over(&mut self, job: &Job) -> bool {
        let ended = (job.id, job.moves.iter().filter(|planned| is_final(planned)).count());
        if ended != self.ended {
            self.until = monotonic().checked_add(REST).filter(|_| ended.1 > 0);
            self.ended = ended;
        }
        self.until.is_none_or(|until| monotonic() >= until)
    }
}

/// What a look at a move came to.
enum Looked {
    /// The catalog knows of its next phase.
    Advanced,
    /// It goes on by itself, or cannot go on: bytes to copy, bytes copied, and why it waits.
    Waits { total: u64, done: u64, why: String },
}

fn waits(why: impl Into<String>) -> Looked {
    Looked::Waits {
        total: 0,
        done: 0,
        why: why.into(),
    }
}

impl Cluster {
    /// The job that this node carries out, with its progress.
    pub(super) fn live_job(&self) -> Option<Job> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_live_job(&self, job: Option<Job>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }

    /// Does the next step of the running job; true when something moved and there may be more to do at once.
    pub(super) async fn step_job(&self, catalog: &Catalog, rest: &mut Rest) -> Result<bool> {
        let Some(job) = catalog.running_job().cloned() else {
            self.set_live_job(None);
            return Ok(false);
        };
        let mut live = self
            .live_job()
            .filter(|live| live.id == job.id)
            .unwrap_or_else(|| job.clone());
        if job.moves.iter().all(is_final) {
            let ended = self.end_job(catalog, &job).await?;
            live.message = ended.clone().unwrap_or_default();
            self.set_live_job(Some(live));
            return Ok(ended.is_none());
        }
        let mut shards = BTreeSet::new();
        let begins = rest.is_over(&job) || job.state() == JobState::Cancelling;
        let may = |planned: &Move| !is_final(planned) && (begins || planned.phase() != MovePhase::Pending);
        let open = job.moves.iter().enumerate().filter(|(_, planned)| may(planned));
        // A shard takes one step at a time: its next move begins when the one before has ended.
        let chosen: Vec<usize> = open
            .filter(|(_, planned)| shards.insert(planned.shard))
            .map(|(at, _)| at)
            .take(MOVES_AT_ONCE)
            .collect();
        let steps = chosen.iter().map(|at| self.step_move(catalog, &job, *at));
        let looked = futures_util::future::join_all(steps).await;
        let mut advanced = false;
        for (at, looked) in chosen.into_iter().zip(looked) {
            let Some(shown) = live.moves.get_mut(at) else { continue };
            *shown = job.moves[at].clone();
            match looked {
                Ok(Looked::Advanced) => advanced = true,
                Ok(Looked::Waits { total, done, why }) => {
                    (shown.bytes_total, shown.bytes_done, shown.waits_for) = (total, done, why);
                }
                Err(error) => shown.waits_for = error.message().to_string(),
            }
        }
        live.message = String::new();
        self.set_live_job(Some(live));
        Ok(advanced)
    }

    async fn step_move(&self, catalog: &Catalog, job: &Job, at: usize) -> Result<Looked> {
        let planned = &job.moves[at];
        let cancelling = job.state() == JobState::Cancelling;
        match (planned.phase(), cancelling) {
            (MovePhase::Pending, true) => self.advance(job, at, MovePhase::Cancelled).await,
            (MovePhase::Pending, false) => self.advance(job, at, MovePhase::Copying).await,
            (MovePhase::Copying, true) => match self.set_voters(catalog, planned, false).await? {
                stepped if stepped.view.settled => self.advance(job, at, MovePhase::Cancelled).await,
                _ => Ok(waits(UNSETTLED)),
            },
            (MovePhase::Copying, false) => match self.catch_up(catalog, planned).await? {
                None => self.advance(job, at, MovePhase::Switching).await,
                Some(waits) => Ok(waits),
            },
            (MovePhase::Switching, _) => self.switch(catalog, job, at).await,
            (MovePhase::Cleaning, _) => self.clean(catalog, job, at).await,
            (phase, _) => Err(Error::internal(format!("a move in phase {phase:?} has no next step"))),
        }
    }

    async fn advance(&self, job: &Job, at: usize, to: MovePhase) -> Result<Looked> {
        let planned = &job.moves[at];
        tracing::info!(
            job = job.id,
            shard = planned.shard,
            from_node = planned.from_node,
            to_node = planned.to_node,
            phase = to.as_str_name(),
            "move goes on"
        );
        let step = AdvanceMove {
            job_id: job.id,
            at: at as u32,
            to: to as i32,
        };
        match self.propose(Command::AdvanceMove(step)).await? {
            applied::Result::Job(_) => Ok(Looked::Advanced),
            other => Err(Error::internal(format!("answer {other:?} to a step of a move"))),
        }
    }

    /// Whether the new replica of a move belongs to its group, voting or not.
    async fn is_member(&self, planned: &Move) -> Result<bool> {
        if planned.to_node == 0 {
            return Ok(true);
        }
        let deadline = monotonic() + STEP_TIMEOUT;
        let looked = self.manage(planned.shard, Step::Look(Blank {}), deadline).await?;
        let mut members = looked.view.membership.iter().flat_map(|membership| &membership.members);
        Ok(members.any(|member| member.replica == planned.to_replica))
    }

    /// Has the new replica sent what it lacks; what it waits for, and nothing once it is in step.
    async fn catch_up(&self, catalog: &Catalog, planned: &Move) -> Result<Option<Looked>> {
        if planned.to_node == 0 {
            return Ok(None);
        }
        let node = catalog.known_node(planned.to_node)?;
        let Some(view) = self.view_of(node).await else {
            return Ok(Some(waits(format!("node {} does not answer", node.id))));
        };
        let here = |replica: &&tidemark_proto::peer::ReplicaView| {
            let status = replica.status.as_ref();
            replica.group == planned.shard && status.is_some_and(|status| status.replica_id == planned.to_replica)
        };
        match view
            .replicas
            .iter()
            .find(here)
            .and_then(|replica| replica.status.as_ref())
        {
            None => return Ok(Some(waits(format!("node {} has not opened its replica yet", node.id)))),
            Some(status) if status.state() == ReplicaState::Damaged => {
                return Ok(Some(waits(format!(
                    "node {}: the new replica is damaged: {}",
                    node.id, status.problem
                ))));
            }
            Some(_) => {}
        }
        let member = MemberNode {
            replica: planned.to_replica,
            node_id: node.id,
            peer_address: node.peer_address.clone(),
        };
        let deadline = monotonic() + STEP_TIMEOUT;
        let stepped = self.manage(planned.shard, Step::AddLearner(member), deadline).await?;
        let view = &stepped.view;
        let progress = view
            .progress
            .iter()
            .find(|progress| progress.replica == planned.to_replica);
        let matched = progress.map_or(0, |progress| progress.matched_index);
        if matched > 0 && matched + IN_STEP_ENTRIES >= view.last_index {
            return Ok(None);
        }
        let why = match matched {
            0 => "the checkpoint is on its way".to_string(),
            _ => format!("{} entries of log to go", view.last_index.saturating_sub(matched)),
        };
        Ok(Some(Looked::Waits {
            total: progress.map_or(0, |progress| progress.bytes_total),
            done: progress.map_or(0, |progress| progress.bytes_done),
            why,
        }))
    }

    /// Gives the new replica its vote, and the old one none.
    async fn switch(&self, catalog: &Catalog, job: &Job, at: usize) -> Result<Looked> {
        let planned = &job.moves[at];
        if !self.is_member(planned).await? {
            // The group has forgotten it with a leader that was not followed: it is taken in again, and switched to then.
            let taken_in = self.catch_up(catalog, planned).await?;
            return Ok(taken_in.unwrap_or_else(|| waits("the new replica is taken in again")));
        }
        // Until then the group may still need the old replica, which goes with all its files.
        match self.set_voters(catalog, planned, true).await? {
            stepped if stepped.view.settled => self.advance(job, at, MovePhase::Cleaning).await,
            _ => Ok(waits(UNSETTLED)),
        }
    }

    /// Makes the members of a shard what the catalog says, with a move done or taken back.
    async fn set_voters(&self, catalog: &Catalog, planned: &Move, done: bool) -> Result<Stepped> {
        let shard = catalog.known_shard(planned.shard)?;
        let stays = |replica: &&tidemark_proto::peer::Replica| match done {
            true => replica.id != planned.from_replica && (!replica.joining || replica.id == planned.to_replica),
            false => !replica.joining,
        };
        let voters = VoterSet {
            replicas: shard.replicas.iter().filter(stays).map(|replica| replica.id).collect(),
        };
        let deadline = monotonic() + STEP_TIMEOUT;
        self.manage(planned.shard, Step::SetMembers(voters), deadline).await
    }

    /// Waits until the old replica's files are gone. A node that does not answer drops them when it comes back.
    async fn clean(&self, catalog: &Catalog, job: &Job, at: usize) -> Result<Looked> {
        let planned = &job.moves[at];
        let view = match catalog.node(planned.from_node) {
            Some(node) => self.view_of(node).await,
            None => None,
        };
        let keeps = view.is_some_and(|view| {
            view.replicas.iter().any(|replica| {
                let status = replica.status.as_ref();
                replica.group == planned.shard && status.is_some_and(|status| status.replica_id == planned.from_replica)
            })
        });
        match keeps {
            true => Ok(waits(format!(
                "node {} removes the old replica's files",
                planned.from_node
            ))),
            false => self.advance(job, at, MovePhase::Done).await,
        }
    }

    /// Ends a job whose moves have all ended; says what it waits for where it cannot yet.
    async fn end_job(&self, catalog: &Catalog, job: &Job) -> Result<Option<String>> {
        let cancelled = job.state() == JobState::Cancelling;
        let leaves = crate::catalog::jobs::leaves(job).filter(|_| !cancelled);
        if let Some(why) = leaves.and_then(|node| self.vote_kept_by(catalog, node)) {
            return Ok(Some(why));
        }
        if let Some(node) = crate::catalog::jobs::empties(job).filter(|_| !cancelled) {
            let leads = self.leads_something(catalog, node).await;
            if let Some(shard) = leads {
                return Ok(Some(format!("node {node} hands the leadership of shard {shard} over")));
            }
        }
        let goal = job.spec.as_ref().and_then(|spec| spec.goal.as_ref());
        let message = match goal {
            Some(Goal::Rebalance(_)) if !cancelled => self.even_leaders(catalog).await,
            _ => String::new(),
        };
        let state = if cancelled { JobState::Cancelled } else { JobState::Done };
        tracing::info!(job = job.id, state = state.as_str_name(), "job ends");
        let end = EndJob {
            job_id: job.id,
            state: state as i32,
            message,
        };
        self.propose(Command::EndJob(end)).await?;
        Ok(None)
    }

    /// A shard that a node still leads; the catalog counts.
    async fn leads_something(&self, catalog: &Catalog, node: u64) -> Option<u32> {
        let view = self.view_of(catalog.node(node)?).await?;
        let leads = |replica: &&tidemark_proto::peer::ReplicaView| {
            let status = replica.status.as_ref();
            status.is_some_and(|status| status.state() == ReplicaState::Leader)
        };
        let groups = view.replicas.iter().filter(leads).map(|replica| replica.group);
        // The only voter of the catalog has nobody to hand over to.
        let alone = catalog.state().nodes.len() == 1;
        groups.into_iter().find(|group| !(alone && *group == CATALOG_GROUP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_moves_begin_at_once_and_later_ones_after_a_rest() {
        let job = |id, phases: &[MovePhase]| Job {
            id,
            moves: phases
                .iter()
                .map(|phase| Move {
                    phase: *phase as i32,
                    ..Move::default()
                })
                .collect(),
            ..Job::default()
        };
        let mut rest = Rest::default();
        let begun = job(1, &[MovePhase::Copying, MovePhase::Pending]);
        let one_done = job(1, &[MovePhase::Done, MovePhase::Pending]);
        assert!(rest.is_over(&begun));
        assert!(!rest.is_over(&one_done));
        rest.until = Some(monotonic());
        assert!(rest.is_over(&one_done), "it is over, and does not begin anew");
        assert!(rest.is_over(&job(2, &[MovePhase::Pending])), "another job");
    }
}
