//! Alerts of devices: evaluated by whoever leads a shard, kept by the shard, told to whoever asks.
//!
//! | file | holds |
//! | --- | --- |
//! | `state` | what is kept of a device under a profile, and what a new evaluation makes of it |
//! | `moved` | alerts whose begin moved, and what was said of them |
//! | `read` | points of a device through the rule of a profile |
//! | `evaluate` | some devices of a shard, as one command |
//! | `evaluator` | which devices, and when: the task that runs on every node |
//! | `rows` | states as alerts, and their order |
//! | `answer` | acknowledged and closed |
//!
//! Never here: levels and windows (see `tidemark_series::alert`), how states are stored (see `crate::shard`). Invariant: an evaluation may
//! be done twice, by two nodes, or late: steps depend on points and profile alone, and only one of two is recorded.

mod answer;
mod evaluate;
mod evaluator;
mod moved;
mod read;
mod rows;
mod state;

pub use evaluator::Alerts;
pub use read::{Looked, before, replay};
pub use rows::{Row, in_order, rows_of};
pub use state::marks;
