//! The catalog: device types, nodes, shards and slots, as one replicated state. Never: I/O, clocks, Raft.
//!
//! Invariant: `apply` is a function of state and command alone, and says which records it changed; numbers it gives
//! out (nodes, replicas, types) are never given twice.

pub mod alerts;
pub mod jobs;
pub mod missing;
mod restore;
pub mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use tidemark_proto::peer::{self, CatalogCommand, applied, catalog_command};
use tidemark_proto::v1::{self, DeviceType, Node};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Reason, Result};
use crate::limits::{Limits, SLOTS, TYPE_NUMBER_MAX};
use types::{Change, TypeDef};

/// Group of the catalog itself; data shards are 1 and up.
pub const CATALOG_GROUP: u32 = 0;

const KEY_CLUSTER: &[u8] = b"cluster";
const KEY_TYPE: &[u8] = b"type/";

/// A changed record: key and encoded value.
pub type Record = (Vec<u8>, Vec<u8>);

/// The state that every node keeps a copy of.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    state: peer::Catalog,
    types: BTreeMap<String, Arc<TypeDef>>,
    by_number: BTreeMap<u32, Arc<TypeDef>>,
    alerts: BTreeMap<String, v1::AlertProfile>,
    /// Compiled, by number of the type.
    alerts_by_type: BTreeMap<u32, Vec<Arc<alerts::ProfileDef>>>,
}

