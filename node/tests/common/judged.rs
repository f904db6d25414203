//! Which points of a device count, and what is wrong with the others: told from the list of all its points, by the words of the
//! contract and nothing of the store.
//! Never here: sending, asking. Invariant: a point is judged by what lies around it in the whole list.

use std::collections::BTreeMap;

use tidemark_client::v1::Quality;

use super::fleet::*;
use super::recordings::{Limits, Played, Said};

/// What is wrong with a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Fail,
    Suspect,
}

impl Played {
    /// The points of a device that count, in order.
    pub(crate) fn counting(&self, device: &str, drop_suspect: bool) -> Vec<(i64, f64)> {
        let told = self.told(&self.recording.limits, self.said[device].iter());
        let counts = |wrong: Option<Wrong>| match wrong {
            None => true,
            Some(Wrong::Suspect) => !drop_suspect,
            Some(Wrong::Fail) => false,
        };
        let counting = told.into_iter().filter(|(_, wrong)| counts(*wrong));
        counting.map(|(t, _)| (t, self.said[device][&t].value)).collect()
    }

    /// Every point that was measured within a time, with what is wrong with it: told from all points.
    pub(crate) fn verdicts(&self, device: &str, (from, to): (i64, i64)) -> BTreeMap<i64, Option<Wrong>> {
        let mut told = self.told(&self.recording.limits, self.said[device].iter());
        told.retain(|t, _| (from..=to).contains(t));
        told
    }

    /// The points of a time by which levels of alerts are told, in order: for alerts nothing stands still.
    pub(crate) fn alerting(&self, device: &str, (from, to): (i64, i64), accept_suspect: bool) -> Vec<(i64, f64)> {
        let limits = Limits {
            flat: None,
            ..self.recording.limits
        };
        let told = self.told(&limits, self.said[device].range(from..to));
        let counts = |wrong: Option<Wrong>| match wrong {
            None => true,
            Some(Wrong::Suspect) => accept_suspect,
            Some(Wrong::Fail) => false,
        };
        let counting = told.into_iter().filter(|(_, wrong)| counts(*wrong));
        counting.map(|(t, _)| (t, self.said[device][&t].value)).collect()
    }

    /// Those of some points that were measured, with what is wrong with them as far as these points tell.
    fn told<'a>(
        &self,
        limits: &Limits,
        said: impl Iterator<Item = (&'a i64, &'a Said)>,
    ) -> BTreeMap<i64, Option<Wrong>> {
        let measured: Vec<_> = said.filter(|(_, said)| said.stated != Quality::Missing).collect();
        let sound = |said: &Said| said.stated != Quality::Fail && is_in_range(limits, said.value);
        let sound = measured.iter().filter(|(_, said)| sound(said));
        let points: Vec<(i64, Said)> = sound.map(|(t, said)| (**t, **said)).collect();
        let found: BTreeMap<i64, Option<Wrong>> = points
            .iter()
            .map(|(t, _)| *t)
            .zip(judge(self.recording.interval_s, limits, &points))
            .collect();
        let verdict = |(t, said): (&i64, &Said)| {
            let wrong = match found.get(t) {
                None => Some(Wrong::Fail),
                Some(Some(wrong)) => Some(*wrong),
                Some(None) => is_doubtful(limits, said).then_some(Wrong::Suspect),
            };
            (*t, wrong)
        };
        measured.into_iter().map(verdict).collect()
    }
}

/// Whether a value is suspect by itself.
fn is_doubtful(limits: &Limits, said: &Said) -> bool {
    said.stated == Quality::Suspect || !is_typical(limits, said.value)
}

/// Whether a sensor can tell a value.
fn is_in_range(limits: &Limits, value: f64) -> bool {
    limits.min.is_none_or(|min| value >= min) && limits.max.is_none_or(|max| value <= max)
}

/// Whether a value is a usual one.
fn is_typical(limits: &Limits, value: f64) -> bool {
    limits.typical_min.is_none_or(|min| value >= min) && limits.typical_max.is_none_or(|max| value <= max)
}

/// What neighbours say of points that are in range: spikes fail, changes that are too fast and values that stand still are suspect.
fn judge(interval_s: i64, limits: &Limits, said: &[(i64, Said)]) -> Vec<Option<Wrong>> {
    let points: Vec<(i64, f64)> = said.iter().map(|(t, said)| (*t, said.value)).collect();
    let mut wrong: Vec<Option<Wrong>> = vec![None; points.len()];
    for at in 0..points.len() {
        let (t, value) = points[at];
        let before = (0..at).rev().find(|other| wrong[*other] != Some(Wrong::Fail));
        let is_spike = || {
            let (before, next, spike) = (points[before?], points.get(at + 1)?, limits.spike?);
            let (to, from) = (value - before.1, next.1 - value);
            let near = [t - before.0, next.0 - t]
                .iter()
                .all(|apart| *apart <= 3 * interval_s * S);
            Some(near && ((to > spike && from < -spike) || (to < -spike && from > spike)))
        };
        let is_too_fast = || {
            let sure = |other: &usize| wrong[*other].is_none() && !is_doubtful(limits, &said[*other].1);
            let (u, sure) = points[(0..at).rev().find(sure)?];
            let minutes = (t - u) as f64 / MIN as f64;
            let reached = t - u <= 3 * interval_s * S;
            Some(reached && (value - sure).abs() > limits.rate_per_min? * minutes)
        };
        if is_spike() == Some(true) {
            wrong[at] = Some(Wrong::Fail);
            continue;
        }
        let stands = limits.flat.is_some_and(|(over_s, within)| {
            let fails = |other: usize| wrong[other] == Some(Wrong::Fail);
            let together = (0..=at).filter(|other| points[*other].0 > t - over_s * S && !fails(*other));
            let together: Vec<(i64, f64)> = together.map(|other| points[other]).collect();
            let slot = |t: i64| t.div_euclid(interval_s * S);
            let mut slots: Vec<i64> = together.iter().map(|(t, _)| slot(*t)).collect();
            slots.dedup();
            let least = together.iter().map(|(_, v)| *v).fold(f64::INFINITY, f64::min);
            let most = together.iter().map(|(_, v)| *v).fold(f64::NEG_INFINITY, f64::max);
            let covered = slots.len() as f64 * interval_s as f64 >= 0.8 * over_s as f64;
            let normal = limits
                .flat_ignore
                .is_some_and(|ignore| (value - ignore).abs() <= within);
            most - least <= within && together.len() >= 3 && covered && !normal
        });
        if stands || is_too_fast() == Some(true) {
            wrong[at] = Some(Wrong::Suspect);
        }
    }
    wrong
}
