//! What a flood-control room keeps open: the gauges of a town by danger, with age and staleness, alerts as they come, rain
//! of the last one and three hours, and a page with a map and charts. What is missing is never shown as zero.
//!
//! `cargo run --example flood_monitor list [-o json]` prints once, `… serve` serves the page on loopback; `FLAGS` has the rest.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde_json::{Value as Json, json};
use tidemark_client::{Client, Error, Subscription, Value, answers_of, latest_rows, v1};
use tokio::sync::watch;

#[path = "flood_monitor/http.rs"]
mod http;
#[path = "flood_monitor/seen.rs"]
mod seen;
#[path = "flood_monitor/show.rs"]
mod show;
#[cfg(test)]
#[path = "flood_monitor/tests.rs"]
mod tests;

/// Asks for `/board` every two seconds and draws it.
const PAGE: &str = include_str!("flood_monitor/page.html");
/// What `--NAME VALUE` may say, and what holds otherwise. Levels: most serious first. Stale: whatever the type promises.
const FLAGS: &str = "endpoint=127.0.0.1:7777 town=danghu type=ponding_gauge property=depth rain-type=rain_gauge \
    rain-property=rain_5min levels=red,orange,yellow,blue stale-after-s=1800 look-every-s=2 port=0 o=table";
/// What a gauge without a level is, in order of danger.
const CALM: [&str; 3] = ["normal", "silent", "never heard"];
/// Lengths of windows: the interval of the type, and two for sums of rain. Charts go back as far as the last.
const LENGTHS_NS: [i64; 3] = [0, 3_600_000_000_000, 3 * 3_600_000_000_000];

type Flags = BTreeMap<&'static str, String>;
/// When it is, what is in it, and how much of what was promised: below 1 a sum is a lower bound.
type Window = (i64, f64, f64);

/// One gauge as it is now.
#[derive(Debug, Clone, Default)]
struct Gauge {
    id: String,
    unit: String,
    interval_s: i64,
    is_summed: bool,
    place: Option<v1::Place>,
    /// None: nothing was ever received.
    value: Option<f64>,
    observed_at_ns: i64,
    stale: bool,
    level: String,
    /// The one that it has its level from.
    alert: Option<v1::Alert>,
    /// For each of `LENGTHS_NS`, without those that have no points.
    windows: [Vec<Window>; 3],
    /// The last of them, where they are sums until now.
    sums: [Option<Window>; 3],
}

struct Monitor {
    client: Client,
    flags: Flags,
    /// What the page shows.
    board: watch::Sender<Json>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let verb = args.next().unwrap_or_default();
    let flags = FLAGS.split(' ').filter_map(|flag| flag.split_once('='));
    let mut flags: Flags = flags.map(|(name, value)| (name, value.to_owned())).collect();
    flags.extend(std::env::var("TIDEMARK_ENDPOINT").map(|endpoint| ("endpoint", endpoint)));
    while let Some(flag) = args.next() {
        let value = flags.get_mut(flag.trim_start_matches('-'));
        let value = value.with_context(|| format!("{flag} is none of {FLAGS}"))?;
        *value = args.next().with_context(|| format!("{flag} wants a value"))?;
    }
    let client = Client::connect(flags["endpoint"].split(',')).await?;
    let levels: Vec<_> = flags["levels"].split(',').collect();
    let board = json!({ "town": flags["town"], "levels": levels, "gauges": [], "steps": [], "trouble": "asking" });
    let board = watch::Sender::new(board);
    let monitor = Monitor { client, flags, board };
    if verb == "serve" {
        let client = monitor.client.clone();
        let post = move |asked| seen::acknowledge(client.clone(), asked);
        let serving = http::serve(monitor.flags["port"].parse()?, PAGE, monitor.board.subscribe(), post);
        return tokio::select! { served = serving => served, ended = monitor.follow() => ended };
    }
    let gauges = monitor.look().await?;
    let line = |gauge: &Gauge| println!("{}", show::line(gauge, now_ns()));
    match (verb.as_str(), monitor.flags["o"].as_str()) {
        ("list", "json") => println!("{}", gauges.iter().map(show::json).collect::<Json>()),
        ("list", "table") => gauges.iter().for_each(line),
        other => anyhow::bail!("{other:?}: list (-o table or json) or serve"),
    }
    Ok(())
}

