//! What a measurement prints: a table for people, JSON for programs, the same figures in both. Invariant: nothing else
//! goes to standard output, so that it can be piped.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies of one operation.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    micros: Histogram<u64>,
}

/// The figures of a set of latencies, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latencies {
    /// None yet; three digits are kept, up to an hour.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            micros: Histogram::new_with_bounds(1, 3_600_000_000, 3)?,
        })
    }

    /// Adds one.
    pub(crate) fn record(&mut self, took: Duration) {
        // longer than an hour counts as an hour
        self.micros
            .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds all of another set.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        Ok(self.micros.add(&other.micros)?)
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.micros.len()
    }

    /// A quantile from 0 to 1, milliseconds.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Median, 99th percentile and longest.
    pub(crate) fn summary(&self) -> Summary {
        let ms = |micros: u64| micros as f64 / 1000.0;
        Summary {
            count: self.micros.len(),
            p50_ms: ms(self.micros.value_at_quantile(0.5)),
            p99_ms: ms(self.micros.value_at_quantile(0.99)),
            max_ms: ms(self.micros.max()),
        }
    }
}

/// Prints rows under a header, or `figures` as JSON.
pub(crate) fn print<T: Serialize>(json: bool, figures: &T, header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    let text = if json {
        serde_json::to_string_pretty(figures)?
    } else {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::UTF8_FULL_CONDENSED)
            .set_header(header);
        table.add_rows(rows);
        table.to_string()
    };
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// A line for the person who waits; standard error, so that standard output stays clean.
pub(crate) fn note(text: &str) {
    // nobody can be told that telling failed
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// 1234567 as 1,234,567.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |d| ("-", d));
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|g| std::str::from_utf8(g).ok())
        .collect();
    format!("{sign}{}", groups.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn percentiles_of_a_thousand() {
        let mut latencies = Latencies::new().unwrap();
        (1..=1000).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        let s = latencies.summary();
        assert_eq!(s.count, 1000);
        assert!(
            (s.p50_ms - 500.0).abs() < 1.0 && (s.p99_ms - 990.0).abs() < 1.0 && s.max_ms >= 1000.0,
            "{s:?}"
        );
    }

    #[test]
    fn groups_of_three() {
        assert_eq!(
            [0.0, 999.0, 1000.0, 1_234_567.4, -12_345.0].map(thousands),
            ["0", "999", "1,000", "1,234,567", "-12,345"]
        );
    }
}
