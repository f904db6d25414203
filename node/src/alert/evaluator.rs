//! Evaluates the devices of the shards that this node leads: those that got points, all of them once it leads or profiles change, and
//! those that fell silent.
//!
//! Never here: how a device is evaluated. Invariant: what could not be recorded is evaluated again; a shard has one command on its way
//! at most, so each is made from what the one before left; silence is counted from points that count, whatever else was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tidemark_proto::peer::{AlertChanges, ShardCommand, applied, shard_command};
use tokio::task::JoinHandle;

use super::evaluate::{Devices, Making, Silent};
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::clock::{Instant, monotonic, now_ns};
use crate::error::{Error, Result};
use crate::raft::machine::blocking;
use crate::raft::replica::Replica;
use crate::raft::state::store_error;
use crate::route::{Retry, Router, ShardJob};
use crate::shard::{AlertName, DeviceFilter, Shard};

/// Shards are looked at this often.
const TICK: Duration = Duration::from_millis(100);
/// Devices are looked at for silence this often.
const SILENCE_EVERY: Duration = Duration::from_secs(2);
/// What could not be recorded is tried again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Devices, or states, that are looked at together.
const TOGETHER: usize = 256;
/// So often a command is made anew because other states were recorded meanwhile.
const TRIES: usize = 8;

/// Evaluates alerts, and answers those who acknowledge or close them.
pub struct Alerts {
    pub(super) router: Arc<Router>,
    pub(super) job: ShardJob,
}

/// When devices fall silent that are not, by type and ordinal.
type Due = BTreeMap<(u32, u32), i64>;

/// What is known of a shard between two looks.
#[derive(Debug, Default)]
struct Watched {
    /// Profiles and types that everything was evaluated under while this node led; `None`: not all of it was.
    whole_under: Option<(u32, u64)>,
    due: Due,
    silence_at: Option<Instant>,
    again_at: Option<Instant>,
}

impl Alerts {
    /// Over a router.
    pub fn new(router: Arc<Router>, job: ShardJob) -> Alerts {
        Alerts { router, job }
    }

