//! Plans that read like a table: what an operator sees for clusters that can be checked by hand.

use super::model_tests::{GIB, begun, carry_out, counts, node_mut, nodes, shard, unevenness};
use super::{Cluster, PlannedMove, catalog_voters, initial, plan_balance, plan_empty, plan_move, plan_replace};

/// `1: 2>4` is shard 1 from node 2 to node 4.
fn text(plan: &[PlannedMove]) -> String {
    let name = |id: Option<u64>| id.map_or("-".to_owned(), |id| id.to_string());
    let line = |step: &PlannedMove| format!("{}: {}>{}", step.shard, name(step.from), name(step.to));
    plan.iter().map(line).collect::<Vec<_>>().join(", ")
}

fn refused<T: std::fmt::Debug>(plan: Result<T, super::Refusal>) -> String {
    plan.unwrap_err().to_string()
}

/// Nodes `n+1..` join.
fn joined(cluster: &Cluster, zones: &str) -> Cluster {
    Cluster {
        nodes: nodes(zones),
        ..cluster.clone()
    }
}

#[test]
fn initial_placement_is_even() {
    // (zones, shards, factor) -> replicas a node, first leaders a node
    let check = |zones: &str, shards, factor, expected: &[usize], leading: &[usize]| {
        let cluster = begun(zones, shards, factor);
        assert_eq!(counts(&cluster), expected, "{zones} {shards} {factor}");
        let leads = |id| cluster.shards.iter().filter(|shard| shard.leader == Some(id)).count();
        let leads: Vec<usize> = cluster.nodes.iter().map(|node| leads(node.id)).collect();
        assert_eq!(leads, leading, "{zones} {shards} {factor}");
    };
    check("-", 4, 1, &[4], &[4]);
    check("---", 6, 3, &[6, 6, 6], &[2, 2, 2]);
    check("----", 6, 3, &[5, 5, 4, 4], &[2, 2, 1, 1]);
    check("-----", 64, 3, &[39, 39, 38, 38, 38], &[13, 13, 13, 13, 12]);
    check("aabb", 4, 3, &[3, 3, 3, 3], &[1, 1, 1, 1]);
    check("aabc", 6, 3, &[3, 3, 6, 6], &[2, 2, 1, 1]);
    check("--", 2, 3, &[2, 2], &[1, 1]);
}

#[test]
fn initial_placement_skips_nodes_that_cannot_take_part() {
    let mut all = nodes("----");
    all[1].alive = false;
    assert_eq!(initial(&all, 2, 3), [[3, 1, 4], [1, 3, 4]]);
    assert_eq!(initial(&[], 2, 3), [[0_u64; 0], []]);
}

#[test]
fn two_more_nodes_get_their_share_and_no_more() {
    let three = begun("---", 6, 3);
    let five = joined(&three, "-----");
    let plan = plan_balance(&five, 0);
    assert_eq!(text(&plan), "1: 1>4, 2: 2>5, 3: 3>4, 4: 1>5, 5: 2>4, 6: 3>5");
    let after = carry_out(&five, &plan);
    assert_eq!(counts(&after), [4, 4, 4, 3, 3]);
    assert_eq!(plan_balance(&after, 0), []);
    assert_eq!(plan_balance(&five, 2), plan[..2]);
}

#[test]
fn draining_moves_exactly_what_the_node_has() {
    let five = begun("-----", 10, 3);
    let plan = plan_empty(&five, 2).unwrap();
    assert_eq!(plan.len(), 6);
    assert!(plan.iter().all(|step| step.from == Some(2)));
    let after = carry_out(&five, &plan);
    assert_eq!(counts(&after), [8, 0, 8, 7, 7]);
    assert_eq!(plan_empty(&after, 2), Ok(Vec::new()));
}

