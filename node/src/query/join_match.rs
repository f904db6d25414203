//! Which devices of a right side belong to a device of the left one.
//!
//! Never here: points. Invariant: who belongs to whom depends on tags, places and ids alone, not on shards or their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidemark_proto::v1::{Device, JoinMatch, JoinSide};

use crate::error::{Error, Reason, Result};
use crate::limits::SELECTORS_MAX;
use crate::shard::{Spot, distance_m};

/// What of a device decides to whom it belongs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    tags: BTreeMap<String, String>,
    spot: Option<Spot>,
}

impl Facts {
    /// Those of a device, of tags as far as they are asked for.
    pub(super) fn of(device: &Device, keys: &BTreeSet<String>) -> Facts {
        let tags = device.tags.iter().filter(|(key, _)| keys.contains(*key));
        Facts {
            tags: tags.map(|(key, value)| (key.clone(), value.clone())).collect(),
            spot: device.place.as_ref().map(|place| Spot {
                latitude_deg: place.latitude_deg,
                longitude_deg: place.longitude_deg,
            }),
        }
    }

    /// About what they take, bytes.
    pub(super) fn bytes(&self) -> usize {
        let tags = self.tags.iter().map(|(key, value)| key.len() + value.len());
        size_of::<Facts>() + tags.map(|bytes| bytes + 2 * size_of::<String>()).sum::<usize>()
    }
}

/// Checks what is asked of a match.
pub(super) fn check(asked: &JoinMatch) -> Result<()> {
    let refused = |message: String, field: &str| Err(Error::new(Reason::InvalidValue, message).field(field));
    if asked.tags.len() > SELECTORS_MAX {
        let given = asked.tags.len();
        return refused(format!("{given} tags, the limit is {SELECTORS_MAX}"), "match.tags");
    }
    match asked.within_m.is_finite() && asked.within_m >= 0.0 {
        true => Ok(()),
        false => refused(format!("a distance of {} m", asked.within_m), "match.within_m"),
    }
}

