//! What a person sees while rows go in: a bar on a terminal, a line now and then elsewhere. Never: standard output.
//!
//! Invariant: nothing here can fail a run or slow it down.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::escape;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how far a run is.
pub(crate) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    quiet: bool,
    started: Instant,
    last_line: Instant,
    bytes_total: Option<u64>,
    first_bytes: Option<u64>,
}

/// How far a run is.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Reached {
    /// Rows of the file, from its beginning.
    pub(crate) rows: u64,
    /// Points stored by this run.
    pub(crate) points: u64,
    /// Bytes of the file, from its beginning.
    pub(crate) bytes: u64,
}

impl Progress {
    /// `bytes_total` is the size of the file, where it has one; `quiet` where a program reads standard error.
    pub(crate) fn new(bytes_total: Option<u64>, quiet: bool, now: Instant) -> Progress {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        let template = match bytes_total {
            Some(_) => "{wide_bar} {percent:>3}%  {msg}",
            None => "{spinner} {msg}",
        };
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(bytes_total, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        Progress {
            bar,
            terminal,
            quiet,
            started: now,
            last_line: now,
            bytes_total,
            first_bytes: None,
        }
    }

    /// Draws.
    pub(crate) fn show(&mut self, reached: Reached, now: Instant) {
        let first = *self.first_bytes.get_or_insert(reached.bytes);
        let line = self.line(reached, first, now);
        if self.terminal {
            self.bar.set_position(reached.bytes);
            self.bar.set_message(line);
        } else if !self.quiet && now.duration_since(self.last_line) >= LINE_EVERY {
            self.last_line = now;
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn line(&self, reached: Reached, first_bytes: u64, now: Instant) -> String {
        let seconds = now.duration_since(self.started).as_secs_f64().max(1e-3);
        let rate = reached.points as f64 / seconds;
        let mut line = format!("{} rows  {rate:.0} points/s", reached.rows);
        let moved = reached.bytes.saturating_sub(first_bytes);
        if let (Some(total), true) = (self.bytes_total, moved > 0) {
            let left = total.saturating_sub(reached.bytes) as f64 / moved as f64 * seconds;
            line += &format!("  {left:.0} s left");
        }
        line
    }

    /// A line above the bar.
    pub(crate) fn say(&self, text: &str) {
        if self.quiet {
            return;
        }
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{}", escape(text));
        });
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
