//! Slots of windows: each as long as a device promises a point for, and which of them have one. Pure.
//!
//! ```text
//! [s, e)   | slot | slot | slot | rest |     told from the start
//! (s, e]   | rest | slot | slot | slot |     told from the end
//! ```
//! For what is left of a window beside whole slots no point is promised, and no slot is counted.
//!
//! Of points that a window of a rollup stands for, the first and the last are known, and how many slots between theirs have none: all
//! others from the one to the other have a point.
//!
//! Never here: which points count, when they were received (see `assess`). Invariant: a slot counts once, however many points it
//! has and in however many blocks and rollups these are; slots of devices add up.

use crate::by_window::{ByWindow, Unfinished};
use crate::rollup::{Row, window_of};
use crate::stamps::Stamps;
use crate::window::{Edge, Sliding};

/// How slots lie in windows.
#[derive(Clone, Debug)]
pub struct Slots {
    windows: Sliding,
    interval_ns: i64,
    of_steps: bool,
}

/// What is known of points that are not there.
struct Told {
    /// When the first and the last were observed.
    ends: (i64, i64),
    points: u64,
    /// Slots between theirs that have none.
    empty: u64,
}

/// What is known of the slots of a window.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Points in the window.
    pub points: u64,
    /// Slots that have any of them.
    pub slots: u64,
    /// Of one device whose points come: the slot of the last one.
    last: Option<u64>,
}

impl Filled {
    /// So many points in so many slots.
    pub fn new(points: u64, slots: u64) -> Filled {
        Filled {
            points,
            slots,
            last: None,
        }
    }
}

impl Unfinished for Filled {
    /// Adds another device.
    fn merge(&mut self, other: &Filled) {
        let points = self.points.saturating_add(other.points);
        *self = Filled::new(points, self.slots.saturating_add(other.slots));
    }
}

impl Slots {
    /// Slots so long, nanoseconds.
    pub fn new(windows: Sliding, interval_ns: i64) -> Slots {
        let interval_ns = interval_ns.max(1);
        let of_steps = windows.steps > 1 && lie_in_steps(&windows, interval_ns);
        let windows = match of_steps {
            true => Sliding {
                asked: windows.stepped.clone(),
                stepped: windows.stepped,
                steps: 1,
            },
            false => windows,
        };
        Slots {
            windows,
            interval_ns,
            of_steps,
        }
    }

    /// Of windows that slide: what is noted is of their steps, which add up, since slots lie whole in them; not of the windows themselves.
    pub fn of_steps(&self) -> bool {
        self.of_steps
    }

    /// Adds points of one device at times that ascend, of which none is before those that came.
    pub fn fill(&self, times: &[i64], filled: &mut ByWindow<Filled>) {
        self.fill_stamped(times, filled);
    }

    /// The same for times of any form.
    pub(crate) fn fill_stamped<S: Stamps>(&self, times: S, filled: &mut ByWindow<Filled>) {
        let Sliding { asked, stepped, steps } = &self.windows;
        let Some((first, last)) = asked.index_range() else {
            return;
        };
        let from = times.partition(|t| stepped.is_before(t));
        let to = times.partition(|t| !stepped.is_behind(t));
        let (mut rest, mut window) = (times.part(from, to.max(from)), first);
        while rest.len() > 0 && window <= last {
            // Windows that end before the next point are passed over.
            let Some(next) = stepped.index_of(rest.at(0)) else {
                return;
            };
            window = window.max(next);
            if window > last {
                return;
            }
            let (start_ns, end_ns) = self.windows.bounds(window);
            let is_before = |t: i64| match asked.edge {
                Edge::StartClosed => t < start_ns,
                Edge::EndClosed => t <= start_ns,
            };
            rest = rest.part(rest.partition(is_before), rest.len());
            let inside = rest.partition(|t| asked.edge.holds(i64::MIN, t, end_ns));
            if inside > 0 {
                self.count(rest.part(0, inside), (start_ns, end_ns), filled.entry(window));
            }
            if *steps == 1 {
                rest = rest.part(inside, rest.len());
            }
            match window.checked_add(1) {
                Some(next) => window = next,
                None => return,
            }
        }
    }

    /// Adds points of one device that a window of a rollup stands for, in the order of time with all others. Where it knows nothing of slots
    /// of this length, its points fill one each, as far as there are slots from that of the first to that of the last.
    pub fn fill_row(&self, row: &Row, filled: &mut ByWindow<Filled>) {
        let Sliding { asked, stepped, steps } = &self.windows;
        let step = window_of(stepped, row.start_ns, row.length_ns);
        let Some((points, (step, (first, last)))) = row.points.as_ref().zip(step.zip(asked.index_range())) else {
            return;
        };
        let Some(((first_ns, _), (last_ns, _))) = points.first().zip(points.last()) else {
            return;
        };
        let known = row.empty.filter(|known| known.interval_ns == self.interval_ns);
        let told = Told {
            ends: (first_ns, last_ns),
            points: points.count(),
            empty: known.map_or(0, |known| known.slots),
        };
        for window in step.max(first)..=step.saturating_add(steps - 1).min(last) {
            self.count_told(&told, self.windows.bounds(window), filled.entry(window));
        }
    }

