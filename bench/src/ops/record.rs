//! What the load felt, by phase of the scenario. Never here: requests themselves.
//! Invariant: a request belongs to the phase in which it was due; a silence belongs to the phase in which it ends, and to
//! every phase that ends within it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::report::{self, Latencies, Summary};

/// Writes of a shard that are remembered one by one.
const RECENT: usize = 5_000;
/// Reasons kept a phase.
const REASONS: usize = 5;
/// Slowest writes kept a phase.
const SLOWEST: usize = 10;

/// What a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Write,
    Read,
}

/// Keeps the books of a run.
#[derive(Debug)]
pub(super) struct Record {
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    phases: Vec<Phase>,
    /// When each shard last acknowledged a write.
    last_ack: BTreeMap<u32, Instant>,
    /// The last few writes of each shard: when they were due, when acknowledged.
    recent: BTreeMap<u32, VecDeque<(Instant, Instant)>>,
}

#[derive(Debug)]
struct Phase {
    name: String,
    began: Instant,
    ended: Option<Instant>,
    writes: Latencies,
    slowest: Vec<SlowWrite>,
    reads: Latencies,
    failed_writes: u64,
    failed_reads: u64,
    stale_reads: u64,
    reasons: BTreeSet<String>,
    silence: BTreeMap<u32, Duration>,
    longest_sync: Duration,
}

/// A write that took long: where to look in the logs of the nodes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SlowWrite {
    pub(super) took_ms: f64,
    pub(super) shard: u32,
    /// When it was due, as the nodes' logs tell time.
    pub(super) due: String,
}

/// A phase in figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PhaseFigures {
    pub(super) phase: String,
    pub(super) seconds: f64,
    pub(super) writes: Summary,
    #[serde(skip)]
    pub(super) write_latencies: Latencies,
    pub(super) slowest_writes: Vec<SlowWrite>,
    pub(super) reads: Summary,
    pub(super) failed_writes: u64,
    pub(super) failed_reads: u64,
    /// Linearizable reads that did not see what was acknowledged before they began.
    pub(super) stale_reads: u64,
    pub(super) reasons: Vec<String>,
    /// The longest time in which one shard acknowledged nothing.
    pub(super) longest_silence_ms: f64,
    pub(super) longest_silence_shard: u32,
    /// The longest that a program beside the nodes, which only writes a page and syncs it, had to wait for their disk.
    pub(super) longest_sync_ms: f64,
}

impl Record {
    pub(super) fn new() -> Record {
        Record {
            book: Mutex::new(Book {
                phases: Vec::new(),
                last_ack: BTreeMap::new(),
                recent: BTreeMap::new(),
            }),
        }
    }

    /// Nothing in the book is left half written, so a panic elsewhere does not spoil it.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the phase there is and begins another.
    pub(super) fn enter(&self, name: &str) -> Result<()> {
        report::note(&format!("phase: {name}"));
        let now = Instant::now();
        let mut book = self.book();
        book.close(now);
        book.phases.push(Phase {
            name: name.to_owned(),
            began: now,
            ended: None,
            writes: Latencies::new()?,
            slowest: Vec::new(),
            reads: Latencies::new()?,
            failed_writes: 0,
            failed_reads: 0,
            stale_reads: 0,
            reasons: BTreeSet::new(),
            silence: BTreeMap::new(),
            longest_sync: Duration::ZERO,
        });
        Ok(())
    }

    /// A write of a shard that was due then has been acknowledged.
    pub(super) fn written(&self, shard: u32, due: Instant) {
        let now = Instant::now();
        let mut book = self.book();
        if let Some(phase) = book.phase_of(due) {
            let took = now.saturating_duration_since(due);
            phase.writes.record(took);
            phase.slow(shard, took);
        }
        let recent = book.recent.entry(shard).or_default();
        recent.push_back((due, now));
        if recent.len() > RECENT {
            recent.pop_front();
        }
        if let Some(last) = book.last_ack.insert(shard, now) {
            book.silent(shard, now.saturating_duration_since(last));
        }
    }

    /// When the first write of a shard that was due after a moment was acknowledged, as long as that is not long ago.
    pub(super) fn first_accepted(&self, shard: u32, after: Instant) -> Option<Instant> {
        let book = self.book();
        let since = book.recent.get(&shard)?.iter().filter(|(due, _)| *due > after);
        since.map(|(_, at)| *at).min()
    }

