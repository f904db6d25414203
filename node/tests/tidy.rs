//! The fences of the house as tests: who may use whom, who may name which library, how long a thing may be.
//! Never here: behaviour. Every rule is a table and a test of its own; a failure names file and line.
//! Reads source text only (`tidy/source.rs`), so it finds also what `#[cfg]` hides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;

use source::{
    Source, blank, dependencies, find, functions, node_sources, read_all, root, sources, starts_a_path, uses,
};

#[path = "tidy/source.rs"]
mod source;

/// Modules of the node, lowest first: a module uses only those before it.
const ORDER: &[&str] = &[
    "config",
    "clock",
    "limits",
    "error",
    "identity",
    "disk",
    "metrics",
    "tls",
    "catalog",
    "placement",
    "store",
    "shard",
    "wire",
    "peers",
    "raft",
    "route",
    "cluster",
    "write",
    "alert",
    "query",
    "delete",
    "subscribe",
    "backup",
    "api",
    "server",
];

/// Uses against the order: (user, used, why).
const UPWARD: &[(&str, &str, &str)] = &[];

/// Names that only some modules of the node may write outside of tests: (name, modules, why).
const NAMED_BY: &[(&str, &[&str], &str)] = &[
    ("rocksdb", &["store"], "one place knows how things lie on disk"),
    (
        "openraft",
        &["raft"],
        "the library can be exchanged or upgraded in one place",
    ),
    (
        "tidemark_proto",
        &[
            "wire",
            "api",
            "peers",
            "catalog",
            "shard",
            "raft",
            "route",
            "cluster",
            "write",
            "alert",
            "query",
            "delete",
            "subscribe",
            "backup",
            "server",
        ],
        "wire, api and peers speak it; catalog and shard store and apply commands, raft, route, cluster and write \
         carry them, alert makes commands of states, query and subscribe pass requests to other nodes, delete proposes removals, backup lists files as the contract does, server names the services; everything else knows our own \
         types only",
    ),
    (
        "SystemTime",
        &["clock"],
        "applying must not depend on a clock, and tests set it",
    ),
    (
        "Instant::now",
        &[
            "clock", "metrics", "store", "peers", "raft", "write", "query", "api", "server",
        ],
        "deadlines and durations; never where a command is applied or decoded",
    ),
    ("env::var", &["config"], "settings have one origin that can be printed"),
    ("env::vars", &["config"], "settings have one origin that can be printed"),
    (
        "env::var_os",
        &["config"],
        "settings have one origin that can be printed",
    ),
    ("tikv_jemallocator", &["main"], "the program chooses the allocator"),
];

/// Packages that a crate must not depend on, not even for its tests: (manifest, packages, why).
const NOT_IN_MANIFEST: &[(&str, &[&str], &str)] = &[
    (
        "node/series/Cargo.toml",
        &[
            "tokio",
            "tonic",
            "rocksdb",
            "prost",
            "openraft",
            "tidemark-proto",
            "serde",
        ],
        "series is pure: numbers and bytes",
    ),
    (
        "client/Cargo.toml",
        &["tidemark-node", "tidemark-series", "rocksdb", "openraft"],
        "a client is small and knows the contract only",
    ),
    (
        "tools/Cargo.toml",
        &["tidemark-node", "tidemark-series", "rocksdb", "openraft"],
        "tools decide nothing that the server should",
    ),
    (
        "bench/Cargo.toml",
        &["tidemark-node", "tidemark-series", "rocksdb", "openraft"],
        "bench measures from outside",
    ),
    (
        "proto/Cargo.toml",
        &["tidemark-node", "tidemark-series", "tidemark-client", "tokio"],
        "the contract, no logic",
    ),
];

/// Functions of tests that may sleep between two looks, because they end at a deadline.
const POLLING: &[&str] = &["until", "eventually"];

