//! One block: the records of one device over a stretch of time, in columns. Versions 1 and 2:
//!
//! ```text
//! block    = header | sections in the order of their descriptors
//! header   = version u8: 1, or 2 where rows have repeats (all else is the same)
//!          | flags u8: 0x01 small  one CRC-32C covers header and sections, descriptors carry none
//!          |           0x02 equal  rows of equal time may follow each other (the newest values of a device)
//!          |           0x04 delay  the receipt section holds received_at - observed_at (else received_at)
//!          |           0x08 kind   all rows have one report kind, it stands in the header
//!          |           high nibble: unit of time differences, index into `units::UNITS_NS`
//!          | rows (varint, 1..=4096)
//!          | first observed_at (i64 little endian)
//!          | last - first (varint, in units)                            only where rows > 1
//!          | report kind u8                                             only with flag kind
//!          | number of presences (varint) | number of columns (varint)
//!          | times     descriptor: length (varint) | crc                only where rows > 1
//!          | receipts  descriptor: length (varint) | crc
//!          | kinds     descriptor: length (varint) | crc                only without flag kind
//!          | repeats   descriptor: rows with some (varint) | sum (varint) | length (varint) | crc   only in version 2
//!          | presences descriptors: form u8 | rows set (varint) | length (varint) | crc
//!          | columns   descriptors, ascending:
//!          |   property (varint; after the first: less the one before, less one)
//!          |   shape u8: type in the 3 low bits (1 f64, 2 i64, 3 bool, 4 enum, 5 text), 0x08 statistics, 0x10 qualities
//!          |   presence (varint: 0 every row, n the n-th)               only where there are presences
//!          |   encoding u8: form of doubles and texts                  only for these; others are int streams
//!          |   length (varint) | crc
//!          |   statistics with their length (varint), see `stats`       only with shape 0x08
//!          | crc of the header (small: of the header and all sections)
//! crc      = CRC-32C, u32 little endian; that of a section is absent in small blocks
//! times    = int stream of differences between rows, in units, or those of several clocks, see `clocks`
//! receipts, kinds = int stream
//! repeats  = see `repeats`
//! column   = qualities, an int stream with its length (with shape 0x10) | values
//! ```
//! All other versions, flags, shapes and encodings are free.
//!
//! Never here: several blocks (see `bucket`). Invariants: equal records give equal bytes; a reader checks the CRC of
//! every section it touches, touches only those it needs, and no bytes make it panic.

mod clocks;
mod describe;
mod fold;
mod header;
mod like;
mod read;
mod records;
mod repeats;
mod sections;
mod sizes;
mod stats;
mod units;
mod write;

pub(crate) use clocks::read_clocks;
pub use fold::{Accepted, Folding, Points};
pub(crate) use like::decode as read_like;
pub use read::Block;
pub(crate) use read::{Receipts, Ticks};
pub use records::Projection;
pub(crate) use repeats::read_repeats;
pub use sizes::Sizes;
pub use stats::ColumnStats;
pub(crate) use stats::read_stats;
pub use write::encode;

/// Most rows of one block.
pub const BLOCK_ROWS_MAX: usize = 4096;
