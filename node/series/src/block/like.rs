//! A column by what it differs from another one: a corrected reading beside the raw one, the smallest beside the mean.
//!
//! ```text
//! f64 = int stream of integer - nearest integer to (other * 10^e)        value = integer / 10^e, e is the encoding
//! i64 = int stream of value - other
//! ```
//! Where the other value has no such integer (not a number, too large) it counts as 0. Arithmetic wraps.
//!
//! Never here: which rows there are. Invariants: both columns have values in the same rows; the other one is like none.

use crate::codec::emit::Whole;
use crate::codec::part::Part;
use crate::codec::{decimal, floats, ints};
use crate::corrupt::Corrupt;
use crate::record::Values;

/// Fewest values worth a look.
const VALUES_MIN: usize = 32;
/// Stretches of a column that are looked at, and their length.
const SAMPLES: usize = 6;
const SAMPLE_LEN: usize = 24;

/// What another column says about this one, an integer per value.
fn expected(other: &Values, exponent: u8) -> Box<dyn Fn(usize) -> i64 + '_> {
    match other {
        Values::F64(other) => Box::new(move |row| expect(other[row], exponent)),
        Values::I64(other) => Box::new(move |row| other[row]),
        _ => Box::new(|_| 0),
    }
}

#[inline]
fn expect(other: f64, exponent: u8) -> i64 {
    decimal::nearest(other, exponent).unwrap_or(0)
}

/// About how many bits some values take: what differences of the better of two orders need, over a few stretches.
fn estimate(count: usize, value: impl Fn(usize) -> i64) -> u64 {
    let step = (count / SAMPLES).max(SAMPLE_LEN);
    let mut bits = [0u64; 2];
    for start in (0..count).step_by(step) {
        let mut before = value(start);
        let mut slope = 0i64;
        for row in start + 1..(start + SAMPLE_LEN).min(count) {
            let next = value(row);
            let first = next.wrapping_sub(before);
            let second = first.wrapping_sub(slope);
            let cost = |v: i64| u64::from(64 - v.unsigned_abs().leading_zeros());
            bits[0] += cost(first);
            bits[1] += cost(second);
            (before, slope) = (next, first);
        }
    }
    bits[0].min(bits[1])
}

/// Appends the stream of differences to the best of `others` (each with a number of its own, which it gives), if it is
/// shorter than `most` bytes. `integers` are those of the column over `10^exponent`.
pub(super) fn put<'a>(
    integers: &[i64],
    exponent: u8,
    others: impl Iterator<Item = (usize, &'a Values)>,
    most: usize,
    out: &mut Vec<u8>,
) -> Option<usize> {
    if integers.len() < VALUES_MIN || most < 16 {
        return None;
    }
    let own = estimate(integers.len(), |row| integers[row]);
    let difference = |other: &'a Values| {
        let expected = expected(other, exponent);
        move |row: usize| integers[row].wrapping_sub(expected(row))
    };
    let cost = |(_, other): &(usize, &'a Values)| estimate(integers.len(), difference(other));
    let (_, number, other) = others
        .map(|other| (cost(&other), other.0, other.1))
        .min_by_key(|(cost, number, _)| (*cost, usize::MAX - number))
        .filter(|(cost, ..)| cost * 5 < own * 4)?;
    let differences: Vec<i64> = (0..integers.len()).map(difference(other)).collect();
    ints::put_below(&differences, most, out).then_some(number)
}

/// Decodes a part of the values of a column like another one, of which the same part is given.
pub(crate) fn decode(other: &Values, encoding: u8, bytes: &[u8], part: Part) -> Result<Values, Corrupt> {
    match other {
        Values::F64(other) => {
            let exponent = floats::exponent_of(encoding).ok_or(Corrupt::new("column like another", 0))?;
            let mut values = ints::decode_part(bytes, part, Whole::PLAIN)?.into_iter();
            let divisor = decimal::power(exponent);
            let value = |&other: &f64| {
                let integer = expect(other, exponent).wrapping_add(values.next().unwrap_or_default());
                integer as f64 / divisor
            };
            Ok(Values::F64(other.iter().map(value).collect()))
        }
        Values::I64(other) => {
            let mut values = ints::decode_part(bytes, part, Whole::PLAIN)?;
            values.iter_mut().zip(other).for_each(|(v, o)| *v = v.wrapping_add(*o));
            Ok(Values::I64(values))
        }
        _ => Err(Corrupt::new("column like another", 0)),
    }
}
