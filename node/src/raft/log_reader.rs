//! Reads the log of one group: memory first, disk on a thread that may block. Never here: writes.
//!
//! Invariant: no read holds more than one chunk at a time, but for `try_get_log_entries`, which has to return
//! everything; a hole is an error, and a read that a truncation crossed is done again.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures_util::{Stream, stream};
use openraft::OptionalSend;
use openraft::errors::LeaderChanged;
use openraft::storage::{LeaderBoundedStreamError, LeaderBoundedStreamResult, RaftLogReader};

use super::codec;
use super::log_cache::{Group, Plan};
use super::log_store::Node;
use super::types::{Entry, LeaderId, TypeConfig, Vote};

/// A reader of one group; clones read the same log.
#[derive(Clone)]
pub struct GroupReader {
    pub(crate) node: Arc<Node>,
    pub(crate) group: Arc<Group>,
}

/// `from..to` of any range.
fn ends(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

/// Entries read together, and how often the log had been truncated by then.
struct Chunk {
    entries: Vec<Entry>,
    cuts: u64,
}

impl GroupReader {
    /// The beginning of `from..to`, as far as the log has it: nothing only if there is nothing.
    async fn chunk(&self, from: u64, to: u64) -> io::Result<Chunk> {
        loop {
            let (plan, cuts) = {
                let state = self.group.lock();
                (state.plan(from, to, self.node.chunk_bytes), state.cuts)
            };
            let (first, to) = match plan {
                Plan::Empty => {
                    return Ok(Chunk {
                        entries: Vec::new(),
                        cuts,
                    });
                }
                Plan::Cached(entries) => return Ok(Chunk { entries, cuts }),
                Plan::Disk { from, to } => (from, to),
            };
            let entries = self.read_disk(first, to).await?;
            let state = self.group.lock();
            let purged = state.purged.is_some_and(|purged| purged.index >= first);
            if state.cuts != cuts || purged {
                continue;
            }
            drop(state);
            if let Some((missing, _)) = (first..)
                .zip(&entries)
                .find(|(index, entry)| entry.log_id.index != *index)
            {
                return Err(hole(self.group.id, missing));
            }
            if entries.is_empty() {
                return Err(hole(self.group.id, first));
            }
            return Ok(Chunk { entries, cuts });
        }
    }

    async fn read_disk(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let (db, group, cap_bytes) = (Arc::clone(&self.node.db), self.group.id, self.node.chunk_bytes);
        let read = move || -> io::Result<Vec<Entry>> {
            let found = db.read(group, from, to, cap_bytes)?;
            found
                .into_iter()
                .map(|(_, bytes)| Ok(codec::decode_entry(bytes)?))
                .collect()
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// An end that does not run away while the log grows.
    fn bounded(&self, to: u64) -> u64 {
        to.min(self.group.lock().last.map_or(0, |last| last.index.saturating_add(1)))
    }

    /// All of `from..to`, or `None` if a truncation came in between.
    async fn whole(&self, from: u64, to: u64) -> io::Result<Option<Vec<Entry>>> {
        let Chunk { mut entries, cuts } = self.chunk(from, to).await?;
        while let Some(next) = entries.last().map(|last| last.log_id.index + 1)
            && next < to
        {
            let more = self.chunk(next, to).await?;
            if more.cuts != cuts {
                return Ok(None);
            }
            match more.entries.first() {
                None => break,
                // Purged in between: what was read before is whole.
                Some(first) if first.log_id.index != next => return Ok(None),
                Some(_) => entries.extend(more.entries),
            }
        }
        Ok(Some(entries))
    }

    fn leads(&self, leader: &LeaderId) -> Result<(), Option<Vote>> {
        match self.group.lock().vote {
            Some(vote) if vote.committed && vote.leader_id == *leader => Ok(()),
            vote => Err(vote),
        }
    }
}

fn hole(group: u32, index: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("raft log of group {group} has no entry {index}"),
    )
}

/// Where a stream stands.
struct Cursor {
    reader: GroupReader,
    next: u64,
    to: u64,
    chunk: std::vec::IntoIter<Entry>,
    ended: bool,
}

impl Cursor {
    fn new(reader: &GroupReader, range: &impl RangeBounds<u64>) -> Self {
        let (next, to) = ends(range);
        let to = reader.bounded(to);
        Self {
            reader: reader.clone(),
            next,
            to,
            chunk: Vec::new().into_iter(),
            ended: false,
        }
    }

    /// Fetches the next chunk if the present one is used up; `false` at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        if self.chunk.len() > 0 {
            return Ok(true);
        }
        if self.next >= self.to {
            return Ok(false);
        }
        let entries = self.reader.chunk(self.next, self.to).await?.entries;
        if let Some(last) = entries.last() {
            self.next = last.log_id.index.saturating_add(1);
        }
        self.chunk = entries.into_iter();
        Ok(self.chunk.len() > 0)
    }

    async fn next_committed(mut self) -> Option<(io::Result<Entry>, Self)> {
        if self.ended {
            return None;
        }
        match self.fill().await {
            Ok(false) => None,
            Ok(true) => self.chunk.next().map(|entry| (Ok(entry), self)),
            Err(error) => {
                self.ended = true;
                Some((Err(error), self))
            }
        }
    }

    async fn next_led(mut self, leader: LeaderId) -> Option<(LeaderBoundedStreamResult<TypeConfig>, Self)> {
        if self.ended {
            return None;
        }
        if self.chunk.len() == 0 {
            // The vote is looked at on both sides: a new one is saved before anything is truncated under it.
            let filled = match self.reader.leads(&leader) {
                Ok(()) => self.fill().await,
                Err(vote) => return Some(self.changed(leader, vote)),
            };
            match (filled, self.reader.leads(&leader)) {
                (_, Err(vote)) => return Some(self.changed(leader, vote)),
                (Ok(true), Ok(())) => {}
                (Ok(false), Ok(())) => return None,
                (Err(error), Ok(())) => {
                    self.ended = true;
                    return Some((Err(LeaderBoundedStreamError::IoError(error)), self));
                }
            }
        }
        self.chunk.next().map(|entry| (Ok(entry), self))
    }

    fn changed(mut self, leader: LeaderId, vote: Option<Vote>) -> (LeaderBoundedStreamResult<TypeConfig>, Self) {
        self.ended = true;
        (
            Err(LeaderBoundedStreamError::LeaderChanged(LeaderChanged::new(
                leader, vote,
            ))),
            self,
        )
    }
}

impl RaftLogReader<TypeConfig> for GroupReader {
    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<TypeConfig>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        stream::unfold(Cursor::new(self, &range), move |cursor| cursor.next_led(leader))
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        stream::unfold(Cursor::new(self, &range), Cursor::next_committed)
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = ends(&range);
        let to = self.bounded(to);
        loop {
            if let Some(entries) = self.whole(from, to).await? {
                return Ok(entries);
            }
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.group.lock().vote)
    }

    /// Nothing if `start` is not there: what follows a purged entry would not follow what the caller has.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut entries = self.chunk(start, end).await?.entries;
        if entries.first().is_some_and(|first| first.log_id.index != start) {
            entries.clear();
        }
        Ok(entries)
    }
}
