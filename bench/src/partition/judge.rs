//! Judges what a node answered around a partition. Pure. Invariant: an answer is held against what was acknowledged
//! before its question was asked, never against what is known by now.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tidemark_client::{Code, Error};

use super::direct::Seen;
use super::ledger::Track;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A linearizable read.
    Read,
    /// A read of whatever the node has.
    Any,
    /// A write.
    Write,
}

/// One question and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) device: usize,
    /// From the begin of the run.
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) result: Result<Seen, Error>,
}

/// When things happened, from the begin of the run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) cut_began: Duration,
    pub(crate) cut_done: Duration,
    pub(crate) heal_began: Duration,
    pub(crate) heal_done: Duration,
    pub(crate) ended: Duration,
}

/// What a node owes while it is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Expect {
    /// UNAVAILABLE to linearizable reads and to writes.
    Unavailable,
    /// A right answer or UNAVAILABLE: it still reaches a majority of some shards.
    Either,
}

/// What one node did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Findings {
    pub(crate) node: String,
    /// While cut: answers by what was asked and how it ended (`OK` or the gRPC code).
    pub(crate) while_cut: BTreeMap<Kind, BTreeMap<String, u64>>,
    /// While cut: the longest wait for an answer.
    pub(crate) longest_wait_ms: u64,
    /// Linearizable reads that did not see what was acknowledged before them.
    pub(crate) stale: u64,
    /// Reads of whatever is there whose stated lag was less than the true one: one with a bound would break it.
    pub(crate) lag_understated: u64,
    /// While cut or after: by how much at most, milliseconds.
    pub(crate) lag_understated_max_ms: u64,
    /// While cut: the longest stated lag.
    pub(crate) longest_lag_ms: i64,
    /// Values that nobody wrote.
    pub(crate) invented: u64,
    /// While cut: answers that were not allowed.
    pub(crate) not_allowed: u64,
    /// From the end of the healing until every kind of question about every device was answered; none: not by the end.
    pub(crate) healed_ms: Option<u64>,
    /// The first few findings in words.
    pub(crate) examples: Vec<String>,
}

const EXAMPLES: usize = 8;

impl Findings {
    /// True when every kind of question was answered while cut, and nothing is to be complained of.
    pub(crate) fn is_good(&self) -> bool {
        self.stale + self.lag_understated + self.invented + self.not_allowed == 0
            && self.healed_ms.is_some()
            && self.unasked().is_empty()
    }

    /// Kinds of questions of which none was asked and answered while cut: a run that says nothing about them.
    pub(crate) fn unasked(&self) -> Vec<Kind> {
        let mut kinds = vec![Kind::Read, Kind::Any, Kind::Write];
        kinds.retain(|kind| !self.while_cut.contains_key(kind));
        kinds
    }

    fn note(&mut self, call: &Call, what: &str) {
        if self.examples.len() < EXAMPLES {
            let answer = match &call.result {
                Ok(seen) => format!("value {}, lag {} ms", seen.value, seen.lag_ms),
                Err(error) => format!("{:?} {} {}", error.code, error.reason, error.message),
            };
            let (began, took) = (call.began, call.ended.saturating_sub(call.began));
            let (node, kind, device) = (&self.node, call.kind, call.device);
            self.examples.push(format!(
                "{node}: {kind:?} of device {device} at {began:.3?}, after {took:.3?}: {answer}: {what}"
            ));
        }
    }
}

/// Holds a node's answers against what was acknowledged.
pub(crate) fn judge(node: &str, calls: &[Call], tracks: &[Track], times: &Times, expect: Expect) -> Findings {
    let mut findings = Findings {
        node: node.to_owned(),
        ..Findings::default()
    };
    for call in calls {
        if let (Ok(seen), Some(track)) = (&call.result, tracks.get(call.device)) {
            freshness(&mut findings, call, *seen, track);
        }
        if call.began >= times.cut_done && call.ended <= times.heal_began {
            while_cut(&mut findings, call, expect);
        }
    }
    findings.healed_ms = healed(calls, times).map(|after| after.as_millis() as u64);
    findings
}

