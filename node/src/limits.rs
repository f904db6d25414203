//! Every limit in one table. Reaching one is a typed answer that names the field and the limit, never a crash.
//!
//! | limit | default | what reaching it gives |
//! | --- | --- | --- |
//! | `message_bytes_max` | 16 MiB | RESOURCE_EXHAUSTED `MESSAGE_TOO_LARGE` before the message is decoded |
//! | `batch_rows_max` | 50,000 | RESOURCE_EXHAUSTED `BATCH_TOO_LARGE` |
//! | `batch_points_max` | 1,000,000 | RESOURCE_EXHAUSTED `BATCH_TOO_LARGE` |
//! | `batch_devices_max` | 50,000 | RESOURCE_EXHAUSTED `BATCH_TOO_LARGE` |
//! | `id_bytes_max` | 64 | INVALID_ARGUMENT `INVALID_ID`; `INVALID_TYPE` for ids of types and properties, `INVALID_DEVICE` for keys of tags |
//! | `max_len` of a property | 256 unless set | INVALID_ARGUMENT `TEXT_TOO_LONG` |
//! | `text_bytes_max` | 65,536, the most that `max_len` may be | INVALID_ARGUMENT `INVALID_TYPE` |
//! | batches of one `WriteStream` | 8 at once | more wait |
//! | sequences of a producer | 256 a shard | FAILED_PRECONDITION `SEQUENCE_TOO_OLD` of an older one |
//! | producers | 4,096 a shard | the one whose last write is oldest is forgotten; what it sends again is stored again |
//! | `properties_max` | 1,024 a type | INVALID_ARGUMENT `INVALID_TYPE` |
//! | `MISSING_MAX` | 16 missing values of a property | INVALID_ARGUMENT `INVALID_TYPE` |
//! | `types_max` | 10,000 | RESOURCE_EXHAUSTED `TOO_MANY_TYPES` |
//! | `TYPE_NUMBER_MAX` | 2,147,483,647 types ever made | RESOURCE_EXHAUSTED `TOO_MANY_TYPES`, or INVALID_BACKUP of a restore |
//! | `tags_max` | 64 a device | INVALID_ARGUMENT `INVALID_DEVICE` |
//! | `tag_bytes_max` | 256 | INVALID_ARGUMENT `INVALID_DEVICE` |
//! | `MAINTENANCE_MAX` | 128 declared times a device | INVALID_ARGUMENT `INVALID_DEVICE` |
//! | `MAINTENANCE_REASON_BYTES_MAX` | 256 | INVALID_ARGUMENT `INVALID_DEVICE` |
//! | `register_devices_max` | 10,000 a request | RESOURCE_EXHAUSTED `BATCH_TOO_LARGE` |
//! | `shard_devices_max` (a key) | 1,000,000 a shard | RESOURCE_EXHAUSTED `TOO_MANY_DEVICES` for new ones; known ones go on |
//! | `future_max_ns` | 1 day | OUT_OF_RANGE `TIME_TOO_NEW` |
//! | device ids of a selector | 50,000 | RESOURCE_EXHAUSTED `QUERY_TOO_LARGE` |
//! | conditions on values of a `QueryRange` | 64 | INVALID_ARGUMENT `INVALID_VALUE` |
//! | `SELECTORS_MAX` | 64 in a list of a selector | INVALID_ARGUMENT `INVALID_VALUE` |
//! | `SELECTOR_DEPTH_MAX` | 4 selectors in one another | INVALID_ARGUMENT `INVALID_VALUE` |
//! | `JOIN_SIDES_MAX` | 8 right sides of a join | INVALID_ARGUMENT `INVALID_VALUE` |
//! | `join_devices_max` | 10,000 devices of a right side | RESOURCE_EXHAUSTED `TOO_MANY_SERIES` |
//! | `JOIN_COLUMNS_MAX` | 128 series (devices times properties) that belong to one left device | RESOURCE_EXHAUSTED `TOO_MANY_SERIES` |
//! | percentiles, bins, states | 256 each | INVALID_ARGUMENT `INVALID_VALUE` |
//! | `rise_over_ms` | 7 days | INVALID_ARGUMENT `INVALID_VALUE` |
//! | states that a window keeps apart | 1,024 | RESOURCE_EXHAUSTED `QUERY_TOO_LARGE` |
//! | `windows_max` | 1,000,000 a series | RESOURCE_EXHAUSTED `TOO_MANY_WINDOWS` |
//! | `windows_listed_max` | 100,000 a series by the calendar, between borders, or filled in | RESOURCE_EXHAUSTED `TOO_MANY_WINDOWS` |
//! | `partials_bytes_max` | 256 MiB a query: unfinished windows with the texts and states in them, right sides of a join | RESOURCE_EXHAUSTED `QUERY_TOO_LARGE`, or a partial answer |
//! | `points_read_max` (`points_max` of a request where less) | 1,000,000,000 values decoded for a query | RESOURCE_EXHAUSTED `TOO_MANY_POINTS`, or a partial answer |
//! | `reader_patience` | 30 s without a message of an answer being taken | CANCELLED `ANSWER_NOT_TAKEN` |
//! | `cursor_age_ms_max` | 1 day | INVALID_ARGUMENT `INVALID_CURSOR` |
//! | `RESIDENT_BYTES_MAX` | 32 MiB a node: newest values and devices, decoded | what was not asked for lately is read from its database again |
//! | `rows_named_max` | 100 | further bad rows are counted, not named |
//! | `write_bytes_in_flight_max` | 256 MiB a node | RESOURCE_EXHAUSTED `OVERLOADED` with a time to retry |
//! | `queries_max`, of few devices and of more apart | 64 a node | RESOURCE_EXHAUSTED `OVERLOADED` with a time to retry |
//! | `wide_questions_max` | 16 a node that go through their shards at once; more wait, for half of their time, 2 s at most | RESOURCE_EXHAUSTED `OVERLOADED` with a time to retry |
//! | `read_threads` (a key) | as many as cores, 2 at least | further reads of shards, of few devices and of more apart, wait for their turn |
//! | `reads_max` | 192 reads of shards on hand a node, of few devices and of more apart | RESOURCE_EXHAUSTED `OVERLOADED` with a time to retry |
//! | `query_bytes_max` | 1 GiB a node: unfinished answers of all queries | RESOURCE_EXHAUSTED `OVERLOADED` with a time to retry |
//! | `application_questions_max` (a key) | 48 at once a node and application, of few devices and of more apart | RESOURCE_EXHAUSTED `APPLICATION_LIMIT` with a time to retry |
//! | `application_bytes_max` (a key) | 768 MiB of unfinished answers a node and application | RESOURCE_EXHAUSTED `APPLICATION_LIMIT` with a time to retry |
//! | `application_points_per_minute` (a key) | 10,000,000,000 values decoded, a node asked and application | RESOURCE_EXHAUSTED `APPLICATION_LIMIT` with a time to retry |
//! | `applications_max` | 64 a node that have asked within an hour | further ones share one account |
//! | `APPLICATION_NAME_BYTES_MAX` | 64 | INVALID_ARGUMENT `INVALID_ID` |
//! | `DELETES_MAX` | 4 requests to delete at once a node | RESOURCE_EXHAUSTED `OVERLOADED` with a time to retry |
//! | `subscriptions_max` | 256 a node | RESOURCE_EXHAUSTED `OVERLOADED` with a time to retry |
//! | `follows_max` | 2,048 shards of subscriptions a node, and as many followed for others | RESOURCE_EXHAUSTED `OVERLOADED` with a time to retry |
//! | `VOID_MAX` | 8,192 entries of a shard's log that stored nothing | who has yet to read older ones: OUT_OF_RANGE `CURSOR_EXPIRED` |
//! | `subscription_bytes_max` | 4 MiB a subscription wait for its reader | more is read from the log when there is room |
//! | `connections_max` | 10,000 of clients a node, and at most half of the files that the process may open | a new one is closed at once |
//! | `connections_per_address_max` | 1,024 of clients from one address | a new one is closed at once |
//! | `PEER_CONNECTIONS_MAX` | 1,024 of other nodes a node, and at most a quarter of the files that the process may open | a new one is closed at once |
//! | a connection that says nothing | 10 s for its first 24 bytes | closed |
//! | `streams_max` | 256 a connection | refused by HTTP/2, retryable |
//! | metadata of a request | 16 KiB | refused by HTTP/2 with status 431 |
//! | `request_timeout_ms` | 10,000 (own deadline of the client wins where shorter) | DEADLINE_EXCEEDED |
//! | `request_timeout_ms`, for a request to arrive whole, streams apart | 10,000 | DEADLINE_EXCEEDED |
//! | `query_timeout_ms` | 60,000 (own deadline of the client wins where shorter) | DEADLINE_EXCEEDED, or a partial answer |
//! | `ALERT_PROFILES_MAX` | 1,000 | RESOURCE_EXHAUSTED `TOO_MANY_ALERT_PROFILES` |
//! | `ALERT_LEVELS_MAX` | 16 a profile | INVALID_ARGUMENT `INVALID_ALERT_PROFILE` |
//! | `ALERT_WINDOW_INTERVALS_MAX` | 10,000 sample intervals, and 31 days | INVALID_ARGUMENT `INVALID_ALERT_PROFILE` |
//! | `ALERT_LOOKBACK_NS` | 7 days before the newest point of a device, and a quarter of what is kept | older points change no alert any more |
//! | `ALERT_STEPS_MAX` | 128 a device and profile | the oldest steps are forgotten |
//! | `hold_s`, `stale_after_s` of a profile | 31 days | INVALID_ARGUMENT `INVALID_ALERT_PROFILE` |
//! | `stale_after_s` of a profile, at least | the sample interval that its type promises | INVALID_ARGUMENT `INVALID_ALERT_PROFILE` |
//! | `ALERT_NAMES_MAX` | 1,000 a request | INVALID_ARGUMENT `INVALID_VALUE` |
//! | `by`, `note` of an answer to alerts | 64 and 1,024 bytes | INVALID_ARGUMENT `INVALID_VALUE` |
//! | `disk_reserve` (a key) | 5 % of the disk, 256 MiB to 5 GiB | RESOURCE_EXHAUSTED `DISK_LOW` with a time to retry |
//! | `disk_reserve`, with an uploaded file of a backup | | the upload is refused: RESOURCE_EXHAUSTED `DISK_LOW` |
//! | half of `disk_reserve` | | the node takes no commands of other leaders: its replicas lag, others go on |
//! | room of a node that plans leave free | 10 % of what is free and what its replicas take | FAILED_PRECONDITION `NO_ROOM`, or no move |
//! | jobs that are kept | 20 | the oldest that ended is forgotten |
//! | checkpoints of backups, and uploads of restores | 256 a node each, 30 minutes without a call | RESOURCE_EXHAUSTED `OVERLOADED` with a time to retry; what idles is deleted |
//! | `shards` | 2 to 64 | INVALID_ARGUMENT `INVALID_INIT` |
//! | peers of `cluster init` | 9 | INVALID_ARGUMENT `INVALID_INIT`; nodes that are added later are not bounded |

