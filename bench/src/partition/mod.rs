//! `tidemark-bench partition`: cuts the network with commands that the caller gives, and watches from outside: writers
//! that follow the majority, and probes that ask a cut-off node directly. Nothing here knows how a network is cut.

mod direct;
mod judge;
mod ledger;
mod play;
mod readback;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use tidemark_client::{Client, v1};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::direct::Direct;
use self::judge::{Expect, Findings, Times};
use self::play::{Probed, Stage};
use self::readback::ReadBack;
use crate::report;
use crate::setup::{self, ClusterArgs};

/// Values begin this long ago, so that there is room for them before now.
const BEGIN_AGO_NS: i64 = 365 * 86_400 * 1_000_000_000;
/// A command that cuts or heals may take this long.
const COMMAND_MAX: Duration = Duration::from_secs(20);
/// The last answers are awaited for this long.
const LAST_WAIT: Duration = Duration::from_secs(60);

/// Cuts and heals the network, and checks what writers, a cut-off node and, in the end, all nodes answer.
#[derive(Debug, Args)]
pub(crate) struct PartitionArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Shell command that cuts the network.
    #[arg(long, value_name = "COMMAND")]
    cut: String,
    /// Shell command that heals it.
    #[arg(long, value_name = "COMMAND")]
    heal: String,
    /// Client addresses of nodes that are asked directly.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT", required = true)]
    victim: Vec<String>,
    /// What they owe while the network is cut.
    #[arg(long, value_enum, default_value = "unavailable")]
    expect: Expect,
    /// Seconds before the cut.
    #[arg(long, default_value_t = 3)]
    before_s: u64,
    /// Seconds from the cut to the healing.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    cut_s: u64,
    /// Seconds after the healing, in which everything must work again.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    after_s: u64,
    /// Longest time without an acknowledged write to a device, milliseconds.
    #[arg(long, default_value_t = 5_000)]
    silence_max_ms: u64,
    /// Devices written to, and as many for each node that is asked directly.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    devices: u32,
    /// Longest wait for an answer of a node that is asked directly, milliseconds.
    #[arg(long, default_value_t = 5_000)]
    deadline_ms: u64,
    /// Prints figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Figures of a run.
#[derive(Debug, Serialize)]
struct Figures {
    good: bool,
    acknowledged: i64,
    failed_writes: u64,
    /// The longest time without an acknowledged write, of any device: before the cut, from the cut to the healing, after it.
    silence_before_ms: u64,
    silence_cut_ms: u64,
    silence_heal_ms: u64,
    nodes: Vec<Findings>,
    read_back: ReadBack,
    examples: Vec<String>,
}

/// Runs the scenario; false when something was wrong.
pub(crate) async fn run(args: PartitionArgs) -> Result<bool> {
    let deadline = Duration::from_millis(args.deadline_ms);
    let victims: Vec<Direct> = args
        .victim
        .iter()
        .map(|address| Direct::new(address, deadline))
        .collect::<Result<_>>()?;
    let client = args.cluster.connect().await?;
    let start_ns = setup::now_ns()? - BEGIN_AGO_NS;
    let stage = Stage::new(setup::run_name()?, start_ns, args.devices as usize);
    prepare(&client, &stage, victims.len()).await?;

    let mut tasks = JoinSet::new();
    play::start_writers(&stage, &client, &mut tasks);
    let probes: Vec<_> = victims
        .iter()
        .enumerate()
        .map(|(node, direct)| play::start_probes(&stage, node, direct, &mut tasks))
        .collect();
    let times = acts(&args, &stage).await;
    stage.stop();
    let ended = timeout(LAST_WAIT, async {
        while let Some(done) = tasks.join_next().await {
            done.context("a task broke")??;
        }
        anyhow::Ok(())
    });
    ended.await.context("writers and probes did not end")??;
    let times = times?;
    let read_back = readback::run(&args.cluster.endpoint, deadline, &stage, &lists(&probes)).await?;
    let figures = figures(&args, &stage, &probes, &times, read_back);
    print(&args, &figures)?;
    Ok(figures.good)
}

/// Makes the type and every device.
async fn prepare(client: &Client, stage: &Stage, nodes: usize) -> Result<()> {
    let value = v1::Property {
        id: play::PROPERTY.to_owned(),
        value_type: v1::ValueType::I64.into(),
        kind: v1::Kind::Gauge.into(),
        ..Default::default()
    };
    let device_type = v1::DeviceType {
        id: play::TYPE.to_owned(),
        name: "Values around a partition".to_owned(),
        properties: vec![value],
        sample_interval_s: 1,
        retention_days: 3_650,
        ..Default::default()
    };
    client
        .apply_device_types(vec![device_type])
        .await
        .context("apply the type")?;
    let devices = stage.tracks().len();
    let ids = (0..devices)
        .map(|index| stage.device(index))
        .chain((0..nodes).flat_map(|node| (0..devices).map(move |index| stage.probed(node, index))));
    client
        .register_devices(ids.map(|id| setup::bare_device(id, play::TYPE)).collect())
        .await
        .context("register devices")?;
    Ok(())
}

