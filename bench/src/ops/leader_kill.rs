//! `leader-kill`: the node that leads most shards dies again and again under load. Never here: planned operations.
//! Invariant: only writes that were due after the kill count as accepted again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use tidemark_client::v1;
use tokio::time::sleep;

use super::cluster::{Cluster, FIRST_NODES, PATIENCE};
use super::figures::{Outcome, conclude};
use super::load::Load;
use super::proof::Check;
use super::record::{PhaseFigures, Record};
use super::{RunArgs, until};
use crate::report;

/// Longest time until every shard takes writes again.
const WORST_MS: f64 = 3_000.0;

/// Kills the leader of most shards under load and measures how long its shards accept nothing.
#[derive(Debug, Args)]
pub(crate) struct LeaderKillArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Kills.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Seconds of load before each kill.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    calm_s: u64,
}

/// One kill.
#[derive(Debug, Serialize)]
struct Kill {
    node: u64,
    shards_led: usize,
    /// From the kill to the first accepted write of the shard that took longest, milliseconds.
    worst_ms: f64,
    /// The same of every shard it led.
    shards: BTreeMap<u32, f64>,
}

/// Figures of this scenario alone.
#[derive(Debug, Serialize)]
struct Kills {
    kills: Vec<Kill>,
    min_ms: f64,
    median_ms: f64,
    max_ms: f64,
}

pub(super) async fn run(args: LeaderKillArgs) -> Result<bool> {
    let mut cluster = Cluster::begin(&args.run).await?;
    let record = Arc::new(Record::new());
    record.enter("before")?;
    let load = Load::begin(&args.run, &cluster.endpoints()?, &record).await?;
    sleep(Duration::from_secs(args.calm_s)).await;
    let mut kills = Vec::new();
    record.enter("kills")?;
    for time in 1..=args.times {
        sleep(Duration::from_secs(args.calm_s)).await;
        let kill = kill_once(&mut cluster, &record).await?;
        report::note(&format!(
            "{time}: node {} led {} shards, silent for {:.0} ms at most",
            kill.node, kill.shards_led, kill.worst_ms
        ));
        kills.push(kill);
    }
    let mut worst: Vec<f64> = kills.iter().map(|kill| kill.worst_ms).collect();
    worst.sort_by(f64::total_cmp);
    let at = |index: usize| worst.get(index).copied().unwrap_or(0.0);
    let scenario = Kills {
        min_ms: at(0),
        median_ms: at(worst.len() / 2),
        max_ms: at(worst.len().saturating_sub(1)),
        kills,
    };
    let outcome = Outcome {
        scenario,
        jobs: Vec::new(),
        checks,
    };
    conclude(&args.run, cluster, load, &record, outcome).await
}

async fn kill_once(cluster: &mut Cluster, record: &Record) -> Result<Kill> {
    let (number, id, led) = leader_of_most(cluster).await?;
    let killed = Instant::now();
    cluster.fleet.kill(number).await?;
    let mut shards = BTreeMap::new();
    let again = async || {
        for shard in &led {
            if let Some(at) = record.first_accepted(*shard, killed) {
                shards.insert(*shard, at.saturating_duration_since(killed).as_secs_f64() * 1000.0);
            }
        }
        (shards.len() == led.len()).then_some(())
    };
    until("every shard takes writes again", PATIENCE, again).await?;
    cluster.fleet.start(number)?;
    cluster.healthy(PATIENCE).await?;
    let this = &*cluster;
    until("the node is in step again", PATIENCE, async || this.in_step(id).await).await?;
    Ok(Kill {
        node: id,
        shards_led: led.len(),
        worst_ms: shards.values().copied().fold(0.0, f64::max),
        shards,
    })
}

/// Number, id and data shards of the node that leads most.
async fn leader_of_most(cluster: &Cluster) -> Result<(usize, u64, Vec<u32>)> {
    let status = cluster.status().await?;
    let led = |id: u64| -> Vec<u32> {
        let data = status.shards.iter().filter(|shard: &&v1::ShardStatus| shard.shard > 0);
        data.filter(|shard| shard.leader_node == id)
            .map(|shard| shard.shard)
            .collect()
    };
    let mut found = None;
    for number in 1..=FIRST_NODES {
        let id = cluster.id(number).await?;
        let shards = led(id);
        if found
            .as_ref()
            .is_none_or(|(_, _, most): &(usize, u64, Vec<u32>)| shards.len() > most.len())
        {
            found = Some((number, id, shards));
        }
    }
    found.context("nobody leads")
}

fn checks(kills: &Kills, _: &[PhaseFigures]) -> Result<Vec<Check>> {
    let found = format!(
        "{} kills: min {:.0} ms, median {:.0} ms, max {:.0} ms",
        kills.kills.len(),
        kills.min_ms,
        kills.median_ms,
        kills.max_ms
    );
    Ok(vec![Check::new(
        "writes are accepted again within 3 s of a kill",
        kills.max_ms <= WORST_MS,
        found,
    )])
}
