//! The one thread that writes the Raft log of a node: drains the queue, and makes everything it finds there durable
//! for all groups with one write, one sync and one marker. Never here: reads, or the order in which callers queue.
//!
//! Invariant: callbacks run in queue order, after the sync and after the marker was written; marker <= log at any moment. A
//! write that failed leaves the disk in an unknown state, so the process ends: nothing is retried.
//!
//! ```text
//! queue -> drain -> (lower the marker, if entries or a group go) -> write + sync -> raise the marker -> callbacks
//! ```
//!
//! A marker that speaks of votes is synced before anybody is told, and so is a lower one. One that speaks of more entries is
//! synced within [`MARK_WITHIN`]: it is there to find out about a log that lost its end while it lay on disk, and a log that was synced
//! a moment ago has had no time for that.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::codec;
use super::log_cache::Group;
use super::log_open::{entry_mark, vote_mark};
use super::log_store::{FailureHook, SyncHook};
use super::types::{Entry, IoFlushed, LogId, Vote};
use crate::store::log_db::{Kind, LogBatch, LogDb};
use crate::store::marker::{GroupMark, Marker};

/// So soon after it was written a marker is on disk.
const MARK_WITHIN: Duration = Duration::from_millis(100);
/// Entries that were announced to come together are waited for so long at most: a fraction of what another sync takes.
const COMPANY_WAIT: Duration = Duration::from_micros(100);

/// Told when a record is on disk.
pub(crate) type Done = oneshot::Sender<io::Result<()>>;

/// One change to the log, in the order of its group.
pub(crate) enum Record {
    Entries {
        group: Arc<Group>,
        entries: Vec<Entry>,
        append: u64,
        flushed: IoFlushed,
    },
    Vote {
        group: Arc<Group>,
        vote: Vote,
        done: Done,
    },
    /// `last` is the last id after the cut.
    Truncate {
        group: Arc<Group>,
        last: Option<LogId>,
    },
    /// Removes `from..=upto`; `last` is the last id after it.
    Purge {
        group: Arc<Group>,
        from: u64,
        upto: LogId,
        last: Option<LogId>,
    },
    Committed {
        group: Arc<Group>,
        committed: Option<LogId>,
    },
    Forget {
        group: u32,
        done: Done,
    },
    /// Answered when everything before it is on disk.
    Barrier {
        done: Done,
    },
    Stop,
}

impl Record {
    /// Whether it has to be on disk before anyone is told.
    fn needs_sync(&self) -> bool {
        !matches!(self, Self::Committed { .. } | Self::Stop)
    }

    fn finish(self, result: &Result<(), String>) {
        let result = || result.clone().map_err(io::Error::other);
        match self {
            Self::Entries {
                group, append, flushed, ..
            } => {
                if result().is_ok() {
                    group.lock().durable(append);
                }
                flushed.io_completed(result());
            }
            Self::Vote { group, vote, done } => {
                if result().is_ok() {
                    group.lock().vote = Some(vote);
                }
                // Whoever asked may have gone.
                let _unheard = done.send(result());
            }
            Self::Forget { done, .. } | Self::Barrier { done } => {
                let _unheard = done.send(result());
            }
            Self::Truncate { .. } | Self::Purge { .. } | Self::Committed { .. } | Self::Stop => {}
        }
    }
}

/// A record and the queue room it takes, given back when the record is on disk.
pub(crate) struct Queued {
    pub(crate) record: Record,
    pub(crate) bytes: usize,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl Queued {
    fn is_entries(&self) -> bool {
        matches!(self.record, Record::Entries { .. })
    }
}

/// What the writer has done since it started.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) group_commits: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) sync_ns: AtomicU64,
    pub(crate) marker_ns: AtomicU64,
}

pub(crate) struct Writer {
    pub(crate) db: Arc<LogDb>,
    pub(crate) marker: Marker,
    /// What the marker on disk says.
    pub(crate) marks: BTreeMap<u32, GroupMark>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) commit_bytes_max: usize,
    pub(crate) before_sync: Option<SyncHook>,
    pub(crate) on_failure: FailureHook,
    /// Entries that were announced, of all times.
    pub(crate) announced: Arc<AtomicU64>,
    /// Those of them that have come or are not waited for any more.
    pub(crate) arrived: u64,
    /// When the marker was written first since it was last synced.
    pub(crate) noted_at: Option<Instant>,
}

