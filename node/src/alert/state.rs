//! What is kept of a device under a profile, and what a new evaluation makes of it: which steps are new, which never were. Pure.
//!
//! Never here: points, storage. Invariant: a step that was published is never changed; it is withdrawn, and another one follows.

use std::collections::BTreeMap;

use tidemark_proto::peer::{AlertKnown, AlertMark, AlertPoint, AlertState};
use tidemark_proto::v1::{AlertReason, AlertStep};
use tidemark_series::alert::{Mark, Outcome, Standing, Step};
use tidemark_series::checks::Remembered;

use super::moved::{answered, is_answer, moved};
use crate::catalog::alerts::ProfileDef;
use crate::limits::{ALERT_LOOKBACK_NS, ALERT_STEPS_MAX};

/// A state whose marks lag so many points behind is recorded, also where no step was taken: the next evaluation has less to read.
const POINTS_BEHIND_MAX: u64 = 256;

/// A state that is to be recorded, and its steps without device and type.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) state: AlertState,
    pub(super) steps: Vec<AlertStep>,
}

/// Steps in the making.
struct Making<'a> {
    profile: &'a ProfileDef,
    now_ns: i64,
    state: AlertState,
    steps: Vec<AlertStep>,
    /// The highest level that a withdrawn step had raised to.
    withdrawn: u32,
    /// A level was reached that nobody has heard of.
    is_news: bool,
}

/// The marks of a state, where it was made under this version of the profile.
pub fn marks(state: &AlertState, profile: &ProfileDef) -> Vec<Mark> {
    match state.profile_version == profile.stored.version {
        true => state.marks.iter().map(mark).collect(),
        false => Vec::new(),
    }
}

/// What an evaluation that knew everything up to `begun_ns` makes of a state; `None` where nothing is to be recorded.
pub(super) fn update(
    profile: &ProfileDef,
    before: Option<AlertState>,
    outcome: Outcome,
    begun_ns: i64,
    now_ns: i64,
) -> Option<Changed> {
    let known = before.is_some();
    let mut making = Making::new(profile, before.unwrap_or_default(), now_ns);
    let other_version = making.state.profile_version != profile.stored.version;
    if known && other_version {
        making.end(AlertReason::ProfileChanged);
    }
    making.state.profile_version = profile.stored.version;
    let answered = answered(making.of_now());
    making.withdraw(&outcome.steps, begun_ns);
    making.add(&outcome.steps);
    let moved = moved(&answered, making.of_now());
    making.carry(&moved);
    making.stand(&outcome.standing, &moved);
    making.silence(outcome.newest);
    let first = !known && outcome.newest.is_some();
    let behind = outcome.moved || outcome.points > POINTS_BEHIND_MAX;
    let is_news = !making.steps.is_empty() || first || behind || known && other_version;
    if !is_news {
        return None;
    }
    making.state.marks = outcome.marks.iter().map(mark_to_wire).collect();
    making.finish()
}

/// When silence begins that nobody has been told of, after the newest point that counts; `None` where it would be no news.
pub(super) fn silent_at(profile: &ProfileDef, newest: Option<(i64, f64)>, now_ns: i64) -> Option<i64> {
    let ((t_ns, _), after_ns) = newest.zip(profile.stale_after_ns)?;
    let from_ns = profile.silent_from_ns(t_ns)?;
    // It may be just that old.
    let due_ns = from_ns.max(t_ns.saturating_add(after_ns).saturating_add(1));
    is_news(from_ns, now_ns).then_some(due_ns)
}

/// Whether it is news that a device is silent: it is not where the silence began long ago.
fn is_news(from_ns: i64, now_ns: i64) -> bool {
    now_ns.saturating_sub(from_ns) <= ALERT_LOOKBACK_NS
}

