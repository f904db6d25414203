//! Entries of the log that stored nothing: what a producer sent before, and what was refused. Whoever reads the log instead of the
//! state passes them over.
//!
//! Never here: reading the log. Invariant: what is remembered is a function of the entries alone; of those up to `forgotten` nobody
//! may say any more whether they stored something.

use std::collections::VecDeque;

use tidemark_proto::peer::{Applied, applied};

use super::apply::Chunk;
use super::{Shard, keys};
use crate::limits::VOID_MAX;
use crate::store::{Family, ReplicaStore, StoreError};

/// The newest of them, ascending.
pub(super) struct Void(VecDeque<u64>);

impl Void {
    pub(super) fn load(store: &ReplicaStore) -> Result<Self, StoreError> {
        let view = store.db().view();
        let mut scan = view.scan_prefix(Family::Meta, keys::VOID)?;
        let mut known = VecDeque::new();
        while let Some((key, _)) = scan.next()? {
            known.push_back(keys::decode_void(key)?);
        }
        Ok(Self(known))
    }
}

/// Whether an entry with this answer changed nothing that a reader could tell.
fn stored_nothing(answer: &Applied) -> bool {
    match &answer.result {
        Some(applied::Result::Write(written)) => written.duplicate,
        Some(applied::Result::Alerts(answer)) => !answer.taken,
        Some(applied::Result::Failure(_)) => true,
        _ => false,
    }
}

impl Chunk<'_> {
    /// Remembers the entry at `index` if its answer says that it stored nothing.
    pub(super) fn note_void(&mut self, index: u64, answer: &Applied) {
        if !stored_nothing(answer) {
            return;
        }
        self.batch.put(Family::Meta, &keys::void(index), &[]);
        self.state.void.0.push_back(index);
        while self.state.void.0.len() > VOID_MAX
            && let Some(oldest) = self.state.void.0.pop_front()
        {
            self.batch.delete(Family::Meta, &keys::void(oldest));
            self.batch
                .put(Family::Meta, keys::VOID_FORGOTTEN, &oldest.to_be_bytes());
        }
    }
}

impl Shard {
    /// Indexes within `from..=to` of entries that stored nothing, ascending; `None` where that is forgotten.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn void_entries(&self, from: u64, to: u64) -> Result<Option<Vec<u64>>, StoreError> {
        let view = self.store.db().view();
        let forgotten = view.get(Family::Meta, keys::VOID_FORGOTTEN)?;
        let forgotten = forgotten.map(|bytes| keys::decode_index(&bytes)).transpose()?;
        if forgotten.is_some_and(|forgotten| from <= forgotten) {
            return Ok(None);
        }
        let behind = to.checked_add(1).map(keys::void);
        let mut scan = view.scan(Family::Meta, &keys::void(from), behind)?;
        let mut found = Vec::new();
        while let Some((key, _)) = scan.next()? {
            if !key.starts_with(keys::VOID) {
                break;
            }
            found.push(keys::decode_void(key)?);
        }
        Ok(Some(found))
    }
}