impl Writer {
    /// [`Self::run`], where a panic counts as a failed write: a node that can't write its log must not linger.
    pub(crate) fn guarded(self, queue: Receiver<Queued>) {
        let on_failure = Arc::clone(&self.on_failure);
        if catch_unwind(AssertUnwindSafe(|| self.run(queue))).is_err() {
            on_failure("the writer panicked");
        }
    }

    /// Runs until a `Stop` or a failure; what is queued behind either is dropped, and thereby reported as closed.
    fn run(mut self, queue: Receiver<Queued>) {
        loop {
            let first = match self.next(&queue) {
                Ok(Some(first)) => first,
                Ok(None) => return,
                Err(error) => return (self.on_failure)(&error.to_string()),
            };
            let mut drained = self.drain(first, &queue);
            let stop = drained.iter().position(|queued| matches!(queued.record, Record::Stop));
            drained.truncate(stop.unwrap_or(drained.len()));
            let result = self.commit(&drained).map_err(|error| error.to_string());
            if let Err(reason) = &result {
                (self.on_failure)(reason);
            }
            for queued in drained {
                drop(queued.room);
                queued.record.finish(&result);
            }
            if stop.is_some() || result.is_err() {
                if self.marker.sync().is_err() {
                    (self.on_failure)("the marker could not be synced");
                }
                return;
            }
        }
    }

    /// The next record; `None` when there are no more. Meanwhile the marker gets its sync.
    fn next(&mut self, queue: &Receiver<Queued>) -> io::Result<Option<Queued>> {
        if let Some(noted_at) = self.noted_at {
            match queue.recv_timeout(MARK_WITHIN.saturating_sub(noted_at.elapsed())) {
                Ok(next) if noted_at.elapsed() < MARK_WITHIN => return Ok(Some(next)),
                Ok(next) => return self.sync_marker().map(|()| Some(next)),
                Err(RecvTimeoutError::Timeout) => self.sync_marker()?,
                Err(RecvTimeoutError::Disconnected) => return self.sync_marker().map(|()| None),
            }
        }
        Ok(queue.recv().ok())
    }

    fn sync_marker(&mut self) -> io::Result<()> {
        self.noted_at = None;
        self.marker.sync()
    }

    /// Everything that is queued, and what was announced to come with it.
    fn drain(&mut self, first: Queued, queue: &Receiver<Queued>) -> Vec<Queued> {
        let mut bytes = first.bytes;
        let mut come = u64::from(first.is_entries());
        let mut drained = vec![first];
        let announced = self.announced.load(Ordering::Relaxed).saturating_sub(self.arrived);
        let mut wait_until = None;
        while bytes < self.commit_bytes_max {
            let next = queue.try_recv().ok().or_else(|| {
                let until = *wait_until.get_or_insert_with(|| Instant::now() + COMPANY_WAIT);
                let left = until.saturating_duration_since(Instant::now());
                (come < announced && !left.is_zero()).then(|| queue.recv_timeout(left).ok())?
            });
            let Some(next) = next else { break };
            bytes += next.bytes;
            come += u64::from(next.is_entries());
            drained.push(next);
        }
        self.arrived += announced;
        drained
    }

