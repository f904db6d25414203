//! How a command fails: one exit code, and three lines (what, why, what to run next). Never: a decision to retry.
//!
//! Invariant: every failure that reaches `main` has an exit code of the documented table and a sentence for people.

use std::io::{self, Write};

use serde_json::json;
use tidemark_client::ErrorKind;
use tidemark_client::v1::RowFailure;

use crate::output::escape;

/// Exit codes, the same for every verb.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done. As a failure: the reader of standard output went away.
    Ok = 0,
    /// Failed, and a retry will not help.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Cannot connect, or the store is not available: try again.
    Unavailable = 3,
    /// No such thing.
    NotFound = 4,
    /// Not permitted.
    NotPermitted = 5,
    /// Refused by a safety check.
    Refused = 6,
    /// Partly done: rows were rejected, see the file.
    Partial = 7,
    /// The cluster is not healthy.
    Unhealthy = 8,
    /// Timed out waiting; the work may go on.
    TimedOut = 124,
    /// Interrupted.
    Interrupted = 130,
}

/// What a verb returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    exit: Exit,
    reason: String,
    what: String,
    why: String,
    next: String,
    field: String,
    rows: Vec<RowFailure>,
}

impl Failure {
    /// A failure with its three lines; an empty line is not printed.
    pub(crate) fn new(exit: Exit, what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) -> Failure {
        let reason = match exit {
            Exit::Ok => "OK",
            Exit::Failed => "FAILED",
            Exit::Usage => "USAGE",
            Exit::Unavailable => "UNAVAILABLE",
            Exit::NotFound => "NOT_FOUND",
            Exit::NotPermitted => "NOT_PERMITTED",
            Exit::Refused => "REFUSED",
            Exit::Partial => "ROWS_REJECTED",
            Exit::Unhealthy => "UNHEALTHY",
            Exit::TimedOut => "TIMED_OUT",
            Exit::Interrupted => "INTERRUPTED",
        };
        Failure(Box::new(Inner {
            exit,
            reason: reason.to_owned(),
            what: what.into(),
            why: why.into(),
            next: next.into(),
            field: String::new(),
            rows: Vec::new(),
        }))
    }

    /// The command line or a file named on it is wrong.
    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, what, why, "")
    }

    /// A file could not be read or written.
    pub(crate) fn file(what: &str, path: &str, error: &io::Error) -> Failure {
        Failure::new(Exit::Failed, format!("cannot {what} {path}"), error.to_string(), "")
    }

    /// Replaces the line that says what to run next, where it is still empty.
    pub(crate) fn or_next(mut self, next: impl Into<String>) -> Failure {
        if self.0.next.is_empty() {
            self.0.next = next.into();
        }
        self
    }

    /// Replaces the line that says what to run next.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Failure {
        self.0.next = next.into();
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.0.exit
    }

    /// The machine-readable reason.
    #[cfg(test)]
    pub(crate) fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Prints to standard error: lines, or one JSON object.
    pub(crate) fn print(&self, machine: bool) {
        let inner = &self.0;
        if inner.exit == Exit::Ok {
            return;
        }
        let mut out = io::stderr().lock();
        let text = if machine { self.as_json() } else { self.as_lines() };
        let _ = out.write_all(text.as_bytes());
    }

    fn as_json(&self) -> String {
        let inner = &self.0;
        let rows: Vec<_> = inner
            .rows
            .iter()
            .map(|row| json!({"row": row.row, "reason": row.reason, "message": row.message, "field": row.field}))
            .collect();
        let value = json!({
            "kind": "error", "schema": 1, "exit": inner.exit as u8, "reason": inner.reason, "what": inner.what,
            "why": inner.why, "next": inner.next, "field": inner.field, "rows": rows,
        });
        format!("{}\n", crate::output::json_text(&value))
    }

    /// What `print` writes for people.
    pub(crate) fn as_lines(&self) -> String {
        let inner = &self.0;
        let mut text = format!("error: {}\n", escape(&inner.what));
        if !inner.why.is_empty() {
            let field = if inner.field.is_empty() {
                String::new()
            } else {
                format!(" (field {})", inner.field)
            };
            text += &format!("  why: {}{}\n", escape(&inner.why), escape(&field));
        }
        for row in inner.rows.iter().take(ROWS_PRINTED) {
            text += &format!("  row {}: {} {}\n", row.row, escape(&row.field), escape(&row.message));
        }
        if inner.rows.len() > ROWS_PRINTED {
            text += &format!(
                "  and {} more rows (all named under -o json)\n",
                inner.rows.len() - ROWS_PRINTED
            );
        }
        if !inner.next.is_empty() {
            text += &format!("  next: {}\n", escape(&inner.next));
        }
        text
    }
}

