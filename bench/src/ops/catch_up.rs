//! `catch-up`: a node is down while much arrives, comes back and catches up by itself. Never here: other operations.
//! Invariant: the node counts as caught up when every replica of it has applied what the others have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use tidemark_client::v1;
use tokio::time::sleep;

use super::RunArgs;
use super::cluster::{Cluster, FIRST_NODES};
use super::figures::{Outcome, conclude, p99_check};
use super::load::{Load, connect};
use super::nodes::folder_bytes;
use super::proof::Check;
use super::record::{PhaseFigures, Record};
use super::until;
use crate::pipe::Pipe;
use crate::report;
use crate::setup;
use crate::synthetic::{self, POINTS_PER_ROW};

const TYPE: &str = "bench_catch_up";
/// Devices that bring the bulk of the points.
const DEVICES: usize = 500;
/// Records of one device in a batch, and devices in one.
const TIMES: usize = 20;
const DEVICES_PER_BATCH: usize = 100;
/// Batches without an acknowledgement.
const IN_FLIGHT: usize = 4;
/// Records begin this long ago, so that there is room for them before now.
const BEGIN_AGO_NS: i64 = 3_650 * 86_400 * STEP_NS;
const STEP_NS: i64 = 1_000_000_000;
/// A time that holds what was filled begins so long before it, and ends as long after its beginning.
const AROUND_NS: i64 = 30 * 86_400 * STEP_NS;
/// Longest wait for the node to catch up.
const LAST_WAIT: Duration = Duration::from_secs(1_800);
const CATCHING_UP: &str = "node 3 catches up";

/// Stops a node, loads points, starts it again and measures how it catches up.
#[derive(Debug, Args)]
pub(crate) struct CatchUpArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Points that arrive while the node is down.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    points: u64,
    /// Seconds of steady load before, to compare with.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    calm_s: u64,
}

/// Figures of this scenario alone.
#[derive(Debug, Serialize)]
struct CatchUp {
    points: u64,
    loaded_in_s: f64,
    /// From the start of the process until its replicas were in step.
    caught_up_in_s: f64,
    points_per_second: f64,
    /// By how much the data folder of the node grew; its log and what it replaced are in it.
    folder_bytes: u64,
    megabytes_per_second: f64,
}

pub(super) async fn run(args: CatchUpArgs) -> Result<bool> {
    let mut cluster = Cluster::begin(&args.run).await?;
    let record = Arc::new(Record::new());
    record.enter("before")?;
    let endpoints = cluster.endpoints()?;
    let load = Load::begin(&args.run, &endpoints, &record).await?;
    sleep(Duration::from_secs(args.calm_s)).await;

    let id = cluster.id(FIRST_NODES).await?;
    record.enter("node 3 stops")?;
    cluster.fleet.stop(FIRST_NODES).await?;
    sleep(Duration::from_secs(2)).await;
    record.enter("points arrive")?;
    let began = Instant::now();
    let others = endpoints.get(..FIRST_NODES - 1).context("no other nodes")?;
    let points = fill(others, args.points).await?;
    let loaded_in_s = began.elapsed().as_secs_f64();
    report::note(&format!(
        "{} points in {loaded_in_s:.1} s",
        report::thousands(points as f64)
    ));
    record.enter("two nodes, calm")?;
    sleep(Duration::from_secs(args.calm_s)).await;

    record.enter(CATCHING_UP)?;
    let folder = cluster.fleet.node(FIRST_NODES)?.data.clone();
    let before = folder_bytes(&folder);
    let began = Instant::now();
    cluster.fleet.start(FIRST_NODES)?;
    let this = &cluster;
    until("node 3 is in step", LAST_WAIT, async || this.in_step(id).await).await?;
    let caught_up_in_s = began.elapsed().as_secs_f64();
    let bytes = folder_bytes(&folder).saturating_sub(before);
    record.enter("after")?;
    sleep(Duration::from_secs(args.calm_s)).await;
    let outcome = Outcome {
        scenario: CatchUp {
            points,
            loaded_in_s,
            caught_up_in_s,
            points_per_second: points as f64 / caught_up_in_s,
            folder_bytes: bytes,
            megabytes_per_second: bytes as f64 / 1e6 / caught_up_in_s,
        },
        jobs: Vec::new(),
        checks,
    };
    conclude(&args.run, cluster, load, &record, outcome).await
}

/// The devices that were filled, and a time that holds all of their points.
pub(super) fn filled() -> Result<(v1::Selector, i64, i64)> {
    let selector = v1::Selector {
        device_type: TYPE.to_owned(),
        ..Default::default()
    };
    let now_ns = setup::now_ns()?;
    Ok((
        selector,
        now_ns - BEGIN_AGO_NS - AROUND_NS,
        now_ns - BEGIN_AGO_NS + AROUND_NS,
    ))
}

/// Writes at least so many points as fast as they are acknowledged, and gives how many it were.
pub(super) async fn fill(endpoints: &[String], points: u64) -> Result<u64> {
    let client = connect(endpoints).await?;
    let prefix = format!("{TYPE}-{}", setup::run_name()?);
    let begin_ns = setup::now_ns()? - BEGIN_AGO_NS;
    client
        .apply_device_types(vec![synthetic::device_type(TYPE, 10)])
        .await?;
    let devices = (0..DEVICES).map(|n| setup::bare_device(synthetic::device_id(&prefix, n), TYPE));
    client.register_devices(devices.collect()).await?;
    let mut pipe = Pipe::new(&client, IN_FLIGHT, LAST_WAIT);
    let mut stored = 0;
    let mut sent = 0;
    let mut take = |done: Option<crate::pipe::Done<()>>| {
        if let Some(done) = done {
            stored += done.result.context("a batch was refused")?.points;
        }
        Ok::<_, anyhow::Error>(())
    };
    let parts = (0_i64..).flat_map(|round| (0..DEVICES).step_by(DEVICES_PER_BATCH).map(move |first| (round, first)));
    for (round, first) in parts {
        if sent >= points {
            break;
        }
        let first_ns = begin_ns + round * TIMES as i64 * STEP_NS;
        let devices = first..first + DEVICES_PER_BATCH;
        let batch = synthetic::batch(TYPE, &prefix, devices, first_ns, STEP_NS, TIMES);
        sent += (DEVICES_PER_BATCH * TIMES) as u64 * POINTS_PER_ROW;
        take(pipe.send(batch, ()).await?)?;
    }
    while let Some(done) = pipe.next().await? {
        take(Some(done))?;
    }
    Ok(stored)
}

fn checks(figures: &CatchUp, phases: &[PhaseFigures]) -> Result<Vec<Check>> {
    let found = format!(
        "{} points in {:.1} s: {} points/s, {:.1} MB/s",
        report::thousands(figures.points as f64),
        figures.caught_up_in_s,
        report::thousands(figures.points_per_second),
        figures.megabytes_per_second
    );
    Ok(vec![
        Check::new("the node catches up by itself", true, found),
        p99_check(phases, |name| name == CATCHING_UP)?,
    ])
}