/// Files that people copy, and their most lines: the two applications, as promised, and what `flood_monitor` has beside its main file, as
/// ARCHITECTURE.md says.
const COPIED: &[(&str, usize)] = &[
    ("client/examples/device_health.rs", 200),
    ("client/examples/flood_monitor.rs", 300),
    ("client/examples/flood_monitor/http.rs", 84),
    ("client/examples/flood_monitor/seen.rs", 36),
    ("client/examples/flood_monitor/show.rs", 63),
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const TEST_FUNCTION_LINES_MAX: usize = 100;

// ---------------------------------------------------------------------------------------------------------- rules

#[test]
fn a_module_uses_only_those_before_it() {
    let mut faults = Vec::new();
    for file in node_sources() {
        let Some(user) = file.module() else { continue };
        let Some(rank) = ORDER.iter().position(|name| *name == user) else {
            faults.push(format!(
                "{}:1: module `{user}` has no place in ORDER, give it one",
                file.path
            ));
            continue;
        };
        for (line, used) in uses(&file) {
            let upward = ORDER
                .iter()
                .position(|name| *name == used)
                .is_some_and(|other| other > rank);
            if upward && !UPWARD.iter().any(|(a, b, _)| *a == user && *b == used) {
                faults.push(format!(
                    "{}:{line}: `{user}` uses `{used}`, which lies above it",
                    file.path
                ));
            }
        }
    }
    report("a module uses only those before it in ORDER", &faults);
}

#[test]
fn only_the_named_modules_name_a_library() {
    let mut faults = Vec::new();
    for file in node_sources() {
        let module = file.module().unwrap_or_else(|| file.stem());
        for (name, allowed, why) in NAMED_BY {
            let lines = file.lines_naming(name).into_iter().filter(|line| !file.is_test(*line));
            if !allowed.contains(&module.as_str()) {
                faults.extend(lines.map(|line| format!("{}:{line}: `{module}` names `{name}`: {why}", file.path)));
            }
        }
    }
    report("a library is named where NAMED_BY says", &faults);
}

#[test]
fn crates_keep_out_what_they_must_not_know() {
    let mut faults = Vec::new();
    for (manifest, packages, why) in NOT_IN_MANIFEST {
        let text = fs::read_to_string(root().join(manifest)).unwrap_or_else(|e| panic!("{manifest}: {e}"));
        for (line, package) in dependencies(&text) {
            if packages.contains(&package.as_str()) {
                faults.push(format!("{manifest}:{line}: `{package}`: {why}"));
            }
        }
    }
    report("a manifest leaves out what NOT_IN_MANIFEST lists", &faults);
}

#[test]
fn no_unsafe_code() {
    let faults = each_line(
        &sources(),
        |file| file.lines_naming("unsafe"),
        "`unsafe`: write it safe, or take a crate",
    );
    report("no unsafe code", &faults);
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    let mut faults = Vec::new();
    for name in ["todo!", "unimplemented!", "#[ignore"] {
        faults.extend(each_line(&sources(), |file| file.lines_with(name), name));
    }
    report("no todo!, no unimplemented!, no #[ignore]", &faults);
}

#[test]
fn tests_do_not_sleep() {
    let mut faults = Vec::new();
    for file in sources() {
        let helpers: Vec<_> = functions(&file.code)
            .into_iter()
            .filter(|(name, ..)| POLLING.contains(&name.as_str()))
            .collect();
        let polls = |line| {
            helpers
                .iter()
                .any(|(_, first, length)| (*first..first + length).contains(&line))
        };
        let lines = file
            .lines_naming("sleep")
            .into_iter()
            .filter(|line| file.is_test(*line) && !polls(*line));
        faults.extend(lines.map(|line| format!("{}:{line}: wait for the event, with a deadline", file.path)));
    }
    report("no sleeps in tests but in a helper named in POLLING", &faults);
}

#[test]
fn a_file_says_what_lives_in_it() {
    let silent = sources().into_iter().filter(|file| !file.text.starts_with("//! "));
    let faults: Vec<String> = silent
        .map(|file| {
            format!(
                "{}:1: begin with `//!`: what lives here, what never does, the invariant",
                file.path
            )
        })
        .collect();
    report("every file opens with //!", &faults);
}

#[test]
fn files_and_functions_are_short() {
    let mut faults = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!(
                "{}:{lines}: {lines} lines, at most {FILE_LINES_MAX}",
                file.path
            ));
        }
        for (name, line, length) in functions(&file.code) {
            let most = if file.is_test(line) || file.path.contains("/examples/") {
                TEST_FUNCTION_LINES_MAX
            } else {
                FUNCTION_LINES_MAX
            };
            if length > most {
                faults.push(format!(
                    "{}:{line}: fn {name} has {length} lines, at most {most}",
                    file.path
                ));
            }
        }
    }
    report("files and functions are short", &faults);
}

#[test]
fn what_people_copy_is_small() {
    let mut faults = Vec::new();
    let examples = read_all(&root().join("client/examples"), &["rs"]);
    for (path, most) in COPIED {
        let file = examples.iter().find(|file| file.path == *path);
        match file.map(|file| file.text.lines().count()) {
            Some(lines) if lines <= *most => {}
            Some(lines) => faults.push(format!("{path}:{lines}: {lines} lines, at most {most}")),
            None => faults.push(format!("{path}:1: is not there")),
        }
    }
    // Nor does a main file become small by files that nobody counts.
    for file in &examples {
        let is_beside = file.path.starts_with("client/examples/flood_monitor/") && !file.is_test(1);
        if is_beside && !COPIED.iter().any(|(path, _)| *path == file.path) {
            faults.push(format!("{}:1: has no limit in COPIED", file.path));
        }
    }
    report("the reference applications are small", &faults);
}

