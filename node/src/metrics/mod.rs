//! What one node counts and measures of itself, and how that reads for Prometheus. Never: device ids or anything else
//! that grows with the fleet; no label but shard, method, reason and, of which a bounded number is known, application.
//!
//! Counters of our own and no global recorder: several nodes may live in one process, and a node reads its figures back
//! when others ask for its facts. What is a state and not an event (disk, process, replicas) is looked at when asked for.

mod connections;
mod count;
mod process;
mod text;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use connections::Connections;
pub use count::{Counter, Gauge, Latency, Present};
pub use process::Process;
pub use text::Text;

use crate::clock::{Instant, monotonic, now_ns};
use crate::disk::{Disk, Room};
use crate::error::Reason;

/// A look at other clocks says nothing of them any more when it is so old.
const CLOCKS_SEEN: Duration = Duration::from_secs(60);
/// How a request without failure is labelled.
pub const OK: &str = "OK";
/// Methods of questions about points.
const QUERIES: [&str; 8] = [
    "QueryRange",
    "QueryAggregate",
    "QueryIntervals",
    "QueryJoin",
    "GetLatest",
    "GetQuality",
    "GetHealth",
    "ListAlerts",
];

/// Requests of one method: how they ended, and how long they took.
#[derive(Debug, Default)]
struct Method {
    ends: Mutex<BTreeMap<&'static str, u64>>,
    seconds: Latency,
}

/// Everything that one node counts.
#[derive(Debug)]
pub struct Metrics {
    disk: Disk,
    started_at_ns: i64,
    methods: Mutex<BTreeMap<String, Arc<Method>>>,
    /// Batches stored.
    pub writes: Counter,
    /// Rows in them.
    pub rows: Counter,
    /// Points in them.
    pub points: Counter,
    /// Bytes of their requests.
    pub bytes: Counter,
    /// From a batch taken to its answer.
    pub write_latency: Latency,
    write_failures: Mutex<BTreeMap<&'static str, u64>>,
    /// Questions of clients that are being answered.
    pub queries_running: Gauge,
    /// Wide ones among them that wait before anything is read for them.
    pub queries_waiting: Gauge,
    /// Parts of questions, of any node's clients, that a replica here is being read for.
    pub shard_reads_running: Gauge,
    /// Those that wait until there is a place for them.
    pub shard_reads_queued: Gauge,
    /// Those that were refused because there were too many.
    pub shard_reads_refused: Counter,
    /// Bytes of unfinished answers that questions hold.
    pub query_bytes_held: Gauge,
    /// Bytes of checkpoints sent to other nodes.
    pub snapshot_bytes_sent: Counter,
    /// Bytes of checkpoints received from other nodes.
    pub snapshot_bytes_received: Counter,
    /// Bytes of checkpoints that were here already and did not have to be sent.
    pub snapshot_bytes_kept: Counter,
    /// Messages between nodes that are not for this node, this cluster or this version, or of a node that was removed.
    pub peer_messages_refused: Counter,
    /// Leaderships given away because the disk was low.
    pub leaders_shed: Counter,
    /// Records that requests to delete removed.
    pub records_deleted: Counter,
    /// Buckets, over all devices of a type, that went because the type keeps them no longer.
    pub buckets_expired: Counter,
    /// Looks at what is expired that nothing went by, for most nodes did not confirm the clock.
    pub clock_doubts: Counter,
    /// Evaluations of a device under an alert profile.
    pub alert_evaluations: Counter,
    /// Steps of alerts that this node found and had recorded.
    pub alert_steps: Counter,
    /// Subscriptions that clients have begun.
    pub subscriptions_begun: Counter,
    /// Those of them that have ended.
    pub subscriptions_ended: Counter,
    /// Messages made for them.
    pub subscription_messages: Counter,
    /// Rows in these.
    pub subscription_rows: Counter,
    /// Rollups that this node had made, where it leads.
    pub rollups_made: Counter,
    /// Rollups that answered in the place of points.
    pub rollups_used: Counter,
    /// How far the clocks of others were from this node's at the last look, and when that was.
    clock_offset: Mutex<Option<(Instant, i64)>>,
    /// Connections of clients and of other nodes.
    pub connections: Connections,
}

