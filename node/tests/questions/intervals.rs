//! Intervals beyond thresholds and in states, and quality of single devices, over an afternoon whose answers are known.
//! Never here: a whole fleet (see `fleet_health`).

use crate::common::TestCluster;
use crate::common::afternoon::*;
use crate::common::fleet::*;
use crate::common::story;
use tidemark_client::{BatchBuilder, Client, Value, v1, value_at};
use v1::query_intervals_request::Condition;

fn over(device: &str, property: &str, condition: Condition) -> v1::QueryIntervalsRequest {
    v1::QueryIntervalsRequest {
        selector: of_devices(&[device]),
        property: property.into(),
        from_ns: TWO,
        to_ns: at(20, 0),
        condition: Some(condition),
        ..Default::default()
    }
}

async fn intervals(client: &Client, request: v1::QueryIntervalsRequest) -> Vec<v1::DeviceIntervals> {
    let (messages, _) = client.query_intervals(request).await.unwrap().collect().await.unwrap();
    messages.into_iter().flat_map(|message| message.devices).collect()
}

#[tokio::test]
async fn thresholds_are_crossed_where_the_line_crosses_them() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    afternoon(&client).await;
    story::exceedance(&client).await;
    let deeper = intervals(&client, over("PD1", "depth", Condition::AtLeast(0.47))).await;
    assert!(deeper.is_empty(), "{deeper:?}");
    let dry = intervals(&client, over("PD1", "depth", Condition::AtMost(0.0))).await;
    let ends: Vec<(i64, i64)> = dry[0].intervals.iter().map(|i| (i.from_ns, i.to_ns)).collect();
    assert_eq!(ends, [(TWO, at(15, 20)), (at(17, 0), at(20, 0))]);
}

#[tokio::test]
async fn states_hold_until_the_next_one() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    let said = [
        (0, "off"),
        (60, "fast"),
        (120, "fast"),
        (180, "slow"),
        (1_000, "fast"),
        (1_060, "off"),
    ];
    let rows = said.map(|(t, label)| ("r1", t * S, Value::Enum(label.into())));
    client.write(write(batch(RELIC, "mode", rows))).await.unwrap();
    let request = |state: &str| v1::QueryIntervalsRequest {
        from_ns: 0,
        to_ns: HOUR,
        ..over("r1", "mode", Condition::State(state.into()))
    };
    let told = async |state: &str| {
        let found = intervals(&client, request(state)).await;
        let each = found.iter().flat_map(|device| &device.intervals);
        each.map(|i| (i.from_ns / S, i.to_ns / S, i.unknown_after))
            .collect::<Vec<_>>()
    };
    assert_eq!(told("fast").await, [(60, 180, false), (1_000, 1_060, false)]);
    assert_eq!(told("slow").await, [(180, 180, true)], "nobody knows how long");
    let refused = |request: v1::QueryIntervalsRequest| {
        let client = client.clone();
        async move { shown(&client.query_intervals(request).await.unwrap_err()) }
    };
    assert_eq!(
        refused(request("broken")).await,
        "INVALID_ARGUMENT INVALID_VALUE condition"
    );
    assert_eq!(
        refused(over("r1", "note", Condition::AtLeast(1.0))).await,
        "INVALID_ARGUMENT INVALID_VALUE condition"
    );
    let nothing = v1::QueryIntervalsRequest {
        condition: None,
        ..request("fast")
    };
    assert_eq!(
        refused(nothing).await,
        "INVALID_ARGUMENT MISSING_FIELD condition; give at_least, at_most or state"
    );
    let no_property = v1::QueryIntervalsRequest {
        property: String::new(),
        ..request("fast")
    };
    assert_eq!(refused(no_property).await, "INVALID_ARGUMENT MISSING_FIELD property");
}

