//! `tidemark-bench storm`: asks the cluster for its fleet and plays a scenario through the client, slice of time by slice of time. Nothing here decides what a
//! device says. Invariant: it counts a point only when its batch was acknowledged.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tidemark_client::{Client, v1};

use super::fleet::Fleet;
use super::scenario::Scenario;
use super::{MINUTE_NS, SECOND_NS, Storm};
use crate::pipe::{Done, Pipe};
use crate::report::{self, Latencies};
use crate::setup::{self, ClusterArgs};

/// A start of its own is moved back to a whole five minutes, so that gauges report on the clock.
const CLOCK_NS: i64 = 300 * SECOND_NS;
/// A day.
const DAY_NS: i64 = 86_400 * SECOND_NS;
/// Time played at once.
const SLICE_NS: i64 = 15 * MINUTE_NS;
/// The same where readings are sent when they are due.
const LIVE_NS: i64 = 10 * SECOND_NS;
/// How a cluster gets a fleet.
const HINT: &str = "register a fleet first: tidemark type apply bench/catalogue/device-types.toml, then \
    tidemark device import --catalogue bench/catalogue/device-types.toml";

/// Plays a storm over the registered devices that have a place.
#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Scenario; the built-in one by default.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Length of the scenario, hours.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i64).range(1..=240))]
    hours: i64,
    /// When the scenario starts: a time such as 2026-06-20T14:00:00+08:00, or now-24h. By default so that its last records are of now.
    #[arg(long, value_parser = parse_start)]
    start: Option<jiff::Timestamp>,
    /// Which devices play.
    #[arg(long, value_enum, default_value_t = Cast::All)]
    fleet: Cast,
    /// Most records in a batch.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Most batches without an acknowledgement.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=128))]
    in_flight: u32,
    /// Plays what is still to come, each reading when it is due, from the last whole five minutes to the end of the scenario.
    #[arg(long, requires = "start")]
    live: bool,
    /// Prints figures as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cast {
    /// Every device that has a place.
    All,
    /// Only devices of types that the scenario names.
    Gauges,
}

/// Figures of a storm played.
#[derive(Debug, Serialize)]
struct Figures {
    devices: usize,
    records: u64,
    points: u64,
    batches: u64,
    seconds: f64,
    points_per_second: f64,
    acknowledgement: report::Summary,
}

/// Runs the command.
pub(crate) async fn run(args: StormArgs) -> Result<()> {
    let scenario = Scenario::load(args.scenario.as_deref())?;
    let now_ns = setup::now_ns()?;
    let (start_ns, end_ns) = span(args.start, args.hours, now_ns)?;
    let client = args.cluster.connect().await?;
    let storm = Storm::new(fleet(&client).await?, scenario, start_ns, end_ns)?;
    let types = storm.types(args.fleet);
    let playing = storm.fleet.devices.iter().filter(|d| types.contains(&d.type_index));
    let devices = playing.count();
    keeps(types.iter().map(|t| &storm.fleet.types[*t]), start_ns, now_ns)?;
    ensure!(
        devices > 0,
        "no device of the types that the scenario names is registered; {HINT}"
    );
    report::note(&format!(
        "storm: {devices} devices ({} without a place or retired stay out), {} to {}, seed {}",
        storm.fleet.left_out,
        time_text(start_ns)?,
        time_text(end_ns)?,
        storm.scenario.seed
    ));
    let figures = play(&client, &storm, &types, devices, &args).await?;
    let row = vec![
        report::thousands(figures.records as f64),
        report::thousands(figures.points as f64),
        format!("{:.1} s", figures.seconds),
        report::thousands(figures.points_per_second),
        format!("{:.1} ms", figures.acknowledgement.p50_ms),
        format!("{:.1} ms", figures.acknowledgement.p99_ms),
    ];
    report::print(
        args.json,
        &figures,
        &["records", "points", "time", "points/s", "ack p50", "ack p99"],
        vec![row],
    )
}

