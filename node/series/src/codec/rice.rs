//! Golomb-Rice codes over the residuals of fixed predictors of order 0 to 3.
//!
//! ```text
//! stream   = start | bits
//! start    = order 0: offset (zigzag varint); order k: k first values as differences of order 0..k-1 (zigzag varints)
//! bits     = partitions of 32, 128, 512 residuals or of all: k (6 bits) | codes
//! code     = q ones, a zero, k low bits        where q = zigzag(residual) >> k is below 16
//!          | 16 ones | width-1 (6 bits) | width bits                              otherwise
//! k = 63   = all residuals of the partition are zero, no codes
//! ```
//!
//! Never here: the choice among encodings. Invariant: `size` is exactly what `encode` writes.

use super::bits::{BitReader, BitWriter, mask};
use super::wire::{Reader, put_signed, unzigzag, varint_len, zigzag};
use crate::corrupt::Corrupt;

/// Highest predictor order.
pub(crate) const ORDER_MAX: usize = 3;
/// Residuals per partition, by the number stored in the encoding; the first one means all.
pub(crate) const PARTITIONS: [usize; 4] = [usize::MAX, 32, 128, 512];

const ESCAPE: u32 = 16;
const ZERO: u32 = 63;

/// What a predictor leaves of some values.
#[derive(Debug)]
pub(crate) struct Residuals {
    pub(crate) order: usize,
    start: Vec<i64>,
    zigzagged: Vec<u64>,
}

impl Residuals {
    /// Values, at least `order` and one of them.
    pub(crate) fn new(values: &[i64], order: usize) -> Residuals {
        if order == 0 {
            let offset = middle(values);
            let zigzagged = values.iter().map(|&v| zigzag(v.wrapping_sub(offset))).collect();
            return Residuals {
                order,
                start: vec![offset],
                zigzagged,
            };
        }
        let mut rest = values.to_vec();
        let mut start = Vec::with_capacity(order);
        for _ in 0..order {
            start.push(rest.first().copied().unwrap_or_default());
            for i in 0..rest.len().saturating_sub(1) {
                rest[i] = rest[i + 1].wrapping_sub(rest[i]);
            }
            rest.pop();
        }
        Residuals {
            order,
            start,
            zigzagged: rest.into_iter().map(zigzag).collect(),
        }
    }

    fn partitions(&self, size: usize) -> impl Iterator<Item = &[u64]> {
        self.zigzagged.chunks(size.min(self.zigzagged.len().max(1)))
    }

    /// Bytes of the stream with partitions of `PARTITIONS[partition]`.
    pub(crate) fn size(&self, partition: usize) -> usize {
        let bits: usize = self.partitions(PARTITIONS[partition]).map(|p| 6 + best_k(p).1).sum();
        self.start.iter().map(|&s| varint_len(zigzag(s))).sum::<usize>() + bits.div_ceil(8)
    }

    /// The partition number with the shortest stream, and its bytes; `whole`: what `size(0)` gave.
    pub(crate) fn best_partition(&self, whole: usize) -> (usize, usize) {
        let numbers = (1..PARTITIONS.len()).filter(|&p| PARTITIONS[p] < self.zigzagged.len());
        let sizes = std::iter::once((whole, 0)).chain(numbers.map(|p| (self.size(p), p)));
        sizes.min().map_or((0, whole), |(size, p)| (p, size))
    }

    /// Appends the stream.
    pub(crate) fn encode(&self, partition: usize, out: &mut Vec<u8>) {
        self.start.iter().for_each(|&s| put_signed(out, s));
        let mut bits = BitWriter::new(out);
        for part in self.partitions(PARTITIONS[partition]) {
            let (k, _) = best_k(part);
            bits.put(k.into(), 6);
            if k != ZERO {
                part.iter().for_each(|&z| put_code(&mut bits, z, k));
            }
        }
        bits.finish();
    }
}