/// What a town was told: value of the last point that counts, its time, and whether it is stale.
async fn told(client: &Client, at_ns: i64) -> Vec<(String, f64, i64, bool)> {
    let request = v1::GetLatestRequest {
        selector: of_type(GAUGE),
        properties: vec!["rain".into(), "depth".into(), "level".into()],
        stale_after_ms: 1_800_000,
        at_ns,
        ..Default::default()
    };
    let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
    assert!(
        messages
            .iter()
            .all(|message| message.devices.is_empty() || message.evaluated_at_ns == at_ns)
    );
    let devices = messages.into_iter().flat_map(|message| message.devices);
    let mut told: Vec<_> = devices
        .map(|device| {
            let value = &device.values[0];
            let number = match value_at(value.value.as_ref().unwrap(), 0) {
                Some(Value::F64(number)) => number,
                other => panic!("{other:?}"),
            };
            (device.device, number, value.observed_at_ns, value.stale)
        })
        .collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    told
}

#[tokio::test]
async fn a_town_is_told_what_was_known_of_a_time_and_how_old_it_is() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    afternoon(&client).await;
    let of = |told: Vec<(String, f64, i64, bool)>| {
        told.into_iter()
            .map(|(id, v, t, s)| (id, v, (t - TWO) / MIN, s))
            .collect::<Vec<_>>()
    };
    let expected = [
        ("PD1", 0.46, 120, false),
        ("RG1", 2.5, 120, false),
        ("RG2", 3.0, 80, true),
        ("RL1", 1.25, 120, false),
    ];
    let expected: Vec<_> = expected.map(|(id, v, t, s)| (id.to_owned(), v, t, s)).into();
    assert_eq!(of(told(&client, at(16, 0)).await), expected);
    let stale = |told: Vec<(String, f64, i64, bool)>| told.into_iter().any(|(_, _, _, stale)| stale);
    assert!(
        !stale(told(&client, at(15, 50)).await),
        "1,800 s are not more than 1,800 s"
    );
    assert!(stale(told(&client, at(15, 55)).await));
    for (t, minute) in [(at(15, 4), 60), (at(15, 7), 60), (at(15, 10), 70)] {
        let underpass = of(told(&client, t).await).remove(0);
        assert_eq!((underpass.1, underpass.2), (0.0, minute), "1.9 at 15:05 was a spike");
    }
    let bad = [("PD1", at(20, 5), 99.0)];
    client.write(write(batch(GAUGE, "depth", bad))).await.unwrap();
    let now = told(&client, at(20, 10)).await;
    assert_eq!((now[0].1, now[0].2), (0.0, at(20, 0)), "99 m is no depth");
}

async fn report(client: &Client, device: &str, property: &str, until: i64) -> v1::QualityReport {
    judged(client, device, property, (TWO, until)).await
}

async fn between(client: &Client, device: &str, span: (i64, i64)) -> v1::QualityReport {
    judged(client, device, "depth", span).await
}

async fn judged(client: &Client, device: &str, property: &str, (from_ns, to_ns): (i64, i64)) -> v1::QualityReport {
    let request = v1::GetQualityRequest {
        selector: of_devices(&[device]),
        property: property.into(),
        from_ns,
        to_ns,
        gaps: true,
        ..Default::default()
    };
    let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    messages.into_iter().flat_map(|message| message.reports).next().unwrap()
}

#[tokio::test]
async fn an_outage_is_a_gap_until_its_points_come() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    afternoon(&client).await;
    let live = report(&client, "RG2", "rain", at(16, 10)).await;
    let gap = &live.gaps[0];
    assert_eq!(
        (gap.from_ns, gap.missing, gap.open, live.gaps.len()),
        (at(15, 20), 10, true, 1)
    );
    assert_eq!((live.slots_filled, live.slots_expected), (16, 26));
    assert_eq!(live.offline, 1, "fifty minutes of silence");
    backfill(&client).await;
    let whole = report(&client, "RG2", "rain", at(20, 0)).await;
    assert_eq!(
        (whole.slots_filled, whole.slots_expected, whole.gaps.len()),
        (72, 72, 0)
    );
    let depth = report(&client, "PD1", "depth", at(20, 0)).await;
    assert_eq!((depth.points, depth.points_fail, depth.slots_filled), (72, 1, 72));
    assert_eq!(depth.freshness(), v1::Freshness::AsPromised);
}

