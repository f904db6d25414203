//! What a run comes to: figures by store, round and phase. Never here: measuring or drawing. Invariant: a figure has a name,
//! a unit and a number; tables, JSON and pages show these and nothing else.

use std::collections::BTreeMap;

use serde::Serialize;

use super::stores::Name;
use super::usage::Sample;
use crate::report::Latencies;

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

/// The figures of a phase.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PhaseFigures {
    pub(crate) phase: String,
    /// Since the store was started.
    pub(crate) began_s: f64,
    pub(crate) seconds: f64,
    /// Points stored when it ended.
    pub(crate) points: u64,
    pub(crate) figures: Vec<Figure>,
    /// Acknowledgements by the clock: second, milliseconds.
    pub(crate) acknowledgements: Vec<(f64, f64)>,
    pub(crate) note: String,
}

/// A store that played a scenario.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Played {
    pub(crate) store: Name,
    pub(crate) label: String,
    pub(crate) version: String,
    pub(crate) round: usize,
    pub(crate) devices: u64,
    pub(crate) series: u64,
    pub(crate) phases: Vec<PhaseFigures>,
    pub(crate) samples: Vec<Sample>,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: String,
    pub(crate) about: String,
    pub(crate) command: String,
    pub(crate) date: String,
    pub(crate) machine: String,
    /// A write of 4 KiB and its fsync in the folder of the run, one at a time.
    pub(crate) fsync_p50_ms: f64,
    pub(crate) fsync_p99_ms: f64,
    pub(crate) want: BTreeMap<String, f64>,
    pub(crate) played: Vec<Played>,
}

/// A line of the table: the same figure of every store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// `phase: figure`.
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// Median over rounds, by column; none where a store has no such figure.
    pub(crate) values: Vec<Option<f64>>,
    pub(crate) want: Option<f64>,
}

impl PhaseFigures {
    pub(crate) fn add(&mut self, what: impl Into<String>, unit: &'static str, value: f64) {
        self.figures.push(Figure {
            what: what.into(),
            unit,
            value,
        });
    }

    /// Median, 99th percentile and longest of latencies.
    pub(crate) fn add_latencies(&mut self, what: &str, latencies: &Latencies) {
        if latencies.count() == 0 {
            return;
        }
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("longest", 1.0)] {
            self.add(format!("{what} {name}"), "ms", latencies.quantile_ms(quantile));
        }
    }
}

impl Outcome {
    /// Labels of the stores, in the order in which they first played.
    pub(crate) fn columns(&self) -> Vec<String> {
        let mut columns: Vec<String> = Vec::new();
        for played in &self.played {
            if !columns.contains(&played.label) {
                columns.push(played.label.clone());
            }
        }
        columns
    }

    /// All figures, a line each, in the order in which they first came.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let columns = self.columns();
        let mut order: Vec<(String, &'static str)> = Vec::new();
        let mut values: BTreeMap<(String, usize), Vec<f64>> = BTreeMap::new();
        for played in &self.played {
            let column = columns.iter().position(|label| *label == played.label).unwrap_or(0);
            for phase in &played.phases {
                for figure in &phase.figures {
                    let name = format!("{}: {}", phase.phase, figure.what);
                    if !order.iter().any(|(known, _)| *known == name) {
                        order.push((name.clone(), figure.unit));
                    }
                    values.entry((name, column)).or_default().push(figure.value);
                }
            }
        }
        let line = |(name, unit): (String, &'static str)| Line {
            values: (0..columns.len())
                .map(|column| median(values.get(&(name.clone(), column))?))
                .collect(),
            want: self.want.get(&name).copied(),
            name,
            unit,
        };
        order.into_iter().map(line).collect()
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (
        sorted.get((sorted.len().checked_sub(1)?) / 2)?,
        sorted.get(sorted.len() / 2)?,
    );
    Some((low + high) / 2.0)
}

/// A number with as many digits as mean something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => crate::report::thousands(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        size if size >= 0.095 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
pub(in super::super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    pub(crate) fn outcome() -> Outcome {
        let played = |label: &str, round, value| {
            let mut phase = PhaseFigures {
                phase: "load".to_owned(),
                began_s: 0.0,
                seconds: 1.0,
                points: 1_000,
                figures: Vec::new(),
                acknowledgements: vec![(0.0, 1.0), (1.0, 2.0)],
                note: String::new(),
            };
            phase.add("CPU a point", "µs", value);
            Played {
                store: Name::Tidemark,
                label: label.to_owned(),
                version: "1 <2>".to_owned(),
                round,
                devices: 1,
                series: 2,
                phases: vec![phase],
                samples: vec![
                    Sample {
                        second: 0.0,
                        cpu_s: 0.0,
                        memory_bytes: 5,
                    },
                    Sample {
                        second: 1.0,
                        cpu_s: 1.0,
                        memory_bytes: 9,
                    },
                ],
            }
        };
        Outcome {
            scenario: "s".to_owned(),
            about: "a".to_owned(),
            command: "c".to_owned(),
            date: "d".to_owned(),
            machine: "m".to_owned(),
            fsync_p50_ms: 1.0,
            fsync_p99_ms: 2.0,
            want: [("load: CPU a point".to_owned(), 0.35)].into(),
            played: vec![
                played("a", 1, 1.0),
                played("b", 1, 5.0),
                played("a", 2, 2.0),
                played("b", 2, 6.0),
            ],
        }
    }

    #[test]
    fn a_line_has_the_median_of_the_rounds_of_every_store() {
        let lines = outcome().lines();
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(
            (line.name.as_str(), line.unit, line.want),
            ("load: CPU a point", "µs", Some(0.35))
        );
        assert_eq!(line.values, [Some(1.5), Some(5.5)]);
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[])), (Some(2.0), None));
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        assert_eq!(
            [1_234_567.0, 345.6, 12.34, 1.234, 0.35, 0.0123, 0.0].map(number),
            ["1,234,567", "346", "12.3", "1.23", "0.35", "0.012", "0"]
        );
    }
}
