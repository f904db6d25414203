//! Quality of values that can be judged from the values themselves: outside of what a sensor can tell, of what is usual, too
//! far from both neighbours, changed too fast, or standing still. Pure.
//!
//! Never here: where limits are configured, silence. Invariant: the same points in the same order are judged alike, whenever
//! each of them came; what the source says of a value is never made better.

use crate::block::Accepted;
use crate::flat::{Flat, Still};
use crate::number::Number;

mod settling;

use settling::Settling;

/// Limits of a property; what is not set is not checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checks {
    /// Range of the sensor: outside fails.
    pub min: Option<f64>,
    /// See `min`.
    pub max: Option<f64>,
    /// Usual range: outside is suspect.
    pub typical_min: Option<f64>,
    /// See `typical_min`.
    pub typical_max: Option<f64>,
    /// Steps further than this to and from a value, in opposite directions, make it fail.
    pub spike: Option<f64>,
    /// A change that is faster is suspect, per second.
    pub rate_per_s: Option<f64>,
    /// Points further apart are no neighbours, of which a spike is told, nanoseconds; 0: they are, however far apart.
    pub neighbours_ns: i64,
    /// Rates are told from a point at most this old, nanoseconds.
    pub reach_ns: i64,
    /// A value that stands still for so long is suspect.
    pub flat: Option<Flat>,
}

/// What a source says of points that count for nothing, and of suspect ones.
#[derive(Copy, Clone, Debug)]
pub struct Stated {
    /// Fail, or missing.
    pub discounts: fn(u8) -> bool,
    /// Suspect.
    pub suspects: fn(u8) -> bool,
}

impl Stated {
    /// Whatever it says.
    pub const NOTHING: Stated = Stated {
        discounts: |_| false,
        suspects: |_| false,
    };
}

/// Which points of a property are looked at.
#[derive(Clone, Debug)]
pub struct Choice<'c> {
    /// By the quality that the source states: none that counts for nothing.
    pub accepted: Accepted,
    /// Which of these the source calls suspect.
    pub doubted: fn(u8) -> bool,
    /// By what can be judged from the values.
    pub checks: &'c Checks,
    /// What becomes of suspect values.
    pub suspect: Suspects,
}

/// What becomes of values that are suspect, rather than failed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Suspects {
    /// They count, and nobody asks which they are.
    #[default]
    Count,
    /// They count, and it is told which they are.
    Told,
    /// They are left out.
    LeftOut,
}

impl Suspects {
    /// Left out where it is said so, else they count.
    pub fn left_out(drop: bool) -> Suspects {
        match drop {
            true => Suspects::LeftOut,
            false => Suspects::Count,
        }
    }
}

const NOTHING: &Checks = &Checks {
    min: None,
    max: None,
    typical_min: None,
    typical_max: None,
    spike: None,
    rate_per_s: None,
    neighbours_ns: 0,
    reach_ns: 0,
    flat: None,
};

impl Choice<'static> {
    /// Everything.
    pub const ALL: Choice<'static> = Choice {
        accepted: Accepted::ALL,
        doubted: Stated::NOTHING.suspects,
        checks: NOTHING,
        suspect: Suspects::Count,
    };
}