    fn commit(&mut self, drained: &[Queued]) -> io::Result<()> {
        let sync = drained.iter().any(|queued| queued.record.needs_sync());
        self.lower(drained)?;

        let mut batch = LogBatch::default();
        let mut marks = self.marks.clone();
        let mut entries = 0;
        let mut scratch = Vec::new();
        for queued in drained {
            entries += stage(&queued.record, &mut batch, &mut marks, &mut scratch)?;
        }
        let bytes = batch.bytes();
        let started = Instant::now();
        let empty = batch.is_empty();
        if sync && let Some(hook) = &self.before_sync {
            hook()?;
        }
        match (empty, sync) {
            (false, _) => self.db.write(batch, sync)?,
            (true, true) => self.db.sync()?,
            (true, false) => {}
        }
        let written = Instant::now();
        let votes = |queued: &Queued| matches!(queued.record, Record::Vote { .. } | Record::Barrier { .. });
        match drained.iter().any(votes) {
            true => self.mark(marks)?,
            false => self.note(marks)?,
        }

        let counters = &self.counters;
        for (counter, value) in [
            (&counters.group_commits, u64::from(!empty)),
            (&counters.syncs, u64::from(sync && !empty)),
            (&counters.records, drained.len() as u64),
            (&counters.entries, entries),
            (&counters.bytes, bytes as u64),
            (
                &counters.sync_ns,
                if sync { (written - started).as_nanos() as u64 } else { 0 },
            ),
            (&counters.marker_ns, written.elapsed().as_nanos() as u64),
        ] {
            counter.fetch_add(value, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes from the marker what is about to be taken from the log.
    fn lower(&mut self, drained: &[Queued]) -> io::Result<()> {
        let mut marks = self.marks.clone();
        for queued in drained {
            match &queued.record {
                Record::Truncate { group, last } => {
                    if let Some(mark) = marks.get_mut(&group.id)
                        && mark
                            .last
                            .is_some_and(|marked| last.is_none_or(|last| last.index < marked.index))
                    {
                        mark.last = last.as_ref().map(entry_mark);
                    }
                }
                Record::Forget { group, .. } => {
                    marks.remove(group);
                }
                _ => {}
            }
        }
        match marks == self.marks {
            true => Ok(()),
            false => self.mark(marks),
        }
    }

    /// Writes the marker, and has it on disk.
    fn mark(&mut self, marks: BTreeMap<u32, GroupMark>) -> io::Result<()> {
        self.note(marks)?;
        self.sync_marker()
    }

    /// Writes the marker.
    fn note(&mut self, marks: BTreeMap<u32, GroupMark>) -> io::Result<()> {
        if marks != self.marks {
            self.marker.note(&marks)?;
            self.marks = marks;
            self.noted_at.get_or_insert_with(Instant::now);
        }
        Ok(())
    }
}

/// Adds a record to the batch and to the marks; returns how many entries it holds.
fn stage(
    record: &Record,
    batch: &mut LogBatch,
    marks: &mut BTreeMap<u32, GroupMark>,
    scratch: &mut Vec<u8>,
) -> io::Result<u64> {
    match record {
        Record::Entries { group, entries, .. } => {
            for entry in entries {
                scratch.clear();
                codec::encode_entry(entry, scratch);
                batch.put_entry(group.id, entry.log_id.index, scratch);
            }
            if let Some(last) = entries.last() {
                marks.entry(group.id).or_default().last = Some(entry_mark(&last.log_id));
            }
            return Ok(entries.len() as u64);
        }
        Record::Vote { group, vote, .. } => {
            batch.put_meta(group.id, Kind::Vote, &codec::encode_vote(vote));
            marks.entry(group.id).or_default().vote = Some(vote_mark(vote));
        }
        Record::Truncate { group, last } => {
            let from = match last {
                Some(last) => last
                    .index
                    .checked_add(1)
                    .ok_or_else(|| io::Error::other("log index overflow"))?,
                None => 0,
            };
            batch.truncate(group.id, from);
            marks.entry(group.id).or_default().last = last.as_ref().map(entry_mark);
        }
        Record::Purge {
            group,
            from,
            upto,
            last,
        } => {
            batch.purge(group.id, *from, upto.index);
            batch.put_meta(group.id, Kind::Purged, &codec::encode_log_id(upto));
            let mark = marks.entry(group.id).or_default();
            mark.purged = Some(upto.index);
            mark.last = last.as_ref().map(entry_mark);
        }
        Record::Committed { group, committed } => match committed {
            Some(committed) => batch.put_meta(group.id, Kind::Committed, &codec::encode_log_id(committed)),
            None => batch.delete_meta(group.id, Kind::Committed),
        },
        Record::Forget { group, .. } => {
            batch.forget(*group);
            marks.remove(group);
        }
        Record::Barrier { .. } | Record::Stop => {}
    }
    Ok(0)
}
