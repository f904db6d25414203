//! The seven questions of a run, asked of any store, and the form of their answers. Never here: a store's language, or what
//! the right answer is. Invariant: a question names times within what is written, so that every store can answer it fully.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::batches::Span;
use super::fleet::{Fleet, START_MS};

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
/// Rows of a top list.
pub(crate) const TOP: usize = 10;

/// The kinds of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// All points of a property of a device in a day.
    RawDay,
    /// … in all days.
    RawAll,
    /// Average, minimum and maximum of a property of a device by hour, in all days.
    HourlyAll,
    /// The newest value of every property of every device of a type.
    Latest,
    /// Maximum of a property over a type by town and hour, in the last days.
    GroupHour,
    /// The ten devices of a type with the highest maximum in the last 24 hours.
    Top,
    /// Count, sum and maximum over all points of a property of a type.
    Total,
}

impl Kind {
    pub(crate) const ALL: [Kind; 7] = [
        Kind::RawDay,
        Kind::RawAll,
        Kind::HourlyAll,
        Kind::Latest,
        Kind::GroupHour,
        Kind::Top,
        Kind::Total,
    ];

    /// As it stands in a report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::RawDay => "raw, 1 series, 1 day",
            Kind::RawAll => "raw, 1 series, all days",
            Kind::HourlyAll => "avg/min/max by hour, 1 series, all days",
            Kind::Latest => "latest of every device of a type",
            Kind::GroupHour => "max by town and hour, 1 type, last days",
            Kind::Top => "top 10 by maximum, 1 type, 24 h",
            Kind::Total => "count/sum/max over all points of a property",
        }
    }
}

/// What the questions of a scenario are about.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Subjects {
    /// `type.property`: one series at a time of it.
    pub(crate) series: String,
    /// Type whose latest values are asked for.
    pub(crate) latest: String,
    /// `type.property` that is grouped, sorted and counted.
    pub(crate) fleet: String,
    /// Days of the grouping by town and hour.
    pub(crate) group_days: i64,
}

impl Default for Subjects {
    fn default() -> Self {
        let fleet = "electrical_fire_monitor.cable_temp".to_owned();
        Self {
            series: fleet.clone(),
            latest: "waste_bin".to_owned(),
            fleet,
            group_days: 7,
        }
    }
}

/// A question with all its places filled; positions are those of the fleet, times milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    Raw {
        of: Series,
        device: usize,
        from_ms: i64,
        to_ms: i64,
    },
    Hourly {
        of: Series,
        device: usize,
        from_ms: i64,
        to_ms: i64,
    },
    /// No record at or after `until_ms` counts where a store can be asked so.
    Latest {
        type_at: usize,
        until_ms: i64,
    },
    GroupHour {
        of: Series,
        from_ms: i64,
        to_ms: i64,
    },
    Top {
        of: Series,
        from_ms: i64,
        to_ms: i64,
    },
    Total {
        of: Series,
        from_ms: i64,
        to_ms: i64,
    },
}

/// A property of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Series {
    pub(crate) type_at: usize,
    pub(crate) property: usize,
}

/// A row of an answer. Raw: time and value. Hourly: start and average, minimum, maximum. Latest: `device/property`, time (0
/// where the store does not say) and value. Grouped: town, start and maximum. Top: device and maximum. Total: count, sum,
/// maximum.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) at_ms: i64,
    pub(crate) values: Vec<f64>,
}

impl Row {
    pub(crate) fn new(key: impl Into<String>, at_ms: i64, values: Vec<f64>) -> Row {
        Row {
            key: key.into(),
            at_ms,
            values,
        }
    }
}

/// Makes questions about what is written.
#[derive(Debug, Clone)]
pub(crate) struct Questioner {
    series: Series,
    fleet: Series,
    latest: usize,
    latest_interval_s: i64,
    group_days: i64,
    devices: usize,
}

impl Questioner {
    pub(crate) fn new(fleet: &Fleet, subjects: &Subjects) -> Result<Questioner> {
        let series = series(fleet, &subjects.series)?;
        let devices = fleet.types.get(series.type_at).map_or(0, |one| one.devices.len());
        ensure!(devices > 0, "{} has no device in this fleet", subjects.series);
        let latest = fleet.type_at(&subjects.latest)?;
        Ok(Questioner {
            series,
            fleet: self::series(fleet, &subjects.fleet)?,
            latest,
            latest_interval_s: fleet.types.get(latest).map_or(1, |one| one.interval_s.max(1)),
            group_days: subjects.group_days,
            devices,
        })
    }

