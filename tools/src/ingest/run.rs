//! The loop of a run: chunks in from a reading thread, batches out, acknowledgements back, progress saved. Never: what to send
//! next or what an answer means for the books (`flow`).
//!
//! Invariant: a decision about a refused batch is on disk before it is acted on; acknowledged batches are on disk within
//! `SAVE_EVERY` or `SAVE_ACKS`, well inside the 256 sequences that a shard remembers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tidemark_client::{Ack, Client, Error, ErrorKind, Writer, WriterOptions, v1};
use tokio::sync::mpsc;

use super::chunk::{Chunk, Cutter};
use super::flow::{Flow, RestBatch};
use super::progress::{Progress, Reached};
use super::register::Registrar;
use super::state::Totals;
use super::values::Typed;
use crate::cli::Context;
use crate::failure::{Exit, Failure, OrFail, Outcome, Refusal};
use crate::output::Cell;

/// Acknowledged batches reach the progress file at least this often.
const SAVE_EVERY: Duration = Duration::from_millis(250);
/// And after this many of them.
const SAVE_ACKS: u32 = 32;
/// Chunks read ahead or not done.
const OPEN_CHUNKS_MAX: usize = 3;
/// After an interrupt, batches in flight get this long to be acknowledged.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Everything a run needs.
pub(crate) struct Job {
    pub(crate) client: Client,
    pub(crate) flow: Flow,
    pub(crate) cutter: Cutter,
    pub(crate) types: Vec<Typed>,
    pub(crate) state_path: Option<PathBuf>,
    /// None: nothing is registered.
    pub(crate) registrar: Option<Registrar>,
    pub(crate) in_flight: usize,
    pub(crate) give_up_after: Duration,
    pub(crate) file: String,
}

type RestAnswer = (u64, u64, Result<v1::WriteResponse, Error>);

struct Run {
    client: Client,
    flow: Flow,
    writer: Writer,
    types: Vec<Typed>,
    state_path: Option<PathBuf>,
    registrar: Option<Registrar>,
    in_flight: usize,
    rests: FuturesUnordered<BoxFuture<'static, RestAnswer>>,
    rest_producer: String,
    outstanding: usize,
    points: u64,
    acks_unsaved: u32,
    saved_at: Instant,
    progress: Progress,
}

/// How the loop ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum End {
    Complete,
    Interrupted,
}

/// Runs the job to its end and reports.
pub(crate) async fn run(context: &Context, job: Job) -> Outcome {
    let started = Instant::now();
    let before = job.flow.totals();
    let chunks = read_ahead(job.cutter);
    let producer = job.flow.producer().to_owned();
    let options = WriterOptions {
        producer: producer.clone(),
        first_sequence: job.flow.first_sequence(),
        max_in_flight: job.in_flight,
        give_up_after: job.give_up_after,
        ..WriterOptions::default()
    };
    let size = std::fs::metadata(&job.file)
        .ok()
        .filter(std::fs::Metadata::is_file)
        .map(|data| data.len());
    let mut run = Run {
        writer: job.client.writer(options),
        client: job.client,
        flow: job.flow,
        types: job.types,
        state_path: job.state_path,
        registrar: job.registrar,
        in_flight: job.in_flight,
        rests: FuturesUnordered::new(),
        rest_producer: format!("{producer}.rest"),
        outstanding: 0,
        points: 0,
        acks_unsaved: 0,
        saved_at: started,
        progress: Progress::new(size, context.style.format.is_json(), started),
    };
    let ended = run.pump(chunks, &job.file).await;
    let saved = run.save();
    run.progress.clear();
    let seconds = started.elapsed().as_secs_f64();
    let again = match run.state_path {
        Some(_) => "the same command again: it goes on where this run stopped",
        None => "the same command again: it begins anew (no progress file)",
    };
    let end = ended.map_err(|failure| advise(failure, again))?;
    saved?;
    summary(context, &run.flow, before, run.points, seconds)?;
    let rejected = run.flow.totals().rejected;
    if end == End::Interrupted {
        return Err(Failure::new(Exit::Interrupted, "interrupted", "", again));
    }
    if let Some(path) = &run.state_path {
        // The run is complete: a progress file left behind would only say so.
        let _ = std::fs::remove_file(path);
    }
    if rejected > 0 {
        let what = format!("{rejected} rows were rejected, all others are stored");
        let why = run.flow.reject_reasons();
        let register = match why.contains("UNKNOWN_DEVICE") {
            true => "; --register registers devices of the file that the store does not know",
            false => "",
        };
        let next = format!("look at {}{register}", run.flow.rejects_path());
        return Err(Failure::new(Exit::Partial, what, why, next));
    }
    Ok(())
}

