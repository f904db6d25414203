//! The one error type: what failed, where in the request, and what the caller should do. Never here: when to retry.
//! Invariant: a failed call (`tonic::Status` with google.rpc details) and a [`v1::Failure`] of a stream give the same error.

use std::{error::Error as _, fmt, time::Duration};

use tidemark_proto::v1;
use tonic::Status;
use tonic_types::StatusExt as _;

pub use tonic::Code;

/// The `domain` of every ErrorInfo a Tidemark server sends.
pub(crate) const DOMAIN: &str = "tidemark";
/// Reason of a try that got no answer in time.
const TIMEOUT: &str = "TIMEOUT";

/// What the caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong as it stands: change it.
    Fix,
    /// The same request may succeed later.
    Retry,
    /// Neither helps: somebody must look at the cluster.
    GiveUp,
}

/// A failed operation. Displays as its message, followed by the field and the hint where there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What the caller should do.
    pub kind: ErrorKind,
    /// Canonical gRPC code.
    pub code: Code,
    /// Machine-readable, upper snake case, stable.
    pub reason: String,
    /// What happened, one line.
    pub message: String,
    /// Path of the offending field of the request.
    pub field: Option<String>,
    /// Offending rows with their reasons, the first hundred.
    pub rows: Vec<RowError>,
    /// What to do about it, in words.
    pub hint: Option<String>,
    /// When to try again, where the server knows.
    pub retry_after: Option<Duration>,
}

/// Why one row of a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// Position in the batch, from 0.
    pub row: u32,
    /// Machine-readable, upper snake case, stable.
    pub reason: String,
    /// What is wrong with it.
    pub message: String,
    /// The offending property or part of the row; empty for the row itself.
    pub field: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(field) = &self.field {
            write!(f, " (field {field})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl Error {
    /// An error made by this crate.
    pub(crate) fn local(code: Code, reason: &str, message: impl Into<String>) -> Self {
        let mut error = Self {
            kind: ErrorKind::GiveUp,
            code,
            reason: reason.to_owned(),
            message: message.into(),
            field: None,
            rows: Vec::new(),
            hint: None,
            retry_after: None,
        };
        error.kind = kind_of(&error);
        error
    }
}

/// How far a failed request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// No byte of it left this process.
    Nothing,
    /// A server may have acted on it.
    Perhaps,
    /// A server answered that it stored nothing.
    Refused,
}

/// A failed attempt: the error, and what it says about the node and the request.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) reached: Reached,
    /// The connection or the node is at fault, not the request.
    pub(crate) node_at_fault: bool,
}

impl Failed {
    /// A try that got no answer in time: the node may be stalled, so others come first for a while.
    pub(crate) fn timed_out(address: &str, waited: Duration, reached: Reached) -> Self {
        let message = format!("no answer from {address} in {waited:.1?}");
        Self {
            error: Error::local(Code::DeadlineExceeded, TIMEOUT, message),
            reached,
            node_at_fault: true,
        }
    }

    /// False where the node is the right one and has no room right now: all others would send the request to it.
    pub(crate) fn another_may_know(&self) -> bool {
        !matches!(self.error.reason.as_str(), "OVERLOADED" | "DISK_LOW")
    }

    /// True where nobody said anything.
    pub(crate) fn is_timeout(&self) -> bool {
        self.error.reason == TIMEOUT
    }
}

/// True where the server ended the call at the deadline that we gave, a moment before we did. It names the header; one of an
/// earlier version leaves that to its HTTP layer.
fn ended_at_our_deadline(status: &Status, error: &Error) -> bool {
    match error.code {
        Code::DeadlineExceeded => error.field.as_deref() == Some("grpc-timeout"),
        Code::Cancelled => status.get_error_details().error_info().is_none(),
        _ => false,
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let from_server = status.source().is_none();
        if from_server {
            let error = Error::from(&status);
            if ended_at_our_deadline(&status, &error) {
                return Self {
                    error: Error::local(Code::DeadlineExceeded, TIMEOUT, "no answer in time"),
                    reached: Reached::Perhaps,
                    node_at_fault: true,
                };
            }
            let reached = if says_nothing_stored(&status, &error) {
                Reached::Refused
            } else {
                Reached::Perhaps
            };
            // Without our details it was no node of ours that spoke: a proxy, or the HTTP layer of a dying process.
            let node_at_fault = error.code == Code::Unavailable && status.get_error_details().error_info().is_none();
            return Self {
                error,
                reached,
                node_at_fault,
            };
        }
        if matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted) {
            return Self {
                error: Error::from(&status),
                reached: Reached::Perhaps,
                node_at_fault: false,
            };
        }
        if caused_by::<tonic::TimeoutExpired>(&status) {
            let error = Error::local(Code::DeadlineExceeded, TIMEOUT, "no answer in time");
            return Self {
                error,
                reached: Reached::Perhaps,
                node_at_fault: true,
            };
        }
        let reached = if caused_by::<tonic::ConnectError>(&status) {
            Reached::Nothing
        } else {
            Reached::Perhaps
        };
        let message = format!("connection failed: {}", deepest(&status));
        Self {
            error: Error::local(Code::Unavailable, "CONNECTION_FAILED", message),
            reached,
            node_at_fault: true,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Failed::from(status).error
    }
}

