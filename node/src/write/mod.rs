//! The line of a write: check, find the devices, encode once, propose to each shard, answer. Never: storage.

mod encode;
mod ingest;
mod outcome;
mod quota;
mod register;
mod room;
mod seals;

pub use ingest::Writes;
pub use room::Room;