use std::time::Duration;

use crate::config::Tuning;

/// The limits of a node. See the table at the top of this file.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the table above documents every field")]
pub struct Limits {
    pub message_bytes_max: usize,
    pub batch_rows_max: usize,
    pub batch_points_max: usize,
    pub batch_devices_max: usize,
    pub id_bytes_max: usize,
    pub text_bytes_max: usize,
    pub properties_max: usize,
    pub types_max: usize,
    pub tags_max: usize,
    pub tag_bytes_max: usize,
    pub register_devices_max: usize,
    pub shard_devices_max: u64,
    pub future_max_ns: i64,
    pub windows_max: u64,
    pub windows_listed_max: usize,
    pub partials_bytes_max: usize,
    pub points_read_max: u64,
    pub join_devices_max: usize,
    pub reader_patience: Duration,
    pub cursor_age_ms_max: u64,
    pub rows_named_max: usize,
    pub write_bytes_in_flight_max: usize,
    pub queries_max: usize,
    pub wide_questions_max: usize,
    pub read_threads: usize,
    pub reads_max: usize,
    pub query_bytes_max: usize,
    pub application_questions_max: usize,
    pub application_bytes_max: usize,
    pub application_points_per_minute: u64,
    pub applications_max: usize,
    pub subscriptions_max: usize,
    pub follows_max: usize,
    pub subscription_bytes_max: usize,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub streams_max: u32,
    pub request_timeout_ms: u64,
    pub query_timeout_ms: u64,
}

