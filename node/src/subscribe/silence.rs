//! Devices that become silent, by the time at which they do: each is looked at when it is due, and nobody else. Pure.
//!
//! Invariant: a device waits once; every time up to `told` was looked at, and none behind it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

/// Devices of a shard that have not been silent for too long.
pub(super) struct Silences {
    told_ns: i64,
    due: BinaryHeap<Reverse<(i64, u32)>>,
    waiting: HashSet<u32>,
}

impl Silences {
    /// Those that became silent up to `told_ns` were told.
    pub(super) fn new(told_ns: i64) -> Silences {
        Silences {
            told_ns,
            due: BinaryHeap::new(),
            waiting: HashSet::new(),
        }
    }

    /// Up to when silence was told.
    pub(super) fn told_ns(&self) -> i64 {
        self.told_ns
    }

    /// A device becomes silent then, unless something comes. One that is silent already was told.
    pub(super) fn watch(&mut self, ordinal: u32, due_ns: i64) {
        if due_ns > self.told_ns && self.waiting.insert(ordinal) {
            self.due.push(Reverse((due_ns, ordinal)));
        }
    }

    /// When to look next.
    pub(super) fn next_ns(&self) -> Option<i64> {
        self.due.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// The next device that may have become silent by `now_ns`; at the end of them, everything up to then is told. One that is
    /// not silent after all is to be watched again.
    pub(super) fn pop(&mut self, now_ns: i64) -> Option<u32> {
        match self.due.peek() {
            Some(Reverse((due_ns, _))) if *due_ns <= now_ns => {
                let Reverse((_, ordinal)) = self.due.pop()?;
                self.waiting.remove(&ordinal);
                Some(ordinal)
            }
            _ => {
                self.told_ns = self.told_ns.max(now_ns);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_silence_is_due_once() {
        let mut silences = Silences::new(100);
        silences.watch(1, 90);
        silences.watch(2, 120);
        silences.watch(2, 130);
        silences.watch(3, 110);
        assert_eq!(silences.next_ns(), Some(110));
        assert_eq!(silences.pop(105), None);
        assert_eq!(silences.told_ns(), 105);
        assert_eq!(
            [silences.pop(125), silences.pop(125), silences.pop(125)],
            [Some(3), Some(2), None]
        );
        // It was not silent: a record came meanwhile.
        silences.watch(2, 140);
        silences.watch(3, 125);
        assert_eq!((silences.next_ns(), silences.told_ns()), (Some(140), 125));
        assert_eq!([silences.pop(200), silences.pop(200)], [Some(2), None]);
    }
}
