//! `tidemark-bench load`: closed-loop ingest as fast as the cluster acknowledges. Invariant: the figures count
//! acknowledged batches only, from the first send to the last acknowledgement.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use tidemark_client::Client;
use tokio::task::JoinSet;

use crate::pipe::{Done, Pipe};
use crate::report::{self, Latencies};
use crate::setup::{self, ClusterArgs};
use crate::synthetic::{self, POINTS_PER_ROW};

const TYPE: &str = "bench_load";
const SECOND_NS: i64 = 1_000_000_000;
/// Records begin this long ago, so that there is room for them before now.
const BEGIN_AGO_NS: i64 = 3_650 * 86_400 * SECOND_NS;

/// Measures ingest: points acknowledged a second.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Devices that report.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    devices: u32,
    /// Records in a batch.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Records of one device in a batch: 1 is a gateway that forwards what came, more is a device that sends blocks.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Seconds between two records of a device.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    interval_s: u32,
    /// Batches without an acknowledgement, on each connection.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=128))]
    in_flight: u32,
    /// Connections, each with a producer and a share of the devices of its own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Ends after this many seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    duration_s: u64,
    /// Ends after this many points instead.
    #[arg(long)]
    points: Option<u64>,
    /// Prints figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Figures of a run.
#[derive(Debug, Serialize)]
struct Figures {
    run: String,
    devices: u32,
    connections: u32,
    in_flight: u32,
    rows_per_batch: u64,
    seconds: f64,
    points: u64,
    batches: u64,
    points_per_second: f64,
    batches_per_second: f64,
    acknowledgement: report::Summary,
}

/// The work of one connection.
#[derive(Debug, Clone)]
struct Share {
    prefix: String,
    devices: Range<usize>,
    devices_per_batch: usize,
    times: usize,
    step_ns: i64,
    begin_ns: i64,
    in_flight: usize,
    ends_at: Option<Instant>,
    batches: u64,
}

#[derive(Debug)]
struct Tally {
    points: u64,
    batches: u64,
    latencies: Latencies,
}

