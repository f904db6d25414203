//! Holds the replicas of a shard against each other: one digest each, taken at one log index. Never: repair.

use std::time::Duration;

use prost::Message as _;
use tidemark_proto::peer::shard_command::Command;
use tidemark_proto::peer::{ShardCommand, TakeDigest, TakenDigest};
use tidemark_proto::v1::{CheckShardResponse, ReplicaDigest, TransferLeaderRequest, TransferLeaderResponse};

use super::Cluster;
use crate::clock::{monotonic, now_ns};
use crate::error::{Reason, Result};
use crate::route::Retry;

/// Reading a whole shard takes a while.
const DIGEST_TIMEOUT: Duration = Duration::from_secs(120);
const DIGEST_POLL: Duration = Duration::from_millis(50);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

impl Cluster {
    /// Has every replica of a shard digest its content right after one entry, and compares.
    pub async fn check_shard(&self, shard: u32) -> Result<CheckShardResponse> {
        let catalog = self.host().catalog()?;
        let known = catalog.known_data_shard(shard)?;
        let id = rand::random::<u64>().max(1);
        let command = ShardCommand {
            stamp_ns: now_ns(),
            command: Some(Command::TakeDigest(TakeDigest { id })),
        };
        let deadline = monotonic() + PROPOSE_TIMEOUT;
        // Offered twice, the later one is kept: still one index for all.
        self.router
            .propose(shard, command.encode_to_vec().into(), Retry::Unsafe, deadline)
            .await?;
        let asked = known
            .replicas
            .iter()
            .filter(|replica| !replica.joining)
            .map(|replica| async {
                let taken = self.digest_of(replica.node_id, shard, replica.id, id).await;
                (replica.id, replica.node_id, taken)
            });
        let taken = futures_util::future::join_all(asked).await;
        let mut response = CheckShardResponse {
            shard,
            equal: true,
            ..CheckShardResponse::default()
        };
        for (replica_id, node_id, taken) in taken {
            response.index = response.index.max(taken.index);
            response.replicas.push(ReplicaDigest {
                replica_id,
                node_id,
                digest: taken.digest,
                problem: taken.problem,
            });
        }
        let first = response.replicas.first().map(|replica| replica.digest);
        let same = |replica: &ReplicaDigest| replica.problem.is_empty() && Some(replica.digest) == first;
        response.equal = response.replicas.iter().all(same);
        Ok(response)
    }

    async fn digest_of(&self, node: u64, group: u32, replica: u64, id: u64) -> TakenDigest {
        let problem = |why: String| TakenDigest {
            group,
            replica,
            problem: why,
            ..TakenDigest::default()
        };
        let until = monotonic() + DIGEST_TIMEOUT;
        let mut seen = format!("node {node} does not answer");
        while monotonic() < until {
            let address = self
                .host()
                .catalog_now()
                .node(node)
                .map(|node| node.peer_address.clone());
            let Some(address) = address else {
                return problem(format!("node {node} has left"));
            };
            match self.ask_view_with(node, &address, id).await {
                Ok(view) => {
                    let mine = |taken: &TakenDigest| taken.group == group && taken.replica == replica;
                    if let Some(taken) = view.digests.into_iter().find(mine) {
                        return taken;
                    }
                    seen = format!("node {node} has not digested its replica in {DIGEST_TIMEOUT:?}");
                }
                Err(error) if error.reason() == Reason::Unreachable => {
                    return problem(format!("node {node} does not answer"));
                }
                Err(error) => seen = error.message().to_string(),
            }
            tokio::time::sleep(DIGEST_POLL).await;
        }
        problem(seen)
    }

    /// Has another replica lead, as an operator asks.
    pub async fn transfer_leader(&self, request: TransferLeaderRequest) -> Result<TransferLeaderResponse> {
        let catalog = self.host().catalog()?;
        catalog.known_shard(request.shard)?;
        catalog.known_node(request.to_node)?;
        let deadline = monotonic() + TRANSFER_TIMEOUT;
        let pause = self
            .transfer(&catalog, request.shard, request.to_node, deadline)
            .await?;
        Ok(TransferLeaderResponse {
            leader_node: request.to_node,
            pause_ms: pause.as_millis() as i64,
        })
    }
}
