//! The status of a cluster: one screen for people, everything for scripts. Never: what healthy means (the server says).
//!
//! Invariant: json and csv carry every node, shard and replica, whatever the screen leaves out; no field of theirs goes or
//! changes its meaning.

use std::io::Write;

use tidemark_client::v1;

use crate::failure::Outcome;
use crate::health::{Health, ShardState};
use crate::job::{JOB_COLUMNS, MOVE_COLUMNS, job_cells, move_cells, progress_line};
use crate::node::{NODE_COLUMNS, NODE_ROW, node_cells, node_row};
use crate::output::{Cell, Printer};
use crate::shard::{REPLICA_COLUMNS, SHARD_COLUMNS, SHARD_ROW, replica_cells, shard_cells, shard_row};

/// Everything, for scripts.
pub(crate) fn print_full<W: Write>(mut printer: Printer<W>, status: &v1::StatusResponse) -> Outcome {
    printer.head("cluster_id", Cell::some_text(&status.cluster_id))?;
    printer.head("node_id", Cell::Uint(status.node_id))?;
    printer.head("version", Cell::text(&status.version))?;
    printer.head("replication_factor", Cell::Uint(status.replication_factor.into()))?;
    printer.head("device_types", Cell::Uint(status.device_types))?;
    printer.head("devices", Cell::Uint(devices(status)))?;
    printer.head("healthy", Cell::Bool(status.healthy))?;
    printer.head("problems", Cell::List(status.problems.clone()))?;
    printer.section("nodes", &NODE_COLUMNS)?;
    for node in &status.nodes {
        printer.row(node_cells(status, node))?;
    }
    let health = Health::of(status);
    printer.section("shards", &SHARD_COLUMNS)?;
    for shard in &status.shards {
        printer.row(shard_cells(shard, health.shard(shard)))?;
    }
    printer.section("replicas", &REPLICA_COLUMNS)?;
    for shard in &status.shards {
        for replica in &shard.replicas {
            printer.row(replica_cells(shard.shard, replica))?;
        }
    }
    printer.section("jobs", &JOB_COLUMNS)?;
    if let Some(job) = &status.job {
        printer.row(job_cells(job))?;
    }
    printer.section("moves", &MOVE_COLUMNS)?;
    for one in status.job.iter().flat_map(|job| &job.moves) {
        printer.row(move_cells(one))?;
    }
    printer.section("next_steps", &["command", "reason"])?;
    for step in &status.next_steps {
        printer.row(vec![Cell::text(&step.command), Cell::text(&step.reason)])?;
    }
    printer.finish(&[])
}

fn devices(status: &v1::StatusResponse) -> u64 {
    status.shards.iter().map(|shard| shard.devices).sum()
}

/// One screen. `all`: list every shard, not only those that need a look.
pub(crate) fn print_screen<W: Write>(mut printer: Printer<W>, status: &v1::StatusResponse, all: bool) -> Outcome {
    printer.head("cluster", Cell::Text(headline(status)))?;
    if status.cluster_id.is_empty() {
        return print_ends(printer, status);
    }
    let size = format!(
        "{} types, {} devices in {} data shards and the catalog, {} replicas each",
        status.device_types,
        devices(status),
        status.shards.iter().filter(|shard| shard.shard > 0).count(),
        status.replication_factor
    );
    printer.head("holds", Cell::Text(size))?;
    printer.head("shards", Cell::Text(shard_counts(status)))?;
    if let Some(job) = &status.job {
        printer.head("job", Cell::Text(progress_line(job)))?;
    }
    printer.section("nodes", &NODE_ROW)?;
    for node in &status.nodes {
        printer.row(node_row(status, node))?;
    }
    let health = Health::of(status);
    let listed: Vec<_> = status
        .shards
        .iter()
        .map(|shard| (shard, health.shard(shard)))
        .filter(|(_, state)| all || *state != ShardState::Ok)
        .collect();
    if !listed.is_empty() {
        printer.section("shards", &SHARD_ROW)?;
    }
    for (shard, state) in listed {
        printer.row(shard_row(shard, state))?;
    }
    print_ends(printer, status)
}

/// What is wrong and what to do about it.
fn print_ends<W: Write>(mut printer: Printer<W>, status: &v1::StatusResponse) -> Outcome {
    if !status.problems.is_empty() {
        printer.section("problems", &["problems"])?;
        for problem in &status.problems {
            printer.row(vec![Cell::text(problem)])?;
        }
    }
    if !status.next_steps.is_empty() {
        printer.section("next_steps", &["what to do next", "because"])?;
        for step in &status.next_steps {
            printer.row(vec![Cell::text(&step.command), Cell::text(&step.reason)])?;
        }
    }
    printer.finish(&[])
}

/// `9f86d081 healthy (node 1 says so, version 0.1.0)`.
pub(crate) fn headline(status: &v1::StatusResponse) -> String {
    if status.cluster_id.is_empty() {
        return format!(
            "none: the node that answers belongs to no cluster yet, version {}",
            status.version
        );
    }
    let health = match (status.healthy, status.problems.len()) {
        (true, 0) => "healthy".to_owned(),
        (true, 1) => "healthy, 1 problem".to_owned(),
        (true, count) => format!("healthy, {count} problems"),
        (false, _) => "UNHEALTHY".to_owned(),
    };
    format!(
        "{health}, id {}, as node {} sees it, version {}",
        status.cluster_id, status.node_id, status.version
    )
}

/// `5 ok, 1 moving, 0 under-replicated, 0 without a leader`.
pub(crate) fn shard_counts(status: &v1::StatusResponse) -> String {
    let health = Health::of(status);
    let count = |state| {
        let same = |shard: &&v1::ShardStatus| health.shard(shard) == state;
        status.shards.iter().filter(same).count()
    };
    format!(
        "{} ok, {} moving, {} under-replicated, {} without a leader",
        count(ShardState::Ok),
        count(ShardState::Moving),
        count(ShardState::UnderReplicated),
        count(ShardState::NoLeader)
    )
}
