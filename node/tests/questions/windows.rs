//! Windows by the calendar and between borders, gaps told and filled, rises and areal values, through the public client: an
//! afternoon of rain whose answers are known, days that clocks make longer and shorter.
//! Never here: random questions (see `random/windows`), functions of sequences (see `sequences`).

use crate::common::TestCluster;
use crate::common::afternoon::*;
use crate::common::fleet::*;
use tidemark_client::{Client, Value, answers_of, is_filled, v1};
use v1::Function::{self, Avg, Count, First, Last, Max, RisePerHour, RisePerHourMax, Sum};
use v1::{CalendarUnit, FillMode};

/// 2024-03-31 00:00 in Berlin, where that day has 23 hours.
const SHORT_DAY: i64 = 1_711_839_600 * S;

fn over(devices: &[&str], property: &str, functions: &[Function], span: (i64, i64)) -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_devices(devices),
        properties: vec![property.into()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        from_ns: span.0,
        to_ns: span.1,
        ..Default::default()
    }
}

fn every(step_ns: i64) -> Option<v1::Window> {
    Some(v1::Window {
        step_ns,
        origin_ns: TWO,
        ..Default::default()
    })
}

fn by(unit: CalendarUnit, time_zone: &str, origin_s: i64) -> Option<v1::Window> {
    let calendar = v1::Calendar {
        unit: unit as i32,
        time_zone: time_zone.into(),
        origin_s,
        origin_months: 0,
    };
    Some(v1::Window {
        calendar: Some(calendar),
        ..Default::default()
    })
}

fn filled_by(mode: FillMode, max_gap_ns: i64) -> Option<v1::Fill> {
    Some(v1::Fill {
        mode: mode as i32,
        max_gap_ms: max_gap_ns / 1_000_000,
        constant: 7.0,
    })
}

async fn series_of(client: &Client, request: v1::QueryAggregateRequest) -> Vec<v1::AggregateSeries> {
    let messages = ask(client, request).await;
    messages.into_iter().flat_map(|message| message.series).collect()
}

async fn one_series(client: &Client, request: v1::QueryAggregateRequest) -> v1::AggregateSeries {
    let mut series = series_of(client, request).await;
    assert_eq!(series.len(), 1);
    series.remove(0)
}

/// The answers of a column, window by window.
fn numbers(series: &v1::AggregateSeries, column: usize) -> Vec<Option<f64>> {
    let number = |value: Value| match value {
        Value::F64(value) => value,
        Value::I64(value) => value as f64,
        other => panic!("{other:?}"),
    };
    let windows = answers_of(&series.columns[column]).take(series.start_ns.len());
    windows.map(|answer| answer.map(number)).collect()
}

fn filled(series: &v1::AggregateSeries) -> Vec<bool> {
    (0..series.start_ns.len())
        .map(|window| is_filled(series, window))
        .collect()
}

#[tokio::test]
async fn an_afternoon_is_asked_for_days_rises_and_areas() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    afternoon(&client).await;

    let day = v1::QueryAggregateRequest {
        window: by(CalendarUnit::Day, "Asia/Shanghai", 8 * 3_600),
        ..over(&["RG1"], "rain", &[Sum], (TWO - 20 * HOUR, TWO + 20 * HOUR))
    };
    let series = one_series(&client, day).await;
    assert_eq!(numbers(&series, 0), [Some(98.0)], "the hydrological day");
    assert_eq!((series.start_ns[0], series.end_ns[0]), (at(8, 0), at(8, 0) + DAY));
    assert_eq!((series.points_seen[0], series.points_promised[0]), (73, 288));
    let hourly = v1::QueryAggregateRequest {
        window: by(CalendarUnit::Hour, "Asia/Shanghai", 0),
        ..over(&["RG1"], "rain", &[Sum], (TWO, at(19, 0)))
    };
    let hours = [8.0, 69.0, 17.5, 3.5, 0.0].map(Some);
    assert_eq!(numbers(&one_series(&client, hourly).await, 0), hours);

    let areal = v1::QueryAggregateRequest {
        grouping: Some(v1::Grouping::default()),
        areal: Some(v1::Areal::default()),
        ..over(&["RG1", "RG2"], "rain", &[Sum], (at(15, 0), at(16, 0)))
    };
    let devices = |used, too_few_points, no_points| v1::ArealDevices {
        used,
        too_few_points,
        no_points,
    };
    let live = one_series(&client, areal.clone()).await;
    assert_eq!(numbers(&live, 0), [Some(69.0)], "never 39.0");
    assert_eq!(live.areal, [devices(1, 1, 0)]);
    assert_eq!((live.points_seen[0], live.points_promised[0]), (16, 24));
    backfill(&client).await;
    let whole = one_series(&client, areal.clone()).await;
    assert_eq!(
        (numbers(&whole, 0), &whole.areal[..]),
        (vec![Some(73.25)], &[devices(2, 0, 0)][..])
    );
    let with_others = v1::QueryAggregateRequest {
        selector: of_type(GAUGE),
        ..areal
    };
    let with_others = one_series(&client, with_others).await;
    assert_eq!(numbers(&with_others, 0), [Some(73.25)]);
    assert_eq!(with_others.areal, [devices(2, 0, 2)], "two gauges tell no rain");

    let rise = v1::QueryAggregateRequest {
        rise_over_ms: 3_600_000,
        ..over(
            &["RL1"],
            "level",
            &[RisePerHour, RisePerHourMax],
            (at(16, 0), at(16, 5)),
        )
    };
    let near = |found: Option<f64>, expected: f64| {
        let found = found.unwrap();
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    };
    near(numbers(&one_series(&client, rise.clone()).await, 0)[0], 0.2);
    let all = v1::QueryAggregateRequest {
        from_ns: TWO,
        to_ns: at(20, 0),
        ..rise
    };
    near(numbers(&one_series(&client, all.clone()).await, 1)[0], 0.3);
    let window = every(FIVE);
    let steps = one_series(&client, v1::QueryAggregateRequest { window, ..all }).await;
    let fastest = numbers(&steps, 0)
        .into_iter()
        .position(|rise| rise.is_some_and(|rise| rise > 0.299));
    assert_eq!(fastest.map(|window| steps.start_ns[window]), Some(at(16, 30)));
    assert_eq!(numbers(&steps, 0)[..12], [None; 12], "nothing lies an hour back");
}

