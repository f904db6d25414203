//! The Tidemark server. `ARCHITECTURE.md` has the map; each module below uses only those above it.

pub mod config;
pub mod clock;
pub mod limits;
pub mod error;
pub mod identity;
pub mod disk;
pub mod metrics;

pub mod catalog;
pub mod placement;
pub mod store;
pub mod shard;
pub mod wire;
pub mod peers;
pub mod raft;
pub mod route;
pub mod cluster;
pub mod write;
pub mod alert;
pub mod query;
pub mod delete;
pub mod subscribe;
pub mod backup;
pub mod api;
pub mod server;
