//! What a run comes to, as tables and as JSON. Never here: measuring.
//! Invariant: both say the same; the exit code says whether every check holds.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use super::RunArgs;
use super::cluster::{Cluster, JobFigures};
use super::load::Load;
use super::proof::{Check, prove};
use super::record::{PhaseFigures, Record};
use crate::oracle::Verdict;
use crate::report::{self, Latencies, Summary};

/// All figures of a run; `T`: those of its scenario alone.
#[derive(Debug, Serialize)]
struct Figures<T> {
    command: Vec<String>,
    cores: usize,
    scenario: T,
    phases: Vec<PhaseFigures>,
    jobs: Vec<JobFigures>,
    read_back: Verdict,
    checks: Vec<Check>,
}

/// What a scenario hands over when it is through.
pub(super) struct Outcome<T> {
    pub(super) scenario: T,
    pub(super) jobs: Vec<JobFigures>,
    /// Checks of its own, made from the phases.
    pub(super) checks: fn(&T, &[PhaseFigures]) -> Result<Vec<Check>>,
}

/// Ends load and nodes, proves what must hold, prints. True when all of it holds.
pub(super) async fn conclude<T: Serialize>(
    args: &RunArgs,
    mut cluster: Cluster,
    load: Load,
    record: &Record,
    outcome: Outcome<T>,
) -> Result<bool> {
    let fleet = load.end().await?;
    let phases = record.figures();
    let (read_back, proofs) = prove(&mut cluster, &fleet).await?;
    let failed: u64 = phases
        .iter()
        .map(|phase| phase.failed_writes + phase.failed_reads)
        .sum();
    let stale: u64 = phases.iter().map(|phase| phase.stale_reads).sum();
    let total: u64 = phases.iter().map(|phase| phase.writes.count + phase.reads.count).sum();
    let mut checks = vec![
        Check::new("no request fails", failed == 0, format!("{failed} of {total}")),
        Check::new("no linearizable read is stale", stale == 0, format!("{stale}")),
    ];
    checks.extend(proofs);
    checks.extend((outcome.checks)(&outcome.scenario, &phases)?);
    let figures = Figures {
        command: std::env::args().skip(1).collect(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        scenario: outcome.scenario,
        phases,
        jobs: outcome.jobs,
        read_back,
        checks,
    };
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&figures)?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    print(args.json, &figures)?;
    let well = figures.checks.iter().all(|check| check.holds);
    cluster.fleet.end(well).await?;
    Ok(well)
}

fn print<T: Serialize>(json: bool, figures: &Figures<T>) -> Result<()> {
    let rows = figures.phases.iter().map(row).collect();
    let header = [
        "phase",
        "time",
        "writes",
        "w p50",
        "w p99",
        "w max",
        "reads",
        "r p99",
        "failed",
        "stale",
        "longest silence",
        "longest sync beside",
    ];
    report::print(json, figures, &header, rows)?;
    if json {
        return Ok(());
    }
    if !figures.jobs.is_empty() {
        let jobs = figures.jobs.iter().map(|job| {
            let megabytes = format!("{:.1} MB", job.bytes as f64 / 1e6);
            vec![
                job.job.clone(),
                format!("{:.1} s", job.seconds),
                job.moves.to_string(),
                megabytes,
            ]
        });
        report::print(false, figures, &["job", "time", "moves", "copied"], jobs.collect())?;
    }
    let checks = figures.checks.iter().map(|check| {
        let holds = if check.holds { "yes" } else { "NO" };
        vec![check.what.clone(), holds.to_owned(), check.found.clone()]
    });
    report::print(false, figures, &["what must hold", "holds", "found"], checks.collect())?;
    for phase in &figures.phases {
        for reason in &phase.reasons {
            report::note(&format!("{}: {reason}", phase.phase));
        }
    }
    Ok(())
}

fn row(phase: &PhaseFigures) -> Vec<String> {
    let ms = |ms: f64| format!("{ms:.1} ms");
    vec![
        phase.phase.clone(),
        format!("{:.1} s", phase.seconds),
        phase.writes.count.to_string(),
        ms(phase.writes.p50_ms),
        ms(phase.writes.p99_ms),
        ms(phase.writes.max_ms),
        phase.reads.count.to_string(),
        ms(phase.reads.p99_ms),
        (phase.failed_writes + phase.failed_reads).to_string(),
        phase.stale_reads.to_string(),
        format!(
            "{:.0} ms (shard {})",
            phase.longest_silence_ms, phase.longest_silence_shard
        ),
        ms(phase.longest_sync_ms),
    ]
}

/// The p99 of all writes in phases of a scenario together, against that of the phase it began with. A phase of its own
/// is too short for one: of the hundred writes that a drain sees, the slowest would be the p99.
pub(super) fn p99_check(phases: &[PhaseFigures], counted: impl Fn(&str) -> bool) -> Result<Check> {
    let before = phases.first().map_or(0.0, |phase| phase.writes.p99_ms);
    let mut together = Latencies::new()?;
    let mut worst = ("none", 0.0);
    for phase in phases.iter().filter(|phase| counted(&phase.phase)) {
        together.merge(&phase.write_latencies)?;
        if phase.writes.p99_ms >= worst.1 {
            worst = (&phase.phase, phase.writes.p99_ms);
        }
    }
    let Summary { count, p99_ms, .. } = together.summary();
    let found = format!(
        "before {before:.1} ms, then {p99_ms:.1} ms over {count} writes; the worst phase {:.1} ms ({})",
        worst.1, worst.0
    );
    let holds = p99_ms <= 2.0 * before;
    Ok(Check::new("p99 of writes at most twice that of before", holds, found))
}
