//! The Raft log of a node, against openraft's own suite, a model, crashes and rotten bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod concurrent;
mod damage;
mod group_commit;
mod machine;
mod model;
mod owner;
mod suite;
mod support;
