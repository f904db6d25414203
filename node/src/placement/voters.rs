//! Which nodes vote in the catalog's group.
//!
//! Never here: data shards. Invariant: an odd number, as many as `wanted` says when enough nodes accept, and no node that
//! votes now is dropped for another that is no better than it.

use std::collections::BTreeSet;

use super::NodeInfo;

/// Voters, ascending: those there are as long as they accept, then the nodes that spread best over zones.
#[must_use]
pub fn catalog_voters(nodes: &[NodeInfo], current: &[u64]) -> Vec<u64> {
    let able: Vec<&NodeInfo> = nodes.iter().filter(|node| node.accepts).collect();
    let wanted = wanted(able.len());
    let mut voters: BTreeSet<u64> = able
        .iter()
        .map(|node| node.id)
        .filter(|id| current.contains(id))
        .collect();
    let mates = |voters: &BTreeSet<u64>, node: &NodeInfo| {
        let others = able.iter().filter(|other| other.zone == node.zone);
        others.filter(|other| voters.contains(&other.id)).count()
    };
    while voters.len() > wanted {
        let held = able.iter().filter(|node| voters.contains(&node.id));
        let worst = held.max_by_key(|node| (!node.alive, mates(&voters, node), node.id));
        let Some(worst) = worst.map(|node| node.id) else { break };
        voters.remove(&worst);
    }
    while voters.len() < wanted {
        let free = able.iter().filter(|node| !voters.contains(&node.id));
        let best = free.min_by_key(|node| (!node.alive, mates(&voters, node), node.id));
        let Some(best) = best.map(|node| node.id) else { break };
        voters.insert(best);
    }
    if voters.is_empty() {
        // Nobody accepts: whoever votes goes on.
        return current.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    }
    voters.into_iter().collect()
}

fn wanted(able: usize) -> usize {
    match able {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}
