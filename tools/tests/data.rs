//! Data in and out by the command line, against a store in memory: what is refused, resumed, paged. Never: a real node.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "fake/store.rs"]
mod store;

use std::path::Path;

use assert_cmd::Command;
use store::Store;

/// Standard output, standard error and the exit code.
fn run(store: &Store, folder: &Path, arguments: &[&str]) -> (String, String, i32) {
    run_with(store, folder, arguments, "")
}

/// The same with this on standard input.
fn run_with(store: &Store, folder: &Path, arguments: &[&str], input: &str) -> (String, String, i32) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tidemark"));
    for variable in ["TIDEMARK_OUTPUT", "TIDEMARK_TIMEOUT"] {
        command.env_remove(variable);
    }
    command.env("TIDEMARK_ENDPOINT", &store.address).current_dir(folder);
    let output = command.args(arguments).write_stdin(input).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().unwrap(),
    )
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A file of so many rows, of devices `d0` to `d9` in turn.
fn write_file(folder: &Path, rows: usize) {
    let mut text = String::from("device,time_s,level\n");
    for row in 0..rows {
        text += &format!("d{},{},{row}\n", row % 10, 1_000 + row);
    }
    std::fs::write(folder.join("f.csv"), text).unwrap();
}

#[test]
fn an_import_of_unknown_devices_says_so_and_goes_on_when_they_are_registered() {
    let (store, folder) = (Store::start(&[]), tempfile::tempdir().unwrap());
    let folder = folder.path();
    write_file(folder, 30_000);
    let ingest = ["ingest", "f.csv", "--type", "tank"];
    let (out, err, code) = run(&store, folder, &ingest);
    assert_eq!((out.as_str(), code), ("", 4), "{err}");
    assert!(err.contains("line 2: UNKNOWN_DEVICE: no such device: d0"), "{err}");
    assert!(err.contains("next: the same command with --register"), "{err}");
    assert!(*store.state.writes.lock().unwrap() <= 10);
    let progress = std::fs::metadata(folder.join("f.csv.tidemark-progress")).unwrap();
    assert!(progress.len() < 2_000, "{} bytes", progress.len());

    let (_, err, code) = run(&store, folder, &[&ingest[..], &["--register"]].concat());
    assert_eq!(code, 0, "{err}");
    assert_eq!(store.state.values.lock().unwrap().len(), 30_000);
    assert!(!folder.join("f.csv.rejected.csv").exists());

    let store = Store::start(&[("d3", "tank")]);
    let (_, err, code) = run(&store, folder, &[&ingest[..], &["--keep-going"]].concat());
    assert_eq!(code, 7, "{err}");
    assert!(
        err.contains("27000 rows were rejected") && err.contains("why: 27000 UNKNOWN_DEVICE"),
        "{err}"
    );
    assert!(
        err.contains("look at f.csv.rejected.csv; --register registers"),
        "{err}"
    );
    assert_eq!(store.state.values.lock().unwrap().len(), 3_000);
    assert!(*store.state.writes.lock().unwrap() < 40);
}

#[test]
fn who_reads_json_gets_no_remarks_among_it() {
    let (store, folder) = (Store::start(&[("p1", "pump")]), tempfile::tempdir().unwrap());
    // Times and a column about which people get a remark each, and a device that cannot be registered.
    let text = "device,time,L,x\np1,1700000000,1,1\n";
    std::fs::write(folder.path().join("f.csv"), text).unwrap();
    let ingest = ["ingest", "f.csv", "-t", "tank", "--register", "--map", "level=L"];
    let (_, err, code) = run(&store, folder.path(), &ingest);
    assert_eq!(code, 7, "{err}");
    assert!(
        err.contains("left out: x (") && err.contains("are read as seconds"),
        "{err}"
    );
    assert!(err.contains("not registered, its rows are rejected: p1"), "{err}");
    let (_, err, code) = run(&store, folder.path(), &[&ingest[..], &["-o", "json"]].concat());
    assert_eq!(code, 7, "{err}");
    assert_eq!(json(&err)["exit"], 7);
}

