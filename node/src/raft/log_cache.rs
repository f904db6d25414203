//! What memory knows about the log of one group: its ends, its vote, and the newest entries. Never here: I/O.
//!
//! Invariant: an entry that is not yet on disk is in the tail; the tail has no hole and ends with the last entry. So
//! what the tail lacks is read from disk, and what disk may still lack never has to be.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use openraft::EntryPayload;

use super::types::{Entry, LogId, LogState, Vote};

/// Memory of an entry beside its command, and of a member in a membership; both rough.
const ENTRY_OVERHEAD_BYTES: usize = 96;
const MEMBER_BYTES: usize = 128;

/// Bytes that an entry takes in memory, roughly.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(command) => command.0.len(),
            EntryPayload::Membership(membership) => membership.nodes().count() * MEMBER_BYTES,
        }
}

/// One group of the node's log, shared by its handles and the writer.
pub(crate) struct Group {
    /// Number of the group.
    pub(crate) id: u32,
    state: Mutex<State>,
}

impl Group {
    pub(crate) fn new(id: u32, state: State) -> Self {
        Self {
            id,
            state: Mutex::new(state),
        }
    }

    /// Never held across an await or I/O.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Cached {
    entry: Entry,
    bytes: usize,
    /// Number of the append that brought it.
    append: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct State {
    /// Last vote on disk.
    pub(crate) vote: Option<Vote>,
    /// Last commit handed over for saving.
    pub(crate) committed: Option<LogId>,
    /// Last purged entry.
    pub(crate) purged: Option<LogId>,
    /// Last entry, or the last purged one.
    pub(crate) last: Option<LogId>,
    /// Index of the first entry, if there is one.
    pub(crate) first: u64,
    /// Counts truncations: a read from disk that saw two values has to be done again.
    pub(crate) cuts: u64,
    /// The group was forgotten: its handles are dead.
    pub(crate) gone: bool,
    tail: VecDeque<Cached>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    appends: u64,
    durable: u64,
}

/// How a range is to be read.
pub(crate) enum Plan {
    /// Nothing there.
    Empty,
    /// Here it is, or its beginning.
    Cached(Vec<Entry>),
    /// `from..to` is on disk; valid while `State::cuts` stays.
    Disk {
        /// First index.
        from: u64,
        /// Index behind the last.
        to: u64,
    },
}

impl State {
    pub(crate) fn new(tail_bytes_max: usize) -> Self {
        Self {
            tail_bytes_max,
            ..Self::default()
        }
    }

    /// Purged and last id.
    pub(crate) fn log_state(&self) -> LogState {
        LogState {
            last_purged_log_id: self.purged,
            last_log_id: self.last,
        }
    }

    /// Bytes of entries held in memory.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Takes entries in, readable from now on; returns the number of this append.
    ///
    /// # Errors
    /// They do not continue the log.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> io::Result<u64> {
        let mut last = self.last;
        for entry in entries {
            if let Some(last) = last
                && last.index.checked_add(1) != Some(entry.log_id.index)
            {
                let text = format!("entry {} does not follow {last}", entry.log_id);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            last = Some(entry.log_id);
        }
        if self.last.is_none() {
            self.first = entries.first().map_or(0, |entry| entry.log_id.index);
        }
        self.last = last;
        self.appends += 1;
        for entry in entries {
            let bytes = entry_bytes(entry);
            self.tail_bytes += bytes;
            self.tail.push_back(Cached {
                entry: entry.clone(),
                bytes,
                append: self.appends,
            });
        }
        Ok(self.appends)
    }

    /// Appends up to this number are on disk: what exceeds the cap may go.
    pub(crate) fn durable(&mut self, append: u64) {
        self.durable = self.durable.max(append);
        while self.tail_bytes > self.tail_bytes_max && self.tail.front().is_some_and(|old| old.append <= self.durable) {
            self.drop_front();
        }
    }

    /// Removes the entries behind `after`; returns the last id then.
    pub(crate) fn truncate(&mut self, after: Option<LogId>) -> Option<LogId> {
        let index = |id: Option<LogId>| id.map(|id| id.index);
        if index(after) >= index(self.last) {
            return self.last;
        }
        let keep = if index(after) < index(self.purged) {
            self.purged
        } else {
            after
        };
        while self
            .tail
            .back()
            .is_some_and(|cached| keep.is_none_or(|keep| cached.entry.log_id.index > keep.index))
        {
            self.tail_bytes -= self.tail.pop_back().map_or(0, |cached| cached.bytes);
        }
        self.cuts += 1;
        self.last = keep;
        keep
    }

    /// Removes the entries up to and with `upto`; returns the first index to remove from disk, or `None` if that was
    /// done before.
    pub(crate) fn purge(&mut self, upto: LogId) -> Option<u64> {
        let from = match self.purged {
            Some(purged) if purged.index >= upto.index => return None,
            Some(purged) => purged.index + 1,
            None => 0,
        };
        while self
            .tail
            .front()
            .is_some_and(|cached| cached.entry.log_id.index <= upto.index)
        {
            self.drop_front();
        }
        self.purged = Some(upto);
        self.first = upto.index.saturating_add(1);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
        Some(from)
    }

    /// How to read `from..to`, as far as it is there, until `cap_bytes` (at least one entry).
    pub(crate) fn plan(&self, from: u64, to: u64, cap_bytes: usize) -> Plan {
        let from = from.max(self.first);
        let to = self.last.map_or(0, |last| to.min(last.index.saturating_add(1)));
        if from >= to {
            return Plan::Empty;
        }
        let Some(first) = self.tail.front().map(|cached| cached.entry.log_id.index) else {
            return Plan::Disk { from, to };
        };
        if from < first {
            return Plan::Disk {
                from,
                to: to.min(first),
            };
        }
        let mut bytes = 0;
        let range = (from - first) as usize..(to - first) as usize;
        let mut entries = Vec::new();
        for cached in self.tail.range(range) {
            if !entries.is_empty() && bytes + cached.bytes > cap_bytes {
                break;
            }
            bytes += cached.bytes;
            entries.push(cached.entry.clone());
        }
        Plan::Cached(entries)
    }

    fn drop_front(&mut self) {
        self.tail_bytes -= self.tail.pop_front().map_or(0, |cached| cached.bytes);
    }
}
