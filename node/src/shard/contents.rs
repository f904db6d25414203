//! Everything that a shard keeps, as records: what a backup's files are read for.
//!
//! Never here: where the records go. Invariant: what belongs to one replica or one cluster (applied state, membership,
//! versions, an earlier restore) is no part of it; the order is the same for the same files.

use std::ops::ControlFlow;

use tidemark_series::bucket;

use super::keys;
use crate::store::{Family, ReplicaStore, StoreError};

/// Devices first, so that nothing refers to one that is not there yet. Within a family the order is that of the keys: counters may
/// come before what they count, so nothing else is taken until all is there.
const ORDER: [Family; 4] = [Family::Devices, Family::Blocks, Family::Latest, Family::Meta];

/// Gives `visit` number of the family, key and value of every record, until it breaks. Every block is parsed on the way.
///
/// # Errors
/// Corruption and I/O as found.
pub fn each_record<B>(
    store: &ReplicaStore,
    mut visit: impl FnMut(u32, &[u8], &[u8]) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, StoreError> {
    let view = store.db().view();
    for family in ORDER {
        let number = Family::ALL
            .iter()
            .position(|known| *known == family)
            .unwrap_or_default() as u32;
        let mut scan = view.scan(family, &[], None)?;
        while let Some((key, value)) = scan.next()? {
            match family {
                Family::Meta if !is_content(key) => continue,
                Family::Blocks | Family::Latest => bucket::blocks(value).try_for_each(|block| block.map(drop))?,
                Family::Devices | Family::Meta => {}
            }
            if let ControlFlow::Break(with) = visit(number, key, value) {
                return Ok(ControlFlow::Break(with));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn is_content(key: &[u8]) -> bool {
    let prefixes = [keys::PRODUCERS, keys::SLOTS, keys::ALERTS, keys::ROLLUPS, keys::SEALS];
    key == keys::NEXT_ORDINAL || key == keys::ALERT_COMMANDS || prefixes.iter().any(|prefix| key.starts_with(prefix))
}

/// Gives `visit` the id of every device, until it breaks.
///
/// # Errors
/// Corruption and I/O as found.
pub fn each_device_id<B>(
    store: &ReplicaStore,
    mut visit: impl FnMut(&str) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, StoreError> {
    let view = store.db().view();
    let mut scan = view.scan_prefix(Family::Devices, keys::IDS)?;
    while let Some((key, _)) = scan.next()? {
        let id = std::str::from_utf8(key.get(keys::IDS.len()..).unwrap_or_default())
            .map_err(|_| StoreError::Corruption("id of a device is not text".into()))?;
        if let ControlFlow::Break(with) = visit(id) {
            return Ok(ControlFlow::Break(with));
        }
    }
    Ok(ControlFlow::Continue(()))
}
