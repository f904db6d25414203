//! One `psql` as a connection to PostgreSQL: statements in, rows out, the same process for the whole session. Never here:
//! which statements. Invariant: an answer ends with its own mark; `psql` that ended is an error with what it said.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Ends every answer.
const MARK: &str = "@@done";

/// A `psql` that waits for statements.
#[derive(Debug)]
pub(super) struct Psql {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Psql {
    pub(super) fn open(program: &Path, port: u16) -> Result<Psql> {
        let mut child = Command::new(program)
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                "bench",
                "-d",
                "postgres",
            ])
            .args(["-p", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Psql { child, input, output })
    }

    /// Runs statements and gives the lines of their rows, fields separated by `|`.
    pub(super) async fn run(&mut self, statements: &str) -> Result<Vec<String>> {
        self.say(format!("{statements}\n\\echo {MARK}\n").as_bytes()).await?;
        self.answer().await
    }

    /// Copies rows in PostgreSQL's text form into a table: one transaction.
    pub(super) async fn copy(&mut self, table: &str, rows: &[u8]) -> Result<()> {
        self.say(format!("COPY {table} FROM STDIN;\n").as_bytes()).await?;
        self.say(rows).await?;
        self.say(format!("\\.\n\\echo {MARK}\n").as_bytes()).await?;
        self.answer().await.map(drop)
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<()> {
        let said = async {
            self.input.write_all(bytes).await?;
            self.input.flush().await
        };
        if said.await.is_err() {
            bail!("psql ended: {}", self.complaint().await);
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).await? == 0 {
                bail!("psql ended: {}", self.complaint().await);
            }
            let line = line.trim_end_matches('\n');
            if line == MARK {
                return Ok(lines);
            }
            lines.push(line.to_owned());
        }
    }

    async fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            // What cannot be read is not told.
            let _ = errors.read_to_string(&mut text).await;
        }
        text.trim().to_owned()
    }
}
