//! States of an alert at points of the past, to go on from when something changed behind them.
//!
//! Never here: how they are stored. Invariant: a mark depends on nothing that comes after `settled_by`; the older marks are, the
//! further they lie apart, and the oldest one is as old as points may be that change anything.

use super::{Rule, Standing, measure};
use crate::checks::Remembered;

/// Marks of one alert.
pub const MARKS_MAX: usize = 24;

/// The state right after a point.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Mark {
    /// The time of the point.
    pub t_ns: i64,
    /// The point after it, with which it was known whether it counts.
    pub settled_by_ns: i64,
    /// The level.
    pub standing: Standing,
    /// Points from here on must be read: those of the window of the next point.
    pub read_from_ns: i64,
    /// What was known of the points before those.
    pub remembered: Remembered,
    /// The last point that counts, up to this one, and what of it is compared with levels. It may lie before those that must be read.
    pub newest: Option<(i64, f64)>,
}

impl Mark {
    /// Whether it will do where the state after the point is this one. It may say that it was known later than it was.
    pub(super) fn holds(&self, now: &Mark) -> bool {
        let settled_by_ns = now.settled_by_ns;
        self.settled_by_ns >= settled_by_ns && Mark { settled_by_ns, ..*self } == *now
    }
}

/// The state before any point at or after a time: normal, and nothing is known.
pub fn start(rule: &Rule, from_ns: i64) -> Mark {
    let before = from_ns.saturating_sub(1);
    Mark {
        t_ns: before,
        settled_by_ns: before,
        read_from_ns: from_ns.saturating_sub(measure::span_ns(rule)),
        ..Mark::default()
    }
}

/// Drops marks: ever fewer stay the older they are, and of those beyond `keep_ns` the newest.
pub(super) fn thin(marks: &mut Vec<Mark>, keep_ns: i64) {
    let Some(newest) = marks.last().map(|mark| mark.t_ns) else {
        return;
    };
    let age = |mark: &Mark| newest.saturating_sub(mark.t_ns);
    let beyond = marks.partition_point(|mark| age(mark) > keep_ns);
    marks.drain(..beyond.saturating_sub(1));
    let (last, mut kept_age) = (marks.len() - 1, 0);
    let mut kept = Vec::with_capacity(MARKS_MAX);
    for (at, mark) in marks.iter().enumerate().rev() {
        let far = age(mark) >= kept_age * 2;
        if at == last || at == 0 || (far && kept.len() < MARKS_MAX - 1) {
            kept_age = age(mark).max(1);
            kept.push(*mark);
        }
    }
    kept.reverse();
    *marks = kept;
}

/// The mark to go on from when points from a time on changed, by position: the last one that does not depend on them.
pub(super) fn before(marks: &[Mark], changed_ns: i64) -> usize {
    marks
        .partition_point(|mark| mark.settled_by_ns < changed_ns)
        .saturating_sub(1)
}
