//! Windows of an aggregate: pure arithmetic on time.
//!
//! Never here: calendars and zones (the caller turns them into borders). Invariant: every time inside
//! `from..to` belongs to exactly one window, and nothing overflows at the ends of i64.

use std::sync::Arc;

/// Which end of a window belongs to it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Edge {
    /// `[s, e)`.
    StartClosed,
    /// `(s, e]`.
    EndClosed,
}

impl Edge {
    /// Whether a time lies between two others, of which one belongs to what lies between.
    #[inline]
    pub fn holds(self, start_ns: i64, t_ns: i64, end_ns: i64) -> bool {
        match self {
            Edge::StartClosed => start_ns <= t_ns && t_ns < end_ns,
            Edge::EndClosed => start_ns < t_ns && t_ns <= end_ns,
        }
    }
}

/// A grid of windows over a range of time. Times are nanoseconds since the epoch.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Start of the range, inside it where the edge is `StartClosed`.
    pub from_ns: i64,
    /// End of the range, inside it where the edge is `EndClosed`.
    pub to_ns: i64,
    /// Width of a window; `None` (and anything not positive): one window over the whole range.
    pub step_ns: Option<i64>,
    /// A border of the grid.
    pub origin_ns: i64,
    /// Windows of any lengths instead: each goes from one of these to the next, and they ascend. Two at least, the first not
    /// after `from_ns`, the last not before `to_ns`.
    pub borders: Option<Arc<[i64]>>,
    /// Which end belongs to a window, and to the range.
    pub edge: Edge,
}

/// Windows that end one after the other and may overlap: each is made of steps.
#[derive(Clone, Debug)]
pub struct Sliding {
    /// The steps that windows end with, by the numbers of the windows.
    pub asked: Windows,
    /// All steps, by the same numbers; where windows slide, they begin earlier.
    pub stepped: Windows,
    /// How many steps a window is long, 1 at least.
    pub steps: i64,
}

impl Sliding {
    /// Start and end of a window.
    pub fn bounds(&self, window: i64) -> (i64, i64) {
        let (start_ns, end_ns) = self.asked.bounds(window);
        match self.steps {
            1 => (start_ns, end_ns),
            steps => (self.stepped.bounds(window.saturating_sub(steps - 1)).0, end_ns),
        }
    }
}

impl Windows {
    /// Number of the window that `t_ns` falls into: window `n` starts at `origin + n * step`, or at the border `n`. 0 without
    /// either.
    /// `None` outside `from..to` by the edge rule. The number is cut to i64, which matters only for a step of one
    /// nanosecond and an origin more than 2^63 ns away.
    pub fn index_of(&self, t_ns: i64) -> Option<i64> {
        let inside = self.holds(self.from_ns, t_ns, self.to_ns);
        if !inside {
            return None;
        }
        match &self.borders {
            Some(borders) => Some(self.between(borders, t_ns)),
            None => Some(self.number_cut(t_ns)),
        }
    }

    /// Number and end of the window that `t_ns` falls into, given those of one that ended before: mostly it is the next one.
    #[inline]
    pub(crate) fn following(&self, (index, end_ns): (i64, i64), t_ns: i64) -> Option<(i64, i64)> {
        let end = match &self.borders {
            Some(borders) => after(index).and_then(|next| borders.get(next + 1).copied()),
            None => self
                .step_ns
                .filter(|&step| step > 0)
                .and_then(|step| end_ns.checked_add(step)),
        };
        match end.filter(|&end| end <= self.to_ns).zip(index.checked_add(1)) {
            Some((end, next)) if self.holds(end_ns, t_ns, end) => Some((next, end)),
            _ => self.containing(t_ns),
        }
    }

    /// Number and end of the window that `t_ns` falls into.
    pub(crate) fn containing(&self, t_ns: i64) -> Option<(i64, i64)> {
        self.index_of(t_ns).map(|index| (index, self.bounds(index).1))
    }

    /// Whether a time lies in the window from `start_ns` to `end_ns`.
    #[inline]
    pub(crate) fn holds(&self, start_ns: i64, t_ns: i64, end_ns: i64) -> bool {
        self.edge.holds(start_ns, t_ns, end_ns)
    }

    /// True for times before the range: all of these are before all that are in it.
    pub(crate) fn is_before(&self, t_ns: i64) -> bool {
        match self.edge {
            Edge::StartClosed => t_ns < self.from_ns,
            Edge::EndClosed => t_ns <= self.from_ns,
        }
    }

