//! When those that were refused may come again: one after the other, so that however many they are, few ask at once.
//!
//! Never here: whether somebody is refused. Invariant: the n-th of those that are refused together is told to come `SPACING` after
//! the one before, none later than `LATEST`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Instant, monotonic};

/// The first one may come after this.
const SOONEST: Duration = Duration::from_millis(200);
/// Between one and the next: so many that ask in vain cost a node little.
const SPACING: Duration = Duration::from_millis(20);
/// Nobody is sent away for longer.
const LATEST: Duration = Duration::from_secs(10);

/// Times that were given away.
#[derive(Debug, Default)]
pub struct Appointments {
    last: Mutex<Option<Instant>>,
}

impl Appointments {
    /// Gives the next time away, in milliseconds from now.
    pub fn next_ms(&self) -> u64 {
        u64::try_from(self.next(monotonic()).as_millis()).unwrap_or(u64::MAX)
    }

    fn next(&self, now: Instant) -> Duration {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let soonest = now + SOONEST;
        let next = last
            .map_or(soonest, |last| soonest.max(last + SPACING))
            .min(now + LATEST);
        *last = Some(next);
        next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_are_refused_the_later_each_may_come() {
        let (again, now) = (Appointments::default(), monotonic());
        assert_eq!(again.next(now), SOONEST);
        assert_eq!(again.next(now), SOONEST + SPACING);
        assert_eq!(again.next(now + SPACING), SOONEST + SPACING);
        let after_many = (0..1_000).map(|_| again.next(now)).last();
        assert_eq!(after_many, Some(LATEST));
        assert_eq!(again.next(now + LATEST * 2), SOONEST, "who came by then is gone");
    }
}
