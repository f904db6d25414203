//! Steps towards an even layout: places for new replicas, even zones, even counts, even bytes.
//!
//! Never here: what a job asks for. Invariant: every step makes the layout better by a margin in this order of rank:
//! zones of each shard, replicas of each node, bytes of each node; so that steps end, and a layout they leave alone
//! stays alone.

use std::collections::BTreeSet;

use super::BYTES_WORTH_MOVING;
use super::layout::Layout;

/// Which replicas may move.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All on nodes that are in use.
    All,
    /// Only those that the plan has placed anew: others stay where they are.
    New,
}

/// The best place for one more replica of a shard: evenest over zones, then fewest replicas, then fewest bytes.
pub(super) fn best_place(layout: &Layout, piece: usize) -> Option<usize> {
    let places = (0..layout.spots.len()).filter(|at| layout.can_take(piece, *at));
    places.min_by_key(|at| {
        (
            layout.zone_mates(piece, *at),
            layout.counts[*at],
            layout.bytes[*at],
            *at,
        )
    })
}

/// Moves replicas out of zones that hold two more of their shard than another could. True when something moved.
pub(super) fn even_zones(layout: &mut Layout) -> bool {
    let usable = layout.usable();
    let mut moved = false;
    for piece in 0..layout.pieces.len() {
        while let Some((from, to)) = zone_step(layout, piece, &usable) {
            layout.shift(piece, from, to);
            moved = true;
        }
    }
    moved
}

fn zone_step(layout: &Layout, piece: usize, usable: &[usize]) -> Option<(usize, usize)> {
    if !layout.pieces[piece].quorum {
        return None;
    }
    let from = usable.iter().filter(|at| layout.pieces[piece].now.contains(at));
    let steps = from.flat_map(|from| usable.iter().map(move |to| (*from, *to)));
    let steps = steps.filter(|(_, to)| layout.can_take(piece, *to));
    let steps = steps.map(|(from, to)| (layout.zone_loss(piece, from, to), from, to));
    let better = steps.filter(|(loss, ..)| *loss < 0);
    let best = better.min_by_key(|(loss, from, to)| {
        let gap = layout.counts[*to].cast_signed() - layout.counts[*from].cast_signed();
        (*loss, gap, *from, *to)
    });
    best.map(|(_, from, to)| (from, to))
}

/// Makes the counts of replicas differ by at most one where zones and disks allow. A move that helps directly comes
/// first; where there is none, a chain of moves over nodes between. True when something moved.
pub(super) fn even_counts(layout: &mut Layout, scope: Scope) -> bool {
    let usable = layout.usable();
    let mut hopeless = BTreeSet::new();
    let mut moved = false;
    while let Some(chain) = shortest_chain(layout, &usable, scope, &hopeless) {
        let before = layout.clone();
        // From its end, so that each move alone fills a node that has few.
        let carried = chain.windows(2).rev().all(|link| {
            let piece = best_piece(layout, link[0], link[1], scope);
            if let Some(piece) = piece {
                layout.shift(piece, link[0], link[1]);
            }
            piece.is_some()
        });
        if carried {
            moved = true;
            hopeless.clear();
        } else {
            *layout = before;
            hopeless.insert((chain.first().copied(), chain.last().copied()));
        }
    }
    moved
}

/// Nodes from one that has too many replicas to one that has at least two fewer, each able to give one to the next.
/// The shortest there is, among those the one with the widest gap.
fn shortest_chain(
    layout: &Layout,
    usable: &[usize],
    scope: Scope,
    hopeless: &BTreeSet<(Option<usize>, Option<usize>)>,
) -> Option<Vec<usize>> {
    let links: Vec<Vec<usize>> = (0..layout.spots.len())
        .map(|from| {
            let next = usable
                .iter()
                .copied()
                .filter(|to| usable.contains(&from) && from != *to && best_piece(layout, from, *to, scope).is_some());
            next.collect()
        })
        .collect();
    let mut best: Option<((usize, isize), Vec<usize>)> = None;
    for from in usable {
        for path in paths(&links, *from) {
            let to = path.last().copied().unwrap_or(*from);
            let gap = layout.counts[*from].cast_signed() - layout.counts[to].cast_signed();
            let rank = (path.len(), -gap);
            let known = hopeless.contains(&(Some(*from), Some(to)));
            if gap >= 2 && !known && best.as_ref().is_none_or(|(other, _)| rank < *other) {
                best = Some((rank, path));
            }
        }
    }
    best.map(|(_, path)| path)
}