impl Catalog {
    /// Rebuilds the state from its records.
    pub fn load(records: impl IntoIterator<Item = Record>) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        let corrupt = |e: prost::DecodeError| Error::new(Reason::Corruption, format!("catalog record: {e}"));
        for (key, value) in records {
            if key == KEY_CLUSTER {
                catalog.state = peer::Catalog::decode(value.as_slice()).map_err(corrupt)?;
            } else if key.starts_with(KEY_TYPE) {
                catalog.insert_type(DeviceType::decode(value.as_slice()).map_err(corrupt)?)?;
            } else if key.starts_with(alerts::KEY_ALERT) {
                catalog.load_alert(&value).map_err(corrupt)?;
            }
        }
        catalog.compile_alerts();
        Ok(catalog)
    }

    /// Applies one command and names the records it changed. The inner error is the answer to whoever proposed it;
    /// the outer one means that this replica must stop.
    pub fn apply(&mut self, command: CatalogCommand) -> Result<Result<(applied::Result, Vec<Record>)>> {
        use catalog_command::Command;
        match command.command {
            Some(Command::Bootstrap(bootstrap)) => Ok(self.bootstrap(bootstrap)),
            Some(Command::ApplyTypes(apply)) => Ok(self.apply_types(apply.device_types)),
            Some(Command::AddNode(node)) => Ok(self.add_node(node)),
            Some(Command::SetNodeState(set)) => Ok(self.set_node_state(&set)),
            Some(Command::StartJob(start)) => Ok(self.start_job(command.stamp_ns, start)),
            Some(Command::AdvanceMove(step)) => Ok(self.advance_move(&step)),
            Some(Command::CancelJob(cancel)) => Ok(self.cancel_job(cancel.job_id)),
            Some(Command::EndJob(end)) => Ok(self.end_job(command.stamp_ns, &end)),
            Some(Command::RestoreTypes(restore)) => Ok(self.restore_types(restore)),
            Some(Command::ApplyAlertProfiles(apply)) => Ok(self.apply_alert_profiles(apply.profiles)),
            Some(Command::RemoveAlertProfiles(remove)) => Ok(self.remove_alert_profiles(&remove.ids)),
            None => Err(Error::internal("catalog command of an unknown kind")),
        }
    }

    fn bootstrap(&mut self, b: peer::Bootstrap) -> Result<(applied::Result, Vec<Record>)> {
        if self.is_initialised() {
            return Err(Error::new(
                Reason::AlreadyInitialised,
                format!("cluster {} exists", self.state.cluster_id),
            ));
        }
        let n = b.nodes.len();
        let mut replica = b.catalog_replicas.iter().copied().max().unwrap_or(0);
        let catalog_members = b.nodes.iter().zip(&b.catalog_replicas);
        let catalog_members = catalog_members
            .map(|(node, id)| peer::Replica {
                id: *id,
                node_id: node.id,
                joining: false,
            })
            .collect();
        let mut shards = vec![peer::Shard {
            id: CATALOG_GROUP,
            replicas: catalog_members,
        }];
        for id in 1..=b.shards {
            let in_turn = |k: usize| b.nodes[(id as usize - 1 + k) % n].id;
            let nodes = match b.placement.get(id as usize - 1) {
                Some(placed) => placed.nodes.clone(),
                None => (0..b.replication_factor as usize).map(in_turn).collect(),
            };
            let replicas = nodes.into_iter().map(|node_id| {
                replica += 1;
                peer::Replica {
                    id: replica,
                    node_id,
                    joining: false,
                }
            });
            shards.push(peer::Shard {
                id,
                replicas: replicas.collect(),
            });
        }
        self.state = peer::Catalog {
            cluster_id: b.cluster_id,
            replication_factor: b.replication_factor,
            next_node_id: b.nodes.iter().map(|node| node.id).max().unwrap_or(0) + 1,
            next_replica_id: replica + 1,
            next_type_number: 1,
            nodes: b.nodes,
            shards,
            slots: (0..SLOTS).map(|slot| 1 + slot % b.shards).collect(),
            placement_version: 1,
            next_job_id: 1,
            secret: b.secret,
            ..peer::Catalog::default()
        };
        Ok((applied::Result::Done(peer::Done {}), vec![self.cluster_record()]))
    }

    fn apply_types(&mut self, new: Vec<DeviceType>) -> Result<(applied::Result, Vec<Record>)> {
        let limits = Limits::default();
        let mut response = v1::ApplyDeviceTypesResponse::default();
        let mut next_number = self.state.next_type_number;
        let mut stored = Vec::with_capacity(new.len());
        for (at, device_type) in new.into_iter().enumerate() {
            types::check(&device_type, at, &limits)?;
            let (device_type, change) = match self.types.get(&device_type.id) {
                Some(old) => types::evolve(&old.stored, device_type)
                    .map_err(|e| e.field(format!("device_types[{at}].properties")))?,
                None if next_number > TYPE_NUMBER_MAX => {
                    return Err(Error::new(Reason::TooManyTypes, "every number of a type was given out"));
                }
                None => {
                    next_number += 1;
                    (types::create(device_type, next_number - 1), Change::Created)
                }
            };
            match change {
                Change::Created => response.created += 1,
                Change::Changed => response.changed += 1,
                Change::Unchanged => response.unchanged += 1,
            }
            stored.push((device_type, change));
        }
        if self.types.len() + response.created as usize > limits.types_max {
            return Err(Error::new(
                Reason::TooManyTypes,
                format!("a cluster has at most {} types", limits.types_max),
            ));
        }
        self.state.next_type_number = next_number;
        let mut records = vec![self.cluster_record()];
        for (device_type, change) in stored {
            if change != Change::Unchanged {
                records.push((
                    [KEY_TYPE, device_type.id.as_bytes()].concat(),
                    device_type.encode_to_vec(),
                ));
                self.insert_type(device_type.clone())?;
            }
            response.device_types.push(device_type);
        }
        self.compile_alerts();
        Ok((applied::Result::Types(response), records))
    }

    /// Gives a node its number. A data folder that has one keeps it; a new folder at a known address is a new node.
    fn add_node(&mut self, add: peer::AddNode) -> Result<(applied::Result, Vec<Record>)> {
        let same_folder = |node: &&Node| {
            node.peer_address == add.peer_address && self.state.folder_ids.get(&node.id) == Some(&add.folder_id)
        };
        if let Some(known) = self.state.nodes.iter().find(same_folder) {
            return Ok((applied::Result::Node(known.clone()), Vec::new()));
        }
        let node = Node {
            id: self.state.next_node_id,
            client_address: add.client_address,
            peer_address: add.peer_address,
            zone: add.zone,
            state: v1::NodeState::Active as i32,
        };
        self.state.next_node_id += 1;
        let replica = peer::Replica {
            id: self.state.next_replica_id,
            node_id: node.id,
            joining: true,
        };
        self.state.next_replica_id += 1;
        if let Some(catalog) = self.state.shards.iter_mut().find(|shard| shard.id == CATALOG_GROUP) {
            catalog.replicas.push(replica);
        }
        self.state.folder_ids.insert(node.id, add.folder_id);
        self.state.nodes.push(node.clone());
        self.state.placement_version += 1;
        Ok((applied::Result::Node(node), vec![self.cluster_record()]))
    }

    fn cluster_record(&self) -> Record {
        (KEY_CLUSTER.to_vec(), self.state.encode_to_vec())
    }

    fn insert_type(&mut self, stored: DeviceType) -> Result<()> {
        let def = Arc::new(TypeDef::new(stored)?);
        self.by_number.insert(def.number(), def.clone());
        self.types.insert(def.id().to_string(), def);
        Ok(())
    }

    /// True once the cluster was initialised.
    pub fn is_initialised(&self) -> bool {
        !self.state.cluster_id.is_empty()
    }

    /// Ids, nodes, shards and slots.
    pub fn state(&self) -> &peer::Catalog {
        &self.state
    }

    /// The type with this id.
    pub fn device_type(&self, id: &str) -> Result<&Arc<TypeDef>> {
        self.types
            .get(id)
            .ok_or_else(|| Error::new(Reason::UnknownType, format!("no device type {id:?}")).hint("tidemark type list"))
    }

    /// The type with this id, which another node knows: where it is not here, this catalog is behind.
    ///
    /// # Errors
    /// `TOO_STALE` where it is not here yet.
    pub fn type_known_elsewhere(&self, id: &str) -> Result<&Arc<TypeDef>> {
        let missing = || Error::new(Reason::TooStale, format!("type {id:?} is not known here yet"));
        self.types.get(id).ok_or_else(missing)
    }

    /// The type with this number.
    pub fn type_by_number(&self, number: u32) -> Option<&Arc<TypeDef>> {
        self.by_number.get(&number)
    }

    /// All types by id.
    pub fn types(&self) -> impl Iterator<Item = &Arc<TypeDef>> {
        self.types.values()
    }

    /// Data shards.
    pub fn data_shards(&self) -> impl Iterator<Item = &peer::Shard> {
        self.state.shards.iter().filter(|shard| shard.id != CATALOG_GROUP)
    }

    /// The shard with this id.
    pub fn shard(&self, id: u32) -> Option<&peer::Shard> {
        self.state.shards.iter().find(|shard| shard.id == id)
    }

    /// The node with this id.
    pub fn node(&self, id: u64) -> Option<&Node> {
        self.state.nodes.iter().find(|node| node.id == id)
    }

    /// The shard that keeps a device.
    pub fn shard_of(&self, device_id: &str) -> u32 {
        let slot = xxh3_64(device_id.as_bytes()) % u64::from(SLOTS);
        self.state.slots.get(slot as usize).copied().unwrap_or(CATALOG_GROUP)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn node(id: u64) -> Node {
        Node {
            id,
            client_address: format!("c{id}"),
            peer_address: format!("p{id}"),
            ..Node::default()
        }
    }

    fn bootstrap(nodes: u64, shards: u32, replication_factor: u32) -> CatalogCommand {
        let bootstrap = peer::Bootstrap {
            cluster_id: "c".into(),
            nodes: (1..=nodes).map(node).collect(),
            shards,
            replication_factor,
            catalog_replicas: (1..=nodes).collect(),
            placement: Vec::new(),
            secret: Default::default(),
        };
        CatalogCommand {
            stamp_ns: 0,
            command: Some(catalog_command::Command::Bootstrap(bootstrap)),
        }
    }

    #[test]
    fn replicas_of_a_shard_sit_on_different_nodes_and_ids_are_never_shared() {
        let mut catalog = Catalog::default();
        catalog.apply(bootstrap(5, 64, 3)).unwrap().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for shard in &catalog.state().shards {
            let nodes: std::collections::BTreeSet<_> = shard.replicas.iter().map(|r| r.node_id).collect();
            assert_eq!(nodes.len(), shard.replicas.len(), "shard {}", shard.id);
            assert!(
                shard.replicas.iter().all(|r| seen.insert(r.id)),
                "replica id given twice"
            );
        }
    }

    #[test]
    fn the_state_survives_its_records() {
        let mut catalog = Catalog::default();
        let mut store = BTreeMap::new();
        let (_, records) = catalog.apply(bootstrap(3, 6, 3)).unwrap().unwrap();
        store.extend(records);
        let add = peer::AddNode {
            client_address: "c4".into(),
            peer_address: "p4".into(),
            ..peer::AddNode::default()
        };
        let command = CatalogCommand {
            stamp_ns: 1,
            command: Some(catalog_command::Command::AddNode(add)),
        };
        store.extend(catalog.apply(command).unwrap().unwrap().1);
        let loaded = Catalog::load(store).unwrap();
        assert_eq!(loaded.state(), catalog.state());
        assert_eq!(loaded.node(4).unwrap().peer_address, "p4");
    }

    #[test]
    fn a_second_bootstrap_is_refused() {
        let mut catalog = Catalog::default();
        catalog.apply(bootstrap(1, 4, 1)).unwrap().unwrap();
        let refused = catalog.apply(bootstrap(1, 4, 1)).unwrap().unwrap_err();
        assert_eq!(refused.reason(), Reason::AlreadyInitialised);
    }
}
