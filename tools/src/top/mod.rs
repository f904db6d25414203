//! `top`: the cluster live on a terminal, or one frame of it as text. Never: numbers (`rates`), layout (`frame`).
//!
//! Invariant: the terminal is as it was before, however the command ends.

mod frame;
mod rates;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tidemark_client::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use self::rates::Rates;
use crate::cli::Context;
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::time::parse_span;

/// A key is seen this fast.
const KEY_POLL: Duration = Duration::from_millis(200);
/// Lines of a frame as text, before empty ones at its end are cut.
const TEXT_LINES_MAX: u16 = 200;
const TEXT_COLUMNS: u16 = 120;

/// How to watch.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Time between two looks
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = parse_every)]
    every: Duration,
    /// Print one frame as text, of two looks, and end
    #[arg(long)]
    once: bool,
}

fn parse_every(text: &str) -> Result<Duration, String> {
    let every = parse_span(text).map(|ns| Duration::from_nanos(ns.unsigned_abs()))?;
    if every < Duration::from_millis(100) {
        return Err(format!("`{text}` is too often: 100ms or more"));
    }
    Ok(every)
}

/// Watches until `q` or Ctrl-C.
pub(crate) async fn run(context: &Context, args: TopArgs) -> Outcome {
    if !context.is_table() {
        let why = "a frame is text for people";
        return Err(Failure::usage("cannot show a live view in another form", why)
            .or_next("tidemark top --once, or tidemark cluster status -o json"));
    }
    let client = context.connect().await?;
    if args.once {
        return once(&client, args.every).await;
    }
    if !std::io::stdout().is_terminal() {
        let why = "standard output is no terminal";
        return Err(Failure::usage("cannot show a live view", why).or_next("tidemark top --once"));
    }
    let mut rates = Rates::default();
    rates.take(client.status().await.or_fail("cannot read the status")?, Instant::now());
    let mut terminal = ratatui::try_init()?;
    let outcome = live(&client, &mut terminal, &mut rates, args.every).await;
    ratatui::restore();
    outcome
}

async fn live(client: &Client, terminal: &mut ratatui::DefaultTerminal, rates: &mut Rates, every: Duration) -> Outcome {
    let mut keys = keys();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut trouble = None;
    loop {
        terminal.draw(|frame| frame::draw(frame, rates, trouble.as_deref()))?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(Key::Redraw) => {}
                Some(Key::Quit) | None => return Ok(()),
            },
            answer = async { ticks.tick().await; client.status().await } => match answer {
                Ok(status) => {
                    rates.take(status, Instant::now());
                    trouble = None;
                }
                Err(error) => trouble = Some(error.message),
            },
        }
    }
}

enum Key {
    Quit,
    Redraw,
}

/// Keys are read on a thread of their own, because reading them blocks; it ends when nobody listens any more.
fn keys() -> mpsc::Receiver<Key> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let sent = match event::poll(KEY_POLL) {
                Ok(false) => Ok(()),
                Ok(true) => match event::read() {
                    Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                        let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                        if ctrl_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                            sender.blocking_send(Key::Quit)
                        } else {
                            Ok(())
                        }
                    }
                    Ok(Event::Resize(..)) => sender.blocking_send(Key::Redraw),
                    Ok(_) => Ok(()),
                    Err(_) => return,
                },
                Err(_) => return,
            };
            if sent.is_err() {
                return;
            }
        }
    });
    receiver
}

/// One frame as text.
async fn once(client: &Client, every: Duration) -> Outcome {
    let mut rates = Rates::default();
    for look in 0..2 {
        if look > 0 {
            sleep(every).await;
        }
        rates.take(client.status().await.or_fail("cannot read the status")?, Instant::now());
    }
    let text = as_text(&rates)?;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn as_text(rates: &Rates) -> Outcome<String> {
    // Memory does not fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(TEXT_COLUMNS, TEXT_LINES_MAX));
    let Ok(_) = terminal.draw(|frame| frame::draw(frame, rates, None));
    let buffer = terminal.backend().buffer();
    let mut lines: Vec<String> = (0..TEXT_LINES_MAX)
        .map(|y| {
            let line: String = (0..TEXT_COLUMNS)
                .filter_map(|x| buffer.cell((x, y)))
                .map(|cell| cell.symbol())
                .collect();
            line.trim_end().to_owned()
        })
        .collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    if lines.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            "cannot draw a frame",
            "it came out empty",
            "",
        ));
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tidemark_client::v1;

    use super::*;

    fn status(points: u64, cpu_ms: u64) -> v1::StatusResponse {
        let node = |id: u64| v1::NodeStatus {
            node: Some(v1::Node {
                id,
                zone: "a".into(),
                ..v1::Node::default()
            }),
            reachable: id < 3,
            replicas: 4,
            leaders: 2,
            disk_bytes: 3 << 30,
            facts: (id < 3).then(|| v1::NodeFacts {
                version: "0.1.0".into(),
                started_at_ns: 1,
                points_written: points * id,
                queries: points / 100,
                cpu_ms,
                memory_bytes: 512 << 20,
                disk_free_bytes: 80 << 30,
                disk_total_bytes: 100 << 30,
                ..v1::NodeFacts::default()
            }),
        };
        v1::StatusResponse {
            cluster_id: "9f86d081884c7d65".into(),
            node_id: 1,
            version: "0.1.0".into(),
            replication_factor: 3,
            nodes: (1..=3).map(node).collect(),
            shards: vec![v1::ShardStatus {
                shard: 1,
                ..v1::ShardStatus::default()
            }],
            problems: vec!["shard 1 has no leader".into()],
            ..v1::StatusResponse::default()
        }
    }

    #[test]
    fn a_frame() {
        let mut rates = Rates::default();
        let begin = Instant::now();
        rates.take(status(0, 0), begin);
        rates.take(status(20_000, 1_500), begin + Duration::from_secs(2));
        insta::assert_snapshot!(as_text(&rates).unwrap());
    }
}
