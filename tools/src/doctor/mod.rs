//! `doctor`: judges what the cluster says of itself, and bundles it for a report. Never: a repair.
//!
//! Invariant: exits 8 exactly when a check fails; a bundle holds no stored value and no secret.

mod bundle;
mod checks;

use std::io::Write;

use clap::Args;
use tidemark_client::v1;

use self::checks::{Check, Verdict, judge};
use crate::cli::Context;
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::output::{Cell, Printer};

/// What to do beside checking.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Also write a new file for a report of a defect: status, jobs, these checks and versions; no stored values, no secrets
    #[arg(long, value_name = "FILE.tar.zst")]
    bundle: Option<String>,
    /// Show only what did not pass
    #[arg(long)]
    quiet: bool,
}

/// Checks, prints, bundles.
pub(crate) async fn run(context: &Context, args: DoctorArgs) -> Outcome {
    let client = context.connect().await?;
    let status = client.status().await.or_fail("cannot read the status")?;
    // A node older than this command keeps no jobs; that is no reason not to check the rest.
    let jobs = client.list_jobs(0).await;
    let checks = judge(&status, jobs.as_deref().unwrap_or_default());
    print_checks(context.printer("doctor"), &checks, args.quiet)?;
    if let Some(path) = &args.bundle {
        let jobs = jobs.as_deref().map_err(ToString::to_string);
        bundle::write(path, &status, jobs, &checks)?;
        context.say(&format!("wrote {path}: {}", bundle::CONTENTS.join(", ")));
    }
    let of = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (passed, warned, failed) = (of(Verdict::Pass), of(Verdict::Warn), of(Verdict::Fail));
    if context.is_table() {
        context.say(&format!("{passed} passed, {warned} warnings, {failed} failed"));
    }
    let Some(first) = checks.iter().find(|check| check.verdict == Verdict::Fail) else {
        return Ok(());
    };
    Err(Failure::new(
        Exit::Unhealthy,
        match failed {
            1 => "a check failed".to_owned(),
            _ => format!("{failed} checks failed"),
        },
        format!("{}, {}: {}", first.subject, first.check, first.detail),
        first.next.clone(),
    ))
}

const COLUMNS: [&str; 5] = ["verdict", "check", "subject", "detail", "next"];

fn print_checks<W: Write>(mut printer: Printer<W>, checks: &[Check], quiet: bool) -> Outcome {
    printer.section("checks", &COLUMNS)?;
    for check in checks.iter().filter(|check| !quiet || check.verdict != Verdict::Pass) {
        printer.row(vec![
            Cell::text(check.verdict.word()),
            Cell::text(check.check),
            Cell::text(&check.subject),
            Cell::text(&check.detail),
            Cell::some_text(&check.next),
        ])?;
    }
    printer.finish(&[])
}

/// The version of every program that spoke.
fn versions(status: &v1::StatusResponse) -> Vec<(String, String)> {
    let mut versions = vec![("tidemark".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    for node in &status.nodes {
        let id = node.node.as_ref().map_or(0, |place| place.id);
        let version = node.facts.as_ref().map_or("unknown", |facts| &facts.version);
        versions.push((format!("node {id}"), version.to_owned()));
    }
    versions
}
