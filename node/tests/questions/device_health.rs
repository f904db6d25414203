//! The morning's report of a device office, `client/examples/device_health.rs`, as the office runs it, over a fleet that can be counted by
//! hand: tables, JSON and page. Never here: how a promise is judged (see `health`), or how long a large fleet takes.
//!
//! Invariant: records lie in the middle of their slots, counted back from now, so that the minutes that the test takes move none of them
//! into another slot.

use serde_json::{Value as Json, json};
use tidemark_client::{BatchBuilder, Client, v1};
use tidemark_node::clock::now_ns;
use v1::{Kind, ValueType};

use crate::common::fleet::*;
use crate::common::{TestCluster, program};

/// Promises a record every ten minutes: twelve in the two hours of the report.
const GAUGE: &str = "office-gauge";
/// Every twenty: six.
const METER_OF_TWENTY: &str = "office-meter";
const SILENT: usize = 24;

/// A device: its type, which of its slots, counted back from now, have a record, how late each came, and its warranty.
type Kept = (String, &'static str, Vec<i64>, i64, &'static str);

/// Three as they should be, of which one is out of warranty and one is late, three slow ones, and more silent ones than the list of the
/// worst devices has lines.
fn fleet() -> Vec<Kept> {
    let every = |nth: usize, slots: i64| (0..slots).step_by(nth).collect::<Vec<i64>>();
    let mut fleet = vec![
        ("clean".to_owned(), GAUGE, every(1, 12), 5, "in"),
        ("old".to_owned(), GAUGE, every(1, 12), 5, "out"),
        ("late".to_owned(), GAUGE, every(1, 12), 120, "in"),
        ("half".to_owned(), GAUGE, every(2, 12), 5, "in"),
        ("quarter".to_owned(), GAUGE, every(4, 12), 5, "in"),
        ("third".to_owned(), METER_OF_TWENTY, every(3, 6), 5, "in"),
        ("never".to_owned(), GAUGE, Vec::new(), 5, "in"),
    ];
    let warranty = |n: usize| if n == SILENT { "out" } else { "in" };
    fleet.extend((1..=SILENT).map(|n| (format!("silent-{n:02}"), GAUGE, vec![40], 5, warranty(n))));
    fleet
}

