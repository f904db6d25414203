//! What the afternoon of rain answers once it is over, number by number: sums, counters, times above thresholds, averages, alerts, quality.
//! Never here: how its records came (see `afternoon`, `live/storm`). Invariant: whatever happened on the way, these are the answers.

use tidemark_client::{Client, Value, answers_of, v1};
use v1::Function::{self, Increase, RisePerHour, RisePerHourMax, Sum, TimeWeightedAvg};
use v1::query_intervals_request::Condition;

use super::afternoon::*;
use super::alarm::{DEPTH_STEPS, goes};
use super::fleet::*;

/// Everything that is asked of the afternoon.
pub(crate) async fn is_told(client: &Client) {
    sums(client).await;
    counter(client).await;
    exceedance(client).await;
    averages(client).await;
    rises(client).await;
    alerts_in_order(client).await;
    quality(client).await;
}

fn whole() -> (i64, i64) {
    (TWO, at(20, 0))
}

fn over(device: &str, property: &str, function: Function, (from_ns, to_ns): (i64, i64)) -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_devices(&[device]),
        properties: vec![property.into()],
        functions: vec![function as i32],
        from_ns,
        to_ns,
        ..Default::default()
    }
}

fn by(step_ns: i64, length_ns: i64, request: v1::QueryAggregateRequest) -> v1::QueryAggregateRequest {
    let window = v1::Window {
        step_ns,
        origin_ns: TWO,
        length_ns,
        ..Default::default()
    };
    v1::QueryAggregateRequest {
        window: Some(window),
        ..request
    }
}

/// Ends and numbers of the windows that have an answer.
async fn by_end(client: &Client, request: v1::QueryAggregateRequest) -> Vec<(i64, f64)> {
    let mut series: Vec<_> = ask(client, request).await.into_iter().flat_map(|m| m.series).collect();
    assert_eq!(series.len(), 1);
    let series = series.remove(0);
    let number = |value: Value| match value {
        Value::F64(value) => value,
        Value::I64(value) => value as f64,
        other => panic!("{other:?}"),
    };
    let numbers = answers_of(&series.columns[0]);
    let windows = series.end_ns.iter().copied().zip(numbers);
    windows.filter_map(|(end, value)| Some((end, number(value?)))).collect()
}

/// The only number of an answer.
async fn number(client: &Client, request: v1::QueryAggregateRequest) -> f64 {
    let windows = by_end(client, request).await;
    assert_eq!(windows.len(), 1, "{windows:?}");
    windows[0].1
}

fn near(found: f64, expected: f64, by: f64) {
    assert!((found - expected).abs() <= by, "{found}, not {expected}");
}

/// Sums of sliding windows, of hours, of the hydrological day, and without what is suspect.
pub(crate) async fn sums(client: &Client) {
    let greatest = async |device: &str, hours: i64| {
        let sliding = by(FIVE, hours * HOUR, over(device, "rain", Sum, whole()));
        let windows = by_end(client, sliding).await;
        let most = windows.iter().map(|(_, sum)| *sum).fold(f64::MIN, f64::max);
        *windows.iter().find(|(_, sum)| *sum == most).unwrap()
    };
    assert_eq!(greatest("RG1", 1).await, (at(16, 5), 70.0));
    assert_eq!(greatest("RG1", 3).await.1, 98.0);
    assert_eq!(greatest("RG2", 1).await, (at(16, 10), 80.0));
    assert_eq!(greatest("RG2", 3).await.1, 112.0);

    let hourly = by(HOUR, 0, over("RG1", "rain", Sum, (TWO, at(19, 0))));
    let hours = [(15, 8.0), (16, 69.0), (17, 17.5), (18, 3.5), (19, 0.0)];
    assert_eq!(by_end(client, hourly).await, hours.map(|(end, sum)| (at(end, 0), sum)));
    let calendar = v1::Calendar {
        unit: v1::CalendarUnit::Day as i32,
        time_zone: "Asia/Shanghai".into(),
        origin_s: 8 * 3_600,
        origin_months: 0,
    };
    let day = v1::QueryAggregateRequest {
        window: Some(v1::Window {
            calendar: Some(calendar),
            ..Default::default()
        }),
        ..over("RG1", "rain", Sum, (TWO - 20 * HOUR, TWO + 20 * HOUR))
    };
    assert_eq!(by_end(client, day).await, [(at(8, 0) + DAY, 98.0)]);

    let rain = over("RG1", "rain", Sum, whole());
    assert_eq!(number(client, rain.clone()).await, 98.0);
    let sure = v1::QueryAggregateRequest {
        drop_suspect: true,
        ..rain
    };
    assert_eq!(
        number(client, sure).await,
        81.0,
        "17 mm in five minutes are untypical, and were real"
    );
}

/// A counter rises by what fell, across its wrap.
pub(crate) async fn counter(client: &Client) {
    let hour = over("RG1", "total", Increase, (at(15, 0), at(16, 0)));
    assert_eq!(number(client, hour).await, 69.0);
    let request = v1::QueryRangeRequest {
        properties: vec!["total".into()],
        from_ns: at(15, 35),
        to_ns: at(15, 45),
        ..everything(of_devices(&["RG1"]))
    };
    let wraps = read(client, request)
        .await
        .into_iter()
        .map(|(_, t, _, value)| (t, value));
    let expected = [(at(15, 35), Value::F64(9_999.0)), (at(15, 40), Value::F64(9.5))];
    assert_eq!(wraps.collect::<Vec<_>>(), expected);
}

