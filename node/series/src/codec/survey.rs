//! One look at some integers: about how many bits each order of differences would take, and how wide they are. It
//! spares the menu most of its tries.
//!
//! Never here: bytes, the choice itself. Invariant: what is said is an estimate that depends on the values alone.

use super::wire::{varint_len, zigzag};

/// Highest order of differences.
pub(crate) const ORDER_MAX: usize = 3;
/// Values that are judged together: an outlier spoils only its neighbours.
const STRETCH: usize = 32;
/// So far from the offset values are narrow.
const NARROW: i64 = 1 << 21;
/// Fewer values are looked at as a whole.
pub(crate) const FEW: usize = 24;

/// What each order would cost.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// About the bits of all differences, in 32nds of a bit.
    pub(crate) cost: [u64; ORDER_MAX + 1],
    /// Bits of the widest difference.
    pub(crate) width: [u32; ORDER_MAX + 1],
}

impl Survey {
    /// Looks at the differences of `values`; those of order 0 are from `offset`. Of few values, what begins a stream counts
    /// as well.
    pub(crate) fn new(values: &[i64], offset: i64) -> Survey {
        if values.len() < FEW {
            return Survey::of_few(values, offset);
        }
        let mut survey = Survey {
            cost: [0; ORDER_MAX + 1],
            width: [0; ORDER_MAX + 1],
        };
        let rest = values.get(ORDER_MAX..).unwrap_or_default();
        for (at, stretch) in rest.chunks(STRETCH).enumerate() {
            let start = at * STRETCH;
            let values = &values[start..start + ORDER_MAX + stretch.len()];
            match narrow(values, offset) {
                Some(values) => survey.add_narrow(&values, stretch.len()),
                None => survey.add(values, offset),
            }
        }
        survey
    }

    fn of_few(values: &[i64], offset: i64) -> Survey {
        let mut survey = Survey {
            cost: [u64::MAX; ORDER_MAX + 1],
            width: [u32::MAX; ORDER_MAX + 1],
        };
        let mut held = [0i64; FEW];
        held[..values.len()].copy_from_slice(values);
        let mut start = varint_len(zigzag(offset));
        for order in 0..=ORDER_MAX.min(values.len()) {
            if order > 0 {
                // What was the first difference of the order before begins the stream.
                start = if order == 1 { 0 } else { start } + varint_len(zigzag(held[0]));
                for i in 0..values.len() - order {
                    held[i] = held[i + 1].wrapping_sub(held[i]);
                }
            }
            let left = &held[..values.len() - order];
            let from = if order == 0 { offset } else { 0 };
            let magnitudes = left.iter().map(|v| zigzag(v.wrapping_sub(from)));
            let (sum, bits) = magnitudes.fold((0u64, 0), |(sum, bits), m| (sum.wrapping_add(m), bits | m));
            let len = left.len().max(1) as u64;
            let each = each(sum, 64 - bits.leading_zeros(), len) + 32;
            survey.cost[order] = start as u64 * 256 + left.len() as u64 * each;
            let (least, most) = (left.iter().min(), left.iter().max());
            let span = most
                .zip(least)
                .map_or(0, |(most, least)| most.wrapping_sub(*least) as u64);
            survey.width[order] = start as u32 * 8 / len as u32 + 64 - span.leading_zeros();
        }
        survey
    }

    /// The same for `len` values behind the first three, given as what they are above the offset.
    fn add_narrow(&mut self, values: &Narrow, len: usize) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|lag| &values[ORDER_MAX - lag..][..len]);
        let zigzag = |value: i32| ((value << 1) ^ (value >> 31)) as u32;
        let [mut sum_0, mut sum_1, mut sum_2, mut sum_3] = [0u32; ORDER_MAX + 1];
        let [mut bits_0, mut bits_1, mut bits_2, mut bits_3] = [0u32; ORDER_MAX + 1];
        for (((&a, &b), &c), &d) in a.iter().zip(b).zip(c).zip(d) {
            let (first, before) = (a - b, b - c);
            let second = first - before;
            let third = second - (before - (c - d));
            let [m0, m1, m2, m3] = [a, first, second, third].map(zigzag);
            (sum_0, sum_1, sum_2, sum_3) = (sum_0 + m0, sum_1 + m1, sum_2 + m2, sum_3 + m3);
            (bits_0, bits_1, bits_2, bits_3) = (bits_0 | m0, bits_1 | m1, bits_2 | m2, bits_3 | m3);
        }
        let (sums, bits) = ([sum_0, sum_1, sum_2, sum_3], [bits_0, bits_1, bits_2, bits_3]);
        self.note(len, sums.map(u64::from), bits.map(u64::from));
    }

    /// Adds all but the first three of `values`.
    fn add(&mut self, values: &[i64], offset: i64) {
        let len = values.len() - ORDER_MAX;
        let [a, b, c, d] = [0, 1, 2, 3].map(|lag| &values[ORDER_MAX - lag..][..len]);
        let mut sums = [0u64; ORDER_MAX + 1];
        let mut bits = [0u64; ORDER_MAX + 1];
        for (((&a, &b), &c), &d) in a.iter().zip(b).zip(c).zip(d) {
            let first = a.wrapping_sub(b);
            let before = b.wrapping_sub(c);
            let second = first.wrapping_sub(before);
            let third = second.wrapping_sub(before.wrapping_sub(c.wrapping_sub(d)));
            for (order, difference) in [a.wrapping_sub(offset), first, second, third].into_iter().enumerate() {
                let magnitude = zigzag(difference);
                sums[order] = sums[order].wrapping_add(magnitude);
                bits[order] |= magnitude;
            }
        }
        self.note(len, sums, bits);
    }

    /// Sums of the magnitudes of `len` differences of each order, and the bits that are set in some.
    fn note(&mut self, len: usize, sums: [u64; ORDER_MAX + 1], bits: [u64; ORDER_MAX + 1]) {
        for order in 0..=ORDER_MAX {
            let width = 64 - bits[order].leading_zeros();
            self.width[order] = self.width[order].max(width);
            self.cost[order] += len as u64 * each(sums[order], width, len as u64);
        }
    }

    /// The cheapest order up to `most` and the next one; `len` values.
    pub(crate) fn orders(&self, most: usize, len: usize) -> (usize, Option<usize>) {
        let (mut first, mut next) = (0, None);
        for order in 1..=most.min(ORDER_MAX).min(len) {
            if self.cost[order] < self.cost[first] {
                (first, next) = (order, Some(first));
            } else if next.is_none_or(|next| self.cost[order] < self.cost[next]) {
                next = Some(order);
            }
        }
        (first, next)
    }
}

