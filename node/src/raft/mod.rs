//! Consensus: the only place that names openraft. Never here: what a command means.

mod backlog;
pub mod codec;
mod digests;
mod gone;
pub mod host;
mod lag;
pub mod lane;
mod leadership;
mod log_cache;
mod log_open;
mod log_reader;
mod log_storage;
pub mod log_store;
mod log_writer;
pub mod machine;
pub mod manage;
mod network;
mod pace;
mod pulse;
mod receiver;
pub mod replica;
mod room;
mod snapshot;
pub mod state;
mod transfers;
pub mod types;
mod upkeep;
