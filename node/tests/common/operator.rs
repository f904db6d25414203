//! What an operator does to a cluster: adds nodes, starts jobs and waits for them, compares replicas.
//! Never here: cases. Invariant: nothing is waited for without an end.

use std::collections::BTreeMap;
use std::fmt::Debug;

use tidemark_client::{Client, Error, v1};
use tidemark_proto::peer::manage_group_request::Step;
use tidemark_proto::peer::peer_service_client::PeerServiceClient;
use tidemark_proto::peer::{Envelope, ManageGroupRequest};
use v1::job_spec::Goal;

use super::direct::Direct;
use super::{TestCluster, eventually};

/// Waits until so many replicas of a shard are told to hold the same. One that a busy machine keeps from answering in time counts as one
/// that differs, and while leaders change nobody may answer.
async fn until_equal<E: Debug>(replicas: usize, check: impl AsyncFn() -> Result<v1::CheckShardResponse, E>) {
    eventually("the replicas are equal", || async {
        match check().await {
            Ok(found) if found.equal && found.replicas.len() == replicas => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The same of a cluster of three, through its client.
pub(crate) async fn three_are_equal(client: &Client, shard: u32) {
    until_equal(3, async || client.check_shard(shard).await).await;
}

/// Version of the messages between nodes.
pub(crate) const PEER_PROTOCOL: u32 = 2;

pub(crate) fn goal(goal: Goal) -> Option<v1::JobSpec> {
    Some(v1::JobSpec { goal: Some(goal) })
}

pub(crate) fn drain(node_id: u64) -> Goal {
    Goal::DrainNode(v1::DrainNode { node_id })
}

pub(crate) fn remove(node_id: u64) -> Goal {
    Goal::RemoveNode(v1::RemoveNode { node_id })
}

pub(crate) fn replace(old_node: u64, new_node: u64) -> Goal {
    Goal::ReplaceNode(v1::ReplaceNode { old_node, new_node })
}

pub(crate) fn rebalance() -> Goal {
    Goal::Rebalance(v1::Rebalance { max_moves: 0 })
}

impl TestCluster {
    /// Takes node `i` into the cluster; gives its id.
    pub(crate) async fn take_in(&self, i: usize) -> u64 {
        let request = v1::AddNodeRequest {
            peer_address: self.peer_address(i),
        };
        let added = self.at(0).cluster().add_node(request).await.unwrap().into_inner();
        added.node.unwrap().id
    }

    /// Asks node `at` to start a job.
    pub(crate) async fn start_job(&self, at: usize, what: Goal) -> Result<v1::Job, Error> {
        self.start_limited_job(at, what, 0).await
    }

    /// The same, with a limit of bytes a second.
    pub(crate) async fn start_limited_job(&self, at: usize, what: Goal, limit: u64) -> Result<v1::Job, Error> {
        let request = v1::StartJobRequest {
            spec: goal(what),
            bytes_per_second_max: limit,
        };
        let started = self.at(at).cluster().start_job(request).await;
        started.map(|job| job.into_inner().job.unwrap()).map_err(Error::from)
    }

    /// A job as node `at` knows it.
    pub(crate) async fn job(&self, at: usize, id: u64) -> Result<v1::Job, String> {
        let listed = self.at(at).cluster().list_jobs(v1::ListJobsRequest { id }).await;
        let jobs = listed.map_err(|e| e.message().to_string())?.into_inner().jobs;
        jobs.into_iter().next().ok_or_else(|| "no job".to_string())
    }

    /// Waits until a job has ended.
    pub(crate) async fn job_ended(&self, at: usize, id: u64) -> v1::Job {
        eventually("the job ends", || async {
            let job = self.job(at, id).await?;
            match job.state() {
                v1::JobState::Running | v1::JobState::Cancelling => Err(format!("{job:?}")),
                _ => Ok(job),
            }
        })
        .await
    }

    /// Runs a job to its end.
    pub(crate) async fn done(&self, at: usize, what: Goal) -> v1::Job {
        let job = self.start_job(at, what).await.unwrap();
        let ended = self.job_ended(at, job.id).await;
        assert_eq!(ended.state(), v1::JobState::Done, "{}", ended.message);
        ended
    }

    /// Fails where two replicas of a shard differ at one log index.
    pub(crate) async fn replicas_agree(&self, at: usize) {
        let status = self.at(at).status().await.unwrap();
        for shard in status.shards.iter().filter(|shard| shard.shard != 0) {
            let request = v1::CheckShardRequest { shard: shard.shard };
            let check = async || {
                self.at(at)
                    .cluster()
                    .check_shard(request)
                    .await
                    .map(tonic::Response::into_inner)
            };
            until_equal(shard.replicas.len(), check).await;
        }
    }

    /// Has the leader of a shard do a step that the catalog knows nothing of.
    pub(crate) async fn behind_the_catalog(&self, at: usize, shard: u32, step: Step) {
        eventually("the shard's leader does it", || async {
            let status = self.at(at).status().await.map_err(|e| e.to_string())?;
            let leader = status.shards[shard as usize].leader_node;
            let i = leader.checked_sub(1).ok_or("no leader")? as usize;
            let channel = Direct::new(&self.peer_address(i)).channel;
            let request = ManageGroupRequest {
                envelope: Some(Envelope {
                    cluster_id: status.cluster_id,
                    protocol: PEER_PROTOCOL,
                    from_node: at as u64 + 1,
                    to_node: leader,
                }),
                group: shard,
                timeout_ms: 5_000,
                step: Some(step.clone()),
            };
            let done = PeerServiceClient::new(channel).manage_group(request).await;
            let done = done.map_err(|e| e.to_string())?.into_inner();
            match (&step, &done.view) {
                (Step::TransferTo(_), _) if done.not_leader != 0 => Ok(()),
                (_, Some(_)) => Ok(()),
                _ => Err(format!("{done:?}")),
            }
        })
        .await;
    }

    /// Replicas of data shards by node, as the catalog has them.
    pub(crate) async fn spread(&self, at: usize) -> BTreeMap<u64, usize> {
        let status = self.at(at).status().await.unwrap();
        let mut spread: BTreeMap<u64, usize> = BTreeMap::new();
        for node in &status.nodes {
            spread.insert(node.node.as_ref().unwrap().id, 0);
        }
        for shard in status.shards.iter().filter(|shard| shard.shard != 0) {
            for replica in &shard.replicas {
                *spread.entry(replica.node_id).or_default() += 1;
            }
        }
        spread
    }
}
