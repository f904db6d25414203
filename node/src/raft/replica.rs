//! One replica of one group, as the rest of the node uses it: propose, read, answer peers, flush. Never: routing.
//!
//! Invariant: "not leader" means nothing was appended; any other failure of a proposal means its outcome is unknown.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::storage::Snapshot;
use openraft::{Config, ReadPolicy, ServerState, SnapshotPolicy};
use tidemark_proto::peer::{self, RaftRequest, RaftResponse, SnapshotPiece, raft_request, raft_response};
use tidemark_proto::v1::{ReplicaState as State, ReplicaStatus};
use tokio::sync::watch;

use super::codec;
use super::lag::Lag;
use super::log_store::{GroupLog, GroupReader};
use super::machine::{Machine, SnapshotData, blocking};
use super::network::Network;
use super::state::{Kept, ReplicaState};
use super::types::*;
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};

type Raft = openraft::Raft<TypeConfig, Machine>;
pub(super) type Metrics = openraft::RaftMetrics<TypeConfig>;

/// How a proposal ended.
pub enum Proposed {
    /// Committed and applied here; the encoded answer.
    Applied(Bytes),
    /// Nothing appended; the node to ask, where known.
    NotLeader(Option<u64>),
    /// May or may not become committed.
    Unknown(String),
    /// The same, and no majority has agreed with this leader for a while: to wait here is of no use.
    CutOff(String),
    /// Nothing appended, and no other node would.
    Refused(Error),
}

/// Others elect somebody else within this.
const CUT_OFF: Duration = Duration::from_secs(2);
/// Longest that a leader waits for what it repeats to be applied; well below what it waits for any answer.
const REPLAY_WAIT: Duration = Duration::from_millis(150);

/// One replica of one group.
pub struct Replica {
    pub(super) group: u32,
    pub(super) id: u64,
    pub(super) raft: Raft,
    pub(super) state: Arc<ReplicaState>,
    /// When it last heard a leader that it follows.
    pub(super) heard: Mutex<Option<Instant>>,
    lag: Arc<Lag>,
    pub(super) reader: GroupReader,
    /// Where it leads: it takes no new commands for want of room.
    pub(super) ebbing: Arc<AtomicBool>,
    /// Its group goes on without it, as a voter said that it asked for a vote.
    left: Arc<AtomicBool>,
    /// What of its state could not be read.
    pub(super) damage: OnceLock<String>,
    /// Why it takes part no more.
    ended: Arc<OnceLock<String>>,
    pub(super) receiving: Receiving,
    /// Applied index at which there was nothing left to flush or purge.
    pub(super) settled: AtomicU64,
}

/// Settings of every group. Heartbeat and its slack stay below the shortest election timeout.
fn raft_config() -> Result<Arc<Config>> {
    let config = Config {
        cluster_name: "tidemark".into(),
        // Sent by `pulse`; a group's own timer runs only while its leader is silent.
        heartbeat_interval: 350,
        heartbeat_min_interval: Some(200),
        election_timeout_min: 800,
        election_timeout_max: 1_200,
        install_snapshot_timeout: 600_000,
        max_payload_entries: 1_024,
        max_append_entries: Some(1_024),
        replication_lag_threshold: u64::MAX / 2,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        api_channel_size: Some(256),
        state_machine_channel_size: Some(64),
        enable_pre_vote: Some(true),
        // A restarted leader asks for votes again. It and every other restarted replica may also give theirs at once:
        // reads confirm the leader with a round of heartbeats (ReadIndex), never by a lease that a restart forgets.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(3_000),
        ..Config::default()
    };
    Ok(Arc::new(config.validate().map_err(Error::internal)?))
}

/// Whether a group has no other member, on its way in or voting.
pub(super) fn is_alone(metrics: &Metrics) -> bool {
    metrics.membership_config.membership().nodes().nth(1).is_none()
}

impl Replica {
    /// Starts a replica over its opened log and state.
    pub(super) async fn start(log: GroupLog, state: Arc<ReplicaState>, network: Network) -> Result<Replica> {
        let (group, id) = (network.group, network.from_replica);
        let (machine, lag) = (Machine::new(state.clone()), network.lag.clone());
        let (ebbing, left) = (network.ebbing.clone(), network.left.clone());
        let reader = log.reader();
        state.replayed_upto(log.memory().lock().last.map_or(0, |last| last.index));
        let raft = Raft::new(id, raft_config()?, network, log, machine)
            .await
            .map_err(Error::internal)?;
        lag.watch(raft.metrics());
        let ended = Arc::<OnceLock<String>>::default();
        tokio::spawn(note_end(raft.clone(), Arc::clone(&ended)));
        Ok(Replica {
            group,
            id,
            raft,
            state,
            heard: Mutex::new(None),
            lag,
            reader,
            ebbing,
            left,
            damage: OnceLock::new(),
            ended,
            receiving: Receiving::new(),
            settled: AtomicU64::new(0),
        })
    }

