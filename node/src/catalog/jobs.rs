//! Jobs as the catalog keeps them: states of nodes, planned moves and how far each has come. Never: planning (see
//! `placement`), or carrying out (see `cluster`).
//!
//! ```text
//! move  PENDING ─> COPYING ─> SWITCHING ─> CLEANING ─> DONE      job  RUNNING ─> DONE
//!          │          │                                                 │    └──> FAILED
//!          └──────────┴────> CANCELLED                                  └─> CANCELLING ─> CANCELLED
//! ```
//!
//! Invariant: one job runs at a time; a move goes forward only, one phase a step, and a step told twice changes nothing
//! the second time. The new replica is listed from COPYING on, the old one until SWITCHING ends.

use std::collections::BTreeSet;

use tidemark_proto::peer::{self, applied};
use tidemark_proto::v1::{Job, JobSpec, JobState, Move, MovePhase, NodeState, job_spec::Goal};

use super::{CATALOG_GROUP, Catalog, Record};
use crate::error::{Error, Reason, Result};

/// Moves on their way at once, each of another shard.
pub const MOVES_AT_ONCE: usize = 2;
/// Ended jobs beyond these are forgotten, oldest first.
const JOBS_KEPT: usize = 20;

type Answer = Result<(applied::Result, Vec<Record>)>;

impl Catalog {
    /// The job that runs or is being cancelled.
    pub fn running_job(&self) -> Option<&Job> {
        self.state.jobs.iter().find(|job| !has_ended(job))
    }

    /// The job with this number.
    pub fn job(&self, id: u64) -> Result<&Job> {
        let found = self.state.jobs.iter().find(|job| job.id == id);
        found.ok_or_else(|| unknown_job(id))
    }

    /// The node with this number, or why there is none.
    pub fn known_node(&self, id: u64) -> Result<&tidemark_proto::v1::Node> {
        if let Some(node) = self.node(id) {
            return Ok(node);
        }
        if self.state.removed_nodes.contains(&id) {
            return Err(Error::new(
                Reason::NodeRemoved,
                format!("node {id} was removed for good"),
            ));
        }
        Err(Error::new(Reason::UnknownNode, format!("no node {id}")).hint("tidemark node list"))
    }

    /// The shard with this number, the catalog being 0, or why there is none.
    pub fn known_shard(&self, id: u32) -> Result<&peer::Shard> {
        let unknown = || Error::new(Reason::UnknownShard, format!("no shard {id}")).hint("tidemark shard list");
        self.shard(id).ok_or_else(unknown)
    }

    /// The same; the catalog is none.
    pub fn known_data_shard(&self, id: u32) -> Result<&peer::Shard> {
        match id {
            CATALOG_GROUP => {
                Err(Error::new(Reason::UnknownShard, "shard 0 is the catalog").hint("tidemark shard list"))
            }
            id => self.known_shard(id),
        }
    }

    pub(super) fn set_node_state(&mut self, set: &peer::SetNodeState) -> Answer {
        self.known_node(set.node_id)?;
        if !matches!(set.state(), NodeState::Active | NodeState::Cordoned) {
            return Err(Error::new(Reason::InvalidValue, "a node is active or cordoned").field("state"));
        }
        if let Some(job) = self.running_job().filter(|job| empties(job) == Some(set.node_id)) {
            return Err(running(job));
        }
        let Some(node) = self.mark_node(set.node_id, set.state()) else {
            return Err(Error::internal("a node that was known is not there"));
        };
        Ok((applied::Result::Node(node), vec![self.cluster_record()]))
    }

    fn mark_node(&mut self, id: u64, state: NodeState) -> Option<tidemark_proto::v1::Node> {
        self.state.placement_version += 1;
        let node = self.state.nodes.iter_mut().find(|node| node.id == id)?;
        node.state = state as i32;
        Some(node.clone())
    }

