//! Where every replica is while a plan is made, with the sums that decisions need.
//!
//! Never here: decisions. Nodes and shards are numbered in the order of their ids, so that the lowest index wins a tie.
//! Invariant: `counts`, `bytes` and `incoming` agree with `now` of all shards.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cluster, DISK_RESERVE_PERCENT, NodeInfo, PlannedMove};

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) id: u64,
    /// `None`: a node that holds replicas but is not in the cluster.
    pub(super) zone: Option<usize>,
    pub(super) accepts: bool,
    pub(super) alive: bool,
    /// Bytes it can still be given; `None`: not known.
    room: Option<u64>,
}

impl Spot {
    /// May be given replicas, and may have them taken away for the sake of balance.
    pub(super) fn usable(&self) -> bool {
        self.accepts && self.alive
    }

    pub(super) fn known(&self) -> bool {
        self.zone.is_some()
    }
}

/// A shard.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) id: u32,
    pub(super) bytes: u64,
    /// Where its replicas were when planning began.
    pub(super) home: BTreeSet<usize>,
    /// Where they are to be.
    pub(super) now: BTreeSet<usize>,
    /// A majority answers: its membership can change.
    pub(super) quorum: bool,
}

/// The whole.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) factor: usize,
    pub(super) spots: Vec<Spot>,
    pub(super) pieces: Vec<Piece>,
    /// Replicas of each node.
    pub(super) counts: Vec<usize>,
    /// Bytes of each node.
    pub(super) bytes: Vec<u64>,
    /// Bytes that each node is given by the plan. What it gives away in turn does not count: that may happen later.
    incoming: Vec<u64>,
}

impl Layout {
    pub(super) fn new(cluster: &Cluster) -> Layout {
        let known: BTreeMap<u64, &NodeInfo> = cluster.nodes.iter().map(|node| (node.id, node)).collect();
        let zones: BTreeSet<&str> = known.values().map(|node| node.zone.as_str()).collect();
        let zones: BTreeMap<&str, usize> = zones.into_iter().zip(0..).collect();
        let mut held: BTreeMap<u64, u64> = known.keys().map(|id| (*id, 0)).collect();
        for shard in &cluster.shards {
            for node in shard.replicas.iter().collect::<BTreeSet<_>>() {
                let sum = held.entry(*node).or_default();
                *sum = sum.saturating_add(shard.bytes);
            }
        }
        let spots: Vec<Spot> = held
            .iter()
            .map(|(id, held)| {
                let node = known.get(id).copied();
                Spot {
                    id: *id,
                    zone: node.and_then(|node| zones.get(node.zone.as_str()).copied()),
                    accepts: node.is_some_and(|node| node.accepts),
                    alive: node.is_some_and(|node| node.alive),
                    room: node.and_then(|node| room(node.disk_free_bytes, *held)),
                }
            })
            .collect();
        let index: BTreeMap<u64, usize> = held.keys().copied().zip(0..).collect();
        let shards: BTreeMap<u32, _> = cluster.shards.iter().map(|shard| (shard.id, shard)).collect();
        let pieces: Vec<Piece> = shards
            .into_values()
            .map(|shard| {
                let home: BTreeSet<usize> = shard.replicas.iter().filter_map(|id| index.get(id).copied()).collect();
                let alive = home.iter().filter(|at| spots[**at].alive).count();
                Piece {
                    id: shard.id,
                    bytes: shard.bytes,
                    quorum: alive * 2 > home.len(),
                    now: home.clone(),
                    home,
                }
            })
            .collect();
        let mut counts = vec![0; spots.len()];
        for at in pieces.iter().flat_map(|piece| &piece.now) {
            counts[*at] += 1;
        }
        Layout {
            factor: cluster.factor,
            counts,
            bytes: held.into_values().collect(),
            incoming: vec![0; spots.len()],
            spots,
            pieces,
        }
    }

    /// Index of a node of the cluster.
    pub(super) fn node(&self, id: u64) -> Option<usize> {
        self.spots.iter().position(|spot| spot.id == id && spot.known())
    }

    /// Nodes that take part in balancing.
    pub(super) fn usable(&self) -> Vec<usize> {
        (0..self.spots.len()).filter(|at| self.spots[*at].usable()).collect()
    }

    /// Replicas of a shard in the zone of a node.
    pub(super) fn zone_mates(&self, piece: usize, at: usize) -> usize {
        let zone = self.spots[at].zone;
        let mates = self.pieces[piece].now.iter();
        mates
            .filter(|other| zone.is_some() && self.spots[**other].zone == zone)
            .count()
    }

