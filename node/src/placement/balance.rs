//! A plan that repairs and evens the whole cluster.
//!
//! Never here: how a single step is chosen. Invariant: a second plan after the first was carried out is empty, unless
//! disks were too full for all of it.

use std::collections::BTreeSet;

use super::layout::Layout;
use super::spread::{Scope, best_place, even_bytes, even_counts, even_zones};
use super::{Cluster, PlannedMove};

/// Repairs first (replicas on nodes that are gone, too few, too many), then evens zones, then counts, then bytes.
/// Replicas of nodes that are down or cordoned stay. `max_moves` cuts the plan after its most useful moves; 0 does not.
#[must_use]
pub fn plan_balance(cluster: &Cluster, max_moves: usize) -> Vec<PlannedMove> {
    let limit = if max_moves == 0 { usize::MAX } else { max_moves };
    let mut layout = Layout::new(cluster);
    repair(&mut layout);
    loop {
        let mut moved = even_zones(&mut layout);
        moved |= even_counts(&mut layout, Scope::All);
        let spare = limit.saturating_sub(layout.moves().len());
        moved |= even_bytes(&mut layout, spare);
        if !moved {
            break;
        }
    }
    let mut moves = most_useful_first(cluster, layout.moves());
    moves.truncate(limit);
    moves
}

fn repair(layout: &mut Layout) {
    // Shards with the fewest places to go choose first.
    let places = |layout: &Layout, piece| (0..layout.spots.len()).filter(|at| layout.can_take(piece, *at)).count();
    let mut order: Vec<usize> = (0..layout.pieces.len())
        .filter(|piece| layout.pieces[*piece].quorum)
        .collect();
    order.sort_by_key(|piece| (places(layout, *piece), *piece));
    for piece in order {
        while layout.pieces[piece].now.len() < layout.factor {
            let Some(to) = best_place(layout, piece) else { break };
            layout.put(piece, to);
        }
        let held = layout.pieces[piece].now.iter().copied();
        let gone: Vec<usize> = held.filter(|at| !layout.spots[*at].known()).collect();
        for from in gone {
            if layout.pieces[piece].now.len() > layout.factor {
                layout.take(piece, from);
            } else if let Some(to) = best_place(layout, piece) {
                layout.shift(piece, from, to);
            }
        }
        while layout.pieces[piece].now.len() > layout.factor {
            let Some(from) = least_useful(layout, piece) else { break };
            layout.take(piece, from);
        }
    }
}

/// The replica that a shard misses least.
pub(super) fn least_useful(layout: &Layout, piece: usize) -> Option<usize> {
    let held = layout.pieces[piece].now.iter().copied();
    held.max_by_key(|at| {
        let spot = &layout.spots[*at];
        // One that the plan has only just added is the cheapest of all to leave out.
        let new = !layout.pieces[piece].home.contains(at);
        let mates = layout.zone_mates(piece, *at);
        (
            !spot.known(),
            !spot.alive,
            !spot.accepts,
            new,
            mates,
            layout.counts[*at],
            layout.bytes[*at],
            *at,
        )
    })
}

/// Repairs, then what evens zones, then whatever narrows the widest gap of counts at that point. Moves of one shard keep
/// their order.
fn most_useful_first(cluster: &Cluster, mut moves: Vec<PlannedMove>) -> Vec<PlannedMove> {
    let mut layout = Layout::new(cluster);
    let at = |layout: &Layout, id: Option<u64>| id.and_then(|id| layout.spots.iter().position(|spot| spot.id == id));
    let mut ordered = Vec::with_capacity(moves.len());
    while !moves.is_empty() {
        let mut seen = BTreeSet::new();
        let first = moves
            .iter()
            .enumerate()
            .filter(|(_, planned)| seen.insert(planned.shard));
        let best = first.min_by_key(|(_, planned)| {
            let (from, to) = (at(&layout, planned.from), at(&layout, planned.to));
            let piece = layout.pieces.iter().position(|piece| piece.id == planned.shard);
            match (from, to, piece) {
                (Some(from), Some(to), Some(piece)) if layout.spots[from].known() => {
                    let gap = layout.counts[to].cast_signed() - layout.counts[from].cast_signed();
                    (2, layout.zone_loss(piece, from, to).min(0), gap, **planned)
                }
                (None, Some(_), _) => (0, 0, 0, **planned),
                _ => (1, 0, 0, **planned),
            }
        });
        let Some(number) = best.map(|(number, _)| number) else {
            break;
        };
        let planned = moves.remove(number);
        if let Some(piece) = layout.pieces.iter().position(|piece| piece.id == planned.shard) {
            if let Some(to) = at(&layout, planned.to) {
                layout.put(piece, to);
            }
            if let Some(from) = at(&layout, planned.from) {
                layout.take(piece, from);
            }
        }
        ordered.push(planned);
    }
    ordered
}
