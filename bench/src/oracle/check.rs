//! The oracle checks: reads back what a journal says was acknowledged. Invariant: reads are linearizable, so that nothing
//! acknowledged can be missing for being late.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use tidemark_client::{Client, rows, v1};

use super::OracleArgs;
use super::journal;
use super::judge::{Judge, Verdict};
use super::points::Plan;
use crate::report;

/// Numbers read with one query.
const NUMBERS_PER_QUERY: u64 = 500_000;
/// Batches that may be stored beyond the last acknowledged one.
const BATCHES_BEYOND: u64 = 128;

/// Checks a journal; true when something was acknowledged and all of it is there, once and right.
pub(super) async fn run(args: &OracleArgs, path: &Path) -> Result<bool> {
    let evidence = journal::read(path)?;
    let client = args.cluster.connect().await?;
    let mut sum = Verdict::default();
    for producer in 0..evidence.plan.producers {
        let acknowledged = evidence.acknowledged.get(&producer).map_or(&[][..], Vec::as_slice);
        sum.add(read_back(&client, &evidence.plan, producer, acknowledged).await?);
    }
    for example in &sum.examples {
        report::note(example);
    }
    if sum.acknowledged == 0 {
        report::note(&format!(
            "{}: nothing was acknowledged, so nothing is proved",
            path.display()
        ));
    }
    let counts = [
        sum.acknowledged,
        sum.missing,
        sum.doubled,
        sum.wrong,
        sum.unacknowledged,
    ];
    let row = counts.map(|count| report::thousands(count as f64)).to_vec();
    let header = [
        "acknowledged",
        "missing",
        "doubled",
        "wrong",
        "stored though unacknowledged",
    ];
    report::print(args.json, &sum, &header, vec![row])?;
    Ok(sum.is_good())
}

/// Reads everything of a producer back and compares it with what was acknowledged: ranges in order, none touching another.
pub(crate) async fn read_back(
    client: &Client,
    plan: &Plan,
    producer: u32,
    acknowledged: &[Range<u64>],
) -> Result<Verdict> {
    let end = acknowledged.last().map_or(0, |r| r.end) + BATCHES_BEYOND * plan.rows_per_batch;
    let mut judge = Judge::new(plan, producer, acknowledged);
    let mut first = 0;
    while first < end {
        let last = (first + NUMBERS_PER_QUERY).min(end);
        read(client, plan, producer, first..last, &mut judge).await?;
        first = last;
    }
    Ok(judge.verdict())
}

async fn read(client: &Client, plan: &Plan, producer: u32, numbers: Range<u64>, judge: &mut Judge<'_>) -> Result<()> {
    let request = v1::QueryRangeRequest {
        selector: Some(v1::Selector {
            device_ids: plan.devices(producer).collect(),
            ..Default::default()
        }),
        from_ns: plan.observed_at_ns(numbers.start),
        to_ns: plan.observed_at_ns(numbers.end),
        consistency: Some(v1::Consistency {
            level: Some(v1::consistency::Level::Linearizable(v1::Linearizable {})),
        }),
        ..Default::default()
    };
    let what = || {
        format!(
            "read numbers {} to {} of producer {producer}",
            numbers.start, numbers.end
        )
    };
    let mut answer = client.query_range(request).await.with_context(what)?;
    while let Some(message) = answer.next().await {
        let message = message.with_context(what)?;
        message.batch.iter().flat_map(rows).for_each(|row| judge.row(&row));
    }
    Ok(())
}
