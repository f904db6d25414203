//! Who repeats the past to a node: one at a time, and it rests in between. Never here: what is the past.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

/// A rest is so many times as long as the work before it, within bounds.
const REST: u32 = 2;
const REST_MAX: Duration = Duration::from_millis(200);

/// The turns at one node.
#[derive(Debug, Default)]
pub struct Turns {
    /// When it has rested from the last.
    rested: Mutex<Option<Instant>>,
}

/// A turn, until dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    rested: MutexGuard<'a, Option<Instant>>,
    began: Instant,
}

impl Turns {
    /// Waits for those before, and until the node has rested from the last of them.
    pub async fn next(&self) -> Turn<'_> {
        let rested = self.rested.lock().await;
        if let Some(at) = *rested {
            sleep_until(at).await;
        }
        Turn {
            rested,
            began: Instant::now(),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        *self.rested = now.checked_add((REST * (now - self.began)).min(REST_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_waits_for_the_one_before_and_its_rest() {
        const LONG: Duration = Duration::from_millis(30);
        let turns = Turns::default();
        let mut first = turns.next().await;
        first.began -= LONG;
        let second = async { turns.next().await.began };
        let (began, ended) = tokio::join!(second, async {
            drop(first);
            Instant::now()
        });
        assert!(began - ended >= REST * LONG, "{:?}", began - ended);
    }
}
