//! What a rollup keeps of the points of a window as a sequence: from the first to the last, and nothing beyond them.
//!
//! ```text
//! part = 10, 11 area under the values, times nanoseconds, and what rounding took from it | 12 time that it covers, nanoseconds |
//!        13, 14 rise of a counter, and what rounding took from it | 15 numbers, of doubles that may be none |
//!        16, 17 first and last number | 18, 19 when these were, nanoseconds after the start |
//!        32 + 3 * code: how long a state held, nanoseconds, how often it began, points that say it
//! ```
//! Mostly none of them is there, because it follows from the cells of the points: 10 and 11 where points are evenly spaced, 12
//! without gaps, 13 and 14 where nothing fell, 15 to 19 where all are numbers, 32 and more where one state held throughout.
//!
//! Never here: what lies between windows. Invariant: what is left out is what is read instead, but for digits that no double
//! shows.

use super::Follows;
use super::cells::Cells;
use crate::by_window::ByWindow;
use crate::exact::Exact;
use crate::partial::Partial;
use crate::record::{ValueRef, Values};
use crate::sequence::{Between, Feed, Gathered, Point, Run, STATES_MAX, Sequence, State};
use crate::window::{Edge, Windows};

const AREA: u32 = 10;
const AREA_REST: u32 = 11;
const COVERED: u32 = 12;
const RISE: u32 = 13;
const RISE_REST: u32 = 14;
const NUMBERS: u32 = 15;
const FIRST: u32 = 16;
const LAST: u32 = 17;
const FIRST_AFTER: u32 = 18;
const LAST_AFTER: u32 = 19;
const STATES: u32 = 32;
const STATE_PARTS: u32 = 3;

impl Follows {
    fn gathered(self) -> Gathered {
        let nothing = Gathered {
            now_ns: i64::MIN,
            ..Gathered::default()
        };
        let area = |between, max_gap_ns| Gathered {
            area: Some(between),
            max_gap_ns,
            ..nothing.clone()
        };
        match self {
            Follows::Counter(wrap) => Gathered {
                steps: true,
                wrap,
                ..nothing
            },
            Follows::Linear(max_gap_ns) => area(Between::Linear, max_gap_ns),
            Follows::Held(max_gap_ns) => area(Between::Held, max_gap_ns),
            Follows::State(max_gap_ns) => Gathered {
                states: true,
                max_gap_ns,
                ..nothing
            },
        }
    }
}

/// Points of a window, followed.
pub(super) struct Followed {
    run: Run,
    numbers: u64,
    follows: Follows,
}

/// Follows the points of one window; `None` where none of them is a number or a state.
pub(super) fn follow(times: &[i64], values: &Values, from: usize, follows: Follows) -> Option<Followed> {
    let point = |at: usize| Point::new(times[at], values.get(from + at)?);
    let mut points = (0..times.len()).filter_map(point);
    let first = points.next()?;
    let (last, others) = points.fold((first, 0), |(_, others), point| (point, others + 1));
    let all = Windows {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        step_ns: None,
        origin_ns: 0,
        borders: None,
        edge: Edge::StartClosed,
    };
    let gathered = follows.gathered();
    let mut feed = Feed::new(&gathered, &all);
    let mut inside = ByWindow::default();
    for (at, t_ns) in times.iter().enumerate() {
        if let Some(value) = values.get(from + at) {
            feed.point(*t_ns, value, &mut inside);
        }
    }
    let inside = inside.into_sorted().pop().map(|(_, inside)| inside);
    Some(Followed {
        run: Run {
            first,
            last,
            inside: inside.unwrap_or_default(),
        },
        numbers: others + 1,
        follows,
    })
}

