//! Every key of the configuration, in the order in which it is printed: its names, what it takes, where it goes.
//! Never: where a value came from.
//!
//! Invariant: `data_dir` in the file is `TIDEMARK_DATA_DIR` in the environment and `--data-dir` among the flags.

use super::units::{parse_size, show_size};
use super::{Config, DiskReserve};

/// What a key takes, in words of TOML.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// A boolean; the flag alone means true.
    Switch,
    /// A whole number.
    Number,
    /// A string with a unit, or a whole number of bytes.
    Size,
    /// An array of strings, or one string with commas.
    List,
}

/// One key.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) flag: &'static str,
    pub(super) env: &'static str,
    pub(super) kind: Kind,
    /// What is allowed, for help and refusals.
    pub(super) allowed: &'static str,
    pub(super) about: &'static str,
    /// Puts a value in its place; false where it is not allowed.
    pub(super) set: fn(&mut Config, &str) -> bool,
    /// The value as TOML.
    pub(super) show: fn(&Config) -> toml::Value,
}

const ADDRESS: &str = "host:port";
const SIZE: &str = "a size such as 512MiB, or bytes";
const CACHE_MIB_MAX: usize = 1 << 20;
const ZONE_BYTES_MAX: usize = 64;
/// They are of the runtime's threads for blocking work, of which others need some.
const READ_THREADS_MAX: usize = 128;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "data_dir",
        flag: "data-dir",
        env: "TIDEMARK_DATA_DIR",
        kind: Kind::Text,
        allowed: "a folder",
        about: "Folder of everything the node keeps.",
        set: |config, text| {
            config.data_dir = text.into();
            !text.is_empty()
        },
        show: |config| config.data_dir.to_string_lossy().into_owned().into(),
    },
    Key {
        name: "listen",
        flag: "listen",
        env: "TIDEMARK_LISTEN",
        kind: Kind::Text,
        allowed: ADDRESS,
        about: "Where clients connect: gRPC, /metrics, /healthz and /readyz.",
        set: |config, text| address(&mut config.listen, text),
        show: |config| config.listen.clone().into(),
    },
    Key {
        name: "peer_listen",
        flag: "peer-listen",
        env: "TIDEMARK_PEER_LISTEN",
        kind: Kind::Text,
        allowed: ADDRESS,
        about: "Where other nodes connect.",
        set: |config, text| address(&mut config.peer_listen, text),
        show: |config| config.peer_listen.clone().into(),
    },
    Key {
        name: "advertise",
        flag: "advertise",
        env: "TIDEMARK_ADVERTISE",
        kind: Kind::Text,
        allowed: "host:port, or empty for the one listened on",
        about: "Client address that others are told.",
        set: |config, text| told(&mut config.advertise, text),
        show: |config| config.advertise.clone().unwrap_or_default().into(),
    },
    Key {
        name: "advertise_peer",
        flag: "advertise-peer",
        env: "TIDEMARK_ADVERTISE_PEER",
        kind: Kind::Text,
        allowed: "host:port, or empty for the one listened on",
        about: "Peer address that others are told. The node keeps it for its life in a cluster.",
        set: |config, text| told(&mut config.advertise_peer, text),
        show: |config| config.advertise_peer.clone().unwrap_or_default().into(),
    },
    Key {
        name: "zone",
        flag: "zone",
        env: "TIDEMARK_ZONE",
        kind: Kind::Text,
        allowed: "at most 64 bytes, without control characters",
        about: "Where this node stands (a rack, a room, a site): replicas of a shard are spread over zones.",
        set: |config, text| {
            config.zone = text.into();
            text.len() <= ZONE_BYTES_MAX && !text.chars().any(char::is_control)
        },
        show: |config| config.zone.clone().into(),
    },
    Key {
        name: "join",
        flag: "join",
        env: "TIDEMARK_JOIN",
        kind: Kind::List,
        allowed: "peer addresses, host:port each",
        about: "Peer addresses of a cluster to join, while this node belongs to none.",
        set: |config, text| {
            let addresses = || text.split(',').map(str::trim).filter(|text| !text.is_empty());
            config.join = addresses().map(str::to_string).collect();
            addresses().all(is_address)
        },
        show: |config| config.join.clone().into(),
    },
    Key {
        name: "cache_mib",
        flag: "cache-mib",
        env: "TIDEMARK_CACHE_MIB",
        kind: Kind::Number,
        allowed: "a whole number of MiB, 1 to 1048576",
        about: "Memory for the block cache of all shards, MiB.",
        set: |config, text| {
            let mib = text.parse().ok().filter(|mib| (1..=CACHE_MIB_MAX).contains(mib));
            put(&mut config.cache_mib, mib)
        },
        show: |config| toml::Value::Integer(config.cache_mib as i64),
    },
    Key {
        name: "disk_reserve",
        flag: "disk-reserve",
        env: "TIDEMARK_DISK_RESERVE",
        kind: Kind::Size,
        allowed: "auto, or a size such as 2GiB; 0 for none",
        about: "Free disk space below which the node takes no more writes; at half of it it takes no replication \
                either. auto: 5 % of the disk, at least 256MiB and at most 5GiB.",
        set: |config, text| {
            let reserve = match text {
                "auto" => Some(DiskReserve::Auto),
                size => parse_size(size).map(DiskReserve::Bytes),
            };
            put(&mut config.disk_reserve, reserve)
        },
        show: |config| match config.disk_reserve {
            DiskReserve::Auto => "auto".into(),
            DiskReserve::Bytes(bytes) => show_size(bytes).into(),
        },
    },
    Key {
        name: "move_bytes_per_second",
        flag: "move-bytes-per-second",
        env: "TIDEMARK_MOVE_BYTES_PER_SECOND",
        kind: Kind::Size,
        allowed: SIZE,
        about: "Most bytes of checkpoints that a node sends a second, but for copies of a job that names another figure.",
        set: |config, text| {
            put(
                &mut config.tuning.move_bytes_per_second,
                parse_size(text).filter(|&bytes| bytes > 0),
            )
        },
        show: |config| show_size(config.tuning.move_bytes_per_second).into(),
    },
    Key {
        name: "read_threads",
        flag: "read-threads",
        env: "TIDEMARK_READ_THREADS",
        kind: Kind::Number,
        allowed: "a whole number, 0 to 128; 0 for as many as cores",
        about: "Reads of many devices that work at once, and as many of few devices; others wait for their turn.",
        set: |config, text| {
            let threads = text.parse().ok().filter(|threads| *threads <= READ_THREADS_MAX);
            put(&mut config.tuning.read_threads, threads)
        },
        show: |config| toml::Value::Integer(config.tuning.read_threads as i64),
    },
    Key {
        name: "application_questions_max",
        flag: "application-questions-max",
        env: "TIDEMARK_APPLICATION_QUESTIONS_MAX",
        kind: Kind::Number,
        allowed: "a whole number from 1 on",
        about: "Questions that one application has at this node at once, of few devices and of more apart. A node answers 64.",
        set: |config, text| {
            let most = text.parse().ok().filter(|most| *most > 0);
            put(&mut config.tuning.application_questions_max, most)
        },
        show: |config| toml::Value::Integer(config.tuning.application_questions_max as i64),
    },
    Key {
        name: "application_bytes_max",
        flag: "application-bytes-max",
        env: "TIDEMARK_APPLICATION_BYTES_MAX",
        kind: Kind::Size,
        allowed: SIZE,
        about: "Bytes of unfinished answers that one application has at this node at once. All together: 1GiB.",
        set: |config, text| {
            let bytes = parse_size(text).and_then(|bytes| usize::try_from(bytes).ok());
            put(
                &mut config.tuning.application_bytes_max,
                bytes.filter(|bytes| *bytes > 0),
            )
        },
        show: |config| show_size(config.tuning.application_bytes_max as u64).into(),
    },
    Key {
        name: "application_points_per_minute",
        flag: "application-points-per-minute",
        env: "TIDEMARK_APPLICATION_POINTS_PER_MINUTE",
        kind: Kind::Number,
        allowed: "a whole number from 1 on",
        about: "Values a minute that are decoded for one application of those that ask this node.",
        set: |config, text| {
            let points = text
                .parse()
                .ok()
                .filter(|points| *points > 0 && i64::try_from(*points).is_ok());
            put(&mut config.tuning.application_points_per_minute, points)
        },
        show: |config| toml::Value::Integer(config.tuning.application_points_per_minute as i64),
    },
    Key {
        name: "shard_devices_max",
        flag: "shard-devices-max",
        env: "TIDEMARK_SHARD_DEVICES_MAX",
        kind: Kind::Number,
        allowed: "a whole number from 1 on",
        about: "Devices of a shard beyond which this node registers no new ones. The same on every node of a cluster.",
        set: |config, text| {
            let devices = text.parse().ok();
            put(
                &mut config.tuning.shard_devices_max,
                devices.filter(|devices| *devices > 0 && i64::try_from(*devices).is_ok()),
            )
        },
        show: |config| toml::Value::Integer(config.tuning.shard_devices_max as i64),
    },
    Key {
        name: "insecure",
        flag: "insecure",
        env: "TIDEMARK_INSECURE",
        kind: Kind::Switch,
        allowed: "true or false",
        about: "Listens beyond loopback without TLS: anyone who reaches the ports can read and write.",
        set: |config, text| put(&mut config.insecure, switch(text)),
        show: |config| config.insecure.into(),
    },
    Key {
        name: "log",
        flag: "log",
        env: "TIDEMARK_LOG",
        kind: Kind::Text,
        allowed: "a level (error, warn, info, debug, trace) or module=level, comma between",
        about: "Which logs to write, for example `info` or `tidemark_node=debug,info`.",
        set: |config, text| {
            config.log = text.into();
            tracing_subscriber::EnvFilter::try_new(text).is_ok()
        },
        show: |config| config.log.clone().into(),
    },
    Key {
        name: "log_json",
        flag: "log-json",
        env: "TIDEMARK_LOG_JSON",
        kind: Kind::Switch,
        allowed: "true or false",
        about: "Logs as JSON, one event a line.",
        set: |config, text| put(&mut config.log_json, switch(text)),
        show: |config| config.log_json.into(),
    },
];

fn put<T>(place: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *place = value;
            true
        }
        None => false,
    }
}

fn address(place: &mut String, text: &str) -> bool {
    *place = text.into();
    is_address(text)
}

fn told(place: &mut Option<String>, text: &str) -> bool {
    *place = Some(text.to_string()).filter(|text| !text.is_empty());
    text.is_empty() || is_address(text)
}

fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_names_of_a_key_say_the_same() {
        for key in KEYS {
            assert_eq!(key.flag, key.name.replace('_', "-"));
            assert_eq!(key.env, format!("TIDEMARK_{}", key.name.to_ascii_uppercase()));
        }
    }

    #[test]
    fn a_printed_default_is_allowed() {
        for key in KEYS {
            let mut config = Config::default();
            let shown = (key.show)(&config);
            let text = match &shown {
                toml::Value::String(text) => text.clone(),
                toml::Value::Array(_) => String::new(),
                other => other.to_string(),
            };
            assert!((key.set)(&mut config, &text), "{} = {shown}", key.name);
            assert_eq!((key.show)(&config), shown, "{}", key.name);
        }
    }
}