/// Rows named in the form for people.
const ROWS_PRINTED: usize = 10;

/// The exit code of a gRPC code. A limit that is reached is over later, or the request is too large and stays so.
fn exit_of(code: i32, kind: ErrorKind) -> Exit {
    match code {
        4 => Exit::TimedOut,
        5 => Exit::NotFound,
        6 | 9 => Exit::Refused,
        7 | 16 => Exit::NotPermitted,
        8 if kind != ErrorKind::Retry => Exit::Failed,
        1 | 8 | 10 | 14 => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

/// What to run next for a reason of the server that gave no hint of its own.
fn next_of(reason: &str, exit: Exit) -> &'static str {
    match reason {
        "UNKNOWN_TYPE" => "tidemark type list",
        "UNKNOWN_DEVICE" => "tidemark device list",
        "UNKNOWN_PROPERTY" | "WRONG_VALUE_TYPE" | "UNLAWFUL_FUNCTION" | "UNKNOWN_LABEL" => "tidemark type show TYPE",
        "NOT_INITIALISED" => "tidemark cluster init",
        "ALREADY_INITIALISED" | "QUORUM_LOST" | "DISK_LOW" => "tidemark cluster status",
        "UNKNOWN_NODE" | "NODE_KNOWN" | "NODE_DOWN" | "NO_ROOM" => "tidemark node list",
        "NODE_CORDONED" => "tidemark node uncordon N",
        "UNKNOWN_SHARD" | "INVALID_MOVE" => "tidemark shard list",
        "UNKNOWN_JOB" | "JOB_RUNNING" | "JOB_ENDED" => "tidemark job list",
        "UNKNOWN_ALERT_PROFILE" => "tidemark alert profile list",
        "UNKNOWN_ALERT" | "ALERT_IN_FORCE" => "tidemark alert list --history",
        "PLACEMENT_CHANGED" => "the same command again: it makes a new plan",
        "FACTOR_UNMET" => "tidemark node add HOST:PORT",
        "TOO_MANY_POINTS" | "TOO_MANY_WINDOWS" | "TOO_MANY_SERIES" | "QUERY_TOO_LARGE" => {
            "a smaller question: fewer devices, a shorter time, longer windows"
        }
        "BATCH_TOO_LARGE" | "MESSAGE_TOO_LARGE" => "the same in smaller pieces",
        "UNIMPLEMENTED" => "tidemark version --server: the nodes are older than this command",
        "ANSWER_NOT_TAKEN" => "the same command again, where its output is read",
        _ if exit == Exit::Unavailable => "tidemark cluster status --check, then the same command again",
        _ if exit == Exit::TimedOut => {
            "a smaller question, or the same command with a longer --timeout (a node gives a question 60s at most)"
        }
        _ => "",
    }
}

/// The parts of a server's or a connection's error, however the client library spells them.
pub(crate) struct Refusal {
    /// Canonical gRPC code.
    pub(crate) code: i32,
    /// What the caller should do.
    pub(crate) kind: ErrorKind,
    /// Upper snake case; empty where there is none.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
    /// Path of the offending field.
    pub(crate) field: String,
    /// Offending rows.
    pub(crate) rows: Vec<RowFailure>,
    /// The server's own advice.
    pub(crate) hint: String,
}

impl Refusal {
    /// No such thing, though the call itself went well.
    pub(crate) fn not_found(message: String) -> Refusal {
        Refusal {
            code: 5,
            kind: ErrorKind::Fix,
            reason: String::new(),
            message,
            field: String::new(),
            rows: Vec::new(),
            hint: String::new(),
        }
    }

    /// The exit code of the failure.
    pub(crate) fn exit(&self) -> Exit {
        exit_of(self.code, self.kind)
    }

    /// The failure of a verb that tried to `what`.
    pub(crate) fn failure(self, what: impl Into<String>) -> Failure {
        let exit = self.exit();
        let next = next_of(&self.reason, exit);
        let mut failure = Failure::new(
            exit,
            what,
            self.message,
            if self.hint.is_empty() { next } else { &self.hint },
        );
        if !self.reason.is_empty() {
            failure.0.reason = self.reason;
        }
        failure.0.field = self.field;
        failure.0.rows = self.rows;
        failure
    }
}

impl From<tidemark_client::Error> for Refusal {
    fn from(error: tidemark_client::Error) -> Refusal {
        let row = |row: tidemark_client::RowError| RowFailure {
            row: row.row,
            reason: row.reason,
            message: row.message,
            field: row.field,
        };
        Refusal {
            code: error.code as i32,
            kind: error.kind,
            reason: error.reason,
            message: error.message,
            field: error.field.unwrap_or_default(),
            rows: error.rows.into_iter().map(row).collect(),
            hint: error.hint.unwrap_or_default(),
        }
    }
}

/// Says what a verb was doing when a call failed.
pub(crate) trait OrFail<T> {
    /// The failure of a verb that tried to `what`.
    fn or_fail(self, what: &str) -> Outcome<T>;
}

impl<T> OrFail<T> for Result<T, tidemark_client::Error> {
    fn or_fail(self, what: &str) -> Outcome<T> {
        self.map_err(|error| Refusal::from(error).failure(what))
    }
}

/// Output errors: a closed pipe ends the command quietly.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new(Exit::Ok, "", "", "");
        }
        Failure::new(Exit::Failed, "cannot write the answer", error.to_string(), "")
    }
}

