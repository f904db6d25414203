//! `tidemark-bench`: plays a scenario, measures, and keeps an oracle of every acknowledged write. Never here: node
//! internals; everything goes through the client library, as an application would.

mod load;
mod ops;
mod oracle;
mod partition;
mod pipe;
mod query;
mod report;
mod run;
mod setup;
mod storm;
mod synthetic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load, scenarios and measurements for Tidemark.
#[derive(Debug, Parser)]
#[command(name = "tidemark-bench", version, max_term_width = 100)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Storm(storm::StormArgs),
    Load(load::LoadArgs),
    Query(query::QueryArgs),
    Oracle(oracle::OracleArgs),
    Ops(ops::OpsArgs),
    LeaderKill(ops::LeaderKillArgs),
    CatchUp(ops::CatchUpArgs),
    Subscribe(ops::SubscribeArgs),
    Crowd(ops::CrowdArgs),
    Partition(partition::PartitionArgs),
    Run(run::RunArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Line::parse().command {
        Command::Storm(args) => storm::run(args).await.map(|()| true),
        Command::Load(args) => load::run(args).await.map(|()| true),
        Command::Query(args) => query::run(args).await.map(|()| true),
        Command::Oracle(args) => oracle::run(args).await,
        Command::Ops(args) => ops::run(args).await,
        Command::LeaderKill(args) => ops::run_leader_kill(args).await,
        Command::CatchUp(args) => ops::run_catch_up(args).await,
        Command::Subscribe(args) => ops::run_subscribe(args).await,
        Command::Crowd(args) => ops::run_crowd(args).await,
        Command::Partition(args) => partition::run(args).await,
        Command::Run(args) => run::run(args).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::note(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Line::command().debug_assert();
    }
}
