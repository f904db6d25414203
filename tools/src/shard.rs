//! `shard list|show|move|leader|check|compact`. Never: where a replica should go, or what its bytes say.
//!
//! Invariant: `check` exits 8 exactly when a shard was found whose replicas differ or could not all be read.

use std::time::Duration;

use clap::{Args, Subcommand};
use tidemark_client::Client;
use tidemark_client::v1::{self, job_spec::Goal};

use crate::cli::Context;
use crate::failure::{Exit, Failure, OrFail, Outcome, Refusal};
use crate::health::{Health, ShardState};
use crate::human;
use crate::job::{JobArgs, submit};
use crate::output::Cell;
use crate::words;

/// What to do with shards.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List shards; shard 0 is the catalog
    List {
        /// Only those with a replica on this node
        #[arg(long, value_name = "N")]
        node: Option<u64>,
        /// Only those without a leader or with replicas missing
        #[arg(long)]
        unhealthy: bool,
    },
    /// Show a shard and its replicas
    Show {
        /// Number of the shard
        shard: u32,
    },
    /// Move one replica of a shard from a node to another
    Move {
        /// Number of the shard
        shard: u32,
        /// Node that gives its replica up
        #[arg(long, value_name = "N")]
        from: u64,
        /// Node that takes it
        #[arg(long, value_name = "N")]
        to: u64,
        #[command(flatten)]
        job: JobArgs,
    },
    /// Make the replica on a node lead its shard
    Leader {
        /// Number of the shard
        shard: u32,
        /// Node that should lead
        #[arg(long, value_name = "N")]
        to: u64,
    },
    /// Compare the replicas of a shard at one log index; exit 8 where they differ
    Check(ShardsArgs),
    /// Rewrite the files of a shard's replicas as small as they get, while it serves
    Compact(ShardsArgs),
}

/// Which shards.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ShardsArgs {
    /// Number of the shard
    shard: Option<u32>,
    /// Every data shard, one after the other
    #[arg(long)]
    all: bool,
}

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::List { node, unhealthy } => list(context, node, unhealthy).await,
        Verb::Show { shard } => show(context, shard).await,
        Verb::Move { shard, from, to, job } => {
            let goal = v1::MoveShard {
                shard,
                from_node: from,
                to_node: to,
            };
            submit(context, Goal::MoveShard(goal), &job).await
        }
        Verb::Leader { shard, to } => leader(context, shard, to).await,
        Verb::Check(args) => check(context, args.shard).await,
        Verb::Compact(args) => compact(context, args.shard).await,
    }
}

/// Columns of [`shard_cells`].
pub(crate) const SHARD_COLUMNS: [&str; 7] = [
    "shard",
    "leader_node",
    "term",
    "devices",
    "disk_bytes",
    "replicas",
    "state",
];

/// A shard in one row.
pub(crate) fn shard_cells(shard: &v1::ShardStatus, state: ShardState) -> Vec<Cell> {
    vec![
        Cell::Uint(shard.shard.into()),
        leader_cell(shard),
        Cell::Uint(shard.term),
        Cell::Uint(shard.devices),
        Cell::Uint(shard.disk_bytes),
        Cell::List(shard.replicas.iter().map(replica_text).collect()),
        Cell::text(state.word()),
    ]
}

/// Columns of [`shard_row`].
pub(crate) const SHARD_ROW: [&str; 6] = ["shard", "state", "leader", "devices", "flushed", "replicas"];

/// A shard in one row for people.
pub(crate) fn shard_row(shard: &v1::ShardStatus, state: ShardState) -> Vec<Cell> {
    let replica = |one: &v1::ReplicaStatus| {
        let problem = match one.problem.as_str() {
            "" => String::new(),
            problem => format!(" ({problem})"),
        };
        format!("node {} {}{problem}", one.node_id, words::replica_state(one.state()))
    };
    vec![
        Cell::Uint(shard.shard.into()),
        Cell::text(state.word()),
        match shard.leader_node {
            0 => Cell::text("none"),
            node => Cell::Text(format!("node {node}")),
        },
        Cell::Uint(shard.devices),
        Cell::Text(human::bytes(shard.disk_bytes)),
        Cell::List(shard.replicas.iter().map(replica).collect()),
    ]
}

