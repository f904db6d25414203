//! Promises kept and broken, told by single devices and groups: what came late, what came again, who is slower than it says, who
//! is there. Never here: gaps (see `intervals`), a whole fleet (see `fleet_health`).

use crate::common::TestCluster;
use crate::common::afternoon::{TWO, at, rain, stamps};
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, v1};
use v1::{Kind, ReportKind, ValueType};

const GAUGE: &str = "promise-gauge";

/// A gauge that sends blocks once an hour, and at once while something happens.
async fn furnish_gauges(client: &Client, ids: &[&str]) {
    let gauge = v1::DeviceType {
        id: GAUGE.into(),
        properties: vec![
            property("rain", ValueType::F64, Kind::Increment),
            property("level", ValueType::F64, Kind::Gauge),
        ],
        sample_interval_s: 300,
        report_interval_s: 3_600,
        latency_s: 3_900,
        attributes: [("event_latency_s".to_owned(), "120".to_owned())].into(),
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![gauge]).await.unwrap();
    let devices = ids.iter().map(|id| device(id, GAUGE, &[("town", "danghu")]));
    client.register_devices(devices.collect()).await.unwrap();
}

fn quality(ids: &[&str], property: &str, (from_ns, to_ns): (i64, i64)) -> v1::GetQualityRequest {
    v1::GetQualityRequest {
        selector: of_devices(ids),
        property: property.into(),
        from_ns,
        to_ns,
        ..Default::default()
    }
}

async fn reports(client: &Client, request: v1::GetQualityRequest) -> Vec<v1::QualityReport> {
    let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    messages.into_iter().flat_map(|message| message.reports).collect()
}

