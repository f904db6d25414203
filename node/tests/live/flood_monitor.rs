//! The flood monitor, `client/examples/flood_monitor.rs`, as a control room runs it: what its list says, and what its page is given.
//! Never here: how the page looks (scripts/page-test.sh), or the parts that need no cluster (tests beside the example).
//!
//! Invariant: every number was worked out by hand, for sums that end at the last whole ten minutes.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};
use tidemark_client::{BatchBuilder, Client, v1};
use tidemark_node::clock::now_ns;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use v1::{Kind, ValueType};

use crate::common::alarm::alerts;
use crate::common::fleet::*;
use crate::common::{TestCluster, eventually, program};

const MONITOR: &str = "examples/flood_monitor";
const POND: &str = "room-pond";
const RAIN: &str = "room-rain";
/// Both types promise a record so often. Those of rain report once an hour, so that by themselves they would be stale after three.
const STEP: i64 = 10 * MIN;
/// The most dangerous first; each with its level and whether it is stale.
const BY_DANGER: [(&str, &str, bool); 8] = [
    ("deep", "red", false),
    ("wet", "normal", false),
    ("dry", "normal", false),
    ("rain-late", "normal", false),
    ("rain-full", "normal", false),
    ("quiet", "silent", true),
    ("rain-old", "silent", true),
    ("never", "never heard", false),
];

/// What of a gauge was observed so many steps before the last whole one.
type Observed = (i64, f64);

/// The last whole step, with so much of the next one left that a test ends in it.
async fn whole_step() -> i64 {
    eventually("a step with time left", || async {
        let now = now_ns();
        let left = STEP - now % STEP;
        if left > 28 * S {
            Ok(now - now % STEP)
        } else {
            Err(format!("{left} ns left"))
        }
    })
    .await
}

fn rain(first: i64, value: impl Fn(i64) -> f64) -> Vec<Observed> {
    (first..=18).map(|step| (step, value(step))).collect()
}

/// Eight gauges of a town.
fn observed() -> Vec<(&'static str, &'static str, Vec<Observed>)> {
    let bursts = |step| match step {
        2 => 5.0,
        // At the begin of the last hour and of the last three: neither belongs to it.
        6 => 9.0,
        18 => 70.0,
        _ => 0.5,
    };
    let late = |step| if step == 1 { 2.0 } else { 1.0 };
    vec![
        ("deep", POND, vec![(0, 0.46)]),
        ("wet", POND, vec![(0, 0.04)]),
        ("dry", POND, vec![(0, 0.0)]),
        ("quiet", POND, vec![(4, 0.02)]),
        ("never", POND, Vec::new()),
        ("rain-full", RAIN, rain(0, bursts)),
        ("rain-late", RAIN, rain(1, late)),
        ("rain-old", RAIN, rain(4, |_| 1.0)),
    ]
}

