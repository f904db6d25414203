//! `tidemark-bench run`: a scenario against Tidemark and, in the same run, against other stores. Never here: parts of it.
//! Invariant: every store plays on the machine alone, in turns (A B A B), with a folder of its own that is empty.

mod answers;
mod batches;
mod chart;
mod expect;
mod figures;
mod fleet;
mod http;
mod kill;
mod machine;
mod page;
mod play;
mod pour;
mod process;
mod question;
mod recount;
mod scenario;
mod storm;
mod stores;
mod table;
mod usage;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;

use figures::{Outcome, Played};
use fleet::{Fleet, FleetSpec};
use play::Stage;
use scenario::Scenario;
use stores::{Name, Place, Store};

use crate::report;

/// Plays a scenario of bench/scenarios, checks every answer, and reports what it cost.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The scenario: a TOML file.
    scenario: PathBuf,
    /// Nodes of Tidemark.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Shards of Tidemark; 0: as many as it chooses itself.
    #[arg(long, default_value_t = 0)]
    shards: u32,
    /// Other stores that play the same; see bench/peers.sh.
    #[arg(long, value_delimiter = ',', value_name = "STORE,…")]
    compare: Vec<Name>,
    /// Leaves Tidemark out.
    #[arg(long)]
    only_others: bool,
    /// Rounds: every store plays once in each, in turns.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Folder for data and logs of the stores; must not exist or be empty. Removed in the end unless something failed.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Leaves data and logs.
    #[arg(long)]
    keep: bool,
    /// Writes report.json, report.md and report.html into this folder, and growth.svg where there are several sizes.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// The server to run; by default the one beside this program.
    #[arg(long, value_name = "PATH")]
    tidemarkd: Option<PathBuf>,
    /// The first port that is used.
    #[arg(long, default_value_t = 24_000, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    port_base: u16,
    /// Prints figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command; false when an answer was wrong, or Tidemark lost or made up a record.
pub(crate) async fn run(args: RunArgs) -> Result<bool> {
    crate::ops::until_told(Box::pin(all_rounds(args))).await
}

async fn all_rounds(args: RunArgs) -> Result<bool> {
    let scenario = Scenario::read(&args.scenario)?;
    std::fs::create_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    let empty = std::fs::read_dir(&args.dir)?.next().is_none();
    ensure!(empty, "{} is not empty; name a folder that is", args.dir.display());
    let dir = std::fs::canonicalize(&args.dir)?;
    let (fsync_p50_ms, fsync_p99_ms) = machine::fsync_ms(&dir)?;
    let mut outcome = Outcome {
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        command: machine::command(),
        date: machine::date(),
        machine: machine::describe(),
        fsync_p50_ms,
        fsync_p99_ms,
        want: scenario.want.clone(),
        played: Vec::new(),
    };
    let mut names = args.compare.clone();
    if !args.only_others {
        names.insert(0, Name::Tidemark);
    }
    for round in 1..=usize::from(args.rounds) {
        for name in &names {
            for spec in fleets(&scenario) {
                let place = Place {
                    dir: dir.join(format!("{round}-{}-{}", label(*name, &args), spec.copies).replace(' ', "-")),
                    port_base: args.port_base,
                    nodes: usize::from(args.nodes),
                    shards: args.shards,
                    tidemarkd: args.tidemarkd.clone(),
                };
                report::note(&format!("round {round}: {}", label(*name, &args)));
                let played = Box::pin(play(*name, round, &place, &spec, &scenario, &args)).await?;
                let faults = played.faults();
                outcome.played.push(played);
                // After each, so that nothing measured is lost to what comes after.
                write(args.report.as_deref(), &outcome)?;
                if !args.keep && faults.is_empty() {
                    std::fs::remove_dir_all(&place.dir)?;
                }
            }
        }
    }
    table::print(args.json, &outcome)?;
    let faults = outcome.faults();
    for fault in &faults {
        report::note(&format!("WRONG: {fault}"));
    }
    if !args.keep && faults.is_empty() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(faults.is_empty())
}

fn fleets(scenario: &Scenario) -> Vec<FleetSpec> {
    if scenario.sweep_copies.is_empty() {
        return vec![scenario.fleet.clone()];
    }
    let with = |copies: &u32| FleetSpec {
        copies: *copies,
        ..scenario.fleet.clone()
    };
    scenario.sweep_copies.iter().map(with).collect()
}

fn label(name: Name, args: &RunArgs) -> String {
    match name {
        Name::Tidemark if args.nodes == 1 => "tidemark".to_owned(),
        Name::Tidemark => format!("tidemark, {} nodes", args.nodes),
        Name::VictoriaMetrics => "victoria-metrics".to_owned(),
        Name::Influxdb => "influxdb".to_owned(),
        Name::Postgresql => "postgresql".to_owned(),
    }
}

async fn play(
    name: Name,
    round: usize,
    place: &Place,
    spec: &FleetSpec,
    scenario: &Scenario,
    args: &RunArgs,
) -> Result<Played> {
    let fleet = Arc::new(Fleet::new(spec)?);
    let store = Store::start(name, place, &fleet).await?;
    let mut played = Played {
        store: name,
        label: label(name, args),
        version: store.version().await?,
        round,
        devices: fleet.devices(),
        series: fleet.series(),
        phases: Vec::new(),
        samples: Vec::new(),
    };
    let mut stage = Stage::new(fleet, store, &scenario.questions, scenario.begin_s)?;
    for phase in &scenario.phases {
        played.phases.push(stage.play(phase).await?);
    }
    played.samples = stage.meter.samples();
    stage.store.end().await?;
    Ok(played)
}

fn write(folder: Option<&Path>, outcome: &Outcome) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(outcome)?)?;
    std::fs::write(folder.join("report.md"), table::markdown(outcome))?;
    std::fs::write(folder.join("report.html"), page::page(outcome))?;
    let growth = page::growth(outcome);
    if !growth.is_empty() {
        std::fs::write(folder.join("growth.svg"), chart::stacked(&growth))?;
    }
    Ok(())
}
