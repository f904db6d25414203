//! Doubles as the decimals they were written as: `integer / 10^exponent`, which IEEE rounds correctly, so that every
//! decimal of up to 15 digits comes back bit for bit.
//!
//! Never here: bytes. Invariant: a value counts as a decimal only if dividing gives its very bits again.

/// Largest exponent tried.
pub(crate) const EXPONENT_MAX: u8 = 15;

const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];
/// Integers below it are exact as doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// `10^exponent`.
#[inline]
pub(crate) fn power(exponent: u8) -> f64 {
    POWERS[usize::from(exponent & 15)]
}

/// The integer nearest to `value * 10^exponent`, where it is exact as a double.
#[inline]
pub(crate) fn nearest(value: f64, exponent: u8) -> Option<i64> {
    let scaled = (value * power(exponent)).round_ties_even();
    (scaled.abs() < EXACT).then_some(scaled as i64)
}

/// The integer that gives `value` back exactly.
#[inline]
pub(crate) fn exact(value: f64, exponent: u8) -> Option<i64> {
    nearest(value, exponent).filter(|&i| from_int(i, exponent).to_bits() == value.to_bits())
}

/// The double of an integer.
#[inline]
pub(crate) fn from_int(integer: i64, exponent: u8) -> f64 {
    integer as f64 / power(exponent)
}

/// Per value the smallest exponent that is exact, `None` where there is none.
pub(crate) fn exponents<'a>(values: impl Iterator<Item = &'a f64>) -> Vec<Option<u8>> {
    values
        .map(|&v| (0..=EXPONENT_MAX).find(|&e| exact(v, e).is_some()))
        .collect()
}

/// The integers of all values, where all are exact.
pub(crate) fn all(values: &[f64], exponent: u8) -> Option<Vec<i64>> {
    values.iter().map(|&v| exact(v, exponent)).collect()
}

/// A double's bits as an integer in the order of the doubles.
#[inline]
pub(crate) fn to_ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// Undoes [`to_ordered`].
#[inline]
pub(crate) fn from_ordered(ordered: i64) -> f64 {
    f64::from_bits((ordered ^ ((ordered >> 63) as u64 >> 1) as i64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_found_and_oddities_are_not() {
        let values = [
            0.0,
            1.0,
            442.7,
            -0.1,
            1e15,
            0.000001,
            94.79799999999999,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            1e300,
        ];
        let expected = [
            Some(0),
            Some(0),
            Some(1),
            Some(1),
            Some(0),
            Some(6),
            None,
            None,
            None,
            None,
            None,
        ];
        assert_eq!(exponents(values.iter()), expected);
    }

    #[test]
    fn every_short_decimal_is_exact() {
        for digits in [7i64, 99, 12_345, 999_999_999, 123_456_789_012_345] {
            for exponent in 0..=EXPONENT_MAX {
                let value: f64 = format!("{digits}e-{exponent}").parse().unwrap_or(f64::NAN);
                assert_eq!(exact(value, exponent), Some(digits), "{digits}e-{exponent}");
            }
        }
    }

    #[test]
    fn ordered_bits_keep_order() {
        let values = [f64::NEG_INFINITY, -1.5, -0.0, 0.0, 1e-300, 2.0, f64::INFINITY];
        assert!(values.windows(2).all(|w| to_ordered(w[0]) < to_ordered(w[1])));
        assert!(
            values
                .iter()
                .all(|v| from_ordered(to_ordered(*v)).to_bits() == v.to_bits())
        );
    }
}