#[tokio::test]
async fn silence_is_told_and_filled_and_never_looks_measured() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    afternoon(&client).await;
    let quarters = |mode, max_gap| v1::QueryAggregateRequest {
        window: every(15 * MIN),
        fill: filled_by(mode, max_gap),
        largest_gap: true,
        ..over(&["RG2"], "rain", &[Sum, Count], (at(15, 0), at(16, 30)))
    };
    let series = one_series(&client, quarters(FillMode::Null, 0)).await;
    assert_eq!(series.points_seen, [3, 1, 0, 0, 1, 3]);
    assert_eq!(series.points_promised, [3; 6]);
    let nothing = [false, false, true, true, false, false];
    assert_eq!(filled(&series), nothing);
    let sums = [Some(6.0), Some(3.0), None, None, Some(2.5), Some(6.0)];
    assert_eq!(numbers(&series, 0), sums);
    let count = [3.0, 1.0, 0.0, 0.0, 1.0, 3.0].map(Some);
    assert_eq!(numbers(&series, 1), count, "no points are no gap to fill");
    assert_eq!(series.largest_gap_ns, [1, 2, 3, 3, 3, 1].map(|fives| fives * FIVE));
    for (mode, max_gap, expected) in [
        (FillMode::Previous, 0, [Some(3.0), Some(3.0)]),
        (FillMode::Previous, 15 * MIN, [Some(3.0), None]),
        (FillMode::Constant, 0, [Some(7.0), Some(7.0)]),
        (FillMode::Constant, 10 * MIN, [None, None]),
        (FillMode::Linear, 44 * MIN, [None, None]),
    ] {
        let series = one_series(&client, quarters(mode, max_gap)).await;
        assert_eq!(numbers(&series, 0)[2..4], expected, "{mode:?} {max_gap}");
        assert_eq!(
            (filled(&series), &series.points_seen[2..4]),
            (nothing.to_vec(), &[0, 0][..])
        );
    }
    let linear = numbers(&one_series(&client, quarters(FillMode::Linear, 45 * MIN)).await, 0);
    for (at, thirds) in [(2, 1.0), (3, 2.0)] {
        let expected = 3.0 - 0.5 * thirds / 3.0;
        assert!((linear[at].unwrap() - expected).abs() < 1e-9, "{linear:?}");
    }
    let thin = v1::QueryAggregateRequest {
        min_coverage: 0.9,
        ..quarters(FillMode::Previous, 0)
    };
    let series = one_series(&client, thin).await;
    assert_eq!(numbers(&series, 0), [Some(6.0); 6], "a thin window is no source");
    assert_eq!(filled(&series), [false, true, true, true, true, false]);
    let gaps: Vec<i64> = series.insufficient.iter().map(|window| window.largest_gap_ns).collect();
    assert_eq!(gaps, [2 * FIVE, 3 * FIVE]);

    let together = v1::QueryAggregateRequest {
        selector: of_type(GAUGE),
        grouping: None,
        ..quarters(FillMode::Null, 0)
    };
    let all = series_of(&client, together.clone()).await;
    let starts: Vec<_> = all.iter().map(|series| &series.start_ns).collect();
    assert_eq!(all.len(), 4, "those that are silent too");
    assert!(starts.iter().all(|one| *one == starts[0]), "one grid");
    let group = v1::QueryAggregateRequest {
        selector: of_devices(&["RG1", "RG2"]),
        grouping: Some(v1::Grouping::default()),
        ..together
    };
    let series = one_series(&client, group).await;
    assert_eq!(series.points_seen, [6, 4, 3, 3, 4, 6]);
    assert_eq!(
        series.largest_gap_ns[1..4],
        [2 * FIVE, 15 * MIN, 15 * MIN],
        "the longest of both"
    );
}

