//! Times of values, listed or at even steps: most devices report by the clock, and their times need no list.
//!
//! Never here: bytes. Invariant: times ascend.

/// Times that ascend.
pub(crate) trait Stamps: Copy {
    /// How many there are.
    fn len(self) -> usize;

    /// The time at a place; the last one beyond the end.
    fn at(self, index: usize) -> i64;

    /// The times at places from `start` to before `end`.
    fn part(self, start: usize, end: usize) -> Self;

    /// How far each is from the one before, where that is known of all at once.
    fn step_ns(self) -> Option<i64>;

    /// The number of times for which `is_before` holds, which are the first ones.
    fn partition(self, is_before: impl Fn(i64) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.at(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl Stamps for &[i64] {
    #[inline]
    fn len(self) -> usize {
        <[i64]>::len(self)
    }

    #[inline]
    fn at(self, index: usize) -> i64 {
        self.get(index).or(self.last()).copied().unwrap_or_default()
    }

    #[inline]
    fn part(self, start: usize, end: usize) -> Self {
        self.get(start..end).unwrap_or_default()
    }

    #[inline]
    fn step_ns(self) -> Option<i64> {
        None
    }
}

/// Times at even steps; all of them fit 64 bits.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Even {
    pub(crate) first_ns: i64,
    pub(crate) step_ns: i64,
    pub(crate) count: usize,
}

impl Even {
    pub(crate) fn list(self) -> Vec<i64> {
        (0..self.count).map(|index| self.at(index)).collect()
    }
}

impl Stamps for Even {
    #[inline]
    fn len(self) -> usize {
        self.count
    }

    #[inline]
    fn at(self, index: usize) -> i64 {
        let index = index.min(self.count.saturating_sub(1)) as i64;
        self.first_ns.wrapping_add(self.step_ns.wrapping_mul(index))
    }

    #[inline]
    fn part(self, start: usize, end: usize) -> Self {
        Even {
            first_ns: self.at(start),
            count: end.min(self.count).saturating_sub(start),
            ..self
        }
    }

    #[inline]
    fn step_ns(self) -> Option<i64> {
        Some(self.step_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_times_are_those_of_their_list() {
        for (first_ns, step_ns, count) in [(0, 1, 1), (-50, 7, 20), (i64::MIN, i64::MAX, 3), (i64::MAX - 3, 1, 4)] {
            let even = Even {
                first_ns,
                step_ns,
                count,
            };
            let list = even.list();
            let list = list.as_slice();
            assert!(list.is_sorted());
            for limit in [i64::MIN, -51, -50, -49, 0, 13, i64::MAX] {
                let before = |t: i64| t < limit;
                assert_eq!(even.partition(before), list.partition_point(|&t| before(t)));
                assert_eq!(list.partition(before), list.partition_point(|&t| before(t)));
            }
            for start in 0..count {
                for end in start..=count {
                    assert_eq!(even.part(start, end).list(), list.part(start, end), "{start} to {end}");
                }
            }
        }
    }
}
