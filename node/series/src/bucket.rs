//! The value under one key: blocks one after another, by time, not overlapping, each of at most 4096 rows. A fragment
//! is a bucket value too, mostly of one block. Nothing separates the blocks and nothing follows the last one; no bytes
//! are a bucket without rows.
//!
//! Never here: keys, files, which bucket a time belongs to. Invariants: any grouping of operands decodes to the same
//! records; a merge decodes and rewrites only blocks that new rows fall into (and small neighbours that join them), so
//! that a hot bucket costs linear time.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::block::{self, BLOCK_ROWS_MAX, Block};
use crate::corrupt::Corrupt;
use crate::record::{PropertyNumber, Records, ValueType, Values};

/// An untouched block joins a rewritten neighbour only while both together stay below this many bytes.
const JOIN_BYTES_MAX: usize = 256 << 10;
/// Blocks with more bytes of text than this are split further.
const TEXT_BYTES_MAX: usize = 1 << 20;

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

/// Folds operands (oldest first, log order) over the existing value: of values of one property and time the latest
/// operand's stays. Only blocks that new rows fall into are decoded and rewritten (small neighbours may join them);
/// the rest is copied byte for byte. Cost linear in bytes.
///
/// # Errors
/// The existing value or an operand is damaged, or a property changed its type.
pub fn merge<'a>(existing: Option<&[u8]>, operands: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Corrupt> {
    let existing = existing.unwrap_or_default();
    let old = ordered_blocks(existing)?;
    let mut types = BTreeMap::new();
    for block in &old {
        for property in block.properties() {
            check_type(&mut types, property, block.value_type(property))?;
        }
    }
    let mut parts = Vec::new();
    for operand in operands {
        for block in ordered_blocks(operand)? {
            let part = block.decode(None)?;
            for column in &part.columns {
                check_type(&mut types, column.property, Some(column.values.value_type()))?;
            }
            parts.push(part);
        }
    }
    let new = Records::merge_all(parts);
    if new.is_empty() {
        return Ok(existing.to_vec());
    }
    let mut out = Vec::with_capacity(existing.len() + new.points() * 2);
    for segment in plan(&old, &new.observed_at) {
        segment.write(&old, &new, &mut out)?;
    }
    Ok(out)
}

fn check_type(
    types: &mut BTreeMap<PropertyNumber, ValueType>,
    property: PropertyNumber,
    value_type: Option<ValueType>,
) -> Result<(), Corrupt> {
    match value_type {
        Some(value_type) if *types.entry(property).or_insert(value_type) != value_type => {
            Err(Corrupt::new("type of a property", 0))
        }
        _ => Ok(()),
    }
}

/// The blocks of a value that a merge may work on: ascending, without rows of equal time.
fn ordered_blocks(value: &[u8]) -> Result<Vec<Block<'_>>, Corrupt> {
    let mut found: Vec<Block<'_>> = Vec::new();
    let mut at = 0;
    for block in blocks(value) {
        let block = block?;
        let overlaps = found.last().is_some_and(|before| before.last_ns() >= block.first_ns());
        if overlaps || block.may_repeat_times() {
            return Err(Corrupt::new("order of blocks", at));
        }
        at += block.byte_len();
        found.push(block);
    }
    Ok(found)
}

/// Neighbouring blocks and new rows that become new blocks together, or one block that stays.
#[derive(Debug)]
struct Segment {
    blocks: Range<usize>,
    new: Range<usize>,
    rows: usize,
    bytes: usize,
}

impl Segment {
    fn dirty(&self) -> bool {
        !self.new.is_empty()
    }

    /// Whether `next` should be rewritten together with this one.
    fn joins(&self, next: &Segment, next_is_last: bool) -> bool {
        let small = self.rows + next.rows <= BLOCK_ROWS_MAX && self.bytes + next.bytes <= JOIN_BYTES_MAX;
        let appended = next_is_last && next.blocks.is_empty() && self.rows < BLOCK_ROWS_MAX;
        match (self.dirty(), next.dirty()) {
            (true, true) => true,
            (false, false) => false,
            _ => small || appended && self.bytes <= JOIN_BYTES_MAX,
        }
    }

