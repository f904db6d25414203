//! The menu for integers: every encoding that may win is tried, the smallest stays.
//!
//! ```text
//! stream  = method u8 | body          (no values: no bytes)
//!   0x01 constant        value (zigzag varint)
//!   0x02 line            first value, difference (zigzag varints)
//!   0x03 raw             8 bytes little endian each
//!   0x04 runs            see `runs`
//!   0x05 dictionary      see `runs`
//!   0x06 scaled          offset (zigzag varint) | divisor (varint) | stream of (value - offset) / divisor
//!   0x08..=0x0a packed   differences of order 0..=2, see `pack`
//!   0x0c..=0x0e pco      differences of order 0..=2, see `pcodec`
//!   0x10..=0x1f rice     order (2 low bits) and partition number (2 high bits), see `rice`
//!   0x20..=0x2f twin     likewise, two streams, see `rice`
//!   0x30..=0x3f quad     likewise, four streams, see `rice`
//! ```
//! All other methods are free. Arithmetic wraps at 64 bits.
//!
//! Never here: what the integers mean. Invariants: ties go to the method that is offered first (the faster
//! decoder), so the same values always give the same bytes; streams nest at most `DEPTH_MAX` deep.

use super::best::Best;
use super::divide::{Divisor, gcd_of};
use super::emit::{Emit, Whole};
use super::part::Part;
use super::plain::{PACKED, PCO, Plain, QUAD, RAW, RICE, TWIN};
use super::survey::{self, Survey};
use super::wire::{Reader, put_signed, put_varint, varint_len, zigzag};
use super::{pack, pcodec, rice, runs};
use crate::corrupt::Corrupt;

const CONSTANT: u8 = 0x01;
const LINE: u8 = 0x02;
const RUNS: u8 = 0x04;
const DICTIONARY: u8 = 0x05;
const SCALED: u8 = 0x06;

/// How many streams this one is nested in.
pub(crate) type Depth = u8;
const DEPTH_MAX: Depth = 3;
/// Fewest bytes of a stream with values, and of one that nests two.
pub(crate) const STREAM_MIN: usize = 2;
const NESTING_MIN: usize = 1 + 1 + 1 + 2 * STREAM_MIN;
/// About the bits of a run.
const RUN_BITS: u64 = 48;
/// Of so many values with a common factor, those without it are surely shorter: each code by the factor's bits.
const SCALED_SURE: usize = 1024;

/// The smallest stream of `values`.
pub(crate) fn encode(values: &[i64]) -> Vec<u8> {
    let mut out = Vec::new();
    put(values, &mut out);
    out
}

/// Appends the smallest stream of `values`.
pub(crate) fn put(values: &[i64], out: &mut Vec<u8>) {
    put_below(values, usize::MAX, out);
}

/// The same where it takes fewer than `most` bytes; else appends nothing and says false.
pub(crate) fn put_below(values: &[i64], most: usize, out: &mut Vec<u8>) -> bool {
    put_at(values, 0, most, out)
}

/// The same for values on which pco was tried already.
pub(crate) fn put_without_pco(values: &[i64], most: usize, out: &mut Vec<u8>) -> bool {
    put_menu(values, 0, false, most, out)
}

/// Whether a stream of `values` takes fewer bits, about, than one of as many others.
pub(crate) fn shorter(values: &[i64], others: &[i64]) -> bool {
    let [runs, other_runs] = [values, others].map(|values| runs::count(values) as u64 * RUN_BITS);
    // Where one of them has few runs, no differences are cheaper.
    let least = survey::bits_min(values.len());
    if runs.min(other_runs) < least {
        return runs < other_runs;
    }
    let bits = |values: &[i64], runs: u64| {
        let survey = Survey::new(values, rice::middle(values));
        survey.cost.iter().map(|cost| cost / 32).fold(runs, u64::min)
    };
    bits(values, runs) < bits(others, other_runs)
}

/// Decodes a stream of `count` values.
pub(crate) fn decode(bytes: &[u8], count: usize) -> Result<Vec<i64>, Corrupt> {
    decode_part(bytes, Part::all(count), Whole::PLAIN)
}

/// Decodes a part of a stream, each value as what `emit` makes of it.
pub(crate) fn decode_part<E: Emit>(bytes: &[u8], part: Part, emit: E) -> Result<Vec<E::Out>, Corrupt> {
    decode_at(bytes, part, 0, emit)
}

/// The value that all of a stream's values have, where its first bytes say so.
pub(crate) fn constant(bytes: &[u8]) -> Option<i64> {
    let mut reader = Reader::new(bytes, "int stream");
    if reader.byte().ok()? != CONSTANT {
        return None;
    }
    let value = reader.signed().ok()?;
    reader.end().ok().map(|()| value)
}

/// Appends the smallest stream that may be nested in so many others, where it takes fewer than `most` bytes.
pub(crate) fn put_at(values: &[i64], depth: Depth, most: usize, out: &mut Vec<u8>) -> bool {
    put_menu(values, depth, true, most, out)
}