fn leader_cell(shard: &v1::ShardStatus) -> Cell {
    match shard.leader_node {
        0 => Cell::None,
        node => Cell::Uint(node),
    }
}

/// `node 2 follower 118/118`, with the problem where there is one.
fn replica_text(replica: &v1::ReplicaStatus) -> String {
    let mut text = format!(
        "node {} {} {}/{}",
        replica.node_id,
        words::replica_state(replica.state()),
        replica.applied_index,
        replica.last_log_index
    );
    if !replica.problem.is_empty() {
        text += &format!(" ({})", replica.problem);
    }
    text
}

async fn list(context: &Context, node: Option<u64>, unhealthy: bool) -> Outcome {
    let status = context.connect().await?.status().await.or_fail("cannot list shards")?;
    let health = Health::of(&status);
    let mut printer = context.printer("shard_list");
    let table = context.is_table();
    printer.section("shards", if table { &SHARD_ROW[..] } else { &SHARD_COLUMNS[..] })?;
    for shard in &status.shards {
        let state = health.shard(shard);
        let here = node.is_none_or(|node| shard.replicas.iter().any(|replica| replica.node_id == node));
        let bad = matches!(state, ShardState::NoLeader | ShardState::UnderReplicated);
        if here && (bad || !unhealthy) {
            printer.row(if table {
                shard_row(shard, state)
            } else {
                shard_cells(shard, state)
            })?;
        }
    }
    printer.finish(&[])
}

async fn show(context: &Context, id: u32) -> Outcome {
    let what = format!("cannot show shard {id}");
    let status = context.connect().await?.status().await.or_fail(&what)?;
    let Some(shard) = status.shards.iter().find(|shard| shard.shard == id) else {
        let why = format!("there is no shard {id}");
        return Err(Failure::new(Exit::NotFound, what, why, "tidemark shard list"));
    };
    let mut printer = context.printer("shard");
    printer.head("shard", Cell::Uint(id.into()))?;
    printer.head("state", Cell::text(Health::of(&status).shard(shard).word()))?;
    printer.head("leader_node", leader_cell(shard))?;
    printer.head("term", Cell::Uint(shard.term))?;
    printer.head("devices", Cell::Uint(shard.devices))?;
    printer.head("disk_bytes", Cell::Uint(shard.disk_bytes))?;
    printer.section("replicas", &REPLICA_COLUMNS)?;
    for replica in &shard.replicas {
        printer.row(replica_cells(id, replica))?;
    }
    printer.finish(&[])
}

/// Columns of one replica.
pub(crate) const REPLICA_COLUMNS: [&str; 8] = [
    "shard",
    "replica",
    "node",
    "state",
    "last_log_index",
    "applied_index",
    "lag_ms",
    "problem",
];

/// One replica; the columns are `REPLICA_COLUMNS`.
pub(crate) fn replica_cells(shard: u32, replica: &v1::ReplicaStatus) -> Vec<Cell> {
    vec![
        Cell::Uint(shard.into()),
        Cell::Uint(replica.replica_id),
        Cell::Uint(replica.node_id),
        Cell::text(words::replica_state(replica.state())),
        Cell::Uint(replica.last_log_index),
        Cell::Uint(replica.applied_index),
        if replica.lag_ms < 0 {
            Cell::None
        } else {
            Cell::Int(replica.lag_ms)
        },
        Cell::some_text(&replica.problem),
    ]
}

async fn leader(context: &Context, shard: u32, to: u64) -> Outcome {
    let client = context.connect().await?;
    let what = format!("cannot make node {to} lead shard {shard}");
    let request = v1::TransferLeaderRequest { shard, to_node: to };
    let answer = client.transfer_leader(request).await.or_fail(&what)?;
    let mut printer = context.printer("shard_leader");
    printer.head("shard", Cell::Uint(shard.into()))?;
    printer.head("leader_node", Cell::Uint(answer.leader_node))?;
    printer.head("pause_ms", Cell::Int(answer.pause_ms))?;
    printer.finish(&[])
}

/// Shortest wait for a shard to be rewritten, whatever `--timeout` says.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(3_600);
const CHECK_COLUMNS: [&str; 5] = ["shard", "index", "equal", "digests", "problem"];

