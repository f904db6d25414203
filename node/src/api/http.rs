//! What is served beside gRPC on the port of clients: `/healthz`, `/readyz` and `/metrics`. Never: points.
//!
//! Invariant: no answer here waits for another node.

use std::sync::Arc;

use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use tidemark_proto::peer::ReplicaView;
use tidemark_proto::v1::ReplicaState as State;

use super::Stopped;
use crate::metrics::Text;
use crate::raft::host::Host;
use crate::raft::log_store::LogStatus;
use crate::raft::machine::blocking;
use crate::route::Router;
use crate::write::Writes;

/// What these answers are made of.
#[derive(Clone)]
pub struct HttpApi {
    /// The replicas of this node.
    pub host: Arc<Host>,
    /// Who asks.
    pub router: Arc<Router>,
    /// What is in flight.
    pub writes: Arc<Writes>,
    /// Told when the node begins to stop.
    pub stopping: Stopped,
}

impl HttpApi {
    /// Adds the routes to those of gRPC.
    pub fn add_to(self, router: axum::Router) -> axum::Router {
        let (ready, metrics) = (self.clone(), self);
        router
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(async move || ready.readiness()))
            .route("/metrics", get(async move || metrics.metrics().await))
    }

    fn readiness(&self) -> impl IntoResponse + use<> {
        match self.missing() {
            missing if missing.is_empty() => (StatusCode::OK, "ready\n".to_string()),
            missing => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", missing.join("\n"))),
        }
    }

    /// What keeps this node from doing its part, a line each.
    fn missing(&self) -> Vec<String> {
        if *self.stopping.borrow() {
            return vec!["the node is stopping".into()];
        }
        let Ok(identity) = self.host.identity() else {
            return vec!["the node belongs to no cluster yet: tidemark cluster init, or join".into()];
        };
        let Ok(catalog) = self.host.catalog() else {
            return vec!["the catalog is not known here yet".into()];
        };
        let damaged: Vec<u32> = self.host.damaged_groups();
        let mut missing = Vec::new();
        for shard in &catalog.state().shards {
            let placed = shard.replicas.iter().any(|replica| replica.node_id == identity.node_id);
            // A damaged replica does not run; the others of its shard do, and `cluster status` complains of it.
            if !placed || damaged.contains(&shard.id) {
                continue;
            }
            match self.host.replica(shard.id) {
                None => missing.push(format!("shard {} does not run here yet", shard.id)),
                Some(replica) if replica.ended().is_some() => {
                    let why = replica.ended().unwrap_or_default();
                    missing.push(format!("shard {} has stopped here: {why}", shard.id));
                }
                // A leader that no majority agrees with leads in its own eyes only.
                Some(replica) if replica.leader_node().is_none() || replica.is_cut_off() => {
                    missing.push(format!("shard {} has no leader", shard.id));
                }
                Some(_) => {}
            }
        }
        missing
    }

    async fn metrics(&self) -> impl IntoResponse + use<> {
        let this = self.clone();
        match blocking(move || Ok(this.text())).await {
            Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, Text::CONTENT_TYPE)], text),
            Err(error) => {
                let text = error.to_string();
                (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], text)
            }
        }
    }

    fn text(&self) -> String {
        let mut text = Text::default();
        let node = self.host.identity().map(|identity| identity.node_id.to_string());
        let cluster = self.host.identity().map(|identity| identity.cluster_id.clone());
        text.family("tidemark_node_info", "gauge", "Which node this is; 1.");
        let labels = [
            ("node", node.as_deref().unwrap_or("")),
            ("cluster", cluster.as_deref().unwrap_or("")),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        text.sample("tidemark_node_info", &labels, 1);
        let ready = u8::from(self.missing().is_empty());
        text.gauge("tidemark_ready", "1 while /readyz says so.", ready);
        text.gauge(
            "tidemark_write_in_flight_bytes",
            "Bytes of batches that are worked on now.",
            self.writes.bytes_in_flight(),
        );
        self.host.metrics().write_text(&mut text);
        self.router.applications().write_text(&mut text);
        write_log(&mut text, &self.host.log_status());
        write_replicas(&mut text, &self.host.views());
        text.into_string()
    }
}

fn write_log(text: &mut Text, log: &LogStatus) {
    for (name, help, value) in [
        ("tidemark_log_syncs_total", "Synced writes of the Raft log.", log.syncs),
        ("tidemark_log_entries_total", "Entries in them.", log.entries),
        ("tidemark_log_bytes_total", "Bytes in them.", log.bytes),
    ] {
        text.counter(name, help, &[], value);
    }
    let seconds = (log.sync_ns + log.marker_ns) as f64 / 1e9;
    text.counter("tidemark_log_sync_seconds_total", "Time spent in them.", &[], seconds);
    text.gauge(
        "tidemark_log_queued_bytes",
        "Bytes that wait to be synced.",
        log.queued_bytes,
    );
    text.gauge(
        "tidemark_log_memory_bytes",
        "Bytes of entries held in memory.",
        log.tail_bytes,
    );
}

/// One sample a replica and family; a shard has at most one replica here.
fn write_replicas(text: &mut Text, views: &[ReplicaView]) {
    type Value = fn(&ReplicaView) -> i64;
    let families: [(&str, &str, &str, Value); 9] = [
        (
            "tidemark_raft_leader",
            "gauge",
            "1 where this node leads the shard.",
            |view| i64::from(state(view) == State::Leader),
        ),
        (
            "tidemark_raft_damaged",
            "gauge",
            "1 where the replica failed a check.",
            |view| i64::from(state(view) == State::Damaged),
        ),
        (
            "tidemark_raft_leader_known",
            "gauge",
            "1 where the replica knows a leader.",
            |view| i64::from(view.leader_replica != 0),
        ),
        ("tidemark_raft_term", "gauge", "Term of the replica.", |view| {
            view.term as i64
        }),
        (
            "tidemark_raft_last_log_index",
            "gauge",
            "Newest entry of the log.",
            |view| view.status.as_ref().map_or(0, |status| status.last_log_index as i64),
        ),
        (
            "tidemark_raft_applied_index",
            "gauge",
            "Newest entry applied.",
            |view| view.status.as_ref().map_or(0, |status| status.applied_index as i64),
        ),
        (
            "tidemark_raft_lag_milliseconds",
            "gauge",
            "How long ago the replica was in step with its leader; -1 where not known.",
            |view| view.status.as_ref().map_or(-1, |status| status.lag_ms),
        ),
        ("tidemark_shard_devices", "gauge", "Devices of the shard.", |view| {
            view.devices as i64
        }),
        (
            "tidemark_shard_disk_bytes",
            "gauge",
            "Bytes that the replica takes.",
            |view| view.disk_bytes as i64,
        ),
    ];
    for (name, kind, help, value) in families {
        text.family(name, kind, help);
        for view in views {
            text.sample(name, &[("shard", &view.group.to_string())], value(view));
        }
    }
}

fn state(view: &ReplicaView) -> State {
    view.status.as_ref().map_or(State::Unspecified, |status| status.state())
}