fn put_menu(values: &[i64], depth: Depth, pco: bool, most: usize, out: &mut Vec<u8>) -> bool {
    if values.is_empty() {
        return most > 0;
    }
    if most <= STREAM_MIN {
        return false;
    }
    let start = out.len();
    if put_simple(values, out) {
        let fits = out.len() - start < most;
        if !fits {
            out.truncate(start);
        }
        return fits;
    }
    let mut best = Best::new(out, most);
    let factor = if depth == 0 { common_factor(values) } else { None };
    if factor.is_none() || values.len() < SCALED_SURE {
        let plain = Plain::new(values);
        best.offer(|out, most| plain.put(out, most));
        if factor.is_none() && depth < DEPTH_MAX - 1 {
            let runs = runs::count(values);
            if values.len() > 8 && runs < values.len() / 4 * 3 && best.most() > NESTING_MIN {
                best.offer(|out, most| {
                    out.push(RUNS);
                    runs::put_runs(values, runs, depth + 1, most - 1, out)
                });
            }
            if values.len() > 16 && best.most() > NESTING_MIN {
                best.offer(|out, most| {
                    out.push(DICTIONARY);
                    runs::put_dictionary(values, DEPTH_MAX - 1, most - 1, out)
                });
            }
        }
        // The costliest try comes last, when little may be left to gain.
        if pco {
            best.offer(|out, most| plain.put_pco(out, most));
        }
    }
    if let Some((offset, divisor)) = factor {
        best.offer(|out, most| put_scaled(values, offset, divisor, (depth + 1, most), out));
    }
    best.found()
}

fn put_scaled(values: &[i64], offset: i64, divisor: u64, (depth, most): (Depth, usize), out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.push(SCALED);
    put_signed(out, offset);
    put_varint(out, divisor);
    let by = Divisor::new(divisor);
    let scaled: Vec<i64> = values.iter().map(|&value| by.steps(value, offset)).collect();
    put_at(&scaled, depth, most.saturating_sub(out.len() - start), out)
}

/// Appends a stream of a few bytes, where there is one; nothing can beat it.
fn put_simple(values: &[i64], out: &mut Vec<u8>) -> bool {
    let Some((&first, rest)) = values.split_first() else {
        return true;
    };
    let step = rest.first().map_or(0, |&v| v.wrapping_sub(first));
    if !values.windows(2).all(|w| w[1].wrapping_sub(w[0]) == step) {
        return false;
    }
    out.push(if step == 0 { CONSTANT } else { LINE });
    put_signed(out, first);
    if step != 0 {
        put_signed(out, step);
    }
    true
}

/// Offset and divisor where every value is `offset + n * divisor` with a divisor that saves something.
fn common_factor(values: &[i64]) -> Option<(i64, u64)> {
    let first = *values.first()?;
    let divisor = gcd_of(values.iter().map(|value| value.abs_diff(first)));
    if divisor <= 1 {
        return None;
    }
    // What is saved is about log2(divisor) bits a value; what is spent is the offset, the divisor and a method.
    let saved = (64 - divisor.leading_zeros() as usize) * values.len() / 8;
    let spent = 1 + varint_len(divisor);
    let offset = (i128::from(first)).rem_euclid(i128::from(divisor)) as i64;
    (saved >= spent + varint_len(zigzag(offset)) / 2).then_some((offset, divisor))
}

pub(crate) fn decode_at<E: Emit>(bytes: &[u8], part: Part, depth: Depth, emit: E) -> Result<Vec<E::Out>, Corrupt> {
    let mut reader = Reader::new(bytes, "int stream");
    let count = part.count;
    if count == 0 {
        reader.end()?;
    }
    if part.len() == 0 {
        return Ok(Vec::new());
    }
    let method = reader.byte()?;
    let nested = |reader: &Reader<'_>| {
        if depth < DEPTH_MAX {
            Ok(depth + 1)
        } else {
            Err(reader.corrupt())
        }
    };
    match method {
        CONSTANT | LINE => {
            let first = reader.signed()?;
            let step = if method == LINE { reader.signed()? } else { 0 };
            reader.end()?;
            if step == 0 {
                return Ok(vec![emit.emit(first); part.len()]);
            }
            let at = |i: usize| emit.emit(first.wrapping_add(step.wrapping_mul(i as i64)));
            Ok((part.from..part.to).map(at).collect())
        }
        RAW => {
            let (words, rest) = reader.rest().as_chunks::<8>();
            if words.len() != count || !rest.is_empty() {
                return Err(reader.corrupt());
            }
            let words = &words[part.from..part.to];
            Ok(words.iter().map(|w| emit.emit(i64::from_le_bytes(*w))).collect())
        }
        RUNS => {
            let values = runs::decode_runs(reader.rest(), count, nested(&reader)?, emit)?;
            Ok(part.cut(values, 0))
        }
        DICTIONARY => runs::decode_dictionary(reader.rest(), part, nested(&reader)?, emit),
        SCALED => {
            let depth = nested(&reader)?;
            let offset = reader.signed()?;
            let divisor = reader.varint()? as i64;
            decode_at(reader.rest(), part, depth, emit.scaled(offset, divisor))
        }
        PACKED..=0x0a => {
            let values = pack::decode(reader.rest(), usize::from(method - PACKED), count, emit)?;
            Ok(part.cut(values, 0))
        }
        PCO..=0x0e => {
            let values = pcodec::decode::<i64>(reader.rest(), part)?;
            Ok(values.into_iter().map(|v| emit.emit(v)).collect())
        }
        RICE..=0x3f => {
            let (order, partition) = (usize::from(method & 3), usize::from(method >> 2 & 3));
            let lanes = match method & 0x30 {
                TWIN => 2,
                QUAD => 4,
                _ => 1,
            };
            rice::decode(reader.rest(), lanes, (order, partition), part, emit)
        }
        _ => Err(Corrupt::new("int method", 0)),
    }
}

#[cfg(test)]
#[path = "ints_tests.rs"]
mod tests;
