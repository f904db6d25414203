//! What a measurement needs before it starts: a connection, bare devices, the time, a name. Invariant: nothing here
//! changes a cluster.

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
