//! How far a replica may be behind, without comparing the clocks of two machines. Never here: what is done about it.
//!
//! ```text
//! follower   ── answer, sent at f ──────────┐                  ┌─> marks: once `index` is applied,
//!                                           v                  │   lag = its clock now - as-of
//! leader             ...  confirmed ... came at r ... ── append with as-of f + (confirmed - r), index
//! ```
//!
//! An answer that came at `r` was sent before, so what the leader knows of a time of its own it also knows of one on the
//! follower's clock, and is never too late with it. `confirmed` is the last time at which nobody else can have led: a
//! majority, this replica and the accepting follower among it, had no other leader since. `index` is what the leader
//! has applied, and it has applied an entry of its own, hence all that was acknowledged before it led.
//!
//! Invariant: a lag is never stated too short, whatever is lost, late or cut in one direction only, as long as clocks
//! run, and run equally fast to one part in `DRIFT`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use openraft::type_config::alias::WatchReceiverOf;
use tidemark_proto::peer::{AsOf, Moment};

use super::log_cache::Group;
use super::replica::{Metrics, is_alone};
use super::state::ReplicaState;
use super::types::{TypeConfig, Vote};
use crate::clock::{Instant, monotonic};

/// Clocks that are told to catch up do so by half of one part in a thousand.
const DRIFT: u32 = 1_000;
/// Moments that wait for entries to be applied; past it, the newest takes the place of the one before.
const AHEAD_MAX: usize = 64;

/// What one replica knows of time, as a leader and as a follower.
pub(super) struct Lag {
    id: u64,
    /// Names the clock that `began` starts.
    run: u64,
    began: Instant,
    log: Arc<Group>,
    state: Arc<ReplicaState>,
    metrics: OnceLock<WatchReceiverOf<TypeConfig, Metrics>>,
    /// Last answers of the others, by replica.
    answers: Mutex<BTreeMap<u64, Answer>>,
    marks: Mutex<Marks>,
}

/// When an answer was sent on its sender's clock, and when it came on ours.
#[derive(Copy, Clone)]
struct Answer {
    sent: Moment,
    came: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lag {
    /// Of a replica that starts, over its log and state.
    pub(super) fn new(id: u64, log: Arc<Group>, state: Arc<ReplicaState>) -> Lag {
        Lag {
            id,
            run: rand::random(),
            began: monotonic(),
            log,
            state,
            metrics: OnceLock::new(),
            answers: Mutex::default(),
            marks: Mutex::default(),
        }
    }

    /// Nothing is known before this was called.
    pub(super) fn watch(&self, metrics: WatchReceiverOf<TypeConfig, Metrics>) {
        self.metrics.set(metrics).ok();
    }

    /// Now, for an answer.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            run: self.run,
            micros: self.began.elapsed().as_micros() as u64,
        }
    }

    /// An answer of another replica came.
    pub(super) fn answered(&self, by: u64, sent: Moment) {
        let came = monotonic();
        lock(&self.answers).insert(by, Answer { sent, came });
    }

    /// What another replica may know once it accepts `vote`; `None` while this one cannot say.
    pub(super) fn as_of(&self, vote: &Vote, to: u64) -> Option<AsOf> {
        let (confirmed, index) = self.confirmed(monotonic(), Some(to))?;
        if self.log.lock().vote != Some(*vote) {
            return None;
        }
        let answer = lock(&self.answers).get(&to).copied()?;
        let moment = answer.at(confirmed)?;
        Some(AsOf {
            moment: Some(moment),
            index,
        })
    }

    /// A leader's word on what has to be applied here, after its vote was accepted.
    pub(super) fn accepted(&self, as_of: AsOf) {
        let Some(moment) = as_of.moment.filter(|moment| moment.run == self.run) else {
            return;
        };
        if let Some(at) = self.began.checked_add(Duration::from_micros(moment.micros)) {
            let (index, at) = (as_of.index, at.min(monotonic()));
            lock(&self.marks).note(Mark { index, at });
        }
    }

    /// How long ago at most something was acknowledged that is not here; `None` when nothing is known.
    pub(super) fn lag(&self) -> Option<Duration> {
        let now = monotonic();
        let as_of = match self.confirmed(now, None) {
            Some((confirmed, _)) => Some(confirmed),
            None => {
                let applied = self.state.last_applied().map_or(0, |id| id.index);
                lock(&self.marks).reached(applied)
            }
        };
        Some(now.saturating_duration_since(as_of?))
    }

    /// Whether all that was acknowledged until now is applied here, without anybody to ask: this replica leads, and is all of its group.
    /// Whoever else is to lead has to be a member first, of which this replica's core tells between any two of its steps.
    pub(super) fn is_all_there(&self) -> bool {
        let alone = self
            .metrics
            .get()
            .is_some_and(|metrics| is_alone(&metrics.borrow_watched()));
        let now = monotonic();
        alone && self.confirmed(now, None).is_some_and(|(confirmed, _)| confirmed == now)
    }

    /// Where this replica leads: the last time at which nobody else can have led, and the index up to which everything
    /// lies that was acknowledged until then. `accepting` counts as one that agrees now.
    fn confirmed(&self, now: Instant, accepting: Option<u64>) -> Option<(Instant, u64)> {
        // On disk before anybody is told of it: with our own vote here, no other replica has got one from us.
        let vote = self.log.lock().vote?;
        if vote.leader_id.node_id != self.id || !vote.committed {
            return None;
        }
        let applied = self.state.last_applied()?;
        if applied.leader_id != vote.leader_id {
            return None;
        }
        let metrics = self.metrics.get()?.borrow_watched();
        let heard = metrics.heartbeat.as_ref()?;
        let agreed = |id: u64| match id == self.id || Some(id) == accepting {
            true => Some(now),
            false => now.checked_sub(heard.get(&id)?.as_ref()?.elapsed()),
        };
        let voters = metrics.membership_config.membership().get_joint_config();
        let confirmed = voters
            .iter()
            .map(|voters| majority(voters.iter().map(|id| agreed(*id)).collect()))
            .min()??;
        Some((confirmed, applied.index))
    }
}

