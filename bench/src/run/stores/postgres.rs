//! PostgreSQL: a table per type, a row per record, COPY in and SQL out. Never here: the connection. Invariant: durable as it
//! comes (fsync and synchronous_commit are on); times are milliseconds in a bigint, so that no calendar costs anything.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use super::psql::Psql;
use super::{Payload, Place};
use crate::ops::until;
use crate::run::batches::Batch;
use crate::run::fleet::{Fleet, Type, ValueType};
use crate::run::process::{Process, Recipe, find};
use crate::run::question::{Ask, Row, Series, TOP};
use crate::run::usage::folder_bytes;
use crate::run::value::value;

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;
/// Where Debian puts programs of the server.
const FOLDERS: &[&str] = &[
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
];
/// The account that the server runs as where this program is root, which PostgreSQL refuses to be.
const ACCOUNT: &str = "postgres";

/// The server.
#[derive(Debug)]
pub(crate) struct Postgres {
    pub(super) process: Process,
    psql: PathBuf,
    port: u16,
    data: PathBuf,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    psql: Psql,
    types: Vec<Type>,
}

impl Postgres {
    pub(super) async fn start(place: &Place, fleet: &Fleet) -> Result<Postgres> {
        let (data, port) = (place.dir.join("data"), place.port_base);
        let root = std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)?;
        // Started in the same process, so that its id stays that of the server.
        let as_account: &[&str] = if root {
            &["setpriv", "--reuid", ACCOUNT, "--regid", ACCOUNT, "--clear-groups"]
        } else {
            &[]
        };
        if root {
            run(&["chown", ACCOUNT, &place.dir.display().to_string()]).await?;
        }
        let (initdb, folder) = (
            find("initdb", FOLDERS)?.display().to_string(),
            data.display().to_string(),
        );
        let make = [
            initdb.as_str(),
            "-D",
            folder.as_str(),
            "-U",
            "bench",
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C",
        ];
        run(&[as_account, &make].concat()).await?;
        let server = find("postgres", FOLDERS)?.display().to_string();
        let settings = [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "shared_buffers=256MB".to_owned(),
            "max_wal_size=4GB".to_owned(),
            "jit=off".to_owned(),
        ];
        let mut words: Vec<String> = as_account.iter().map(|word| (*word).to_owned()).collect();
        words.extend([server, "-D".to_owned(), folder]);
        words.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let recipe = Recipe {
            program: find(&words.remove(0), &[])?,
            arguments: words,
            variables: Vec::new(),
            log: place.dir.join("log"),
            stop: "-INT",
        };
        let mut store = Postgres {
            process: Process::start(recipe)?,
            psql: find("psql", FOLDERS)?,
            port,
            data,
        };
        let answers = async || Psql::open(&store.psql, port).ok()?.run("SELECT 1;").await.ok();
        until("postgres answers", PATIENCE, answers).await?;
        store.process.runs()?;
        store.create(fleet).await?;
        Ok(store)
    }

    async fn create(&self, fleet: &Fleet) -> Result<()> {
        let mut text = "CREATE TABLE device (id int PRIMARY KEY, type text, name text, town text);\n".to_owned();
        let mut devices = Vec::new();
        for (type_at, one) in fleet.types.iter().enumerate() {
            let columns = one.properties.iter().map(|property| {
                let sql = match property.value_type {
                    ValueType::F64 => "float8",
                    ValueType::I64 => "int",
                    ValueType::Bool | ValueType::Enum => "smallint",
                };
                format!(", \"{}\" {sql}", property.id)
            });
            let columns: String = columns.collect();
            writeln!(
                text,
                "CREATE TABLE {} (device int, at bigint{columns}, PRIMARY KEY (device, at));",
                one.id
            )?;
            // Rows come by time: a few bytes that find a day among all.
            writeln!(text, "CREATE INDEX ON {} USING brin (at);", one.id)?;
            for (at, device) in one.devices.iter().enumerate() {
                writeln!(
                    Text(&mut devices),
                    "{}\t{}\t{}\t{}",
                    number(type_at, at),
                    one.id,
                    device.id,
                    device.town
                )?;
            }
        }
        let mut psql = Psql::open(&self.psql, self.port)?;
        psql.run(&text).await?;
        psql.copy("device", &devices).await?;
        psql.run("CREATE INDEX ON device (type); ANALYZE device;")
            .await
            .map(drop)
    }

    pub(super) fn session(&self, fleet: &Fleet) -> Result<Session> {
        Ok(Session {
            psql: Psql::open(&self.psql, self.port)?,
            types: fleet.types.clone(),
        })
    }

    pub(super) async fn tidy(&mut self) -> Result<&'static str> {
        Psql::open(&self.psql, self.port)?
            .run("VACUUM ANALYZE; CHECKPOINT;")
            .await?;
        Ok("VACUUM ANALYZE; CHECKPOINT by request")
    }

    /// Tables and indexes; the write-ahead log, whose files are used again, is left out.
    pub(super) fn disk_bytes(&self) -> u64 {
        folder_bytes(&self.data.join("base"))
    }
}

/// Bytes that are written to as text.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

