//! A scenario as written in TOML: fleet, questions, phases. Never here: playing it. Invariant: a field that is not
//! understood is refused, so that a misspelt one is not a silent default.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::fleet::{FleetSpec, START_MS};
use super::question::{Kind, Subjects};

const DAY_S: u64 = 86_400;

/// Everything a run is made of.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) about: String,
    #[serde(default)]
    pub(crate) fleet: FleetSpec,
    #[serde(default)]
    pub(crate) questions: Subjects,
    /// Plays all of it once for each of these numbers of copies of every device, instead of the fleet's own.
    #[serde(default)]
    pub(crate) sweep_copies: Vec<u32>,
    /// The first record lies so many days before today; without, at time 0 of every run. Whoever plays months has to say so: stores refuse
    /// what lies ahead, or is older than it is to be kept.
    #[serde(default)]
    start_days_ago: Option<u32>,
    /// When it lies, seconds from time 0: the same for all stores of a run, whatever the clock says by then.
    #[serde(skip)]
    pub(crate) begin_s: i64,
    /// What a figure should be at most: `"phase: figure" = number`.
    #[serde(default)]
    pub(crate) want: BTreeMap<String, f64>,
    #[serde(rename = "phase")]
    pub(crate) phases: Vec<Phase>,
}

/// Midnight so many days ago, seconds from time 0.
fn days_ago_s(days: u32) -> Result<i64> {
    let today = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / DAY_S;
    Ok((i64::try_from(today)? - i64::from(days)) * DAY_S as i64 - START_MS / 1_000)
}

/// A part of a run with figures of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "toml::Table")]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) work: Work,
}

impl TryFrom<toml::Table> for Phase {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Phase, String> {
        let name = match table.remove("name") {
            Some(toml::Value::String(name)) => name,
            _ => return Err("a phase needs a `name`".to_owned()),
        };
        let work = Work::deserialize(table).map_err(|error| format!("phase {name}: {error}"))?;
        Ok(Phase { name, work })
    }
}

/// What is done in a phase.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Work {
    /// The next hours of the fleet, as observed. With a rate: open loop, due by the clock. Without: as fast as they are
    /// acknowledged.
    Ingest {
        hours: f64,
        #[serde(default)]
        pace: Pace,
    },
    /// The hours before what is written, device by device.
    Backfill {
        hours: f64,
        #[serde(default)]
        pace: Pace,
    },
    /// Steady ingest by the clock; after a while the whole fleet comes back and sends the hours it was cut off for.
    Storm {
        calm_s: f64,
        late_hours: f64,
        steady_hours: f64,
        steady_rows_per_second: f64,
        steady_batch: usize,
        #[serde(default)]
        pace: Pace,
    },
    /// Small batches one at a time with pauses: what an idle store takes to acknowledge.
    Trickle {
        hours: f64,
        rows: usize,
        pause_ms: u64,
        count: usize,
    },
    /// Waits until the store has tidied up, and measures what lies on disk.
    Settle {},
    /// Each question again and again, one at a time.
    Ask {
        #[serde(default = "all_kinds")]
        kinds: Vec<Kind>,
        /// At least so long, and at least so often.
        seconds: f64,
        times: usize,
        /// Instead of what the scenario's questions are about.
        #[serde(default)]
        about: Option<Subjects>,
    },
    /// Readers that ask in turns, one question at a time each, beside ingest by the clock.
    Mixed {
        #[serde(default = "all_kinds")]
        kinds: Vec<Kind>,
        readers: usize,
        /// Of all readers together; due by the clock.
        questions_per_second: f64,
        hours: f64,
        #[serde(default)]
        pace: Pace,
    },
    /// Ingest, `kill -9` of everything in the midst of it, start again, count what was acknowledged. The last phase.
    Kill {
        after_s: f64,
        hours: f64,
        #[serde(default)]
        pace: Pace,
    },
}

/// How batches come.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Pace {
    /// Rows in a batch.
    pub(crate) batch: usize,
    /// So many of each copy of the fleet: then a batch is the same slice of time however many devices there are, and holds as many rows
    /// of one device.
    pub(crate) of_each_copy: bool,
    /// Batches without an acknowledgement.
    pub(crate) in_flight: usize,
    /// Rows that are due a second; 0 means as fast as they are acknowledged.
    pub(crate) rows_per_second: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch: 10_000,
            of_each_copy: false,
            in_flight: 4,
            rows_per_second: 0.0,
        }
    }
}

fn all_kinds() -> Vec<Kind> {
    Kind::ALL.to_vec()
}