/// What to run next. Where the store was away, for longer than a run waits, neither its advice nor a longer wait is needed.
fn advise(failure: Failure, again: &str) -> Failure {
    match failure.exit() {
        Exit::Unavailable | Exit::TimedOut => failure.next(again),
        _ => failure.or_next(again),
    }
}

/// Cuts the file on a thread of its own, a chunk ahead.
fn read_ahead(mut cutter: Cutter) -> mpsc::Receiver<std::io::Result<Chunk>> {
    let (send, receive) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        loop {
            let chunk = match cutter.next_chunk() {
                Ok(Some(chunk)) => Ok(chunk),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let stop = chunk.is_err();
            if send.blocking_send(chunk).is_err() || stop {
                return;
            }
        }
    });
    receive
}

/// Waits for the first interrupt (Ctrl-C) or request to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

impl Run {
    async fn pump(&mut self, mut chunks: mpsc::Receiver<std::io::Result<Chunk>>, file: &str) -> Outcome<End> {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut at_end = false;
        let mut stop_at: Option<Instant> = None;
        let interrupt = interrupted();
        tokio::pin!(interrupt);
        loop {
            if stop_at.is_none() {
                self.send().await?;
            }
            if self.outstanding == 0 && self.rests.is_empty() {
                if stop_at.is_some() {
                    return Ok(End::Interrupted);
                }
                if at_end && self.flow.open_chunks() == 0 {
                    return Ok(End::Complete);
                }
            }
            let wants_chunk = !at_end && stop_at.is_none() && self.flow.open_chunks() < OPEN_CHUNKS_MAX;
            tokio::select! {
                ack = self.writer.next_ack(), if self.outstanding > 0 => self.acknowledged(ack)?,
                Some(answer) = self.rests.next(), if !self.rests.is_empty() => self.rest_answered(answer)?,
                chunk = chunks.recv(), if wants_chunk => match chunk {
                    Some(Ok(chunk)) => {
                        if let Some(registrar) = &mut self.registrar {
                            let progress = &self.progress;
                            registrar.register(&chunk, &self.types, |text| progress.say(text)).await?;
                        }
                        self.flow.offer(chunk)?;
                    }
                    Some(Err(error)) => return Err(Failure::file("read", file, &error)),
                    None => at_end = true,
                },
                () = &mut interrupt, if stop_at.is_none() => {
                    self.progress.say("interrupted: waiting for batches in flight");
                    stop_at = Some(Instant::now() + STOP_WAIT);
                }
                _ = tick.tick() => self.tick()?,
            }
            if stop_at.is_some_and(|at| Instant::now() >= at) {
                return Ok(End::Interrupted);
            }
        }
    }

    /// Sends batches while there is room: rests take theirs too, and a file of which nothing is stored yet gets one at a time.
    async fn send(&mut self) -> Outcome {
        let room = if self.flow.is_proven() { self.in_flight } else { 1 };
        while self.outstanding + self.rests.len() < room {
            let Some((sequence, batch)) = self.flow.next_batch() else {
                break;
            };
            let given = self.writer.send(batch).await.or_fail("cannot send to the store")?;
            if given != sequence {
                let why = format!("batch {sequence} was numbered {given}");
                return Err(Failure::new(
                    Exit::Failed,
                    "batches are out of step",
                    why,
                    "report this defect",
                ));
            }
            self.outstanding += 1;
        }
        Ok(())
    }

    fn acknowledged(&mut self, ack: Option<Ack>) -> Outcome {
        let Some(ack) = ack else {
            let why = "the writer stopped without an answer";
            return Err(Failure::new(Exit::Unavailable, "cannot send to the store", why, ""));
        };
        self.outstanding -= 1;
        match ack.result {
            Ok(stored) => {
                self.points += stored.points;
                self.flow.stored(ack.sequence, true)?;
                self.count_ack()
            }
            Err(error) => self.refused(ack.sequence, 0, error),
        }
    }

