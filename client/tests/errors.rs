//! What arrives as a failed call or as a failure in a stream gives one and the same error. Never here: retries.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, time::Duration};

use tidemark_client::{Code, Error, ErrorKind, RowError, v1};
use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

#[test]
fn each_code_says_what_to_do() {
    use ErrorKind::{Fix, GiveUp, Retry};
    let check = |code: Code, kind: ErrorKind| {
        assert_eq!(Error::from(Status::new(code, "x")).kind, kind, "{code:?}");
        assert_eq!(
            Error::from(v1::Failure {
                code: code as i32,
                ..Default::default()
            })
            .kind,
            kind,
            "{code:?}"
        );
    };
    for code in [
        Code::InvalidArgument,
        Code::NotFound,
        Code::OutOfRange,
        Code::FailedPrecondition,
    ] {
        check(code, Fix);
    }
    for code in [
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::Unimplemented,
        Code::Unauthenticated,
    ] {
        check(code, Fix);
    }
    for code in [Code::Unavailable, Code::Aborted, Code::DeadlineExceeded] {
        check(code, Retry);
    }
    for code in [Code::DataLoss, Code::Internal, Code::ResourceExhausted, Code::Unknown] {
        check(code, GiveUp);
    }
}

#[test]
fn exhausted_is_for_a_retry_only_where_the_server_names_a_time() {
    let busy = ErrorDetails::with_retry_info(Some(Duration::from_millis(250)));
    let error = Error::from(Status::with_error_details(Code::ResourceExhausted, "busy", busy));
    assert_eq!(
        (error.kind, error.retry_after),
        (ErrorKind::Retry, Some(Duration::from_millis(250)))
    );
    let busy = v1::Failure {
        code: Code::ResourceExhausted as i32,
        retry_after_ms: 250,
        ..Default::default()
    };
    let error = Error::from(busy);
    assert_eq!(
        (error.kind, error.retry_after),
        (ErrorKind::Retry, Some(Duration::from_millis(250)))
    );
    let large = v1::Failure {
        code: Code::ResourceExhausted as i32,
        reason: "BATCH_TOO_LARGE".into(),
        ..Default::default()
    };
    assert_eq!(Error::from(large).kind, ErrorKind::Fix);
}

#[test]
fn details_and_failure_carry_the_same_facts() {
    let metadata = HashMap::from([
        ("field".to_owned(), "batch.columns[2].values".to_owned()),
        ("hint".to_owned(), "send floats".to_owned()),
    ]);
    let mut details = ErrorDetails::with_error_info("WRONG_VALUE_TYPE", "tidemark", metadata);
    let mut violation = FieldViolation::new("rows[17].level", "an integer where a float belongs");
    violation.reason = "WRONG_VALUE_TYPE".to_owned();
    details.set_bad_request(vec![
        violation,
        FieldViolation::new("batch.rows[18]", "late"),
        FieldViolation::new("batch", "bad"),
    ]);
    let status = Status::with_error_details(Code::InvalidArgument, "2 bad rows", details);

    let row =
        |row, reason: &str, message: &str, field: &str| (row, reason.to_owned(), message.to_owned(), field.to_owned());
    let rows = [
        row(17, "WRONG_VALUE_TYPE", "an integer where a float belongs", "level"),
        row(18, "", "late", ""),
    ];
    let failure = v1::Failure {
        code: Code::InvalidArgument as i32,
        reason: "WRONG_VALUE_TYPE".into(),
        message: "2 bad rows".into(),
        field: "batch.columns[2].values".into(),
        rows: rows
            .iter()
            .cloned()
            .map(|(row, reason, message, field)| v1::RowFailure {
                row,
                reason,
                message,
                field,
            })
            .collect(),
        hint: "send floats".into(),
        retry_after_ms: 0,
    };
    let expected = Error {
        kind: ErrorKind::Fix,
        code: Code::InvalidArgument,
        reason: "WRONG_VALUE_TYPE".into(),
        message: "2 bad rows".into(),
        field: Some("batch.columns[2].values".into()),
        rows: rows
            .iter()
            .cloned()
            .map(|(row, reason, message, field)| RowError {
                row,
                reason,
                message,
                field,
            })
            .collect(),
        hint: Some("send floats".into()),
        retry_after: None,
    };
    assert_eq!(Error::from(status), expected);
    assert_eq!(Error::from(failure), expected);
    assert_eq!(
        expected.to_string(),
        "2 bad rows (field batch.columns[2].values); send floats"
    );
}

#[test]
fn a_bare_status_has_the_name_of_its_code_as_reason() {
    let error = Error::from(Status::new(Code::NotFound, ""));
    assert_eq!(
        (error.reason.as_str(), error.field, error.rows.len()),
        ("NOT_FOUND", None, 0)
    );
    assert!(!error.message.is_empty());
    let foreign = ErrorDetails::with_error_info("X", "example.com", HashMap::new());
    assert_eq!(
        Error::from(Status::with_error_details(Code::Aborted, "x", foreign)).reason,
        "ABORTED"
    );
}
