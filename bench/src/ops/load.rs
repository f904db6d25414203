//! A steady load with an oracle: writers and readers that keep their rate whatever the answers take, and the memory of
//! what was acknowledged. Never here: what is done to the cluster meanwhile.
//! Invariant: a device belongs to one shard and one writer, so that each acknowledgement is one shard's word; requests
//! are due by the clock, not when the last one was answered.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use tidemark_client::{Client, ClientOptions, Error, v1};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::interval;
use xxhash_rust::xxh3::xxh3_64;

use super::RunArgs;
use super::neighbour::Neighbour;
use super::record::{Record, Request};
use crate::oracle::Plan;
use crate::setup;

const TYPE: &str = "bench_ops";
/// Numbers begin this long ago, so that there is room for them before now.
const BEGIN_AGO_NS: i64 = 3_650 * 86_400 * 1_000_000_000;
/// Requests of one writer or reader without an answer. Beyond it they come late, which their latency shows.
const IN_FLIGHT: usize = 200;
/// Records that a range read asks for.
const RANGE: u64 = 100;

/// How much load.
#[derive(Debug, Clone, Args)]
pub(super) struct LoadArgs {
    /// Devices that report, spread over all shards.
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
    /// Batches written a second, over all writers.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Records in a batch, four points each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch: u64,
    /// Writers, each with connections and devices of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    writers: u32,
    /// Linearizable reads a second: by turns the latest values and the last hundred records of a device.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    reads: u32,
}

/// What is known of the devices: who they are, where they live, what of theirs was acknowledged.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) plan: Plan,
    /// Shard of each device.
    pub(super) shards: Vec<u32>,
    acknowledged: Mutex<Vec<Vec<Range<u64>>>>,
    /// Batches that were due after a moment, by when they were acknowledged, once somebody wants to know.
    noted: Mutex<Option<(Instant, Vec<Acknowledged>)>>,
}

/// A batch that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledged {
    pub(super) device: u32,
    /// Number of its first record.
    pub(super) first: u64,
    pub(super) at: Instant,
}

impl Acknowledged {
    /// Which batch it is.
    pub(super) fn key(&self) -> (u32, u64) {
        (self.device, self.first)
    }
}

/// The load while it runs.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) fleet: Arc<Fleet>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
    _neighbour: Neighbour,
}

impl Fleet {
    fn book(&self) -> MutexGuard<'_, Vec<Vec<Range<u64>>>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn device(&self, device: u32) -> String {
        self.plan.devices(device).next().unwrap_or_default()
    }

    /// Of batches that are due from now on it is noted when they are acknowledged.
    pub(super) fn note_acknowledgements(&self) {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Vec::new()));
    }

    /// The batches that were noted so far.
    pub(super) fn acknowledgements(&self) -> Vec<Acknowledged> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.as_ref().map_or(Vec::new(), |(_, noted)| noted.clone())
    }

    /// All devices.
    pub(super) fn everything(&self) -> v1::Selector {
        v1::Selector {
            device_type: TYPE.to_owned(),
            ..Default::default()
        }
    }

    /// Number of each device, by its id.
    pub(super) fn numbers(&self) -> BTreeMap<String, u32> {
        (0..self.plan.producers)
            .map(|number| (self.device(number), number))
            .collect()
    }

    fn acknowledge(&self, device: u32, numbers: Range<u64>, due: Instant) {
        if let Some((since, noted)) = &mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner)
            && due >= *since
        {
            noted.push(Acknowledged {
                device,
                first: numbers.start,
                at: Instant::now(),
            });
        }
        if let Some(ranges) = self.book().get_mut(device as usize) {
            ranges.push(numbers);
        }
    }

    /// The highest acknowledged number of a device and the newest batch it is in; none before the first.
    fn newest(&self, device: u32) -> Option<u64> {
        let book = self.book();
        // The newest is among the last few: as many as can be in flight at once.
        let recent = book.get(device as usize)?.iter().rev().take(2 * IN_FLIGHT);
        recent.map(|range| range.end - 1).max()
    }

    /// All acknowledged numbers of each device, in order, neighbours joined.
    pub(super) fn acknowledged(&self) -> Vec<Vec<Range<u64>>> {
        self.book().iter().cloned().map(crate::oracle::joined).collect()
    }
}

