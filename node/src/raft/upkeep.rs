//! What a replica does with its log: flush the state under it, and let go of what nobody needs. Never: when.
//!
//! Invariant: the log goes only below what is flushed here, and not above what a checkpoint on its way or a live replica
//! that lags needs, nor above what a reader of it has yet to read, within the bounds of `Tuning`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;

use super::machine::blocking;
use super::replica::{Metrics, Replica};
use super::types::LogId;
use crate::clock::monotonic;
use crate::config::Tuning;
use crate::error::{Error, Reason, Result};

/// From so many entries, or so many bytes of log or state, on, a replica that has nothing is sent a checkpoint.
const CHECKPOINT_FROM_ENTRIES: u64 = 1_024;
const CHECKPOINT_FROM_BYTES: u64 = 1 << 20;
/// The log up to here says who the first members were, and that one of them led. Only who has nothing needs it.
const BEGINNING: u64 = 1;
/// The log that stays has at most this part of the state's bytes.
const LOG_SHARE: u64 = 4;
/// So much log stays however small the state is.
const LOG_BYTES_MIN: u64 = 1 << 20;
/// The log is cut when so much more than what stays has come together: each time the state is flushed.
const LOG_STEP_BYTES: u64 = 16 << 20;
const CUT_WAIT: Duration = Duration::from_secs(2);
/// A replica that lags no more has what was acknowledged.
const IN_STEP: Duration = Duration::from_secs(10);
/// Longest wait for the flush without which nothing of the log may go.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Index of a log id, 0 where there is none.
fn index(id: &Option<LogId>) -> u64 {
    id.as_ref().map_or(0, |id| id.index)
}