    pub(super) fn start_job(&mut self, stamp_ns: i64, start: peer::StartJob) -> Answer {
        let mut job = start
            .job
            .ok_or_else(|| Error::new(Reason::MissingField, "no job").field("job"))?;
        if let Some(job) = self.running_job() {
            return Err(running(job));
        }
        if start.placement_version != self.state.placement_version {
            return Err(Error::new(
                Reason::PlacementChanged,
                "nodes or replicas changed since this was planned",
            )
            .hint("plan again"));
        }
        for planned in &mut job.moves {
            planned.from_replica = self.check_move(planned)?;
            planned.phase = MovePhase::Pending as i32;
        }
        if let Some(node) = empties(&job) {
            self.known_node(node)?;
            self.mark_node(node, NodeState::Cordoned);
        }
        job.id = self.state.next_job_id.max(1);
        self.state.next_job_id = job.id + 1;
        job.state = JobState::Running as i32;
        job.started_at_ns = stamp_ns;
        self.state.jobs.push(job.clone());
        let surplus = self.state.jobs.len().saturating_sub(JOBS_KEPT);
        self.state.jobs.drain(..surplus);
        Ok((applied::Result::Job(job), vec![self.cluster_record()]))
    }

    /// The replica that leaves, 0 where none does.
    fn check_move(&self, planned: &Move) -> Result<u64> {
        let invalid = |why: String| Error::new(Reason::InvalidMove, format!("shard {}: {why}", planned.shard));
        let shard = self.known_data_shard(planned.shard)?;
        let on = |node: u64| shard.replicas.iter().find(|replica| replica.node_id == node);
        if planned.to_node != 0 {
            self.known_node(planned.to_node)?;
            if on(planned.to_node).is_some() {
                return Err(invalid(format!("node {} has a replica already", planned.to_node)));
            }
        }
        match (planned.from_node, on(planned.from_node)) {
            (0, _) => Ok(0),
            (_, Some(replica)) => Ok(replica.id),
            (node, None) => Err(invalid(format!("node {node} has no replica"))),
        }
    }

    pub(super) fn advance_move(&mut self, step: &peer::AdvanceMove) -> Answer {
        let job = self.job(step.job_id)?;
        let known = job.moves.get(step.at as usize).cloned();
        let known = known.ok_or_else(|| Error::internal(format!("job {} has no move {}", step.job_id, step.at)))?;
        if known.phase() == step.to() {
            return Ok((applied::Result::Job(job.clone()), Vec::new()));
        }
        let cancelling = job.state() == JobState::Cancelling;
        if has_ended(job) {
            return Err(ended(job));
        }
        let mut moved = known.clone();
        moved.phase = step.to;
        match (known.phase(), step.to()) {
            (MovePhase::Pending, MovePhase::Copying) if !cancelling => moved.to_replica = self.begin_copy(&known)?,
            (MovePhase::Copying, MovePhase::Switching) if !cancelling => {}
            (MovePhase::Switching, MovePhase::Cleaning) => self.finish_switch(&known),
            (MovePhase::Cleaning, MovePhase::Done) | (MovePhase::Pending, MovePhase::Cancelled) => {}
            (MovePhase::Copying, MovePhase::Cancelled) => self.drop_replica(known.shard, known.to_replica),
            (from, to) => {
                let message = format!("shard {} cannot go from {from:?} to {to:?}", known.shard);
                return Err(Error::new(Reason::PlacementChanged, message));
            }
        }
        let Some(job) = self.state.jobs.iter_mut().find(|job| job.id == step.job_id) else {
            return Err(unknown_job(step.job_id));
        };
        job.moves[step.at as usize] = moved;
        let job = job.clone();
        Ok((applied::Result::Job(job), vec![self.cluster_record()]))
    }