/// Before, cut, healed. The network is healed in any case.
async fn acts(args: &PartitionArgs, stage: &Stage) -> Result<Times> {
    let mut times = Times::default();
    sleep(Duration::from_secs(args.before_s)).await;
    times.cut_began = stage.now();
    let cut = shell(&args.cut).await;
    times.cut_done = stage.now();
    if cut.is_ok() {
        sleep(Duration::from_secs(args.cut_s)).await;
    }
    times.heal_began = stage.now();
    shell(&args.heal).await?;
    times.heal_done = stage.now();
    cut?;
    sleep(Duration::from_secs(args.after_s)).await;
    times.ended = stage.now();
    Ok(times)
}

async fn shell(command: &str) -> Result<()> {
    let status = timeout(COMMAND_MAX, Command::new("sh").args(["-c", command]).status());
    let status = status
        .await
        .with_context(|| format!("{command}: not done in {COMMAND_MAX:?}"))??;
    if !status.success() {
        bail!("{command}: {status}");
    }
    Ok(())
}

/// The values that each probe saw acknowledged, by node and device.
fn lists(probes: &[Arc<Mutex<Probed>>]) -> Vec<Vec<Vec<i64>>> {
    let list = |probed: &Arc<Mutex<Probed>>| {
        probed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .acknowledged
            .clone()
    };
    probes.iter().map(list).collect()
}

fn figures(
    args: &PartitionArgs,
    stage: &Stage,
    probes: &[Arc<Mutex<Probed>>],
    times: &Times,
    read_back: ReadBack,
) -> Figures {
    let tracks = stage.tracks();
    let silence = |from: Duration, to: Duration| {
        let each = tracks.iter().map(|track| track.longest_silence(from, to));
        each.max().unwrap_or_default().as_millis() as u64
    };
    let nodes: Vec<Findings> = args
        .victim
        .iter()
        .zip(probes)
        .map(|(node, probed)| {
            let probed = probed.lock().unwrap_or_else(PoisonError::into_inner);
            judge::judge(node, &probed.calls, &tracks, times, args.expect)
        })
        .collect();
    let failed = stage.failed_writes();
    let mut examples: Vec<String> = nodes.iter().flat_map(|node| node.examples.clone()).collect();
    for node in &nodes {
        let unasked = node.unasked().into_iter();
        examples.extend(unasked.map(|kind| format!("{}: no {kind:?} was asked and answered while cut", node.node)));
    }
    examples.extend(read_back.examples.iter().cloned());
    examples.extend(failed.iter().take(3).cloned());
    let mut figures = Figures {
        good: false,
        acknowledged: tracks.iter().map(ledger::Track::acknowledged).sum(),
        failed_writes: failed.len() as u64,
        silence_before_ms: silence(Duration::ZERO, times.cut_began),
        silence_cut_ms: silence(times.cut_began, times.heal_began),
        silence_heal_ms: silence(times.heal_began, times.ended),
        nodes,
        read_back,
        examples,
    };
    let silences = [figures.silence_cut_ms, figures.silence_heal_ms];
    figures.good = figures.failed_writes == 0
        && silences.iter().all(|silence| *silence <= args.silence_max_ms)
        && figures.nodes.iter().all(Findings::is_good)
        && figures.read_back.is_good();
    figures
}

fn print(args: &PartitionArgs, figures: &Figures) -> Result<()> {
    for example in &figures.examples {
        report::note(example);
    }
    let header = [
        "node asked",
        "while cut: read",
        "any",
        "write",
        "longest wait ms",
        "lag ms",
        "lag understated, ms at most",
        "stale",
        "healed ms",
        "silence at cut ms",
        "at heal ms",
        "acknowledged",
        "missing",
        "doubled",
        "differ",
    ];
    let row = |node: &Findings| {
        let ends = |kind| {
            let counts = node.while_cut.get(&kind).into_iter().flatten();
            let each: Vec<String> = counts.map(|(end, count)| format!("{end} {count}")).collect();
            each.join(", ")
        };
        vec![
            node.node.clone(),
            ends(judge::Kind::Read),
            ends(judge::Kind::Any),
            ends(judge::Kind::Write),
            node.longest_wait_ms.to_string(),
            node.longest_lag_ms.to_string(),
            format!("{}, {}", node.lag_understated, node.lag_understated_max_ms),
            (node.stale + node.invented).to_string(),
            node.healed_ms.map_or("never".to_owned(), |ms| ms.to_string()),
            figures.silence_cut_ms.to_string(),
            figures.silence_heal_ms.to_string(),
            figures.acknowledged.to_string(),
            figures.read_back.missing.to_string(),
            figures.read_back.doubled.to_string(),
            figures.read_back.differing.to_string(),
        ]
    };
    report::print(args.json, figures, &header, figures.nodes.iter().map(row).collect())
}
