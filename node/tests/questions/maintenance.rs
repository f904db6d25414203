//! Declared maintenance: what devices did or did not do in it is not held against them, told by devices, groups and gaps.
//! Never here: how it is declared (see `cluster/registry`), random times of it (see `random`).

use crate::common::TestCluster;
use crate::common::afternoon::{TWO, at, stamps};
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, v1};
use v1::{Freshness, Kind, ValueType};

const GAUGE: &str = "kept-gauge";
const AFTERNOON: (i64, i64) = (TWO, TWO + 6 * HOUR);

/// Devices, each with its declared maintenance.
async fn furnish_gauges(client: &Client, devices: &[(&str, &[(i64, i64)])]) {
    let gauge = v1::DeviceType {
        id: GAUGE.into(),
        properties: vec![
            v1::Property {
                max: Some(100.0),
                ..property("level", ValueType::F64, Kind::Gauge)
            },
            property("rain", ValueType::F64, Kind::Increment),
        ],
        sample_interval_s: 300,
        latency_s: 60,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![gauge]).await.unwrap();
    let devices = devices.iter().map(|(id, declared)| v1::Device {
        maintenance: declared
            .iter()
            .map(|(from_ns, to_ns)| maintenance(*from_ns, *to_ns))
            .collect(),
        ..device(id, GAUGE, &[("town", "danghu")])
    });
    client.register_devices(devices.collect()).await.unwrap();
}

fn maintenance(from_ns: i64, to_ns: i64) -> v1::Maintenance {
    v1::Maintenance {
        from_ns,
        to_ns,
        reason: "battery".into(),
    }
}