/// Fewest and most data shards of a cluster.
pub const SHARDS: std::ops::RangeInclusive<u32> = 2..=64;
/// Declared times of maintenance of a device.
pub const MAINTENANCE_MAX: usize = 128;
/// Bytes of the reason of one.
pub const MAINTENANCE_REASON_BYTES_MAX: usize = 256;
/// Selectors in one list of a selector.
pub const SELECTORS_MAX: usize = 64;
/// Selectors in selectors, so deep.
pub const SELECTOR_DEPTH_MAX: usize = 4;
/// Right sides of one join.
pub const JOIN_SIDES_MAX: usize = 8;
/// Series of right sides that belong to one left device.
pub const JOIN_COLUMNS_MAX: usize = 128;
/// Requests to delete points that a node works on at once.
pub const DELETES_MAX: usize = 4;
/// Connections that other nodes have to a node.
pub const PEER_CONNECTIONS_MAX: usize = 1_024;
/// Bytes of the name that an application gives itself.
pub const APPLICATION_NAME_BYTES_MAX: usize = 64;
/// Decoded values that all shards of a node keep in memory, bytes.
pub const RESIDENT_BYTES_MAX: usize = 32 << 20;
/// Alert profiles of a cluster.
pub const ALERT_PROFILES_MAX: usize = 1_000;
/// Levels of an alert profile.
pub const ALERT_LEVELS_MAX: usize = 16;
/// Sample intervals of the window of an alert profile.
pub const ALERT_WINDOW_INTERVALS_MAX: i64 = 10_000;
/// Points so much older than the newest one of their device change no alert any more.
pub const ALERT_LOOKBACK_NS: i64 = 7 * crate::clock::NS_PER_DAY;
/// Steps that are kept of a device under a profile.
pub const ALERT_STEPS_MAX: usize = 128;
/// Alerts that are acknowledged or closed by one request.
pub const ALERT_NAMES_MAX: usize = 1_000;
/// Greatest number of a device type: the bit above it says of a key that its points are of report kind test (`shard/keys`).
pub const TYPE_NUMBER_MAX: u32 = u32::MAX >> 1;
/// Entries of the log of a shard that stored nothing, which are remembered for subscribers.
pub const VOID_MAX: usize = 8_192;
/// Slots that device ids hash to; fixed for the life of a cluster.
pub const SLOTS: u32 = 4096;

