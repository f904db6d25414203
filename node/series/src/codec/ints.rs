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
//! Never here: what the integers mean. Invariants: ties go to the method named first in `candidates` (the faster
//! decoder), so the same values always give the same bytes; streams nest at most `DEPTH_MAX` deep.

use super::emit::{Emit, Whole};
use super::part::Part;
use super::survey::Survey;
use super::wire::{Reader, put_signed, put_varint, varint_len, zigzag};
use super::{entropy, pack, pcodec, rice, runs};
use crate::corrupt::Corrupt;

const CONSTANT: u8 = 0x01;
const LINE: u8 = 0x02;
const RAW: u8 = 0x03;
const RUNS: u8 = 0x04;
const DICTIONARY: u8 = 0x05;
const SCALED: u8 = 0x06;
const PACKED: u8 = 0x08;
const PCO: u8 = 0x0c;
const RICE: u8 = 0x10;
const TWIN: u8 = 0x20;
const QUAD: u8 = 0x30;
/// Fewer values are not worth two streams.
const TWIN_MIN: usize = 1024;
/// Nor fewer values and bytes four, which cost a dozen bytes more and let a reader of a few values pass over the others.
const QUAD_MIN: usize = 2048;
const QUAD_BYTES_MIN: usize = 1024;

/// How many streams this one is nested in.
pub(crate) type Depth = u8;
const DEPTH_MAX: Depth = 3;

/// The smallest stream of `values`.
pub(crate) fn encode(values: &[i64]) -> Vec<u8> {
    encode_at(values, 0)
}

/// Appends the smallest stream of `values`.
pub(crate) fn put(values: &[i64], out: &mut Vec<u8>) {
    if !put_simple(values, out) {
        out.extend_from_slice(&encode_menu(values, 0, encode_flat(values, true)));
    }
}

/// The same for values on which pco was tried already.
pub(crate) fn encode_without_pco(values: &[i64]) -> Vec<u8> {
    encode_simple(values).unwrap_or_else(|| encode_menu(values, 0, encode_flat(values, false)))
}

