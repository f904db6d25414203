//! A [`Db`] that knows how far its Raft group was applied: what a data shard and the catalog are both built on.
//!
//! Never here: the shard's keys beyond the three of this file; the encoding of log ids (opaque bytes of the raft module).
//! Invariant: the applied state changes only together with the changes of the entries it covers.
//!
//! ```text
//! meta  "applied" -> twice, log id then membership: u32 LE length (u32::MAX: none) | bytes
//!       "format"  -> u32 BE
//!       "g" name  -> state of a group that keeps no points (the catalog)
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use super::{Batch, Db, Family, Resources, StoreError, View};

/// Version of everything in a replica's directory.
pub const FORMAT_VERSION: u32 = 1;

const APPLIED: &[u8] = b"applied";
const FORMAT: &[u8] = b"format";
const GROUP: u8 = b'g';

/// How far a replica is: opaque bytes, encoded by the raft module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedState {
    /// Last applied log id.
    pub log_id: Option<Vec<u8>>,
    /// Last membership, with its own log id.
    pub membership: Option<Vec<u8>>,
}

/// The database of one replica.
pub struct ReplicaStore {
    db: Db,
}

impl ReplicaStore {
    /// Opens the replica in `directory`, or begins an empty one.
    ///
    /// # Errors
    /// [`StoreError::NewerFormat`] for a directory of a newer release; else as [`Db::open`].
    pub fn open(directory: &Path, resources: &Resources) -> Result<Self, StoreError> {
        let store = Self {
            db: Db::open(directory, resources)?,
        };
        if !store.check_format()? {
            let mut batch = store.db.batch()?;
            batch.put(Family::Meta, FORMAT, &FORMAT_VERSION.to_be_bytes());
            store.db.write(batch)?;
            store.db.flush()?;
        }
        Ok(store)
    }

    /// Opens `directory` for reading only, to judge files that came from elsewhere, and tells how far they are.
    ///
    /// # Errors
    /// When it does not open or is not a replica of a known format.
    pub fn verify_open(directory: &Path, resources: &Resources) -> Result<AppliedState, StoreError> {
        Self::open_read_only(directory, resources)?.applied()
    }

    /// Opens the replica in `directory` for reading only.
    ///
    /// # Errors
    /// When it does not open or is not a replica of a known format.
    pub fn open_read_only(directory: &Path, resources: &Resources) -> Result<Self, StoreError> {
        let store = Self {
            db: Db::open_read_only(directory, resources)?,
        };
        if !store.check_format()? {
            return Err(StoreError::Corruption(format!(
                "{} holds no replica",
                directory.display()
            )));
        }
        Ok(store)
    }

    /// False when the database is new.
    fn check_format(&self) -> Result<bool, StoreError> {
        let Some(bytes) = self.db.get(Family::Meta, FORMAT)? else {
            return Ok(false);
        };
        let bytes = bytes
            .try_into()
            .map_err(|_| StoreError::Corruption("format version is not 4 bytes".into()))?;
        match u32::from_be_bytes(bytes) {
            found if found > FORMAT_VERSION => Err(StoreError::NewerFormat {
                path: self.db.path().to_path_buf(),
                found,
                known: FORMAT_VERSION,
            }),
            _ => Ok(true),
        }
    }

    /// The database.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The applied state, as reads see it.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn applied(&self) -> Result<AppliedState, StoreError> {
        decode(self.db.get(Family::Meta, APPLIED)?)
    }

    /// The applied state of the moment at which a view was taken.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn applied_in(&self, view: &View<'_>) -> Result<AppliedState, StoreError> {
        decode(view.get(Family::Meta, APPLIED)?.map(|bytes| bytes.to_vec()))
    }

    /// The applied state on disk: the log must be kept from here.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn persisted_applied(&self) -> Result<AppliedState, StoreError> {
        decode(self.db.persisted(Family::Meta, APPLIED)?)
    }

    /// An empty batch.
    ///
    /// # Errors
    /// As [`Db::batch`].
    pub fn batch(&self) -> Result<Batch<'_>, StoreError> {
        self.db.batch()
    }

    /// Writes the changes of some entries together with the applied state after them. A part of `applied` that is `None`
    /// stays as it is.
    ///
    /// # Errors
    /// As [`Db::write`]: the replica must stop.
    pub fn commit(&self, mut batch: Batch<'_>, applied: AppliedState) -> Result<(), StoreError> {
        let applied = match applied {
            AppliedState {
                log_id: Some(_),
                membership: Some(_),
            } => applied,
            AppliedState { log_id, membership } => {
                let before = self.applied()?;
                AppliedState {
                    log_id: log_id.or(before.log_id),
                    membership: membership.or(before.membership),
                }
            }
        };
        batch.put(Family::Meta, APPLIED, &encode(&applied));
        self.db.write(batch)
    }

    /// Brings everything applied so far to disk.
    ///
    /// # Errors
    /// As [`Db::flush`]: the replica must stop.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.db.flush()
    }

    /// Makes a copy of the replica by hard links in `directory`, which must not exist, and tells how far the copy is.
    ///
    /// # Errors
    /// As the engine reports; `directory` may be left half made.
    pub fn checkpoint(&self, directory: &Path, resources: &Resources) -> Result<AppliedState, StoreError> {
        self.db.create_checkpoint(directory)?;
        Self::verify_open(directory, resources)
    }

    /// A piece of a group's own state.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn group_state(&self, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get(Family::Meta, &group_key(name))
    }

    /// All pieces of a group's own state whose names begin with `prefix`.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn group_states(&self, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        let view = self.db.view();
        let mut scan = view.scan_prefix(Family::Meta, &group_key(prefix))?;
        let mut states = BTreeMap::new();
        while let Some((key, value)) = scan.next()? {
            states.insert(key.get(1..).unwrap_or_default().to_vec(), value.to_vec());
        }
        Ok(states)
    }

    /// Sets a piece of a group's own state; `None` removes it.
    pub fn put_group_state(batch: &mut Batch<'_>, name: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => batch.put(Family::Meta, &group_key(name), value),
            None => batch.delete(Family::Meta, &group_key(name)),
        }
    }
}

fn group_key(name: &[u8]) -> Vec<u8> {
    [&[GROUP], name].concat()
}

fn encode(applied: &AppliedState) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [&applied.log_id, &applied.membership] {
        match part {
            None => bytes.extend(u32::MAX.to_le_bytes()),
            Some(part) => {
                bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
                bytes.extend(part);
            }
        }
    }
    bytes
}

fn decode(bytes: Option<Vec<u8>>) -> Result<AppliedState, StoreError> {
    let Some(bytes) = bytes else {
        return Ok(AppliedState::default());
    };
    let mut rest = bytes.as_slice();
    let state = AppliedState {
        log_id: decode_part(&mut rest)?,
        membership: decode_part(&mut rest)?,
    };
    if rest.is_empty() {
        Ok(state)
    } else {
        Err(StoreError::Corruption("applied state is too long".into()))
    }
}

fn decode_part(rest: &mut &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let short = || StoreError::Corruption("applied state is cut short".into());
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    *rest = after;
    match u32::from_le_bytes(*length) {
        u32::MAX => Ok(None),
        length => {
            let (part, after) = rest.split_at_checked(length as usize).ok_or_else(short)?;
            *rest = after;
            Ok(Some(part.to_vec()))
        }
    }
}