/// What a node says of its process and machine.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "fields as in NodeFacts of the contract")]
pub struct Facts {
    pub started_at_ns: i64,
    pub disk: Room,
    pub process: Process,
    pub points_written: u64,
    pub writes: u64,
    pub queries: u64,
    pub failures: u64,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(disk: Disk) -> Metrics {
        Metrics {
            disk,
            started_at_ns: now_ns(),
            methods: Mutex::default(),
            writes: Counter::default(),
            rows: Counter::default(),
            points: Counter::default(),
            bytes: Counter::default(),
            write_latency: Latency::default(),
            write_failures: Mutex::default(),
            queries_running: Gauge::default(),
            queries_waiting: Gauge::default(),
            shard_reads_running: Gauge::default(),
            shard_reads_queued: Gauge::default(),
            shard_reads_refused: Counter::default(),
            query_bytes_held: Gauge::default(),
            snapshot_bytes_sent: Counter::default(),
            snapshot_bytes_received: Counter::default(),
            snapshot_bytes_kept: Counter::default(),
            peer_messages_refused: Counter::default(),
            leaders_shed: Counter::default(),
            clock_offset: Mutex::default(),
            records_deleted: Counter::default(),
            buckets_expired: Counter::default(),
            clock_doubts: Counter::default(),
            alert_evaluations: Counter::default(),
            alert_steps: Counter::default(),
            subscriptions_begun: Counter::default(),
            subscriptions_ended: Counter::default(),
            subscription_messages: Counter::default(),
            subscription_rows: Counter::default(),
            rollups_made: Counter::default(),
            rollups_used: Counter::default(),
            connections: Connections::default(),
        }
    }

    /// The disk of the data folder.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// A request that ended, `OK` or with the reason of its failure. The method must be one of the contract.
    pub fn request(&self, method: &str, end: &'static str, took: Duration) {
        let known = lock(&self.methods).get(method).cloned();
        let method = known.unwrap_or_else(|| lock(&self.methods).entry(method.to_string()).or_default().clone());
        *lock(&method.ends).entry(end).or_default() += 1;
        method.seconds.note(took);
    }

    /// A batch that was not stored, or perhaps not.
    pub fn write_failed(&self, reason: Reason) {
        *lock(&self.write_failures).entry(reason.as_str()).or_default() += 1;
    }

    /// The clocks of other nodes were looked at: the largest distance, milliseconds ahead of this one.
    pub fn clocks_seen(&self, offset_ms: i64) {
        *lock(&self.clock_offset) = Some((monotonic(), offset_ms));
    }

    /// What this node says of itself.
    pub fn facts(&self) -> Facts {
        let methods = lock(&self.methods);
        let (mut queries, mut failures) = (0, 0);
        for (name, method) in methods.iter() {
            let ends = lock(&method.ends);
            if QUERIES.contains(&name.as_str()) {
                queries += ends.values().sum::<u64>();
            }
            // Batches are counted one by one below, however they came.
            if name != "Write" {
                failures += ends.iter().filter(|(end, _)| **end != OK).map(|(_, n)| n).sum::<u64>();
            }
        }
        Facts {
            started_at_ns: self.started_at_ns,
            disk: self.disk.room(),
            process: Process::read(),
            points_written: self.points.get(),
            writes: self.writes.get(),
            queries,
            failures: failures + lock(&self.write_failures).values().sum::<u64>(),
        }
    }

    /// Everything counted here, for Prometheus.
    pub fn write_text(&self, text: &mut Text) {
        self.write_requests(text);
        for (name, counter, help) in [
            (
                "tidemark_writes_total",
                &self.writes,
                "Batches stored through this node.",
            ),
            ("tidemark_write_rows_total", &self.rows, "Rows in them."),
            ("tidemark_write_points_total", &self.points, "Points in them."),
            ("tidemark_write_bytes_total", &self.bytes, "Bytes of their requests."),
            (
                "tidemark_snapshot_sent_bytes_total",
                &self.snapshot_bytes_sent,
                "Bytes of checkpoints sent to other nodes.",
            ),
            (
                "tidemark_snapshot_received_bytes_total",
                &self.snapshot_bytes_received,
                "Bytes of checkpoints received from other nodes.",
            ),
            (
                "tidemark_snapshot_kept_bytes_total",
                &self.snapshot_bytes_kept,
                "Bytes of checkpoints that were here already.",
            ),
            (
                "tidemark_peer_messages_refused_total",
                &self.peer_messages_refused,
                "Messages of other nodes that are not for this node, cluster or version, or of a node that was removed.",
            ),
            (
                "tidemark_leaders_shed_total",
                &self.leaders_shed,
                "Leaderships that others took over because the disk was low.",
            ),
        ] {
            text.counter(name, help, &[], counter.get());
        }
        self.write_upkeep(text);
        text.family(
            "tidemark_write_failures_total",
            "counter",
            "Batches not stored, by reason.",
        );
        for (reason, count) in lock(&self.write_failures).iter() {
            text.sample("tidemark_write_failures_total", &[("reason", reason)], count);
        }
        text.family(
            "tidemark_write_seconds",
            "histogram",
            "From a batch taken to its answer.",
        );
        self.write_latency.write_text(text, "tidemark_write_seconds", &[]);
        self.write_questions(text);
        self.connections.write_text(text);
        self.write_state(text);
    }

