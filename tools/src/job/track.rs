//! How far a job is: bytes, rate, time left, what each move waits for. Never: a clock, a terminal.
//!
//! Invariant: a function of the jobs it was shown and of the instants that came with them; the fraction never falls.

use std::collections::VecDeque;
use std::time::Duration;

use tidemark_client::v1::{self, MovePhase};
use tokio::time::Instant;

use super::attach::has_ended;
use super::print::{move_text, moves_done};
use crate::human;
use crate::words;

/// The rate is that of this much time.
const RATE_OVER: Duration = Duration::from_secs(10);
/// Why a move waits may change with every look (entries to go); it is said this often.
const WAITS_EVERY: Duration = Duration::from_secs(5);
/// Moves under way that are named one by one.
const DETAILS_MAX: usize = 6;
/// Share of a move that its copy is taken for.
const COPY_SHARE: f64 = 0.9;

/// One look at a job.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    /// 0 to 1.
    pub(super) fraction: f64,
    /// Moves, bytes, rate, time left.
    pub(super) line: String,
    /// The moves under way, and why they wait.
    pub(super) details: Vec<String>,
    /// What changed since the last look.
    pub(super) changes: Vec<String>,
}

/// Remembers what it was shown.
pub(super) struct Tracker {
    first: Option<(Instant, f64)>,
    fraction: f64,
    /// Bytes come so far, of all copies since we look on.
    copied: u64,
    bytes_seen: Vec<u64>,
    rates: VecDeque<(Instant, u64)>,
    said: Vec<Said>,
    said_of_job: String,
}

/// What was said of a move last.
#[derive(Clone, Default)]
struct Said {
    phase: &'static str,
    waits_for: String,
    at: Option<Instant>,
}

impl Tracker {
    /// Begins to look on.
    pub(super) fn new(now: Instant) -> Tracker {
        Tracker {
            first: None,
            fraction: 0.0,
            copied: 0,
            bytes_seen: Vec::new(),
            rates: VecDeque::from([(now, 0)]),
            said: Vec::new(),
            said_of_job: String::new(),
        }
    }

    /// Takes a look.
    pub(super) fn observe(&mut self, job: &v1::Job, now: Instant) -> Seen {
        self.count_bytes(job, now);
        let moves = job.moves.len().max(1) as f64;
        let fraction = job.moves.iter().map(share_done).sum::<f64>() / moves;
        self.fraction = self.fraction.max(fraction);
        let &mut (since, from) = self.first.get_or_insert((now, self.fraction));
        let line = self.line(job, now.duration_since(since), from);
        Seen {
            fraction: self.fraction,
            line,
            details: details(job),
            changes: self.changes(job, now),
        }
    }

    /// Bytes of a copy start anew with each phase; only what comes on top counts.
    fn count_bytes(&mut self, job: &v1::Job, now: Instant) {
        let first_look = self.first.is_none();
        self.bytes_seen.resize(job.moves.len(), 0);
        for (seen, one) in self.bytes_seen.iter_mut().zip(&job.moves) {
            if !first_look {
                self.copied += one.bytes_done.saturating_sub(*seen);
            }
            *seen = one.bytes_done;
        }
        self.rates.push_back((now, self.copied));
        while self.rates.len() > 2 && now.duration_since(self.rates[1].0) >= RATE_OVER {
            self.rates.pop_front();
        }
    }

    fn bytes_per_second(&self) -> f64 {
        let (Some(first), Some(last)) = (self.rates.front(), self.rates.back()) else {
            return 0.0;
        };
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        if seconds > 0.0 {
            (last.1 - first.1) as f64 / seconds
        } else {
            0.0
        }
    }

    fn line(&self, job: &v1::Job, watched: Duration, from: f64) -> String {
        let mut line = format!("{}/{} moves", moves_done(job), job.moves.len());
        let copies = job.moves.iter().filter(|one| one.phase() == MovePhase::Copying);
        let (done, total) = copies.fold((0, 0), |(done, total), one| {
            (done + one.bytes_done, total + one.bytes_total)
        });
        if total > 0 {
            line += &format!("  {} of {}", human::bytes(done), human::bytes(total));
            line += &format!("  {}/s", human::bytes(self.bytes_per_second() as u64));
        }
        let gained = self.fraction - from;
        if gained > 0.01 && self.fraction < 1.0 {
            let left = watched.as_secs_f64() * (1.0 - self.fraction) / gained;
            line += &format!(
                "  {} left",
                human::span(Duration::from_secs_f64(left.ceil().clamp(1.0, 1e9)))
            );
        }
        line
    }

    fn changes(&mut self, job: &v1::Job, now: Instant) -> Vec<String> {
        let mut changes = Vec::new();
        let mut of_job = words::job_state(job.state()).to_owned();
        if !job.message.is_empty() {
            of_job += &format!(", {}", job.message);
        }
        // How it ended is the last word of the command.
        if of_job != self.said_of_job && !has_ended(job.state()) {
            changes.push(of_job.clone());
            self.said_of_job = of_job;
        }
        self.said.resize(job.moves.len(), Said::default());
        for (place, (said, one)) in self.said.iter_mut().zip(&job.moves).enumerate() {
            let phase = words::move_phase(one.phase());
            let begun = !matches!(one.phase(), MovePhase::Pending | MovePhase::Unspecified);
            let moved_on = phase != said.phase && (begun || said.at.is_some());
            let long_ago = said.at.is_none_or(|at| now.duration_since(at) >= WAITS_EVERY);
            let waits = long_ago && !one.waits_for.is_empty() && one.waits_for != said.waits_for;
            if !(moved_on || waits) {
                continue;
            }
            let mut line = format!("move {}/{} {}: {phase}", place + 1, job.moves.len(), move_text(one));
            if !one.waits_for.is_empty() {
                line += &format!(", waits: {}", one.waits_for);
            }
            changes.push(line);
            *said = Said {
                phase,
                waits_for: one.waits_for.clone(),
                at: Some(now),
            };
        }
        changes
    }
}

