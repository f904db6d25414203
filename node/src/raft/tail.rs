//! The applied part of a replica's log, for readers other than Raft. Never: what entries mean.
//!
//! Invariant: only what is applied here is given out, in order and without a hole; what is no longer there is said to be gone.

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::RaftLogReader as _;
use tokio::sync::watch;

pub use super::holds::Hold;
use super::replica::Replica;
use crate::error::{Error, Result};

/// An entry that is applied.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Its place in the log.
    pub index: u64,
    /// Encoded command; `None` for blank entries and memberships.
    pub command: Option<Bytes>,
}

impl Replica {
    /// The index of the last applied entry, and every change of it.
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.state.watch_applied()
    }

    /// Keeps the log behind an index, within bounds, for a reader that begins there.
    pub fn hold_log(&self, index: u64) -> Hold {
        self.state.holds().begin(index)
    }

    /// Entries behind `after` up to `upto`, at most a chunk of bytes, at least one; `None` when they are no longer in the
    /// log. Both must be applied, and `upto` the greater.
    pub async fn applied_entries(&self, after: u64, upto: u64) -> Result<Option<Vec<Logged>>> {
        let mut reader = self.reader.clone();
        let read = reader.limited_get_log_entries(after + 1, upto + 1).await;
        let entries = read.map_err(Error::internal)?;
        if entries.is_empty() {
            return Ok(None);
        }
        let logged = |entry: super::types::Entry| Logged {
            index: entry.log_id.index,
            command: match entry.payload {
                EntryPayload::Normal(command) => Some(command.0),
                EntryPayload::Blank | EntryPayload::Membership(_) => None,
            },
        };
        Ok(Some(entries.into_iter().map(logged).collect()))
    }
}
