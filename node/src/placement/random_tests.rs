//! Thousands of random clusters: what must hold of every plan. `carry_out` checks each step on the way.

use proptest::prelude::*;

use super::model_tests::{GIB, carry_out, counts, held, unevenness};
use super::{
    Cluster, NodeInfo, PlannedMove, Refusal, ShardInfo, catalog_voters, initial, plan_balance, plan_empty,
    plan_leaders, plan_move, plan_replace,
};

/// What may be wrong with a random cluster.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// Dead and cordoned nodes.
    nodes: bool,
    /// Replicas anywhere, too few, too many, on nodes that are gone.
    places: bool,
    /// Disks of known size.
    disks: bool,
    /// Shards of different sizes.
    sizes: bool,
}

const ALL: Trouble = Trouble {
    nodes: true,
    places: true,
    disks: true,
    sizes: true,
};

type Draws = (Vec<(u8, bool, bool, u64)>, Vec<(Vec<u8>, u8, u64)>);

/// 1 to 9 nodes in 0 to 4 zones, 1 to 64 shards, factor 1, 3 or 5.
fn clusters(trouble: Trouble) -> impl Strategy<Value = Cluster> {
    let likely = prop::bool::weighted(0.85);
    let nodes = prop::collection::vec((any::<u8>(), likely, likely, 0..200_u64), 1..=9);
    let shard = (prop::collection::vec(any::<u8>(), 0..=6), any::<u8>(), 0..8_u64);
    let shards = prop::collection::vec(shard, 1..=64);
    let factor = prop::sample::select(vec![1, 3, 3, 3, 5]);
    (nodes, shards, factor, 0..=4_u8, 0..=3_usize)
        .prop_map(move |(nodes, shards, factor, zones, joined)| build(trouble, (nodes, shards), factor, zones, joined))
}

fn build(trouble: Trouble, (nodes, shards): Draws, factor: usize, zones: u8, joined: usize) -> Cluster {
    let node = |(number, (zone, accepts, alive, free)): (u64, (u8, bool, bool, u64))| {
        NodeInfo {
            id: 2 * number + 1,
            zone: zone
                .checked_rem(zones)
                .map_or(String::new(), |zone| format!("zone-{zone}")),
            accepts: accepts || !trouble.nodes,
            alive: true,
            disk_free_bytes: if trouble.disks && free < 150 { free * GIB } else { 0 },
        }
        .alive_if(alive || !trouble.nodes)
    };
    let nodes: Vec<NodeInfo> = (0..).zip(nodes).map(node).collect();
    // The last few nodes have joined since and have nothing.
    let first: Vec<NodeInfo> = nodes
        .iter()
        .take((nodes.len() - joined.min(nodes.len() - 1)).max(1))
        .cloned()
        .collect();
    let healthy: Vec<NodeInfo> = first
        .iter()
        .cloned()
        .map(|node| NodeInfo {
            accepts: true,
            alive: true,
            ..node
        })
        .collect();
    let lists = initial(&healthy, u32::try_from(shards.len()).unwrap(), factor);
    let shards = (1..)
        .zip(shards.into_iter().zip(lists))
        .map(|(id, ((places, luck, bytes), list))| {
            let mut replicas = list;
            if trouble.places && luck % 4 == 0 {
                // One past the last is a node that is gone.
                replicas = places
                    .iter()
                    .map(|at| 2 * (u64::from(*at) % (nodes.len() as u64 + 1)) + 1)
                    .collect();
                replicas.sort_unstable();
                replicas.dedup();
            }
            ShardInfo {
                id,
                bytes: if trouble.sizes { bytes * GIB } else { GIB },
                leader: replicas.get(usize::from(luck) % (replicas.len() + 1)).copied(),
                replicas,
            }
        });
    Cluster {
        factor,
        shards: shards.collect(),
        nodes,
    }
}

impl NodeInfo {
    fn alive_if(self, alive: bool) -> NodeInfo {
        NodeInfo { alive, ..self }
    }
}

fn usable(cluster: &Cluster) -> Vec<u64> {
    let able = cluster.nodes.iter().filter(|node| node.accepts && node.alive);
    able.map(|node| node.id).collect()
}

fn alive(cluster: &Cluster, id: u64) -> bool {
    cluster.nodes.iter().any(|node| node.id == id && node.alive)
}

