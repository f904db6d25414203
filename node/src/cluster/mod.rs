//! How a cluster begins, grows, moves and looks: init, join, jobs, status. Never: points.
//!
//! Invariant: a node takes an identity once; `init` that was cut off goes on where it stopped, with the same cluster id.

mod check;
mod compact;
mod facts;
mod groups;
mod jobs;
mod mover;
mod next;
mod plan;
mod status;
mod steward;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use tidemark_proto::peer::{
    AddNode, AddNodeRequest, AdoptRequest, AdoptResponse, Bootstrap, CatalogCommand, MemberNode, NodeList, applied,
    catalog_command,
};
use tidemark_proto::v1::{InitRequest, InitResponse, Job, JoinRequest, JoinResponse, Node, NodeState};
use tonic::Request;

use crate::catalog::CATALOG_GROUP;
use crate::clock::{Instant, monotonic, now_ns};
use crate::config::Config;
use crate::error::{Error, Reason, Result};
use crate::identity::{CatalogMember, Identity, folder_id};
use crate::limits::SHARDS;
use crate::placement;
use crate::raft::host::{Host, members};
use crate::raft::types::Member;
use crate::route::{Retry, Router, time_left};
use crate::wire::status::from_status;

const INIT_TIMEOUT: Duration = Duration::from_secs(30);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const NODES_MAX: usize = 9;
const POLL: Duration = Duration::from_millis(20);

/// Cluster operations of a node.
pub struct Cluster {
    router: Arc<Router>,
    config: Config,
    /// The job that this node carries out, with what only it knows of its progress.
    live: Mutex<Option<Job>>,
}

impl Cluster {
    /// Over a router and this node's addresses.
    pub fn new(router: Arc<Router>, config: Config) -> Cluster {
        Cluster {
            router,
            config,
            live: Mutex::new(None),
        }
    }

    fn host(&self) -> &Arc<Host> {
        self.router.host()
    }

    /// Makes a cluster of the named nodes.
    pub async fn init(&self, request: InitRequest) -> Result<InitResponse> {
        let deadline = monotonic() + INIT_TIMEOUT;
        if self.host().catalog_now().is_initialised() {
            let id = self.host().identity()?.cluster_id.clone();
            return Err(Error::new(
                Reason::AlreadyInitialised,
                format!("this node belongs to cluster {id}"),
            ));
        }
        let plan = self.plan_init(&request)?;
        let nodes = self.adopt_all(&plan).await?;
        let replica = self
            .host()
            .replica(CATALOG_GROUP)
            .ok_or_else(|| Error::internal("no catalog replica"))?;
        replica.initialize(raft_members(&plan.members)).await?;
        let infos: Vec<_> = nodes.iter().map(plan::node_info).collect();
        let placement = placement::initial(&infos, plan.shards, plan.replication_factor as usize);
        let bootstrap = Bootstrap {
            placement: placement.into_iter().map(|nodes| NodeList { nodes }).collect(),
            cluster_id: plan.cluster_id.clone(),
            nodes: nodes.clone(),
            shards: plan.shards,
            replication_factor: plan.replication_factor,
            catalog_replicas: plan.members.iter().map(|member| member.replica).collect(),
            secret: rand::random::<[u8; 32]>().to_vec().into(),
        };
        let bootstrap = catalog_command::Command::Bootstrap(bootstrap);
        let command = CatalogCommand {
            stamp_ns: now_ns(),
            command: Some(bootstrap),
        }
        .encode_to_vec();
        match self
            .router
            .propose(CATALOG_GROUP, command.into(), Retry::Safe, deadline)
            .await
        {
            Ok(_) => {}
            // The proposal was offered twice and the first one won.
            Err(e) if e.reason() == Reason::AlreadyInitialised => {}
            Err(e) => return Err(e),
        }
        self.wait_for_leaders(plan.shards, deadline).await?;
        let InitPlan {
            cluster_id,
            shards,
            replication_factor,
            ..
        } = plan;
        Ok(InitResponse {
            cluster_id,
            nodes,
            shards,
            replication_factor,
        })
    }

