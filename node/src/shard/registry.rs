//! Reads of devices.
//!
//! Never here: areas and rights. Invariant: every read sees one point in time.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use prost::Message as _;
use tidemark_proto::peer::StoredDevice;

use super::area::Area;
use super::roster::Roster;
use super::select::Moment;
use super::{Shard, keys};
use crate::store::{Family, StoreError, View};

/// Devices read at a time.
const CHUNK: usize = 256;

/// Chooses devices; the parts that are given must all hold.
#[derive(Clone, Debug, Default)]
pub struct DeviceFilter {
    /// These only; ids that are not registered here are passed over. Empty: any.
    pub ids: Vec<String>,
    /// Of this type only.
    pub type_number: Option<u32>,
    /// Each tag must have one of its values.
    pub tags: Vec<(String, Vec<String>)>,
    /// In this area only.
    pub area: Option<Area>,
    /// At least one of these holds, where there are any.
    pub any_of: Vec<DeviceFilter>,
    /// None of these holds.
    pub none_of: Vec<DeviceFilter>,
    /// Only from this ordinal on, where no ids are given; not looked at in filters within filters.
    pub from_ordinal: u32,
}

impl DeviceFilter {
    /// Whether more than type and id of a device is looked at.
    pub fn looks_at_details(&self) -> bool {
        let nested = || self.any_of.iter().chain(&self.none_of);
        !self.tags.is_empty() || self.area.is_some() || nested().any(DeviceFilter::looks_at_details)
    }
}

impl Shard {
    /// Type number and ordinal of each id, in the order of `ids`; `None` where it is not registered here.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn resolve<S: AsRef<str>>(&self, ids: &[S]) -> Result<Vec<Option<(u32, u32)>>, StoreError> {
        let keys: Vec<_> = ids.iter().map(|id| keys::device_id(id.as_ref())).collect();
        let view = self.store.db().view();
        let values = view.multi_get(Family::Devices, &keys, false)?;
        values
            .into_iter()
            .map(|value| value.map(|bytes| keys::decode_latest(&bytes)).transpose())
            .collect()
    }

    /// A device by id.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn device(&self, id: &str) -> Result<Option<StoredDevice>, StoreError> {
        by_id(&self.store.db().view(), id)
    }

    /// Devices by ordinal, in the order of `ordinals`; `None` for ordinals not given out.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn devices_by_ordinal(&self, ordinals: &[u32]) -> Result<Vec<Option<StoredDevice>>, StoreError> {
        by_ordinal(&self.store.db().view(), ordinals)
    }

    /// Gives `visit` every device that the filter lets through, by id where ids are given, else by ordinal, until it
    /// breaks.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn devices<B>(
        &self,
        filter: &DeviceFilter,
        mut visit: impl FnMut(&StoredDevice) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let moment = self.moment();
        let view = &moment.view;
        let nested = !filter.any_of.is_empty() || !filter.none_of.is_empty();
        if filter.ids.is_empty() && (nested || filter.looks_at_details()) {
            return self.each_selected(&moment, filter, &mut visit);
        }
        let mut visit = |stored: &StoredDevice| {
            let alone = Roster::new(std::iter::once(stored));
            match alone.filtered(filter).next() {
                Some(_) => visit(stored),
                None => ControlFlow::Continue(()),
            }
        };
        if !filter.ids.is_empty() {
            let ids: BTreeSet<&str> = filter.ids.iter().map(String::as_str).collect();
            return each_id(view, &ids.into_iter().collect::<Vec<_>>(), &mut visit);
        }
        match filter.type_number {
            Some(type_number) => each_of_type(view, type_number, filter.from_ordinal, &mut visit),
            None => each(view, filter.from_ordinal, &mut visit),
        }
    }

    /// Reads only those that the rosters let through.
    fn each_selected<B>(
        &self,
        moment: &Moment<'_>,
        filter: &DeviceFilter,
        visit: &mut impl FnMut(&StoredDevice) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let mut ordinals = Vec::with_capacity(CHUNK);
        let mut hand_on = |ordinals: &mut Vec<u32>| {
            let flow = visit_all(&registered(&moment.view, ordinals)?, visit);
            ordinals.clear();
            Ok::<_, StoreError>(flow)
        };
        let flow = self.select_at(moment, filter, &mut |roster, at| {
            ordinals.push(roster.ordinal(at));
            if ordinals.len() < CHUNK {
                return ControlFlow::Continue(());
            }
            match hand_on(&mut ordinals) {
                Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
                ended => ControlFlow::Break(ended),
            }
        })?;
        match flow {
            ControlFlow::Continue(()) => hand_on(&mut ordinals),
            ControlFlow::Break(ended) => ended,
        }
    }
}

