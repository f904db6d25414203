//! Exactly-once: what a producer sent before.
//!
//! Each producer has 256 slots; sequence `s` belongs into slot `s % 256`. A slot only ever moves to a greater sequence, so
//! what it holds tells for certain whether `s` was stored: the same number (yes), a smaller one or none (no), a greater
//! one (forgotten: too old).
//!
//! Never here: the points. Invariant: at most [`PRODUCERS_MAX`] producers are remembered; the one whose last write is
//! oldest goes first (ties: the smaller name). In memory only a few bytes per producer, the slots stay in the database.

use std::collections::BTreeMap;

use tidemark_proto::peer::WriteFragments;
use tidemark_proto::v1::Failure;

use super::apply::{Chunk, code, failure};
use super::keys::{self, Producer, Slot};
use crate::store::{Family, ReplicaStore, StoreError};

/// Producers a shard remembers.
pub(super) const PRODUCERS_MAX: usize = 4096;

/// Writes of a producer a shard remembers.
pub(super) const SLOTS: u64 = 256;

/// Every remembered producer by name.
pub(super) struct Producers(BTreeMap<String, Producer>);

/// Whether a write was stored before.
pub(super) enum Seen {
    New,
    Stored(Slot),
    Refused(Failure),
}

impl Producers {
    pub(super) fn load(store: &ReplicaStore) -> Result<Self, StoreError> {
        let view = store.db().view();
        let mut scan = view.scan_prefix(Family::Meta, keys::PRODUCERS)?;
        let mut producers = BTreeMap::new();
        while let Some((key, value)) = scan.next()? {
            let name = std::str::from_utf8(key.get(keys::PRODUCERS.len()..).unwrap_or_default())
                .map_err(|_| StoreError::Corruption("name of a producer is not text".into()))?;
            producers.insert(name.to_owned(), Producer::decode(value)?);
        }
        Ok(Self(producers))
    }

    /// Takes one over from a backup.
    pub(super) fn restore(&mut self, name: String, producer: Producer) {
        self.0.insert(name, producer);
    }

    /// The one to forget next, other than `keep`.
    fn oldest(&self, keep: &str) -> Option<String> {
        let others = self.0.iter().filter(|(name, _)| name.as_str() != keep);
        others
            .min_by_key(|(name, producer)| (producer.stamp_ns, name.as_str()))
            .map(|(name, _)| name.clone())
    }
}

fn slot_key(producer: &str, sequence: u64) -> Vec<u8> {
    keys::producer_slot(producer, (sequence % SLOTS) as u8)
}

impl Chunk<'_> {
    /// Whether this write was stored before.
    pub(super) fn seen(&self, write: &WriteFragments) -> Result<Seen, StoreError> {
        let (name, sequence) = (write.producer.as_str(), write.sequence);
        if name.is_empty() {
            return Ok(Seen::New);
        }
        match self.state.producers.0.get(name) {
            Some(producer) if sequence <= producer.newest_sequence => {}
            // Greater than any before: the common case needs no read.
            _ => return Ok(Seen::New),
        }
        let Some(slot) = self.slot(&slot_key(name, sequence))? else {
            return Ok(Seen::New);
        };
        Ok(match slot.sequence {
            found if found < sequence => Seen::New,
            found if found > sequence => Seen::Refused(failure(
                code::FAILED_PRECONDITION,
                "SEQUENCE_TOO_OLD",
                format!("sequence {sequence} of producer {name} was forgotten: {found} took its place"),
            )),
            _ if slot.digest == write.digest => Seen::Stored(slot),
            _ => Seen::Refused(Failure {
                field: "sequence".to_owned(),
                ..failure(
                    code::INVALID_ARGUMENT,
                    "SEQUENCE_REUSED",
                    format!("sequence {sequence} of producer {name} came before with another batch"),
                )
            }),
        })
    }

    fn slot(&self, key: &[u8]) -> Result<Option<Slot>, StoreError> {
        if let Some(slot) = self.slots.get(key) {
            return Ok(*slot);
        }
        self.db
            .get(Family::Meta, key)?
            .map(|bytes| Slot::decode(&bytes))
            .transpose()
    }

    /// Remembers a stored write.
    pub(super) fn remember(&mut self, name: &str, slot: Slot) -> Result<(), StoreError> {
        let producers = &mut self.state.producers;
        let newest = producers
            .0
            .get(name)
            .map_or(0, |producer| producer.newest_sequence)
            .max(slot.sequence);
        let producer = Producer {
            newest_sequence: newest,
            stamp_ns: slot.stamp_ns,
        };
        producers.0.insert(name.to_owned(), producer);
        let forget = if producers.0.len() > PRODUCERS_MAX {
            producers.oldest(name)
        } else {
            None
        };
        let key = slot_key(name, slot.sequence);
        self.batch.put(Family::Meta, &keys::producer(name), &producer.encode());
        self.batch.put(Family::Meta, &key, &slot.encode());
        self.slots.insert(key, Some(slot));
        match forget {
            Some(oldest) => self.forget(&oldest),
            None => Ok(()),
        }
    }

    fn forget(&mut self, name: &str) -> Result<(), StoreError> {
        self.state.producers.0.remove(name);
        self.batch.delete(Family::Meta, &keys::producer(name));
        let prefix = keys::producer_slots(name);
        let view = self.db.view();
        let mut scan = view.scan_prefix(Family::Meta, &prefix)?;
        while let Some((key, _)) = scan.next()? {
            self.slots.insert(key.to_vec(), None);
        }
        // Those on disk were added just now; those of earlier entries of this chunk were there.
        for (key, slot) in self
            .slots
            .range_mut(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
        {
            *slot = None;
            self.batch.delete(Family::Meta, key);
        }
        Ok(())
    }
}
