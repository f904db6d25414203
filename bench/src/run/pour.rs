//! Batches into a store: as fast as they are acknowledged, or when the clock says so. Never here: which batches, or what
//! they cost. Invariant: with a rate, a batch's time counts from when it was due, so that a stall shows in every batch that
//! waited for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::batches::Batch;
use super::fleet::Fleet;
use super::stores::Session;
use crate::report::Latencies;

/// One acknowledged batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    /// Position among the batches.
    pub(crate) at: usize,
    /// When it was due or sent, from the beginning.
    pub(crate) due: Duration,
    pub(crate) took: Duration,
}

/// What became of the batches.
#[derive(Debug, Default)]
pub(crate) struct Poured {
    pub(crate) rows: u64,
    pub(crate) points: u64,
    pub(crate) seconds: f64,
    pub(crate) events: Vec<Event>,
    /// Batches whose fate is not known: sent, not acknowledged. Only where that was asked for.
    pub(crate) unknown: Vec<usize>,
}

/// How they go in.
#[derive(Debug, Clone)]
pub(crate) struct How {
    /// Rows that are due a second; 0: as fast as they are acknowledged.
    pub(crate) rows_per_second: f64,
    /// Set: no batch is begun any more, and a failure is no error but a batch of unknown fate.
    pub(crate) ends: Option<Arc<AtomicBool>>,
    /// Waits so long after each acknowledgement.
    pub(crate) pause: Duration,
}

impl How {
    pub(crate) fn rate(rows_per_second: f64) -> How {
        How {
            rows_per_second,
            ends: None,
            pause: Duration::ZERO,
        }
    }
}

struct Work {
    fleet: Arc<Fleet>,
    batches: Vec<Batch>,
    /// When each is due; none: at once.
    due: Vec<Duration>,
    next: AtomicUsize,
    began: Instant,
    how: How,
}

/// Writes all batches, one at a time on each session.
pub(crate) async fn pour(fleet: &Arc<Fleet>, sessions: Vec<Session>, batches: Vec<Batch>, how: How) -> Result<Poured> {
    let mut due = Vec::new();
    if how.rows_per_second > 0.0 {
        let mut rows = 0;
        for batch in &batches {
            due.push(Duration::from_secs_f64(rows as f64 / how.rows_per_second));
            rows += batch.len();
        }
    }
    let work = Arc::new(Work {
        fleet: Arc::clone(fleet),
        batches,
        due,
        next: AtomicUsize::new(0),
        began: Instant::now(),
        how,
    });
    let mut tasks = JoinSet::new();
    for session in sessions {
        tasks.spawn(one_by_one(Arc::clone(&work), session));
    }
    let mut all = Poured::default();
    while let Some(done) = tasks.join_next().await {
        let (events, unknown) = done??;
        all.events.extend(events);
        all.unknown.extend(unknown);
    }
    all.seconds = work.began.elapsed().as_secs_f64();
    for batch in all.events.iter().filter_map(|event| work.batches.get(event.at)) {
        all.rows += batch.len() as u64;
        all.points += batch.points(fleet);
    }
    all.events.sort_by_key(|event| event.due);
    Ok(all)
}

async fn one_by_one(work: Arc<Work>, mut session: Session) -> Result<(Vec<Event>, Vec<usize>)> {
    let (mut events, mut unknown) = (Vec::new(), Vec::new());
    let ended = || work.how.ends.as_ref().is_some_and(|ends| ends.load(Ordering::Relaxed));
    while !ended() {
        let at = work.next.fetch_add(1, Ordering::Relaxed);
        let Some(batch) = work.batches.get(at) else { break };
        let payload = session.encode(&work.fleet, batch);
        let due = match work.due.get(at) {
            Some(due) => {
                tokio::time::sleep_until((work.began + *due).into()).await;
                *due
            }
            None => work.began.elapsed(),
        };
        match session.write(payload).await {
            Ok(()) => events.push(Event {
                at,
                due,
                took: work.began.elapsed().saturating_sub(due),
            }),
            Err(_) if work.how.ends.is_some() => {
                unknown.push(at);
                break;
            }
            Err(error) => return Err(error),
        }
        if !work.how.pause.is_zero() {
            tokio::time::sleep(work.how.pause).await;
        }
    }
    Ok((events, unknown))
}

/// The latencies of events that were due in a span.
pub(crate) fn latencies(events: &[Event], from: Duration, to: Duration) -> Result<Latencies> {
    let mut all = Latencies::new()?;
    events
        .iter()
        .filter(|event| (from..to).contains(&event.due))
        .for_each(|event| all.record(event.took));
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn latencies_are_cut_by_when_a_batch_was_due() {
        let event = |s: u64, ms: u64| Event {
            at: 0,
            due: Duration::from_secs(s),
            took: Duration::from_millis(ms),
        };
        let events = [event(1, 10), event(2, 500), event(3, 20)];
        let of = |from, to| latencies(&events, Duration::from_secs(from), Duration::from_secs(to)).unwrap();
        assert_eq!((of(0, 2).count(), of(2, 3).count(), of(0, 9).count()), (1, 1, 3));
        assert!(of(2, 3).quantile_ms(0.5) >= 499.0);
    }
}
