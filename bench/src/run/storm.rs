//! The fleet comes back after hours without a connection, all at once, while steady records go on. Never here: other phases.
//! Invariant: late and steady records are of times of their own, and together leave no gap.

use std::time::Duration;

use anyhow::{Result, bail};

use super::batches::{Order, batches};
use super::figures::PhaseFigures;
use super::play::{Stage, add_cost, add_poured, seconds};
use super::pour::{How, latencies, pour};
use super::scenario::Work;

pub(crate) async fn storm(stage: &mut Stage, work: &Work, figures: &mut PhaseFigures) -> Result<()> {
    let Work::Storm {
        calm_s,
        late_hours,
        steady_hours,
        steady_rows_per_second,
        steady_batch,
        pace,
    } = work
    else {
        bail!("another phase");
    };
    let late = stage.written.end..stage.written.end + seconds(*late_hours);
    let steady = late.end..late.end + seconds(*steady_hours);
    let steady_batches = batches(&stage.fleet, &steady, Order::ByTime, *steady_batch);
    let late_batches = batches(&stage.fleet, &late, Order::ByDevice, pace.batch);
    let before = stage.meter.now();
    let sessions = stage.sessions(pace.in_flight).await?;
    let (fleet, how) = (stage.fleet.clone(), How::rate(*steady_rows_per_second));
    let steadily = stage.sessions(pace.in_flight).await?;
    let steadily = tokio::spawn(async move { pour(&fleet, steadily, steady_batches, how).await });
    let calm = Duration::from_secs_f64(*calm_s);
    tokio::time::sleep(calm).await;
    let stormed = pour(&stage.fleet, sessions, late_batches, How::rate(pace.rows_per_second)).await?;
    let over = calm + Duration::from_secs_f64(stormed.seconds);
    let poured = steadily.await??;
    figures.add("late records", "", stormed.rows as f64);
    figures.add("late records absorbed in", "s", stormed.seconds);
    add_poured("late: ", &stormed, figures)?;
    figures.acknowledgements.clear();
    add_poured("steady: ", &poured, figures)?;
    figures.add_latencies("steady before: ack", &latencies(&poured.events, Duration::ZERO, calm)?);
    figures.add_latencies("steady during: ack", &latencies(&poured.events, calm, over)?);
    figures.add_latencies("steady after: ack", &latencies(&poured.events, over, Duration::MAX)?);
    let mut both = poured;
    both.points += stormed.points;
    add_cost(&both, stage.meter.now().minus(before), figures);
    stage.written.end = steady.end;
    Ok(())
}
