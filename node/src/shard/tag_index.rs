//! Which devices of a roster have a tag, a type or an id, by set: a filter is a few operations on sets, and no device is looked at
//! that it does not name (but for areas, which are looked up among what is left).
//!
//! ```text
//! tags     (key, value, end) ascending; places of (key, value) n: places[end n-1 .. end n], ascending
//! types    (number, end) ascending, the same
//! by_id    places by id; by_text: numbers of the texts of tags by text
//! a place  u16, of at most 1,024 devices; a set of them, while a filter is worked out: 16 words of 64 bits
//! ```
//!
//! Two bytes a tag and four a device: what has a value of its own on every device costs no more than what all share.
//! Never here: texts (a roster numbers them), how long a roster is kept. Invariant: a filter chooses what looking at every device
//! would choose.

use std::ops::Range;

use super::roster::{Matcher, Roster};
use super::select::PAGE;

const WORDS: usize = PAGE as usize / 64;

/// The sets of one roster.
#[derive(Debug, Default)]
pub(super) struct TagIndex {
    tags: Vec<(u32, u32, u32)>,
    tag_places: Vec<u16>,
    types: Vec<(u32, u32)>,
    type_places: Vec<u16>,
    by_id: Vec<u16>,
    by_text: Vec<u32>,
}

/// Some devices of a roster.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Places([u64; WORDS]);

impl Places {
    const NONE: Places = Places([0; WORDS]);

    fn first(count: usize) -> Places {
        let mut all = Places::NONE;
        for (at, word) in all.0.iter_mut().enumerate() {
            *word = match count.saturating_sub(at * 64) {
                0 => 0,
                left @ 1..64 => (1 << left) - 1,
                _ => u64::MAX,
            };
        }
        all
    }

    fn of(places: &[u16]) -> Places {
        let mut found = Places::NONE;
        places.iter().for_each(|place| found.put(usize::from(*place)));
        found
    }