#[test]
fn test_programs_are_few() {
    let tests = root().join("node/tests");
    let files = fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().file_name());
    let strays = files.filter_map(|name| {
        name.into_string()
            .ok()
            .filter(|name| name.ends_with(".rs") && name != "tidy.rs")
    });
    let faults: Vec<String> = strays
        .map(|name| {
            format!("node/tests/{name}:1: a program of its own is 100 MB of RocksDB more: a module of a folder there")
        })
        .collect();
    report("tests of the node are modules of few programs", &faults);
}

#[test]
fn device_types_are_data() {
    let path = root().join("bench/catalogue/device-types.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let catalogue: toml::Table = text.parse().expect("the catalogue is TOML");
    let types = catalogue["device_type"].as_array().expect("[[device_type]]");
    let names: Vec<&str> = types.iter().filter_map(|entry| entry["id"].as_str()).collect();
    assert!(names.len() > 10, "few device types found: {names:?}");
    let mut faults = Vec::new();
    for file in read_all(&root().join("node"), &["rs", "toml"]) {
        for name in &names {
            let lines = find(&file.text, name).into_iter();
            faults.extend(lines.map(|line| format!("{}:{line}: `{name}` is a type of the catalogue", file.path)));
        }
    }
    report("no device type of the catalogue is named in node/", &faults);
}

#[test]
fn no_path_of_one_machine() {
    // Written apart, or this file would break its own rule.
    let homes = [
        concat!("/", "root/"),
        concat!("/", "home/"),
        concat!("/", "Users/"),
        concat!("/", "work/"),
    ];
    let endings = [
        "rs",
        "toml",
        "md",
        "sh",
        "proto",
        "yml",
        "yaml",
        "Makefile",
        "Dockerfile",
        "run",
    ];
    let mut faults = Vec::new();
    for file in read_all(&root(), &endings) {
        for (number, line) in file.text.lines().enumerate() {
            if homes.iter().any(|home| starts_a_path(line, home)) {
                faults.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    report("no path of one machine", &faults);
}

fn report(rule: &str, faults: &[String]) {
    assert!(
        faults.is_empty(),
        "\n{rule}: {} faults\n  {}\n",
        faults.len(),
        faults.join("\n  ")
    );
}

fn each_line(files: &[Source], lines: impl Fn(&Source) -> Vec<usize>, fault: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files {
        faults.extend(
            lines(file)
                .into_iter()
                .map(|line| format!("{}:{line}: {fault}", file.path)),
        );
    }
    faults
}

// ----------------------------------------------------------------------------------------------- the rules can fail

#[test]
fn the_reader_of_source_sees_what_it_should() {
    let text = "//! x\nuse crate::{raft::{Log, Vote}, clock};\nfn a() {\n  // crate::api\n  let s = \"crate::api\";\n  \
                crate::query::b::<'x'>();\n}\n#[cfg(test)]\nmod tests {\n  use crate::server;\n}\nfn long(\n) {\n\n}\n";
    let file = Source::new("node/src/shard/keys.rs".into(), text.into());
    let used = uses(&file)
        .into_iter()
        .map(|(line, name)| format!("{line} {name}"))
        .collect::<Vec<_>>();
    assert_eq!(used, ["2 raft", "2 clock", "6 query"]);
    assert_eq!(
        functions(&file.code),
        [("a".to_owned(), 3, 5), ("long".to_owned(), 12, 4)]
    );
    assert!(file.is_test(10) && !file.is_test(12));
    assert_eq!(file.module().as_deref(), Some("shard"));

    let nested = Source::new(
        "node/src/shard/keys.rs".into(),
        "use super::super::raft;\nuse super::latest;\n".into(),
    );
    assert_eq!(uses(&nested), [(1, "raft".to_owned())]);
    let top = Source::new("node/src/shard.rs".into(), "fn a(x: super::raft::Log) {}".into());
    assert_eq!(uses(&top), [(1, "raft".to_owned())]);

    assert_eq!(find("a rocksdb::DB\nrocksdb_x, xrocksdb\nr#rocksdb", "rocksdb"), [1, 3]);
    assert_eq!(
        blank("a /* b /* c */ */ 'x' r#\"q\"#,b\"\\\"z\" 'life"),
        "a                 ' ' r#\" \"#,b\"   \" 'life"
    );
    assert!(starts_a_path(concat!("x /", "root/y"), concat!("/", "root/")));
    assert!(!starts_a_path(concat!("target/", "root/y"), concat!("/", "root/")));

    let manifest =
        "[package]\nserde = 1\n[dependencies]\nprost.workspace = true\ntokio = \"1\"\n[dev-dependencies.rand]\n";
    let found = dependencies(manifest)
        .into_iter()
        .map(|(line, name)| format!("{line} {name}"))
        .collect::<Vec<_>>();
    assert_eq!(found, ["4 prost", "5 tokio", "6 rand"]);
}
