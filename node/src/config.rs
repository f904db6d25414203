//! Settings of a node: flags and environment. The only place that reads the environment. Never: decisions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Tidemark server.
#[derive(Debug, Parser)]
#[command(name = "tidemarkd", version, about = "A node of a Tidemark cluster")]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub config: Config,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Asks a running node whether it serves; exit code 0 or 1.
    Health {
        /// Client address of the node.
        #[arg(long, env = "TIDEMARK_LISTEN", default_value = "127.0.0.1:7777")]
        endpoint: String,
    },
}

/// How a node serves.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Folder of everything the node keeps.
    #[arg(long, env = "TIDEMARK_DATA_DIR", default_value = "./data/node")]
    pub data_dir: PathBuf,
    /// Where clients connect, host:port.
    #[arg(long, env = "TIDEMARK_LISTEN", default_value = "127.0.0.1:7777")]
    pub listen: String,
    /// Where other nodes connect, host:port.
    #[arg(long, env = "TIDEMARK_PEER_LISTEN", default_value = "127.0.0.1:7778")]
    pub peer_listen: String,
    /// Client address that others are told; the listening one where absent.
    #[arg(long, env = "TIDEMARK_ADVERTISE")]
    pub advertise: Option<String>,
    /// Peer address that others are told; the listening one where absent.
    #[arg(long, env = "TIDEMARK_ADVERTISE_PEER")]
    pub advertise_peer: Option<String>,
    /// Memory for the block cache of all shards, MiB.
    #[arg(long, env = "TIDEMARK_CACHE_MIB", default_value_t = 128)]
    pub cache_mib: usize,
    /// Logs as JSON, one event a line.
    #[arg(long, env = "TIDEMARK_LOG_JSON")]
    pub log_json: bool,
    /// Which logs to write, for example `info` or `tidemark_node=debug,info`.
    #[arg(long, env = "TIDEMARK_LOG", default_value = "info,openraft=warn")]
    pub log: String,
    /// Listens beyond loopback without TLS: anyone who reaches the ports can read and write.
    #[arg(long, env = "TIDEMARK_INSECURE")]
    pub insecure: bool,
}

impl Config {
    /// Client address that others are told.
    pub fn client_address(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.listen)
    }

    /// Peer address that others are told.
    pub fn peer_address(&self) -> &str {
        self.advertise_peer.as_deref().unwrap_or(&self.peer_listen)
    }
}
