//! Values that stand still for too long, as those of a sensor that is stuck do. Pure.
//!
//! Never here: other checks. Invariant: whether a point stands still depends on it and on points before it alone, so that what
//! comes later leaves it as it was.

use std::collections::VecDeque;

/// Fewer points are no sign of anything.
const POINTS_MIN: usize = 3;
/// So much of the time has to be covered by points.
const COVERAGE_MIN: f64 = 0.8;
/// Points that are looked at together at most; of more, the newest.
const POINTS_MAX: usize = 1 << 17;

/// When a value counts as standing still.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Flat {
    /// All points of a time so long, nanoseconds, …
    pub over_ns: i64,
    /// … lie no further apart than this.
    pub within: f64,
    /// Standing still here is normal.
    pub ignore: Option<f64>,
    /// One point each so long is promised, nanoseconds; 0 where nothing is.
    pub interval_ns: i64,
}

impl Flat {
    /// Whether to stand still at a value is normal.
    pub fn is_normal(&self, value: f64) -> bool {
        self.ignore.is_some_and(|ignore| (value - ignore).abs() <= self.within)
    }
}

/// The points of one device over the time that is looked at.
#[derive(Debug, Default)]
pub struct Still {
    times: VecDeque<i64>,
    /// Points that no later one lies below, and those that none lies above: the first is the least and the greatest.
    lows: VecDeque<(i64, f64)>,
    highs: VecDeque<(i64, f64)>,
    /// Intervals with a point.
    slots: i64,
}

impl Still {
    /// Takes the next point; true where it stands still: it and all points in the time up to it.
    pub fn point(&mut self, flat: &Flat, t_ns: i64, value: f64) -> bool {
        let slot = |t_ns: i64| t_ns.div_euclid(flat.interval_ns.max(1));
        if self.times.back().is_none_or(|last| slot(*last) != slot(t_ns)) {
            self.slots += 1;
        }
        self.times.push_back(t_ns);
        while self.lows.back().is_some_and(|(_, low)| *low >= value) {
            self.lows.pop_back();
        }
        while self.highs.back().is_some_and(|(_, high)| *high <= value) {
            self.highs.pop_back();
        }
        self.lows.push_back((t_ns, value));
        self.highs.push_back((t_ns, value));
        let begin = t_ns.saturating_sub(flat.over_ns);
        while self.times.front().is_some_and(|first| *first <= begin) || self.times.len() > POINTS_MAX {
            let Some(left) = self.times.pop_front() else { break };
            if self.times.front().is_none_or(|first| slot(*first) != slot(left)) {
                self.slots -= 1;
            }
            for ends in [&mut self.lows, &mut self.highs] {
                while ends.front().is_some_and(|(at, _)| *at <= left) {
                    ends.pop_front();
                }
            }
        }
        let ends = self.lows.front().zip(self.highs.front());
        let near = ends.is_some_and(|((_, low), (_, high))| high - low <= flat.within);
        near && !flat.is_normal(value) && self.times.len() >= POINTS_MIN && self.covers(flat, t_ns)
    }

    /// Whether points cover enough of the time; where nothing is promised, whether they span it.
    fn covers(&self, flat: &Flat, t_ns: i64) -> bool {
        let spanned = self.times.front().map_or(0, |first| t_ns.saturating_sub(*first));
        let covered = match flat.interval_ns {
            ..=0 => spanned,
            interval => self.slots.saturating_mul(interval),
        };
        covered as f64 >= COVERAGE_MIN * flat.over_ns as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    /// An hour, a point every five minutes.
    const HOUR: Flat = Flat {
        over_ns: 3_600 * S,
        within: 0.01,
        ignore: Some(0.0),
        interval_ns: 300 * S,
    };

    /// Which of some points, by seconds and values, stand still.
    fn still(flat: &Flat, points: &[(i64, f64)]) -> Vec<usize> {
        let mut still = Still::default();
        let flags = points.iter().map(|(t, value)| still.point(flat, t * S, *value));
        let flags: Vec<bool> = flags.collect();
        (0..flags.len()).filter(|at| flags[*at]).collect()
    }

    fn every(seconds: i64, values: &[f64]) -> Vec<(i64, f64)> {
        (0..).zip(values).map(|(n, value)| (n * seconds, *value)).collect()
    }

    #[test]
    fn what_stands_still_for_an_hour_is_seen_and_what_is_normal_is_not() {
        assert_eq!(
            still(&HOUR, &every(300, &[1.0; 12])),
            [9, 10, 11],
            "at four fifths of the hour"
        );
        assert_eq!(
            still(&HOUR, &every(300, &[0.0; 12])),
            [0; 0],
            "a dry underpass is healthy"
        );
        let mut moved = [1.0; 14];
        moved[2] = 1.5;
        assert_eq!(still(&HOUR, &every(300, &moved)), [0; 0], "not all of the hour");
        let jitter: Vec<f64> = (0..12).map(|n| 1.0 + f64::from(n % 2) * 0.009).collect();
        assert_eq!(still(&HOUR, &every(300, &jitter)), [9, 10, 11]);
    }

    #[test]
    fn few_points_are_no_sign() {
        let burst: Vec<(i64, f64)> = (0..100).map(|n| (n, 1.0)).collect();
        assert_eq!(still(&HOUR, &burst), [0; 0], "a hundred points of two minutes");
        let slow = Flat {
            over_ns: 3_600 * S,
            interval_ns: 1_800 * S,
            ..HOUR
        };
        assert_eq!(still(&slow, &every(1_800, &[1.0; 9])), [0; 0], "two points an hour");
        let unpromised = Flat { interval_ns: 0, ..HOUR };
        assert_eq!(still(&unpromised, &every(1_000, &[1.0; 5])), [3, 4]);
    }

    #[test]
    fn random_points_stand_still_where_a_list_of_them_does() {
        let mut state = 11_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut seen = 0;
        for _ in 0..300 {
            let mut t = 0;
            let mut value = 1.0;
            let points: Vec<(i64, f64)> = (0..80)
                .map(|_| {
                    t += if next(20) == 0 { 1_000 } else { 200 + next(200) as i64 };
                    value = if next(12) == 0 { next(3) as f64 * 0.007 } else { value };
                    (t, value)
                })
                .collect();
            let expected = (0..points.len()).filter(|at| {
                let (t, value) = points[*at];
                let hour: Vec<_> = points[..=*at].iter().filter(|(other, _)| *other > t - 3_600).collect();
                let mut slots: Vec<i64> = hour.iter().map(|(t, _)| t.div_euclid(300)).collect();
                slots.dedup();
                let near = hour.iter().all(|a| hour.iter().all(|b| a.1 - b.1 <= 0.01));
                near && value.abs() > 0.01 && hour.len() >= 3 && slots.len() * 300 >= 2_880
            });
            let expected: Vec<usize> = expected.collect();
            seen += expected.len();
            assert_eq!(still(&HOUR, &points), expected);
        }
        assert!(seen > 300, "{seen} points stood still");
    }
}
