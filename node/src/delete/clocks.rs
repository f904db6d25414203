//! Whether the clock of this node may be believed where points go for their age: what it removes is gone on every replica.
//!
//! Never here: whose clock is wrong. Invariant: a node whose clock most nodes do not confirm, itself among them, removes nothing by
//! it. The only node of a cluster has nobody to ask.

use std::time::Duration;

use tidemark_proto::peer::NodeViewRequest;
use tidemark_proto::v1::Node;
use tonic::Request;

use crate::clock::{NS_PER_MS, NS_PER_S, monotonic, now_ns};
use crate::raft::host::Host;

/// Clocks that differ by no more are in step enough for spans of hours; `status` complains long before.
const APART_NS_MAX: i64 = 60 * NS_PER_S;
const ASK_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The time, where most nodes have it too. `ahead` makes it wrong, in tests.
pub(super) async fn confirmed_now_ns(host: &Host, ahead: Duration) -> Option<i64> {
    let (identity, catalog) = (host.identity().ok()?, host.catalog().ok()?);
    let ahead_ns = i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX);
    // Before anybody is asked: what it reads afterwards nobody has confirmed.
    let now_ns = now_ns().saturating_add(ahead_ns);
    let others = catalog.state().nodes.iter().filter(|node| node.id != identity.node_id);
    let asked = futures_util::future::join_all(others.map(|node| offset_ns(host, node))).await;
    let offsets: Vec<Option<i64>> = asked
        .into_iter()
        .map(|offset| offset.map(|offset| offset.saturating_sub(ahead_ns)))
        .collect();
    if confirms(&offsets) {
        return Some(now_ns);
    }
    host.metrics().clock_doubts.add(1);
    let apart_ms: Vec<i64> = offsets.iter().flatten().map(|offset| offset / NS_PER_MS).collect();
    tracing::warn!(
        ?apart_ms,
        "most nodes do not confirm the clock of this one, what is expired stays for now"
    );
    None
}

/// Whether this node and those that have its time are a majority. One entry for each other node; `None` where it does not answer.
fn confirms(offsets_ns: &[Option<i64>]) -> bool {
    let in_step = |offset: &&i64| offset.unsigned_abs() <= APART_NS_MAX.unsigned_abs();
    let alike = 1 + offsets_ns.iter().flatten().filter(in_step).count();
    2 * alike > 1 + offsets_ns.len()
}

/// How far the clock of another node is ahead of this one's, at half of the round trip.
async fn offset_ns(host: &Host, node: &Node) -> Option<i64> {
    let mut request = Request::new(NodeViewRequest {
        envelope: Some(host.envelope(node.id).ok()?),
        ..NodeViewRequest::default()
    });
    request.set_timeout(ASK_TIMEOUT);
    let mut client = host.peers().at(&node.peer_address).ok()?.client();
    let (sent_at_ns, began) = (now_ns(), monotonic());
    let answered = tokio::time::timeout(ASK_TIMEOUT, client.node_view(request)).await;
    let there_ns = answered.ok()?.ok()?.into_inner().now_ns;
    let half_ns = i64::try_from(began.elapsed().as_nanos() / 2).unwrap_or(i64::MAX);
    Some(there_ns.saturating_sub(sent_at_ns.saturating_add(half_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_believed_where_most_nodes_have_its_time() {
        let (alike, far) = (Some(-59 * NS_PER_S), Some(61 * NS_PER_S));
        for (offsets, confirmed) in [
            (vec![], true),
            (vec![alike], true),
            (vec![None], false),
            (vec![far], false),
            (vec![alike, far], true),
            (vec![alike, None], true),
            (vec![far, far], false),
            (vec![far, None], false),
            (vec![None, None], false),
            (vec![alike, far, far], false),
            (vec![alike, alike, far], true),
            (vec![Some(i64::MIN), Some(i64::MAX)], false),
        ] {
            assert_eq!(confirms(&offsets), confirmed, "{offsets:?}");
        }
    }
}
