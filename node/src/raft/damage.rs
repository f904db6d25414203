//! Damage that a running replica finds in what it keeps: noted, shown, and no reason to lead where another one can.
//!
//! Never here: what is damaged, who is asked instead. Invariant: a replica with damage goes on: it votes, logs and answers what it can,
//! since a majority that is complete comes before one that is flawless; that another replica takes its place is for the operator.

use std::time::Duration;

use super::replica::Replica;
use crate::error::Error;

/// Longest wait for another leader.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

impl Replica {
    /// Notes that something that it keeps could not be read; the first time, leadership goes to another replica that answers, if there
    /// is one.
    pub async fn found_damage(&self, error: &Error) {
        if self.damage.set(error.to_string()).is_err() {
            return;
        }
        let group = self.group;
        tracing::error!(group, replica = self.id, %error, "replica is damaged; another one has to take its place");
        if let Err(error) = self.hand_over(HAND_OVER_TIMEOUT).await {
            tracing::warn!(group, %error, "leadership not handed over");
        }
    }

    /// What it found damaged.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }
}
