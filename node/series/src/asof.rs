//! Which of some times belongs to another one: the last before it, the first behind it, or the nearer one of both.
//!
//! Never here: values, devices. Invariant: what belongs to a time depends on the times around it alone.

/// Which time is meant.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Toward {
    /// The last one at or before.
    Backward,
    /// The first one at or behind.
    Forward,
    /// The nearer one of both; of equally near ones the one before.
    Nearest,
}

/// What belongs to a time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// On which side of it.
    pub toward: Toward,
    /// Whether the very time itself does not count.
    pub strictly: bool,
    /// No further away than this, nanoseconds; `None`: however far.
    pub reach_ns: Option<i64>,
}

impl AsOf {
    /// True where times before can belong.
    pub fn looks_back(&self) -> bool {
        self.toward != Toward::Forward
    }

    /// True where times behind can belong.
    pub fn looks_ahead(&self) -> bool {
        self.toward != Toward::Backward
    }

    /// Place of what belongs to `t` among strictly ascending times.
    pub fn place(&self, times: &[i64], t: i64) -> Option<usize> {
        let before = || {
            let until = times.partition_point(|u| if self.strictly { *u < t } else { *u <= t });
            until.checked_sub(1)
        };
        let behind = || {
            let from = times.partition_point(|u| if self.strictly { *u <= t } else { *u < t });
            (from < times.len()).then_some(from)
        };
        let place = match self.toward {
            Toward::Backward => before(),
            Toward::Forward => behind(),
            Toward::Nearest => match (before(), behind()) {
                (Some(before), Some(behind)) if times[behind].abs_diff(t) < t.abs_diff(times[before]) => Some(behind),
                (Some(before), _) => Some(before),
                (None, behind) => behind,
            },
        };
        place.filter(|place| self.reaches(times[*place].abs_diff(t)))
    }

    fn reaches(&self, distance: u64) -> bool {
        self.reach_ns
            .is_none_or(|reach| u64::try_from(reach).is_ok_and(|reach| distance <= reach))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: [i64; 4] = [10, 20, 24, 50];

    #[track_caller]
    fn check(toward: Toward, strictly: bool, reach_ns: Option<i64>, t: i64, expected: Option<i64>) {
        let asof = AsOf {
            toward,
            strictly,
            reach_ns,
        };
        let found = asof.place(&TIMES, t).map(|place| TIMES[place]);
        assert_eq!(found, expected, "{asof:?} of {t}");
    }

    #[test]
    fn the_last_before_the_first_behind_or_the_nearer_one() {
        use Toward::{Backward, Forward, Nearest};
        for (t, before, behind, nearest) in [
            (9, None, Some(10), Some(10)),
            (10, Some(10), Some(10), Some(10)),
            (15, Some(10), Some(20), Some(10)),
            (16, Some(10), Some(20), Some(20)),
            (23, Some(20), Some(24), Some(24)),
            (51, Some(50), None, Some(50)),
            (i64::MIN, None, Some(10), Some(10)),
            (i64::MAX, Some(50), None, Some(50)),
        ] {
            check(Backward, false, None, t, before);
            check(Forward, false, None, t, behind);
            check(Nearest, false, None, t, nearest);
        }
    }

    #[test]
    fn the_very_time_counts_unless_it_must_not() {
        check(Toward::Backward, true, None, 20, Some(10));
        check(Toward::Forward, true, None, 20, Some(24));
        check(Toward::Nearest, true, None, 20, Some(24));
        check(Toward::Backward, true, None, 10, None);
        check(Toward::Forward, true, None, 50, None);
    }

    #[test]
    fn what_is_too_far_away_does_not_belong() {
        check(Toward::Backward, false, Some(4), 24, Some(24));
        check(Toward::Backward, false, Some(4), 28, Some(24));
        check(Toward::Backward, false, Some(4), 29, None);
        check(Toward::Backward, false, Some(0), 20, Some(20));
        check(Toward::Forward, false, Some(25), 25, Some(50));
        check(Toward::Forward, false, Some(24), 25, None);
        check(Toward::Nearest, false, Some(3), 37, None);
        check(Toward::Nearest, true, Some(i64::MAX), i64::MIN, None);
    }
}
