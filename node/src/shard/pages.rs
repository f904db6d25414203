//! Devices by ordinal for a reader that stays: a page of them is read again only once it has changed.
//!
//! Never here: which devices count. Invariant: a page that is said to hold is what a view taken now would give.

use std::sync::Arc;

use super::select::PAGE;
use super::{Roster, Shard};
use crate::store::StoreError;

/// Devices of neighbouring ordinals, as they were at some moment.
pub struct Page {
    owner: u64,
    seen: u64,
    roster: Arc<Roster>,
}

impl Page {
    /// Number of the page that an ordinal is in.
    #[must_use]
    pub fn of(ordinal: u32) -> u32 {
        ordinal / PAGE
    }

    /// The devices, ascending by ordinal.
    #[must_use]
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }
}

impl Shard {
    /// A page of devices of one type, or of all, as they are now; `None` where the one that is known still holds.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn page(&self, of: Option<u32>, number: u32, known: Option<&Page>) -> Result<Option<Page>, StoreError> {
        let holds =
            |page: &Page| page.owner == self.owner && self.versions.holds_page(number, page.seen, self.versions.seen());
        if known.is_some_and(holds) {
            return Ok(None);
        }
        let moment = self.moment();
        let roster = self.roster(&moment, of, number)?;
        Ok(Some(Page {
            owner: self.owner,
            seen: moment.seen,
            roster,
        }))
    }
}
