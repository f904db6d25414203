//! Which level is in force, value by value: up at once, down after a time.
//!
//! Never here: what the values are. Invariant: of two levels whose `off` a value reaches, the higher one is in force.

use super::{AlertFunction, Rule};

/// Which level is in force, and what is known about leaving it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Position of the level, from 1; 0 is normal.
    pub level: u32,
    /// When it began.
    pub since_ns: i64,
    /// When normal was left; 0 at normal.
    pub began_ns: i64,
    /// The first point of those at the end that were below `off`.
    pub below_since_ns: Option<i64>,
    /// The last value that was looked at.
    pub last_ns: Option<i64>,
}

/// A change of the level.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Step {
    /// When it became true.
    pub t_ns: i64,
    /// The level before; 0 is normal.
    pub before: u32,
    /// The level from here on.
    pub level: u32,
    /// When normal was left by the alert that this step is of.
    pub began_ns: i64,
    /// What was compared.
    pub value: f64,
}

impl Standing {
    /// The next value. `whole` says that it is not one of a window that misses points.
    pub(super) fn value(&mut self, rule: &Rule, t_ns: i64, value: f64, whole: bool) -> Option<Step> {
        // A sum of less than all points may be more: that it is low says nothing.
        if !whole && rule.below && rule.function == AlertFunction::Sum {
            return None;
        }
        let sign = if rule.below { -1.0 } else { 1.0 };
        let (on, off) = (
            |at: usize| sign * value >= sign * rule.levels[at].on,
            |at: usize| sign * value >= sign * rule.levels[at].off,
        );
        let now = self.level as usize;
        let reached = (now..rule.levels.len()).rev().find(|at| on(*at)).map(|at| at + 1);
        if let Some(reached) = reached {
            self.last_ns = Some(t_ns);
            return Some(self.step(t_ns, reached, value));
        }
        if now > 0 && !off(now - 1) {
            if !whole {
                return None;
            }
            let silent = |last: i64| rule.silence_ns.is_some_and(|most| t_ns.saturating_sub(last) > most);
            if self.last_ns.is_some_and(silent) {
                self.below_since_ns = None;
            }
            let below_since = *self.below_since_ns.get_or_insert(t_ns);
            self.last_ns = Some(t_ns);
            if t_ns.saturating_sub(below_since) < rule.hold_ns {
                return None;
            }
            let left = (0..now - 1).rev().find(|at| off(*at)).map_or(0, |at| at + 1);
            return Some(self.step(t_ns, left, value));
        }
        self.below_since_ns = None;
        self.last_ns = Some(t_ns);
        None
    }

    fn step(&mut self, t_ns: i64, level: usize, value: f64) -> Step {
        let (before, level) = (self.level, level as u32);
        let began_ns = if before == 0 { t_ns } else { self.began_ns };
        self.level = level;
        self.since_ns = t_ns;
        self.began_ns = if level == 0 { 0 } else { began_ns };
        self.below_since_ns = None;
        Step {
            t_ns,
            before,
            level,
            began_ns,
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn rule(levels: &[(f64, f64)], hold_ns: i64) -> Rule {
        Rule {
            function: AlertFunction::Last,
            window_ns: 0,
            interval_ns: 0,
            hold_ns,
            silence_ns: Some(10),
            accept_suspect: false,
            below: false,
            levels: levels.iter().map(|(on, off)| Level { on: *on, off: *off }).collect(),
        }
    }

    /// Steps as "time level".
    fn steps(rule: &Rule, values: &[(i64, f64)]) -> Vec<(i64, u32)> {
        let mut standing = Standing::default();
        let each = values
            .iter()
            .filter_map(|(t, value)| standing.value(rule, *t, *value, true));
        each.map(|step| (step.t_ns, step.level)).collect()
    }

    #[test]
    fn up_at_once_and_down_after_the_hold_time() {
        let rule = rule(&[(1.0, 0.5), (2.0, 1.5), (3.0, 2.5)], 4);
        assert_eq!(steps(&rule, &[(0, 0.9), (1, 1.0), (2, 3.0)]), [(1, 1), (2, 3)], "skips");
        assert_eq!(
            steps(&rule, &[(0, 3.0), (1, 2.4), (4, 2.4), (5, 2.4)]),
            [(0, 3), (5, 2)]
        );
        assert_eq!(
            steps(&rule, &[(0, 3.0), (1, 2.4), (3, 2.5), (5, 2.4)]),
            [(0, 3)],
            "2.5 began it anew"
        );
        assert_eq!(
            steps(&rule, &[(0, 3.0), (1, 2.4), (5, 0.2)]),
            [(0, 3), (5, 0)],
            "to where it is now"
        );
        assert_eq!(steps(&rule, &[(0, 3.0), (1, 0.2), (5, 1.5)]), [(0, 3), (5, 2)]);
    }

    #[test]
    fn a_silence_does_not_lower() {
        let rule = rule(&[(1.0, 0.5)], 4);
        let told = steps(&rule, &[(0, 1.0), (1, 0.0), (12, 0.0), (15, 0.0), (16, 0.0)]);
        assert_eq!(told, [(0, 1), (16, 0)], "nobody knows what was between 1 and 12");
        let mut standing = Standing::default();
        standing.value(&rule, 0, 1.0, false);
        assert_eq!(standing.level, 1, "a part of a window raises");
        for t in 1..9 {
            assert_eq!(standing.value(&rule, t, 0.0, false), None, "and never lowers");
        }
    }

    #[test]
    fn a_part_of_a_sum_is_not_low() {
        let of = |function: AlertFunction| Rule {
            function,
            below: true,
            ..rule(&[(2.0, 3.0)], 4)
        };
        let mut standing = Standing::default();
        let sums = of(AlertFunction::Sum);
        assert_eq!(
            standing.value(&sums, 0, 1.0, false),
            None,
            "the rest may have been more"
        );
        assert!(standing.value(&sums, 1, 1.0, true).is_some_and(|step| step.level == 1));
        for t in 2..9 {
            assert_eq!(standing.value(&sums, t, 9.0, false), None);
        }
        standing.value(&sums, 9, 9.0, true);
        standing.value(&sums, 10, 1.0, false);
        assert!(
            standing.value(&sums, 13, 9.0, true).is_some_and(|step| step.level == 0),
            "high since 9"
        );
        let mut standing = Standing::default();
        assert!(
            standing.value(&of(AlertFunction::Min), 0, 1.0, false).is_some(),
            "a low part is low"
        );
    }

    #[test]
    fn downwards() {
        let rule = Rule {
            below: true,
            ..rule(&[(20.0, 25.0), (10.0, 12.0)], 1)
        };
        let told = steps(
            &rule,
            &[
                (0, 30.0),
                (1, 20.0),
                (2, 9.0),
                (3, 12.0),
                (4, 12.5),
                (5, 12.5),
                (6, 25.1),
                (7, 26.0),
            ],
        );
        assert_eq!(told, [(1, 1), (2, 2), (5, 1), (7, 0)]);
    }
}
