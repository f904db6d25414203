//! Windows by the calendar against clocks that are looked at every quarter of an hour, and days that are known.
//! Never here: nodes. Invariant: what a test says of a clock, it asks the time zone database itself.
#![allow(clippy::unwrap_used, reason = "tests")]

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZoneDatabase;
use tidemark_proto::v1::{Calendar, CalendarUnit, QueryAggregateRequest, Window};

use super::calendar::with_borders;
use crate::clock::NS_PER_S;
use crate::error::{Reason, Result};
use crate::limits::Limits;

const HOUR_NS: i64 = 3_600 * NS_PER_S;

fn ns(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second() * NS_PER_S
}

fn borders(calendar: Calendar, from_ns: i64, to_ns: i64, length: u32) -> Result<Vec<i64>> {
    let window = Window {
        calendar: Some(calendar),
        length,
        ..Window::default()
    };
    let request = QueryAggregateRequest {
        from_ns,
        to_ns,
        window: Some(window),
        ..QueryAggregateRequest::default()
    };
    let resolved = with_borders(request, &Limits::default())?;
    Ok(resolved.window.unwrap().borders_ns)
}

fn by(unit: CalendarUnit, time_zone: &str, origin_s: i64) -> Calendar {
    Calendar {
        unit: unit as i32,
        time_zone: time_zone.into(),
        origin_s,
        origin_months: 0,
    }
}

/// Hours that each window is long.
fn lengths(calendar: Calendar, from: &str, to: &str) -> Vec<f64> {
    let borders = borders(calendar, ns(from), ns(to), 1).unwrap();
    let pairs = borders
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) as f64 / HOUR_NS as f64);
    pairs.collect()
}

#[test]
fn days_are_as_long_as_clocks_make_them() {
    let day = |zone: &str| by(CalendarUnit::Day, zone, 0);
    let spring = lengths(day("Europe/Berlin"), "2024-03-29T23:00:00Z", "2024-04-01T22:00:00Z");
    assert_eq!(spring, [24.0, 23.0, 24.0]);
    let autumn = lengths(day("America/New_York"), "2024-11-02T04:00:00Z", "2024-11-05T05:00:00Z");
    assert_eq!(autumn, [24.0, 25.0, 24.0]);
    let half = lengths(
        day("Australia/Lord_Howe"),
        "2024-04-05T13:00:00Z",
        "2024-04-08T13:30:00Z",
    );
    assert_eq!(half, [24.0, 24.5, 24.0]);
    let jumped_midnight = lengths(day("America/Sao_Paulo"), "2017-10-14T03:00:00Z", "2017-10-17T02:00:00Z");
    assert_eq!(jumped_midnight, [24.0, 23.0, 24.0]);
    let twice_midnight = lengths(day("America/Havana"), "2023-11-04T04:00:00Z", "2023-11-07T05:00:00Z");
    assert_eq!(twice_midnight, [24.0, 25.0, 24.0]);
    let skipped = lengths(day("Pacific/Apia"), "2011-12-28T10:00:00Z", "2011-12-31T10:00:00Z");
    assert_eq!(skipped, [24.0, 24.0, 24.0], "the 30th was left out");
}

#[test]
fn units_begin_where_they_are_said_to() {
    let check = |calendar: Calendar, range: (&str, &str), expected: &[&str]| {
        let found = borders(calendar, ns(range.0), ns(range.1), 1).unwrap();
        assert_eq!(found, expected.iter().map(|text| ns(text)).collect::<Vec<_>>());
    };
    let hydrological = by(CalendarUnit::Day, "Asia/Shanghai", 8 * 3_600);
    let two_days = ["2024-06-20T00:00:00Z", "2024-06-21T00:00:00Z", "2024-06-22T00:00:00Z"];
    check(
        hydrological.clone(),
        ("2024-06-20T00:00:00Z", "2024-06-22T00:00:00Z"),
        &two_days,
    );
    check(
        hydrological,
        ("2024-06-20T00:00:01Z", "2024-06-21T00:00:01Z"),
        &two_days,
    );
    let meteorological = by(CalendarUnit::Day, "Asia/Shanghai", 20 * 3_600);
    check(
        meteorological,
        ("2024-06-20T00:00:00Z", "2024-06-20T13:00:00Z"),
        &["2024-06-19T12:00:00Z", "2024-06-20T12:00:00Z", "2024-06-21T12:00:00Z"],
    );
    let week = by(CalendarUnit::Week, "", 0);
    check(
        week,
        ("2024-06-20T00:00:00Z", "2024-06-24T00:00:00Z"),
        &["2024-06-17T00:00:00Z", "2024-06-24T00:00:00Z"],
    );
    let month = by(CalendarUnit::Month, "Europe/Berlin", 0);
    check(
        month,
        ("2024-02-10T00:00:00Z", "2024-04-10T00:00:00Z"),
        &[
            "2024-01-31T23:00:00Z",
            "2024-02-29T23:00:00Z",
            "2024-03-31T22:00:00Z",
            "2024-04-30T22:00:00Z",
        ],
    );
    let from_november = Calendar {
        origin_months: 10,
        ..by(CalendarUnit::Year, "", 0)
    };
    check(
        from_november,
        ("1968-01-01T00:00:00Z", "1969-01-01T00:00:00Z"),
        &["1967-11-01T00:00:00Z", "1968-11-01T00:00:00Z", "1969-11-01T00:00:00Z"],
    );
    let nepal = by(CalendarUnit::Hour, "Asia/Kathmandu", 0);
    check(
        nepal,
        ("2024-01-01T00:00:00Z", "2024-01-01T00:30:00Z"),
        &["2023-12-31T23:15:00Z", "2024-01-01T00:15:00Z", "2024-01-01T01:15:00Z"],
    );
}

