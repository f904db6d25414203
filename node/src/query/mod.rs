//! The line of a query: plan (pure), one smaller query per shard, partials, merge, finish, stream. A raw range is the
//! query whose fold keeps the points. Never: storage formats.

mod aggregate;
mod alerts;
mod areal;
mod asked;
mod before;
mod calendar;
#[cfg(test)]
mod calendar_tests;
mod count;
mod fill;
mod filter;
mod finish;
mod follow;
mod functions;
mod grid;
mod groups;
mod health;
mod held;
mod intervals;
mod known;
mod join;
mod join_match;
mod join_shard;
mod join_table;
mod join_values;
mod last_good;
mod latest;
mod leading;
mod merge;
mod near;
mod passing;
mod plan;
mod quality;
mod quality_device;
mod quality_merge;
mod quality_scope;
mod range;
mod rollups;
mod sealed;
mod series;
mod shard_side;
mod start;
mod streams;
mod tally;
mod terms;
mod top;
mod walk;
mod way;

pub use rollups::rolled_properties;
pub(crate) use shard_side::device_filter;
pub use shard_side::shard_job;
pub use start::targets;
pub use streams::{Answers, Queries};
pub use terms::Caller;
