//! Consensus: the only place that names openraft. Never here: what a command means.

pub mod codec;
pub mod types;