#[test]
fn windows_that_slide_reach_back() {
    let day = by(CalendarUnit::Day, "Europe/Berlin", 0);
    let found = borders(day, ns("2024-04-01T22:00:00Z"), ns("2024-04-02T22:00:00Z"), 3).unwrap();
    let expected = [
        "2024-03-30T23:00:00Z",
        "2024-03-31T22:00:00Z",
        "2024-04-01T22:00:00Z",
        "2024-04-02T22:00:00Z",
    ];
    assert_eq!(found, expected.map(ns));
}

#[test]
fn what_no_calendar_has_is_refused() {
    let (from, to) = (0, 24 * HOUR_NS);
    let check = |calendar: Calendar, field: &str| {
        let error = borders(calendar, from, to, 1).unwrap_err();
        assert_eq!((error.reason(), error.field_path()), (Reason::InvalidValue, field));
    };
    check(by(CalendarUnit::Unspecified, "", 0), "window.calendar.unit");
    check(by(CalendarUnit::Day, "Asia/Pinghu", 0), "window.calendar.time_zone");
    check(by(CalendarUnit::Day, "", 86_400), "window.calendar.origin_s");
    check(by(CalendarUnit::Hour, "", -1), "window.calendar.origin_s");
    let months = Calendar {
        origin_months: 1,
        ..by(CalendarUnit::Month, "", 0)
    };
    check(months, "window.calendar.origin_months");
    for unit in [CalendarUnit::Hour, CalendarUnit::Day] {
        let error = borders(by(unit, "", 0), i64::MIN, i64::MAX, 1).unwrap_err();
        assert_eq!(error.reason(), Reason::TooManyWindows);
    }
    let error = borders(by(CalendarUnit::Day, "", 0), from, to, u32::MAX).unwrap_err();
    assert_eq!(error.reason(), Reason::TooManyWindows);
    for unit in [CalendarUnit::Week, CalendarUnit::Month, CalendarUnit::Year] {
        let all = borders(by(unit, "America/New_York", 0), i64::MIN, i64::MAX, 1).unwrap();
        assert!(all.is_sorted_by(|a, b| a < b), "the ends of time");
    }
}

/// Number of a unit that a clock which shows this is in.
fn number(unit: CalendarUnit, shown: DateTime, origin_s: i64) -> i64 {
    let shown = shown.checked_sub(jiff::SignedDuration::from_secs(origin_s)).unwrap();
    let (year, month) = (i64::from(shown.year()), i64::from(shown.month()));
    let day = i64::from(shown.date().until(jiff::civil::date(3000, 1, 6)).unwrap().get_days());
    match unit {
        CalendarUnit::Hour => -day * 24 + i64::from(shown.hour()),
        CalendarUnit::Day => -day,
        // 3000-01-06 is a Monday.
        CalendarUnit::Week => (-day).div_euclid(7),
        CalendarUnit::Month => year * 12 + month,
        _ => year,
    }
}

#[test]
fn borders_are_where_a_look_at_the_clock_finds_them() {
    const QUARTER_S: i64 = 900;
    let zones = [
        ("Asia/Shanghai", "2024-01-01T00:00:00Z"),
        ("Europe/Berlin", "2024-01-01T00:00:00Z"),
        ("America/New_York", "2023-06-01T00:00:00Z"),
        ("America/Sao_Paulo", "2017-06-01T00:00:00Z"),
        ("America/Havana", "2023-01-01T00:00:00Z"),
        ("Australia/Lord_Howe", "2024-01-01T00:00:00Z"),
        ("Pacific/Apia", "2011-06-01T00:00:00Z"),
        ("Africa/Casablanca", "2024-01-01T00:00:00Z"),
        ("Asia/Kathmandu", "2024-01-01T00:00:00Z"),
    ];
    let units = [
        (CalendarUnit::Hour, [0, 1_800]),
        (CalendarUnit::Day, [0, 28_800]),
        (CalendarUnit::Week, [0, 86_400 + 8_100]),
        (CalendarUnit::Month, [0, 72_000]),
        (CalendarUnit::Year, [0, 28_800]),
    ];
    let database = TimeZoneDatabase::bundled();
    for (name, begin) in zones {
        let zone = database.get(name).unwrap();
        let from_s = ns(begin) / NS_PER_S;
        let looks: Vec<(i64, DateTime)> = (from_s..from_s + 400 * 86_400)
            .step_by(QUARTER_S as usize)
            .map(|s| (s, zone.to_datetime(Timestamp::from_second(s).unwrap())))
            .collect();
        for (unit, origins) in units {
            for origin_s in origins {
                let numbers = looks.iter().map(|(s, shown)| (*s, number(unit, *shown, origin_s)));
                let mut expected = Vec::new();
                let (mut last, mut most) = (None, None);
                for ((s, number), (_, shown)) in numbers.zip(&looks) {
                    let whole = i64::from(shown.minute()) * 60 == origin_s;
                    let begins = match unit {
                        CalendarUnit::Hour => whole || last.is_some_and(|last| number > last),
                        _ => most.is_some_and(|most| number > most),
                    };
                    if begins && last.is_some() {
                        expected.push(s * NS_PER_S);
                    }
                    (last, most) = (Some(number), most.max(Some(number)));
                }
                let to_ns = expected.last().copied().unwrap_or(from_s * NS_PER_S + 1);
                let found = borders(by(unit, name, origin_s), (from_s + 1) * NS_PER_S, to_ns, 1).unwrap();
                let inside = found
                    .iter()
                    .copied()
                    .filter(|border| *border > from_s * NS_PER_S && *border <= to_ns);
                assert_eq!(
                    inside.collect::<Vec<_>>(),
                    expected,
                    "{name}, {unit:?} from {origin_s} s"
                );
            }
        }
    }
}