#[test]
fn emptying_is_refused_where_the_factor_could_not_be_met() {
    let mut three = begun("---", 2, 3);
    assert_eq!(
        refused(plan_empty(&three, 2)),
        "shard 1 would have 2 of its 3 replicas: no other node that is active and answers is free for it; add a node first"
    );
    three.nodes = nodes("----");
    assert_eq!(text(&plan_empty(&three, 2).unwrap()), "1: 2>4, 2: 2>4");
    node_mut(&mut three, 4).accepts = false;
    assert!(refused(plan_empty(&three, 2)).starts_with("shard 1 would have 2 of its 3"));
    assert_eq!(
        refused(plan_empty(&begun("-", 2, 1), 1)),
        "node 1 is the last that could hold data; add another node first"
    );
    assert_eq!(
        refused(plan_empty(&three, 9)),
        "node 9 is not in the cluster; list the nodes to see which are"
    );
}

#[test]
fn replacing_a_dead_node() {
    let mut cluster = joined(&begun("---", 3, 3), "----");
    node_mut(&mut cluster, 2).alive = false;
    let plan = plan_replace(&cluster, 2, 4).unwrap();
    assert_eq!(text(&plan), "1: 2>4, 2: 2>4, 3: 2>4");
    assert_eq!(counts(&carry_out(&cluster, &plan)), [3, 0, 3, 3]);

    node_mut(&mut cluster, 3).alive = false;
    assert_eq!(
        refused(plan_replace(&cluster, 2, 4)),
        "shards [1, 2, 3] have no majority of replicas that answer, so that nothing can be moved away or copied; start \
         the nodes that are down, or restore from a backup"
    );
    assert!(refused(plan_replace(&cluster, 1, 3)).starts_with("node 3 does not answer"));
    node_mut(&mut cluster, 3).alive = true;
    assert!(refused(plan_replace(&cluster, 1, 3)).starts_with("node 3 has a replica of shard 1 already"));
    assert!(refused(plan_replace(&cluster, 1, 1)).starts_with("node 1 cannot replace itself"));
}

#[test]
fn a_single_copy_on_a_dead_node_is_lost() {
    let mut cluster = joined(&begun("-", 2, 1), "--");
    assert_eq!(text(&plan_replace(&cluster, 1, 2).unwrap()), "1: 1>2, 2: 1>2");
    node_mut(&mut cluster, 1).alive = false;
    assert!(refused(plan_replace(&cluster, 1, 2)).starts_with("shards [1, 2] have no majority"));
    assert!(refused(plan_empty(&cluster, 1)).starts_with("shards [1, 2] have no majority"));
    assert_eq!(plan_balance(&cluster, 0), []);
}

#[test]
fn moving_one_replica() {
    let mut cluster = joined(&begun("---", 2, 3), "-----");
    node_mut(&mut cluster, 5).accepts = false;
    assert_eq!(text(&plan_move(&cluster, 1, 2, 4).unwrap()), "1: 2>4");
    let check = |shard, from, to, start: &str| {
        let refusal = refused(plan_move(&cluster, shard, from, to));
        assert!(refusal.starts_with(start), "{refusal}");
    };
    check(9, 1, 4, "shard 9 does not exist");
    check(1, 2, 9, "node 9 is not in the cluster");
    check(1, 4, 4, "shard 1 has no replica on node 4");
    check(1, 2, 3, "shard 1 has a replica on node 3 already");
    check(1, 2, 5, "node 5 is cordoned");
}

#[test]
fn zones_come_before_counts() {
    // Three nodes in one zone; two more in two others: each shard takes one of each zone.
    let grown = joined(&begun("aaa", 6, 3), "aaabc");
    let plan = plan_balance(&grown, 0);
    let after = carry_out(&grown, &plan);
    assert_eq!(counts(&after), [2, 2, 2, 6, 6]);
    assert!(
        after
            .shards
            .iter()
            .all(|shard| unevenness(&after, &shard.replicas) == 3)
    );
    assert_eq!(plan.len(), 12);
    assert_eq!(plan_balance(&after, 0), []);

    // A drained node's replicas stay in its zone where they can.
    let six = begun("aabbcc", 6, 3);
    let after = carry_out(&six, &plan_empty(&six, 1).unwrap());
    assert_eq!(counts(&after), [0, 6, 3, 3, 3, 3]);
}

