//! The Tidemark server.

pub mod shard;
pub mod store;
