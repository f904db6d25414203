//! The line of a subscription: the log of each shard, followed at one of its replicas; entries become events where they are read;
//! the node that was asked joins the shards' events to one stream with a cursor. Never: what is stored.
//!
//! | file | holds |
//! | --- | --- |
//! | `asked` | what a subscription asks for, checked |
//! | `cursor` | how far it is, as bytes that a client keeps |
//! | `choice` | which devices match, as registered and tagged by now |
//! | `known` | the newest records of devices as far as known: what is late |
//! | `silence` | devices that become silent, by the time at which they do |
//! | `ended` | what was there before the follower began, and silence that a record ends |
//! | `events` | one entry of the log as events |
//! | `follower` | one shard's state on the way through the log; and its opening |
//! | `serve` | the task that follows the log of a replica of this node |
//! | `source` | where a shard is followed: here or at another node |
//! | `shard` | one shard of a subscription, at one replica after the other |
//! | `stream` | all of them as one stream |

mod asked;
mod choice;
mod cursor;
mod ended;
mod events;
mod follower;
mod known;
mod serve;
mod shard;
mod silence;
mod source;
mod stream;

pub use serve::Follows;
pub use stream::{Messages, Subscriptions};
