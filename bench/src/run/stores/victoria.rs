//! VictoriaMetrics: line protocol in, MetricsQL out. Never here: other stores. Invariant: windows are those of the
//! question, [start, end), though MetricsQL's are (start, end]: it is asked one millisecond earlier.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::Value;

use super::Place;
use crate::ops::until;
use crate::run::fleet::{Fleet, Type};
use crate::run::http::{Http, with_parameters};
use crate::run::process::{Process, Recipe, find};
use crate::run::question::{Ask, Row, Series, TOP};
use crate::run::usage::folder_bytes;

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;

/// The server.
#[derive(Debug)]
pub(crate) struct Victoria {
    pub(super) process: Process,
    address: String,
    data: std::path::PathBuf,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    http: Http,
    types: Vec<Type>,
}

impl Victoria {
    pub(super) async fn start(place: &Place) -> Result<Victoria> {
        let address = format!("127.0.0.1:{}", place.port_base);
        let data = place.dir.join("data");
        let recipe = Recipe {
            program: find("victoria-metrics", &[])?,
            arguments: vec![
                format!("-storageDataPath={}", data.display()),
                format!("-httpListenAddr={address}"),
                "-retentionPeriod=100y".to_owned(),
                "-search.latencyOffset=0s".to_owned(),
            ],
            variables: Vec::new(),
            log: place.dir.join("log"),
            stop: "-INT",
        };
        let store = Victoria {
            process: Process::start(recipe)?,
            address,
            data,
        };
        let answers = async || Http::new(&store.address).get("/health").await.ok();
        until("victoria-metrics answers", PATIENCE, answers).await?;
        Ok(store)
    }

    pub(super) fn session(&self, fleet: &Fleet) -> Session {
        Session {
            http: Http::new(&self.address),
            types: fleet.types.clone(),
        }
    }

    pub(super) async fn tidy(&mut self) -> Result<&'static str> {
        let mut http = Http::new(&self.address);
        http.get("/internal/force_flush").await?;
        http.get("/internal/force_merge").await?;
        Ok("flushed and merged by request")
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        folder_bytes(&self.data)
    }
}

impl Session {
    pub(super) async fn write(&mut self, lines: Bytes) -> Result<()> {
        self.http.post("/write?precision=ms", lines).await.map(drop)
    }

    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Vec<Row>> {
        match ask {
            Ask::Raw {
                of,
                device,
                from_ms,
                to_ms,
            } => {
                let selector = self.selector(of, Some(*device))?;
                let (from, to) = (seconds(*from_ms), seconds(*to_ms - 1));
                let path = with_parameters(
                    "/api/v1/export",
                    &[("match[]", &selector), ("start", &from), ("end", &to)],
                );
                raw(&self.http.get(&path).await?)
            }
            Ask::Hourly {
                of,
                device,
                from_ms,
                to_ms,
            } => {
                let query = format!("rollup({}[1h])", self.selector(of, Some(*device))?);
                let series = self.range(&query, *from_ms, *to_ms).await?;
                hourly(&series)
            }
            Ask::Latest { type_at, until_ms } => {
                let one = self.types.get(*type_at).context("no such type")?;
                // No device is farther behind than an interval.
                let back_s = 2 * one.interval_s;
                let query = format!("last_over_time({{__name__=~\"{}_.*\"}}[{back_s}s])", one.id);
                let begin = format!("{}_", one.id);
                let series = self.instant(&query, *until_ms).await?;
                let row = |one: &Value| {
                    let name = text(one, "__name__")?;
                    let key = format!("{}/{}", text(one, "device")?, name.strip_prefix(&begin)?);
                    Some(Row::new(key, 0, vec![sample(one.get("value")?)?.1]))
                };
                series
                    .iter()
                    .map(row)
                    .collect::<Option<_>>()
                    .context("latest: an answer of another form")
            }
            Ask::GroupHour { of, from_ms, to_ms } => {
                let query = format!("max(max_over_time({}[1h])) by (town)", self.selector(of, None)?);
                let mut rows = Vec::new();
                for one in self.range(&query, *from_ms, *to_ms).await? {
                    let town = text(&one, "town").context("no town")?.to_owned();
                    for (at_ms, v) in samples(&one)? {
                        rows.push(Row::new(&town, at_ms + 1 - HOUR_MS, vec![v]));
                    }
                }
                Ok(rows)
            }
            Ask::Top { of, from_ms, to_ms } => {
                let selector = self.selector(of, None)?;
                let query = format!("topk({TOP}, max_over_time({selector}[{}ms]))", to_ms - from_ms);
                let series = self.instant(&query, *to_ms).await?;
                let row = |one: &Value| Some(Row::new(text(one, "device")?, 0, vec![sample(one.get("value")?)?.1]));
                series
                    .iter()
                    .map(row)
                    .collect::<Option<_>>()
                    .context("top: an answer of another form")
            }
            Ask::Total { of, from_ms, to_ms } => self.total(of, *from_ms, *to_ms).await,
        }
    }

