//! `tidemarkd` as a service manager runs it: settings from a file, logs a machine reads, readiness and stop told.
//! Never here: what a node stores.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use crate::process::{Fleet, PATIENCE, tidemarkd, until};
use tidemark_client::v1;

/// Exit code, standard output and standard error.
fn called(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn settings_are_printed_checked_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tidemarkd.toml");
    fs::write(&file, "zone = \"cellar\"\n").unwrap();
    let (code, printed, _) = called(tidemarkd().env("TIDEMARK_CONFIG", &file).arg("--print-config"));
    assert_eq!(code, 0);
    assert!(printed.contains("\nzone = \"cellar\"\n"), "{printed}");
    fs::write(&file, &printed).unwrap();
    let (code, said, _) = called(tidemarkd().arg("--config").arg(&file).arg("--check-config"));
    assert_eq!((code, said.as_str()), (0, "the settings are good\n"));

    fs::write(&file, "listen = \"10.0.0.1:7777\"\n").unwrap();
    for flags in [&["--check-config"][..], &[]] {
        let (code, _, said) = called(tidemarkd().arg("--config").arg(&file).args(flags));
        assert_eq!(code, 2);
        assert!(
            said.contains("tidemarkd.toml:1: listen = \"10.0.0.1:7777\" is not loopback"),
            "{said}"
        );
    }

    fs::write(&file, "zoen = \"cellar\"\ncache_mib = \"much\"\n").unwrap();
    for flags in [&["--check-config"][..], &["--print-config"], &[]] {
        let (code, _, said) = called(tidemarkd().arg("--config").arg(&file).args(flags));
        assert_eq!(code, 2);
        assert!(
            said.contains("tidemarkd.toml:1: unknown key `zoen`; did you mean `zone`?"),
            "{said}"
        );
        assert!(
            said.contains("tidemarkd.toml:2: cache_mib is of the wrong type (string)"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_service_manager_is_told_and_every_log_line_is_json() {
    let fleet = Fleet::new(1);
    let node = &fleet.nodes[0];
    let socket = fleet.path().join("notify");
    let told = UnixDatagram::bind(&socket).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    // What needs escaping in JSON may stand in a path.
    let data = fleet.path().join("a \"folder\"\nof\u{1b} mine");
    let log = fleet.path().join("log.json");
    let mut child = tidemarkd()
        .env("NOTIFY_SOCKET", &socket)
        .env("TIDEMARK_LOG_JSON", "true")
        .args(["--listen", &node.clients, "--peer-listen", &node.peers])
        .arg("--data-dir")
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let next = || {
        let mut bytes = [0; 64];
        let length = told.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    assert_eq!(next(), "READY=1");
    let init = v1::InitRequest::default();
    let cluster = node.client().await.init_cluster(init).await.unwrap().cluster_id;
    let sent = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
    assert_eq!(next(), "STOPPING=1");
    let status = until("the process ends", PATIENCE, async || child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");

    let logged = fs::read_to_string(&log).unwrap();
    let events: Vec<serde_json::Value> = logged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let event = |message: &str| {
        let found = events.iter().find(|event| event["fields"]["message"] == message);
        found.unwrap_or_else(|| panic!("no {message} in {logged}"))
    };
    let serving = event("serving");
    assert_eq!(serving["level"], "INFO");
    assert_eq!(serving["fields"]["data_dir"], data.to_str().unwrap());
    assert!(serving.get("node").is_none(), "it belonged to no cluster yet");
    let stopped = event("stopped");
    assert_eq!((&stopped["node"], &stopped["cluster"]), (&1.into(), &cluster.into()));
}
