//! Windows by the calendar, as borders: pure, from the time zone database that is built in.
//!
//! Never here: what windows hold. The node that takes a question finds the borders once, so that shards on nodes with another
//! version of the database cut alike. Invariant: borders ascend, and a unit begins at the first moment at which the clock of
//! the place shows its begin or later; an hour begins whenever the clock shows its begin, or jumps over it.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use tidemark_proto::v1::{Calendar, CalendarUnit, QueryAggregateRequest};

use super::plan::too_many_borders;
use crate::clock::NS_PER_S;
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
/// 1970-01-05 was a Monday.
const MONDAY_S: i64 = 4 * DAY_S;
const MONTH_LEAST_S: i64 = 28 * DAY_S;
/// Clocks are never put back or forth by more; a place may skip a day.
const JUMP_MOST_S: i64 = 2 * DAY_S;

/// Never the database of the host, which may be missing and differs from node to node.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A span of time in which a place keeps its distance from UTC, seconds.
struct Span {
    from_s: i64,
    to_s: i64,
    ahead_s: i64,
}

/// The request with borders in place of a calendar.
pub(super) fn with_borders(mut request: QueryAggregateRequest, limits: &Limits) -> Result<QueryAggregateRequest> {
    let (from_ns, to_ns) = (request.from_ns, request.to_ns);
    let Some(window) = &mut request.window else {
        return Ok(request);
    };
    let Some(calendar) = window.calendar.take() else {
        return Ok(request);
    };
    if window.step_ns != 0 || window.length_ns != 0 || window.origin_ns != 0 || !window.borders_ns.is_empty() {
        let message = "windows go by a calendar, by a step or by borders";
        return Err(Error::new(Reason::InvalidValue, message).field("window.calendar"));
    }
    let earlier = i64::from(window.length.max(1)) - 1;
    window.borders_ns = borders(&calendar, from_ns, to_ns, earlier, limits)?;
    Ok(request)
}

/// Borders of the windows that touch a range, and of so many before it.
fn borders(calendar: &Calendar, from_ns: i64, to_ns: i64, earlier: i64, limits: &Limits) -> Result<Vec<i64>> {
    let (unit, zone) = (unit(calendar)?, zone(&calendar.time_zone)?);
    let least_s = match unit {
        CalendarUnit::Hour => HOUR_S / 2,
        CalendarUnit::Day => DAY_S,
        CalendarUnit::Week => 7 * DAY_S,
        CalendarUnit::Month => MONTH_LEAST_S,
        CalendarUnit::Year | CalendarUnit::Unspecified => 365 * DAY_S,
    };
    // The second of `to` itself is looked at too.
    let (from_s, to_s) = (
        from_ns.div_euclid(NS_PER_S),
        to_ns.div_euclid(NS_PER_S).saturating_add(1),
    );
    let most = i64::try_from(limits.windows_listed_max).unwrap_or(i64::MAX);
    if (to_s.saturating_sub(from_s) / (2 * least_s)).saturating_add(earlier) > most {
        return Err(too_many_borders(limits).field("window.calendar"));
    }
    let before = earlier
        .saturating_add(2)
        .saturating_mul(2 * least_s)
        .saturating_add(JUMP_MOST_S);
    let begin_s = from_s.saturating_sub(before);
    let found = match unit {
        CalendarUnit::Hour => hours(&zone, begin_s, to_s.saturating_add(2 * HOUR_S), calendar.origin_s),
        _ => Units { unit, calendar }.between(&zone, begin_s, to_s),
    };
    let mut borders: Vec<i64> = found.into_iter().map(|s| s.saturating_mul(NS_PER_S)).collect();
    borders.dedup();
    // One that is not after `from`, those before it that windows reach back to, and one that is not before `to`.
    let first = borders.partition_point(|border| *border <= from_ns).saturating_sub(1);
    let behind = borders.partition_point(|border| *border < to_ns.max(from_ns.saturating_add(1)));
    borders.truncate(behind.saturating_add(1));
    borders.drain(..first.saturating_sub(usize::try_from(earlier).unwrap_or(usize::MAX)));
    match borders.len() > limits.windows_listed_max {
        true => Err(too_many_borders(limits).field("window.calendar")),
        false => Ok(borders),
    }
}

fn unit(calendar: &Calendar) -> Result<CalendarUnit> {
    let refused = |message: String, field: &str| {
        Err(Error::new(Reason::InvalidValue, message).field(format!("window.calendar.{field}")))
    };
    let unit = CalendarUnit::try_from(calendar.unit).unwrap_or_default();
    let length_s = match unit {
        CalendarUnit::Unspecified => return refused("windows by the calendar need a unit".into(), "unit"),
        CalendarUnit::Hour => HOUR_S,
        CalendarUnit::Day => DAY_S,
        CalendarUnit::Week => 7 * DAY_S,
        CalendarUnit::Month | CalendarUnit::Year => MONTH_LEAST_S,
    };
    if !(0..length_s).contains(&calendar.origin_s) {
        let message = format!("an origin of {} s, which is not within the unit", calendar.origin_s);
        return refused(message, "origin_s");
    }
    if calendar.origin_months >= 12 || (calendar.origin_months > 0 && unit != CalendarUnit::Year) {
        return refused(
            "only years begin some months later, less than 12".into(),
            "origin_months",
        );
    }
    Ok(unit)
}

