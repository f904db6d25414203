//! Points in the order of their times through checks, window and levels, from a mark on.
//!
//! Never here: reading points. Invariant: a step or mark behind the mark that was begun with is the one that all points would give.

use std::collections::VecDeque;

use super::Rule;
use super::ladder::{Standing, Step};
use super::marks::{self, Mark};
use super::measure::{Measure, span_ns};
use crate::checks::{Checks, Finding, Judge, Judged, Remembered, Stated};

/// Marks that wait to be thinned out.
const MARKS_AT_ONCE: usize = 128;

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
    /// Points that were looked at behind the newest mark that was given.
    pub points: u64,
    /// Marks that were given hold no longer: points that they depend on are others now.
    pub moved: bool,
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
    /// Marks that were given behind that, those to come.
    given: std::vec::IntoIter<Mark>,
    /// The newest mark that was given.
    given_upto_ns: i64,
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
        let given_upto_ns = marks.last().map_or(i64::MIN, |mark| mark.t_ns);
        let given = marks.split_off(marks.len().min(marks::before(&marks, changed_ns) + 1));
        let mark = marks.last().copied().unwrap_or_default();
        Replay {
            rule,
            stated,
            judge: Judge::resume(checks, stated, mark.remembered),
            measure: Measure::new(rule),
            begun_ns: mark.t_ns,
            given: given.into_iter(),
            given_upto_ns,
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
                moved: false,
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
        self.outcome.moved |= self.given.next().is_some();
        self.outcome
    }

    fn take(&mut self, point: &Judged) {
        let behind = point.t_ns > self.begun_ns;
        self.outcome.points += u64::from(point.t_ns > self.given_upto_ns);
        let fails = (self.stated.discounts)(point.stated) || point.finding.is_some_and(Finding::fails);
        let suspect = (self.stated.suspects)(point.stated) || point.finding.is_some();
        if fails || (suspect && !self.rule.accept_suspect) {
            return;
        }
        let Some(measured) = self.measure.point(point.t_ns, point.number.value(), true) else {
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
        let mark = Mark {
            t_ns,
            settled_by_ns,
            standing: self.standing,
            read_from_ns,
            remembered,
            newest: self.outcome.newest,
        };
        self.compare(&mark);
        self.outcome.marks.push(mark);
        if self.outcome.marks.len() >= MARKS_AT_ONCE {
            marks::thin(&mut self.outcome.marks, self.keep_ns);
        }
    }

    /// Compares a mark with the one that was given for its time, if one was.
    fn compare(&mut self, mark: &Mark) {
        while let Some(given) = self.given.as_slice().first().filter(|given| given.t_ns <= mark.t_ns) {
            self.outcome.moved |= !given.holds(mark);
            self.given.next();
        }
    }
}
