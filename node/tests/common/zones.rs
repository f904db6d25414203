//! Clocks of a few places, by the rules that they are changed by, and the begins of their days, weeks, months and years: found by looking
//! at the clock every quarter of an hour.
//! Never here: a database of time zones. Invariant: good for the years from 2010 on.

use super::fleet::*;

const DAY_S: i64 = 86_400;
const LOOK_EVERY: i64 = 15 * MIN;

/// A change of a clock: the month, which Sunday of it (0: the last one), and seconds since that day began at UTC.
type Change = (u32, i64, i64);

/// A clock.
#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    /// Ahead of UTC in winter, and how much more in summer, seconds.
    ahead_s: i64,
    summer_s: i64,
    /// When summer begins and ends, where the clock is changed.
    changes: Option<(Change, Change)>,
}

/// North, west, south by half an hour, and never changed.
pub(crate) static ZONES: [Zone; 4] = [
    Zone {
        name: "Europe/Berlin",
        ahead_s: 3_600,
        summer_s: 3_600,
        changes: Some(((3, 0, 3_600), (10, 0, 3_600))),
    },
    Zone {
        name: "America/New_York",
        ahead_s: -5 * 3_600,
        summer_s: 3_600,
        changes: Some(((3, 2, 7 * 3_600), (11, 1, 6 * 3_600))),
    },
    Zone {
        name: "Australia/Lord_Howe",
        ahead_s: 37_800,
        summer_s: 1_800,
        changes: Some(((10, 1, -30_600), (4, 1, -32_400))),
    },
    Zone {
        name: "Asia/Shanghai",
        ahead_s: 8 * 3_600,
        summer_s: 0,
        changes: None,
    },
];

/// What a calendar counts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Day,
    Week,
    Month,
    Year,
}

/// Days since 1970 of a day of the calendar.
fn day_number(year: i64, month: u32, day: u32) -> i64 {
    let is_leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let leaps = |year: i64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = 365 * (year - 1970) + leaps(year) - leaps(1970);
    let days = |month: u32| match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    years + (1..month).map(days).sum::<i64>() + i64::from(day) - 1
}

/// Year and month of a day.
fn month_of(day: i64) -> (i64, u32) {
    let mut year = 1970 + day / 366;
    while day_number(year + 1, 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| day_number(year, *month, 1) <= day);
    (year, month.unwrap())
}

/// When a clock is changed in a year, seconds since 1970.
fn changed_s(year: i64, (month, which, at_s): Change) -> i64 {
    // 1970 began on a Thursday.
    let weekday = |day: i64| (day + 4).rem_euclid(7);
    let day = match which {
        0 => {
            let last = match month {
                12 => day_number(year + 1, 1, 1),
                _ => day_number(year, month + 1, 1),
            } - 1;
            last - weekday(last)
        }
        which => {
            let first = day_number(year, month, 1);
            first + (7 - weekday(first)) % 7 + 7 * (which - 1)
        }
    };
    day * DAY_S + at_s
}

impl Zone {
    /// What the clock shows, seconds since its 1970.
    fn shown_s(&self, t_ns: i64) -> i64 {
        let t_s = t_ns.div_euclid(S);
        let (year, _) = month_of((t_s + self.ahead_s).div_euclid(DAY_S));
        let is_summer = self.changes.is_some_and(|(begin, end)| {
            let (begin, end) = (changed_s(year, begin), changed_s(year, end));
            match begin < end {
                true => begin <= t_s && t_s < end,
                false => t_s < end || begin <= t_s,
            }
        });
        t_s + self.ahead_s + if is_summer { self.summer_s } else { 0 }
    }

    /// The changes of a clock in a year.
    pub(crate) fn changed_ns(&self, year: i64) -> Vec<i64> {
        let changes = self.changes.iter().flat_map(|(begin, end)| [*begin, *end]);
        changes.map(|change| changed_s(year, change) * S).collect()
    }

    /// The moments between two times at which the clock first shows the begin of a unit, or jumps over it; a unit begins so many seconds
    /// and months later than its name says.
    pub(crate) fn begins(&self, unit: Unit, origin: (i64, u32), (from_ns, to_ns): (i64, i64)) -> Vec<i64> {
        let (origin_s, origin_months) = origin;
        let number = |t_ns: i64| {
            let day = (self.shown_s(t_ns) - origin_s).div_euclid(DAY_S);
            let (year, month) = month_of(day);
            let months = year * 12 + i64::from(month) - 1;
            match unit {
                Unit::Day => day,
                Unit::Week => (day + 3).div_euclid(7),
                Unit::Month => months,
                Unit::Year => (months - i64::from(origin_months)).div_euclid(12),
            }
        };
        let mut at = from_ns.div_euclid(LOOK_EVERY) * LOOK_EVERY;
        let (mut latest, mut begins) = (number(at), Vec::new());
        while at <= to_ns {
            let now = number(at);
            if now > latest {
                begins.push(at);
                latest = now;
            }
            at += LOOK_EVERY;
        }
        begins
    }
}
