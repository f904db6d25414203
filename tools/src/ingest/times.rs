//! Observation times as files write them. Never: time zones beyond what the text says, or what the server accepts.
//!
//! Invariant: a time is read exactly or refused; a text without a zone is read as UTC.

use clap::ValueEnum;

use crate::time::parse_calendar;

/// How a file writes its times.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimeForm {
    /// 2024-06-20T08:00:00Z; without a zone read as UTC
    Rfc3339,
    /// Seconds since the epoch
    S,
    /// Milliseconds since the epoch
    Ms,
    /// Microseconds since the epoch
    Us,
    /// Nanoseconds since the epoch
    Ns,
}

impl TimeForm {
    /// What the suffix of a column's name says.
    pub(crate) fn of_name(name: &str) -> Option<TimeForm> {
        let (_, suffix) = name.rsplit_once('_')?;
        match suffix.to_ascii_lowercase().as_str() {
            "s" => Some(TimeForm::S),
            "ms" => Some(TimeForm::Ms),
            "us" => Some(TimeForm::Us),
            "ns" => Some(TimeForm::Ns),
            _ => None,
        }
    }

    /// What the first time of a file looks like: a whole number by its size (years 1973 to 2286 in each unit), else calendar text.
    pub(crate) fn detect(text: &str) -> Result<TimeForm, String> {
        let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
        let digits = whole.strip_prefix('-').unwrap_or(whole);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return parse_calendar(text).map(|_| TimeForm::Rfc3339);
        }
        match digits.len() {
            9..=10 => Ok(TimeForm::S),
            12..=13 => Ok(TimeForm::Ms),
            15..=16 => Ok(TimeForm::Us),
            18..=19 => Ok(TimeForm::Ns),
            _ => Err(format!(
                "`{text}` could be in any unit: give --time-format s, ms, us or ns"
            )),
        }
    }

    /// Digits of a second that lie behind one unit.
    fn exponent(self) -> u32 {
        match self {
            TimeForm::Rfc3339 | TimeForm::S => 9,
            TimeForm::Ms => 6,
            TimeForm::Us => 3,
            TimeForm::Ns => 0,
        }
    }

    /// Nanoseconds since the epoch.
    pub(crate) fn parse(self, text: &str) -> Result<i64, String> {
        if self == TimeForm::Rfc3339 {
            return parse_calendar(text);
        }
        let exponent = self.exponent();
        let wrong = || format!("time `{text}` is not a number of {self:?} since the epoch").to_lowercase();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let negative = whole.starts_with('-');
        let whole: i64 = whole.parse().map_err(|_| wrong())?;
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > exponent as usize || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let mut rest = 0;
        if !fraction.is_empty() {
            let digits: i64 = fraction.parse().map_err(|_| wrong())?;
            rest = digits * 10_i64.pow(exponent - fraction.len() as u32);
        }
        whole
            .checked_mul(10_i64.pow(exponent))
            .and_then(|ns| ns.checked_add(if negative { -rest } else { rest }))
            .ok_or_else(|| format!("time `{text}` does not fit 64 bits of nanoseconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly() {
        for (form, text, expected) in [
            (TimeForm::Ms, "1262304000000", Ok(1_262_304_000_000_000_000)),
            (TimeForm::S, "1262304000.5", Ok(1_262_304_000_500_000_000)),
            (TimeForm::S, "-0.5", Ok(-500_000_000)),
            (TimeForm::Ns, "9223372036854775807", Ok(i64::MAX)),
            (TimeForm::Us, "1.001", Ok(1_001)),
            (TimeForm::Rfc3339, "2010-01-01 00:00:00", Ok(1_262_304_000_000_000_000)),
            (
                TimeForm::Rfc3339,
                "2010-01-01T08:00:00+08:00",
                Ok(1_262_304_000_000_000_000),
            ),
        ] {
            assert_eq!(form.parse(text), expected, "{form:?} {text}");
        }
        for (form, text) in [
            (TimeForm::Ns, "1.5"),
            (TimeForm::S, "9999999999999"),
            (TimeForm::Ms, "x"),
            (TimeForm::S, "1.x"),
            (TimeForm::Ms, ""),
        ] {
            assert!(form.parse(text).is_err(), "{form:?} {text}");
        }
    }

    #[test]
    fn forms_are_told_apart() {
        for (text, expected) in [
            ("1262304000", Some(TimeForm::S)),
            ("1262304000000", Some(TimeForm::Ms)),
            ("1262304000000000", Some(TimeForm::Us)),
            ("1262304000000000000", Some(TimeForm::Ns)),
            ("1262304000.25", Some(TimeForm::S)),
            ("2010-01-01T00:00:00Z", Some(TimeForm::Rfc3339)),
            ("20100101", None),
            ("noon", None),
        ] {
            assert_eq!(TimeForm::detect(text).ok(), expected, "{text}");
        }
        assert_eq!(TimeForm::of_name("timestamp_ms"), Some(TimeForm::Ms));
        assert_eq!(TimeForm::of_name("status"), None);
    }
}
