//! Columns of a block straight into aggregates: by the statistics in the header where one window holds the whole block,
//! else stretch by stretch of the values that fall into one window.
//!
//! Never here: windows (see `window`) and sums (see `partial`). Invariant: what comes out is what folding every value by
//! itself gives, sums of doubles to their last bits aside.

use super::Block;
use super::clocks::Clocks;
use crate::by_window::ByWindow;
use crate::corrupt::Corrupt;
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
        partials: &mut ByWindow,
    ) -> Result<(), Corrupt> {
        let Some(value_type) = self.block.value_type(property) else {
            return Ok(());
        };
        let ends = (self.block.first_ns(), self.block.last_ns());
        if let (Some(first), Some(last)) = (windows.index_of(ends.0), windows.index_of(ends.1))
            && first == last
            && let Some(stats) = self.block.stats(property)
        {
            partials.at(first, value_type).fold_stats(&stats);
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
        let (mut at, mut stretch) = (times.partition_point(|&t| windows.is_before(t)), 1);
        while let Some(&time) = times.get(at) {
            let Some(window) = windows.index_of(time) else {
                break;
            };
            let end = windows.bounds(window).1;
            let inside = |t: i64| t < end || windows.edge == Edge::EndClosed && t == end;
            stretch = stretch_of(&times[at..], stretch, inside);
            let partial = partials.at(window, value_type);
            partial.fold_values(&times[at..at + stretch], &column.values, at);
            at += stretch;
        }
        Ok(())
    }
}

/// How many of the first `times` are inside, at least one; `guess` is how many there were last time.
fn stretch_of(times: &[i64], guess: usize, inside: impl Fn(i64) -> bool) -> usize {
    let is_inside = |at: usize| times.get(at).is_some_and(|&t| inside(t));
    if is_inside(guess - 1) && !is_inside(guess) {
        return guess;
    }
    let (mut low, mut step) = (0, 1);
    while is_inside(low + step - 1) {
        low += step;
        step *= 2;
    }
    let high = (low + step - 1).min(times.len());
    (low + times[low..high].partition_point(|&t| inside(t))).max(1)
}
