//! How many wide questions this node takes through their shards at once; more of them wait here, before anything is read for them.
//!
//! ```text
//! admitted ─> [ waiting, by turns of applications ] ─> going ─> answered
//!                    │ it has waited long enough         │ its reader is slow
//!                    v                                   v
//!              OVERLOADED, and when to come again    goes on, another one may begin
//! ```
//! A question that begins asks some shards at once, on any node: so few begin that nodes hardly ever have more reads than they take on,
//! else what was read for a question would be lost as soon as one of its shards is refused.
//!
//! Never here: reads of shards (`reads`), what a question is. Invariant: a place is given back once, however its question ends; who
//! waits no longer is not among those that wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::appointments::Appointments;
use super::turns::Turns;
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::metrics::{Metrics, Present};

/// Of the time that is left to a question, the part that it may wait: as much is left for the answer, or to ask again.
const WAIT_SHARE: u32 = 2;
/// Nobody waits longer: a client takes a node that says nothing for much more than that for one that is stuck, and asks another.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Lets wide questions begin.
#[derive(Debug)]
pub(super) struct Gate {
    most: usize,
    state: Mutex<State>,
    again: Appointments,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    going: usize,
    waiting: Turns<oneshot::Sender<()>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} going, {} waiting", self.going, self.waiting.len())
    }
}

/// One that waits, until dropped: it leaves the others, or gives the place on that it was granted and did not hear of.
struct Waiting<'g> {
    gate: &'g Arc<Gate>,
    granted: oneshot::Receiver<()>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.granted.close();
        match self.granted.try_recv() {
            Ok(()) => drop(Place(self.gate.clone())),
            Err(_) => self.gate.lock().waiting.retain(|waiting| !waiting.is_closed()),
        }
    }
}

/// A place of a question that has begun, until dropped.
#[derive(Debug)]
struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().going -= 1;
        self.0.serve();
    }
}

impl Gate {
    pub(super) fn new(most: usize, metrics: &Arc<Metrics>) -> Arc<Gate> {
        Arc::new(Gate {
            most,
            state: Mutex::default(),
            again: Appointments::default(),
            metrics: metrics.clone(),
        })
    }

    async fn enter(self: &Arc<Gate>, application: &str, until: Instant) -> Result<Place> {
        let (granting, granted) = oneshot::channel();
        let mut waiting = Waiting { gate: self, granted };
        self.lock().waiting.push(application.to_owned(), granting);
        self.serve();
        let _waiting = Present::new(self.metrics.clone(), |metrics| &metrics.queries_waiting);
        let left = until.saturating_duration_since(monotonic());
        match timeout((left / WAIT_SHARE).min(WAIT_MAX), &mut waiting.granted).await {
            Ok(Ok(())) => Ok(Place(self.clone())),
            Ok(Err(_)) => Err(Error::internal("a question lost its turn")),
            Err(_) => {
                let message = "this node is busy with as many wide questions as it may, and others wait";
                Err(Error::new(Reason::Overloaded, message).retry_after_ms(self.again.next_ms()))
            }
        }
    }

