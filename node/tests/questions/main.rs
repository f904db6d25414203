//! Questions and their exact answers, through the public client on real nodes, with made series.
//! Never here: random questions (see `random`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests; seeds are printed"
)]

#[path = "../common/mod.rs"]
mod common;

mod aggregate;
mod coverage;
mod device_health;
mod explain;
mod flat;
mod fleet_health;
mod fleet_recomputed;
mod health;
mod intervals;
mod join;
mod join_pages;
mod known_at;
mod maintenance;
mod missing;
mod near;
mod no_numbers;
mod pages;
mod qualifiers;
mod query;
mod range_filters;
mod reports;
mod rollups;
mod rollups_kept;
mod rollups_sealed;
mod selectors;
mod sequences;
mod spikes;
mod suspects;
mod test_points;
mod top;
mod whole_numbers;
mod windows;
mod without_receipts;
