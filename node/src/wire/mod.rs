//! The only translators between protobuf messages and the store's own types. Never: I/O, Raft, RocksDB.

pub mod answer;
pub mod batch;
pub mod batch_bytes;
pub mod cursor;
pub mod latest;
pub mod latest_table;
pub mod registry;
pub mod removal;
pub mod status;
