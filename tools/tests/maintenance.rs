//! `device maintenance` and what else says of it, against a scripted cluster. Never: a real node.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod fake;

use std::io::Write as _;

use assert_cmd::Command;
use fake::Fake;
use tidemark_proto::v1;

/// Standard output, standard error and the exit code.
fn run(fake: &Fake, arguments: &[&str]) -> (String, String, i32) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tidemark"));
    for variable in ["TIDEMARK_OUTPUT", "TIDEMARK_TIMEOUT"] {
        command.env_remove(variable);
    }
    command.env("TIDEMARK_ENDPOINT", &fake.address).env("COLUMNS", "160");
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().unwrap(),
    )
}

fn json(fake: &Fake, arguments: &[&str]) -> serde_json::Value {
    let (out, err, code) = run(fake, &[&["-o", "json"], arguments].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// Two gauges, with tags that must stay.
fn two() -> Fake {
    let fake = Fake::start();
    let device = |id: &str| v1::Device {
        id: id.into(),
        device_type: "gauge".into(),
        tags: [("town".to_owned(), "zhapu".to_owned())].into(),
        installed_at_ns: 7,
        ..v1::Device::default()
    };
    fake.state.devices.lock().unwrap().extend([device("g1"), device("g2")]);
    fake
}

#[test]
fn maintenance_is_declared_ended_and_taken_back() {
    let fake = two();
    let declare = ["--from", "2024-06-20", "--to", "2024-06-21", "--reason", "pump"];
    let told = json(&fake, &[&["device", "maintenance", "g2", "g1"], &declare[..]].concat());
    assert_eq!(told["kind"], "device_maintenance");
    let rows = told["maintenance"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let expected = serde_json::json!({
        "device": "g1", "from": "2024-06-20T00:00:00Z", "to": "2024-06-21T00:00:00Z", "reason": "pump", "state": "over",
    });
    assert_eq!(rows[0], expected);
    let sent = fake.state.registered.lock().unwrap().remove(0);
    assert!(!sent.keep_maintenance);
    let tags = sent.devices.iter().map(|device| device.tags["town"].as_str());
    assert_eq!(tags.collect::<Vec<_>>(), ["zhapu", "zhapu"]);
    assert!(sent.devices.iter().all(|device| device.installed_at_ns == 7));

    // The same again changes nothing and sends nothing; more of it goes on with it.
    json(&fake, &[&["device", "maintenance", "g1"], &declare[..]].concat());
    assert!(fake.state.registered.lock().unwrap().is_empty());
    let longer = [
        "device",
        "maintenance",
        "g1",
        "--from",
        "2024-06-20T12:00:00Z",
        "--to",
        "2024-06-22",
    ];
    assert_eq!(json(&fake, &longer)["maintenance"][0]["to"], "2024-06-22T00:00:00Z");
    let ended = json(&fake, &["device", "maintenance", "g1", "--end", "2024-06-20T18:00:00Z"]);
    assert_eq!(ended["maintenance"][0]["to"], "2024-06-20T18:00:00Z");
    let gone = json(&fake, &["device", "maintenance", "g1", "--remove", "2024-06-20"]);
    assert_eq!(gone["maintenance"].as_array().unwrap().len(), 0);
    assert_eq!(
        json(&fake, &["device", "maintenance", "g2"])["maintenance"][0]["reason"],
        "pump"
    );
}

#[test]
fn what_cannot_be_changed_of_all_is_changed_of_none() {
    let fake = two();
    let other = [
        "device",
        "maintenance",
        "g2",
        "--from",
        "2024-06-20",
        "--to",
        "2024-06-21",
    ];
    json(&fake, &[&other[..], &["--reason", "lamp"]].concat());
    fake.state.registered.lock().unwrap().clear();
    let both = [
        "device",
        "maintenance",
        "g1",
        "g2",
        "--from",
        "2024-06-20",
        "--to",
        "2024-06-23",
        "--reason",
        "pump",
    ];
    let (_, err, code) = run(&fake, &both);
    assert_eq!(code, 6);
    assert_eq!(
        err,
        "error: cannot change maintenance\n  \
         why: device g2: maintenance for \"lamp\" is declared from 2024-06-20T00:00:00Z to 2024-06-21T00:00:00Z; \
         --remove 2024-06-20T00:00:00Z takes it back\n  \
         next: tidemark device maintenance g2\n"
    );
    let (_, err, code) = run(&fake, &["device", "maintenance", "g1", "g2", "--end", "now"]);
    assert_eq!(code, 6, "{err}");
    assert!(fake.state.registered.lock().unwrap().is_empty());
    for wrong in [
        &["--from", "2024-06-21", "--to", "2024-06-20"][..],
        &["--from", "2024-06-21"],
        &["--to", "now+1h", "--end", "now"],
        &["--reason", "x"],
    ] {
        let (_, err, code) = run(&fake, &[&["device", "maintenance", "g1"], wrong].concat());
        assert_eq!(code, 2, "{wrong:?}: {err}");
    }
}

#[test]
fn devices_tell_until_when_they_are_under_maintenance() {
    let fake = two();
    json(&fake, &["device", "maintenance", "g1", "--to", "2100-01-01"]);
    let listed = json(&fake, &["device", "list"]);
    let of = |id: &str| {
        let devices = listed["devices"].as_array().unwrap().iter();
        devices.clone().find(|device| device["id"] == id).unwrap().clone()
    };
    assert_eq!(of("g1")["under_maintenance_until"], "2100-01-01T00:00:00Z");
    assert!(of("g2")["under_maintenance_until"].is_null());
    let shown = json(&fake, &["device", "show", "g1"]);
    assert_eq!(shown["under_maintenance_until"], "2100-01-01T00:00:00Z");
    assert_eq!(shown["maintenance"][0]["state"], "on");
    assert_eq!(shown["tags"][0]["value"], "zhapu");
    let (out, _, _) = run(&fake, &["device", "show", "g2"]);
    assert!(!out.contains("reason"), "{out}");
}

#[test]
fn an_import_keeps_what_is_declared() {
    let fake = two();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "id,device_type,town\ng1,gauge,danghu\n").unwrap();
    json(&fake, &["device", "import", file.path().to_str().unwrap()]);
    let sent = fake.state.registered.lock().unwrap().remove(0);
    assert!(sent.keep_maintenance);
    assert_eq!(sent.devices[0].tags["town"], "danghu");
}
