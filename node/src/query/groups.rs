//! Series of devices that agree on the tags they are grouped by.
//!
//! Never here: windows, blocks. Invariant: the partials of a group are the same however its devices were read: a device is
//! merged as a whole, after those before it, unless what is needed is the same in any order.

use std::collections::BTreeMap;

use tidemark_proto::peer::Partials;

use super::series::{Series, check_budget};
use crate::error::Result;

/// What devices of a group share: type, property, and the values of the tags that devices are grouped by.
pub(super) type GroupKey = (u32, u32, BTreeMap<String, String>);

/// Partials of groups of devices.
pub(super) struct Groups {
    tags: Vec<String>,
    by_values: BTreeMap<(u32, Vec<String>), usize>,
    groups: Vec<Group>,
    bytes: usize,
    bytes_max: usize,
}

/// Devices of a type: how many, and their series, by property.
struct Group {
    devices: u64,
    properties: Vec<u32>,
    series: Vec<Series>,
}

impl Groups {
    /// None yet, by these tags.
    pub(super) fn new(tags: &[String], bytes_max: usize) -> Groups {
        Groups {
            tags: tags.to_vec(),
            by_values: BTreeMap::new(),
            groups: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Takes a device in; returns the place of its group. `tag` gives the device's value of a tag; all devices of a type have
    /// the same `properties`.
    pub(super) fn place<'a>(
        &mut self,
        type_number: u32,
        properties: &[u32],
        tag: impl Fn(&str) -> Option<&'a str>,
    ) -> usize {
        let values = self.tags.iter().map(|key| tag(key).unwrap_or_default().to_owned());
        let next = self.groups.len();
        let place = *self.by_values.entry((type_number, values.collect())).or_insert(next);
        if place == next {
            self.groups.push(Group {
                devices: 0,
                properties: properties.to_vec(),
                series: properties.iter().map(|_| Series::default()).collect(),
            });
        }
        self.groups[place].devices += 1;
        place
    }

    /// Merges the series of a device into the group at `place` and leaves them empty.
    pub(super) fn merge(&mut self, place: usize, series: &mut [Series]) -> Result<()> {
        self.with(place, |merged| {
            for (merged, one) in merged.iter_mut().zip(series) {
                merged.merge(one);
            }
            Ok(())
        })
    }

    /// Has `fold` add to the series of the group at `place`, by property.
    pub(super) fn with<T>(&mut self, place: usize, fold: impl FnOnce(&mut [Series]) -> Result<T>) -> Result<T> {
        let series = &mut self.groups[place].series;
        self.bytes -= bytes_of(series);
        let folded = fold(series)?;
        self.bytes += bytes_of(series);
        check_budget(self.bytes, self.bytes_max)?;
        Ok(folded)
    }

    /// What their windows take, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The groups, by type, property and tags.
    pub(super) fn into_parts(self) -> impl Iterator<Item = Partials> {
        let mut by_key: BTreeMap<GroupKey, (u64, Series)> = BTreeMap::new();
        let mut groups: Vec<Option<Group>> = self.groups.into_iter().map(Some).collect();
        for ((type_number, values), place) in self.by_values {
            let Some(group) = groups[place].take() else { continue };
            let tags: BTreeMap<_, _> = self.tags.iter().cloned().zip(values).collect();
            for (property, series) in group.properties.into_iter().zip(group.series) {
                by_key.insert((type_number, property, tags.clone()), (group.devices, series));
            }
        }
        by_key
            .into_iter()
            .map(|((type_number, property, tags), (devices, mut series))| {
                let mut part = Partials {
                    type_number,
                    property,
                    tags,
                    devices,
                    ..Partials::default()
                };
                series.put_into(&mut part);
                part
            })
    }
}

fn bytes_of(series: &[Series]) -> usize {
    series.iter().map(Series::bytes).sum()
}
