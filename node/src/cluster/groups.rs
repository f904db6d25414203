//! Steps on a group's members and leadership, carried out at its leader: here, or one hop away. Never: which step.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemark_proto::peer::manage_group_request::Step;
use tidemark_proto::peer::{Blank, GroupView, ManageGroupRequest, ManageGroupResponse};
use tonic::Request;

use super::Cluster;
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::raft::manage::Managed;
use crate::raft::types::Member;
use crate::route::time_left;
use crate::wire::status::from_status;

const RETRY_PAUSE: Duration = Duration::from_millis(40);
/// What one try may take where the leader is elsewhere.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What came of a step: the group after it, and for a transfer how long nobody led.
pub(super) struct Stepped {
    pub(super) view: GroupView,
    pub(super) pause: Duration,
}

impl Cluster {
    /// Has a step done by the leader of a group, wherever it is, and looks at the group afterwards.
    pub(super) async fn manage(&self, group: u32, step: Step, deadline: Instant) -> Result<Stepped> {
        let mut pause = Duration::ZERO;
        loop {
            let left = time_left(deadline).map_err(|_| no_leader(group))?.min(ATTEMPT);
            let here = self.host().identity()?.node_id;
            let local = self.router.leading_here(group);
            let node = match &local {
                Some(_) => Some(here),
                None => self.router.leader_elsewhere(group),
            };
            let answered = match (node, &local) {
                (Some(_), Some(_)) => self.step_here(group, step.clone(), left).await,
                (Some(node), None) => self.step_at(node, group, step.clone(), left).await,
                (None, _) => Ok(ManageGroupResponse::default()),
            };
            match answered {
                Ok(response) => {
                    pause += Duration::from_millis(response.pause_ms.max(0) as u64);
                    if let Some(view) = response.view {
                        return Ok(Stepped { view, pause });
                    }
                    if let (Some(asked), None) = (node, &local) {
                        self.router.learn_leader(group, asked, Some(response.not_leader));
                    }
                }
                Err(e)
                    if matches!(
                        e.reason(),
                        Reason::Unreachable | Reason::NoLeader | Reason::DeadlineExceeded
                    ) =>
                {
                    if let (Some(asked), None) = (node, &local) {
                        self.router.learn_leader(group, asked, None);
                    }
                }
                Err(e) => return Err(e),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn step_at(&self, node: u64, group: u32, step: Step, timeout: Duration) -> Result<ManageGroupResponse> {
        let message = ManageGroupRequest {
            envelope: Some(self.host().envelope(node)?),
            group,
            timeout_ms: timeout.as_millis() as i64,
            step: Some(step),
        };
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        let mut client = self.router.peer(node)?.client();
        let answered = tokio::time::timeout(timeout, client.manage_group(request)).await;
        let answered = answered.map_err(|_| Error::new(Reason::Unreachable, format!("node {node} did not answer")))?;
        Ok(answered.map_err(|status| from_status(&status))?.into_inner())
    }

    /// Serves another node's step: only where this node leads the group.
    pub async fn serve_manage(&self, request: ManageGroupRequest) -> Result<ManageGroupResponse> {
        self.host().check_envelope(request.envelope.as_ref())?;
        let step = request
            .step
            .ok_or_else(|| Error::new(Reason::MissingField, "no step").field("step"))?;
        let timeout = Duration::from_millis(request.timeout_ms.clamp(1, 60_000) as u64);
        self.step_here(request.group, step, timeout).await
    }

    async fn step_here(&self, group: u32, step: Step, timeout: Duration) -> Result<ManageGroupResponse> {
        let Some(replica) = self.host().replica(group) else {
            return Ok(ManageGroupResponse::default());
        };
        let until = monotonic() + timeout;
        let mut pause = Duration::ZERO;
        let doing = async {
            match step {
                Step::AddLearner(new) => {
                    let member = Member {
                        node_id: new.node_id,
                        peer_address: new.peer_address,
                    };
                    self.host().learn_of_copy(group, new.replica).await;
                    replica.add_learner(new.replica, member).await
                }
                Step::SetMembers(voters) => {
                    let voters: BTreeSet<u64> = voters.replicas.into_iter().collect();
                    replica.set_members(&voters, &BTreeSet::new(), timeout / 2).await
                }
                Step::TransferTo(_) if !replica.is_leader() => Ok(Managed::NotLeader(replica.leader_node())),
                Step::TransferTo(id) if id == replica.id() => Ok(Managed::Done),
                Step::TransferTo(id) => {
                    pause = replica.transfer_to(id, timeout).await?;
                    Ok(Managed::NotLeader(replica.leader_node()))
                }
                Step::Look(Blank {}) => Ok(Managed::Done),
            }
        };
        let left = until.saturating_duration_since(monotonic());
        let done = tokio::time::timeout(left, doing).await;
        let managed =
            done.map_err(|_| Error::new(Reason::NoLeader, format!("group {group}: no majority in time")))??;
        let view = match managed {
            Managed::Done => replica.group_view(),
            Managed::NotLeader(_) => None,
        };
        let not_leader = match (&view, managed) {
            (Some(_), _) => 0,
            (None, Managed::NotLeader(Some(node))) => node,
            (None, _) => replica.leader_node().unwrap_or(0),
        };
        Ok(ManageGroupResponse {
            not_leader,
            view,
            pause_ms: pause.as_millis() as i64,
        })
    }
}

fn no_leader(group: u32) -> Error {
    Error::new(
        Reason::NoLeader,
        format!("shard {group} has no leader that could be reached in time"),
    )
}
