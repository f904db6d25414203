//! `cluster init|join|status`. Never: placement, or what healthy means (the server says).
//!
//! Invariant: `status --check` exits 8 exactly when the server calls the cluster unhealthy.

use clap::Subcommand;
use tidemark_client::v1;

use crate::cli::Context;
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::output::Cell;
use crate::status;

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
    /// Show on one screen nodes, shards and their health, the running job, and what to do next
    Status {
        /// Exit 8 when the cluster is not healthy: a node does not answer, a shard has no leader or fewer replicas than its factor, or a
        /// replica is damaged
        #[arg(long)]
        check: bool,
        /// List every shard, not only those that need a look (json and csv always do)
        #[arg(long)]
        all: bool,
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
        Verb::Status { check, all } => {
            let status = client.status().await.or_fail("cannot read the status")?;
            let printer = context.printer("cluster_status");
            if context.is_table() {
                status::print_screen(printer, &status, all)?;
            } else {
                status::print_full(printer, &status)?;
            }
            if check && !status.healthy {
                let why = match status.problems.is_empty() {
                    true => "the server names no problem".to_owned(),
                    false => status.problems.join("; "),
                };
                let next = match status.next_steps.first() {
                    Some(step) => &step.command,
                    None if status.cluster_id.is_empty() => "tidemark cluster init",
                    None => "tidemark doctor",
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
