//! Settings of a node: flags and environment. The only place that reads the environment. Never: decisions.

use std::path::PathBuf;
use std::time::Duration;

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
    #[arg(long, env = "TIDEMARK_LOG", default_value = "info,openraft=error")]
    pub log: String,
    /// Listens beyond loopback without TLS: anyone who reaches the ports can read and write.
    #[arg(long, env = "TIDEMARK_INSECURE")]
    pub insecure: bool,
    /// Where this node stands (a rack, a room, a site): replicas of a shard are spread over zones.
    #[arg(long, env = "TIDEMARK_ZONE", default_value = "")]
    pub zone: String,
    /// Peer addresses of a cluster to join, while this node belongs to none.
    #[arg(long, env = "TIDEMARK_JOIN", value_delimiter = ',')]
    pub join: Vec<String>,
    /// When replicas flush and what stays in their logs. No flag: only tests have a reason to change it.
    #[arg(skip)]
    pub tuning: Tuning,
}

/// When replicas flush, and what stays in their logs.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Replicas are looked at this often.
    pub flush_every: Duration,
    /// Every this many looks a replica is flushed however little it has to flush.
    pub flush_all_every: u32,
    /// Entries applied since the last flush after which a replica is flushed.
    pub entries_unflushed_max: u64,
    /// Entries that stay in the log below the flushed state, for replicas that lag a little.
    pub log_entries_kept: u64,
    /// The same in bytes of one group; whichever is less stays.
    pub log_bytes_kept: u64,
    /// Bytes of one group that stay for a checkpoint on its way, or for a live replica that lags; not for a dead one.
    pub log_bytes_pinned: u64,
    /// A replica that its leader did not hear for so long is dead: no log stays for it.
    pub silent_after: Duration,
    /// Most bytes of checkpoints that a node sends a second, all transfers together.
    pub move_bytes_per_second: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            flush_every: Duration::from_secs(5),
            flush_all_every: 60,
            entries_unflushed_max: 20_000,
            log_entries_kept: 10_000,
            log_bytes_kept: 64 << 20,
            log_bytes_pinned: 2 << 30,
            silent_after: Duration::from_secs(10),
            move_bytes_per_second: 64 << 20,
        }
    }
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
