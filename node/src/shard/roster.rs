//! Devices of a shard as queries need them, decoded once: who they are, of which type, with which tags, where, and under maintenance when.
//!
//! Never here: other dates of a device (see `registry`), which devices, and how long they are kept (see `select`).
//! Invariant: keys and values of tags are there once, so that a tag is compared by number.

use std::collections::{HashMap, HashSet};

use tidemark_proto::peer::StoredDevice;
use tidemark_series::{Edge, Spans};

use super::area::{Area, Spot};
use super::registry::DeviceFilter;
use super::tag_index::TagIndex;

/// Some devices, in columns.
#[derive(Debug, Default)]
pub struct Roster {
    devices: Vec<Entry>,
    /// Ids of all devices, one after another.
    ids: String,
    /// Key and value of each tag, numbers of texts; those of one device ascend by key.
    tags: Vec<(u32, u32)>,
    texts: Vec<Box<str>>,
    /// Places of devices that have one, by their place in the roster, ascending.
    spots: Vec<(u32, Spot)>,
    /// Declared maintenance of those that have any, by their place in the roster, ascending.
    maintenance: Vec<(u32, Spans)>,
    /// Where filters are worked out by sets, not device by device.
    index: Option<TagIndex>,
}

#[derive(Debug)]
struct Entry {
    ordinal: u32,
    type_number: u32,
    ids_end: u32,
    tags_end: u32,
}

/// A filter in the numbers of one roster.
pub(super) struct Matcher<'a> {
    pub(super) type_number: Option<u32>,
    pub(super) ids: HashSet<&'a str>,
    /// Key, and the values that will do; `None`: no device of the roster has them.
    pub(super) tags: Option<Vec<(u32, Vec<u32>)>>,
    pub(super) area: Option<Area>,
    pub(super) any_of: Vec<Matcher<'a>>,
    pub(super) none_of: Vec<Matcher<'a>>,
}

