//! Nodes and what becomes of them: writing, membership, moves, backups, deletion, full disks, crashes.
//! Never here: what a question means (see `questions`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests; seeds are printed"
)]

#[path = "../common/mod.rs"]
mod common;

mod applications;
mod backup;
mod backup_tool;
mod budgets;
mod catch_up;
mod config;
mod copies;
mod crash;
mod delete;
mod disk;
mod ended;
mod envelopes;
mod http;
mod lag;
mod membership;
mod moves;
mod process;
mod reasons;
mod refusals;
mod registry;
mod service;
mod stalled;
mod transport;
mod write;