    /// Group it belongs to.
    pub fn group(&self) -> u32 {
        self.group
    }

    /// Its id in the group.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The applied state.
    pub fn state(&self) -> &Arc<ReplicaState> {
        &self.state
    }

    /// Makes the group's first membership, unless it has one.
    pub async fn initialize(&self, members: std::collections::BTreeMap<u64, Member>) -> Result<()> {
        if self.raft.is_initialized().await.map_err(Error::internal)? {
            return Ok(());
        }
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
            Err(e) => Err(Error::internal(e)),
        }
    }

    /// Why it takes part no more: it was stopped, or its state or its log failed. What it knew of its group stays as it was
    /// then, so nothing that depends on it is to be believed.
    pub fn ended(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    /// Node of the leader, as far as this replica knows; one that has ended knows of none.
    pub fn leader_node(&self) -> Option<u64> {
        if self.ended().is_some() {
            return None;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        metrics
            .membership_config
            .membership()
            .get_node(&leader)
            .map(|member| member.node_id)
    }

    /// True while this replica is a voter of its group, as it knows it: learners may have nothing yet.
    pub fn votes(&self) -> bool {
        if self.left.load(Ordering::Relaxed) || self.ended().is_some() {
            return false;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .membership_config
            .membership()
            .voter_ids()
            .any(|voter| voter == self.id)
    }

    /// True while this replica believes it leads.
    pub fn is_leader(&self) -> bool {
        let metrics = self.raft.metrics();
        metrics.borrow_watched().current_leader == Some(self.id) && self.ended().is_none()
    }

    /// Offers an encoded command.
    pub async fn propose(&self, command: Bytes, timeout: Duration) -> Proposed {
        if self.ended().is_some() {
            return Proposed::NotLeader(None);
        }
        let offered = tokio::time::timeout(timeout, self.raft.client_write(Command(command)));
        let written = tokio::select! {
            biased;
            written = offered => written,
            () = self.cut_off() => {
                return Proposed::CutOff(format!("no majority has agreed with its leader for {CUT_OFF:?}"));
            }
        };
        let Ok(written) = written else {
            return Proposed::Unknown(format!("no answer in {timeout:?}"));
        };
        match written {
            Ok(response) => Proposed::Applied(response.data.0),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Proposed::NotLeader(to.leader_node.map(|member| member.node_id))
            }
            Err(e) => Proposed::Unknown(e.to_string()),
        }
    }

    /// Returns once this replica is known to lead and has applied everything acknowledged before the call.
    /// `Ok(Some(node))` names the leader where it is another one.
    pub async fn linearize(&self, timeout: Duration) -> Result<std::result::Result<(), Option<u64>>> {
        // To ask its core takes longer than most questions.
        if self.lag.is_all_there() {
            return Ok(Ok(()));
        }
        let reading = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(timeout, reading).await {
            Err(_) => Err(Error::new(Reason::NoLeader, "no majority confirmed the leader in time")),
            Ok(Ok(_)) => Ok(Ok(())),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Ok(Err(to.leader_node.map(|member| member.node_id)))
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) => {
                Err(Error::new(Reason::NoLeader, "no majority confirms the leader"))
            }
            Ok(Err(RaftError::Fatal(e))) => Err(Error::new(Reason::NoLeader, e.to_string())),
        }
    }

    /// True where this replica leads in its own eyes, and no majority has agreed with it for a while.
    pub fn is_cut_off(&self) -> bool {
        self.is_leader() && self.agreed().is_none_or(|ago| ago > CUT_OFF)
    }

    /// Returns once this replica is cut off; one that was elected just now is given its time.
    async fn cut_off(&self) {
        let began = monotonic();
        loop {
            let silent = match self.is_leader() {
                true => self.agreed().unwrap_or_else(|| began.elapsed()),
                false => Duration::ZERO,
            };
            if silent > CUT_OFF {
                return;
            }
            tokio::time::sleep(CUT_OFF - silent + Duration::from_millis(1)).await;
        }
    }

    /// How long ago a majority agreed with this leader.
    fn agreed(&self) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match is_alone(&metrics) {
            true => Some(Duration::ZERO),
            false => metrics.last_quorum_acked.as_ref().map(|at| at.elapsed()),
        }
    }

    /// Index of the last entry of its log, 0 where there is none.
    pub(super) fn last_log_index(&self) -> u64 {
        self.raft.metrics().borrow_watched().last_log_index.unwrap_or(0)
    }

    /// Whether the group is this replica and no other, on its way in or voting.
    pub(super) fn is_alone(&self) -> bool {
        is_alone(&self.raft.metrics().borrow_watched())
    }

    /// What this replica has is all that was acknowledged until so long ago, or more; `None` when it cannot say.
    pub fn lag(&self) -> Option<Duration> {
        self.lag.lag()
    }

    /// The same in whole milliseconds, rounded up; -1 when it cannot say.
    pub fn lag_ms(&self) -> i64 {
        self.lag().map_or(-1, |lag| lag.as_micros().div_ceil(1_000) as i64)
    }

    /// Answers a Raft message of another replica.
    pub async fn answer(&self, request: RaftRequest) -> RaftResponse {
        let call = request.call;
        let message = self
            .answer_message(request)
            .await
            .unwrap_or_else(|e| raft_response::Message::Error(e.to_string()));
        RaftResponse {
            call,
            message: Some(message),
            ..RaftResponse::default()
        }
    }

    async fn answer_message(&self, request: RaftRequest) -> Result<raft_response::Message> {
        if request.to_replica != self.id {
            let message = format!("replica {} of group {} is not here", request.to_replica, self.group);
            return Err(Error::new(Reason::WrongCluster, message));
        }
        match request.message {
            Some(raft_request::Message::Append(append)) => {
                let (as_of, replayed) = (append.as_of, append.replayed);
                let append = codec::append_request_from_wire(append).map_err(Error::internal)?;
                let upto = append.entries.last().filter(|_| replayed).map(|last| last.log_id.index);
                let response = self.raft.append_entries(append).await.map_err(Error::internal)?;
                if response.is_success() {
                    if let Some(upto) = upto {
                        let waiting = self.raft.wait(Some(REPLAY_WAIT));
                        waiting.applied_index_at_least(Some(upto), "replayed").await.ok();
                    }
                    *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(monotonic());
                    as_of.into_iter().for_each(|as_of| self.lag.accepted(as_of));
                }
                Ok(raft_response::Message::Append(peer::AppendEntriesResponse {
                    sent: Some(self.lag.moment()),
                    ..codec::append_response_to_wire(&response)
                }))
            }
            Some(raft_request::Message::Vote(vote)) => {
                let (vote, pre) = codec::vote_request_from_wire(vote).map_err(Error::internal)?;
                let left = self.goes_on_without(request.from_replica, vote.last_log_id);
                let response = if pre {
                    self.raft.pre_vote(vote).await
                } else {
                    self.raft.vote(vote).await
                };
                Ok(raft_response::Message::Vote(peer::VoteResponse {
                    left,
                    ..codec::vote_response_to_wire(&response.map_err(Error::internal)?)
                }))
            }
            Some(raft_request::Message::Transfer(transfer)) => {
                let transfer = codec::transfer_from_wire(transfer).map_err(Error::internal)?;
                let answer = self
                    .raft
                    .handle_transfer_leader(transfer)
                    .await
                    .map_err(Error::internal)?;
                answer.map_err(Error::internal)?;
                Ok(raft_response::Message::Transferred(peer::Blank {}))
            }
            None => Err(Error::new(Reason::MissingField, "raft message of an unknown kind")),
        }
    }

    /// Receives a checkpoint and makes it this replica's state. `have` is told what need not be sent, and may refuse the
    /// rest. A newer transfer takes the place of one that runs; one of an earlier leader is refused.
    pub async fn receive_snapshot(
        &self,
        header: peer::SnapshotHeader,
        mut pieces: impl futures_util::Stream<Item = Result<SnapshotPiece>> + Send + Unpin,
        have: impl AsyncFnOnce(peer::SnapshotOffsets) -> Result<()>,
    ) -> Result<peer::Vote> {
        let missing = |what| Error::new(Reason::MissingField, format!("snapshot header without {what}"));
        let vote = codec::vote_from_wire(header.vote.ok_or_else(|| missing("vote"))?).map_err(Error::internal)?;
        let meta = header.meta.ok_or_else(|| missing("meta"))?;
        let meta = codec::snapshot_meta_from_wire(meta).map_err(Error::internal)?;
        let mut turn = self.receiving.next(vote)?;
        let mut alone = self.receiving.alone.lock().await;
        // Also of one that ends half way.
        *alone = monotonic();
        let (state, files) = (self.state.clone(), header.files);
        let mut receiver = blocking(move || state.incoming(files)).await?;
        have(peer::SnapshotOffsets { bytes: receiver.have() }).await?;
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                _ = turn.changed() => return Err(Error::new(Reason::Unreachable, "a newer snapshot took the place")),
            };
            let Some(piece) = piece.transpose()? else { break };
            receiver = blocking(move || receiver.take(piece).map(|()| receiver)).await?;
        }
        let (state, announced) = (self.state.clone(), meta.clone());
        let received = blocking(move || state.received(receiver, &announced)).await?;
        let snapshot = Snapshot {
            meta,
            snapshot: SnapshotData::Received(received.path().to_path_buf()),
        };
        let response = self
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(Error::internal)?;
        let state = self.state.clone();
        blocking(move || state.forget_incoming()).await?;
        Ok(codec::vote_to_wire(&response.vote))
    }

    /// Checkpoints on their way from here: receiver, bytes there are, bytes it has.
    pub fn transfer_progress(&self) -> Vec<(u64, u64, u64)> {
        self.state.transfers().progress()
    }

    /// The digest of its content that was taken under an id, once it is there.
    pub fn taken_digest(&self, id: u64) -> Option<peer::TakenDigest> {
        let taken = self.state.taken_digest(id)?;
        Some(peer::TakenDigest {
            group: self.group,
            replica: self.id,
            ..taken
        })
    }

    /// Stops taking part for good: nothing is flushed, what it kept goes.
    pub async fn retire(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(group = self.group, error = %e, "replica did not stop cleanly");
        }
    }

    /// Stops taking part, and flushes.
    pub async fn shutdown(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(group = self.group, error = %e, "replica did not stop cleanly");
        }
        let state = self.state.clone();
        if let Err(e) = blocking(move || state.flush()).await {
            tracing::warn!(group = self.group, error = %e, "flush at shutdown failed");
        }
    }

    /// This replica as it sees itself.
    pub fn view(&self, node_id: u64) -> peer::ReplicaView {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let damage = self.damage();
        let ended = self.ended();
        let state = match metrics.state {
            _ if ended.is_some() => State::Damaged,
            ServerState::Shutdown => State::Damaged,
            ServerState::Leader => State::Leader,
            _ if damage.is_some() => State::Damaged,
            ServerState::Follower => State::Follower,
            ServerState::Candidate => State::Candidate,
            ServerState::Learner => State::Learner,
        };
        let devices = match self.state.kept().as_ref() {
            Kept::Shard(shard) => shard.device_count(),
            Kept::Catalog { .. } => 0,
        };
        let status = ReplicaStatus {
            replica_id: self.id,
            node_id,
            state: state as i32,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.as_ref().map_or(0, |id| id.index),
            problem: ended.or(damage).unwrap_or_default().to_owned(),
            lag_ms: self.lag_ms(),
        };
        peer::ReplicaView {
            group: self.group,
            status: Some(status),
            term: metrics.current_term,
            leader_replica: metrics.current_leader.filter(|_| ended.is_none()).unwrap_or(0),
            devices,
            disk_bytes: self.state.disk_bytes().unwrap_or(0),
        }
    }
}