    fn rest_answered(&mut self, (batch, sequence, result): RestAnswer) -> Outcome {
        match result {
            Ok(stored) => {
                self.points += stored.points;
                self.flow.stored(batch, false)?;
                self.count_ack()
            }
            Err(error) => self.refused(batch, sequence, error),
        }
    }

    fn refused(&mut self, batch: u64, rest: u64, error: Error) -> Outcome {
        if error.kind != ErrorKind::Fix || error.reason.starts_with("SEQUENCE_") {
            return Err(Refusal::from(error).failure("the store did not take a batch"));
        }
        let Some(RestBatch {
            batch,
            sequence,
            request,
        }) = self.flow.refused(batch, rest, error)?
        else {
            return Ok(());
        };
        self.save()?;
        let client = self.client.clone();
        let write = v1::WriteRequest {
            batch: Some(request),
            producer: self.rest_producer.clone(),
            sequence,
        };
        self.rests
            .push(Box::pin(async move { (batch, sequence, client.write(write).await) }));
        Ok(())
    }

    fn count_ack(&mut self) -> Outcome {
        self.acks_unsaved += 1;
        if self.acks_unsaved >= SAVE_ACKS {
            self.save()
        } else {
            Ok(())
        }
    }

    fn tick(&mut self) -> Outcome {
        let now = Instant::now();
        let (rows, bytes) = self.flow.reached();
        self.progress.show(
            Reached {
                rows,
                points: self.points,
                bytes,
            },
            now,
        );
        if now.duration_since(self.saved_at) >= SAVE_EVERY {
            self.save()
        } else {
            Ok(())
        }
    }

    fn save(&mut self) -> Outcome {
        self.acks_unsaved = 0;
        self.saved_at = Instant::now();
        let Some(path) = &self.state_path else { return Ok(()) };
        match self.flow.take_state() {
            Some(state) => state
                .save(path)
                .map_err(|error| Failure::file("write the progress file", &path.display().to_string(), &error)),
            None => Ok(()),
        }
    }
}

fn summary(context: &Context, flow: &Flow, before: Totals, points: u64, seconds: f64) -> Outcome {
    let totals = flow.totals();
    let rate = (points as f64 / seconds.max(1e-3)).round();
    let rejects = if totals.rejected > 0 {
        Cell::Text(flow.rejects_path())
    } else {
        Cell::None
    };
    let mut printer = context.printer("ingest");
    printer.section(
        "runs",
        &[
            "rows",
            "records",
            "points",
            "rejected",
            "replaced",
            "rows_before",
            "seconds",
            "points_per_s",
            "rejects_file",
        ],
    )?;
    printer.row(vec![
        Cell::Uint(totals.rows),
        Cell::Uint(totals.records),
        Cell::Uint(totals.points),
        Cell::Uint(totals.rejected),
        Cell::Uint(totals.replaced),
        Cell::Uint(before.rows),
        Cell::Float((seconds * 1000.0).round() / 1000.0),
        Cell::Float(rate),
        rejects,
    ])?;
    printer.finish(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line that says what to run next, of a failure of this reason and code with the advice that came along.
    fn next_of(reason: &str, code: i32, hint: &str) -> String {
        let failure = v1::Failure {
            code,
            reason: reason.to_owned(),
            message: "no".to_owned(),
            hint: hint.to_owned(),
            ..v1::Failure::default()
        };
        let failure = Refusal::from(Error::from(failure)).failure("the store did not take a batch");
        let text = advise(failure, "the same command again: it goes on").as_lines();
        text.lines()
            .find_map(|line| line.strip_prefix("  next: "))
            .unwrap_or_default()
            .to_owned()
    }

    #[test]
    fn a_store_that_was_away_is_told_apart_from_a_command_that_is_wrong() {
        let again = "the same command again: it goes on";
        let unknown = "the outcome is unknown; send the same batches with the same sequences";
        assert_eq!(next_of("NO_LEADER", 14, unknown), again);
        assert_eq!(next_of("TIMEOUT", 4, unknown), again);
        assert_eq!(next_of("DEADLINE_EXCEEDED", 4, ""), again);
        assert_eq!(next_of("UNKNOWN_TYPE", 5, ""), "tidemark type list");
        assert_eq!(next_of("CORRUPTION", 15, ""), again);
    }
}