impl Replica {
    /// Has a replica that has nothing sent a checkpoint instead of a long log: files that keep to a rate and go on where
    /// they stopped, and nothing to apply again. For that the beginning of the log goes, which takes nothing from
    /// anybody else: whoever has anything has it.
    pub(super) async fn prefer_checkpoint(&self) -> Result<()> {
        let flushed = |metrics: &Metrics| metrics.snapshot.as_ref().is_some_and(|id| id.index >= BEGINNING);
        let (purged, last, covered) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (
                metrics.purged.is_some(),
                metrics.last_log_index.unwrap_or(0),
                flushed(&metrics),
            )
        };
        let is_long = || {
            let by_log = last >= CHECKPOINT_FROM_ENTRIES || self.state.applied_bytes() >= CHECKPOINT_FROM_BYTES;
            Ok::<bool, Error>(by_log || self.state.disk_bytes()? >= CHECKPOINT_FROM_BYTES)
        };
        if purged || !is_long()? {
            return Ok(());
        }
        if !covered {
            self.raft.trigger().snapshot().await.map_err(Error::internal)?;
            let waiting = self.raft.wait(Some(FLUSH_TIMEOUT));
            let waited = waiting.metrics(flushed, "the beginning of the log is flushed").await;
            waited.map_err(|error| Error::new(Reason::NoLeader, error.to_string()))?;
        }
        tracing::info!(group = self.group, last, "a new replica is sent a checkpoint");
        self.raft.trigger().purge_log(BEGINNING).await.map_err(Error::internal)
    }

    /// Flushes when there is enough to flush or `force` says so, then lets the log below the flushed state go: up to which
    /// index it was told to go now.
    pub async fn flush_and_purge(&self, tuning: &Tuning, force: bool) -> Result<u64> {
        self.forget_incoming(tuning).await?;
        if self.state.has_retired() {
            let state = self.state.clone();
            blocking(move || {
                state.sweep();
                Ok(())
            })
            .await?;
        }
        let applied = index(&self.raft.metrics().borrow_watched().last_applied);
        if applied == self.settled.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let state = self.state.clone();
        let persisted = index(&blocking(move || Ok(state.persisted()?.0)).await?);
        let unflushed = applied.saturating_sub(persisted);
        if unflushed >= tuning.entries_unflushed_max || (force && unflushed > 0) {
            let state = self.state.clone();
            match blocking(move || state.flush()).await {
                // Log that may go already makes room.
                Err(error) if error.reason() == Reason::DiskLow => {
                    tracing::warn!(group = self.group, %error, "flushed later");
                }
                flushed => flushed?,
            }
        }
        let state = self.state.clone();
        let flushed = index(&blocking(move || Ok(state.persisted()?.0)).await?);
        let (snapshot, purged) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (index(&metrics.snapshot), index(&metrics.purged))
        };
        self.state.log_purged(purged);
        let fence = [self.log_needed(flushed, tuning), self.log_unread(flushed, tuning)];
        let fence = fence.into_iter().flatten().min();
        let (entries_kept, bytes_kept) = self.log_kept(tuning)?;
        let by_bytes = self.state.purgeable(flushed, bytes_kept).unwrap_or(0);
        let upto = flushed.saturating_sub(entries_kept).max(by_bytes);
        let (upto, by_bytes) = match fence {
            Some(fence) => (upto.min(fence), by_bytes.min(fence)),
            None => (upto, by_bytes),
        };
        let piles_up = self.state.log_bytes(purged, flushed) > bytes_kept + LOG_STEP_BYTES;
        if upto > purged.saturating_add(tuning.log_entries_kept / 10) || by_bytes > purged && (piles_up || force) {
            // Only what a snapshot covers may go, and under load it is always a little behind: so both, every time.
            let covered = upto.min(snapshot);
            if snapshot > purged {
                self.raft.trigger().purge_log(covered).await.map_err(Error::internal)?;
            }
            if snapshot < upto {
                self.raft.trigger().snapshot().await.map_err(Error::internal)?;
            }
            return Ok(covered);
        }
        // What is kept for nobody but subscribers goes once they stay away, also where nothing is written any more.
        let waits = self.is_alone() && self.state.holds().is_wanted(monotonic());
        if flushed == applied && !waits && fence.is_none_or(|fence| fence >= flushed) {
            self.settled.store(applied, Ordering::Relaxed);
        }
        Ok(0)
    }

    /// Removes parts of a checkpoint that came for this replica, where it got what it lacked in another way.
    async fn forget_incoming(&self, tuning: &Tuning) -> Result<()> {
        let Ok(last_began) = self.receiving.alone.try_lock() else {
            return Ok(());
        };
        let in_step = self.votes() && self.lag().is_some_and(|lag| lag < IN_STEP);
        if in_step && last_began.elapsed() >= tuning.incoming_kept && self.state.has_incoming() {
            tracing::info!(
                group = self.group,
                "parts of a checkpoint that nobody sends any more go"
            );
            let state = self.state.clone();
            blocking(move || state.forget_incoming()).await?;
        }
        Ok(())
    }

    /// Lets go of all log that may go, now.
    pub(super) async fn cut_log(&self, tuning: &Tuning) -> Result<()> {
        let applied = index(&self.raft.metrics().borrow_watched().last_applied);
        self.raft.trigger().snapshot().await.map_err(Error::internal)?;
        let waiting = self.raft.wait(Some(FLUSH_TIMEOUT));
        let covered = waiting.metrics(|metrics| index(&metrics.snapshot) >= applied, "the state is flushed");
        covered
            .await
            .map_err(|error| Error::new(Reason::NoLeader, error.to_string()))?;
        self.settled.store(0, Ordering::Relaxed);
        let upto = self.flush_and_purge(tuning, true).await?;
        let cut = waiting.metrics(|metrics| index(&metrics.purged) >= upto, "the log is cut");
        tokio::time::timeout(CUT_WAIT, cut).await.ok();
        Ok(())
    }

    /// Entries and bytes of log that stay below the flushed state for replicas that lag. Never more than a part of what the
    /// state has: entries take several times the bytes of the same points at rest, and have to be applied again, so a
    /// checkpoint is the shorter way then. A replica without others keeps none, unless subscribers read it: they have no other
    /// replica to go to either.
    fn log_kept(&self, tuning: &Tuning) -> Result<(u64, u64)> {
        if self.is_alone() && !self.state.holds().is_wanted(monotonic()) {
            return Ok((0, 0));
        }
        let worth = (self.state.disk_bytes()? / LOG_SHARE).max(LOG_BYTES_MIN);
        Ok((tuning.log_entries_kept, tuning.log_bytes_kept.min(worth)))
    }

    /// Above which index others still need the log: those that a checkpoint is on its way to, and those that answer and
    /// lag. Whoever would need more than may be pinned gets a checkpoint instead. Only a leader sends.
    fn log_needed(&self, flushed: u64, tuning: &Tuning) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?;
        let index = |id: u64| matched.get(&id).and_then(|at| at.as_ref()).map_or(0, |at| at.index);
        let now = monotonic();
        let heard = metrics.heartbeat.iter().flatten();
        let answers =
            heard.filter(|(id, at)| **id != self.id && at.is_some_and(|at| at.elapsed() < tuning.silent_after));
        let lagging = answers.map(|(id, _)| index(*id)).filter(|index| *index > 0).min();
        let needed = [self.state.transfers().fence(index, now), lagging];
        let affordable = |from: &u64| self.state.log_bytes(*from, flushed) <= tuning.log_bytes_pinned;
        needed.into_iter().flatten().filter(affordable).min()
    }

    /// Above which index readers of this log have yet to read, as far as that costs no more than stays for a replica that lags a
    /// little.
    fn log_unread(&self, flushed: u64, tuning: &Tuning) -> Option<u64> {
        let read = self.state.holds().read_upto(monotonic()).into_iter();
        read.filter(|index| *index < flushed && self.state.log_bytes(*index, flushed) <= tuning.log_bytes_kept)
            .min()
    }
}