#[tokio::test]
async fn days_that_clocks_change_are_shorter_and_longer() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    let rows = (0..72).map(|hour| ("r1", SHORT_DAY - DAY + hour * HOUR, hour as f64));
    client.write(write(batch(RELIC, "level", rows))).await.unwrap();
    let day = v1::QueryAggregateRequest {
        window: by(CalendarUnit::Day, "Europe/Berlin", 0),
        ..over(
            &["r1"],
            "level",
            &[Count, First, Last],
            (SHORT_DAY - DAY, SHORT_DAY + 47 * HOUR),
        )
    };
    let series = one_series(&client, day.clone()).await;
    assert_eq!(series.points_seen, [24, 23, 24]);
    assert_eq!(
        series.points_promised,
        [24 * 60, 23 * 60, 24 * 60],
        "as long as the day is"
    );
    assert_eq!(numbers(&series, 1), [0.0, 24.0, 47.0].map(Some));
    let two_days = v1::QueryAggregateRequest {
        window: day.window.clone().map(|window| v1::Window { length: 2, ..window }),
        from_ns: SHORT_DAY + 23 * HOUR,
        ..day.clone()
    };
    let series = one_series(&client, two_days).await;
    assert_eq!((&series.points_seen[..], series.start_ns[0]), (&[47][..], SHORT_DAY));
    let cut = v1::QueryAggregateRequest {
        from_ns: SHORT_DAY - HOUR,
        to_ns: SHORT_DAY + HOUR,
        ..day.clone()
    };
    let series = one_series(&client, cut).await;
    assert_eq!(
        (&series.start_ns[..], &series.end_ns[..]),
        (&[SHORT_DAY - HOUR, SHORT_DAY][..], &[SHORT_DAY, SHORT_DAY + HOUR][..])
    );
    let between = v1::Window {
        borders_ns: vec![SHORT_DAY, SHORT_DAY + HOUR, SHORT_DAY + 5 * HOUR],
        ..Default::default()
    };
    let between = v1::QueryAggregateRequest {
        window: Some(between),
        ..day
    };
    let series = one_series(&client, between).await;
    assert_eq!(
        series.points_seen,
        [1, 4],
        "what lies outside of all borders is in no window"
    );
}

#[tokio::test]
async fn questions_without_meaning_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    let level = || over(&["r1"], "level", &[Avg], (0, DAY));
    let check = async |request: v1::QueryAggregateRequest, expected: &str| {
        let refused = shown(&client.query_aggregate(request).await.unwrap_err());
        assert!(refused.starts_with(expected), "{refused}");
    };
    let with = |window| v1::QueryAggregateRequest { window, ..level() };
    check(
        with(by(CalendarUnit::Day, "Asia/Pinghu", 0)),
        "INVALID_ARGUMENT INVALID_VALUE window.calendar.time_zone",
    )
    .await;
    let both = by(CalendarUnit::Day, "", 0).map(|window| v1::Window { step_ns: 5, ..window });
    check(with(both), "INVALID_ARGUMENT INVALID_VALUE window.calendar").await;
    let borders = |borders_ns: Vec<i64>| {
        let window = v1::Window {
            borders_ns,
            ..Default::default()
        };
        with(Some(window))
    };
    check(borders(vec![5, 5]), "INVALID_ARGUMENT INVALID_VALUE window.borders_ns").await;
    check(borders(vec![5]), "INVALID_ARGUMENT INVALID_VALUE window.borders_ns").await;
    let ages = v1::QueryAggregateRequest {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        ..with(by(CalendarUnit::Hour, "", 0))
    };
    check(ages, "RESOURCE_EXHAUSTED TOO_MANY_WINDOWS window.calendar").await;
    let filled = v1::QueryAggregateRequest {
        fill: filled_by(FillMode::Null, 0),
        window: every(100 * 1_000_000),
        ..level()
    };
    check(filled, "RESOURCE_EXHAUSTED TOO_MANY_WINDOWS fill").await;
    let rise = v1::QueryAggregateRequest {
        functions: vec![RisePerHour as i32],
        ..level()
    };
    check(rise.clone(), "INVALID_ARGUMENT MISSING_FIELD rise_over_ms").await;
    let rain = v1::QueryAggregateRequest {
        properties: vec!["rain".into()],
        rise_over_ms: 1,
        ..rise
    };
    check(rain, "INVALID_ARGUMENT UNLAWFUL_FUNCTION functions").await;
    let alone = v1::QueryAggregateRequest {
        areal: Some(v1::Areal::default()),
        ..level()
    };
    check(alone.clone(), "INVALID_ARGUMENT MISSING_FIELD grouping").await;
    let share = v1::QueryAggregateRequest {
        areal: Some(v1::Areal { min_coverage: 1.5 }),
        grouping: Some(v1::Grouping::default()),
        ..alone
    };
    check(share, "INVALID_ARGUMENT INVALID_VALUE areal.min_coverage").await;
    let one = series_of(&client, over(&["r1"], "level", &[Max], (0, DAY))).await;
    assert_eq!(
        one.len(),
        0,
        "and a silent device has no windows unless they are filled"
    );
}
