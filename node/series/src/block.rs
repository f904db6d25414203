//! One block of records as bytes.
use crate::corrupt::Corrupt;
use crate::partial::Partial;
use crate::record::{Column, PropertyNumber, Records};

/// Most rows of one block.
pub const BLOCK_ROWS_MAX: usize = 4096;

/// Statistics of one column, kept in the header of its block.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnStats {
    /// What folding every value of the column gives.
    pub partial: Partial,
}

impl ColumnStats {
    /// Number of values.
    pub fn count(&self) -> u64 {
        self.partial.count()
    }
}

/// A block whose header was checked and whose columns were not touched.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    bytes: &'a [u8],
    rows: usize,
    first_ns: i64,
    last_ns: i64,
    properties: Vec<PropertyNumber>,
}

/// Encodes normalised records of 1 to [`BLOCK_ROWS_MAX`] rows.
pub fn encode(_records: &Records) -> Vec<u8> {
    Vec::new()
}

impl<'a> Block<'a> {
    /// Reads the header at the start of `bytes` and checks it; also gives what follows the block.
    ///
    /// # Errors
    /// The header is damaged or of an unknown version, or the block is cut short.
    pub fn parse(bytes: &'a [u8]) -> Result<(Block<'a>, &'a [u8]), Corrupt> {
        Err(Corrupt::new("block", bytes.len()))
    }
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Earliest observation time.
    pub fn first_ns(&self) -> i64 {
        self.first_ns
    }
    /// Latest observation time.
    pub fn last_ns(&self) -> i64 {
        self.last_ns
    }
    /// Length of the block in bytes.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
    /// The block's own bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    /// Properties with a column, ascending.
    pub fn properties(&self) -> impl Iterator<Item = PropertyNumber> + '_ {
        self.properties.iter().copied()
    }
    /// Statistics of a column, where the block carries them.
    pub fn stats(&self, _property: PropertyNumber) -> Option<ColumnStats> {
        None
    }
    /// Observation times of all rows.
    ///
    /// # Errors
    /// The column is damaged.
    pub fn times(&self) -> Result<Vec<i64>, Corrupt> {
        Err(Corrupt::new("times", 0))
    }
    /// One column, its checksum verified; `None` where the block has none of this property.
    ///
    /// # Errors
    /// The column is damaged.
    pub fn column(&self, _property: PropertyNumber) -> Result<Option<Column>, Corrupt> {
        Ok(None)
    }
    /// All rows, with all columns or only those of `projection`.
    ///
    /// # Errors
    /// A column that was read is damaged.
    pub fn decode(&self, _projection: Option<&[PropertyNumber]>) -> Result<Records, Corrupt> {
        Err(Corrupt::new("block", 0))
    }
}
