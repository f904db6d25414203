//! Windows of `query agg` as people ask for them: every so long, sliding, by the calendar; gaps filled, gaps told. Never: cutting
//! time (the server does).
//!
//! Invariant: what is not asked for adds no column.

use clap::{Args, ValueEnum};
use tidemark_client::{is_filled, v1};

use crate::cli::now_ns;
use crate::failure::{Failure, Outcome};
use crate::output::Cell;
use crate::time::{parse_instant, parse_span};

/// Heads of columns that windows have that are covered too thinly.
const GAP: &str = "largest_gap_s";
const SLOTS: &str = "slots_filled";

/// Which windows.
#[derive(Debug, Args)]
pub(crate) struct WindowArgs {
    /// Length of a window [default: one window over the whole span]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(super) every: Option<i64>,
    /// Length of a window that slides: a multiple of --every, by which windows end one after the other
    #[arg(long, value_name = "SPAN", requires = "every", value_parser = parse_span)]
    sliding: Option<i64>,
    /// Windows by the calendar, one after the other
    #[arg(long, value_enum, value_name = "UNIT", conflicts_with = "every")]
    calendar: Option<UnitArg>,
    /// With --calendar: length of a window in units; longer ones slide
    #[arg(long, value_name = "COUNT", requires = "calendar")]
    units: Option<u32>,
    /// With --calendar: name of the time zone, for example Asia/Shanghai [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "calendar")]
    tz: Option<String>,
    /// A window starts here, the others lie around it [default: 1970-01-01]; with --calendar: so far into its unit, for example 08:00
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    origin: Option<String>,
    /// With --calendar year: so many months into it
    #[arg(long, value_name = "COUNT", requires = "calendar")]
    origin_months: Option<u32>,
}

/// Units of a calendar.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names of the contract")]
enum UnitArg {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl WindowArgs {
    /// What they ask for; `None`: one window.
    pub(super) fn window(&self) -> Outcome<Option<v1::Window>> {
        let wrong = |why: String| Failure::usage("the origin is not clear", why);
        if let Some(unit) = self.calendar {
            let origin_s = self.origin.as_deref().map_or(Ok(0), seconds_into).map_err(wrong)?;
            let calendar = v1::Calendar {
                unit: unit.wire() as i32,
                time_zone: self.tz.clone().unwrap_or_default(),
                origin_s,
                origin_months: self.origin_months.unwrap_or(0),
            };
            return Ok(Some(v1::Window {
                calendar: Some(calendar),
                length: self.units.unwrap_or(0),
                ..v1::Window::default()
            }));
        }
        let origin_ns = match &self.origin {
            Some(_) if self.every.is_none() => return Err(wrong("--origin needs --every or --calendar".to_owned())),
            Some(text) => parse_instant(text, now_ns()).map_err(wrong)?,
            None => 0,
        };
        Ok(self.every.map(|step_ns| v1::Window {
            step_ns,
            origin_ns,
            length_ns: self.sliding.unwrap_or(0),
            ..v1::Window::default()
        }))
    }
}

impl UnitArg {
    fn wire(self) -> v1::CalendarUnit {
        match self {
            UnitArg::Hour => v1::CalendarUnit::Hour,
            UnitArg::Day => v1::CalendarUnit::Day,
            UnitArg::Week => v1::CalendarUnit::Week,
            UnitArg::Month => v1::CalendarUnit::Month,
            UnitArg::Year => v1::CalendarUnit::Year,
        }
    }
}

/// Seconds into a unit: what a clock shows (`08:00`), or a span (`1d8h`).
fn seconds_into(text: &str) -> Result<i64, String> {
    let clock = text.split_once(':').and_then(|(hours, minutes)| {
        let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
        let is_clock = (0..24).contains(&hours) && (0..60).contains(&minutes);
        is_clock.then_some(hours * 3_600 + minutes * 60)
    });
    match clock {
        Some(seconds) => Ok(seconds),
        None => parse_span(text)
            .map(|ns| ns / 1_000_000_000)
            .map_err(|_| format!("`{text}` is neither a time of day like 08:00 nor a span like 1d8h")),
    }
}

/// What else to tell of windows.
#[derive(Debug, Args)]
pub(crate) struct CoverArgs {
    /// Show every window, also those without points: null, previous, linear, or a number to put in
    #[arg(long, value_name = "WITH", value_parser = parse_fill, allow_hyphen_values = true)]
    fill: Option<FillArg>,
    /// With --fill: only from values that are not further away
    #[arg(long, value_name = "SPAN", requires = "fill", value_parser = parse_span)]
    fill_max: Option<i64>,
    /// Show the longest time without a point in each window, seconds
    #[arg(long)]
    gap: bool,
    /// Show how many of the promised points' slots have a point, however many points there are
    #[arg(long)]
    slots: bool,
    /// With --merge or --by: the mean over devices of what each of them answers, of those that saw enough
    #[arg(long)]
    areal: bool,
    /// With --areal: the share of its slots in which a device needs points [default: 0.9]
    #[arg(long, value_name = "SHARE", requires = "areal")]
    areal_coverage: Option<f64>,
    /// For rise-per-hour: over how long a rise is told [default: 1h]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    rise_over: Option<i64>,
}

#[derive(Copy, Clone, Debug, PartialEq)]
struct FillArg {
    mode: v1::FillMode,
    constant: f64,
}

fn parse_fill(text: &str) -> Result<FillArg, String> {
    let (mode, constant) = match text {
        "null" => (v1::FillMode::Null, 0.0),
        "previous" => (v1::FillMode::Previous, 0.0),
        "linear" => (v1::FillMode::Linear, 0.0),
        number => {
            let number = number.parse::<f64>().ok().filter(|number| number.is_finite());
            let unknown = || format!("`{text}` is none of null, previous, linear, and no number");
            (v1::FillMode::Constant, number.ok_or_else(unknown)?)
        }
    };
    Ok(FillArg { mode, constant })
}

fn ms(ns: i64) -> i64 {
    (ns / 1_000_000).max(1)
}

impl CoverArgs {
    /// Adds what they ask for.
    pub(super) fn ask(&self, rises: bool, request: v1::QueryAggregateRequest) -> v1::QueryAggregateRequest {
        v1::QueryAggregateRequest {
            fill: self.fill.map(|fill| v1::Fill {
                mode: fill.mode as i32,
                max_gap_ms: self.fill_max.map_or(0, ms),
                constant: fill.constant,
            }),
            largest_gap: self.gap,
            slots_filled: self.slots,
            areal: self.areal.then(|| v1::Areal {
                min_coverage: self.areal_coverage.unwrap_or(0.0),
            }),
            rise_over_ms: match (rises, self.rise_over) {
                (true, None) => 3_600_000,
                (_, over) => over.map_or(0, ms),
            },
            ..request
        }
    }

