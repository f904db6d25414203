//! Reports of quality and health at their edges: devices that are not in service, types that promise nothing, groups whose tags look alike,
//! times without end. Never here: what promises are (see `health`). Invariant: who is out of scope counts neither for nor against anybody.

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, v1};
use v1::{Freshness, Kind, ValueType};

const PUMP: &str = "report-pump";
const BELL: &str = "report-bell";

/// A type that promises a point in five minutes, and one that promises nothing but to be heard once an hour.
async fn furnish_types(client: &Client) {
    let signal = v1::Property {
        attributes: [("diag".to_owned(), "signal".to_owned())].into(),
        ..property("dbm", ValueType::F64, Kind::Gauge)
    };
    let pump = v1::DeviceType {
        id: PUMP.into(),
        properties: vec![property("flow", ValueType::F64, Kind::Gauge)],
        sample_interval_s: 300,
        report_interval_s: 300,
        ..v1::DeviceType::default()
    };
    let bell = v1::DeviceType {
        id: BELL.into(),
        properties: vec![property("rung", ValueType::Bool, Kind::Event), signal],
        report_interval_s: 3_600,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![pump, bell]).await.unwrap();
}

fn health(from_ns: i64, to_ns: i64) -> v1::GetHealthRequest {
    v1::GetHealthRequest {
        selector: of_type(PUMP),
        from_ns,
        to_ns,
        ..Default::default()
    }
}

async fn healths(client: &Client, request: v1::GetHealthRequest) -> Vec<v1::QualityReport> {
    let (messages, _) = client.get_health(request).await.unwrap().collect().await.unwrap();
    let mut reports: Vec<_> = messages.into_iter().flat_map(|message| message.reports).collect();
    reports.sort_by(|a, b| a.device.cmp(&b.device));
    reports
}

async fn qualities(client: &Client, request: v1::GetQualityRequest) -> Vec<v1::QualityReport> {
    let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    messages.into_iter().flat_map(|message| message.reports).collect()
}

#[tokio::test]
async fn who_is_not_in_service_is_neither_there_nor_missed() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish_types(&client).await;
    let life = |id: &str, installed_at_ns: i64, retired_at_ns: i64| v1::Device {
        installed_at_ns,
        retired_at_ns,
        ..device(id, PUMP, &[])
    };
    let devices = [
        life("p1", 0, 0),
        life("p2", 0, T0 + 2 * HOUR),
        life("p3", 0, T0 + 3 * HOUR),
        life("p4", T0 + 60 * DAY, 0),
    ];
    client.register_devices(devices.to_vec()).await.unwrap();
    let mut batch = BatchBuilder::new(PUMP);
    for t in (T0..T0 + 3 * HOUR).step_by(5 * MIN as usize) {
        batch.row("p1", t).set("flow", 1.0);
        // Speaks until it is retired; the other one fell silent long before.
        if t < T0 + 2 * HOUR {
            batch.row("p2", t).set("flow", 1.0);
        }
        if t < T0 + HOUR {
            batch.row("p3", t).set("flow", 1.0);
        }
    }
    client.write(write(batch.build().unwrap())).await.unwrap();

    let told = |reports: Vec<v1::QualityReport>| -> Vec<(u64, u64, Freshness)> {
        let of = |report: &v1::QualityReport| {
            let online = report.health.as_ref().unwrap().online;
            (online, report.offline, report.freshness())
        };
        reports.iter().map(of).collect()
    };
    let out = (0, 0, Freshness::NotAssessable);
    // While they are in service all of them are held to it.
    let early = told(healths(&client, health(T0, T0 + HOUR)).await);
    let there = (1, 0, Freshness::AsPromised);
    assert_eq!(early, [there, there, there, out]);
    // One left in the middle of it, one was silent and is still missed.
    let middle = told(healths(&client, health(T0 + HOUR, T0 + 150 * MIN)).await);
    let gone = (0, 0, Freshness::AsPromised);
    assert_eq!(middle, [there, gone, (0, 1, Freshness::Stalled), out]);
    // A day long after.
    let late = told(healths(&client, health(T0 + 30 * DAY, T0 + 31 * DAY)).await);
    assert_eq!(late, [(0, 1, Freshness::Stalled), out, out, out]);
}