/// Devices with ordinals from the first of `range` on and below the second.
pub(super) fn page(view: &View<'_>, range: (u32, u32)) -> Result<Vec<StoredDevice>, StoreError> {
    let upper = keys::device_ordinal(range.1).to_vec();
    let mut scan = view.scan(Family::Devices, &keys::device_ordinal(range.0), Some(upper))?;
    let mut devices = Vec::new();
    while let Some((_, value)) = scan.next()? {
        devices.push(decode(value)?);
    }
    Ok(devices)
}

/// The same of one type.
pub(super) fn page_of_type(
    view: &View<'_>,
    type_number: u32,
    range: (u32, u32),
) -> Result<Vec<StoredDevice>, StoreError> {
    let key = |ordinal| keys::device_of_type(type_number, ordinal);
    let mut scan = view.scan(Family::Devices, &key(range.0), Some(key(range.1)))?;
    let mut ordinals = Vec::new();
    while let Some((key, _)) = scan.next()? {
        ordinals.push(keys::decode_device_of_type(key)?);
    }
    registered(view, &ordinals)
}

fn each_id<B>(
    view: &View<'_>,
    ids: &[&str],
    visit: &mut impl FnMut(&StoredDevice) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, StoreError> {
    for ids in ids.chunks(CHUNK) {
        let keys: Vec<_> = ids.iter().map(|id| keys::device_id(id)).collect();
        let mut ordinals = Vec::with_capacity(keys.len());
        for value in view.multi_get(Family::Devices, &keys, true)?.into_iter().flatten() {
            ordinals.push(keys::decode_latest(&value)?.1);
        }
        if let ControlFlow::Break(with) = visit_all(&registered(view, &ordinals)?, visit) {
            return Ok(ControlFlow::Break(with));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn each_of_type<B>(
    view: &View<'_>,
    type_number: u32,
    from: u32,
    visit: &mut impl FnMut(&StoredDevice) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, StoreError> {
    let key = |ordinal| keys::device_of_type(type_number, ordinal);
    let mut scan = view.scan(Family::Devices, &key(from), Some(after(key(u32::MAX))))?;
    let mut ordinals = Vec::with_capacity(CHUNK);
    loop {
        let key = scan
            .next()?
            .map(|(key, _)| keys::decode_device_of_type(key))
            .transpose()?;
        ordinals.extend(key);
        if key.is_some() && ordinals.len() < CHUNK {
            continue;
        }
        if let ControlFlow::Break(with) = visit_all(&registered(view, &ordinals)?, visit) {
            return Ok(ControlFlow::Break(with));
        }
        if key.is_none() {
            return Ok(ControlFlow::Continue(()));
        }
        ordinals.clear();
    }
}

fn each<B>(
    view: &View<'_>,
    from: u32,
    visit: &mut impl FnMut(&StoredDevice) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, StoreError> {
    let upper = after(keys::device_ordinal(u32::MAX).to_vec());
    let mut scan = view.scan(Family::Devices, &keys::device_ordinal(from), Some(upper))?;
    while let Some((_, value)) = scan.next()? {
        if let ControlFlow::Break(with) = visit(&decode(value)?) {
            return Ok(ControlFlow::Break(with));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The first key behind one.
fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

fn visit_all<B>(devices: &[StoredDevice], visit: &mut impl FnMut(&StoredDevice) -> ControlFlow<B>) -> ControlFlow<B> {
    devices.iter().try_for_each(visit)
}

/// A device by id.
pub(super) fn by_id(view: &View<'_>, id: &str) -> Result<Option<StoredDevice>, StoreError> {
    let Some(value) = view.get(Family::Devices, &keys::device_id(id))? else {
        return Ok(None);
    };
    let (_, ordinal) = keys::decode_latest(&value)?;
    Ok(registered(view, &[ordinal])?.pop())
}

/// Devices of ordinals found in another key: they must exist.
pub(super) fn registered(view: &View<'_>, ordinals: &[u32]) -> Result<Vec<StoredDevice>, StoreError> {
    let missing = || StoreError::Corruption("a device is listed but not there".into());
    by_ordinal(view, ordinals)?
        .into_iter()
        .map(|stored| stored.ok_or_else(missing))
        .collect()
}

fn by_ordinal(view: &View<'_>, ordinals: &[u32]) -> Result<Vec<Option<StoredDevice>>, StoreError> {
    let keys: Vec<_> = ordinals.iter().map(|ordinal| keys::device_ordinal(*ordinal)).collect();
    let values = view.multi_get(Family::Devices, &keys, false)?;
    values
        .into_iter()
        .map(|value| value.map(|bytes| decode(&bytes)).transpose())
        .collect()
}

fn decode(bytes: &[u8]) -> Result<StoredDevice, StoreError> {
    StoredDevice::decode(bytes).map_err(|error| StoreError::Corruption(format!("device: {error}")))
}
