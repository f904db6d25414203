//! `tidemark-bench query`: how long everyday questions take. Invariant: an answer that is empty or short is an error,
//! not a fast answer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use tidemark_client::{Client, LatestRow, latest_rows, v1};

use crate::pipe::Pipe;
use crate::report::{self, Latencies};
use crate::setup::{self, ClusterArgs};
use crate::synthetic;

const TYPE: &str = "bench_query";
const SECOND_NS: i64 = 1_000_000_000;
const HOUR_NS: i64 = 3_600 * SECOND_NS;
const DAY_NS: i64 = 24 * HOUR_NS;
/// Days of history that the questions need.
const DAYS: i64 = 30;
/// Property that is aggregated.
const PROPERTY: &str = "temperature";
/// The end of the history: 2025-01-01, whatever the day, so that the data prepared once serves every later run.
const END_NS: i64 = 1_735_689_600 * SECOND_NS;

/// Measures the latency of queries.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// First writes the data that is asked for; once per cluster is enough.
    #[arg(long)]
    prepare: bool,
    /// Devices of the type; each has a latest value.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// The first so many devices have 30 days of history.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    history_devices: u32,
    /// Seconds between two records of the history.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    interval_s: u32,
    /// How often each question is asked.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
    /// Prints figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Figures of one question.
#[derive(Debug, Serialize)]
struct Figures {
    question: &'static str,
    /// Rows, windows or devices in one answer.
    rows: u64,
    latency: report::Summary,
}

/// Runs the command.
pub(crate) async fn run(args: QueryArgs) -> Result<()> {
    ensure!(
        args.history_devices <= args.devices,
        "--history-devices must be at most --devices"
    );
    ensure!(3_600 % args.interval_s == 0, "--interval-s must divide an hour");
    let client = args.cluster.connect().await?;
    if args.prepare {
        prepare(&client, &args).await?;
    }
    let a_day = 86_400 / u64::from(args.interval_s);
    let mut questions = Vec::new();
    for (question, expected) in [
        (Question::Latest, u64::from(args.devices)),
        (Question::LatestInColumns, u64::from(args.devices)),
        (Question::RawDay, a_day),
        (Question::HourlyMonth, DAYS as u64 * 24),
        (
            Question::HourlyMonthOfAll,
            u64::from(args.history_devices) * DAYS as u64 * 24,
        ),
    ] {
        let mut latencies = Latencies::new()?;
        for i in 0..args.iterations {
            let began = Instant::now();
            let rows = question
                .ask(&client, &args, i64::from(i))
                .await
                .with_context(|| question.name())?;
            latencies.record(began.elapsed());
            let hint = "run once with --prepare and the same --devices, --history-devices and --interval-s";
            ensure!(
                rows == expected,
                "{}: {rows} rows instead of {expected}; {hint}",
                question.name()
            );
        }
        questions.push(Figures {
            question: question.name(),
            rows: expected,
            latency: latencies.summary(),
        });
    }
    let row = |f: &Figures| {
        let l = &f.latency;
        let mut row = vec![
            f.question.to_owned(),
            report::thousands(f.rows as f64),
            l.count.to_string(),
        ];
        row.extend([l.p50_ms, l.p99_ms, l.max_ms].map(|ms| format!("{ms:.2} ms")));
        row
    };
    let rows = questions.iter().map(row).collect();
    report::print(
        args.json,
        &questions,
        &["question", "rows", "asked", "p50", "p99", "max"],
        rows,
    )
}

#[derive(Debug, Clone, Copy)]
enum Question {
    Latest,
    LatestInColumns,
    RawDay,
    HourlyMonth,
    HourlyMonthOfAll,
}

