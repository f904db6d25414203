//! A day of the catalogue's whole fleet, 22,042 devices, some of them at fault, and the reports that an office asks for. Every
//! number was computed elsewhere, from the rules of the fleet alone.
//! Never here: what one device keeps of its promise (see `tidemark_series::assess`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::TestCluster;
use common::fleet::*;
use tidemark_client::{BatchBuilder, Client, Value, v1};
use tidemark_node::clock::now_ns;
use v1::ValueType;

const CATALOGUE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/catalogue/device-types.toml");
const ROWS_PER_BATCH: usize = 30_000;

/// What ails a device.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Fault {
    None,
    Silent,
    /// Every fourth record only.
    Slow,
    Late,
    /// Every record twice.
    Doubled,
    OutOfRange,
    Never,
}

/// By its number within its type, and whether its first property is a number.
fn fault(seq: u64, numeric: bool) -> Fault {
    match seq {
        _ if seq % 100 == 7 => Fault::Silent,
        _ if seq % 100 == 13 => Fault::Slow,
        _ if seq % 100 == 29 => Fault::Late,
        _ if seq % 100 == 43 => Fault::Doubled,
        _ if seq % 200 == 157 && numeric => Fault::OutOfRange,
        _ if seq % 500 == 77 => Fault::Never,
        _ => Fault::None,
    }
}