    async fn total(&mut self, of: &Series, from_ms: i64, to_ms: i64) -> Result<Vec<Row>> {
        let (selector, span_ms) = (self.selector(of, None)?, to_ms - from_ms);
        let query = format!(
            "union(sum(aggr_over_time((\"count_over_time\",\"sum_over_time\"), {selector}[{span_ms}ms])) by (rollup), \
             label_set(max(max_over_time({selector}[{span_ms}ms])), \"rollup\", \"max\"))"
        );
        let series = self.instant(&query, to_ms).await?;
        let of = |name: &str| {
            let one = series.iter().find(|one| text(one, "rollup") == Some(name))?;
            Some(sample(one.get("value")?)?.1)
        };
        let values = ["count_over_time", "sum_over_time", "max"].map(of);
        let values: Option<Vec<f64>> = values.into_iter().collect();
        Ok(vec![Row::new(
            "",
            0,
            values.context("total: an answer of another form")?,
        )])
    }

    fn selector(&self, of: &Series, device: Option<usize>) -> Result<String> {
        let one = self.types.get(of.type_at).context("no such type")?;
        let property = one.properties.get(of.property).context("no such property")?;
        let name = format!("{}_{}", one.id, property.id);
        Ok(match device {
            Some(device) => format!(
                "{name}{{device=\"{}\"}}",
                one.devices.get(device).context("no such device")?.id
            ),
            None => name,
        })
    }

    /// Values at the end of every hour; nothing is cached.
    async fn range(&mut self, query: &str, from_ms: i64, to_ms: i64) -> Result<Vec<Value>> {
        let (start, end) = (seconds(from_ms + HOUR_MS - 1), seconds(to_ms - 1));
        let parameters = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", "1h"),
            ("nocache", "1"),
        ];
        self.series(&with_parameters("/api/v1/query_range", &parameters)).await
    }

    async fn instant(&mut self, query: &str, at_ms: i64) -> Result<Vec<Value>> {
        let time = seconds(at_ms - 1);
        let parameters = [("query", query), ("time", &time), ("step", "1h"), ("nocache", "1")];
        self.series(&with_parameters("/api/v1/query", &parameters)).await
    }

    async fn series(&mut self, path: &str) -> Result<Vec<Value>> {
        let mut answer: Value = serde_json::from_slice(&self.http.get(path).await?)?;
        match answer.pointer_mut("/data/result").map(Value::take) {
            Some(Value::Array(series)) => Ok(series),
            _ => bail!("an answer of another form: {answer}"),
        }
    }
}

/// Lines of exported series: values and timestamps side by side.
fn raw(body: &[u8]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line)?;
        let list = |name: &str| {
            line.get(name)
                .and_then(Value::as_array)
                .context("raw: an answer of another form")
        };
        for (at, v) in list("timestamps")?.iter().zip(list("values")?) {
            let (at, v) = (at.as_i64().context("a time")?, v.as_f64().context("a value")?);
            rows.push(Row::new("", at, vec![v]));
        }
    }
    Ok(rows)
}

fn hourly(series: &[Value]) -> Result<Vec<Row>> {
    let of = |name: &str| {
        let one = series.iter().find(|one| text(one, "rollup") == Some(name));
        one.map_or(Ok(Vec::new()), samples)
    };
    let (avg, min, max) = (of("avg")?, of("min")?, of("max")?);
    let together = avg.iter().zip(&min).zip(&max);
    Ok(together
        .map(|((avg, min), max)| Row::new("", avg.0 + 1 - HOUR_MS, vec![avg.1, min.1, max.1]))
        .collect())
}

fn text<'a>(one: &'a Value, label: &str) -> Option<&'a str> {
    one.get("metric")?.get(label)?.as_str()
}

fn samples(one: &Value) -> Result<Vec<(i64, f64)>> {
    let values = one.get("values").and_then(Value::as_array).context("no values")?;
    values
        .iter()
        .map(sample)
        .collect::<Option<_>>()
        .context("a sample of another form")
}

/// `[seconds, "value"]`.
fn sample(pair: &Value) -> Option<(i64, f64)> {
    let at_ms = (pair.get(0)?.as_f64()? * 1_000.0).round() as i64;
    Some((at_ms, pair.get(1)?.as_str()?.parse().ok()?))
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1_000), ms.rem_euclid(1_000))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn answers_are_read() {
        let rows = raw(b"{\"metric\":{},\"values\":[1,2.5],\"timestamps\":[1000,2000]}\n").unwrap();
        assert_eq!(rows, [Row::new("", 1000, vec![1.0]), Row::new("", 2000, vec![2.5])]);
        let one = |name: &str, v: &str| serde_json::json!({"metric": {"rollup": name}, "values": [[3599.999, v]]});
        let rows = hourly(&[one("min", "1"), one("max", "3"), one("avg", "2")]).unwrap();
        assert_eq!(rows, [Row::new("", 0, vec![2.0, 1.0, 3.0])]);
        assert_eq!(seconds(1_790_812_799_999), "1790812799.999");
    }
}
