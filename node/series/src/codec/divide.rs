//! Division that leaves nothing over: to multiply by an inverse costs a fraction of what the processor's division does.
//!
//! Never here: bytes, rounding. Invariant: arithmetic wraps, no input panics.

/// A divisor and its inverse.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Divisor {
    /// Of the odd part, modulo 2^64.
    inverse: u64,
    /// Zeros below the odd part.
    shift: u32,
    /// The largest quotient.
    most: u64,
}

impl Divisor {
    /// 0 counts as 1.
    pub(crate) fn new(divisor: u64) -> Divisor {
        let divisor = divisor.max(1);
        let shift = divisor.trailing_zeros();
        let odd = divisor >> shift;
        // Right in three bits; every step doubles them.
        let mut inverse = odd;
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        Divisor {
            inverse,
            shift,
            most: u64::MAX / divisor,
        }
    }

    /// The quotient, where nothing is left over.
    #[inline]
    pub(crate) fn quotient(&self, value: u64) -> Option<u64> {
        let quotient = value.wrapping_mul(self.inverse).rotate_right(self.shift);
        (quotient <= self.most).then_some(quotient)
    }

    /// `(value - offset) / divisor`, of which nothing must be left over and which must fit.
    #[inline]
    pub(crate) fn steps(&self, value: i64, offset: i64) -> i64 {
        let halved = (value >> self.shift).wrapping_sub(offset >> self.shift);
        halved.wrapping_mul(self.inverse as i64)
    }
}

/// The greatest common divisor; 0 and a number have that number.
pub(crate) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while a != 0 {
        (a, b) = (b % a, a);
    }
    b
}

/// The greatest common divisor of some numbers, 1 as soon as it is 1; 0 where all of them are.
pub(crate) fn gcd_of(numbers: impl Iterator<Item = u64>) -> u64 {
    let mut common = 0;
    let mut known = Divisor::new(1);
    for number in numbers {
        if number == 0 || common != 0 && known.quotient(number).is_some() {
            continue;
        }
        common = gcd(number, common);
        if common == 1 {
            break;
        }
        known = Divisor::new(common);
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIVISORS: [u64; 9] = [1, 2, 3, 10, 900, 1 << 40, 1_000_000_000, (1 << 63) + 1, u64::MAX];

    #[test]
    fn quotients_are_those_of_division() {
        for divisor in DIVISORS {
            let known = Divisor::new(divisor);
            for value in [
                0,
                1,
                2,
                899,
                900,
                901,
                divisor,
                divisor - 1,
                divisor.wrapping_mul(7),
                u64::MAX,
            ] {
                let expected = value.is_multiple_of(divisor).then(|| value / divisor);
                assert_eq!(known.quotient(value), expected, "{value} / {divisor}");
            }
        }
    }

    #[test]
    fn steps_from_an_offset_are_exact_to_the_ends() {
        for divisor in DIVISORS {
            let known = Divisor::new(divisor);
            for value in [i64::MIN, i64::MIN + 5, -901, -1, 0, 1, 77, i64::MAX] {
                let (wide, divisor) = (i128::from(value), i128::from(divisor));
                let offset = wide.rem_euclid(divisor);
                let Ok(short) = i64::try_from(offset) else { continue };
                let expected = ((wide - offset) / divisor) as i64;
                assert_eq!(known.steps(value, short), expected, "{value} by {divisor}");
            }
        }
    }

    #[test]
    fn common_divisors_are_the_greatest() {
        assert_eq!(gcd_of([].into_iter()), 0);
        assert_eq!(gcd_of([0, 0].into_iter()), 0);
        assert_eq!(gcd_of([0, 900, 1800, 600].into_iter()), 300);
        assert_eq!(gcd_of([7, 1 << 50, 14].into_iter()), 1);
    }
}
