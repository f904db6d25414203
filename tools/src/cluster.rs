//! `cluster init|join|status`. Never: placement, or what healthy means (the server says).
//!
//! Invariant: `status --check` exits 8 exactly when the server calls the cluster unhealthy.

use clap::Subcommand;
use tidemark_client::v1::{self, ReplicaState};

use crate::cli::Context;
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::output::Cell;

/// What to do with a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a cluster of nodes that belong to none yet; asked of the first --endpoint
    Init {
        /// Peer addresses of all first nodes, this one among them [default: this node alone]
        #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
        peers: Vec<String>,
        /// Data shards, 2 to 64 [default: 4 on one node, 6 on more]
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        shards: u32,
        /// Replicas of each shard: 1, 3 or 5 [default: 3, or 1 on fewer than three nodes]
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        replication: u32,
    },
    /// Add the node at --endpoint to the cluster of PEER
    Join {
        /// Peer address of any node of the cluster
        peer: String,
        /// Refuse unless the cluster has this id
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        cluster_id: String,
    },
    /// Show nodes, shards and their health
    Status {
        /// Exit 8 when the cluster is not healthy
        #[arg(long)]
        check: bool,
    },
}

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    let client = context.connect().await?;
    match verb {
        Verb::Init {
            peers,
            shards,
            replication,
        } => {
            let request = v1::InitRequest {
                peers,
                shards,
                replication_factor: replication,
            };
            let made = client.init_cluster(request).await.or_fail("cannot make a cluster")?;
            let mut printer = context.printer("cluster_init");
            printer.head("cluster_id", Cell::Text(made.cluster_id))?;
            printer.head("shards", Cell::Uint(made.shards.into()))?;
            printer.head("replication_factor", Cell::Uint(made.replication_factor.into()))?;
            printer.section("nodes", &NODE_COLUMNS)?;
            for node in &made.nodes {
                printer.row(node_cells(node))?;
            }
            printer.finish(&[])
        }
        Verb::Join { peer, cluster_id } => {
            let request = v1::JoinRequest { peer, cluster_id };
            let joined = client.join(request).await.or_fail("cannot join the cluster")?;
            let mut printer = context.printer("cluster_join");
            printer.head("cluster_id", Cell::Text(joined.cluster_id))?;
            printer.section("nodes", &NODE_COLUMNS)?;
            if let Some(node) = &joined.node {
                printer.row(node_cells(node))?;
            }
            printer.finish(&[])
        }
        Verb::Status { check } => {
            let status = client.status().await.or_fail("cannot read the status")?;
            print_status(context, &status)?;
            if check && !status.healthy {
                let why = match status.problems.is_empty() {
                    true => "the server names no problem".to_owned(),
                    false => status.problems.join("; "),
                };
                let next = if status.cluster_id.is_empty() {
                    "tidemark cluster init"
                } else {
                    "tidemark cluster status"
                };
                return Err(Failure::new(Exit::Unhealthy, "the cluster is not healthy", why, next));
            }
            Ok(())
        }
    }
}

const NODE_COLUMNS: [&str; 3] = ["id", "client_address", "peer_address"];

fn node_cells(node: &v1::Node) -> Vec<Cell> {
    vec![
        Cell::Uint(node.id),
        Cell::text(&node.client_address),
        Cell::text(&node.peer_address),
    ]
}

fn print_status(context: &Context, status: &v1::StatusResponse) -> Outcome {
    let mut printer = context.printer("cluster_status");
    printer.head("cluster_id", Cell::some_text(&status.cluster_id))?;
    printer.head("node_id", Cell::Uint(status.node_id))?;
    printer.head("version", Cell::text(&status.version))?;
    printer.head("replication_factor", Cell::Uint(status.replication_factor.into()))?;
    printer.head("device_types", Cell::Uint(status.device_types))?;
    printer.head(
        "devices",
        Cell::Uint(status.shards.iter().map(|shard| shard.devices).sum()),
    )?;
    printer.head("healthy", Cell::Bool(status.healthy))?;
    printer.head("problems", Cell::List(status.problems.clone()))?;
    printer.section(
        "nodes",
        &[
            "id",
            "reachable",
            "client_address",
            "peer_address",
            "replicas",
            "leaders",
            "disk_bytes",
        ],
    )?;
    for node in &status.nodes {
        let place = node.node.clone().unwrap_or_default();
        printer.row(vec![
            Cell::Uint(place.id),
            Cell::Bool(node.reachable),
            Cell::Text(place.client_address),
            Cell::Text(place.peer_address),
            Cell::Uint(node.replicas.into()),
            Cell::Uint(node.leaders.into()),
            Cell::Uint(node.disk_bytes),
        ])?;
    }
    printer.section(
        "shards",
        &["shard", "leader_node", "term", "devices", "disk_bytes", "replicas"],
    )?;
    for shard in &status.shards {
        printer.row(vec![
            Cell::Uint(shard.shard.into()),
            if shard.leader_node == 0 {
                Cell::None
            } else {
                Cell::Uint(shard.leader_node)
            },
            Cell::Uint(shard.term),
            Cell::Uint(shard.devices),
            Cell::Uint(shard.disk_bytes),
            Cell::List(shard.replicas.iter().map(replica_text).collect()),
        ])?;
    }
    printer.finish(&[])
}

/// `node 2 follower 118/118`, with the problem where there is one.
fn replica_text(replica: &v1::ReplicaStatus) -> String {
    let state = match replica.state() {
        ReplicaState::Leader => "leader",
        ReplicaState::Follower => "follower",
        ReplicaState::Candidate => "candidate",
        ReplicaState::Learner => "learner",
        ReplicaState::Damaged => "damaged",
        ReplicaState::Unreachable => "unreachable",
        ReplicaState::Unspecified => "unknown",
    };
    let mut text = format!(
        "node {} {state} {}/{}",
        replica.node_id, replica.applied_index, replica.last_log_index
    );
    if !replica.problem.is_empty() {
        text += &format!(" ({})", replica.problem);
    }
    text
}