    /// What is done with points beside writing and asking.
    fn write_upkeep(&self, text: &mut Text) {
        for (name, counter, help) in [
            (
                "tidemark_deleted_records_total",
                &self.records_deleted,
                "Records removed on demand, by requests that this node took.",
            ),
            (
                "tidemark_expired_buckets_total",
                &self.buckets_expired,
                "Spans of time of a device type that went from a shard because they are older than its retention.",
            ),
            (
                "tidemark_clock_doubts_total",
                &self.clock_doubts,
                "Looks at expired points by which none went: most nodes did not confirm the clock of this one.",
            ),
            (
                "tidemark_alert_evaluations_total",
                &self.alert_evaluations,
                "Evaluations of a device under an alert profile.",
            ),
            (
                "tidemark_alert_steps_total",
                &self.alert_steps,
                "Steps of alerts that this node found and had recorded.",
            ),
            (
                "tidemark_shard_reads_refused_total",
                &self.shard_reads_refused,
                "Parts of questions refused because this node read for as many as it may.",
            ),
            (
                "tidemark_subscription_messages_total",
                &self.subscription_messages,
                "Messages made for subscriptions.",
            ),
            (
                "tidemark_subscription_rows_total",
                &self.subscription_rows,
                "Rows in them.",
            ),
            (
                "tidemark_rollups_made_total",
                &self.rollups_made,
                "Rollups of buckets that were made, counted by the leader of their shard.",
            ),
            (
                "tidemark_rollups_used_total",
                &self.rollups_used,
                "Rollups of buckets that answered in the place of points.",
            ),
        ] {
            text.counter(name, help, &[], counter.get());
        }
    }

    fn write_requests(&self, text: &mut Text) {
        let methods: Vec<_> = lock(&self.methods).clone().into_iter().collect();
        text.family(
            "tidemark_requests_total",
            "counter",
            "Requests that ended, by method and by reason of failure or OK.",
        );
        for (name, method) in &methods {
            for (reason, count) in lock(&method.ends).iter() {
                text.sample(
                    "tidemark_requests_total",
                    &[("method", name), ("reason", reason)],
                    count,
                );
            }
        }
        text.family(
            "tidemark_request_seconds",
            "histogram",
            "From a request to the end of its answer.",
        );
        for (name, method) in &methods {
            method
                .seconds
                .write_text(text, "tidemark_request_seconds", &[("method", name)]);
        }
    }

    /// Questions, and what is done for them right now.
    fn write_questions(&self, text: &mut Text) {
        text.gauge(
            "tidemark_subscriptions",
            "Subscriptions that clients have at this node.",
            self.subscriptions_begun
                .get()
                .saturating_sub(self.subscriptions_ended.get()),
        );
        for (name, help, value) in [
            (
                "tidemark_queries_running",
                "Questions of clients that are being answered.",
                self.queries_running.get(),
            ),
            (
                "tidemark_queries_waiting",
                "Wide questions that wait until others are answered, before anything is read for them.",
                self.queries_waiting.get(),
            ),
            (
                "tidemark_shard_reads_running",
                "Parts of questions that a replica here is being read for.",
                self.shard_reads_running.get(),
            ),
            (
                "tidemark_shard_reads_queued",
                "Parts of questions that wait until others are read for.",
                self.shard_reads_queued.get(),
            ),
            (
                "tidemark_query_bytes_held",
                "Bytes of unfinished answers that questions hold.",
                self.query_bytes_held.get(),
            ),
        ] {
            text.gauge(name, help, value);
        }
    }