/// What becomes of a state whose profile is gone, as a catalog says that gave out this version last; `None` where that has been recorded.
pub(super) fn profile_removed(
    before: AlertState,
    profile: &ProfileDef,
    (version, now_ns): (u32, i64),
) -> Option<Changed> {
    if before.marks.is_empty() {
        return None;
    }
    let mut making = Making::new(profile, before, now_ns);
    making.end(AlertReason::ProfileChanged);
    making.state.profile_version = version;
    making.finish()
}

impl<'a> Making<'a> {
    fn new(profile: &'a ProfileDef, mut state: AlertState, now_ns: i64) -> Making<'a> {
        state.forgotten_ns = Some(forgotten_until(&state));
        Making {
            profile,
            now_ns,
            state,
            steps: Vec::new(),
            withdrawn: 0,
            is_news: false,
        }
    }

    /// Steps under this version of the profile.
    fn of_now(&self) -> &[AlertKnown] {
        self.state.steps.get(of_this_version(&self.state)..).unwrap_or_default()
    }

    /// Ends what is in force, whatever the points say.
    fn end(&mut self, reason: AlertReason) {
        // One without marks has ended before.
        if !self.state.steps.is_empty() && !self.state.marks.is_empty() {
            let step = AlertStep {
                level_before: self.state.level.clone(),
                reason: reason as i32,
                since_ns: self.now_ns,
                began_ns: self.state.began_ns,
                ..AlertStep::default()
            };
            self.publish(step);
        }
        let steps = std::mem::take(&mut self.state.steps);
        self.state = AlertState {
            steps,
            forgotten_ns: Some(i64::MIN),
            ..AlertState::default()
        };
    }

    /// Withdraws known steps behind `begun_ns` that were not taken this time, the last one first.
    fn withdraw(&mut self, taken: &[Step], begun_ns: i64) {
        let from = of_this_version(&self.state);
        let mut never: Vec<usize> = (from..self.state.steps.len())
            .filter(|at| {
                let known = &self.state.steps[*at];
                let step = known.step.as_ref();
                step.is_some_and(|step| {
                    let open = is_of_points(step) && !known.withdrawn && step.since_ns > begun_ns;
                    open && !taken.iter().any(|taken| self.is_same(step, taken))
                })
            })
            .collect();
        never.sort_by_key(|at| {
            self.state.steps[*at]
                .step
                .as_ref()
                .map(|step| std::cmp::Reverse(step.since_ns))
        });
        for at in never {
            self.state.steps[at].withdrawn = true;
            if let Some(step) = self.state.steps[at].step.clone() {
                if step.reason() == AlertReason::Raised {
                    self.withdrawn = self.withdrawn.max(self.rank(&step.level));
                }
                let reason = AlertReason::Withdrawn as i32;
                self.publish(AlertStep { reason, ..step });
            }
        }
    }

    fn add(&mut self, taken: &[Step]) {
        let from = of_this_version(&self.state);
        let forgotten_ns = forgotten_until(&self.state);
        for step in taken.iter().filter(|step| step.t_ns > forgotten_ns) {
            let mut open = self.state.steps[from.min(self.state.steps.len())..].iter();
            let known = open.any(|known| {
                let step_of = known.step.as_ref().filter(|_| !known.withdrawn);
                step_of.is_some_and(|one| is_of_points(one) && self.is_same(one, step))
            });
            if !known {
                let reason = match step.level {
                    0 => AlertReason::Cleared,
                    level if level > step.before => AlertReason::Raised,
                    _ => AlertReason::Lowered,
                };
                // What took the place of a step that never was is known to whoever knew that one.
                self.is_news |= reason == AlertReason::Raised && step.level > self.withdrawn;
                self.publish(AlertStep {
                    level: self.name(step.level),
                    level_before: self.name(step.before),
                    reason: reason as i32,
                    since_ns: step.t_ns,
                    value: step.value,
                    began_ns: step.began_ns,
                    severity: self.severity(step.level),
                    ..AlertStep::default()
                });
            }
        }
    }

    /// Has what was said of alerts go with those that they are by now.
    fn carry(&mut self, moved: &BTreeMap<i64, i64>) {
        for (was_ns, began_ns) in moved {
            let from = of_this_version(&self.state);
            let is_over = self.of_now().iter().any(|known| {
                let step = known.step.as_ref().filter(|_| !known.withdrawn);
                step.is_some_and(|step| step.began_ns == *began_ns && step.reason() == AlertReason::Cleared)
            });
            for at in from..self.state.steps.len() {
                let known = &self.state.steps[at];
                let of_it = |step: &&AlertStep| {
                    // What is in force again cannot be closed.
                    let lawful = is_over || step.reason() != AlertReason::Closed;
                    is_answer(step) && lawful && step.began_ns == *was_ns && !known.withdrawn
                };
                let Some(step) = known.step.as_ref().filter(of_it).cloned() else {
                    continue;
                };
                self.state.steps[at].withdrawn = true;
                self.publish(AlertStep {
                    began_ns: *began_ns,
                    moved_from_ns: *was_ns,
                    ..step
                });
            }
        }
    }

    /// Takes over what is in force now.
    fn stand(&mut self, standing: &Standing, moved: &BTreeMap<i64, i64>) {
        let level = self.name(standing.level);
        let is_step = |known: &&AlertKnown| {
            let step = known.step.as_ref().filter(|_| !known.withdrawn);
            step.is_some_and(|step| is_of_points(step) && step.since_ns == standing.since_ns && step.level == level)
        };
        let step = self
            .state
            .steps
            .iter()
            .rev()
            .find(is_step)
            .and_then(|known| known.step.as_ref());
        if let Some(step) = step {
            self.state.raised_at_ns = step.raised_at_ns;
        }
        let was_ns = self.state.began_ns;
        let is_same = standing.began_ns == was_ns || moved.get(&was_ns) == Some(&standing.began_ns);
        self.state.acknowledged &= is_same && !self.is_news;
        self.state.rank = standing.level;
        self.state.severity = self.severity(standing.level);
        self.state.level = level;
        self.state.since_ns = standing.since_ns;
        self.state.began_ns = standing.began_ns;
    }

    /// Says when nothing was received for too long, and when it is again. Silence that began long ago is no news.
    fn silence(&mut self, newest: Option<(i64, f64)>) {
        let (Some((t_ns, value)), Some(after_ns)) = (newest, self.profile.stale_after_ns) else {
            return;
        };
        let Some(from_ns) = self.profile.silent_from_ns(t_ns) else {
            return;
        };
        let is_old = self.now_ns.saturating_sub(t_ns) > after_ns;
        let begins = is_old && self.now_ns >= from_ns && is_news(from_ns, self.now_ns);
        let (reason, since_ns) = match self.state.stale {
            false if begins => (AlertReason::Stale, from_ns),
            true if !is_old => (AlertReason::Fresh, t_ns),
            _ => return,
        };
        self.state.stale = reason == AlertReason::Stale;
        self.publish(AlertStep {
            level: self.state.level.clone(),
            level_before: self.state.level.clone(),
            reason: reason as i32,
            since_ns,
            value,
            began_ns: self.state.began_ns,
            severity: self.state.severity,
            ..AlertStep::default()
        });
    }

    fn publish(&mut self, step: AlertStep) {
        let step = AlertStep {
            raised_at_ns: self.now_ns,
            stale: self.state.stale,
            ..step
        };
        self.state.steps.push(AlertKnown {
            step: Some(step.clone()),
            withdrawn: false,
        });
        self.steps.push(AlertStep {
            profile: self.profile.stored.id.clone(),
            ..step
        });
    }

    fn finish(mut self) -> Option<Changed> {
        forget_old(&mut self.state);
        Some(Changed {
            state: self.state,
            steps: self.steps,
        })
    }

    fn is_same(&self, known: &AlertStep, step: &Step) -> bool {
        let levels = known.level == self.name(step.level) && known.level_before == self.name(step.before);
        levels && known.since_ns == step.t_ns && known.began_ns == step.began_ns
    }

    fn name(&self, rank: u32) -> String {
        self.profile
            .level(rank)
            .map_or_else(String::new, |level| level.level.clone())
    }

    /// Position of a level, from 1; 0: the profile has none of this name.
    fn rank(&self, level: &str) -> u32 {
        let levels = &self.profile.stored.levels;
        let at = levels.iter().position(|known| known.level == level);
        at.map_or(0, |at| at as u32 + 1)
    }

    fn severity(&self, rank: u32) -> u32 {
        self.profile.level(rank).map_or(0, |level| level.severity)
    }
}

/// Forgets the oldest steps beyond what is kept, and notes up to when.
pub(super) fn forget_old(state: &mut AlertState) {
    let known_ns = forgotten_until(state);
    let from = of_this_version(state);
    let beyond = state.steps.len().saturating_sub(ALERT_STEPS_MAX);
    let forgotten = state.steps.drain(..beyond).skip(from);
    let latest_ns = forgotten.filter_map(|known| since_of(&known)).max();
    state.forgotten_ns = Some(known_ns.max(latest_ns.unwrap_or(i64::MIN)));
}

/// Whether points are the reason of a step.
pub(super) fn is_of_points(step: &AlertStep) -> bool {
    matches!(
        step.reason(),
        AlertReason::Raised | AlertReason::Lowered | AlertReason::Cleared
    )
}

/// Steps up to here, under this version of the profile, may have been published and forgotten.
fn forgotten_until(state: &AlertState) -> i64 {
    // What was recorded before that was noted says it by the first step that is left. Where it has the change to this version,
    // nothing behind that is forgotten.
    let guess = || {
        let full = state.steps.len() >= ALERT_STEPS_MAX && of_this_version(state) == 0;
        let first = state.steps.iter().find_map(since_of);
        first.filter(|_| full).unwrap_or(i64::MIN)
    };
    state.forgotten_ns.unwrap_or_else(guess)
}

/// When a step of points that holds became true.
fn since_of(known: &AlertKnown) -> Option<i64> {
    let step = known.step.as_ref().filter(|_| !known.withdrawn);
    step.filter(|step| is_of_points(step)).map(|step| step.since_ns)
}

/// Where the steps begin that were taken under the version of a state.
fn of_this_version(state: &AlertState) -> usize {
    let ended = |known: &AlertKnown| {
        let step = known.step.as_ref();
        step.is_some_and(|step| step.reason() == AlertReason::ProfileChanged)
    };
    state.steps.iter().rposition(ended).map_or(0, |at| at + 1)
}

fn mark(wire: &AlertMark) -> Mark {
    let point = |point: &Option<AlertPoint>| point.map(|point| (point.t_ns, point.value));
    Mark {
        t_ns: wire.t_ns,
        settled_by_ns: wire.settled_by_ns,
        standing: Standing {
            level: wire.level,
            since_ns: wire.since_ns,
            began_ns: wire.began_ns,
            below_since_ns: wire.below_since_ns,
            last_ns: wire.last_ns,
        },
        read_from_ns: wire.read_from_ns,
        remembered: Remembered {
            before: point(&wire.before),
            sure: point(&wire.sure),
        },
        newest: point(&wire.newest),
    }
}

fn mark_to_wire(mark: &Mark) -> AlertMark {
    let point = |point: Option<(i64, f64)>| point.map(|(t_ns, value)| AlertPoint { t_ns, value });
    let standing = mark.standing;
    AlertMark {
        t_ns: mark.t_ns,
        settled_by_ns: mark.settled_by_ns,
        level: standing.level,
        since_ns: standing.since_ns,
        began_ns: standing.began_ns,
        below_since_ns: standing.below_since_ns,
        last_ns: standing.last_ns,
        read_from_ns: mark.read_from_ns,
        before: point(mark.remembered.before),
        sure: point(mark.remembered.sure),
        newest: point(mark.newest),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
