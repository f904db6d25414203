//! What a run comes to: figures by store, round and phase, and which of them are faults. Never here: measuring or drawing.
//! Invariant: tables, JSON and pages show figures and nothing else; a fault of any round, at any size, is a fault of the run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::stores::Name;
use super::usage::Sample;
use crate::report::Latencies;

/// How the name of a figure ends that counts wrong answers: a fault, whichever store gave them.
pub(crate) const WRONG_ANSWERS: &str = "wrong answers";
/// Faults of Tidemark; of other stores the report tells them, and the run passes.
pub(crate) const LOST: &str = "acknowledged records lost";
pub(crate) const UNSENT: &str = "records that nobody sent";

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
    /// Median over rounds, by column, and the worst of them where it counts faults; none where a store has no such figure.
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

impl Played {
    /// What went wrong, in words; nothing else makes a run fail that was played to its end.
    pub(crate) fn faults(&self) -> Vec<String> {
        let is_fault = |figure: &&Figure| {
            let counts = figure.what.ends_with(WRONG_ANSWERS)
                || (self.store == Name::Tidemark && [LOST, UNSENT].contains(&figure.what.as_str()));
            counts && figure.value != 0.0
        };
        let mut faults = Vec::new();
        for phase in &self.phases {
            for figure in phase.figures.iter().filter(is_fault) {
                faults.push(format!(
                    "round {}: {}, {} devices: {}: {}: {}",
                    self.round,
                    self.label,
                    self.devices,
                    phase.phase,
                    figure.what,
                    crate::report::thousands(figure.value)
                ));
            }
        }
        faults
    }
}

impl Outcome {
    /// What went wrong in any round, at any size.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.played.iter().flat_map(Played::faults).collect()
    }

    /// The column of a store: its label, and its size where the run has several.
    pub(crate) fn column(&self, played: &Played) -> String {
        if self.played.iter().all(|other| other.devices == played.devices) {
            return played.label.clone();
        }
        let devices = crate::report::thousands(played.devices as f64);
        format!("{}, {devices} devices", played.label)
    }

    /// All columns, in the order in which they were first played.
    pub(crate) fn columns(&self) -> Vec<String> {
        let mut columns: Vec<String> = Vec::new();
        for column in self.played.iter().map(|played| self.column(played)) {
            if !columns.contains(&column) {
                columns.push(column);
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
            let own = self.column(played);
            let column = columns.iter().position(|column| *column == own).unwrap_or(0);
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
                .map(|column| together(&name, values.get(&(name.clone(), column))?))
                .collect(),
            want: self.want.get(&name).copied(),
            name,
            unit,
        };
        order.into_iter().map(line).collect()
    }
}

/// One number for all rounds.
fn together(name: &str, values: &[f64]) -> Option<f64> {
    if [WRONG_ANSWERS, LOST, UNSENT].iter().any(|fault| name.ends_with(fault)) {
        return values.iter().copied().reduce(f64::max);
    }
    median(values)
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

    /// A store that played once.
    fn round(store: Name, round: usize, devices: u64, figures: &[(&str, f64)]) -> Played {
        let mut played = outcome().played.remove(0);
        (played.store, played.round, played.devices) = (store, round, devices);
        for phase in &mut played.phases {
            phase.figures.clear();
            figures.iter().for_each(|(what, value)| phase.add(*what, "", *value));
        }
        played
    }

    fn of(played: Vec<Played>) -> Outcome {
        Outcome { played, ..outcome() }
    }

    #[test]
    fn a_wrong_answer_of_one_round_of_many_is_a_fault() {
        let rounds = |counts: [f64; 3]| {
            let one = |(at, count)| round(Name::Tidemark, at, 1, &[("raw: wrong answers", count)]);
            of((1..).zip(counts).map(one).collect())
        };
        let outcome = rounds([0.0, 0.0, 7.0]);
        assert_eq!(outcome.faults(), ["round 3: a, 1 devices: load: raw: wrong answers: 7"]);
        assert_eq!(outcome.lines()[0].values, [Some(7.0)], "and the table shows it");
        assert!(rounds([0.0; 3]).faults().is_empty());
    }

    #[test]
    fn what_tidemark_lost_or_made_up_is_a_fault_and_what_others_lost_is_told() {
        for (store, what, faults) in [
            (Name::Tidemark, LOST, 1),
            (Name::Tidemark, UNSENT, 1),
            (Name::Tidemark, "points", 0),
            (Name::VictoriaMetrics, LOST, 0),
            (Name::VictoriaMetrics, UNSENT, 0),
            (Name::VictoriaMetrics, "top: wrong answers", 1),
        ] {
            let outcome = of(vec![round(store, 1, 1, &[(what, 1.0)])]);
            assert_eq!(outcome.faults().len(), faults, "{store:?}: {what}");
            assert_eq!(outcome.lines()[0].values, [Some(1.0)]);
        }
    }

    #[test]
    fn sizes_have_columns_of_their_own_and_each_of_them_can_fail() {
        let size = |devices, cost, wrong| {
            let figures = [("cost", cost), ("raw: wrong answers", wrong)];
            round(Name::Tidemark, 1, devices, &figures)
        };
        let outcome = of(vec![
            size(1_000, 1.0, 0.0),
            size(3_000, 2.0, 0.0),
            size(10_000, 9.0, 1.0),
        ]);
        assert_eq!(
            outcome.columns(),
            ["a, 1,000 devices", "a, 3,000 devices", "a, 10,000 devices"]
        );
        assert_eq!(outcome.lines()[0].values, [Some(1.0), Some(2.0), Some(9.0)]);
        assert_eq!(outcome.faults().len(), 1);
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        assert_eq!(
            [1_234_567.0, 345.6, 12.34, 1.234, 0.35, 0.0123, 0.0].map(number),
            ["1,234,567", "346", "12.3", "1.23", "0.35", "0.012", "0"]
        );
    }
}