fn share_done(one: &v1::Move) -> f64 {
    match one.phase() {
        MovePhase::Unspecified | MovePhase::Pending => 0.0,
        MovePhase::Copying if one.bytes_total > 0 => {
            COPY_SHARE * (one.bytes_done as f64 / one.bytes_total as f64).min(1.0)
        }
        MovePhase::Copying => 0.0,
        MovePhase::Switching => COPY_SHARE,
        MovePhase::Cleaning => 0.95,
        MovePhase::Done | MovePhase::Cancelled => 1.0,
    }
}

fn details(job: &v1::Job) -> Vec<String> {
    let under_way = |one: &&v1::Move| {
        let phase = one.phase();
        matches!(phase, MovePhase::Copying | MovePhase::Switching | MovePhase::Cleaning) || !one.waits_for.is_empty()
    };
    let text = |one: &v1::Move| {
        let mut text = format!("  {}: {}", move_text(one), words::move_phase(one.phase()));
        if one.phase() == MovePhase::Copying && one.bytes_total > 0 {
            text += &format!(" {} of {}", human::bytes(one.bytes_done), human::bytes(one.bytes_total));
        }
        if !one.waits_for.is_empty() {
            text += &format!(", waits: {}", one.waits_for);
        }
        text
    };
    let mut lines: Vec<_> = job.moves.iter().filter(under_way).map(text).collect();
    if lines.len() > DETAILS_MAX {
        let more = lines.len() - DETAILS_MAX;
        lines.truncate(DETAILS_MAX);
        lines.push(format!("  and {more} more"));
    }
    if !job.message.is_empty() {
        lines.push(format!("  {}", job.message));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(phase: MovePhase, bytes_done: u64, waits_for: &str) -> v1::Move {
        v1::Move {
            shard: 2,
            from_node: 1,
            to_node: 4,
            phase: phase as i32,
            bytes_total: if phase == MovePhase::Copying { 100 << 20 } else { 0 },
            bytes_done,
            waits_for: waits_for.to_owned(),
            ..v1::Move::default()
        }
    }

    fn job(moves: Vec<v1::Move>) -> v1::Job {
        v1::Job {
            id: 7,
            state: v1::JobState::Running as i32,
            moves,
            ..v1::Job::default()
        }
    }

    #[test]
    fn bytes_rate_and_time_left() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut tracker = Tracker::new(begin);
        let pending = || step(MovePhase::Pending, 0, "");
        tracker.observe(&job(vec![step(MovePhase::Copying, 0, ""), pending()]), at(0));
        let seen = tracker.observe(&job(vec![step(MovePhase::Copying, 50 << 20, ""), pending()]), at(5));
        assert_eq!(seen.line, "0/2 moves  50 MiB of 100 MiB  10 MiB/s  18 s left");
        assert_eq!(seen.details, ["  shard 2 node 1 -> node 4: copying 50 MiB of 100 MiB"]);
        assert!((seen.fraction - 0.225).abs() < 1e-9);
        let seen = tracker.observe(&job(vec![step(MovePhase::Done, 0, ""), pending()]), at(10));
        assert_eq!(seen.line, "1/2 moves  10 s left");
        // A node that answers with an older state does not turn the bar back.
        let seen = tracker.observe(&job(vec![step(MovePhase::Copying, 0, ""), pending()]), at(11));
        assert!((seen.fraction - 0.5).abs() < 1e-9);
    }

    #[test]
    fn only_what_changes_is_said() {
        let begin = Instant::now();
        let mut tracker = Tracker::new(begin);
        let mut changes = |after, moves| tracker.observe(&job(moves), begin + Duration::from_secs(after)).changes;
        assert_eq!(changes(0, vec![step(MovePhase::Pending, 0, "")]), ["running"]);
        assert_eq!(
            changes(0, vec![step(MovePhase::Copying, 1, "")]),
            ["move 1/1 shard 2 node 1 -> node 4: copying"]
        );
        assert!(changes(9, vec![step(MovePhase::Copying, 2, "")]).is_empty());
        assert_eq!(
            changes(9, vec![step(MovePhase::Copying, 2, "426 entries to go")]),
            ["move 1/1 shard 2 node 1 -> node 4: copying, waits: 426 entries to go"]
        );
        assert!(changes(10, vec![step(MovePhase::Copying, 2, "208 entries to go")]).is_empty());
        assert_eq!(
            changes(14, vec![step(MovePhase::Copying, 2, "20 entries to go")]),
            ["move 1/1 shard 2 node 1 -> node 4: copying, waits: 20 entries to go"]
        );
        assert_eq!(
            changes(14, vec![step(MovePhase::Done, 0, "")]),
            ["move 1/1 shard 2 node 1 -> node 4: done"]
        );
    }
}
