//! Points of devices followed one after the other, for what a window holds of their sequence.
//!
//! Never here: which points count (see `walk`), what is gathered (see `functions`), what windows answer. Invariant: what a
//! window gathers does not depend on where the range of the question begins or ends.

use tidemark_proto::v1::QueryAggregateRequest;
use tidemark_series::gaps::{Stretch, Stretches, Widest};
use tidemark_series::rollup::{self, Row};
use tidemark_series::{Feed, Gathered, Needs, Rise, Slots, Windows};

use super::functions::{Asked, gathered};
use super::grid::{Grid, slots};
use super::plan::scan_range;
use super::series::{Series, check_budget};
use super::shard_side::{Answering, Chosen};
use super::walk::{Walk, Walked, choice};
use super::way::Piece;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;
use crate::shard::Rolling;

/// Follows the points of devices of one type.
pub(super) struct Follower<'a> {
    walk: Walk<'a>,
    /// By property.
    asked: Vec<(Windows, Gathered)>,
    /// By property, where longest gaps are asked for.
    grids: Vec<Grid>,
    /// By property, where slots are counted.
    slots: Vec<Option<Slots>>,
}

impl<'a> Follower<'a> {
    /// For properties of a checked request.
    pub(super) fn new(
        answering: &'a Answering<'a>,
        request: &QueryAggregateRequest,
        functions: &[Asked],
        def: &'a TypeDef,
        asked: &[(&'a PropertyDef, Windows)],
        rolling: Option<Rolling>,
    ) -> Follower<'a> {
        let now_ns = answering.present_ns();
        let gathered = |property: &PropertyDef| gathered(functions, request, def, property, now_ns).unwrap_or_default();
        let walked = asked.iter().map(|(property, _)| Walked {
            property,
            choice: choice(property, request.drop_suspect),
        });
        let walked: Vec<Walked<'a>> = walked.collect();
        let slots = asked
            .iter()
            .map(|(property, _)| slots(request, def, property))
            .collect();
        let asked: Vec<_> = asked
            .iter()
            .map(|(p, windows)| (windows.clone(), gathered(p)))
            .collect();
        let gaps = walked.iter().filter(|_| request.largest_gap);
        let grids = gaps.map(|walked| Grid::new(request, walked.property.kind)).collect();
        let range = scan_range(asked.iter().map(|(windows, _)| windows));
        // A rise is told from points further back than the windows.
        let rises = asked.iter().filter_map(|(_, gathered)| gathered.rise);
        let reach = rises.map(Rise::reach_ns).max().unwrap_or(0);
        let range = (range.0.saturating_sub(reach), range.1);
        let looking = asked.iter().filter(|(_, gathered)| gathered.looks_around());
        let around = looking.map(|(_, gathered)| gathered.max_gap_ns).max().unwrap_or(0);
        let steps = asked.iter().any(|(_, gathered)| gathered.steps);
        // A step belongs to the time it ends at: the one that ends with the last window is read, in whatever block it begins.
        let (back, ahead) = if steps {
            (i64::MAX, around.max(1))
        } else {
            (around, around)
        };
        Follower {
            walk: Walk::new(answering, def, walked, range, (back, ahead)).with_rollups(rolling),
            asked,
            grids,
            slots,
        }
    }

    /// Adds the points of a device to its series, one per property; returns how many were left out for their quality.
    pub(super) fn follow(&self, chosen: &Chosen, series: &mut [Series]) -> Result<u64> {
        let feeds = self
            .asked
            .iter()
            .map(|(windows, gathered)| Feed::new(gathered, windows));
        let mut feeds: Vec<Feed<'_>> = feeds.collect();
        let bytes_max = self.walk.answering.limits.partials_bytes_max;
        let mut stretches: Vec<Stretches> = self.grids.iter().map(|_| Stretches::default()).collect();
        let mut left_out = 0;
        self.walk.pieces(chosen, &mut |at, piece| {
            let (windows, slots, series) = (&self.asked[at].0, &self.slots[at], &mut series[at]);
            let points = match piece {
                Piece::Points(points) => points,
                Piece::Told(_) => return Ok(()),
                Piece::Row(row) => {
                    left_out += self.add_row(row, windows, series);
                    if let Some(slots) = slots {
                        slots.fill_row(row, &mut series.slots);
                    }
                    if let Some(run) = &row.run {
                        feeds[at].run(run, &mut series.sequences);
                    }
                    return check_budget(series.bytes() + feeds[at].bytes(), bytes_max);
                }
            };
            left_out += points.dropped_within(windows);
            points.fold(windows, Needs::All, &mut series.points);
            if let Some(slots) = slots {
                slots.fill(&points.times, &mut series.slots);
            }
            for (place, t_ns) in points.times.iter().enumerate() {
                if let Some(value) = points.values.get(place) {
                    feeds[at].point(*t_ns, value, &mut series.sequences);
                }
            }
            if let Some(stretches) = stretches.get_mut(at) {
                points.times.iter().for_each(|t_ns| stretches.point(windows, *t_ns));
            }
            check_budget(series.bytes() + feeds[at].bytes(), bytes_max)
        })?;
        for (feed, series) in feeds.iter_mut().zip(&mut *series) {
            feed.end(&mut series.sequences);
        }
        for ((grid, stretches), series) in self.grids.iter().zip(stretches).zip(series) {
            for (window, whole) in grid.slide(stretches.into_inner(), Stretch::append) {
                let gap_ns = whole.gap_ns(grid.bounds(window));
                series.gaps.add(window, Widest { devices: 1, gap_ns });
            }
        }
        Ok(left_out)
    }

    /// Adds what a window of a rollup has of points one by one; returns how many of its points do not count.
    fn add_row(&self, row: &Row, windows: &Windows, series: &mut Series) -> u64 {
        let Some(window) = rollup::window_of(windows, row.start_ns, row.length_ns) else {
            return 0;
        };
        if let Some(points) = &row.points {
            series.points.at(window, points.value_type()).merge(points);
        }
        row.dropped
    }
}
