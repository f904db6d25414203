//! The longest time in a window without a point: from its start, or a point in it, to the next one, or its end. Pure.
//!
//! Never here: what a device promises (see `assess`). Invariant: only points within the window matter, so an empty window is
//! one gap, and a gap is never longer than its window.

use crate::by_window::Unfinished;
use crate::window::Windows;

/// The points of one device in a window, or in windows side by side.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    first_ns: i64,
    last_ns: i64,
    /// Longest time from one of them to the next.
    inner_ns: i64,
}

impl Stretch {
    /// Adds the points of a later window.
    pub fn append(&mut self, later: &Stretch) {
        let between = later.first_ns.saturating_sub(self.last_ns);
        self.inner_ns = self.inner_ns.max(later.inner_ns).max(between);
        self.last_ns = later.last_ns;
    }

    /// The longest gap of a window with these points.
    pub fn gap_ns(&self, (start_ns, end_ns): (i64, i64)) -> i64 {
        let leading = self.first_ns.saturating_sub(start_ns);
        let trailing = end_ns.saturating_sub(self.last_ns);
        self.inner_ns.max(leading).max(trailing)
    }
}

/// The stretches of one device, window by window.
#[derive(Clone, Debug, Default)]
pub struct Stretches(Vec<(i64, Stretch)>);

impl Stretches {
    /// Adds a point, not before the last one.
    pub fn point(&mut self, windows: &Windows, t_ns: i64) {
        let Some(window) = windows.index_of(t_ns) else {
            return;
        };
        let stretch = Stretch {
            first_ns: t_ns,
            last_ns: t_ns,
            inner_ns: 0,
        };
        match self.0.last_mut() {
            Some((last, before)) if *last == window => before.append(&stretch),
            _ => self.0.push((window, stretch)),
        }
    }

    /// Windows with points, ascending.
    pub fn into_inner(self) -> Vec<(i64, Stretch)> {
        self.0
    }
}

/// The longest of the gaps of several devices.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Widest {
    /// Devices that have a point in the window.
    pub devices: u64,
    /// The longest gap of these, nanoseconds.
    pub gap_ns: i64,
}

impl Unfinished for Widest {
    fn merge(&mut self, other: &Widest) {
        self.devices = self.devices.saturating_add(other.devices);
        self.gap_ns = self.gap_ns.max(other.gap_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Edge;

    fn gaps(points: &[i64], step: i64, steps: usize, edge: Edge) -> Vec<i64> {
        let windows = Windows {
            from_ns: 0,
            to_ns: 100,
            step_ns: Some(step),
            origin_ns: 0,
            borders: None,
            edge,
        };
        let mut stretches = Stretches::default();
        points.iter().for_each(|t| stretches.point(&windows, *t));
        let by_step = stretches.into_inner();
        let inside = |end: i64| {
            by_step
                .iter()
                .filter(move |(at, _)| (end - steps as i64 + 1..=end).contains(at))
        };
        let of = |end: i64| {
            let bounds = ((end + 1 - steps as i64) * step, (end + 1) * step);
            let mut parts = inside(end).map(|(_, stretch)| *stretch);
            let whole = parts.next().map(|first| {
                parts.fold(first, |mut whole, part| {
                    whole.append(&part);
                    whole
                })
            });
            whole.map_or(bounds.1 - bounds.0, |whole| whole.gap_ns(bounds))
        };
        (steps as i64 - 1..100 / step).map(of).collect()
    }

    #[test]
    fn gaps_are_those_of_a_list_of_points() {
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..500 {
            let mut points: Vec<i64> = (0..next(30)).map(|_| next(120) as i64 - 10).collect();
            points.sort_unstable();
            for edge in [Edge::StartClosed, Edge::EndClosed] {
                for (step, steps) in [(100, 1), (10, 1), (20, 2), (25, 3)] {
                    let expected = |end: i64| {
                        let (start, end) = ((end + 1 - steps as i64) * step, (end + 1) * step);
                        let holds = |t: &i64| match edge {
                            Edge::StartClosed => (start..end).contains(t),
                            Edge::EndClosed => (start + 1..=end).contains(t),
                        };
                        let mut borders = vec![start];
                        borders.extend(points.iter().copied().filter(holds));
                        borders.push(end);
                        borders.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
                    };
                    let expected: Vec<i64> = (steps as i64 - 1..100 / step).map(expected).collect();
                    assert_eq!(
                        gaps(&points, step, steps, edge),
                        expected,
                        "{points:?} {step} {steps} {edge:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_widest_gap_of_several_devices_is_told() {
        let mut widest = Widest { devices: 1, gap_ns: 5 };
        widest.merge(&Widest { devices: 2, gap_ns: 3 });
        assert_eq!(widest, Widest { devices: 3, gap_ns: 5 });
    }
}