    fn plan_init(&self, request: &InitRequest) -> Result<InitPlan> {
        let here = self.config.peer_address().to_string();
        let mut peers = request.peers.clone();
        if peers.is_empty() {
            peers.push(here.clone());
        }
        let bad = |field: &str, message: String| Err(Error::new(Reason::InvalidInit, message).field(field));
        let distinct: std::collections::BTreeSet<_> = peers.iter().collect();
        if distinct.len() != peers.len() || peers.len() > NODES_MAX {
            return bad("peers", format!("peers must be 1 to {NODES_MAX} different addresses"));
        }
        if !peers.contains(&here) {
            return bad("peers", format!("this node, {here}, is not among the peers"));
        }
        let shards = match request.shards {
            0 if peers.len() == 1 => 4,
            0 => 6,
            n => n,
        };
        if !SHARDS.contains(&shards) {
            return bad(
                "shards",
                format!("{shards} shards, outside {} to {}", SHARDS.start(), SHARDS.end()),
            );
        }
        let replication_factor = match request.replication_factor {
            0 if peers.len() < 3 => 1,
            0 => 3,
            n => n,
        };
        if ![1, 3, 5].contains(&replication_factor) || replication_factor as usize > peers.len() {
            let n = peers.len();
            return bad(
                "replication_factor",
                format!("{replication_factor} replicas on {n} nodes: it must be 1, 3 or 5"),
            );
        }
        let known = self.host().identity().ok();
        let cluster_id = known.map_or_else(new_cluster_id, |identity| identity.cluster_id.clone());
        let member = |(at, peer_address): (usize, String)| {
            let id = at as u64 + 1;
            CatalogMember {
                replica: id,
                node_id: id,
                peer_address,
            }
        };
        let members: Vec<CatalogMember> = peers.into_iter().enumerate().map(member).collect();
        if let Some(known) = known.filter(|known| known.catalog != members) {
            let message = format!("an earlier init of cluster {} named other peers", known.cluster_id);
            return Err(Error::new(Reason::WrongCluster, message).field("peers"));
        }
        Ok(InitPlan {
            cluster_id,
            members,
            shards,
            replication_factor,
        })
    }

    /// Asks every node whether it would join, then makes all of them. This node first: it leads the way after a crash.
    async fn adopt_all(&self, plan: &InitPlan) -> Result<Vec<Node>> {
        let here = self.config.peer_address();
        let others = || plan.members.iter().filter(|member| member.peer_address != here);
        for member in others() {
            self.adopt_at(&member.peer_address, adopt_request(plan, member, true))
                .await?;
        }
        let mut nodes = BTreeMap::new();
        for member in plan.members.iter().filter(|member| member.peer_address == here) {
            let addresses = self.adopt(adopt_request(plan, member, false)).await?;
            nodes.insert(member.node_id, addresses);
        }
        for member in others() {
            let adopted = self
                .adopt_at(&member.peer_address, adopt_request(plan, member, false))
                .await?;
            nodes.insert(member.node_id, adopted);
        }
        let node = |(id, addresses): (u64, AdoptResponse)| Node {
            id,
            client_address: addresses.client_address,
            peer_address: addresses.peer_address,
            zone: addresses.zone,
            state: NodeState::Active as i32,
        };
        Ok(nodes.into_iter().map(node).collect())
    }

    async fn adopt_at(&self, peer_address: &str, adopt: AdoptRequest) -> Result<AdoptResponse> {
        let peer = self.host().peers().at(peer_address)?;
        let mut request = Request::new(adopt);
        request.set_timeout(CALL_TIMEOUT);
        let call = tokio::time::timeout(CALL_TIMEOUT, async { peer.client().adopt(request).await }).await;
        let unreachable =
            |why: &str| Error::new(Reason::Unreachable, format!("peer {peer_address}: {why}")).field("peers");
        match call {
            Err(_) => Err(unreachable("no answer")),
            Ok(Err(status)) => match from_status(&status) {
                e if e.reason() == Reason::Unreachable => Err(unreachable(e.message())),
                e => Err(e.field("peers")),
            },
            Ok(Ok(response)) => Ok(response.into_inner()),
        }
    }

