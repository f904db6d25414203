//! Commands to the leader of a group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidemark_proto::peer::{
    Applied, ProposeRequest, ProposeResponse, ShardCommand, applied, propose_response, shard_command,
};
use tonic::Request;

use super::{LEADERLESS_MAX, RETRY_PAUSE, Router, time_left};
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::raft::replica::{Proposed, Replica};
use crate::wire::status::{from_failure, never_sent};

/// What one try on another node may take: past it, somebody else may lead by now.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Whether a proposal of unknown outcome may be offered again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Applying it twice is the same as once.
    Safe,
    /// It would be stored twice.
    Unsafe,
}

impl Router {
    /// Has a command committed and applied, wherever its leader is, and returns the answer.
    pub async fn propose(
        &self,
        group: u32,
        command: Bytes,
        retry: Retry,
        deadline: Instant,
    ) -> Result<applied::Result> {
        let mut leader_by = monotonic() + LEADERLESS_MAX;
        let mut offered = false;
        for tries in 0.. {
            time_left(deadline.min(leader_by)).map_err(|_| out_of_time(group, offered))?;
            let left = time_left(deadline).map_err(|_| out_of_time(group, offered))?;
            let proposed = match self.leading_here(group) {
                Some(replica) => self.propose_here(&replica, command.clone(), left).await,
                None => match self.leader_elsewhere(group) {
                    Some(node) => {
                        self.propose_at(node, group, command.clone(), retry, left.min(ATTEMPT))
                            .await
                    }
                    None => Proposed::NotLeader(None),
                },
            };
            match proposed {
                Proposed::Applied(answer) => return read_answer(answer),
                Proposed::NotLeader(_) => {}
                // The first offer may have been stored before it was refused.
                Proposed::Refused(error) if offered => return Err(outcome_unknown(error.message().to_string())),
                Proposed::Refused(error) => return Err(error),
                Proposed::Unknown(why) if retry == Retry::Safe => {
                    tracing::debug!(group, why, "outcome unknown, offering again");
                    (offered, leader_by) = (true, monotonic() + LEADERLESS_MAX);
                }
                Proposed::Unknown(why) | Proposed::CutOff(why) => {
                    return Err(outcome_unknown(format!("shard {group}: {why}")));
                }
            }
            self.pause(group, tries).await;
        }
        Err(out_of_time(group, offered))
    }

    /// This node's replica where it leads, and not in its own eyes only: a command that no majority will take is better
    /// not begun, so that its caller learns early that nothing was stored.
    pub(crate) fn leading_here(&self, group: u32) -> Option<Arc<Replica>> {
        let leads = |replica: &Arc<Replica>| replica.is_leader() && !replica.is_cut_off();
        self.host.replica(group).filter(leads)
    }

    /// Offers a command to a replica of this node, where there is room for it. One that does not lead says so first.
    async fn propose_here(&self, replica: &Replica, command: Bytes, timeout: Duration) -> Proposed {
        match self.host.check_room(replica) {
            Err(error) if replica.is_leader() && takes_room(&command) => Proposed::Refused(error),
            _ => replica.propose(command, timeout).await,
        }
    }

    async fn propose_at(&self, node: u64, group: u32, command: Bytes, retry: Retry, timeout: Duration) -> Proposed {
        let Ok((peer, envelope)) = self.peer(node).and_then(|peer| Ok((peer, self.host.envelope(node)?))) else {
            return Proposed::NotLeader(None);
        };
        let timeout_ms = timeout.as_millis() as i64;
        let mut request = Request::new(ProposeRequest {
            envelope: Some(envelope),
            group,
            command,
            timeout_ms,
        });
        request.set_timeout(timeout + RETRY_PAUSE);
        let mut client = peer.client();
        let answer = tokio::time::timeout(timeout + 2 * RETRY_PAUSE, client.propose(request));
        let answered = match retry {
            Retry::Safe => match self.while_it_leads(group, node, answer).await {
                Some(answered) => answered,
                None => return Proposed::Unknown(format!("node {node} leads no more")),
            },
            Retry::Unsafe => answer.await,
        };
        match answered {
            Err(_) => Proposed::Unknown(format!("node {node} did not answer in time")),
            Ok(Err(status)) if never_sent(&status) => {
                self.learn_leader(group, node, None);
                Proposed::NotLeader(None)
            }
            Ok(Err(status)) => match self.heed(&status) {
                error if matches!(error.reason(), Reason::DiskLow | Reason::NodeRemoved) => Proposed::Refused(error),
                error => {
                    self.learn_leader(group, node, None);
                    Proposed::Unknown(error.to_string())
                }
            },
            Ok(Ok(response)) => match response.into_inner().result {
                Some(propose_response::Result::Applied(applied)) => {
                    self.learn_leader(group, node, Some(node));
                    Proposed::Applied(applied.encode_to_vec().into())
                }
                Some(propose_response::Result::NotLeader(leader)) => {
                    self.learn_leader(group, node, Some(leader));
                    Proposed::NotLeader(Some(leader))
                }
                Some(propose_response::Result::Unknown(why)) => Proposed::Unknown(why),
                None => Proposed::Unknown(format!("node {node} gave an empty answer")),
            },
        }
    }

    /// Serves another node's proposal: only where this node leads the group.
    pub async fn serve_propose(&self, request: ProposeRequest) -> Result<ProposeResponse> {
        self.host.check_envelope(request.envelope.as_ref())?;
        let timeout = Duration::from_millis(request.timeout_ms.clamp(1, 600_000) as u64);
        let proposed = match self.host.replica(request.group).filter(|replica| !replica.is_cut_off()) {
            Some(replica) => self.propose_here(&replica, request.command, timeout).await,
            None => Proposed::NotLeader(None),
        };
        let result = match proposed {
            Proposed::Applied(answer) => {
                propose_response::Result::Applied(Applied::decode(answer).map_err(Error::internal)?)
            }
            Proposed::NotLeader(node) => propose_response::Result::NotLeader(node.unwrap_or(0)),
            Proposed::Unknown(why) | Proposed::CutOff(why) => propose_response::Result::Unknown(why),
            Proposed::Refused(error) => return Err(error),
        };
        Ok(ProposeResponse { result: Some(result) })
    }
}

/// Whether a command of a data shard leaves something behind. Asked only where there is no room for it.
fn takes_room(command: &Bytes) -> bool {
    let command = ShardCommand::decode(command.clone())
        .ok()
        .and_then(|command| command.command);
    use shard_command::Command::{TakeDigest, Upkeep};
    !matches!(command, Some(TakeDigest(_) | Upkeep(_)))
}

/// No leader answered in time: whether something was stored depends on whether one was offered the command.
fn out_of_time(group: u32, offered: bool) -> Error {
    match offered {
        true => outcome_unknown(format!("shard {group} gave no answer in time")),
        false => Error::new(
            Reason::NoLeader,
            format!("shard {group} has no leader that could be reached in time"),
        ),
    }
}

/// The failure of a request that may or may not be stored.
pub(crate) fn outcome_unknown(message: String) -> Error {
    Error::new(Reason::OutcomeUnknown, message).hint("send it again with the same producer and sequence")
}

fn read_answer(answer: Bytes) -> Result<applied::Result> {
    match Applied::decode(answer).map_err(Error::internal)?.result {
        Some(applied::Result::Failure(failure)) => Err(from_failure(failure)),
        Some(result) => Ok(result),
        None => Err(Error::internal("a command without an answer")),
    }
}
