//! Connections of clients and of other nodes, counted. Never: addresses.

use super::{Counter, Gauge, Text};

/// What became of the connections to a node.
#[derive(Debug, Default)]
pub struct Connections {
    /// Those that are open.
    pub open: Gauge,
    /// Closed at once because there were as many as may be.
    pub refused: Counter,
    /// Closed because they said nothing.
    pub silent: Counter,
    /// Could not be accepted.
    pub accepts_failed: Counter,
}

impl Connections {
    /// For Prometheus.
    pub(super) fn write_text(&self, text: &mut Text) {
        text.gauge(
            "tidemark_connections",
            "Connections of clients and of other nodes.",
            self.open.get(),
        );
        for (name, counter, help) in [
            (
                "tidemark_connections_refused_total",
                &self.refused,
                "Connections closed at once because there were as many as may be, in all or from their address.",
            ),
            (
                "tidemark_connections_silent_total",
                &self.silent,
                "Connections closed because nothing came over them.",
            ),
            (
                "tidemark_accepts_failed_total",
                &self.accepts_failed,
                "Times that a connection could not be accepted, mostly for want of file descriptors.",
            ),
        ] {
            text.counter(name, help, &[], counter.get());
        }
    }
}