fn tidemark(endpoint: &str, arguments: &[&str]) {
    let program = Path::new(env!("CARGO_BIN_EXE_tidemarkd")).with_file_name("tidemark");
    let mut command = Command::new(program);
    let output = command.args(["-e", endpoint]).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A value of the first property: in the middle of its range, or above it.
fn value(property: &v1::Property, above: bool) -> Value {
    let (min, max) = (property.min.unwrap_or(0.0), property.max.unwrap_or(0.0));
    let number = if above { max + 1.0 } else { (min + max) / 2.0 };
    match property.value_type() {
        ValueType::I64 => Value::I64(number as i64),
        ValueType::Bool => Value::Bool(false),
        ValueType::Enum => Value::Enum(property.labels[0].clone()),
        ValueType::Text => Value::Text("x".into()),
        ValueType::F64 | ValueType::Unspecified => Value::F64(number),
    }
}

/// Sends the day that begins at `from`, type by type.
async fn a_day(client: &Client, from: i64) {
    let types = client.list_device_types(Vec::new()).await.unwrap();
    for of in &types {
        let first = &of.properties[0];
        let numeric = matches!(first.value_type(), ValueType::F64 | ValueType::I64);
        let interval = of.sample_interval_s * S;
        let records = DAY / interval;
        let mut batch = BatchBuilder::new(&of.id);
        for device in listed(client, &of.id).await {
            let seq = device.id.rsplit('-').next().unwrap().parse().unwrap();
            let fault = fault(seq, numeric);
            if fault == Fault::Never {
                continue;
            }
            if fault == Fault::Silent {
                let t = from - 40 * interval.max(of.report_interval_s * S);
                batch
                    .row(&device.id, t)
                    .received_at(t + 5 * S)
                    .set(&first.id, value(first, false));
                continue;
            }
            for k in (0..records).filter(|k| fault != Fault::Slow || k % 4 == 0) {
                let t = from + k * interval + interval / 2;
                let delay = if fault == Fault::Late { of.latency_s + 600 } else { 5 };
                let above = fault == Fault::OutOfRange && k == records / 2;
                for _ in 0..if fault == Fault::Doubled { 2 } else { 1 } {
                    let row = batch.row(&device.id, t).received_at(t + delay * S);
                    row.set(&first.id, value(first, above));
                }
            }
            if batch.len() > ROWS_PER_BATCH {
                let full = std::mem::replace(&mut batch, BatchBuilder::new(&of.id));
                client.write(write(full.build().unwrap())).await.unwrap();
            }
        }
        if !batch.is_empty() {
            client.write(write(batch.build().unwrap())).await.unwrap();
        }
    }
}

async fn listed(client: &Client, device_type: &str) -> Vec<v1::Device> {
    let request = v1::ListDevicesRequest {
        selector: of_type(device_type),
        ..Default::default()
    };
    let (messages, _) = client.list_devices(request).await.unwrap().collect().await.unwrap();
    messages.into_iter().flat_map(|message| message.devices).collect()
}

/// The reports of a question over the whole fleet.
async fn reports(client: &Client, request: v1::GetQualityRequest) -> Vec<v1::QualityReport> {
    let (messages, summary) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    let reports: Vec<_> = messages.into_iter().flat_map(|message| message.reports).collect();
    assert_eq!(summary.rows, reports.len() as u64);
    reports
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn completeness(report: &v1::QualityReport) -> f64 {
    rounded(report.slots_filled as f64 / report.slots_expected as f64)
}

#[tokio::test]
async fn a_day_of_the_fleet_is_reported_as_it_was() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let endpoint = cluster.client_address(0);
    tokio::task::spawn_blocking(move || {
        tidemark(&endpoint, &["type", "apply", CATALOGUE]);
        tidemark(&endpoint, &["device", "import", "--catalogue", CATALOGUE]);
    })
    .await
    .unwrap();
    // Eight in the morning at UTC+8, two days ago.
    let from = (now_ns() / DAY - 2) * DAY;
    a_day(&client, from).await;

    let fleet = || v1::GetQualityRequest {
        // Every device has a town.
        selector: Some(v1::Selector {
            none_of: vec![v1::Selector {
                tags: vec![v1::TagMatcher {
                    key: "town".into(),
                    values: vec!["nowhere".into()],
                }],
                ..Default::default()
            }],
            ..Default::default()
        }),
        from_ns: from,
        to_ns: from + DAY,
        ..Default::default()
    };
    let by = |tags: &[&str], across_types| v1::GetQualityRequest {
        grouping: Some(v1::Grouping {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }),
        across_types,
        ..fleet()
    };

    let all = &reports(&client, by(&[], true)).await[0];
    assert_eq!(
        (all.devices, all.slots_expected, all.slots_filled),
        (22_042, 3_217_924, 3_142_825)
    );
    assert_eq!(
        (completeness(all), rounded(all.completeness_mean)),
        (0.976_662, 0.981_528)
    );
    assert_eq!(
        (all.points_in_time, all.points_timed, all.points_fail),
        (3_110_999, 3_142_825, 42)
    );
    assert_eq!((all.offline, all.never), (419, 57));
    let by_warranty = reports(&client, by(&["warranty"], true)).await;
    let out = by_warranty
        .iter()
        .find(|report| report.tags["warranty"] == "out")
        .unwrap();
    assert_eq!((out.offline, out.devices), (81, 4_912));

    let by_type: BTreeMap<String, v1::QualityReport> = reports(&client, by(&[], false))
        .await
        .into_iter()
        .map(|report| (report.device_type.clone(), report))
        .collect();
    let of_type = |id: &str| {
        let report = &by_type[id];
        (report.slots_filled, report.slots_expected, report.offline)
    };
    assert_eq!(of_type("rain_gauge"), (26_856, 27_648, 2));
    assert_eq!(of_type("ponding_gauge"), (59_832, 61_632, 7));
    assert_eq!(of_type("street_light"), (128_688, 131_328, 62));
    assert_eq!(of_type("smoke_detector"), (6_613, 6_694, 81));
    assert_eq!(of_type("vehicle_tracker"), (1_464_480, 1_497_600, 13));
    assert_eq!(completeness(&by_type["tide_gauge"]), 1.0);
    assert_eq!(by_type.len(), 30);

    let by_town: BTreeMap<String, (f64, u64)> = reports(&client, by(&["town"], true))
        .await
        .into_iter()
        .map(|report| (report.tags["town"].clone(), (completeness(&report), report.offline)))
        .collect();
    let towns = [
        ("danghu", 0.966_769, 157),
        ("zhongdai", 0.982_129, 59),
        ("caoqiao", 0.971_224, 30),
        ("zhapu", 0.980_072, 47),
        ("xindai", 0.976_027, 34),
        ("xincang", 0.987_197, 27),
        ("dushangang", 0.984_159, 30),
        ("guangchen", 0.989_103, 15),
        ("lindai", 0.943_741, 20),
    ];
    for (town, completeness, offline) in towns {
        assert_eq!(by_town[town], (completeness, offline), "{town}");
    }
    assert_eq!(by_town.len(), towns.len());

    let by_vendor = reports(&client, by(&["vendor"], true)).await;
    let mut vendors: Vec<(f64, &str)> = by_vendor
        .iter()
        .map(|report| (completeness(report), report.tags["vendor"].as_str()))
        .collect();
    vendors.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(
        (vendors[0], vendors[vendors.len() - 1]),
        ((0.961_441, "v1"), (0.998_873, "v7"))
    );

    let worst = reports(&client, v1::GetQualityRequest { worst: 5, ..fleet() }).await;
    let worst: Vec<(&str, bool)> = worst.iter().map(|r| (r.device.as_str(), r.never == 1)).collect();
    let expected = [
        ("330482-AQ-01-00007", false),
        ("330482-AQ-04-00077", true),
        ("330482-AQ-07-00107", false),
        ("330482-CG-01-00007", false),
        ("330482-CG-01-00077", true),
    ];
    assert_eq!(worst, expected);

    let devices = reports(&client, fleet()).await;
    assert_eq!(devices.len(), 22_042);
    let slower: Vec<f64> = devices
        .iter()
        .filter(|report| report.freshness() == v1::Freshness::Slower)
        .map(|report| report.spacing_ratio)
        .collect();
    assert_eq!((slower.len(), slower.iter().all(|ratio| *ratio == 4.0)), (103, true));
    let smoke = devices
        .iter()
        .filter(|report| report.device_type == "smoke_detector" && report.points > 0);
    assert!(smoke.clone().count() > 6_000);
    assert!(
        smoke
            .clone()
            .all(|report| report.freshness() == v1::Freshness::NotAssessable)
    );

    let misses = |report: &&v1::QualityReport| {
        let late = report.points_timed > 0 && (report.points_in_time as f64) < 0.95 * report.points_timed as f64;
        (report.slots_filled as f64) < 0.95 * report.slots_expected as f64 || late || report.offline == 1
    };
    assert_eq!(devices.iter().filter(misses).count(), 680);
}
