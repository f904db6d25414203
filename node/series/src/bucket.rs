//! The value under one key: blocks one after another.
use crate::block::Block;
use crate::corrupt::Corrupt;
use crate::record::{PropertyNumber, Records};

/// The blocks of a bucket value, by time.
#[derive(Clone, Debug)]
pub struct BlockIter<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Iterator for BlockIter<'a> {
    type Item = Result<Block<'a>, Corrupt>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Block::parse(self.rest) {
            Ok((block, rest)) => {
                self.at += block.byte_len();
                self.rest = rest;
                Some(Ok(block))
            }
            Err(corrupt) => {
                self.rest = &[];
                Some(Err(corrupt.shift(self.at)))
            }
        }
    }
}

/// The blocks of a bucket value, by time. After an error there are no more.
pub fn blocks(value: &[u8]) -> BlockIter<'_> {
    BlockIter { rest: value, at: 0 }
}

/// Folds operands (oldest first, log order) over the existing value. Only blocks that new rows fall into are decoded
/// and rewritten; the rest is copied byte for byte. Cost linear in bytes.
///
/// # Errors
/// The existing value or an operand is damaged.
pub fn merge<'a>(existing: Option<&[u8]>, operands: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Corrupt> {
    let mut parts = Vec::new();
    for value in existing.into_iter() {
        parts.push(decode(value, None)?);
    }
    for value in operands {
        parts.push(decode(value, None)?);
    }
    Ok(encode(&Records::merge_all(parts)))
}

/// The whole bucket as one `Records`; with a projection only those columns, all rows.
///
/// # Errors
/// A block or a column that was read is damaged.
pub fn decode(value: &[u8], projection: Option<&[PropertyNumber]>) -> Result<Records, Corrupt> {
    let mut parts = Vec::new();
    for block in blocks(value) {
        parts.push(block?.decode(projection)?);
    }
    Ok(Records::merge_all(parts))
}

/// Encodes normalised records of any length as a bucket value, split in blocks of at most 4096 rows. No rows: no bytes.
pub fn encode(records: &Records) -> Vec<u8> {
    crate::block::encode(records)
}