    /// Lets the next ones begin, as many as may.
    fn serve(self: &Arc<Gate>) {
        let mut state = self.lock();
        while state.going < self.most {
            let Some(next) = state.waiting.pop() else { return };
            // Who went away this moment has no use for it.
            if next.send(()).is_ok() {
                state.going += 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of one question.
#[derive(Debug)]
pub struct Turn {
    gate: Arc<Gate>,
    phase: Mutex<Phase>,
}

#[derive(Debug)]
enum Phase {
    Before,
    Going {
        _place: Place,
    },
    /// It goes on without a place.
    Past,
}

impl Turn {
    pub(super) fn new(gate: Arc<Gate>) -> Turn {
        Turn {
            gate,
            phase: Mutex::new(Phase::Before),
        }
    }

    /// Waits until the question may begin, if it has not.
    ///
    /// # Errors
    /// `OVERLOADED`, with a time to retry, where half of the time until `until` goes by, or two seconds.
    pub async fn come(&self, application: &str, until: Instant) -> Result<()> {
        if !matches!(*self.phase(), Phase::Before) {
            return Ok(());
        }
        let place = self.gate.enter(application, until).await?;
        *self.phase() = Phase::Going { _place: place };
        Ok(())
    }

    /// Lets another question begin, as this one waits for its reader.
    pub fn leave(&self) {
        let before = match &mut *self.phase() {
            Phase::Before => return,
            phase => std::mem::replace(phase, Phase::Past),
        };
        drop(before);
    }

    /// Whether it goes on without a place.
    pub fn is_past(&self) -> bool {
        matches!(*self.phase(), Phase::Past)
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use futures_util::FutureExt as _;

    use super::*;
    use crate::config::DiskReserve;
    use crate::disk::Disk;

    fn gate(most: usize) -> Arc<Gate> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path(), DiskReserve::Auto, None).unwrap();
        Gate::new(most, &Arc::new(Metrics::new(disk)))
    }

    fn later() -> Instant {
        monotonic() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn so_many_go_at_once_and_the_next_one_waits_for_a_place() {
        let gate = gate(2);
        let [a, b, c, d] = [0; 4].map(|_| Turn::new(gate.clone()));
        a.come("x", later()).await.unwrap();
        b.come("x", later()).await.unwrap();
        b.come("x", later()).await.unwrap();
        let mut third = Box::pin(c.come("x", later()));
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(gate.metrics.queries_waiting.get(), 1);
        drop(a);
        third.await.unwrap();
        let mut fourth = Box::pin(d.come("x", later()));
        assert!(fourth.as_mut().now_or_never().is_none());
        b.leave();
        fourth.await.unwrap();
        b.come("x", later()).await.unwrap();
        assert_eq!((gate.lock().going, gate.metrics.queries_waiting.get()), (2, 0));
        drop((b, c, d));
        assert_eq!(gate.lock().going, 0);
    }

    #[tokio::test]
    async fn who_went_away_is_passed_over() {
        let gate = gate(1);
        let [a, b, c] = [0; 3].map(|_| Turn::new(gate.clone()));
        a.come("x", later()).await.unwrap();
        let mut gone = Box::pin(b.come("x", later()));
        assert!(gone.as_mut().now_or_never().is_none());
        let mut next = Box::pin(c.come("x", later()));
        assert!(next.as_mut().now_or_never().is_none());
        drop(gone);
        drop(a);
        next.await.unwrap();
        assert_eq!(gate.lock().going, 1);
    }

    #[tokio::test]
    async fn those_who_went_away_are_not_among_those_who_wait() {
        let gate = gate(1);
        let first = Turn::new(gate.clone());
        first.come("x", later()).await.unwrap();
        for _ in 0..20_000 {
            let turn = Turn::new(gate.clone());
            assert!(turn.come("x", later()).now_or_never().is_none());
        }
        assert_eq!(gate.lock().waiting.len(), 0);
        // One that was granted a place and went away before it heard of it.
        let (second, third) = (Turn::new(gate.clone()), Turn::new(gate.clone()));
        let mut granted = Box::pin(second.come("x", later()));
        assert!(granted.as_mut().now_or_never().is_none());
        let mut next = Box::pin(third.come("x", later()));
        assert!(next.as_mut().now_or_never().is_none());
        drop(first);
        drop(granted);
        next.await.unwrap();
        assert_eq!(gate.lock().going, 1);
    }

    #[tokio::test]
    async fn who_waited_half_of_its_time_is_told_when_to_come_again() {
        let gate = gate(1);
        let [a, b] = [0; 2].map(|_| Turn::new(gate.clone()));
        a.come("x", later()).await.unwrap();
        let refused = b.come("x", monotonic() + Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::Overloaded);
        assert!(refused.retry_after() >= 100, "{}", refused.retry_after());
        assert_eq!(gate.lock().waiting.len(), 0);
    }
}