    /// Heads of the columns that they add.
    pub(super) fn heads(&self) -> Vec<&'static str> {
        let mut heads = Vec::new();
        if self.gap {
            heads.push(GAP);
        }
        if self.slots {
            heads.push(SLOTS);
        }
        if self.areal {
            heads.extend(["devices_used", "too_few_points", "no_points"]);
        }
        if self.fill.is_some() {
            heads.push("filled");
        }
        heads
    }

    /// The cells of these columns in a window.
    pub(super) fn cells(&self, series: &v1::AggregateSeries, window: usize) -> Vec<Cell> {
        let mut cells = Vec::new();
        if self.gap {
            cells.push(series.largest_gap_ns.get(window).map_or(Cell::None, |ns| seconds(*ns)));
        }
        if self.slots {
            cells.push(
                series
                    .slots_filled
                    .get(window)
                    .map_or(Cell::None, |slots| Cell::Uint(*slots)),
            );
        }
        if self.areal {
            let devices = series.areal.get(window).copied().unwrap_or_default();
            let counts = [devices.used, devices.too_few_points, devices.no_points];
            cells.extend(counts.map(Cell::Uint));
        }
        if self.fill.is_some() {
            cells.push(Cell::Bool(is_filled(series, window)));
        }
        cells
    }

    /// The cells of these columns in a window that is covered too thinly.
    pub(super) fn thin_cells(&self, window: &v1::InsufficientWindow) -> Vec<Cell> {
        let cell = |head: &str| match head {
            GAP => seconds(window.largest_gap_ns),
            SLOTS => Cell::Uint(window.slots_filled),
            _ => Cell::None,
        };
        self.heads().into_iter().map(cell).collect()
    }

    /// Whether thin windows are among all others already.
    pub(super) fn shows_all(&self) -> bool {
        self.fill.is_some()
    }
}

fn seconds(ns: i64) -> Cell {
    Cell::Float((ns / 1_000_000) as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_times_of_day_or_spans() {
        for (text, expected) in [("08:00", 28_800), ("20:30", 73_800), ("1d8h", 115_200), ("90s", 90)] {
            assert_eq!(seconds_into(text), Ok(expected), "{text}");
        }
        for text in ["8", "24:00", "08:60", "-1:00", "noon", ""] {
            assert!(seconds_into(text).is_err(), "{text}");
        }
    }

    #[test]
    fn gaps_are_filled_by_a_word_or_a_number() {
        let of = |text: &str| parse_fill(text).map(|fill| (fill.mode, fill.constant));
        assert_eq!(of("previous"), Ok((v1::FillMode::Previous, 0.0)));
        assert_eq!(of("-1.5"), Ok((v1::FillMode::Constant, -1.5)));
        for text in ["", "next", "nan", "inf"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
