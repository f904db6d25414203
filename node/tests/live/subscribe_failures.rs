//! Subscribers while leaders move and nodes die: everything that was acknowledged comes, once, in order per device.
//! Never here: what a subscription asks for (`subscribe`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::common::fleet::*;
use crate::common::operator::drain;
use crate::common::watch::{Watch, meters};
use crate::common::{TestCluster, eventually};
use tidemark_client::{Client, Subscription, v1};
use tokio::task::JoinHandle;

const DEVICES: [&str; 8] = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"];

/// Writes a row of every device after the other until it is told to stop; gives what was acknowledged.
struct Writing {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicI64>,
    task: JoinHandle<i64>,
}

impl Writing {
    fn begin(client: Client) -> Writing {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (stopped, count) = (stop.clone(), written.clone());
        let task = tokio::spawn(async move {
            let mut sequence = 0;
            while !stopped.load(Ordering::Relaxed) {
                sequence += 1;
                let rows = DEVICES.map(|device| (device, T0 + sequence * S, sequence as f64));
                let request = numbered(batch(METER, "level", rows), "writer", sequence as u64);
                eventually("the batch is stored", || async {
                    client.write(request.clone()).await.map_err(|e| e.to_string())
                })
                .await;
                count.store(sequence, Ordering::Relaxed);
            }
            sequence
        });
        Writing { stop, written, task }
    }

    /// Waits until so many more batches were acknowledged.
    async fn progress(&self, more: i64) {
        let goal = self.written.load(Ordering::Relaxed) + more;
        eventually("batches are acknowledged", || async {
            match self.written.load(Ordering::Relaxed) {
                written if written >= goal => Ok(()),
                written => Err(format!("{written} of {goal}")),
            }
        })
        .await;
    }

    async fn end(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Times by device, and how often the subscription went on with a new stream.
type Read = (BTreeMap<String, Vec<i64>>, u64);

/// The last row to read, once it is known, and the task that reads.
type Reading = (Arc<AtomicI64>, JoinHandle<Read>);

/// Reads in a task, so that nothing waits for it.
fn reading(mut subscription: Subscription) -> Reading {
    let goal = Arc::new(AtomicI64::new(i64::MAX));
    let until = goal.clone();
    let task = tokio::spawn(async move {
        let mut seen = crate::common::watch::Seen::default();
        loop {
            let message = subscription.next().await.unwrap();
            seen.add(&message);
            if !message.heartbeat {
                continue;
            }
            let last = T0 + until.load(Ordering::Relaxed).saturating_mul(S).min(i64::MAX - T0);
            let found = seen.by_device();
            if DEVICES
                .iter()
                .all(|d| found.get(d).and_then(|t| t.last()) == Some(&last))
            {
                let owned = found.into_iter().map(|(device, times)| (device.to_owned(), times));
                return (owned.collect(), subscription.resumed());
            }
        }
    });
    (goal, task)
}

/// Waits for what reading gave, and compares it with what was written.
async fn check((goal, task): Reading, last: i64, which: &str) -> u64 {
    goal.store(last, Ordering::Relaxed);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), task).await;
    let (found, resumed) = ended
        .unwrap_or_else(|_| panic!("{which}: not everything came"))
        .unwrap();
    let expected: Vec<i64> = (1..=last).map(|t| T0 + t * S).collect();
    for device in DEVICES {
        let found = &found[device];
        let first = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(
            found, &expected,
            "{which}: {device} differs first at {first:?} of {last}"
        );
    }
    resumed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_once_while_every_node_is_killed_and_comes_back() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &DEVICES).await;
    let mut watches = Vec::new();
    for i in 0..3 {
        // A client that knows one node at first: it learns the others.
        let client = cluster.client_at(i).await;
        watches.push(reading(client.subscribe(meters()).await.unwrap()));
    }
    let writing = Writing::begin(client);
    for i in 0..3 {
        writing.progress(20).await;
        cluster.drop_node(i).await;
        writing.progress(20).await;
        cluster.restart(i).await;
        cluster.healthy(i).await;
    }
    cluster.stop(1).await;
    writing.progress(20).await;
    cluster.restart(1).await;
    cluster.healthy(1).await;
    let last = writing.end().await;
    let mut resumed = 0;
    for (at, watch) in watches.into_iter().enumerate() {
        resumed += check(watch, last, &format!("subscriber {at}")).await;
    }
    assert!(resumed >= 3, "each node that was lost had a subscriber: {resumed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_once_while_leaderships_move() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &DEVICES).await;
    let watch = reading(client.subscribe(meters()).await.unwrap());
    let writing = Writing::begin(client.clone());
    let shards = client.shard_map().await.unwrap().leaders.len() as u32;
    for round in 0..2 {
        for shard in 1..=shards {
            let to_node = u64::from((shard + round) % 3) + 1;
            let request = v1::TransferLeaderRequest { shard, to_node };
            eventually("the leadership moves", || async {
                client
                    .transfer_leader(request)
                    .await
                    .map(drop)
                    .map_err(|e| e.to_string())
            })
            .await;
            writing.progress(3).await;
        }
    }
    let last = writing.end().await;
    let resumed = check(watch, last, "the subscriber").await;
    assert_eq!(resumed, 0, "the subscriber does not notice");
}

/// Shards with one replica, most of them at other nodes than the one that is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_moves_away_takes_nothing_with_it() {
    let cluster = TestCluster::start_shaped(3, 6, 1).await;
    cluster.healthy(0).await;
    let client = cluster.client().await;
    furnish(&client, &DEVICES).await;
    let watch = reading(cluster.client_at(0).await.subscribe(meters()).await.unwrap());
    let writing = Writing::begin(client);
    writing.progress(10).await;
    cluster.done(0, drain(3)).await;
    writing.progress(10).await;
    let last = writing.end().await;
    check(watch, last, "the subscriber").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_sends_its_subscribers_elsewhere_at_once() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &DEVICES).await;
    let (mut stream, first) = crate::common::watch::at_node(&cluster.at(2), meters()).await.unwrap();
    let stopping = async {
        let mut last = stream.message().await;
        while let Ok(Some(_)) = last {
            last = stream.message().await;
        }
        tidemark_client::Error::from(last.expect_err("a stream ends with a reason"))
    };
    let (ended, ()) = tokio::join!(stopping, cluster.stop(2));
    assert_eq!(ended.reason, "STOPPING");
    let request = v1::SubscribeRequest {
        cursor: first.cursor,
        ..meters()
    };
    let mut watch = Watch::begin(&cluster.client_at(0).await, request).await;
    let rows = DEVICES.map(|device| (device, T0, 1.0));
    let rows = numbered(batch(METER, "level", rows), "afterwards", 1);
    cluster.client_at(0).await.write(rows).await.unwrap();
    watch.rows(DEVICES.len()).await;
}
