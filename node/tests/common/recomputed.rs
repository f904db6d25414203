//! Functions of a window recomputed from a list of points, by their definitions and nothing of the store.
//! Never here: which points count. Invariant: every function looks at the whole list.

use tidemark_client::v1::{Function, Kind};

use super::fleet::*;
use super::recordings::Played;

/// How points are looked at.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Look {
    /// Windows are (s, e], not [s, e).
    pub(crate) ends: bool,
    /// Values hold until the next one instead of going along lines.
    pub(crate) held: bool,
    pub(crate) gap_ns: i64,
    pub(crate) interval_ns: i64,
    pub(crate) over_ns: i64,
    /// Where a counter begins anew.
    pub(crate) wrap: Option<f64>,
}

impl Played {
    /// How its points are looked at where a question says nothing else.
    pub(crate) fn look(&self) -> Look {
        let kind = self.recording.kind;
        Look {
            ends: matches!(kind, Kind::Increment | Kind::Mean),
            held: kind == Kind::State,
            gap_ns: 3 * self.interval_ns(),
            interval_ns: self.interval_ns(),
            over_ns: 0,
            wrap: self.recording.wrap,
        }
    }
}

impl Look {
    pub(crate) fn inside(&self, points: &[(i64, f64)], (start, end): (i64, i64)) -> Vec<(i64, f64)> {
        let holds = |t: i64| {
            if self.ends {
                start < t && t <= end
            } else {
                start <= t && t < end
            }
        };
        points.iter().copied().filter(|(t, _)| holds(*t)).collect()
    }

    /// How many slots of a window have a point: told from its start, or back from its end.
    pub(crate) fn slots_filled(&self, points: &[(i64, f64)], (start, end): (i64, i64)) -> u64 {
        let interval = self.interval_ns;
        let slot = |at: i64| match self.ends {
            true => (end - (at + 1) * interval, end - at * interval),
            false => (start + at * interval, start + (at + 1) * interval),
        };
        let inside = self.inside(points, (start, end));
        let filled = |at: &i64| !self.inside(&inside, slot(*at)).is_empty();
        (0..(end - start) / interval).filter(filled).count() as u64
    }

    /// What a window answers; `None`: nothing.
    pub(crate) fn answer(&self, function: Function, points: &[(i64, f64)], window: (i64, i64)) -> Option<f64> {
        use Function as F;
        let inside = self.inside(points, window);
        let values = || inside.iter().map(|(_, value)| *value);
        let count = inside.len() as f64;
        let seconds = (window.1 - window.0) as f64 / S as f64;
        match function {
            F::Count => Some(count),
            F::Delta => self.steps(points, window).map(|(delta, _)| delta),
            F::Increase => self.steps(points, window).map(|(_, rise)| rise),
            F::Rate => self.steps(points, window).map(|(_, rise)| rise / seconds),
            F::Integral => self.area(points, window).map(|(area, _)| area),
            F::TimeWeightedAvg => self.area(points, window).map(|(area, covered)| area / covered),
            _ if inside.is_empty() => None,
            F::Sum => Some(values().sum()),
            F::Avg => Some(values().sum::<f64>() / count),
            F::Min => values().reduce(f64::min),
            F::Max => values().reduce(f64::max),
            F::Spread => Some(values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min)),
            F::First => values().next(),
            F::Last => values().next_back(),
            F::Stddev => {
                let mean = values().sum::<f64>() / count;
                Some((values().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
            }
            F::RisePerHour => self.rise(points, *inside.last()?),
            F::RisePerHourMax => inside
                .iter()
                .filter_map(|point| self.rise(points, *point))
                .reduce(f64::max),
            other => panic!("{other:?}"),
        }
    }

    /// Change and rise from the last point at or before the start to the last one at or before the end; none where no step ends there.
    pub(crate) fn steps(&self, points: &[(i64, f64)], (start, end): (i64, i64)) -> Option<(f64, f64)> {
        let steps = points.windows(2).filter(|pair| pair[1].0 > start && pair[1].0 <= end);
        let each = steps.map(|pair| (pair[1].1 - pair[0].1, self.risen(pair[0].1, pair[1].1)));
        each.reduce(|a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// How far a counter rose from a value to the next one. A fall is a turn where that makes it less than half of one, else a new begin.
    fn risen(&self, from: f64, to: f64) -> f64 {
        if to >= from {
            return to - from;
        }
        let turned = self
            .wrap
            .filter(|wrap| from <= *wrap)
            .map(|wrap| (wrap - from + to, wrap));
        match turned {
            Some((rise, wrap)) if rise < wrap / 2.0 => rise,
            _ => to,
        }
    }

    /// Area under the values, their unit times seconds, and the seconds that it covers.
    pub(crate) fn area(&self, points: &[(i64, f64)], window: (i64, i64)) -> Option<(f64, f64)> {
        let (mut area, mut covered) = (0.0, 0.0);
        for (from, to, a, b) in self.pieces(points, window) {
            let seconds = (to - from) as f64 / S as f64;
            area += seconds * (a + b) / 2.0;
            covered += seconds;
        }
        (covered > 0.0).then_some((area, covered))
    }

    /// Pieces of the way of the values in a window: from, to, value there and there; points too far apart have nothing between them.
    pub(crate) fn pieces(&self, points: &[(i64, f64)], (start, end): (i64, i64)) -> Vec<(i64, i64, f64, f64)> {
        let near = points.windows(2).filter(|pair| pair[1].0 - pair[0].0 <= self.gap_ns);
        let piece = |pair: &[(i64, f64)]| {
            let ((t, a), (u, b)) = (pair[0], pair[1]);
            let (from, to) = (t.max(start), u.min(end));
            let on_the_way = |at: i64| match self.held {
                true => a,
                false => a + (b - a) * ((at - t) as f64 / (u - t) as f64),
            };
            (from < to).then(|| (from, to, on_the_way(from), on_the_way(to)))
        };
        near.filter_map(piece).collect()
    }

    /// How fast it rose until a point, per hour.
    pub(crate) fn rise(&self, points: &[(i64, f64)], (t, value): (i64, f64)) -> Option<f64> {
        let (u, before) = points.iter().rev().find(|(u, _)| *u <= t - self.over_ns)?;
        let near = *u >= t - self.over_ns - self.interval_ns;
        near.then(|| (value - before) / ((t - u) as f64 / HOUR as f64))
    }
}