/// About the bits that a stream of `values` takes, for comparing.
pub(crate) fn estimate(values: &[i64]) -> u64 {
    let runs = values.chunk_by(|a, b| a == b).count() as u64;
    let survey = Survey::new(values, rice::middle(values));
    let differences = survey.cost.iter().min().map_or(u64::MAX, |cost| cost / 32);
    differences.min(runs * 48)
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

pub(crate) fn encode_at(values: &[i64], depth: Depth) -> Vec<u8> {
    encode_simple(values).unwrap_or_else(|| encode_menu(values, depth, encode_flat(values, true)))
}

/// The smallest of `best` and the streams that nest others.
fn encode_menu(values: &[i64], depth: Depth, mut best: Vec<u8>) -> Vec<u8> {
    let mut offer = |method: u8, body: Vec<u8>| {
        if body.len() + 1 < best.len() {
            best = with_method(method, &body);
        }
    };
    if depth == 0
        && let Some((offset, divisor)) = common_factor(values)
    {
        let mut body = Vec::new();
        put_signed(&mut body, offset);
        put_varint(&mut body, divisor);
        body.extend(encode_at(&scale_down(values, offset, divisor), depth + 1));
        offer(SCALED, body);
    } else if depth < DEPTH_MAX - 1 {
        let runs = values.chunk_by(|a, b| a == b).count();
        if values.len() > 8 && runs < values.len() / 4 * 3 {
            offer(RUNS, runs::encode_runs(values, depth + 1));
        }
        if values.len() > 16
            && let Some(body) = runs::encode_dictionary(values, DEPTH_MAX - 1)
        {
            offer(DICTIONARY, body);
        }
    }
    best
}

/// Streams of a few bytes that nothing can beat.
fn encode_simple(values: &[i64]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    put_simple(values, &mut out).then_some(out)
}

/// Appends such a stream, where there is one.
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

/// The smallest of raw, packed, rice and, where wanted, pco.
fn encode_flat(values: &[i64], pco: bool) -> Vec<u8> {
    let offset = rice::middle(values);
    let survey = Survey::new(values, offset);
    let (rice, plan) = best_rice(values, offset, &survey);
    let mut best = (values.len() * 8, RAW);
    if plan.size < best.0 {
        best = (plan.size, RICE + (plan.partition as u8) * 4 + rice.order as u8);
    }
    let packed = best_packed(values, &survey, best.0).filter(|packed| packed.size() <= best.0);
    let mut out = Vec::with_capacity(best.0 + 16);
    if let Some(packed) = &packed {
        out.push(PACKED + packed.order as u8);
        packed.encode(&mut out);
    } else if best.1 == RAW {
        out.push(RAW);
        values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    } else if values.len() < TWIN_MIN {
        out.push(best.1);
        rice.encode(&plan, &mut out);
    } else {
        let quad = values.len() >= QUAD_MIN && best.0 >= QUAD_BYTES_MIN;
        let (method, lanes) = if quad { (QUAD, 4) } else { (TWIN, 2) };
        out.push(best.1 - RICE + method);
        rice::encode_lanes(values, lanes, rice.order, plan.partition, &mut out);
    }
    if pco && values.len() >= pcodec::VALUES_MIN && entropy::size(rice.zigzagged()) * 50 / 51 < out.len() {
        let order = rice.order.min(pcodec::ORDER_MAX);
        if let Some(body) = pcodec::encode_ints(values, order).filter(|body| body.len() + 1 < out.len()) {
            return with_method(PCO + order as u8, &body);
        }
    }
    out
}

/// The order that looks cheapest, and the next one where it looks nearly as cheap.
fn best_rice(values: &[i64], offset: i64, survey: &Survey) -> (rice::Residuals, rice::Plan) {
    let tried = |order: usize| {
        let residuals = rice::Residuals::new(values, order, offset);
        let plan = residuals.plan();
        (residuals, plan)
    };
    let orders = survey.orders(rice::ORDER_MAX, values.len());
    let first = orders.first().copied().unwrap_or(0);
    let best = tried(first);
    match orders.get(1) {
        Some(&next) if survey.cost[next] / 33 <= survey.cost[first] / 32 => {
            let other = tried(next);
            if other.1.size < best.1.size { other } else { best }
        }
        _ => best,
    }
}

/// The packing that may take fewer than `most` bytes.
fn best_packed(values: &[i64], survey: &Survey, most: usize) -> Option<pack::Packed> {
    let orders = 0..=pack::ORDER_MAX.min(values.len());
    let order = orders.min_by_key(|&order| survey.width[order])?;
    // The minimum that is taken off may spare more than the sign does.
    let bits = survey.width[order].saturating_sub(2) as usize;
    (values.len() * bits / 8 < most).then(|| pack::Packed::new(values, order))
}

fn with_method(method: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 1);
    out.push(method);
    out.extend_from_slice(body);
    out
}

/// Offset and divisor where every value is `offset + n * divisor` with a divisor that saves something.
fn common_factor(values: &[i64]) -> Option<(i64, u64)> {
    let first = *values.first()?;
    let mut divisor = 0u64;
    for &value in values {
        divisor = gcd(value.abs_diff(first), divisor);
        if divisor == 1 {
            return None;
        }
    }
    // What is saved is about log2(divisor) bits a value; what is spent is the offset, the divisor and a method.
    let saved = (64 - divisor.leading_zeros() as usize) * values.len() / 8;
    let spent = 1 + varint_len(divisor);
    let offset = (i128::from(first)).rem_euclid(i128::from(divisor)) as i64;
    (divisor > 1 && saved >= spent + varint_len(zigzag(offset)) / 2).then_some((offset, divisor))
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while a != 0 {
        (a, b) = (b % a, a);
    }
    b
}

fn scale_down(values: &[i64], offset: i64, divisor: u64) -> Vec<i64> {
    values
        .iter()
        .map(|&v| ((i128::from(v) - i128::from(offset)) / i128::from(divisor)) as i64)
        .collect()
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
                RICE => 1,
                TWIN => 2,
                _ => 4,
            };
            rice::decode(reader.rest(), lanes, (order, partition), part, emit)
        }
        _ => Err(Corrupt::new("int method", 0)),
    }
}

#[cfg(test)]
#[path = "ints_tests.rs"]
mod tests;
