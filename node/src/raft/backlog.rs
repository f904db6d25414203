//! How many bytes of log lie behind an applied index, coarsely: what log purging is decided by. Never: I/O.
//!
//! Invariant: memory is one mark per mebibyte of log that is still kept; an index is never called old that is not.

use std::collections::VecDeque;

const MARK_BYTES: u64 = 1 << 20;

/// Marks of index and total bytes applied so far, since this process started.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    marks: VecDeque<(u64, u64)>,
    total: u64,
}

impl Backlog {
    /// Notes that entries up to `index`, `bytes` together, were applied.
    pub(super) fn add(&mut self, index: u64, bytes: u64) {
        self.total += bytes;
        if self.total - self.marks.back().map_or(0, |(_, total)| *total) >= MARK_BYTES {
            self.marks.push_back((index, self.total));
        }
    }

    /// Bytes applied since this process started, in the log or no longer.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes applied behind `from` up to `to`, as far as the marks tell: never more than there are.
    pub(super) fn bytes_between(&self, from: u64, to: u64) -> u64 {
        let total_at = |index| {
            self.marks
                .iter()
                .rev()
                .find(|(mark, _)| *mark <= index)
                .map(|(_, total)| *total)
        };
        let first = self.marks.front().map_or(0, |(_, total)| *total);
        total_at(to).map_or(0, |to| to.saturating_sub(total_at(from).unwrap_or(first)))
    }

    /// The newest index with at least `kept` bytes of log between it and `flushed`.
    pub(super) fn purgeable(&self, flushed: u64, kept: u64) -> Option<u64> {
        let at_flushed = self.marks.iter().rev().find(|(index, _)| *index <= flushed)?.1;
        let old = |(_, total): &&(u64, u64)| total + kept <= at_flushed;
        self.marks.iter().rev().find(old).map(|(index, _)| *index)
    }

    /// Forgets what is no longer in the log.
    pub(super) fn forget(&mut self, upto: u64) {
        while self.marks.front().is_some_and(|(first, _)| *first < upto) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_decide_what_is_old() {
        let mut backlog = Backlog::default();
        for index in 1..=100 {
            backlog.add(index, MARK_BYTES);
        }
        assert_eq!(backlog.purgeable(100, 10 * MARK_BYTES), Some(90));
        assert_eq!(backlog.purgeable(95, 10 * MARK_BYTES), Some(85));
        assert_eq!(backlog.bytes_between(1, 100), 99 * MARK_BYTES);
        backlog.forget(90);
        assert_eq!(
            backlog.purgeable(95, 10 * MARK_BYTES),
            None,
            "what is older is gone already"
        );
        assert_eq!(backlog.purgeable(50, 10 * MARK_BYTES), None);
        backlog.add(101, 1);
        assert_eq!(
            backlog.purgeable(101, 10 * MARK_BYTES),
            Some(90),
            "small entries move nothing"
        );
        assert_eq!(backlog.bytes_between(92, 100), 8 * MARK_BYTES);
        assert_eq!(
            backlog.bytes_between(1, 100),
            10 * MARK_BYTES,
            "what is forgotten does not count"
        );
        assert_eq!(backlog.bytes_between(0, 50), 0);
    }
}
