//! Points of one device in the order of their times, into what their windows hold.
//!
//! Never here: where points come from, blocks. Invariant: the parts of a step fall to the windows they lie in, and every
//! step is counted once, in the window where it ends; so windows side by side hold together what one over all of them holds.

use std::collections::VecDeque;

use super::{STATES_MAX, Sequence, greater};
use crate::by_window::ByWindow;
use crate::exact::Exact;
use crate::record::ValueRef;
use crate::window::{Edge, Windows};

/// How a value goes on until the next one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Between {
    /// Along a straight line.
    Linear,
    /// Unchanged.
    Held,
}

/// What is gathered of a sequence; what is not asked for costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Steps from point to point. With the modulus at which a counter wraps, where it has one.
    pub steps: bool,
    /// See `steps`.
    pub wrap: Option<f64>,
    /// Area under the values.
    pub area: Option<Between>,
    /// Points further apart than this have nothing between them, nanoseconds.
    pub max_gap_ns: i64,
    /// Nothing holds beyond this time.
    pub now_ns: i64,
    /// How values scatter.
    pub moments: bool,
    /// Values by size.
    pub quantiles: bool,
    /// Which states hold how long, and how often each is said.
    pub states: bool,
    /// Borders of bins, ascending: a value belongs to the first bin whose border is not below it, or to the last.
    pub bins: Vec<f64>,
    /// How fast values rise.
    pub rise: Option<Rise>,
}

/// How fast a value rises: from the last point that lies so long before another one, or up to `slack_ns` longer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rise {
    /// So long, nanoseconds, more than 0.
    pub over_ns: i64,
    /// So much longer at most, nanoseconds.
    pub slack_ns: i64,
}

impl Rise {
    /// How far before a point others matter, nanoseconds.
    pub fn reach_ns(self) -> i64 {
        self.over_ns.saturating_add(self.slack_ns)
    }
}

impl Gathered {
    /// Whether what lies outside of a range of windows matters: the next point before and behind it.
    pub fn looks_around(&self) -> bool {
        self.area.is_some() || self.states
    }
}

/// A point that is a number or a state.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Point {
    /// When it was observed.
    pub t_ns: i64,
    value: f64,
    code: i64,
}

impl Point {
    /// `None` for what is no number and no state.
    pub fn new(t_ns: i64, value: ValueRef<'_>) -> Option<Point> {
        let (value, code) = match value {
            ValueRef::F64(value) => (value, value as i64),
            ValueRef::I64(value) => (value as f64, value),
            ValueRef::Bool(value) => (f64::from(u8::from(value)), i64::from(value)),
            ValueRef::Enum(value) => (f64::from(value), i64::from(value)),
            ValueRef::Text(_) => return None,
        };
        value.is_finite().then_some(Point { t_ns, value, code })
    }

    /// The number, or that of the state.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The state.
    pub fn code(&self) -> i64 {
        self.code
    }
}

/// Points of one window that follow each other, as much of them as others need to know.
#[derive(Clone, Debug)]
pub struct Run {
    /// The first one.
    pub first: Point,
    /// The last one, which may be the first.
    pub last: Point,
    /// Steps, areas and states from the first to the last.
    pub inside: Sequence,
}

/// Feeds the points of one device to its windows.
pub struct Feed<'a> {
    gathered: &'a Gathered,
    /// For values: by the edge of their kind.
    points: Windows,
    /// For what lies between points.
    spans: Windows,
    /// For steps, which belong to the time they end at.
    steps: Windows,
    before: Option<Point>,
    /// Points from the last one on that lies long enough back to tell a rise from.
    earlier: VecDeque<Point>,
}

