//! Operations under load: real nodes on this machine, a steady load of writes and reads with an oracle, and a scenario an
//! operator would carry out meanwhile. Never here: a client of a cluster that somebody else runs.
//! Invariant: every request counts, measured from the moment it was due, and every acknowledged point is read back.

mod catch_up;
mod cluster;
mod crowd;
mod figures;
mod growth;
mod leader_kill;
mod load;
mod neighbour;
mod nodes;
mod proof;
mod record;
mod subscribe;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use catch_up::CatchUpArgs;
pub(crate) use cluster::answers;
pub(crate) use crowd::CrowdArgs;
pub(crate) use growth::OpsArgs;
pub(crate) use leader_kill::LeaderKillArgs;
pub(crate) use nodes::{Fleet, Setup, folder_bytes};
pub(crate) use subscribe::SubscribeArgs;

/// Which nodes to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// The server to run; by default the one beside this program.
    #[arg(long, value_name = "PATH")]
    tidemarkd: Option<PathBuf>,
    /// Folder for data and logs of the nodes; must not exist or be empty. Removed at the end unless something failed.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Node n listens on port base + 10 n for clients and the one above for nodes.
    #[arg(long, default_value_t = 23_000, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    port_base: u16,
    /// Logs of the nodes, as `tidemarkd --log` takes them.
    #[arg(long, default_value = "info,openraft=error")]
    log: String,
    /// Leaves the folder when all went well, too.
    #[arg(long)]
    keep: bool,
    /// Shards of the cluster.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..=64))]
    shards: u32,
    #[command(flatten)]
    load: load::LoadArgs,
    /// Writes all figures to this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Prints figures as JSON.
    #[arg(long)]
    json: bool,
}

impl RunArgs {
    fn nodes(&self) -> Setup {
        Setup {
            program: self.tidemarkd.clone(),
            dir: self.dir.clone(),
            port_base: self.port_base,
            log: self.log.clone(),
            keep: self.keep,
        }
    }
}

/// Runs `ops`; false when something did not hold.
pub(crate) async fn run(args: OpsArgs) -> Result<bool> {
    until_told(growth::run(args)).await
}

/// Runs `leader-kill`; false when something did not hold.
pub(crate) async fn run_leader_kill(args: LeaderKillArgs) -> Result<bool> {
    until_told(leader_kill::run(args)).await
}

/// Runs `catch-up`; false when something did not hold.
pub(crate) async fn run_catch_up(args: CatchUpArgs) -> Result<bool> {
    until_told(catch_up::run(args)).await
}

/// Runs `subscribe`; false when something did not hold.
pub(crate) async fn run_subscribe(args: SubscribeArgs) -> Result<bool> {
    until_told(subscribe::run(args)).await
}

/// Runs `crowd`; false when something did not hold.
pub(crate) async fn run_crowd(args: CrowdArgs) -> Result<bool> {
    until_told(crowd::run(args)).await
}

/// Ends when told to, so that the nodes, which are children, end as well.
pub(crate) async fn until_told(work: impl Future<Output = Result<bool>>) -> Result<bool> {
    let mut told = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = told.recv() => bail!("terminated"),
        told = tokio::signal::ctrl_c() => {
            told?;
            bail!("interrupted")
        }
    }
}

/// Asks again and again until there is an answer, or fails with what was awaited.
pub(crate) async fn until<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let poll = Duration::from_millis(100);
    let looking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(poll).await;
        }
    };
    match tokio::time::timeout(within, looking).await {
        Ok(answer) => Ok(answer),
        Err(_) => bail!("not within {} s: {what}", within.as_secs()),
    }
}
