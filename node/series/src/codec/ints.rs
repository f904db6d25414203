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
//! ```
//! All other methods are free. Arithmetic wraps at 64 bits.
//!
//! Never here: what the integers mean. Invariants: ties go to the method named first in `candidates` (the faster
//! decoder), so the same values always give the same bytes; streams nest at most `DEPTH_MAX` deep.

use super::wire::{Reader, put_signed, put_varint, varint_len, zigzag};
use super::{pack, pcodec, rice, runs};
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

/// How many streams this one is nested in.
pub(crate) type Depth = u8;
const DEPTH_MAX: Depth = 3;

/// The smallest stream of `values`.
pub(crate) fn encode(values: &[i64]) -> Vec<u8> {
    encode_at(values, 0)
}

/// The same for values on which pco was tried already.
pub(crate) fn encode_without_pco(values: &[i64]) -> Vec<u8> {
    encode_simple(values).unwrap_or_else(|| encode_menu(values, 0, encode_flat(values, false)))
}

/// Decodes a stream of `count` values.
pub(crate) fn decode(bytes: &[u8], count: usize) -> Result<Vec<i64>, Corrupt> {
    decode_at(bytes, count, 0)
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
    let (&first, rest) = match values.split_first() {
        Some(split) => split,
        None => return Some(Vec::new()),
    };
    let step = rest.first().map_or(0, |&v| v.wrapping_sub(first));
    if !values.windows(2).all(|w| w[1].wrapping_sub(w[0]) == step) {
        return None;
    }
    let mut out = vec![if step == 0 { CONSTANT } else { LINE }];
    put_signed(&mut out, first);
    if step != 0 {
        put_signed(&mut out, step);
    }
    Some(out)
}

/// The smallest of raw, packed, rice and, where wanted, pco.
fn encode_flat(values: &[i64], pco: bool) -> Vec<u8> {
    let packed = (0..=pack::ORDER_MAX.min(values.len())).map(|order| pack::Packed::new(values, order));
    let packed = packed.min_by_key(pack::Packed::size);
    let mut rices: Vec<Rice> = (0..=rice::ORDER_MAX.min(values.len()))
        .map(|order| Rice::new(values, order))
        .collect();
    rices.sort_by_key(|rice| rice.size);
    // Partitions change the order of sizes little: the two best orders are worth a closer look.
    rices.iter_mut().take(2).for_each(Rice::partition);
    let rice = rices.iter().min_by_key(|rice| rice.size);
    let mut best = (values.len() * 8, RAW);
    if let Some(packed) = packed.as_ref().filter(|p| p.size() < best.0) {
        best = (packed.size(), PACKED + packed.order as u8);
    }
    if let Some(rice) = rice.filter(|r| r.size < best.0) {
        best = (
            rice.size,
            RICE + (rice.partition as u8) * 4 + rice.residuals.order as u8,
        );
    }
    if pco && values.len() >= pcodec::VALUES_MIN {
        let orders = rices
            .iter()
            .map(|r| r.residuals.order)
            .filter(|&o| o <= pcodec::ORDER_MAX);
        let tries = orders
            .take(2)
            .filter_map(|o| Some((o, pcodec::encode_ints(values, o)?)));
        if let Some((order, body)) = tries
            .min_by_key(|(_, body)| body.len())
            .filter(|(_, b)| b.len() < best.0)
        {
            return with_method(PCO + order as u8, &body);
        }
    }
    let mut out = Vec::with_capacity(best.0 + 1);
    out.push(best.1);
    match (best.1, packed, rice) {
        (PACKED..PCO, Some(packed), _) => packed.encode(&mut out),
        (RICE.., _, Some(rice)) => rice.residuals.encode(rice.partition, &mut out),
        _ => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
    }
    debug_assert_eq!(out.len(), best.0 + 1);
    out
}

/// One order of rice codes and its best partition number so far.
struct Rice {
    residuals: rice::Residuals,
    partition: usize,
    size: usize,
}

impl Rice {
    fn new(values: &[i64], order: usize) -> Rice {
        let residuals = rice::Residuals::new(values, order);
        let size = residuals.size(0);
        Rice {
            residuals,
            partition: 0,
            size,
        }
    }

    fn partition(&mut self) {
        (self.partition, self.size) = self.residuals.best_partition(self.size);
    }
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

pub(crate) fn decode_at(bytes: &[u8], count: usize, depth: Depth) -> Result<Vec<i64>, Corrupt> {
    let mut reader = Reader::new(bytes, "int stream");
    if count == 0 {
        reader.end()?;
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
            let at = |i: usize| first.wrapping_add(step.wrapping_mul(i as i64));
            Ok((0..count).map(at).collect())
        }
        RAW => {
            let (words, rest) = reader.rest().as_chunks::<8>();
            if words.len() != count || !rest.is_empty() {
                return Err(reader.corrupt());
            }
            Ok(words.iter().map(|w| i64::from_le_bytes(*w)).collect())
        }
        RUNS => {
            let depth = nested(&reader)?;
            runs::decode_runs(reader.rest(), count, depth)
        }
        DICTIONARY => {
            let depth = nested(&reader)?;
            runs::decode_dictionary(reader.rest(), count, depth)
        }
        SCALED => {
            let depth = nested(&reader)?;
            let offset = reader.signed()?;
            let divisor = reader.varint()? as i64;
            let mut values = decode_at(reader.rest(), count, depth)?;
            values
                .iter_mut()
                .for_each(|v| *v = offset.wrapping_add(v.wrapping_mul(divisor)));
            Ok(values)
        }
        PACKED..=0x0a => pack::decode(reader.rest(), usize::from(method - PACKED), count),
        PCO..=0x0e => pcodec::decode(reader.rest(), count),
        RICE..=0x1f => rice::decode(
            reader.rest(),
            usize::from(method & 3),
            usize::from(method >> 2 & 3),
            count,
        ),
        _ => Err(Corrupt::new("int method", 0)),
    }
}

#[cfg(test)]
#[path = "ints_tests.rs"]
mod tests;