    /// How much less evenly a shard lies over zones once a replica goes from a node to another; negative is better.
    /// Half the change of the sum of squares of replicas a zone, which is least where they are most even.
    pub(super) fn zone_loss(&self, piece: usize, from: usize, to: usize) -> isize {
        if self.spots[from].zone == self.spots[to].zone {
            return 0;
        }
        self.zone_mates(piece, to).cast_signed() - self.zone_mates(piece, from).cast_signed() + 1
    }

    /// Whether a node may be given a replica of a shard.
    pub(super) fn can_take(&self, piece: usize, at: usize) -> bool {
        self.may_take(piece, at) && self.has_room(piece, at)
    }

    /// The same, leaving its disk aside.
    pub(super) fn may_take(&self, piece: usize, at: usize) -> bool {
        self.spots[at].usable() && !self.pieces[piece].now.contains(&at)
    }

    fn has_room(&self, piece: usize, at: usize) -> bool {
        let piece = &self.pieces[piece];
        piece.home.contains(&at)
            || self.spots[at]
                .room
                .is_none_or(|room| room > 0 && self.incoming[at].saturating_add(piece.bytes) <= room)
    }

    pub(super) fn put(&mut self, piece: usize, at: usize) {
        let piece = &mut self.pieces[piece];
        if piece.now.insert(at) {
            self.counts[at] += 1;
            self.bytes[at] = self.bytes[at].saturating_add(piece.bytes);
            if !piece.home.contains(&at) {
                self.incoming[at] = self.incoming[at].saturating_add(piece.bytes);
            }
        }
    }

    pub(super) fn take(&mut self, piece: usize, at: usize) {
        let piece = &mut self.pieces[piece];
        if piece.now.remove(&at) {
            self.counts[at] -= 1;
            self.bytes[at] = self.bytes[at].saturating_sub(piece.bytes);
            if !piece.home.contains(&at) {
                self.incoming[at] = self.incoming[at].saturating_sub(piece.bytes);
            }
        }
    }

    pub(super) fn shift(&mut self, piece: usize, from: usize, to: usize) {
        self.take(piece, from);
        self.put(piece, to);
    }

    /// Moves that make this layout of the one it was made from: as few as there are replicas in new places. What a shard
    /// lacks is added first. Each step is chosen so that the shard is as even over zones as it can be after it.
    pub(super) fn moves(&self) -> Vec<PlannedMove> {
        let mut moves = Vec::new();
        // Only its places are kept up to date, not its sums.
        let mut step = self.clone();
        for (number, piece) in self.pieces.iter().enumerate() {
            step.pieces[number].now.clone_from(&piece.home);
            let mut leave: Vec<usize> = piece.home.difference(&piece.now).copied().collect();
            let mut enter: Vec<usize> = piece.now.difference(&piece.home).copied().collect();
            while leave.len() < enter.len() {
                let best = enter
                    .iter()
                    .copied()
                    .min_by_key(|to| (step.zone_mates(number, *to), *to));
                let Some(to) = best else { break };
                step.pieces[number].now.insert(to);
                enter.retain(|at| *at != to);
                moves.push(self.planned(number, None, Some(to)));
            }
            while !enter.is_empty() {
                let pairs = leave.iter().flat_map(|from| enter.iter().map(move |to| (*from, *to)));
                let best = pairs.min_by_key(|(from, to)| {
                    let crosses = self.spots[*from].zone != self.spots[*to].zone;
                    let loss = step.zone_loss(number, *from, *to);
                    (self.spots[*from].known(), loss, crosses, *from, *to)
                });
                let Some((from, to)) = best else { break };
                step.pieces[number].now.remove(&from);
                step.pieces[number].now.insert(to);
                leave.retain(|at| *at != from);
                enter.retain(|at| *at != to);
                moves.push(self.planned(number, Some(from), Some(to)));
            }
            moves.extend(leave.into_iter().map(|from| self.planned(number, Some(from), None)));
        }
        moves
    }

    fn planned(&self, piece: usize, from: Option<usize>, to: Option<usize>) -> PlannedMove {
        PlannedMove {
            shard: self.pieces[piece].id,
            from: from.map(|at| self.spots[at].id),
            to: to.map(|at| self.spots[at].id),
        }
    }
}

/// What a node can be given before its reserve is touched.
fn room(free: u64, held: u64) -> Option<u64> {
    let reserve = free.saturating_add(held) / 100 * DISK_RESERVE_PERCENT;
    (free > 0).then(|| free.saturating_sub(reserve))
}
