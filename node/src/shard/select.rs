//! Selections of devices, from rosters that are kept in memory page by page.
//!
//! Never here: what a roster holds. Invariant: a selection sees one point in time, whichever of its pages were in memory.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::registry::{self, DeviceFilter};
use super::roster::Roster;
use super::{Kind, Shard, keys};
use crate::store::{Family, ResidentKey, StoreError, View};

/// Ordinals of a page: what is read anew when one device of it has changed.
pub(super) const PAGE: u32 = 1024;

/// A moment that a selection is of.
pub(super) struct Moment<'a> {
    pub(super) view: View<'a>,
    pub(super) seen: u64,
}

impl Shard {
    /// Now.
    pub(super) fn moment(&self) -> Moment<'_> {
        // In this order: a view may have more than what was seen, never less.
        let seen = self.versions.seen();
        let view = self.store.db().view();
        Moment { view, seen }
    }

    /// Gives `visit` roster and place of every device that the filter lets through, by ordinal, until it breaks. Ids of the
    /// filter are not looked at.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn select<B>(
        &self,
        filter: &DeviceFilter,
        mut visit: impl FnMut(&Arc<Roster>, usize) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        self.select_at(&self.moment(), filter, &mut visit)
    }

    pub(super) fn select_at<B>(
        &self,
        moment: &Moment<'_>,
        filter: &DeviceFilter,
        visit: &mut impl FnMut(&Arc<Roster>, usize) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let pages = self.ordinals_end.load(Ordering::SeqCst).div_ceil(PAGE);
        for page in filter.from_ordinal / PAGE..pages {
            let roster = self.roster(moment, filter.type_number, page)?;
            let before = |at: &usize| roster.ordinal(*at) < filter.from_ordinal;
            for at in roster.filtered(filter).skip_while(before) {
                if let ControlFlow::Break(with) = visit(&roster, at) {
                    return Ok(ControlFlow::Break(with));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Devices by id, in this order, given what [`Shard::resolve`] says of them; tags only where they are asked for.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn roster_of(&self, known: &[(&str, (u32, u32))], with_tags: bool) -> Result<Roster, StoreError> {
        if !with_tags {
            return Ok(Roster::bare(known));
        }
        let ordinals: Vec<u32> = known.iter().map(|(_, (_, ordinal))| *ordinal).collect();
        let stored = registry::registered(&self.store.db().view(), &ordinals)?;
        Ok(Roster::new(stored.iter()))
    }

    /// A page of devices of one type, or of all.
    pub(super) fn roster(&self, moment: &Moment<'_>, of: Option<u32>, page: u32) -> Result<Arc<Roster>, StoreError> {
        let key = self.roster_key(of, page);
        let resident = self.store.db().resident();
        if let Some(kept) = resident.get::<(u64, Arc<Roster>)>(key)
            && self.versions.holds_page(page, kept.0, moment.seen)
        {
            return Ok(kept.1.clone());
        }
        let stored = match of {
            Some(type_number) => registry::page_of_type(&moment.view, type_number, page_range(page))?,
            None => registry::page(&moment.view, page_range(page))?,
        };
        let roster = Arc::new(Roster::indexed(stored.iter()));
        let bytes = roster.bytes();
        resident.keep(key, Arc::new((moment.seen, roster.clone())), bytes);
        Ok(roster)
    }

    fn roster_key(&self, of: Option<u32>, page: u32) -> ResidentKey {
        match of {
            None => self.resident_key(Kind::Devices, u64::from(page)),
            Some(type_number) => self.resident_key(Kind::DevicesOfType, u64::from(type_number) << 32 | u64::from(page)),
        }
    }
}

/// First ordinal of a page, and the first one behind it that there may be.
fn page_range(page: u32) -> (u32, u32) {
    let first = page.saturating_mul(PAGE);
    (first, first.saturating_add(PAGE))
}

/// One more than the greatest ordinal there is.
pub(super) fn ordinals_end(view: &View<'_>) -> Result<u32, StoreError> {
    let mut scan = view.scan_prefix(Family::Devices, keys::ORDINALS)?;
    let last = scan.last()?.map(|(key, _)| keys::decode_device_ordinal(key));
    Ok(last.transpose()?.map_or(0, |ordinal| ordinal.saturating_add(1)))
}
