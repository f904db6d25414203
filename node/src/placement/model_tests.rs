//! A cluster that carries plans out one step at a time and checks what must hold after each.
//!
//! Never here: expectations of one plan. Panics with the step at which something broke.

use super::{Cluster, DISK_RESERVE_PERCENT, NodeInfo, PlannedMove, ShardInfo};

pub(super) const GIB: u64 = 1 << 30;

/// Nodes 1 to n, active, alive, in the zones given by letters (`-` for none), as in `"aabb"`.
pub(super) fn nodes(zones: &str) -> Vec<NodeInfo> {
    let node = |(id, zone): (u64, char)| NodeInfo {
        id,
        zone: if zone == '-' { String::new() } else { zone.to_string() },
        accepts: true,
        alive: true,
        disk_free_bytes: 0,
    };
    (1..).zip(zones.chars()).map(node).collect()
}

/// Shards of 1 GiB, placed and led as at the beginning of a cluster.
pub(super) fn begun(zones: &str, shards: u32, factor: usize) -> Cluster {
    let nodes = nodes(zones);
    let lists = super::initial(&nodes, shards, factor);
    let shard = |(id, replicas): (u32, Vec<u64>)| ShardInfo {
        id,
        bytes: GIB,
        leader: replicas.first().copied(),
        replicas,
    };
    Cluster {
        factor,
        nodes,
        shards: (1..).zip(lists).map(shard).collect(),
    }
}

pub(super) fn node_mut(cluster: &mut Cluster, id: u64) -> &mut NodeInfo {
    cluster.nodes.iter_mut().find(|node| node.id == id).unwrap()
}

pub(super) fn shard(cluster: &Cluster, id: u32) -> &ShardInfo {
    cluster.shards.iter().find(|shard| shard.id == id).unwrap()
}

/// Replicas of each node of the cluster, in its order.
pub(super) fn counts(cluster: &Cluster) -> Vec<usize> {
    cluster
        .nodes
        .iter()
        .map(|node| held(cluster, node.id).count())
        .collect()
}

pub(super) fn held(cluster: &Cluster, node: u64) -> impl Iterator<Item = &ShardInfo> {
    cluster
        .shards
        .iter()
        .filter(move |shard| shard.replicas.contains(&node))
}

/// Sum of squares of a shard's replicas a zone: the least is the most even.
pub(super) fn unevenness(cluster: &Cluster, replicas: &[u64]) -> usize {
    let zone_of = |id: &u64| {
        cluster
            .nodes
            .iter()
            .find(|node| node.id == *id)
            .map(|node| node.zone.as_str())
    };
    let zones: Vec<&str> = replicas.iter().filter_map(zone_of).collect();
    zones
        .iter()
        .map(|zone| zones.iter().filter(|other| *other == zone).count())
        .sum()
}

/// The cluster after a plan. Checks after every step, the one in the middle of a move included.
pub(super) fn carry_out(before: &Cluster, plan: &[PlannedMove]) -> Cluster {
    let mut now = before.clone();
    for step in plan {
        let bytes = shard(&now, step.shard).bytes;
        let factor = now.factor;
        if let Some(to) = step.to {
            let node = node_mut(&mut now, to);
            assert!(node.accepts && node.alive, "{step:?}: onto {node:?}");
            if node.disk_free_bytes > 0 {
                node.disk_free_bytes = node.disk_free_bytes.checked_sub(bytes).expect("a full disk");
            }
            let replicas = replicas_mut(&mut now, step.shard);
            assert!(!replicas.contains(&to), "{step:?}: two replicas on one node");
            replicas.push(to);
            assert_reserve(before, &now, to, step);
        }
        if let Some(from) = step.from {
            let replicas = replicas_mut(&mut now, step.shard);
            assert!(replicas.contains(&from), "{step:?}: no such replica in {replicas:?}");
            replicas.retain(|id| *id != from);
            let had = shard(before, step.shard).replicas.len();
            let left = replicas.len();
            assert!(left >= factor.min(had), "{step:?}: {left} replicas left");
            if let Some(node) = now
                .nodes
                .iter_mut()
                .find(|node| node.id == from && node.disk_free_bytes > 0)
            {
                node.disk_free_bytes += bytes;
            }
        }
    }
    for shard in &mut now.shards {
        shard.leader = shard.leader.filter(|id| shard.replicas.contains(id));
    }
    now
}

fn replicas_mut(cluster: &mut Cluster, id: u32) -> &mut Vec<u64> {
    &mut cluster.shards.iter_mut().find(|shard| shard.id == id).unwrap().replicas
}

fn assert_reserve(before: &Cluster, now: &Cluster, id: u64, step: &PlannedMove) {
    let find = |cluster: &Cluster| cluster.nodes.iter().find(|node| node.id == id).unwrap().disk_free_bytes;
    let (was_free, free) = (find(before), find(now));
    let used: u64 = held(before, id).map(|shard| shard.bytes).sum();
    if was_free > 0 {
        let reserve = (was_free + used) / 100 * DISK_RESERVE_PERCENT;
        assert!(free >= reserve, "{step:?}: {free} bytes free of a reserve of {reserve}");
    }
}
