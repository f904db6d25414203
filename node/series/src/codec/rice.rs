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
//! ```
//! The two halves of a twin are decoded side by side: within one stream, each code waits for the one before.
//!
//! Never here: the choice among encodings. Invariant: `size` is exactly what `encode` writes.

use super::bits::{BitReader, BitWriter, WINDOW_BITS, mask};
use super::emit::Emit;
use super::wire::{Reader, put_part, put_signed, unzigzag, varint_len, zigzag};
use crate::corrupt::Corrupt;

/// Highest predictor order.
pub(crate) const ORDER_MAX: usize = 3;
/// Residuals per partition, by the number stored in the encoding; the first one means all.
pub(crate) const PARTITIONS: [usize; 4] = [usize::MAX, 32, 128, 512];

/// Fewer residuals are not worth a copy of half the width.
const NARROWED_MIN: usize = 64;
const ESCAPE: u32 = 16;
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
        let whole = self.planned(0, &narrow);
        let others = (1..PARTITIONS.len()).filter(|&p| PARTITIONS[p] < self.zigzagged.len());
        others
            .map(|partition| self.planned(partition, &narrow))
            .fold(whole, |best, next| if next.size < best.size { next } else { best })
    }

    /// The residuals in half the width, where they fit and it pays.
    fn narrow(&self) -> Vec<u32> {
        let bits = self.zigzagged.iter().fold(0, |bits, &z| bits | z);
        if bits >> 32 != 0 || self.zigzagged.len() < NARROWED_MIN {
            return Vec::new();
        }
        self.zigzagged.iter().map(|&z| z as u32).collect()
    }

    fn planned(&self, partition: usize, narrow: &[u32]) -> Plan {
        let size = PARTITIONS[partition].min(self.zigzagged.len().max(1));
        let mut bits = 0;
        let mut one = |(k, more): (u32, usize)| {
            bits += more + 6;
            k
        };
        let parameters = if narrow.is_empty() {
            self.zigzagged.chunks(size).map(|part| one(best_k(part))).collect()
        } else {
            narrow.chunks(size).map(|part| one(best_k(part))).collect()
        };
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
        self.planned(partition, &self.narrow())
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
    samples[..count].sort_unstable();
    samples[count / 2]
}

/// Residuals of either width; narrow ones let the compiler take more at a time.
trait Residual: Copy {
    fn wide(self) -> u64;

    /// The bits before the low `k` ones, cut to what an escaped code costs about.
    fn quotient(self, k: u32) -> Self;
}

const QUOTIENT_MAX: u8 = 40;

impl Residual for u32 {
    #[inline(always)]
    fn wide(self) -> u64 {
        self.into()
    }

    #[inline(always)]
    fn quotient(self, k: u32) -> u32 {
        (self >> k.min(31)).min(QUOTIENT_MAX.into())
    }
}

impl Residual for u64 {
    #[inline(always)]
    fn wide(self) -> u64 {
        self
    }

    #[inline(always)]
    fn quotient(self, k: u32) -> u64 {
        (self >> k).min(QUOTIENT_MAX.into())
    }
}