    fn join(&mut self, next: Segment) {
        self.blocks.end = next.blocks.end;
        self.new = if !self.dirty() {
            next.new
        } else if next.dirty() {
            self.new.start..next.new.end
        } else {
            self.new.clone()
        };
        self.rows += next.rows;
        self.bytes += next.bytes;
    }

    fn write(&self, old: &[Block<'_>], new: &Records, out: &mut Vec<u8>) -> Result<(), Corrupt> {
        let old = old.get(self.blocks.clone()).unwrap_or_default();
        if !self.dirty() {
            old.iter().for_each(|block| out.extend_from_slice(block.bytes()));
            return Ok(());
        }
        let mut parts = old
            .iter()
            .map(|block| block.decode(None))
            .collect::<Result<Vec<_>, _>>()?;
        let fresh = new.slice_rows(self.new.start, self.new.end);
        let last = old.last().map(Block::last_ns);
        let appended = last.is_none_or(|last| fresh.observed_at.first().is_some_and(|&first| first > last));
        parts.push(fresh);
        put_blocks(&Records::merge_all(parts), appended, out);
        Ok(())
    }
}

/// What to copy and what to rewrite, by time.
fn plan(old: &[Block<'_>], new_times: &[i64]) -> Vec<Segment> {
    let mut parts = Vec::new();
    let mut row = 0;
    let upto = |row: usize, inside: &dyn Fn(i64) -> bool| row + new_times[row..].partition_point(|&t| inside(t));
    for (index, block) in old.iter().enumerate() {
        let gap_end = upto(row, &|t| t < block.first_ns());
        parts.push(Segment {
            blocks: index..index,
            new: row..gap_end,
            rows: gap_end - row,
            bytes: 0,
        });
        row = upto(gap_end, &|t| t <= block.last_ns());
        let rows = block.rows() + row - gap_end;
        parts.push(Segment {
            blocks: index..index + 1,
            new: gap_end..row,
            rows,
            bytes: block.byte_len(),
        });
    }
    let left = new_times.len() - row;
    parts.push(Segment {
        blocks: old.len()..old.len(),
        new: row..new_times.len(),
        rows: left,
        bytes: 0,
    });
    parts.retain(|part| part.rows > 0);
    let last = parts.len() - 1;
    let mut segments: Vec<Segment> = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        match segments.last_mut() {
            Some(before) if before.joins(&part, index == last) => before.join(part),
            _ => segments.push(part),
        }
    }
    segments
}

/// Splits into blocks: filled one after another where rows were appended (the next ones will follow), else evenly (so
/// that each has room for the next row in the middle).
fn put_blocks(records: &Records, appended: bool, out: &mut Vec<u8>) {
    let rows = records.len();
    let texts = records.columns.iter().map(|c| match &c.values {
        Values::Text(texts) => texts.iter().map(String::len).sum(),
        _ => 0,
    });
    let by_text = texts.sum::<usize>().div_ceil(TEXT_BYTES_MAX).min(rows);
    let by_rows = rows.div_ceil(BLOCK_ROWS_MAX);
    let size = if by_text > by_rows || !appended {
        rows.div_ceil(by_rows.max(by_text).max(1))
    } else {
        BLOCK_ROWS_MAX
    };
    if rows <= size {
        if rows > 0 {
            out.extend(block::encode(records));
        }
        return;
    }
    for start in (0..rows).step_by(size) {
        out.extend(block::encode(&records.slice_rows(start, start + size)));
    }
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
    // One block stays as it is: the newest values of a device may share a time.
    if parts.len() == 1 {
        return Ok(parts.swap_remove(0));
    }
    Ok(Records::merge_all(parts))
}

/// Encodes normalised records of any length as a bucket value, split in blocks of at most 4096 rows. No rows: no bytes.
pub fn encode(records: &Records) -> Vec<u8> {
    let mut out = Vec::new();
    put_blocks(records, true, &mut out);
    out
}
