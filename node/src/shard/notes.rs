//! Which devices got points that may change an alert, and from which time on: noted when they are applied, taken by whoever evaluates.
//!
//! Never here: what an alert is. Invariant: what is noted can be read already; what is not noted by a shard since it was opened
//! is not known to be unchanged, so the first look is at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Devices that are noted one by one; of more, it is only known that there are some.
const NOTED_MAX: usize = 200_000;

/// Devices of some types that changed.
#[derive(Debug, Default)]
pub struct Notes {
    any: AtomicBool,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    types: BTreeSet<u32>,
    /// Earliest time that changed, by type and ordinal.
    devices: BTreeMap<(u32, u32), i64>,
    too_many: bool,
}

/// What was noted: earliest changed time by type and ordinal; `None`: too many devices to say.
pub type Changed = Option<BTreeMap<(u32, u32), i64>>;

impl Notes {
    /// Devices of these types are noted from now on, and no others.
    pub fn watch(&self, types: BTreeSet<u32>) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.types = types;
        self.any.store(!noted.types.is_empty(), Ordering::Release);
    }

    /// True where any type is watched.
    pub(super) fn is_watching(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Notes devices (type, ordinal, earliest time).
    pub(super) fn note(&self, devices: Vec<(u32, u32, i64)>) {
        if devices.is_empty() {
            return;
        }
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        for (type_number, ordinal, t_ns) in devices {
            if noted.too_many || !noted.types.contains(&type_number) {
                continue;
            }
            let earliest = noted.devices.entry((type_number, ordinal)).or_insert(t_ns);
            *earliest = t_ns.min(*earliest);
            if noted.devices.len() > NOTED_MAX {
                noted.devices.clear();
                noted.too_many = true;
            }
        }
    }

    /// Takes what was noted.
    pub fn take(&self) -> Changed {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = std::mem::take(&mut noted.devices);
        match std::mem::take(&mut noted.too_many) {
            true => None,
            false => Some(devices),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_time_of_each_device_of_a_watched_type() {
        let notes = Notes::default();
        notes.note(vec![(1, 7, 5)]);
        notes.watch(BTreeSet::from([1]));
        assert!(notes.is_watching());
        notes.note(vec![(1, 7, 5), (1, 8, 9), (2, 7, 1)]);
        notes.note(vec![(1, 7, 3), (1, 8, 10)]);
        assert_eq!(notes.take(), Some(BTreeMap::from([((1, 7), 3), ((1, 8), 9)])));
        assert_eq!(notes.take(), Some(BTreeMap::new()));
        notes.note((0..=NOTED_MAX as u32).map(|ordinal| (1, ordinal, 0)).collect());
        assert_eq!(notes.take(), None);
        notes.note(vec![(1, 1, 1)]);
        assert_eq!(notes.take().map(|some| some.len()), Some(1));
    }
}