impl Monitor {
    /// The devices of a type, or all, in the town.
    fn selector(&self, device_type: &str) -> Option<v1::Selector> {
        let town = v1::TagMatcher {
            key: "town".to_owned(),
            values: vec![self.flags["town"].clone()],
        };
        Some(v1::Selector {
            device_type: device_type.to_owned(),
            tags: vec![town],
            ..Default::default()
        })
    }

    /// Every gauge of the town, the most dangerous first. Those of which nothing is known are last, never left out.
    async fn look(&self) -> anyhow::Result<Vec<Gauge>> {
        let mut gauges = self.gauges(&self.flags["type"], &self.flags["property"]).await?;
        let (rain_type, rain) = (&self.flags["rain-type"], &self.flags["rain-property"]);
        gauges.extend(self.gauges(rain_type, rain).await?);
        anyhow::ensure!(!gauges.is_empty(), "no gauge has the tag town={}", self.flags["town"]);
        for alert in self.alerts(seen::most_serious()).await? {
            if let Some(gauge) = gauges.get_mut(&alert.device) {
                (gauge.level, gauge.alert) = (alert.level.clone(), Some(alert));
            }
        }
        let mut gauges: Vec<_> = gauges.into_values().collect();
        by_danger(&mut gauges, |level| self.rank(level));
        Ok(gauges)
    }

    /// All gauges of a type, at their levels.
    async fn gauges(&self, device_type: &str, property: &str) -> anyhow::Result<BTreeMap<String, Gauge>> {
        let types = self.client.list_device_types(vec![device_type.to_owned()]).await?;
        let described = types.first().context("no such type")?;
        let property = described.properties.iter().find(|one| one.id == property);
        let property = property.with_context(|| format!("{} has no such property", described.id))?;
        let is_summed = property.kind() == v1::Kind::Increment;
        let mut gauges = BTreeMap::new();
        let request = v1::ListDevicesRequest {
            selector: self.selector(device_type),
            ..Default::default()
        };
        let (listed, _) = self.client.list_devices(request).await?.collect().await?;
        for device in listed.into_iter().flat_map(|message| message.devices) {
            let gauge = Gauge {
                id: device.id.clone(),
                unit: property.unit.clone(),
                interval_s: described.sample_interval_s.max(1),
                is_summed,
                place: device.place,
                level: CALM[2].to_owned(),
                ..Default::default()
            };
            gauges.insert(device.id, gauge);
        }
        let request = v1::GetLatestRequest {
            selector: self.selector(device_type),
            properties: vec![property.id.clone()],
            stale_after_ms: self.flags["stale-after-s"].parse::<i64>()?.saturating_mul(1_000),
            ..Default::default()
        };
        let (latest, _) = self.client.get_latest(request).await?.collect().await?;
        for row in latest.iter().flat_map(latest_rows) {
            if let (Some(gauge), Some(newest)) = (gauges.get_mut(row.device), row.newest) {
                gauge.value = number(newest.value);
                (gauge.observed_at_ns, gauge.stale) = (newest.observed_at_ns, newest.stale);
                gauge.level = CALM[usize::from(newest.stale)].to_owned();
            }
        }
        // Until the last whole interval; sums end at their last point, all others begin at their first.
        let step_ns = described.sample_interval_s.max(1) * 1_000_000_000;
        let clock_ns = now_ns() / step_ns * step_ns;
        let (lengths, to_ns, function) = match is_summed {
            true => (&LENGTHS_NS[..], clock_ns, v1::Function::Sum),
            false => (&LENGTHS_NS[..1], clock_ns + step_ns, v1::Function::Max),
        };
        for (position, length_ns) in lengths.iter().enumerate() {
            let request = v1::QueryAggregateRequest {
                selector: self.selector(device_type),
                properties: vec![property.id.clone()],
                functions: vec![function.into()],
                from_ns: to_ns - LENGTHS_NS[2],
                to_ns,
                window: Some(v1::Window {
                    step_ns,
                    length_ns: *length_ns,
                    ..Default::default()
                }),
                slots_filled: true,
                ..Default::default()
            };
            let (messages, _) = self.client.query_aggregate(request).await?.collect().await?;
            for series in messages.iter().flat_map(|message| &message.series) {
                if let Some(gauge) = gauges.get_mut(&series.device) {
                    gauge.windows[position] = read(series, is_summed);
                    let last = gauge.windows[position].last().copied();
                    gauge.sums[position] = last.filter(|(at_ns, ..)| is_summed && *at_ns == to_ns);
                }
            }
        }
        Ok(gauges)
    }

