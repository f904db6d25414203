//! Doubles: as decimals where they are, else as decimals give or take some ulps, else by their bits.
//!
//! ```text
//! form 0x00 + e   decimal           int stream of integers, value = integer / 10^e            e = 0..=15
//! form 0x20 + e   with exceptions   exceptions | int stream
//! form 0x40 + e   ulps              exceptions | int stream with its length | int stream of ulps to add
//! form 0x60       bits              int stream of the bits in the order of the doubles
//! form 0x61..63   pco               differences of order 0..=2, see `pcodec`
//! exceptions      = count (varint), and where it is not 0: rows as gaps, an int stream with its length
//!                 | bits in the order of the doubles, an int stream with its length
//! ```
//!
//! Never here: the int menu itself. Invariant: every double comes back bit for bit, NaN payloads and -0.0 included.

use super::best::Best;
use super::decimal::{self, EXPONENT_MAX, from_int, from_ordered, to_ordered};
use super::emit::{Over, Whole};
use super::part::Part;
use super::wire::{Reader, put_part_with, put_varint};
use super::{ints, pcodec};
use crate::corrupt::Corrupt;

const EXCEPT: u8 = 0x20;
const ULPS: u8 = 0x40;
const BITS: u8 = 0x60;
const PCO: u8 = 0x61;

/// Values whose digits are looked at before all are.
const SAMPLES: usize = 32;
/// More ulps than this make an exception.
const ULPS_MAX: i64 = 1 << 12;

/// The exponent of a form that holds decimals only.
pub(crate) fn exponent_of(form: u8) -> Option<u8> {
    (form <= EXPONENT_MAX).then_some(form)
}

/// Appends the smallest form of `values`; gives its number and, where every value is a decimal, the integers over
/// `10^exponent`, whatever the form.
pub(crate) fn put(values: &[f64], out: &mut Vec<u8>) -> (u8, Option<(u8, Vec<i64>)>) {
    // The reading of one record: no allocation, no menu.
    if let [value] = values {
        let found = (0..=EXPONENT_MAX).find_map(|e| Some((e, decimal::exact(*value, e)?)));
        if let Some((exponent, integer)) = found.filter(|(exponent, _)| *exponent <= 8) {
            ints::put(&[integer], out);
            return (exponent, None);
        }
    }
    let mut exponents = decimal::exponents(values.iter().step_by(values.len().div_ceil(SAMPLES).max(1)));
    let mut highest = exponents.iter().flatten().max().copied();
    let mut plain = highest.and_then(|exponent| Some((exponent, decimal::all(values, exponent)?)));
    // Where most are no decimals, the others are too few for any form that wants some.
    if plain.is_none() && exponents.iter().flatten().count() * 2 >= exponents.len() {
        exponents = decimal::exponents(values.iter());
        highest = exponents.iter().flatten().max().copied();
        plain = highest.and_then(|exponent| Some((exponent, decimal::all(values, exponent)?)));
    }
    let mut best = Best::new(out, usize::MAX);
    let mut form = BITS;
    let mut offer = |best: &mut Best<'_>, offered: u8, put: &dyn Fn(&mut Vec<u8>, usize) -> bool| {
        if best.offer(put) {
            form = offered;
        }
    };
    if let Some((exponent, integers)) = &plain {
        offer(&mut best, *exponent, &|out, most| ints::put_below(integers, most, out));
    } else if let Some(exponent) = highest {
        // A value with few digits may still be too large for the exponent that another one needs.
        let odd = values.iter().filter(|&&v| decimal::exact(v, exponent).is_none());
        if odd.count() <= values.len() / 4 {
            offer(&mut best, EXCEPT + exponent, &|out, most| {
                put_with_exceptions(values, exponent, most, out)
            });
        }
    }
    if let Some(exponent) = usual(&exponents, highest.unwrap_or(0)) {
        offer(&mut best, EXCEPT + exponent, &|out, most| {
            put_with_exceptions(values, exponent, most, out)
        });
    }
    if plain.is_none() || highest > Some(8) {
        let near = ulps_exponent(values);
        if let Some(exponent) = near {
            offer(&mut best, ULPS + exponent, &|out, most| {
                put_with_ulps(values, exponent, most, out)
            });
        }
        // Bits of doubles that are near decimals never take less than half of their width.
        if near.is_none() || best.most() > values.len() * 4 {
            let bits: Vec<i64> = values.iter().map(|&v| to_ordered(v)).collect();
            offer(&mut best, BITS, &|out, most| ints::put_without_pco(&bits, most, out));
        }
        if values.len() >= pcodec::VALUES_MIN {
            for order in 0..=1u8 {
                offer(&mut best, PCO + order, &|out, _| {
                    pcodec::encode_floats(values, order.into(), out)
                });
            }
        }
    }
    (form, plain)
}