/// The parameter with about the shortest codes, and about their bits.
fn best_k<T: Residual>(part: &[T]) -> (u32, usize) {
    let sum = part.iter().fold(0u64, |sum, z| sum.saturating_add(z.wide()));
    if sum == 0 {
        return (ZERO, 0);
    }
    let bits = |k: u32| {
        let quotients: u64 = part.iter().map(|z| z.quotient(k).wide()).sum();
        quotients as usize + part.len() * (k as usize + 1)
    };
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

/// One code; the window holds at least `ESCAPE + k` bits, and `k` is at most `K_SHORT_MAX`.
#[inline(always)]
fn get_code(bits: &mut BitReader<'_>, k: u32) -> u64 {
    let window = bits.window();
    // The bit that is set anyway ends the search for a zero where an escape is sure.
    let q = (!window | 1 << ESCAPE).trailing_zeros();
    if q < ESCAPE {
        bits.skip(q + 1 + k);
        return u64::from(q) << k | (window >> (q + 1)) & mask(k);
    }
    get_escaped(bits)
}

/// What follows `ESCAPE` ones; leaves a refilled window.
#[cold]
fn get_escaped(bits: &mut BitReader<'_>) -> u64 {
    bits.skip(ESCAPE);
    let width = bits.get(6) as u32 + 1;
    let value = bits.get(width);
    bits.refill();
    value
}

/// One code of any `k`.
#[cold]
fn get_long(bits: &mut BitReader<'_>, k: u32) -> u64 {
    bits.refill();
    let q = bits.window().trailing_ones();
    if q >= ESCAPE {
        return get_escaped(bits);
    }
    bits.skip(q + 1);
    u64::from(q).wrapping_shl(k) | bits.get(k)
}

/// Of larger ones a window may not hold a whole code.
const K_SHORT_MAX: u32 = WINDOW_BITS - ESCAPE;

/// Decodes `count` values of a stream of `order` and partition number `partition`.
pub(crate) fn decode<E: Emit>(
    bytes: &[u8],
    order: usize,
    partition: usize,
    count: usize,
    emit: E,
) -> Result<Vec<E::Out>, Corrupt> {
    let mut values = vec![E::Out::default(); count];
    let size = PARTITIONS[partition % PARTITIONS.len()];
    match order {
        0 => read::<Flat, E>(bytes, size, &mut values, emit)?,
        1 => read::<Step, E>(bytes, size, &mut values, emit)?,
        2 => read::<Slope, E>(bytes, size, &mut values, emit)?,
        _ => read::<Curve, E>(bytes, size, &mut values, emit)?,
    }
    Ok(values)
}

/// Appends a twin of `values`, at least `ORDER_MAX` in each half.
pub(crate) fn encode_twin(values: &[i64], order: usize, partition: usize, out: &mut Vec<u8>) {
    let (first, second) = values.split_at(values.len().div_ceil(2));
    let put = |half: &[i64], out: &mut Vec<u8>| {
        let residuals = Residuals::new(half, order, middle(half));
        residuals.encode(&residuals.planned(partition, &residuals.narrow()), out);
    };
    let mut stream = Vec::new();
    put(first, &mut stream);
    put_part(out, &stream);
    put(second, out);
}

/// Decodes a twin of `count` values.
pub(crate) fn decode_twin<E: Emit>(
    bytes: &[u8],
    order: usize,
    partition: usize,
    count: usize,
    emit: E,
) -> Result<Vec<E::Out>, Corrupt> {
    let mut reader = Reader::new(bytes, "rice twin");
    let streams = [reader.part()?, reader.rest()];
    let mut values = vec![E::Out::default(); count];
    let halves = values.split_at_mut(count.div_ceil(2));
    let size = PARTITIONS[partition % PARTITIONS.len()];
    match order {
        0 => read_twin::<Flat, E>(streams, size, halves, emit)?,
        1 => read_twin::<Step, E>(streams, size, halves, emit)?,
        2 => read_twin::<Slope, E>(streams, size, halves, emit)?,
        _ => read_twin::<Curve, E>(streams, size, halves, emit)?,
    }
    Ok(values)
}

fn read<P: Predictor, E: Emit>(bytes: &[u8], size: usize, values: &mut [E::Out], emit: E) -> Result<(), Corrupt> {
    let (mut lane, rest) = Lane::<P>::begin(bytes, values, emit)?;
    for part in rest.chunks_mut(size) {
        let k = lane.parameter();
        lane.read(k, part, emit);
    }
    lane.bits.finish("rice codes")
}

fn read_twin<P: Predictor, E: Emit>(
    [first, second]: [&[u8]; 2],
    size: usize,
    (left, right): (&mut [E::Out], &mut [E::Out]),
    emit: E,
) -> Result<(), Corrupt> {
    let (mut a, left) = Lane::<P>::begin(first, left, emit)?;
    let (mut b, right) = Lane::<P>::begin(second, right, emit)?;
    let (mut lefts, mut rights) = (left.chunks_mut(size), right.chunks_mut(size));
    loop {
        let (left, right) = match (lefts.next(), rights.next()) {
            (None, None) => break,
            (left, right) => (left.unwrap_or_default(), right.unwrap_or_default()),
        };
        let ka = if left.is_empty() { ZERO } else { a.parameter() };
        let kb = if right.is_empty() { ZERO } else { b.parameter() };
        let both = if ka.max(kb) <= SIDE_BY_SIDE_MAX {
            left.len().min(right.len())
        } else {
            0
        };
        let ((left, more_left), (right, more_right)) = (left.split_at_mut(both), right.split_at_mut(both));
        side_by_side((&mut a, ka, left), (&mut b, kb, right), emit);
        a.read(ka, more_left, emit);
        b.read(kb, more_right, emit);
    }
    a.bits.finish("rice codes")?;
    b.bits.finish("rice codes")
}

/// Two codes of this parameter surely fit into a window.
const SIDE_BY_SIDE_MAX: u32 = 12;

/// Equally many values of two lanes.
fn side_by_side<P: Predictor, E: Emit>(
    (a, ka, left): (&mut Lane<'_, P>, u32, &mut [E::Out]),
    (b, kb, right): (&mut Lane<'_, P>, u32, &mut [E::Out]),
    emit: E,
) {
    let (lefts, left) = left.as_chunks_mut::<2>();
    let (rights, right) = right.as_chunks_mut::<2>();
    for (left, right) in lefts.iter_mut().zip(rights) {
        a.bits.refill();
        b.bits.refill();
        for (left, right) in left.iter_mut().zip(right) {
            *left = a.next(ka, emit);
            *right = b.next(kb, emit);
        }
    }
    for (left, right) in left.iter_mut().zip(right) {
        a.bits.refill();
        b.bits.refill();
        *left = a.next(ka, emit);
        *right = b.next(kb, emit);
    }
}

/// A stream on its way.
struct Lane<'a, P> {
    bits: BitReader<'a>,
    predictor: P,
}

impl<'a, P: Predictor> Lane<'a, P> {
    /// Reads what begins a stream and writes the first values; gives the others.
    fn begin<'v, E: Emit>(
        bytes: &'a [u8],
        values: &'v mut [E::Out],
        emit: E,
    ) -> Result<(Lane<'a, P>, &'v mut [E::Out]), Corrupt> {
        let mut reader = Reader::new(bytes, "rice start");
        let mut start = [0; ORDER_MAX];
        for slot in start.iter_mut().take(P::ORDER.max(1)) {
            *slot = reader.signed()?;
        }
        let (first, rest) = values.split_at_mut_checked(P::ORDER).ok_or_else(|| reader.corrupt())?;
        let [a, b, c] = start;
        let second = a.wrapping_add(b);
        let third = second.wrapping_add(b.wrapping_add(c));
        first
            .iter_mut()
            .zip([a, second, third])
            .for_each(|(to, from)| *to = emit.emit(from));
        let lane = Lane {
            bits: BitReader::new(reader.rest()),
            predictor: P::after(start),
        };
        Ok((lane, rest))
    }

    fn parameter(&mut self) -> u32 {
        self.bits.get(6) as u32
    }

    #[inline(always)]
    fn next<E: Emit>(&mut self, k: u32, emit: E) -> E::Out {
        emit.emit(self.predictor.next(unzigzag(get_code(&mut self.bits, k))))
    }

    /// A partition, or what is left of one.
    fn read<E: Emit>(&mut self, k: u32, values: &mut [E::Out], emit: E) {
        let Lane { bits, predictor } = self;
        let mut next = |residual| emit.emit(predictor.next(unzigzag(residual)));
        // As many codes to a window as surely fit.
        match k {
            ZERO => values.iter_mut().for_each(|value| *value = next(0)),
            0..=2 => fill::<3, _>(bits, values, |bits| next(get_code(bits, k))),
            3..=12 => fill::<2, _>(bits, values, |bits| next(get_code(bits, k))),
            13..=K_SHORT_MAX => fill::<1, _>(bits, values, |bits| next(get_code(bits, k))),
            _ => values.iter_mut().for_each(|value| *value = next(get_long(bits, k))),
        }
    }
}

#[inline(always)]
fn fill<const N: usize, T>(bits: &mut BitReader<'_>, values: &mut [T], mut next: impl FnMut(&mut BitReader<'_>) -> T) {
    let (chunks, rest) = values.as_chunks_mut::<N>();
    for chunk in chunks {
        bits.refill();
        for value in chunk {
            *value = next(bits);
        }
    }
    for value in rest {
        bits.refill();
        *value = next(bits);
    }
}

