//! How new replicas get what they lack while a job runs: by checkpoint, at the rate of the job, all nodes together; a
//! shard with little in it by its log. Never here: what a job plans, or who dies meanwhile (see `moves`).
//! Invariant: bytes that came never exceed what the rate allowed by then, whatever else the machine does.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::common::fleet::*;
use crate::common::operator::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{Client, v1};

const SHARDS: u32 = 6;
/// Some in every shard.
const DEVICES: usize = 48;
/// So many that two copies at the whole rate each would be seen.
const TEXTS: i64 = 7;
const LIMIT: u64 = 1 << 20;
/// What a throttle lets through beyond its rate: its last piece, and a tenth of a second.
const AHEAD: u64 = (512 << 10) + LIMIT / 10;

async fn fill(client: &Client) {
    let names: Vec<String> = (0..DEVICES).map(|i| format!("d{i}")).collect();
    furnish_diaries(client, &names).await;
    for step in 0..TEXTS {
        let page = diary_page(&names, T0 + step * S, DIARY_BYTES);
        client.write(write(page)).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_copies_no_faster_than_its_limit_over_all_nodes_and_shows_how_far_it_is() {
    let mut cluster = TestCluster::start_shaped(2, SHARDS, 1).await;
    fill(&cluster.client().await).await;
    let new = cluster.add().await;
    cluster.take_in(new).await;

    let began = Instant::now();
    let job = cluster.start_limited_job(0, rebalance(), LIMIT).await.unwrap();
    let from: BTreeSet<u64> = job.moves.iter().map(|planned| planned.from_node).collect();
    assert_eq!(from.len(), 2, "one shard from each node: {:?}", job.moves);
    let seen = std::cell::RefCell::new(BTreeSet::new());
    let ended = eventually("the job ends", || async {
        let came = cluster.metric(new, "tidemark_snapshot_received_bytes_total").await;
        let allowed = (began.elapsed().as_secs_f64() * LIMIT as f64) as u64 + 2 * AHEAD;
        assert!(came <= allowed, "{came} bytes in {:?}", began.elapsed());
        let job = cluster.job(0, job.id).await?;
        for (at, planned) in job.moves.iter().enumerate() {
            assert!(planned.bytes_done <= planned.bytes_total, "{planned:?}");
            if planned.bytes_done > 0 && planned.bytes_done < planned.bytes_total {
                seen.borrow_mut().insert((at, planned.bytes_done));
            }
        }
        match job.state() {
            v1::JobState::Running => Err(format!("{job:?}")),
            _ => Ok(job),
        }
    })
    .await;
    assert_eq!(ended.state(), v1::JobState::Done, "{}", ended.message);
    let came = cluster.metric(new, "tidemark_snapshot_received_bytes_total").await;
    println!(
        "{came} bytes in {:?}, seen on their way: {:?}",
        began.elapsed(),
        seen.borrow()
    );
    assert!(came > 5 * AHEAD, "{came} bytes came, too few to tell a limit");
    for at in 0..ended.moves.len() {
        let steps = seen.borrow().iter().filter(|(of, _)| *of == at).count();
        assert!(steps >= 2, "move {at} was seen at {:?}", seen.borrow());
    }
    let (messages, _) = cluster.at(new).range(everything(of_type(DIARY))).await.unwrap();
    assert_eq!(points(&messages).len(), DEVICES * TEXTS as usize);
}

#[tokio::test]
async fn a_shard_with_little_in_it_goes_by_its_log() {
    let mut cluster = TestCluster::start_shaped(2, SHARDS, 1).await;
    furnish(&cluster.client().await, &["m1", "m2", "m3"]).await;
    let new = cluster.add().await;
    cluster.take_in(new).await;
    cluster.done(0, rebalance()).await;
    assert_eq!(cluster.spread(0).await[&3], 2);
    assert_eq!(cluster.metric(new, "tidemark_snapshot_received_bytes_total").await, 0);
}