/// The smallest exponent that nearly all values do with, of which some need `highest`: a few long decimals among short ones
/// are cheaper as exceptions.
fn usual(exponents: &[Option<u8>], highest: u8) -> Option<u8> {
    let mut counts = [0; EXPONENT_MAX as usize + 1];
    exponents.iter().flatten().for_each(|&e| counts[usize::from(e)] += 1);
    let most = exponents.len() - exponents.len() / 8;
    let mut so_far = 0;
    (0..highest).zip(counts).find_map(|(exponent, count)| {
        so_far += count;
        (so_far >= most).then_some(exponent)
    })
}

/// Writes exceptions where `integers` has none and fills these gaps with the integer before; `None` where they do not stay
/// below `most` bytes.
fn put_exceptions(
    values: &[f64],
    integers: impl Iterator<Item = Option<i64>> + Clone,
    most: usize,
    out: &mut Vec<u8>,
) -> Option<Vec<i64>> {
    let mut gaps = Vec::new();
    let mut bits = Vec::new();
    let mut next = 0;
    let mut last = integers.clone().flatten().next().unwrap_or_default();
    let mut filled = Vec::with_capacity(values.len());
    for (row, (integer, &value)) in integers.zip(values).enumerate() {
        match integer {
            Some(integer) => last = integer,
            None => {
                gaps.push(row as i64 - next);
                bits.push(to_ordered(value));
                next = row as i64 + 1;
            }
        }
        filled.push(last);
    }
    let start = out.len();
    put_varint(out, gaps.len() as u64);
    for part in [gaps, bits].iter().filter(|part| !part.is_empty()) {
        let left = most.saturating_sub(out.len() - start);
        if !put_part_with(out, |out| ints::put_below(part, left, out)) {
            return None;
        }
    }
    Some(filled)
}

/// Rows and values of the exceptions among `count` values.
fn get_exceptions(reader: &mut Reader<'_>, count: usize) -> Result<Vec<(usize, f64)>, Corrupt> {
    let exceptions = reader.count(count)?;
    if exceptions == 0 {
        return Ok(Vec::new());
    }
    let gaps = ints::decode(reader.part()?, exceptions)?;
    let bits = ints::decode(reader.part()?, exceptions)?;
    let mut next = 0;
    let mut out = Vec::with_capacity(exceptions);
    for (gap, bits) in gaps.into_iter().zip(bits) {
        let gap = usize::try_from(gap)
            .ok()
            .filter(|&g| g < count - next)
            .ok_or_else(|| reader.corrupt())?;
        out.push((next + gap, from_ordered(bits)));
        next += gap + 1;
    }
    Ok(out)
}

fn put_with_exceptions(values: &[f64], exponent: u8, most: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let integers = values.iter().map(|&v| decimal::exact(v, exponent));
    let filled = put_exceptions(values, integers, most, out);
    let left = most.saturating_sub(out.len() - start);
    filled.is_some_and(|filled| ints::put_below(&filled, left, out))
}

/// Nearest decimal and the ulps from it to `value`.
fn split_ulps(value: f64, exponent: u8) -> Option<(i64, i64)> {
    let integer = decimal::nearest(value, exponent)?;
    let ulps = to_ordered(value).checked_sub(to_ordered(from_int(integer, exponent)))?;
    (ulps.abs() <= ULPS_MAX).then_some((integer, ulps))
}

/// The smallest exponent at which most of a few samples are within a few ulps of a decimal.
fn ulps_exponent(values: &[f64]) -> Option<u8> {
    let samples: Vec<f64> = values
        .iter()
        .copied()
        .step_by(values.len().div_ceil(64).max(1))
        .collect();
    let near = |value: f64, e: u8| split_ulps(value, e).is_some_and(|(_, ulps)| ulps.abs() <= 64);
    let mut others = (0..12).map(|e| samples.iter().filter(move |&&value| !near(value, e)));
    let found = others.position(|mut others| others.nth(samples.len() / 8).is_none());
    found.map(|exponent| exponent as u8)
}

fn put_with_ulps(values: &[f64], exponent: u8, most: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let split: Vec<Option<(i64, i64)>> = values.iter().map(|&v| split_ulps(v, exponent)).collect();
    let integers = split.iter().map(|split| split.map(|(integer, _)| integer));
    let Some(filled) = put_exceptions(values, integers, most, out) else {
        return false;
    };
    let ulps: Vec<i64> = split.iter().map(|split| split.map_or(0, |(_, ulps)| ulps)).collect();
    let left = |out: &Vec<u8>| most.saturating_sub(out.len() - start);
    let room = left(out).saturating_sub(1 + ints::STREAM_MIN);
    put_part_with(out, |out| ints::put_below(&filled, room, out)) && {
        let room = left(out);
        ints::put_below(&ulps, room, out)
    }
}

