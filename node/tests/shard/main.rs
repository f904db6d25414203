//! The engine of one shard on a real RocksDB: points, devices, memory, damage, crashes, deletion, rollups.
//! Never here: nodes, logs, the network.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests; seeds are printed"
)]

mod alerts;
mod damage;
mod delete;
mod devices;
mod from_memory;
mod memory;
mod model;
mod points;
mod producers;
mod recovery;
mod rollups;
mod rollups_alone;
mod rollups_slots;
mod support;
mod test_points;
mod void;
