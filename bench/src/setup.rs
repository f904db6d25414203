//! What a measurement needs before it starts: a connection, device types, devices. Invariant: what is there already is
//! left as it is.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tidemark_client::{Client, ClientOptions, v1};

/// Which cluster.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Any nodes of the cluster, host:port, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        env = "TIDEMARK_ENDPOINT",
        default_value = "127.0.0.1:7777"
    )]
    pub(crate) endpoint: Vec<String>,
    /// Longest wait for one operation, seconds, retries included.
    #[arg(long, default_value_t = 30)]
    pub(crate) timeout_s: u64,
}

impl ClusterArgs {
    /// A client of its own, with connections of its own.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let timeout = std::time::Duration::from_secs(self.timeout_s);
        let options = ClientOptions {
            endpoints: self.endpoint.clone(),
            timeout,
            ..ClientOptions::default()
        };
        Client::connect_with(options)
            .await
            .with_context(|| format!("no node answers at {}", self.endpoint.join(", ")))
    }
}

/// Creates the types and devices that are missing; gives how many of each.
pub(crate) async fn ensure(
    client: &Client,
    types: Vec<v1::DeviceType>,
    devices: Vec<v1::Device>,
) -> Result<(usize, usize)> {
    let known = client
        .list_device_types(Vec::new())
        .await
        .context("list device types")?;
    let known: HashSet<String> = known.into_iter().map(|t| t.id).collect();
    let (known_types, new_types): (Vec<_>, Vec<_>) = types.into_iter().partition(|t| known.contains(&t.id));
    let mut known = HashSet::new();
    for t in known_types {
        let selector = Some(v1::Selector {
            device_type: t.id,
            ..Default::default()
        });
        let request = v1::ListDevicesRequest {
            selector,
            ..Default::default()
        };
        let mut answer = client.list_devices(request).await.context("list devices")?;
        while let Some(message) = answer.next().await {
            known.extend(message?.devices.into_iter().map(|d| d.id));
        }
    }
    let new_devices: Vec<_> = devices.into_iter().filter(|d| !known.contains(&d.id)).collect();
    let made = (new_types.len(), new_devices.len());
    if !new_types.is_empty() {
        client
            .apply_device_types(new_types)
            .await
            .context("apply device types")?;
    }
    if !new_devices.is_empty() {
        client.register_devices(new_devices).await.context("register devices")?;
    }
    Ok(made)
}

/// A device without tags or place.
pub(crate) fn bare_device(id: String, device_type: &str) -> v1::Device {
    v1::Device {
        id,
        device_type: device_type.to_owned(),
        ..Default::default()
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now_ns() -> Result<i64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock stands before 1970")?;
    i64::try_from(since.as_nanos()).context("the clock stands after 2262")
}

/// A short name for this run, growing with time.
pub(crate) fn run_name() -> Result<String> {
    Ok(format!("{:x}", now_ns()? / 1_000_000))
}