/// Waits for the end of a replica's core, also for one without a word, and notes why it ended. Leaders change seldom: waiting for
/// that costs nothing.
async fn note_end(raft: Raft, ended: Arc<OnceLock<String>>) {
    let (mut changes, metrics) = (raft.server_metrics(), raft.metrics());
    // Whoever holds it keeps what is behind it open.
    drop(raft);
    while changes.changed().await.is_ok() {}
    let why = metrics.borrow_watched().running_state.clone().err();
    ended
        .set(why.map_or_else(|| "it stopped without a word".to_owned(), |why| why.to_string()))
        .ok();
}

/// Whose turn it is to send this replica a checkpoint.
pub(super) struct Receiving {
    /// Of the newest transfer, and its number.
    newest: watch::Sender<(u64, Option<Vote>)>,
    /// Held by the one that writes files; when the last one began, or the process.
    pub(super) alone: tokio::sync::Mutex<Instant>,
}

impl Receiving {
    fn new() -> Receiving {
        Receiving {
            newest: watch::Sender::new((0, None)),
            alone: tokio::sync::Mutex::new(monotonic()),
        }
    }

    /// Makes a transfer the newest, unless it is of an earlier leader; what is returned changes when its turn ends.
    fn next(&self, vote: Vote) -> Result<watch::Receiver<(u64, Option<Vote>)>> {
        let taken = self.newest.send_if_modified(|(number, newest)| {
            if newest.as_ref().is_some_and(|newest| *newest > vote) {
                return false;
            }
            (*number, *newest) = (*number + 1, Some(vote));
            true
        });
        match taken {
            true => Ok(self.newest.subscribe()),
            false => Err(Error::new(Reason::Unreachable, "a later leader sends a snapshot")),
        }
    }
}
