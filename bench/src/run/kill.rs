//! `kill -9` of every process of a store while batches come in, and what is there afterwards. Never here: other phases.
//! Invariant: a record counts as lost if its batch was acknowledged and it is not there after the restart; of Tidemark, also one
//! that was written long before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::batches::{Batch, Order, Span, batches};
use super::figures::{LOST, PhaseFigures, UNSENT, WRONG_ANSWERS};
use super::play::Stage;
use super::pour::{How, pour};
use super::question::Kind;
use super::recount::{Recount, recount};
use super::scenario::Pace;
use super::stores::Session;

const PATIENCE: Duration = Duration::from_secs(300);
/// A store that answers wrongly for so long has lost what it was asked for.
const WRONG_FOR: Duration = Duration::from_secs(5);
/// Only a way to name records: nothing is sent.
const LONG_BEFORE_ROWS: usize = 1_000_000;
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) async fn kill(
    stage: &mut Stage,
    after_s: f64,
    span: Span,
    pace: &Pace,
    figures: &mut PhaseFigures,
) -> Result<()> {
    let all = batches(&stage.fleet, &span, Order::ByTime, pace.batch);
    let sessions = stage.sessions(pace.in_flight).await?;
    let ends = Arc::new(AtomicBool::new(false));
    let how = How {
        ends: Some(Arc::clone(&ends)),
        ..How::rate(pace.rows_per_second)
    };
    let (fleet, sent) = (Arc::clone(&stage.fleet), all.clone());
    let pouring = tokio::spawn(async move { pour(&fleet, sessions, sent, how).await });
    tokio::time::sleep(Duration::from_secs_f64(after_s)).await;
    let in_time = !pouring.is_finished();
    stage.store.kill().await?;
    ends.store(true, Ordering::Relaxed);
    if !in_time {
        figures.note = "everything was written before the kill".to_owned();
    }
    let began = Instant::now();
    stage.store.start_again()?;
    stage.meter.follow(stage.store.pids());
    let (mut session, right, wrong) = answers(stage, began).await?;
    match right {
        true => figures.add("first right answer after the start", "s", began.elapsed().as_secs_f64()),
        false => figures
            .note
            .push_str(" Some of what had been written long before the kill is gone, too."),
    }
    // A client that tries again by itself may be told yes now: acknowledged like any other.
    let Ok(poured) = tokio::time::timeout(PATIENCE, pouring).await else {
        bail!("a client still waits for the store that was killed");
    };
    let poured = poured??;
    let acknowledged: Vec<&Batch> = poured.events.iter().filter_map(|event| all.get(event.at)).collect();
    let unknown: Vec<&Batch> = poured.unknown.iter().filter_map(|at| all.get(*at)).collect();
    let mut found = recount(&stage.fleet, &mut session, &span, &acknowledged, &unknown).await?;
    if stage.store.is_tidemark() {
        let before = before(stage, &mut session).await?;
        found.lost += before.lost;
        found.unsent += before.unsent;
        figures.add(format!("after the start: {WRONG_ANSWERS}"), "", wrong as f64);
    }
    figures.add("acknowledged records", "", poured.rows as f64);
    figures.add(LOST, "", found.lost as f64);
    figures.add(UNSENT, "", found.unsent as f64);
    Ok(())
}

/// Asks until it gives the right answer to a question about what was written long before, or has given a wrong one for so
/// long that no other is to be expected; whether it was right, and how many answers were not.
async fn answers(stage: &mut Stage, began: Instant) -> Result<(Session, bool, u64)> {
    let mut last = String::new();
    let (mut wrong, mut wrong_since) = (0, None);
    while began.elapsed() < PATIENCE {
        if let Ok(mut session) = stage.store.session(&stage.fleet).await {
            match stage
                .examiner()
                .quietly()
                .again(&mut session, Kind::RawDay, 0.0, 1)
                .await
            {
                Ok(answers) if answers.wrong == 0 => return Ok((session, true, wrong)),
                Ok(answers) => {
                    wrong += answers.wrong;
                    if wrong_since.get_or_insert_with(Instant::now).elapsed() > WRONG_FOR {
                        return Ok((session, false, wrong));
                    }
                }
                Err(error) => last = format!("{error:#}"),
            }
        }
        stage.store.runs()?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("no answer within {} s of the start: {last}", PATIENCE.as_secs())
}

/// What had been written long before.
async fn before(stage: &Stage, session: &mut Session) -> Result<Recount> {
    let all = batches(&stage.fleet, &stage.written, Order::ByTime, LONG_BEFORE_ROWS);
    let all: Vec<&Batch> = all.iter().collect();
    recount(&stage.fleet, session, &stage.written, &all, &[]).await
}