/// No order of so many values costs fewer bits: each value at least four.
pub(crate) fn bits_min(len: usize) -> u64 {
    match len {
        0..FEW => 0,
        _ => 4 * (len - ORDER_MAX) as u64,
    }
}

/// Values of a stretch as what they are above the offset.
type Narrow = [i32; ORDER_MAX + STRETCH];

/// Values that are so near to the offset that no difference of theirs needs half of a word, nor the sum of a stretch of them.
fn narrow(values: &[i64], offset: i64) -> Option<Narrow> {
    let mut narrow = [0; ORDER_MAX + STRETCH];
    let mut beyond = 0;
    for (to, value) in narrow.iter_mut().zip(values) {
        let above = value.wrapping_sub(offset);
        beyond |= above.wrapping_add(NARROW) as u64;
        *to = above as i32;
    }
    (beyond < 2 * NARROW as u64).then_some(narrow)
}

/// About the bits of one of `len` magnitudes with this sum, in 32nds: the logarithm of their mean.
fn each(sum: u64, width: u32, len: u64) -> u64 {
    // So wide that the sum may have wrapped, or would with five more bits.
    if width + (64 - len.leading_zeros()) > 59 {
        return u64::from(width) * 32;
    }
    let mean = sum * 32 / len + 16;
    let whole = 63 - mean.leading_zeros();
    u64::from(whole) * 32 + (mean << (63 - whole) >> 58 & 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: impl Iterator<Item = i64>, best: usize) {
        let values: Vec<i64> = values.collect();
        let survey = Survey::new(&values, values[values.len() / 2]);
        assert_eq!(survey.orders(3, values.len()).0, best, "{survey:?}");
    }

    #[test]
    fn the_cheapest_order_is_found() {
        check((0..500).map(|i| i * 7919 % 101), 0);
        check(
            (0..500).scan(0, |at, i| {
                *at += i * 7919 % 101 - 50;
                Some(*at)
            }),
            1,
        );
        let pushed = (0..500).scan((0, 0), |(speed, at), i| {
            *speed += i * 7919 % 101 - 50;
            *at += *speed;
            Some(*at)
        });
        check(pushed, 2);
        check((0..40).map(|i| if i % 3 == 0 { i64::MIN } else { i64::MAX }), 0);
    }

    #[test]
    fn sums_that_do_not_fit_are_no_trouble() {
        for bits in 40..64 {
            let wide = (0..4096).map(|i| if i % 2 == 0 { 0 } else { i64::MAX >> (63 - bits) });
            let values: Vec<i64> = wide.collect();
            let survey = Survey::new(&values, 0);
            assert!(
                survey.cost.iter().all(|&cost| cost <= 4096 * 65 * 32),
                "{bits}: {survey:?}"
            );
        }
    }

    #[test]
    fn no_order_costs_less_than_the_least() {
        for len in [24, 25, 100, 4096] {
            for value in [0, 7, i64::MAX] {
                let survey = Survey::new(&vec![value; len], value);
                assert_eq!(survey.cost.map(|cost| cost / 32), [bits_min(len); 4]);
            }
        }
    }

    #[test]
    fn few_values_are_no_trouble() {
        for len in 0..6 {
            let values: Vec<i64> = (0..len).map(|i| i * i).collect();
            let (first, next) = Survey::new(&values, 0).orders(3, values.len());
            assert!(first.max(next.unwrap_or(0)) <= values.len());
        }
    }
}