    /// Takes an identity, unless this node has another one.
    pub async fn adopt(&self, request: AdoptRequest) -> Result<AdoptResponse> {
        let member = |m: MemberNode| CatalogMember {
            replica: m.replica,
            node_id: m.node_id,
            peer_address: m.peer_address,
        };
        let identity = Identity {
            format: Identity::FORMAT,
            cluster_id: request.cluster_id,
            node_id: request.node_id,
            catalog_replica: request.catalog_replica,
            catalog: request.catalog.into_iter().map(member).collect(),
        };
        let known = self.host().identity().ok();
        // A member that asks whether this node is free, or has this cluster's identity already, gives no number.
        let asks = request.check_only && identity.node_id == 0;
        let same = |known: &Identity| *known == identity || (asks && known.cluster_id == identity.cluster_id);
        if let Some(known) = known.filter(|known| !same(known)) {
            let id = &known.cluster_id;
            return Err(Error::new(
                Reason::AlreadyInitialised,
                format!("{} belongs to cluster {id}", self.config.peer_address()),
            )
            .hint("start it with an empty data folder, or leave it out"));
        }
        if !request.check_only {
            self.host().adopt(identity).await?;
        }
        Ok(AdoptResponse {
            client_address: self.config.client_address().into(),
            peer_address: self.config.peer_address().into(),
            zone: self.config.zone.clone(),
            folder_id: folder_id(&self.config.data_dir).map_err(Error::internal)?,
        })
    }