/// Sends points of one property, each five seconds after it was observed.
async fn send(client: &Client, device: &str, property: &str, points: impl IntoIterator<Item = (i64, f64)>) {
    let mut batch = BatchBuilder::new(GAUGE);
    for (t, value) in points {
        let row = batch.row(device, t).received_at(t + 5 * S);
        row.report_kind(ReportKind::Event).set(property, value);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

#[tokio::test]
async fn a_message_that_came_again_is_stored_once_and_counted() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish_gauges(&client, &["RL1", "RL2"]).await;
    let level = |t: i64| 1.0 + (t - TWO) as f64 / HOUR as f64;
    send(&client, "RL1", "level", stamps().map(|t| (t, level(t)))).await;
    send(&client, "RL1", "level", [(at(15, 30), level(at(15, 30)))]).await;
    let afternoon = (TWO, at(20, 0));
    let report = reports(&client, quality(&["RL1"], "level", afternoon)).await.remove(0);
    assert_eq!((report.points, report.slots_filled, report.duplicates), (72, 72, 1));

    // A correction is one too, also within a batch; what is left out of the time is not.
    let corrections = [(at(16, 0), 7.0), (at(17, 0), 7.0), (at(17, 0), 8.0), (at(20, 0), 9.0)];
    send(&client, "RL1", "level", corrections).await;
    send(&client, "RL2", "level", [(at(15, 0), 1.0), (at(15, 0), 1.0)]).await;
    let report = reports(&client, quality(&["RL1"], "level", afternoon)).await.remove(0);
    assert_eq!((report.points, report.duplicates), (72, 1 + 3));
    let town = v1::GetQualityRequest {
        grouping: Some(v1::Grouping {
            tags: vec!["town".into()],
        }),
        ..quality(&["RL1", "RL2"], "level", afternoon)
    };
    let town = reports(&client, town).await.remove(0);
    assert_eq!((town.devices, town.points, town.duplicates), (2, 73, 5));

    // A batch that its producer repeats is refused as a whole.
    let mut batch = BatchBuilder::new(GAUGE);
    batch.row("RL2", at(18, 0)).set("level", 1.0);
    let numbered = v1::WriteRequest {
        producer: "p".into(),
        sequence: 1,
        ..write(batch.build().unwrap())
    };
    for again in [false, true] {
        assert_eq!(client.write(numbered.clone()).await.unwrap().duplicate, again);
    }
    let report = reports(&client, quality(&["RL2"], "level", afternoon)).await.remove(0);
    assert_eq!((report.points, report.duplicates), (2, 1));
}

#[tokio::test]
async fn each_kind_of_report_has_its_own_promise() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish_gauges(&client, &["RG2", "RG3"]).await;
    let held_back = |t: &i64| (at(15, 25)..=at(16, 10)).contains(t);
    let live = stamps().filter(|t| !held_back(t));
    send(&client, "RG2", "rain", live.map(|t| (t, rain(1, t)))).await;
    let mut batch = BatchBuilder::new(GAUGE);
    for t in stamps().filter(held_back) {
        let row = batch.row("RG2", t).received_at(at(16, 12) + 30 * S);
        row.report_kind(ReportKind::Backfill).set("rain", rain(1, t));
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    let afternoon = (TWO, at(20, 0));
    let report = reports(&client, quality(&["RG2"], "rain", afternoon)).await.remove(0);
    assert_eq!((report.slots_filled, report.slots_expected), (72, 72));
    assert_eq!((report.points_in_time, report.points_timed), (62, 72));

    // Blocks of an hour come when their first value is an hour old; an event that takes as long is late.
    let mut batch = BatchBuilder::new(GAUGE);
    for t in stamps().skip(1) {
        let hour = TWO + ((t - TWO - 1) / HOUR + 1) * HOUR;
        let kind = if t == at(16, 20) {
            ReportKind::Event
        } else {
            ReportKind::Routine
        };
        let row = batch.row("RG3", t).received_at(hour + 30 * S);
        row.report_kind(kind).set("rain", 0.5);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    let report = reports(&client, quality(&["RG3"], "rain", afternoon)).await.remove(0);
    assert_eq!((report.points_in_time, report.points_timed), (71, 72));
}

#[tokio::test]
async fn a_word_that_it_is_there_keeps_a_device_online_and_nothing_else() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_gauges(&client, &["A", "B", "C", "D"]).await;
    let end = at(20, 0);
    let mut batch = BatchBuilder::new(GAUGE);
    for device in ["A", "B", "C"] {
        batch.row(device, at(14, 5)).set("level", 1.0);
    }
    let mut say = |device: &str, t: i64, kind: ReportKind, property: &str| {
        batch.row(device, t).report_kind(kind).set(property, 0.0);
    };
    say("B", end, ReportKind::Keepalive, "level");
    say("C", end, ReportKind::Test, "level");
    say("D", end - 3 * HOUR, ReportKind::Routine, "rain");
    client.write(write(batch.build().unwrap())).await.unwrap();
    let found = reports(&client, quality(&["A", "B", "C", "D"], "level", (TWO, end))).await;
    let mut told: Vec<_> = found.iter().map(|r| (r.device.as_str(), r.offline, r.points)).collect();
    told.sort_unstable();
    // Three report intervals are three hours, and D spoke of another property just that long ago.
    assert_eq!(told, [("A", 1, 1), ("B", 0, 1), ("C", 1, 1), ("D", 0, 0)]);
    let b = found.iter().find(|report| report.device == "B").unwrap();
    assert_eq!(b.freshness(), v1::Freshness::Stalled, "no point for hours");
    assert_eq!(b.last_observed_at_ns, at(14, 5));
}

#[tokio::test]
async fn a_device_that_speaks_once_a_month_instead_of_once_a_day_is_slower() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let daily = v1::DeviceType {
        id: "daily".into(),
        properties: vec![property("level", ValueType::F64, Kind::Gauge)],
        sample_interval_s: 86_400,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![daily]).await.unwrap();
    let devices = ["monthly", "silent"].map(|id| device(id, "daily", &[]));
    client.register_devices(devices.to_vec()).await.unwrap();
    let firsts = [0, 31, 60, 91].map(|day| ("monthly", T0 - 200 * DAY + day * DAY, 1.0));
    client.write(write(batch("daily", "level", firsts))).await.unwrap();
    let months = (T0 - 200 * DAY, T0 - 100 * DAY);
    let reports = reports(&client, quality(&["monthly", "silent"], "", months)).await;
    let of = |id: &str| reports.iter().find(|report| report.device == id).unwrap();
    let monthly = of("monthly");
    assert_eq!(monthly.freshness(), v1::Freshness::Slower);
    assert!(
        (30.0..=31.0).contains(&monthly.spacing_ratio),
        "{}",
        monthly.spacing_ratio
    );
    assert_eq!((monthly.points, monthly.slots_filled, monthly.slower), (4, 4, 1));
    assert_eq!(
        (of("silent").freshness(), of("silent").never),
        (v1::Freshness::Never, 1)
    );
}

