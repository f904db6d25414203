//! The afternoon of rain as it comes, record by record, to three nodes: once in peace, once with the death of a leader at its height. What
//! the store tells of it then, to those who ask and to those who listen, is the same.
//! Never here: the answers (see `common/story`), alerts by case (see `alerts`). Invariant: only what was acknowledged is expected.

use std::time::{Duration, Instant};

use crate::alerts::{shard_and_leader, shard_of};
use crate::common::TestCluster;
use crate::common::afternoon::*;
use crate::common::alarm::*;
use crate::common::fleet::*;
use crate::common::operator::three_are_equal;
use crate::common::story;
use crate::common::watch::{Seen, Watch};
use tidemark_client::{Client, v1};
use tidemark_node::clock::now_ns;

/// A gauge like the second one that lives today, where it is four o'clock: of its silence the clock tells.
const TODAY: &str = "RG3";
/// After the death of a leader writes are acknowledged again within this. The aim is 5 s, which `tidemark-bench leader-kill` measures;
/// here many tests share two cores.
const RESUMES_WITHIN: Duration = Duration::from_secs(10);

/// The one producer of everything: what it repeats is stored once.
struct Feed {
    client: Client,
    sent: u64,
    /// From the afternoon to today.
    shift_ns: i64,
}

impl Feed {
    async fn send(&mut self, batch: v1::Batch) {
        self.sent += 1;
        let write = numbered(batch, "town", self.sent);
        self.client.write(write).await.unwrap();
    }

    /// Rain of today, as the second gauge had it from one time to another.
    async fn today(&mut self, from: i64, to: i64) {
        let shift_ns = self.shift_ns;
        let times = stamps().filter(|t| (from..=to).contains(t));
        let rows = batch(GAUGE, "rain", times.map(|t| (TODAY, t + shift_ns, rain(1, t))));
        self.send(rows).await;
    }

    /// Of everything that was acknowledged nothing is lost and nothing is there twice.
    async fn is_there(&self) {
        let sent = [records(stamps(), soon), records_held_back()].map(|batch| v1::QueryRangeResponse {
            batch: Some(batch),
            ..Default::default()
        });
        let mut found = read(&self.client, everything(of_devices(&ALL))).await;
        let mut expected = points(&sent);
        for all in [&mut found, &mut expected] {
            all.sort_by(|a, b| (&a.0, a.1, &a.2).cmp(&(&b.0, b.1, &b.2)));
        }
        assert_eq!(found, expected);
    }

    /// What happened to the gauge of today.
    async fn was_silent(&self, steps: &[&str]) -> Vec<v1::AlertStep> {
        goes(&self.client, TODAY, "rain_3h", steps, self.shift_ns).await
    }
}

/// The afternoon from its begin to its end; somebody dies at twenty to four, if at all. Gives who.
async fn it_comes(cluster: &mut TestCluster, feed: &mut Feed, dies: bool) -> Option<usize> {
    let mut killed = None;
    feed.today(at(14, 0), at(15, 20)).await;
    feed.was_silent(&["15:55 normal stale"]).await;
    for t in stamps() {
        if dies && t == at(15, 40) {
            let (_, leader) = shard_and_leader(&feed.client, "PD1").await;
            cluster.drop_node(leader).await;
            let began = Instant::now();
            feed.send(records([t], soon)).await;
            let silence = began.elapsed();
            println!("first write acknowledged {silence:?} after the kill");
            assert!(silence <= RESUMES_WITHIN, "no write for {silence:?}");
            killed = Some(leader);
        } else {
            feed.send(records([t], soon)).await;
        }
        if t == at(15, 30) {
            feed.send(record_again()).await;
        }
        if t == at(16, 0) {
            story::lower_bound(&feed.client).await;
        }
        if t == at(16, 10) {
            story::outage(&feed.client).await;
            let known = now_ns();
            feed.send(records_held_back()).await;
            feed.today(at(15, 25), at(16, 10)).await;
            let steps = ["15:55 normal stale", "15:40 orange", "16:10 orange fresh"];
            let steps = feed.was_silent(&steps).await;
            assert!(steps[0].raised_at_ns < known, "{steps:?}");
            assert!(steps[1].raised_at_ns >= known, "{steps:?}");
        }
    }
    feed.today(at(16, 15), at(20, 0)).await;
    killed
}

/// Times of a device in the order in which they were heard first.
fn first_heard(seen: &Seen, device: &str) -> Vec<i64> {
    let mut times: Vec<i64> = Vec::new();
    for row in seen.rows.iter().filter(|row| row.device == device) {
        if !times.contains(&row.t) {
            times.push(row.t);
        }
    }
    times
}

fn heard(seen: &Seen, device: &str, profile: &str) -> Vec<String> {
    let of_it = seen.alerts.iter();
    let of_it = of_it.filter(|step| step.device == device && step.profile == profile);
    told(&of_it.cloned().collect::<Vec<_>>(), 0)
}

/// Each record once and in order, but for the one that came twice; each step once and in order.
async fn was_heard(mut watch: Watch) {
    watch
        .until("all is told", |seen| {
            let all = ALL.iter().all(|device| first_heard(seen, device).len() == 73);
            all && heard(seen, "PD1", "depth").len() >= DEPTH_STEPS.len() && heard(seen, "RG2", "rain_3h").len() >= 3
        })
        .await;
    watch.rest().await;
    let by_device = watch.seen.by_device();
    for device in ALL {
        assert!(first_heard(&watch.seen, device).into_iter().eq(stamps()), "{device}");
        let twice = usize::from(device == "RL1");
        assert!(
            (73..=73 + twice).contains(&by_device[device].len()),
            "{device}: {by_device:?}"
        );
    }
    assert_eq!(heard(&watch.seen, "PD1", "depth"), DEPTH_STEPS);
    let rain = ["15:40 orange", "16:35 red", "19:00 normal"];
    assert_eq!(heard(&watch.seen, "RG2", "rain_3h"), rain);
}

async fn the_afternoon(dies: bool) {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    ready(&client, &[&ALL[..], &[TODAY]].concat()).await;
    let request = v1::SubscribeRequest {
        selector: of_devices(&ALL),
        records: true,
        alerts: true,
        ..Default::default()
    };
    let mut watch = Watch::begin(&client, request).await;
    watch.until("it has begun", |seen| seen.heartbeats > 0).await;
    let mut feed = Feed {
        client: client.clone(),
        sent: 0,
        shift_ns: now_ns() - at(16, 0) - S,
    };
    let killed = it_comes(&mut cluster, &mut feed, dies).await;
    story::is_told(&client).await;
    feed.is_there().await;
    let steps = [
        "15:55 normal stale",
        "15:40 orange",
        "16:10 orange fresh",
        "16:35 red",
        "19:00 normal",
    ];
    feed.was_silent(&steps).await;
    was_heard(watch).await;
    assert_eq!(killed.is_some(), dies);
    let Some(killed) = killed else { return };
    cluster.restart(killed).await;
    cluster.healthy(killed).await;
    let map = client.shard_map().await.unwrap();
    for device in ALL {
        three_are_equal(&client, shard_of(&map, device)).await;
    }
    story::is_told(&client).await;
}

#[tokio::test]
async fn an_afternoon_of_rain_is_told_as_it_was() {
    the_afternoon(false).await;
}

#[tokio::test]
async fn a_leader_dies_at_the_height_of_the_storm_and_nobody_can_tell() {
    the_afternoon(true).await;
}