/// Runs the command.
pub(crate) async fn run(args: LoadArgs) -> Result<()> {
    let run = setup::run_name()?;
    let prefix = format!("{TYPE}-{run}");
    let shares = shares(&args, &prefix, setup::now_ns()? - BEGIN_AGO_NS)?;
    let client = args.cluster.connect().await?;
    let devices = (0..args.devices as usize).map(|n| setup::bare_device(synthetic::device_id(&prefix, n), TYPE));
    client
        .apply_device_types(vec![synthetic::device_type(TYPE, 10)])
        .await?;
    client.register_devices(devices.collect()).await?;
    report::note(&format!("run {run}: {} devices registered, writing", args.devices));

    let rows_per_batch = shares.first().map_or(0, |s| s.devices_per_batch * s.times) as u64;
    let mut clients = Vec::new();
    for _ in &shares {
        clients.push(args.cluster.connect().await?);
    }
    let began = Instant::now();
    let ends_at = args
        .points
        .is_none()
        .then(|| began + Duration::from_secs(args.duration_s));
    let mut tasks = JoinSet::new();
    for (share, client) in shares.into_iter().zip(clients) {
        tasks.spawn(write(client, Share { ends_at, ..share }));
    }
    let mut sum = Tally {
        points: 0,
        batches: 0,
        latencies: Latencies::new()?,
    };
    while let Some(tally) = tasks.join_next().await {
        let tally = tally??;
        sum.points += tally.points;
        sum.batches += tally.batches;
        sum.latencies.merge(&tally.latencies)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    print(
        args.json,
        &Figures {
            run,
            devices: args.devices,
            connections: args.connections,
            in_flight: args.in_flight,
            rows_per_batch,
            seconds,
            points: sum.points,
            batches: sum.batches,
            points_per_second: sum.points as f64 / seconds,
            batches_per_second: sum.batches as f64 / seconds,
            acknowledgement: sum.latencies.summary(),
        },
    )
}

/// Cuts devices and points into one share per connection.
fn shares(args: &LoadArgs, prefix: &str, begin_ns: i64) -> Result<Vec<Share>> {
    let (devices, connections) = (args.devices as usize, args.connections as usize);
    ensure!(devices >= connections, "--devices must be at least --connections");
    let times = args.times.min(args.batch) as usize;
    let most = devices / connections;
    let devices_per_batch = (args.batch as usize / times).clamp(1, most);
    let points_per_batch = (devices_per_batch * times) as u64 * POINTS_PER_ROW;
    let batches = args.points.map_or(u64::MAX, |points| {
        points.div_ceil(points_per_batch).div_ceil(connections as u64)
    });
    if batches == 0 {
        bail!("--points must be more than 0");
    }
    let share = |c: usize| Share {
        prefix: prefix.to_owned(),
        devices: c * most..(c + 1) * most,
        devices_per_batch,
        times,
        step_ns: i64::from(args.interval_s) * SECOND_NS,
        begin_ns,
        in_flight: args.in_flight as usize,
        ends_at: None,
        batches,
    };
    Ok((0..connections).map(share).collect())
}

async fn write(client: Client, share: Share) -> Result<Tally> {
    let mut tally = Tally {
        points: 0,
        batches: 0,
        latencies: Latencies::new()?,
    };
    let mut pipe = Pipe::new(&client, share.in_flight, Duration::from_secs(60));
    let (mut next, mut round) = (share.devices.start, 0);
    for _ in 0..share.batches {
        if share.ends_at.is_some_and(|at| Instant::now() >= at) {
            break;
        }
        let last = (next + share.devices_per_batch).min(share.devices.end);
        let first_ns = share.begin_ns + round * share.times as i64 * share.step_ns;
        let batch = synthetic::batch(TYPE, &share.prefix, next..last, first_ns, share.step_ns, share.times);
        if let Some(done) = pipe.send(batch, ()).await? {
            tally.take(done)?;
        }
        next = last;
        if next == share.devices.end {
            (next, round) = (share.devices.start, round + 1);
        }
    }
    while let Some(done) = pipe.next().await? {
        tally.take(done)?;
    }
    Ok(tally)
}

impl Tally {
    fn take(&mut self, done: Done<()>) -> Result<()> {
        let stored = done
            .result
            .map_err(|error| anyhow::anyhow!("a batch was refused: {error}"))?;
        self.points += stored.points;
        self.batches += 1;
        self.latencies.record(done.took);
        Ok(())
    }
}

fn print(json: bool, figures: &Figures) -> Result<()> {
    let a = &figures.acknowledgement;
    let row = vec![
        report::thousands(figures.points as f64),
        format!("{:.1} s", figures.seconds),
        report::thousands(figures.points_per_second),
        format!("{:.1}", figures.batches_per_second),
        format!("{:.1} ms", a.p50_ms),
        format!("{:.1} ms", a.p99_ms),
        format!("{:.1} ms", a.max_ms),
    ];
    report::print(
        json,
        figures,
        &[
            "points",
            "time",
            "points/s",
            "batches/s",
            "ack p50",
            "ack p99",
            "ack max",
        ],
        vec![row],
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn check(line: &str, batches: u64, devices_per_batch: usize, last: Range<usize>) {
        let args = Line::parse_from(line.split(' ')).load;
        let shares = shares(&args, "p", 0).unwrap();
        let s = shares.last().unwrap();
        assert_eq!(
            (s.batches, s.devices_per_batch, s.devices.clone()),
            (batches, devices_per_batch, last),
            "{line}"
        );
    }

    #[test]
    fn shares_cover_the_points_asked_for() {
        check(
            "load --devices 100 --connections 4 --batch 100 --times 10 --points 1000000",
            500,
            10,
            75..100,
        );
        check(
            "load --devices 3 --connections 1 --batch 100 --times 10 --points 1",
            1,
            3,
            0..3,
        );
        check(
            "load --devices 10 --connections 2 --batch 5 --times 50",
            u64::MAX,
            1,
            5..10,
        );
    }

    #[test]
    fn more_connections_than_devices_are_refused() {
        let args = Line::parse_from(["load", "--devices", "1", "--connections", "2"]).load;
        assert!(shares(&args, "p", 0).is_err());
    }
}