/// How long the water was at or above some depths.
pub(crate) async fn exceedance(client: &Client) {
    let seconds = |ns: i64| ns as f64 / 1e9;
    let times = async |depth: f64, total: f64| {
        let request = v1::QueryIntervalsRequest {
            selector: of_devices(&["PD1"]),
            property: "depth".into(),
            from_ns: TWO,
            to_ns: at(20, 0),
            condition: Some(Condition::AtLeast(depth)),
            ..Default::default()
        };
        let (messages, _) = client.query_intervals(request).await.unwrap().collect().await.unwrap();
        let found: Vec<_> = messages.into_iter().flat_map(|message| message.devices).collect();
        assert_eq!(
            (found.len(), found[0].intervals.len()),
            (1, 1),
            "1.9 at 15:05 was a spike"
        );
        near(seconds(found[0].total_ns), total, 0.1);
        let one = &found[0].intervals[0];
        assert_eq!((one.peak, one.peak_at_ns), (0.46, at(15, 50)));
        assert!(!one.open && !one.unknown_after, "{one:?}");
        // In seconds after two.
        (seconds(one.from_ns - TWO), seconds(one.to_ns - TWO))
    };
    let clock = |hour: i64, minute: i64, second: f64| seconds(at(hour, minute) - TWO) + second;
    let shallow = times(0.15, 4_998.7).await;
    near(shallow.0, clock(15, 29, 32.7), 0.1);
    near(shallow.1, clock(16, 52, 51.4), 0.1);
    times(0.27, 4_039.3).await;
    let deep = times(0.40, 2_427.3).await;
    near(deep.0, clock(15, 39, 32.7), 0.1);
    near(deep.1, clock(16, 20, 0.0), 0.1);
}

/// Averages by time.
pub(crate) async fn averages(client: &Client) {
    let depth = over("PD1", "depth", TimeWeightedAvg, (at(15, 0), at(17, 0)));
    near(number(client, depth).await, 0.263_333, 1e-6);
    let level = over("RL1", "level", TimeWeightedAvg, (at(15, 0), at(18, 0)));
    near(number(client, level).await, 1.342_917, 1e-6);
}

/// How fast the river rose.
pub(crate) async fn rises(client: &Client) {
    let rise = |function| v1::QueryAggregateRequest {
        rise_over_ms: 3_600_000,
        ..over("RL1", "level", function, whole())
    };
    near(number(client, rise(RisePerHourMax)).await, 0.3, 1e-9);
    let steps = by_end(client, by(FIVE, 0, rise(RisePerHour))).await;
    let fastest = steps.iter().find(|(_, rise)| *rise > 0.299).unwrap();
    assert_eq!(fastest.0 - FIVE, at(16, 30));
}

/// Steps of all devices, in order.
pub(crate) async fn alerts_in_order(client: &Client) {
    let rise = ["15:45 yellow", "16:00 orange", "18:10 yellow", "18:50 normal"];
    let all: [(&str, &str, &[&str]); 7] = [
        ("PD1", "depth", &DEPTH_STEPS),
        ("RG1", "rain_12h", &["15:40 blue"]),
        ("RG1", "rain_6h", &["15:40 yellow"]),
        ("RG1", "rain_3h", &["15:40 orange", "19:10 normal"]),
        ("RG2", "rain_3h", &["15:40 orange", "16:35 red", "19:00 normal"]),
        ("RL1", "river", &["16:35 yellow", "18:25 orange"]),
        ("RL1", "rise", &rise),
    ];
    for (device, profile, steps) in all {
        goes(client, device, profile, steps, 0).await;
    }
    let spike = judged(client, "PD1", "depth", (at(15, 0), at(15, 15))).await;
    assert_eq!(
        (spike.points, spike.points_fail, spike.points_suspect),
        (3, 1, 0),
        "0.00 at 15:10 stays good"
    );
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

/// While points are held back: the gap that they leave.
pub(crate) async fn outage(client: &Client) {
    let report = judged(client, "RG2", "rain", (TWO, at(16, 10))).await;
    let gaps = report.gaps.iter();
    let gaps: Vec<_> = gaps.map(|gap| (gap.from_ns, gap.missing, gap.open)).collect();
    assert_eq!(gaps, [(at(15, 20), 10, true)], "15:25 to 16:10");
}

/// Of the hour before four while points are held back: a lower bound, and it says so.
pub(crate) async fn lower_bound(client: &Client) {
    for (gauge, sum, filled, coverage) in [("RG1", 69.0, 12, "1.0000"), ("RG2", 9.0, 4, "0.3333")] {
        let request = v1::QueryAggregateRequest {
            slots_filled: true,
            ..over(gauge, "rain", Sum, (at(15, 0), at(16, 0)))
        };
        assert_eq!(number(client, request.clone()).await, sum);
        let series = ask(client, request).await.remove(0).series.remove(0);
        let (found, promised) = (series.slots_filled[0], series.points_promised[0]);
        assert_eq!((found, promised), (filled, 12), "{gauge}");
        assert_eq!(format!("{:.4}", found as f64 / promised as f64), coverage, "{gauge}");
    }
}

/// What came, what came in time, what counts, what came twice, and what is missing in the end: nothing.
pub(crate) async fn quality(client: &Client) {
    let gauge = judged(client, "RG2", "rain", whole()).await;
    assert_eq!((gauge.slots_filled, gauge.slots_expected), (72, 72));
    assert_eq!((gauge.points_in_time, gauge.points_timed), (62, 72));
    let timeliness = gauge.points_in_time as f64 / gauge.points_timed as f64;
    assert_eq!(format!("{timeliness:.4}"), "0.8611");
    assert!(gauge.gaps.is_empty(), "{gauge:?}");
    let underpass = judged(client, "PD1", "depth", whole()).await;
    assert_eq!((underpass.points - underpass.points_fail, underpass.points), (71, 72));
    let river = judged(client, "RL1", "level", whole()).await;
    assert_eq!((river.points, river.slots_filled, river.duplicates), (72, 72, 1));
}
