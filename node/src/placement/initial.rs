//! Placement of a cluster that begins.
//!
//! Never here: sizes, there are none yet. Invariant: shards are numbered from 1, lists are in their order, and a list has
//! fewer than `factor` nodes only when there are fewer.

use super::layout::Layout;
use super::leaders::even_leaders;
use super::spread::{Scope, best_place, even_counts, even_zones};
use super::{Cluster, NodeInfo, ShardInfo};

/// Nodes of each shard. The first of a list is the one that should lead first.
#[must_use]
pub fn initial(nodes: &[NodeInfo], shards: u32, factor: usize) -> Vec<Vec<u64>> {
    let empty = |id| ShardInfo {
        id,
        replicas: Vec::new(),
        bytes: 0,
        leader: None,
    };
    let mut layout = Layout::new(&Cluster {
        factor,
        nodes: nodes.to_vec(),
        shards: (1..=shards).map(empty).collect(),
    });
    for piece in 0..layout.pieces.len() {
        layout.pieces[piece].quorum = true;
        while layout.pieces[piece].now.len() < factor {
            let Some(at) = best_place(&layout, piece) else { break };
            layout.put(piece, at);
        }
    }
    while even_zones(&mut layout) | even_counts(&mut layout, Scope::All) {}

    let held: Vec<Vec<usize>> = layout
        .pieces
        .iter()
        .map(|piece| piece.now.iter().copied().collect())
        .collect();
    let first: Vec<Option<usize>> = held.iter().map(|held| held.first().copied()).collect();
    let leaders = even_leaders(&held, &first, layout.spots.len());
    let lists = held.into_iter().zip(leaders);
    lists
        .map(|(held, leader)| {
            let others = held.into_iter().filter(|at| Some(*at) != leader);
            leader.into_iter().chain(others).map(|at| layout.spots[at].id).collect()
        })
        .collect()
}