    /// Gives the new replica its number and lists it, without a vote.
    fn begin_copy(&mut self, planned: &Move) -> Result<u64> {
        if planned.to_node == 0 {
            return Ok(0);
        }
        self.known_node(planned.to_node)?;
        let id = self.state.next_replica_id;
        let Some(shard) = self.state.shards.iter_mut().find(|shard| shard.id == planned.shard) else {
            return Err(Error::internal(format!("no shard {}", planned.shard)));
        };
        shard.replicas.push(peer::Replica {
            id,
            node_id: planned.to_node,
            joining: true,
        });
        self.state.next_replica_id += 1;
        self.state.placement_version += 1;
        Ok(id)
    }

    fn finish_switch(&mut self, planned: &Move) {
        self.drop_replica(planned.shard, planned.from_replica);
        for shard in self.state.shards.iter_mut().filter(|shard| shard.id == planned.shard) {
            for replica in shard
                .replicas
                .iter_mut()
                .filter(|replica| replica.id == planned.to_replica)
            {
                replica.joining = false;
            }
        }
    }

    fn drop_replica(&mut self, shard: u32, replica: u64) {
        self.state.placement_version += 1;
        for shard in self.state.shards.iter_mut().filter(|known| known.id == shard) {
            shard.replicas.retain(|known| known.id != replica);
        }
    }

    pub(super) fn cancel_job(&mut self, id: u64) -> Answer {
        let found = self.state.jobs.iter_mut().find(|job| job.id == id);
        let job = found.ok_or_else(|| unknown_job(id))?;
        match job.state() {
            JobState::Running => job.state = JobState::Cancelling as i32,
            JobState::Cancelling => {}
            _ => return Err(ended(job)),
        }
        let job = job.clone();
        Ok((applied::Result::Job(job), vec![self.cluster_record()]))
    }

    pub(super) fn end_job(&mut self, stamp_ns: i64, end: &peer::EndJob) -> Answer {
        let job = self.job(end.job_id)?.clone();
        if has_ended(&job) {
            return Ok((applied::Result::Job(job), Vec::new()));
        }
        if let Some(open) = job.moves.iter().find(|planned| !is_final(planned)) {
            return Err(Error::internal(format!("shard {} has not ended its move", open.shard)));
        }
        match end.state() {
            JobState::Done => {
                if let Some(node) = leaves(&job) {
                    self.remove_node(node)?;
                }
            }
            JobState::Cancelled | JobState::Failed => {
                if let Some(node) = empties(&job) {
                    self.mark_node(node, NodeState::Active);
                }
            }
            other => return Err(Error::internal(format!("a job does not end as {other:?}"))),
        }
        let Some(job) = self.state.jobs.iter_mut().find(|job| job.id == end.job_id) else {
            return Err(unknown_job(end.job_id));
        };
        job.state = end.state;
        job.ended_at_ns = stamp_ns;
        job.message.clone_from(&end.message);
        let job = job.clone();
        Ok((applied::Result::Job(job), vec![self.cluster_record()]))
    }

    /// Takes an empty node out for good, its replica of the catalog with it.
    fn remove_node(&mut self, node: u64) -> Result<()> {
        let keeps = |shard: &&peer::Shard| shard.replicas.iter().any(|replica| replica.node_id == node);
        if let Some(shard) = self.data_shards().find(keeps) {
            let message = format!("node {node} still has a replica of shard {}", shard.id);
            return Err(Error::new(Reason::FactorUnmet, message));
        }
        self.state.nodes.retain(|known| known.id != node);
        self.state.folder_ids.remove(&node);
        for shard in self.state.shards.iter_mut().filter(|shard| shard.id == CATALOG_GROUP) {
            shard.replicas.retain(|replica| replica.node_id != node);
        }
        self.state.removed_nodes.push(node);
        self.state.placement_version += 1;
        Ok(())
    }
}

fn has_ended(job: &Job) -> bool {
    !matches!(job.state(), JobState::Running | JobState::Cancelling)
}

/// True once nothing is left to do for a move.
pub fn is_final(planned: &Move) -> bool {
    matches!(planned.phase(), MovePhase::Done | MovePhase::Cancelled)
}

