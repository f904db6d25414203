//! Writers that follow the majority, and probes that ask one node. Never here: judging. Invariant: what a writer notes as
//! acknowledged was acknowledged, and every question of a probe is noted with its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tidemark_client::v1::{self, consistency::Level};
use tidemark_client::{BatchBuilder, Client, Error};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::direct::{Direct, Seen};
use super::judge::{Call, Kind};
use super::ledger::Track;

/// Device type of everything here: one whole number.
pub(crate) const TYPE: &str = "bench_partition";
/// The property of that type.
pub(crate) const PROPERTY: &str = "value";
/// A writer pauses so long between two values of a device.
const WRITE_PAUSE: Duration = Duration::from_millis(50);
/// A probe pauses so long between two questions of a kind about a device.
const PROBE_PAUSE: Duration = Duration::from_millis(200);
/// Times of neighbouring values lie this far apart.
const STEP_NS: i64 = 1_000_000_000;

/// What all tasks of a run share.
#[derive(Debug)]
pub(crate) struct Stage {
    began: Instant,
    /// Tells runs apart; part of the device ids.
    pub(crate) run: String,
    /// Time of value 0.
    pub(crate) start_ns: i64,
    tracks: Mutex<Vec<Track>>,
    failed_writes: Mutex<Vec<String>>,
    stop: watch::Sender<bool>,
}

impl Stage {
    /// Nothing has happened yet on so many devices.
    pub(crate) fn new(run: String, start_ns: i64, devices: usize) -> Arc<Stage> {
        Arc::new(Stage {
            began: Instant::now(),
            run,
            start_ns,
            tracks: Mutex::new(vec![Track::default(); devices]),
            failed_writes: Mutex::default(),
            stop: watch::Sender::new(false),
        })
    }

    /// Since the begin of the run.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends writers and probes once they have their next answer.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn goes_on(&self) -> bool {
        !*self.stop.borrow()
    }

    /// What is known of each device.
    pub(crate) fn tracks(&self) -> MutexGuard<'_, Vec<Track>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes that the client library gave up, in words.
    pub(crate) fn failed_writes(&self) -> MutexGuard<'_, Vec<String>> {
        self.failed_writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device that writers write to.
    pub(crate) fn device(&self, index: usize) -> String {
        format!("part-{}-{index}", self.run)
    }

    /// A device that only the probe of one node writes to.
    pub(crate) fn probed(&self, node: usize, index: usize) -> String {
        format!("probe-{}-{node}-{index}", self.run)
    }

    /// Time of a value.
    pub(crate) fn observed_at_ns(&self, value: i64) -> i64 {
        self.start_ns + value * STEP_NS
    }

    fn batch(&self, device: &str, value: i64) -> Result<v1::Batch> {
        let mut batch = BatchBuilder::new(TYPE);
        batch.row(device, self.observed_at_ns(value)).set(PROPERTY, value);
        Ok(batch.build()?)
    }
}

/// One writer a device: 1, 2, 3 …, each until it is acknowledged.
pub(crate) fn start_writers(stage: &Arc<Stage>, client: &Client, tasks: &mut JoinSet<Result<()>>) {
    for device in 0..stage.tracks().len() {
        let (stage, client) = (stage.clone(), client.clone());
        tasks.spawn(async move {
            while stage.goes_on() {
                let value = stage.tracks()[device].issue();
                let request = v1::WriteRequest {
                    batch: Some(stage.batch(&stage.device(device), value)?),
                    producer: stage.device(device),
                    sequence: value as u64,
                };
                match client.write(request).await {
                    Ok(_) => {
                        let now = stage.now();
                        stage.tracks()[device].acknowledge(now);
                    }
                    Err(error) => stage.failed_writes().push(format!("device {device}, {value}: {error}")),
                }
                sleep(WRITE_PAUSE).await;
            }
            Ok(())
        });
    }
}

/// What a node was asked, and the values that it acknowledged by device.
#[derive(Debug, Default)]
pub(crate) struct Probed {
    pub(crate) calls: Vec<Call>,
    pub(crate) acknowledged: Vec<Vec<i64>>,
}

/// Three probes a device: linearizable reads, reads of whatever is there, writes to a device of their own.
pub(crate) fn start_probes(
    stage: &Arc<Stage>,
    node: usize,
    direct: &Direct,
    tasks: &mut JoinSet<Result<()>>,
) -> Arc<Mutex<Probed>> {
    let devices = stage.tracks().len();
    let probed = Arc::new(Mutex::new(Probed {
        calls: Vec::new(),
        acknowledged: vec![Vec::new(); devices],
    }));
    for device in 0..devices {
        for kind in [Kind::Read, Kind::Any, Kind::Write] {
            let (stage, direct, probed) = (stage.clone(), direct.clone(), probed.clone());
            tasks.spawn(async move {
                let mut value = 0;
                while stage.goes_on() {
                    value += 1;
                    let began = stage.now();
                    let result = ask(&stage, &direct, node, device, kind, value).await?;
                    let call = Call {
                        kind,
                        device,
                        began,
                        ended: stage.now(),
                        result,
                    };
                    {
                        let mut probed = probed.lock().unwrap_or_else(PoisonError::into_inner);
                        if kind == Kind::Write && call.result.is_ok() {
                            probed.acknowledged[device].push(value);
                        }
                        probed.calls.push(call);
                    }
                    sleep(PROBE_PAUSE).await;
                }
                Ok(())
            });
        }
    }
    probed
}

async fn ask(
    stage: &Stage,
    direct: &Direct,
    node: usize,
    device: usize,
    kind: Kind,
    value: i64,
) -> Result<Result<Seen, Error>> {
    Ok(match kind {
        Kind::Read => {
            let level = Level::Linearizable(v1::Linearizable {});
            direct.latest(&stage.device(device), level).await
        }
        Kind::Any => {
            let level = Level::Any(v1::AnyReplica {});
            direct.latest(&stage.device(device), level).await
        }
        Kind::Write => {
            let batch = stage.batch(&stage.probed(node, device), value)?;
            direct.write(batch).await.map(|()| Seen { value, lag_ms: 0 })
        }
    })
}
