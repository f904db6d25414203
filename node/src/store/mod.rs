//! The only module that names RocksDB: one database per replica, and what all databases of a process share.
//!
//! | file | holds |
//! | --- | --- |
//! | `error` | [`StoreError`]: few kinds, corruption told apart |
//! | `failure` | [`FailureHook`]: what is done when a disk fails |
//! | `resources` | [`Resources`]: block cache, memtable budget and background threads of the whole process |
//! | `resident` | [`Resident`]: decoded values that owners keep in memory, one budget |
//! | `options` | [`Family`]: the column families and how each is tuned |
//! | `merge` | the merge operators: the codec, called by RocksDB |
//! | `db` | [`Db`], [`Batch`]: open, write, flush, checkpoint |
//! | `view` | [`View`], [`Scan`]: consistent reads whose errors cannot be overlooked |
//! | `from_memory` | [`from_memory()`]: reads that give up rather than wait for the disk |
//! | `log_db` | one database per node for the Raft logs of all groups |
//! | `marker` | what the log held at its last sync, written twice |
//! | `replica` | [`ReplicaStore`]: a [`Db`] with the applied state of a Raft group |
//!
//! Never here: what a key or a value of a shard means, protobuf, async.
//! Invariant: the write-ahead log of a replica is off, and all column families flush together; so what is on disk is always
//! the state after exactly the entries up to the applied state found beside it.

mod db;
mod error;
mod failure;
mod from_memory;
pub mod log_db;
pub mod marker;
mod merge;
mod options;
mod replica;
mod resident;
mod resources;
mod view;

pub use db::{Batch, Db};
pub use error::StoreError;
pub use failure::FailureHook;
pub(crate) use failure::end_process;
pub use from_memory::from_memory;
pub use options::Family;
pub use replica::{AppliedState, FORMAT_VERSION, ReplicaStore};
pub use resident::{Resident, ResidentKey};
pub use resources::{Resources, RoomHook};
pub use view::{Pair, Scan, Value, View};
