//! How fast a value rises: the change from a point about a window ago, by hour. Pure.
//!
//! Never here: which points count. Invariant: nothing is estimated between points; without a point in the right place there
//! is no answer.

use std::collections::VecDeque;

const HOUR_S: f64 = 3_600.0;

/// Change by hour from one point (time in nanoseconds, value) to a later one.
pub fn rise_per_hour(from: (i64, f64), to: (i64, f64)) -> Option<f64> {
    let seconds = to.0.saturating_sub(from.0) as f64 / 1e9;
    (seconds > 0.0).then(|| (to.1 - from.1) / (seconds / HOUR_S))
}

/// Tells for points in the order of their times how fast the value rose up to each.
#[derive(Clone, Debug)]
pub struct Rising {
    window_ns: i64,
    reach_ns: i64,
    /// The last point that is a window or more before the newest one, and those behind it.
    points: VecDeque<(i64, f64)>,
}

impl Rising {
    /// Looks back to the last point at least `window_ns` ago, which may be `reach_ns` older than that.
    pub fn new(window_ns: i64, reach_ns: i64) -> Rising {
        Rising {
            window_ns,
            reach_ns,
            points: VecDeque::new(),
        }
    }

    /// Takes the next point; `None` where there is none to compare it with.
    pub fn point(&mut self, t_ns: i64, value: f64) -> Option<f64> {
        let latest = t_ns.saturating_sub(self.window_ns);
        while self.points.get(1).is_some_and(|(t, _)| *t <= latest) {
            self.points.pop_front();
        }
        let from = self.points.front().copied();
        self.points.push_back((t_ns, value));
        let near = |from: &(i64, f64)| from.0 <= latest && from.0 >= latest.saturating_sub(self.reach_ns);
        rise_per_hour(from.filter(near)?, (t_ns, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: i64 = 60_000_000_000;

    #[test]
    fn from_the_last_point_a_window_ago() {
        let told = |points: &[(i64, f64)]| {
            let mut rising = Rising::new(60 * MIN, 5 * MIN);
            let each = points.iter().map(|(t, value)| rising.point(t * MIN, *value));
            each.last().flatten()
        };
        let near = |told: Option<f64>, expected: f64| {
            assert!(
                told.is_some_and(|told| (told - expected).abs() < 1e-9),
                "{told:?}, not {expected}"
            );
        };
        near(told(&[(0, 1.05), (60, 1.25)]), 0.20);
        near(told(&[(0, 1.05), (30, 9.0), (60, 1.25)]), 0.20);
        near(told(&[(0, 9.0), (4, 1.05), (64, 1.25)]), 0.20);
        near(told(&[(0, 1.0), (65, 1.0 + 65.0 / 60.0)]), 1.0);
        assert_eq!(told(&[(0, 1.0), (66, 2.0)]), None, "six minutes too old");
        assert_eq!(told(&[(1, 1.0), (60, 2.0)]), None, "not an hour ago");
        assert_eq!(told(&[(0, 1.0)]), None);
    }
}
