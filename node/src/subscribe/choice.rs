//! Which devices of a shard match, as they are registered and tagged by now.
//!
//! Never here: what they sent. Invariant: a device counts exactly if a selection made now would have it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::Result;
use crate::raft::state::store_error;
use crate::shard::{DeviceFilter, Page, Roster, Shard};

/// Pages that are remembered; another one takes the place of any of them.
const PAGES_MAX: usize = 64;

/// A selector at work on one shard.
pub(super) struct Choice {
    filter: DeviceFilter,
    ids: HashSet<String>,
    pages: HashMap<u32, Looked>,
}

/// A page of devices, and which of them match.
struct Looked {
    page: Page,
    matches: Vec<bool>,
}

/// A device that matches.
pub(super) struct Device {
    roster: Arc<Roster>,
    at: usize,
}

impl Device {
    pub(super) fn id(&self) -> &str {
        self.roster.id(self.at)
    }

    pub(super) fn type_number(&self) -> u32 {
        self.roster.type_number(self.at)
    }
}

impl Choice {
    pub(super) fn new(filter: DeviceFilter) -> Choice {
        Choice {
            ids: filter.ids.iter().cloned().collect(),
            filter,
            pages: HashMap::new(),
        }
    }

    pub(super) fn filter(&self) -> &DeviceFilter {
        &self.filter
    }

    /// The device of an ordinal, if it matches.
    pub(super) fn device(&mut self, shard: &Shard, ordinal: u32) -> Result<Option<Device>> {
        let number = Page::of(ordinal);
        let known = self.pages.get(&number).map(|looked| &looked.page);
        let anew = shard
            .page(self.filter.type_number, number, known)
            .map_err(store_error)?;
        if let Some(page) = anew {
            let looked = self.look(page);
            if self.pages.len() >= PAGES_MAX && !self.pages.contains_key(&number) {
                let any = self.pages.keys().next().copied();
                any.map(|any| self.pages.remove(&any));
            }
            self.pages.insert(number, looked);
        }
        let Some(looked) = self.pages.get(&number) else {
            return Ok(None);
        };
        let roster = looked.page.roster();
        let place = roster.place_of(ordinal).filter(|at| looked.matches[*at]);
        Ok(place.map(|at| Device {
            roster: roster.clone(),
            at,
        }))
    }

    fn look(&self, page: Page) -> Looked {
        let roster = page.roster();
        let mut matches = vec![false; roster.len()];
        for at in roster.filtered(&self.filter) {
            matches[at] = self.ids.is_empty() || self.ids.contains(roster.id(at));
        }
        Looked { page, matches }
    }
}
