//! The sections of a block in the making: all in one buffer, so that a block of a few bytes costs few allocations.
//!
//! Never here: what a section holds. Invariant: the parts are in the order in which the block will have them.

use std::ops::Range;

/// One section and what its descriptor says before the length and after the CRC, each a range of the sections' bytes.
pub(super) struct Part {
    pub(super) before: Range<usize>,
    pub(super) bytes: Range<usize>,
    pub(super) after: Range<usize>,
}

/// Sections in the making, all in one buffer.
#[derive(Default)]
pub(super) struct Sections {
    pub(super) buffer: Vec<u8>,
    pub(super) parts: Vec<Part>,
}

impl Sections {
    /// Appends with `put` and says where that is.
    pub(super) fn range(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.buffer.len();
        put(&mut self.buffer);
        start..self.buffer.len()
    }

    /// A section of which the descriptor says nothing else.
    pub(super) fn plain(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let bytes = self.range(put);
        self.parts.push(Part {
            before: 0..0,
            bytes,
            after: 0..0,
        });
    }

    pub(super) fn at(&self, range: &Range<usize>) -> &[u8] {
        self.buffer.get(range.clone()).unwrap_or_default()
    }

    /// Bytes of all sections.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.len()).sum()
    }
}