    async fn wait_for_leaders(&self, shards: u32, deadline: Instant) -> Result<()> {
        for shard in 1..=shards {
            loop {
                let led = match self.host().replica(shard) {
                    Some(replica) => replica.leader_node().is_some(),
                    None => self.host().catalog_now().shard(shard).is_some_and(|shard| {
                        let here = self.host().identity().map_or(0, |identity| identity.node_id);
                        shard.replicas.iter().all(|replica| replica.node_id != here)
                    }),
                };
                if led {
                    break;
                }
                time_left(deadline)
                    .map_err(|_| Error::new(Reason::NoLeader, format!("shard {shard} has no leader yet")))?;
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Adds this node to the cluster of another one: asks a member, which calls back to prove this node's address.
    pub async fn join(&self, request: JoinRequest) -> Result<JoinResponse> {
        if let Ok(identity) = self.host().identity() {
            let id = &identity.cluster_id;
            return Err(Error::new(
                Reason::AlreadyInitialised,
                format!("this node belongs to cluster {id}"),
            ));
        }
        let peer = self.host().peers().at(&request.peer)?;
        let mut add = Request::new(AddNodeRequest {
            cluster_id: request.cluster_id,
            peer_address: self.config.peer_address().into(),
        });
        add.set_timeout(CALL_TIMEOUT * 4);
        let mut client = peer.client();
        let asking = tokio::time::timeout(CALL_TIMEOUT * 4, client.add_node(add)).await;
        let unreachable =
            |why: &str| Error::new(Reason::Unreachable, format!("peer {}: {why}", request.peer)).field("peer");
        let added = match asking {
            Err(_) => return Err(unreachable("no answer")),
            Ok(Err(status)) => match from_status(&status) {
                e if e.reason() == Reason::Unreachable => return Err(unreachable(e.message())),
                e => return Err(e),
            },
            Ok(Ok(response)) => response.into_inner(),
        };
        Ok(JoinResponse {
            cluster_id: added.cluster_id,
            node: added.node,
        })
    }

    /// Takes a node into the cluster: proves that it is at its address and belongs to none, gives it a number in the
    /// catalog, then its identity. Cut off anywhere, it goes on with the same number when asked again.
    pub async fn add_node(&self, peer_address: &str, cluster_id: &str) -> Result<(String, Node)> {
        let here = self.host().identity()?.cluster_id.clone();
        if !cluster_id.is_empty() && cluster_id != here {
            let message = format!("this is cluster {here}, not {cluster_id}");
            return Err(Error::new(Reason::WrongCluster, message).field("cluster_id"));
        }
        let ask = AdoptRequest {
            cluster_id: here.clone(),
            check_only: true,
            ..AdoptRequest::default()
        };
        let found = self.adopt_at(peer_address, ask).await?;
        if found.peer_address != peer_address {
            let message = format!(
                "the node at {peer_address} tells others that it is at {}",
                found.peer_address
            );
            return Err(Error::new(Reason::InvalidValue, message)
                .field("peer_address")
                .hint("name the address that it advertises"));
        }
        let add = AddNode {
            client_address: found.client_address,
            peer_address: found.peer_address,
            zone: found.zone,
            folder_id: found.folder_id,
        };
        let answer = self.propose(catalog_command::Command::AddNode(add)).await?;
        let applied::Result::Node(node) = answer else {
            return Err(Error::internal("answer of another kind to a node"));
        };
        self.router.catch_up_catalog(CALL_TIMEOUT).await;
        let catalog = self.host().catalog()?;
        let shard = catalog
            .shard(CATALOG_GROUP)
            .ok_or_else(|| Error::internal("no catalog group"))?;
        let mine = shard.replicas.iter().find(|replica| replica.node_id == node.id);
        let catalog_replica = mine
            .ok_or_else(|| Error::internal("no catalog replica for the node"))?
            .id;
        let member = |(replica, member): (u64, Member)| MemberNode {
            replica,
            node_id: member.node_id,
            peer_address: member.peer_address,
        };
        let adopt = AdoptRequest {
            cluster_id: here.clone(),
            node_id: node.id,
            catalog_replica,
            catalog: members(&catalog, shard).into_iter().map(member).collect(),
            check_only: false,
        };
        self.adopt_at(peer_address, adopt).await?;
        Ok((here, node))
    }

    /// A command of the catalog that may be offered twice, carried out wherever the catalog is led.
    pub(crate) async fn propose(&self, command: catalog_command::Command) -> Result<applied::Result> {
        self.propose_with(command, Retry::Safe).await
    }

    /// A command of the catalog that must not be offered twice.
    async fn propose_once(&self, command: catalog_command::Command) -> Result<applied::Result> {
        self.propose_with(command, Retry::Unsafe).await
    }

    async fn propose_with(&self, command: catalog_command::Command, retry: Retry) -> Result<applied::Result> {
        let command = CatalogCommand {
            stamp_ns: now_ns(),
            command: Some(command),
        };
        let deadline = monotonic() + CALL_TIMEOUT;
        self.router
            .propose(CATALOG_GROUP, command.encode_to_vec().into(), retry, deadline)
            .await
    }
}

/// A cluster about to be made.
struct InitPlan {
    cluster_id: String,
    members: Vec<CatalogMember>,
    shards: u32,
    replication_factor: u32,
}

fn adopt_request(plan: &InitPlan, to: &CatalogMember, check_only: bool) -> AdoptRequest {
    let member = |m: &CatalogMember| MemberNode {
        replica: m.replica,
        node_id: m.node_id,
        peer_address: m.peer_address.clone(),
    };
    AdoptRequest {
        cluster_id: plan.cluster_id.clone(),
        node_id: to.node_id,
        catalog_replica: to.replica,
        catalog: plan.members.iter().map(member).collect(),
        check_only,
    }
}

fn raft_members(members: &[CatalogMember]) -> BTreeMap<u64, Member> {
    let member = |m: &CatalogMember| {
        (
            m.replica,
            Member {
                node_id: m.node_id,
                peer_address: m.peer_address.clone(),
            },
        )
    };
    members.iter().map(member).collect()
}

fn new_cluster_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
