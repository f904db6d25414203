//! Where the bytes of a block go, for whoever measures.
//!
//! Never here: contents. Invariant: the parts add up to the block.

use super::Block;

/// Bytes of a block by what they are for.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Descriptors and checksums.
    pub header: usize,
    /// Statistics of columns.
    pub statistics: usize,
    /// Observation times.
    pub times: usize,
    /// Times of receipt.
    pub receipts: usize,
    /// Report kinds.
    pub kinds: usize,
    /// How often rows were sent again.
    pub repeats: usize,
    /// Which rows have a value.
    pub presences: usize,
    /// Values and qualities.
    pub values: usize,
}

impl Sizes {
    /// Of one block.
    pub fn of(block: &Block<'_>) -> Sizes {
        let header = block.header();
        let mut sizes = Sizes {
            statistics: header.columns.iter().filter_map(|c| c.stats).map(<[u8]>::len).sum(),
            times: header.times.as_ref().map_or(0, |s| s.len),
            receipts: header.receipts.len,
            kinds: header.kinds.as_ref().map_or(0, |s| s.len),
            repeats: header.repeats.as_ref().map_or(0, |r| r.section.len),
            presences: header.presences.iter().map(|p| p.section.len).sum(),
            values: header.columns.iter().map(|c| c.section.len).sum(),
            header: 0,
        };
        sizes.header = block.byte_len() - sizes.total();
        sizes
    }

    /// All of them.
    pub fn total(&self) -> usize {
        let rows = self.times + self.receipts + self.kinds + self.repeats + self.presences;
        self.header + self.statistics + rows + self.values
    }

    /// Adds those of another block.
    pub fn add(&mut self, other: Sizes) {
        self.header += other.header;
        self.statistics += other.statistics;
        self.times += other.times;
        self.receipts += other.receipts;
        self.kinds += other.kinds;
        self.repeats += other.repeats;
        self.presences += other.presences;
        self.values += other.values;
    }
}
