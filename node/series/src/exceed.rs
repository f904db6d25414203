//! When a value was at or above a threshold: from crossing to crossing, along straight lines or steps. Pure.
//!
//! Never here: which points count. Invariant: intervals do not overlap, ascend, and lie within the time that is asked about; what
//! nobody observed is in none of them.

use crate::sequence::Between;

/// What is asked of the points of one device.
#[derive(Clone, Debug)]
pub struct Threshold {
    /// From here …
    pub from_ns: i64,
    /// … to here.
    pub to_ns: i64,
    /// At or above this; at or below it where `below`.
    pub value: f64,
    /// See `value`.
    pub below: bool,
    /// How a value goes on until the next one.
    pub between: Between,
    /// Points further apart have nothing between them, nanoseconds.
    pub max_gap_ns: i64,
    /// Nothing holds beyond this time.
    pub now_ns: i64,
}

/// A time at or above the threshold.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Exceedance {
    /// When it was reached, or the begin of what is known of it.
    pub from_ns: i64,
    /// When it was left, or the end of what is known.
    pub to_ns: i64,
    /// The value that is furthest beyond the threshold …
    pub peak: f64,
    /// … and when it was first observed.
    pub peak_at_ns: i64,
    /// It was not seen to end: no point came in time.
    pub unknown_after: bool,
    /// It lasts, as far as is known.
    pub open: bool,
}

/// Looks at the points of one device in the order of their times.
#[derive(Debug)]
pub struct Exceeding<'a> {
    asked: &'a Threshold,
    last: Option<(i64, f64)>,
    current: Option<Exceedance>,
    found: Vec<Exceedance>,
}

