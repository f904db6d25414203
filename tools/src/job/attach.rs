//! Follows a job until it ends, the operator leaves or time is up. Never: how far it is (`track`), what its end means.
//!
//! Invariant: leaving changes nothing about the job.

use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidemark_client::Client;
use tidemark_client::v1::{self, JobState};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::track::Tracker;
use crate::failure::{Exit, Failure, Outcome, Refusal};
use crate::output::escape;
use crate::time::parse_span;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A cluster that says nothing for this long is given up; the job may go on.
const SILENT_MAX: Duration = Duration::from_secs(300);
/// A cluster that does not know the job for this long has forgotten it.
const UNKNOWN_MAX: Duration = Duration::from_secs(15);
/// Between two lines where there is no terminal and nothing changes but the bytes.
const LINE_EVERY: Duration = Duration::from_secs(10);
const FRACTION_STEPS: u64 = 10_000;

/// What to wait for.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    /// Until the job has ended.
    #[default]
    Done,
    /// Until the cluster has taken it.
    Accepted,
}

/// How long to stay with a job.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// What to wait for
    #[arg(long, value_enum, value_name = "WHAT", default_value = "done")]
    wait: Wait,
    /// Stop waiting after this long and exit 124; the job goes on [default: wait for its end]
    #[arg(long, value_name = "SPAN", value_parser = parse_wait)]
    wait_timeout: Option<Duration>,
}

impl WaitArgs {
    /// True where the start is enough.
    pub(super) fn accepted(&self) -> bool {
        self.wait == Wait::Accepted
    }

    /// Longest wait.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.wait_timeout
    }
}

/// A span of waiting.
pub(super) fn parse_wait(text: &str) -> Result<Duration, String> {
    parse_span(text).map(|ns| Duration::from_nanos(ns.unsigned_abs()))
}

/// Stays with a job until it has ended, and gives back how it ended.
pub(crate) async fn attach(client: &Client, job: v1::Job, wait_max: Option<Duration>) -> Outcome<v1::Job> {
    let id = job.id;
    let begin = Instant::now();
    let ends_at = wait_max.map(|most| begin + most);
    let mut view = View::new(begin);
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut job = job;
    let mut heard_at = begin;
    loop {
        view.show(&job, Instant::now());
        if has_ended(job.state()) {
            view.clear();
            return Ok(job);
        }
        let next = format!("tidemark job watch {id}");
        tokio::select! {
            _ = &mut interrupt => {
                view.clear();
                let what = format!("detached: job {id} goes on");
                return Err(Failure::new(Exit::Interrupted, what, "", next));
            }
            () = until(ends_at) => {
                view.clear();
                let what = format!("job {id} is not done yet; it goes on");
                return Err(Failure::new(Exit::TimedOut, what, job.message, next));
            }
            answer = look(client, id, &mut ticks) => match answer {
                Ok(now) => (job, heard_at) = (now, Instant::now()),
                Err(error) if heard_at.elapsed() < patience(&error) => view.trouble(&error.message),
                Err(error) => {
                    view.clear();
                    let failed = error.failure(format!("lost sight of job {id}, which goes on"));
                    return Err(failed.next(next));
                }
            }
        }
    }
}

async fn look(client: &Client, id: u64, ticks: &mut Interval) -> Result<v1::Job, Refusal> {
    ticks.tick().await;
    let jobs = client.list_jobs(id).await.map_err(Refusal::from)?;
    jobs.into_iter()
        .find(|job| job.id == id)
        .ok_or_else(|| Refusal::not_found(format!("there is no job {id}")))
}

/// How long a failure is borne. A job that was seen does not vanish, but a node that is just moved away or has just come may
/// not know it.
fn patience(error: &Refusal) -> Duration {
    match error.exit() {
        Exit::Unavailable | Exit::TimedOut => SILENT_MAX,
        _ => UNKNOWN_MAX,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// True where nothing more happens to a job.
pub(super) fn has_ended(state: JobState) -> bool {
    matches!(state, JobState::Done | JobState::Cancelled | JobState::Failed)
}

/// A bar on a terminal; a line for each change elsewhere. Standard error only.
struct View {
    terminal: bool,
    bar: ProgressBar,
    tracker: Tracker,
    line_at: Instant,
}

impl View {
    fn new(now: Instant) -> View {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(FRACTION_STEPS), target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3}%  {prefix}\n{msg}") {
            bar.set_style(style.progress_chars("━╸ "));
        }
        View {
            terminal,
            bar,
            tracker: Tracker::new(now),
            line_at: now,
        }
    }

    fn show(&mut self, job: &v1::Job, now: Instant) {
        let seen = self.tracker.observe(job, now);
        if self.terminal {
            self.bar.set_position((seen.fraction * FRACTION_STEPS as f64) as u64);
            self.bar.set_prefix(seen.line);
            self.bar.set_message(escape_lines(&seen.details));
            return;
        }
        if seen.changes.is_empty() && now.duration_since(self.line_at) < LINE_EVERY {
            return;
        }
        self.line_at = now;
        let mut err = std::io::stderr().lock();
        for change in &seen.changes {
            let _ = writeln!(err, "job {}: {}", job.id, escape(change));
        }
        if seen.changes.is_empty() {
            let _ = writeln!(err, "job {}: {}", job.id, seen.line);
        }
    }

    fn trouble(&self, message: &str) {
        let text = format!("no answer just now, the job goes on: {}", escape(message));
        if self.terminal {
            self.bar.set_message(text);
        } else {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn escape_lines(lines: &[String]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| escape(line)).collect();
    lines.join("\n")
}
