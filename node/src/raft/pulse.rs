//! The one clock of all groups of this node: it sends the heartbeats of those it leads, all at the same moment, and lets
//! the timers of the others run only while their leader is silent. Never: who may lead; that stays with each group.
//!
//! Invariant: a timer that runs too long costs a little CPU, one that is off costs an election at most `BEAT`: safety
//! never depends on this file, and a group whose leader was not heard for `SILENT_AFTER` counts its own time again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::host::Host;

/// How often groups are looked at. Heartbeats go at every second look.
const BEAT: Duration = Duration::from_millis(175);
/// Longer than between two heartbeats, with some room; shorter than an election timeout less two looks.
pub(super) const SILENT_AFTER: Duration = Duration::from_millis(550);
/// Heartbeats of one moment leave together.
const GATHER: Duration = Duration::from_millis(4);

/// Runs as long as the host is there.
pub(super) async fn run(host: Weak<Host>) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for beat in 0u64.. {
        beats.tick().await;
        let Some(host) = host.upgrade() else { return };
        one(&host, beat % 2 == 0);
    }
}

fn one(host: &Arc<Host>, heartbeats: bool) {
    if heartbeats {
        host.peers().gather().begin(GATHER);
    }
    for replica in host.replicas() {
        replica.pulse(heartbeats);
    }
}