impl Choice<'_> {
    /// Whether neighbours have to be known to choose.
    pub fn needs_order(&self) -> bool {
        self.checks.spike.is_some() || self.tells_suspects()
    }

    /// Whether points before one tell whether it is suspect, and that matters.
    pub fn tells_suspects(&self) -> bool {
        self.tells() && (self.checks.rate_per_s.is_some() || self.checks.flat.is_some())
    }

    /// Place of one of some points from which on a judge has to see them, so that it tells which one is the last that counts and judges all
    /// behind that, whatever came before. That one's step to the next makes it no spike, it changed too fast from none that it could be
    /// compared with, and it does not stand still. `points` are all since `begin_ns` that may be looked at, in order; `stated` is what the
    /// source says of each. `None`: more has to be known.
    pub fn settled(&self, begin_ns: i64, points: &[(i64, f64)], stated: impl Fn(usize) -> u8) -> Option<usize> {
        let flat = self.checks.flat.filter(|_| self.tells());
        let rate = self.checks.rate_per_s.filter(|_| self.tells());
        let must_be_sure = self.drops() || rate.is_some();
        let is_alone = |at: usize| {
            let before_ns = at.checked_sub(1).map_or(begin_ns, |before| points[before].0);
            self.checks.are_apart(before_ns, points[at].0)
        };
        let goes_on = |at: usize| {
            let next = points.get(at + 1);
            next.is_some_and(|next| self.checks.jump(points[at], *next).is_none())
        };
        let is_no_spike = |at: &usize| self.checks.spike.is_none() || is_alone(*at) || goes_on(*at);
        let is_usual = |at: usize| self.checks.is_typical(points[at].1) && !(self.doubted)(stated(at));
        let changed_slowly = |at: usize| {
            let (t_ns, value) = points[at];
            let reached_ns = t_ns.saturating_sub(self.checks.reach_ns);
            let slow = |limit: f64| {
                let reached = points[..at].iter().rev().take_while(|(u, _)| *u >= reached_ns);
                let mut steps = reached.map(|(u, other)| ((t_ns - u) as f64 / 1e9, (value - other).abs()));
                begin_ns <= reached_ns && steps.all(|(seconds, step)| step <= limit * seconds)
            };
            rate.is_none_or(slow)
        };
        let still_since = |at: usize, flat: &Flat| {
            let since = points[at].0.saturating_sub(flat.over_ns);
            (since, points[..=at].partition_point(|(u, _)| *u <= since))
        };
        let moves = |at: usize, flat: &Flat| {
            let (_, first) = still_since(at, flat);
            // A spike does not move anything.
            let values = (first..=at).filter(is_no_spike).map(|at| points[at].1);
            let least = values.clone().fold(f64::INFINITY, f64::min);
            let most = values.fold(f64::NEG_INFINITY, f64::max);
            flat.is_normal(points[at].1) || most - least > flat.within
        };
        let is_sure = |at: usize| is_usual(at) && flat.as_ref().is_none_or(|flat| moves(at, flat));
        let settled = |at: &usize| {
            let all_known = flat.as_ref().is_none_or(|flat| begin_ns <= still_since(*at, flat).0);
            is_no_spike(at) && all_known && changed_slowly(*at) && (!must_be_sure || is_sure(*at))
        };
        let last = (0..points.len()).rev().find(settled)?;
        let first = flat.map_or(last, |flat| still_since(last, &flat).1);
        // What stood still is told right from one on that is no spike itself.
        (0..=first).rev().find(is_no_spike)
    }

    /// How far before a point others tell whether it is one of those to leave out, nanoseconds, neighbours aside.
    pub fn looks_back_ns(&self) -> i64 {
        let flat = self.checks.flat.filter(|_| self.tells());
        flat.map_or(0, |flat| flat.over_ns)
    }

    /// Looks at points as far as is needed to choose.
    pub fn judge(&self) -> Judge<'_> {
        let stated = Stated {
            suspects: self.doubted,
            ..Stated::NOTHING
        };
        let judge = Judge::new(self.checks, stated);
        match self.tells() {
            true => judge,
            false => judge.without_flat(),
        }
    }

    /// Whether a point is left out for what was found of it or what its source says.
    pub fn leaves_out(&self, judged: &Judged) -> bool {
        let is_suspect = || judged.finding.is_some() || (self.doubted)(judged.stated);
        judged.finding.is_some_and(Finding::fails) || self.drops() && is_suspect()
    }

    /// Whether a value may be looked at, neighbours aside. Where these decide, suspect values may: they are the neighbours of others.
    pub fn takes(&self, value: f64) -> bool {
        self.checks.is_in_range(value) && (!self.drops_alone() || self.checks.is_typical(value))
    }

    /// The same by what the source says of it.
    pub fn accepts(&self, stated: u8) -> bool {
        self.accepted.accepts(stated) && !(self.drops_alone() && (self.doubted)(stated))
    }

    /// Whether values from the least to the greatest may all be looked at.
    pub(crate) fn takes_all(&self, ends: Option<(f64, f64)>) -> bool {
        self.limits_nothing() || ends.is_some_and(|(min, max)| self.takes(min) && self.takes(max))
    }

    /// Whether values need not be looked at to choose, neighbours aside.
    pub(crate) fn limits_nothing(&self) -> bool {
        let checks = self.checks;
        let usual = !self.drops_alone() || (checks.typical_min.is_none() && checks.typical_max.is_none());
        checks.min.is_none() && checks.max.is_none() && usual
    }

    /// Whether suspect values are left out.
    pub fn drops(&self) -> bool {
        self.suspect == Suspects::LeftOut
    }

    /// Whether it matters which values are suspect.
    pub fn tells(&self) -> bool {
        self.suspect != Suspects::Count
    }

    /// Whether a value that is suspect by itself is left out without a look at others.
    fn drops_alone(&self) -> bool {
        self.drops() && !self.needs_order()
    }
}

/// Why a value was judged down.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Outside of the range of the sensor.
    Range,
    /// Outside of what is usual.
    Untypical,
    /// Too far from both neighbours.
    Spike,
    /// Changed too fast.
    Rate,
    /// Stands still.
    Flat,
}