/// Adds a residual to what is predicted from the values before.
trait Predictor {
    const ORDER: usize;

    /// What it is after the values that begin a stream.
    fn after(start: [i64; ORDER_MAX]) -> Self;

    fn next(&mut self, residual: i64) -> i64;
}

/// Always the same.
struct Flat(i64);
/// The value before.
struct Step(i64);
/// The value before and the difference there.
struct Slope(i64, i64);
/// The same, and the difference of differences.
struct Curve(i64, i64, i64);

impl Predictor for Flat {
    const ORDER: usize = 0;

    fn after([offset, ..]: [i64; ORDER_MAX]) -> Flat {
        Flat(offset)
    }

    #[inline(always)]
    fn next(&mut self, residual: i64) -> i64 {
        self.0.wrapping_add(residual)
    }
}

impl Predictor for Step {
    const ORDER: usize = 1;

    fn after([value, ..]: [i64; ORDER_MAX]) -> Step {
        Step(value)
    }

    #[inline(always)]
    fn next(&mut self, residual: i64) -> i64 {
        self.0 = self.0.wrapping_add(residual);
        self.0
    }
}

impl Predictor for Slope {
    const ORDER: usize = 2;

    fn after([value, step, _]: [i64; ORDER_MAX]) -> Slope {
        Slope(value.wrapping_add(step), step)
    }

    #[inline(always)]
    fn next(&mut self, residual: i64) -> i64 {
        self.1 = self.1.wrapping_add(residual);
        self.0 = self.0.wrapping_add(self.1);
        self.0
    }
}

impl Predictor for Curve {
    const ORDER: usize = 3;

    fn after([value, step, bend]: [i64; ORDER_MAX]) -> Curve {
        let slope = step.wrapping_add(bend);
        Curve(value.wrapping_add(step).wrapping_add(slope), slope, bend)
    }

    #[inline(always)]
    fn next(&mut self, residual: i64) -> i64 {
        self.2 = self.2.wrapping_add(residual);
        self.1 = self.1.wrapping_add(self.2);
        self.0 = self.0.wrapping_add(self.1);
        self.0
    }
}
