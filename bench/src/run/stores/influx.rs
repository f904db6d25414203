//! InfluxDB 1.x: line protocol in, InfluxQL out. Never here: other stores. Invariant: nothing of the machine's own
//! configuration counts; what differs from the defaults stands here.

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
const DATABASE: &str = "bench";

/// The server.
#[derive(Debug)]
pub(crate) struct Influx {
    pub(super) process: Process,
    address: String,
    dir: std::path::PathBuf,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    http: Http,
    types: Vec<Type>,
}

impl Influx {
    pub(super) async fn start(place: &Place) -> Result<Influx> {
        let address = format!("127.0.0.1:{}", place.port_base);
        let folder = |name: &str| place.dir.join(name).display().to_string();
        let variables = vec![
            ("INFLUXDB_REPORTING_DISABLED", "true".to_owned()),
            ("INFLUXDB_BIND_ADDRESS", format!("127.0.0.1:{}", place.port_base + 1)),
            ("INFLUXDB_HTTP_BIND_ADDRESS", address.clone()),
            ("INFLUXDB_HTTP_LOG_ENABLED", "false".to_owned()),
            ("INFLUXDB_META_DIR", folder("meta")),
            ("INFLUXDB_DATA_DIR", folder("data")),
            ("INFLUXDB_DATA_WAL_DIR", folder("wal")),
            ("INFLUXDB_DATA_QUERY_LOG_ENABLED", "false".to_owned()),
            ("INFLUXDB_DATA_INDEX_VERSION", "tsi1".to_owned()),
            // A fleet of today has more than the defaults allow.
            ("INFLUXDB_DATA_MAX_SERIES_PER_DATABASE", "0".to_owned()),
            ("INFLUXDB_DATA_MAX_VALUES_PER_TAG", "0".to_owned()),
            ("INFLUXDB_HTTP_MAX_BODY_SIZE", "0".to_owned()),
            // It tidies up soon, so that nobody has to wait for hours.
            ("INFLUXDB_DATA_CACHE_SNAPSHOT_WRITE_COLD_DURATION", "10s".to_owned()),
            ("INFLUXDB_DATA_COMPACT_FULL_WRITE_COLD_DURATION", "20s".to_owned()),
            ("INFLUXDB_MONITOR_STORE_ENABLED", "false".to_owned()),
        ];
        let config = place.dir.join("influxdb.conf");
        std::fs::write(&config, "")?;
        let recipe = Recipe {
            program: find("influxd", &[])?,
            arguments: vec!["run".to_owned(), "-config".to_owned(), config.display().to_string()],
            variables,
            log: place.dir.join("log"),
            stop: "-TERM",
        };
        let store = Influx {
            process: Process::start(recipe)?,
            address,
            dir: place.dir.clone(),
        };
        let answers = async || Http::new(&store.address).get("/ping").await.ok();
        until("influxd answers", PATIENCE, answers).await?;
        let create = with_parameters(
            "/query",
            &[("q", &format!("CREATE DATABASE {DATABASE} WITH DURATION INF"))],
        );
        Http::new(&store.address).post(&create, Bytes::new()).await?;
        Ok(store)
    }

    pub(super) fn session(&self, fleet: &Fleet) -> Session {
        Session {
            http: Http::new(&self.address),
            types: fleet.types.clone(),
        }
    }

    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "as the other stores")]
    pub(super) fn tidy(&mut self) -> Result<&'static str> {
        Ok("left alone: compacts what has been cold for 20 s")
    }

    /// Data, index and write-ahead log.
    pub(super) fn disk_bytes(&self) -> u64 {
        folder_bytes(&self.dir.join("data")) + folder_bytes(&self.dir.join("wal"))
    }
}

impl Session {
    pub(super) async fn write(&mut self, lines: Bytes) -> Result<()> {
        self.http
            .post(&format!("/write?db={DATABASE}&precision=ms"), lines)
            .await
            .map(drop)
    }

    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Vec<Row>> {
        let query = self.query(ask)?;
        let path = with_parameters("/query", &[("db", DATABASE), ("epoch", "ms"), ("q", &query)]);
        let answer: Value = serde_json::from_slice(&self.http.get(&path).await?)?;
        rows(ask, &answer)
    }

