//! The oracle writes: several producers, each a closed loop, until told to stop. Invariant: a batch enters the journal
//! after its acknowledgement and never otherwise.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tidemark_client::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::OracleArgs;
use super::journal::Journal;
use super::points::Plan;
use crate::pipe::{Done, Pipe};
use crate::report::{self, Latencies};
use crate::setup;

const TYPE: &str = "bench_oracle";
/// Numbers begin this long ago, so that there is room for them before now.
const BEGIN_AGO_NS: i64 = 3_650 * 86_400 * 1_000_000_000;
/// A producer keeps trying for this long while nothing is acknowledged.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Waits this long for the last acknowledgements.
const LAST_WAIT: Duration = Duration::from_secs(30);
/// The journal reaches the disk this often.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What all producers share.
#[derive(Debug)]
struct Book {
    journal: Journal,
    batches: u64,
    refused: u64,
    reasons: BTreeSet<String>,
    latencies: Latencies,
    last: Instant,
    longest_silence: Duration,
}

/// Figures of a run.
#[derive(Debug, Serialize)]
struct Figures {
    journal: String,
    seconds: f64,
    records: u64,
    records_per_second: f64,
    refused_batches: u64,
    /// The longest time in which no producer got an acknowledgement.
    longest_silence_ms: f64,
    acknowledgement: report::Summary,
}

/// Writes until the duration is over or Ctrl-C.
pub(super) async fn run(args: &OracleArgs, path: &Path) -> Result<()> {
    let plan = Plan {
        device_type: TYPE.to_owned(),
        run: setup::run_name()?,
        start_ns: setup::now_ns()? - BEGIN_AGO_NS,
        producers: args.producers,
        devices_per_producer: args.devices,
        rows_per_batch: args.batch,
    };
    let client = args.cluster.connect().await?;
    client
        .apply_device_types(vec![plan.device_type()])
        .await
        .context("apply the type")?;
    let ids = (0..plan.producers).flat_map(|producer| plan.devices(producer).collect::<Vec<_>>());
    client
        .register_devices(ids.map(|id| setup::bare_device(id, TYPE)).collect())
        .await
        .context("register devices")?;

    let began = Instant::now();
    let book = Arc::new(Mutex::new(Book {
        journal: Journal::create(path, &plan)?,
        batches: 0,
        refused: 0,
        reasons: BTreeSet::new(),
        latencies: Latencies::new()?,
        last: began,
        longest_silence: Duration::ZERO,
    }));
    report::note(&format!(
        "oracle: run {}, journal {}; Ctrl-C ends it",
        plan.run,
        path.display()
    ));
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for producer in 0..plan.producers {
        let worker = Worker {
            client: client.clone(),
            plan: plan.clone(),
            producer,
            book: Arc::clone(&book),
            in_flight: args.in_flight as usize,
            rate: args.rate,
            stopped: stopped.clone(),
        };
        tasks.spawn(worker.run());
    }
    wait(args.duration_s, &book, &mut tasks).await?;
    // producers that are gone already need not be told
    let _ = stop.send(true);
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let book = locked(&book);
    book.journal.sync()?;
    print(args.json, path, &plan, &book, began.elapsed())
}

/// Waits for the end, bringing the journal to disk meanwhile; ends early when a producer fails.
async fn wait(duration_s: Option<u64>, book: &Mutex<Book>, tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    let over = tokio::time::sleep(Duration::from_secs(duration_s.unwrap_or(u64::from(u32::MAX))));
    tokio::pin!(over);
    let mut sync = interval(SYNC_EVERY);
    loop {
        tokio::select! {
            () = &mut over => return Ok(()),
            told = tokio::signal::ctrl_c() => return Ok(told?),
            Some(task) = tasks.join_next() => task??,
            _ = sync.tick() => locked(book).journal.sync()?,
        }
    }
}

#[derive(Debug)]
struct Worker {
    client: Client,
    plan: Plan,
    producer: u32,
    book: Arc<Mutex<Book>>,
    in_flight: usize,
    rate: u32,
    stopped: watch::Receiver<bool>,
}

impl Worker {
    async fn run(mut self) -> Result<()> {
        let mut pipe = Pipe::new(&self.client, self.in_flight, PATIENCE);
        let mut pace = (self.rate > 0).then(|| interval(Duration::from_secs(1) / self.rate));
        if let Some(pace) = &mut pace {
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut first = 0;
        while !*self.stopped.borrow() {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            let numbers = first..first + self.plan.rows_per_batch;
            let batch = self.plan.batch(self.producer, first)?;
            first = numbers.end;
            tokio::select! {
                done = pipe.send(batch, numbers) => if let Some(done) = done? { self.note(done)? },
                _ = self.stopped.changed() => break,
            }
            while let Some(done) = pipe.try_next()? {
                self.note(done)?;
            }
        }
        let last = async {
            while let Some(done) = pipe.next().await? {
                self.note(done)?;
            }
            Ok::<_, anyhow::Error>(())
        };
        // what is not acknowledged by then is not in the journal, and that is all that is promised
        tokio::time::timeout(LAST_WAIT, last).await.unwrap_or(Ok(()))
    }

    fn note(&self, done: Done<Range<u64>>) -> Result<()> {
        let mut book = locked(&self.book);
        match done.result {
            Ok(_) => {
                book.journal.acknowledged(self.producer, &done.label)?;
                book.batches += 1;
                book.latencies.record(done.took);
                book.longest_silence = book.longest_silence.max(book.last.elapsed());
                book.last = Instant::now();
            }
            Err(error) => {
                book.refused += 1;
                if book.reasons.insert(error.reason.clone()) {
                    report::note(&format!("producer {}: a batch was refused: {error}", self.producer));
                }
            }
        }
        Ok(())
    }
}

/// Nothing in the book is left half written, so a panic elsewhere does not spoil it.
fn locked(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn print(json: bool, path: &Path, plan: &Plan, book: &Book, took: Duration) -> Result<()> {
    let records = book.batches * plan.rows_per_batch;
    let figures = Figures {
        journal: path.display().to_string(),
        seconds: took.as_secs_f64(),
        records,
        records_per_second: records as f64 / took.as_secs_f64(),
        refused_batches: book.refused,
        longest_silence_ms: book.longest_silence.max(book.last.elapsed().min(took)).as_secs_f64() * 1000.0,
        acknowledgement: book.latencies.summary(),
    };
    let row = vec![
        report::thousands(records as f64),
        format!("{:.1} s", figures.seconds),
        report::thousands(figures.records_per_second),
        book.refused.to_string(),
        format!("{:.0} ms", figures.longest_silence_ms),
        format!("{:.1} ms", figures.acknowledgement.p99_ms),
    ];
    let header = [
        "records acknowledged",
        "time",
        "records/s",
        "refused batches",
        "longest silence",
        "ack p99",
    ];
    report::print(json, &figures, &header, vec![row])
}
