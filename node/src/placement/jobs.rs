//! Plans that an operator asks for by name: move one replica, empty a node, replace a node.
//!
//! Never here: evening of what was not asked for. Invariant: a plan moves exactly the replicas it was asked to move, or is
//! refused with the reason before anything moves.

use super::layout::Layout;
use super::spread::{Scope, best_place, even_counts};
use super::{Cluster, PlannedMove, Refusal};

/// One replica of a shard goes from a node to another.
pub fn plan_move(cluster: &Cluster, shard: u32, from: u64, to: u64) -> Result<Vec<PlannedMove>, Refusal> {
    let layout = Layout::new(cluster);
    let piece = layout.pieces.iter().position(|piece| piece.id == shard);
    let piece = piece.ok_or(Refusal::UnknownShard(shard))?;
    let target = target(&layout, to)?;
    let held = |id| layout.pieces[piece].now.iter().any(|at| layout.spots[*at].id == id);
    if !held(from) {
        return Err(Refusal::InvalidMove(format!(
            "shard {shard} has no replica on node {from}; show the shard to see where it has"
        )));
    }
    if held(to) {
        return Err(Refusal::InvalidMove(format!(
            "shard {shard} has a replica on node {to} already; choose a node without one"
        )));
    }
    quorum(&layout, [piece])?;
    if !layout.can_take(piece, target) {
        return Err(no_room(&layout, piece));
    }
    Ok(vec![PlannedMove {
        shard,
        from: Some(from),
        to: Some(to),
    }])
}

/// Every replica of a node goes to the best other place; a surplus one just leaves.
pub fn plan_empty(cluster: &Cluster, node: u64) -> Result<Vec<PlannedMove>, Refusal> {
    let mut layout = Layout::new(cluster);
    let from = layout.node(node).ok_or(Refusal::UnknownNode(node))?;
    // The node itself must not be chosen, whether or not it was cordoned before.
    layout.spots[from].accepts = false;
    if layout.usable().is_empty() {
        return Err(Refusal::LastNode(node));
    }
    let held: Vec<usize> = (0..layout.pieces.len())
        .filter(|piece| layout.pieces[*piece].now.contains(&from))
        .collect();
    quorum(&layout, held.iter().copied())?;
    let mut order: Vec<(usize, usize)> = held
        .into_iter()
        .map(|piece| {
            (
                layout
                    .usable()
                    .into_iter()
                    .filter(|at| layout.can_take(piece, *at))
                    .count(),
                piece,
            )
        })
        .collect();
    // Those with the fewest places choose first, and large ones before small ones while disks have room.
    order.sort_by_key(|(places, piece)| (*places, u64::MAX - layout.pieces[*piece].bytes, *piece));
    for (_, piece) in order {
        layout.take(piece, from);
        if layout.pieces[piece].now.len() < layout.factor {
            let to = best_place(&layout, piece).ok_or_else(|| no_place(&layout, piece))?;
            layout.put(piece, to);
        }
    }
    even_counts(&mut layout, Scope::New);
    Ok(layout.moves())
}

/// Every replica of a node, which may be down, goes to one other.
pub fn plan_replace(cluster: &Cluster, old: u64, new: u64) -> Result<Vec<PlannedMove>, Refusal> {
    let mut layout = Layout::new(cluster);
    let from = layout.node(old).ok_or(Refusal::UnknownNode(old))?;
    if old == new {
        return Err(Refusal::InvalidMove(format!(
            "node {old} cannot replace itself; add a new node and name it"
        )));
    }
    let to = target(&layout, new)?;
    let held: Vec<usize> = (0..layout.pieces.len())
        .filter(|piece| layout.pieces[*piece].now.contains(&from))
        .collect();
    quorum(&layout, held.iter().copied())?;
    for piece in held {
        let shard = layout.pieces[piece].id;
        if !layout.may_take(piece, to) {
            return Err(Refusal::InvalidMove(format!(
                "node {new} has a replica of shard {shard} already, so it cannot take that of node {old} as well; name \
                 a new node, or remove node {old} instead"
            )));
        }
        if !layout.can_take(piece, to) {
            return Err(no_room(&layout, piece));
        }
        layout.shift(piece, from, to);
    }
    Ok(layout.moves())
}

/// A node that is named as a target.
fn target(layout: &Layout, id: u64) -> Result<usize, Refusal> {
    let at = layout.node(id).ok_or(Refusal::UnknownNode(id))?;
    if !layout.spots[at].accepts {
        return Err(Refusal::NotAccepting(id));
    }
    if !layout.spots[at].alive {
        return Err(Refusal::NotAlive(id));
    }
    Ok(at)
}

fn quorum(layout: &Layout, pieces: impl IntoIterator<Item = usize>) -> Result<(), Refusal> {
    let lost = pieces.into_iter().map(|piece| &layout.pieces[piece]);
    let shards: Vec<u32> = lost.filter(|piece| !piece.quorum).map(|piece| piece.id).collect();
    if shards.is_empty() {
        return Ok(());
    }
    Err(Refusal::QuorumLost { shards })
}

/// Why nothing can take a shard.
fn no_place(layout: &Layout, piece: usize) -> Refusal {
    if layout.usable().into_iter().any(|at| layout.may_take(piece, at)) {
        return no_room(layout, piece);
    }
    Refusal::FactorUnmet {
        shard: layout.pieces[piece].id,
        have: layout.pieces[piece].now.len(),
        factor: layout.factor,
    }
}

fn no_room(layout: &Layout, piece: usize) -> Refusal {
    Refusal::NoRoom {
        shard: layout.pieces[piece].id,
        bytes: layout.pieces[piece].bytes,
    }
}
