//! The cluster as its operator has it: begins, grows, runs jobs, looks. Never here: load, figures of requests.
//! Invariant: every wait has an end, and a node that died unasked ends the run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tidemark_client::{Client, ClientOptions, v1};

use super::nodes::Fleet;
use super::{RunArgs, until};
use crate::report;

/// Nodes that a cluster begins with.
pub(super) const FIRST_NODES: usize = 3;
/// Longest wait for what should be a matter of seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Longest life of a job.
const JOB_PATIENCE: Duration = Duration::from_secs(3_600);

/// Nodes, and the operator's connection.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) fleet: Fleet,
    pub(super) client: Client,
}

/// A job in figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct JobFigures {
    pub(super) job: String,
    pub(super) seconds: f64,
    pub(super) moves: usize,
    /// Bytes that its copies took, as far as was seen while it ran.
    pub(super) bytes: u64,
}

impl Cluster {
    /// Starts three nodes with empty folders and makes them a cluster.
    pub(super) async fn begin(args: &RunArgs) -> Result<Cluster> {
        let mut fleet = Fleet::new(args.nodes())?;
        let mut endpoints = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..FIRST_NODES {
            let number = fleet.add(None)?;
            endpoints.push(fleet.node(number)?.clients.clone());
            peers.push(fleet.node(number)?.peers.clone());
        }
        for endpoint in &endpoints {
            answers(endpoint).await?;
        }
        let options = ClientOptions {
            endpoints,
            timeout: Duration::from_secs(120),
            ..ClientOptions::default()
        };
        let client = Client::connect_with(options).await?;
        let request = v1::InitRequest {
            peers,
            shards: args.shards,
            replication_factor: 3,
        };
        client.init_cluster(request).await.context("init")?;
        let mut cluster = Cluster { fleet, client };
        cluster.healthy(PATIENCE).await?;
        Ok(cluster)
    }

    /// Client addresses of the first nodes: all that an application is told.
    pub(super) fn endpoints(&self) -> Result<Vec<String>> {
        (1..=FIRST_NODES)
            .map(|number| Ok(self.fleet.node(number)?.clients.clone()))
            .collect()
    }

    pub(super) async fn status(&self) -> Result<v1::StatusResponse> {
        Ok(self.client.status().await?)
    }

    /// Waits until every shard has a leader, a majority, and replicas that can be reached.
    pub(super) async fn healthy(&mut self, within: Duration) -> Result<()> {
        self.fleet.all_run()?;
        let client = &self.client;
        let healthy = async || client.status().await.ok().filter(|status| status.healthy).map(drop);
        until("the cluster is healthy", within, healthy).await
    }

    /// Id of a node in the catalog.
    pub(super) async fn id(&self, number: usize) -> Result<u64> {
        let address = &self.fleet.node(number)?.clients;
        let status = self.status().await?;
        let nodes = status.nodes.iter().filter_map(|status| status.node.as_ref());
        let found = nodes.into_iter().find(|node| node.client_address == *address);
        Ok(found.with_context(|| format!("{address} is not in the cluster"))?.id)
    }

    /// Starts a node and has the cluster take it in.
    pub(super) async fn add_node(&mut self) -> Result<usize> {
        let number = self.fleet.add(None)?;
        answers(&self.fleet.node(number)?.clients).await?;
        let peer_address = self.fleet.node(number)?.peers.clone();
        self.client
            .add_node(v1::AddNodeRequest { peer_address })
            .await
            .context("add a node")?;
        Ok(number)
    }

    /// Starts a node that asks to join by itself.
    pub(super) async fn join_node(&mut self) -> Result<usize> {
        let peer = self.fleet.node(1)?.peers.clone();
        let number = self.fleet.add(Some(&peer))?;
        let this = &*self;
        let joined = async || this.id(number).await.ok();
        until("a node with --join is in the cluster", PATIENCE, joined).await?;
        self.fleet.all_run()?;
        Ok(number)
    }

    /// Starts a job and waits until it is done.
    pub(super) async fn job(&mut self, name: &str, goal: v1::job_spec::Goal) -> Result<JobFigures> {
        let began = Instant::now();
        let request = v1::StartJobRequest {
            spec: Some(v1::JobSpec { goal: Some(goal) }),
            bytes_per_second_max: 0,
        };
        let started = self.client.start_job(request).await.with_context(|| name.to_owned())?;
        let id = started.job.with_context(|| format!("{name}: no job in the answer"))?.id;
        let mut bytes: BTreeMap<usize, u64> = BTreeMap::new();
        let client = &self.client;
        let ended = async || {
            // Whoever leads the catalog may be gone for a moment: asked again.
            let job = client.list_jobs(id).await.ok()?.into_iter().next()?;
            for (number, step) in job.moves.iter().enumerate() {
                let most = bytes.entry(number).or_default();
                *most = step.bytes_done.max(*most);
            }
            let over = !matches!(job.state(), v1::JobState::Running | v1::JobState::Cancelling);
            over.then_some(job)
        };
        let job = until(name, JOB_PATIENCE, ended).await?;
        ensure!(
            job.state() == v1::JobState::Done,
            "{name}: {:?}: {}",
            job.state(),
            job.message
        );
        let figures = JobFigures {
            job: name.to_owned(),
            seconds: began.elapsed().as_secs_f64(),
            moves: job.moves.len(),
            bytes: bytes.values().sum(),
        };
        report::note(&format!("{name}: {} moves in {:.1} s", figures.moves, figures.seconds));
        Ok(figures)
    }

    /// Hands each data shard to another of its replicas; gives how long each had no leader, as the nodes saw it.
    pub(super) async fn hand_over_all(&self) -> Result<Vec<i64>> {
        let mut pauses = Vec::new();
        for shard in self.status().await?.shards.iter().filter(|shard| shard.shard > 0) {
            let follower = |replica: &&v1::ReplicaStatus| replica.state() == v1::ReplicaState::Follower;
            let Some(to) = shard.replicas.iter().find(follower) else {
                bail!("shard {} has no follower", shard.shard)
            };
            let request = v1::TransferLeaderRequest {
                shard: shard.shard,
                to_node: to.node_id,
            };
            pauses.push(self.client.transfer_leader(request).await?.pause_ms);
        }
        Ok(pauses)
    }

    /// Whether all replicas of a node have what the others have, but for what is on its way.
    pub(super) async fn in_step(&self, id: u64) -> Option<()> {
        /// Entries of a shard that may be under way.
        const UNDER_WAY: u64 = 10;
        let status = self.client.status().await.ok()?;
        let behind = |shard: &v1::ShardStatus| {
            let newest = shard.replicas.iter().map(|replica| replica.applied_index).max();
            let mine = shard.replicas.iter().filter(|replica| replica.node_id == id);
            mine.into_iter().any(|replica| {
                let serves = matches!(replica.state(), v1::ReplicaState::Leader | v1::ReplicaState::Follower);
                !serves || replica.applied_index + UNDER_WAY < newest.unwrap_or(0)
            })
        };
        (status
            .shards
            .iter()
            .any(|shard| shard.replicas.iter().any(|replica| replica.node_id == id))
            && !status.shards.iter().any(behind))
        .then_some(())
    }
}

/// Waits until a node takes calls.
pub(crate) async fn answers(endpoint: &str) -> Result<()> {
    let connected = async || Client::connect([endpoint]).await.ok();
    until(&format!("{endpoint} answers"), PATIENCE, connected)
        .await
        .map(drop)
}
