//! Units of time differences: a clock that ticks in seconds should not pay for nanoseconds.
//!
//! Never here: bytes. Invariant: the table only grows; an index is on disk for ever.

use crate::codec::divide::gcd_of;

/// Nanoseconds of a unit, by index.
pub(super) const UNITS_NS: [u64; 16] = [
    1,
    1_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
    300_000_000_000,
    600_000_000_000,
    900_000_000_000,
    1_800_000_000_000,
    3_600_000_000_000,
    21_600_000_000_000,
    43_200_000_000_000,
    86_400_000_000_000,
];

/// Index of the largest unit that divides every difference between neighbours. Times ascend.
pub(super) fn unit_of(times: &[i64]) -> u8 {
    let common = gcd_of(times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]) as u64));
    let fits = |&index: &usize| common != 0 && common.is_multiple_of(UNITS_NS[index]);
    (0..UNITS_NS.len()).rev().find(fits).unwrap_or(0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_is_found() {
        let unit = |times: &[i64]| UNITS_NS[usize::from(unit_of(times))];
        assert_eq!(unit(&[5]), 1);
        assert_eq!(unit(&[5, 5]), 1);
        assert_eq!(unit(&[i64::MIN, i64::MAX]), 1);
        assert_eq!(unit(&[3, 900_000_000_003, 2_700_000_000_003]), 900_000_000_000);
        assert_eq!(unit(&[0, 578_123_000_000]), 1_000_000);
    }
}