/// A point and what became of it.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Judged {
    /// When it was observed.
    pub t_ns: i64,
    /// What it says.
    pub number: Number,
    /// What the source says of it.
    pub stated: u8,
    /// What was found, if anything.
    pub finding: Option<Finding>,
    /// It stands still, whatever else was found.
    pub still: bool,
}

impl Judged {
    fn point(&self) -> (i64, f64) {
        (self.t_ns, self.number.value())
    }
}

impl Finding {
    /// Whether the value cannot be true, rather than being doubtful.
    pub fn fails(self) -> bool {
        matches!(self, Finding::Range | Finding::Spike)
    }
}

impl Checks {
    /// Whether a value can be one of this sensor.
    pub fn is_in_range(&self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }

    /// Whether neighbours say something about a value.
    pub fn needs_order(&self) -> bool {
        self.spike.is_some() || self.rate_per_s.is_some() || self.flat.is_some()
    }

    /// Whether nothing is wrong with a value, neighbours aside.
    pub fn finds_nothing(&self, value: f64) -> bool {
        self.is_in_range(value) && self.is_typical(value)
    }

    /// Whether any value can be wrong, neighbours aside.
    pub fn limits_nothing(&self) -> bool {
        [self.min, self.max, self.typical_min, self.typical_max]
            .iter()
            .all(Option::is_none)
    }

    /// Whether points are too far apart to be neighbours.
    pub fn are_apart(&self, from_ns: i64, to_ns: i64) -> bool {
        self.neighbours_ns > 0 && to_ns.saturating_sub(from_ns) > self.neighbours_ns
    }

    /// The step between neighbours, where it is one that a spike may begin or end with.
    fn jump(&self, from: (i64, f64), to: (i64, f64)) -> Option<f64> {
        let step = to.1 - from.1;
        let spike = self.spike.filter(|_| !self.are_apart(from.0, to.0))?;
        (step.abs() > spike).then_some(step)
    }

    fn is_spike(&self, before: (i64, f64), point: (i64, f64), next: (i64, f64)) -> bool {
        let steps = self.jump(before, point).zip(self.jump(point, next));
        steps.is_some_and(|(to, from)| to.signum() != from.signum())
    }

    /// Those of some points that count by themselves which are no spikes, whatever lies before the points: from there on each is told
    /// from those before it.
    pub fn anchors<'p>(&'p self, points: &'p [(i64, f64)]) -> impl DoubleEndedIterator<Item = usize> + 'p {
        let alone = move |at: usize| at > 0 && self.are_apart(points[at - 1].0, points[at].0);
        let goes_on = move |at: usize| {
            let next = points.get(at + 1);
            next.is_some_and(|next| self.jump(points[at], *next).is_none())
        };
        (0..points.len()).filter(move |at| alone(*at) || goes_on(*at))
    }

    /// Which of some points that count by themselves are no spikes; `None` where that takes points before or behind them to
    /// tell.
    pub fn settled(&self, points: &[(i64, f64)]) -> Vec<Option<bool>> {
        let mut told = vec![None; points.len()];
        let Some(first) = self.anchors(points).next() else {
            return told;
        };
        let mut before = points[first];
        told[first] = Some(true);
        for (at, point) in points.iter().enumerate().skip(first + 1) {
            told[at] = match points.get(at + 1) {
                Some(next) => Some(!self.is_spike(before, *point, *next)),
                None => self.jump(before, *point).is_none().then_some(true),
            };
            if told[at] == Some(true) {
                before = *point;
            }
        }
        told
    }

    fn is_typical(&self, value: f64) -> bool {
        self.typical_min.is_none_or(|min| value >= min) && self.typical_max.is_none_or(|max| value <= max)
    }
}

/// Judges the points of one device in the order of their times. A point is judged once the next one is known.
#[derive(Debug)]
pub struct Judge<'a> {
    checks: &'a Checks,
    stated: Stated,
    /// The last point that counts and was judged.
    before: Option<(i64, f64)>,
    /// The last one that was not even suspect.
    sure: Option<(i64, f64)>,
    /// The point to judge next, and those behind it that do not count.
    waiting: Vec<Judged>,
    /// The points that count and were judged, where values may not stand still.
    flat: Option<(Flat, Still)>,
    settling: Settling,
}

/// What a judge remembers of the points before one that it has not judged yet.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// The last point that counts.
    pub before: Option<(i64, f64)>,
    /// The last one that was not even suspect.
    pub sure: Option<(i64, f64)>,
}

