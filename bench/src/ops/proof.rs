//! What must hold at the end: everything acknowledged is there, and all replicas of a shard are equal. Never here: load.
//! Invariant: reads only.

use anyhow::Result;
use serde::Serialize;

use super::cluster::{Cluster, PATIENCE};
use super::load::Fleet;
use super::until;
use crate::oracle::{Verdict, read_back};
use crate::report;

/// A thing that had to hold.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) holds: bool,
    pub(super) found: String,
}

impl Check {
    pub(super) fn new(what: impl Into<String>, holds: bool, found: impl Into<String>) -> Check {
        Check {
            what: what.into(),
            holds,
            found: found.into(),
        }
    }
}

/// Reads back every acknowledged point and compares the digests of every shard.
pub(super) async fn prove(cluster: &mut Cluster, fleet: &Fleet) -> Result<(Verdict, Vec<Check>)> {
    report::note("reading everything back");
    let health = cluster.healthy(PATIENCE).await.err().map(|error| error.to_string());
    let mut sum = Verdict::default();
    for (device, acknowledged) in (0..).zip(fleet.acknowledged()) {
        sum.add(read_back(&cluster.client, &fleet.plan, device, &acknowledged).await?);
    }
    for example in &sum.examples {
        report::note(example);
    }
    let found = format!(
        "{} records acknowledged, {} missing, {} doubled, {} wrong",
        report::thousands(sum.acknowledged as f64),
        sum.missing,
        sum.doubled,
        sum.wrong
    );
    let all = Check::new(
        "every acknowledged point is there, once and right",
        sum.is_good(),
        found,
    );
    let healthy = Check::new("the cluster is healthy", health.is_none(), health.unwrap_or_default());
    Ok((sum, vec![healthy, all, digests(cluster).await?]))
}

async fn digests(cluster: &Cluster) -> Result<Check> {
    let status = cluster.status().await?;
    // The catalog is not a shard of data and has no digest.
    let shards: Vec<u32> = status
        .shards
        .iter()
        .map(|shard| shard.shard)
        .filter(|shard| *shard > 0)
        .collect();
    let mut faults = Vec::new();
    for shard in shards.iter().copied() {
        // A node that is busy says so; what counts is the answer once there is one.
        let mut last = String::new();
        let answer = async || match cluster.client.check_shard(shard).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                last = error.to_string();
                None
            }
        };
        match until("digests", PATIENCE, answer).await {
            Ok(answer) if answer.equal && !answer.replicas.is_empty() => {}
            Ok(answer) => faults.push(format!("shard {shard}: {:?}", answer.replicas)),
            Err(_) => faults.push(format!("shard {shard}: {last}")),
        }
        if faults.len() > 2 {
            break;
        }
    }
    let found = if faults.is_empty() {
        format!("{} shards", shards.len())
    } else {
        faults.join("; ")
    };
    Ok(Check::new(
        "all replicas of every shard have equal digests",
        faults.is_empty(),
        found,
    ))
}
