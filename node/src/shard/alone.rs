//! Rollups whose points are gone for their age, where something of their time is removed.
//!
//! ```text
//! rollup of an hour  |##|##|  |##|  cut: the window of the removed time goes
//! rollup of a day    |           |  goes whole: what is left of it, shorter ones by the same rule answer
//! ```
//! Of points that are there, rollups go with the bucket (see `rollups`), and are made again. Rollups are alone in sealed time, and in
//! shards of older versions where points went while their type had no rollups.
//!
//! Never here: which points are removed. Invariant: no window is left that a removed point may be in, and none goes that holds
//! no removed time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use tidemark_proto::peer::RemoveRecords;
use tidemark_series::PropertyNumber;
use tidemark_series::rollup::{Cut, Rollup};
use tidemark_series::window::Edge;

use super::apply::Chunk;
use super::extents::Extents;
use super::keys::{self, Level};
use super::read::{Devices, Rows};
use super::rollups::{levels, sealed_before};
use crate::store::{Family, StoreError, View};

const NS_PER_S: i64 = 1_000_000_000;

/// Which edge belongs to the windows of properties.
#[derive(Clone, Debug, Default)]
pub struct Edges(BTreeMap<u32, Edge>);

impl Edges {
    /// Of properties by their numbers.
    #[must_use]
    pub fn new(edges: impl Iterator<Item = (u32, Edge)>) -> Self {
        Self(edges.collect())
    }

    /// Those that a command names.
    fn named(records: &RemoveRecords) -> Self {
        let start_closed = records.start_closed.iter().map(|number| (*number, Edge::StartClosed));
        let end_closed = records.end_closed.iter().map(|number| (*number, Edge::EndClosed));
        Self::new(start_closed.chain(end_closed))
    }

    fn of(&self, property: PropertyNumber) -> Option<Edge> {
        self.0.get(&property.0).copied()
    }
}

/// Devices of a type (its number, ordinals, span of buckets), a range of their time, and the edges of windows.
pub(super) struct Removing<'a> {
    pub(super) devices: (u32, &'a [u32], i64),
    pub(super) range: (i64, i64),
    pub(super) edges: &'a Edges,
}

/// A rollup that loses something: of which length, bucket and device (by its place among the ordinals), and what is left.
pub(super) struct Loses {
    pub(super) level: Level,
    pub(super) bucket_ns: i64,
    pub(super) at: usize,
    pub(super) cut: Cut,
}

/// How long the windows of rollups are.
fn length_ns((_, length_s): Level) -> i64 {
    i64::from(length_s) * NS_PER_S
}

impl Removing<'_> {
    /// Whether there are rollups whose points may be gone.
    pub(super) fn may_meet(&self, view: &View<'_>) -> Result<bool, StoreError> {
        Ok(!keys::is_test_lane(self.devices.0) && !levels(view, Some(self.devices.0))?.is_empty())
    }

    /// Gives `visit` what rollups lose whose points are gone, given the buckets of devices, by their places, that have points within the
    /// range: shorter rollups before longer ones.
    pub(super) fn each(
        &self,
        view: &View<'_>,
        extents: &Extents,
        there: &HashSet<(usize, i64)>,
        mut visit: impl FnMut(Loses),
    ) -> Result<(), StoreError> {
        let (type_number, ordinals, span_ns) = self.devices;
        let sealed_ns = sealed_before(view, type_number)?;
        let extent = extents.of(type_number);
        // Of buckets at the ends of the range, by the rules of shorter rollups: whether these lose something.
        let mut shorter: BTreeMap<(i64, usize, u64), bool> = BTreeMap::new();
        let all = levels(view, Some(type_number))?;
        // Windows may begin before their bucket, and end behind it. As far as the longest do, shorter ones are asked too.
        let reach_ns = all.last().map_or(0, |(level, _)| length_ns(*level));
        let (from_ns, to_ns) = self.range;
        let range = (from_ns.saturating_sub(reach_ns), to_ns.saturating_add(reach_ns));
        for (level, _) in all {
            let length_ns = length_ns(level);
            let mut look = |at: usize, bucket_ns: i64, value: &[u8]| -> Result<(), StoreError> {
                let is_inside = bucket_ns < to_ns && bucket_ns.saturating_add(span_ns) > from_ns;
                // Elsewhere in time that is not sealed its points may be there.
                if bucket_ns >= sealed_ns && !is_inside {
                    return Ok(());
                }
                let rollup = Rollup::open(value, length_ns)?;
                if self.takes_all(&rollup, (bucket_ns, span_ns)) {
                    let (rest, windows) = (None, rollup.windows()?);
                    let cut = Cut { rest, windows };
                    visit(Loses {
                        level,
                        bucket_ns,
                        at,
                        cut,
                    });
                    return Ok(());
                }
                let known = shorter.get(&(bucket_ns, at, rollup.rule)).copied();
                if known == Some(false) {
                    return Ok(());
                }
                let cut = rollup.cut(self.range, |property| self.edges.of(property))?;
                shorter.entry((bucket_ns, at, rollup.rule)).or_insert(cut.is_some());
                if let Some(mut cut) = cut {
                    cut.rest = cut.rest.filter(|_| known.is_none());
                    visit(Loses {
                        level,
                        bucket_ns,
                        at,
                        cut,
                    });
                }
                Ok(())
            };
            let devices = Devices::new(view, Rows::rollups(level), span_ns, ordinals).without(there);
            let flow = devices.scan(
                range,
                extent,
                &mut |at, bucket_ns, value| match look(at, bucket_ns, value) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                },
            )?;
            if let ControlFlow::Break(error) = flow {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the range holds every window that a bucket may have something in.
    fn takes_all(&self, rollup: &Rollup<'_>, (bucket_ns, span_ns): (i64, i64)) -> bool {
        let begins_ns = bucket_ns.saturating_sub(rollup.length_ns);
        let ends_ns = bucket_ns.saturating_add(span_ns).saturating_add(rollup.length_ns);
        self.range.0 <= begins_ns && ends_ns <= self.range.1
    }
}

impl Chunk<'_> {
    /// Cuts the rollups of some devices whose points are gone, given the buckets that have points within the range; which devices had any
    /// to cut, and how many windows are gone.
    pub(super) fn cut_alone(
        &mut self,
        view: &View<'_>,
        type_number: u32,
        records: &RemoveRecords,
        there: &HashSet<(usize, i64)>,
    ) -> Result<(BTreeSet<u32>, u64), StoreError> {
        let edges = Edges::named(records);
        let removing = Removing {
            devices: (type_number, &records.ordinals, records.bucket_span_ns),
            range: (records.from_ns, records.to_ns),
            edges: &edges,
        };
        let (mut cut, mut windows) = (BTreeSet::new(), 0);
        let batch = &mut self.batch;
        removing.each(view, self.extents, there, |loses| {
            let ordinal = records.ordinals[loses.at];
            let key = keys::rollup(loses.level, loses.bucket_ns, ordinal);
            match &loses.cut.rest {
                Some(rest) => batch.put(Family::Meta, &key, rest),
                None => batch.delete(Family::Meta, &key),
            }
            cut.insert(ordinal);
            windows += loses.cut.windows;
        })?;
        Ok((cut, windows))
    }
}