async fn play(client: &Client, storm: &Storm, types: &[usize], devices: usize, args: &StormArgs) -> Result<Figures> {
    let bar = progress(storm)?;
    let began = Instant::now();
    let mut tally = Tally {
        records: 0,
        points: 0,
        batches: 0,
        latencies: Latencies::new()?,
    };
    let mut pipe = Pipe::new(client, args.in_flight as usize, Duration::from_secs(60));
    let (mut at_ns, slice_ns) = match args.live {
        true => (begin_live(storm.start_ns, setup::now_ns()?), LIVE_NS),
        false => (storm.start_ns, SLICE_NS),
    };
    while at_ns <= storm.end_ns {
        if args.live {
            let due_ns = u64::try_from(at_ns + slice_ns - setup::now_ns()?).unwrap_or(0);
            tokio::time::sleep(Duration::from_nanos(due_ns)).await;
        }
        for t in types {
            for batch in storm.batches(*t, at_ns, at_ns + slice_ns, args.batch as usize) {
                if let Some(done) = pipe.send(batch, ()).await? {
                    tally.take(done)?;
                    let rate = tally.points as f64 / began.elapsed().as_secs_f64();
                    bar.set_message(format!("{} points/s", report::thousands(rate)));
                }
            }
        }
        at_ns += slice_ns;
        if args.live {
            while let Some(done) = pipe.next().await? {
                tally.take(done)?;
            }
        }
        bar.set_position(((at_ns.min(storm.end_ns) - storm.start_ns) / MINUTE_NS) as u64);
    }
    while let Some(done) = pipe.next().await? {
        tally.take(done)?;
    }
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    Ok(Figures {
        devices,
        records: tally.records,
        points: tally.points,
        batches: tally.batches,
        seconds,
        points_per_second: tally.points as f64 / seconds,
        acknowledgement: tally.latencies.summary(),
    })
}

#[derive(Debug)]
struct Tally {
    records: u64,
    points: u64,
    batches: u64,
    latencies: Latencies,
}

impl Tally {
    fn take(&mut self, done: Done<()>) -> Result<()> {
        let stored = done.result.map_err(|error| {
            let row = error
                .rows
                .first()
                .map_or(String::new(), |r| format!(" (row {}: {})", r.row, r.message));
            anyhow::anyhow!("a batch was refused: {error}{row}")
        })?;
        self.records += stored.rows;
        self.points += stored.points;
        self.batches += 1;
        self.latencies.record(done.took);
        Ok(())
    }
}

impl Storm {
    fn types(&self, cast: Cast) -> Vec<usize> {
        let plays = |id: &str| self.scenario.play.iter().any(|p| p.device_type == id);
        let all = self.fleet.types.iter().enumerate();
        all.filter(|(_, t)| cast == Cast::All || plays(&t.id))
            .map(|(i, _)| i)
            .collect()
    }
}

/// Every type and device that is registered.
async fn fleet(client: &Client) -> Result<Fleet> {
    let types = client
        .list_device_types(Vec::new())
        .await
        .context("list device types")?;
    let mut fleet = Fleet::new(types);
    let every = v1::ListDevicesRequest::default();
    let mut answer = client.list_devices(every).await.context("list devices")?;
    while let Some(message) = answer.next().await {
        let devices = message.context("list devices")?.devices;
        devices.into_iter().for_each(|device| fleet.add(device));
    }
    ensure!(
        !fleet.devices.is_empty(),
        "no device with a place is registered; {HINT}"
    );
    Ok(fleet)
}

/// Refuses a start that some type keeps no more, before anything is written.
fn keeps<'a>(types: impl Iterator<Item = &'a v1::DeviceType>, start_ns: i64, now_ns: i64) -> Result<()> {
    let shortest = types.filter(|t| t.retention_days > 0).min_by_key(|t| t.retention_days);
    if let Some(t) = shortest
        && now_ns.saturating_sub(start_ns) / DAY_NS >= t.retention_days
    {
        bail!("--start is too long ago: type {} keeps {} days", t.id, t.retention_days);
    }
    Ok(())
}

/// Start and end of the scenario: as asked, or ending now with the start on a whole five minutes.
fn span(start: Option<jiff::Timestamp>, hours: i64, now_ns: i64) -> Result<(i64, i64)> {
    let length_ns = hours * 60 * MINUTE_NS;
    match start {
        Some(start) => {
            let start_ns = i64::try_from(start.as_nanosecond()).context("--start is out of range")?;
            if start_ns % SECOND_NS != 0 {
                bail!("--start must be a whole second");
            }
            Ok((
                start_ns,
                start_ns.checked_add(length_ns).context("--start is out of range")?,
            ))
        }
        None => {
            let start_ns = (now_ns - length_ns).div_euclid(CLOCK_NS) * CLOCK_NS;
            Ok((start_ns, now_ns.div_euclid(SECOND_NS) * SECOND_NS))
        }
    }
}

