//! Runs of equal values, and dictionaries of few distinct ones: both turn a column into two smaller ones.
//!
//! ```text
//! runs       = number of runs (varint) | values, an int stream with its length | lengths less one, an int stream
//! dictionary = number of entries (varint) | entries ascending, an int stream with its length | indices, an int stream
//! ```
//!
//! Never here: the choice among encodings. Invariant: what is nested in here is nested no deeper than `ints` allows.

use super::emit::{Emit, Whole};
use super::ints::{self, Depth};
use super::part::Part;
use super::wire::{Reader, put_part, put_varint};
use crate::corrupt::Corrupt;

/// Most entries of a dictionary.
const ENTRIES_MAX: usize = 256;
/// Wider values are looked up by search, not in a table.
const TABLE_SPAN_MAX: u64 = 1 << 13;

/// Values of the runs and their lengths less one.
pub(crate) fn split(values: &[i64]) -> (Vec<i64>, Vec<i64>) {
    let runs = values.chunk_by(|a, b| a == b);
    runs.map(|run| (run[0], run.len() as i64 - 1)).unzip()
}

/// The stream of runs.
pub(crate) fn encode_runs(values: &[i64], depth: Depth) -> Vec<u8> {
    let (heads, lengths) = split(values);
    let mut out = Vec::new();
    put_varint(&mut out, heads.len() as u64);
    put_part(&mut out, &ints::encode_at(&heads, depth));
    out.extend(ints::encode_at(&lengths, depth));
    out
}

/// Decodes `count` values from a stream of runs.
pub(crate) fn decode_runs<E: Emit>(bytes: &[u8], count: usize, depth: Depth, emit: E) -> Result<Vec<E::Out>, Corrupt> {
    let mut reader = Reader::new(bytes, "runs");
    let runs = reader.count(count)?;
    let heads = ints::decode_at(reader.part()?, Part::all(runs), depth, emit)?;
    let lengths = ints::decode_at(reader.rest(), Part::all(runs), depth, Whole::PLAIN)?;
    let mut values = Vec::with_capacity(count);
    for (head, length) in heads.into_iter().zip(lengths) {
        let left = count - values.len();
        let length = usize::try_from(length)
            .ok()
            .filter(|&l| l < left)
            .ok_or_else(|| reader.corrupt())?;
        values.resize(values.len() + length + 1, head);
    }
    if values.len() == count {
        Ok(values)
    } else {
        Err(reader.corrupt())
    }
}

/// The stream with a dictionary; `None` where there are too many distinct values for it to pay, or where they lie so close
/// that their numbers say no less.
pub(crate) fn encode_dictionary(values: &[i64], depth: Depth) -> Option<Vec<u8>> {
    let most = ENTRIES_MAX.min(values.len() / 4);
    let (least, greatest) = (*values.iter().min()?, *values.iter().max()?);
    let span = greatest.wrapping_sub(least) as u64;
    let (entries, indices) = if span < TABLE_SPAN_MAX {
        by_table(values, least, span as usize, most)?
    } else {
        by_search(values, most)?
    };
    if entries.len() as u64 > span / 2 + 1 {
        return None;
    }
    let mut out = Vec::new();
    put_varint(&mut out, entries.len() as u64);
    put_part(&mut out, &ints::encode_at(&entries, depth));
    out.extend(ints::encode_at(&indices, depth));
    Some(out)
}

/// Distinct values, ascending, and the number of each value among them; at most `most` distinct ones.
fn by_table(values: &[i64], least: i64, span: usize, most: usize) -> Option<(Vec<i64>, Vec<i64>)> {
    let mut numbers = vec![0i64; span + 1];
    let at = |value: i64| value.wrapping_sub(least) as usize;
    let mut distinct = 0;
    for &value in values {
        let number = &mut numbers[at(value)];
        distinct += usize::from(*number == 0);
        *number = 1;
        if distinct > most {
            return None;
        }
    }
    let mut entries = Vec::with_capacity(distinct);
    for (above, number) in numbers.iter_mut().enumerate().filter(|(_, number)| **number > 0) {
        *number = entries.len() as i64;
        entries.push(least.wrapping_add(above as i64));
    }
    Some((entries, values.iter().map(|&value| numbers[at(value)]).collect()))
}

fn by_search(values: &[i64], most: usize) -> Option<(Vec<i64>, Vec<i64>)> {
    let mut entries = Vec::new();
    for &value in values {
        if let Err(at) = entries.binary_search(&value) {
            entries.insert(at, value);
            if entries.len() > most {
                return None;
            }
        }
    }
    let number = |value: &i64| entries.binary_search(value).ok().map(|number| number as i64);
    let indices = values.iter().filter_map(number).collect();
    Some((entries, indices))
}

/// Decodes a part of a stream with a dictionary.
pub(crate) fn decode_dictionary<E: Emit>(
    bytes: &[u8],
    part: Part,
    depth: Depth,
    emit: E,
) -> Result<Vec<E::Out>, Corrupt> {
    let mut reader = Reader::new(bytes, "dictionary");
    let entries = reader.count(part.count.min(ENTRIES_MAX))?;
    let entries = ints::decode_at(reader.part()?, Part::all(entries), depth, emit)?;
    let indices = ints::decode_at(reader.rest(), part, depth, Whole::PLAIN)?;
    let mut table = [E::Out::default(); ENTRIES_MAX];
    table.iter_mut().zip(&entries).for_each(|(slot, entry)| *slot = *entry);
    let mut greatest = 0u64;
    let entry = |index: i64| {
        greatest = greatest.max(index as u64);
        table[index as usize % ENTRIES_MAX]
    };
    let values = indices.into_iter().map(entry).collect();
    if greatest < entries.len() as u64 || part.len() == 0 {
        Ok(values)
    } else {
        Err(reader.corrupt())
    }
}