impl Roster {
    /// Decoded devices, in this order.
    pub(super) fn new<'a>(devices: impl Iterator<Item = &'a StoredDevice>) -> Self {
        let mut roster = Self::default();
        let mut numbers: HashMap<&'a str, u32> = HashMap::new();
        for stored in devices {
            let mut number = |text: &'a str| {
                *numbers.entry(text).or_insert_with(|| {
                    roster.texts.push(text.into());
                    roster.texts.len() as u32 - 1
                })
            };
            if let Some(device) = &stored.device {
                roster.ids.push_str(&device.id);
                for (key, value) in &device.tags {
                    roster.tags.push((number(key), number(value)));
                }
                if let Some(place) = &device.place {
                    let spot = Spot {
                        latitude_deg: place.latitude_deg,
                        longitude_deg: place.longitude_deg,
                    };
                    roster.spots.push((roster.devices.len() as u32, spot));
                }
                if !device.maintenance.is_empty() {
                    let declared = device.maintenance.iter().map(|one| (one.from_ns, one.to_ns));
                    roster
                        .maintenance
                        .push((roster.devices.len() as u32, Spans::new(declared)));
                }
            }
            roster.devices.push(Entry {
                ordinal: stored.ordinal,
                type_number: stored.type_number,
                ids_end: roster.ids.len() as u32,
                tags_end: roster.tags.len() as u32,
            });
        }
        roster.shrink();
        roster
    }

    /// The same, of at most a page of devices, for many filters: they are indexed.
    pub(super) fn indexed<'a>(devices: impl Iterator<Item = &'a StoredDevice>) -> Self {
        let mut roster = Self::new(devices);
        roster.index = Some(TagIndex::new(&roster));
        roster
    }

    /// Devices of which no more is known than id, type number and ordinal.
    pub(super) fn bare(devices: &[(&str, (u32, u32))]) -> Self {
        let mut roster = Self::default();
        for (id, (type_number, ordinal)) in devices {
            roster.ids.push_str(id);
            roster.devices.push(Entry {
                ordinal: *ordinal,
                type_number: *type_number,
                ids_end: roster.ids.len() as u32,
                tags_end: 0,
            });
        }
        roster
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| text.len() + size_of::<Box<str>>()).sum();
        size_of::<Self>()
            + self.devices.capacity() * size_of::<Entry>()
            + self.ids.capacity()
            + self.tags.capacity() * size_of::<(u32, u32)>()
            + self.spots.capacity() * size_of::<(u32, Spot)>()
            + self.maintenance.capacity() * size_of::<(u32, Spans)>()
            + self.maintenance.iter().map(|(_, spans)| spans.bytes()).sum::<usize>()
            + self.index.as_ref().map_or(0, TagIndex::bytes)
            + texts
    }

    fn shrink(&mut self) {
        self.devices.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.tags.shrink_to_fit();
        self.texts.shrink_to_fit();
        self.spots.shrink_to_fit();
        self.maintenance.shrink_to_fit();
    }

    /// Number of devices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// True where there is no device.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Ordinal of the device at a place.
    #[must_use]
    pub fn ordinal(&self, at: usize) -> u32 {
        self.devices.get(at).map_or(0, |entry| entry.ordinal)
    }

    /// Place of the device with this ordinal, in a roster that ascends by ordinal.
    #[must_use]
    pub fn place_of(&self, ordinal: u32) -> Option<usize> {
        self.devices.binary_search_by_key(&ordinal, |entry| entry.ordinal).ok()
    }

    /// Type of the device at a place.
    #[must_use]
    pub fn type_number(&self, at: usize) -> u32 {
        self.devices.get(at).map_or(0, |entry| entry.type_number)
    }

    /// Id of the device at a place.
    #[must_use]
    pub fn id(&self, at: usize) -> &str {
        let start = self.before(at).map_or(0, |entry| entry.ids_end as usize);
        let end = self.devices.get(at).map_or(start, |entry| entry.ids_end as usize);
        self.ids.get(start..end).unwrap_or_default()
    }

    /// Value of a tag of the device at a place.
    #[must_use]
    pub fn tag(&self, at: usize, key: &str) -> Option<&str> {
        let is_key = |(number, _): &&(u32, u32)| self.text(*number) == key;
        let (_, value) = self.tags(at).iter().find(is_key)?;
        Some(self.text(*value))
    }

    /// Where the device at a place is.
    #[must_use]
    pub fn spot(&self, at: usize) -> Option<Spot> {
        let found = self
            .spots
            .binary_search_by_key(&(at as u32), |(place, _)| *place)
            .ok()?;
        self.spots.get(found).map(|(_, spot)| *spot)
    }

    /// Whether the device at a place is, was or will be under declared maintenance at a time. Known as tags are.
    #[must_use]
    pub fn in_maintenance(&self, at: usize, t_ns: i64) -> bool {
        let found = self.maintenance.binary_search_by_key(&(at as u32), |(place, _)| *place);
        let declared = found.ok().and_then(|found| self.maintenance.get(found));
        declared.is_some_and(|(_, spans)| spans.hold(Edge::StartClosed, t_ns))
    }

    /// Places of the devices that a filter lets through, whatever ids it names itself.
    pub fn filtered(&self, filter: &DeviceFilter) -> impl Iterator<Item = usize> {
        let mut matcher = self.matcher(filter);
        matcher.ids.clear();
        let places: Vec<usize> = match &self.index {
            Some(index) => index.chosen(self, &matcher).into_places().collect(),
            None if matcher.tags.is_none() => Vec::new(),
            None => (0..self.len()).filter(|&at| self.matches(at, &matcher)).collect(),
        };
        places.into_iter()
    }

    /// A filter in the numbers of this roster.
    fn matcher<'a>(&self, filter: &'a DeviceFilter) -> Matcher<'a> {
        let number = |text: &str| match &self.index {
            Some(index) => index.number(self, text),
            None => self.texts.iter().position(|known| **known == *text).map(|at| at as u32),
        };
        let tag = |(key, values): &(String, Vec<String>)| {
            let values: Vec<u32> = values.iter().filter_map(|value| number(value)).collect();
            Some((number(key)?, values)).filter(|(_, values)| !values.is_empty())
        };
        let nested = |filters: &'a [DeviceFilter]| filters.iter().map(|filter| self.matcher(filter)).collect();
        Matcher {
            type_number: filter.type_number,
            ids: filter.ids.iter().map(String::as_str).collect(),
            tags: filter.tags.iter().map(tag).collect(),
            area: filter.area,
            any_of: nested(&filter.any_of),
            none_of: nested(&filter.none_of),
        }
    }

    /// Whether the device at a place is what the matcher asks for.
    fn matches(&self, at: usize, matcher: &Matcher<'_>) -> bool {
        let tags = self.tags(at);
        let has = |(key, values): &(u32, Vec<u32>)| {
            tags.iter()
                .find(|(found, _)| found == key)
                .is_some_and(|(_, value)| values.contains(value))
        };
        matcher.type_number.is_none_or(|number| self.type_number(at) == number)
            && matcher.tags.as_ref().is_some_and(|matchers| matchers.iter().all(has))
            && (matcher.ids.is_empty() || matcher.ids.contains(self.id(at)))
            && matcher
                .area
                .is_none_or(|area| self.spot(at).is_some_and(|spot| area.holds(spot)))
            && (matcher.any_of.is_empty() || matcher.any_of.iter().any(|one| self.matches(at, one)))
            && !matcher.none_of.iter().any(|one| self.matches(at, one))
    }

    /// Key and value of each tag of the device at a place, numbers of texts.
    pub(super) fn tags(&self, at: usize) -> &[(u32, u32)] {
        let start = self.before(at).map_or(0, |entry| entry.tags_end as usize);
        let end = self.devices.get(at).map_or(start, |entry| entry.tags_end as usize);
        self.tags.get(start..end).unwrap_or_default()
    }

    fn before(&self, at: usize) -> Option<&Entry> {
        self.devices.get(at.checked_sub(1)?)
    }

    /// How many texts there are; their numbers are below.
    pub(super) fn texts(&self) -> u32 {
        self.texts.len() as u32
    }

    /// The text of a number.
    pub(super) fn text(&self, number: u32) -> &str {
        self.texts.get(number as usize).map_or("", |text| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_proto::v1::{Device, Maintenance, Place};

    fn stored(ordinal: u32, id: &str, tags: &[(&str, &str)]) -> StoredDevice {
        let device = Device {
            id: id.to_owned(),
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Device::default()
        };
        StoredDevice {
            device: Some(device),
            type_number: ordinal % 2,
            ordinal,
        }
    }

    #[test]
    fn devices_are_told_as_they_are_stored() {
        let devices = [
            stored(3, "a", &[("town", "north"), ("street", "x")]),
            stored(4, "bc", &[]),
            stored(9, "", &[("town", "street")]),
        ];
        let roster = Roster::new(devices.iter());
        assert_eq!(roster.len(), 3);
        for (at, stored) in devices.iter().enumerate() {
            let device = stored.device.as_ref().map_or("", |device| &device.id);
            let found = (roster.ordinal(at), roster.type_number(at), roster.id(at));
            assert_eq!(found, (stored.ordinal, stored.type_number, device));
            for key in ["town", "street", "north", ""] {
                let tag = stored.device.as_ref().and_then(|device| device.tags.get(key));
                assert_eq!(roster.tag(at, key), tag.map(String::as_str), "{key:?} at {at}");
            }
        }
        assert_eq!((roster.id(3), roster.tag(3, "town")), ("", None));
    }

    #[test]
    fn maintenance_is_that_of_its_device_and_half_open() {
        let with = |ordinal, id, declared: &[(i64, i64)]| {
            let mut stored = stored(ordinal, id, &[]);
            let maintenance = declared.iter().map(|(from_ns, to_ns)| Maintenance {
                from_ns: *from_ns,
                to_ns: *to_ns,
                reason: String::new(),
            });
            stored.device.get_or_insert_default().maintenance = maintenance.collect();
            stored
        };
        let devices = [
            with(0, "a", &[]),
            with(1, "b", &[(10, 20), (30, 40)]),
            with(5, "c", &[]),
            with(6, "d", &[(15, 35)]),
        ];
        let roster = Roster::new(devices.iter());
        for (t, under) in [
            (9, ""),
            (10, "b"),
            (19, "bd"),
            (20, "d"),
            (30, "bd"),
            (39, "b"),
            (40, ""),
        ] {
            let found: String = (0..5)
                .filter(|at| roster.in_maintenance(*at, t))
                .map(|at| roster.id(at))
                .collect();
            assert_eq!(found, under, "{t}");
        }
        let bare = Roster::bare(&[("b", (1, 1))]);
        assert!(!bare.in_maintenance(0, 15), "nothing is known of it");
    }

    #[test]
    fn matchers_must_all_hold() {
        let devices = [
            stored(0, "a", &[("town", "north"), ("third", "yes")]),
            stored(1, "b", &[("town", "south"), ("third", "yes")]),
            stored(2, "c", &[("town", "north")]),
            stored(3, "d", &[]),
        ];
        let roster = Roster::new(devices.iter());
        let check = |tags: &[(&str, &[&str])], expected: &[usize]| {
            let tag =
                |(key, values): &(&str, &[&str])| ((*key).to_owned(), values.iter().map(|v| (*v).to_owned()).collect());
            let filter = DeviceFilter {
                tags: tags.iter().map(tag).collect(),
                ..DeviceFilter::default()
            };
            let found: Vec<_> = roster.filtered(&filter).collect();
            assert_eq!(found, expected, "{tags:?}");
        };
        check(&[], &[0, 1, 2, 3]);
        check(&[("town", &["north"])], &[0, 2]);
        check(&[("town", &["north", "south"])], &[0, 1, 2]);
        check(&[("town", &["north"]), ("third", &["yes"])], &[0]);
        check(&[("town", &["north"]), ("town", &["south"])], &[]);
        check(&[("town", &["west"])], &[]);
        check(&[("town", &[])], &[]);
        check(&[("north", &["north"])], &[]);
        check(&[("third", &["north", "yes"])], &[0, 1]);
        let odd = DeviceFilter {
            type_number: Some(1),
            ..DeviceFilter::default()
        };
        assert_eq!(roster.filtered(&odd).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn filters_are_joined_freely() {
        let mut devices = [
            stored(0, "a", &[("town", "north")]),
            stored(1, "b", &[("town", "south")]),
            stored(2, "c", &[("town", "north"), ("broken", "yes")]),
            stored(3, "d", &[]),
        ];
        for (stored, latitude_deg) in devices.iter_mut().zip([30.0, 30.1, 31.0]) {
            let place = Place {
                latitude_deg,
                longitude_deg: 121.0,
            };
            stored.device.iter_mut().for_each(|device| device.place = Some(place));
        }
        let roster = Roster::new(devices.iter());
        let tag = |key: &str, value: &str| DeviceFilter {
            tags: vec![(key.to_owned(), vec![value.to_owned()])],
            ..DeviceFilter::default()
        };
        let ids = |ids: &[&str]| DeviceFilter {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            ..DeviceFilter::default()
        };
        let near = DeviceFilter {
            area: Some(Area::Circle {
                middle: Spot {
                    latitude_deg: 30.0,
                    longitude_deg: 121.0,
                },
                radius_m: 20_000.0,
            }),
            ..DeviceFilter::default()
        };
        let check = |filter: DeviceFilter, expected: &[usize]| {
            assert_eq!(roster.filtered(&filter).collect::<Vec<_>>(), expected, "{filter:?}");
        };
        let any_of = |any_of: Vec<DeviceFilter>| DeviceFilter {
            any_of,
            ..DeviceFilter::default()
        };
        let none_of = |none_of: Vec<DeviceFilter>| DeviceFilter {
            none_of,
            ..DeviceFilter::default()
        };
        check(near.clone(), &[0, 1]);
        check(any_of(vec![tag("town", "south"), tag("broken", "yes")]), &[1, 2]);
        check(any_of(vec![tag("town", "west"), ids(&["d", "z"])]), &[3]);
        check(none_of(vec![tag("town", "north")]), &[1, 3]);
        check(none_of(vec![tag("no such", "tag")]), &[0, 1, 2, 3]);
        check(none_of(vec![near, ids(&["d"])]), &[2]);
        let both = DeviceFilter {
            none_of: vec![tag("broken", "yes")],
            ..tag("town", "north")
        };
        check(both.clone(), &[0]);
        check(none_of(vec![both]), &[1, 2, 3]);
    }
}