/// Gaps in minutes after two, with the points that are missing.
fn minutes(report: &v1::QualityReport) -> Vec<(i64, i64, u64, bool)> {
    let minute = |ns: i64| (ns - TWO) / MIN;
    let gaps = report.gaps.iter();
    gaps.map(|gap| (minute(gap.from_ns), minute(gap.to_ns), gap.missing, gap.open))
        .collect()
}

#[tokio::test]
async fn what_does_not_count_fills_its_slot_and_ends_no_gap() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    equip(&client, &["PD1"]).await;
    let mut batch = BatchBuilder::new(GAUGE);
    for minute in (0..120).step_by(5) {
        let (value, stated) = match minute {
            // Deeper than it can be, what the source does not believe, and a spike.
            30 | 35 => (99.0, v1::Quality::Unspecified),
            60 => (0.0, v1::Quality::Fail),
            90 => (1.9, v1::Quality::Unspecified),
            _ => (0.0, v1::Quality::Unspecified),
        };
        let row = batch.row("PD1", at(14, minute));
        row.set_with_quality("depth", Value::F64(value), stated);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    let whole = report(&client, "PD1", "depth", at(16, 0)).await;
    assert_eq!(
        (whole.slots_filled, whole.slots_expected, whole.points_fail),
        (24, 24, 4)
    );
    assert_eq!(whole.freshness(), v1::Freshness::AsPromised);
    let all = [(25, 40, 2, false), (55, 65, 1, false), (85, 95, 1, false)];
    assert_eq!(minutes(&whole), all);

    // A gap that leads into a time, and one out of it.
    let part = async |from: i64, until: i64| minutes(&between(&client, "PD1", (at(14, from), at(14, until))).await);
    assert_eq!(part(35, 60).await, [all[0]]);
    assert_eq!(part(40, 60).await, [], "it ended where the time begins");
    assert_eq!(part(40, 40 + 25).await, [(55, 65, 2, true)]);
    assert_eq!(part(60, 90).await, [all[1]]);
    assert_eq!(part(60, 65).await, [(55, 65, 2, true)]);
    // Of what comes behind the time it is known that 1.9 was a spike.
    assert_eq!(part(65, 95).await, [(85, 95, 2, true)]);
}

#[tokio::test]
async fn a_gap_that_leads_into_a_time_begins_with_the_last_point_however_old() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    equip(&client, &["PD1", "PD2", "PD3"]).await;
    let mut batch = BatchBuilder::new(GAUGE);
    let mut say = |device: &str, minute: i64, depth: f64| {
        batch.row(device, at(14, minute)).set("depth", depth);
    };
    // Four hours of silence; 99 m is no depth, and it is no word of depth that the device is there.
    say("PD1", -240, 0.0);
    say("PD1", -60, 99.0);
    (60..=120).step_by(5).for_each(|minute| say("PD1", minute, 0.0));
    say("PD2", 60, 0.0);
    say("PD3", -240, 0.0);
    batch
        .row("PD1", at(14, -30))
        .report_kind(v1::ReportKind::Keepalive)
        .set("depth", 0.0);
    client.write(write(batch.build().unwrap())).await.unwrap();
    let part = async |device: &str, from: i64, until: i64| {
        minutes(&between(&client, device, (at(14, from), at(14, until))).await)
    };
    assert_eq!(part("PD1", 0, 120).await, [(-240, 60, 59, false)]);
    assert_eq!(part("PD1", -60, 0).await, [(-240, 0, 48, true)], "and out of it again");
    assert_eq!(
        part("PD1", -300, -60).await,
        [(-300, -240, 11, false), (-240, -60, 36, true)]
    );
    assert_eq!(part("PD2", 0, 60).await, [(0, 60, 12, true)], "there was none before");
    assert_eq!(part("PD3", 0, 60).await, [(-240, 60, 60, true)]);
}
