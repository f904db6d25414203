//! Windows of an aggregate: pure arithmetic on time.
//!
//! Never here: calendars and zones (they are cut into `Windows` by the caller). Invariant: every time inside
//! `from..to` belongs to exactly one window, and nothing overflows at the ends of i64.

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
#[derive(Copy, Clone, Debug)]
pub struct Windows {
    /// Start of the range, inside it where the edge is `StartClosed`.
    pub from_ns: i64,
    /// End of the range, inside it where the edge is `EndClosed`.
    pub to_ns: i64,
    /// Width of a window; `None` (and anything not positive): one window over the whole range.
    pub step_ns: Option<i64>,
    /// A border of the grid.
    pub origin_ns: i64,
    /// Which end belongs to a window, and to the range.
    pub edge: Edge,
}

impl Windows {
    /// Number of the window that `t_ns` falls into: window `n` starts at `origin + n * step`. 0 without a step.
    /// `None` outside `from..to` by the edge rule. The number is cut to i64, which matters only for a step of one
    /// nanosecond and an origin more than 2^63 ns away.
    pub fn index_of(&self, t_ns: i64) -> Option<i64> {
        let inside = self.holds(self.from_ns, t_ns, self.to_ns);
        inside.then(|| self.number_narrow(t_ns).unwrap_or_else(|| cut(self.number(t_ns))))
    }

    /// Number and end of the window that `t_ns` falls into, given those of one that ended before: mostly it is the next one.
    #[inline]
    pub(crate) fn following(&self, (index, end_ns): (i64, i64), t_ns: i64) -> Option<(i64, i64)> {
        let end = self
            .step_ns
            .filter(|&step| step > 0)
            .and_then(|step| end_ns.checked_add(step));
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
        Some((cut(self.number(first)), cut(self.number(last))))
    }

    /// Half-open range of observation times that can matter. (The time `i64::MAX` itself is beyond any half-open range.)
    pub fn scan_range(&self) -> (i64, i64) {
        match self.edge {
            Edge::StartClosed => (self.from_ns, self.to_ns),
            Edge::EndClosed => (self.from_ns.saturating_add(1), self.to_ns.saturating_add(1)),
        }
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

fn cut(wide: i128) -> i64 {
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}