    /// The `turn`th question of a kind: devices and days take turns.
    pub(crate) fn ask(&self, kind: Kind, turn: usize, written: &Span) -> Ask {
        let end_s = written.end.div_euclid(HOUR_S) * HOUR_S;
        let begin_s = -(-written.start).div_euclid(HOUR_S) * HOUR_S;
        let ms = |s: i64| START_MS + s * 1_000;
        let last = |days: i64| (end_s - days * DAY_S).max(begin_s);
        let device = (turn * 7_919) % self.devices;
        let (of, to_ms) = (self.series, ms(end_s));
        match kind {
            Kind::RawDay => {
                let days = ((end_s - begin_s) / DAY_S).max(1);
                let end_s = end_s - (turn as i64 % days) * DAY_S;
                Ask::Raw {
                    of,
                    device,
                    from_ms: ms((end_s - DAY_S).max(begin_s)),
                    to_ms: ms(end_s),
                }
            }
            Kind::RawAll => Ask::Raw {
                of,
                device,
                from_ms: ms(begin_s),
                to_ms,
            },
            Kind::HourlyAll => Ask::Hourly {
                of,
                device,
                from_ms: ms(begin_s),
                to_ms,
            },
            Kind::Latest => Ask::Latest {
                type_at: self.latest,
                // Behind the last slot that is written, before the next.
                until_ms: ms(written.end.div_euclid(self.latest_interval_s) * self.latest_interval_s),
            },
            Kind::GroupHour => Ask::GroupHour {
                of: self.fleet,
                from_ms: ms(last(self.group_days)),
                to_ms,
            },
            Kind::Top => Ask::Top {
                of: self.fleet,
                from_ms: ms(last(1)),
                to_ms,
            },
            Kind::Total => Ask::Total {
                of: self.fleet,
                from_ms: ms(begin_s),
                to_ms,
            },
        }
    }
}

fn series(fleet: &Fleet, name: &str) -> Result<Series> {
    let (kind, id) = name
        .split_once('.')
        .with_context(|| format!("{name}: write TYPE.PROPERTY"))?;
    let type_at = fleet.type_at(kind)?;
    let found = fleet
        .types
        .get(type_at)
        .and_then(|one| one.properties.iter().position(|p| p.id == id));
    let property = found.with_context(|| format!("{kind} has no property {id}"))?;
    let of = fleet
        .types
        .get(type_at)
        .and_then(|one| one.properties.get(property))
        .map_or("", |p| &p.kind);
    // Its windows are [start, end) in every store.
    ensure!(
        !matches!(of, "mean" | "increment"),
        "{name} speaks of a span, not of an instant"
    );
    Ok(Series { type_at, property })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fleet::FleetSpec;
    use super::*;

    #[test]
    fn questions_stay_within_what_is_written() {
        let fleet = Fleet::new(&FleetSpec::default()).unwrap();
        let asks = Questioner::new(&fleet, &Subjects::default()).unwrap();
        let written = -5_000..3 * DAY_S + 1_000;
        for kind in Kind::ALL {
            for turn in 0..10 {
                let (from, to) = match asks.ask(kind, turn, &written) {
                    Ask::Latest { .. } => continue,
                    Ask::Raw { from_ms, to_ms, .. }
                    | Ask::Hourly { from_ms, to_ms, .. }
                    | Ask::GroupHour { from_ms, to_ms, .. }
                    | Ask::Top { from_ms, to_ms, .. }
                    | Ask::Total { from_ms, to_ms, .. } => (from_ms, to_ms),
                };
                let s = |ms: i64| (ms - START_MS) / 1_000;
                assert!(
                    s(from) >= written.start && s(to) <= written.end && from < to,
                    "{kind:?} {turn}"
                );
                assert_eq!((s(from) % HOUR_S, s(to) % HOUR_S), (0, 0));
            }
        }
    }

    #[test]
    fn a_subject_that_is_not_there_is_refused() {
        let fleet = Fleet::new(&FleetSpec::default()).unwrap();
        for name in ["waste_bin", "waste_bin.level", "bin.fill_level", "rain_gauge.rain_5min"] {
            let subjects = Subjects {
                series: name.to_owned(),
                ..Subjects::default()
            };
            assert!(Questioner::new(&fleet, &subjects).is_err(), "{name}");
        }
    }
}