/// Sends points of a property, each so many seconds after it was observed.
async fn send(client: &Client, device: &str, property: &str, points: impl IntoIterator<Item = (i64, f64, i64)>) {
    let mut batch = BatchBuilder::new(GAUGE);
    for (t, value, late_s) in points {
        batch.row(device, t).received_at(t + late_s * S).set(property, value);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

async fn reports(client: &Client, request: v1::GetQualityRequest) -> Vec<v1::QualityReport> {
    let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    let mut reports: Vec<_> = messages.into_iter().flat_map(|message| message.reports).collect();
    reports.sort_by(|a, b| a.device.cmp(&b.device));
    reports
}

async fn report(client: &Client, device: &str, property: &str, (from_ns, to_ns): (i64, i64)) -> v1::QualityReport {
    let request = v1::GetQualityRequest {
        selector: of_devices(&[device]),
        property: property.into(),
        from_ns,
        to_ns,
        gaps: true,
        ..Default::default()
    };
    reports(client, request).await.remove(0)
}

fn gaps(report: &v1::QualityReport) -> Vec<(i64, i64, u64, bool)> {
    let gaps = report.gaps.iter();
    gaps.map(|gap| (gap.from_ns, gap.to_ns, gap.missing, gap.open))
        .collect()
}

fn within(span: (i64, i64)) -> impl Fn(&i64) -> bool {
    move |t| (span.0..span.1).contains(t)
}

#[tokio::test]
async fn what_a_device_does_not_report_then_is_not_missing() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let hour = (at(15, 0), at(16, 0));
    furnish_gauges(
        &client,
        &[("kept", &[hour]), ("held", &[]), ("brief", &[(at(15, 2), at(15, 3))])],
    )
    .await;
    let silent = (at(17, 0), at(17, 30));
    let there = stamps().filter(|t| !within(hour)(t) && !within(silent)(t));
    let points: Vec<_> = there.map(|t| (t, 1.0, 5)).collect();
    for device in ["kept", "held"] {
        send(&client, device, "level", points.clone()).await;
    }
    send(&client, "brief", "level", stamps().map(|t| (t, 1.0, 5))).await;

    let kept = report(&client, "kept", "", AFTERNOON).await;
    assert_eq!((kept.slots_expected, kept.slots_filled, kept.points), (60, 54, 54));
    assert_eq!(gaps(&kept), [(at(16, 55), at(17, 30), 6, false)]);
    // The last point before the silence was too old after a quarter of an hour: 20 of 300 minutes.
    assert_eq!(kept.availability_mean, 280.0 / 300.0);
    assert_eq!((kept.offline, kept.under_maintenance, kept.as_promised), (0, 0, 1));

    let held = report(&client, "held", "", AFTERNOON).await;
    assert_eq!((held.slots_expected, held.slots_filled), (72, 54));
    let both = [(at(14, 55), at(16, 0), 12, false), (at(16, 55), at(17, 30), 6, false)];
    assert_eq!(gaps(&held), both);
    assert_eq!(held.availability_mean, (360.0 - 50.0 - 20.0) / 360.0);

    // A second of maintenance takes the slot that it lies in, with its point.
    let brief = report(&client, "brief", "", AFTERNOON).await;
    assert_eq!((brief.slots_expected, brief.slots_filled, brief.points), (71, 71, 71));
    assert_eq!(gaps(&brief), []);

    let town = v1::GetQualityRequest {
        selector: of_type(GAUGE),
        from_ns: AFTERNOON.0,
        to_ns: AFTERNOON.1,
        grouping: Some(v1::Grouping {
            tags: vec!["town".into()],
        }),
        ..Default::default()
    };
    let town = reports(&client, town).await.remove(0);
    assert_eq!((town.devices, town.devices_assessed), (3, 3));
    assert_eq!((town.slots_expected, town.slots_filled), (60 + 72 + 71, 54 + 54 + 71));
    let mean: f64 = (54.0 / 60.0 + 54.0 / 72.0 + 1.0) / 3.0;
    assert!(
        (town.completeness_mean - mean).abs() < 1e-12,
        "{}",
        town.completeness_mean
    );
}

#[tokio::test]
async fn what_a_device_reports_then_is_neither_late_nor_wrong_nor_repeated() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let hour = (at(15, 0), at(16, 0));
    furnish_gauges(&client, &[("kept", &[hour]), ("held", &[]), ("rainy", &[hour])]).await;
    for device in ["kept", "held"] {
        let tried = |t: i64| {
            if within(hour)(&t) {
                (t, 101.0, 7_200)
            } else {
                (t, 1.0, 5)
            }
        };
        send(&client, device, "level", stamps().map(tried)).await;
        send(&client, device, "level", stamps().filter(within(hour)).map(tried)).await;
    }
    let told = |report: &v1::QualityReport| {
        let points = (report.points, report.points_timed, report.points_in_time);
        (report.slots_filled, points, report.points_fail, report.duplicates)
    };
    let kept = report(&client, "kept", "level", AFTERNOON).await;
    assert_eq!(told(&kept), (60, (60, 60, 60), 0, 0));
    assert_eq!((kept.slots_expected, kept.as_promised), (60, 1));
    let held = report(&client, "held", "level", AFTERNOON).await;
    assert_eq!(told(&held), (72, (72, 72, 60), 12, 12));

    // Rain is that of the five minutes before: what fell until three is from before, what fell until four is not.
    send(&client, "rainy", "rain", stamps().skip(1).map(|t| (t, 0.5, 5))).await;
    let before = report(&client, "rainy", "rain", (TWO, at(15, 0))).await;
    assert_eq!(
        (before.slots_expected, before.slots_filled, before.points),
        (12, 12, 12)
    );
    let until = report(&client, "rainy", "rain", (TWO, at(16, 0))).await;
    assert_eq!((until.slots_expected, until.slots_filled, until.points), (12, 12, 12));
    let after = report(&client, "rainy", "rain", (TWO, at(16, 5))).await;
    assert_eq!((after.slots_expected, after.slots_filled, after.points), (13, 13, 13));
}

