//! What lies on disk: the only place that names RocksDB. Never here: async code.

pub mod log_db;
pub mod marker;
