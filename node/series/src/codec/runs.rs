//! Runs of equal values, and dictionaries of few distinct ones: both turn a column into two smaller ones.
//!
//! ```text
//! runs       = number of runs (varint) | values, an int stream with its length | lengths less one, an int stream
//! dictionary = number of entries (varint) | entries ascending, an int stream with its length | indices, an int stream
//! ```
//!
//! Never here: the choice among encodings. Invariant: what is nested in here is nested no deeper than `ints` allows.

use super::emit::{Emit, Index, Whole};
use super::ints::{self, Depth, STREAM_MIN};
use super::part::Part;
use super::wire::{Reader, put_part_with, put_varint};
use crate::corrupt::Corrupt;

/// Most entries of a dictionary.
const ENTRIES_MAX: usize = 256;
/// Wider values are looked up by search, not in a bitmap.
const MAPPED_SPAN_MAX: u64 = 1 << 13;

/// Values of a run that are written at once.
const SHORT: usize = 8;

/// Number of runs.
pub(crate) fn count(values: &[i64]) -> usize {
    let changes = values.iter().zip(values.iter().skip(1)).filter(|(a, b)| a != b);
    changes.count() + usize::from(!values.is_empty())
}

/// Values of so many runs and their lengths less one.
fn split(values: &[i64], runs: usize) -> (Vec<i64>, Vec<i64>) {
    let (mut heads, mut lengths) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
    for run in values.chunk_by(|a, b| a == b) {
        heads.push(run[0]);
        lengths.push(run.len() as i64 - 1);
    }
    (heads, lengths)
}

/// Appends the stream of so many runs; gives up (false) where it does not stay below `most` bytes.
pub(crate) fn put_runs(values: &[i64], runs: usize, depth: Depth, most: usize, out: &mut Vec<u8>) -> bool {
    let (heads, lengths) = split(values, runs);
    put_two(&heads, &lengths, (depth, depth), most, out)
}

/// How many the first ones are, their stream with its length, and the stream of the second ones, each of a depth of its own.
fn put_two(first: &[i64], second: &[i64], depths: (Depth, Depth), most: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    put_varint(out, first.len() as u64);
    let left = |out: &Vec<u8>| most.saturating_sub(out.len() - start);
    let room = left(out).saturating_sub(1 + STREAM_MIN);
    put_part_with(out, |out| ints::put_at(first, depths.0, room, out)) && {
        let room = left(out);
        ints::put_at(second, depths.1, room, out)
    }
}

/// Decodes `count` values from a stream of runs.
pub(crate) fn decode_runs<E: Emit>(bytes: &[u8], count: usize, depth: Depth, emit: E) -> Result<Vec<E::Out>, Corrupt> {
    let mut reader = Reader::new(bytes, "runs");
    let runs = reader.count(count)?;
    let heads = ints::decode_at(reader.part()?, Part::all(runs), depth, emit)?;
    let lengths = ints::decode_at(reader.rest(), Part::all(runs), depth, Whole::PLAIN)?;
    let mut values = vec![E::Out::default(); count + SHORT];
    let mut at = 0;
    for (head, length) in heads.into_iter().zip(lengths) {
        let length = usize::try_from(length).ok().filter(|&length| length < count - at);
        let end = at + length.ok_or_else(|| reader.corrupt())? + 1;
        // Most runs are short: what is written too much is written over by the next.
        if let Some(slots) = values.get_mut(at..).and_then(<[E::Out]>::first_chunk_mut::<SHORT>) {
            *slots = [head; SHORT];
        }
        if let Some(slots) = values.get_mut(at + SHORT..end) {
            slots.fill(head);
        }
        at = end;
    }
    values.truncate(count);
    if at == count { Ok(values) } else { Err(reader.corrupt()) }
}

/// Appends the stream with a dictionary; gives up (false) where there are too many distinct values for it to pay, where
/// they lie so close that their numbers say no less, or where it does not stay below `most` bytes.
pub(crate) fn put_dictionary(values: &[i64], depth: Depth, most: usize, out: &mut Vec<u8>) -> bool {
    let (Some(&least), Some(&greatest)) = (values.iter().min(), values.iter().max()) else {
        return false;
    };
    let span = greatest.wrapping_sub(least) as u64;
    let entries_max = (ENTRIES_MAX.min(values.len() / 4) as u64).min(span / 2 + 1) as usize;
    let known = if span < MAPPED_SPAN_MAX {
        by_map(values, least, entries_max)
    } else {
        by_search(values, entries_max)
    };
    let Some((entries, indices)) = known else {
        return false;
    };
    put_two(&entries, &indices, (depth, depth), most, out)
}

/// Distinct values, ascending, and the number of each value among them; at most `most` distinct ones.
fn by_map(values: &[i64], least: i64, most: usize) -> Option<(Vec<i64>, Vec<i64>)> {
    const WORDS: usize = MAPPED_SPAN_MAX as usize / 64;
    let place = |value: i64| {
        let above = value.wrapping_sub(least) as usize;
        (above / 64 % WORDS, above % 64)
    };
    let mut seen = [0u64; WORDS];
    let mut distinct = 0;
    for &value in values {
        let (word, bit) = place(value);
        distinct += usize::from(seen[word] >> bit & 1 == 0);
        seen[word] |= 1 << bit;
        if distinct > most {
            return None;
        }
    }
    // How many there are below each word.
    let mut below = [0u16; WORDS];
    let mut entries = Vec::with_capacity(distinct);
    for (at, (&word, below)) in seen.iter().zip(&mut below).enumerate() {
        *below = entries.len() as u16;
        let mut rest = word;
        while rest != 0 {
            entries.push(least.wrapping_add((at * 64) as i64 + i64::from(rest.trailing_zeros())));
            rest &= rest - 1;
        }
    }
    let number = |&value: &i64| {
        let (word, bit) = place(value);
        i64::from(below[word]) + i64::from((seen[word] & ((1 << bit) - 1)).count_ones())
    };
    Some((entries, values.iter().map(number).collect()))
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
    let indices = ints::decode_at(reader.rest(), part, depth, Index::PLAIN)?;
    let mut table = [E::Out::default(); ENTRIES_MAX];
    table.iter_mut().zip(&entries).for_each(|(slot, entry)| *slot = *entry);
    let greatest = indices.iter().fold(0, |greatest, &index| index.max(greatest));
    if usize::from(greatest) < entries.len() || part.len() == 0 {
        let entry = |index: &u16| table[usize::from(*index) % ENTRIES_MAX];
        Ok(indices.iter().map(entry).collect())
    } else {
        Err(reader.corrupt())
    }
}