    /// Runs for ever.
    pub async fn run(self: Arc<Self>) {
        let mut busy: BTreeMap<u32, JoinHandle<Watched>> = BTreeMap::new();
        let mut watched: BTreeMap<u32, Watched> = BTreeMap::new();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            let catalog = self.router.host().catalog_now();
            let replicas = self.router.host().replicas();
            for replica in replicas.into_iter().filter(|replica| replica.group() != CATALOG_GROUP) {
                let group = replica.group();
                match busy.remove(&group) {
                    Some(task) if !task.is_finished() => {
                        busy.insert(group, task);
                        continue;
                    }
                    Some(task) => drop(watched.insert(group, task.await.unwrap_or_default())),
                    None => {}
                }
                let known = watched.remove(&group).unwrap_or_default();
                match replica.is_leader() && catalog.is_initialised() {
                    true if known.again_at.is_some_and(|at| at > monotonic()) => drop(watched.insert(group, known)),
                    true => {
                        let (alerts, catalog) = (self.clone(), catalog.clone());
                        busy.insert(group, tokio::spawn(alerts.look(replica, catalog, known)));
                    }
                    false => forget_notes(&replica, &catalog),
                }
            }
        }
    }

    /// One look at a shard that this node leads.
    async fn look(self: Arc<Self>, replica: Arc<Replica>, catalog: Arc<Catalog>, known: Watched) -> Watched {
        match self.evaluate(&replica, &catalog, known).await {
            Ok(next) => next,
            Err(error) => {
                tracing::debug!(group = replica.group(), %error, "alerts could not be evaluated, trying again");
                Watched {
                    again_at: Some(monotonic() + AGAIN_AFTER),
                    ..Watched::default()
                }
            }
        }
    }

    async fn evaluate(&self, replica: &Arc<Replica>, catalog: &Arc<Catalog>, known: Watched) -> Result<Watched> {
        let version = catalog.alerts_version();
        let types: BTreeSet<u32> = catalog.types_with_alerts().collect();
        let none = types.is_empty();
        let changed = replica.state().with_shard(|shard| {
            // Watched before anything is read: what comes later is noted.
            shard.notes().watch(types);
            Ok(shard.notes().take())
        })?;
        let (mut due, mut silence_at) = (known.due, known.silence_at);
        match changed {
            Some(devices) if known.whole_under == Some(version) => {
                let devices: Vec<_> = devices.into_iter().map(|((a, b), t_ns)| (a, b, t_ns)).collect();
                self.devices(replica, catalog, devices, &mut due).await?;
            }
            _ => {
                due.clear();
                self.whole(replica, catalog, &mut due).await?;
            }
        }
        if !none && silence_at.is_none_or(|at| at <= monotonic()) {
            let now_ns = now_ns();
            let silent = due.iter().filter(|(_, at_ns)| **at_ns <= now_ns);
            // No point has changed: the newest mark will do.
            let silent: Vec<_> = silent.map(|((a, b), _)| (*a, *b, i64::MAX)).collect();
            self.devices(replica, catalog, silent, &mut due).await?;
            silence_at = Some(monotonic() + SILENCE_EVERY);
        }
        Ok(Watched {
            whole_under: Some(version),
            due,
            silence_at,
            again_at: None,
        })
    }

    /// Everything: devices of types with profiles, and states of profiles that are gone.
    async fn whole(&self, replica: &Arc<Replica>, catalog: &Arc<Catalog>, due: &mut Due) -> Result<()> {
        for type_number in catalog.types_with_alerts() {
            let ordinals = self.ordinals(replica, type_number).await?;
            let devices = ordinals.into_iter().map(|ordinal| (type_number, ordinal, i64::MIN));
            self.devices(replica, catalog, devices.collect(), due).await?;
        }
        let mut last: Option<AlertName> = None;
        loop {
            let from = last.clone();
            let names = self
                .on_shard(replica, move |shard| {
                    shard.alert_names(from.as_ref(), TOGETHER).map_err(store_error)
                })
                .await?;
            let Some(end) = names.last().cloned() else {
                return Ok(());
            };
            self.record(replica, catalog, names, due, |making, names| making.gone(names))
                .await?;
            last = Some(end);
        }
    }

    async fn devices(
        &self,
        replica: &Arc<Replica>,
        catalog: &Arc<Catalog>,
        devices: Vec<(u32, u32, i64)>,
        due: &mut Due,
    ) -> Result<()> {
        for some in devices.chunks(TOGETHER) {
            let profiles = some
                .iter()
                .map(|(number, ..)| catalog.alerts_of_type(*number).len() as u64);
            self.router.host().metrics().alert_evaluations.add(profiles.sum());
            self.record(replica, catalog, some.to_vec(), due, |making, devices: &Devices| {
                making.devices(devices)
            })
            .await?;
        }
        Ok(())
    }

    async fn ordinals(&self, replica: &Arc<Replica>, type_number: u32) -> Result<Vec<u32>> {
        self.on_shard(replica, move |shard| {
            let filter = DeviceFilter {
                type_number: Some(type_number),
                ..DeviceFilter::default()
            };
            let mut ordinals = Vec::new();
            let all = shard.select(&filter, |roster, at| {
                ordinals.push(roster.ordinal(at));
                std::ops::ControlFlow::<()>::Continue(())
            });
            let _ = all.map_err(store_error)?;
            Ok(ordinals)
        })
        .await
    }

    /// Makes commands of some items until all are done, and has them recorded; notes when their devices fall silent.
    async fn record<T: Clone + Send + 'static>(
        &self,
        replica: &Arc<Replica>,
        catalog: &Arc<Catalog>,
        mut items: Vec<T>,
        due: &mut Due,
        make: impl Fn(&mut Making<'_>, &[T]) -> Result<usize> + Copy + Send + 'static,
    ) -> Result<()> {
        let mut tries = 0;
        while !items.is_empty() {
            let (catalog, some) = (catalog.clone(), items.clone());
            let (now_ns, done, (changes, silent)) = self
                .on_shard(replica, move |shard| {
                    let mut making = Making::new(shard, &catalog)?;
                    let done = make(&mut making, &some)?;
                    Ok((making.now_ns(), done, making.finish()))
                })
                .await?;
            let steps = changes.as_ref().map_or(0, |changes| changes.steps.len() as u64);
            let taken = match changes {
                Some(changes) => self.propose(replica.group(), now_ns, changes).await?,
                None => true,
            };
            if taken {
                self.router.host().metrics().alert_steps.add(steps);
                note(due, silent);
                items.drain(..done.max(1));
                tries = 0;
                continue;
            }
            tries += 1;
            if tries == TRIES {
                return Err(Error::internal(
                    "states of alerts change faster than they can be evaluated",
                ));
            }
        }
        Ok(())
    }

    /// Offers a command to the shard; false where other states were recorded since it was made.
    pub(super) async fn propose(&self, group: u32, stamp_ns: i64, changes: AlertChanges) -> Result<bool> {
        let command = ShardCommand {
            stamp_ns,
            command: Some(shard_command::Command::Alerts(changes)),
        };
        let deadline = monotonic() + PROPOSE_TIMEOUT;
        let command = command.encode_to_vec().into();
        match self.router.propose(group, command, Retry::Safe, deadline).await? {
            applied::Result::Alerts(answer) => Ok(answer.taken),
            other => Err(Error::internal(format!("answer {other:?} to alerts"))),
        }
    }

    async fn on_shard<T: Send + 'static>(
        &self,
        replica: &Arc<Replica>,
        work: impl FnOnce(&Shard) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let state = replica.state().clone();
        blocking(move || state.with_shard(work)).await
    }
}

/// Nobody evaluates here: what is noted would only pile up.
fn forget_notes(replica: &Replica, catalog: &Catalog) {
    let forgotten = replica.state().with_shard(|shard| {
        shard.notes().watch(catalog.types_with_alerts().collect());
        drop(shard.notes().take());
        Ok(())
    });
    forgotten.ok();
}

fn note(due: &mut Due, silent: Vec<Silent>) {
    for (device, at_ns) in silent {
        match at_ns {
            Some(at_ns) => due.insert(device, at_ns),
            None => due.remove(&device),
        };
    }
}
