//! Reads Rice codes: as many to a window of bits as surely fit, two streams side by side where there are two. The layout is
//! drawn in `rice`.
//!
//! Never here: writing. Invariant: any bytes give exactly the values asked for, or `Corrupt`; arithmetic wraps.

use super::{ESCAPE, K_SHORT_MAX, ORDER_MAX, PARTITIONS, ZERO};
use crate::codec::bits::{BitReader, mask};
use crate::codec::emit::Emit;
use crate::codec::part::Part;
use crate::codec::wire::{Reader, unzigzag};
use crate::corrupt::Corrupt;

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

/// Most streams of a quad.
const LANES_MAX: usize = 4;

/// Decodes a part of the values of so many streams (`lanes`) of an order and partition number: only the streams that it
/// touches, the last of them no further than needed.
pub(crate) fn decode<E: Emit>(
    bytes: &[u8],
    lanes: usize,
    (order, partition): (usize, usize),
    part: Part,
    emit: E,
) -> Result<Vec<E::Out>, Corrupt> {
    let streams = split(bytes, lanes)?;
    let lane = part.count.div_ceil(lanes);
    let (first, last) = (part.from / lane, part.to.saturating_sub(1) / lane);
    let start = first * lane;
    // What begins a stream is there in any case.
    let end = part.to.max(last * lane + order).min(part.count);
    let mut values = vec![E::Out::default(); end - start];
    let reading = Reading {
        streams: streams.get(first..=last).unwrap_or_default(),
        lane,
        size: PARTITIONS[partition % PARTITIONS.len()],
        whole: part.is_all(),
    };
    match order {
        0 => reading.read::<Flat, E>(&mut values, emit)?,
        1 => reading.read::<Step, E>(&mut values, emit)?,
        2 => reading.read::<Slope, E>(&mut values, emit)?,
        _ => reading.read::<Curve, E>(&mut values, emit)?,
    }
    Ok(part.cut(values, start))
}

/// The bytes of each stream.
fn split(bytes: &[u8], lanes: usize) -> Result<[&[u8]; LANES_MAX], Corrupt> {
    let mut reader = Reader::new(bytes, "rice streams");
    let mut lens = [0; LANES_MAX];
    for len in lens.iter_mut().take(lanes.saturating_sub(1)) {
        *len = reader.count(bytes.len())?;
    }
    let mut streams: [&[u8]; LANES_MAX] = [&[]; LANES_MAX];
    for (at, stream) in streams.iter_mut().enumerate().take(lanes) {
        *stream = if at + 1 < lanes {
            reader.take(lens[at])?
        } else {
            reader.rest()
        };
    }
    Ok(streams)
}

/// Streams to read, of `lane` values each but the last.
struct Reading<'a> {
    streams: &'a [&'a [u8]],
    lane: usize,
    /// Residuals of a partition.
    size: usize,
    /// Every stream is read to its end.
    whole: bool,
}

impl Reading<'_> {
    fn read<P: Predictor, E: Emit>(&self, values: &mut [E::Out], emit: E) -> Result<(), Corrupt> {
        for (streams, values) in self.streams.chunks(2).zip(values.chunks_mut(2 * self.lane)) {
            let (left, right) = values.split_at_mut(self.lane.min(values.len()));
            match streams {
                [first, second] => {
                    let (a, left) = Lane::<P>::begin(first, left, emit)?;
                    let (b, right) = Lane::<P>::begin(second, right, emit)?;
                    self.finish(read_twin((a, left), (b, right), self.size, emit))?;
                }
                _ => {
                    let first = streams.first().copied().unwrap_or_default();
                    let (mut lane, rest) = Lane::<P>::begin(first, left, emit)?;
                    for part in rest.chunks_mut(self.size) {
                        let k = lane.parameter();
                        lane.read(k, part, emit);
                    }
                    self.finish([lane])?;
                }
            }
        }
        Ok(())
    }

    /// Streams that were read to their ends must have ended there.
    fn finish<const N: usize, P>(&self, lanes: [Lane<'_, P>; N]) -> Result<(), Corrupt> {
        let mut lanes = lanes.into_iter().filter(|_| self.whole);
        lanes.try_for_each(|lane| lane.bits.finish("rice codes"))
    }
}

/// A stream on its way, and the values to read from it.
type Begun<'a, 'v, P, T> = (Lane<'a, P>, &'v mut [T]);

fn read_twin<'a, P: Predictor, E: Emit>(
    (mut a, left): Begun<'a, '_, P, E::Out>,
    (mut b, right): Begun<'a, '_, P, E::Out>,
    size: usize,
    emit: E,
) -> [Lane<'a, P>; 2] {
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
    [a, b]
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