async fn furnish_office(client: &Client) {
    let now = now_ns();
    let interval_s = |of: &str| if of == GAUGE { 600 } else { 1_200 };
    let types = [GAUGE, METER_OF_TWENTY].map(|id| v1::DeviceType {
        id: id.to_owned(),
        properties: vec![property("level", ValueType::F64, Kind::Gauge)],
        sample_interval_s: interval_s(id),
        latency_s: 60,
        ..Default::default()
    });
    client.apply_device_types(types.to_vec()).await.unwrap();
    let fleet = fleet();
    let registered = fleet.iter().map(|(id, of, _, _, warranty)| v1::Device {
        installed_at_ns: now - DAY,
        ..device(id, of, &[("warranty", *warranty), ("vendor", "A&B<1>")])
    });
    client.register_devices(registered.collect()).await.unwrap();
    for device_type in [GAUGE, METER_OF_TWENTY] {
        let interval = interval_s(device_type) * S;
        let mut batch = BatchBuilder::new(device_type);
        for (id, _, slots, delay_s, _) in fleet.iter().filter(|(_, of, ..)| *of == device_type) {
            for slot in slots {
                let t = now - slot * interval - interval / 2;
                batch.row(id, t).received_at(t + delay_s * S).set("level", 1.0);
            }
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
}

async fn report(cluster: &TestCluster, form: &str) -> String {
    let endpoint = cluster.client_address(0);
    program::printed("examples/device_health", &[form, "2", &endpoint]).await
}

/// The lines of a section of the JSON, of each the fields that are named.
fn said(report: &str, section: &str, fields: &[&str]) -> Vec<Json> {
    let report: Vec<Json> = serde_json::from_str(report).unwrap();
    let lines = report.iter().filter(|line| line["section"] == section);
    let pick = |line: &Json| {
        fields
            .iter()
            .map(|field| program::rounded(&line[field]))
            .collect::<Json>()
    };
    lines.map(pick).collect()
}

/// Words of the lines below a heading, up to the next one.
fn lines_below(report: &str, heading: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let below = report.lines().skip_while(|line| !line.starts_with(heading));
    below.skip(1).take_while(|line| !line.is_empty()).map(words).collect()
}

/// 30 gauges and a meter promise 30 * 12 + 6 records. Three gauges keep all, one half and one a quarter of it, the meter a third: 47
/// records, of which twelve were late.
#[tokio::test]
async fn a_device_office_reads_what_its_fleet_promised_and_kept() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_office(&client).await;
    let report = report(&cluster, "json").await;
    let fields = ["devices", "offline", "completeness", "timeliness", "accuracy", "remark"];
    assert_eq!(
        said(&report, "the fleet", &fields),
        [json!([
            31,
            25,
            0.128415,
            0.744681,
            1.0,
            "3 slower, 25 silent, 0 with a low battery"
        ])]
    );
    let fields = ["name", "devices", "offline", "completeness"];
    assert_eq!(
        said(&report, "type", &fields),
        [json!([GAUGE, 30, 25, 0.125]), json!([METER_OF_TWENTY, 1, 0, 0.333333])]
    );
    assert_eq!(
        said(&report, "warranty", &fields),
        [json!(["in", 29, 24, 0.102339]), json!(["out", 2, 1, 0.5])]
    );
    // 25 devices said nothing. Those that are slow are told for all that, by how slow they are and not by what they miss.
    let worst = said(&report, "the worst devices", &["name", "completeness", "remark"]);
    assert_eq!(worst.len(), 20);
    assert_eq!(worst[0], json!(["never office-gauge", 0.0, "never heard"]));
    assert_eq!(worst[19], json!(["silent-19 office-gauge", 0.0, "silent"]));
    let fields = ["name", "device", "promised_s", "actual_s", "ratio"];
    assert_eq!(
        said(&report, "slower than promised", &fields),
        [
            json!(["quarter office-gauge", "quarter", 600.0, 2_400.0, 4.0]),
            json!(["third office-meter", "third", 1_200.0, 3_600.0, 3.0]),
            json!(["half office-gauge", "half", 600.0, 1_200.0, 2.0]),
        ]
    );
}

#[tokio::test]
async fn the_same_is_read_as_a_table_and_as_a_page() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_office(&client).await;
    let slow = [
        ["quarter office-gauge", "10.0 min", "40.0 min", "4.0"],
        ["third office-meter", "20.0 min", "60.0 min", "3.0"],
        ["half office-gauge", "10.0 min", "20.0 min", "2.0"],
    ];
    let table = report(&cluster, "table").await;
    assert_eq!(
        lines_below(&table, "slower than promised"),
        slow.map(|line| line.join(" "))
    );
    assert_eq!(
        lines_below(&table, "warranty"),
        [
            "in 29 24 10.23 % 65.71 % 100.00 % 0 3 slower, 24 silent, 0 with a low battery",
            "out 2 1 50.00 % 100.00 % 100.00 % 0 0 slower, 1 silent, 0 with a low battery"
        ]
    );
    assert_eq!(lines_below(&table, "the worst devices").len(), 20);

    let page = report(&cluster, "html").await;
    let row = |cells: &[&str]| format!("<tr><td>{}</tr>", cells.join("<td>"));
    let heads = row(&["slower than promised", "promised", "actual", "ratio"]);
    let rows: String = slow.iter().map(|cells| row(cells)).collect();
    assert!(page.contains(&format!("<table>{heads}{rows}</table>")), "{page}");
    let out = [
        "out",
        "2",
        "1",
        "50.00 %",
        "100.00 %",
        "100.00 %",
        "0",
        "0 slower, 1 silent, 0 with a low battery",
    ];
    assert!(page.contains(&row(&out)), "{page}");
    assert!(
        page.contains("<td>A&amp;B&lt;1><td>31<td>"),
        "names are escaped: {page}"
    );
}
