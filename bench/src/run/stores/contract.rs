//! One connection to Tidemark: writes and the seven questions through the client library. Never here: nodes. Invariant: every
//! question and write goes the way of an application: linearizable, fsynced on a majority before the acknowledgement.

use anyhow::{Context, Result, bail};
use tidemark_client::{Client, Value, WriterOptions, latest_rows, v1, value_at};

use crate::run::fleet::{Fleet, Property, START_MS, Type};
use crate::run::question::{Ask, Row, Series, TOP};

const MS: i64 = 1_000_000;
const HOUR_NS: i64 = 3_600_000 * MS;

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    producer: String,
    sequence: u64,
    types: Vec<Type>,
}

impl Session {
    pub(super) fn new(client: Client, fleet: &Fleet) -> Session {
        Session {
            client,
            producer: WriterOptions::default().producer,
            sequence: 0,
            types: fleet.types.clone(),
        }
    }

    pub(super) async fn write(&mut self, batch: v1::Batch) -> Result<()> {
        self.sequence += 1;
        let request = v1::WriteRequest {
            batch: Some(batch),
            producer: self.producer.clone(),
            sequence: self.sequence,
        };
        Ok(self.client.write(request).await.map(drop)?)
    }

    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Vec<Row>> {
        use v1::Function::{Avg, Count, Max, Min, Sum};
        match ask {
            Ask::Raw {
                of,
                device,
                from_ms,
                to_ms,
            } => self.raw(of, *device, *from_ms, *to_ms).await,
            Ask::Hourly {
                of,
                device,
                from_ms,
                to_ms,
            } => {
                let selector = self.device(of, *device)?;
                let request = self.aggregate(of, selector, (*from_ms, *to_ms), &[Avg, Min, Max])?;
                let request = v1::QueryAggregateRequest {
                    window: hours(),
                    ..request
                };
                self.series(request, |_| Some(String::new())).await
            }
            Ask::Latest { type_at, .. } => self.latest(*type_at).await,
            Ask::GroupHour { of, from_ms, to_ms } => {
                let request = self.aggregate(of, self.all(of)?, (*from_ms, *to_ms), &[Max])?;
                let request = v1::QueryAggregateRequest {
                    window: hours(),
                    grouping: Some(v1::Grouping {
                        tags: vec!["town".to_owned()],
                    }),
                    ..request
                };
                self.series(request, |series| series.tags.get("town").cloned()).await
            }
            Ask::Top { of, from_ms, to_ms } => {
                let request = self.aggregate(of, self.all(of)?, (*from_ms, *to_ms), &[Max])?;
                let request = v1::QueryAggregateRequest {
                    top: Some(v1::Top {
                        limit: TOP as u32,
                        lowest: false,
                    }),
                    ..request
                };
                let mut rows = self.series(request, |series| Some(series.device.clone())).await?;
                rows.iter_mut().for_each(|row| row.at_ms = 0);
                Ok(rows)
            }
            Ask::Total { of, from_ms, to_ms } => {
                let request = self.aggregate(of, self.all(of)?, (*from_ms, *to_ms), &[Count, Sum, Max])?;
                let request = v1::QueryAggregateRequest {
                    grouping: Some(v1::Grouping::default()),
                    ..request
                };
                let mut rows = self.series(request, |_| Some(String::new())).await?;
                rows.iter_mut().for_each(|row| row.at_ms = 0);
                Ok(rows)
            }
        }
    }

    fn property(&self, of: &Series) -> Result<(&Type, &Property)> {
        let one = self.types.get(of.type_at).context("no such type")?;
        Ok((one, one.properties.get(of.property).context("no such property")?))
    }

    fn all(&self, of: &Series) -> Result<v1::Selector> {
        Ok(v1::Selector {
            device_type: self.property(of)?.0.id.clone(),
            ..Default::default()
        })
    }

    fn device(&self, of: &Series, device: usize) -> Result<v1::Selector> {
        let device = self.property(of)?.0.devices.get(device).context("no such device")?;
        Ok(v1::Selector {
            device_ids: vec![device.id.clone()],
            ..Default::default()
        })
    }

