//! Where a reader of the log begins: which devices there are and their newest records, with the applied state of the same moment.
//!
//! Never here: the log. Invariant: what is told is the outcome of exactly the entries up to the applied state that is returned.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::registry::{self, DeviceFilter};
use super::roster::Roster;
use super::select::Moment;
use super::{Shard, keys};
use crate::store::{AppliedState, Family, StoreError};

/// Devices looked at together.
const CHUNK: usize = 256;

/// A device at the moment at which a reader begins.
pub struct Opening<'a> {
    /// Where its id and type are.
    pub roster: &'a Arc<Roster>,
    /// Its place there.
    pub at: usize,
    /// Its newest values (series::latest), where it ever sent any.
    pub newest: Option<&'a [u8]>,
}

impl Shard {
    /// Gives `visit` every device that the filter lets through, until it breaks; the applied state of the moment. Ids of the
    /// filter must be registered here: `None` where one is not.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn open_reading<B>(
        &self,
        filter: &DeviceFilter,
        mut visit: impl FnMut(Opening<'_>) -> ControlFlow<B>,
    ) -> Result<Option<(AppliedState, ControlFlow<B>)>, StoreError> {
        let moment = self.moment();
        let applied = self.store.applied_in(&moment.view)?;
        let mut waiting: Vec<(Arc<Roster>, usize)> = Vec::with_capacity(CHUNK);
        let mut visit_some = |waiting: &mut Vec<(Arc<Roster>, usize)>| {
            let flow = self.visit_opening(&moment, waiting, &mut visit);
            waiting.clear();
            flow
        };
        let mut take = |roster: &Arc<Roster>, at: usize| {
            waiting.push((roster.clone(), at));
            if waiting.len() < CHUNK {
                return ControlFlow::Continue(());
            }
            match visit_some(&mut waiting) {
                Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
                ended => ControlFlow::Break(ended),
            }
        };
        let flow = match filter.ids.is_empty() {
            true => self.select_at(&moment, filter, &mut take)?,
            false => match self.named(&moment, filter)? {
                None => return Ok(None),
                Some(roster) => {
                    let roster = Arc::new(roster);
                    roster.filtered(filter).try_for_each(|at| take(&roster, at))
                }
            },
        };
        let flow = match flow {
            ControlFlow::Continue(()) => visit_some(&mut waiting)?,
            ControlFlow::Break(ended) => ended?,
        };
        Ok(Some((applied, flow)))
    }

    /// The devices whose ids a filter names, ascending by ordinal; `None` where one is not registered.
    fn named(&self, moment: &Moment<'_>, filter: &DeviceFilter) -> Result<Option<Roster>, StoreError> {
        let keys: Vec<_> = filter.ids.iter().map(|id| keys::device_id(id)).collect();
        let mut ordinals = Vec::with_capacity(keys.len());
        for found in moment.view.multi_get(Family::Devices, &keys, false)? {
            let Some(found) = found else { return Ok(None) };
            ordinals.push(keys::decode_latest(&found)?.1);
        }
        ordinals.sort_unstable();
        ordinals.dedup();
        let stored = registry::registered(&moment.view, &ordinals)?;
        Ok(Some(Roster::new(stored.iter())))
    }

    fn visit_opening<B>(
        &self,
        moment: &Moment<'_>,
        devices: &[(Arc<Roster>, usize)],
        visit: &mut impl FnMut(Opening<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let key = |(roster, at): &(Arc<Roster>, usize)| keys::latest(roster.type_number(*at), roster.ordinal(*at));
        let keys: Vec<_> = devices.iter().map(key).collect();
        let values = moment.view.multi_get(Family::Latest, &keys, false)?;
        for ((roster, at), value) in devices.iter().zip(values) {
            let opening = Opening {
                roster,
                at: *at,
                newest: value.as_deref(),
            };
            if let ControlFlow::Break(with) = visit(opening) {
                return Ok(ControlFlow::Break(with));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