/// The shortest path to every node that can be reached, breadth first.
pub(super) fn paths(links: &[Vec<usize>], from: usize) -> Vec<Vec<usize>> {
    let mut seen = BTreeSet::from([from]);
    let mut found = vec![vec![from]];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        for to in path.last().into_iter().flat_map(|at| &links[*at]) {
            if seen.insert(*to) {
                let longer = path.iter().copied().chain([*to]).collect();
                found.push(longer);
            }
        }
    }
    found
}

/// The shard whose replica should go from a node to another: first what evens zones, then what the plan moves anyway,
/// then what brings the bytes of both closest.
fn best_piece(layout: &Layout, from: usize, to: usize, scope: Scope) -> Option<usize> {
    let half = layout.bytes[from].saturating_sub(layout.bytes[to]) / 2;
    let pieces = (0..layout.pieces.len()).filter(|piece| can_shift(layout, *piece, from, to, scope));
    pieces.min_by_key(|number| {
        let piece = &layout.pieces[*number];
        let cost = i8::from(piece.home.contains(&from)) - i8::from(piece.home.contains(&to));
        // Shards change one replica at a time, so that a plan over many of them is done sooner.
        let already = piece.home.difference(&piece.now).count();
        let loss = layout.zone_loss(*number, from, to);
        (loss, cost, already, piece.bytes.abs_diff(half), *number)
    })
}

fn can_shift(layout: &Layout, number: usize, from: usize, to: usize, scope: Scope) -> bool {
    let piece = &layout.pieces[number];
    piece.quorum
        && piece.now.contains(&from)
        && (scope == Scope::All || !piece.home.contains(&from))
        && layout.can_take(number, to)
        && layout.zone_loss(number, from, to) <= 0
}

/// Moves or swaps replicas between nodes of equal counts whose bytes differ by more than a fifth of the mean, as long as
/// each step closes the gap by a tenth of the mean. `spare`: how many moves the plan may still grow by. True when
/// something moved.
pub(super) fn even_bytes(layout: &mut Layout, mut spare: usize) -> bool {
    let usable = layout.usable();
    let mut moved = false;
    while let Some(step) = bytes_step(layout, &usable, spare) {
        layout.shift(step.piece, step.from, step.to);
        spare = spare.saturating_sub(1);
        if let Some(back) = step.back {
            layout.shift(back, step.to, step.from);
            spare = spare.saturating_sub(1);
        }
        moved = true;
    }
    moved
}

struct BytesStep {
    from: usize,
    to: usize,
    piece: usize,
    /// What comes back in exchange.
    back: Option<usize>,
}

fn bytes_step(layout: &Layout, usable: &[usize], spare: usize) -> Option<BytesStep> {
    let total = usable
        .iter()
        .fold(0_u64, |sum, at| sum.saturating_add(layout.bytes[*at]));
    let mean = total.checked_div(u64::try_from(usable.len()).ok()?)?;
    let margin = (mean / 10).max(BYTES_WORTH_MOVING / 2);
    let mut best: Option<(u64, BytesStep)> = None;
    for (from, to) in usable.iter().flat_map(|from| usable.iter().map(move |to| (*from, *to))) {
        let gap = layout.bytes[from].saturating_sub(layout.bytes[to]);
        if gap <= (mean / 5).max(BYTES_WORTH_MOVING) {
            continue;
        }
        for (piece, back) in exchanges(layout, from, to, spare) {
            let back_bytes = back.map_or(0, |back| layout.pieces[back].bytes);
            let shift = layout.pieces[piece].bytes.saturating_sub(back_bytes);
            let closed = shift.min(gap.saturating_sub(shift)).saturating_mul(2);
            // A plain move is half the work of a swap.
            let worth = if back.is_some() { closed / 2 } else { closed };
            if closed >= margin && best.as_ref().is_none_or(|(other, _)| worth > *other) {
                best = Some((worth, BytesStep { from, to, piece, back }));
            }
        }
    }
    best.map(|(_, step)| step)
}

/// What could go from a node to another without making counts or zones less even, alone or for something else.
fn exchanges(layout: &Layout, from: usize, to: usize, spare: usize) -> Vec<(usize, Option<usize>)> {
    let movable = |from, to| {
        let pieces = 0..layout.pieces.len();
        pieces.filter(move |piece| can_shift(layout, *piece, from, to, Scope::All))
    };
    let mut found = Vec::new();
    if spare >= 1 && layout.counts[from] == layout.counts[to] + 1 {
        found.extend(movable(from, to).map(|piece| (piece, None)));
    }
    if spare >= 2 {
        let back: Vec<usize> = movable(to, from).collect();
        found.extend(movable(from, to).flat_map(|piece| back.iter().map(move |back| (piece, Some(*back)))));
    }
    found
}