fn freshness(findings: &mut Findings, call: &Call, seen: Seen, track: &Track) {
    if call.kind != Kind::Write && seen.value > track.issued() {
        findings.invented += 1;
        findings.note(call, "nobody wrote that");
    }
    let known = match call.kind {
        Kind::Write => return,
        Kind::Read => track.known_at(call.began),
        // Behind by the stated lag when it was answered, which is after it was asked.
        Kind::Any => match u64::try_from(seen.lag_ms) {
            Ok(lag_ms) => track.known_at(call.began.saturating_sub(Duration::from_millis(lag_ms + 1))),
            Err(_) => 0,
        },
    };
    if seen.value < known {
        if call.kind == Kind::Any {
            // What it lacks was acknowledged before the instant of which it says that it was in step.
            let missed_at = track.acknowledged_at(seen.value + 1).unwrap_or(call.began);
            let claimed = call.began.saturating_sub(Duration::from_millis(seen.lag_ms as u64 + 1));
            let by_ms = claimed.saturating_sub(missed_at).as_millis() as u64;
            findings.lag_understated += 1;
            findings.lag_understated_max_ms = findings.lag_understated_max_ms.max(by_ms);
            findings.note(
                call,
                &format!("{known} had been acknowledged before what it lags behind"),
            );
            return;
        }
        findings.stale += 1;
        findings.note(call, &format!("{known} had been acknowledged"));
    }
}

fn while_cut(findings: &mut Findings, call: &Call, expect: Expect) {
    let end = match &call.result {
        Ok(_) => "OK".to_owned(),
        Err(error) => format!("{:?}", error.code),
    };
    *findings.while_cut.entry(call.kind).or_default().entry(end).or_default() += 1;
    let took_ms = call.ended.saturating_sub(call.began).as_millis() as u64;
    findings.longest_wait_ms = findings.longest_wait_ms.max(took_ms);
    if let (Kind::Any, Ok(seen)) = (call.kind, &call.result) {
        findings.longest_lag_ms = findings.longest_lag_ms.max(seen.lag_ms);
    }
    let allowed = match (&call.result, call.kind) {
        (Ok(_), Kind::Any) => true,
        (Ok(_), _) => expect == Expect::Either,
        (Err(error), _) => error.code == Code::Unavailable,
    };
    if !allowed {
        findings.not_allowed += 1;
        findings.note(call, "not allowed while cut");
    }
}

