//! A data shard: a fixed set of devices, their registry, their points. A pure function of its log, kept in a
//! [`crate::store::ReplicaStore`].
//!
//! | file | holds |
//! | --- | --- |
//! | `keys` | every key and every small value, drawn |
//! | `bucket_grid` | which buckets a range of time touches; no overflow at either end of time |
//! | `apply` | [`Shard::apply`]: a chunk of log entries in one batch |
//! | `write` | the command that stores points |
//! | `devices` | the command that registers devices |
//! | `producers` | exactly-once: what a producer sent before |
//! | `remove` | the command that removes points |
//! | `rollups` | rollups of buckets: made by an entry, gone with what changes their bucket |
//! | `alone` | rollups whose points are gone, where something of their time is removed |
//! | `rolled` | reads of buckets, as rollups where they are there |
//! | `emptied` | ranges of keys that hold nothing any more and can be compacted away |
//! | `void` | entries that stored nothing |
//! | `pages` | devices of one page of ordinals, again only where they changed |
//! | `opening` | where a reader of the log begins: newest records and the applied index, of one moment |
//! | `restore` | the command that brings records of a backup back |
//! | `alerts` | the command that changes states of alerts, and reads of them |
//! | `notes` | which devices got points that may change an alert |
//! | `contents` | everything a shard keeps, as records |
//! | `extents` | first and last bucket of each device type |
//! | `read` | reads of points: one device, a type, newest values |
//! | `newest` | newest values, decoded and kept in memory |
//! | `registry` | reads of devices |
//! | `roster` | devices as queries need them, decoded once |
//! | `tag_index` | which devices of a roster have a tag, a type, an id: filters as operations on sets |
//! | `select` | which devices, from rosters that are kept in memory |
//! | `versions` | whether what is kept in memory is still what the database holds |
//! | `digest` | one number over the logical content, to compare replicas |
//!
//! Never here: async, the network, Raft, the clock, names of device types.
//! Invariant: two replicas that applied the same entries answer every read alike, whatever each has flushed or compacted.

mod alerts;
mod alone;
mod apply;
mod area;
mod bucket_grid;
pub mod contents;
mod devices;
mod digest;
mod emptied;
mod extents;
pub mod keys;
mod newest;
mod notes;
mod opening;
mod pages;
mod producers;
mod read;
mod registry;
mod remove;
mod restore;
mod rolled;
mod rollups;
mod roster;
mod select;
mod tag_index;
mod versions;
mod void;
mod write;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

pub use alerts::{AlertName, AlertStates};
pub use alone::Edges;
pub use apply::ApplyEntry;
pub use area::{Area, Spot, distance_m};
pub use bucket_grid::bucket_start;
pub use keys::{Level, is_test_lane, test_lane, type_of_lane};
pub use newest::Newest;
pub use notes::{Changed, Notes};
pub use opening::Opening;
pub use pages::Page;
pub use registry::DeviceFilter;
pub use remove::{Counted, begins_chunk};
pub use rolled::{Rolling, Stored};
pub use rollups::Missing;
pub use roster::Roster;

use crate::store::{Family, ReplicaStore, ResidentKey, StoreError};
use emptied::Emptied;
use extents::Extents;
use producers::Producers;
use restore::Restore;
use rollups::{RollupState, Seals, Stale};
use versions::Versions;
use void::Void;

/// One data shard. Applies one chunk at a time; reads run beside it.
pub struct Shard {
    store: ReplicaStore,
    state: Mutex<State>,
    extents: Extents,
    /// Devices registered, as committed; also the next ordinal to give out.
    devices: AtomicU32,
    /// No view can see an ordinal from here on: raised before the write that needs it.
    ordinals_end: AtomicU32,
    versions: Versions,
    emptied: Emptied,
    notes: Notes,
    stale: Stale,
    seals: Arc<Seals>,
    /// Who it is to the values it keeps in memory.
    owner: u64,
}

/// What a shard keeps in memory of its own.
#[derive(Copy, Clone)]
enum Kind {
    Newest,
    Devices,
    DevicesOfType,
}

/// What only `apply` looks at. It may run ahead of the database while a chunk is built; when that chunk fails, the shard
/// stops and the state is never looked at again.
struct State {
    next_ordinal: u32,
    /// Commands that changed alerts.
    alert_commands: u64,
    producers: Producers,
    rollups: RollupState,
    restore: Option<Restore>,
    void: Void,
    stopped: bool,
}

impl Shard {
    /// Loads what the shard always keeps in memory: counters, producers, extents. Nothing per device.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn open(store: ReplicaStore) -> Result<Self, StoreError> {
        let next_ordinal = match store.db().get(Family::Meta, keys::NEXT_ORDINAL)? {
            Some(bytes) => keys::decode_u32(&bytes)?,
            None => 0,
        };
        let alert_commands = match store.db().get(Family::Meta, keys::ALERT_COMMANDS)? {
            Some(bytes) => keys::decode_u64(&bytes)?,
            None => 0,
        };
        let state = State {
            next_ordinal,
            alert_commands,
            producers: Producers::load(&store)?,
            rollups: RollupState::load(&store)?,
            restore: Restore::load(&store)?,
            void: Void::load(&store)?,
            stopped: false,
        };
        let seals = state.rollups.seals();
        let extents = Extents::load(&store)?;
        let ordinals_end = select::ordinals_end(&store.db().view())?;
        let owner = store.db().resident().owner();
        Ok(Self {
            store,
            state: Mutex::new(state),
            extents,
            devices: AtomicU32::new(next_ordinal),
            ordinals_end: AtomicU32::new(ordinals_end),
            versions: Versions::new(),
            emptied: Emptied::default(),
            notes: Notes::default(),
            stale: Stale::default(),
            seals,
            owner,
        })
    }

    fn resident_key(&self, kind: Kind, number: u64) -> ResidentKey {
        ResidentKey {
            owner: self.owner,
            kind: kind as u32,
            number,
        }
    }

    /// The database below: applied state, flush, checkpoint, sizes.
    #[must_use]
    pub fn store(&self) -> &ReplicaStore {
        &self.store
    }

    /// Which devices got points that may change an alert.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Devices registered.
    #[must_use]
    pub fn device_count(&self) -> u64 {
        u64::from(self.devices.load(Ordering::Acquire))
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.store.db().resident().forget(self.owner);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shard_is_shared_by_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<super::Shard>();
    }
}