async fn run(words: &[&str]) -> Result<()> {
    let [program, arguments @ ..] = words else {
        bail!("no program")
    };
    let done = Command::new(program).args(arguments).output().await?;
    ensure!(
        done.status.success(),
        "{}: {}",
        words.join(" "),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// Number of a device in the database.
fn number(type_at: usize, device: usize) -> usize {
    type_at * 10_000_000 + device
}

/// A batch as COPY takes it.
pub(super) fn copy(fleet: &Fleet, batch: &Batch) -> Payload {
    let mut rows = Vec::with_capacity(batch.len() * 60);
    let Some(one) = fleet.types.get(batch.type_at) else {
        return Payload::Copy {
            table: String::new(),
            rows,
        };
    };
    for row in batch.rows() {
        let Some(device) = one.devices.get(row.device) else {
            continue;
        };
        let mut text = Text(&mut rows);
        // Writing to a vector does not fail.
        let _ = write!(
            text,
            "{}\t{}",
            number(batch.type_at, row.device),
            one.at_ms(device, row.slot)
        );
        for property in &one.properties {
            let _ = write!(text, "\t{}", value(device, property, row.slot, one.interval_s));
        }
        rows.push(b'\n');
    }
    Payload::Copy {
        table: one.id.clone(),
        rows,
    }
}

impl Session {
    pub(super) async fn write(&mut self, table: &str, rows: &[u8]) -> Result<()> {
        self.psql.copy(table, rows).await
    }

    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Vec<Row>> {
        let lines = self.psql.run(&self.statement(ask)?).await?;
        let mut rows = Vec::with_capacity(lines.len());
        for line in &lines {
            let fields: Vec<&str> = line.split('|').collect();
            self.read(ask, &fields, &mut rows)
                .with_context(|| format!("an answer of another form: {line}"))?;
        }
        Ok(rows)
    }

    fn statement(&self, ask: &Ask) -> Result<String> {
        let property = |of: &Series| -> Result<(&str, &str)> {
            let one = self.types.get(of.type_at).context("no such type")?;
            let property = one.properties.get(of.property).context("no such property")?;
            Ok((&one.id, &property.id))
        };
        let hour = format!("at - at % {HOUR_MS}");
        Ok(match ask {
            Ask::Raw {
                of,
                device,
                from_ms,
                to_ms,
            } => {
                let ((table, p), device) = (property(of)?, number(of.type_at, *device));
                format!(
                    "SELECT at, \"{p}\" FROM {table} WHERE device = {device} AND at >= {from_ms} AND at < {to_ms} ORDER BY at;"
                )
            }
            Ask::Hourly {
                of,
                device,
                from_ms,
                to_ms,
            } => {
                let ((table, p), device) = (property(of)?, number(of.type_at, *device));
                format!(
                    "SELECT {hour}, avg(\"{p}\"), min(\"{p}\"), max(\"{p}\") FROM {table} WHERE device = {device} AND \
                     at >= {from_ms} AND at < {to_ms} GROUP BY 1;"
                )
            }
            Ask::Latest { type_at, until_ms } => {
                let one = self.types.get(*type_at).context("no such type")?;
                let columns: String = one.properties.iter().map(|p| format!(", l.\"{}\"", p.id)).collect();
                format!(
                    "SELECT d.name, l.at{columns} FROM device d CROSS JOIN LATERAL (SELECT * FROM {0} t WHERE \
                     t.device = d.id AND at < {until_ms} ORDER BY at DESC LIMIT 1) l WHERE d.type = '{0}';",
                    one.id
                )
            }
            Ask::GroupHour { of, from_ms, to_ms } => {
                let (table, p) = property(of)?;
                format!(
                    "SELECT town, {hour}, max(\"{p}\") FROM {table} t JOIN device d ON d.id = t.device WHERE \
                     at >= {from_ms} AND at < {to_ms} GROUP BY 1, 2;"
                )
            }
            Ask::Top { of, from_ms, to_ms } => {
                let (table, p) = property(of)?;
                format!(
                    "SELECT d.name, m FROM (SELECT device, max(\"{p}\") m FROM {table} WHERE at >= {from_ms} AND \
                     at < {to_ms} GROUP BY 1 ORDER BY 2 DESC LIMIT {TOP}) t JOIN device d ON d.id = t.device;"
                )
            }
            Ask::Total { of, from_ms, to_ms } => {
                let (table, p) = property(of)?;
                format!(
                    "SELECT count(\"{p}\"), sum(\"{p}\"), max(\"{p}\") FROM {table} WHERE at >= {from_ms} AND at < {to_ms};"
                )
            }
        })
    }

    fn read(&self, ask: &Ask, fields: &[&str], rows: &mut Vec<Row>) -> Option<()> {
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let at_ms = |at: usize| fields.get(at)?.parse::<i64>().ok();
        match ask {
            Ask::Raw { .. } => rows.push(Row::new("", at_ms(0)?, vec![number(1)?])),
            Ask::Hourly { .. } => rows.push(Row::new("", at_ms(0)?, vec![number(1)?, number(2)?, number(3)?])),
            Ask::Latest { type_at, .. } => {
                for (i, property) in self.types.get(*type_at)?.properties.iter().enumerate() {
                    let key = format!("{}/{}", fields.first()?, property.id);
                    rows.push(Row::new(key, at_ms(1)?, vec![number(i + 2)?]));
                }
            }
            Ask::GroupHour { .. } => rows.push(Row::new(*fields.first()?, at_ms(1)?, vec![number(2)?])),
            Ask::Top { .. } => rows.push(Row::new(*fields.first()?, 0, vec![number(1)?])),
            Ask::Total { .. } => rows.push(Row::new("", 0, vec![number(0)?, number(1)?, number(2)?])),
        }
        Some(())
    }
}
