//! Points in the order of their times through checks, window and levels, from a mark on.
//!
//! Never here: reading points. Invariant: a step or mark behind the mark that was begun with is the one that all points would give.

use std::collections::VecDeque;

use super::Rule;
use super::ladder::{Standing, Step};
use super::marks::{self, Mark};
use super::measure::{Measure, span_ns};
use crate::checks::{Checks, Finding, Judge, Judged, Remembered};

/// Marks that wait to be thinned out.
const MARKS_AT_ONCE: usize = 128;

/// What a source says of points that count for nothing, and of suspect ones.
#[derive(Copy, Clone, Debug)]
pub struct Stated {
    /// Fail, or missing.
    pub discounts: fn(u8) -> bool,
    /// Suspect.
    pub suspects: fn(u8) -> bool,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Everything that is known of the level now.
    pub standing: Standing,
    /// Steps behind the mark that was begun with, in order.
    pub steps: Vec<Step>,
    /// Marks to keep, in order of time.
    pub marks: Vec<Mark>,
    /// The last point that counts, and what of it is compared with levels.
    pub newest: Option<(i64, f64)>,
    /// Points that were looked at behind the mark.
    pub points: u64,
}

/// A walk through the points of one property of one device.
#[derive(Debug)]
pub struct Replay<'a> {
    rule: &'a Rule,
    stated: Stated,
    judge: Judge<'a>,
    measure: Measure,
    /// Steps up to here are known already.
    begun_ns: i64,
    keep_ns: i64,
    standing: Standing,
    /// Points that a later walk can begin to read at.
    readable: VecDeque<(i64, Remembered)>,
    judged: Vec<Judged>,
    outcome: Outcome,
}

impl<'a> Replay<'a> {
    /// Goes on from the last of `marks` that points from `changed_ns` on do not touch. There is at least one; where all are
    /// touched, the oldest stands. Marks older than `keep_ns` before the newest point are given up.
    pub fn new(
        rule: &'a Rule,
        (checks, stated): (&'a Checks, Stated),
        mut marks: Vec<Mark>,
        changed_ns: i64,
        keep_ns: i64,
    ) -> Replay<'a> {
        marks.truncate(marks::before(&marks, changed_ns) + 1);
        let mark = marks.last().copied().unwrap_or_default();
        Replay {
            rule,
            stated,
            judge: Judge::resume(checks, stated.discounts, mark.remembered),
            measure: Measure::new(rule),
            begun_ns: mark.t_ns,
            keep_ns,
            standing: mark.standing,
            readable: VecDeque::from([(mark.read_from_ns, mark.remembered)]),
            judged: Vec::new(),
            outcome: Outcome {
                standing: mark.standing,
                steps: Vec::new(),
                marks,
                newest: mark.newest,
                points: 0,
            },
        }
    }

    /// From this time on all points must be given.
    pub fn read_from_ns(&self) -> i64 {
        self.readable.front().map_or(i64::MIN, |(t_ns, _)| *t_ns)
    }

    /// Steps up to this time, included, are known already.
    pub fn begun_ns(&self) -> i64 {
        self.begun_ns
    }

    /// The next point.
    pub fn point(&mut self, t_ns: i64, value: f64, stated: u8) {
        if value.is_nan() {
            return;
        }
        let mut judged = std::mem::take(&mut self.judged);
        self.judge.point(t_ns, value, stated, |point| judged.push(point));
        if let Some(remembered) = self.judge.remembers(t_ns) {
            self.readable.push_back((t_ns, remembered));
        }
        for point in judged.drain(..) {
            self.take(&point);
            if point.t_ns > self.begun_ns {
                self.mark(point.t_ns, t_ns);
            }
        }
        self.judged = judged;
    }

    /// There are no more points: the last one is taken for what it seems to be.
    pub fn finish(mut self) -> Outcome {
        let mut judged = std::mem::take(&mut self.judged);
        self.judge.end(|point| judged.push(point));
        judged.iter().for_each(|point| self.take(point));
        marks::thin(&mut self.outcome.marks, self.keep_ns);
        self.outcome.standing = self.standing;
        self.outcome
    }

    fn take(&mut self, point: &Judged) {
        let behind = point.t_ns > self.begun_ns;
        self.outcome.points += u64::from(behind);
        let fails = (self.stated.discounts)(point.stated) || point.finding.is_some_and(Finding::fails);
        let suspect = (self.stated.suspects)(point.stated) || point.finding.is_some();
        if fails || (suspect && !self.rule.accept_suspect) {
            return;
        }
        let Some(measured) = self.measure.point(point.t_ns, point.value, true) else {
            return;
        };
        // Of points up to where this began it is known, and what is read again may lack what they are measured with.
        if behind {
            self.outcome.newest = Some((point.t_ns, measured.value));
            let step = self
                .standing
                .value(self.rule, point.t_ns, measured.value, measured.whole);
            self.outcome.steps.extend(step);
        }
    }

    /// Notes the state after a point about which `settled_by_ns` decided.
    fn mark(&mut self, t_ns: i64, settled_by_ns: i64) {
        let needed = t_ns.saturating_sub(span_ns(self.rule));
        while self.readable.get(1).is_some_and(|(t, _)| *t <= needed) {
            self.readable.pop_front();
        }
        let Some((read_from_ns, remembered)) = self.readable.front().copied() else {
            return;
        };
        self.outcome.marks.push(Mark {
            t_ns,
            settled_by_ns,
            standing: self.standing,
            read_from_ns,
            remembered,
            newest: self.outcome.newest,
        });
        if self.outcome.marks.len() >= MARKS_AT_ONCE {
            marks::thin(&mut self.outcome.marks, self.keep_ns);
        }
    }
}
