//! Failures on the wire: `Error` to `tonic::Status` with google.rpc details, and to and from `Failure` messages.

use std::collections::HashMap;
use std::time::Duration;

use tidemark_proto::v1::{Failure, RowFailure};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::error::{Error, Reason, RowError};
use crate::metrics::OK;

/// Domain of every `ErrorInfo` of this store.
pub const DOMAIN: &str = "tidemark";

/// The whole error as a gRPC status: ErrorInfo, BadRequest (field and rows), RetryInfo.
pub fn to_status(error: &Error) -> Status {
    let mut details = ErrorDetails::new();
    let mut metadata = HashMap::new();
    let mut violations = Vec::new();
    let violation = |field: &str, description: &str, reason: Reason| FieldViolation {
        field: field.to_string(),
        description: description.to_string(),
        reason: reason.as_str().to_string(),
        localized_message: None,
    };
    if !error.field_path().is_empty() {
        metadata.insert("field".to_string(), error.field_path().to_string());
        // Where rows are named, the field only repeats the first of them.
        if error.bad_rows().is_empty() {
            violations.push(violation(error.field_path(), error.message(), error.reason()));
        }
    }
    if !error.hint_text().is_empty() {
        metadata.insert("hint".to_string(), error.hint_text().to_string());
    }
    let stored = match error.reason() {
        Reason::PartlyStored => Some("part"),
        reason => reason.stored_nothing().then_some("nothing"),
    };
    if let Some(stored) = stored {
        metadata.insert("stored".to_string(), stored.to_string());
    }
    violations.extend(
        error
            .bad_rows()
            .iter()
            .map(|row| violation(&row_path(row), &row.message, row.reason)),
    );
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    details.set_error_info(error.reason().as_str(), DOMAIN, metadata);
    if error.retry_after() > 0 {
        details.set_retry_info(Some(Duration::from_millis(error.retry_after())));
    }
    Status::with_error_details(Code::from_i32(error.code() as i32), error.message(), details)
}

fn row_path(row: &RowError) -> String {
    if row.field.is_empty() {
        format!("rows[{}]", row.row)
    } else {
        format!("rows[{}].{}", row.row, row.field)
    }
}

/// The same facts as a message, for answers that fail in part.
pub fn to_failure(error: &Error) -> Failure {
    Failure {
        code: error.code() as i32,
        reason: error.reason().as_str().to_string(),
        message: error.message().to_string(),
        field: error.field_path().to_string(),
        rows: error.bad_rows().iter().map(row_failure).collect(),
        hint: error.hint_text().to_string(),
        retry_after_ms: error.retry_after() as i64,
    }
}

fn row_failure(row: &RowError) -> RowFailure {
    RowFailure {
        row: row.row,
        reason: row.reason.as_str().to_string(),
        message: row.message.clone(),
        field: row.field.clone(),
    }
}

/// A failure decided on another node, or while applying. A reason this version does not know becomes `INTERNAL`.
pub fn from_failure(failure: Failure) -> Error {
    let reason = Reason::parse(&failure.reason).unwrap_or(Reason::Internal);
    let rows = failure.rows.into_iter().map(|row| RowError {
        row: row.row,
        reason: Reason::parse(&row.reason).unwrap_or(Reason::Internal),
        message: row.message,
        field: row.field,
    });
    Error::new(reason, failure.message)
        .field(failure.field)
        .hint(failure.hint)
        .rows(rows.collect())
        .retry_after_ms(failure.retry_after_ms.max(0) as u64)
}

/// What the gRPC library says of bytes that are no message: not decoded, cut short, with a flag that does not exist, none at all.
const NO_MESSAGE: [&str; 4] = [
    "decode Protobuf",
    "Unexpected EOF decoding stream",
    "protocol error: received message with",
    "Missing request message",
];

/// What a refusal by the gRPC library itself means; `None` for failures of ours, which carry details.
pub fn library_refusal(status: &Status) -> Option<Error> {
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        Code::OutOfRange if status.message().contains("message length too large") => {
            Some(Error::new(Reason::MessageTooLarge, status.message()).hint("send smaller batches"))
        }
        Code::Internal if NO_MESSAGE.iter().any(|said| status.message().contains(said)) => {
            Some(Error::new(Reason::MalformedMessage, status.message()))
        }
        _ => None,
    }
}

/// How a request ended, as a label: `OK`, the reason of its failure, or the code of one that is not ours.
pub fn end_of(status: &Status) -> &'static str {
    if status.code() == Code::Ok {
        return OK;
    }
    let details = status.get_error_details();
    let reason = details.error_info().and_then(|info| Reason::parse(&info.reason));
    reason.map_or_else(|| code_name(status.code()), Reason::as_str)
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "CANCELLED",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Internal => "INTERNAL",
        _ => "UNKNOWN",
    }
}

/// True where a request provably never left this node.
pub fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What another node's status means here: its reason where it carries one, else `UNREACHABLE`.
pub fn from_status(status: &Status) -> Error {
    let details = status.get_error_details();
    let info = details.error_info();
    let fact = |key: &str| {
        info.and_then(|info| info.metadata.get(key))
            .cloned()
            .unwrap_or_default()
    };
    let reason = info.and_then(|info| Reason::parse(&info.reason));
    match (reason, status.code()) {
        (Some(reason), _) => Error::new(reason, status.message())
            .field(fact("field"))
            .hint(fact("hint")),
        (None, Code::DeadlineExceeded) => Error::new(Reason::DeadlineExceeded, status.message()),
        (None, _) => Error::new(Reason::Unreachable, status.message()),
    }
}
