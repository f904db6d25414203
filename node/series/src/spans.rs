//! Times that lie apart, in order: what is left out of what is judged. Pure.
//!
//! Never here: why they are left out. Invariant: no two of them touch, and none is empty.

use crate::window::Edge;

/// Times, each from one nanosecond to before another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<(i64, i64)>);

impl Spans {
    /// None at all.
    pub const NONE: Spans = Spans(Vec::new());

    /// All time that lies in one of these, whatever their order; one that ends before it begins holds nothing.
    #[must_use]
    pub fn new(spans: impl IntoIterator<Item = (i64, i64)>) -> Spans {
        let mut given: Vec<(i64, i64)> = spans.into_iter().filter(|(from, to)| from < to).collect();
        given.sort_unstable();
        let mut apart: Vec<(i64, i64)> = Vec::with_capacity(given.len());
        for (from, to) in given {
            match apart.last_mut() {
                Some((_, last)) if from <= *last => *last = to.max(*last),
                _ => apart.push((from, to)),
            }
        }
        Spans(apart)
    }

    /// Whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes they take on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(i64, i64)>()
    }

    /// The one that a time lies in, of which this end belongs to each.
    #[must_use]
    pub fn around(&self, edge: Edge, t_ns: i64) -> Option<(i64, i64)> {
        let behind = |(_, to): &(i64, i64)| match edge {
            Edge::StartClosed => *to <= t_ns,
            Edge::EndClosed => *to < t_ns,
        };
        let next = *self.0.get(self.0.partition_point(behind))?;
        edge.holds(next.0, t_ns, next.1).then_some(next)
    }

    /// Whether a time lies in one of them, of which this end belongs to each.
    #[must_use]
    #[inline]
    pub fn hold(&self, edge: Edge, t_ns: i64) -> bool {
        !self.is_empty() && self.around(edge, t_ns).is_some()
    }

    /// Whether one of them has more than an instant in common with the time between two others, or lies at its ends.
    #[must_use]
    pub fn touch(&self, from_ns: i64, to_ns: i64) -> bool {
        let next = self.0.get(self.0.partition_point(|(_, to)| *to < from_ns));
        next.is_some_and(|(from, _)| *from <= to_ns)
    }

    /// How much of the time between two others lies in them.
    #[must_use]
    pub fn length_within(&self, from_ns: i64, to_ns: i64) -> i64 {
        let first = self.0.partition_point(|(_, to)| *to <= from_ns);
        let those = self.0[first..].iter().take_while(|(from, _)| *from < to_ns);
        let lengths = those.map(|(from, to)| (*to).min(to_ns).saturating_sub((*from).max(from_ns)).max(0));
        lengths.fold(0, i64::saturating_add)
    }

    /// How much of the time between two others lies outside of them.
    #[must_use]
    #[inline]
    pub fn length_outside(&self, from_ns: i64, to_ns: i64) -> i64 {
        let length = to_ns.saturating_sub(from_ns).max(0);
        match self.is_empty() {
            true => length,
            false => length - self.length_within(from_ns, to_ns).min(length),
        }
    }

    /// All slots that share time with them: as long as `step_ns` each, one of which begins at `origin_ns`.
    #[must_use]
    pub fn on_grid(&self, origin_ns: i64, step_ns: i64) -> Spans {
        let (origin, step) = (i128::from(origin_ns), i128::from(step_ns.max(1)));
        let border = |number: i128| {
            let at = origin + number * step;
            at.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
        };
        let widened = self.0.iter().map(|(from, to)| {
            let first = (i128::from(*from) - origin).div_euclid(step);
            let behind = (i128::from(*to) - origin + step - 1).div_euclid(step);
            (border(first), border(behind))
        });
        Spans::new(widened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans() -> Spans {
        Spans::new([(50, 60), (10, 20), (20, 25), (55, 70), (80, 80), (95, 90)])
    }

    #[test]
    fn those_that_touch_are_one() {
        assert_eq!(spans(), Spans(vec![(10, 25), (50, 70)]));
        assert_eq!(Spans::new([]), Spans::NONE);
        assert_eq!(Spans::new([(i64::MIN, 3), (2, i64::MAX)]).0, [(i64::MIN, i64::MAX)]);
    }

    #[test]
    fn one_end_belongs_to_each() {
        for (t, starts, ends) in [
            (9, false, false),
            (10, true, false),
            (11, true, true),
            (24, true, true),
            (25, false, true),
            (26, false, false),
            (50, true, false),
            (70, false, true),
            (71, false, false),
        ] {
            let held = (spans().hold(Edge::StartClosed, t), spans().hold(Edge::EndClosed, t));
            assert_eq!(held, (starts, ends), "{t}");
        }
        assert_eq!(spans().around(Edge::EndClosed, 60), Some((50, 70)));
        assert!(!Spans::NONE.hold(Edge::StartClosed, 0));
    }

    #[test]
    fn lengths_within_and_outside_make_the_whole() {
        for (from, to, within) in [
            (0, 100, 35),
            (0, 10, 0),
            (15, 55, 15),
            (25, 50, 0),
            (70, 70, 0),
            (60, 20, 0),
        ] {
            assert_eq!(spans().length_within(from, to), within, "{from} to {to}");
            let outside = spans().length_outside(from, to);
            assert_eq!(outside, (to - from).max(0) - within, "{from} to {to}");
        }
        let all = Spans::new([(i64::MIN, i64::MAX)]);
        assert_eq!(all.length_outside(i64::MIN, i64::MAX), 0);
    }

    #[test]
    fn what_touches_a_time() {
        for (from, to, touches) in [
            (0, 9, false),
            (0, 10, true),
            (12, 13, true),
            (25, 30, true),
            (26, 49, false),
            (26, 90, true),
            (71, 90, false),
        ] {
            assert_eq!(spans().touch(from, to), touches, "{from} to {to}");
        }
    }

    #[test]
    fn slots_that_share_time_are_taken_whole() {
        let grid = |origin, step| spans().on_grid(origin, step).0;
        assert_eq!(grid(0, 10), [(10, 30), (50, 70)]);
        assert_eq!(grid(3, 10), [(3, 33), (43, 73)]);
        assert_eq!(grid(1_003, 10), [(3, 33), (43, 73)]);
        assert_eq!(grid(0, 30), [(0, 90)]);
        assert_eq!(
            Spans::new([(i64::MIN, i64::MAX)]).on_grid(7, 100).0,
            [(i64::MIN, i64::MAX)]
        );
    }
}
