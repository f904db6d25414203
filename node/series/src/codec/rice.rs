//! Golomb-Rice codes over the residuals of fixed predictors of order 0 to 3.
//!
//! ```text
//! stream   = start | bits
//! start    = order 0: offset (zigzag varint); order k: k first values as differences of order 0..k-1 (zigzag varints)
//! bits     = partitions of 32, 128, 512 residuals or of all: k (6 bits) | codes
//! code     = q ones, a zero, k low bits        where q = zigzag(residual) >> k is below 16
//!          | 16 ones | width-1 (6 bits) | width bits                              otherwise
//! k = 63   = all residuals of the partition are zero, no codes
//! twin     = bytes of the first stream (varint) | stream of the first half of the values (rounded up) | stream of the rest
//! quad     = bytes of each stream but the last (varints) | streams of the quarters of the values (rounded up)
//! ```
//! Streams are decoded two side by side: within one, each code waits for the one before. Whoever wants a few values reads
//! none of the streams before and behind them.
//!
//! Never here: the choice among encodings, reading (see `read`). Invariant: `size` is exactly what `encode` writes.

mod read;

pub(crate) use read::decode;

use super::bits::{BitWriter, WINDOW_BITS, mask};
use super::wire::{put_signed, put_varint, varint_len, zigzag};

/// Highest predictor order.
pub(crate) const ORDER_MAX: usize = 3;
/// Residuals per partition, by the number stored in the encoding; the first one means all.
pub(crate) const PARTITIONS: [usize; 4] = [usize::MAX, 32, 128, 512];

/// Fewer residuals are not worth a copy of half the width.
const NARROWED_MIN: usize = 64;
const ESCAPE: u32 = 16;
/// Of larger ones a window may not hold a whole code.
const K_SHORT_MAX: u32 = WINDOW_BITS - ESCAPE;
const ZERO: u32 = 63;

/// What a predictor leaves of some values.
#[derive(Debug)]
pub(crate) struct Residuals {
    pub(crate) order: usize,
    start: [i64; ORDER_MAX],
    zigzagged: Vec<u64>,
}

/// The difference of the differences of three values.
#[inline]
fn second(a: i64, b: i64, c: i64) -> i64 {
    c.wrapping_sub(b).wrapping_sub(b.wrapping_sub(a))
}

/// How residuals are written: in partitions, each with its parameter.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) partition: usize,
    parameters: Vec<u32>,
    /// About the bytes of the stream.
    pub(crate) size: usize,
}

impl Residuals {
    /// Values, at least `order` and one of them; those of order 0 are from `offset`.
    pub(crate) fn new(values: &[i64], order: usize, offset: i64) -> Residuals {
        let [a, b, c] = [0, 1, 2].map(|i| values.get(i).copied().unwrap_or_default());
        let (step, next) = (b.wrapping_sub(a), c.wrapping_sub(b));
        let start = if order == 0 {
            [offset, 0, 0]
        } else {
            [a, step, next.wrapping_sub(step)]
        };
        let after = |lag: usize| values.get(lag..).unwrap_or_default().iter();
        let zigzagged = match order {
            0 => values.iter().map(|&v| zigzag(v.wrapping_sub(offset))).collect(),
            1 => values
                .iter()
                .zip(after(1))
                .map(|(a, b)| zigzag(b.wrapping_sub(*a)))
                .collect(),
            2 => {
                let three = values.iter().zip(after(1)).zip(after(2));
                three.map(|((a, b), c)| zigzag(second(*a, *b, *c))).collect()
            }
            _ => {
                let four = values.iter().zip(after(1)).zip(after(2)).zip(after(3));
                let third = |a, b, c, d| second(b, c, d).wrapping_sub(second(a, b, c));
                four.map(|(((a, b), c), d)| zigzag(third(*a, *b, *c, *d))).collect()
            }
        };
        Residuals {
            order,
            start,
            zigzagged,
        }
    }

    /// What is left, zigzagged.
    pub(crate) fn zigzagged(&self) -> &[u64] {
        &self.zigzagged
    }

    fn starts(&self) -> &[i64] {
        &self.start[..self.order.max(1)]
    }

    /// The partitions and parameters with about the shortest stream.
    pub(crate) fn plan(&self) -> Plan {
        let narrow = self.narrow();
        let mut best = self.planned(0, &narrow, Vec::new());
        let mut spare = Vec::new();
        for partition in (1..PARTITIONS.len()).filter(|&p| PARTITIONS[p] < self.zigzagged.len()) {
            let mut next = self.planned(partition, &narrow, spare);
            if next.size < best.size {
                std::mem::swap(&mut best, &mut next);
            }
            spare = next.parameters;
        }
        best
    }

    /// The residuals in half the width, where they fit and it pays.
    fn narrow(&self) -> Vec<u32> {
        let bits = self.zigzagged.iter().fold(0, |bits, &z| bits | z);
        if bits >> 32 != 0 || self.zigzagged.len() < NARROWED_MIN {
            return Vec::new();
        }
        self.zigzagged.iter().map(|&z| z as u32).collect()
    }

