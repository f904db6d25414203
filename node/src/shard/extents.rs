//! First and last bucket of each device type, as points or as rollups, and of its points of report kind test, so that an open-ended query costs what the data costs.
//!
//! Never here: time ranges of queries. Invariant: an extent covers every bucket that any view can see: it is widened
//! before the write that needs it and never narrowed.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use super::{keys, rollups};
use crate::store::{Family, ReplicaStore, StoreError};

/// Starts of first and last bucket by type number.
pub(super) type Widening = BTreeMap<u32, (i64, i64)>;

pub(super) struct Extents(RwLock<Widening>);

impl Extents {
    /// Seeks to both ends of every type that has data.
    pub(super) fn load(store: &ReplicaStore) -> Result<Self, StoreError> {
        let view = store.db().view();
        let mut extents = Widening::new();
        let mut scan = view.scan(Family::Blocks, &[], None)?;
        while let Some((key, _)) = scan.next()? {
            let (type_number, first, _) = keys::decode_block(key)?;
            let mut of_type = view.scan_prefix(Family::Blocks, &type_number.to_be_bytes())?;
            let last = of_type.last()?.map(|(key, _)| keys::decode_block(key)).transpose()?;
            extents.insert(type_number, (first, last.map_or(first, |(_, last, _)| last)));
            match type_number.checked_add(1) {
                Some(next) => scan.seek(&next.to_be_bytes()),
                None => break,
            }
        }
        rollups::include_all(&view, &mut extents)?;
        Ok(Self(RwLock::new(extents)))
    }

    /// Starts of the first and the last bucket of a type; none when it has no data.
    pub(super) fn of(&self, type_number: u32) -> Option<(i64, i64)> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&type_number)
            .copied()
    }

    /// Takes in what a chunk is about to write.
    pub(super) fn widen(&self, widening: &Widening) {
        if widening.is_empty() {
            return;
        }
        let mut extents = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (type_number, (first, last)) in widening {
            include(&mut extents, *type_number, *first, *last);
        }
    }
}

/// Widens the extent of a type to hold these bucket starts.
pub(super) fn include(extents: &mut Widening, type_number: u32, first: i64, last: i64) {
    let extent = extents.entry(type_number).or_insert((first, last));
    *extent = (extent.0.min(first), extent.1.max(last));
}