impl<'a> Judge<'a> {
    /// Goes on with the point that [`Judge::remembers`] was asked for. It is blind to values that stand still: what it would take to
    /// see them is not remembered.
    pub fn resume(checks: &'a Checks, stated: Stated, remembered: Remembered) -> Judge<'a> {
        Judge {
            before: remembered.before,
            sure: remembered.sure,
            ..Judge::new(checks, stated).without_flat()
        }
    }

    /// What would have to be known to go on with the point of this time, where it is the one to judge next.
    pub fn remembers(&self, t_ns: i64) -> Option<Remembered> {
        let next = self.waiting.first().is_some_and(|first| first.t_ns == t_ns);
        next.then_some(Remembered {
            before: self.before,
            sure: self.sure,
        })
    }

    /// Nothing was seen yet.
    pub fn new(checks: &'a Checks, stated: Stated) -> Judge<'a> {
        Judge {
            checks,
            stated,
            before: None,
            sure: None,
            waiting: Vec::new(),
            flat: checks.flat.map(|flat| (flat, Still::default())),
            settling: Settling::new(checks),
        }
    }

    /// The same, where all points from a time on are given, and nobody knows of those before it.
    pub fn since(self, begin_ns: i64) -> Judge<'a> {
        Judge {
            settling: self.settling.since(begin_ns),
            ..self
        }
    }

    /// Whether the points that were given out from the last one on are judged alike, whatever lies before the first that was given in.
    pub fn is_settled(&self) -> bool {
        self.settling.is_settled()
    }

    /// Whether the next point decides if the last one is a spike.
    pub fn is_undecided(&self) -> bool {
        let last = self.waiting.first().map(Judged::point);
        let steps = self.before.zip(last);
        steps.is_some_and(|(before, last)| self.checks.jump(before, last).is_some())
    }

    /// The same, blind to values that stand still.
    pub fn without_flat(self) -> Judge<'a> {
        Judge { flat: None, ..self }
    }

    /// The next point; gives out those that can be judged now, each as it came: doubles decide alone what becomes of it.
    pub fn point(&mut self, t_ns: i64, number: impl Into<Number>, stated: u8, mut out: impl FnMut(Judged)) {
        let number = number.into();
        let value = number.value();
        let counts = !(self.stated.discounts)(stated);
        let finding = (counts && !self.checks.is_in_range(value)).then_some(Finding::Range);
        let point = Judged {
            t_ns,
            number,
            stated,
            finding,
            still: false,
        };
        if !counts || finding.is_some() {
            match self.waiting.is_empty() {
                true => out(point),
                false => self.waiting.push(point),
            }
            return;
        }
        self.judge_waiting(Some((t_ns, value)), &mut out);
        self.waiting.push(point);
    }

    /// The next points, of which the first and the last are known, and that both count. Tells no rates from then on.
    pub fn pass(&mut self, first: (i64, f64), last: (i64, f64), mut out: impl FnMut(Judged)) {
        self.judge_waiting(Some(first), &mut out);
        (self.before, self.sure) = (Some(last), None);
    }

    /// There are no more points.
    pub fn end(&mut self, mut out: impl FnMut(Judged)) {
        self.judge_waiting(None, &mut out);
    }

    fn judge_waiting(&mut self, next: Option<(i64, f64)>, out: &mut impl FnMut(Judged)) {
        let mut waiting = std::mem::take(&mut self.waiting);
        if let Some(first) = waiting.first_mut() {
            let point = first.point();
            first.finding = self.find(point, next);
            let goes_on = next.is_some_and(|next| self.checks.jump(point, next).is_none());
            let mut is_sure = false;
            if !first.finding.is_some_and(Finding::fails) {
                self.before = Some(point);
                if let Some((flat, still)) = &mut self.flat
                    && still.point(flat, point.0, point.1)
                {
                    first.still = true;
                    first.finding = first.finding.or(Some(Finding::Flat));
                }
                // A suspect value, whoever says so, is no reference for others.
                is_sure = first.finding.is_none() && !(self.stated.suspects)(first.stated);
                if is_sure {
                    self.sure = Some(point);
                }
            }
            self.settling.point(self.checks, point.0, goes_on, is_sure);
        }
        waiting.drain(..).for_each(out);
        self.waiting = waiting;
    }

    fn find(&self, point: (i64, f64), next: Option<(i64, f64)>) -> Option<Finding> {
        let checks = self.checks;
        if let Some((before, next)) = self.before.zip(next)
            && checks.is_spike(before, point, next)
        {
            return Some(Finding::Spike);
        }
        if let (Some(limit), Some((t_ns, value))) = (checks.rate_per_s, self.sure) {
            let apart = point.0.saturating_sub(t_ns);
            let seconds = apart as f64 / 1e9;
            if apart <= checks.reach_ns && (point.1 - value).abs() > limit * seconds {
                return Some(Finding::Rate);
            }
        }
        (!checks.is_typical(point.1)).then_some(Finding::Untypical)
    }
}

#[cfg(test)]
mod tests;