#[test]
fn repairs_come_first() {
    let mut cluster = joined(&begun("---", 4, 3), "----");
    cluster.shards[3].replicas = vec![1, 2];
    cluster.shards[2].replicas = vec![1, 2, 77];
    cluster.shards[1].replicas = vec![1, 2, 3, 4];
    assert_eq!(text(&plan_balance(&cluster, 0)), "4: ->3, 2: 2>-, 3: 77>4, 1: 1>4");
    assert_eq!(text(&plan_balance(&cluster, 1)), "4: ->3");
}

#[test]
fn bytes_are_evened_by_swaps_when_it_is_worth_it() {
    let mut cluster = begun("--", 4, 1);
    let mut check = |bytes: [u64; 4], expected: &str| {
        for (shard, bytes) in cluster.shards.iter_mut().zip(bytes) {
            shard.bytes = bytes;
        }
        let plan = plan_balance(&cluster, 0);
        assert_eq!(text(&plan), expected, "{bytes:?}");
        assert_eq!(plan_balance(&carry_out(&cluster, &plan), 0), []);
    };
    // Shards 1 and 3 are on node 1, 2 and 4 on node 2.
    check([GIB, GIB, GIB, GIB], "");
    check([9 * GIB, GIB, 9 * GIB, GIB], "1: 1>2, 2: 2>1");
    check([1_100_000_000, GIB, 1_100_000_000, GIB], "");
    check([9000, 1000, 9000, 1000], "");
}

#[test]
fn a_full_disk_is_left_alone() {
    let mut cluster = joined(&begun("---", 6, 3), "-----");
    node_mut(&mut cluster, 4).disk_free_bytes = 3 * GIB;
    node_mut(&mut cluster, 5).disk_free_bytes = GIB;
    // A tenth of the room of node 4 stays free: two shards of 1 GiB fit into 2.7. Node 5 can take none.
    let after = carry_out(&cluster, &plan_balance(&cluster, 0));
    assert_eq!(counts(&after)[3..], [2, 0]);
    assert!(refused(plan_move(&cluster, 1, 1, 5)).starts_with("shard 1 needs 1073741824 bytes"));
    assert!(refused(plan_replace(&cluster, 1, 4)).starts_with("shard 3 needs 1073741824 bytes"));
    assert_eq!(shard(&cluster, 3).bytes, GIB);
}

#[test]
fn a_node_that_does_not_answer_votes_in_the_catalog_only_where_no_other_can() {
    let with_dead = |zones: &str, dead: u64, current: &[u64]| {
        let mut all = nodes(zones);
        all.iter_mut().for_each(|node| node.alive = node.id != dead);
        catalog_voters(&all, current)
    };
    assert_eq!(with_dead("----", 1, &[1, 2, 3, 4]), [2, 3, 4]);
    assert_eq!(with_dead("----", 3, &[1, 2]), [1, 2, 4]);
    assert_eq!(with_dead("---", 3, &[1, 2]), [1, 2, 3]);
    assert_eq!(with_dead("---", 1, &[1, 2, 3]), [1, 2, 3]);
}

#[test]
fn voters_of_the_catalog() {
    // (zones, not accepting, current) -> voters
    let check = |zones: &str, out: &[u64], current: &[u64], expected: &[u64]| {
        let mut all = nodes(zones);
        all.iter_mut()
            .filter(|node| out.contains(&node.id))
            .for_each(|node| node.accepts = false);
        assert_eq!(catalog_voters(&all, current), expected, "{zones} {out:?} {current:?}");
    };
    check("-", &[], &[1], &[1]);
    check("--", &[], &[2], &[2]);
    check("---", &[], &[1], &[1, 2, 3]);
    check("----", &[], &[1, 2, 3], &[1, 2, 3]);
    check("-----", &[], &[1, 2, 3], &[1, 2, 3, 4, 5]);
    check("-----", &[2], &[1, 2, 3, 4, 5], &[1, 3, 4]);
    check("------", &[2], &[1, 2, 3, 4, 5], &[1, 3, 4, 5, 6]);
    check("aaabc", &[2, 3], &[1, 2, 3], &[1, 4, 5]);
    check("aaabbc", &[1], &[1, 2, 3, 4, 5], &[2, 3, 4, 5, 6]);
    check("aaabc", &[2], &[1, 2, 3], &[1, 3, 4]);
    check("--", &[1, 2], &[2, 1], &[1, 2]);
}