    /// Position among all levels, 0 the most serious; one that nobody named is taken for that.
    fn rank(&self, level: &str) -> usize {
        let mut known = self.flags["levels"].split(',').chain(CALM);
        known.position(|known| known == level).unwrap_or(0)
    }

    /// Alerts of the town, those of other types too.
    async fn alerts(&self, asked: v1::ListAlertsRequest) -> Result<Vec<v1::Alert>, Error> {
        let selector = self.selector("");
        let answer = self.client.list_alerts(v1::ListAlertsRequest { selector, ..asked });
        let (messages, _) = answer.await?.collect().await?;
        Ok(messages.into_iter().flat_map(|message| message.alerts).collect())
    }

    /// Looks every few seconds, and at once when an alert changes. A failure is shown, with the time of what was known before.
    async fn follow(&self) -> anyhow::Result<()> {
        let pause = Duration::from_secs(self.flags["look-every-s"].parse()?);
        let mut changes = None;
        loop {
            let shown = self.show().await;
            let heard = tokio::time::timeout(pause, self.hear(&mut changes)).await;
            if let Err(error) = shown.and(heard.unwrap_or(Ok(()))) {
                changes = None;
                self.board
                    .send_modify(|board| board["trouble"] = format!("{error:#}").into());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Puts on the page what is known now.
    async fn show(&self) -> anyhow::Result<()> {
        let (gauges, to_ns) = (self.look().await?, now_ns());
        let history = v1::ListAlertsRequest {
            history: true,
            steps: true,
            from_ns: to_ns - LENGTHS_NS[2],
            to_ns,
            ..Default::default()
        };
        let alerts = self.alerts(history).await?;
        self.board.send_modify(|board| {
            board["gauges"] = gauges.iter().map(show::json).collect();
            board["steps"] = alerts.iter().flat_map(|alert| &alert.steps).map(show::step).collect();
            (board["at_ns"], board["trouble"]) = (to_ns.into(), "".into());
        });
        Ok(())
    }

    /// The next change, or that from now on changes are heard: what came before that is there for another look. A subscription
    /// goes on by itself after a failure, from where it was, as long as it is kept.
    async fn hear(&self, changes: &mut Option<Subscription>) -> anyhow::Result<()> {
        let request = v1::SubscribeRequest {
            selector: self.selector(""),
            alerts: true,
            ..Default::default()
        };
        let Some(begun) = changes else {
            *changes = Some(self.client.subscribe(request).await?);
            return Ok(());
        };
        let mut heard = begun.next().await?;
        while heard.heartbeat {
            heard = begun.next().await?;
        }
        self.board.send_modify(|board| {
            let steps = board["steps"].as_array_mut().into_iter();
            steps.for_each(|steps| steps.extend(heard.alerts.iter().map(show::step)));
        });
        Ok(())
    }
}

fn read(series: &v1::AggregateSeries, is_summed: bool) -> Vec<Window> {
    let times = if is_summed { &series.end_ns } else { &series.start_ns };
    let shares = series.slots_filled.iter().zip(&series.points_promised);
    let shares = shares.map(|(filled, promised)| *filled as f64 / (*promised).max(1) as f64);
    let values = series.columns.iter().flat_map(answers_of);
    let windows = times.iter().zip(shares).zip(values);
    let windows = windows.map(|((at_ns, coverage), value)| Some((*at_ns, number(value?)?, coverage)));
    windows.flatten().collect()
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as i64)
}

fn number(value: Value) -> Option<f64> {
    value.to_string().parse().ok()
}

/// By level, then by value; equal ones stay as they came.
fn by_danger(gauges: &mut [Gauge], rank: impl Fn(&str) -> usize) {
    let key = |gauge: &Gauge| (rank(&gauge.level), gauge.is_summed);
    let value = |gauge: &Gauge| gauge.value.unwrap_or(f64::NEG_INFINITY);
    gauges.sort_by(|a, b| key(a).cmp(&key(b)).then(value(b).total_cmp(&value(a))));
}
