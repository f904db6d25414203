//! The table of reasons that users of the contract find in `proto/README.md`, as the code has it.
//! Never here: when a reason is given (`refusals.rs` and others). Rewritten with `TIDEMARK_REASONS=write`.

use std::path::Path;

use tidemark_client::ErrorKind;
use tidemark_node::error::{Code, Error, Reason};
use tidemark_node::wire::status::to_failure;

const BEGIN: &str = "| reason | code | do | exit | what it means |\n| --- | --- | --- | --- | --- |\n";
const END: &str = "\n\n";

fn code(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "CANCELLED",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
    }
}

/// As `tidemark` ends; its own tests hold the table to what it does.
fn exit(code: Code, kind: ErrorKind) -> u8 {
    match code {
        Code::DeadlineExceeded => 124,
        Code::NotFound => 4,
        Code::FailedPrecondition => 6,
        Code::ResourceExhausted if kind == ErrorKind::Retry => 3,
        Code::Unavailable | Code::Cancelled => 3,
        _ => 1,
    }
}

fn row(reason: Reason) -> String {
    let error = Error::new(reason, "");
    let kind = tidemark_client::Error::from(to_failure(&error)).kind;
    let what_to_do = match kind {
        ErrorKind::Fix => "fix",
        ErrorKind::Retry => "retry",
        ErrorKind::GiveUp => "give up",
    };
    format!(
        "| `{}` | {} | {what_to_do} | {} | {} |",
        reason.as_str(),
        code(error.code()),
        exit(error.code(), kind),
        reason.meaning()
    )
}

#[test]
fn every_reason_is_in_the_table_of_the_contract() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the head of the table");
    let (found, after) = rest.split_once(END).expect("an empty line behind the table");
    let rows: Vec<String> = Reason::ALL.iter().map(|reason| row(*reason)).collect();
    let expected = rows.join("\n");
    if std::env::var("TIDEMARK_REASONS").is_ok_and(|what| what == "write") {
        std::fs::write(&path, [before, BEGIN, &expected, END, after].concat()).unwrap();
        return;
    }
    assert_eq!(found, expected, "TIDEMARK_REASONS=write rewrites the table");
}
