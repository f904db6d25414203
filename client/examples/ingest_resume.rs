//! An import that survives anything: a broken connection, a lost leader, its own death. Kill it or a node, start it again:
//! it goes on where it stopped, and every batch is stored once.
//!
//! `cargo run --example ingest_resume TYPE PROPERTY [BATCHES] [STATE_FILE] [ENDPOINTS]`: writes made-up values of a float
//! property, one row a second, a hundred rows a batch.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use tidemark_client::{Ack, BatchBuilder, Client, ErrorKind, WriterOptions, v1};

const ROWS: i64 = 100;
const SECOND_NS: i64 = 1_000_000_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let device_type = args.next().context("which device type?")?;
    let property = args.next().context("which property of it, of floats?")?;
    let batches: u64 = args.next().map_or(Ok(100), |text| text.parse())?;
    let state_file = args.next().unwrap_or_else(|| "ingest_resume.state".to_owned());
    let endpoints = args.next().or_else(|| std::env::var("TIDEMARK_ENDPOINT").ok());
    let endpoints = endpoints.unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let client = Client::connect(endpoints.split(',')).await?;
    let device = "ingest-resume-1";
    let registered = v1::Device {
        id: device.to_owned(),
        device_type: device_type.clone(),
        ..v1::Device::default()
    };
    client.register_devices(vec![registered]).await?;

    // The same sequence must always mean the same batch, so everything a batch is made of is kept.
    let mut progress = Progress::load(&state_file, batches)?;
    let mut writer = client.writer(WriterOptions {
        producer: progress.producer.clone(),
        first_sequence: progress.done + 1,
        give_up_after: Duration::from_secs(60),
        ..WriterOptions::default()
    });
    println!("going on at batch {} of {batches}", progress.done + 1);
    for sequence in progress.done + 1..=batches {
        let mut batch = BatchBuilder::new(&device_type);
        for row in 0..ROWS {
            let second = (i64::try_from(sequence)? - 1) * ROWS + row;
            batch
                .row(device, progress.begin_ns + second * SECOND_NS)
                .set(&property, (second % 50) as f64 / 100.0);
        }
        writer.send(batch.build()?).await?;
        while let Some(ack) = writer.try_next_ack() {
            progress.take(ack, &state_file)?;
        }
    }
    for ack in writer.finish().await? {
        progress.take(ack, &state_file)?;
    }
    println!("all {batches} batches are stored");
    Ok(())
}

/// What is stored for certain.
struct Progress {
    producer: String,
    begin_ns: i64,
    /// Every batch up to this one is stored.
    done: u64,
    /// Stored, with a gap before.
    ahead: BTreeSet<u64>,
}

impl Progress {
    fn load(file: &str, batches: u64) -> anyhow::Result<Self> {
        if let Ok(text) = fs::read_to_string(file) {
            let mut words = text.split_whitespace();
            let mut word = || words.next().with_context(|| format!("{file} is no state file"));
            let (producer, begin_ns, done) = (word()?.to_owned(), word()?.parse()?, word()?.parse()?);
            return Ok(Self {
                producer,
                begin_ns,
                done,
                ahead: BTreeSet::new(),
            });
        }
        let now_ns = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
        let begin_ns = now_ns - i64::try_from(batches)? * ROWS * SECOND_NS;
        let progress = Self {
            producer: WriterOptions::default().producer,
            begin_ns,
            done: 0,
            ahead: BTreeSet::new(),
        };
        progress.save(file)?;
        Ok(progress)
    }

    /// By way of a second file, so that a crash leaves the old state or the new, never half of one.
    fn save(&self, file: &str) -> anyhow::Result<()> {
        let new = format!("{file}.new");
        fs::write(&new, format!("{} {} {}\n", self.producer, self.begin_ns, self.done))?;
        Ok(fs::rename(new, file)?)
    }

    fn take(&mut self, ack: Ack, file: &str) -> anyhow::Result<()> {
        match ack.result {
            Ok(stored) => {
                let again = if stored.duplicate {
                    ", had been stored before"
                } else {
                    ""
                };
                println!("batch {}: {} rows stored{again}", ack.sequence, stored.rows);
            }
            Err(error) if error.kind == ErrorKind::Fix => anyhow::bail!("batch {} is refused: {error}", ack.sequence),
            Err(error) => anyhow::bail!("batch {}: {error}; start again to go on", ack.sequence),
        }
        self.ahead.insert(ack.sequence);
        while self.ahead.remove(&(self.done + 1)) {
            self.done += 1;
        }
        self.save(file)
    }
}
