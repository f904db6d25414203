//! The command as a script meets it: help, exit codes, streams. No server is needed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::net::TcpListener;
use std::path::Path;

use assert_cmd::Command;

fn tidemark() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tidemark"));
    for variable in ["TIDEMARK_ENDPOINT", "TIDEMARK_OUTPUT", "TIDEMARK_TIMEOUT"] {
        command.env_remove(variable);
    }
    command.env("NO_COLOR", "1").env("COLUMNS", "120");
    command
}

/// Standard output, standard error and the exit code.
fn outcome(arguments: &[&str]) -> (String, String, i32) {
    let output = tidemark().args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().unwrap(),
    )
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

const VERBS: [&[&str]; 44] = [
    &[],
    &["cluster"],
    &["cluster", "init"],
    &["cluster", "join"],
    &["cluster", "status"],
    &["type"],
    &["type", "apply"],
    &["type", "show"],
    &["device"],
    &["device", "import"],
    &["device", "list"],
    &["device", "maintenance"],
    &["device", "delete-points"],
    &["ingest"],
    &["query", "range"],
    &["query", "agg"],
    &["query", "latest"],
    &["query", "intervals"],
    &["query", "join"],
    &["query", "quality"],
    &["query", "health"],
    &["alert"],
    &["alert", "list"],
    &["alert", "ack"],
    &["alert", "profile"],
    &["watch"],
    &["backup"],
    &["backup", "create"],
    &["backup", "prune"],
    &["backup", "restore"],
    &["completion"],
    &["node"],
    &["node", "add"],
    &["node", "remove"],
    &["node", "replace"],
    &["shard"],
    &["shard", "move"],
    &["shard", "check"],
    &["shard", "compact"],
    &["rebalance"],
    &["job"],
    &["job", "cancel"],
    &["top"],
    &["doctor"],
];

#[test]
fn help_of_every_verb() {
    for verb in VERBS {
        let mut arguments = verb.to_vec();
        arguments.push("--help");
        let (out, err, code) = outcome(&arguments);
        assert_eq!((err.as_str(), code), ("", 0), "{verb:?}");
        let name = if verb.is_empty() {
            "tidemark".to_owned()
        } else {
            verb.join("_")
        };
        insta::assert_snapshot!(format!("help_{name}"), out);
    }
}

#[test]
fn a_wrong_command_line_exits_2_and_prints_no_data() {
    for arguments in [
        &["frobnicate"][..],
        &["query", "range", "--type", "t"],
        &["query", "range", "--type", "t", "--from", "noon"],
        &[
            "query",
            "range",
            "--type",
            "t",
            "--from",
            "2024-06-21",
            "--to",
            "2024-06-20",
        ],
        &["query", "range", "--since", "6h"],
        &["query", "agg", "--type", "t", "--since", "6h"],
        &["query", "agg", "--type", "t", "--since", "6h", "--fn", "median"],
        &[
            "query", "agg", "--type", "t", "--since", "6h", "--fn", "avg", "--every", "0s",
        ],
        &[
            "query",
            "agg",
            "--type",
            "t",
            "--since",
            "6h",
            "--fn",
            "avg",
            "--calendar",
            "day",
            "--every",
            "1h",
        ],
        &[
            "query",
            "agg",
            "--type",
            "t",
            "--since",
            "6h",
            "--fn",
            "avg",
            "--calendar",
            "day",
            "--origin",
            "noon",
        ],
        &[
            "query",
            "agg",
            "--type",
            "t",
            "--since",
            "6h",
            "--fn",
            "avg",
            "--tz",
            "Asia/Shanghai",
        ],
        &[
            "query", "agg", "--type", "t", "--since", "6h", "--fn", "avg", "--fill", "next",
        ],
        &["query", "latest", "--type", "t", "--consistency", "eventual"],
        &["query", "latest", "--tag", "town"],
        &["device", "import"],
        &["device", "import", "a.csv", "--catalogue", "c.toml"],
        &["ingest", "a.csv"],
        &["ingest", "a.csv", "--type", "t", "--batch", "0"],
        &["cluster", "init", "--shards", "many"],
        &["node", "drain"],
        &["node", "replace", "3"],
        &["node", "drain", "3", "--limit-rate", "fast"],
        &["node", "drain", "3", "--wait", "forever"],
        &["shard", "check"],
        &["shard", "compact"],
        &["shard", "move", "3", "--to", "4"],
        &["rebalance", "--max-moves", "0"],
        &["top", "--every", "1ms"],
        &["type", "list", "--output", "xml"],
        &["type", "list", "--timeout", "soon"],
    ] {
        let (out, err, code) = outcome(arguments);
        assert_eq!((out.as_str(), code), ("", 2), "{arguments:?}: {err}");
        assert!(err.starts_with("error: "), "{arguments:?}: {err}");
    }
}

