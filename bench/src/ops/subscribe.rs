//! `subscribe`: how long after its acknowledgement a write reaches subscribers, and whether each has everything once.
//! Never here: the load itself. Invariant: what was acknowledged up to a moment is compared, so that nothing on its way counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use tidemark_client::{Subscription, rows, v1};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cluster::{Cluster, PATIENCE};
use super::figures::{Outcome, conclude};
use super::load::{Acknowledged, Fleet, Load, connect};
use super::proof::Check;
use super::record::{PhaseFigures, Record};
use super::{RunArgs, until};
use crate::report::{Latencies, Summary};

/// From acknowledgement to subscriber, 99 of 100 on one machine.
const P99_MS: f64 = 200.0;

/// Subscribes to all devices under load and measures how long writes take to come.
#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Subscribers, each with a connection of its own and all devices.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=256))]
    subscribers: u32,
    /// Seconds of load.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Nodes killed and started again meanwhile, one after the other.
    #[arg(long, default_value_t = 0)]
    kills: usize,
}

/// Figures of this scenario alone.
#[derive(Debug, Serialize)]
struct Reached {
    subscribers: usize,
    /// Acknowledged batches that were compared.
    batches: usize,
    /// Batches that some subscriber never had, and those that it had more than once.
    missing: usize,
    doubled: usize,
    /// How often a subscription went on with a new stream.
    resumed: u64,
    /// From the acknowledgement to the subscriber; 0 where the subscriber had it before.
    latency: Summary,
}

/// A batch: its device, and the number of its first record.
type Batch = (u32, u64);

/// What one subscriber has: when each batch came, and how many of its records.
#[derive(Debug, Default)]
struct Came {
    batches: HashMap<Batch, (Instant, u64)>,
    resumed: u64,
}

pub(super) async fn run(args: SubscribeArgs) -> Result<bool> {
    let mut cluster = Cluster::begin(&args.run).await?;
    let record = Arc::new(Record::new());
    let endpoints = cluster.endpoints()?;
    let load = Load::begin(&args.run, &endpoints, &record).await?;
    let mut subscribers = JoinSet::new();
    let mut books = Vec::new();
    for _ in 0..args.subscribers {
        let request = v1::SubscribeRequest {
            selector: Some(load.fleet.everything()),
            ..Default::default()
        };
        let subscription = connect(&endpoints).await?.subscribe(request).await?;
        let book = Arc::<Mutex<Came>>::default();
        books.push(Arc::clone(&book));
        subscribers.spawn(listen(subscription, Arc::clone(&load.fleet), book));
    }
    // Every subscription has begun: what is sent from now on must come.
    load.fleet.note_acknowledgements();
    record.enter("subscribed")?;
    let spell = Duration::from_secs(args.seconds) / (args.kills as u32 + 1);
    sleep(spell).await;
    for kill in 0..args.kills {
        let number = kill % super::cluster::FIRST_NODES + 1;
        cluster.fleet.kill(number).await?;
        sleep(spell / 2).await;
        cluster.fleet.start(number)?;
        cluster.healthy(PATIENCE).await?;
        sleep(spell / 2).await;
    }
    let acknowledged = load.fleet.acknowledgements();
    let rows_per_batch = load.fleet.plan.rows_per_batch;
    let have_all = async || {
        let whole = |book: &Arc<Mutex<Came>>| {
            let came = book.lock().unwrap_or_else(PoisonError::into_inner);
            acknowledged.iter().all(|batch| came.batches.contains_key(&batch.key()))
        };
        books.iter().all(whole).then_some(())
    };
    // What is missing for good is counted below.
    let _late = until("every subscriber has everything", PATIENCE, have_all).await;
    if let Some(ended) = subscribers.try_join_next() {
        ended??;
        bail!("a subscription ended");
    }
    let scenario = compare(&acknowledged, &books, rows_per_batch)?;
    drop(subscribers);
    let outcome = Outcome {
        scenario,
        jobs: Vec::new(),
        checks,
    };
    conclude(&args.run, cluster, load, &record, outcome).await
}

/// Notes what comes, until it is told to stop.
async fn listen(mut subscription: Subscription, fleet: Arc<Fleet>, book: Arc<Mutex<Came>>) -> Result<()> {
    let devices = fleet.numbers();
    let per_batch = fleet.plan.rows_per_batch.max(1);
    loop {
        let message = subscription.next().await?;
        let now = Instant::now();
        let Some(batch) = &message.batch else { continue };
        let mut came = book.lock().unwrap_or_else(PoisonError::into_inner);
        came.resumed = subscription.resumed();
        for row in rows(batch) {
            let number = fleet.plan.number_at(row.observed_at_ns);
            if let Some((device, number)) = devices.get(row.device).copied().zip(number) {
                let key = (device, number / per_batch * per_batch);
                came.batches.entry(key).or_insert((now, 0)).1 += 1;
            }
        }
    }
}

fn compare(acknowledged: &[Acknowledged], books: &[Arc<Mutex<Came>>], per_batch: u64) -> Result<Reached> {
    let mut latency = Latencies::new()?;
    let (mut missing, mut doubled, mut resumed) = (0, 0, 0);
    for book in books {
        let came = book.lock().unwrap_or_else(PoisonError::into_inner);
        for batch in acknowledged {
            match came.batches.get(&batch.key()) {
                Some((at, records)) if *records >= per_batch => {
                    latency.record(at.saturating_duration_since(batch.at));
                }
                _ => missing += 1,
            }
        }
        doubled += came
            .batches
            .values()
            .filter(|(_, records)| *records > per_batch)
            .count();
        resumed += came.resumed;
    }
    Ok(Reached {
        subscribers: books.len(),
        batches: acknowledged.len(),
        missing,
        doubled,
        resumed,
        latency: latency.summary(),
    })
}

fn checks(reached: &Reached, _: &[PhaseFigures]) -> Result<Vec<Check>> {
    let Reached {
        subscribers,
        batches,
        missing,
        doubled,
        resumed,
        latency,
    } = reached;
    let once = format!(
        "{batches} batches to {subscribers} subscribers: {missing} missing, {doubled} doubled, {resumed} resumed"
    );
    let quick = format!(
        "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        latency.p50_ms, latency.p99_ms, latency.max_ms
    );
    Ok(vec![
        Check::new("every subscriber has everything once", missing + doubled == 0, once),
        Check::new(
            "a write is with its subscribers 200 ms after its acknowledgement (p99)",
            latency.p99_ms <= P99_MS,
            quick,
        ),
    ])
}
