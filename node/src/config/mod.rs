//! Settings of a node. The only place that reads the environment. Never: decisions.
//!
//! Invariant: a value comes from the last of default, file, environment and flag that names it, and its origin is known.

mod addresses;
mod given;
mod keys;
mod units;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use given::{Action, Invocation, Refused, Settings, read};

/// Smallest reserve that is chosen by itself.
const RESERVE_MIN: u64 = 256 << 20;
/// Largest reserve that is chosen by itself.
const RESERVE_MAX: u64 = 5 << 30;

/// How a node serves. What each key means to operators: `tidemarkd --print-config`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of everything the node keeps.
    pub data_dir: PathBuf,
    /// Where clients connect, host:port.
    pub listen: String,
    /// Where other nodes connect, host:port.
    pub peer_listen: String,
    /// Client address that others are told; the listening one where absent.
    pub advertise: Option<String>,
    /// Peer address that others are told; the listening one where absent.
    pub advertise_peer: Option<String>,
    /// Where this node stands (a rack, a room, a site): replicas of a shard are spread over zones.
    pub zone: String,
    /// Peer addresses of a cluster to join, while this node belongs to none.
    pub join: Vec<String>,
    /// Memory for the block cache of all shards, MiB.
    pub cache_mib: usize,
    /// Free space of the data folder's disk below which the node takes no more writes.
    pub disk_reserve: DiskReserve,
    /// Listens beyond loopback without TLS: anyone who reaches the ports can read and write.
    pub insecure: bool,
    /// Which logs to write, for example `info` or `tidemark_node=debug,info`.
    pub log: String,
    /// Logs as JSON, one event a line.
    pub log_json: bool,
    /// When replicas flush and what stays in their logs. Mostly without keys: only tests have a reason to change it.
    pub tuning: Tuning,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: "./data/node".into(),
            listen: "127.0.0.1:7777".into(),
            peer_listen: "127.0.0.1:7778".into(),
            advertise: None,
            advertise_peer: None,
            zone: String::new(),
            join: Vec::new(),
            cache_mib: 128,
            disk_reserve: DiskReserve::Auto,
            insecure: false,
            log: "info,openraft=error".into(),
            log_json: false,
            tuning: Tuning::default(),
        }
    }
}

/// How much of a disk stays free.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DiskReserve {
    /// 5 % of the disk, at least 256 MiB and at most 5 GiB.
    Auto,
    /// This much; 0 for nothing.
    Bytes(u64),
}

impl DiskReserve {
    /// Bytes to keep free on a disk of this size.
    pub fn of(self, total_bytes: u64) -> u64 {
        match self {
            DiskReserve::Auto => (total_bytes / 20).clamp(RESERVE_MIN, RESERVE_MAX),
            DiskReserve::Bytes(bytes) => bytes,
        }
    }
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
    /// Parts of a checkpoint that came for a replica stay so long after the last transfer, where it is in step without them.
    pub incoming_kept: Duration,
    /// A replica that its leader did not hear for so long is dead: no log stays for it.
    pub silent_after: Duration,
    /// Most bytes of checkpoints that a node sends a second, all transfers together. It has a key.
    pub move_bytes_per_second: u64,
    /// Reads of many devices that work at once, and as many of few; 0: as many as cores. It has a key.
    pub read_threads: usize,
    /// Questions that an application has at a node at once. It has a key.
    pub application_questions_max: usize,
    /// Bytes of unfinished answers that an application has at a node. It has a key.
    pub application_bytes_max: usize,
    /// Values a minute that a node has decoded for an application. It has a key.
    pub application_points_per_minute: u64,
    /// Devices that a shard has before this node registers no more in it. It has a key.
    pub shard_devices_max: u64,
    /// Devices of a right side of a join.
    pub join_devices_max: usize,
    /// Who takes nothing of an answer for so long reads no more.
    pub reader_patience: Duration,
    /// Bytes of unfinished windows of a question.
    pub partials_bytes_max: usize,
    /// Connections of clients.
    pub connections_max: usize,
    /// Bytes of batches that a node works on at once.
    pub write_bytes_in_flight_max: usize,
    /// Expired points are looked for this often.
    pub retention_every: Duration,
    /// So much the clock that decides what is expired is ahead of the real one; only in tests.
    pub retention_ahead: Duration,
    /// Rollups that are missing are looked for this often.
    pub rollups_every: Duration,
    /// Buckets that ended so long ago are rolled up: mostly nothing comes for them any more.
    pub rollups_after: Duration,
    /// The disk is looked at this often.
    pub disk_every: Duration,
    /// Free bytes of a disk that a test makes up, in the place of the real one.
    pub disk_free: Option<Arc<AtomicU64>>,
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
            incoming_kept: Duration::from_secs(600),
            silent_after: Duration::from_secs(10),
            move_bytes_per_second: 64 << 20,
            read_threads: 0,
            application_questions_max: 48,
            application_bytes_max: 768 << 20,
            application_points_per_minute: 10_000_000_000,
            shard_devices_max: 1_000_000,
            join_devices_max: 10_000,
            reader_patience: Duration::from_secs(30),
            partials_bytes_max: 256 << 20,
            connections_max: 10_000,
            write_bytes_in_flight_max: 256 << 20,
            retention_every: Duration::from_secs(300),
            retention_ahead: Duration::ZERO,
            rollups_every: Duration::from_secs(60),
            rollups_after: Duration::from_secs(3_600),
            disk_every: Duration::from_secs(1),
            disk_free: None,
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

/// What this process was called with, read from its arguments and environment.
pub fn from_process() -> Result<Invocation, Refused> {
    read(std::env::args_os(), std::env::vars_os())
}

/// Socket of the service manager that wants to know when the node serves, if there is one.
pub fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}
