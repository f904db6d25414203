//! Sums of doubles that carry along what rounding takes from them (double-double): in whatever order and groups something is added,
//! sums agree to about 1e-30 of the magnitudes, and so, but for rare ties, in every digit that a double shows.
//!
//! Never here: what is added. Invariant: where a sum leaves the doubles it is what adding doubles would give.

/// A number as the sum of two doubles.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Exact {
    /// The number, rounded.
    pub high: f64,
    /// What rounding took from it.
    pub rest: f64,
}

/// Halves the digits of a double.
const SPLIT: f64 = 134_217_729.0;

impl Exact {
    /// A double.
    pub fn of(value: f64) -> Exact {
        Exact { high: value, rest: 0.0 }
    }

    /// The sum of two doubles, with nothing lost.
    #[inline]
    pub fn sum(a: f64, b: f64) -> Exact {
        let high = a + b;
        let shadow = high - a;
        Exact::tidy(high, (a - (high - shadow)) + (b - shadow))
    }

    /// The product of two doubles, with nothing lost.
    #[inline]
    pub fn product(a: f64, b: f64) -> Exact {
        let halves = |value: f64| {
            let wide = value * SPLIT;
            let upper = wide - (wide - value);
            (upper, value - upper)
        };
        let high = a * b;
        let ((a_upper, a_lower), (b_upper, b_lower)) = (halves(a), halves(b));
        let error = a_upper * b_upper - high + a_upper * b_lower + a_lower * b_upper + a_lower * b_lower;
        Exact::tidy(high, error)
    }

    /// The number, so many times.
    #[inline]
    pub fn times(self, by: f64) -> Exact {
        let mut product = Exact::product(self.high, by);
        product.add(Exact::of(self.rest * by));
        product
    }

    /// Adds another one.
    #[inline]
    pub fn add(&mut self, other: Exact) {
        let sum = Exact::sum(self.high, other.high);
        let small = sum.rest + (self.rest + other.rest);
        let high = sum.high + small;
        *self = match high.is_finite() {
            true => Exact::tidy(high, small - (high - sum.high)),
            false => Exact::of(self.high + other.high),
        };
    }

    /// The number as a double.
    pub fn value(self) -> f64 {
        self.high + self.rest
    }

    /// Whether two of them are the same but for what nobody can see.
    pub fn is_same(self, other: Exact) -> bool {
        self.high == other.high && (self.rest - other.rest).abs() <= self.high.abs() * f64::EPSILON * f64::EPSILON
    }

    fn tidy(high: f64, rest: f64) -> Exact {
        match rest.is_finite() {
            true => Exact { high, rest },
            false => Exact::of(high),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_whatever_the_order() {
        let numbers: Vec<f64> = (0..400).map(|n| f64::from(n * 7_919 % 1_000) / 7.0 - 70.0).collect();
        let total = |numbers: &mut dyn Iterator<Item = &f64>| {
            let mut sum = Exact::default();
            numbers.for_each(|number| sum.add(Exact::product(*number, 1.1)));
            sum
        };
        let (there, back) = (total(&mut numbers.iter()), total(&mut numbers.iter().rev()));
        assert!((there.rest - back.rest).abs() < 1e-27, "{there:?} {back:?}");
        assert_eq!(there.value(), back.value());
        let mut none = there;
        numbers
            .iter()
            .for_each(|number| none.add(Exact::product(*number, -1.1)));
        assert!(none.value().abs() < 1e-25, "{none:?}");
    }

    #[test]
    fn products_have_all_their_digits() {
        let product = Exact::product(1.0 + f64::EPSILON, 1.0 - f64::EPSILON);
        assert_eq!((product.high, product.rest), (1.0, -f64::EPSILON * f64::EPSILON));
        assert_eq!(Exact::sum(1e16, 1.0), Exact { high: 1e16, rest: 1.0 });
        assert_eq!(Exact::sum(1.0, 0.5).times(3.0).value(), 4.5);
    }

    #[test]
    fn the_ends_of_the_doubles_are_those_of_doubles() {
        assert_eq!(Exact::product(1e300, 1e300).value(), f64::INFINITY);
        assert_eq!(Exact::product(1e305, 2.0).value(), 2e305);
        let mut sum = Exact::of(f64::MAX);
        sum.add(Exact::of(f64::MAX));
        assert_eq!(sum.value(), f64::INFINITY);
        sum.add(Exact::of(f64::NEG_INFINITY));
        assert!(sum.value().is_nan());
    }
}