async fn check(context: &Context, shard: Option<u32>) -> Outcome {
    let client = context.connect().await?;
    let shards = match shard {
        Some(shard) => vec![shard],
        None => data_shards(&client).await?,
    };
    let mut printer = context.printer("shard_check");
    printer.section("checks", &CHECK_COLUMNS)?;
    let (mut differ, mut unread) = (Vec::new(), Vec::new());
    for &id in &shards {
        match client.check_shard(id).await {
            Ok(answer) => {
                if !answer.equal {
                    differ.push(id.to_string());
                }
                printer.row(check_cells(&answer))?;
            }
            // Asked for one shard, the answer is that of the call; of many, the others still count.
            Err(error) if shard.is_some() => {
                return Err(Refusal::from(error).failure(format!("cannot check shard {id}")));
            }
            Err(error) => {
                unread.push(id.to_string());
                let (none, problem) = (Cell::None, Cell::Text(error.to_string()));
                printer.row(vec![Cell::Uint(id.into()), none.clone(), none.clone(), none, problem])?;
            }
        }
    }
    printer.finish(&[])?;
    if differ.is_empty() && unread.is_empty() {
        return Ok(());
    }
    let mut why = Vec::new();
    if !differ.is_empty() {
        why.push(format!(
            "replicas differ or did not all answer: shard {}",
            differ.join(", ")
        ));
    }
    if !unread.is_empty() {
        why.push(format!("not checked: shard {}", unread.join(", ")));
    }
    let what = "not every shard has equal replicas";
    Err(Failure::new(
        Exit::Unhealthy,
        what,
        why.join("; "),
        "tidemark shard show S",
    ))
}

const COMPACT_COLUMNS: [&str; 5] = ["shard", "node", "bytes_before", "bytes_after", "problem"];

async fn compact(context: &Context, shard: Option<u32>) -> Outcome {
    let client = context.connect_for(COMPACT_TIMEOUT).await?;
    let shards = match shard {
        Some(shard) => vec![shard],
        None => data_shards(&client).await?,
    };
    let mut printer = context.printer("shard_compact");
    printer.section("replicas", &COMPACT_COLUMNS)?;
    let mut left = Vec::new();
    for &id in &shards {
        let compacted = client.compact_shard(id).await;
        let answer = compacted.map_err(|error| Refusal::from(error).failure(format!("cannot compact shard {id}")))?;
        for one in answer.replicas {
            if !one.problem.is_empty() {
                left.push(format!("shard {id} on node {}", one.node_id));
            }
            let bytes = |bytes| {
                if one.problem.is_empty() {
                    Cell::Uint(bytes)
                } else {
                    Cell::None
                }
            };
            printer.row(vec![
                Cell::Uint(id.into()),
                Cell::Uint(one.node_id),
                bytes(one.bytes_before),
                bytes(one.bytes_after),
                Cell::some_text(&one.problem),
            ])?;
        }
    }
    printer.finish(&[])?;
    match left.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(
            Exit::Unhealthy,
            "not every replica was compacted",
            left.join(", "),
            "tidemark cluster status",
        )),
    }
}

async fn data_shards(client: &Client) -> Outcome<Vec<u32>> {
    let status = client.status().await.or_fail("cannot list shards")?;
    // Shard 0 is the catalog, which keeps no devices.
    Ok(status
        .shards
        .iter()
        .map(|shard| shard.shard)
        .filter(|shard| *shard > 0)
        .collect())
}

fn check_cells(answer: &v1::CheckShardResponse) -> Vec<Cell> {
    let digest = |one: &v1::ReplicaDigest| match one.problem.is_empty() {
        true => format!("node {} {:016x}", one.node_id, one.digest),
        false => format!("node {} -", one.node_id),
    };
    let problems = answer.replicas.iter().filter(|one| !one.problem.is_empty());
    let problems: Vec<_> = problems
        .map(|one| format!("node {}: {}", one.node_id, one.problem))
        .collect();
    vec![
        Cell::Uint(answer.shard.into()),
        Cell::Uint(answer.index),
        Cell::Bool(answer.equal),
        Cell::List(answer.replicas.iter().map(digest).collect()),
        Cell::some_text(&problems.join("; ")),
    ]
}
