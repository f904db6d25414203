//! Alerts whose begin was moved by points that came late or were corrected: what people said of them goes with them. Pure.
//!
//! ```text
//! as it was    |........A===========    acknowledged at T
//! as it is     |....B===============    B names it from now on, and has what A had
//! ```
//! Never here: which steps never were. Invariant: an answer belongs to an alert that it was in force together with, by the times
//! of points and of the answer, and to one alert only.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_proto::peer::AlertKnown;
use tidemark_proto::v1::{AlertReason, AlertStep};

use super::state::is_of_points;

/// Begins of alerts that hold and that somebody has answered.
pub(super) fn answered(steps: &[AlertKnown]) -> BTreeSet<i64> {
    let valid = || {
        steps
            .iter()
            .filter(|known| !known.withdrawn)
            .filter_map(|known| known.step.as_ref())
    };
    let answered = valid().filter(|step| is_answer(step)).map(|step| step.began_ns);
    let holds: BTreeSet<i64> = valid()
        .filter(|step| is_of_points(step))
        .map(|step| step.began_ns)
        .collect();
    answered.filter(|began_ns| holds.contains(began_ns)).collect()
}

/// Of alerts that were answered: those that never were by now, with the begin of the one that each was a part of.
pub(super) fn moved(answered: &BTreeSet<i64>, steps: &[AlertKnown]) -> BTreeMap<i64, i64> {
    let mut now: BTreeMap<i64, i64> = BTreeMap::new();
    for step in steps
        .iter()
        .filter(|known| !known.withdrawn)
        .filter_map(|known| known.step.as_ref())
    {
        if is_of_points(step) && step.began_ns != 0 {
            let end = now.entry(step.began_ns).or_insert(i64::MAX);
            if step.reason() == AlertReason::Cleared {
                *end = step.since_ns;
            }
        }
    }
    let mut moved = BTreeMap::new();
    for was in answered.iter().filter(|was| !now.contains_key(was)) {
        let end = end_of(*was, steps);
        let overlaps = |(from, to): &(&i64, &i64)| (*was).max(**from) < end.min(**to);
        if let Some((from, _)) = now.iter().find(overlaps) {
            moved.insert(*was, *from);
        }
    }
    moved
}

/// Whether somebody's answer is a step.
pub(super) fn is_answer(step: &AlertStep) -> bool {
    matches!(step.reason(), AlertReason::Acknowledged | AlertReason::Closed)
}

/// Until when an alert was in force for sure, as it was known: until it was cleared, or else when it was answered.
fn end_of(began_ns: i64, steps: &[AlertKnown]) -> i64 {
    let of_it = || {
        let all = steps.iter().filter_map(|known| known.step.as_ref());
        all.filter(|step| step.began_ns == began_ns)
    };
    let cleared = of_it().rfind(|step| step.reason() == AlertReason::Cleared);
    let latest = of_it().map(|step| step.since_ns).max();
    match cleared {
        Some(cleared) => cleared.since_ns,
        None => latest.map_or(began_ns, |latest| latest.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AlertReason::{Acknowledged, Cleared, Raised};

    /// Reason, time, begin, and whether it was withdrawn.
    fn known(steps: &[(AlertReason, i64, i64, bool)]) -> Vec<AlertKnown> {
        let known = |(reason, since_ns, began_ns, withdrawn): &(AlertReason, i64, i64, bool)| AlertKnown {
            step: Some(AlertStep {
                reason: *reason as i32,
                since_ns: *since_ns,
                began_ns: *began_ns,
                ..AlertStep::default()
            }),
            withdrawn: *withdrawn,
        };
        steps.iter().map(known).collect()
    }

    #[track_caller]
    fn check(steps: &[(AlertReason, i64, i64, bool)], expected: &[(i64, i64)]) {
        let before: Vec<_> = steps.iter().map(|(a, b, c, _)| (*a, *b, *c, false)).collect();
        let moved = moved(&answered(&known(&before)), &known(steps));
        assert_eq!(moved.into_iter().collect::<Vec<_>>(), expected, "{steps:?}");
    }

    #[test]
    fn an_answer_goes_with_the_alert_that_it_was_a_part_of() {
        let acknowledged = (Acknowledged, 100, 10, false);
        let was = (Raised, 10, 10, true);
        check(&[was, acknowledged, (Raised, 8, 8, false)], &[(10, 8)]);
        check(&[was, acknowledged, (Raised, 14, 14, false)], &[(10, 14)]);
        // Nobody has seen one that began after the answer, or was over before.
        check(&[was, acknowledged, (Raised, 101, 101, false)], &[]);
        check(
            &[was, acknowledged, (Raised, 4, 4, false), (Cleared, 10, 4, false)],
            &[],
        );
        // It was over: what comes behind its end is another one.
        let over = (Cleared, 20, 10, true);
        check(&[was, acknowledged, over, (Raised, 20, 20, false)], &[]);
        check(&[was, acknowledged, over, (Raised, 19, 19, false)], &[(10, 19)]);
        // Of two parts the first has it, as where the begin stays.
        let parts = [
            (Raised, 12, 12, false),
            (Cleared, 14, 12, false),
            (Raised, 16, 16, false),
        ];
        check(&[&[was, acknowledged][..], &parts[..]].concat(), &[(10, 12)]);
        check(&[(Raised, 10, 10, false), acknowledged, (Raised, 16, 16, false)], &[]);
        check(&[was, (Raised, 8, 8, false)], &[]);
    }
}