/// An RFC 3339 time, or `now-` and a span, moved back to a whole five minutes.
fn parse_start(text: &str) -> Result<jiff::Timestamp> {
    let Some(back) = text.strip_prefix("now-") else {
        return Ok(text.parse()?);
    };
    let at = jiff::Timestamp::now().checked_sub(back.parse::<jiff::Span>()?)?;
    Ok(jiff::Timestamp::from_second(
        at.as_second().div_euclid(CLOCK_NS / SECOND_NS) * (CLOCK_NS / SECOND_NS),
    )?)
}

/// Where a live play begins: the last whole five minutes, which a play up to now may have sent, and nothing between is left out.
fn begin_live(start_ns: i64, now_ns: i64) -> i64 {
    start_ns.max(now_ns.div_euclid(CLOCK_NS) * CLOCK_NS)
}

fn time_text(ns: i64) -> Result<String> {
    Ok(jiff::Timestamp::from_nanosecond(i128::from(ns))?.to_string())
}

fn progress(storm: &Storm) -> Result<ProgressBar> {
    let bar = ProgressBar::new(((storm.end_ns - storm.start_ns) / MINUTE_NS) as u64);
    let style = "{bar:30} minute {pos} of {len} of the storm, {msg}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.enable_steady_tick(Duration::from_millis(250));
    Ok(bar)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fixture;
    use super::*;

    const NOW_NS: i64 = 1_718_871_123 * SECOND_NS + 5;

    #[test]
    fn without_a_start_it_ends_now_and_starts_on_the_clock() {
        let (start_ns, end_ns) = span(None, 2, NOW_NS).unwrap();
        assert_eq!((start_ns % CLOCK_NS, end_ns), (0, 1_718_871_123 * SECOND_NS));
        assert!((7_200..7_500).contains(&((end_ns - start_ns) / SECOND_NS)));
    }

    #[test]
    fn a_start_is_taken_as_it_is() {
        let start = "2024-06-20T14:00:00+08:00".parse().unwrap();
        assert_eq!(
            span(Some(start), 1, NOW_NS).unwrap(),
            (1_718_863_200 * SECOND_NS, 1_718_866_800 * SECOND_NS)
        );
    }

    #[test]
    fn a_start_may_be_counted_back_from_now() {
        let (start, now) = (parse_start("now-2h").unwrap(), jiff::Timestamp::now());
        assert_eq!(start.as_second() % 300, 0);
        assert!(
            (7_199..7_502).contains(&(now.as_second() - start.as_second())),
            "{start} {now}"
        );
        assert_eq!(
            parse_start("2024-06-20T14:00:00+08:00").unwrap().as_second(),
            1_718_863_200
        );
        assert!(parse_start("now-soon").is_err() && parse_start("yesterday").is_err());
    }

    #[test]
    fn a_live_play_begins_at_the_last_reading_on_the_clock() {
        assert_eq!(begin_live(0, NOW_NS), 1_718_871_000 * SECOND_NS);
        assert_eq!(
            begin_live(1_718_871_000 * SECOND_NS, 1_718_871_000 * SECOND_NS),
            1_718_871_000 * SECOND_NS
        );
        let to_come_ns = NOW_NS + 5;
        assert_eq!(begin_live(to_come_ns, NOW_NS), to_come_ns);
    }

    #[test]
    fn a_start_before_the_shortest_retention_is_refused() {
        let t = |id: &str, retention_days| v1::DeviceType {
            id: id.to_owned(),
            retention_days,
            ..Default::default()
        };
        let types = [t("long", 400), t("short", 180), t("forever", 0)];
        let refused = |days| keeps(types.iter(), 0, days * DAY_NS).map_err(|e| e.to_string());
        assert_eq!(refused(179), Ok(()));
        let expected = "--start is too long ago: type short keeps 180 days";
        assert_eq!(refused(180), Err(expected.to_owned()));
    }

    #[test]
    fn gauges_are_the_types_that_play_a_part() {
        let storm = Storm::new(fixture::fleet(), Scenario::load(None).unwrap(), 0, MINUTE_NS).unwrap();
        assert_eq!((storm.types(Cast::All).len(), storm.types(Cast::Gauges).len()), (30, 9));
    }
}