    /// The best parameters for partitions of this number, in a vector that is emptied before.
    fn planned(&self, partition: usize, narrow: &[u32], mut parameters: Vec<u32>) -> Plan {
        let size = PARTITIONS[partition].min(self.zigzagged.len().max(1));
        let mut bits = 0;
        let mut one = |(k, more): (u32, usize)| {
            bits += more + 6;
            k
        };
        parameters.clear();
        if narrow.is_empty() {
            parameters.extend(self.zigzagged.chunks(size).map(|part| one(best_k(part))));
        } else {
            parameters.extend(narrow.chunks(size).map(|part| one(best_k(part))));
        }
        let start: usize = self.starts().iter().map(|&s| varint_len(zigzag(s))).sum();
        Plan {
            partition,
            parameters,
            size: start + bits.div_ceil(8),
        }
    }

    /// The best parameters for partitions of this number.
    #[cfg(test)]
    pub(crate) fn plan_of(&self, partition: usize) -> Plan {
        self.planned(partition, &self.narrow(), Vec::new())
    }

    /// Appends the stream.
    pub(crate) fn encode(&self, plan: &Plan, out: &mut Vec<u8>) {
        self.starts().iter().for_each(|&s| put_signed(out, s));
        let mut bits = BitWriter::new(out);
        let size = PARTITIONS[plan.partition].min(self.zigzagged.len().max(1));
        for (part, &k) in self.zigzagged.chunks(size).zip(&plan.parameters) {
            bits.put(k.into(), 6);
            if k != ZERO {
                part.iter().for_each(|&z| put_code(&mut bits, z, k));
            }
        }
        bits.finish();
    }
}

/// The median of a few samples: a fair centre that costs nothing to find.
pub(crate) fn middle(values: &[i64]) -> i64 {
    let mut samples = [0; 64];
    let step = values.len().div_ceil(samples.len()).max(1);
    let taken = values.iter().step_by(step).zip(&mut samples);
    let count = taken.map(|(&value, slot)| *slot = value).count();
    match count {
        0 => 0,
        _ => *samples[..count].select_nth_unstable(count / 2).1,
    }
}

/// Residuals of either width; narrow ones let the compiler take more at a time.
trait Residual: Copy {
    /// Their sum, or the largest number where it is larger.
    fn sum(part: &[Self]) -> u64;

    /// The sum of the bits before the low `k` ones, each cut to what an escaped code costs about.
    fn quotients(part: &[Self], k: u32) -> u64;
}

const QUOTIENT_MAX: u8 = 40;

impl Residual for u32 {
    #[inline(always)]
    fn sum(part: &[u32]) -> u64 {
        part.iter().map(|&z| u64::from(z)).sum()
    }

    #[inline(always)]
    fn quotients(part: &[u32], k: u32) -> u64 {
        let k = k.min(31);
        // A block has so few rows that the sum fits.
        let sum: u32 = part.iter().map(|z| (z >> k).min(QUOTIENT_MAX.into())).sum();
        sum.into()
    }
}

impl Residual for u64 {
    #[inline(always)]
    fn sum(part: &[u64]) -> u64 {
        part.iter().fold(0, |sum: u64, &z| sum.saturating_add(z))
    }

    #[inline(always)]
    fn quotients(part: &[u64], k: u32) -> u64 {
        part.iter().map(|z| (z >> k).min(QUOTIENT_MAX.into())).sum()
    }
}

/// The parameter with about the shortest codes, and about their bits.
fn best_k<T: Residual>(part: &[T]) -> (u32, usize) {
    let sum = T::sum(part);
    if sum == 0 {
        return (ZERO, 0);
    }
    let bits = |k: u32| T::quotients(part, k) as usize + part.len() * (k as usize + 1);
    // Outliers draw the mean up, so the search walks down from it as long as that pays.
    let mean = sum / part.len() as u64;
    let mut best = (ZERO - 1, usize::MAX);
    for k in (0..=(64 - mean.leading_zeros()).min(ZERO - 1)).rev() {
        let bits = bits(k);
        if bits < best.1 {
            best = (k, bits);
        } else if bits > best.1 + best.1 / 32 {
            break;
        }
    }
    best
}

#[inline]
fn put_code(bits: &mut BitWriter<'_>, z: u64, k: u32) {
    let q = z >> k;
    if q < u64::from(ESCAPE) {
        let ones = q as u32;
        if k <= K_SHORT_MAX {
            bits.put(mask(ones) | (z & mask(k)) << (ones + 1), ones + 1 + k);
        } else {
            bits.put(mask(ones), ones + 1);
            bits.put(z & mask(k), k);
        }
    } else {
        let width = 64 - z.leading_zeros();
        bits.put(mask(ESCAPE), ESCAPE);
        bits.put(u64::from(width - 1), 6);
        bits.put(z, width);
    }
}

/// Appends a twin or a quad of `values`, at least `ORDER_MAX` in each of its streams.
pub(crate) fn encode_lanes(values: &[i64], lanes: usize, order: usize, partition: usize, out: &mut Vec<u8>) {
    let mut streams = Vec::new();
    let mut before = 0;
    for (at, lane) in values.chunks(values.len().div_ceil(lanes)).enumerate() {
        let residuals = Residuals::new(lane, order, middle(lane));
        let plan = residuals.planned(partition, &residuals.narrow(), Vec::new());
        residuals.encode(&plan, &mut streams);
        if at + 1 < lanes {
            put_varint(out, (streams.len() - before) as u64);
        }
        before = streams.len();
    }
    out.extend_from_slice(&streams);
}