impl Answer {
    /// A time of ours on the clock of the sender, or one before it; `None` before that clock began.
    fn at(&self, ours: Instant) -> Option<Moment> {
        let later = ours.saturating_duration_since(self.came);
        let earlier = self.came.saturating_duration_since(ours);
        let micros = |time: Duration| time.as_micros() as u64;
        let later = micros(later.saturating_sub(later / DRIFT));
        let earlier = micros(earlier + earlier / DRIFT) + u64::from(!earlier.is_zero());
        let moment = Moment {
            run: self.sent.run,
            micros: self.sent.micros.saturating_add(later).checked_sub(earlier)?,
        };
        Some(moment)
    }
}

/// The latest time since when a majority agrees; `None` when it never did.
fn majority(mut agreed: Vec<Option<Instant>>) -> Option<Instant> {
    agreed.sort_unstable();
    // Of five, the third smallest: it and the two above it agree since then.
    *agreed.get(agreed.len().checked_sub(1)? / 2)?
}

/// Everything acknowledged before a time has an index up to this one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Mark {
    index: u64,
    at: Instant,
}

/// What leaders said, until it is applied. Indexes and times grow together.
#[derive(Default)]
struct Marks {
    reached: Option<Instant>,
    ahead: VecDeque<Mark>,
}

impl Marks {
    fn note(&mut self, mark: Mark) {
        while self
            .ahead
            .back()
            .is_some_and(|last| last.index >= mark.index && last.at <= mark.at)
        {
            self.ahead.pop_back();
        }
        if self
            .ahead
            .back()
            .is_some_and(|last| last.index >= mark.index || last.at >= mark.at)
        {
            // Overtaken on its way.
            return;
        }
        if self.ahead.len() == AHEAD_MAX {
            self.ahead.pop_back();
        }
        self.ahead.push_back(mark);
    }

    /// The time before which everything is here.
    fn reached(&mut self, applied: u64) -> Option<Instant> {
        while self.ahead.front().is_some_and(|mark| mark.index <= applied) {
            let reached = self.ahead.pop_front().map(|mark| mark.at);
            self.reached = self.reached.max(reached);
        }
        self.reached
    }
}

#[cfg(test)]
#[path = "lag_tests.rs"]
mod tests;
