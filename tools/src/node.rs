//! `node list|show|add|cordon|uncordon|drain|remove|replace`. Never: where replicas go (the server plans), or whether a node may go.
//!
//! Invariant: whatever moves data is a job and goes the way of all jobs: plan, confirm, start, follow.

use std::time::Duration;

use clap::Subcommand;
use tidemark_client::v1::{self, NodeState, job_spec::Goal};

use crate::cli::{Context, now_ns};
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::health::{Health, node_lag_ms};
use crate::human;
use crate::job::{JobArgs, submit};
use crate::output::Cell;
use crate::shard::{REPLICA_COLUMNS, replica_cells};
use crate::words;

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the nodes of the cluster
    List,
    /// Show a node and its replicas
    Show {
        /// Number of the node
        node: u64,
    },
    /// Take a node that belongs to no cluster yet into this one
    Add {
        /// Its peer address, host:port
        address: String,
    },
    /// Give a node no new replicas, and no leadership where others can lead
    Cordon {
        /// Number of the node
        node: u64,
    },
    /// Let a node take replicas and leaderships again
    Uncordon {
        /// Number of the node
        node: u64,
    },
    /// Move everything away from a node, leaderships first; it stays in the cluster, cordoned
    Drain {
        /// Number of the node
        node: u64,
        #[command(flatten)]
        job: JobArgs,
    },
    /// Drain a node and take it out of the cluster for good
    Remove {
        /// Number of the node
        node: u64,
        #[command(flatten)]
        job: JobArgs,
    },
    /// Give everything of one node, which may be dead, to another; the old one leaves for good
    Replace {
        /// Number of the node that goes
        old: u64,
        /// Number of the node that takes its place: add it first
        new: u64,
        #[command(flatten)]
        job: JobArgs,
    },
}

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::List => list(context).await,
        Verb::Show { node } => show(context, node).await,
        Verb::Add { address } => add(context, address).await,
        Verb::Cordon { node } => set_state(context, node, NodeState::Cordoned).await,
        Verb::Uncordon { node } => set_state(context, node, NodeState::Active).await,
        Verb::Drain { node, job } => submit(context, Goal::DrainNode(v1::DrainNode { node_id: node }), &job).await,
        Verb::Remove { node, job } => submit(context, Goal::RemoveNode(v1::RemoveNode { node_id: node }), &job).await,
        Verb::Replace { old, new, job } => {
            let goal = v1::ReplaceNode {
                old_node: old,
                new_node: new,
            };
            submit(context, Goal::ReplaceNode(goal), &job).await
        }
    }
}

/// Columns of [`node_cells`].
pub(crate) const NODE_COLUMNS: [&str; 20] = [
    "id",
    "reachable",
    "client_address",
    "peer_address",
    "replicas",
    "leaders",
    "disk_bytes",
    "zone",
    "state",
    "version",
    "lag_ms",
    "disk_free_bytes",
    "disk_total_bytes",
    "disk_reserve_bytes",
    "disk_low",
    "memory_bytes",
    "open_files",
    "open_files_max",
    "clock_offset_ms",
    "started_at",
];

/// Everything about a node, for scripts; what it does not say of itself is nothing.
pub(crate) fn node_cells(status: &v1::StatusResponse, node: &v1::NodeStatus) -> Vec<Cell> {
    let place = node.node.clone().unwrap_or_default();
    let facts = node.facts.as_ref();
    let number = |of: fn(&v1::NodeFacts) -> u64| facts.map_or(Cell::None, |facts| Cell::Uint(of(facts)));
    vec![
        Cell::Uint(place.id),
        Cell::Bool(node.reachable),
        Cell::text(&place.client_address),
        Cell::text(&place.peer_address),
        Cell::Uint(node.replicas.into()),
        Cell::Uint(node.leaders.into()),
        Cell::Uint(node.disk_bytes),
        Cell::some_text(&place.zone),
        Cell::text(words::node_state(place.state())),
        facts.map_or(Cell::None, |facts| Cell::some_text(&facts.version)),
        node_lag_ms(status, place.id).map_or(Cell::None, Cell::Int),
        number(|facts| facts.disk_free_bytes),
        number(|facts| facts.disk_total_bytes),
        number(|facts| facts.disk_reserve_bytes),
        facts.map_or(Cell::None, |facts| Cell::Bool(facts.disk_low)),
        number(|facts| facts.memory_bytes),
        number(|facts| facts.open_files),
        number(|facts| facts.open_files_max),
        facts.map_or(Cell::None, |facts| Cell::Int(facts.clock_offset_ms)),
        facts.map_or(Cell::None, |facts| Cell::some_time(facts.started_at_ns)),
    ]
}

/// Columns of [`node_row`].
pub(crate) const NODE_ROW: [&str; 12] = [
    "node",
    "zone",
    "state",
    "version",
    "reachable",
    "address",
    "replicas",
    "leaders",
    "flushed",
    "free",
    "lag",
    "up",
];

