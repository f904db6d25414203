//! What operators ask for: nodes, jobs, leaders, digests. Never here: what a job should do (the server plans).
//! Invariant: what would do something twice when it is sent twice is sent again only where nothing was stored.

use tidemark_proto::v1::{self, cluster_service_client::ClusterServiceClient};

use crate::{
    call::{Call, Pace, Repeat, To},
    client::{ANY, Client},
    error::Error,
};

/// The catalog is one group: what it says of an entry of its own holds for the whole request.
const ONCE: Call<'_> = Call {
    to: To::Any,
    repeat: Repeat::OnlyIfNothingStored { one_shard: true },
    pace: Pace::All,
};

/// Safe to repeat, but the cluster has to look around before it answers.
const SLOW: Call<'_> = Call {
    pace: Pace::Half,
    ..ANY
};

impl Client {
    /// Takes a node that belongs to no cluster yet into this one, all of `timeout` in one try.
    ///
    /// # Errors
    /// What the server refuses; no answer in time, then the outcome is unknown.
    pub async fn add_node(&self, request: v1::AddNodeRequest) -> Result<v1::AddNodeResponse, Error> {
        self.unary(ONCE, request, |channel, request| async move {
            ClusterServiceClient::new(channel).add_node(request).await
        })
        .await
    }

    /// Says whether a node may be given replicas and leaderships.
    ///
    /// # Errors
    /// An unknown node; no answer in time.
    pub async fn set_node_state(&self, request: v1::SetNodeStateRequest) -> Result<v1::SetNodeStateResponse, Error> {
        self.unary(ANY, request, |channel, request| async move {
            ClusterServiceClient::new(channel).set_node_state(request).await
        })
        .await
    }

    /// What a job would do. Changes nothing.
    ///
    /// # Errors
    /// Why the job would be refused; no answer in time.
    pub async fn plan_job(&self, request: v1::PlanJobRequest) -> Result<v1::PlanJobResponse, Error> {
        let max = self.max_answer_bytes();
        self.unary(SLOW, request, move |channel, request| async move {
            ClusterServiceClient::new(channel)
                .max_decoding_message_size(max)
                .plan_job(request)
                .await
        })
        .await
    }

    /// Starts a job; it goes on by itself. All of `timeout` in one try: a second one could start a second job.
    ///
    /// # Errors
    /// Why the job is refused; no answer in time, then the outcome is unknown and [`list_jobs`](Self::list_jobs) tells.
    pub async fn start_job(&self, request: v1::StartJobRequest) -> Result<v1::StartJobResponse, Error> {
        let max = self.max_answer_bytes();
        self.unary(ONCE, request, move |channel, request| async move {
            ClusterServiceClient::new(channel)
                .max_decoding_message_size(max)
                .start_job(request)
                .await
        })
        .await
    }

    /// Jobs, newest first, or the one with this id; 0 for all.
    ///
    /// # Errors
    /// An unknown id; no answer in time.
    pub async fn list_jobs(&self, id: u64) -> Result<Vec<v1::Job>, Error> {
        let max = self.max_answer_bytes();
        let request = v1::ListJobsRequest { id };
        let answer = self.unary(ANY, request, move |channel, request| async move {
            ClusterServiceClient::new(channel)
                .max_decoding_message_size(max)
                .list_jobs(request)
                .await
        });
        Ok(answer.await?.jobs)
    }

    /// Asks a job to stop; it ends when what had begun is taken back or finished.
    ///
    /// # Errors
    /// An unknown or ended job; no answer in time.
    pub async fn cancel_job(&self, id: u64) -> Result<v1::CancelJobResponse, Error> {
        let request = v1::CancelJobRequest { id };
        self.unary(ANY, request, |channel, request| async move {
            ClusterServiceClient::new(channel).cancel_job(request).await
        })
        .await
    }

    /// Makes the replica on another node lead. Doing it again changes nothing more.
    ///
    /// # Errors
    /// What the server refuses; no answer in time.
    pub async fn transfer_leader(
        &self,
        request: v1::TransferLeaderRequest,
    ) -> Result<v1::TransferLeaderResponse, Error> {
        self.unary(SLOW, request, |channel, request| async move {
            ClusterServiceClient::new(channel).transfer_leader(request).await
        })
        .await
    }

    /// Digests of all replicas of a shard at one log index, all of `timeout` in one try: every replica reads all it has.
    ///
    /// # Errors
    /// What the server refuses; no answer in time.
    pub async fn check_shard(&self, shard: u32) -> Result<v1::CheckShardResponse, Error> {
        let call = Call { pace: Pace::All, ..ANY };
        let request = v1::CheckShardRequest { shard };
        self.unary(call, request, |channel, request| async move {
            ClusterServiceClient::new(channel).check_shard(request).await
        })
        .await
    }

    /// Has every replica of a shard rewrite its files as small as they get, all of `timeout` in one try. What had begun goes
    /// on when nobody waits any more.
    ///
    /// # Errors
    /// What the server refuses; no answer in time.
    pub async fn compact_shard(&self, shard: u32) -> Result<v1::CompactShardResponse, Error> {
        let call = Call { pace: Pace::All, ..ANY };
        let request = v1::CompactShardRequest { shard };
        self.unary(call, request, |channel, request| async move {
            ClusterServiceClient::new(channel).compact_shard(request).await
        })
        .await
    }
}