#[tokio::test]
async fn a_device_is_held_to_its_promise_while_it_is_in_service() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_gauges(&client, &["always"]).await;
    let life = |id: &str, installed_at_ns: i64, retired_at_ns: i64| v1::Device {
        installed_at_ns,
        retired_at_ns,
        ..device(id, GAUGE, &[])
    };
    let lives = [
        life("from-15:00", at(15, 0), 0),
        life("from-15:02", at(15, 2), 0),
        life("to-18:00", 0, at(18, 0)),
        life("to-13:00", 0, at(13, 0)),
        life("from-21:00", at(21, 0), 0),
    ];
    client.register_devices(lives.to_vec()).await.unwrap();
    for (id, expected) in [
        ("always", 72),
        ("from-15:00", 60),
        ("from-15:02", 59),
        ("to-18:00", 48),
        ("to-13:00", 0),
        ("from-21:00", 0),
    ] {
        send(&client, id, "level", stamps().map(|t| (t, 1.0))).await;
        let report = reports(&client, quality(&[id], "level", (TWO, at(20, 0))))
            .await
            .remove(0);
        assert_eq!(
            (report.slots_expected, report.slots_filled),
            (expected, expected),
            "{id}"
        );
    }

    // What it said while it was tried out begins no gap.
    let tried = life("tried", at(15, 0), 0);
    client.register_devices(vec![tried]).await.unwrap();
    let points = stamps().filter(|t| *t == at(14, 30) || *t >= at(15, 30));
    send(&client, "tried", "level", points.map(|t| (t, 1.0))).await;
    let request = v1::GetQualityRequest {
        gaps: true,
        ..quality(&["tried"], "level", (TWO, at(20, 0)))
    };
    let report = reports(&client, request).await.remove(0);
    assert_eq!((report.slots_expected, report.slots_filled), (60, 54));
    let gaps = report.gaps.iter().map(|gap| (gap.from_ns, gap.to_ns, gap.missing));
    assert_eq!(gaps.collect::<Vec<_>>(), [(at(15, 0), at(15, 30), 5)]);
}

#[tokio::test]
async fn a_device_that_said_nothing_before_it_was_registered_was_not_there() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_gauges(&client, &["new", "mute", "moved", "known"]).await;
    let request = v1::ListDevicesRequest {
        selector: of_type(GAUGE),
        ..Default::default()
    };
    let (messages, _) = client.list_devices(request).await.unwrap().collect().await.unwrap();
    let devices: Vec<v1::Device> = messages.into_iter().flat_map(|message| message.devices).collect();
    // It was registered within the last slot of the second hour of three.
    let begin = |id: &str| {
        let device = devices.iter().find(|device| device.id == id).unwrap();
        device.registered_at_ns - 2 * HOUR + S
    };
    let slots = async |id: &str, hours: (i64, i64)| {
        let span = (begin(id) + hours.0 * HOUR, begin(id) + hours.1 * HOUR);
        let report = reports(&client, quality(&[id], "level", span)).await.remove(0);
        (report.slots_expected, report.slots_filled)
    };
    send(&client, "new", "level", [(begin("new") + 2 * HOUR, 1.0)]).await;
    send(&client, "moved", "level", [(begin("moved") + HOUR, 1.0)]).await;
    send(&client, "known", "rain", [(begin("known") - MIN, 1.0)]).await;
    assert_eq!(slots("new", (0, 3)).await, (12, 1));
    assert_eq!(slots("mute", (0, 3)).await, (12, 0));
    assert_eq!(slots("moved", (0, 3)).await, (36, 1), "its history was brought in");
    assert_eq!(slots("known", (0, 3)).await, (36, 0), "it had said something");
    assert_eq!(
        slots("mute", (-2, 1)).await,
        (36, 0),
        "so may be that of a time long ago"
    );
    assert_eq!(slots("mute", (2, 3)).await, (12, 0));
}