impl Default for Limits {
    fn default() -> Self {
        Limits::set(&Tuning::default())
    }
}

impl Limits {
    /// The limits of a node; those that have keys as they are set.
    pub fn set(keys: &Tuning) -> Limits {
        Limits {
            message_bytes_max: 16 << 20,
            batch_rows_max: 50_000,
            batch_points_max: 1_000_000,
            batch_devices_max: 50_000,
            id_bytes_max: 64,
            text_bytes_max: 65_536,
            properties_max: 1_024,
            types_max: 10_000,
            tags_max: 64,
            tag_bytes_max: 256,
            register_devices_max: 10_000,
            shard_devices_max: keys.shard_devices_max,
            future_max_ns: crate::clock::NS_PER_DAY,
            windows_max: 1_000_000,
            windows_listed_max: 100_000,
            partials_bytes_max: keys.partials_bytes_max,
            points_read_max: 1_000_000_000,
            join_devices_max: keys.join_devices_max,
            reader_patience: keys.reader_patience,
            cursor_age_ms_max: 24 * 3_600_000,
            rows_named_max: 100,
            write_bytes_in_flight_max: keys.write_bytes_in_flight_max,
            queries_max: 64,
            wide_questions_max: 16,
            read_threads: keys.read_threads,
            reads_max: 192,
            query_bytes_max: 1 << 30,
            application_questions_max: keys.application_questions_max,
            application_bytes_max: keys.application_bytes_max,
            application_points_per_minute: keys.application_points_per_minute,
            applications_max: 64,
            subscriptions_max: 256,
            follows_max: 2_048,
            subscription_bytes_max: 4 << 20,
            connections_max: keys.connections_max,
            connections_per_address_max: 1_024,
            streams_max: 256,
            request_timeout_ms: 10_000,
            query_timeout_ms: 60_000,
        }
    }

    /// Longest a write or a small request may take.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// Longest a query may take.
    pub fn query_timeout(&self) -> Duration {
        Duration::from_millis(self.query_timeout_ms)
    }
}