#[test]
fn an_unreachable_server_exits_3_and_says_what_to_run_next() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("a.csv");
    std::fs::write(&csv, "device,time_ns,level\na,1,2\n").unwrap();
    let csv = csv.to_str().unwrap();
    let address = nobody();
    for arguments in [
        &["cluster", "status"][..],
        &["cluster", "init"],
        &["type", "list"],
        &["device", "list"],
        &["ingest", csv, "--type", "t"],
        &["query", "latest", "--type", "t"],
        &["version", "--server"],
        &["node", "list"],
        &["rebalance", "--dry-run"],
        &["job", "watch", "1"],
        &["top", "--once"],
        &["doctor"],
    ] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--endpoint", &address, "--timeout", "2s"]);
        let (out, err, code) = outcome(&arguments);
        assert_eq!((out.as_str(), code), ("", 3), "{arguments:?}: {err}");
        let lines: Vec<_> = err.lines().collect();
        assert_eq!(lines[0], format!("error: cannot connect to {address}"), "{arguments:?}");
        assert!(
            lines[1].starts_with("  why: ") && lines[2].starts_with("  next: "),
            "{arguments:?}: {err}"
        );
    }
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["a.csv"], "a run that never began leaves nothing behind");
}

#[test]
fn errors_have_a_machine_form() {
    let address = nobody();
    let (out, err, code) = outcome(&["-o", "json", "-e", &address, "type", "show", "x"]);
    assert_eq!((out.as_str(), code), ("", 3));
    let error: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert_eq!(
        (error["kind"].as_str(), error["schema"].as_i64(), error["exit"].as_i64()),
        (Some("error"), Some(1), Some(3))
    );
    assert!(error["why"].as_str().is_some_and(|why| !why.is_empty()), "{err}");
}

#[test]
fn settings_come_from_variables_too_and_flags_win() {
    let address = nobody();
    let run = |flags: &[&str]| {
        let output = tidemark()
            .env("TIDEMARK_ENDPOINT", "127.0.0.1:1,127.0.0.1:2")
            .env("TIDEMARK_OUTPUT", "json")
            .args(["type", "list"])
            .args(flags)
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(
        run(&[]).contains("\"what\":\"cannot connect to 127.0.0.1:1, 127.0.0.1:2\""),
        "{}",
        run(&[])
    );
    assert!(run(&["-o", "table", "-e", &address]).starts_with(&format!("error: cannot connect to {address}\n")));
}

#[test]
fn files_are_judged_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let bad_type = write(
        "t.toml",
        "[[device_type]]\nid = \"t\"\nproperties = [{ id = \"p\", value_type = \"f32\", kind = \"gauge\" }]\n",
    );
    let (_, err, code) = outcome(&["type", "apply", &bad_type]);
    assert_eq!(code, 2);
    assert!(
        err.contains("t.toml: type t: property p: unknown value_type `f32`"),
        "{err}"
    );
    let bad_devices = write("d.csv", "id,lat\na,1\n");
    let (_, err, code) = outcome(&["device", "import", &bad_devices]);
    assert_eq!(code, 2);
    assert!(err.contains("d.csv: no column device_type"), "{err}");
    let empty = write("e.csv", "");
    assert_eq!(outcome(&["ingest", &empty, "--type", "t"]).2, 2);
    let missing = folder.path().join("none.csv");
    let (_, err, code) = outcome(&["ingest", missing.to_str().unwrap(), "--type", "t"]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot read") && err.contains("none.csv"), "{err}");
}

#[test]
fn completion_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (out, err, code) = outcome(&["completion", shell]);
        assert_eq!((err.as_str(), code), ("", 0), "{shell}");
        assert!(out.contains("tidemark") && out.contains("ingest"), "{shell}");
    }
}

#[test]
fn version_needs_no_server() {
    let (out, err, code) = outcome(&["-o", "json", "version"]);
    assert_eq!((err.as_str(), code), ("", 0));
    let version: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (version["kind"].as_str(), version["schema"].as_i64()),
        (Some("version"), Some(1))
    );
    assert_eq!(version["versions"][0]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::{Command, Stdio};
    let program = Path::new(env!("CARGO_BIN_EXE_tidemark"));
    let mut child = Command::new(program)
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
