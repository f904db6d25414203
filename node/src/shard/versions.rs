//! Which version of a shard changed what, so that a decoded value in memory is used only where the database would give it.
//!
//! ```text
//! apply   version = next | note it at everything the chunk changes | write the chunk | publish version
//! read    seen = published version | take a view | a value kept by version v is what the view holds where
//!         noted <= v (nobody changed it since) and noted <= seen (nor is anybody about to)
//! keep    what was read from the view is kept by version seen
//! ```
//!
//! Never here: the values. Invariant: a version is noted before any view can hold its changes and published after every
//! view must; so what a reader takes from memory and what it reads from its view are of one point in time, and whoever was
//! told that a chunk is applied never gets what was before it. Values that share a place are read again needlessly, no more.

use std::sync::atomic::{AtomicU64, Ordering};

/// Newest values by ordinal, 64 KiB a shard: neighbours do not share a place before there are so many.
const NEWEST_PLACES: usize = 1 << 13;
/// Pages of devices.
const PAGE_PLACES: usize = 1 << 8;

/// The versions of a shard, and by which of them a thing was changed last.
pub(super) struct Versions {
    published: AtomicU64,
    newest: Box<[AtomicU64]>,
    pages: Box<[AtomicU64]>,
}

/// What a chunk changes of that which may be kept in memory.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Ordinals of devices with other newest values.
    pub(super) newest: Vec<u32>,
    /// Pages with other devices.
    pub(super) pages: Vec<u32>,
    /// Anything may be another one.
    pub(super) all: bool,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.newest.is_empty() && self.pages.is_empty() && !self.all
    }
}

impl Versions {
    pub(super) fn new() -> Self {
        let zeros = |places: usize| (0..places).map(|_| AtomicU64::new(0)).collect();
        Self {
            published: AtomicU64::new(0),
            newest: zeros(NEWEST_PLACES),
            pages: zeros(PAGE_PLACES),
        }
    }

    /// Notes what a chunk is about to change; the version is to be published once it is written. One chunk at a time.
    pub(super) fn note(&self, changes: &Changes) -> u64 {
        let version = self.published.load(Ordering::Relaxed) + u64::from(!changes.is_empty());
        let note = |place: &AtomicU64| place.store(version, Ordering::SeqCst);
        if changes.all {
            self.newest.iter().chain(&self.pages).for_each(note);
        }
        changes
            .newest
            .iter()
            .for_each(|ordinal| note(self.newest_place(*ordinal)));
        changes.pages.iter().for_each(|page| note(self.page_place(*page)));
        version
    }

    /// What was noted is written.
    pub(super) fn publish(&self, version: u64) {
        self.published.store(version, Ordering::SeqCst);
    }

    /// The version that every view taken from now on has.
    pub(super) fn seen(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    /// Whether newest values kept by version `kept` are those of a view that saw version `seen`.
    pub(super) fn holds_newest(&self, ordinal: u32, kept: u64, seen: u64) -> bool {
        self.newest_place(ordinal).load(Ordering::SeqCst) <= kept.min(seen)
    }

    /// The same for a page of devices.
    pub(super) fn holds_page(&self, page: u32, kept: u64, seen: u64) -> bool {
        self.page_place(page).load(Ordering::SeqCst) <= kept.min(seen)
    }

    fn newest_place(&self, ordinal: u32) -> &AtomicU64 {
        &self.newest[ordinal as usize % NEWEST_PLACES]
    }

    fn page_place(&self, page: u32) -> &AtomicU64 {
        &self.pages[page as usize % PAGE_PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_value_holds_until_it_is_about_to_change() {
        let versions = Versions::new();
        let nothing = versions.note(&Changes::default());
        versions.publish(nothing);
        assert_eq!(versions.seen(), 0);
        assert!(versions.holds_newest(7, 0, 0));

        let changes = Changes {
            newest: vec![7],
            pages: vec![1],
            all: false,
        };
        let version = versions.note(&changes);
        assert!(!versions.holds_newest(7, 0, 0), "the chunk may be written already");
        assert!(versions.holds_newest(8, 0, 0) && versions.holds_page(0, 0, 0));
        versions.publish(version);
        assert!(!versions.holds_newest(7, 0, versions.seen()), "kept before the chunk");
        assert!(!versions.holds_newest(7, 1, 0), "kept after the reader's view");
        assert!(versions.holds_newest(7, 1, versions.seen()) && versions.holds_page(1, 1, 1));

        let all = Changes {
            all: true,
            ..Changes::default()
        };
        versions.publish(versions.note(&all));
        assert!(!versions.holds_newest(8, 1, 2) && !versions.holds_page(0, 1, 2));
    }
}
