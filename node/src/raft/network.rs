//! How a replica reaches the others of its group: openraft's calls as messages on the peer lanes. Never: retries,
//! which openraft makes itself.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::AnyError;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{SnapshotResponse, TransferLeaderResponse};
use tidemark_proto::peer::install_snapshot_request::Part;
use tidemark_proto::peer::{
    self, Envelope, InstallSnapshotRequest, InstallSnapshotResponse, NodeViewRequest, RaftRequest, SnapshotHeader,
    raft_request, raft_response,
};
use tidemark_proto::v1::NodeFacts;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::codec;
use super::lag::Lag;
use super::machine::{RaftSnapshot, SnapshotData, blocking};
use super::pace::{self, Pace};
use super::snapshot;
use super::state::ReplicaState;
use super::transfers::Running;
use super::types::*;
use crate::error::{Error, Reason};
use crate::metrics::Metrics;
use crate::peers::{LinkError, PeerClient, Peers};
use crate::wire::status::from_status;

/// A transfer of which nothing moves for so long is begun anew; it goes on where it stopped.
const STALLED_AFTER: Duration = Duration::from_secs(60);
const KNOCK_TIMEOUT: Duration = Duration::from_secs(2);
const PIECES_AHEAD: usize = 4;
/// Version of the messages between nodes.
pub(super) const PROTOCOL: u32 = 2;

/// Makes connections for the replicas of one node.
#[derive(Clone)]
pub(super) struct Network {
    /// All lanes of the node.
    pub(super) peers: Arc<Peers>,
    /// Stamped on every message.
    pub(super) envelope: Envelope,
    /// The group.
    pub(super) group: u32,
    /// The replica that sends.
    pub(super) from_replica: u64,
    /// Counts what is sent.
    pub(super) metrics: Arc<Metrics>,
    /// What this replica tells others of time, and hears of it.
    pub(super) lag: Arc<Lag>,
    /// The replica that sends takes no new commands for want of room.
    pub(super) ebbing: Arc<AtomicBool>,
    /// The replica that sends was told that its group goes on without it.
    pub(super) left: Arc<AtomicBool>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Member) -> Connection {
        Connection {
            network: self.clone(),
            to_replica: target,
            to: node.clone(),
            pace: Pace::default(),
        }
    }
}

/// One replica's way to another.
pub(super) struct Connection {
    network: Network,
    to_replica: u64,
    to: Member,
    pace: Pace,
}

fn unreachable(error: impl std::fmt::Display) -> Unreachable<TypeConfig> {
    Unreachable::new(&AnyError::error(error.to_string()))
}

fn broken(error: impl std::fmt::Display) -> NetworkError<TypeConfig> {
    NetworkError::new(&AnyError::error(error.to_string()))
}

impl Connection {
    fn envelope(&self) -> Envelope {
        Envelope {
            to_node: self.to.node_id,
            ..self.network.envelope.clone()
        }
    }

    async fn call(
        &self,
        message: raft_request::Message,
        action: RPCTypes,
        option: &RPCOption,
    ) -> Result<raft_response::Message, RPCError<TypeConfig>> {
        let peer = self.network.peers.at(&self.to.peer_address).map_err(unreachable)?;
        let request = RaftRequest {
            envelope: Some(self.envelope()),
            call: 0,
            group: self.network.group,
            from_replica: self.network.from_replica,
            to_replica: self.to_replica,
            message: Some(message),
        };
        let timeout = option.hard_ttl();
        let response = peer.raft().call(request, timeout).await.map_err(|e| match e {
            LinkError::Unreachable(_) => RPCError::Unreachable(unreachable(e)),
            LinkError::Timeout(timeout) => {
                let (id, target) = (self.network.from_replica, self.to_replica);
                RPCError::Timeout(Timeout {
                    action,
                    id,
                    target,
                    timeout,
                })
            }
        })?;
        peer.note_disk_low(response.disk_low);
        match response.message {
            Some(raft_response::Message::Error(reason)) => Err(unreachable(reason).into()),
            Some(message) => Ok(message),
            None => Err(broken("empty answer").into()),
        }
    }