/// The tags that decide about some sides.
pub(super) fn tags_of<'a>(sides: impl IntoIterator<Item = &'a JoinSide>) -> BTreeSet<String> {
    let asked = sides.into_iter().filter_map(|side| side.r#match.as_ref());
    asked.flat_map(|asked| asked.tags.iter().cloned()).collect()
}

/// True where more than ids of left devices has to be known.
pub(super) fn needs_facts(side: &JoinSide) -> bool {
    let asked = side.r#match.as_ref();
    asked.is_some_and(|asked| !asked.tags.is_empty() || counts_distance(asked))
}

fn counts_distance(asked: &JoinMatch) -> bool {
    asked.nearest > 0 || asked.within_m > 0.0
}

/// The devices of a right side, ascending by id, ready to be asked who belongs to whom.
#[derive(Debug, Default)]
pub(super) struct Matching {
    asked: JoinMatch,
    devices: Vec<(String, Facts)>,
    by_tags: HashMap<Vec<String>, Vec<usize>>,
}

impl Matching {
    /// Of devices that ascend by id.
    pub(super) fn new(asked: Option<JoinMatch>, devices: Vec<(String, Facts)>) -> Matching {
        let asked = asked.unwrap_or_default();
        let mut by_tags: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
        for (place, (_, facts)) in devices.iter().enumerate() {
            if let Some(values) = values(&asked, facts) {
                by_tags.entry(values).or_default().push(place);
            }
        }
        Matching {
            asked,
            devices,
            by_tags,
        }
    }

    /// Place of a device.
    pub(super) fn place(&self, id: &str) -> Option<usize> {
        self.devices.binary_search_by(|(other, _)| other.as_str().cmp(id)).ok()
    }

    /// Places of the devices that belong to a left one, ascending.
    pub(super) fn belonging(&self, id: &str, left: &Facts) -> Vec<usize> {
        let Some(values) = values(&self.asked, left) else {
            return Vec::new();
        };
        let mut places = self.by_tags.get(&values).cloned().unwrap_or_default();
        if self.asked.same_device {
            places.retain(|place| self.devices[*place].0 == id);
        }
        match counts_distance(&self.asked) {
            true => self.near(left, places),
            false => places,
        }
    }

    fn near(&self, left: &Facts, places: Vec<usize>) -> Vec<usize> {
        let Some(spot) = left.spot else {
            return Vec::new();
        };
        let far = |place: usize| Some((distance_m(spot, self.devices[place].1.spot?), place));
        let mut near: Vec<(f64, usize)> = places.into_iter().filter_map(far).collect();
        if self.asked.within_m > 0.0 {
            near.retain(|(far, _)| *far <= self.asked.within_m);
        }
        near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        if self.asked.nearest > 0 {
            near.truncate(self.asked.nearest as usize);
        }
        let mut places: Vec<usize> = near.into_iter().map(|(_, place)| place).collect();
        places.sort_unstable();
        places
    }
}

/// A device's values of the tags that have to agree; `None` where it lacks one.
fn values(asked: &JoinMatch, facts: &Facts) -> Option<Vec<String>> {
    asked.tags.iter().map(|key| facts.tags.get(key).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_proto::v1::Place;

    fn facts(town: &str, at: Option<f64>) -> Facts {
        let tag = (!town.is_empty()).then(|| ("town".to_owned(), town.to_owned()));
        let device = Device {
            tags: tag.into_iter().collect(),
            place: at.map(|longitude_deg| Place {
                latitude_deg: 0.0,
                longitude_deg,
            }),
            ..Device::default()
        };
        Facts::of(&device, &["town".to_owned()].into())
    }

    #[track_caller]
    fn check(asked: JoinMatch, left: (&str, Facts), expected: &[&str]) {
        let right = [
            ("a", facts("x", Some(1.0))),
            ("b", facts("x", Some(3.0))),
            ("c", facts("y", Some(2.0))),
            ("d", facts("y", None)),
            ("e", facts("", Some(2.0))),
        ];
        let devices = right.map(|(id, facts)| (id.to_owned(), facts)).to_vec();
        let matching = Matching::new(Some(asked), devices);
        let found = matching.belonging(left.0, &left.1);
        let found: Vec<&str> = found.iter().map(|place| matching.devices[*place].0.as_str()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn tags_places_and_ids_decide() {
        let tags = || JoinMatch {
            tags: vec!["town".into()],
            ..JoinMatch::default()
        };
        let nearest = |nearest, within_m| JoinMatch {
            nearest,
            within_m,
            ..JoinMatch::default()
        };
        check(
            JoinMatch::default(),
            ("l", Facts::default()),
            &["a", "b", "c", "d", "e"],
        );
        check(tags(), ("l", facts("x", None)), &["a", "b"]);
        check(tags(), ("l", facts("z", None)), &[]);
        check(tags(), ("l", facts("", None)), &[]);
        check(nearest(1, 0.0), ("l", facts("", Some(2.9))), &["b"]);
        check(nearest(1, 0.0), ("l", facts("", Some(2.0))), &["c"]);
        check(nearest(3, 0.0), ("l", facts("", Some(2.0))), &["a", "c", "e"]);
        check(nearest(3, 50_000.0), ("l", facts("", Some(2.0))), &["c", "e"]);
        check(nearest(0, 120_000.0), ("l", facts("", Some(1.5))), &["a", "c", "e"]);
        check(nearest(2, 0.0), ("l", facts("x", None)), &[]);
        let both = JoinMatch { nearest: 1, ..tags() };
        check(both, ("l", facts("y", Some(9.0))), &["c"]);
        let same_device = JoinMatch {
            same_device: true,
            ..JoinMatch::default()
        };
        check(same_device, ("d", Facts::default()), &["d"]);
    }
}