impl Question {
    fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest values of one type",
            Self::LatestInColumns => "the same in columns",
            Self::RawDay => "one day raw of one device",
            Self::HourlyMonth => "30 days hourly of one device",
            Self::HourlyMonthOfAll => "30 days hourly of all with a history",
        }
    }

    /// Asks once and reads the whole answer; gives its rows. Devices and days take turns.
    async fn ask(self, client: &Client, args: &QueryArgs, turn: i64) -> Result<u64> {
        let device = (turn % i64::from(args.history_devices)) as usize;
        let of = |devices: std::ops::Range<usize>| {
            Some(v1::Selector {
                device_ids: devices.map(|device| synthetic::device_id(TYPE, device)).collect(),
                ..Default::default()
            })
        };
        let one = || of(device..device + 1);
        match self {
            Self::Latest => latest(client, false).await,
            Self::LatestInColumns => latest(client, true).await,
            Self::RawDay => {
                let from_ns = END_NS - DAYS * DAY_NS + turn % DAYS * DAY_NS;
                let request = v1::QueryRangeRequest {
                    selector: one(),
                    from_ns,
                    to_ns: from_ns + DAY_NS,
                    ..Default::default()
                };
                let mut answer = client.query_range(request).await?;
                let mut rows = 0;
                while let Some(message) = answer.next().await {
                    rows += message?.batch.map_or(0, |b| b.observed_at_ns.len()) as u64;
                }
                Ok(rows)
            }
            Self::HourlyMonth => hourly_month(client, one()).await,
            Self::HourlyMonthOfAll => hourly_month(client, of(0..args.history_devices as usize)).await,
        }
    }
}

/// Devices with a newest value; all of their values are looked at.
async fn latest(client: &Client, in_columns: bool) -> Result<u64> {
    let request = v1::GetLatestRequest {
        selector: Some(v1::Selector {
            device_type: TYPE.to_owned(),
            ..Default::default()
        }),
        in_columns,
        ..Default::default()
    };
    let mut answer = client.get_latest(request).await?;
    let mut rows = 0;
    while let Some(message) = answer.next().await {
        let of_property = |row: &LatestRow<'_>| row.newest.as_ref().is_some_and(|newest| newest.property == PROPERTY);
        rows += latest_rows(&message?).filter(of_property).count() as u64;
    }
    Ok(rows)
}

/// Windows of an answer about 30 days by hour.
async fn hourly_month(client: &Client, selector: Option<v1::Selector>) -> Result<u64> {
    use v1::Function::{Avg, Count, First, Last, Max, Min};
    let request = v1::QueryAggregateRequest {
        selector,
        properties: vec![PROPERTY.to_owned()],
        functions: [Count, Min, Max, Avg, First, Last].map(Into::into).to_vec(),
        from_ns: END_NS - DAYS * DAY_NS,
        to_ns: END_NS,
        window: Some(v1::Window {
            step_ns: HOUR_NS,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut answer = client.query_aggregate(request).await?;
    let mut rows = 0;
    while let Some(message) = answer.next().await {
        rows += message?.series.iter().map(|s| s.start_ns.len()).sum::<usize>() as u64;
    }
    Ok(rows)
}

/// Writes 30 days of history for some devices and one last record for all.
async fn prepare(client: &Client, args: &QueryArgs) -> Result<()> {
    let step_ns = i64::from(args.interval_s) * SECOND_NS;
    let devices = args.devices as usize;
    client
        .apply_device_types(vec![synthetic::device_type(TYPE, i64::from(args.interval_s))])
        .await?;
    let all = (0..devices)
        .map(|n| setup::bare_device(synthetic::device_id(TYPE, n), TYPE))
        .collect();
    client.register_devices(all).await?;
    let a_day = (DAY_NS / step_ns) as usize;
    let mut pipe = Pipe::new(client, 8, Duration::from_secs(60));
    for day in 0..DAYS {
        let first_ns = END_NS - (DAYS - day) * DAY_NS;
        for device in 0..args.history_devices as usize {
            let batch = synthetic::batch(TYPE, TYPE, device..device + 1, first_ns, step_ns, a_day);
            take(pipe.send(batch, ()).await?)?;
        }
    }
    for first in (0..devices).step_by(1_000) {
        let batch = synthetic::batch(
            TYPE,
            TYPE,
            first..(first + 1_000).min(devices),
            END_NS - step_ns,
            step_ns,
            1,
        );
        take(pipe.send(batch, ()).await?)?;
    }
    while let Some(done) = pipe.next().await? {
        take(Some(done))?;
    }
    let records = u64::from(args.history_devices) * DAYS as u64 * a_day as u64 + devices as u64;
    report::note(&format!(
        "prepared {} records of {devices} devices",
        report::thousands(records as f64)
    ));
    Ok(())
}

fn take(done: Option<crate::pipe::Done<()>>) -> Result<()> {
    if let Some(done) = done {
        done.result.context("a batch was refused")?;
    }
    Ok(())
}
