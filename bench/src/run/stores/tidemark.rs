//! Tidemark itself, one node or several. Never here: what is written or asked (`columns`, `contract`). Invariant: nodes run
//! as they come, with no setting of their own but folder and ports.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidemark_client::{Client, ClientOptions, v1};

use super::Place;
use super::columns::device_type;
use super::contract::Session;
use crate::ops::{Fleet as Nodes, Setup, answers, folder_bytes, until};
use crate::run::fleet::Fleet;
use crate::run::process::version;

const PATIENCE: Duration = Duration::from_secs(120);

/// The nodes.
#[derive(Debug)]
pub(crate) struct Tidemark {
    nodes: Nodes,
    count: usize,
}

impl Tidemark {
    pub(super) async fn start(place: &Place, fleet: &Fleet) -> Result<Tidemark> {
        let mut nodes = Nodes::new(Setup {
            program: place.tidemarkd.clone(),
            dir: place.dir.clone(),
            port_base: place.port_base,
            log: "info,openraft=error".to_owned(),
            keep: true,
        })?;
        let mut peers = Vec::new();
        for _ in 0..place.nodes {
            let number = nodes.add(None)?;
            peers.push(nodes.node(number)?.peers.clone());
        }
        let store = Tidemark {
            nodes,
            count: place.nodes,
        };
        for endpoint in store.endpoints()? {
            answers(&endpoint).await?;
        }
        let client = store.client().await?;
        let request = v1::InitRequest {
            peers,
            shards: place.shards,
            replication_factor: 0,
        };
        client.init_cluster(request).await.context("init")?;
        store.healthy().await?;
        client
            .apply_device_types(fleet.types.iter().map(device_type).collect())
            .await?;
        for one in &fleet.types {
            let devices = one.devices.iter().map(|device| v1::Device {
                id: device.id.clone(),
                device_type: one.id.clone(),
                tags: [("town".to_owned(), device.town.clone())].into(),
                ..Default::default()
            });
            client.register_devices(devices.collect()).await?;
        }
        Ok(store)
    }

    fn endpoints(&self) -> Result<Vec<String>> {
        (1..=self.count)
            .map(|number| Ok(self.nodes.node(number)?.clients.clone()))
            .collect()
    }

    async fn client(&self) -> Result<Client> {
        let options = ClientOptions {
            endpoints: self.endpoints()?,
            timeout: PATIENCE,
            attempt_timeout: PATIENCE,
            ..ClientOptions::default()
        };
        Ok(Client::connect_with(options).await?)
    }

    async fn healthy(&self) -> Result<()> {
        let client = self.client().await?;
        let healthy = async || client.status().await.ok().filter(|status| status.healthy).map(drop);
        until("the cluster is healthy", PATIENCE, healthy).await
    }

    pub(super) async fn version(&self) -> Result<String> {
        version(self.nodes.program()).await
    }

    pub(super) async fn session(&self, fleet: &Fleet) -> Result<Session> {
        Ok(Session::new(self.client().await?, fleet))
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.nodes.pids()
    }

    pub(super) async fn tidy(&mut self) -> Result<&'static str> {
        let client = self.client().await?;
        let shards = client.status().await?.shards;
        // Shard 0 is the catalog.
        for shard in shards.iter().map(|shard| shard.shard).filter(|shard| *shard > 0) {
            let answer = client.compact_shard(shard).await?;
            let problem = answer
                .replicas
                .iter()
                .map(|one| &one.problem)
                .find(|problem| !problem.is_empty());
            ensure!(problem.is_none(), "shard {shard}: {problem:?}");
        }
        Ok("compacted by request")
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        (1..=self.count)
            .filter_map(|number| self.nodes.node(number).ok())
            .map(|node| folder_bytes(&node.data))
            .sum()
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        for number in 1..=self.count {
            self.nodes.kill(number).await?;
        }
        Ok(())
    }

    pub(super) fn start_again(&mut self) -> Result<()> {
        (1..=self.count).try_for_each(|number| self.nodes.start(number))
    }

    pub(super) fn runs(&mut self) -> Result<()> {
        self.nodes.all_run()
    }

    pub(super) async fn end(mut self) -> Result<()> {
        for number in 1..=self.count {
            self.nodes.stop(number).await?;
        }
        Ok(())
    }
}
