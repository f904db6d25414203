//! Transfers of leaderships, against every other choice there is in small clusters.

use proptest::prelude::*;

use super::model_tests::{begun, node_mut, nodes};
use super::{Cluster, ShardInfo, plan_leaders};

fn led(leaders: &[u64], nodes_text: &str) -> Cluster {
    let shard = |(id, leader): (u32, &u64)| ShardInfo {
        id,
        replicas: nodes(nodes_text).iter().map(|node| node.id).collect(),
        bytes: 0,
        leader: Some(*leader),
    };
    Cluster {
        factor: nodes_text.len(),
        nodes: nodes(nodes_text),
        shards: (1..).zip(leaders).map(shard).collect(),
    }
}

#[test]
fn leaderships_are_evened_with_the_fewest_transfers() {
    let check = |leaders: &[u64], expected: &[(u32, u64)]| assert_eq!(plan_leaders(&led(leaders, "---")), expected);
    check(&[1, 2, 3], &[]);
    check(&[1, 1, 1], &[(1, 2), (2, 3)]);
    check(&[1, 1, 2, 3], &[]);
    check(&[1, 1, 1, 2, 2, 3], &[(1, 3)]);
    assert_eq!(plan_leaders(&begun("-----", 64, 3)), []);
}

#[test]
fn a_cordoned_node_leads_nothing_where_another_can() {
    let mut cluster = led(&[1, 2, 3, 1, 2, 3], "---");
    node_mut(&mut cluster, 2).accepts = false;
    assert_eq!(plan_leaders(&cluster), [(2, 1), (5, 3)]);
    cluster.shards[1].replicas = vec![2];
    assert_eq!(plan_leaders(&cluster), [(5, 1)]);
}

#[test]
fn no_transfer_goes_to_a_dead_node_or_a_shard_without_a_leader() {
    let mut cluster = led(&[1, 1, 1, 1], "---");
    node_mut(&mut cluster, 2).alive = false;
    cluster.shards[3].leader = None;
    assert_eq!(plan_leaders(&cluster), [(1, 3)]);
    node_mut(&mut cluster, 3).alive = false;
    assert_eq!(plan_leaders(&cluster), []);
}

/// Sum of squares of leaderships, and transfers, of the best choice there is.
fn best(cluster: &Cluster) -> (usize, usize) {
    let accepts = |id: &u64| cluster.nodes.iter().any(|node| node.id == *id && node.accepts);
    let mut found = vec![(Vec::<u64>::new(), 0)];
    for shard in &cluster.shards {
        let options: Vec<u64> = shard.replicas.iter().copied().filter(accepts).collect();
        let step = |(chosen, cost): (Vec<u64>, usize)| {
            options.clone().into_iter().map(move |leader| {
                let chosen = chosen.iter().copied().chain([leader]).collect();
                (chosen, cost + usize::from(shard.leader != Some(leader)))
            })
        };
        if !options.is_empty() {
            found = found.into_iter().flat_map(step).collect();
        }
    }
    found
        .into_iter()
        .map(|(chosen, cost)| (squares(&chosen), cost))
        .min()
        .unwrap()
}

fn squares(leaders: &[u64]) -> usize {
    leaders
        .iter()
        .map(|id| leaders.iter().filter(|other| *other == id).count())
        .sum()
}

fn small() -> impl Strategy<Value = Cluster> {
    let shard = (
        prop::sample::subsequence(vec![1_u64, 2, 3, 4, 5], 1..=3),
        any::<prop::sample::Index>(),
    );
    (
        prop::collection::vec(shard, 1..=7),
        prop::collection::vec(prop::bool::weighted(0.8), 5),
    )
        .prop_map(|(shards, accepts)| {
            let mut all = nodes("-----");
            all.iter_mut()
                .zip(accepts)
                .for_each(|(node, accepts)| node.accepts = accepts);
            let shard = |(id, (replicas, leader)): (u32, (Vec<u64>, prop::sample::Index))| ShardInfo {
                id,
                bytes: 0,
                leader: Some(*leader.get(&replicas)),
                replicas,
            };
            Cluster {
                factor: 3,
                nodes: all,
                shards: (1..).zip(shards).map(shard).collect(),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_choice_is_more_even_or_as_even_with_fewer_transfers(cluster in small()) {
        let plan = plan_leaders(&cluster);
        let accepts = |id: u64| cluster.nodes.iter().any(|node| node.id == id && node.accepts);
        let mut leaders = Vec::new();
        for shard in &cluster.shards {
            let transfer = plan.iter().find(|(id, _)| *id == shard.id).map(|(_, to)| *to);
            let leader = transfer.or(shard.leader).unwrap();
            prop_assert!(shard.replicas.contains(&leader));
            if accepts(leader) {
                leaders.push(leader);
            } else {
                prop_assert!(shard.replicas.iter().all(|id| !accepts(*id)), "shard {} led by {leader}", shard.id);
            }
        }
        prop_assert_eq!((squares(&leaders), plan.len()), best(&cluster));
    }
}
