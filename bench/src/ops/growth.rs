//! `ops`: three nodes become five, are balanced, one is drained, one dies and is replaced, and three remain. Never here:
//! how load or nodes work. Invariant: the application is never told of any of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tidemark_client::v1::{self, job_spec::Goal};
use tokio::time::sleep;

use super::RunArgs;
use super::catch_up::fill;
use super::cluster::{Cluster, JobFigures, PATIENCE};
use super::figures::{Outcome, conclude, p99_check};
use super::load::Load;
use super::proof::Check;
use super::record::{PhaseFigures, Record};
use crate::report;

/// Longest silence of a shard that a planned hand-over may cause.
const PLANNED_SILENCE_MS: f64 = 300.0;
const BEFORE: &str = "before";
const AFTER: &str = "after";
const KILLED: &str = "a node is killed";

/// Grows and shrinks a cluster under load: 3 to 5 nodes, rebalance, drain, replace a killed one, back to 3.
#[derive(Debug, Args)]
pub(crate) struct OpsArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Seconds of load before the first operation, to compare with.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    calm_s: u64,
    /// Points that the cluster holds before the load begins, at least: what moves have to copy.
    #[arg(long, default_value_t = 2_000_000)]
    points: u64,
    /// Times that the leadership of every shard is handed over, before anything moves.
    #[arg(long, default_value_t = 3)]
    hand_overs: u32,
}

/// Figures of this scenario alone.
#[derive(Debug, Default, Serialize)]
struct Growth {
    hand_overs: usize,
    /// The longest time without a leader in a hand-over, as the nodes saw it.
    longest_pause_ms: i64,
    /// Why it did not go on, where it did not.
    broke_off: Option<String>,
}

pub(super) async fn run(args: OpsArgs) -> Result<bool> {
    let mut cluster = Cluster::begin(&args.run).await?;
    if args.points > 0 {
        report::note("points arrive that moves have to copy");
        fill(&cluster.endpoints()?, args.points).await?;
    }
    let record = Arc::new(Record::new());
    record.enter("warming up")?;
    let load = Load::begin(&args.run, &cluster.endpoints()?, &record).await?;
    sleep(Duration::from_secs(5)).await;
    record.enter(BEFORE)?;
    sleep(Duration::from_secs(args.calm_s)).await;

    let mut growth = Growth::default();
    if args.hand_overs > 0 {
        record.enter("leaders are handed over")?;
    }
    for _ in 0..args.hand_overs {
        let pauses = cluster.hand_over_all().await?;
        growth.hand_overs += pauses.len();
        growth.longest_pause_ms = pauses.into_iter().chain([growth.longest_pause_ms]).max().unwrap_or(0);
    }
    let mut jobs = Vec::new();
    // What broke is a figure like any other: the points are read back all the same.
    if let Err(error) = grow_and_shrink(&mut cluster, &record, &mut jobs).await {
        growth.broke_off = Some(format!("{error:#}"));
    }
    record.enter(AFTER)?;
    sleep(Duration::from_secs(args.calm_s)).await;
    let outcome = Outcome {
        scenario: growth,
        jobs,
        checks,
    };
    conclude(&args.run, cluster, load, &record, outcome).await
}

async fn grow_and_shrink(cluster: &mut Cluster, record: &Record, jobs: &mut Vec<JobFigures>) -> Result<()> {
    record.enter("two nodes join")?;
    cluster.add_node().await?;
    cluster.join_node().await?;

    record.enter("rebalance")?;
    let all = v1::Rebalance { max_moves: 0 };
    jobs.push(cluster.job("rebalance", Goal::Rebalance(all)).await?);

    record.enter("node 2 is drained")?;
    let node_id = cluster.id(2).await?;
    jobs.push(
        cluster
            .job("drain node 2", Goal::DrainNode(v1::DrainNode { node_id }))
            .await?,
    );

    record.enter(KILLED)?;
    let dead = cluster.id(3).await?;
    cluster.fleet.kill(3).await?;
    sleep(Duration::from_secs(5)).await;

    record.enter("the killed node is replaced")?;
    let new = cluster.add_node().await?;
    let goal = Goal::ReplaceNode(v1::ReplaceNode {
        old_node: dead,
        new_node: cluster.id(new).await?,
    });
    jobs.push(cluster.job("replace node 3", goal).await?);
    cluster.healthy(PATIENCE).await?;

    for number in [2, 5] {
        record.enter(&format!("node {number} is removed"))?;
        let node_id = cluster.id(number).await?;
        let name = format!("remove node {number}");
        jobs.push(cluster.job(&name, Goal::RemoveNode(v1::RemoveNode { node_id })).await?);
        // A node that was removed is told so and stops.
        cluster.fleet.ended(number).await?;
    }
    cluster.healthy(PATIENCE).await
}

fn checks(growth: &Growth, phases: &[PhaseFigures]) -> Result<Vec<Check>> {
    // The first phase only warms up.
    let phases = phases.get(1..).unwrap_or_default();
    let planned = |name: &str| ![BEFORE, AFTER, KILLED].contains(&name);
    let silences = phases.iter().filter(|phase| planned(&phase.phase));
    let longest = silences.max_by(|a, b| a.longest_silence_ms.total_cmp(&b.longest_silence_ms));
    let (name, silence) = longest.map_or(("none", 0.0), |phase| (&phase.phase, phase.longest_silence_ms));
    let found = format!(
        "{silence:.0} ms ({name}); of {} hand-overs the nodes saw {} ms at most",
        growth.hand_overs, growth.longest_pause_ms
    );
    let end = growth.broke_off.clone().unwrap_or_default();
    Ok(vec![
        Check::new("every operation ends well", growth.broke_off.is_none(), end),
        p99_check(phases, planned)?,
        Check::new(
            "no shard is silent for more than 300 ms in a planned operation",
            silence <= PLANNED_SILENCE_MS,
            found,
        ),
    ])
}