    fn aggregate(
        &self,
        of: &Series,
        selector: v1::Selector,
        (from_ms, to_ms): (i64, i64),
        functions: &[v1::Function],
    ) -> Result<v1::QueryAggregateRequest> {
        Ok(v1::QueryAggregateRequest {
            selector: Some(selector),
            properties: vec![self.property(of)?.1.id.clone()],
            functions: functions.iter().map(|function| (*function).into()).collect(),
            from_ns: from_ms * MS,
            to_ns: to_ms * MS,
            allow_unlawful: true,
            ..Default::default()
        })
    }

    async fn raw(&self, of: &Series, device: usize, from_ms: i64, to_ms: i64) -> Result<Vec<Row>> {
        let request = v1::QueryRangeRequest {
            selector: Some(self.device(of, device)?),
            properties: vec![self.property(of)?.1.id.clone()],
            from_ns: from_ms * MS,
            to_ns: to_ms * MS,
            // No other store has them.
            without_received_at: true,
            ..Default::default()
        };
        let mut answer = self.client.query_range(request).await?;
        let mut rows = Vec::new();
        while let Some(message) = answer.next().await {
            let batch = message?.batch.unwrap_or_default();
            let values = batch
                .columns
                .first()
                .and_then(|column| column.values.as_ref())
                .context("no column")?;
            for (i, at_ns) in batch.observed_at_ns.iter().enumerate() {
                let v = value_at(values, i).context("no value")?;
                rows.push(Row::new("", at_ns / MS, vec![float(&v, &[])?]));
            }
        }
        Ok(rows)
    }

    async fn latest(&self, type_at: usize) -> Result<Vec<Row>> {
        let one = self.types.get(type_at).context("no such type")?;
        let request = v1::GetLatestRequest {
            selector: Some(v1::Selector {
                device_type: one.id.clone(),
                ..Default::default()
            }),
            in_columns: true,
            ..Default::default()
        };
        let mut answer = self.client.get_latest(request).await?;
        let mut rows = Vec::new();
        while let Some(message) = answer.next().await {
            for row in latest_rows(&message?) {
                let Some(newest) = row.newest else { continue };
                let labels = one
                    .properties
                    .iter()
                    .find(|p| p.id == newest.property)
                    .map_or(&[][..], |p| &p.labels);
                let key = format!("{}/{}", row.device, newest.property);
                rows.push(Row::new(
                    key,
                    newest.observed_at_ns / MS,
                    vec![float(&newest.value, labels)?],
                ));
            }
        }
        Ok(rows)
    }

    async fn series(
        &self,
        request: v1::QueryAggregateRequest,
        key: impl Fn(&v1::AggregateSeries) -> Option<String>,
    ) -> Result<Vec<Row>> {
        let mut answer = self.client.query_aggregate(request).await?;
        let mut rows = Vec::new();
        while let Some(message) = answer.next().await {
            for series in message?.series {
                let key = key(&series).context("no tag")?;
                for (i, start_ns) in series.start_ns.iter().enumerate() {
                    let value = |column: &v1::AggregateColumn| {
                        let v = column
                            .values
                            .as_ref()
                            .and_then(|values| value_at(values, i))
                            .context("no value")?;
                        float(&v, &[])
                    };
                    let values = series.columns.iter().map(value).collect::<Result<_>>()?;
                    rows.push(Row::new(&key, start_ns / MS, values));
                }
            }
        }
        Ok(rows)
    }
}

fn hours() -> Option<v1::Window> {
    Some(v1::Window {
        step_ns: HOUR_NS,
        origin_ns: START_MS * MS,
        length_ns: 0,
        ..Default::default()
    })
}

/// A value as every store has it: truth as 0 or 1, a label as its position.
fn float(value: &Value, labels: &[String]) -> Result<f64> {
    Ok(match value {
        Value::F64(v) => *v,
        Value::I64(v) => *v as f64,
        Value::Bool(v) => f64::from(u8::from(*v)),
        Value::Enum(label) => labels
            .iter()
            .position(|one| one == label)
            .context("a label that is not listed")? as f64,
        Value::Text(text) => bail!("text is not written here: {text}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn values_of_every_kind_become_floats() {
        let labels = ["a".to_owned(), "b".to_owned()];
        let of = |value: Value| float(&value, &labels);
        assert_eq!(of(Value::Enum("b".into())).unwrap(), 1.0);
        assert_eq!(
            (of(Value::Bool(true)).unwrap(), of(Value::I64(-3)).unwrap()),
            (1.0, -3.0)
        );
        assert!(of(Value::Enum("c".into())).is_err() && of(Value::Text("a".into())).is_err());
    }
}
