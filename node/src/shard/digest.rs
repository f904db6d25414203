//! One number over the logical content of a shard, to compare replicas at one applied index.
//!
//! Never here: anything physical. Invariant: how values came to be merged, split in blocks or placed in files does not
//! show; everything a read could tell does.

use tidemark_series::bucket;
use xxhash_rust::xxh3::Xxh3;

use super::Shard;
use crate::store::{Family, StoreError};

impl Shard {
    /// Reads and decodes everything: slow. Fails on any damage, so it is a full check as well.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn digest(&self) -> Result<u64, StoreError> {
        self.digest_when(|| {})
    }

    /// [`Self::digest`] of the content at this moment; calls `pinned` as soon as later changes do not show any more.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn digest_when(&self, pinned: impl FnOnce()) -> Result<u64, StoreError> {
        let view = self.store.db().view();
        pinned();
        let mut hash = Xxh3::new();
        for family in Family::ALL {
            let mut scan = view.scan(family, &[], None)?;
            while let Some((key, value)) = scan.next()? {
                update(&mut hash, key);
                match family {
                    // Decoded and encoded as a whole: where blocks were cut is no content.
                    Family::Blocks | Family::Latest => {
                        update(&mut hash, &bucket::encode(&bucket::decode(value, None)?));
                    }
                    Family::Devices | Family::Meta => update(&mut hash, value),
                }
            }
            update(&mut hash, b"end of family");
        }
        Ok(hash.digest())
    }
}

fn update(hash: &mut Xxh3, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
