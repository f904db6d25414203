//! Who should lead which shard.
//!
//! Never here: replicas that move. Invariant: no other choice has the leaderships more even, and none that is as even needs
//! fewer transfers. Found as a flow: chains of transfers from nodes that lead more to nodes that lead fewer, then
//! circles of transfers that take back what was not needed.

use super::Cluster;
use super::layout::Layout;
use super::spread::paths;

/// Transfers (shard, node) that even leaderships among nodes that are alive and accept. Nodes that do not accept lead
/// nothing where another replica can. Shards without a leader or a majority are left alone.
#[must_use]
pub fn plan_leaders(cluster: &Cluster) -> Vec<(u32, u64)> {
    let layout = Layout::new(cluster);
    let leader_of = |shard: u32| cluster.shards.iter().find(|other| other.id == shard)?.leader;
    let mut home = Vec::new();
    let mut options = Vec::new();
    for piece in &layout.pieces {
        let leader = leader_of(piece.id).and_then(|id| layout.spots.iter().position(|spot| spot.id == id));
        let led = leader.is_some_and(|at| layout.spots[at].alive || !layout.spots[at].known());
        let usable = piece.now.iter().copied().filter(|at| layout.spots[*at].usable());
        options.push(if led && piece.quorum {
            usable.collect()
        } else {
            Vec::new()
        });
        home.push(leader);
    }
    let leaders = even_leaders(&options, &home, layout.spots.len());
    let moved = layout.pieces.iter().zip(home.into_iter().zip(leaders));
    moved
        .filter_map(|(piece, (home, leader))| {
            let leader = leader.filter(|_| leader != home)?;
            Some((piece.id, layout.spots[leader].id))
        })
        .collect()
}

/// One of each shard's options, so that the nodes' counts are as even as can be and as few as can be differ from `home`.
/// `None` where there is no option.
pub(super) fn even_leaders(options: &[Vec<usize>], home: &[Option<usize>], nodes: usize) -> Vec<Option<usize>> {
    let stay = options.iter().zip(home);
    let mut plan = Plan {
        options,
        home,
        now: stay
            .map(|(options, home)| home.filter(|home| options.contains(home)))
            .collect(),
        counts: vec![0; nodes],
    };
    for at in plan.now.iter().flatten() {
        plan.counts[*at] += 1;
    }
    for (shard, options) in options.iter().enumerate().filter(|(_, options)| !options.is_empty()) {
        if plan.now[shard].is_none() {
            let chosen = options.iter().copied().min_by_key(|at| (plan.counts[*at], *at));
            plan.now[shard] = chosen;
            chosen.into_iter().for_each(|at| plan.counts[at] += 1);
        }
    }
    while let Some(chain) = plan.evening_chain() {
        plan.carry_out(&chain);
    }
    while let Some(circle) = plan.saving_circle() {
        plan.carry_out(&circle);
    }
    plan.now
}

struct Plan<'a> {
    options: &'a [Vec<usize>],
    home: &'a [Option<usize>],
    now: Vec<Option<usize>>,
    counts: Vec<usize>,
}

impl Plan<'_> {
    /// The shard whose leadership goes from a node to another at the least cost, and that cost: 1 for a transfer, -1 for
    /// one that is not needed any more, 0 for one that goes elsewhere.
    fn cheapest(&self, from: usize, to: usize) -> Option<(isize, usize)> {
        let led = (0..self.now.len()).filter(|shard| self.now[*shard] == Some(from));
        let able = led.filter(|shard| from != to && self.options[*shard].contains(&to));
        let cost =
            |shard: usize| isize::from(self.home[shard] != Some(to)) - isize::from(self.home[shard] != Some(from));
        able.map(|shard| (cost(shard), shard)).min()
    }

    fn evening_chain(&self) -> Option<Vec<usize>> {
        let nodes = self.counts.len();
        let links: Vec<Vec<usize>> = (0..nodes)
            .map(|from| (0..nodes).filter(|to| self.cheapest(from, *to).is_some()).collect())
            .collect();
        let chains = (0..nodes).flat_map(|from| paths(&links, from));
        let gap = |chain: &[usize]| match (chain.first(), chain.last()) {
            (Some(from), Some(to)) => self.counts[*from].saturating_sub(self.counts[*to]),
            _ => 0,
        };
        let evening = chains.filter(|chain| gap(chain) >= 2);
        evening.min_by_key(|chain| (chain.len(), usize::MAX - gap(chain)))
    }

    /// A closed walk of transfers that costs less than nothing (Bellman and Ford). One step of it may be missing: from a
    /// node to one that leads exactly one more, which leaves the two counts exchanged and thus as even as before.
    fn saving_circle(&self) -> Option<Vec<usize>> {
        let nodes = self.counts.len();
        let step = |from: usize, to: usize| {
            let real = self.cheapest(from, to).map(|(cost, _)| cost);
            let free = (self.counts[to] == self.counts[from] + 1).then_some(0);
            [real, free].into_iter().flatten().min()
        };
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        let steps: Vec<(usize, usize, isize)> = pairs.filter_map(|(a, b)| Some((a, b, step(a, b)?))).collect();
        let mut cost = vec![0_isize; nodes];
        let mut before: Vec<Option<usize>> = vec![None; nodes];
        let mut last = None;
        for _ in 0..=nodes {
            last = None;
            for (from, to, price) in &steps {
                if cost[*from] + price < cost[*to] {
                    cost[*to] = cost[*from] + price;
                    before[*to] = Some(*from);
                    last = Some(*to);
                }
            }
        }
        let mut at = last?;
        for _ in 0..nodes {
            at = before[at]?;
        }
        let mut circle = vec![at];
        let mut back = before[at]?;
        while back != at {
            circle.push(back);
            back = before[back]?;
        }
        circle.push(at);
        circle.reverse();
        Some(circle)
    }

    /// Transfers along a walk. A step that only exchanges counts has no transfer; the cheaper of the two was counted.
    fn carry_out(&mut self, walk: &[usize]) {
        let steps: Vec<(usize, Option<(isize, usize)>)> = walk
            .windows(2)
            .map(|step| {
                let free = walk.first() == walk.last() && self.counts[step[1]] == self.counts[step[0]] + 1;
                (
                    step[1],
                    self.cheapest(step[0], step[1]).filter(|(cost, _)| !free || *cost < 0),
                )
            })
            .collect();
        for (to, transfer) in steps {
            if let Some((_, shard)) = transfer {
                if let Some(from) = self.now[shard].replace(to) {
                    self.counts[from] -= 1;
                }
                self.counts[to] += 1;
            }
        }
    }
}
