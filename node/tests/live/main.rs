//! What goes on by itself: alerts and subscriptions, through failures.
//! Never here: questions about the past (see `questions`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests; seeds are printed"
)]

#[path = "../common/mod.rs"]
mod common;

mod alerts;
mod alerts_answered;
mod alerts_kept;
mod flood_monitor;
mod storm;
mod subscribe;
mod subscribe_failures;
mod subscribe_slow;
