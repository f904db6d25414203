//! What a person sees while files go: a bar with bytes, rate and time left on a terminal, a line now and then elsewhere.
//! And the brake that `--limit-rate` asks for. Never: standard output.
//!
//! Invariant: nothing here can fail a run.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(5);
const TEMPLATE: &str = "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}";

/// How far a run is, for several files at a time.
pub(super) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    began: Instant,
    last_line: Mutex<Instant>,
    bytes_per_second_max: u64,
    /// When the bytes taken so far may be over, at the highest rate.
    busy_until: tokio::sync::Mutex<Option<Instant>>,
}

impl Progress {
    /// Over so many bytes; no faster than so many a second, where that is not 0.
    pub(super) fn new(bytes: u64, bytes_per_second_max: u64) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        let now = Instant::now();
        Progress {
            bar,
            terminal,
            began: now,
            last_line: Mutex::new(now),
            bytes_per_second_max,
            busy_until: tokio::sync::Mutex::new(None),
        }
    }

    /// So many bytes more are done.
    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        if self.terminal {
            return;
        }
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < LINE_EVERY {
            return;
        }
        *last = Instant::now();
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let rate = done as f64 / self.began.elapsed().as_secs_f64().max(1e-3);
        let left = Duration::from_secs_f64(total.saturating_sub(done) as f64 / rate.max(1.0));
        let _ = writeln!(
            std::io::stderr(),
            "{} of {}  {}/s  {} left  {}",
            HumanBytes(done),
            HumanBytes(total),
            HumanBytes(rate as u64),
            HumanDuration(left),
            self.bar.message()
        );
    }

    /// What goes on besides.
    pub(super) fn message(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Waits so that the highest rate is kept.
    pub(super) async fn brake(&self, bytes: u64) {
        if self.bytes_per_second_max == 0 {
            return;
        }
        let until = {
            let mut busy = self.busy_until.lock().await;
            let from = busy.unwrap_or(self.began).max(Instant::now());
            let until = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second_max as f64);
            *busy = Some(until);
            until
        };
        tokio::time::sleep_until(until.into()).await;
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