impl From<&Status> for Error {
    fn from(status: &Status) -> Self {
        let mut error = Self::local(status.code(), "", status.message());
        let details = status.get_error_details();
        if let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN) {
            error.reason.clone_from(&info.reason);
            error.field = info.metadata.get("field").filter(|text| !text.is_empty()).cloned();
            error.hint = info.metadata.get("hint").filter(|text| !text.is_empty()).cloned();
        }
        for violation in details.bad_request().map_or(&[][..], |bad| &bad.field_violations) {
            match row_and_rest(&violation.field) {
                Some((row, rest)) => error.rows.push(RowError {
                    row,
                    reason: violation.reason.clone(),
                    message: violation.description.clone(),
                    field: rest.to_owned(),
                }),
                None => error.field = error.field.take().or_else(|| Some(violation.field.clone())),
            }
        }
        error.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        error.finish()
    }
}

impl From<v1::Failure> for Error {
    fn from(failure: v1::Failure) -> Self {
        let mut error = Self::local(Code::from_i32(failure.code), &failure.reason, failure.message);
        error.field = Some(failure.field).filter(|text| !text.is_empty());
        error.hint = Some(failure.hint).filter(|text| !text.is_empty());
        error.retry_after = u64::try_from(failure.retry_after_ms)
            .ok()
            .filter(|ms| *ms > 0)
            .map(Duration::from_millis);
        error.rows = failure
            .rows
            .into_iter()
            .map(|row| RowError {
                row: row.row,
                reason: row.reason,
                message: row.message,
                field: row.field,
            })
            .collect();
        error.finish()
    }
}

impl Error {
    /// The error of one part of a longer list: positions become those of the whole list.
    pub(crate) fn shifted(mut self, list: &str, by: usize) -> Self {
        if let Some(field) = &self.field
            && let Some((position, rest)) = field
                .strip_prefix(list)
                .and_then(|rest| rest.strip_prefix('[')?.split_once(']'))
            && let Ok(position) = position.parse::<usize>()
        {
            self.field = Some(format!("{list}[{}]{rest}", position + by));
        }
        for row in &mut self.rows {
            row.row = row.row.saturating_add(u32::try_from(by).unwrap_or(u32::MAX));
        }
        self
    }

    fn finish(mut self) -> Self {
        self.kind = kind_of(&self);
        if self.reason.is_empty() {
            self.reason = code_name(self.code).to_owned();
        }
        if self.message.is_empty() {
            self.message = self.code.description().to_lowercase();
        }
        self
    }
}

/// What each code asks of the caller.
fn kind_of(error: &Error) -> ErrorKind {
    match error.code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::OutOfRange
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => ErrorKind::Fix,
        Code::Unavailable | Code::Aborted | Code::DeadlineExceeded | Code::Cancelled => ErrorKind::Retry,
        Code::ResourceExhausted if error.retry_after.is_some() => ErrorKind::Retry,
        // No later moment makes a request smaller.
        Code::ResourceExhausted
            if error.field.is_some() || error.reason.ends_with("TOO_LARGE") || error.reason.starts_with("TOO_MANY") =>
        {
            ErrorKind::Fix
        }
        _ => ErrorKind::GiveUp,
    }
}

/// True when the answer itself promises that no shard holds any part of the request.
fn says_nothing_stored(status: &Status, error: &Error) -> bool {
    let details = status.get_error_details();
    let ours = details.error_info().filter(|info| info.domain == DOMAIN);
    match ours.and_then(|info| info.metadata.get("stored")).map(String::as_str) {
        Some(stored) => stored == "nothing",
        None => error.kind == ErrorKind::Fix,
    }
}

/// `rows[17]` and `batch.rows[17].level` → 17 and what follows.
fn row_and_rest(field: &str) -> Option<(u32, &str)> {
    let field = field.strip_prefix("batch.").unwrap_or(field);
    let (row, rest) = field.strip_prefix("rows[")?.split_once(']')?;
    Some((row.parse().ok()?, rest.strip_prefix('.').unwrap_or(rest)))
}

fn caused_by<E: std::error::Error + 'static>(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<E>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost cause: "connection refused" rather than "transport error".
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().to_lowercase()
}

/// The name of a code as the gRPC specification spells it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_call_that_the_server_ended_at_our_deadline_timed_out() {
        let with_field = |field: &str| {
            let metadata = [("field".to_owned(), field.to_owned())];
            let details = ErrorDetails::with_error_info("DEADLINE_EXCEEDED", "tidemark", metadata);
            Status::with_error_details(Code::DeadlineExceeded, "", details)
        };
        for (status, timed_out) in [
            (with_field("grpc-timeout"), true),
            (Status::cancelled("Timeout expired"), true),
            (with_field(""), false),
            (Status::deadline_exceeded(""), false),
        ] {
            let failed = Failed::from(status.clone());
            assert_eq!(
                (failed.is_timeout(), failed.node_at_fault),
                (timed_out, timed_out),
                "{status:?}"
            );
        }
    }
}
