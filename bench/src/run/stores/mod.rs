//! The stores that a run can be played against, and one connection to each. Never here: a store's language, or what is
//! measured. Invariant: every store is given the same rows and asked the same questions, durably as it comes from its maker.

mod columns;
mod contract;
mod influx;
mod lines;
#[cfg(test)]
mod made;
mod postgres;
mod psql;
mod tidemark;
mod victoria;

use std::path::PathBuf;

use anyhow::Result;
use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;
use tidemark_client::v1;

use super::batches::Batch;
use super::fleet::Fleet;
use super::process::package_version;
use super::question::{Ask, Row};

#[cfg(test)]
pub(crate) use made::Made;

/// The stores by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    Tidemark,
    VictoriaMetrics,
    Influxdb,
    Postgresql,
}

/// Where and how a store runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Folder for its data and logs; empty.
    pub(crate) dir: PathBuf,
    pub(crate) port_base: u16,
    /// Nodes of Tidemark.
    pub(crate) nodes: usize,
    pub(crate) shards: u32,
    pub(crate) tidemarkd: Option<PathBuf>,
}

/// A running store.
#[derive(Debug)]
pub(crate) enum Store {
    Tidemark(tidemark::Tidemark),
    Victoria(victoria::Victoria),
    Influx(influx::Influx),
    Postgres(postgres::Postgres),
}

/// One connection.
#[derive(Debug)]
pub(crate) enum Session {
    Tidemark(contract::Session),
    Victoria(victoria::Session),
    Influx(influx::Session),
    Postgres(Box<postgres::Session>),
    #[cfg(test)]
    Made(Made),
}

/// A batch, ready to go.
#[derive(Debug)]
pub(crate) enum Payload {
    Columns(v1::Batch),
    Lines(Bytes),
    Copy { table: String, rows: Vec<u8> },
}

impl Store {
    /// Starts it with empty data and creates what the fleet needs.
    pub(crate) async fn start(name: Name, place: &Place, fleet: &Fleet) -> Result<Store> {
        std::fs::create_dir_all(&place.dir)?;
        Ok(match name {
            Name::Tidemark => Store::Tidemark(tidemark::Tidemark::start(place, fleet).await?),
            Name::VictoriaMetrics => Store::Victoria(victoria::Victoria::start(place).await?),
            Name::Influxdb => Store::Influx(influx::Influx::start(place).await?),
            Name::Postgresql => Store::Postgres(postgres::Postgres::start(place, fleet).await?),
        })
    }

    /// Whether it is Tidemark, which owes every answer at once, as of what was acknowledged before, and in the order of the
    /// contract.
    pub(crate) fn is_tidemark(&self) -> bool {
        matches!(self, Store::Tidemark(_))
    }

    /// What it says it is.
    pub(crate) async fn version(&self) -> Result<String> {
        match self {
            Store::Tidemark(store) => store.version().await,
            Store::Victoria(_) => package_version("victoria-metrics").await,
            Store::Influx(_) => package_version("influxdb").await,
            Store::Postgres(_) => package_version("postgresql-15").await,
        }
    }

    /// A connection of its own.
    pub(crate) async fn session(&self, fleet: &Fleet) -> Result<Session> {
        Ok(match self {
            Store::Tidemark(store) => Session::Tidemark(store.session(fleet).await?),
            Store::Victoria(store) => Session::Victoria(store.session(fleet)),
            Store::Influx(store) => Session::Influx(store.session(fleet)),
            Store::Postgres(store) => Session::Postgres(Box::new(store.session(fleet)?)),
        })
    }

    /// Process ids of its servers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        match self {
            Store::Tidemark(store) => store.pids(),
            Store::Victoria(store) => store.process.pid().into_iter().collect(),
            Store::Influx(store) => store.process.pid().into_iter().collect(),
            Store::Postgres(store) => store.process.pid().into_iter().collect(),
        }
    }

    /// Has it do now what it would do in time: flush, merge, vacuum. Says what was done. It may be another process after.
    pub(crate) async fn tidy(&mut self) -> Result<&'static str> {
        match self {
            Store::Tidemark(store) => store.tidy().await,
            Store::Victoria(store) => store.tidy().await,
            Store::Influx(store) => store.tidy(),
            Store::Postgres(store) => store.tidy().await,
        }
    }

    /// Bytes that its data takes on disk, and what counts as such.
    pub(crate) fn disk_bytes(&self) -> u64 {
        match self {
            Store::Tidemark(store) => store.disk_bytes(),
            Store::Victoria(store) => store.disk_bytes(),
            Store::Influx(store) => store.disk_bytes(),
            Store::Postgres(store) => store.disk_bytes(),
        }
    }

    /// `kill -9` of every process of it.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        match self {
            Store::Tidemark(store) => store.kill().await,
            Store::Victoria(store) => store.process.kill().await,
            Store::Influx(store) => store.process.kill().await,
            Store::Postgres(store) => store.process.kill().await,
        }
    }

    /// Starts it again on the data it has, and does not wait until it answers.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        match self {
            Store::Tidemark(store) => store.start_again(),
            Store::Victoria(store) => store.process.start_again(),
            Store::Influx(store) => store.process.start_again(),
            Store::Postgres(store) => store.process.start_again(),
        }
    }

    /// Fails when a process of it has ended.
    pub(crate) fn runs(&mut self) -> Result<()> {
        match self {
            Store::Tidemark(store) => store.runs(),
            Store::Victoria(store) => store.process.runs(),
            Store::Influx(store) => store.process.runs(),
            Store::Postgres(store) => store.process.runs(),
        }
    }

    /// Ends it.
    pub(crate) async fn end(self) -> Result<()> {
        match self {
            Store::Tidemark(store) => store.end().await,
            Store::Victoria(mut store) => store.process.stop().await,
            Store::Influx(mut store) => store.process.stop().await,
            Store::Postgres(mut store) => store.process.stop().await,
        }
    }
}

impl Session {
    /// A batch as this store takes it.
    pub(crate) fn encode(&self, fleet: &Fleet, batch: &Batch) -> Payload {
        match self {
            Session::Tidemark(_) => Payload::Columns(columns::columns(fleet, batch)),
            Session::Victoria(_) | Session::Influx(_) => Payload::Lines(lines::lines(fleet, batch)),
            Session::Postgres(_) => postgres::copy(fleet, batch),
            #[cfg(test)]
            Session::Made(_) => Payload::Lines(Bytes::new()),
        }
    }

    /// Stores a batch; back when it is acknowledged.
    pub(crate) async fn write(&mut self, payload: Payload) -> Result<()> {
        match (self, payload) {
            (Session::Tidemark(session), Payload::Columns(batch)) => session.write(batch).await,
            (Session::Victoria(session), Payload::Lines(lines)) => session.write(lines).await,
            (Session::Influx(session), Payload::Lines(lines)) => session.write(lines).await,
            (Session::Postgres(session), Payload::Copy { table, rows }) => session.write(&table, &rows).await,
            _ => anyhow::bail!("a batch of another store"),
        }
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<Vec<Row>> {
        match self {
            Session::Tidemark(session) => session.ask(ask).await,
            Session::Victoria(session) => session.ask(ask).await,
            Session::Influx(session) => session.ask(ask).await,
            Session::Postgres(session) => session.ask(ask).await,
            #[cfg(test)]
            Session::Made(session) => session.ask(ask),
        }
    }
}