    fn put(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    fn remove(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
    }

    fn and(&mut self, other: &Places) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= other);
    }

    fn or(&mut self, other: &Places) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
    }

    fn without(&mut self, other: &Places) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= !other);
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// Places, ascending.
    pub(super) fn into_places(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

impl TagIndex {
    /// Of a roster of at most [`PAGE`] devices.
    pub(super) fn new(roster: &Roster) -> TagIndex {
        let mut index = TagIndex::default();
        let places = 0..u16::try_from(roster.len().min(PAGE as usize)).unwrap_or(0);
        let tags = places.clone().flat_map(|place| {
            let tags = roster.tags(usize::from(place)).iter();
            tags.map(move |(key, value)| ((*key, *value), place))
        });
        let mut tags: Vec<((u32, u32), u16)> = tags.collect();
        tags.sort_unstable();
        index.tag_places = tags.iter().map(|(_, place)| *place).collect();
        index.tags = ends(&tags).map(|((key, value), end)| (key, value, end)).collect();
        let types = places
            .clone()
            .map(|place| (roster.type_number(usize::from(place)), place));
        let mut types: Vec<(u32, u16)> = types.collect();
        types.sort_unstable();
        index.type_places = types.iter().map(|(_, place)| *place).collect();
        index.types = ends(&types).collect();
        index.by_id = places.collect();
        index.by_id.sort_unstable_by_key(|place| roster.id(usize::from(*place)));
        index.by_text = (0..roster.texts()).collect();
        index.by_text.sort_unstable_by_key(|number| roster.text(*number));
        index
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let places = self.tag_places.capacity() + self.type_places.capacity() + self.by_id.capacity();
        places * size_of::<u16>()
            + self.by_text.capacity() * size_of::<u32>()
            + self.tags.capacity() * size_of::<(u32, u32, u32)>()
            + self.types.capacity() * size_of::<(u32, u32)>()
    }

    /// The number of a text that any device has.
    pub(super) fn number(&self, roster: &Roster, text: &str) -> Option<u32> {
        let found = self
            .by_text
            .binary_search_by(|number| roster.text(*number).cmp(text))
            .ok()?;
        self.by_text.get(found).copied()
    }

    /// The devices that a matcher asks for.
    pub(super) fn chosen(&self, roster: &Roster, matcher: &Matcher<'_>) -> Places {
        let Some(tags) = &matcher.tags else {
            return Places::NONE;
        };
        let mut found = Places::first(roster.len());
        if let Some(number) = matcher.type_number {
            found.and(&Places::of(self.of_type(number)));
        }
        for (key, values) in tags {
            let mut any = Places::NONE;
            for value in values {
                let places = self.of_tag(*key, *value).iter();
                places.for_each(|place| any.put(usize::from(*place)));
            }
            found.and(&any);
        }
        if !matcher.ids.is_empty() {
            let mut named = Places::NONE;
            let places = matcher.ids.iter().filter_map(|id| self.of_id(roster, id));
            places.for_each(|place| named.put(place));
            found.and(&named);
        }
        if !matcher.any_of.is_empty() && !found.is_empty() {
            let mut any = Places::NONE;
            matcher.any_of.iter().for_each(|one| any.or(&self.chosen(roster, one)));
            found.and(&any);
        }
        for none in &matcher.none_of {
            found.without(&self.chosen(roster, none));
        }
        if let Some(area) = matcher.area {
            let outside = |place: &usize| !roster.spot(*place).is_some_and(|spot| area.holds(spot));
            found
                .into_places()
                .filter(outside)
                .for_each(|place| found.remove(place));
        }
        found
    }

    fn of_tag(&self, key: u32, value: u32) -> &[u16] {
        let found = self
            .tags
            .binary_search_by_key(&(key, value), |(key, value, _)| (*key, *value));
        let range = found.map_or(0..0, |at| range(at, |at| self.tags.get(at).map(|(.., end)| *end)));
        self.tag_places.get(range).unwrap_or_default()
    }

    fn of_type(&self, number: u32) -> &[u16] {
        let found = self.types.binary_search_by_key(&number, |(number, _)| *number);
        let range = found.map_or(0..0, |at| range(at, |at| self.types.get(at).map(|(_, end)| *end)));
        self.type_places.get(range).unwrap_or_default()
    }

    fn of_id(&self, roster: &Roster, id: &str) -> Option<usize> {
        let by_id = |place: &u16| roster.id(usize::from(*place)).cmp(id);
        let found = self.by_id.binary_search_by(by_id).ok()?;
        self.by_id.get(found).map(|place| usize::from(*place))
    }
}

/// Each key of a sorted list, and where the last of it ends.
fn ends<K: Copy + PartialEq>(sorted: &[(K, u16)]) -> impl Iterator<Item = (K, u32)> {
    let mut end = 0;
    sorted.chunk_by(|a, b| a.0 == b.0).map(move |same| {
        end += same.len() as u32;
        (same[0].0, end)
    })
}

/// The places of the key at `at`.
fn range(at: usize, end: impl Fn(usize) -> Option<u32>) -> Range<usize> {
    let begin = at.checked_sub(1).and_then(&end).unwrap_or(0);
    begin as usize..end(at).unwrap_or(begin) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::print_stdout, reason = "seeds")]
    use super::super::area::{Area, Spot};
    use super::super::registry::DeviceFilter;
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use tidemark_proto::peer::StoredDevice;
    use tidemark_proto::v1::{Device, Place};

    #[test]
    fn sets_of_places() {
        for count in [0, 1, 63, 64, 65, 1_000, 1_024] {
            let all: Vec<usize> = Places::first(count).into_places().collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        let mut some = Places::of(&[3, 64, 1_023]);
        some.remove(64);
        assert_eq!(some.into_places().collect::<Vec<_>>(), [3, 1_023]);
    }

    fn random_devices(random: &mut StdRng) -> Vec<StoredDevice> {
        let count = random.random_range(0..=PAGE);
        let device = |ordinal: u32, random: &mut StdRng| {
            let mut device = Device {
                id: format!("d{}", ordinal.wrapping_mul(7_919) % 10_007),
                ..Device::default()
            };
            for key in ["town", "vendor", "own"] {
                if random.random_bool(0.8) {
                    let kinds = if key == "own" { 5_000 } else { 4 };
                    device
                        .tags
                        .insert(key.to_owned(), format!("v{}", random.random_range(0..kinds)));
                }
            }
            device.place = random.random_bool(0.7).then(|| Place {
                latitude_deg: random.random_range(0..100) as f64 / 10.0,
                longitude_deg: 0.0,
            });
            StoredDevice {
                device: Some(device),
                type_number: random.random_range(1..4),
                ordinal,
            }
        };
        (0..count).map(|ordinal| device(ordinal, random)).collect()
    }

    fn random_filter(random: &mut StdRng, depth: usize) -> DeviceFilter {
        let mut filter = DeviceFilter::default();
        if random.random_bool(0.3) {
            filter.type_number = Some(random.random_range(1..5));
        }
        for key in ["town", "vendor", "own", "no such key"] {
            if random.random_bool(0.25) {
                let values = (0..random.random_range(0..3)).map(|_| format!("v{}", random.random_range(0..6)));
                filter.tags.push((key.to_owned(), values.collect()));
            }
        }
        if random.random_bool(0.1) || depth > 0 && random.random_bool(0.2) {
            filter.ids = (0..40)
                .map(|_| format!("d{}", random.random_range(0..10_007)))
                .collect();
        }
        if random.random_bool(0.2) {
            filter.area = Some(Area::Circle {
                middle: Spot {
                    latitude_deg: 5.0,
                    longitude_deg: 0.0,
                },
                radius_m: random.random_range(0..600_000) as f64,
            });
        }
        if depth < 3 {
            for _ in 0..random.random_range(0..3) {
                let nested = random_filter(random, depth + 1);
                match random.random_bool(0.5) {
                    true => filter.any_of.push(nested),
                    false => filter.none_of.push(nested),
                }
            }
        }
        filter
    }

    #[test]
    fn sets_choose_what_looking_at_every_device_would_choose() {
        let given = std::env::var("TIDEMARK_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(rand::random::<u64>);
        println!("TIDEMARK_SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let (mut some, mut all) = (0, 0);
        for _ in 0..20 {
            let devices = random_devices(&mut random);
            let looked_at = Roster::new(devices.iter());
            let indexed = Roster::indexed(devices.iter());
            for _ in 0..100 {
                let filter = random_filter(&mut random, 0);
                let expected: Vec<usize> = looked_at.filtered(&filter).collect();
                let found: Vec<usize> = indexed.filtered(&filter).collect();
                assert_eq!(found, expected, "seed {seed}: {filter:?}");
                some += usize::from(!found.is_empty() && found.len() < devices.len());
                all += 1;
            }
        }
        assert!(
            some > all / 10,
            "hardly any filter chose some and not all: {some} of {all}"
        );
    }
}