    /// The disk and the process.
    fn write_state(&self, text: &mut Text) {
        let (room, process) = (self.disk.room(), Process::read());
        for (name, help, value) in [
            (
                "tidemark_disk_total_bytes",
                "Size of the data folder's file system.",
                room.total,
            ),
            ("tidemark_disk_free_bytes", "What is free of it.", room.free),
            (
                "tidemark_disk_reserve_bytes",
                "Below this much free, no writes are taken.",
                room.reserve,
            ),
            (
                "tidemark_disk_low",
                "1 while less is free than the reserve.",
                u64::from(room.low),
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory.",
                process.memory_bytes,
            ),
            ("process_open_fds", "Open files.", process.open_files),
            (
                "process_max_fds",
                "Most files that may be open.",
                process.open_files_max,
            ),
        ] {
            text.gauge(name, help, value);
        }
        let seen = lock(&self.clock_offset).filter(|(at, _)| at.elapsed() < CLOCKS_SEEN);
        text.gauge(
            "tidemark_clock_offset_seconds",
            "Clock of the node that is furthest from this one's, minus this one's, where this node looked within a minute: \
             the node that leads the catalog does so all the time.",
            seen.map_or(0.0, |(_, offset_ms)| offset_ms as f64 / 1e3),
        );
        let cpu_s = process.cpu_ms as f64 / 1e3;
        text.counter("process_cpu_seconds_total", "CPU time of the process.", &[], cpu_s);
        let started = self.started_at_ns as f64 / 1e9;
        text.gauge(
            "process_start_time_seconds",
            "When the node began, seconds since the Unix epoch.",
            started,
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::DiskReserve;

    #[test]
    fn every_question_of_the_contract_counts_as_one() {
        let contract = include_str!("../../../proto/tidemark/v1/query.proto");
        let asked = contract.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
        let asked = asked.filter_map(|rpc| rpc.split('(').next()).chain(["ListAlerts"]);
        let (mut asked, mut known): (Vec<_>, Vec<_>) = (asked.collect(), QUERIES.to_vec());
        asked.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, asked);
    }

    #[test]
    fn what_is_counted_is_written_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new(Disk::new(dir.path(), DiskReserve::Auto, None).unwrap());
        metrics.request("GetLatest", OK, Duration::from_micros(700));
        metrics.request("GetLatest", OK, Duration::from_secs(90));
        metrics.request("GetLatest", Reason::UnknownType.as_str(), Duration::ZERO);
        metrics.request("Write", Reason::DiskLow.as_str(), Duration::ZERO);
        metrics.write_failed(Reason::DiskLow);
        metrics.writes.add(1);
        metrics.points.add(5);
        metrics.clocks_seen(-3_250);
        let facts = metrics.facts();
        assert_eq!(
            (facts.queries, facts.failures, facts.writes, facts.points_written),
            (3, 2, 1, 5)
        );
        assert!(facts.process.memory_bytes > 0 && facts.process.open_files > 0);
        assert!(facts.process.open_files_max >= facts.process.open_files);

        let mut text = Text::default();
        metrics.write_text(&mut text);
        let text = text.into_string();
        for line in [
            "tidemark_requests_total{method=\"GetLatest\",reason=\"OK\"} 2",
            "tidemark_requests_total{method=\"GetLatest\",reason=\"UNKNOWN_TYPE\"} 1",
            "tidemark_request_seconds_bucket{method=\"GetLatest\",le=\"0.0005\"} 1",
            "tidemark_request_seconds_bucket{method=\"GetLatest\",le=\"0.001\"} 2",
            "tidemark_request_seconds_bucket{method=\"GetLatest\",le=\"60\"} 2",
            "tidemark_request_seconds_bucket{method=\"GetLatest\",le=\"+Inf\"} 3",
            "tidemark_request_seconds_sum{method=\"GetLatest\"} 90.0007",
            "tidemark_request_seconds_count{method=\"GetLatest\"} 3",
            "tidemark_write_failures_total{reason=\"DISK_LOW\"} 1",
            "tidemark_write_points_total 5",
            "tidemark_disk_low 0",
            "tidemark_clock_offset_seconds -3.25",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }
}
