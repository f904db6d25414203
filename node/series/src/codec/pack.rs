//! Frame of reference: differences of order 0 to 2, less their minimum, in as many bits as the largest needs.
//!
//! ```text
//! stream = the first values as differences of order 0..order-1 (zigzag varints) | minimum (zigzag varint)
//!        | width u8 (0..=64) | width bits per difference
//! ```
//!
//! Never here: the choice among encodings. Invariant: `size` is exactly what `encode` writes.

use super::bits::{BitReader, BitWriter, WINDOW_BITS};
use super::emit::Emit;
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
pub(crate) fn decode<E: Emit>(bytes: &[u8], order: usize, count: usize, emit: E) -> Result<Vec<E::Out>, Corrupt> {
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
    let mut values = vec![E::Out::default(); count];
    let (first, rest) = values.split_at_mut(order);
    let [mut value, mut slope] = start;
    let starts = [value, value.wrapping_add(slope)];
    first
        .iter_mut()
        .zip(starts)
        .for_each(|(to, from)| *to = emit.emit(from));
    let above = |bits: u64| minimum.wrapping_add(bits as i64);
    match order {
        0 => unpack(&mut bits, width, rest, |bits| emit.emit(above(bits))),
        1 => unpack(&mut bits, width, rest, |bits| {
            value = value.wrapping_add(above(bits));
            emit.emit(value)
        }),
        _ => {
            value = value.wrapping_add(slope);
            unpack(&mut bits, width, rest, |bits| {
                slope = slope.wrapping_add(above(bits));
                value = value.wrapping_add(slope);
                emit.emit(value)
            });
        }
    }
    bits.finish("packed bits")?;
    Ok(values)
}

#[inline(always)]
fn unpack<T>(bits: &mut BitReader<'_>, width: u32, values: &mut [T], mut next: impl FnMut(u64) -> T) {
    if width > WINDOW_BITS / 4 {
        values.iter_mut().for_each(|value| *value = next(bits.get(width)));
        return;
    }
    let (chunks, rest) = values.as_chunks_mut::<4>();
    for chunk in chunks {
        bits.refill();
        for value in chunk {
            *value = next(bits.ready(width));
        }
    }
    rest.iter_mut().for_each(|value| *value = next(bits.get(width)));
}