/// A type that says which of its readings are of the device itself.
async fn furnish_lamps(client: &Client, ids: &[(&str, &str)]) {
    let diagnostic = |id: &str, role: &str| v1::Property {
        min: Some(-140.0),
        max: Some(100.0),
        attributes: [("diag".to_owned(), role.to_owned())].into(),
        ..property(id, ValueType::F64, Kind::Gauge)
    };
    let lamp = v1::DeviceType {
        id: "lamp".into(),
        properties: vec![
            property("lux", ValueType::F64, Kind::Gauge),
            diagnostic("charge", "battery"),
            diagnostic("volts", "supply"),
            diagnostic("dbm", "signal"),
            diagnostic("soot", "true"),
        ],
        sample_interval_s: 300,
        latency_s: 60,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![lamp]).await.unwrap();
    let devices = ids.iter().map(|(id, town)| device(id, "lamp", &[("town", town)]));
    client.register_devices(devices.collect()).await.unwrap();
}

async fn healths(client: &Client, request: v1::GetHealthRequest) -> Vec<v1::QualityReport> {
    let (messages, _) = client.get_health(request).await.unwrap().collect().await.unwrap();
    let mut reports: Vec<_> = messages.into_iter().flat_map(|message| message.reports).collect();
    reports.sort_by(|a, b| a.device.cmp(&b.device));
    reports
}

/// One speaks all afternoon, one falls silent at three, one is heard late, and one never.
async fn lamps_speak(client: &Client) {
    let mut batch = BatchBuilder::new("lamp");
    for t in stamps() {
        let n = (t - TWO) / (5 * MIN);
        let row = batch.row("L1", t).received_at(t + 5 * S);
        let row = row
            .set("lux", 5.0)
            .set("charge", 55.0 - n as f64 / 2.0)
            .set("volts", 12.5);
        row.set("dbm", -80.0 - (n % 3) as f64);
        if t < at(15, 0) {
            let row = batch.row("L2", t).received_at(t + 5 * S);
            row.set("lux", 5.0).set("volts", 11.75).set("dbm", -101.0);
        }
    }
    // It says nothing of lux, and that its battery is fuller than full is not believed.
    batch.row("L3", at(19, 50)).set("charge", 15.0);
    batch.row("L3", at(19, 55)).set("charge", 101.0);
    client.write(write(batch.build().unwrap())).await.unwrap();
}

#[tokio::test]
async fn a_device_that_spoke_before_and_after_a_silence_was_not_always_silent() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_lamps(&client, &[("L1", "danghu")]).await;
    let mut batch = BatchBuilder::new("lamp");
    for t in [at(-20, 0), at(-19, 0), at(19, 0)] {
        batch.row("L1", t).set("lux", 5.0);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    let request = v1::GetHealthRequest {
        selector: of_type("lamp"),
        from_ns: TWO,
        to_ns: at(15, 0),
        ..Default::default()
    };
    let health = healths(&client, request).await.remove(0).health.unwrap();
    assert_eq!((health.online, health.last_heard_at_ns), (0, at(-19, 0)));
}

