//! A day of the catalogue's whole fleet, 22,042 devices, some of them at fault, and the report that an office asks for. Every
//! number was computed elsewhere, from the rules of the fleet alone.
//! Never here: what one device keeps of its promise (see `tidemark_series::assess`), the same from raw records (see `fleet_recomputed`).
//! Invariant: what is expected of a device follows from its number, what of all of them is data of the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use crate::common::fleet::*;
use crate::common::{TestCluster, program};
use crate::fleet_recomputed;
use tidemark_client::{BatchBuilder, Client, Value, v1};
use tidemark_node::clock::now_ns;
use v1::ValueType;

const CATALOGUE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/catalogue/device-types.toml");
const ROWS_PER_BATCH: usize = 30_000;
const DAYS_BEFORE: i64 = 12;

/// Device types by id.
type Types = BTreeMap<String, v1::DeviceType>;

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

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::None => "clean",
            Fault::Silent => "silent",
            Fault::Slow => "slow",
            Fault::Late => "late",
            Fault::Doubled => "duplicating",
            Fault::OutOfRange => "out_of_range",
            Fault::Never => "never",
        }
    }
}

fn fault_of(device: &str, of: &v1::DeviceType) -> Fault {
    let numeric = matches!(of.properties[0].value_type(), ValueType::F64 | ValueType::I64);
    fault(device.rsplit('-').next().unwrap().parse().unwrap(), numeric)
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

/// Sends the day that begins at `from`, type by type, and days before it of devices that report once a day.
async fn a_day(client: &Client, types: &Types, from: i64) {
    for of in types.values() {
        let first = &of.properties[0];
        let interval = of.sample_interval_s * S;
        let records = DAY / interval;
        let mut batch = BatchBuilder::new(&of.id);
        for device in listed(client, &of.id).await {
            let fault = fault_of(&device.id, of);
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
            // A day is too short to tell how often one reports that does so once a day.
            let before = if interval < DAY { 0 } else { DAYS_BEFORE };
            for k in (-before..records).filter(|k| fault != Fault::Slow || k % 4 == 0) {
                let t = from + k * interval + interval / 2;
                let delay = if fault == Fault::Late { of.latency_s + 600 } else { 5 };
                let above = fault == Fault::OutOfRange && k == records / 2;
                for _ in 0..if fault == Fault::Doubled && k >= 0 { 2 } else { 1 } {
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

/// What the fleet is known to report.
fn known() -> toml::Table {
    let text = std::fs::read_to_string(Path::new(CATALOGUE).with_file_name("fleet-health.toml"));
    text.unwrap().parse().unwrap()
}

fn whole(of: &toml::Table, name: &str) -> u64 {
    of[name].as_integer().unwrap() as u64
}

/// The whole fleet over the day that begins at `from`.
fn fleet(from: i64) -> v1::GetQualityRequest {
    v1::GetQualityRequest {
        selector: Some(v1::Selector {
            everything: true,
            ..Default::default()
        }),
        from_ns: from,
        to_ns: from + DAY,
        ..Default::default()
    }
}

fn by(tags: &[&str], across_types: bool, from: i64) -> v1::GetQualityRequest {
    v1::GetQualityRequest {
        grouping: Some(v1::Grouping {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }),
        across_types,
        ..fleet(from)
    }
}

/// What a report of the fleet is made of.
struct Report {
    fleet: v1::QualityReport,
    by_warranty: Vec<v1::QualityReport>,
    /// With the health of each group.
    by_support: Vec<v1::QualityReport>,
    by_type: Vec<v1::QualityReport>,
    by_town: Vec<v1::QualityReport>,
    by_vendor: Vec<v1::QualityReport>,
    worst: Vec<v1::QualityReport>,
    devices: Vec<v1::QualityReport>,
}

impl Report {
    /// Asks one question after the other.
    async fn ask(client: &Client, from: i64) -> Report {
        let worst = v1::GetQualityRequest {
            worst: 5,
            ..fleet(from)
        };
        Report {
            fleet: reports(client, by(&[], true, from)).await.remove(0),
            by_warranty: reports(client, by(&["warranty"], true, from)).await,
            by_support: healths(client, by(&["vendor", "warranty", "vendor_support"], true, from)).await,
            by_type: reports(client, by(&[], false, from)).await,
            by_town: reports(client, by(&["town"], true, from)).await,
            by_vendor: reports(client, by(&["vendor"], true, from)).await,
            worst: reports(client, worst).await,
            devices: reports(client, fleet(from)).await,
        }
    }
}

/// The same of health.
async fn healths(client: &Client, of: v1::GetQualityRequest) -> Vec<v1::QualityReport> {
    let request = v1::GetHealthRequest {
        selector: of.selector,
        from_ns: of.from_ns,
        to_ns: of.to_ns,
        grouping: of.grouping,
        across_types: of.across_types,
        ..Default::default()
    };
    let (messages, _) = client.get_health(request).await.unwrap().collect().await.unwrap();
    messages.into_iter().flat_map(|message| message.reports).collect()
}

/// The fleet as a whole, and those out of warranty.
fn check_fleet(report: &Report, known: &toml::Table) {
    let known = known["fleet"].as_table().unwrap();
    let number = |name: &str| whole(known, name);
    let all = &report.fleet;
    let (devices, expected, filled) = (number("devices"), number("slots_expected"), number("slots_filled"));
    assert_eq!(
        (all.devices, all.slots_expected, all.slots_filled),
        (devices, expected, filled)
    );
    assert_eq!(completeness(all), known["completeness"].as_float().unwrap());
    assert_eq!(
        rounded(all.completeness_mean),
        known["completeness_mean"].as_float().unwrap()
    );
    assert_eq!(
        (all.points, all.points_timed, all.points_in_time),
        (filled, filled, number("points_in_time"))
    );
    assert_eq!(
        (all.points_fail, all.offline, all.never),
        (number("points_fail"), number("offline"), number("never"))
    );
    assert_eq!(all.duplicates, number("duplicates"));
    let mut by_warranty = report.by_warranty.iter();
    let out = by_warranty.find(|report| report.tags["warranty"] == "out").unwrap();
    assert_eq!(
        (out.devices, out.offline),
        (number("out_of_warranty"), number("out_of_warranty_offline"))
    );
}

/// Who is there, and whom nobody can mend.
fn check_health(report: &Report, known: &toml::Table) {
    let fleet = known["fleet"].as_table().unwrap();
    let groups = &report.by_support;
    let online: u64 = groups.iter().map(|group| group.health.as_ref().unwrap().online).sum();
    let never: u64 = groups.iter().map(|group| group.never).sum();
    assert_eq!(online, whole(fleet, "devices") - whole(fleet, "offline"));
    assert_eq!(never, whole(fleet, "never"));
    let expired = |supported: bool| {
        let mut devices: BTreeMap<String, u64> = BTreeMap::new();
        let out = groups.iter().filter(|group| group.tags["warranty"] == "out");
        for group in out.filter(|group| (group.tags["vendor_support"] != "ended") == supported) {
            *devices.entry(group.tags["vendor"].clone()).or_default() += group.devices;
        }
        devices
    };
    let unsupported = known["unsupported"].as_table().unwrap();
    let expected = unsupported
        .keys()
        .map(|vendor| (vendor.clone(), whole(unsupported, vendor)));
    let expected: BTreeMap<String, u64> = expected.collect();
    assert_eq!(expired(false), expected);
    let supported = expired(true);
    assert!(
        unsupported.keys().all(|vendor| !supported.contains_key(vendor)),
        "{supported:?}"
    );
    let all: u64 = expired(false).values().chain(supported.values()).sum();
    assert_eq!(all, whole(fleet, "out_of_warranty"));
}

/// Types, towns and vendors.
fn check_groups(report: &Report, known: &toml::Table) {
    assert_eq!(report.by_type.len(), 30);
    for (device_type, expected) in known["type"].as_table().unwrap() {
        let mut by_type = report.by_type.iter();
        let report = by_type.find(|report| report.device_type == *device_type).unwrap();
        let found = [report.slots_filled, report.slots_expected, report.offline].map(|number| number as i64);
        let expected: Vec<i64> = expected
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e.as_integer().unwrap())
            .collect();
        assert_eq!(found, expected[..], "{device_type}");
    }
    let towns = known["town"].as_table().unwrap();
    assert_eq!(report.by_town.len(), towns.len());
    for report in &report.by_town {
        let expected = towns[&report.tags["town"]].as_array().unwrap();
        let found = (completeness(report), report.offline as i64);
        assert_eq!(
            found,
            (expected[0].as_float().unwrap(), expected[1].as_integer().unwrap()),
            "{:?}",
            report.tags
        );
    }
    let mut vendors: Vec<&v1::QualityReport> = report.by_vendor.iter().collect();
    vendors.sort_by(|a, b| completeness(a).total_cmp(&completeness(b)));
    for (report, name) in [(vendors.first(), "worst"), (vendors.last(), "best")] {
        let (report, expected) = (report.unwrap(), known["vendor"][name].as_array().unwrap());
        let expected = (expected[0].as_str().unwrap(), expected[1].as_float().unwrap());
        assert_eq!(
            (report.tags["vendor"].as_str(), completeness(report)),
            expected,
            "{name}"
        );
    }
}

/// Every device by itself: who is worst, who is slower than promised.
fn check_devices(report: &Report, types: &Types, known: &toml::Table) {
    let expected = known["worst"].as_array().unwrap();
    let worst = &report.worst;
    let found = worst.iter().map(|report| (report.device.as_str(), report.never == 1));
    let expected = expected
        .iter()
        .map(|e| (e["device"].as_str().unwrap(), e["never"].as_bool().unwrap()));
    assert!(found.clone().eq(expected), "{:?}", found.collect::<Vec<_>>());

    let devices = &report.devices;
    let fleet = known["fleet"].as_table().unwrap();
    assert_eq!(devices.len() as u64, whole(fleet, "devices"));
    let interval = |report: &v1::QualityReport| types[&report.device_type].sample_interval_s;
    let slower = devices
        .iter()
        .filter(|report| report.freshness() == v1::Freshness::Slower);
    let hourly: Vec<_> = slower.filter(|report| interval(report) <= 3_600).collect();
    assert_eq!(hourly.len() as u64, whole(fleet, "slower_hourly"));
    assert!(hourly.iter().all(|report| report.spacing_ratio == 4.0));
    let daily = devices
        .iter()
        .filter(|report| interval(report) >= 86_400 && report.points > 0);
    assert!(daily.clone().count() > 6_000);
    assert!(
        daily
            .clone()
            .all(|report| report.freshness() == v1::Freshness::NotAssessable)
    );
}

/// Who misses what was agreed, by what ails him.
fn check_missed(report: &Report, types: &Types, known: &toml::Table) {
    let misses = |report: &&v1::QualityReport| {
        let late = report.points_timed > 0 && (report.points_in_time as f64) < 0.95 * report.points_timed as f64;
        (report.slots_filled as f64) < 0.95 * report.slots_expected as f64 || late || report.offline == 1
    };
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for device in report.devices.iter().filter(misses) {
        let fault = fault_of(&device.device, &types[&device.device_type]);
        *found.entry(fault.name().to_owned()).or_default() += 1;
    }
    let missed = known["missed"].as_table().unwrap();
    let expected = missed.keys().map(|fault| (fault.clone(), whole(missed, fault)));
    let expected: BTreeMap<String, u64> = expected.collect();
    assert_eq!(found, expected);
    let all: u64 = found.values().sum();
    assert_eq!(all, whole(known["fleet"].as_table().unwrap(), "missed"));
}

/// What ails each device, told by its reports alone.
async fn check_faults(client: &Client, from: i64, day: &[v1::QualityReport], known: &toml::Table) {
    let slower = |reports: Vec<v1::QualityReport>| {
        let slower = reports.into_iter().filter(|r| r.freshness() == v1::Freshness::Slower);
        slower.map(|report| report.device).collect::<BTreeSet<_>>()
    };
    let days = v1::GetQualityRequest {
        from_ns: from - DAYS_BEFORE * DAY,
        ..fleet(from)
    };
    let slow = slower(reports(client, days).await);
    let ails = |report: &v1::QualityReport| match report {
        r if r.never == 1 => "never",
        r if r.points == 0 => "silent",
        r if r.slots_filled * 2 <= r.slots_expected || slow.contains(&r.device) => "slow",
        r if r.points_in_time == 0 => "late",
        r if r.duplicates > 0 => "duplicating",
        r if r.points_fail > 0 => "out_of_range",
        _ => "clean",
    };
    let mut found: BTreeMap<&str, i64> = BTreeMap::new();
    for report in day {
        *found.entry(ails(report)).or_default() += 1;
        if report.duplicates > 0 {
            assert_eq!(report.duplicates, report.points, "{}: each once again", report.device);
        }
    }
    let known = known["faults"].as_table().unwrap();
    let expected: BTreeMap<&str, i64> = known
        .iter()
        .map(|(k, n)| (k.as_str(), n.as_integer().unwrap()))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_day_of_the_fleet_is_reported_as_it_was() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let endpoint = cluster.client_address(0);
    for arguments in [
        &["type", "apply", CATALOGUE][..],
        &["device", "import", "--catalogue", CATALOGUE],
    ] {
        program::printed("tidemark", &[&["-e", &endpoint][..], arguments].concat()).await;
    }
    let types = client.list_device_types(Vec::new()).await.unwrap();
    let types: Types = types.into_iter().map(|of| (of.id.clone(), of)).collect();
    // Eight in the morning at UTC+8, two days ago.
    let from = (now_ns() / DAY - 2) * DAY;
    a_day(&client, &types, from).await;
    let known = known();
    let began = Instant::now();
    let report = Report::ask(&client, from).await;
    check_fleet(&report, &known);
    check_health(&report, &known);
    check_groups(&report, &known);
    check_devices(&report, &types, &known);
    check_missed(&report, &types, &known);
    // How long it may take is judged where nothing else runs: see `bench/README.md`.
    println!("the report took {:?}", began.elapsed());
    check_faults(&client, from, &report.devices, &known).await;
    fleet_recomputed::check(&client, &types, (&report.devices, &report.by_type), from).await;
}
