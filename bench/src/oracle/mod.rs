//! `tidemark-bench oracle`: writes numbered points, remembers which were acknowledged, and later checks that the cluster
//! still has every one of them. For use with killed nodes. Nothing here knows how points are stored.

mod check;
mod journal;
mod judge;
mod points;
mod write;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::setup::ClusterArgs;

pub(crate) use check::read_back;
pub(crate) use journal::joined;
pub(crate) use judge::Verdict;
pub(crate) use points::Plan;

/// Writes numbered points and journals the acknowledged ones, or checks a journal.
#[derive(Debug, Args)]
pub(crate) struct OracleArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Reads back every point that this journal says was acknowledged; exit code 1 if any is missing, doubled or wrong, or if
    /// there is none.
    #[arg(long, value_name = "JOURNAL", conflicts_with_all = ["journal", "duration_s"])]
    check: Option<PathBuf>,
    /// Where to remember what was acknowledged; must not exist yet.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Ends after this many seconds; without it, on Ctrl-C.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    duration_s: Option<u64>,
    /// Producers that write at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    producers: u32,
    /// Devices of each producer.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: u32,
    /// Records in a batch.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Batches of a producer without an acknowledgement.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=128))]
    in_flight: u32,
    /// Batches that a producer sends a second, at most; 0 for as many as the cluster takes.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Prints figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command; false when acknowledged points are missing, doubled or wrong.
pub(crate) async fn run(args: OracleArgs) -> Result<bool> {
    match (&args.check, &args.journal) {
        (Some(journal), _) => check::run(&args, journal).await,
        (None, Some(journal)) => write::run(&args, journal).await.map(|()| true),
        (None, None) => bail!("--journal FILE says where to remember what was acknowledged, --check JOURNAL checks it"),
    }
}