#[tokio::test]
async fn a_type_that_promises_no_points_still_says_who_is_there() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_types(&client).await;
    let retired = v1::Device {
        retired_at_ns: T0 + HOUR,
        ..device("b4", BELL, &[])
    };
    let devices = ["b1", "b2", "b3"].map(|id| device(id, BELL, &[]));
    client
        .register_devices([devices.to_vec(), vec![retired]].concat())
        .await
        .unwrap();
    let mut batch = BatchBuilder::new(BELL);
    batch.row("b1", T0 + 40 * MIN).set("dbm", -70.0);
    batch.row("b1", T0 + 50 * MIN).set("dbm", -90.0);
    batch.row("b1", T0 + 4 * HOUR).set("rung", true).set("dbm", -80.0);
    batch.row("b2", T0).set("rung", true);
    batch.row("b4", T0 + 30 * MIN).set("rung", true);
    client.write(write(batch.build().unwrap())).await.unwrap();
    let asked = |to_ns: i64| v1::GetHealthRequest {
        selector: of_type(BELL),
        ..health(T0, to_ns)
    };
    let told = |reports: Vec<v1::QualityReport>| -> Vec<(u64, i64, Option<f64>)> {
        let of = |report: &v1::QualityReport| {
            assert_eq!((report.offline, report.freshness()), (0, Freshness::NothingPromised));
            let health = report.health.as_ref().unwrap();
            (health.online, health.last_heard_at_ns, health.signal_median)
        };
        reports.iter().map(of).collect()
    };
    let (heard, never) = (|minute: i64| T0 + minute * MIN, (0, 0, None));
    let two = told(healths(&client, asked(T0 + 2 * HOUR)).await);
    assert_eq!(
        two,
        [
            (1, heard(50), Some(-70.0)),
            (1, heard(0), None),
            never,
            (0, heard(30), None)
        ]
    );
    let five = told(healths(&client, asked(T0 + 5 * HOUR)).await);
    assert_eq!(
        five,
        [
            (1, heard(240), Some(-80.0)),
            (0, heard(0), None),
            never,
            (0, heard(30), None)
        ]
    );
}

#[tokio::test]
async fn groups_whose_tags_look_alike_are_two_among_the_worst() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_types(&client).await;
    let devices = [
        device("p1", PUMP, &[("district", "north"), ("street", "gate road")]),
        device("p2", PUMP, &[("district", "north gate"), ("street", "road")]),
    ];
    client.register_devices(devices.to_vec()).await.unwrap();
    let request = v1::GetQualityRequest {
        selector: of_type(PUMP),
        from_ns: T0,
        to_ns: T0 + HOUR,
        grouping: Some(v1::Grouping {
            tags: vec!["district".into(), "street".into()],
        }),
        worst: 10,
        ..Default::default()
    };
    assert_eq!(qualities(&client, request).await.len(), 2);
}

#[tokio::test]
async fn a_time_without_end_is_refused_and_a_life_without_begin_is_none() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_types(&client).await;
    let never = v1::Device {
        installed_at_ns: i64::MAX,
        ..device("p1", PUMP, &[])
    };
    let long_ago = v1::Device {
        installed_at_ns: T0 + 1,
        ..device("p2", PUMP, &[])
    };
    client.register_devices(vec![never, long_ago]).await.unwrap();
    let error = client.get_health(health(i64::MIN, T0)).await.expect_err("for ever");
    assert_eq!(
        (error.reason.as_str(), error.field.as_deref()),
        ("INVALID_VALUE", Some("from_ns"))
    );
    let slots =
        |reports: Vec<v1::QualityReport>| -> Vec<u64> { reports.iter().map(|report| report.slots_expected).collect() };
    assert_eq!(slots(healths(&client, health(T0, T0 + HOUR)).await), [0, 11]);
    let since = i64::MIN + T0 + 30 * DAY;
    assert_eq!(slots(healths(&client, health(since, T0 + HOUR)).await), [0, 11]);
}
