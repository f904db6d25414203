//! A job and its moves as cells and as lines. Never: progress over time (`track`).
//!
//! Invariant: a node or replica number of 0 means none, and is printed as nothing.

use std::time::Duration;

use tidemark_client::v1::{self, JobState, MovePhase};

use crate::cli::Context;
use crate::failure::Outcome;
use crate::human;
use crate::output::Cell;
use crate::words;

/// Columns of [`job_cells`].
pub(crate) const JOB_COLUMNS: [&str; 9] = [
    "job",
    "goal",
    "state",
    "moves",
    "moves_done",
    "started_at",
    "ended_at",
    "bytes_per_second_max",
    "message",
];

/// Columns of [`move_cells`].
pub(crate) const MOVE_COLUMNS: [&str; 9] = [
    "shard",
    "from_node",
    "to_node",
    "from_replica",
    "to_replica",
    "phase",
    "bytes_done",
    "bytes_total",
    "waits_for",
];

/// What a job is to reach, in words.
pub(super) fn goal_of(job: &v1::Job) -> String {
    words::goal(job.spec.as_ref().and_then(|spec| spec.goal.as_ref()))
}

/// Moves that are through.
pub(super) fn moves_done(job: &v1::Job) -> usize {
    let done = |one: &&v1::Move| one.phase() == MovePhase::Done;
    job.moves.iter().filter(done).count()
}

fn some(number: u64) -> Cell {
    if number == 0 { Cell::None } else { Cell::Uint(number) }
}

/// A job in one row.
pub(crate) fn job_cells(job: &v1::Job) -> Vec<Cell> {
    vec![
        some(job.id),
        Cell::Text(goal_of(job)),
        Cell::text(words::job_state(job.state())),
        Cell::Uint(job.moves.len() as u64),
        Cell::Uint(moves_done(job) as u64),
        Cell::some_time(job.started_at_ns),
        Cell::some_time(job.ended_at_ns),
        some(job.bytes_per_second_max),
        Cell::some_text(&job.message),
    ]
}

/// A move in one row.
pub(crate) fn move_cells(one: &v1::Move) -> Vec<Cell> {
    vec![
        Cell::Uint(one.shard.into()),
        some(one.from_node),
        some(one.to_node),
        some(one.from_replica),
        some(one.to_replica),
        Cell::text(words::move_phase(one.phase())),
        Cell::Uint(one.bytes_done),
        Cell::Uint(one.bytes_total),
        Cell::some_text(&one.waits_for),
    ]
}

/// Everything about a job: its fields, what goes before the moves, its moves.
pub(super) fn print_job(context: &Context, kind: &'static str, job: &v1::Job, more: &[(&str, Cell)]) -> Outcome {
    let mut printer = context.printer(kind);
    for (name, cell) in JOB_COLUMNS.into_iter().zip(job_cells(job)) {
        // People need no line that says nothing.
        if !(context.is_table() && cell == Cell::None) {
            printer.head(name, cell)?;
        }
    }
    for (name, cell) in more {
        printer.head(name, cell.clone())?;
    }
    if context.is_table() && job.moves.is_empty() {
        return printer.finish(&[]);
    }
    printer.section("moves", &MOVE_COLUMNS)?;
    for one in &job.moves {
        printer.row(move_cells(one))?;
    }
    printer.finish(&[])
}

/// A plan for people: what moves where.
pub(super) fn print_plan(context: &Context, job: &v1::Job) -> Outcome {
    let mut printer = context.printer("job_plan");
    printer.head("plan", Cell::Text(goal_of(job)))?;
    printer.head("moves", Cell::Uint(job.moves.len() as u64))?;
    if !job.message.is_empty() {
        printer.head("message", Cell::text(&job.message))?;
    }
    if !job.moves.is_empty() {
        printer.section("moves", &["shard", "from", "to"])?;
        let node = |id: u64, none: &str| match id {
            0 => Cell::text(none),
            id => Cell::Text(format!("node {id}")),
        };
        for one in &job.moves {
            printer.row(vec![
                Cell::Uint(one.shard.into()),
                node(one.from_node, "(added)"),
                node(one.to_node, "(leaves)"),
            ])?;
        }
    }
    printer.finish(&[])
}

/// `shard 3 node 1 -> node 4`.
pub(super) fn move_text(one: &v1::Move) -> String {
    match (one.from_node, one.to_node) {
        (0, to) => format!("shard {} added on node {to}", one.shard),
        (from, 0) => format!("shard {} leaves node {from}", one.shard),
        (from, to) => format!("shard {} node {from} -> node {to}", one.shard),
    }
}

/// A job that runs, in one line: `job 7 drain node 3: running, 1 of 4 moves done, copying 12 MiB of 40 MiB`.
pub(crate) fn progress_line(job: &v1::Job) -> String {
    let mut line = format!(
        "job {} {}: {}, {} of {} moves done",
        job.id,
        goal_of(job),
        words::job_state(job.state()),
        moves_done(job),
        job.moves.len()
    );
    let copying = || job.moves.iter().filter(|one| one.phase() == MovePhase::Copying);
    let (done, total) = copying().fold((0, 0), |(done, total), one| {
        (done + one.bytes_done, total + one.bytes_total)
    });
    if total > 0 {
        line += &format!(", copying {} of {}", human::bytes(done), human::bytes(total));
    }
    let waits = copying().map(|one| &one.waits_for).find(|text| !text.is_empty());
    match (waits, job.message.is_empty()) {
        (Some(waits), _) => line += &format!(", waits: {waits}"),
        (None, false) => line += &format!(", {}", job.message),
        (None, true) => {}
    }
    line
}

/// A job at the end of a command, in one line: `job 7 done: drain node 3, 4 moves in 3m20s`.
pub(super) fn ended_line(job: &v1::Job) -> String {
    let moves = match job.moves.len() {
        1 => "1 move".to_owned(),
        count => format!("{count} moves"),
    };
    let mut line = format!(
        "job {} {}: {}, {moves}",
        job.id,
        words::job_state(job.state()),
        goal_of(job)
    );
    match u64::try_from(job.ended_at_ns - job.started_at_ns) {
        Ok(ns) if job.ended_at_ns > 0 && job.started_at_ns > 0 => {
            line += &format!(" in {}", human::span(Duration::from_nanos(ns)));
        }
        _ => {}
    }
    if matches!(job.state(), JobState::Running | JobState::Cancelling) {
        line += &format!("; tidemark job watch {} follows it", job.id);
    }
    line
}
