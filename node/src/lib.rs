//! The Tidemark server.

pub mod raft;
pub mod store;
