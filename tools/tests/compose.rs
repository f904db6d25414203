//! What an operator of containers relies on, read out of `docker-compose.yml` and the `Dockerfile`: no engine is needed.
//! Never here: starting anything (`make docker-test` does). Reads the little of YAML that the file is written in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const FIRST: [&str; 3] = ["node1", "node2", "node3"];
const GROWN: &str = "node4";
const DATA: &str = "/var/lib/tidemark";

/// Values by path (`services.node1.ports`): a scalar is one value, a list its items, a block of text its lines.
type Flat = BTreeMap<String, Vec<String>>;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The values of one line's right side.
fn values(text: &str) -> Vec<String> {
    let bare = |text: &str| text.trim().trim_matches('"').to_owned();
    match text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(items) => items.split(", ").map(bare).collect(),
        None if text.trim().is_empty() || text.trim() == "|" => Vec::new(),
        None => vec![bare(text)],
    }
}

fn flat(text: &str) -> Flat {
    let mut flat = Flat::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut block: Option<usize> = None;
    for line in text.lines() {
        let (indent, content) = (line.len() - line.trim_start().len(), line.trim());
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        block = block.filter(|start| indent > *start);
        let name = |path: &[(usize, String)]| {
            let names: Vec<&str> = path.iter().map(|(_, name)| name.as_str()).collect();
            names.join(".")
        };
        if block.is_some() {
            flat.entry(name(&path)).or_default().push(content.to_owned());
        } else if let Some(item) = content.strip_prefix("- ") {
            path.retain(|(depth, _)| *depth < indent);
            flat.entry(name(&path)).or_default().extend(values(item));
        } else if let Some((key, value)) = content.split_once(':') {
            path.retain(|(depth, _)| *depth < indent);
            path.push((indent, key.to_owned()));
            flat.entry(name(&path)).or_default().extend(values(value));
        }
        if content.ends_with('|') {
            block = Some(indent);
        }
    }
    flat
}

/// A setting of a service: its own, or that of the anchor it merges.
fn setting<'a>(compose: &'a Flat, service: &str, key: &str) -> &'a [String] {
    let own = compose.get(&format!("services.{service}.{key}"));
    let merged = || {
        let merges = compose.get(&format!("services.{service}.<<"))?;
        let anchor = merges[0].strip_prefix('*').unwrap();
        compose.get(&format!("x-{anchor}.{key}"))
    };
    own.or_else(merged).map_or(&[], Vec::as_slice)
}

fn compose() -> Flat {
    flat(&read("docker-compose.yml"))
}

fn services(compose: &Flat) -> BTreeSet<&str> {
    let names = compose.keys().filter_map(|path| path.strip_prefix("services."));
    names.map(|rest| rest.split('.').next().unwrap()).collect()
}

fn nodes() -> impl Iterator<Item = &'static str> {
    FIRST.into_iter().chain([GROWN])
}

#[test]
fn three_nodes_and_a_fourth_on_demand() {
    let compose = compose();
    assert_eq!(
        services(&compose),
        nodes().chain(["init"]).collect::<BTreeSet<_>>(),
        "services"
    );
    for service in FIRST.into_iter().chain(["init"]) {
        assert!(setting(&compose, service, "profiles").is_empty(), "{service}");
    }
    assert_eq!(setting(&compose, GROWN, "profiles"), ["grow"]);
    let join = setting(&compose, GROWN, "environment.TIDEMARK_JOIN");
    assert_eq!(join, [FIRST.map(|node| format!("{node}:7778")).join(",")]);
    // Old engines' compose takes profiles from this version on, and no top-level name.
    assert_eq!(compose["version"], ["3.8"]);
    assert!(!compose.contains_key("name"));
}

#[test]
fn nodes_share_nothing_that_is_one_nodes_own() {
    let compose = compose();
    let (mut ports, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    for node in nodes() {
        let command = setting(&compose, node, "command");
        for flag in [
            format!("--advertise={node}:7777"),
            format!("--advertise-peer={node}:7778"),
        ] {
            assert!(command.contains(&flag), "{node}: {flag} is not in {command:?}");
        }
        let [port] = setting(&compose, node, "ports") else {
            panic!("{node}: one published port")
        };
        // 127.0.0.1:${TIDEMARK_PORT_1:-7777}:7777
        let default = port
            .strip_prefix("127.0.0.1:${")
            .and_then(|rest| rest.strip_suffix("}:7777"));
        let (variable, number) = default
            .and_then(|text| text.split_once(":-"))
            .unwrap_or_else(|| panic!("{node}: {port} is not published on loopback"));
        assert!(
            ports.insert(variable) & ports.insert(number),
            "{node}: {port} is another's"
        );
        let [volume] = setting(&compose, node, "volumes") else {
            panic!("{node}: one volume")
        };
        let (name, folder) = volume.split_once(':').unwrap();
        assert_eq!(folder, DATA, "{node}");
        assert!(
            compose.contains_key(&format!("volumes.{name}")),
            "{name} is not declared"
        );
        assert!(volumes.insert(name), "{node}: {name} is another's");
    }
}

#[test]
fn every_node_is_looked_at_and_comes_back() {
    let compose = compose();
    for node in nodes() {
        let test = setting(&compose, node, "healthcheck.test");
        assert_eq!(test[..3], ["CMD", "tidemarkd", "health"], "{node}");
        assert_eq!(setting(&compose, node, "restart"), ["unless-stopped"], "{node}");
        let grace = &setting(&compose, node, "stop_grace_period")[0];
        assert!(
            grace.trim_end_matches('s').parse::<u32>().unwrap() >= 20,
            "{node}: {grace}"
        );
        let files = &setting(&compose, node, "ulimits.nofile")[0];
        assert!(files.parse::<u32>().unwrap() >= 16_384, "{node}: {files}");
    }
    assert_eq!(setting(&compose, "init", "restart"), ["on-failure"]);
    assert_eq!(setting(&compose, "init", "depends_on"), FIRST);
    let script = setting(&compose, "init", "command").join("\n");
    let peers = FIRST.map(|node| format!("{node}:7778")).join(",");
    assert!(script.contains("cluster status"), "init looks first: {script}");
    assert!(script.contains(&format!("cluster init --peers {peers}")), "{script}");
}

#[test]
fn nothing_runs_as_root() {
    let compose = compose();
    for path in compose.keys() {
        let key = path.rsplit('.').next().unwrap();
        assert!(
            !["user", "privileged", "cap_add", "network_mode"].contains(&key),
            "{path}"
        );
    }
    let dockerfile = read("Dockerfile");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    let users: Vec<&str> = last.lines().filter_map(|line| line.strip_prefix("USER ")).collect();
    let [user] = users[..] else {
        panic!("one USER: {users:?}")
    };
    let (uid, gid) = user.split_once(':').unwrap();
    assert!(
        uid.parse::<u32>().unwrap() > 0 && gid.parse::<u32>().unwrap() > 0,
        "{user}"
    );
    assert!(last.contains(&format!("--chown={user} /out/data {DATA}")), "{last}");
    assert!(last.contains(&format!("\nVOLUME {DATA}\n")), "{last}");
    assert!(last.contains("\nHEALTHCHECK "), "{last}");
}

#[test]
fn the_dockerfile_is_for_old_and_new_builders() {
    let dockerfile = read("Dockerfile");
    for word in [
        "--mount",
        "<<",
        "# syntax=",
        "--link",
        "--chmod",
        "--security",
        "--network",
    ] {
        assert!(!dockerfile.contains(word), "{word}");
    }
    assert_eq!(dockerfile.matches("\nFROM ").count(), 2);
}
