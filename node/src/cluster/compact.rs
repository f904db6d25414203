//! Has the replicas of a shard rewrite their files as small as they get. Never: when (an operator asks).
//!
//! Invariant: one replica of a shard after the other, so that the others have all of their disk; content never changes.

use std::time::Duration;

use tidemark_proto::peer::{CompactReplicaRequest, CompactReplicaResponse};
use tidemark_proto::v1::{CompactShardResponse, ReplicaCompaction};
use tonic::Request;

use super::Cluster;
use crate::error::{Error, Reason, Result};
use crate::wire::status::from_status;

/// Rewriting a large replica takes long. Past it the replica goes on by itself, and nobody is told how it ended.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(3_600);

impl Cluster {
    /// Compacts every replica of a shard. A replica that cannot be is told of, and the next one follows.
    pub async fn compact_shard(&self, shard: u32) -> Result<CompactShardResponse> {
        let catalog = self.host().catalog()?;
        let known = catalog.known_data_shard(shard)?;
        let mut response = CompactShardResponse {
            shard,
            ..CompactShardResponse::default()
        };
        for replica in known.replicas.iter().filter(|replica| !replica.joining) {
            let mut compaction = ReplicaCompaction {
                replica_id: replica.id,
                node_id: replica.node_id,
                ..ReplicaCompaction::default()
            };
            match self.compact_at(replica.node_id, shard, replica.id).await {
                Ok(done) => (compaction.bytes_before, compaction.bytes_after) = (done.bytes_before, done.bytes_after),
                Err(error) => compaction.problem = error.message().to_string(),
            }
            response.replicas.push(compaction);
        }
        Ok(response)
    }

    async fn compact_at(&self, node: u64, group: u32, replica: u64) -> Result<CompactReplicaResponse> {
        let message = CompactReplicaRequest {
            envelope: Some(self.host().envelope(node)?),
            group,
            replica,
        };
        if node == self.host().identity()?.node_id {
            return self.serve_compact(message).await;
        }
        let mut request = Request::new(message);
        request.set_timeout(COMPACT_TIMEOUT);
        let mut client = self.router.peer(node)?.client();
        let answered = tokio::time::timeout(COMPACT_TIMEOUT, client.compact_replica(request)).await;
        let late = |_| Error::new(Reason::DeadlineExceeded, format!("node {node} goes on with it"));
        Ok(answered
            .map_err(late)?
            .map_err(|status| from_status(&status))?
            .into_inner())
    }

    /// Compacts a replica here.
    pub async fn serve_compact(&self, request: CompactReplicaRequest) -> Result<CompactReplicaResponse> {
        self.host().check_envelope(request.envelope.as_ref())?;
        let replica = self.host().replica_with_id(request.group, request.replica)?;
        let (bytes_before, bytes_after) = self.host().compact(&replica).await?;
        tracing::info!(group = request.group, bytes_before, bytes_after, "compacted");
        Ok(CompactReplicaResponse {
            bytes_before,
            bytes_after,
        })
    }
}