    /// True for times behind the range: all of these are behind all that are in it.
    pub(crate) fn is_behind(&self, t_ns: i64) -> bool {
        match self.edge {
            Edge::StartClosed => self.to_ns <= t_ns,
            Edge::EndClosed => self.to_ns < t_ns,
        }
    }

    /// Start and end of window `index`, cut to `from..to`. A window outside the range gives an empty one at its end.
    pub fn bounds(&self, index: i64) -> (i64, i64) {
        if let Some(borders) = &self.borders {
            let cut = |place: i64| {
                let place = usize::try_from(place.max(0)).unwrap_or(usize::MAX);
                let border = borders.get(place).or(borders.last()).copied();
                let border = border.unwrap_or(self.from_ns);
                border.max(self.from_ns).min(self.to_ns.max(self.from_ns))
            };
            return (cut(index), cut(index.saturating_add(1)));
        }
        let Some(step) = self.step() else {
            return (self.from_ns, self.to_ns.max(self.from_ns));
        };
        let start = i128::from(self.origin_ns) + i128::from(index) * step;
        let (from, to) = (i128::from(self.from_ns), i128::from(self.to_ns.max(self.from_ns)));
        (cut(start.clamp(from, to)), cut((start + step).clamp(from, to)))
    }

    /// Number of windows that touch `from..to`, empty ones included.
    pub fn count(&self) -> u64 {
        let Some((first, last)) = self.index_range() else {
            return 0;
        };
        u64::try_from(i128::from(last) - i128::from(first) + 1).unwrap_or(u64::MAX)
    }

    /// Numbers of the first and the last window that touch `from..to`; `None` where the range is empty.
    pub fn index_range(&self) -> Option<(i64, i64)> {
        if self.from_ns >= self.to_ns {
            return None;
        }
        let (first, last) = match self.edge {
            Edge::StartClosed => (self.from_ns, self.to_ns - 1),
            Edge::EndClosed => (self.from_ns + 1, self.to_ns),
        };
        Some(match &self.borders {
            Some(borders) => (self.between(borders, first), self.between(borders, last)),
            None => (self.number_cut(first), self.number_cut(last)),
        })
    }

    /// Half-open range of observation times that can matter. (The time `i64::MAX` itself is beyond any half-open range.)
    pub fn scan_range(&self) -> (i64, i64) {
        match self.edge {
            Edge::StartClosed => (self.from_ns, self.to_ns),
            Edge::EndClosed => (self.from_ns.saturating_add(1), self.to_ns.saturating_add(1)),
        }
    }

    /// [`Windows::number`], cut to i64.
    #[inline]
    fn number_cut(&self, t_ns: i64) -> i64 {
        self.number_narrow(t_ns).unwrap_or_else(|| cut(self.number(t_ns)))
    }

    /// [`Windows::number`] where all of it fits 64 bits, as it does but at the ends of time: a wide division is slow.
    fn number_narrow(&self, t_ns: i64) -> Option<i64> {
        let step = self.step_ns.filter(|&step| step > 0)?;
        let since = t_ns.checked_sub(self.origin_ns)?;
        match self.edge {
            Edge::StartClosed => Some(since.div_euclid(step)),
            Edge::EndClosed => Some(since.checked_sub(1)?.div_euclid(step)),
        }
    }

    /// Number of the window between borders that a time falls into.
    fn between(&self, borders: &[i64], t_ns: i64) -> i64 {
        let begun = match self.edge {
            Edge::StartClosed => borders.partition_point(|border| *border <= t_ns),
            Edge::EndClosed => borders.partition_point(|border| *border < t_ns),
        };
        begun.saturating_sub(1).min(borders.len().saturating_sub(2)) as i64
    }

    fn step(&self) -> Option<i128> {
        self.step_ns.filter(|&s| s > 0).map(i128::from)
    }

    fn number(&self, t_ns: i64) -> i128 {
        let Some(step) = self.step() else {
            return 0;
        };
        let since = i128::from(t_ns) - i128::from(self.origin_ns);
        match self.edge {
            Edge::StartClosed => since.div_euclid(step),
            Edge::EndClosed => (since - 1).div_euclid(step),
        }
    }
}

/// The place behind a window's.
fn after(index: i64) -> Option<usize> {
    usize::try_from(index).ok()?.checked_add(1)
}

fn cut(wide: i128) -> i64 {
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}
