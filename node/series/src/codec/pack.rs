//! Frame of reference: differences of order 0 to 2, less their minimum, in as many bits as the largest needs.
//!
//! ```text
//! stream = the first values as differences of order 0..order-1 (zigzag varints) | minimum (zigzag varint)
//!        | width u8 (0..=64) | width bits per difference
//! ```
//!
//! Never here: the choice among encodings. Invariant: `size` is exactly what `encode` writes.

use super::bits::{BitReader, BitWriter};
use super::wire::{Reader, put_signed, varint_len, zigzag};
use crate::corrupt::Corrupt;

/// Highest order of differences.
pub(crate) const ORDER_MAX: usize = 2;

/// What is packed.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) order: usize,
    start: Vec<i64>,
    minimum: i64,
    width: u32,
    rest: Vec<i64>,
}

impl Packed {
    /// Values, at least `order`.
    pub(crate) fn new(values: &[i64], order: usize) -> Packed {
        let mut rest = values.to_vec();
        let mut start = Vec::with_capacity(order);
        for _ in 0..order {
            start.push(rest.first().copied().unwrap_or_default());
            for i in 0..rest.len().saturating_sub(1) {
                rest[i] = rest[i + 1].wrapping_sub(rest[i]);
            }
            rest.pop();
        }
        let minimum = rest.iter().copied().min().unwrap_or_default();
        let maximum = rest.iter().copied().max().unwrap_or_default();
        let width = 64 - (maximum.wrapping_sub(minimum) as u64).leading_zeros();
        Packed {
            order,
            start,
            minimum,
            width,
            rest,
        }
    }

    /// Bytes of the stream.
    pub(crate) fn size(&self) -> usize {
        let start: usize = self.start.iter().map(|&s| varint_len(zigzag(s))).sum();
        start + varint_len(zigzag(self.minimum)) + 1 + (self.rest.len() * self.width as usize).div_ceil(8)
    }

    /// Appends the stream.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.start.iter().for_each(|&s| put_signed(out, s));
        put_signed(out, self.minimum);
        out.push(self.width as u8);
        let mut bits = BitWriter::new(out);
        self.rest
            .iter()
            .for_each(|&v| bits.put(v.wrapping_sub(self.minimum) as u64, self.width));
        bits.finish();
    }
}

/// Decodes `count` values of a stream of `order`.
pub(crate) fn decode(bytes: &[u8], order: usize, count: usize) -> Result<Vec<i64>, Corrupt> {
    let mut reader = Reader::new(bytes, "packed start");
    let mut start = [0; ORDER_MAX];
    for slot in start.iter_mut().take(order) {
        *slot = reader.signed()?;
    }
    let minimum = reader.signed()?;
    let width = u32::from(reader.byte()?);
    let left = count
        .checked_sub(order)
        .filter(|_| width <= 64)
        .ok_or_else(|| reader.corrupt())?;
    let bytes = reader.rest();
    if bytes.len() != (left * width as usize).div_ceil(8) {
        return Err(Corrupt::new("packed bits", bytes.len()));
    }
    let mut bits = BitReader::new(bytes);
    let mut values = Vec::with_capacity(count);
    let [mut value, mut slope] = start;
    let mut next = || minimum.wrapping_add(bits.get(width) as i64);
    match order {
        0 => values.extend((0..left).map(|_| next())),
        1 => {
            values.push(value);
            values.extend((0..left).map(|_| {
                value = value.wrapping_add(next());
                value
            }));
        }
        _ => {
            values.push(value);
            value = value.wrapping_add(slope);
            values.push(value);
            values.extend((0..left).map(|_| {
                slope = slope.wrapping_add(next());
                value = value.wrapping_add(slope);
                value
            }));
        }
    }
    bits.finish("packed bits")?;
    Ok(values)
}