impl<'a> Exceeding<'a> {
    /// Nothing was seen yet.
    pub fn new(asked: &'a Threshold) -> Exceeding<'a> {
        Exceeding {
            asked,
            last: None,
            current: None,
            found: Vec::new(),
        }
    }

    /// The next point.
    pub fn point(&mut self, t_ns: i64, value: f64) {
        let asked = self.asked;
        let inside = self.is_beyond(value);
        match self.last.replace((t_ns, value)) {
            Some((before_ns, before)) if t_ns.saturating_sub(before_ns) <= asked.max_gap_ns => {
                let crossing = match asked.between {
                    Between::Held => t_ns,
                    Between::Linear => {
                        let share = (asked.value - before) / (value - before);
                        let after = share * t_ns.saturating_sub(before_ns) as f64;
                        match share.is_finite() {
                            true => before_ns.saturating_add(after.round() as i64),
                            false => t_ns,
                        }
                    }
                };
                match (self.current.is_some(), inside) {
                    (false, true) => self.begin(crossing, t_ns, value),
                    (true, false) => self.end(crossing, false, false),
                    _ => {}
                }
            }
            before => {
                if let Some((before_ns, _)) = before {
                    self.end(before_ns, true, false);
                }
                if inside {
                    self.begin(t_ns, t_ns, value);
                }
            }
        }
        self.look(t_ns, value);
    }

    /// There are no more points.
    pub fn finish(mut self) -> Vec<Exceedance> {
        let asked = self.asked;
        if let Some((last_ns, _)) = self.last {
            let lasts = last_ns.saturating_add(asked.max_gap_ns) >= asked.now_ns;
            let until = match (lasts, asked.between) {
                (true, Between::Held) => asked.now_ns.max(last_ns),
                _ => last_ns,
            };
            self.end(until, !lasts, lasts);
        }
        self.found
    }

    fn is_beyond(&self, value: f64) -> bool {
        match self.asked.below {
            true => value <= self.asked.value,
            false => value >= self.asked.value,
        }
    }

    fn begin(&mut self, from_ns: i64, peak_at_ns: i64, peak: f64) {
        self.current = Some(Exceedance {
            from_ns,
            to_ns: from_ns,
            peak,
            peak_at_ns,
            unknown_after: false,
            open: false,
        });
    }

    /// Takes a point for the peak where it lies in the time that is asked about and further out than those before.
    fn look(&mut self, t_ns: i64, value: f64) {
        let asked = self.asked;
        let Some(current) = &mut self.current else { return };
        let first = current.peak_at_ns < asked.from_ns && t_ns >= asked.from_ns;
        let further = if asked.below {
            value < current.peak
        } else {
            value > current.peak
        };
        if (first || further) && t_ns < asked.to_ns {
            (current.peak, current.peak_at_ns) = (value, t_ns);
        }
    }

    fn end(&mut self, to_ns: i64, unknown_after: bool, open: bool) {
        let asked = self.asked;
        let Some(current) = self.current.take() else { return };
        let cut = to_ns > asked.to_ns;
        let ended = Exceedance {
            from_ns: current.from_ns.max(asked.from_ns),
            to_ns: to_ns.min(asked.to_ns),
            unknown_after: unknown_after && !cut,
            open: open || cut,
            ..current
        };
        // A state that ends as the time begins is not of it: nobody saw it there.
        let was_over = asked.between == Between::Held && !unknown_after && !open && to_ns == asked.from_ns;
        let inside = (asked.from_ns..asked.to_ns).contains(&ended.from_ns);
        let single = ended.from_ns == ended.to_ns && inside && !was_over;
        if ended.from_ns < ended.to_ns || single {
            self.found.push(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn asked(value: f64) -> Threshold {
        Threshold {
            from_ns: 0,
            to_ns: 10_000 * S,
            value,
            below: false,
            between: Between::Linear,
            max_gap_ns: 900 * S,
            now_ns: i64::MAX,
        }
    }

    /// Begin, end, peak and its time, in seconds, and what is not known or lasts.
    fn found(asked: &Threshold, points: &[(i64, f64)]) -> Vec<(f64, f64, f64, i64, &'static str)> {
        let mut exceeding = Exceeding::new(asked);
        points.iter().for_each(|(t, value)| exceeding.point(t * S, *value));
        let told = |e: Exceedance| {
            let how = match (e.unknown_after, e.open) {
                (true, _) => "unknown",
                (_, true) => "open",
                _ => "ended",
            };
            (
                e.from_ns as f64 / 1e9,
                e.to_ns as f64 / 1e9,
                e.peak,
                e.peak_at_ns / S,
                how,
            )
        };
        exceeding.finish().into_iter().map(told).collect()
    }

    #[test]
    fn thresholds_are_crossed_between_points() {
        let points = [(0, 0.0), (300, 1.0), (600, 2.0), (900, 2.0), (1_200, 0.0), (1_500, 0.0)];
        assert_eq!(found(&asked(0.5), &points), [(150.0, 1_125.0, 2.0, 600, "ended")]);
        assert_eq!(found(&asked(2.0), &points), [(600.0, 900.0, 2.0, 600, "ended")]);
        assert_eq!(found(&asked(2.1), &points), []);
        let held = Threshold {
            between: Between::Held,
            ..asked(0.5)
        };
        assert_eq!(found(&held, &points), [(300.0, 1_200.0, 2.0, 600, "ended")]);
        let below = Threshold {
            below: true,
            ..asked(0.5)
        };
        assert_eq!(
            found(&below, &points),
            [(0.0, 150.0, 0.0, 0, "ended"), (1_125.0, 1_500.0, 0.0, 1_200, "unknown")]
        );
    }

    #[test]
    fn what_nobody_observed_is_in_no_interval() {
        let points = [(0, 1.0), (300, 2.0), (2_000, 3.0), (2_300, 0.0)];
        let expected = [
            (0.0, 300.0, 2.0, 300, "unknown"),
            (2_000.0, 2_250.0, 3.0, 2_000, "ended"),
        ];
        assert_eq!(found(&asked(0.5), &points), expected);
        assert_eq!(found(&asked(0.5), &[(100, 1.0)]), [(100.0, 100.0, 1.0, 100, "unknown")]);
    }

    #[test]
    fn what_lasts_is_open() {
        let lasting = |between| Threshold {
            now_ns: 500 * S,
            between,
            ..asked(0.5)
        };
        let points = [(0, 1.0), (300, 2.0)];
        assert_eq!(
            found(&lasting(Between::Linear), &points),
            [(0.0, 300.0, 2.0, 300, "open")]
        );
        assert_eq!(
            found(&lasting(Between::Held), &points),
            [(0.0, 500.0, 2.0, 300, "open")]
        );
    }

    #[test]
    fn intervals_are_cut_to_the_time_that_is_asked_about() {
        let points = [(-600, 9.0), (-300, 1.0), (0, 1.0), (300, 3.0), (600, 1.0), (900, 0.0)];
        let within = Threshold {
            from_ns: 0,
            to_ns: 500 * S,
            ..asked(0.5)
        };
        assert_eq!(found(&within, &points), [(0.0, 500.0, 3.0, 300, "open")]);
    }

    #[test]
    fn a_state_that_ends_as_the_time_begins_is_not_in_it() {
        let from_zero = |between| Threshold { between, ..asked(1.0) };
        let ends = [(-300, 1.0), (0, 0.0), (300, 0.0)];
        assert_eq!(found(&from_zero(Between::Held), &ends), []);
        // It may have gone on, and was seen when the time began.
        let unknown = [(-300, 1.0), (0, 1.0), (1_000, 0.0)];
        assert_eq!(
            found(&from_zero(Between::Held), &unknown),
            [(0.0, 0.0, 1.0, 0, "unknown")]
        );
        // Along a line, the threshold is met at that very moment.
        let meets = [(-300, 2.0), (0, 1.0), (300, 0.0)];
        assert_eq!(
            found(&from_zero(Between::Linear), &meets),
            [(0.0, 0.0, 1.0, 0, "ended")]
        );
    }
}
