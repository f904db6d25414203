//! Which buckets a range of time touches.
//!
//! Never here: keys, storage. Invariant: no overflow, whatever the times; the first bucket of time starts at `i64::MIN`
//! even where the grid would start it earlier.

/// Start of the bucket that holds `time_ns`: a multiple of the span, rounded down, but never below `i64::MIN`.
/// A span below 1 counts as 1.
#[must_use]
pub fn bucket_start(time_ns: i64, bucket_span_ns: i64) -> i64 {
    Grid::new(bucket_span_ns).start(Grid::new(bucket_span_ns).index(time_ns))
}

/// Numbers the buckets of a span: bucket 0 starts at time 0.
#[derive(Copy, Clone)]
pub(super) struct Grid {
    span_ns: i64,
}

impl Grid {
    pub(super) fn new(bucket_span_ns: i64) -> Self {
        Self {
            span_ns: bucket_span_ns.max(1),
        }
    }

    /// Number of the bucket that holds `time_ns`.
    pub(super) fn index(self, time_ns: i64) -> i64 {
        time_ns.div_euclid(self.span_ns)
    }

    /// Start of a bucket.
    pub(super) fn start(self, index: i64) -> i64 {
        index.saturating_mul(self.span_ns)
    }

    /// First and last bucket that `[from, to)` touches, none when it is empty or misses the extent (starts of the first
    /// and last bucket there are).
    pub(super) fn touched(self, from_ns: i64, to_ns: i64, extent: Option<(i64, i64)>) -> Option<(i64, i64)> {
        let (first, last) = extent?;
        if from_ns >= to_ns {
            return None;
        }
        let from = self.index(from_ns).max(self.index(first));
        let to = self.index(to_ns - 1).min(self.index(last));
        (from <= to).then_some((from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts() {
        let check = |time, span, expected| assert_eq!(bucket_start(time, span), expected, "{time} {span}");
        check(0, 10, 0);
        check(9, 10, 0);
        check(-1, 10, -10);
        check(-10, 10, -10);
        check(i64::MAX, 10, i64::MAX / 10 * 10);
        check(i64::MIN, 10, i64::MIN);
        check(i64::MIN + 7, 10, i64::MIN);
        check(i64::MIN + 8, 10, i64::MIN + 8);
        check(5, 0, 5);
        check(5, i64::MAX, 0);
        check(-5, i64::MAX, -i64::MAX);
        check(i64::MIN, i64::MAX, i64::MIN);
    }

    #[test]
    fn touched_buckets() {
        let all = Some((i64::MIN, i64::MAX));
        let check = |from, to, extent, expected| assert_eq!(Grid::new(10).touched(from, to, extent), expected);
        check(0, 10, all, Some((0, 0)));
        check(0, 11, all, Some((0, 1)));
        check(-1, 1, all, Some((-1, 0)));
        check(5, 5, all, None);
        check(6, 5, all, None);
        check(i64::MIN, i64::MIN, all, None);
        check(i64::MIN, i64::MAX, Some((20, 40)), Some((2, 4)));
        check(0, 20, Some((20, 40)), None);
        check(50, 60, Some((20, 40)), None);
        check(0, 60, None, None);
        check(
            i64::MIN,
            i64::MAX,
            all,
            Some((i64::MIN.div_euclid(10), (i64::MAX - 1) / 10)),
        );
    }
}