impl Scenario {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Scenario> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Scenario::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Scenario> {
        let mut scenario: Scenario = toml::from_str(text)?;
        scenario.begin_s = scenario.start_days_ago.map_or(Ok(0), days_ago_s)?;
        ensure!(!scenario.phases.is_empty(), "no [[phase]]");
        let killed = scenario
            .phases
            .iter()
            .position(|phase| matches!(phase.work, Work::Kill { .. }));
        ensure!(
            killed.is_none_or(|at| at + 1 == scenario.phases.len()),
            "after a kill nobody knows what is written: it is the last phase"
        );
        for phase in &scenario.phases {
            let pace = phase.work.pace();
            let paced = pace.is_none_or(|pace| pace.batch > 0 && pace.in_flight > 0 && pace.rows_per_second >= 0.0);
            ensure!(paced, "phase {}: `batch` and `in_flight` are at least 1", phase.name);
            let asks = match &phase.work {
                Work::Ask { kinds, .. } => !kinds.is_empty(),
                Work::Mixed { kinds, readers, .. } => !kinds.is_empty() && *readers > 0,
                _ => true,
            };
            ensure!(asks, "phase {} asks nothing", phase.name);
        }
        Ok(scenario)
    }
}

impl Work {
    fn pace(&self) -> Option<&Pace> {
        match self {
            Work::Ingest { pace, .. }
            | Work::Backfill { pace, .. }
            | Work::Storm { pace, .. }
            | Work::Mixed { pace, .. }
            | Work::Kill { pace, .. } => Some(pace),
            Work::Trickle { .. } | Work::Settle {} | Work::Ask { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fleet::Fleet;
    use super::super::question::Questioner;
    use super::*;

    #[test]
    fn a_phase_says_what_it_does() {
        let text = "name = 'n'\nabout = 'a'\n[[phase]]\nname = 'load'\ndo = 'ingest'\nhours = 2.0\npace = { in_flight = 8 }\n\
                    [[phase]]\nname = 'ask'\ndo = 'ask'\nseconds = 1.0\ntimes = 3\nkinds = ['top', 'raw_day']\n";
        let scenario = Scenario::parse(text).unwrap();
        let [load, ask] = &scenario.phases[..] else {
            panic!("two phases")
        };
        let Work::Ingest { hours, pace } = &load.work else {
            panic!("{load:?}")
        };
        assert_eq!((*hours, pace.batch, pace.in_flight), (2.0, 10_000, 8));
        let Work::Ask { kinds, .. } = &ask.work else {
            panic!("{ask:?}")
        };
        assert_eq!(kinds[..], [Kind::Top, Kind::RawDay]);
    }

    #[test]
    fn a_run_begins_at_time_0_or_so_many_days_ago() {
        let text = "name = 'n'\nabout = 'a'\n[[phase]]\nname = 'x'\ndo = 'settle'\n";
        assert_eq!(Scenario::parse(text).unwrap().begin_s, 0);
        let begin_s = |days: u32| {
            let scenario = Scenario::parse(&format!("start_days_ago = {days}\n{text}")).unwrap();
            scenario.begin_s
        };
        assert_eq!((begin_s(40) - begin_s(147)) / DAY_S as i64, 107);
        assert_eq!(begin_s(0).rem_euclid(DAY_S as i64), 0);
    }

    #[test]
    fn what_is_misspelt_is_refused() {
        for text in [
            "name = 'n'\nabout = 'a'\n",
            "name = 'n'\nabout = 'a'\nphases = []\n",
            "name = 'n'\nabout = 'a'\n[[phase]]\nname = 'x'\ndo = 'ingets'\nhours = 1.0\n",
            "name = 'n'\nabout = 'a'\n[[phase]]\nname = 'x'\ndo = 'ingest'\nhours = 1.0\npace = { bacth = 1 }\n",
            "name = 'n'\nabout = 'a'\n[[phase]]\nname = 'x'\ndo = 'ingest'\nhours = 1.0\npace = { batch = 0 }\n",
            "name = 'n'\nabout = 'a'\n[[phase]]\nname = 'x'\ndo = 'settle'\nseconds = 1.0\n",
            "name = 'n'\nabout = 'a'\n[[phase]]\nname = 'x'\ndo = 'ask'\nseconds = 1.0\ntimes = 3\nkinds = []\n",
            "name = 'n'\nabout = 'a'\n[fleet]\nevry = 2\n[[phase]]\nname = 'x'\ndo = 'settle'\n",
        ] {
            assert!(Scenario::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_scenario_that_comes_along_can_be_played() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // Another command's.
            if path.ends_with("storm.toml") {
                continue;
            }
            let scenario = Scenario::read(&path).unwrap();
            let fleet = Fleet::new(&scenario.fleet).unwrap();
            let of_phase = scenario.phases.iter().filter_map(|phase| match &phase.work {
                Work::Ask { about, .. } => about.as_ref(),
                _ => None,
            });
            for subjects in of_phase.chain([&scenario.questions]) {
                Questioner::new(&fleet, subjects).unwrap();
            }
            assert_eq!(path.file_stem().unwrap().to_str().unwrap(), scenario.name);
            count += 1;
        }
        assert!(count >= 5, "{count}");
    }
}