impl Load {
    /// Registers the devices and begins. Clients start with the given endpoints and learn of other nodes by themselves.
    pub(super) async fn begin(run: &RunArgs, endpoints: &[String], record: &Arc<Record>) -> Result<Load> {
        let args = &run.load;
        let plan = Plan {
            device_type: TYPE.to_owned(),
            run: setup::run_name()?,
            start_ns: setup::now_ns()? - BEGIN_AGO_NS,
            producers: args.devices,
            devices_per_producer: 1,
            rows_per_batch: args.batch,
        };
        let client = connect(endpoints).await?;
        client.apply_device_types(vec![plan.device_type()]).await?;
        let ids: Vec<String> = (0..args.devices).flat_map(|device| plan.devices(device)).collect();
        let map = client.shard_map().await?;
        let shard_of = |id: &String| {
            let slot = xxh3_64(id.as_bytes()).checked_rem(map.slots.len() as u64)?;
            map.slots.get(usize::try_from(slot).ok()?).copied()
        };
        let shards: Option<Vec<u32>> = ids.iter().map(shard_of).collect();
        let devices = ids.into_iter().map(|id| setup::bare_device(id, TYPE));
        client.register_devices(devices.collect()).await?;
        let fleet = Arc::new(Fleet {
            plan,
            shards: shards.context("the cluster gives no shard map")?,
            acknowledged: Mutex::new(vec![Vec::new(); args.devices as usize]),
            noted: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let writers = args.writers.min(args.devices).min(args.rate);
        for writer in 0..writers {
            let source = Source {
                client: connect(endpoints).await?,
                fleet: Arc::clone(&fleet),
                record: Arc::clone(record),
                devices: (writer..args.devices).step_by(writers as usize).collect(),
                every: Duration::from_secs(1) * writers / args.rate,
                stopped: stopped.clone(),
            };
            tasks.spawn(source.write());
        }
        let reader = Source {
            client: connect(endpoints).await?,
            fleet: Arc::clone(&fleet),
            record: Arc::clone(record),
            devices: (0..args.devices).collect(),
            every: Duration::from_secs(1) / args.reads,
            stopped,
        };
        tasks.spawn(reader.read());
        let neighbour = Neighbour::beside_nodes(&run.dir, Arc::clone(record))?;
        Ok(Load {
            fleet,
            stop,
            tasks,
            _neighbour: neighbour,
        })
    }

    /// Stops and waits for what is on its way.
    pub(super) async fn end(mut self) -> Result<Arc<Fleet>> {
        // whoever is gone already need not be told
        let _ = self.stop.send(true);
        while let Some(task) = self.tasks.join_next().await {
            task??;
        }
        Ok(self.fleet)
    }
}

/// A client as applications have it: default waits, default retries.
pub(super) async fn connect(endpoints: &[String]) -> Result<Client> {
    connect_as(endpoints, None).await
}

/// One that names the application for which it asks.
pub(super) async fn connect_as(endpoints: &[String], application: Option<&str>) -> Result<Client> {
    let options = ClientOptions {
        endpoints: endpoints.to_vec(),
        application: application.map(str::to_owned),
        ..ClientOptions::default()
    };
    let what = || format!("no node answers at {}", endpoints.join(", "));
    Client::connect_with(options).await.with_context(what)
}

/// One writer or reader.
#[derive(Debug)]
struct Source {
    client: Client,
    fleet: Arc<Fleet>,
    record: Arc<Record>,
    devices: Vec<u32>,
    every: Duration,
    stopped: watch::Receiver<bool>,
}

impl Source {
    async fn write(self) -> Result<()> {
        let rows = self.fleet.plan.rows_per_batch;
        self.play(|source, device, round, due| {
            let first = round * rows;
            let batch = source.fleet.plan.batch(device, first)?;
            let request = v1::WriteRequest {
                batch: Some(batch),
                producer: format!("ops-{}", source.fleet.device(device)),
                sequence: round + 1,
            };
            let (client, fleet, record) = source.parts();
            Ok(async move {
                match client.write(request).await {
                    Ok(_) => {
                        fleet.acknowledge(device, first..first + rows, due);
                        record.written(fleet.shards.get(device as usize).copied().unwrap_or(0), due);
                    }
                    Err(error) => record.failed(Request::Write, due, said("write", &error)),
                }
            })
        })
        .await
    }

    async fn read(self) -> Result<()> {
        self.play(|source, device, round, due| {
            let (client, fleet, record) = source.parts();
            // Before the question: what is acknowledged later need not be in the answer.
            let newest = fleet.newest(device);
            Ok(async move {
                let answer = if round % 2 == 0 {
                    latest(&client, &fleet, device).await
                } else {
                    range(&client, &fleet, device, newest.unwrap_or(0)).await
                };
                match answer {
                    Ok(seen) => {
                        let stale = newest.filter(|newest| seen.is_none_or(|seen| seen < *newest));
                        let words = |newest| format!("{} had number {newest}, seen {seen:?}", fleet.device(device));
                        record.read(due, stale.map(words));
                    }
                    Err(error) => record.failed(Request::Read, due, said("read", &error)),
                }
            })
        })
        .await
    }

    fn parts(&self) -> (Client, Arc<Fleet>, Arc<Record>) {
        (self.client.clone(), Arc::clone(&self.fleet), Arc::clone(&self.record))
    }

    /// Starts a request at every tick, devices by turns, until stopped; then waits for those on their way. The request is
    /// given the device, how often it had its turn, and when it was due.
    async fn play<F, R>(self, request: F) -> Result<()>
    where
        F: Fn(&Source, u32, u64, Instant) -> Result<R>,
        R: Future<Output = ()> + Send + 'static,
    {
        let mut stopped = self.stopped.clone();
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut ticks = interval(self.every);
        let mut under_way = JoinSet::new();
        for turn in 0.. {
            let Some(device) = self.devices.get(turn % self.devices.len().max(1)).copied() else {
                break;
            };
            let round = (turn / self.devices.len()) as u64;
            let due = tokio::select! {
                due = ticks.tick() => due.into_std(),
                _ = stopped.changed() => break,
            };
            let permit = tokio::select! {
                permit = Arc::clone(&room).acquire_owned() => permit?,
                _ = stopped.changed() => break,
            };
            let work = request(&self, device, round, due)?;
            under_way.spawn(async move {
                work.await;
                drop(permit);
            });
            while let Some(done) = under_way.try_join_next() {
                done?;
            }
        }
        while let Some(done) = under_way.join_next().await {
            done?;
        }
        Ok(())
    }
}

fn said(what: &str, error: &Error) -> String {
    format!("{what}: {} {error}", error.reason)
}

fn linearizable() -> Option<v1::Consistency> {
    Some(v1::Consistency {
        level: Some(v1::consistency::Level::Linearizable(v1::Linearizable {})),
    })
}

fn selector(fleet: &Fleet, device: u32) -> Option<v1::Selector> {
    Some(v1::Selector {
        device_ids: vec![fleet.device(device)],
        ..Default::default()
    })
}

/// The newest number that the latest values show.
async fn latest(client: &Client, fleet: &Fleet, device: u32) -> Result<Option<u64>, Error> {
    let request = v1::GetLatestRequest {
        selector: selector(fleet, device),
        consistency: linearizable(),
        ..Default::default()
    };
    let (messages, _) = client.get_latest(request).await?.collect().await?;
    let devices = messages.iter().flat_map(|message| &message.devices);
    let values = devices.flat_map(|device| &device.values);
    Ok(values
        .filter_map(|value| fleet.plan.number_at(value.observed_at_ns))
        .max())
}

/// The newest number among the records up to a number.
async fn range(client: &Client, fleet: &Fleet, device: u32, newest: u64) -> Result<Option<u64>, Error> {
    let request = v1::QueryRangeRequest {
        selector: selector(fleet, device),
        from_ns: fleet.plan.observed_at_ns((newest + 1).saturating_sub(RANGE)),
        to_ns: fleet.plan.observed_at_ns(newest + 1),
        consistency: linearizable(),
        ..Default::default()
    };
    let (messages, _) = client.query_range(request).await?.collect().await?;
    let rows = messages.iter().flat_map(|message| &message.batch);
    let times = rows.flat_map(|batch| &batch.observed_at_ns);
    Ok(times.filter_map(|time| fleet.plan.number_at(*time)).max())
}
