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
/// Nor a block that has over so many times the rows of what it would join.
const JOIN_RATIO_MAX: usize = 2;
/// A block of an operand with fewer rows is merged row by row.
const KEPT_ROWS_MIN: usize = 128;
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
/// operand's stays. Only blocks that new rows fall into are decoded and rewritten, and neighbours of about their size that join
/// them; the rest is copied byte for byte. Cost linear in bytes.
///
/// # Errors
/// The existing value or an operand is damaged, or a property changed its type.
pub fn merge<'a>(existing: Option<&'a [u8]>, operands: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Corrupt> {
    let existing = existing.unwrap_or_default();
    let old = ordered_blocks(existing)?;
    let mut fragments = Vec::new();
    for operand in operands {
        fragments.append(&mut ordered_blocks(operand)?);
    }
    let mut types = BTreeMap::new();
    for block in old.iter().chain(&fragments) {
        for property in block.properties() {
            check_type(&mut types, property, block.value_type(property))?;
        }
    }
    if fragments.is_empty() {
        return Ok(existing.to_vec());
    }
    let (kept, rows) = keep_large(old, fragments);
    let new = Records::merge_all(rows.iter().map(|block| block.decode(None)).collect::<Result<_, _>>()?);
    let mut out = Vec::with_capacity(existing.len() + new.points() * 2);
    for segment in plan(&kept, &new.observed_at) {
        segment.write(&kept, &new, &mut out)?;
    }
    Ok(out)
}

/// A block of a value, or one of an operand that is large and alone in its time: either may stay as it is.
struct Kept<'a> {
    block: Block<'a>,
    /// It came with an operand: it has not met its neighbours yet.
    fresh: bool,
}

/// Blocks that may stay as they are, by time, and those whose rows are merged, in the order of the log.
fn keep_large<'a>(old: Vec<Block<'a>>, fragments: Vec<Block<'a>>) -> (Vec<Kept<'a>>, Vec<Block<'a>>) {
    let alone = alone(&old, &fragments);
    let mut kept: Vec<_> = old.into_iter().map(|block| Kept { block, fresh: false }).collect();
    let mut rows = Vec::new();
    for (block, alone) in fragments.into_iter().zip(alone) {
        match alone && block.rows() >= KEPT_ROWS_MIN {
            true => kept.push(Kept { block, fresh: true }),
            false => rows.push(block),
        }
    }
    kept.sort_by_key(|kept| kept.block.first_ns());
    (kept, rows)
}

/// Of each fragment, whether no other block holds any of its time.
fn alone(old: &[Block<'_>], fragments: &[Block<'_>]) -> Vec<bool> {
    let mut alone = vec![true; fragments.len()];
    if fragments.iter().all(|block| block.rows() < KEPT_ROWS_MIN) {
        return alone;
    }
    let all: Vec<_> = fragments.iter().chain(old).collect();
    let mut by_time: Vec<_> = (0..all.len()).collect();
    by_time.sort_by_key(|&at| all[at].first_ns());
    // Of what begins before: the one that ends last.
    let mut longest: Option<usize> = None;
    for at in by_time {
        if let Some(before) = longest.filter(|&before| all[before].last_ns() >= all[at].first_ns()) {
            for at in [before, at] {
                if let Some(alone) = alone.get_mut(at) {
                    *alone = false;
                }
            }
        }
        if longest.is_none_or(|before| all[before].last_ns() < all[at].last_ns()) {
            longest = Some(at);
        }
    }
    alone
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
    /// It is rewritten.
    dirty: bool,
    /// It came with an operand.
    fresh: bool,
}

impl Segment {
    /// Whether `next` should be rewritten together with this one: a block joins only what is not much smaller, so that a row is
    /// rewritten a few times while its bucket fills, not with all that comes after it.
    fn joins(&self, next: &Segment, next_is_last: bool) -> bool {
        if self.dirty && next.dirty {
            return true;
        }
        if !(self.dirty || self.fresh || next.dirty || next.fresh) {
            return false;
        }
        let (kept, against) = match (self.dirty, next.dirty) {
            (true, _) => (next.rows, self.rows),
            (_, true) => (self.rows, next.rows),
            _ => (self.rows.max(next.rows), self.rows.min(next.rows)),
        };
        if kept > against * JOIN_RATIO_MAX {
            return false;
        }
        let small = self.rows + next.rows <= BLOCK_ROWS_MAX && self.bytes + next.bytes <= JOIN_BYTES_MAX;
        let appended = next_is_last && next.blocks.is_empty() && self.rows < BLOCK_ROWS_MAX;
        small || appended && self.bytes <= JOIN_BYTES_MAX
    }

    fn join(&mut self, next: Segment) {
        self.blocks.end = next.blocks.end;
        self.new.end = next.new.end;
        self.rows += next.rows;
        self.bytes += next.bytes;
        self.dirty = true;
    }

    fn write(&self, kept: &[Kept<'_>], new: &Records, out: &mut Vec<u8>) -> Result<(), Corrupt> {
        let kept = kept.get(self.blocks.clone()).unwrap_or_default();
        if !self.dirty {
            kept.iter().for_each(|kept| out.extend_from_slice(kept.block.bytes()));
            return Ok(());
        }
        let mut parts = kept
            .iter()
            .map(|kept| kept.block.decode(None))
            .collect::<Result<Vec<_>, _>>()?;
        let last = kept.last().map(|kept| kept.block.last_ns());
        let first = new.observed_at.get(self.new.clone()).and_then(|new| new.first());
        let appended = last.is_none_or(|last| first.is_none_or(|&first| first > last));
        if !self.new.is_empty() {
            parts.push(new.slice_rows(self.new.start, self.new.end));
        }
        put_blocks(&Records::merge_all(parts), appended, out);
        Ok(())
    }
}

/// What to copy and what to rewrite, by time.
fn plan(kept: &[Kept<'_>], new_times: &[i64]) -> Vec<Segment> {
    let mut parts = Vec::new();
    let mut row = 0;
    let upto = |row: usize, inside: &dyn Fn(i64) -> bool| row + new_times[row..].partition_point(|&t| inside(t));
    let gap = |blocks: usize, new: Range<usize>| Segment {
        blocks: blocks..blocks,
        rows: new.len(),
        new,
        bytes: 0,
        dirty: true,
        fresh: false,
    };
    for (index, Kept { block, fresh }) in kept.iter().enumerate() {
        let gap_end = upto(row, &|t| t < block.first_ns());
        parts.push(gap(index, row..gap_end));
        row = upto(gap_end, &|t| t <= block.last_ns());
        parts.push(Segment {
            blocks: index..index + 1,
            new: gap_end..row,
            rows: block.rows() + row - gap_end,
            bytes: block.byte_len(),
            dirty: row > gap_end,
            fresh: *fresh,
        });
    }
    parts.push(gap(kept.len(), row..new_times.len()));
    parts.retain(|part| part.rows > 0);
    let last = parts.len().saturating_sub(1);
    let mut segments: Vec<Segment> = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = part;
        while let Some(mut before) = segments.pop_if(|before| before.joins(&part, index == last)) {
            before.join(part);
            part = before;
        }
        segments.push(part);
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
