//! Checkpoints that are still wanted: a node deletes one that nobody reads for half an hour. Never: what is read of them.
//!
//! Invariant: from the moment it is there, a checkpoint is looked at now and then, whatever else is under way.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Addresses and names of the checkpoints that are there.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Vec<(String, String)>>);

impl Held {
    /// One more.
    pub(super) fn add(&self, address: &str, backup: &str) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.push((address.to_owned(), backup.to_owned()));
    }

    /// Does the work, and meanwhile looks at every checkpoint, those that come meanwhile included.
    pub(super) async fn while_wanted<T>(
        &self,
        every: Duration,
        look: &impl AsyncFn(String, String),
        work: impl Future<Output = T>,
    ) -> T {
        tokio::select! {
            done = work => done,
            never = self.look_on(every, look) => never,
        }
    }

    async fn look_on<T>(&self, every: Duration, look: &impl AsyncFn(String, String)) -> T {
        loop {
            tokio::time::sleep(every).await;
            let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (address, backup) in held {
                look(address, backup).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn the_first_checkpoint_is_looked_at_while_the_last_is_still_taken() {
        let held = Held::default();
        let (looked, mut at) = watch::channel(Vec::new());
        let look =
            async |address: String, backup: String| looked.send_modify(|seen| seen.push(format!("{address} {backup}")));
        let seen = |name: &'static str| move |seen: &Vec<String>| seen.iter().any(|one| one == name);
        // Each one comes only when the one before was looked at.
        let checkpoints = async {
            held.add("n1", "a");
            at.wait_for(seen("n1 a")).await.unwrap();
            held.add("n2", "b");
            at.wait_for(seen("n2 b")).await.unwrap();
            "taken"
        };
        let work = tokio::time::timeout(Duration::from_secs(10), checkpoints);
        assert_eq!(
            held.while_wanted(Duration::from_millis(1), &look, work).await.unwrap(),
            "taken"
        );
    }
}
