//! Decoded values that are kept in memory beside the block cache: one budget for the whole process.
//!
//! Never here: what they are, and whether they are still right (whoever keeps one knows, see `shard::versions`).
//! Invariant: what is kept never takes more bytes than the budget, and anything may be gone at the next look.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// What a value costs beside its own bytes: the key, its place in the table, its count of owners.
const OVERHEAD_BYTES: usize = 128;
/// Values the table has room for at first.
const VALUES_EXPECTED: usize = 1_024;

/// Names a value: who keeps it, what it is to them, and which one.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResidentKey {
    /// From [`Resident::owner`].
    pub owner: u64,
    /// What it is, as the owner pleases.
    pub kind: u32,
    /// Which one of these.
    pub number: u64,
}

#[derive(Clone)]
struct Kept {
    value: Arc<dyn Any + Send + Sync>,
    bytes: usize,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<ResidentKey, Kept> for ByBytes {
    fn weight(&self, _: &ResidentKey, kept: &Kept) -> u64 {
        (kept.bytes + OVERHEAD_BYTES) as u64
    }
}

/// Values of all owners; those that nobody looks at go first.
pub struct Resident {
    cache: Cache<ResidentKey, Kept, ByBytes>,
    owners: AtomicU64,
}

impl Resident {
    /// Empty, for at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            cache: Cache::with_weighter(VALUES_EXPECTED, bytes_max as u64, ByBytes),
            owners: AtomicU64::new(0),
        }
    }

    /// A number that no other owner has.
    pub fn owner(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    /// The value of a key, if it is still there.
    pub fn get<T: Any + Send + Sync>(&self, key: ResidentKey) -> Option<Arc<T>> {
        self.cache.get(&key)?.value.downcast().ok()
    }

    /// Keeps a value of about so many bytes, in the place of one with the same key; others may have to go.
    pub fn keep<T: Any + Send + Sync>(&self, key: ResidentKey, value: Arc<T>, bytes: usize) {
        self.cache.insert(key, Kept { value, bytes });
    }

    /// Lets go of everything that an owner keeps.
    pub fn forget(&self, owner: u64) {
        self.cache.retain(|key, _| key.owner != owner);
    }

    /// Bytes of what is kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_below_the_budget() {
        let resident = Resident::new(1 << 20);
        let (a, b) = (resident.owner(), resident.owner());
        assert_ne!(a, b);
        for number in 0..10_000 {
            let owner = if number % 2 == 0 { a } else { b };
            resident.keep(key(owner, number), Arc::new(number), 1_000);
            assert!(resident.bytes() <= 1 << 20);
        }
        let kept = |owner| {
            (0..10_000)
                .filter(|&number| resident_has(&resident, owner, number))
                .count()
        };
        let (of_a, of_b) = (kept(a), kept(b));
        assert!(of_a > 0 && of_a + of_b <= (1 << 20) / 1_000, "{of_a} and {of_b}");
        resident.forget(a);
        assert_eq!((kept(a), kept(b)), (0, of_b));
    }

    fn key(owner: u64, number: u64) -> ResidentKey {
        ResidentKey { owner, kind: 3, number }
    }

    fn resident_has(resident: &Resident, owner: u64, number: u64) -> bool {
        let found = resident.get::<u64>(key(owner, number));
        found.inspect(|value| assert_eq!(**value, number)).is_some()
    }

    #[test]
    fn a_key_has_one_value_and_one_type() {
        let resident = Resident::new(1 << 20);
        let key = key(1, 2);
        resident.keep(key, Arc::new(1_u64), 8);
        resident.keep(key, Arc::new(2_u64), 8);
        assert_eq!(resident.get::<u64>(key).as_deref(), Some(&2));
        assert_eq!(resident.get::<String>(key), None);
    }
}
