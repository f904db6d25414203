//! Settings of a node as an operator gives them: file, environment, flags, what is refused and how it is said.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use tidemark_node::config::{Action, DiskReserve, Invocation, Refused, read};

/// A file of settings in a folder of its own.
struct File {
    dir: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> File {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("t.toml"), text).unwrap();
        File { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("t.toml")
    }

    /// Called with this file, an environment and flags.
    fn called(&self, env: &[(&str, &str)], flags: &[&str]) -> Result<Invocation, Refused> {
        let path = self.path();
        let mut all = vec!["--config", path.to_str().unwrap()];
        all.extend(flags);
        called(env, &all)
    }

    /// Why it is refused, without the folder.
    fn refused(&self, env: &[(&str, &str)], flags: &[&str]) -> String {
        let folder = format!("{}/", self.dir.path().display());
        faults(self.called(env, flags)).replace(&folder, "")
    }
}

fn called(env: &[(&str, &str)], flags: &[&str]) -> Result<Invocation, Refused> {
    let args = std::iter::once("tidemarkd").chain(flags.iter().copied());
    let env = env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    read(args.map(OsString::from), env)
}

fn faults(result: Result<Invocation, Refused>) -> String {
    match result {
        Err(Refused::Settings(faults)) => faults.join("\n"),
        Err(Refused::Usage(error)) => error.to_string(),
        Ok(invocation) => panic!("taken: {:?}", invocation.settings.config),
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = File::new("listen = \"127.0.0.1:1\"\npeer_listen = \"127.0.0.1:2\"\nzone = \"file\"\ninsecure = true\n");
    let env = [
        ("TIDEMARK_PEER_LISTEN", "127.0.0.1:22"),
        ("TIDEMARK_ZONE", "env"),
        ("TIDEMARK_JOIN", ""),
    ];
    let settings = file
        .called(&env, &["--zone", "flag", "--insecure=false"])
        .unwrap()
        .settings;
    let config = &settings.config;
    assert_eq!(config.listen, "127.0.0.1:1");
    assert_eq!(config.peer_listen, "127.0.0.1:22");
    assert_eq!(config.zone, "flag");
    assert!(!config.insecure);
    assert_eq!(config.cache_mib, 128, "the default stays");
    assert!(config.join.is_empty(), "an empty variable is as good as none");

    let printed = settings.to_toml();
    let origin_of = |key: &str| {
        let lines: Vec<&str> = printed.lines().collect();
        let at = lines
            .iter()
            .position(|line| line.starts_with(&format!("{key} = ")))
            .unwrap();
        lines[at - 1].to_string()
    };
    let path = file.path();
    assert_eq!(origin_of("listen"), format!("# from: {}:1", path.display()));
    assert_eq!(origin_of("peer_listen"), "# from: environment TIDEMARK_PEER_LISTEN");
    assert_eq!(origin_of("zone"), "# from: flag --zone");
    assert_eq!(origin_of("cache_mib"), "# from: default");
}

#[test]
fn what_is_printed_is_a_file_of_the_same_settings() {
    let flags = [
        "--join",
        "a:1,b:2",
        "--join",
        "[::1]:3",
        "--disk-reserve",
        "1536MiB",
        "--advertise",
        "x:1",
    ];
    let printed = called(&[], &flags).unwrap().settings.to_toml();
    let again = File::new(&printed).called(&[], &[]).unwrap().settings;
    assert_eq!(again.config.join, ["a:1", "b:2", "[::1]:3"]);
    assert_eq!(again.config.disk_reserve, DiskReserve::Bytes(1536 << 20));
    assert_eq!(again.config.advertise.as_deref(), Some("x:1"));
    let values = |text: &str| -> Vec<String> {
        let kept = text.lines().filter(|line| !line.starts_with('#'));
        kept.map(str::to_string).collect()
    };
    assert_eq!(values(&again.to_toml()), values(&printed));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    let check = |text: &str, expected: &str| assert_eq!(File::new(text).refused(&[], &[]), expected);
    check(
        "\nlistn = \"a:1\"",
        "t.toml:2: unknown key `listn`; did you mean `listen`?",
    );
    check(
        "Peer-Listen = \"a:1\"",
        "t.toml:1: unknown key `Peer-Listen`; did you mean `peer_listen`?",
    );
    check(
        "[node]\nlisten = \"a:1\"",
        "t.toml:1: unknown key `node`; did you mean `zone`?",
    );
    check("colour = 1", "t.toml:1: unknown key `colour`");
    check(
        "zone = \"a\"\ndisk_reserv = 1\n\njoins = []",
        "t.toml:2: unknown key `disk_reserv`; did you mean `disk_reserve`?\n\
         t.toml:4: unknown key `joins`; did you mean `join`?",
    );
    let flag = faults(called(&[], &["--listn", "a:1"]));
    assert!(flag.contains("--listn") && flag.contains("'--listen'"), "{flag}");
    let variable = faults(called(&[("TIDEMARK_LISTN", "a:1")], &[]));
    assert_eq!(
        variable,
        "environment: unknown variable TIDEMARK_LISTN; did you mean TIDEMARK_LISTEN?"
    );
    // Variables of the tools, and what an orchestrator sets for a service of this name.
    let others = [
        ("TIDEMARK_ENDPOINT", "a"),
        ("TIDEMARK_SERVICE_HOST", "a"),
        ("TIDEMARK_PORT_7777_TCP", "a"),
    ];
    called(&others, &[]).unwrap();
}

#[test]
fn bad_values_are_refused_with_key_origin_and_what_is_allowed() {
    let check = |text: &str, expected: &str| assert_eq!(File::new(text).refused(&[], &[]), expected);
    check("listen = \"7777\"", "t.toml:1: listen = \"7777\", must be host:port");
    check(
        "listen = 7777",
        "t.toml:1: listen is of the wrong type (integer), must be host:port",
    );
    check(
        "insecure = \"yes\"",
        "t.toml:1: insecure is of the wrong type (string), must be true or false",
    );
    check(
        "\n\ncache_mib = 0",
        "t.toml:3: cache_mib = \"0\", must be a whole number of MiB, 1 to 1048576",
    );
    check(
        "disk_reserve = \"10 GB\"",
        "t.toml:1: disk_reserve = \"10 GB\", must be auto, or a size such as 2GiB; 0 for none",
    );
    check(
        "join = [\"a\"]",
        "t.toml:1: join = \"a\", must be peer addresses, host:port each",
    );
    assert_eq!(
        faults(called(&[("TIDEMARK_MOVE_BYTES_PER_SECOND", "fast")], &[])),
        "environment TIDEMARK_MOVE_BYTES_PER_SECOND: move_bytes_per_second = \"fast\", must be a size such as 512MiB, \
         or bytes"
    );
    let log = faults(called(&[], &["--log", "loud=very"]));
    assert!(
        log.starts_with("flag --log: log = \"loud=very\", must be a level"),
        "{log}"
    );
    let torn = File::new("zone = \"a\"\nlisten = \n").refused(&[], &[]);
    assert!(torn.starts_with("t.toml:2: "), "{torn}");
    let gone = faults(called(&[("TIDEMARK_CONFIG", "nowhere/t.toml")], &[]));
    assert!(gone.starts_with("nowhere/t.toml: "), "{gone}");
}

#[test]
fn addresses_have_to_go_with_the_other_settings() {
    let open = |key: &str, address: &str| {
        format!(
            "{key} = \"{address}\" is not loopback and there is no TLS: use a loopback address, or insecure (--insecure) on a \
             closed network"
        )
    };
    let untold = |key: &str, address: &str, name: &str| {
        format!("{key} = \"{address}\" cannot be told to others: name an address that they reach with {name}")
    };
    for flags in [&[][..], &["--check-config"], &["--print-config"]] {
        let check = |text: &str, expected: &str| assert_eq!(File::new(text).refused(&[], flags), expected);
        check(
            "\npeer_listen = \"10.0.0.1:7778\"",
            &format!("t.toml:2: {}", open("peer_listen", "10.0.0.1:7778")),
        );
        check(
            "insecure = true\nlisten = \"[::]:7777\"",
            &format!("t.toml:2: {}", untold("listen", "[::]:7777", "advertise (--advertise)")),
        );
        let variable = faults(called(&[("TIDEMARK_ADVERTISE_PEER", "0.0.0.0:1")], flags));
        let untold = untold("advertise_peer", "0.0.0.0:1", "advertise_peer (--advertise-peer)");
        assert_eq!(variable, format!("environment TIDEMARK_ADVERTISE_PEER: {untold}"));
    }
    let all = [
        "--insecure",
        "--listen",
        "0.0.0.0:7777",
        "--peer-listen",
        "0.0.0.0:7778",
    ];
    let told = ["--advertise", "tm1:7777", "--advertise-peer", "tm1:7778"];
    called(&[], &[&all[..], &told[..]].concat()).unwrap();
    called(&[], &["--insecure", "--listen", "10.0.0.1:7777"]).unwrap();
    // What a name stands for shows when the node listens on it.
    called(&[], &["--listen", "tm1:7777"]).unwrap();
    // A probe in a container has the variables of the node but not its flags.
    called(&[("TIDEMARK_LISTEN", "0.0.0.0:7777")], &["health"]).unwrap();
}

#[test]
fn a_size_is_text_or_bytes() {
    let reserve = |text: &str| File::new(text).called(&[], &[]).unwrap().settings.config.disk_reserve;
    assert_eq!(reserve("disk_reserve = \"2GiB\""), DiskReserve::Bytes(2 << 30));
    assert_eq!(reserve("disk_reserve = 1048576"), DiskReserve::Bytes(1 << 20));
    assert_eq!(reserve("disk_reserve = 0"), DiskReserve::Bytes(0));
    assert_eq!(reserve("disk_reserve = \"auto\""), DiskReserve::Auto);
    assert_eq!(DiskReserve::Auto.of(100 << 30), 5 << 30);
    assert_eq!(DiskReserve::Auto.of(40 << 30), 2 << 30);
    assert_eq!(DiskReserve::Auto.of(1 << 30), 256 << 20);
}

#[test]
fn what_to_do_is_read_from_the_arguments() {
    let action = |flags: &[&str]| called(&[("TIDEMARK_LISTEN", "127.0.0.1:9")], flags).unwrap().action;
    assert_eq!(action(&[]), Action::Serve);
    assert_eq!(action(&["--print-config"]), Action::PrintConfig);
    assert_eq!(action(&["--check-config"]), Action::CheckConfig);
    let endpoint = |endpoint: &str| Action::Health {
        endpoint: endpoint.into(),
    };
    assert_eq!(
        action(&["health", "--endpoint", "127.0.0.1:7"]),
        endpoint("127.0.0.1:7")
    );
    assert_eq!(action(&["health"]), endpoint("127.0.0.1:9"));
}
