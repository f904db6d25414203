//! Instants and spans as people write them, and back. Never: arithmetic on calendars, reading the clock.
//!
//! Invariant: an instant is int64 nanoseconds since the Unix epoch, UTC; what cannot be held in that is refused.

use clap::ValueEnum;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// How instants are printed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TsFormat {
    /// 2024-06-20T08:00:00Z
    #[default]
    Rfc3339,
    /// Milliseconds since the epoch (cut, not rounded).
    Ms,
    /// Nanoseconds since the epoch.
    Ns,
}

const UNITS_NS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

fn unit_ns(name: &str) -> Option<i64> {
    UNITS_NS.iter().find(|(unit, _)| *unit == name).map(|(_, ns)| *ns)
}

/// A span like `6h`, `1h30m`, `500ms`, in nanoseconds, more than 0.
pub(crate) fn parse_span(text: &str) -> Result<i64, String> {
    let wrong =
        || format!("`{text}` is not a span: write a number with ns, us, ms, s, m, h, d or w, for example 90s or 1h30m");
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = unit_ns(&rest[..letters]).ok_or_else(wrong)?;
        rest = &rest[letters..];
        total = number
            .checked_mul(unit)
            .and_then(|ns| total.checked_add(ns))
            .ok_or_else(|| format!("`{text}` is longer than 292 years"))?;
    }
    if total == 0 {
        return Err(format!("`{text}` is no span at all: it must be more than 0"));
    }
    Ok(total)
}

/// An instant: `now`, `now-2h`, RFC 3339, a date, a date and time without zone (UTC), or a number with `ns`, `us`, `ms` or `s`.
pub(crate) fn parse_instant(text: &str, now_ns: i64) -> Result<i64, String> {
    if let Some(rest) = text.strip_prefix("now") {
        return parse_now(text, rest, now_ns);
    }
    let body = text.strip_prefix('-').unwrap_or(text);
    let digits = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
    if digits > 0 && body[digits..].chars().all(|c| c.is_ascii_alphabetic()) {
        let suffix = &body[digits..];
        if suffix.is_empty() {
            return Err(format!(
                "`{text}` has no unit: add ns, us, ms or s, for example {text}ms"
            ));
        }
        return match suffix {
            "ns" | "us" | "ms" | "s" => {
                let sign = text.len() - body.len();
                let number: i64 = text[..sign + digits]
                    .parse()
                    .map_err(|_| format!("`{text}` does not fit 64 bits"))?;
                let unit = unit_ns(suffix).unwrap_or(1);
                number.checked_mul(unit).ok_or_else(|| out_of_range(text))
            }
            _ => Err(format!("`{text}`: the unit of a time is ns, us, ms or s")),
        };
    }
    parse_calendar(text)
}

fn parse_now(text: &str, rest: &str, now_ns: i64) -> Result<i64, String> {
    let span = match rest.as_bytes().first() {
        None => return Ok(now_ns),
        Some(b'-') => -parse_span(&rest[1..])?,
        Some(b'+') => parse_span(&rest[1..])?,
        Some(_) => return Err(format!("`{text}` is not a time: write now, now-2h or now+5m")),
    };
    now_ns.checked_add(span).ok_or_else(|| out_of_range(text))
}

/// RFC 3339, a date, or a date and time without zone, which is read as UTC.
pub(crate) fn parse_calendar(text: &str) -> Result<i64, String> {
    let instant = match text.parse::<Timestamp>() {
        Ok(instant) => instant,
        Err(_) => text
            .parse::<DateTime>()
            .ok()
            .and_then(|civil| TimeZone::UTC.to_timestamp(civil).ok())
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a time: write RFC 3339 (2024-06-20T08:00:00Z), a date, or a number with ns or ms"
                )
            })?,
    };
    i64::try_from(instant.as_nanosecond()).map_err(|_| out_of_range(text))
}

/// True when the text carries a zone or an offset.
pub(crate) fn has_zone(text: &str) -> bool {
    text.parse::<Timestamp>().is_ok()
}

fn out_of_range(text: &str) -> String {
    format!("`{text}` lies outside the years 1678 to 2262 that nanoseconds can hold")
}

/// The instant as text.
pub(crate) fn format_instant(ns: i64, format: TsFormat) -> String {
    match format {
        TsFormat::Rfc3339 => match Timestamp::from_nanosecond(i128::from(ns)) {
            Ok(instant) => instant.to_string(),
            Err(_) => format!("{ns}ns"),
        },
        TsFormat::Ms => ns.div_euclid(1_000_000).to_string(),
        TsFormat::Ns => ns.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const NOW: i64 = 1_718_841_600_000_000_000; // 2024-06-20T00:00:00Z

    #[test]
    fn instants() {
        for (text, expected) in [
            ("now", NOW),
            ("now-2h", NOW - 7_200_000_000_000),
            ("now+1h30m", NOW + 5_400_000_000_000),
            ("2024-06-20", NOW),
            ("2024-06-20T00:00:00Z", NOW),
            ("2024-06-20T08:00:00+08:00", NOW),
            ("2024-06-20 00:00:00", NOW),
            ("2024-06-20T00:00:00.000000001Z", NOW + 1),
            ("1718841600000ms", NOW),
            ("1718841600000000000ns", NOW),
            ("1718841600s", NOW),
            ("-1ns", -1),
            ("1969-12-31T23:59:59Z", -1_000_000_000),
        ] {
            assert_eq!(parse_instant(text, NOW), Ok(expected), "{text}");
        }
        for text in [
            "",
            "1718841600000",
            "yesterday",
            "now2h",
            "now-",
            "5h",
            "9999999999999999s",
            "3000-01-01",
            "--1ms",
        ] {
            assert!(parse_instant(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn spans() {
        for (text, expected) in [
            ("6h", 21_600_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("500ms", 500_000_000),
            ("1w", 604_800_000_000_000),
        ] {
            assert_eq!(parse_span(text), Ok(expected), "{text}");
        }
        for text in ["", "6", "h", "-6h", "0s", "6x", "99999999999w", "1h 30m"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn instants_come_back() {
        for ns in [0, NOW, NOW + 1, -1, i64::MAX, i64::MIN] {
            let text = format_instant(ns, TsFormat::Rfc3339);
            assert_eq!(parse_instant(&text, 0), Ok(ns), "{text}");
        }
        assert_eq!(format_instant(-1, TsFormat::Ms), "-1");
    }
}
