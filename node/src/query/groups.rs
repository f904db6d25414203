//! Series of devices that agree on the tags they are grouped by.
//!
//! Never here: windows, blocks. Invariant: a device is merged as a whole, after those before it, so that the partials of
//! a group are the same however its devices were read.

use std::collections::BTreeMap;

use tidemark_proto::peer::Partials;
use tidemark_series::ByWindow;

use super::partials::{PARTIAL_BYTES, check_budget, to_wire};
use crate::error::Result;

/// What devices of a group share: type, property, and the values of the tags that devices are grouped by.
pub(super) type GroupKey = (u32, u32, BTreeMap<String, String>);

/// Partials of groups of devices.
pub(super) struct Groups {
    tags: Vec<String>,
    by_values: BTreeMap<(u32, Vec<String>), Group>,
    bytes: usize,
    bytes_max: usize,
}

/// Series of a group by property, each with its number of devices.
type Group = BTreeMap<u32, (u64, ByWindow)>;

impl Groups {
    /// None yet, by these tags.
    pub(super) fn new(tags: &[String], bytes_max: usize) -> Groups {
        Groups {
            tags: tags.to_vec(),
            by_values: BTreeMap::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Merges the series of one device, a property each, and leaves them empty. `tag` gives the device's value of a tag.
    pub(super) fn add<'a>(
        &mut self,
        type_number: u32,
        tag: impl Fn(&str) -> Option<&'a str>,
        series: impl Iterator<Item = (u32, &'a mut ByWindow)>,
    ) -> Result<()> {
        let values = self.tags.iter().map(|key| tag(key).unwrap_or_default().to_owned());
        let group = self.by_values.entry((type_number, values.collect())).or_default();
        for (property, one) in series {
            let (devices, merged) = group.entry(property).or_default();
            *devices += 1;
            self.bytes += merged.merge(one) * PARTIAL_BYTES;
        }
        check_budget(self.bytes, self.bytes_max)
    }

    /// The groups, by type, property and tags.
    pub(super) fn into_parts(self) -> impl Iterator<Item = Partials> {
        let mut by_key: BTreeMap<GroupKey, (u64, ByWindow)> = BTreeMap::new();
        for ((type_number, values), group) in self.by_values {
            let tags: BTreeMap<_, _> = self.tags.iter().cloned().zip(values).collect();
            for (property, series) in group {
                by_key.insert((type_number, property, tags.clone()), series);
            }
        }
        by_key
            .into_iter()
            .map(|((type_number, property, tags), (devices, mut series))| {
                let (window, partial) = to_wire(&mut series);
                Partials {
                    type_number,
                    property,
                    tags,
                    devices,
                    device: String::new(),
                    window,
                    partial,
                }
            })
    }
}