    async fn append(
        &self,
        rpc: &AppendEntriesRequest,
        replayed: bool,
        option: &RPCOption,
    ) -> Result<AppendEntriesResponse, RPCError<TypeConfig>> {
        let append = peer::AppendEntriesRequest {
            as_of: self.network.lag.as_of(&rpc.vote, self.to_replica),
            replayed,
            ebbing: self.network.ebbing.load(Ordering::Relaxed),
            ..codec::append_request_to_wire(rpc)
        };
        let message = raft_request::Message::Append(append);
        match self.call(message, RPCTypes::AppendEntries, option).await? {
            raft_response::Message::Append(append) => {
                if let Some(sent) = append.sent {
                    self.network.lag.answered(self.to_replica, sent);
                }
                Ok(codec::append_response_from_wire(append).map_err(broken)?)
            }
            _ => Err(broken("wrong kind of answer").into()),
        }
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest,
        pre: bool,
        option: RPCOption,
    ) -> Result<VoteResponse, RPCError<TypeConfig>> {
        let message = raft_request::Message::Vote(codec::vote_request_to_wire(&rpc, pre));
        match self.call(message, RPCTypes::Vote, &option).await? {
            raft_response::Message::Vote(vote) => {
                self.network.left.fetch_or(vote.left, Ordering::Relaxed);
                Ok(codec::vote_response_from_wire(vote).map_err(broken)?)
            }
            _ => Err(broken("wrong kind of answer").into()),
        }
    }

    /// Makes sure that the receiver is there and its disk is not full: otherwise it costs no checkpoint, and no log stays for it.
    async fn knock(&self, client: &mut PeerClient) -> Result<(), Error> {
        let mut request = tonic::Request::new(NodeViewRequest {
            envelope: Some(self.envelope()),
            ..NodeViewRequest::default()
        });
        request.set_timeout(KNOCK_TIMEOUT);
        let answered = tokio::time::timeout(KNOCK_TIMEOUT, client.node_view(request)).await;
        let silent = |_| Error::new(Reason::Unreachable, "the receiver of the snapshot does not answer");
        let view = answered
            .map_err(silent)?
            .map_err(|status| from_status(&status))?
            .into_inner();
        match view.facts.is_some_and(|facts| is_full(&facts)) {
            true => Err(Error::new(Reason::DiskLow, "the disk of the receiver is full")),
            false => Ok(()),
        }
    }

    /// Takes a checkpoint, sends what the receiver lacks of it and waits for it to be installed. `known` is the index
    /// that openraft goes on from afterwards: the checkpoint may be newer.
    async fn send_snapshot(&self, vote: Vote, known: u64, state: Arc<ReplicaState>) -> Result<Vote, Error> {
        let mut client = self.network.peers.at(&self.to.peer_address)?.client();
        self.knock(&mut client).await?;
        let progress = Arc::new(state.transfers().begin(self.to_replica, known));
        let taking = state.clone();
        let taken = Arc::new(blocking(move || taking.outgoing()).await?);
        let header = SnapshotHeader {
            envelope: Some(self.envelope()),
            group: self.network.group,
            to_replica: self.to_replica,
            vote: Some(codec::vote_to_wire(&vote)),
            meta: Some(codec::snapshot_meta_to_wire(&taken.meta)),
            files: taken.files.clone(),
        };
        let (out, requests) = mpsc::channel(PIECES_AHEAD);
        let part = Some(Part::Header(header));
        out.send(InstallSnapshotRequest { part })
            .await
            .map_err(Error::internal)?;
        let told = client.install_snapshot(ReceiverStream::new(requests)).await;
        let mut told = told.map_err(|status| from_status(&status))?.into_inner();
        let have = next_answer(&mut told, &progress).await?.have;
        let have = have
            .ok_or_else(|| Error::internal("the receiver did not say what it has"))?
            .bytes;
        if have.len() != taken.files.len() {
            return Err(Error::internal("the receiver speaks of other files"));
        }
        let total = taken.files.iter().map(|file| file.bytes).sum();
        let there = taken
            .files
            .iter()
            .zip(&have)
            .map(|(file, have)| file.bytes.min(*have))
            .sum();
        progress.set(total, there);
        let (group, to) = (self.network.group, self.to_replica);
        tracing::info!(group, to, total, there, "sending a checkpoint");
        let (peers, sent) = (self.network.peers.clone(), progress.clone());
        let throttle = move || peers.throttle_to(group, to);
        let sending = tokio::task::spawn_blocking(move || {
            snapshot::send_files(taken.folder.path(), &taken.files, &have, &throttle, &sent, &out)
        });
        let answer = next_answer(&mut told, &progress).await;
        drop(told);
        let vote = answer?.vote.ok_or_else(|| Error::internal("answer without a vote"))?;
        sending.await.map_err(Error::internal)??;
        self.network
            .metrics
            .snapshot_bytes_sent
            .add(total.saturating_sub(there));
        codec::vote_from_wire(vote).map_err(Error::internal)
    }
}