impl<'a> Feed<'a> {
    /// Nothing was fed yet.
    pub fn new(gathered: &'a Gathered, windows: &Windows) -> Feed<'a> {
        let with = |edge| Windows {
            edge,
            ..windows.clone()
        };
        Feed {
            gathered,
            points: windows.clone(),
            spans: with(Edge::StartClosed),
            steps: with(Edge::EndClosed),
            before: None,
            earlier: VecDeque::new(),
        }
    }

    /// What is held of points, bytes.
    pub fn bytes(&self) -> usize {
        self.earlier.len() * size_of::<Point>()
    }

    /// The next point, not before the last one. What is no number is passed over.
    pub fn point(&mut self, t_ns: i64, value: ValueRef<'_>, out: &mut ByWindow<Sequence>) {
        let Some(point) = Point::new(t_ns, value) else {
            return;
        };
        self.follow(point, out);
        if let Some(rise) = self.gathered.rise {
            self.rise(rise, point, out);
        }
        self.by_itself(point, out);
    }

    /// The next points, of one window. Rises and what is told of each point by itself, states aside, are not known of them.
    pub fn run(&mut self, run: &Run, out: &mut ByWindow<Sequence>) {
        self.follow(run.first, out);
        self.before = Some(run.last);
        let window = |point: &Point| self.points.index_of(point.t_ns);
        let Some(window) = window(&run.first).filter(|first| window(&run.last) == Some(*first)) else {
            return;
        };
        let (gathered, inside) = (self.gathered, &run.inside);
        let known = Sequence {
            rise: inside.rise,
            change: inside.change,
            steps: if gathered.steps { inside.steps } else { 0 },
            area: inside.area,
            covered_ns: if gathered.area.is_some() { inside.covered_ns } else { 0 },
            states: if gathered.states {
                inside.states.clone()
            } else {
                Default::default()
            },
            ..Sequence::default()
        };
        if known.steps > 0 || known.covered_ns > 0 || !known.states.is_empty() {
            out.entry(window).merge(&known);
        }
    }

    /// Goes on to a point from the one before.
    fn follow(&mut self, point: Point, out: &mut ByWindow<Sequence>) {
        if let Some(before) = self.before.replace(point) {
            self.step(before, point, out);
        } else if self.gathered.states
            && let Some(window) = self.spans.index_of(point.t_ns)
        {
            // The first one there is: nobody knows what was before.
            out.entry(window).states.entry(point.code).or_default();
        }
    }

    fn rise(&mut self, rise: Rise, point: Point, out: &mut ByWindow<Sequence>) {
        let until = point.t_ns.saturating_sub(rise.over_ns);
        while self.earlier.get(1).is_some_and(|next| next.t_ns <= until) {
            self.earlier.pop_front();
        }
        let from = self.earlier.front();
        let from = from.filter(|from| from.t_ns <= until && from.t_ns >= until.saturating_sub(rise.slack_ns));
        if let Some(window) = self.points.index_of(point.t_ns) {
            let hours = |from: &Point| seconds(from.t_ns, point.t_ns) / 3_600.0;
            let per_hour = from.map(|from| (point.value - from.value) / hours(from));
            let sequence = out.entry(window);
            sequence.rise_until((point.t_ns, per_hour));
            sequence.most_rise = greater(sequence.most_rise, per_hour);
        }
        self.earlier.push_back(point);
    }

    /// There are no more points: the last one holds until now, if the next one can still come in time.
    pub fn end(&mut self, out: &mut ByWindow<Sequence>) {
        let (max_gap_ns, now_ns) = (self.gathered.max_gap_ns, self.gathered.now_ns);
        if let Some(last) = self.before.take()
            && last.t_ns.saturating_add(max_gap_ns) >= now_ns
        {
            self.hold(last, now_ns, out);
        }
    }

    fn by_itself(&self, point: Point, out: &mut ByWindow<Sequence>) {
        let gathered = self.gathered;
        if !(gathered.moments || gathered.quantiles || gathered.states || !gathered.bins.is_empty()) {
            return;
        }
        let Some(window) = self.points.index_of(point.t_ns) else {
            return;
        };
        let sequence = out.entry(window);
        if gathered.moments {
            sequence.moments.add(point.value);
        }
        if gathered.quantiles {
            sequence.quantiles.add(point.value);
        }
        if gathered.states && sequence.states.len() <= STATES_MAX {
            sequence.states.entry(point.code).or_default().points += 1;
        }
        if !gathered.bins.is_empty() {
            sequence.bins.resize(gathered.bins.len() + 1, 0);
            sequence.bins[gathered.bins.partition_point(|border| *border < point.value)] += 1;
        }
    }

    fn step(&self, from: Point, to: Point, out: &mut ByWindow<Sequence>) {
        let gathered = self.gathered;
        if gathered.steps
            && let Some(window) = self.steps.index_of(to.t_ns)
        {
            let sequence = out.entry(window);
            sequence.steps += 1;
            sequence.change.add(Exact::sum(to.value, -from.value));
            sequence.rise.add(rise(from.value, to.value, gathered.wrap));
        }
        let joined = to.t_ns.saturating_sub(from.t_ns) <= gathered.max_gap_ns;
        if joined && gathered.area == Some(Between::Linear) {
            self.slope(from, to, out);
        }
        if joined {
            self.hold(from, to.t_ns, out);
        }
        if gathered.states
            && joined
            && from.code != to.code
            && let Some(window) = self.spans.index_of(to.t_ns)
        {
            let sequence = out.entry(window);
            if sequence.states.len() <= STATES_MAX {
                sequence.states.entry(to.code).or_default().entered += 1;
            }
        }
    }

    /// A value that goes along a straight line to the next one.
    fn slope(&self, from: Point, to: Point, out: &mut ByWindow<Sequence>) {
        let whole = self.spans.containing(from.t_ns).filter(|(_, end)| to.t_ns <= *end);
        if let Some((window, _)) = whole {
            let sequence = out.entry(window);
            let half = span(from.t_ns, to.t_ns) / 2.0;
            sequence.area.add(Exact::sum(from.value, to.value).times(half));
            sequence.covered_ns += u128::from(to.t_ns.abs_diff(from.t_ns));
            return;
        }
        let slope = (to.value - from.value) / seconds(from.t_ns, to.t_ns);
        self.each_window(from.t_ns, to.t_ns, |window, start, end| {
            let middle = from.value + slope * (seconds(from.t_ns, start) + seconds(start, end) / 2.0);
            let sequence = out.entry(window);
            sequence.area.add(Exact::product(middle, span(start, end)));
            sequence.covered_ns += u128::from(end.abs_diff(start));
        });
    }

    /// A value that holds until a time, where values do.
    fn hold(&self, from: Point, until: i64, out: &mut ByWindow<Sequence>) {
        let gathered = self.gathered;
        let area = gathered.area == Some(Between::Held);
        if !(area || gathered.states) {
            return;
        }
        self.each_window(from.t_ns, until, |window, start, end| {
            let sequence = out.entry(window);
            let held_ns = u128::from(end.abs_diff(start));
            if area {
                sequence.area.add(Exact::product(from.value, span(start, end)));
                sequence.covered_ns += held_ns;
            }
            if gathered.states && sequence.states.len() <= STATES_MAX {
                sequence.states.entry(from.code).or_default().held_ns += held_ns;
            }
        });
    }

    /// The parts of a span that lie in windows.
    fn each_window(&self, from_ns: i64, to_ns: i64, mut part: impl FnMut(i64, i64, i64)) {
        let (mut at, end) = (from_ns.max(self.spans.from_ns), to_ns.min(self.spans.to_ns));
        while at < end {
            let Some((window, window_end)) = self.spans.containing(at) else {
                return;
            };
            let until = window_end.min(end);
            part(window, at, until);
            at = until;
        }
    }
}

/// How far a counter rose from one point to the next: a fall is a wrap where it has a modulus and that makes it plausible,
/// which is less than half a turn, and otherwise a reset.
fn rise(from: f64, to: f64, wrap: Option<f64>) -> Exact {
    if to >= from {
        return Exact::sum(to, -from);
    }
    let wrapped = wrap.map(|wrap| (wrap - from + to, wrap));
    Exact::of(match wrapped {
        Some((rise, wrap)) if from <= wrap && rise >= 0.0 && rise < wrap / 2.0 => rise,
        _ => to.max(0.0),
    })
}

/// Length of a time, nanoseconds.
fn span(from_ns: i64, to_ns: i64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64
}

fn seconds(from_ns: i64, to_ns: i64) -> f64 {
    span(from_ns, to_ns) / 1e9
}