fn quorum(cluster: &Cluster, shard: &ShardInfo) -> bool {
    shard.replicas.iter().filter(|id| alive(cluster, **id)).count() * 2 > shard.replicas.len()
}

/// Moves that any plan needs at least for counts that differ by one at most.
fn fewest(cluster: &Cluster) -> usize {
    let mut counts = counts(cluster);
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let (total, nodes) = (counts.iter().sum::<usize>(), counts.len());
    let target = |rank: usize| total / nodes + usize::from(rank < total % nodes);
    counts
        .iter()
        .enumerate()
        .map(|(rank, count)| count.saturating_sub(target(rank)))
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_of_a_balance_keeps_the_cluster_sound(cluster in clusters(ALL)) {
        carry_out(&cluster, &plan_balance(&cluster, 0));
    }

    #[test]
    fn a_second_balance_finds_nothing(cluster in clusters(Trouble { disks: false, ..ALL })) {
        let after = carry_out(&cluster, &plan_balance(&cluster, 0));
        prop_assert_eq!(plan_balance(&after, 0), []);
    }

    #[test]
    fn balancing_ends_also_where_disks_are_tight_or_plans_are_cut(cluster in clusters(ALL), most in 0..=5_usize) {
        let mut now = cluster;
        let mut rounds = 0;
        loop {
            let plan = plan_balance(&now, most);
            prop_assert!(most == 0 || plan.len() <= most);
            if plan.is_empty() {
                break;
            }
            now = carry_out(&now, &plan);
            rounds += 1;
            prop_assert!(rounds < 400, "no end in sight: {:?}", plan);
        }
    }

    #[test]
    fn a_balance_meets_the_factor_wherever_it_can(cluster in clusters(Trouble { disks: false, ..ALL })) {
        let after = carry_out(&cluster, &plan_balance(&cluster, 0));
        let usable = usable(&cluster);
        for (shard, before) in after.shards.iter().zip(&cluster.shards) {
            if quorum(&cluster, before) {
                let full = usable.iter().all(|id| shard.replicas.contains(id));
                prop_assert!(shard.replicas.len() == cluster.factor || full, "{:?}", shard);
                let gone = shard.replicas.iter().filter(|id| !cluster.nodes.iter().any(|node| node.id == **id));
                prop_assert!(full || gone.count() == 0, "{:?}", shard);
            } else {
                prop_assert_eq!(&shard.replicas, &before.replicas, "membership cannot change");
            }
        }
    }

    #[test]
    fn a_balance_spreads_each_shard_over_zones(cluster in clusters(Trouble { disks: false, ..ALL })) {
        let after = carry_out(&cluster, &plan_balance(&cluster, 0));
        let usable = usable(&cluster);
        for shard in after.shards.iter().filter(|shard| quorum(&after, shard)) {
            let now = unevenness(&after, &shard.replicas);
            for from in shard.replicas.iter().filter(|id| usable.contains(id)) {
                for to in usable.iter().filter(|id| !shard.replicas.contains(id)) {
                    let other: Vec<u64> = shard.replicas.iter().copied().filter(|id| id != from).chain([*to]).collect();
                    prop_assert!(unevenness(&after, &other) >= now, "{:?}: {} to {} is better", shard, from, to);
                }
            }
        }
    }

    #[test]
    fn no_move_of_a_balance_makes_zones_less_even(cluster in clusters(Trouble { nodes: true, ..Trouble::default() })) {
        let mut now = cluster.clone();
        for step in plan_balance(&cluster, 0) {
            let after = carry_out(&now, &[step]);
            let uneven = |of: &Cluster| unevenness(of, &of.shards[step.shard as usize - 1].replicas);
            prop_assert!(step.from.is_none() || uneven(&after) <= uneven(&now), "{:?}", step);
            now = after;
        }
    }

    #[test]
    fn no_zone_has_more_than_its_share(cluster in clusters(Trouble::default())) {
        let after = carry_out(&cluster, &plan_balance(&cluster, 0));
        let zones: Vec<&str> = after.nodes.iter().map(|node| node.zone.as_str()).collect();
        let mut distinct = zones.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let share = cluster.factor.div_ceil(distinct.len());
        let size = |zone: &str| zones.iter().filter(|other| **other == zone).count();
        if distinct.iter().any(|zone| size(zone) < share) {
            return Ok(());
        }
        for shard in &after.shards {
            for zone in &distinct {
                let inside = after.nodes.iter().filter(|node| node.zone == *zone && shard.replicas.contains(&node.id));
                prop_assert!(inside.count() <= share, "{:?}", shard);
            }
        }
    }

    #[test]
    fn without_zones_counts_differ_by_one_and_moves_are_the_fewest(mut cluster in clusters(Trouble::default())) {
        cluster.nodes.iter_mut().for_each(|node| node.zone.clear());
        let missing: usize = cluster.shards.iter().map(|shard| {
            cluster.factor.min(cluster.nodes.len()) - shard.replicas.len()
        }).sum();
        let plan = plan_balance(&cluster, 0);
        let after = carry_out(&cluster, &plan);
        let counts = counts(&after);
        prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
        if missing == 0 {
            prop_assert_eq!(plan.len(), fewest(&cluster));
        }
    }

    #[test]
    fn moves_are_near_the_fewest_with_zones_too(cluster in clusters(Trouble::default())) {
        // What no plan can do without: replicas that crowd a zone, and counts that differ by more than zones explain.
        let plan = plan_balance(&cluster, 0);
        let after = carry_out(&cluster, &plan);
        let added = plan.iter().filter(|step| step.from.is_none()).count();
        let gains = after.nodes.iter().map(|node| {
            held(&after, node.id).count().saturating_sub(held(&cluster, node.id).count())
        }).sum::<usize>();
        let crowded: usize = cluster.shards.iter().zip(&after.shards).map(|(before, after)| {
            (unevenness(&cluster, &before.replicas).saturating_sub(unevenness(&cluster, &after.replicas))).div_ceil(2)
        }).sum();
        let most = gains.max(crowded) * 3 / 2 + added + 2;
        prop_assert!(plan.len() <= most, "{} moves, {} gains, {} crowded", plan.len(), gains, crowded);
    }

    #[test]
    fn a_plan_does_not_depend_on_the_order_of_its_input(cluster in clusters(ALL)) {
        let mut turned = cluster.clone();
        turned.nodes.reverse();
        turned.shards.reverse();
        turned.shards.iter_mut().for_each(|shard| shard.replicas.reverse());
        prop_assert_eq!(plan_balance(&cluster, 0), plan_balance(&turned, 0));
        prop_assert_eq!(plan_leaders(&cluster), plan_leaders(&turned));
        let node = cluster.nodes[0].id;
        prop_assert_eq!(plan_empty(&cluster, node), plan_empty(&turned, node));
    }

    #[test]
    fn emptying_moves_exactly_the_replicas_of_the_node(cluster in clusters(ALL)) {
        let others: Vec<u64> = usable(&cluster).into_iter().filter(|id| *id != cluster.nodes[0].id).collect();
        let node = cluster.nodes[0].id;
        match plan_empty(&cluster, node) {
            Ok(plan) => {
                prop_assert_eq!(plan.len(), held(&cluster, node).count());
                prop_assert!(plan.iter().all(|step| step.from == Some(node)));
                let after = carry_out(&cluster, &plan);
                prop_assert_eq!(held(&after, node).count(), 0);
                prop_assert_eq!(plan_empty(&after, node), Ok(Vec::new()));
            }
            Err(Refusal::LastNode(_)) => prop_assert!(others.is_empty()),
            Err(Refusal::FactorUnmet { shard, .. }) => {
                let shard = &cluster.shards[shard as usize - 1];
                prop_assert!(others.iter().all(|id| shard.replicas.contains(id)));
            }
            Err(Refusal::QuorumLost { shards }) => {
                prop_assert!(shards.iter().all(|id| !quorum(&cluster, &cluster.shards[*id as usize - 1])));
            }
            Err(Refusal::NoRoom { .. }) => prop_assert!(cluster.nodes.iter().any(|node| node.disk_free_bytes > 0)),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn emptying_leaves_the_others_even(cluster in clusters(Trouble { sizes: true, ..Trouble::default() })) {
        if cluster.nodes.len() <= cluster.factor {
            return Ok(());
        }
        let mut plain = cluster;
        plain.nodes.iter_mut().for_each(|node| node.zone.clear());
        plain = carry_out(&plain, &plan_balance(&plain, 0));
        let plan = plan_empty(&plain, 1).unwrap();
        let after = carry_out(&plain, &plan);
        let count = |id| held(&after, id).count();
        for step in plan {
            let others = after.nodes.iter().map(|node| node.id).filter(|id| *id != 1);
            let mut free = others.filter(|id| !after.shards[step.shard as usize - 1].replicas.contains(id));
            prop_assert!(free.all(|id| count(id) + 2 > count(step.to.unwrap())), "{:?}: {:?}", step, counts(&after));
        }
    }

    #[test]
    fn replacing_moves_everything_to_the_new_node(cluster in clusters(ALL)) {
        let (old, new) = (cluster.nodes[0].id, cluster.nodes[cluster.nodes.len() - 1].id);
        match plan_replace(&cluster, old, new) {
            Ok(plan) => {
                prop_assert!(plan.iter().all(|step| step.from == Some(old) && step.to == Some(new)));
                let after = carry_out(&cluster, &plan);
                prop_assert_eq!(held(&after, old).count(), 0);
            }
            Err(Refusal::InvalidMove(_)) => {
                prop_assert!(old == new || held(&cluster, old).any(|shard| shard.replicas.contains(&new)));
            }
            Err(Refusal::NotAlive(id) | Refusal::NotAccepting(id)) => prop_assert!(!usable(&cluster).contains(&id)),
            Err(Refusal::QuorumLost { shards }) => prop_assert!(!shards.is_empty()),
            Err(Refusal::NoRoom { .. }) => prop_assert!(cluster.nodes.iter().any(|node| node.disk_free_bytes > 0)),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_move_is_itself(cluster in clusters(ALL)) {
        let (from, to) = (cluster.nodes[0].id, cluster.nodes[cluster.nodes.len() - 1].id);
        if let Ok(plan) = plan_move(&cluster, 1, from, to) {
            prop_assert_eq!(&plan, &[PlannedMove { shard: 1, from: Some(from), to: Some(to) }]);
            carry_out(&cluster, &plan);
        }
    }

    #[test]
    fn leaders_are_replicas_that_can_lead(cluster in clusters(ALL)) {
        let plan = plan_leaders(&cluster);
        for (id, to) in &plan {
            let shard = &cluster.shards[*id as usize - 1];
            prop_assert!(shard.replicas.contains(to) && usable(&cluster).contains(to) && shard.leader != Some(*to));
        }
        let mut after = cluster.clone();
        for (id, to) in plan {
            after.shards[id as usize - 1].leader = Some(to);
        }
        prop_assert_eq!(plan_leaders(&after), []);
    }

    #[test]
    fn initial_placement_needs_no_balance(cluster in clusters(Trouble { nodes: true, ..Trouble::default() })) {
        let lists = initial(&cluster.nodes, 16, cluster.factor);
        let most = cluster.factor.min(usable(&cluster).len());
        prop_assert!(lists.iter().all(|list| list.len() == most));
        let begun = Cluster {
            shards: (1..).zip(lists).map(|(id, replicas)| ShardInfo {
                id, bytes: GIB, leader: replicas.first().copied(), replicas,
            }).collect(),
            ..cluster
        };
        prop_assert_eq!(plan_balance(&begun, 0), []);
        prop_assert_eq!(plan_leaders(&begun), []);
    }

    #[test]
    fn the_catalog_has_an_odd_number_of_voters_and_changes_few(
        cluster in clusters(ALL), current in prop::collection::vec(0..9_u64, 0..=5),
    ) {
        let current: Vec<u64> = current.into_iter().map(|number| 2 * number + 1).collect();
        let voters = catalog_voters(&cluster.nodes, &current);
        let able: Vec<u64> = cluster.nodes.iter().filter(|node| node.accepts).map(|node| node.id).collect();
        if able.is_empty() {
            return Ok(());
        }
        prop_assert_eq!(voters.len(), match able.len() { 1 | 2 => 1, 3 | 4 => 3, _ => 5 });
        prop_assert!(voters.iter().all(|id| able.contains(id)));
        let stay = able.iter().filter(|id| current.contains(id)).count().min(voters.len());
        prop_assert_eq!(voters.iter().filter(|id| current.contains(id)).count(), stay);
        prop_assert_eq!(&catalog_voters(&cluster.nodes, &voters), &voters);
    }
}
