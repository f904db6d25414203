//! Which of a stream's values are wanted: all of them, or those of one stretch.
//!
//! Never here: bytes. Invariant: `from <= to <= count`.

use std::ops::Range;

/// A stretch of the values of a stream.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Values of the whole stream.
    pub(crate) count: usize,
    /// First one that is wanted.
    pub(crate) from: usize,
    /// The one after the last that is wanted.
    pub(crate) to: usize,
}

impl Part {
    /// All values.
    pub(crate) fn all(count: usize) -> Part {
        Part {
            count,
            from: 0,
            to: count,
        }
    }

    /// Those of `range`, as far as there are such.
    pub(crate) fn of(range: Range<usize>, count: usize) -> Part {
        let to = range.end.min(count);
        Part {
            count,
            from: range.start.min(to),
            to,
        }
    }

    pub(crate) fn is_all(self) -> bool {
        self.len() == self.count
    }

    /// Values that are wanted.
    pub(crate) fn len(self) -> usize {
        self.to - self.from
    }

    /// What is wanted of values of which the first one is value `start` of the stream.
    pub(crate) fn cut<T>(self, mut values: Vec<T>, start: usize) -> Vec<T> {
        values.truncate(self.to - start);
        values.drain(..self.from - start);
        values
    }
}