impl Followed {
    /// Puts the cells that do not follow from those of the points.
    pub(super) fn put(&self, partial: &Partial, start_ns: i64, cell: &mut impl FnMut(u32, ValueRef<'_>)) {
        let Run { first, last, inside } = &self.run;
        if self.numbers != partial.count() {
            cell(NUMBERS, ValueRef::I64(self.numbers as i64));
            cell(FIRST, ValueRef::F64(first.value()));
            cell(LAST, ValueRef::F64(last.value()));
            cell(FIRST_AFTER, ValueRef::I64(first.t_ns.saturating_sub(start_ns)));
            cell(LAST_AFTER, ValueRef::I64(last.t_ns.saturating_sub(start_ns)));
        }
        let whole = Whole::of(partial, self.numbers, *first, *last);
        match self.follows {
            Follows::Counter(_) => {
                let rise = inside.rise;
                if !rise.is_same(whole.change()) {
                    cell(RISE, ValueRef::F64(rise.high));
                    cell(RISE_REST, ValueRef::F64(rise.rest));
                }
            }
            Follows::Linear(_) | Follows::Held(_) => {
                let even = whole.area(self.follows);
                if !even.is_some_and(|even| even.is_same(inside.area)) {
                    cell(AREA, ValueRef::F64(inside.area.high));
                    cell(AREA_REST, ValueRef::F64(inside.area.rest));
                }
                if inside.covered_ns != whole.length_ns() {
                    let covered_ns = i64::try_from(inside.covered_ns).unwrap_or(i64::MAX);
                    cell(COVERED, ValueRef::I64(covered_ns));
                }
            }
            Follows::State(_) if whole.is_one_state(inside) => {}
            Follows::State(_) => {
                for (code, state) in &inside.states {
                    put_state(*code, state, cell);
                }
            }
        }
    }
}

fn put_state(code: i64, state: &State, cell: &mut impl FnMut(u32, ValueRef<'_>)) {
    let Some(code) = u32::try_from(code).ok().filter(|code| (*code as usize) < STATES_MAX) else {
        return debug_assert!(false, "a label has a small number");
    };
    let held_ns = i64::try_from(state.held_ns).unwrap_or(i64::MAX);
    let numbers = [held_ns, state.entered as i64, state.points as i64];
    for (part, number) in (STATES + STATE_PARTS * code..).zip(numbers) {
        if number != 0 {
            cell(part, ValueRef::I64(number));
        }
    }
}

/// Reads a run; `None` where no point is a number or a state.
pub(super) fn read(cells: &Cells<'_>, partial: &Partial, follows: Follows, start_ns: i64) -> Option<Run> {
    let (first, last) = match (cells.double(FIRST), cells.double(LAST)) {
        (Some(first), Some(last)) => {
            let at = |part: u32| Some(start_ns.saturating_add(cells.integer(part)?));
            let first = Point::new(at(FIRST_AFTER)?, ValueRef::F64(first))?;
            (first, Point::new(at(LAST_AFTER)?, ValueRef::F64(last))?)
        }
        _ => ends(partial)?,
    };
    let numbers = cells.integer(NUMBERS).map_or(partial.count(), i64::unsigned_abs);
    let whole = Whole::of(partial, numbers, first, last);
    let exact = |high: u32, rest: u32| {
        let high = cells.double(high)?;
        Some(Exact {
            high,
            rest: cells.double(rest)?,
        })
    };
    let mut inside = Sequence {
        steps: numbers.saturating_sub(1),
        change: whole.change(),
        ..Sequence::default()
    };
    match follows {
        Follows::Counter(_) => inside.rise = exact(RISE, RISE_REST).unwrap_or(whole.change()),
        Follows::Linear(_) | Follows::Held(_) => {
            let covered = cells.integer(COVERED).map(|covered| u128::from(covered.unsigned_abs()));
            inside.covered_ns = covered.unwrap_or(whole.length_ns());
            inside.area = exact(AREA, AREA_REST).or(whole.area(follows)).unwrap_or_default();
        }
        Follows::State(_) => {
            states(cells, &mut inside);
            if inside.states.is_empty() {
                let state = State {
                    held_ns: whole.length_ns(),
                    entered: 0,
                    points: numbers,
                };
                inside.states.insert(first.code(), state);
            }
            let held = inside.states.values().map(|state| state.held_ns);
            inside.covered_ns = held.fold(0, u128::saturating_add);
            let on = inside.states.get(&1).map_or(0, |state| state.held_ns);
            inside.area = Exact::of(on as f64);
        }
    }
    Some(Run { first, last, inside })
}

fn states(cells: &Cells<'_>, inside: &mut Sequence) {
    for (part, value) in cells.from(STATES) {
        let ValueRef::I64(number) = value else { continue };
        let place = part - STATES;
        let state = inside.states.entry(i64::from(place / STATE_PARTS)).or_default();
        match place % STATE_PARTS {
            0 => state.held_ns = u128::from(number.unsigned_abs()),
            1 => state.entered = number.unsigned_abs(),
            _ => state.points = number.unsigned_abs(),
        }
    }
}

/// First and last point of a partial, where they are numbers or states.
fn ends(partial: &Partial) -> Option<(Point, Point)> {
    let point = |(t_ns, value)| Point::new(t_ns, value);
    partial.first().and_then(point).zip(partial.last().and_then(point))
}

/// What the cells of the points tell of them as a sequence.
struct Whole {
    sum: Option<Exact>,
    numbers: u64,
    first: Point,
    last: Point,
}

impl Whole {
    fn of(partial: &Partial, numbers: u64, first: Point, last: Point) -> Whole {
        let sum = match partial {
            Partial::F64(p) => Some(Exact {
                high: p.sum,
                rest: p.sum_rest,
            }),
            // Exact as long as nobody needs more than 64 bits.
            Partial::I64(p) => i64::try_from(p.sum).ok().map(|sum| {
                let (upper, lower) = (sum >> 32 << 32, sum & 0xffff_ffff);
                Exact::sum(upper as f64, lower as f64)
            }),
            _ => None,
        };
        Whole {
            sum: sum.filter(|_| numbers == partial.count()),
            numbers,
            first,
            last,
        }
    }

    fn change(&self) -> Exact {
        Exact::sum(self.last.value(), -self.first.value())
    }

    fn length_ns(&self) -> u128 {
        u128::from(self.last.t_ns.abs_diff(self.first.t_ns))
    }

    /// The area, if all points are spaced evenly and none of the steps is a gap.
    fn area(&self, follows: Follows) -> Option<Exact> {
        let steps = self.numbers.saturating_sub(1);
        if steps == 0 {
            return Some(Exact::default());
        }
        let mut area = self.sum?;
        let outer = match follows {
            Follows::Held(_) => Exact::of(self.last.value()),
            _ => Exact::sum(self.first.value(), self.last.value()).times(0.5),
        };
        area.add(outer.times(-1.0));
        Some(area.times(self.length_ns() as f64 / steps as f64))
    }

    /// Whether the first point's state held until the last point.
    fn is_one_state(&self, inside: &Sequence) -> bool {
        let one = State {
            held_ns: self.length_ns(),
            entered: 0,
            points: self.numbers,
        };
        inside.states.len() == 1 && inside.states.get(&self.first.code()) == Some(&one)
    }
}