/// A node in one row for people.
pub(crate) fn node_row(status: &v1::StatusResponse, node: &v1::NodeStatus) -> Vec<Cell> {
    let place = node.node.clone().unwrap_or_default();
    let facts = node.facts.clone().unwrap_or_default();
    let known = node.facts.is_some();
    let if_known = |text: String| if known { Cell::Text(text) } else { Cell::text("-") };
    let low = if facts.disk_low { " LOW" } else { "" };
    let up_ns = u64::try_from(now_ns() - facts.started_at_ns).unwrap_or(0);
    vec![
        Cell::Uint(place.id),
        Cell::text(if place.zone.is_empty() { "-" } else { &place.zone }),
        Cell::text(words::node_state(place.state())),
        if_known(facts.version),
        Cell::text(if node.reachable { "yes" } else { "NO" }),
        Cell::text(&place.client_address),
        Cell::Uint(node.replicas.into()),
        Cell::Uint(node.leaders.into()),
        if node.reachable {
            Cell::Text(human::bytes(node.disk_bytes))
        } else {
            Cell::text("-")
        },
        if_known(format!("{}{low}", human::bytes(facts.disk_free_bytes))),
        node_lag_ms(status, place.id).map_or(Cell::text("-"), |ms| Cell::Text(format!("{ms} ms"))),
        if_known(human::span(Duration::from_nanos(up_ns))),
    ]
}

async fn list(context: &Context) -> Outcome {
    let status = context.connect().await?.status().await.or_fail("cannot list nodes")?;
    let mut printer = context.printer("node_list");
    let table = context.is_table();
    let columns = if table { &NODE_ROW[..] } else { &NODE_COLUMNS[..] };
    printer.section("nodes", columns)?;
    for node in &status.nodes {
        printer.row(if table {
            node_row(&status, node)
        } else {
            node_cells(&status, node)
        })?;
    }
    printer.finish(&[])
}

async fn show(context: &Context, id: u64) -> Outcome {
    let what = format!("cannot show node {id}");
    let status = context.connect().await?.status().await.or_fail(&what)?;
    let has_id = |node: &&v1::NodeStatus| node.node.as_ref().is_some_and(|place| place.id == id);
    let Some(node) = status.nodes.iter().find(has_id) else {
        let why = format!("there is no node {id}");
        return Err(Failure::new(Exit::NotFound, what, why, "tidemark node list"));
    };
    let mut printer = context.printer("node");
    for (name, cell) in NODE_COLUMNS.into_iter().zip(node_cells(&status, node)) {
        printer.head(name, cell)?;
    }
    printer.section("replicas", &[&REPLICA_COLUMNS[..], &["shard_state"]].concat())?;
    let health = Health::of(&status);
    for shard in &status.shards {
        for replica in shard.replicas.iter().filter(|replica| replica.node_id == id) {
            let mut cells = replica_cells(shard.shard, replica);
            cells.push(Cell::text(health.shard(shard).word()));
            printer.row(cells)?;
        }
    }
    printer.finish(&[])
}

async fn add(context: &Context, address: String) -> Outcome {
    let client = context.connect().await?;
    let what = format!("cannot add the node at {address}");
    let request = v1::AddNodeRequest { peer_address: address };
    let added = client.add_node(request).await.or_fail(&what)?;
    let mut printer = context.printer("node_add");
    printer.head("cluster_id", Cell::Text(added.cluster_id))?;
    printer.section("nodes", &PLACE_COLUMNS)?;
    if let Some(node) = &added.node {
        printer.row(place_cells(node))?;
    }
    printer.finish(&[])?;
    if context.is_table() {
        context.say("it holds nothing yet; next: tidemark rebalance --dry-run");
    }
    Ok(())
}

const PLACE_COLUMNS: [&str; 5] = ["id", "client_address", "peer_address", "zone", "state"];

fn place_cells(node: &v1::Node) -> Vec<Cell> {
    vec![
        Cell::Uint(node.id),
        Cell::text(&node.client_address),
        Cell::text(&node.peer_address),
        Cell::some_text(&node.zone),
        Cell::text(words::node_state(node.state())),
    ]
}

async fn set_state(context: &Context, node: u64, state: NodeState) -> Outcome {
    let client = context.connect().await?;
    let request = v1::SetNodeStateRequest {
        node_id: node,
        state: state as i32,
    };
    let verb = if state == NodeState::Cordoned {
        "cordon"
    } else {
        "uncordon"
    };
    let answer = client
        .set_node_state(request)
        .await
        .or_fail(&format!("cannot {verb} node {node}"))?;
    let mut printer = context.printer("node_state");
    printer.section("nodes", &PLACE_COLUMNS)?;
    if let Some(node) = &answer.node {
        printer.row(place_cells(node))?;
    }
    printer.finish(&[])
}