    /// A read that was due then has been answered; `stale`: without something acknowledged before it began.
    pub(super) fn read(&self, due: Instant, stale: Option<String>) {
        let took = due.elapsed();
        let mut book = self.book();
        if let Some(phase) = book.phase_of(due) {
            phase.reads.record(took);
            phase.stale_reads += u64::from(stale.is_some());
            phase.because(stale);
        }
    }

    /// A request that was due then has failed for good.
    pub(super) fn failed(&self, request: Request, due: Instant, why: String) {
        if let Some(phase) = self.book().phase_of(due) {
            match request {
                Request::Write => phase.failed_writes += 1,
                Request::Read => phase.failed_reads += 1,
            }
            phase.because(Some(why));
        }
    }

    /// The neighbour's page is on disk.
    pub(super) fn synced(&self, took: Duration) {
        if let Some(phase) = self.book().phases.last_mut() {
            phase.longest_sync = phase.longest_sync.max(took);
        }
    }

    /// All phases so far; the last one ends now.
    pub(super) fn figures(&self) -> Vec<PhaseFigures> {
        let mut book = self.book();
        book.close(Instant::now());
        book.phases.iter().map(Phase::figures).collect()
    }
}

impl Book {
    fn close(&mut self, now: Instant) {
        let open: Vec<(u32, Duration)> = self
            .last_ack
            .iter()
            .map(|(shard, last)| (*shard, now.saturating_duration_since(*last)))
            .collect();
        for (shard, silence) in open {
            self.silent(shard, silence);
        }
        if let Some(last) = self.phases.last_mut() {
            last.ended.get_or_insert(now);
        }
    }

    fn silent(&mut self, shard: u32, silence: Duration) {
        if let Some(phase) = self.phases.last_mut().filter(|phase| phase.ended.is_none()) {
            let longest = phase.silence.entry(shard).or_default();
            *longest = silence.max(*longest);
        }
    }

    fn phase_of(&mut self, due: Instant) -> Option<&mut Phase> {
        self.phases.iter_mut().rev().find(|phase| phase.began <= due)
    }
}

impl Phase {
    fn because(&mut self, why: Option<String>) {
        if self.reasons.len() < REASONS {
            self.reasons.extend(why);
        }
    }

    /// Keeps a write that was acknowledged just now if it is among the slowest.
    fn slow(&mut self, shard: u32, took: Duration) {
        let took_ms = took.as_secs_f64() * 1000.0;
        let least = self.slowest.last().map_or(0.0, |slow| slow.took_ms);
        if self.slowest.len() == SLOWEST && took_ms <= least {
            return;
        }
        let due = jiff::Timestamp::now() - took;
        let at = self.slowest.partition_point(|slow| slow.took_ms >= took_ms);
        let due = format!("{due:.3}");
        self.slowest.insert(at, SlowWrite { took_ms, shard, due });
        self.slowest.truncate(SLOWEST);
    }

    fn figures(&self) -> PhaseFigures {
        let longest = self.silence.iter().max_by_key(|(_, silence)| **silence);
        let ended = self.ended.unwrap_or_else(Instant::now);
        PhaseFigures {
            phase: self.name.clone(),
            seconds: ended.saturating_duration_since(self.began).as_secs_f64(),
            writes: self.writes.summary(),
            write_latencies: self.writes.clone(),
            slowest_writes: self.slowest.clone(),
            reads: self.reads.summary(),
            failed_writes: self.failed_writes,
            failed_reads: self.failed_reads,
            stale_reads: self.stale_reads,
            reasons: self.reasons.iter().cloned().collect(),
            longest_silence_ms: longest.map_or(0.0, |(_, silence)| silence.as_secs_f64() * 1000.0),
            longest_silence_shard: longest.map_or(0, |(shard, _)| *shard),
            longest_sync_ms: self.longest_sync.as_secs_f64() * 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_request_counts_where_it_was_due_and_a_silence_where_it_ends() {
        let record = Record::new();
        record.enter("calm").unwrap();
        let due = Instant::now();
        record.written(1, due);
        record.enter("move").unwrap();
        record.written(1, due);
        record.failed(Request::Read, Instant::now(), "gone".to_owned());
        record.read(Instant::now(), Some("old".to_owned()));
        let [calm, moving] = &record.figures()[..] else {
            panic!("two phases")
        };
        assert_eq!((calm.writes.count, moving.writes.count), (2, 0));
        assert_eq!((moving.failed_reads, moving.stale_reads, moving.reads.count), (1, 1, 1));
        assert_eq!(moving.reasons, ["gone", "old"]);
        assert_eq!((calm.longest_silence_shard, moving.longest_silence_shard), (1, 1));
    }
}