/// How long after the healing the last of the questions had its first answer.
fn healed(calls: &[Call], times: &Times) -> Option<Duration> {
    let mut first: BTreeMap<(Kind, usize), Option<Duration>> = BTreeMap::new();
    for call in calls {
        let first = first.entry((call.kind, call.device)).or_default();
        if call.result.is_ok() && call.began >= times.heal_done {
            *first = Some(first.map_or(call.ended, |earlier| earlier.min(call.ended)));
        }
    }
    let all: Option<Vec<Duration>> = first.into_values().collect();
    Some(all?.into_iter().max()?.saturating_sub(times.heal_done))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tonic::Status;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn times() -> Times {
        Times {
            cut_began: MS(1000),
            cut_done: MS(1000),
            heal_began: MS(2000),
            heal_done: MS(2000),
            ended: MS(3000),
        }
    }

    fn call(kind: Kind, began: u64, result: Result<(i64, i64), Code>) -> Call {
        Call {
            kind,
            device: 0,
            began: MS(began),
            ended: MS(began + 10),
            result: result
                .map(|(value, lag_ms)| Seen { value, lag_ms })
                .map_err(|code| Status::new(code, "").into()),
        }
    }

    /// Value 1 at 100 ms, 2 at 1100, 3 at 1200; 4 is under way.
    fn check(calls: &[Call], expect: Expect) -> Findings {
        let mut track = Track::default();
        for at in [100, 1100, 1200] {
            track.issue();
            track.acknowledge(MS(at));
        }
        track.issue();
        judge("n", calls, &[track], &times(), expect)
    }

    #[test]
    fn a_node_that_is_cut_off_and_says_so() {
        let found = check(
            &[
                call(Kind::Read, 500, Ok((1, 0))),
                call(Kind::Read, 1150, Err(Code::Unavailable)),
                call(Kind::Any, 1150, Ok((1, 200))),
                call(Kind::Write, 1150, Err(Code::Unavailable)),
                call(Kind::Read, 2100, Ok((4, 0))),
                call(Kind::Any, 2100, Ok((3, 5))),
                call(Kind::Write, 2300, Ok((0, 0))),
            ],
            Expect::Unavailable,
        );
        assert!(found.is_good(), "{found:?}");
        assert_eq!((found.healed_ms, found.longest_lag_ms), (Some(310), 200));
        assert_eq!(
            found.while_cut[&Kind::Read],
            BTreeMap::from([("Unavailable".to_owned(), 1)])
        );
    }

    #[test]
    fn what_is_not_allowed() {
        let counts = |kind, began, result, expect| {
            let f = check(&[call(kind, began, result)], expect);
            let wrong = f.stale + f.lag_understated + f.invented + f.not_allowed > 0;
            assert_eq!(wrong, !f.examples.is_empty(), "{f:?}");
            [f.stale, f.lag_understated, f.invented, f.not_allowed]
        };
        let cut = Expect::Unavailable;
        for (kind, began, result, expect, expected) in [
            (Kind::Read, 1150, Ok((1, 0)), cut, [1, 0, 0, 1]),
            (Kind::Read, 1150, Ok((2, 0)), cut, [0, 0, 0, 1]),
            (Kind::Read, 1150, Ok((2, 0)), Expect::Either, [0, 0, 0, 0]),
            (Kind::Read, 1150, Ok((1, 0)), Expect::Either, [1, 0, 0, 0]),
            (Kind::Read, 1150, Err(Code::DeadlineExceeded), cut, [0, 0, 0, 1]),
            (Kind::Read, 2500, Ok((2, 0)), cut, [1, 0, 0, 0]),
            (Kind::Read, 2500, Ok((5, 0)), cut, [0, 0, 1, 0]),
            (Kind::Write, 1150, Ok((0, 0)), cut, [0, 0, 0, 1]),
            (Kind::Any, 1150, Ok((1, 49)), cut, [0, 1, 0, 0]),
            (Kind::Any, 1150, Ok((1, 50)), cut, [0, 0, 0, 0]),
            (Kind::Any, 1150, Ok((0, -1)), cut, [0, 0, 0, 0]),
        ] {
            assert_eq!(
                counts(kind, began, result, expect),
                expected,
                "{kind:?} {began} {result:?}"
            );
        }
    }

    #[test]
    fn a_node_that_does_not_come_back() {
        let found = check(&[call(Kind::Read, 2500, Err(Code::Unavailable))], Expect::Unavailable);
        assert_eq!(found.healed_ms, None);
        assert!(!found.is_good());
    }

    #[test]
    fn a_node_that_was_not_asked_while_cut() {
        let answered = [Kind::Read, Kind::Any, Kind::Write].map(|kind| call(kind, 2100, Ok((3, 0))));
        // Asked before the cut was done, and answered after the healing began.
        let astride = [(Kind::Read, 995), (Kind::Any, 995), (Kind::Write, 1995)];
        let astride = astride.map(|(kind, began)| call(kind, began, Err(Code::Unavailable)));
        let mut calls = [answered, astride].concat();
        let found = check(&calls, Expect::Either);
        assert_eq!(found.unasked(), [Kind::Read, Kind::Any, Kind::Write]);
        assert!(!found.is_good(), "{found:?}");
        for kind in [Kind::Read, Kind::Any, Kind::Write] {
            assert!(!check(&calls, Expect::Either).is_good(), "without {kind:?}");
            calls.push(call(kind, 1150, Err(Code::Unavailable)));
        }
        assert!(check(&calls, Expect::Either).is_good());
    }

    #[test]
    fn a_lag_that_is_understated_fails_the_run() {
        let healed = call(Kind::Any, 2100, Ok((3, 5)));
        let told = |lag_ms| {
            check(
                &[
                    call(Kind::Read, 1150, Err(Code::Unavailable)),
                    call(Kind::Any, 1150, Ok((1, lag_ms))),
                    call(Kind::Write, 1150, Err(Code::Unavailable)),
                    call(Kind::Read, 2100, Ok((3, 0))),
                    healed.clone(),
                    call(Kind::Write, 2100, Ok((0, 0))),
                ],
                Expect::Unavailable,
            )
        };
        assert!(told(50).is_good(), "{:?}", told(50));
        assert!(!told(49).is_good());
        assert_eq!(told(49).lag_understated_max_ms, 0, "by less than a millisecond");
        assert_eq!(told(20).lag_understated_max_ms, 29);
    }
}