#[cfg(test)]
mod tests {
    use tidemark_client::v1;

    use super::*;

    #[test]
    fn codes_become_exit_codes() {
        for (code, exit) in [
            (3, 1),
            (4, 124),
            (5, 4),
            (6, 6),
            (7, 5),
            (9, 6),
            (11, 1),
            (13, 1),
            (14, 3),
            (15, 1),
            (16, 5),
        ] {
            assert_eq!(exit_of(code, ErrorKind::GiveUp) as u8, exit, "code {code}");
        }
        for (kind, exit) in [
            (ErrorKind::Retry, Exit::Unavailable),
            (ErrorKind::Fix, Exit::Failed),
            (ErrorKind::GiveUp, Exit::Failed),
        ] {
            assert_eq!(exit_of(8, kind), exit, "a limit, {kind:?}");
        }
    }

    #[test]
    fn what_stays_too_large_is_not_to_be_tried_again() {
        let limit = |reason: &str, retry_after_ms| {
            let failure = v1::Failure {
                code: 8,
                reason: reason.to_owned(),
                message: "a limit".to_owned(),
                retry_after_ms,
                ..v1::Failure::default()
            };
            Refusal::from(tidemark_client::Error::from(failure)).failure("cannot answer the query")
        };
        for reason in [
            "TOO_MANY_POINTS",
            "TOO_MANY_WINDOWS",
            "TOO_MANY_SERIES",
            "QUERY_TOO_LARGE",
            "BATCH_TOO_LARGE",
            "MESSAGE_TOO_LARGE",
            "TOO_MANY_TYPES",
        ] {
            let failure = limit(reason, 0);
            assert_eq!(failure.exit(), Exit::Failed, "{reason}");
            assert!(!failure.as_lines().contains("same command"), "{}", failure.as_lines());
        }
        let busy = limit("OVERLOADED", 100);
        assert_eq!(busy.exit(), Exit::Unavailable);
        assert!(busy.as_lines().contains("then the same command again"));
    }

    /// `proto/README.md` says what each reason means for a script; a test of the server keeps its other columns.
    #[test]
    fn the_table_of_reasons_has_these_exit_codes() {
        let table = include_str!("../../proto/README.md");
        let rows = table.lines().filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let reason = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((reason, cells.next()?, cells.next()?, cells.next()?))
        });
        let mut known = 0;
        for (reason, code, what_to_do, exit) in rows {
            let code = (1..=16).find(|n| code_text(*n) == code);
            let kind = match what_to_do {
                "fix" => ErrorKind::Fix,
                "retry" => ErrorKind::Retry,
                "give up" => ErrorKind::GiveUp,
                other => panic!("{reason}: {other}"),
            };
            let code = code.unwrap_or_else(|| panic!("{reason}: a code that is none"));
            assert_eq!(exit, (exit_of(code, kind) as u8).to_string(), "{reason}");
            known += 1;
        }
        assert!(known > 80, "{known} rows");
    }

    fn code_text(code: i32) -> String {
        let name = format!("{:?}", tidemark_client::Code::from_i32(code));
        let word = |c: char| {
            if c.is_uppercase() {
                format!("_{c}")
            } else {
                c.to_string()
            }
        };
        let words: String = name.chars().map(word).collect();
        words.trim_start_matches('_').to_uppercase()
    }

    #[test]
    fn three_lines_and_no_control_characters() {
        let refusal = Refusal {
            code: 5,
            kind: ErrorKind::Fix,
            reason: "UNKNOWN_TYPE".into(),
            message: "no type \u{1b}[31mx".into(),
            field: "selector.device_type".into(),
            rows: Vec::new(),
            hint: String::new(),
        };
        let failure = refusal.failure("cannot answer the query");
        assert_eq!(
            failure.as_lines(),
            "error: cannot answer the query\n  why: no type \\u{1b}[31mx (field selector.device_type)\n  next: tidemark type list\n"
        );
        assert_eq!((failure.exit(), failure.reason()), (Exit::NotFound, "UNKNOWN_TYPE"));
        assert!(failure.as_json().contains("\"exit\":4"));
    }
}
