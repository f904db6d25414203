//! Newest values of devices, decoded and kept in memory while they are asked for.
//!
//! Never here: which of them are right (see `versions`), encodings. Invariant: what is read is what the database gives at
//! one point in time, from memory or not.

use std::sync::Arc;

use tidemark_series::{NewestValue, latest};

use super::{Shard, keys};
use crate::store::{Family, ResidentKey, StoreError, Value, View};

/// Ordinals of a page: what is copied when one device of it is read anew.
const PAGE: u32 = 64;

/// Newest values of one device, ascending by property; none where it never sent any.
pub type Newest = Arc<[NewestValue]>;

#[derive(Clone)]
struct Slot {
    ordinal: u32,
    type_number: u32,
    /// Version it was read at.
    version: u64,
    newest: Newest,
}

/// Newest values of neighbours, ascending by ordinal.
#[derive(Clone, Default)]
struct Page(Vec<Slot>);

impl Page {
    fn slot(&self, ordinal: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&ordinal, |slot| slot.ordinal)
    }

    fn put(&mut self, slot: Slot) {
        match self.slot(slot.ordinal) {
            Ok(at) => self.0[at] = slot,
            Err(at) => self.0.insert(at, slot),
        }
    }

    fn bytes(&self) -> usize {
        let values = |slot: &Slot| {
            let texts: usize = slot.newest.iter().map(NewestValue::heap_bytes).sum();
            size_of::<Slot>() + size_of::<[usize; 2]>() + size_of_val::<[NewestValue]>(&slot.newest) + texts
        };
        self.0.iter().map(values).sum()
    }
}

impl Shard {
    /// Newest values of devices of a type, in the order of `ordinals`; empty where there are none. Those of report kind test, asked for
    /// by their number, are not kept in memory.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn newest(&self, type_number: u32, ordinals: &[u32]) -> Result<Vec<Newest>, StoreError> {
        if keys::is_test_lane(type_number) {
            return stored(&self.store.db().view(), type_number, ordinals);
        }
        let seen = self.versions.seen();
        let mut found = self.kept_newest(type_number, ordinals, seen);
        if found.iter().any(Option::is_none) {
            let view = self.store.db().view();
            // The view may have more than was seen, and so more than was kept.
            for (ordinal, newest) in ordinals.iter().zip(&mut found) {
                newest.take_if(|_| !self.versions.holds_newest(*ordinal, seen, seen));
            }
            self.read_newest(&view, type_number, ordinals, &mut found, seen)?;
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Those that are in memory and as a view would give them that saw version `seen`.
    fn kept_newest(&self, type_number: u32, ordinals: &[u32], seen: u64) -> Vec<Option<Newest>> {
        let mut looked_up: Option<(u32, Option<Arc<Page>>)> = None;
        let mut kept = |ordinal: u32| {
            let number = ordinal / PAGE;
            let page = match &looked_up {
                Some((before, page)) if *before == number => page,
                _ => &looked_up.insert((number, self.newest_page(number))).1,
            };
            let page = page.as_ref()?;
            let slot = &page.0[page.slot(ordinal).ok()?];
            let holds = slot.type_number == type_number && self.versions.holds_newest(ordinal, slot.version, seen);
            holds.then(|| slot.newest.clone())
        };
        ordinals.iter().map(|ordinal| kept(*ordinal)).collect()
    }

    /// Reads those that were not found, and keeps them.
    fn read_newest(
        &self,
        view: &View<'_>,
        type_number: u32,
        ordinals: &[u32],
        found: &mut [Option<Newest>],
        seen: u64,
    ) -> Result<(), StoreError> {
        let missing: Vec<usize> = (0..found.len()).filter(|&at| found[at].is_none()).collect();
        let wanted: Vec<u32> = missing.iter().map(|&at| ordinals[at]).collect();
        let mut slots = Vec::with_capacity(missing.len());
        for (at, newest) in missing.into_iter().zip(stored(view, type_number, &wanted)?) {
            found[at] = Some(newest.clone());
            slots.push(Slot {
                ordinal: ordinals[at],
                type_number,
                version: seen,
                newest,
            });
        }
        slots.sort_by_key(|slot| slot.ordinal);
        for of_page in slots.chunk_by(|a, b| a.ordinal / PAGE == b.ordinal / PAGE) {
            let number = of_page[0].ordinal / PAGE;
            let mut page = self
                .newest_page(number)
                .map_or_else(Page::default, |page| Page::clone(&page));
            of_page.iter().for_each(|slot| page.put(slot.clone()));
            let bytes = page.bytes();
            self.store
                .db()
                .resident()
                .keep(self.newest_key(number), Arc::new(page), bytes);
        }
        Ok(())
    }

    fn newest_page(&self, number: u32) -> Option<Arc<Page>> {
        self.store.db().resident().get(self.newest_key(number))
    }

    fn newest_key(&self, number: u32) -> ResidentKey {
        self.resident_key(super::Kind::Newest, u64::from(number))
    }
}

/// Newest values as the database has them.
fn stored(view: &View<'_>, type_number: u32, ordinals: &[u32]) -> Result<Vec<Newest>, StoreError> {
    let key = |ordinal: &u32| keys::latest(type_number, *ordinal);
    let keys: Vec<_> = ordinals.iter().map(key).collect();
    let decode = |value: Option<Value<'_>>| match value {
        None => Ok(Newest::from([])),
        Some(value) => Ok(latest::newest_values(&value)?.into()),
    };
    let values = view.multi_get(Family::Latest, &keys, keys.is_sorted())?;
    values.into_iter().map(decode).collect()
}