#[tokio::test]
async fn health_is_what_devices_say_of_themselves_and_whether_they_are_there() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish_lamps(
        &client,
        &[("L1", "danghu"), ("L2", "danghu"), ("L3", "zhapu"), ("L4", "zhapu")],
    )
    .await;
    lamps_speak(&client).await;

    let request = |to_ns: i64| v1::GetHealthRequest {
        selector: of_type("lamp"),
        from_ns: TWO,
        to_ns,
        ..Default::default()
    };
    let told = |report: &v1::QualityReport| {
        let health = report.health.clone().unwrap();
        let age_s = health.age_ms / 1_000;
        (
            health.online,
            age_s,
            health.battery,
            health.battery_low,
            health.supply,
            health.signal,
            health.signal_median,
        )
    };
    let found = healths(&client, request(at(20, 0))).await;
    let ids: Vec<_> = found.iter().map(|report| report.device.as_str()).collect();
    assert_eq!(ids, ["L1", "L2", "L3", "L4"]);
    assert_eq!(
        told(&found[0]),
        (1, 0, Some(19.0), 1, Some(12.5), Some(-80.0), Some(-81.0))
    );
    assert_eq!(
        told(&found[1]),
        (0, 5 * 3_600 + 300, None, 0, Some(11.75), Some(-101.0), Some(-101.0))
    );
    assert_eq!(told(&found[2]), (1, 300, Some(15.0), 1, None, None, None));
    assert_eq!(told(&found[3]), (0, 0, None, 0, None, None, None));
    assert_eq!(
        (found[0].slots_filled, found[0].slots_expected, found[3].never),
        (72, 72, 1)
    );

    // At three nobody was low, and one was not heard yet.
    let found = healths(&client, request(at(15, 0))).await;
    assert_eq!(
        told(&found[0]),
        (1, 0, Some(49.0), 0, Some(12.5), Some(-80.0), Some(-81.0))
    );
    assert_eq!(
        told(&found[1]),
        (1, 300, None, 0, Some(11.75), Some(-101.0), Some(-101.0))
    );
    assert_eq!(told(&found[2]), (0, 0, None, 0, None, None, None));

    let by_town = v1::GetHealthRequest {
        grouping: Some(v1::Grouping {
            tags: vec!["town".into()],
        }),
        battery_low: 16.0,
        ..request(at(20, 0))
    };
    let mut found = healths(&client, by_town).await;
    found.sort_by(|a, b| a.tags["town"].cmp(&b.tags["town"]));
    let told = |report: &v1::QualityReport| {
        let health = report.health.clone().unwrap();
        let battery = (health.battery_known, health.battery_low);
        (
            report.devices,
            health.online,
            report.offline,
            battery,
            health.supply_min,
            health.signal_median,
        )
    };
    assert_eq!(told(&found[0]), (2, 1, 1, (1, 0), Some(11.75), Some(-81.0)));
    assert_eq!(told(&found[1]), (2, 1, 1, (1, 1), None, None));
    let refused = client
        .get_health(v1::GetHealthRequest {
            battery_low: -1.0,
            ..request(at(20, 0))
        })
        .await;
    assert_eq!(
        shown(&refused.unwrap_err()),
        "INVALID_ARGUMENT INVALID_VALUE battery_low"
    );
}

#[tokio::test]
async fn signals_that_are_read_count_and_keep_to_a_budget() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish_lamps(&client, &[("L1", "danghu"), ("L2", "danghu"), ("L3", "zhapu")]).await;
    lamps_speak(&client).await;
    let request = v1::GetHealthRequest {
        selector: of_type("lamp"),
        from_ns: TWO,
        to_ns: at(20, 0),
        explain: true,
        ..Default::default()
    };
    let answer = client.get_health(request.clone()).await.unwrap();
    let (_, summary) = answer.collect().await.unwrap();
    let read = summary.points_read;
    // A signal every five minutes: one device six hours long, another one hour.
    assert!(read >= 72 + 12, "{read}");
    assert_eq!(summary.explain.unwrap().total.unwrap().points_decoded, read);
    let short = v1::GetHealthRequest {
        points_max: read - 1,
        ..request
    };
    let refused = match client.get_health(short.clone()).await {
        Err(error) => error,
        Ok(answer) => answer.collect().await.expect_err("too many values"),
    };
    assert_eq!(refused.reason, "TOO_MANY_POINTS");
    let partial = v1::GetHealthRequest {
        partial_ok: true,
        ..short.clone()
    };
    let (messages, summary) = client.get_health(partial).await.unwrap().collect().await.unwrap();
    let cut = summary.cut_short.expect("it says that it is partial");
    assert_eq!((cut.budget(), cut.limit), (v1::Budget::Points, read - 1));
    let reports: usize = messages.iter().map(|message| message.reports.len()).sum();
    assert!(reports < 3, "{reports}");
    let enough = v1::GetHealthRequest {
        points_max: read,
        ..short
    };
    assert!(client.get_health(enough).await.unwrap().collect().await.is_ok());
}
