//! Columns of a block straight into aggregates: by the statistics in the header where one window holds the whole block,
//! else stretch by stretch of the values that fall into one window.
//!
//! Never here: windows (see `window`) and sums (see `partial`). Invariant: what comes out is what folding every value by
//! itself gives, sums of doubles to their last bits aside.

use std::collections::BTreeMap;

use super::Block;
use super::clocks::Clocks;
use crate::corrupt::Corrupt;
use crate::partial::Partial;
use crate::record::PropertyNumber;
use crate::window::{Edge, Windows};

/// Folds columns of one block; what they share is decoded once.
#[derive(Debug)]
pub struct Folding<'b, 'a> {
    block: &'b Block<'a>,
    rows: Option<(Vec<i64>, Option<Clocks>)>,
}

impl<'a> Block<'a> {
    /// Begins to fold columns of this block.
    pub fn folding(&self) -> Folding<'_, 'a> {
        Folding {
            block: self,
            rows: None,
        }
    }
}

impl Folding<'_, '_> {
    /// Adds the values of a column to the aggregates of the windows they fall into, by number of the window. Does nothing
    /// where the block has no such column.
    ///
    /// # Errors
    /// The times or the column are damaged.
    pub fn fold(
        &mut self,
        property: PropertyNumber,
        windows: &Windows,
        partials: &mut BTreeMap<i64, Partial>,
    ) -> Result<(), Corrupt> {
        let Some(value_type) = self.block.value_type(property) else {
            return Ok(());
        };
        let empty = || Partial::empty(value_type);
        let ends = (self.block.first_ns(), self.block.last_ns());
        if let (Some(first), Some(last)) = (windows.index_of(ends.0), windows.index_of(ends.1))
            && first == last
            && let Some(stats) = self.block.stats(property)
        {
            partials.entry(first).or_insert_with(empty).fold_stats(&stats);
            return Ok(());
        }
        let (times, clocks) = match self.rows.take() {
            Some(rows) => self.rows.insert(rows),
            None => self.rows.insert(self.block.read_times()?),
        };
        let Some(column) = self.block.column_with(property, clocks.as_ref())? else {
            return Ok(());
        };
        let present: Vec<i64>;
        let times = match &column.presence {
            None => times.as_slice(),
            Some(map) => {
                present = map.iter_ones().map(|row| times[row]).collect();
                &present
            }
        };
        let mut at = 0;
        while let Some(&time) = times.get(at) {
            let Some(window) = windows.index_of(time) else {
                at += 1;
                continue;
            };
            let end = windows.bounds(window).1;
            let inside = |&t: &i64| t < end || windows.edge == Edge::EndClosed && t == end;
            let next = at + times[at..].partition_point(inside).max(1);
            let partial = partials.entry(window).or_insert_with(empty);
            partial.fold_values(&times[at..next], &column.values, at);
            at = next;
        }
        Ok(())
    }
}
