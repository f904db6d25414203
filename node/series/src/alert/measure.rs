//! What is compared with levels: the value of a point, or a function over the window that ends at it.
//!
//! Never here: levels. Invariant: what is told of a point depends on the points of its window alone, to the last bit, wherever
//! the first of them came from: so windows are added up anew each time.

use std::collections::VecDeque;

use super::{AlertFunction, Rule};
use crate::rise::Rising;

/// A window that has so much of what is promised for it may lower a level.
const COVERAGE_MIN: f64 = 0.9;

/// What was made of a point.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) value: f64,
    /// The window has its points.
    pub(super) whole: bool,
}

/// Takes points in the order of their times.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    function: AlertFunction,
    window_ns: i64,
    interval_ns: i64,
    points: VecDeque<(i64, f64)>,
    rising: Rising,
}

/// How far before a point the points lie that decide about it, nanoseconds.
pub(super) fn span_ns(rule: &Rule) -> i64 {
    match rule.function {
        AlertFunction::Last => 0,
        AlertFunction::RisePerHour => rule.window_ns.saturating_add(rule.interval_ns),
        _ => rule.window_ns,
    }
}

impl Measure {
    pub(super) fn new(rule: &Rule) -> Measure {
        Measure {
            function: rule.function,
            window_ns: rule.window_ns,
            interval_ns: rule.interval_ns,
            points: VecDeque::new(),
            rising: Rising::new(rule.window_ns, rule.interval_ns),
        }
    }

    /// The next point that counts; `asked` where its measure is looked at.
    pub(super) fn point(&mut self, t_ns: i64, value: f64, asked: bool) -> Option<Measured> {
        match self.function {
            AlertFunction::Last => return Some(Measured { value, whole: true }),
            AlertFunction::RisePerHour => {
                let value = self.rising.point(t_ns, value)?;
                return Some(Measured { value, whole: true });
            }
            _ => {}
        }
        self.points.push_back((t_ns, value));
        let begin = t_ns.saturating_sub(self.window_ns);
        while self.points.front().is_some_and(|(t, _)| *t <= begin) {
            self.points.pop_front();
        }
        asked.then(|| Measured {
            value: self.over_window(),
            whole: self.is_whole(t_ns),
        })
    }

    fn over_window(&self) -> f64 {
        let values = self.points.iter().map(|(_, value)| *value);
        match self.function {
            AlertFunction::Min => values.fold(f64::INFINITY, f64::min),
            AlertFunction::Max => values.fold(f64::NEG_INFINITY, f64::max),
            AlertFunction::Avg => values.sum::<f64>() / self.points.len() as f64,
            _ => values.sum(),
        }
    }

    fn is_whole(&self, t_ns: i64) -> bool {
        if self.interval_ns <= 0 {
            return true;
        }
        let slots = self
            .points
            .iter()
            .map(|(t, _)| t_ns.saturating_sub(*t) / self.interval_ns);
        let (mut filled, mut last) = (0_i64, None);
        for slot in slots {
            if last != Some(slot) {
                filled += 1;
                last = Some(slot);
            }
        }
        filled as f64 * self.interval_ns as f64 >= COVERAGE_MIN * self.window_ns as f64
    }
}
