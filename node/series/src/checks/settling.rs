//! From which point on a judge tells what it would tell if it had seen all points that there ever were.
//!
//! Never here: verdicts. Invariant: what is called settled is told alike whatever lies before the points that were given.
//!
//! Spikes are settled from a point on whose step to the next is none that a spike begins with. What stands still is, once all points of its
//! window are judged for sure. Rates are told from the last point that is not suspect: where all were sure for longer than one is told from
//! another, the first of them that all points would call sure is that one either way, and the last of them is so for want of any
//! other to be told from.

use super::Checks;

/// What is known of points that were judged without those before them.
#[derive(Debug)]
pub(super) struct Settling {
    /// All points from here on were given; at first nobody knows.
    begin_ns: Option<i64>,
    /// Spikes are told for sure.
    spikes: bool,
    /// Up to here points may have been taken for spikes, or for none, that are not.
    misled_ns: i64,
    /// Up to here points may be suspect, or not, other than they seem.
    unsure_ns: i64,
    /// Rates are told for sure.
    rates: bool,
    /// Windows of what stands still are.
    windows: bool,
}

impl Settling {
    pub(super) fn new(checks: &Checks) -> Settling {
        Settling {
            begin_ns: None,
            spikes: checks.spike.is_none(),
            misled_ns: i64::MIN,
            unsure_ns: i64::MIN,
            rates: checks.rate_per_s.is_none(),
            windows: checks.flat.is_none(),
        }
    }

    pub(super) fn since(self, begin_ns: i64) -> Settling {
        Settling {
            begin_ns: Some(begin_ns),
            misled_ns: begin_ns,
            unsure_ns: begin_ns,
            ..self
        }
    }

    /// The next point that was judged and not for itself alone: whether its step to the next one makes it no spike, and whether it is not
    /// even suspect.
    pub(super) fn point(&mut self, checks: &Checks, t_ns: i64, goes_on: bool, is_sure: bool) {
        if self.begin_ns.is_none() {
            (self.begin_ns, self.misled_ns, self.unsure_ns) = (Some(t_ns), t_ns, t_ns);
        }
        self.spikes |= goes_on;
        if !self.spikes {
            self.misled_ns = t_ns;
        }
        let window_begins = |over_ns: i64| t_ns.saturating_sub(over_ns);
        self.windows = checks
            .flat
            .is_none_or(|flat| window_begins(flat.over_ns) >= self.misled_ns);
        if self.spikes && self.windows && is_sure {
            self.rates |= t_ns.saturating_sub(self.unsure_ns) > checks.reach_ns;
        } else {
            self.unsure_ns = t_ns;
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.spikes && self.windows && self.rates
    }
}
