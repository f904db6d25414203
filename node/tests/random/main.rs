//! Random questions against answers computed plainly, on made and on recorded series. Every seed is printed; `TIDEMARK_SEED` replays it.
//! Never here: cases with answers written by hand (see `questions`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests; seeds are printed"
)]

#[path = "../common/mod.rs"]
mod common;

mod asked;
mod joins;
mod known_at;
mod latest_columns;
mod recorded;
mod recorded_alerts;
mod recorded_answers;
mod recorded_calendar;
mod recorded_health;
mod recorded_intervals;
mod recorded_joins;
mod recorded_promises;
mod recorded_rollups;
mod recorded_top;
mod selectors;
mod test_points;
mod windows;
