//! Where the writes of a device go: the shard map. Never here: connections, waiting.
//! Invariant: slot of a device = XXH3-64 of its id, modulo the number of slots; the same everywhere.

use std::collections::BTreeMap;

use tidemark_proto::v1;
use xxhash_rust::xxh3::xxh3_64;

/// The map as last heard; empty before that.
#[derive(Debug, Default)]
pub(crate) struct ShardMap {
    slots: Vec<u32>,
    leaders: BTreeMap<u32, String>,
}

impl From<&v1::GetShardMapResponse> for ShardMap {
    fn from(map: &v1::GetShardMapResponse) -> Self {
        let leaders = map.leaders.iter().filter_map(|shard| {
            let node = shard.leader.as_ref().filter(|node| !node.client_address.is_empty())?;
            Some((shard.shard, node.client_address.clone()))
        });
        Self {
            slots: map.slots.clone(),
            leaders: leaders.collect(),
        }
    }
}

impl ShardMap {
    /// Addresses of all nodes that lead something.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.leaders.values().map(String::as_str)
    }

    fn shard_of(&self, device: &str) -> Option<u32> {
        let slots = u64::try_from(self.slots.len()).ok().filter(|slots| *slots > 0)?;
        let slot = xxh3_64(device.as_bytes()) % slots;
        self.slots.get(usize::try_from(slot).ok()?).copied()
    }

    /// True before the first answer, and for a node that belongs to no cluster.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// True when a batch of these devices is one entry of one shard.
    pub(crate) fn in_one_shard(&self, devices: &[String]) -> bool {
        devices.len() == 1 || self.common_shard(devices).is_some()
    }

    /// The leader of the one shard that holds all these devices; none where there is no such shard or no leader.
    pub(crate) fn leader_of(&self, devices: &[String]) -> Option<&str> {
        self.leaders.get(&self.common_shard(devices)?).map(String::as_str)
    }

    fn common_shard(&self, devices: &[String]) -> Option<u32> {
        let (first, rest) = devices.split_first()?;
        let shard = self.shard_of(first)?;
        rest.iter()
            .all(|device| self.shard_of(device) == Some(shard))
            .then_some(shard)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn one_shard_goes_to_its_leader_and_several_to_none() {
        let leader = |shard, address: &str| v1::ShardLeader {
            shard,
            leader: Some(v1::Node {
                id: 1,
                client_address: address.to_owned(),
                ..v1::Node::default()
            }),
        };
        let answer = v1::GetShardMapResponse {
            cluster_id: String::new(),
            version: 1,
            slots: vec![1, 2],
            leaders: vec![
                leader(1, "a:1"),
                leader(2, "b:1"),
                v1::ShardLeader { shard: 3, leader: None },
            ],
        };
        let map = ShardMap::from(&answer);
        let of_slot = |slot: u64, skip: usize| {
            (0..)
                .map(|n| format!("d{n}"))
                .filter(|id| xxh3_64(id.as_bytes()) % 2 == slot)
                .nth(skip)
                .unwrap()
        };
        assert_eq!(map.leader_of(&[of_slot(0, 0), of_slot(0, 1)]), Some("a:1"));
        assert_eq!(map.leader_of(&[of_slot(1, 0)]), Some("b:1"));
        assert_eq!(map.leader_of(&[of_slot(0, 0), of_slot(1, 0)]), None);
        assert_eq!(map.leader_of(&[]), None);
        assert!(map.in_one_shard(&[of_slot(0, 0), of_slot(0, 1)]));
        assert!(!map.in_one_shard(&[of_slot(0, 0), of_slot(1, 0)]));
        assert!(ShardMap::default().in_one_shard(&[of_slot(0, 0)]));
        assert_eq!(ShardMap::default().leader_of(&[of_slot(0, 0)]), None);
    }
}