/// Decodes a part of the values.
pub(crate) fn decode(form: u8, bytes: &[u8], part: Part) -> Result<Vec<f64>, Corrupt> {
    let exponent = form & 0x1f;
    if form < BITS && exponent > EXPONENT_MAX {
        return Err(Corrupt::new("float form", 0));
    }
    let mut reader = Reader::new(bytes, "floats");
    let over = Over::new(decimal::power(exponent));
    match form {
        0..EXCEPT => ints::decode_part(bytes, part, over),
        EXCEPT..ULPS => {
            let exceptions = get_exceptions(&mut reader, part.count)?;
            let mut values = ints::decode_part(reader.rest(), part, over)?;
            put_back(&exceptions, part, &mut values);
            Ok(values)
        }
        ULPS..BITS => {
            let exceptions = get_exceptions(&mut reader, part.count)?;
            let mut values = ints::decode_part(reader.part()?, part, over)?;
            let ulps = ints::decode_part(reader.rest(), part, Whole::PLAIN)?;
            let shift = |(value, k): (&mut f64, i64)| *value = from_ordered(to_ordered(*value).wrapping_add(k));
            values.iter_mut().zip(ulps).for_each(shift);
            put_back(&exceptions, part, &mut values);
            Ok(values)
        }
        BITS => {
            let bits = ints::decode_part(bytes, part, Whole::PLAIN)?;
            Ok(bits.into_iter().map(from_ordered).collect())
        }
        PCO..=0x63 => pcodec::decode(bytes, part),
        _ => Err(Corrupt::new("float form", 0)),
    }
}

/// Writes exceptions over a part of the values.
fn put_back(exceptions: &[(usize, f64)], part: Part, values: &mut [f64]) {
    for (row, value) in exceptions {
        if let Some(slot) = row.checked_sub(part.from).and_then(|at| values.get_mut(at)) {
            *slot = *value;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[track_caller]
    fn check(values: &[f64], form: std::ops::RangeInclusive<u8>, most: usize) {
        let mut bytes = Vec::new();
        let (got, _) = put(values, &mut bytes);
        let count = values.len();
        for range in [
            0..count,
            count / 3..count - count / 5,
            count / 2..count / 2,
            count - 1..count,
        ] {
            let part = Part::of(range.clone(), count);
            let back = decode(got, &bytes, part).unwrap();
            let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits();
            assert!(back.iter().zip(&values[range]).all(same));
            assert_eq!(back.len(), part.len());
        }
        assert!(form.contains(&got), "form {:#04x}, {} bytes", got, bytes.len());
        assert!(bytes.len() <= most, "{} bytes", bytes.len());
    }

    fn walk(len: usize, step: f64) -> impl Iterator<Item = f64> {
        (0..len).map(move |i| 442.0 + ((i * i) % 17) as f64 * step)
    }

    #[test]
    fn doubles_pick_the_smallest_form() {
        check(&[442.7], 1..=1, 4);
        check(&walk(100, 1.0).map(|v| v / 10.0).collect::<Vec<_>>(), 1..=1, 90);
        let mut odd: Vec<f64> = walk(1000, 1.0).map(|v| v / 100.0).collect();
        odd[3] = f64::NAN;
        odd[700] = -0.0;
        odd[701] = f64::NEG_INFINITY;
        check(&odd, EXCEPT + 2..=EXCEPT + 2, 800);
        let ulps: Vec<f64> = walk(200, 1.0)
            .enumerate()
            .map(|(i, v)| from_ordered(to_ordered(v / 1000.0) + [0, -1, 1, 0][i % 4]))
            .collect();
        check(&ulps, ULPS + 3..=ULPS + 3, 300);
        let roots: Vec<f64> = (0..300).map(|i| f64::from(i * 7 % 113 + 2).sqrt()).collect();
        check(&roots, BITS..=BITS, 2100);
        let roots: Vec<f64> = (0..2000).map(|i| f64::from(i * 7919 % 100_003).sqrt()).collect();
        check(&roots, BITS..=0x63, 14_000);
    }

    #[test]
    fn digits_beyond_a_common_exponent_come_back() {
        // 94.22 has few digits, but 94.22 * 10^14 is no exact integer.
        check(
            &[94.22, 85.42200000000003, 94.014, 94.666, 90.03399999999998],
            0..=0x63,
            45,
        );
        check(&[1e15, 0.12345678, 3e15, 0.5, 7.0, 0.25], 0..=0x63, 55);
        check(&[1e15, 0.12345678], 0..=0x63, 20);
    }

    #[test]
    fn odd_doubles_come_back() {
        let nan = f64::from_bits(0x7ff0_0000_dead_beef);
        check(
            &[nan, -nan, 0.0, -0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324],
            0..=0x63,
            90,
        );
        check(&[f64::NAN; 600], 0..=0x63, 30);
    }
}