    /// Whole slots of so many nanoseconds.
    fn slots_of(&self, length_ns: u64) -> u64 {
        length_ns / self.interval_ns.unsigned_abs()
    }

    /// The slot of a time within a window of so many, by number, as they ascend; `None` where the rest is.
    #[inline]
    fn slot(&self, t: i64, (start_ns, end_ns): (i64, i64), whole: u64) -> Option<u64> {
        match self.windows.asked.edge {
            Edge::StartClosed => Some(self.slots_of(t.abs_diff(start_ns))).filter(|slot| *slot < whole),
            Edge::EndClosed => whole.checked_sub(self.slots_of(end_ns.abs_diff(t)).saturating_add(1)),
        }
    }

    /// Adds points of a window that are known by their ends.
    fn count_told(&self, told: &Told, bounds: (i64, i64), filled: &mut Filled) {
        filled.points = filled.points.saturating_add(told.points);
        let whole = self.slots_of(bounds.1.abs_diff(bounds.0));
        let [first, last] = [told.ends.0, told.ends.1].map(|t| self.slot(t, bounds, whole));
        // The rest is as one slot more, behind all others or before them, which is not counted in the end.
        let place = |slot: Option<u64>| match self.windows.asked.edge {
            Edge::StartClosed => slot.unwrap_or(whole),
            Edge::EndClosed => slot.map_or(0, |slot| slot.saturating_add(1)),
        };
        let between = place(last).saturating_sub(place(first)).saturating_add(1);
        // Where slots of windows and of rollups lie otherwise, those of the ends have a point all the same.
        let reached = between.saturating_sub(told.empty).max(between.min(2)).min(told.points);
        let rest = u64::from(first.is_none() || last.is_none());
        let again = u64::from(first.is_some() && filled.last == first);
        let new = reached.saturating_sub(rest).saturating_sub(again);
        filled.slots = filled.slots.saturating_add(new);
        filled.last = last.or(filled.last);
    }

    /// Adds points of a window.
    fn count<S: Stamps>(&self, times: S, (start_ns, end_ns): (i64, i64), filled: &mut Filled) {
        filled.points = filled.points.saturating_add(times.len() as u64);
        let whole = self.slots_of(end_ns.abs_diff(start_ns));
        let slot = |t: i64| self.slot(t, (start_ns, end_ns), whole);
        let (from, to) = match self.windows.asked.edge {
            Edge::StartClosed => (0, times.partition(|t| slot(t).is_some())),
            Edge::EndClosed => (times.partition(|t| slot(t).is_none()), times.len()),
        };
        let times = times.part(from, to);
        if times.len() == 0 {
            return;
        }
        let (first, last) = (slot(times.at(0)), slot(times.at(times.len() - 1)));
        let (Some(first), Some(last)) = (first, last) else {
            return;
        };
        let reached = match times.step_ns() {
            // A step of an interval or more reaches another slot, all smaller ones together reach each.
            Some(step_ns) if step_ns >= self.interval_ns => times.len() as u64,
            Some(_) => last - first + 1,
            None if last - first < 2 => last - first + 1,
            None => {
                let (mut reached, mut before) = (1, Some(first));
                for at in 1..times.len() {
                    let next = slot(times.at(at));
                    reached += u64::from(next != before);
                    before = next;
                }
                reached
            }
        };
        let again = u64::from(filled.last == Some(first));
        filled.slots = filled.slots.saturating_add(reached - again);
        filled.last = Some(last);
    }
}

/// Whether no slot of a window that slides lies across a border of steps.
fn lie_in_steps(Sliding { asked, .. }: &Sliding, interval_ns: i64) -> bool {
    let whole = |from_ns: i64, to_ns: i64| (i128::from(to_ns) - i128::from(from_ns)) % i128::from(interval_ns) == 0;
    let (border, steps) = match &asked.borders {
        Some(borders) => (
            borders.first().copied(),
            borders.windows(2).all(|pair| whole(pair[0], pair[1])),
        ),
        None => (
            Some(asked.origin_ns),
            asked.step_ns.is_some_and(|step_ns| whole(0, step_ns)),
        ),
    };
    // Slots that are told from the end are those of the end of the range in the last window.
    let end = asked.edge == Edge::StartClosed || border.is_some_and(|border| whole(border, asked.to_ns));
    steps && end
}

#[cfg(test)]
#[path = "slots/tests.rs"]
mod tests;
