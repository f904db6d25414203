//! Jobs as operators ask for them: planned, started, listed with their progress, cancelled. Never: carrying out (see
//! `mover`).

use tidemark_proto::peer::{CancelJob, SetNodeState, StartJob, applied, catalog_command::Command};
use tidemark_proto::v1::{
    CancelJobResponse, Job, JobSpec, ListJobsRequest, ListJobsResponse, Move, PlanJobResponse, SetNodeStateRequest,
    SetNodeStateResponse, StartJobRequest, StartJobResponse,
};

use super::Cluster;
use crate::catalog::CATALOG_GROUP;
use crate::catalog::jobs::{is_final, running};
use crate::error::{Error, Reason, Result};

/// A plan that the placement overtook is made anew this often.
const PLANS_MAX: usize = 3;

impl Cluster {
    /// What a job would do. Refused where it could not start.
    pub async fn plan_job(&self, spec: Option<JobSpec>) -> Result<PlanJobResponse> {
        let planned = self.plan(spec.unwrap_or_default()).await?;
        if let Some(job) = self.host().catalog()?.running_job() {
            return Err(running(job));
        }
        Ok(PlanJobResponse {
            job: Some(planned.job),
            warnings: planned.warnings,
        })
    }

    /// Plans and starts a job.
    pub async fn start_job(&self, request: StartJobRequest) -> Result<StartJobResponse> {
        let spec = request.spec.unwrap_or_default();
        let mut last = Error::internal("no plan was made");
        for _ in 0..PLANS_MAX {
            let planned = self.plan(spec).await?;
            if let Some(job) = self.host().catalog()?.running_job() {
                return Err(running(job));
            }
            let job = Job {
                bytes_per_second_max: request.bytes_per_second_max,
                ..planned.job
            };
            let start = StartJob {
                placement_version: planned.version,
                job: Some(job),
            };
            // Offered once: a second offer of a job that has started would be refused, or start another one.
            match self.propose_once(Command::StartJob(start)).await {
                Ok(applied::Result::Job(job)) => return Ok(StartJobResponse { job: Some(job) }),
                Ok(other) => return Err(Error::internal(format!("answer {other:?} to a job"))),
                Err(e) if e.reason() == Reason::PlacementChanged => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    /// Jobs, newest first; the one that runs with the progress that the leader of the catalog knows.
    pub async fn list_jobs(&self, request: ListJobsRequest) -> Result<ListJobsResponse> {
        self.router.catch_up_catalog(super::CALL_TIMEOUT).await;
        let catalog = self.host().catalog()?;
        let mut jobs: Vec<Job> = match request.id {
            0 => catalog.state().jobs.iter().rev().cloned().collect(),
            id => vec![catalog.job(id)?.clone()],
        };
        if let Some(running) = jobs.iter_mut().find(|job| job.ended_at_ns == 0) {
            let leader = self
                .host()
                .replica(CATALOG_GROUP)
                .and_then(|replica| replica.leader_node());
            let leader = leader.and_then(|id| catalog.node(id)).cloned();
            let view = match leader {
                Some(node) => self.view_of(&node).await,
                None => None,
            };
            match view {
                Some(view) => add_progress(running, view.live_job),
                None => running.message = "the catalog has no leader that answers".to_string(),
            }
        }
        Ok(ListJobsResponse { jobs })
    }

    /// Stops a job at the next point where every shard is whole.
    pub async fn cancel_job(&self, id: u64) -> Result<CancelJobResponse> {
        match self.propose(Command::CancelJob(CancelJob { job_id: id })).await? {
            applied::Result::Job(job) => Ok(CancelJobResponse { job: Some(job) }),
            other => Err(Error::internal(format!("answer {other:?} to a job"))),
        }
    }

    /// Takes a node out of service for new replicas, or back in.
    pub async fn set_node_state(&self, request: SetNodeStateRequest) -> Result<SetNodeStateResponse> {
        let set = SetNodeState {
            node_id: request.node_id,
            state: request.state,
        };
        match self.propose(Command::SetNodeState(set)).await? {
            applied::Result::Node(node) => Ok(SetNodeStateResponse { node: Some(node) }),
            other => Err(Error::internal(format!("answer {other:?} to a node"))),
        }
    }
}

/// Adds what only the node that carries a job out knows: bytes, and what it waits for.
pub(super) fn add_progress(job: &mut Job, live: Option<Job>) {
    let Some(live) = live.filter(|live| live.id == job.id) else {
        return;
    };
    job.message = live.message;
    for (planned, live) in job.moves.iter_mut().zip(live.moves) {
        if !is_final(planned) {
            let Move {
                bytes_total,
                bytes_done,
                waits_for,
                ..
            } = live;
            (planned.bytes_total, planned.bytes_done, planned.waits_for) = (bytes_total, bytes_done, waits_for);
        }
    }
}
