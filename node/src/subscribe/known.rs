//! The newest records of devices as far as a follower knows them: what is late is judged by them. Pure.
//!
//! Invariant: what an entry brings counts only for the entries behind it.

use std::collections::HashMap;

/// Observation times by ordinal.
#[derive(Default)]
pub(super) struct Known {
    newest: HashMap<u32, i64>,
    /// Of the state at which the follower began, while it reads what led there.
    later: Option<(u64, HashMap<u32, i64>)>,
    /// Of the entry that is being read.
    entry: HashMap<u32, i64>,
}

impl Known {
    /// What the state at `index` has; it counts once everything up to there was read.
    pub(super) fn begin(&mut self, index: u64, newest: HashMap<u32, i64>) {
        self.later = Some((index, newest));
    }

    /// Everything up to `index` was read.
    pub(super) fn read_upto(&mut self, index: u64) {
        for (ordinal, observed) in self.entry.drain() {
            note(&mut self.newest, ordinal, observed);
        }
        if let Some((_, newest)) = self.later.take_if(|(at, _)| *at <= index) {
            for (ordinal, observed) in newest {
                note(&mut self.newest, ordinal, observed);
            }
        }
    }

    /// What a device had before all that was read of it.
    pub(super) fn learn(&mut self, ordinal: u32, observed: i64) {
        note(&mut self.newest, ordinal, observed);
    }

    /// A record of the entry that is being read.
    pub(super) fn note(&mut self, ordinal: u32, observed: i64) {
        note(&mut self.entry, ordinal, observed);
    }

    /// Nothing is known of a device any more.
    pub(super) fn forget(&mut self, ordinal: u32) {
        self.newest.remove(&ordinal);
        if let Some((_, newest)) = &mut self.later {
            newest.remove(&ordinal);
        }
    }

    /// Whether something that led to the state of the beginning was not read.
    pub(super) fn is_behind(&self) -> bool {
        self.later.is_some()
    }

    /// The newest record of a device before the entry that is being read.
    pub(super) fn before(&self, ordinal: u32) -> Option<i64> {
        self.newest.get(&ordinal).copied()
    }

    /// The newest record of a device, whatever was read so far.
    pub(super) fn newest(&self, ordinal: u32) -> Option<i64> {
        let later = self.later.as_ref().and_then(|(_, newest)| newest.get(&ordinal));
        later.copied().max(self.before(ordinal))
    }
}

fn note(newest: &mut HashMap<u32, i64>, ordinal: u32, observed: i64) {
    let kept = newest.entry(ordinal).or_insert(observed);
    *kept = observed.max(*kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_state_had_counts_from_there_on() {
        let mut known = Known::default();
        known.begin(7, HashMap::from([(1, 50), (2, 60)]));
        assert_eq!((known.before(1), known.newest(1)), (None, Some(50)));
        known.note(1, 40);
        assert_eq!(known.before(1), None, "rows of one entry do not make each other late");
        known.read_upto(6);
        assert_eq!((known.before(1), known.before(2)), (Some(40), None));
        known.note(1, 45);
        known.read_upto(7);
        assert_eq!((known.before(1), known.before(2)), (Some(50), Some(60)));
    }
}