    fn query(&self, ask: &Ask) -> Result<String> {
        let property = |of: &Series| -> Result<(&str, &str)> {
            let one = self.types.get(of.type_at).context("no such type")?;
            let property = one.properties.get(of.property).context("no such property")?;
            Ok((&one.id, &property.id))
        };
        let device = |of: &Series, device: usize| {
            let one = self.types.get(of.type_at)?;
            Some(one.devices.get(device)?.id.as_str())
        };
        let span = |from: &i64, to: &i64| format!("time >= {from}ms AND time < {to}ms");
        Ok(match ask {
            Ask::Raw {
                of,
                device: at,
                from_ms,
                to_ms,
            } => {
                let (kind, property) = property(of)?;
                let device = device(of, *at).context("no such device")?;
                format!(
                    "SELECT \"{property}\" FROM {kind} WHERE device = '{device}' AND {}",
                    span(from_ms, to_ms)
                )
            }
            Ask::Hourly {
                of,
                device: at,
                from_ms,
                to_ms,
            } => {
                let (kind, p) = property(of)?;
                let device = device(of, *at).context("no such device")?;
                let span = span(from_ms, to_ms);
                format!(
                    "SELECT mean(\"{p}\"), min(\"{p}\"), max(\"{p}\") FROM {kind} WHERE device = '{device}' AND {span} \
                     GROUP BY time(1h) fill(none)"
                )
            }
            Ask::Latest { type_at, until_ms } => {
                let one = self.types.get(*type_at).context("no such type")?;
                format!(
                    "SELECT last(*) FROM {} WHERE time < {until_ms}ms GROUP BY device",
                    one.id
                )
            }
            Ask::GroupHour { of, from_ms, to_ms } => {
                let (kind, p) = property(of)?;
                let span = span(from_ms, to_ms);
                format!("SELECT max(\"{p}\") FROM {kind} WHERE {span} GROUP BY time(1h), town fill(none)")
            }
            Ask::Top { of, from_ms, to_ms } => {
                let (kind, p) = property(of)?;
                let inner = format!(
                    "SELECT max(\"{p}\") FROM {kind} WHERE {} GROUP BY device",
                    span(from_ms, to_ms)
                );
                format!("SELECT top(max, device, {TOP}) FROM ({inner})")
            }
            Ask::Total { of, from_ms, to_ms } => {
                let (kind, p) = property(of)?;
                let span = span(from_ms, to_ms);
                format!("SELECT count(\"{p}\"), sum(\"{p}\"), max(\"{p}\") FROM {kind} WHERE {span}")
            }
        })
    }
}

fn rows(ask: &Ask, answer: &Value) -> Result<Vec<Row>> {
    if let Some(error) = answer.pointer("/results/0/error") {
        bail!("{error}");
    }
    let mut rows = Vec::new();
    let series = answer.pointer("/results/0/series").and_then(Value::as_array);
    for one in series.into_iter().flatten() {
        let columns: Vec<&str> = list(one, "columns")?.iter().filter_map(Value::as_str).collect();
        for line in list(one, "values")? {
            read(ask, one, &columns, line, &mut rows).with_context(|| format!("an answer of another form: {line}"))?;
        }
    }
    Ok(rows)
}

fn read(ask: &Ask, series: &Value, columns: &[&str], line: &Value, rows: &mut Vec<Row>) -> Option<()> {
    let at_ms = line.get(0)?.as_i64()?;
    let number = |at: usize| line.get(at)?.as_f64();
    let tag = |name: &str| series.get("tags")?.get(name)?.as_str();
    match ask {
        Ask::Raw { .. } => rows.push(Row::new("", at_ms, vec![number(1)?])),
        Ask::Hourly { .. } => rows.push(Row::new("", at_ms, vec![number(1)?, number(2)?, number(3)?])),
        Ask::Latest { .. } => {
            let device = tag("device")?;
            for (at, column) in columns.iter().enumerate().skip(1) {
                let property = column.strip_prefix("last_")?;
                rows.push(Row::new(format!("{device}/{property}"), 0, vec![number(at)?]));
            }
        }
        Ask::GroupHour { .. } => rows.push(Row::new(tag("town")?, at_ms, vec![number(1)?])),
        Ask::Top { .. } => rows.push(Row::new(line.get(2)?.as_str()?, 0, vec![number(1)?])),
        Ask::Total { .. } => rows.push(Row::new("", 0, vec![number(1)?, number(2)?, number(3)?])),
    }
    Some(())
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    value
        .get(name)
        .and_then(Value::as_array)
        .with_context(|| format!("no {name}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn answers_are_read() {
        let ask = Ask::Latest {
            type_at: 0,
            until_ms: 0,
        };
        let answer = serde_json::json!({"results": [{"series": [
            {"name": "t", "tags": {"device": "d"}, "columns": ["time", "last_a", "last_b"], "values": [[0, 1, 2.5]]}
        ]}]});
        let expected = [Row::new("d/a", 0, vec![1.0]), Row::new("d/b", 0, vec![2.5])];
        assert_eq!(rows(&ask, &answer).unwrap(), expected);
        assert!(rows(&ask, &serde_json::json!({"results": [{"error": "no"}]})).is_err());
        assert!(rows(&ask, &serde_json::json!({"results": [{}]})).unwrap().is_empty());
    }
}