#[tokio::test]
async fn a_device_under_maintenance_is_not_missed() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let five = at(17, 0);
    let devices: [(&str, &[(i64, i64)]); 5] = [
        ("all-day", &[(at(13, 0), at(21, 0))]),
        ("ended", &[(five, at(19, 50))]),
        ("mute", &[(at(13, 0), at(21, 0))]),
        ("silent", &[]),
        ("still", &[(five, at(21, 0))]),
    ];
    furnish_gauges(&client, &devices).await;
    for device in ["all-day", "ended", "silent", "still"] {
        send(
            &client,
            device,
            "level",
            stamps().filter(|t| *t < five).map(|t| (t, 1.0, 5)),
        )
        .await;
    }
    let request = |to_ns: i64| v1::GetHealthRequest {
        selector: of_type(GAUGE),
        from_ns: TWO,
        to_ns,
        ..Default::default()
    };
    let found = async |to_ns: i64| {
        let (messages, _) = client
            .get_health(request(to_ns))
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        let mut found: Vec<_> = messages.into_iter().flat_map(|message| message.reports).collect();
        found.sort_by(|a, b| a.device.cmp(&b.device));
        let told = found.iter().map(|report| {
            let online = report.health.as_ref().map_or(0, |health| health.online);
            let slots = (report.slots_filled, report.slots_expected);
            let missed = (online, report.offline, report.under_maintenance);
            (report.device.clone(), slots, missed, report.freshness())
        });
        told.collect::<Vec<_>>()
    };
    let told = |id: &str, slots: (u64, u64), missed: (u64, u64, u64), freshness: Freshness| {
        (id.to_owned(), slots, missed, freshness)
    };
    let expected = [
        told("all-day", (0, 0), (0, 0, 1), Freshness::NotAssessable),
        // A quarter of an hour of its silence was none of maintenance, just as long as three intervals.
        told("ended", (36, 38), (0, 0, 0), Freshness::AsPromised),
        told("mute", (0, 0), (0, 0, 1), Freshness::NotAssessable),
        told("silent", (36, 72), (0, 1, 0), Freshness::Stalled),
        told("still", (36, 36), (0, 0, 1), Freshness::AsPromised),
    ];
    assert_eq!(found(at(20, 0)).await, expected);
    let later = found(at(20, 5)).await;
    assert_eq!(later[1], told("ended", (36, 39), (0, 1, 0), Freshness::AsPromised));
    let much_later = found(at(20, 50)).await;
    assert_eq!(much_later[1], told("ended", (36, 48), (0, 1, 0), Freshness::Stalled));
    // A time that begins with it: the last point was hours ago, and it is not stalled.
    let begun = (at(18, 0), at(20, 0));
    let ended = report(&client, "ended", "", begun).await;
    assert_eq!((ended.slots_expected, ended.freshness()), (2, Freshness::NotAssessable));
    assert_eq!(gaps(&ended), [(at(16, 55), at(20, 0), 3, true)]);
    assert_eq!(gaps(&report(&client, "still", "", begun).await), []);
    assert_eq!(
        gaps(&report(&client, "silent", "", begun).await),
        [(at(16, 55), at(20, 0), 37, true)]
    );
}

#[tokio::test]
async fn spacings_over_maintenance_do_not_make_a_device_slower() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    // One slot of seven is not under maintenance.
    let begins = (0..11).map(|n| TWO + n * 35 * MIN);
    let declared: Vec<_> = begins.clone().map(|t| (t + 5 * MIN, t + 35 * MIN)).collect();
    furnish_gauges(&client, &[("kept", &declared), ("held", &[])]).await;
    for device in ["kept", "held"] {
        send(&client, device, "level", begins.clone().map(|t| (t, 1.0, 5))).await;
    }
    let kept = report(&client, "kept", "", AFTERNOON).await;
    assert_eq!((kept.slots_filled, kept.slots_expected), (11, 11));
    assert_eq!((kept.slower, kept.freshness()), (0, Freshness::NotAssessable));
    assert_eq!((kept.availability_mean, gaps(&kept)), (1.0, vec![]));
    let held = report(&client, "held", "", AFTERNOON).await;
    assert_eq!((held.freshness(), held.spacing_ratio), (Freshness::Slower, 7.0));
}

#[tokio::test]
async fn a_gap_begins_with_the_last_point_before_maintenance() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let declared = (at(12, 0), at(14, 30));
    furnish_gauges(&client, &[("kept", &[declared]), ("tried", &[declared])]).await;
    // It falls silent at ten, is repaired from noon on, and reports again from three; one is tried out all the while.
    let mornings = (0..12).map(|n| at(9, 0) + n * 5 * MIN);
    let points: Vec<_> = mornings.chain(stamps().filter(|t| *t >= at(15, 0))).collect();
    let tried = (0..30).map(|n| declared.0 + n * 5 * MIN);
    send(&client, "kept", "level", points.iter().map(|t| (*t, 1.0, 5))).await;
    send(
        &client,
        "tried",
        "level",
        points.iter().copied().chain(tried).map(|t| (t, 1.0, 5)),
    )
    .await;
    for device in ["kept", "tried"] {
        let told = report(&client, device, "", AFTERNOON).await;
        assert_eq!((told.slots_filled, told.slots_expected), (60, 66), "{device}");
        // Two hours and five minutes before maintenance, and half an hour behind it.
        assert_eq!(gaps(&told), [(at(9, 55), at(15, 0), 30, false)], "{device}");
    }
}
