//! `kill -9` of every process of a store while batches come in, and what is there afterwards. Never here: other phases.
//! Invariant: a record counts as lost if its batch was acknowledged and it cannot be counted after the restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::batches::{Batch, Order, Span, batches};
use super::figures::PhaseFigures;
use super::fleet::{START_MS, ValueType};
use super::play::Stage;
use super::pour::{How, pour};
use super::question::{Ask, Kind, Series};
use super::scenario::Pace;
use super::stores::Session;
use crate::report;

const PATIENCE: Duration = Duration::from_secs(300);
/// A store that answers wrongly for so long has lost what it was asked for.
const WRONG_FOR: Duration = Duration::from_secs(5);
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
    let (mut session, right) = answers(stage, began).await?;
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
    let (mut lost, mut more) = (0, 0);
    for type_at in 0..stage.fleet.types.len() {
        let rows = |batches: &[&Batch]| {
            batches
                .iter()
                .filter(|batch| batch.type_at == type_at)
                .map(|batch| batch.len() as u64)
                .sum::<u64>()
        };
        let found = count(stage, &mut session, type_at, &span).await?;
        lost += rows(&acknowledged).saturating_sub(found);
        more += found.saturating_sub(rows(&acknowledged) + rows(&unknown));
    }
    figures.add("acknowledged records", "", poured.rows as f64);
    figures.add("acknowledged records lost", "", lost as f64);
    figures.add("records that nobody sent", "", more as f64);
    Ok(())
}

/// Asks until it gives the right answer to a question about what was written long before, or has given a wrong one for so
/// long that no other is to be expected; whether it was right.
async fn answers(stage: &mut Stage, began: Instant) -> Result<(Session, bool)> {
    let mut last = String::new();
    let mut wrong_since = None;
    while began.elapsed() < PATIENCE {
        if let Ok(mut session) = stage.store.session(&stage.fleet).await {
            match stage
                .examiner()
                .quietly()
                .again(&mut session, Kind::RawDay, 0.0, 1)
                .await
            {
                Ok(answers) if answers.wrong == 0 => return Ok((session, true)),
                Ok(_) if wrong_since.get_or_insert_with(Instant::now).elapsed() > WRONG_FOR => {
                    return Ok((session, false));
                }
                Ok(_) => {}
                Err(error) => last = format!("{error:#}"),
            }
        }
        stage.store.runs()?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("no answer within {} s of the start: {last}", PATIENCE.as_secs())
}

/// Records of a type in a span, counted by a property that is a number.
async fn count(stage: &Stage, session: &mut Session, type_at: usize, span: &Span) -> Result<u64> {
    let one = stage.fleet.types.get(type_at).context("no such type")?;
    let number = |value_type| matches!(value_type, ValueType::F64 | ValueType::I64);
    let property = one.properties.iter().position(|property| number(property.value_type));
    let property = property.with_context(|| format!("{} has no number", one.id))?;
    // Records of this span begin at its first slot; half a second earlier, so that no record lies on an edge.
    let slots = super::batches::slots(one, span);
    let ms = |slot: i64| START_MS + slot * one.interval_s * 1_000 - 500;
    if slots.is_empty() {
        return Ok(0);
    }
    let ask = Ask::Total {
        of: Series { type_at, property },
        from_ms: ms(slots.start),
        to_ms: ms(slots.end),
    };
    // Nothing at all is no row, or an empty one.
    match session.ask(&ask).await {
        Ok(rows) => Ok(rows
            .first()
            .and_then(|row| row.values.first())
            .map_or(0, |count| *count as u64)),
        Err(error) => {
            report::note(&format!("{}: counted as none: {error:#}", one.id));
            Ok(0)
        }
    }
}
