//! Rates from the counters of two looks. Never: a clock, a terminal.
//!
//! Invariant: a counter that fell, or a process that began anew, gives no rate rather than a wrong one.

use std::collections::VecDeque;

use tidemark_client::v1;
use tokio::time::Instant;

/// Looks that the history of the whole cluster keeps.
const HISTORY_MAX: usize = 240;

/// Of one node, a second.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(super) struct NodeRates {
    pub(super) points: f64,
    pub(super) writes: f64,
    pub(super) queries: f64,
    pub(super) failures: f64,
    /// Cores in use.
    pub(super) cores: f64,
}

/// The newest look, and what two looks tell.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    last: Option<(v1::StatusResponse, Instant)>,
    nodes: Vec<Option<NodeRates>>,
    points: VecDeque<u64>,
}

impl Rates {
    /// Takes a look.
    pub(super) fn take(&mut self, status: v1::StatusResponse, now: Instant) {
        let before = self.last.take();
        self.nodes = status
            .nodes
            .iter()
            .map(|node| {
                let (old, at) = before.as_ref()?;
                let id = |node: &v1::NodeStatus| node.node.as_ref().map(|place| place.id);
                let old = old.nodes.iter().find(|old| id(old) == id(node))?;
                rates_of(
                    old.facts.as_ref()?,
                    node.facts.as_ref()?,
                    now.duration_since(*at).as_secs_f64(),
                )
            })
            .collect();
        if before.is_some() {
            if self.points.len() == HISTORY_MAX {
                self.points.pop_front();
            }
            self.points.push_back(self.total().points as u64);
        }
        self.last = Some((status, now));
    }

    /// The newest status.
    pub(super) fn status(&self) -> Option<&v1::StatusResponse> {
        self.last.as_ref().map(|(status, _)| status)
    }

    /// The rates of the node at this place of the status.
    pub(super) fn node(&self, place: usize) -> Option<NodeRates> {
        self.nodes.get(place).copied().flatten()
    }

    /// Of all nodes together.
    pub(super) fn total(&self) -> NodeRates {
        let sum = |sum: NodeRates, one: &NodeRates| NodeRates {
            points: sum.points + one.points,
            writes: sum.writes + one.writes,
            queries: sum.queries + one.queries,
            failures: sum.failures + one.failures,
            cores: sum.cores + one.cores,
        };
        self.nodes.iter().flatten().fold(NodeRates::default(), sum)
    }

    /// Points a second of the whole cluster, oldest first.
    pub(super) fn history(&self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator {
        self.points.iter().copied()
    }
}

fn rates_of(old: &v1::NodeFacts, new: &v1::NodeFacts, seconds: f64) -> Option<NodeRates> {
    if old.started_at_ns != new.started_at_ns || seconds <= 0.0 {
        return None;
    }
    let rate = |old: u64, new: u64| new.checked_sub(old).map(|more| more as f64 / seconds);
    Some(NodeRates {
        points: rate(old.points_written, new.points_written)?,
        writes: rate(old.writes, new.writes)?,
        queries: rate(old.queries, new.queries)?,
        failures: rate(old.failures, new.failures)?,
        cores: rate(old.cpu_ms, new.cpu_ms)? / 1000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_began_anew_has_no_rate_yet() {
        let facts = |started_at_ns, points_written| v1::NodeFacts {
            started_at_ns,
            points_written,
            ..v1::NodeFacts::default()
        };
        let points = |old, new| rates_of(&old, &new, 2.0).map(|rates| rates.points);
        assert_eq!(points(facts(1, 100), facts(1, 300)), Some(100.0));
        assert_eq!(points(facts(1, 100), facts(2, 300)), None);
        assert_eq!(points(facts(1, 300), facts(1, 100)), None);
        assert_eq!(rates_of(&facts(1, 0), &facts(1, 1), 0.0), None);
    }
}
