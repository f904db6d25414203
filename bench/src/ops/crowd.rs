//! `crowd`: many wide questions at once beside a steady load. Never here: the load itself.
//! Invariant: a question ends answered in full, or refused with a reason and a time to retry; nobody's memory decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use tidemark_client::{Client, Error, ErrorKind, v1};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::RunArgs;
use super::catch_up::{fill, filled};
use super::cluster::Cluster;
use super::figures::{Outcome, conclude, p99_check};
use super::load::{Load, connect_as};
use super::proof::Check;
use super::record::{PhaseFigures, Record};
use crate::report::{self, Latencies, Summary};

/// The crowd has budgets of its own, as an application that names itself has.
const APPLICATION: &str = "crowd";
const ALONE: &str = "no questions";
const CROWD: &str = "a crowd asks";
const HOUR_NS: i64 = 3_600_000_000_000;
/// Askers share a connection.
const ASKERS_PER_CLIENT: u32 = 25;

/// Asks many wide questions at once and measures what writes feel of it.
#[derive(Debug, Args)]
pub(crate) struct CrowdArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Wide questions at once: each asker asks the next one when it has its answer.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    askers: u32,
    /// Seconds without the crowd, and as many with it.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Points that the questions are about, at least; each reads a fifth of them.
    #[arg(long, default_value_t = 10_000_000)]
    points: u64,
}

/// Figures of this scenario alone.
#[derive(Debug, Default, Serialize)]
struct Figures {
    askers: u32,
    points: u64,
    /// Questions that were answered while the crowd was there.
    answered: u64,
    /// From the question to the end of its answer, refusals and retries of the client library included.
    latency: Option<Summary>,
    /// Questions that the client library gave up, by reason.
    given_up: BTreeMap<String, u64>,
    /// Those of them that ended with something else than that a retry may help.
    unclear: u64,
}

/// What the askers were told so far.
struct Told {
    answers: Latencies,
    given_up: BTreeMap<String, u64>,
    unclear: u64,
}

pub(super) async fn run(args: CrowdArgs) -> Result<bool> {
    let cluster = Cluster::begin(&args.run).await?;
    let endpoints = cluster.endpoints()?;
    report::note("points arrive that are asked for");
    let points = fill(&endpoints, args.points).await?;
    let record = Arc::new(Record::new());
    record.enter("warming up")?;
    let load = Load::begin(&args.run, &endpoints, &record).await?;
    sleep(Duration::from_secs(5)).await;
    record.enter(ALONE)?;
    sleep(Duration::from_secs(args.seconds)).await;
    record.enter(CROWD)?;
    let crowd = Crowd::begin(args.askers, &endpoints)?;
    sleep(Duration::from_secs(args.seconds)).await;
    let told = crowd.end();
    record.enter("afterwards")?;
    sleep(Duration::from_secs(5)).await;
    let outcome = Outcome {
        scenario: Figures {
            askers: args.askers,
            points,
            answered: told.answers.count(),
            latency: (told.answers.count() > 0).then(|| told.answers.summary()),
            given_up: told.given_up,
            unclear: told.unclear,
        },
        jobs: Vec::new(),
        checks,
    };
    conclude(&args.run, cluster, load, &record, outcome).await
}

/// Askers, on a thread of their own, so that the load does not wait for them.
struct Crowd {
    runtime: Runtime,
    told: Arc<Mutex<Told>>,
}

impl Crowd {
    fn begin(askers: u32, endpoints: &[String]) -> Result<Crowd> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let told = Arc::new(Mutex::new(Told {
            answers: Latencies::new()?,
            given_up: BTreeMap::new(),
            unclear: 0,
        }));
        let (book, endpoints, about) = (told.clone(), endpoints.to_vec(), filled()?);
        runtime.spawn(async move {
            let mut all = JoinSet::new();
            for first in (0..askers).step_by(ASKERS_PER_CLIENT as usize) {
                let client = match connect_as(&endpoints, Some(APPLICATION)).await {
                    Ok(client) => client,
                    Err(error) => return report::note(&format!("an asker finds no node: {error:#}")),
                };
                for _ in first..askers.min(first + ASKERS_PER_CLIENT) {
                    all.spawn(ask_on(client.clone(), about.clone(), book.clone()));
                }
            }
            while all.join_next().await.is_some() {}
        });
        Ok(Crowd { runtime, told })
    }

    /// Sends the askers away, whatever they wait for.
    fn end(self) -> Told {
        self.runtime.shutdown_background();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = told.answers.clone();
        Told {
            answers,
            given_up: std::mem::take(&mut told.given_up),
            unclear: told.unclear,
        }
    }
}

async fn ask_on(client: Client, about: (v1::Selector, i64, i64), told: Arc<Mutex<Told>>) {
    loop {
        let began = Instant::now();
        let answer = ask(&client, about.clone()).await;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(()) => told.answers.record(began.elapsed()),
            Err(error) => {
                told.unclear += u64::from(error.kind != ErrorKind::Retry);
                *told.given_up.entry(error.reason).or_default() += 1;
            }
        }
    }
}

/// Every point of a property of all devices, by hour: nothing of it can be told from headers.
async fn ask(client: &Client, (selector, from_ns, to_ns): (v1::Selector, i64, i64)) -> Result<(), Error> {
    let request = v1::QueryAggregateRequest {
        selector: Some(selector),
        properties: vec!["temperature".to_owned()],
        functions: vec![v1::Function::Percentile.into(), v1::Function::Count.into()],
        percentiles: vec![50.0, 99.0],
        window: Some(v1::Window {
            step_ns: HOUR_NS,
            ..Default::default()
        }),
        grouping: Some(v1::Grouping::default()),
        from_ns,
        to_ns,
        ..Default::default()
    };
    let mut answer = client.query_aggregate(request).await?;
    while let Some(message) = answer.next().await {
        message?;
    }
    Ok(())
}

fn checks(figures: &Figures, phases: &[PhaseFigures]) -> Result<Vec<Check>> {
    let phases = phases.get(1..).context("a phase to compare with")?;
    let took = figures.latency.map_or_else(String::new, |latency| {
        format!("; p50 {:.0} ms, p99 {:.0} ms", latency.p50_ms, latency.p99_ms)
    });
    let given_up = &figures.given_up;
    let found = format!("{} answered{took}; given up: {given_up:?}", figures.answered);
    Ok(vec![
        Check::new(
            "a question is answered, or may be asked again",
            figures.unclear == 0,
            found,
        ),
        p99_check(phases, |name| name == CROWD)?,
    ])
}