/// Bytes a second of each copy of a job, by which all of them together keep its limit; `None` where it has none.
pub fn copy_rate(job: &Job) -> Option<u64> {
    let open = job.moves.iter().filter(|planned| !is_final(planned));
    let shards: BTreeSet<u32> = open.map(|planned| planned.shard).collect();
    let at_once = shards.len().clamp(1, MOVES_AT_ONCE) as u64;
    (job.bytes_per_second_max > 0).then_some(job.bytes_per_second_max / at_once)
}

/// Shards and replicas that a job has copied now.
pub fn copies(job: &Job) -> Vec<(u32, u64)> {
    let copying = |planned: &&Move| planned.phase() == MovePhase::Copying && planned.to_replica != 0;
    let copies = job.moves.iter().filter(copying);
    copies.map(|planned| (planned.shard, planned.to_replica)).collect()
}

fn goal(job: &Job) -> Option<&Goal> {
    job.spec.as_ref().and_then(|JobSpec { goal }| goal.as_ref())
}

/// The node that a job empties.
pub fn empties(job: &Job) -> Option<u64> {
    match goal(job)? {
        Goal::DrainNode(drain) => Some(drain.node_id),
        Goal::RemoveNode(remove) => Some(remove.node_id),
        Goal::ReplaceNode(replace) => Some(replace.old_node),
        Goal::MoveShard(_) | Goal::Rebalance(_) => None,
    }
}

/// The node that is gone when a job is done.
pub fn leaves(job: &Job) -> Option<u64> {
    match goal(job)? {
        Goal::RemoveNode(remove) => Some(remove.node_id),
        Goal::ReplaceNode(replace) => Some(replace.old_node),
        Goal::DrainNode(_) | Goal::MoveShard(_) | Goal::Rebalance(_) => None,
    }
}

/// The refusal of a second job.
pub fn running(job: &Job) -> Error {
    let id = job.id;
    Error::new(Reason::JobRunning, format!("job {id} runs: one job at a time"))
        .hint(format!("tidemark job watch {id}, or tidemark job cancel {id}"))
}

fn ended(job: &Job) -> Error {
    Error::new(Reason::JobEnded, format!("job {} has ended", job.id)).hint("tidemark job list")
}

fn unknown_job(id: u64) -> Error {
    Error::new(Reason::UnknownJob, format!("no job {id}")).hint("tidemark job list")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(limit: u64, moves: &[(u32, MovePhase)]) -> Job {
        let planned = |(at, (shard, phase)): (u64, &(u32, MovePhase))| Move {
            shard: *shard,
            to_replica: if *phase == MovePhase::Pending { 0 } else { 100 + at },
            phase: *phase as i32,
            ..Move::default()
        };
        Job {
            bytes_per_second_max: limit,
            moves: (0..).zip(moves).map(planned).collect(),
            ..Job::default()
        }
    }

    #[test]
    fn copies_share_the_rate_of_their_job() {
        use MovePhase::*;
        let check = |moves: &[(u32, MovePhase)], rate: u64, copied: &[(u32, u64)]| {
            let job = job(1_000, moves);
            assert_eq!(copy_rate(&job), Some(rate), "{moves:?}");
            assert_eq!(copies(&job), copied, "{moves:?}");
        };
        check(&[(1, Copying)], 1_000, &[(1, 100)]);
        check(&[(1, Copying), (2, Pending)], 500, &[(1, 100)]);
        check(&[(1, Copying), (2, Copying), (3, Pending)], 500, &[(1, 100), (2, 101)]);
        check(&[(1, Done), (2, Switching), (3, Copying)], 500, &[(3, 102)]);
        check(&[(1, Done), (2, Cancelled), (3, Copying)], 1_000, &[(3, 102)]);
        // Moves of one shard come one after the other.
        check(&[(1, Copying), (1, Pending)], 1_000, &[(1, 100)]);
        assert_eq!(copy_rate(&job(0, &[(1, Copying)])), None);
    }
}