fn zone(name: &str) -> Result<TimeZone> {
    if name.is_empty() {
        return Ok(TimeZone::UTC);
    }
    ZONES.get(name).map_err(|_| {
        Error::new(Reason::InvalidValue, format!("no time zone {name:?}"))
            .field("window.calendar.time_zone")
            .hint("name it as the IANA database does, for example Asia/Shanghai")
    })
}

/// Spans between changes of the clock, from a time to another.
fn spans(zone: &TimeZone, from_s: i64, to_s: i64) -> Vec<Span> {
    let (from, to) = (timestamp(from_s), timestamp(to_s));
    let mut spans = vec![Span {
        from_s,
        to_s,
        ahead_s: i64::from(zone.to_offset(from).seconds()),
    }];
    for change in zone.following(from).take_while(|change| change.timestamp() < to) {
        let (at_s, ahead_s) = (change.timestamp().as_second(), i64::from(change.offset().seconds()));
        if let Some(last) = spans.last_mut() {
            last.to_s = at_s;
        }
        spans.push(Span {
            from_s: at_s,
            to_s,
            ahead_s,
        });
    }
    spans
}

/// A time that a calendar can tell; all that nanoseconds can hold are.
fn timestamp(s: i64) -> Timestamp {
    Timestamp::from_second(s).unwrap_or(if s < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Days and longer units.
struct Units<'a> {
    unit: CalendarUnit,
    calendar: &'a Calendar,
}

impl Units<'_> {
    /// Begins of units from the last one before a time to the first one behind another, seconds since the epoch.
    fn between(&self, zone: &TimeZone, from_s: i64, to_s: i64) -> Vec<i64> {
        let spans = spans(zone, from_s, to_s);
        let mut found = Vec::new();
        let Some(first) = spans.first() else { return found };
        let mut number = self.number(first.from_s.saturating_add(first.ahead_s)) + 1;
        let mut at = 0;
        while let Some(begin) = self.begin(number) {
            // The first span whose clock reaches it; behind the last one, its clock goes on.
            while at + 1 < spans.len() && spans[at].to_s.saturating_add(spans[at].ahead_s) <= begin {
                at += 1;
            }
            let moment = begin.saturating_sub(spans[at].ahead_s).max(spans[at].from_s);
            found.push(moment);
            if moment > to_s {
                break;
            }
            number += 1;
        }
        found
    }

    /// The unit that a clock which shows this is in.
    fn number(&self, shown_s: i64) -> i64 {
        let since = shown_s.saturating_sub(self.calendar.origin_s);
        match self.unit {
            CalendarUnit::Week => (since - MONDAY_S).div_euclid(7 * DAY_S),
            CalendarUnit::Month => month_of(since),
            CalendarUnit::Year => (month_of(since) - i64::from(self.calendar.origin_months)).div_euclid(12),
            _ => since.div_euclid(DAY_S),
        }
    }

    /// What the clock shows when a unit begins; `None` at the end of all calendars.
    fn begin(&self, number: i64) -> Option<i64> {
        let begin = match self.unit {
            CalendarUnit::Week => number * 7 * DAY_S + MONDAY_S,
            CalendarUnit::Month => begin_of_month(number)?,
            CalendarUnit::Year => begin_of_month(number * 12 + i64::from(self.calendar.origin_months))?,
            _ => number * DAY_S,
        };
        Some(begin + self.calendar.origin_s)
    }
}

/// Months since the year 0.
fn month_of(shown_s: i64) -> i64 {
    let shown = Offset::UTC.to_datetime(timestamp(shown_s));
    i64::from(shown.year()) * 12 + i64::from(shown.month()) - 1
}

fn begin_of_month(number: i64) -> Option<i64> {
    let year = i16::try_from(number.div_euclid(12)).ok()?;
    let date = Date::new(year, number.rem_euclid(12) as i8 + 1, 1).ok()?;
    let begin = TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    Some(begin.as_second())
}

/// Begins of hours.
fn hours(zone: &TimeZone, from_s: i64, to_s: i64, origin_s: i64) -> Vec<i64> {
    let mut found = Vec::new();
    let mut shown_before: Option<i64> = None;
    for span in spans(zone, from_s, to_s) {
        let number = |s: i64| {
            s.saturating_add(span.ahead_s)
                .saturating_sub(origin_s)
                .div_euclid(HOUR_S)
        };
        let shown = span.from_s.saturating_add(span.ahead_s);
        let first = number(span.from_s);
        let whole = shown.saturating_sub(origin_s).rem_euclid(HOUR_S) == 0;
        // The clock jumped forth over the begin of an hour.
        let jumped = shown_before.is_some_and(|before| {
            before < shown && before.saturating_sub(1).saturating_sub(origin_s).div_euclid(HOUR_S) < first
        });
        if whole || jumped {
            found.push(span.from_s);
        }
        let begins = (first + 1..).map(|number| number * HOUR_S + origin_s - span.ahead_s);
        found.extend(begins.take_while(|begin| *begin < span.to_s));
        shown_before = Some(span.to_s.saturating_add(span.ahead_s));
    }
    found
}