#[test]
fn devices_that_cannot_be_registered_are_rejects_and_end_no_import() {
    let (store, folder) = (
        Store::start(&[("p1", "pump"), ("p2", "pump"), ("p3", "pump")]),
        tempfile::tempdir().unwrap(),
    );
    let folder = folder.path();
    let text = "device,time_s,level\nd1,1,1\nStation 4,2,2\np1,3,3\nd2,4,4\np2,5,5\np3,6,6\nd1,7,7\n";
    std::fs::write(folder.join("f.csv"), text).unwrap();
    let (_, err, code) = run(&store, folder, &["ingest", "f.csv", "-t", "tank", "--register"]);
    assert_eq!(code, 7, "{err}");
    assert!(
        err.contains("not registered, its rows are rejected: Station 4 (an id has"),
        "{err}"
    );
    assert!(
        err.contains("rejected: p2 (it is there, and not of type tank)"),
        "{err}"
    );
    // All, then without p1; p2 and p3 are found by one question.
    assert_eq!(*store.state.registrations.lock().unwrap(), 2);
    let stored: Vec<_> = store.state.values.lock().unwrap().keys().cloned().collect();
    assert_eq!(
        stored,
        ["d1@1000000000 level", "d1@7000000000 level", "d2@4000000000 level"]
    );
    let rejects = std::fs::read_to_string(folder.join("f.csv.rejected.csv")).unwrap();
    let lines: Vec<_> = rejects.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "line,reason,row",
            "3,INVALID_ID",
            "4,WRONG_DEVICE_TYPE",
            "6,WRONG_DEVICE_TYPE",
            "7,WRONG_DEVICE_TYPE"
        ]
    );
}

#[test]
fn another_stream_does_not_go_on_where_the_last_one_stopped() {
    let (store, folder) = (Store::start(&[("d1", "tank")]), tempfile::tempdir().unwrap());
    let rows = |from: usize| {
        let rows = (from..from + 25_000).map(|row| format!("d1,{row},1\n"));
        format!("device,time_s,level\n{}", rows.collect::<String>())
    };
    let ingest = ["ingest", "-", "-t", "tank", "--state", "progress", "--timeout", "1s"];
    // A first stream of which a part is in, as its progress file says.
    let (_, err, code) = run_with(&store, folder.path(), &ingest, &rows(1));
    assert_eq!(code, 0, "{err}");
    let keep = |input: &str| {
        *store.state.stop_after.lock().unwrap() = Some(3);
        let (_, err, code) = run_with(&store, folder.path(), &ingest, input);
        assert_eq!(code, 6, "{err}");
        *store.state.stop_after.lock().unwrap() = None;
    };
    keep(&rows(1));
    let (_, err, code) = run_with(&store, folder.path(), &ingest, &rows(1));
    assert!(code == 0 && err.contains("going on after"), "{err}");
    keep(&rows(1));
    let (_, err, code) = run_with(&store, folder.path(), &ingest, &rows(100_000));
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains("progress is of another file, mapping or cluster: beginning anew"),
        "{err}"
    );
    assert_eq!(store.state.values.lock().unwrap().len(), 50_000);
}

#[test]
fn the_same_command_with_the_cursor_goes_on() {
    let store = Store::start(&[
        ("d1", "tank"),
        ("d2", "tank"),
        ("d3", "tank"),
        ("d4", "tank"),
        ("d5", "tank"),
    ]);
    let folder = Path::new(".");
    for flags in [
        &["--since", "3h"][..],
        &["--from", "2024-06-20"],
        &["--from", "now-3h", "--to", "now-1h", "--known-at", "now-10m"],
        &["--from", "2024-06-20", "--to", "2024-06-21"],
    ] {
        let question = [
            &["query", "range", "--all-devices", "--limit", "2", "-o", "json"],
            flags,
        ]
        .concat();
        let (mut seen, mut cursor): (_, Option<String>) = (Vec::new(), None);
        loop {
            let more: Vec<&str> = cursor.iter().flat_map(|cursor| ["--cursor", cursor.as_str()]).collect();
            let (out, err, code) = run(&store, folder, &[&question[..], &more].concat());
            assert_eq!(code, 0, "{flags:?}: {err}");
            let answer = json(&out);
            let records = answer["records"].as_array().unwrap();
            seen.extend(records.iter().map(|row| row["device"].as_str().unwrap().to_owned()));
            match answer["summary"]["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(seen, ["d1", "d2", "d3", "d4", "d5"], "{flags:?}");
    }
    let first = ["query", "range", "--all-devices", "--limit", "2", "--since", "3h"];
    let (_, err, _) = run(&store, folder, &first);
    let cursor = err.trim().rsplit(' ').next().unwrap().to_owned();
    let (_, err, code) = run(
        &store,
        folder,
        &[&first[..5], &["--since", "4h", "--cursor", &cursor]].concat(),
    );
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("the cursor belongs to another question"), "{err}");
}