/// The town on a node of its own, once the deep gauge is at its level; and the time that it is of.
async fn town() -> (TestCluster, Client, i64) {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let of = |id: &str, name: &str, kind, unit: &str, report_interval_s| v1::DeviceType {
        id: id.to_owned(),
        properties: vec![v1::Property {
            unit: unit.to_owned(),
            ..property(name, ValueType::F64, kind)
        }],
        sample_interval_s: STEP / S,
        report_interval_s,
        ..Default::default()
    };
    let pond = of(POND, "depth", Kind::Gauge, "m", STEP / S);
    let types = vec![pond, of(RAIN, "rain", Kind::Increment, "mm", 3_600)];
    client.apply_device_types(types).await.unwrap();
    let devices = observed().into_iter().map(|(id, of, _)| v1::Device {
        installed_at_ns: now_ns() - DAY,
        ..device(id, of, &[("town", "here")])
    });
    client.register_devices(devices.collect()).await.unwrap();
    let levels = [("yellow", 0.15, 0.12), ("orange", 0.27, 0.22), ("red", 0.4, 0.35)];
    let depth = v1::AlertProfile {
        id: "depth".to_owned(),
        device_type: POND.to_owned(),
        property: "depth".to_owned(),
        function: v1::AlertFunction::Last.into(),
        levels: levels.map(level).to_vec(),
        hold_s: 600,
        ..Default::default()
    };
    client.apply_alert_profiles(vec![depth]).await.unwrap();
    let base = whole_step().await;
    for (device_type, name) in [(POND, "depth"), (RAIN, "rain")] {
        let mut batch = BatchBuilder::new(device_type);
        for (id, _, values) in observed().iter().filter(|(_, of, _)| *of == device_type) {
            for (step, value) in values {
                batch.row(id, base - step * STEP).set(name, *value);
            }
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
    eventually("the level of the deep gauge", || async {
        let request = v1::ListAlertsRequest {
            selector: of_devices(&["deep"]),
            ..Default::default()
        };
        match alerts(&client, request).await.first() {
            Some(alert) if alert.level == "red" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    (cluster, client, base)
}

fn level((level, on, off): (&str, f64, f64)) -> v1::AlertLevel {
    v1::AlertLevel {
        level: level.to_owned(),
        on,
        off,
        ..Default::default()
    }
}

/// What the monitor is told of the town.
fn arguments<'a>(verb: &'a str, endpoint: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let town = ["--town", "here", "--type", POND, "--property", "depth"];
    let rain = ["--rain-type", RAIN, "--rain-property", "rain"];
    [&[verb, "--endpoint", endpoint][..], &town, &rain, more].concat()
}

/// Gauges as the list or the page has them: name, level, staleness.
fn shown(gauges: &Json) -> Vec<(&str, &str, bool)> {
    let gauges = gauges.as_array().unwrap().iter();
    gauges
        .map(|gauge| {
            let (device, level) = (gauge["device"].as_str(), gauge["level"].as_str());
            (device.unwrap(), level.unwrap(), gauge["stale"].as_bool().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_control_room_lists_gauges_by_danger_and_sums_of_rain() {
    let (cluster, _client, base) = town().await;
    let endpoint = cluster.client_address(0);
    let listed = program::printed(MONITOR, &arguments("list", &endpoint, &["-o", "json"])).await;
    let listed: Json = serde_json::from_str(&listed).unwrap();
    assert_eq!(shown(&listed), BY_DANGER);
    assert!(listed[7]["value"].is_null() && listed[7]["sum_1h"].is_null());

    // When it is, how much fell, and the share of what was promised: 6 records an hour.
    let sums = |id: &str| {
        let gauges = listed.as_array().unwrap();
        let gauge = gauges.iter().find(|gauge| gauge["device"] == id).unwrap();
        (program::rounded(&gauge["sum_1h"]), program::rounded(&gauge["sum_3h"]))
    };
    assert_eq!(sums("rain-full"), (json!([base, 7.5, 1.0]), json!([base, 22.0, 1.0])));
    assert_eq!(
        sums("rain-late"),
        (json!([base, 6.0, 0.833333]), json!([base, 18.0, 0.944444]))
    );
    assert_eq!(
        sums("rain-old"),
        (json!([base, 2.0, 0.333333]), json!([base, 14.0, 0.777778]))
    );

    let table = program::printed(MONITOR, &arguments("list", &endpoint, &[])).await;
    let line = |id: &str| {
        let line = table.lines().find(|line| line.contains(id)).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        // How old it is changes while the test runs.
        [&words[..4], &words[5..]].concat().join(" ")
    };
    assert_eq!(line("deep"), "red deep 0.46 m s - -");
    assert_eq!(line("rain-full"), "normal rain-full 0.50 mm s 7.5 22.0");
    assert_eq!(
        line("rain-late"),
        "normal rain-late 2.00 mm s >= 6.0 (83 %) >= 18.0 (94 %)"
    );
    assert_eq!(
        line("rain-old"),
        "silent rain-old 1.00 mm s STALE >= 2.0 (33 %) >= 14.0 (78 %)"
    );

    // Forty to fifty minutes are not too old for a room that is content with an hour.
    let flags = ["-o", "json", "--stale-after-s", "3600"];
    let listed = program::printed(MONITOR, &arguments("list", &endpoint, &flags)).await;
    let listed: Json = serde_json::from_str(&listed).unwrap();
    let calm = shown(&listed);
    assert!(calm.contains(&("rain-old", "normal", false)), "{calm:?}");
    assert!(calm.iter().all(|(_, _, is_stale)| !is_stale), "{calm:?}");
}

/// A monitor that serves its page until it is dropped.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(arguments: &[&str]) -> Served {
        let mut command = Command::new(program::built(MONITOR));
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("http://")
            .and_then(|rest| rest.strip_suffix('/'));
        let address = address.unwrap_or_else(|| panic!("no address: {line:?}")).to_owned();
        Served { child, address }
    }

    /// The answer to a request of its page.
    async fn ask(&self, request: &str, said: &str) -> String {
        let (address, length) = (&self.address, said.len());
        let heads = format!("Host: {address}\r\nOrigin: http://{address}\r\nContent-Length: {length}");
        let request = format!("{request} HTTP/1.1\r\n{heads}\r\n\r\n{said}");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{request}: {answer}");
        body.to_owned()
    }

    /// Waits until the board, which the page draws, is as it should be.
    async fn board(&self, what: &str, is_so: impl Fn(&Json) -> bool) -> Json {
        eventually(what, || async {
            let board: Json = serde_json::from_str(&self.ask("GET /board", "").await).unwrap();
            if is_so(&board) {
                Ok(board)
            } else {
                Err(board.to_string())
            }
        })
        .await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// It looks once an hour here, so whatever comes to the page later was heard.
#[tokio::test]
async fn a_page_hears_of_alerts_and_of_who_has_seen_them() {
    let (cluster, client, _) = town().await;
    let endpoint = cluster.client_address(0);
    let served = Served::start(&arguments("serve", &endpoint, &["--look-every-s", "3600"]));
    assert!(served.ask("GET /", "").await.contains("<title>Flood monitor</title>"));
    let board = served.board("gauges", |board| board["trouble"] == "").await;
    assert_eq!(shown(&board["gauges"]), BY_DANGER);

    let rises = async |depth: f64, level: &'static str| {
        let rows = [("dry", now_ns(), depth)];
        client.write(write(batch(POND, "depth", rows))).await.unwrap();
        let is_at_level = |board: &Json| shown(&board["gauges"]).contains(&("dry", level, false));
        served.board(level, is_at_level).await
    };
    // Seen by the look that follows the begin of the subscription, or heard.
    rises(0.2, "yellow").await;
    // Heard.
    let board = rises(0.3, "orange").await;
    assert_eq!(
        shown(&board["gauges"])[..2],
        [("deep", "red", false), ("dry", "orange", false)]
    );
    let steps = board["steps"].as_array().unwrap().iter();
    let steps = steps.filter(|step| step["device"] == "dry" && step["level"] == "orange");
    let told = steps.map(|step| (&step["before"], &step["value"], &step["reason"]));
    let expected = (&json!("yellow"), &json!(0.3), &json!("raised"));
    assert!(told.clone().all(|told| told == expected) && told.count() > 0, "{board}");

    let deep = &board["gauges"][0];
    assert_eq!(deep["alert"]["by"], "", "nobody has seen it");
    let seen = json!({ "device": "deep", "profile": "depth", "began_ns": deep["alert"]["began_ns"], "by": "ann" });
    assert_eq!(served.ask("POST /acknowledge", &seen.to_string()).await, "seen");
    let is_seen = |board: &Json| board["gauges"][0]["alert"]["by"] == "ann";
    served.board("who has seen it", is_seen).await;
}