/// The median of a few samples: a fair centre that costs nothing to find.
fn middle(values: &[i64]) -> i64 {
    let step = values.len().div_ceil(64).max(1);
    let mut samples: Vec<i64> = values.iter().copied().step_by(step).collect();
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

/// The parameter with the shortest codes and their bits.
fn best_k(part: &[u64]) -> (u32, usize) {
    let sum: u128 = part.iter().map(|&z| u128::from(z)).sum();
    if sum == 0 {
        return (ZERO, 0);
    }
    // Outliers draw the mean up, so the search walks down from it as long as that pays.
    let mean = (sum / part.len() as u128) as u64;
    let mut k = (64 - mean.leading_zeros()).min(ZERO - 1);
    let mut best = (k, bits_about(part, k));
    while k > 0 {
        k -= 1;
        let bits = bits_about(part, k);
        if bits > best.1 + best.1 / 16 {
            break;
        }
        if bits < best.1 {
            best = (k, bits);
        }
    }
    (best.0, part.iter().map(|&z| code_bits(z, best.0) as usize).sum())
}

/// Bits of the codes, with every escape taken for a middling one: no branches, so the compiler makes it wide.
fn bits_about(part: &[u64], k: u32) -> usize {
    let quotients: u64 = part.iter().map(|&z| (z >> k).min(40)).sum();
    quotients as usize + part.len() * (k as usize + 1)
}

#[inline]
fn code_bits(z: u64, k: u32) -> u32 {
    let q = z >> k;
    if q < u64::from(ESCAPE) {
        q as u32 + 1 + k
    } else {
        ESCAPE + 6 + 64 - z.leading_zeros()
    }
}

#[inline]
fn put_code(bits: &mut BitWriter<'_>, z: u64, k: u32) {
    let q = z >> k;
    if q < u64::from(ESCAPE) {
        bits.put(mask(q as u32), q as u32 + 1);
        bits.put(z & mask(k), k);
    } else {
        let width = 64 - z.leading_zeros();
        bits.put(mask(ESCAPE), ESCAPE);
        bits.put(u64::from(width - 1), 6);
        bits.put(z, width);
    }
}

#[inline(always)]
fn get_code(bits: &mut BitReader<'_>, k: u32) -> u64 {
    let window = bits.peek();
    let q = window.trailing_ones();
    // 15 + 1 + k bits fit the 57 of a window for every k up to 41.
    if q < ESCAPE && k <= 41 {
        bits.skip(q + 1 + k);
        return u64::from(q) << k | (window >> (q + 1)) & mask(k);
    }
    get_long(bits, k, q)
}

#[cold]
fn get_long(bits: &mut BitReader<'_>, k: u32, q: u32) -> u64 {
    if q < ESCAPE {
        bits.skip(q + 1);
        return u64::from(q).wrapping_shl(k) | bits.get(k);
    }
    bits.skip(ESCAPE);
    let width = bits.get(6) as u32 + 1;
    bits.get(width)
}

/// Decodes `count` values of a stream of `order` and partition number `partition`.
pub(crate) fn decode(bytes: &[u8], order: usize, partition: usize, count: usize) -> Result<Vec<i64>, Corrupt> {
    let mut reader = Reader::new(bytes, "rice start");
    let mut start = [0; ORDER_MAX];
    for slot in start.iter_mut().take(order.max(1)) {
        *slot = reader.signed()?;
    }
    let left = count.checked_sub(order).ok_or_else(|| reader.corrupt())?;
    let mut bits = BitReader::new(reader.rest());
    let mut values = Vec::with_capacity(count);
    let size = PARTITIONS[partition % PARTITIONS.len()].min(left.max(1));
    let mut state = State { order, sums: start };
    state.begin(&mut values);
    let mut done = 0;
    while done < left {
        let part = size.min(left - done);
        let k = bits.get(6) as u32;
        if k == ZERO {
            values.extend((0..part).map(|_| state.next(0)));
        } else {
            match order {
                0 => values.extend((0..part).map(|_| start[0].wrapping_add(unzigzag(get_code(&mut bits, k))))),
                1 => values.extend((0..part).map(|_| state.next_of_one(unzigzag(get_code(&mut bits, k))))),
                _ => values.extend((0..part).map(|_| state.next(unzigzag(get_code(&mut bits, k))))),
            }
        }
        done += part;
    }
    bits.finish("rice codes")?;
    Ok(values)
}

/// The running value and its running differences.
struct State {
    order: usize,
    sums: [i64; ORDER_MAX],
}

impl State {
    /// Emits the first `order` values and leaves the sums at the last of them.
    fn begin(&mut self, values: &mut Vec<i64>) {
        let [a, b, c] = self.sums;
        match self.order {
            0 => {}
            1 => values.push(a),
            2 => {
                values.extend([a, a.wrapping_add(b)]);
                self.sums = [a.wrapping_add(b), b, 0];
            }
            _ => {
                let second = a.wrapping_add(b);
                let slope = b.wrapping_add(c);
                let third = second.wrapping_add(slope);
                values.extend([a, second, third]);
                self.sums = [third, slope, c];
            }
        }
    }

    #[inline(always)]
    fn next_of_one(&mut self, residual: i64) -> i64 {
        self.sums[0] = self.sums[0].wrapping_add(residual);
        self.sums[0]
    }

    #[inline(always)]
    fn next(&mut self, residual: i64) -> i64 {
        match self.order {
            0 => return self.sums[0].wrapping_add(residual),
            1 => self.sums[0] = self.sums[0].wrapping_add(residual),
            2 => {
                self.sums[1] = self.sums[1].wrapping_add(residual);
                self.sums[0] = self.sums[0].wrapping_add(self.sums[1]);
            }
            _ => {
                self.sums[2] = self.sums[2].wrapping_add(residual);
                self.sums[1] = self.sums[1].wrapping_add(self.sums[2]);
                self.sums[0] = self.sums[0].wrapping_add(self.sums[1]);
            }
        }
        self.sums[0]
    }
}