/// Whether a node takes no checkpoint, however small.
fn is_full(facts: &NodeFacts) -> bool {
    facts.disk_free_bytes <= facts.disk_reserve_bytes / 2 && facts.disk_reserve_bytes > 0
}

/// Waits for the receiver, for as long as bytes go out to it.
async fn next_answer(
    answers: &mut tonic::Streaming<InstallSnapshotResponse>,
    progress: &Running,
) -> Result<InstallSnapshotResponse, Error> {
    let lost = || Error::new(Reason::Unreachable, "the receiver of the snapshot is gone");
    let mut answer = std::pin::pin!(answers.message());
    loop {
        let done = progress.done();
        match tokio::time::timeout(STALLED_AFTER, &mut answer).await {
            Ok(answer) => return answer.map_err(|status| from_status(&status))?.ok_or_else(lost),
            Err(_) if progress.done() > done => {}
            Err(_) => {
                return Err(Error::new(
                    Reason::Unreachable,
                    "the receiver of the snapshot takes nothing",
                ));
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotData;

    /// What a replica missed goes in pieces, each in its turn: while it replays, it serves nobody new the worse for it.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse, RPCError<TypeConfig>> {
        if !self.pace.holds(&rpc) {
            return self.append(&rpc, false, &option).await;
        }
        let peer = self.network.peers.at(&self.to.peer_address).map_err(unreachable)?;
        for piece in pace::pieces(rpc) {
            let _turn = peer.replay().next().await;
            let answer = self.append(&piece, true, &option).await?;
            if !matches!(answer, AppendEntriesResponse::Success) {
                return Ok(answer);
            }
        }
        Ok(AppendEntriesResponse::Success)
    }

    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<TypeConfig>> {
        self.ask_vote(rpc, false, option).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<TypeConfig>> {
        self.ask_vote(rpc, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Live(state) = snapshot.snapshot else {
            return Err(broken("only a live state can be sent").into());
        };
        let known = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        tokio::select! {
            sent = Box::pin(self.send_snapshot(vote, known, state)) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                // Tried again for as long as the node is down.
                Err(error) if error.reason() == Reason::Unreachable => {
                    tracing::debug!(group = self.network.group, to = %self.to, %error, "snapshot not sent");
                    Err(unreachable(error).into())
                }
                Err(error) => {
                    tracing::warn!(group = self.network.group, to = %self.to, %error, "snapshot not sent");
                    Err(unreachable(error).into())
                }
            },
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = raft_request::Message::Transfer(codec::transfer_to_wire(&request));
        match self.call(message, RPCTypes::TransferLeader, &option).await? {
            raft_response::Message::Transferred(peer::Blank {}) => Ok(Ok(())),
            _ => Err(broken("wrong kind of answer").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_receiver_costs_no_checkpoint() {
        let full = |disk_free_bytes, disk_reserve_bytes| {
            is_full(&NodeFacts {
                disk_free_bytes,
                disk_reserve_bytes,
                ..NodeFacts::default()
            })
        };
        assert!(full(500, 1_000) && full(0, 1_000));
        assert!(!full(501, 1_000));
        assert!(!full(0, 0), "nothing is to stay free, or it does not say");
    }
}
